"""What the notebooks ask their learners to write: setup, exercises, and the solutions out of their folds."""

import re
from pathlib import Path

import nbformat

FOLDER = Path(__file__).parents[2] / "notebooks"
CHECK = re.compile(r"^(\w+) = check\.(\w+)\((\w+)\)$", re.M)
SOLUTION = re.compile(
    r"<details>\s*<summary>(?:<b>)?Solution(?:</b>)?</summary>\s*```python\n(.*?)```\s*</details>", re.S
)


def cells_of(path):
    return nbformat.read(path, as_version=4).cells


def setup_of(path):
    """The source of the first code cell, which imports."""
    return next(cell.source for cell in cells_of(path) if cell.cell_type == "code")


def exercises_of(path):
    """``{name: solution}`` in the order of the notebook: each cell with a check, and the next fold with a solution."""
    found, waiting = {}, None
    for cell in cells_of(path):
        if cell.cell_type == "code" and (names := CHECK.search(cell.source)):
            assert waiting is None, f"{waiting} has no solution to unfold"
            assert len(set(names.groups())) == 1, names[0]
            assert "# Your code" in cell.source, f"{names[1]} has no line '# Your code'"
            waiting = names[1]
        elif cell.cell_type == "markdown" and (text := SOLUTION.search(cell.source)):
            assert f"def {waiting}(" in text[1] or f"class {waiting}(" in text[1], f"{waiting}: not in its solution"
            found[waiting], waiting = text[1], None
    return found


NOTEBOOKS = [path for path in sorted(FOLDER.glob("[0-9][0-9]_*.ipynb")) if exercises_of(path)]
