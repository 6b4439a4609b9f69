"""``minircnn demo``: the four detectors on the same images, a scene of Toy Town and the user's own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from minircnn.cli import common
from minircnn.cli.common import RefusedError, check_folder, check_outputs, echo
from minircnn.cli.demo_page import SIDE, View, make_page
from minircnn.cli.detect import LONGEST_SIDE, MAX_PROPOSALS, complain, find_images
from minircnn.files import write_atomically

if TYPE_CHECKING:
    from torch import Tensor

    from minircnn.plotting import Drawing

PAGE, TABLE = "index.html", "four_detectors.png"
MOST_IMAGES = 20  # of the user's: a page of more is heavy, and nobody looks at it
SCENE = 194  # of the test split: one of the seven scenes with six objects, the most that a scene has
DRAWN = 50  # proposals at most; more would hide the image
GRID = {"columns": 5, "width": 15.0}  # an image, and what four detectors found in it; inches

# key: name, year, where the course builds it
DETECTORS = {
    "rcnn": ("R-CNN", 2014, "04_rcnn"),
    "fast_rcnn": ("Fast R-CNN", 2015, "06_fast_rcnn"),
    "faster_rcnn": ("Faster R-CNN", 2016, "08_faster_rcnn"),
    "mask_rcnn": ("Mask R-CNN", 2017, "10_mask_rcnn"),
}


def demo(
    images: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[IMAGE]...", help="Your own, beside a scene of Toy Town.", readable=False),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where to write; made if need be.")] = Path("demo"),
) -> None:
    """Show R-CNN, Fast R-CNN, Faster R-CNN and Mask R-CNN on the same images: a scene, and your own.

    Writes a page, index.html, which needs no other file and no network: it switches between what each detector finds,
    draws its proposals, and compares the time of each stage. What they find is also drawn side by side, in
    four_detectors.png. Files of a former demo are replaced. Images that cannot be read are named and left out; the
    exit status is then 1.
    """
    # Not every shell replaces the ``~`` of ``make demo IMAGE=~/holiday.jpg``. Path.expanduser refuses unknown users.
    files, skipped = find_images([Path(os.path.expanduser(path)) for path in images or ()])  # noqa: PTH111
    check_folder("--out", out)
    check_outputs([("--out", out / name) for name in (PAGE, TABLE)], files)
    if len(files) > MOST_IMAGES:
        raise RefusedError(f"{len(files)} images, but a demo shows at most {MOST_IMAGES}; name fewer, or use detect")
    from minircnn.datasets import ToyTown, read_image
    from minircnn.plotting import draw_png

    for path, reason in skipped:
        complain(path, reason)
    echo("reading the detectors")
    models = {key: common.read_detector(key, common.detector_file(key, None)) for key in DETECTORS}
    for key, model in models.items():
        common.set_threshold(model, common.score_threshold(key))
    data = ToyTown("test")
    scene, truth = data[SCENE]
    _look_at(models, scene)  # not counted: the first look takes longer, while memory is fetched and code is chosen
    shown = [_show(models, "A scene of Toy Town", scene, truth)]
    for path in files:
        try:
            with common.naming_memory():
                shown.append(_show(models, str(path), read_image(path)))
        except (OSError, ValueError) as error:
            skipped.append((path, str(error)))
            complain(*skipped[-1])
    parts, drawings, titles = zip(*shown, strict=True)
    write_atomically(out / TABLE, draw_png([*chain(*drawings)], data.classes, [*chain(*titles)], **GRID))
    write_atomically(out / PAGE, make_page(parts, DETECTORS, data.classes, out))
    echo(f"written to {out / TABLE}", f"written to {out / PAGE}: open it in a browser")
    if skipped:
        raise typer.Exit(1)


@dataclass(frozen=True)
class _Look:
    """What a detector finds in an image, among which proposals (P, 4), best first, and how long each stage took."""

    found: common.Detections
    proposals: Tensor
    milliseconds: dict[str, int]


def _look_at(models: Mapping[str, Any], image: Tensor) -> list[_Look]:
    """What each detector finds in an image (3, H, W); selective search runs once."""
    import torch

    from minircnn.selective_search import selective_search

    start = perf_counter()
    proposals = selective_search(image, max_proposals=MAX_PROPOSALS)
    searching = {"selective search": round(1000 * (perf_counter() - start))}
    with torch.inference_mode():
        return [
            _detect(model, image, *((proposals, {**searching}) if key in common.ON_PROPOSALS else (None, {})))
            for key, model in models.items()
        ]


def _detect(model: common.Model, image: Tensor, proposals: Tensor | None, times: dict[str, int]) -> _Look:
    """Detect, stage by stage as in the detectors' ``detect``; ``times`` are those of stages before."""
    from minircnn.fast_rcnn import resize_proposals
    from minircnn.mask_rcnn import encode_pasted

    start = perf_counter()

    def passed(stage: str) -> None:
        nonlocal start
        end = perf_counter()
        times[stage], start = round(1000 * (end - start)), end

    if hasattr(model, "judge"):  # R-CNN
        features = model.features(image, proposals, {model.config.svm_layer, model.config.box_layer})
        passed(f"network on {len(proposals)} warped crops")
        found = model.judge(features, proposals, image.shape[1:])
        passed("SVMs, box regression, NMS")
        return _Look(found, proposals, times)
    features, sizes = model.features([image])
    passed("backbone on the image")
    if proposals is None:
        regions = model.rpn.filter_proposals(model.rpn(features, model.batch_size(sizes)), sizes)
        proposals = model.postprocess(regions, [image], sizes)[0]["boxes"]
        passed("region proposal network")
        regions = [regions[0]["boxes"]]
    else:
        regions = resize_proposals([proposals], [image], sizes)
    inside = model.roi_heads.detect(features, regions, sizes)
    (found,) = model.postprocess(inside, [image], sizes)
    passed("RoI heads, NMS")
    if hasattr(model.roi_heads, "add_masks"):
        masks, aligned = model.roi_heads.add_masks(features, inside)[0]["masks"], model.roi_heads.config.aligned
        found["masks"] = encode_pasted(masks, found["boxes"], tuple(image.shape[1:]), aligned)
        passed("mask branch, pasting")
    return _Look(found, proposals, times)


def _show(
    models: Mapping[str, Any], name: str, image: Tensor, truth: Mapping[str, Any] | None = None
) -> tuple[tuple[str, str, list[View]], list[Drawing], list[str]]:
    """Let all detectors look at an image, and print what they found.

    Returns what the page says and shows of it; drawings of it, with the ground truth if that is known, and of what each
    detector found; their titles.
    """
    import torch

    from minircnn.plotting import make_drawing
    from minircnn.selective_search import shrink

    about = f"{image.shape[2]} × {image.shape[1]} pixels"
    if max(image.shape) > LONGEST_SIDE:  # the detectors would shrink it, too; masks of many pixels fill the memory
        image = torch.from_numpy(shrink(image, LONGEST_SIDE)).float().permute(2, 0, 1).contiguous()
        about += f", shrunk to {image.shape[2]} × {image.shape[1]} before the detectors saw it"
    there = truth or {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    drawings, titles = [make_drawing(image, there, SIDE)], [Path(name).name]
    views = [View("truth", "Ground truth", drawings[0])] if truth else []
    for (key, (detector, year, *_)), look in zip(DETECTORS.items(), _look_at(models, image), strict=True):
        count, seconds = len(look.found["labels"]), sum(look.milliseconds.values()) / 1000
        objects = f"{count} object{'s' * (count != 1)}"
        echo(f"{name}: {detector}: {objects} in {seconds:.3f} s")
        drawings.append(make_drawing(image, look.found, SIDE))
        titles.append(f"{detector} ({year})\n{objects}, {seconds:.3f} s")
        drawn = make_drawing(image, {"boxes": look.proposals[:DRAWN]}, SIDE).found["boxes"].tolist()
        whose = "selective search" if key in common.ON_PROPOSALS else "its region proposal network"
        proposed = f" It classified {len(look.proposals)} proposals from {whose}"
        proposed += f"; “Proposals” draws the first {len(drawn)}."
        views.append(View(key, detector, drawings[-1], drawn, proposed, look.milliseconds))
    return (name, about, views), drawings, titles
