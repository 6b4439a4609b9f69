"""Fixtures that several test files share."""

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import settings

from minircnn.shipped import PROJECT_FOLDER

# The same examples in every run, and no deadline: how fast a machine is says nothing about what is right.
settings.register_profile("minircnn", deadline=None, derandomize=True)
settings.load_profile("minircnn")


@pytest.fixture(scope="session", autouse=True)
def nothing_shipped_is_written():
    """Tests of commands that write into data/ by default must name another place, or they replace what is shipped."""

    def state():
        return {path: path.stat().st_mtime_ns for path in (PROJECT_FOLDER / "data").rglob("*") if path.is_file()}

    before = state()
    yield
    assert state() == before, "a test has written into the data that comes with the project"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real photographs (coco-mini, nuclei …) that MINIRCNN_DATA names."""
    folder = os.environ.get("MINIRCNN_DATA")
    if not folder:
        pytest.skip(
            "set MINIRCNN_DATA to a folder that holds coco-mini/images/*.jpg and coco-mini/instances.json "
            "(200 images of COCO train2017, some with crowds, and their annotations)"
        )
    path = Path(folder)
    if not path.is_dir():
        pytest.fail(f"MINIRCNN_DATA={folder} is not a folder")
    return path


BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
MACS = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Microsoft Edge.app/Contents/MacOS/Microsoft Edge",
)


def installed_browser():
    named = os.environ.get("MINIRCNN_BROWSER")
    return named or next(filter(None, map(shutil.which, (*BROWSERS, *MACS))), None)


@pytest.fixture(scope="session")
def browser():
    path = installed_browser()
    if path is None:
        pytest.skip("no Chromium, Chrome or Edge found; MINIRCNN_BROWSER may name one")
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
    with api.sync_playwright() as tools:
        running = tools.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield running
        running.close()
