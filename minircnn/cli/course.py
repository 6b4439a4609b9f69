"""``minircnn course``: a working copy of the notebooks in JupyterLab, and the checks of many learners' copies."""

from __future__ import annotations

import csv
import io
import shlex
import subprocess
import sys
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from minircnn.cli.common import OneLineErrors, RefusedError, check_outputs, echo
from minircnn.files import write_atomically

if TYPE_CHECKING:
    from collections.abc import Sequence

    from minircnn.course.grading import Row

app = typer.Typer(cls=OneLineErrors, invoke_without_command=True, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.callback()
def course(
    context: typer.Context,
    renew: Annotated[
        str | None,
        typer.Option(metavar="NUMBER", help="Begin this notebook anew, such as 05; the old one is moved aside."),
    ] = None,
    jupyter: Annotated[str, typer.Option(metavar="OPTIONS", help="For JupyterLab, such as --no-browser.")] = "",
) -> None:
    """Open the course: your own copy of the notebooks, in my_course, without outputs.

    What you have written there is never overwritten. `minircnn course grade FOLDER` runs the checks of copies.
    """
    if context.invoked_subcommand:
        return
    from minircnn.course.working_copy import WORKING_COPY, make_working_copy

    if find_spec("jupyterlab") is None:
        how = 'in the project\'s folder run `python -m pip install -e ".[course]"`'
        raise RefusedError(f"JupyterLab is not installed: {how}")
    try:
        made, moved = make_working_copy(renew=renew or None)
    except ValueError as error:
        raise RefusedError(f"--{error}" if str(error).startswith("renew ") else str(error)) from error
    if moved:
        echo(f"your old notebook is now {moved}")
    echo(f"{WORKING_COPY}: {len(made)} new files; your work in the others is as it was")
    first = next(iter(sorted(WORKING_COPY.glob(f"{int(renew):02}_*.ipynb" if renew else "00_*.ipynb"))))
    # The root is the project, so that links to files of the package open.
    place = [f"--ServerApp.root_dir={WORKING_COPY.parent}", f"--LabApp.default_url=/lab/tree/my_course/{first.name}"]
    command = [sys.executable, "-m", "jupyterlab", *place, *shlex.split(jupyter)]
    raise typer.Exit(subprocess.run(command, check=False).returncode)


@app.command()
def grade(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A my_course, or a folder of them.")],
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the table here, as CSV.")] = None,
    seconds: Annotated[float, typer.Option(min=1, help="That one answer may take.")] = 60,
) -> None:
    """Run the checks of learners' answers, and say of each exercise whether it is right.

    Answers are run on this machine, in processes of their own, and can do whatever you can: look at what strangers
    send you, or use a machine that holds nothing else.
    """
    from minircnn.course import grading

    if out is not None:
        check_outputs([("--out", out)], [])
    rows = []
    try:
        for row in grading.grade(folder, seconds):
            rows.append(row)
            said = row.said if row.result == "not yet" else row.result
            echo(f"{row.learner}  {row.notebook}  {row.exercise}: {said}")
    except ValueError as error:
        raise RefusedError(str(error)) from error
    echo("", *_summary(rows))
    if out is not None:
        write_atomically(out, _as_csv(rows))
        echo(f"written to {out}")


def _summary(rows: Sequence[Row]) -> list[str]:
    """A line for each learner."""
    learners = dict.fromkeys(row.learner for row in rows)
    counts = {learner: Counter(row.result for row in rows if row.learner == learner) for learner in learners}
    return [f"{name}: {found['right']} of {sum(found.values())} exercises right" for name, found in counts.items()]


def _as_csv(rows: Sequence[Row]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(("learner", "notebook", "exercise", "result", "said"))
    for row in rows:
        # A spreadsheet would take a learner's "=…" for a formula.
        cells = (row.learner, row.notebook, row.exercise, row.result, row.said)
        writer.writerow(f"'{cell}" if cell[:1] in tuple("=+-@") else cell for cell in cells)
    return text.getvalue().encode()
