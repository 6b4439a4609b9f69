"""Look at every image and every object of a data set, and list what is wrong.

A loader refuses what it cannot give. This looks further: at images that are there twice, at objects that are drawn
twice, at masks that show something else than their boxes. One image is in memory at a time.

Shape comments: G objects of an image.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minircnn.boxes import box_iou
from minircnn.datasets.folders import boxes_around
from minircnn.datasets.images import Target, box_problem, orientation_note
from minircnn.datasets.named import DatasetError, open_data
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
    readable: list[int] = field(default_factory=list)  # indices of images that can be shown with their objects


def open_to_check(
    name: str, root: Path | None, annotations: Path | None, *, split: str | None, masks: bool | None
) -> tuple[Any, list[str]]:
    """A data set without what is invalid in it (None if that is all), and every defect that its files show when opened.

    Arguments are those of :func:`minircnn.datasets.open_data`.

    Raises:
        DatasetError: What was asked for is no data set at all.
        FileNotFoundError: There is no such folder or file.
    """
    try:
        data = open_data(name, root, annotations, split=split, masks=masks, drop_invalid=name != "toytown")
    except DatasetError as error:
        if not error.problems:
            raise
        return None, error.problems
    whole = getattr(data, "whole", data)
    return data, [*whole.dropped, *whole.odd]


def examine(
    data: Any,  # noqa: ANN401 - one of our data sets
    *,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> Report:
    """Open every image and every target of a data set.

    Args:
        data: A data set such as :class:`~minircnn.datasets.CocoDataset`, opened so that it drops what is invalid.
        progress: Wraps the numbers of the images, to show how far it is.
    """
    report = Report(list(data.classes), images=len(data))
    files: dict[bytes, Path] = {}  # the first image of each checksum
    objects, shown_in = Counter(), Counter()
    for index in progress(range(len(data))):
        found = list(data.find_problems(index))
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
            first = files.setdefault(hashlib.sha256(path.read_bytes()).digest(), path)
            if first != path:
                remedy = "remove one, or it may be both learned from and tested with"
                found.append(f"{path}: the same image as {first}; {remedy}")
            report.smallest = min(report.smallest or size, size, key=lambda s: s[0] * s[1])
            report.largest = max(report.largest or size, size, key=lambda s: s[0] * s[1])
        if image is not None and target is not None:
            report.readable.append(index)
            found += object_problems(target, size, report.classes, str(path))
        report.problems += found
    report.per_class = {name: (objects[name], shown_in[name]) for name in report.classes[1:]}
    return report


def _try(load: Callable[[int], Any], index: int, problems: list[str]) -> Any:  # noqa: ANN401 - what it loads
    """What can be loaded; else None, and the reason among the problems, once."""
    try:
        return load(index)
    except (DatasetError, OSError) as error:
        if str(error) not in problems:
            problems.append(str(error))
        return None


def object_problems(target: Target, size: tuple[int, int], classes: list[str], where: str) -> list[str]:
    """Defects of the objects of an image that its loader lets through, or else what a training would refuse.

    Args:
        target: A target.
        size: (height, width) of the image.
        classes: Names by label.
        where: The image's file, which begins every sentence, before the object's place in the target from 1.
    """
    boxes, labels, problems = target["boxes"].tolist(), target["labels"].tolist(), []
    names = [f"{where}, object {place} ({classes[label]})" for place, label in enumerate(labels, start=1)]
    for name, box in zip(names, boxes, strict=True):
        if problem := box_problem(f"box {_written(box)}", box, size):
            problems.append(f"{name}: {problem}")
    if "masks" in target:
        problems += [f"{names[row]}: {problem}" for row, problem in _mask_problems(target)]
    seen: dict[tuple[float, ...], int] = {}
    for row, (label, box) in enumerate(zip(labels, boxes, strict=True)):
        first = seen.setdefault((label, *box), row)
        if first != row:
            problems.append(f"{names[row]}: the same class and box as object {first + 1}; delete one")
    try:
        check_target(target, where, num_classes=len(classes), size=size)
    except ValueError as error:  # such as boxes in fractions of the image
        return problems or [str(error)]
    return problems


def _written(box: list[float]) -> str:
    return ", ".join(f"{value:g}" for value in box)


def _mask_problems(target: Target) -> Iterable[tuple[int, str]]:
    """Masks that are empty or do not belong to their boxes: rows and sentences."""
    masks, boxes = target["masks"], target["boxes"]
    filled = masks.flatten(1).any(dim=1)  # (G,)
    around = boxes_around(masks)  # (G, 4)
    for row in range(len(masks)):
        if not filled[row]:
            if "difficult" not in target:  # VOC's loader has said so itself
                yield row, "its mask is empty; draw it or delete the object"
        elif (around[row] - boxes[row]).abs().max() > SLACK and box_iou(
            around[row, None], boxes[row, None]
        ) < LEAST_OVERLAP:
            box, other = _written(boxes[row].tolist()), _written(around[row].tolist())
            yield row, f"its mask lies in the box {other}, its box is {box}; do both belong to one object?"
