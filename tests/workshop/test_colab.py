"""The first cell of the notebooks for Colab installs the course where there is none, and does nothing where it is."""

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import nbformat
import pytest

from minircnn.course.working_copy import NOTEBOOKS
from minircnn.shipped import PROJECT_FOLDER
from workshop.colab import INSTALL, with_addresses, write_notebooks

PROBE = """
import minircnn, minircnn.shipped
from minircnn.datasets import ToyTown
print(minircnn.shipped.PROJECT_FOLDER, len(ToyTown("test")))
"""


@pytest.fixture(scope="module")
def notebooks(tmp_path_factory):
    return write_notebooks(tmp_path_factory.mktemp("colab"), "someone/minircnn")


def test_every_notebook_begins_with_the_installation_and_holds_no_answers(notebooks):
    assert len(notebooks) == 13
    for path in notebooks:
        cells, stored = (nbformat.read(one, as_version=4).cells for one in (path, NOTEBOOKS / path.name))
        assert "https://github.com/someone/minircnn" in cells[0].source
        assert len(cells) == len(stored) + 1 and not any(cell.get("outputs") for cell in cells)
        assert len({cell["id"] for cell in cells}) == len(cells)
        for ours, theirs in zip(cells[1:], stored, strict=True):
            assert ours.source == theirs.source or ours.cell_type == "markdown"


def test_links_lead_to_colab_and_to_github(notebooks):
    found = with_addresses(
        "[a](04_rcnn.ipynb) [b](../minircnn/boxes.py) [c](glossary.md#nms) [d](#e) [f](https://g.h)", "i/j"
    )
    github, there = "https://github.com/i/j/blob/main", "https://colab.research.google.com/github/i/j/blob/colab"
    assert found == (
        f"[a]({there}/04_rcnn.ipynb) [b]({github}/minircnn/boxes.py) [c]({github}/notebooks/glossary.md#nms) "
        "[d](#e) [f](https://g.h)"
    )
    marker = "https://github.com/someone/minircnn/blob/main/"
    for path in notebooks:
        text = path.read_text(encoding="utf-8")
        files = {part.split(")")[0].split("#")[0] for part in text.split(marker)[1:]}
        assert files and all((PROJECT_FOLDER / file).is_file() for file in files), files


@pytest.mark.skipif(not (PROJECT_FOLDER / ".git").exists(), reason="there is nothing to clone: this is no clone itself")
def test_first_cell_installs_the_course(tmp_path):
    """In an environment that has what Colab has (PyTorch and the like), but not the course."""
    environment, work = tmp_path / "environment", tmp_path / "work"
    venv.create(environment, with_pip=True)
    python = next(path for path in environment.glob("*/python*") if path.stem == "python")
    command = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(subprocess.check_output([python, "-c", command], text=True).strip())
    (packages / "others.pth").write_text(sysconfig.get_path("purelib"))  # its packages, without its own .pth files
    work.mkdir()
    assert subprocess.run([python, "-c", PROBE], cwd=work, capture_output=True, check=False).returncode
    cell = INSTALL.format(address=PROJECT_FOLDER.as_uri())
    for text in (cell + PROBE, PROBE, cell + PROBE):  # the second is a kernel started anew
        printed = subprocess.check_output([python, "-c", text], cwd=work, text=True)
        assert printed.split() == [str(work / "minircnn-course"), "200"]
    assert subprocess.run([sys.executable, "-c", cell], cwd=tmp_path, check=False).returncode == 0
    assert not (tmp_path / "minircnn-course").exists(), "nothing is fetched where the course is installed"
