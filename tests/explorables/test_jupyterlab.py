"""The opening of notebook 09 in a real JupyterLab: the figure in its output answers, and Python reads and sets it."""

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request

import nbformat
import pytest

from minircnn.shipped import PROJECT_FOLDER

NOTEBOOK = PROJECT_FOLDER / "notebooks" / "09_roi_align.ipynb"


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def opening():
    """Notebook 09 up to the cell behind the figure, and a cell that sets the region."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    sources = [cell.source for cell in notebook.cells]
    behind = next(number for number, source in enumerate(sources) if "bench.compare()" in source)
    notebook.cells = [cell for cell in notebook.cells[: behind + 1] if cell.cell_type == "code"]
    notebook.cells.append(nbformat.v4.new_code_cell("bench.region = (0, 0, 30, 30)"))
    for cell in notebook.cells:
        cell.outputs = []
    return notebook


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory):
    """The address of a JupyterLab over a folder with that notebook."""
    folder, port = tmp_path_factory.mktemp("laboratory"), free_port()
    nbformat.write(opening(), folder / "opening.ipynb")
    settings = folder / "config" / "labconfig" / "page_config.json"
    settings.parent.mkdir(parents=True)
    silent = {
        "disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}
    }  # it asks, and covers the page
    settings.write_text(json.dumps(silent), encoding="utf-8")
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", f"--port={port}", f"--ServerApp.root_dir={folder}"]
    command += ["--IdentityProvider.token=", "--allow-root", "--expose-app-in-browser"]
    variables = {**os.environ, "JUPYTER_CONFIG_DIR": str(folder / "config"), "PYTHONPATH": str(PROJECT_FOLDER)}
    with (folder / "log.txt").open("w") as log:
        server = subprocess.Popen(command, env=variables, stdout=log, stderr=log, cwd=folder)
    address = f"http://127.0.0.1:{port}/lab"
    try:
        for _ in range(120):
            try:
                urllib.request.urlopen(address).close()
                break
            except OSError:
                assert server.poll() is None, (folder / "log.txt").read_text()
                time.sleep(0.5)
        yield address
    finally:
        server.terminate()
        server.wait(30)


def test_figure_answers_and_python_reads_and_sets_it(browser, laboratory):
    page = browser.new_page(viewport={"width": 1400, "height": 1800})
    page.set_default_timeout(60_000)
    page.goto(f"{laboratory}/tree/opening.ipynb")
    page.wait_for_function("window.jupyterapp?.shell.currentWidget?.sessionContext?.isReady")
    page.wait_for_function("jupyterapp.shell.currentWidget.sessionContext.session?.kernel?.status === 'idle'")
    page.evaluate("void jupyterapp.commands.execute('notebook:run-all-cells')")  # its promise is not waited for
    edge = page.get_by_role("slider", name="right edge")
    edge.wait_for(timeout=120_000)
    page.wait_for_function(
        "document.querySelector('[aria-label=\"right edge\"]').ariaValueNow === '30'"
    )  # the last cell
    page.get_by_role("button", name="2.93").click()
    edge.press("ArrowRight")
    assert edge.get_attribute("aria-valuenow") == "16"
    compare = page.locator(".jp-CodeCell", has_text="bench.compare()")
    compare.locator(".cm-content").click()
    page.keyboard.press("Shift+Enter")
    output = compare.locator(".jp-OutputArea-output")
    output.filter(has_text=re.compile(r"region: 0.0 0.0 16.0 15.0")).wait_for(timeout=60_000)
    said = output.inner_text()
    assert len(re.findall("the figure's and the package's: equal within 1e-05", said)) == 5, said
    page.close()
