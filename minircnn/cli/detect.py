"""``minircnn detect``: objects in the user's own images, and how they are drawn."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from minircnn.cli.options import (
    Device,
    JsonFile,
    MaxProposals,
    RefusedError,
    Weights,
    detect_in,
    detector_file,
    echo,
    naming_memory,
    read_detector,
    ready_device,
    refuse_others,
)
from minircnn.cli.outputs import SUFFIXES, Output, check_folder, check_outputs, with_json
from minircnn.files import printable, write_atomically, write_json
from minircnn.shipped import DETECTOR_WEIGHTS

if TYPE_CHECKING:
    from torch import Tensor

    from minircnn.plotting import Drawing

    Detections = dict[str, Any]

FOUND = Path("detections.png")
MAX_PROPOSALS = 300
LONGEST_SIDE = 1000  # pixels; a larger image is shrunk before it is drawn
LARGEST_GRID = 60  # images; more are slow to draw and too many to look at


def detect(
    arguments: Annotated[
        list[Path],
        typer.Argument(
            metavar="[DETECTOR] IMAGE...",
            help=f"{', '.join(DETECTOR_WEIGHTS)} (by default the last), then image files, or folders of them.",
            readable=False,  # what may not be read is left out like other images that cannot be
            show_default=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            metavar="PNG", help="A file that ends in .png and shows all images, or a folder for one PNG each."
        ),
    ] = FOUND,
    weights: Weights = None,
    classes: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="What a .pth file of one's own tells apart, in the order of the labels, with commas between: "
            "background,pedestrian. Such files hold no names.",
            show_default="COCO's",
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            metavar="P",
            help="Show what scores more: a probability; of rcnn a margin of an SVM.",
            show_default="0.5; 0 of rcnn",
        ),
    ] = None,
    max_proposals: MaxProposals = None,
    device: Device = "cpu",
    json_file: JsonFile = None,
) -> None:
    """Find objects in your own images, and outline them (mask_rcnn).

    A line for each object says the image, the class, the score, and the box as x1 y1 x2 y2 in pixels. The JSON file
    holds masks as COCO's run-length encoding. Images that cannot be read are named and left out; the exit status is
    then 1.
    """
    named = str(arguments[0]) in DETECTOR_WEIGHTS
    detector, paths = (str(arguments[0]), arguments[1:]) if named else ("mask_rcnn", arguments)
    if not paths:
        raise RefusedError(f"{detector}: name images, or folders of them")
    refuse_others(detector, {"max_proposals": max_proposals})
    threshold = threshold_of(detector, threshold)
    file = detector_file(detector, weights)
    plan = make_plan(paths, out, json_file, named=out != FOUND, inputs=with_json(file))
    for path, reason in plan.skipped:
        complain(path, reason)
    if not plan.images:
        raise typer.Exit(1)
    names = [name.strip() for name in classes.split(",")] if classes else None
    model = read_detector(detector, file, names).to(ready_device(device))
    set_threshold(model, threshold)
    about: dict[str, Any] = {"detector": detector, "weights": str(file), "threshold": threshold}
    if on_proposals := detector in ("rcnn", "fast_rcnn"):
        about["max_proposals"] = max_proposals = max_proposals or MAX_PROPOSALS

    def find(image: Tensor) -> Detections:
        from minircnn.selective_search import selective_search

        return detect_in(model, image, selective_search(image, max_proposals=max_proposals) if on_proposals else None)

    detect_all(plan, find, model.classes, about)


def threshold_of(detector: str, given: float | None) -> float:
    """The score above which detections are shown: what the user wants, or 0 for a margin and 0.5 for a probability."""
    threshold = given if given is not None else (0.0 if detector == "rcnn" else 0.5)
    if not math.isfinite(threshold):
        raise RefusedError(f"--threshold {threshold}: this is no number; 0 is where an SVM decides")
    if detector != "rcnn" and not 0 <= threshold <= 1:
        raise RefusedError(f"--threshold {threshold}: this is no probability, from 0 to 1")
    return threshold


def set_threshold(model: Any, threshold: float) -> None:  # noqa: ANN401 - any detector
    """Let a detector give what scores more than this."""
    part = getattr(model, "roi_heads", model)
    part.config = replace(part.config, score_threshold=threshold)


# ------------------------------------------------------------------------------------------------------ what to read


@dataclass(frozen=True)
class Plan:
    """What to read and what to write."""

    images: Sequence[Path]  # each once
    skipped: Sequence[tuple[Path, str]]  # what was named but cannot be read, and why
    out: Path  # the one PNG that will show all images, or the folder of targets
    targets: Sequence[Path]  # a PNG for each image; empty if one shows all
    json_file: Path | None


def make_plan(
    arguments: Sequence[Path], out: Path, json_file: Path | None, *, named: bool = True, inputs: Sequence[Path] = ()
) -> Plan:
    """Find the images and decide which files will be written.

    Args:
        arguments: Image files and folders.
        out: A file that ends in ``.png``, or a folder, which may have to be made.
        json_file: A file, or None.
        named: Whether the user has named ``out``.
        inputs: What else is read; for what is refused see :func:`minircnn.cli.outputs.check_outputs`.
    """
    one_png = out.suffix.lower() == ".png"
    images, skipped = find_images(arguments)
    targets = () if one_png else tuple(out / f"{name}.png" for name in distinct_stems(images))
    if not one_png:
        if not out.exists() and out.suffix.lower() in SUFFIXES:
            raise RefusedError(f"--out {out}: images are written as PNG; let the name end in .png, or name a folder")
        check_folder("--out", out)
    outputs = [Output("--out", out, named)] if one_png else [Output("--out", path, named=False) for path in targets]
    check_outputs([*outputs, *([Output("--json", json_file)] if json_file else [])], [*images, *inputs])
    if one_png and len(images) > LARGEST_GRID:
        raise RefusedError(
            f"--out {out}: {len(images)} images, but one PNG shows at most {LARGEST_GRID}; name a folder instead"
        )
    return Plan(images, skipped, out, targets, json_file)


def find_images(arguments: Iterable[Path]) -> tuple[list[Path], list[tuple[Path, str]]]:
    """The files that are meant, each once, and what is none, with the reason.

    Of a folder these are all images, by suffix and in order of name; folders in it and hidden files are left alone.
    """
    images: dict[Path, None] = {}
    skipped = []
    for argument in arguments:
        try:
            if argument.is_dir():
                inside = sorted(argument.iterdir(), key=lambda path: path.name)
                found = [p for p in inside if p.suffix.lower() in SUFFIXES and p.name[0] != "." and p.is_file()]
                images |= dict.fromkeys(found)
                skipped += [] if found else [(argument, "no images in this folder")]
            elif argument.is_file():
                images[argument] = None
            else:
                reason = "neither a file nor a folder" if argument.exists() else "there is no such file; check the path"
                skipped.append((argument, reason))
        except OSError as error:
            skipped.append((argument, f"cannot be opened ({error.strerror})"))
    return list(images), skipped


def distinct_stems(paths: Iterable[Path]) -> list[str]:
    """A name for each file: its own without the suffix, or with a number behind it where an earlier one has that.

    >>> distinct_stems([Path("a/cat.jpg"), Path("b/cat.jpg"), Path("cat_2.png"), Path("dog.jpg")])
    ['cat', 'cat_2', 'cat_2_2', 'dog']
    """
    names: list[str] = []
    taken: set[str] = set()
    for path in paths:
        name, number = path.stem, 2
        while name.casefold() in taken:  # on most machines Cat.png and cat.png are one file
            name, number = f"{path.stem}_{number}", number + 1
        names.append(name)
        taken.add(name.casefold())
    return names


# ------------------------------------------------------------------------------------------------------ what is found


def detect_all(plan: Plan, find: Callable[[Tensor], Detections], classes: Sequence[str], about: dict[str, Any]) -> None:
    """Look at each image, print and draw what is there, and write what the plan says, with ``about`` in the JSON file.

    ``find`` gives the detections of an image (3, H, W), best first. If something was skipped, the program ends with
    status 1 after all else is done.
    """
    from minircnn.datasets.images import read_image
    from minircnn.plotting import GRID_SIDE, make_drawing

    grid = not plan.targets and len(plan.images) > 1
    skipped, records, drawings = list(plan.skipped), [], []
    for index, path in enumerate(plan.images):
        try:
            with naming_memory():
                image = read_image(path)
                found = find(image)
                # The image itself is not kept: shrunk ones do not fill the memory.
                drawings.append((path, make_drawing(image, found, GRID_SIDE if grid else LONGEST_SIDE)))
        except (OSError, ValueError) as error:
            skipped.append((path, str(error)))
            complain(*skipped[-1])
            continue
        png = plan.targets[index] if plan.targets else plan.out
        records.append({**_as_record(path, image, found, classes), "png": str(png)})
        _print(records[-1])
        if plan.targets:
            write_atomically(png, _draw([drawings.pop()], classes))
    if drawings:
        write_atomically(plan.out, _draw(drawings, classes))
    if records:
        echo(f"written to {plan.out}")
    if records and plan.json_file:
        left_out = [{"image": str(path), "reason": reason} for path, reason in skipped]
        write_json(plan.json_file, {**about, "images": records, "skipped": left_out})
        echo(f"written to {plan.json_file}")
    if skipped:
        raise typer.Exit(1)


def _as_record(path: Path, image: Tensor, found: Detections, classes: Sequence[str]) -> dict[str, Any]:
    """Detections in an image as JSON holds them; boxes in pixels of the upright image."""
    rows = zip(found["labels"].tolist(), found["scores"].tolist(), found["boxes"].tolist(), strict=True)
    objects = [{"class": classes[label], "label": label, "score": score, "box": box} for label, score, box in rows]
    for one, encoded in zip(objects, found.get("masks", ()), strict="masks" in found):
        one["segmentation"] = {**encoded, "counts": encoded["counts"].decode("ascii")}
    return {"image": str(path), "height": image.shape[1], "width": image.shape[2], "detections": objects}


def _print(record: dict[str, Any]) -> None:
    """A line for each object of an image, or one that says that there is none."""
    for row in record["detections"]:
        box = " ".join(f"{value:.1f}" for value in row["box"])
        echo(f"{record['image']}: {row['class']} {row['score']:.2f} at {box}")
    if not record["detections"]:
        echo(f"{record['image']}: nothing found")


def complain(path: Path, reason: str) -> str:
    """Say on standard error what is left out, in one line; the name comes once. Returns the line."""
    line = f"{path}: skipped: {' '.join(reason.removeprefix(f'{path}: ').split())}"
    echo(line, err=True)
    return printable(line)


def _draw(drawings: Sequence[tuple[Path, Drawing]], classes: Sequence[str]) -> bytes:
    """One image as large as it is, or several below their names, with the folder where a name comes twice."""
    from minircnn.plotting import draw_png

    names = [path.name for path, _ in drawings]
    titles = [str(name if names.count(name) == 1 else path) for name, (path, _) in zip(names, drawings, strict=True)]
    nothing = ["" if len(drawing.found["boxes"]) else "nothing found" for _, drawing in drawings]
    if len(drawings) > 1:
        return draw_png(
            [drawing for _, drawing in drawings],
            classes,
            [f"{title}\n{words}".rstrip("\n") for title, words in zip(titles, nothing, strict=True)],
        )
    height, width = drawings[0][1].pixels.shape[:2]
    inches = min(max(max(height, width) / 100, 6.0), 10.0) * min(1.0, width / height)
    return draw_png([drawings[0][1]], classes, nothing if nothing[0] else None, width=inches)
