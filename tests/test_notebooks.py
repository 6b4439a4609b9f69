"""The rules that keep the notebooks true, checked on their stored form. nbval runs them and compares their outputs."""

import re
from pathlib import Path

import nbformat
import pytest

FOLDER = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("[0-9][0-9]_*.ipynb"))
MACHINE_PATH = re.compile(r"(?<![\w.])/(home|root|tmp|Users|work|var|opt)/\w|\b[A-Z]:\\\\?\w")


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]


def outputs_of(notebook):
    return [output for cell in code_cells(notebook) for output in cell.outputs]


def test_numbered_without_gaps():
    assert [int(path.name[:2]) for path in NOTEBOOKS] == list(range(13))


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem, scope="module")
def path(request):
    return request.param


@pytest.fixture(scope="module")
def notebook(path):
    return nbformat.read(path, as_version=4)


def test_opens_with_a_title_and_its_minutes(notebook):
    """Five minutes at most; the conftest.py of the project holds the number against the time that it takes."""
    assert notebook.cells[0].cell_type == "markdown"
    assert notebook.cells[0].source.startswith("# ")
    minutes = re.search(r"\*\*Runs in:\*\* about (\d+) minutes? on two CPU cores", notebook.cells[0].source)
    assert minutes, "the first cell lacks '**Runs in:** about N minutes on two CPU cores'"
    assert 1 <= int(minutes[1]) <= 5


def test_is_stored_as_executed_from_top_to_bottom(notebook):
    counts = [cell.execution_count for cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1))


def test_no_errors_warnings_or_machine_paths_in_the_outputs(notebook):
    for output in outputs_of(notebook):
        assert output.output_type != "error"
        assert output.get("name") != "stderr", output.text[:300]
        data = output.get("data", {})
        text = output.get("text", "") + "".join(data[kind] for kind in data if kind.startswith("text/"))
        assert not MACHINE_PATH.search(text), text[:300]


def test_at_least_four_fifths_of_the_outputs_are_compared(notebook):
    printing = [cell for cell in code_cells(notebook) if cell.outputs]
    ignored = [cell for cell in printing if "NBVAL_IGNORE_OUTPUT" in cell.source]
    assert len(ignored) <= 0.2 * len(printing), [cell.source[:60] for cell in ignored]
    assert not [cell for cell in code_cells(notebook) if "NBVAL_SKIP" in cell.source]


def test_every_image_has_alt_text(notebook):
    images = [o for o in outputs_of(notebook) if "image/png" in o.get("data", {})]
    assert images, "a notebook without an image"
    for image in images:
        alt = image.metadata.get("image/png", {}).get("alt", "")
        assert len(alt) > 20, f"an image with the alt text {alt!r}"


def test_is_small_asks_for_the_plain_kernel_and_stands_in_the_readme(path, notebook):
    assert path.stat().st_size < 2_000_000
    assert notebook.metadata.kernelspec.name == "python3"
    assert f"notebooks/{path.name}" in (FOLDER.parent / "README.md").read_text(encoding="utf-8")
