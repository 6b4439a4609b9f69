"""``minircnn data``: looks at a data set before anything learns from it, and says where the public ones are."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from minircnn.cli.data_options import files_of_data
from minircnn.cli.errors import RefusedError, echo
from minircnn.cli.options import LARGEST_SIDE, JsonFile
from minircnn.cli.outputs import Output, check_outputs
from minircnn.cli.pictures import LARGEST_GRID

if TYPE_CHECKING:
    from minircnn.datasets.checking import Report
    from minircnn.datasets.shapes import Anchors

app = typer.Typer(help="Look at a data set, or find a public one.", no_args_is_help=True)

NUM_SIZES, NUM_RATIOS = 4, 3  # of anchors, as many as the detectors of this project have

Name = Annotated[str, typer.Argument(metavar="NAME", help="toytown, coco, voc, pennfudan or nuclei.")]


@app.command()
def check(
    name: Name,
    root: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where it lies; not for toytown, which comes with the project.")
    ] = None,
    annotations: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The JSON file that describes the pictures; only for coco.")
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Which pictures: train, val, trainval or test of voc, train, val or test of toytown; of the others, "
            "which have none, every fifth picture is test and the rest train.",
            show_default="all; trainval of voc, train of toytown",
        ),
    ] = None,
    masks: Annotated[
        bool | None,
        typer.Option("--masks/--no-masks", help="Whether to look at masks.", show_default="where there are any"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="PNG", help="Draw a contact sheet here: pictures with their objects.")
    ] = None,
    json_file: JsonFile = None,
    pictures: Annotated[
        int, typer.Option(min=1, max=LARGEST_GRID, metavar="N", help="On the contact sheet, evenly through the set.")
    ] = 12,
    min_size: Annotated[
        int,
        typer.Option(
            min=1, max=LARGEST_SIDE, metavar="N", help="To how many pixels the network resizes the shorter side."
        ),
    ] = 192,
) -> None:
    """Open every picture and every object of a data set, count them, and list every defect.

    Anchors are suggested that fit the objects as the network sees them. The exit status is 1 if there is any defect.
    """
    if out and out.suffix.lower() != ".png":
        raise RefusedError(f"--out {out}: the contact sheet is written as PNG; let the name end in .png")
    outputs = [Output(option, path) for option, path in (("--out", out), ("--json", json_file)) if path]
    check_outputs(outputs, files_of_data(name, root, annotations))
    from minircnn.datasets.checking import Report, examine, open_to_check
    from minircnn.datasets.named import grouped

    data, problems = open_to_check(name, root, annotations, split=split, masks=masks)
    if data is None:
        report = Report([], problems=problems)
    else:
        report = examine(data, min_size=min_size, progress=_progress)
        report.problems[:0] = problems
        _tell(report, f"{name}{f', {split}' if split else ''}")
        for note in getattr(getattr(data, "whole", data), "notes", ()):
            echo(note)
    anchors = _suggest(report, min_size)
    for line in grouped(report.problems):
        echo(line)
    if out and report.readable:
        _write_sheet(data, report, pictures, out)
    if json_file:
        _write_numbers(report, anchors, {"data": name, "split": split, "masks": masks, "min_size": min_size}, json_file)
    echo(_counted(len(report.problems), "defect"))
    if report.problems:
        raise typer.Exit(1)


def _counted(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'s' * (number != 1)}"


def _progress(indices: Iterable[int]) -> Iterable[int]:
    from tqdm import tqdm

    return tqdm(indices, desc="pictures", unit="picture", disable=None, leave=False)


def _tell(report: Report, title: str) -> None:
    """Prints the counts."""
    crowds = f", {report.crowds} of them crowds or difficult" if report.crowds else ""
    pictures = f"{_counted(report.pictures, 'picture')} ({report.empty} without objects)"
    echo(f"{title}: {pictures}, {_counted(report.objects, 'object')}{crowds}")
    if report.smallest:
        (h, w), (height, width) = report.smallest, report.largest
        sizes = f"{h} × {w}" if (h, w) == (height, width) else f"from {h} × {w} to {height} × {width}"
        echo(f"height × width: {sizes} pixels")
    longest = max(map(len, report.classes[1:]), default=0)
    for name, (objects, shown) in report.per_class.items():
        echo(f"  {name:<{longest}}  {objects:>7} objects in {shown:>6} pictures")


def _suggest(report: Report, min_size: int) -> Anchors | None:
    """Prints which anchors fit the objects, and how well those of Toy Town would; None without objects."""
    if not report.shapes:
        return None
    import torch

    from minircnn.datasets.shapes import best_overlaps, suggest_anchors
    from minircnn.faster_rcnn import TOY_TOWN_RPN

    shapes = torch.tensor(report.shapes)
    anchors = suggest_anchors(shapes, NUM_SIZES, NUM_RATIOS)
    usual = best_overlaps(shapes, TOY_TOWN_RPN.anchor_sizes[0], TOY_TOWN_RPN.aspect_ratios)
    sizes, ratios = (" ".join(f"{value:g}" for value in values) for values in (anchors.sizes, anchors.ratios))
    echo(f"anchors that fit the objects where the shorter side of a picture has {min_size} pixels:")
    echo(f"  sizes {sizes}; height / width {ratios}")
    echo(
        f"  IoU of an object with the best of them: {anchors.mean_iou:.2f} on average, 0.5 or more for "
        f"{100 * anchors.covered:.0f} % of the objects"
    )
    half = 100 * (usual >= 0.5).double().mean()
    echo(f"  with Toy Town's anchors, which training takes by default: {usual.mean():.2f}, {half:.0f} %")
    return anchors


def _write_sheet(data: Any, report: Report, pictures: int, out: Path) -> None:  # noqa: ANN401
    """Draws pictures from all over the data set, of those that can be read."""
    from minircnn.cli.sheet import draw_sheet
    from minircnn.files import write_atomically

    count = min(pictures, len(report.readable))
    chosen = [report.readable[place * len(report.readable) // count] for place in range(count)]
    write_atomically(out, draw_sheet(data, chosen))
    echo(f"written to {out}")


def _write_numbers(report: Report, anchors: Anchors | None, asked: dict[str, Any], path: Path) -> None:
    from dataclasses import asdict

    from minircnn.files import write_json

    numbers = asdict(report)
    del numbers["shapes"], numbers["readable"]
    numbers["per_class"] = {
        name: {"objects": objects, "pictures": shown} for name, (objects, shown) in report.per_class.items()
    }
    write_json(path, {**asked, **numbers, "anchors": asdict(anchors) if anchors else None})
    echo(f"written to {path}")


@app.command()
def fetch(name: Name) -> None:
    """Say where a public data set is, its size and licence, and how to unpack it."""
    if name == "toytown":
        echo("toytown: comes with the project; there is nothing to fetch")
        return
    from minircnn.cli.data_sources import SOURCES

    if name not in SOURCES:
        raise RefusedError(f"there is no {name!r} to fetch; there are {', '.join(SOURCES)}")
    echo(*SOURCES[name].lines())
