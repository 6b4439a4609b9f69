"""The lists of notebook 00: the course as the folder has it, and the packages as pyproject.toml asks for them."""

import re
from pathlib import Path

import nbformat
import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
ROW = re.compile(r"^\| (?:\[(?P<linked>\d\d [^]]+)\]\((?P<file>[^)]+)\)|(?P<plain>\d\d [^|]+?)) \| [^|]+\? \|$", re.M)


@pytest.fixture(scope="module")
def cells():
    return nbformat.read(NOTEBOOKS[0], as_version=4).cells


def test_the_list_of_the_course_is_the_folder(cells):
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    rows = [(row["linked"] or row["plain"], row["file"] or NOTEBOOKS[0].name) for row in ROW.finditer(text)]
    titles = [nbformat.read(path, as_version=4).cells[0].source.splitlines()[0] for path in NOTEBOOKS]
    assert rows == [(title[2:].replace(" · ", " "), path.name) for title, path in zip(titles, NOTEBOOKS, strict=True)]
    assert "in the making" not in text


def test_the_stored_requirements_are_those_of_the_project(cells):
    project = pytest.importorskip("tomllib").loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    texts = [*project["dependencies"], *project["optional-dependencies"]["course"]]
    wanted = {r.name.lower(): r.specifier for r in map(Requirement, texts)}
    printed = "\n".join(out.get("text", "") for cell in cells if cell.cell_type == "code" for out in cell.outputs)
    stored = dict(re.findall(r"^\S (\S+) +\S+ \(needs (\S+)\)$", printed, re.M))
    python = stored.pop("Python")
    assert {name.lower(): str(Requirement(f"{name}{spec}").specifier) for name, spec in stored.items()} == {
        name: str(specifier) for name, specifier in wanted.items()
    }
    assert Requirement(f"python{python}").specifier == Requirement(f"python{project['requires-python']}").specifier
