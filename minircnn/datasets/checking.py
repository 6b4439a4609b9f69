"""Look at every image and every object of a data set, and list what is wrong.

A loader refuses what it cannot give. This looks further: at images that are there twice, at objects that are drawn
twice, at masks that show something else than their boxes. One image is in memory at a time.

Shape comments: G objects of an image.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minircnn.boxes import box_iou
from minircnn.datasets.folders import boxes_around
from minircnn.datasets.images import ImageDataset, Target, orientation_note
from minircnn.datasets.named import DatasetError, open_data
from minircnn.files import sha256
from minircnn.targets import check_target

SLACK = 6.0  # pixels of an edge of a mask inside of its box: VOC draws a border of 5, COCO's polygons are rough
LEAST_OVERLAP = 0.5  # a mask whose own box overlaps the stated one by less shows something else


@dataclass
class Report:
    """What a data set holds, and what is wrong with it."""

    classes: list[str]  # K names; classes[0] is "background"
    images: int = 0  # how many images there are
    empty: int = 0  # how many of them have no object
    objects: int = 0  # crowds included
    crowds: int = 0  # or difficult, in VOC
    per_class: dict[str, tuple[int, int]] = field(default_factory=dict)  # objects, and images that show one
    smallest: tuple[int, int] | None = None  # (height, width) of the image of the fewest pixels; None if none is read
    largest: tuple[int, int] | None = None  # of the most
    problems: list[str] = field(default_factory=list)  # each with file, object, what it is and what to do
    sizes: list[tuple[int, int]] = field(default_factory=list)  # (height, width) of each readable image
    boxes: list[Any] = field(default_factory=list)  # (G, 4) of its objects, crowds aside
    readable: list[int] = field(default_factory=list)  # indices of images that can be shown with their objects


def open_to_check(
    name: str, root: Path | None, annotations: Path | None, *, split: str | None, masks: bool | None
) -> tuple[ImageDataset | None, list[str]]:
    """What :func:`open_data` opens, without what is invalid (None if that is all), and every such defect."""
    try:
        data = open_data(name, root, annotations, split=split, masks=masks, drop_invalid=name != "toytown")
    except DatasetError as error:
        if not error.problems:
            raise
        return None, error.problems
    return data, [*data.dropped, *data.odd]


def examine(data: ImageDataset, *, progress: Callable[[Iterable[int]], Iterable[int]] = iter) -> Report:
    """Open every image and every target of a data set that drops what is invalid; ``progress`` wraps the indices."""
    report = Report(list(data.classes), images=len(data))
    files: dict[str, Path] = {}  # the first image of each checksum
    objects, shown_in = Counter(), Counter()
    for index in progress(range(len(data))):
        found: list[str] = []
        found += _try(data.find_problems, index, found) or ()
        image, target = (_try(load, index, found) for load in (data.load_image, data.load_target))
        if target is not None:
            labels = [report.classes[label] for label in target["labels"].tolist()]
            objects.update(labels)
            shown_in.update(set(labels))
            report.empty += not labels
            report.objects += len(labels)
            report.crowds += int(target["iscrowd"].sum())
        if image is not None:
            path, size = data.image_path(index), tuple(image.shape[1:])
            found += filter(None, [orientation_note(path)])
            first = files.setdefault(sha256(path), path)
            if first != path:
                found.append(f"{path}: the same image as {first}; remove one, or it may be in training and test")
            report.smallest = min(report.smallest or size, size, key=math.prod)
            report.largest = max(report.largest or size, size, key=math.prod)
            if target is not None:
                report.readable.append(index)
                report.sizes.append(size)
                report.boxes.append(target["boxes"][~target["iscrowd"]])
                found += object_problems(target, size, report.classes, str(path))
        report.problems += found
    report.per_class = {name: (objects[name], shown_in[name]) for name in report.classes[1:]}
    return report


def _try(load: Callable[[int], Any], index: int, problems: list[str]) -> Any:  # noqa: ANN401 - what it loads
    """What can be loaded; else None, and the reason among the problems, once."""
    try:
        return load(index)
    except (DatasetError, OSError) as error:
        problems += [str(error)] * (str(error) not in problems)


def object_problems(target: Target, size: tuple[int, int], classes: list[str], where: str) -> list[str]:
    """Defects of the objects of an image (height, width) that its loader lets through.

    Each sentence begins with ``where``, the image's file, and the object's place in the target, from 1.
    """
    boxes, labels = target["boxes"].tolist(), target["labels"].tolist()
    names = [f"{where}, object {place} ({classes[label]})" for place, label in enumerate(labels, start=1)]
    problems = [f"{names[row]}: {problem}" for row, problem in _mask_problems(target)] if "masks" in target else []
    seen: dict[tuple[float, ...], int] = {}
    for row, (label, box) in enumerate(zip(labels, boxes, strict=True)):
        first = seen.setdefault((label, *box), row)
        if first != row:
            problems.append(f"{names[row]}: the same class and box as object {first + 1}; delete one")
    try:
        check_target(target, where, num_classes=len(classes), size=size)
    except ValueError as error:  # which a training would raise, such as about boxes in fractions of the image
        return problems or [str(error)]
    return problems


def _mask_problems(target: Target) -> Iterator[tuple[int, str]]:
    """Masks that are empty or do not belong to their boxes: rows and sentences."""
    boxes, around = target["boxes"], boxes_around(target["masks"])  # (G, 4)
    far = (around - boxes).abs().amax(dim=1) > SLACK
    apart = far & (box_iou(around, boxes).diagonal() < LEAST_OVERLAP)
    for row in range(len(boxes)):
        if not around[row].any():
            yield row, "its mask is empty; draw it or delete the object"
        elif apart[row]:
            own, box = (", ".join(f"{side:g}" for side in sides[row].tolist()) for sides in (around, boxes))
            yield row, f"its mask lies in the box {own}, its box is {box}; do both belong to one object?"
