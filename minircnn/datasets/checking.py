"""Looks at every picture and every object of a data set, and lists what is wrong.

A loader refuses what it cannot give. This looks further: at pictures that are there twice, at objects that are drawn
twice, at masks that show something else than their boxes. One picture is in memory at a time.

Shape comments: G objects of a picture, N objects of the data set, H W picture size.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minircnn.boxes import box_iou
from minircnn.datasets.coco import Target
from minircnn.datasets.coco_format import OVERHANG, DatasetError
from minircnn.datasets.folder import boxes_around
from minircnn.datasets.images import orientation_note
from minircnn.datasets.named import open_data
from minircnn.targets import check_target
from minircnn.transforms import Transform

SLACK = (
    6.0  # pixels that an edge of a mask may lie inside of its box: VOC draws a border of 5, COCO's polygons are rough
)
LEAST_OVERLAP = 0.5  # a mask whose own box overlaps the stated one by less shows something else


@dataclass
class Report:
    """What a data set holds, and what is wrong with it.

    Attributes:
        classes: K names; ``classes[0]`` is "background".
        pictures: How many there are.
        empty: How many of them have no object.
        objects: How many there are, crowds included.
        crowds: How many are crowds (or difficult, in VOC).
        per_class: For each class its objects and the pictures that show one.
        smallest: (height, width) of the picture of the fewest pixels; None if none can be read.
        largest: The same of the most.
        problems: Every defect: file, object, what it is and what to do.
        readable: Indices of the pictures that can be shown with their objects.
        shapes: Width and height of every object that is no crowd, in pixels of the picture as a network sees it.
    """

    classes: list[str]
    pictures: int = 0
    empty: int = 0
    objects: int = 0
    crowds: int = 0
    per_class: dict[str, tuple[int, int]] = field(default_factory=dict)
    smallest: tuple[int, int] | None = None
    largest: tuple[int, int] | None = None
    problems: list[str] = field(default_factory=list)
    readable: list[int] = field(default_factory=list)
    shapes: list[tuple[float, float]] = field(default_factory=list)


def open_to_check(
    name: str, root: Path | None, annotations: Path | None, *, split: str | None, masks: bool | None
) -> tuple[Any, list[str]]:
    """A data set without what is invalid in it, and all the defects that its files show when it is opened.

    Args:
        name: See :func:`minircnn.datasets.open_data`, as for the others.
        root: Where it lies.
        annotations: COCO's JSON file.
        split: Which pictures.
        masks: Whether to look at masks; None: where there are any.

    Returns:
        The data set, None if its defects leave none; and the defects, however many.

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
    return data, [*whole.dropped, *getattr(whole, "odd", ())]


def examine(
    data: Any,  # noqa: ANN401 - one of our data sets
    *,
    min_size: int = 192,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> Report:
    """Open every picture and every target of a data set.

    Args:
        data: A data set such as :class:`~minircnn.datasets.CocoDataset`, opened so that it drops what is invalid.
        min_size: To how many pixels the network resizes the shorter side of a picture; ``shapes`` are counted in these.
        progress: Wraps the numbers of the pictures, to show how far it is.
    """
    report = Report(list(data.classes), pictures=len(data))
    files: dict[bytes, Path] = {}
    objects, shown_in = Counter(), Counter()
    for index in progress(range(len(data))):
        find = getattr(data, "find_problems", None)
        found = list(find(index)) if find else []
        image = _try(lambda: data.load_image(index), found)  # noqa: B023 - called at once
        target = _try(lambda: data.load_target(index), found)  # noqa: B023
        if target is not None:
            labels = [report.classes[label] for label in target["labels"].tolist()]
            objects.update(labels)
            shown_in.update(set(labels))
            _count(report, target)
        if image is not None:
            path = data.image_path(index)
            found += [*filter(None, [orientation_note(path)]), *_twice(path, files)]
            size = (image.shape[1], image.shape[2])
            report.smallest = min(report.smallest or size, size, key=lambda s: s[0] * s[1])
            report.largest = max(report.largest or size, size, key=lambda s: s[0] * s[1])
            if target is not None:
                report.readable.append(index)
                report.shapes += _shapes(target, size, min_size)
                odd = object_problems(target, size, report.classes, str(path))
                found += odd or _refused(target, size, report.classes, str(path))
        report.problems += found
    report.per_class = {name: (objects[name], shown_in[name]) for name in report.classes[1:]}
    return report


def _try(load: Callable[[], Any], problems: list[str]) -> Any:  # noqa: ANN401 - what it loads
    """What can be loaded; else None, and the reason among the problems, once."""
    try:
        return load()
    except (DatasetError, OSError) as error:
        if str(error) not in problems:
            problems.append(str(error))
        return None


def _twice(path: Path, files: dict[bytes, Path]) -> list[str]:
    """Whether an earlier picture has the same bytes, of which the checksums are kept in ``files``."""
    first = files.setdefault(hashlib.sha256(path.read_bytes()).digest(), path)
    if first == path:
        return []
    return [f"{path}: the same picture as {first}; remove one, or it may be both learned from and tested with"]


def _count(report: Report, target: Target) -> None:
    count = len(target["labels"])
    report.empty += count == 0
    report.objects += count
    report.crowds += int(target["iscrowd"].sum())


def _shapes(target: Target, size: tuple[int, int], min_size: int) -> list[tuple[float, float]]:
    """Width and height of the single objects, in pixels of the resized picture."""
    new = Transform(min_size=min_size).new_size(size)
    boxes = target["boxes"][~target["iscrowd"]]
    sides = (boxes[:, 2:] - boxes[:, :2]) * torch.tensor([new[1] / size[1], new[0] / size[0]])  # (G, 2)
    return [(width, height) for width, height in sides.tolist() if width > 0 and height > 0]


def object_problems(target: Target, size: tuple[int, int], classes: list[str], where: str) -> list[str]:
    """Defects of the objects of a picture that its loader lets through.

    Args:
        target: A target.
        size: (height, width) of the picture.
        classes: Names by label.
        where: The picture's file, which begins every sentence.

    Returns:
        A sentence for each, with the object's place in the target from 1, its class and a remedy.
    """
    boxes, problems = target["boxes"], []
    names = [f"{where}, object {place} ({classes[k]})" for place, k in enumerate(target["labels"].tolist(), start=1)]
    for name, box in zip(names, boxes.tolist(), strict=True):
        problems += [f"{name}: {problem}" for problem in _box_problems(box, size)]
    if "masks" in target:
        problems += [f"{names[row]}: {problem}" for row, problem in _mask_problems(target)]
    seen: dict[tuple[float, ...], int] = {}
    for row, (label, box) in enumerate(zip(target["labels"].tolist(), boxes.tolist(), strict=True)):
        first = seen.setdefault((label, *box), row)
        if first != row:
            problems.append(f"{names[row]}: the same class and box as object {first + 1}; delete one")
    return problems


def _refused(target: Target, size: tuple[int, int], classes: list[str], where: str) -> list[str]:
    """What else a training would refuse, such as boxes in fractions of the image."""
    try:
        check_target(target, where, num_classes=len(classes), size=size)
    except ValueError as error:
        return [str(error)]
    return []


def _box_problems(box: list[float], size: tuple[int, int]) -> Iterator[str]:
    """Defects of a box in a picture."""
    x1, y1, x2, y2 = box
    written = ", ".join(f"{value:g}" for value in box)
    if not (x2 > x1 and y2 > y1):
        yield f"box {written} has no area; correct it or delete the object"
    elif max(-x1, -y1, x2 - size[1], y2 - size[0]) > OVERHANG:
        yield f"box {written} leaves the picture of {size[1]}×{size[0]} pixels; clip it"


def _mask_problems(target: Target) -> Iterator[tuple[int, str]]:
    """Masks that are empty or do not belong to their boxes: rows and sentences."""
    masks, boxes = target["masks"], target["boxes"]
    filled = masks.flatten(1).any(dim=1)  # (G,)
    around = boxes_around(masks)  # (G, 4)
    for row in range(len(masks)):
        if not filled[row]:
            if "difficult" not in target:  # VOC's loader has said so itself
                yield row, "its mask is empty; draw it or delete the object"
        elif not _fits(around[row], boxes[row]):
            box, other = (", ".join(f"{value:g}" for value in b.tolist()) for b in (boxes[row], around[row]))
            yield row, f"its mask lies in the box {other}, its box is {box}; do both belong to one object?"


def _fits(around: Tensor, box: Tensor) -> bool:
    """Whether a mask with the box ``around`` can belong to an object with ``box``."""
    return bool((around - box).abs().max() <= SLACK or box_iou(around[None], box[None]) >= LEAST_OVERLAP)
