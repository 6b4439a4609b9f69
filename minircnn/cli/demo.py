"""``minircnn demo``: the four detectors side by side, on a scene of Toy Town and on the user's own pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from minircnn.cli.demo_page import (
    DETECTORS,
    GENERATOR,
    INTRODUCTION,
    TITLE,
    Look,
    Seen,
    counts,
    draw_table,
    notes,
    section_of,
    times,
)
from minircnn.cli.drawing import LONGEST_SIDE, make_drawing
from minircnn.cli.errors import RefusedError, echo, naming_memory
from minircnn.cli.outputs import SUFFIXES, Output, check_folder, check_outputs, with_json
from minircnn.cli.pictures import find_pictures
from minircnn.files import printable
from minircnn.shipped import DETECTOR_WEIGHTS

if TYPE_CHECKING:
    from torch import Tensor, nn

PAGE, TABLE = "index.html", "four_detectors.png"
MOST_PICTURES = 20  # of the user's: a page of more is heavy, and nobody looks at it
MAX_PROPOSALS = 300  # of selective search, as in `minircnn detect`
SCENE = 194  # of the test split: one of the seven pictures with six objects, the most that a scene has
PANEL_SIDE = 640  # dots of the longer side of a picture on the page


def demo(
    pictures: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[PICTURE]...", help="Your own, beside a scene of Toy Town.", readable=False),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where to write; made if need be.")] = Path("demo"),
) -> None:
    """Show R-CNN, Fast R-CNN, Faster R-CNN and Mask R-CNN side by side, on a scene and on your own pictures.

    Writes a page, index.html, which needs no other file and no network, and the same as one picture,
    four_detectors.png; those of a former demo are replaced. Pictures that cannot be read are named and left out; the
    exit status is then 1.
    """
    files, skipped = find_pictures([_at_home(path) for path in pictures or ()])
    _check_out(out, files)
    from minircnn.datasets.images import read_image

    left_out = [_leave_out(path, reason) for path, reason in skipped]
    echo("reading the detectors")
    models = load_detectors()
    scene, truth = _scene()
    look_at(models, scene)  # not counted: the first look takes longer, while memory is fetched and code is chosen
    seen = [_see(models, Path("A scene of Toy Town"), scene, truth)]
    for path in files:
        try:
            with naming_memory():
                seen.append(_see(models, path, read_image(path)))
        except (OSError, ValueError) as error:
            left_out.append(_leave_out(path, str(error)))
    _write(seen, left_out, models["rcnn"].classes, out)
    if left_out:
        raise typer.Exit(1)


def _at_home(path: Path) -> Path:
    """``~`` as the home folder, which not every shell replaces in ``make demo PICTURE=~/holiday.jpg``."""
    return path.expanduser() if path.parts[:1] == ("~",) else path


def _check_out(out: Path, files: Sequence[Path]) -> None:
    """Refuses what cannot be written, and what would replace anything but a former demo."""
    if out.exists() and not out.is_dir():
        raise RefusedError(f"--out {out}: this is a file; name a folder, which gets {PAGE} and {TABLE}")
    if not out.exists() and out.suffix.lower() in (*SUFFIXES, ".html", ".htm"):
        raise RefusedError(f"--out {out}: name a folder, not a file; it gets {PAGE} and {TABLE}")
    check_folder("--out", out)
    outputs = [Output("--out", out / name, named=False) for name in (PAGE, TABLE)]
    check_outputs(outputs, [*files, *(file for weights in DETECTOR_WEIGHTS.values() for file in with_json(weights))])
    if len(files) > MOST_PICTURES:
        raise RefusedError(
            f"{len(files)} pictures, but a demo shows at most {MOST_PICTURES}; name fewer, or look at all of them with "
            "`minircnn detect mask_rcnn`"
        )


def _leave_out(path: Path, reason: str) -> str:
    """Says on standard error what is left out and why, and returns the line."""
    line = f"{printable(path)}: skipped: {' '.join(reason.removeprefix(f'{path}: ').split())}"
    echo(line, err=True)
    return line


# ---------------------------------------------------------------------------------------------------------- looking


def load_detectors() -> dict[str, nn.Module]:
    """The four detectors that come with the project, by key, in the order of ``DETECTORS``.

    They keep what ``minircnn detect`` shows by default: margins above 0 and probabilities above 0.5.

    Raises:
        FileNotFoundError: the weights of one are missing.
    """
    from minircnn.course.history import GENERATIONS, keep_from, load_all

    models = load_all()
    for one in GENERATIONS:
        keep_from(models[one.key], one.surest)
    return models


def look_at(models: Mapping[str, nn.Module], image: Tensor) -> list[Look]:
    """What each detector finds in a picture ``(3, H, W)``, as its own ``detect`` does, with times.

    Selective search runs once: the first two are given the same proposals.
    """
    from minircnn.course.history import all_by_stages
    from minircnn.mask_rcnn import binary_masks

    looks = []
    for trace in all_by_stages(models, image, MAX_PROPOSALS).values():
        found, proposing = trace.detections, trace.seconds["proposals"]
        found = binary_masks(found) if "masks" in found else found
        looks.append(Look(found, len(trace.proposals), proposing, sum(trace.seconds.values()) - proposing))
    return looks


def _scene() -> tuple[Tensor, dict[str, Any]]:
    from minircnn.datasets import ToyTown

    return ToyTown("test")[SCENE]


def _see(models: Mapping[str, nn.Module], path: Path, image: Tensor, truth: Mapping[str, Any] | None = None) -> Seen:
    """Lets all detectors look at a picture, and prints what they found.

    Large pictures are shrunk first: the detectors would shrink them anyway, further, and masks of many million pixels
    fill the memory.
    """
    import torch

    from minircnn.selective_search import shrink

    size = tuple(image.shape[1:])
    if max(size) > LONGEST_SIDE:
        image = torch.from_numpy(shrink(image, LONGEST_SIDE)).float().permute(2, 0, 1).contiguous()
    looks = look_at(models, image)
    for detector, look in zip(DETECTORS, looks, strict=True):
        echo(f"{path}: {detector.name}: {counts(look)}; {times(look)}")
    there = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    if truth:
        there = {name: truth[name] for name in ("boxes", "labels", "masks")}
    drawings = [make_drawing(path, image, found, PANEL_SIDE) for found in (there, *(look.found for look in looks))]
    return Seen(size, tuple(image.shape[1:]), drawings[0], truth is not None, looks, drawings[1:])


# ---------------------------------------------------------------------------------------------------------- writing


def _write(seen: Sequence[Seen], left_out: Sequence[str], classes: Sequence[str], out: Path) -> None:
    """Draws everything, and then writes both files."""
    import matplotlib

    from minircnn.cli.page import picture_page
    from minircnn.files import write_atomically

    matplotlib.use("Agg")  # no windows
    sections = [*(section_of(one, classes) for one in seen), *notes(classes, left_out)]
    page = picture_page(TITLE, [INTRODUCTION], sections, generator=GENERATOR)
    write_atomically(out / TABLE, draw_table(seen, classes))
    write_atomically(out / PAGE, page.encode())
    echo(f"written to {out / TABLE}")
    echo(f"written to {out / PAGE}: open it in a browser")
