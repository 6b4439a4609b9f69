"""The learner's own copy of the notebooks, without outputs; to make it needs no package that may be missing."""

import json
import shutil
from pathlib import Path

from minircnn.files import write_atomically
from minircnn.shipped import PROJECT_FOLDER

NOTEBOOKS = PROJECT_FOLDER / "notebooks"
WORKING_COPY = PROJECT_FOLDER / "my_course"


def make_working_copy(
    folder: Path = WORKING_COPY, renew: str | None = None, notebooks: Path = NOTEBOOKS
) -> tuple[list[Path], Path | None]:
    """Copy the notebooks without their outputs, and the pages beside them; what is there already stays as it is.

    ``renew`` is the number of a notebook, such as "05", to begin anew; the old one gets another name beside it. Returns
    the files that were made, and where the old one went, if there was one.

    Raises:
        ValueError: there are no notebooks to copy, or none has this number.
    """
    sources = [*sorted(notebooks.glob("[0-9][0-9]_*.ipynb")), *sorted(notebooks.glob("*.md"))]
    if not sources:
        raise ValueError(f"{notebooks}: no notebooks here; they come with a clone of the project, not with the package")
    moved = _move_aside(folder, renew, sources) if renew is not None else None
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for source in sources:
        copy = folder / source.name
        if not copy.exists():
            write_atomically(copy, _without_outputs(source) if source.suffix == ".ipynb" else source.read_bytes())
            made.append(copy)
    return made, moved


def _move_aside(folder: Path, number: str, sources: list[Path]) -> Path | None:
    known = [source.name for source in sources if source.suffix == ".ipynb"]
    names = [name for name in known if number.isdecimal() and name[:2] == f"{int(number):02}"]
    if not names:
        first, last = known[0][:2], known[-1][:2]
        raise ValueError(f"renew {number}: there is no such notebook; give a number from {first} to {last}")
    old = folder / names[0]
    if not old.exists():
        return None
    count = 1
    while (aside := old.with_name(f"{old.stem}.old{count}.ipynb")).exists():
        count += 1
    shutil.move(old, aside)
    return aside


def _without_outputs(path: Path) -> bytes:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell |= {"outputs": [], "execution_count": None}
    return (json.dumps(notebook, indent=1, ensure_ascii=False) + "\n").encode()
