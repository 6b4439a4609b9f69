"""``minircnn detect``: objects in the user's own images, and how they are drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from minircnn.cli import common
from minircnn.cli.common import SUFFIXES, RefusedError, check_folder, check_outputs, echo, with_json
from minircnn.files import write_atomically, write_json
from minircnn.shipped import DETECTOR_WEIGHTS

if TYPE_CHECKING:
    from torch import Tensor

    from minircnn.plotting import Drawing

MAX_PROPOSALS = 300
LONGEST_SIDE = 1000  # pixels; a larger image is shrunk before it is drawn
LARGEST_GRID = 60  # images; more are slow to draw and too many to look at


Arguments = Annotated[
    list[Path],
    typer.Argument(
        metavar="[DETECTOR] IMAGE...",
        help=f"{', '.join(DETECTOR_WEIGHTS)} (by default the last), then image files, or folders of them.",
        readable=False,  # what may not be read is left out like other images that cannot be
        show_default=False,
    ),
]
Out = common.option(Path, "A file that ends in .png and shows all images, or a folder for one PNG each.", metavar="PNG")
Names = common.option(
    str,
    "What a .pth file of one's own tells apart, in the order of the labels, with commas between: "
    "background,pedestrian. Such files hold no names.",
    default="COCO's",
    metavar="NAMES",
)
Threshold = common.option(
    float, "Show what scores more: a probability; of rcnn a margin of an SVM.", default="0.5; 0 of rcnn"
)


def detect(
    arguments: Arguments,
    out: Out = Path("detections.png"),
    weights: common.Weights = None,
    classes: Names = None,
    threshold: Threshold = None,
    max_proposals: common.MaxProposals = None,
    device: common.Device = "cpu",
    json_file: common.JsonFile = None,
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
    common.refuse_others(detector, {"max_proposals": max_proposals})
    threshold = common.score_threshold(detector, threshold)
    file = common.detector_file(detector, weights)
    images, skipped = find_images(paths)
    pngs = plan_pngs(images, out)
    outputs = [*(("--out", png) for png in dict.fromkeys(pngs)), ("--json", json_file)]
    check_outputs(outputs, [*images, *with_json(file)])
    for path, reason in skipped:
        complain(path, reason)
    if not images:
        raise typer.Exit(1)
    names = [name.strip() for name in classes.split(",")] if classes else None
    model = common.read_detector(detector, file, names).to(common.ready_device(device))
    common.set_threshold(model, threshold)
    about: dict[str, Any] = {"detector": detector, "weights": str(file), "threshold": threshold}
    if on_proposals := detector in common.ON_PROPOSALS:
        about["max_proposals"] = max_proposals = max_proposals or MAX_PROPOSALS

    def find(image: Tensor) -> common.Detections:
        from minircnn.selective_search import selective_search

        proposals = selective_search(image, max_proposals=max_proposals) if on_proposals else None
        return common.detect_in(model, image, proposals)

    records, failed = detect_all(dict(zip(images, pngs, strict=True)), find, model.classes)
    skipped += failed
    if records:
        echo(f"written to {out}")
    if records and json_file:
        left_out = [{"image": str(path), "reason": reason} for path, reason in skipped]
        write_json(json_file, {**about, "images": records, "skipped": left_out})
        echo(f"written to {json_file}")
    if skipped:
        raise typer.Exit(1)


def find_images(arguments: Iterable[Path]) -> tuple[list[Path], list[tuple[Path, str]]]:
    """The files that are meant, each once, and what is none, with the reason; of a folder its images, by name."""
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


def plan_pngs(images: Sequence[Path], out: Path) -> list[Path]:
    """The PNG that each image is drawn into: all in one, or in a folder each in one that has its name.

    >>> [str(path.name) for path in plan_pngs([Path("a/cat.jpg"), Path("b/Cat.jpg"), Path("cat_2.png")], Path("out"))]
    ['cat.png', 'Cat_2.png', 'cat_2_2.png']
    """
    if out.suffix.lower() == ".png":
        if len(images) > LARGEST_GRID:
            what = f"{len(images)} images, but one PNG shows at most {LARGEST_GRID}; name a folder instead"
            raise RefusedError(f"--out {out}: {what}")
        return [out] * len(images)
    check_folder("--out", out, ", or a file that ends in .png")
    taken: dict[str, Path] = {}  # by the name in small letters: on most machines Cat.png and cat.png are one file
    for image in images:
        names = chain([image.stem], (f"{image.stem}_{number}" for number in count(2)))
        name = next(name for name in names if name.casefold() not in taken)
        taken[name.casefold()] = out / f"{name}.png"
    return list(taken.values())


def detect_all(
    pngs: Mapping[Path, Path], find: Callable[[Tensor], common.Detections], classes: Sequence[str]
) -> tuple[list[dict[str, Any]], list[tuple[Path, str]]]:
    """Look at each image with ``find``, print what is there, and draw it into its PNG, alone or with others.

    Returns what was found in each image, as JSON holds it; and the images that could not be read, and why.
    """
    from minircnn.datasets.images import read_image
    from minircnn.plotting import GRID_SIDE, make_drawing

    grid = len(pngs) > 1 and len(set(pngs.values())) == 1
    records, skipped, drawings = [], [], []
    for path, png in pngs.items():
        try:
            with common.naming_memory():
                image = read_image(path)
                found = find(image)
                # The image itself is not kept: shrunk ones do not fill the memory.
                drawings.append((path, make_drawing(image, found, GRID_SIDE if grid else LONGEST_SIDE)))
        except (OSError, ValueError) as error:
            skipped.append((path, str(error)))
            complain(path, str(error))
            continue
        records.append({**_as_record(path, image, found, classes), "png": str(png)})
        for row in records[-1]["detections"]:
            box = " ".join(f"{value:.1f}" for value in row["box"])
            echo(f"{path}: {row['class']} {row['score']:.2f} at {box}")
        if not records[-1]["detections"]:
            echo(f"{path}: nothing found")
        if not grid:
            write_atomically(png, _draw([drawings.pop()], classes))
    if drawings:
        write_atomically(png, _draw(drawings, classes))
    return records, skipped


def _as_record(path: Path, image: Tensor, found: common.Detections, classes: Sequence[str]) -> dict[str, Any]:
    """Detections in an image as JSON holds them; boxes in pixels of the upright image."""
    rows = zip(found["labels"].tolist(), found["scores"].tolist(), found["boxes"].tolist(), strict=True)
    objects = [{"class": classes[label], "label": label, "score": score, "box": box} for label, score, box in rows]
    for one, encoded in zip(objects, found.get("masks", ()), strict="masks" in found):
        one["segmentation"] = {**encoded, "counts": encoded["counts"].decode("ascii")}
    return {"image": str(path), "height": image.shape[1], "width": image.shape[2], "detections": objects}


def complain(path: Path, reason: str) -> None:
    """Say on standard error what is left out, in one line; the name comes once."""
    echo(f"{path}: skipped: {' '.join(reason.removeprefix(f'{path}: ').split())}", err=True)


def _draw(drawings: Sequence[tuple[Path, Drawing]], classes: Sequence[str]) -> bytes:
    """One image as large as it is, or several below their names."""
    from minircnn.plotting import draw_png

    parts = [drawing for _, drawing in drawings]
    words = ["" if len(part.found["boxes"]) else "nothing found" for part in parts]
    if len(parts) > 1:
        titles = [f"{path.name}\n{word}".rstrip() for (path, _), word in zip(drawings, words, strict=True)]
        return draw_png(parts, classes, titles)
    height, width = parts[0].pixels.shape[:2]
    inches = min(max(max(height, width) / 100, 6.0), 10.0) * min(1.0, width / height)
    return draw_png(parts, classes, words if words[0] else None, width=inches)
