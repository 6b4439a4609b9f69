"""``minircnn history``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from textwrap import fill
from typing import Annotated, Any

import typer

from minircnn.cli.errors import RefusedError
from minircnn.cli.options import JsonFile
from minircnn.cli.outputs import Output, check_folder, check_outputs, with_json
from minircnn.shipped import DETECTOR_WEIGHTS, PROJECT_FOLDER

WIDTH = 110  # letters in a line of prose: about as many as the table has
RECORD = "history.json"
RESULTS = Path("data", "results")
PNGS = ("history.png", "history_pictures.png")


def history(
    pictures: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="The first N test pictures.", show_default="all of them")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write history.json and the two figures here.")
    ] = None,
    json_file: JsonFile = None,
    readme: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write the tables here, between the lines for them.")
    ] = None,
    scale: Annotated[bool, typer.Option("--scale/--no-scale", help="Also time the papers' size.")] = True,
    training: Annotated[bool, typer.Option("--training/--no-training", help="Also time trainings.")] = True,
    read: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Report on this history.json, and measure nothing.")
    ] = None,
    update: Annotated[
        bool, typer.Option("--update", help="Renew what comes with the project: results, figures, README.")
    ] = False,
) -> None:
    """Measure all four detectors side by side, and check the story's claims.

    Each sees the same test pictures of Toy Town, in turn, on one thread. The table says how much they find, how long
    each stage takes, and what their trainings and weights come to; then it says the same about time for a picture and a
    network of the papers' size. Below stand the claims of the story, each with what was measured about it. If one does
    not hold, the exit status is 1: on few pictures that may be chance.
    """
    if read and (pictures or not scale or not training):
        raise RefusedError(f"--read {read}: nothing is measured; leave --pictures, --no-scale and --no-training out")
    targets = _targets(out, json_file, readme, update)
    _check(targets, json_file, readme, read)
    from minircnn.history import claims_as_text, failing, gather, make_record, notes, read_record, table
    from minircnn.history.report import as_text, insert
    from minircnn.history.scale import PaperScale

    for path in targets["readme"]:
        insert(path.read_text(encoding="utf-8"), "", str(path))  # refuses a file without markers before any work
    if read:
        record = read_record(read)
    else:
        command = _command(pictures, scale, training, update)
        options = {"scale": PaperScale() if scale else None, "training": training, "command": command}
        record = make_record(pictures, **options, progress=_progress)
    results = gather(record)
    typer.echo(as_text(table(record)) + "\n")
    typer.echo("\n".join(fill(note, WIDTH) for note in notes(record)) + "\n")
    typer.echo(claims_as_text(results))
    _write(record, results, targets)
    if wrong := failing(results):
        typer.echo(f"Not borne out: {', '.join(wrong)}.", err=True)
        raise typer.Exit(1)


def _check(targets: dict[str, list[Path]], json_file: Path | None, readme: Path | None, read: Path | None) -> None:
    """Refuses what could not be read or written."""
    if readme and not readme.is_file():
        raise RefusedError(f"--readme {readme}: there is no such file; name a README")
    if read and not read.is_file():
        raise FileNotFoundError(f"--read {read}: there is no such file; check the path")
    if read:  # the record that is read would be written as it is
        targets["json"] = [path for path in targets["json"] if not (path.exists() and path.samefile(read))]
    options = {json_file: "--json", readme: "--readme"}
    outputs = [
        Output(options.get(path, "--out"), path, named=path in options or path.is_relative_to(PROJECT_FOLDER))
        for kind in targets.values()
        for path in kind
    ]
    inputs = [file for weights in DETECTOR_WEIGHTS.values() for file in with_json(weights)]
    inputs += [path for path in (PROJECT_FOLDER / RESULTS).glob("*.json") if path.name != RECORD]
    check_outputs(outputs, inputs + ([read] if read else []))


def _targets(out: Path | None, json_file: Path | None, readme: Path | None, update: bool) -> dict[str, list[Path]]:
    """Which files to write: ``json``, the two figures by their names, and ``readme``."""
    if out:
        check_folder("--out", out)
    if update and not (PROJECT_FOLDER / "README.md").is_file():
        raise RefusedError("--update: the package does not lie in a clone of the project; use --out FOLDER")
    figures = [*([out] if out else []), *([PROJECT_FOLDER / "docs"] if update else [])]
    return {
        "json": [
            *([json_file] if json_file else []),
            *([out / RECORD] if out else []),
            *([PROJECT_FOLDER / RESULTS / RECORD] if update else []),
        ],
        **{name: [folder / name for folder in figures] for name in PNGS},
        "readme": [*([readme] if readme else []), *([PROJECT_FOLDER / "README.md"] if update else [])],
    }


def _command(pictures: int | None, scale: bool, training: bool, update: bool) -> str:
    """How to ask for the same again."""
    words = [*([f"--pictures {pictures}"] if pictures else []), *([] if scale else ["--no-scale"])]
    words += [*([] if training else ["--no-training"]), *(["--update"] if update else [])]
    return " ".join(["minircnn history", *words])


def _progress(things: Iterable[Any], what: str) -> Iterable[Any]:
    from tqdm import tqdm

    return tqdm(things, desc=what, disable=None, leave=False)


def _write(record: dict[str, Any], results: dict[str, Any], targets: dict[str, list[Path]]) -> None:
    """Draws first and writes last, each file whole."""
    from minircnn.files import write_atomically, write_json
    from minircnn.history import draw_history, draw_pictures, update_readme
    from minircnn.history.figures import fingerprint_of_weights

    drawn = {}
    if any(targets[name] for name in PNGS):
        import matplotlib

        if fingerprint_of_weights(record=record) != fingerprint_of_weights():
            raise RefusedError("the record was made with other weights than are there now: measure again")
        matplotlib.use("Agg")
        drawn = dict(zip(PNGS, (draw_history(record), draw_pictures()), strict=True))
    for path in targets["json"]:
        write_json(path, record)
    for name, png in drawn.items():
        for path in targets[name]:
            write_atomically(path, png)
    for path in targets["readme"]:
        update_readme(path, results)
    for path in (path for paths in targets.values() for path in paths):
        typer.echo(f"written to {path}")
