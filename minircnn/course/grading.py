"""Run the checks of learners' copies of the notebooks, and say of each exercise whether it is right.

Answers are a stranger's code. Each notebook's answers run in a process of their own, from the notebook's sources, not
from its outputs. An answer that takes too long, or ends the process, is a row of the table; then the next one runs.
It is no sandbox: answers can do on this machine whatever its user can.
"""

import contextlib
import faulthandler
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minircnn.course.working_copy import NOTEBOOKS

CHECK = re.compile(r"^(\w+) = check\.\1\(\1\)$", re.M)
RIGHT, NOT_YET, NOT_WRITTEN, MISSING = "right", "not yet", "not written", "missing"
SECONDS = 60.0  # for an answer; the checks themselves take less than one
STARTING = 120.0  # seconds that imports and cells which are no exercise may take


@dataclass(frozen=True)
class Row:
    """What became of one exercise of one learner."""

    learner: str
    notebook: str  # its number, "05"
    exercise: str
    result: str  # "right", "not yet", "not written", "missing", "took too long", "ended the process"
    said: str = ""  # by the check, in one line


def grade(folder: Path, seconds: float = SECONDS, notebooks: Path = NOTEBOOKS) -> Iterator[Row]:
    """The rows of a folder of notebooks, or of a folder that holds one for each learner.

    An answer may take so many seconds. ``notebooks`` are the project's, with the exercises that there are.

    Raises:
        ValueError: there is no notebook of the course in the folder, nor in a folder in it.
    """
    originals = {path.name: path for path in sorted(notebooks.glob("[0-9][0-9]_*.ipynb"))}
    if not folder.is_dir():
        raise ValueError(f"{folder}: there is no such folder")
    there = [path for path in (folder, *sorted(folder.iterdir())) if any((path / name).is_file() for name in originals)]
    learners = there[:1] if folder in there else there
    if not learners:
        raise ValueError(f"{folder}: neither this folder nor one in it holds a notebook of the course (01_….ipynb)")
    for learner in learners:
        for name, original in originals.items():
            if (learner / name).is_file():
                yield from _grade_notebook(learner.resolve().name, learner / name, original, seconds)


def _grade_notebook(learner: str, copy: Path, original: Path, seconds: float) -> Iterator[Row]:
    wanted = [name for source in _code(original) for name in CHECK.findall(source)]
    if not wanted:
        return
    try:
        cells = cells_to_run(copy, original)
    except (ValueError, KeyError, TypeError) as error:
        said = f"no notebook: {type(error).__name__}"
        yield from (Row(learner, copy.name[:2], name, MISSING, said) for name in wanted)
        return
    found: dict[str, dict[str, str]] = {}
    there = {name for _, name in cells if name}
    while any(name not in found for name in there):
        left = [cell for cell in cells if cell[1] not in found or found[cell[1]]["result"] == RIGHT]
        stopped = _run(left, found, seconds)
        if stopped is None:
            break
        where, result = stopped
        if where is not None:
            found[where] = {"result": result, "said": ""}
        elif len(cells) > 1 + len(there):  # in a cell that the learner has added: without those, then
            cells = [cells[0], *(cell for cell in cells if cell[1])]
        else:
            found |= {name: {"result": result, "said": "outside of the exercises"} for name in there - set(found)}
    for name in wanted:
        row = found.get(name, {"result": MISSING, "said": "its cell is not there, or has another form"})
        yield Row(learner, copy.name[:2], name, row["result"], row["said"])


def cells_to_run(copy: Path, original: Path) -> list[tuple[str, str | None]]:
    """The project's setup cell, and the learner's exercises and new cells, each with its exercise's name or None."""
    known = _code(original)
    cells: list[tuple[str, str | None]] = [(known[0], None)]
    for source in _code(copy):
        names = CHECK.findall(source)
        if names or source not in known:
            cells.append((source, names[0] if names else None))
    return cells


def _code(path: Path) -> list[str]:
    """The sources of a notebook's code cells."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def _run(
    cells: Sequence[tuple[str, str | None]], found: dict[str, dict[str, str]], seconds: float
) -> tuple[str | None, str] | None:
    """Run cells in a process of their own, and note what it reports; in which exercise it stopped and why, or None."""
    with tempfile.TemporaryDirectory() as folder:
        told, report = Path(folder) / "cells.json", Path(folder) / "report.txt"
        told.write_text(json.dumps([seconds, cells]), encoding="utf-8")
        command = [sys.executable, "-m", "minircnn.course.grading", str(told), str(report)]
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.run(command, **quiet, check=False)
        ended = time.time()
        events = [json.loads(line) for line in report.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
    found |= {event["exercise"]: event for event in events if "result" in event}
    last = events[-1]
    if "end" in last:
        return None
    late = ended >= last["until"]
    why = f"took more than {last['limit']:g} s" if late else f"ended the process (status {process.returncode})"
    return last.get("begin"), why


def _report(told: Path, report: Path) -> None:
    """In the process of the answers: run the cells, and write a line before and after each exercise."""
    seconds, cells = json.loads(told.read_text(encoding="utf-8"))
    nowhere = os.open(os.devnull, os.O_WRONLY)

    def write(limit: float = STARTING, **event: Any) -> None:  # noqa: ANN401
        with report.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**event, "limit": limit, "until": time.time() + limit}) + "\n")
        faulthandler.dump_traceback_later(limit, exit=True, file=nowhere)

    write(start=True)
    import matplotlib as mpl

    from minircnn.course.check.judge import results

    mpl.use("Agg")
    names: dict[str, Any] = {"__name__": "__main__"}
    for source, exercise in cells:
        if exercise:
            write(seconds, begin=exercise)
            results.pop(exercise, None)
        printed, problem = io.StringIO(), ""
        with contextlib.redirect_stdout(printed):
            try:
                exec(compile(source, exercise or "cell", "exec"), names)
            except Exception as error:
                problem = f"{type(error).__name__}: {error}"
        if exercise:
            lines = [line for line in printed.getvalue().splitlines() if line.startswith(exercise)]
            said = problem or (lines[-1] if lines else "")
            if results.get(exercise) != RIGHT:  # later answers build on the package's, as in the notebook
                names[exercise] = getattr(names["check"], exercise).reference
            write(exercise=exercise, result=results.get(exercise, NOT_YET), said=" ".join(said.split()))
    write(end=True)


if __name__ == "__main__":
    _report(*map(Path, sys.argv[1:]))
