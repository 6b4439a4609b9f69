"""Any folder of images with annotations in COCO format, as ``(image, target)`` pairs.

Lin et al. 2014, "Microsoft COCO: Common Objects in Context", section 4 (annotation), and the format:
https://cocodataset.org/#format-data (object detection). Its three ways to write a mask are

* polygons: ``[[x1, y1, x2, y2, x3, y3, …], …]``, one list for each visible part, in pixels;
* uncompressed run lengths: ``{"size": [height, width], "counts": [zeros, ones, zeros, …]}``, column after column;
* compressed run lengths: the same with ``counts`` as a string, about five bits of a number in each character.

All of the JSON is checked when the data set is opened: a detector trained on a broken one learns less, without a word.

Shape comments: G ground-truth objects, H W image size, K classes with background.
"""

from __future__ import annotations

import json
import os.path
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path, PureWindowsPath
from posixpath import normpath
from typing import Any

import numpy as np
import torch

from minircnn.datasets.images import BACKGROUND, LARGEST, MOST_PIXELS, OVERHANG, ImageDataset, Target, box_problem
from minircnn.datasets.masks import run_lengths, runs_problem
from minircnn.datasets.named import DatasetError, check_places, raise_problems

Record = dict[str, Any]

_is_file = os.path.isfile  # whatever a file calls an image, this raises nothing
MOST_NEAR = 10_000  # files and folders around the root that are looked at for images that are not where they should be
_NUMBERS = {"id", "image_id", "category_id", "height", "width", "iscrowd", "area", "bbox", "segmentation"}


class CocoDataset(ImageDataset):
    """Images and their objects, from a folder and a COCO annotation file.

    ``dataset[i]`` is ``(image, target)``: the image as (3, H, W) float32 in [0, 1], the target a dict of

    ==========  ===================  ========================================================
    boxes       (G, 4) float32       x1, y1, x2, y2 in pixels, half open
    labels      (G,) int64           1 … K-1; 0 is background
    masks       (G, H, W) bool       only with ``masks=True``
    image_id    int                  the file's id of the image
    iscrowd     (G,) bool            the region of a crowd, not of one object
    area        (G,) float32         as the file states it (else of the box): COCO measures size by it
    ==========  ===================  ========================================================

    Images and their objects stand in the order of the file; an image without objects stays, with G = 0. Images are
    upright, as a viewer shows them, and objects lie on the upright image (docs/data_formats.md).

    Paper vs code: COCO's 80 categories have ids from 1 to 90 with gaps. A classifier needs labels without gaps, so
    label ``k`` is the k-th category in order of its id. torchvision's ``CocoDetection`` leaves that to its user.

    ``records`` are what the file says about an image, and its annotations; ``left_out`` is how many of these were left
    out, and ``dropped`` their defects.
    """

    def __init__(
        self, root: str | Path, annotations: str | Path, *, masks: bool = True, drop_invalid: bool = False
    ) -> None:
        """Read the annotation file and check all of it; no image is opened yet.

        The ``file_name`` of each image is relative to ``root``. Without ``masks`` files without ``segmentation`` are
        accepted, too. With ``drop_invalid`` invalid annotations are left out; else a :class:`DatasetError` lists every
        defect with image, annotation and remedy.
        """
        check_places("coco", root, annotations)
        super().__init__(root, masks)
        self.annotations = path = Path(annotations)
        categories, images, annotations = _read_json(path)
        problems, of_image = [], {"file_name": str, "height": int, "width": int}
        for name, records, kinds in (("categories", categories, {"name": str}), ("images", images, of_image)):
            ids: set[int] = set()
            problems += [] if records else [f"{name!r} is empty: list every one"]
            problems += filter(None, (_key_problem(name, record, ids, kinds) for record in records))
        raise_problems(path, problems or list(_image_problems(images, self.root)), advice="")
        self.image_ids = [image["id"] for image in images]
        self.image_files = [self.root / image["file_name"] for image in images]
        self.stated_sizes = [(image["height"], image["width"]) for image in images]
        self.records: list[tuple[Record, list[Record]]] = [(image, []) for image in images]
        self.odd = list(_repeated_files(images))
        self._name_classes(categories, annotations)
        by_id, ids = dict(zip(self.image_ids, self.records, strict=True)), set()
        self.left_out = 0
        for annotation in annotations:
            found, odd = self._problems_of(annotation, by_id, ids)
            self.dropped += found
            self.odd += [] if found else odd
            self.left_out += bool(found)
            if not found:
                by_id[annotation["image_id"]][1].append(annotation)
        if not drop_invalid:
            raise_problems(path, self.dropped)

    @property
    def category_ids(self) -> list[int]:
        """The file's ids of the classes, without the background: ``category_ids[label - 1]`` belongs to a label."""
        return [self._id_of[name] for name in self.classes[1:]]

    def _name_classes(self, categories: list[Record], annotations: list[Any]) -> None:
        """Labels for the categories, one for each name; the background has none, since every detector has it anyway."""
        used = {one["category_id"] for one in annotations if isinstance(one, dict) and _is(one.get("category_id"), int)}
        ids: dict[str, list[int]] = {}
        for category in sorted(categories, key=lambda category: category["id"]):
            ids.setdefault(category["name"], []).append(category["id"])
        ids.pop(BACKGROUND, None)
        for name, same in ids.items():
            if len(same) > 1:
                what = f"two categories of the same name, {name!r}, are read as one class"
                self.odd.append(f"categories {' and '.join(map(str, same))}: {what}: delete one, or rename one")
        self.classes.extend(ids)
        self._id_of = {name: next((one for one in same if one in used), same[0]) for name, same in ids.items()}
        self._label_of = {one: label for label, same in enumerate(ids.values(), start=1) for one in same}

    def _problems_of(
        self,
        annotation: Any,  # noqa: ANN401 - whatever the list holds
        images: Mapping[int, tuple[Record, list[Record]]],
        ids: set[int],
    ) -> tuple[list[str], list[str]]:
        """Defects of an annotation, and what is odd about one without; ``ids`` are those before it."""
        if problem := _key_problem("annotations", annotation, ids, {"image_id": int, "category_id": int, "bbox": list}):
            return [problem], []
        name, image_id = f"annotation {annotation['id']}", annotation["image_id"]
        if image_id not in images:
            remedy = "add the image or delete the annotation"
            return [f"{name}: belongs to image {image_id}, which 'images' does not list: {remedy}"], []
        image, category, area, bbox = images[image_id][0], *(annotation.get(k) for k in ("category_id", "area", "bbox"))
        size, found, odd = (image["height"], image["width"]), [], []
        if category not in self._label_of:
            remedy = "add it to 'categories' (not as 'background'), or delete the annotation"
            found.append(f"unknown category {category}: {remedy}")
        if annotation.get("iscrowd", 0) not in (0, 1):
            found.append(f"'iscrowd' is {annotation['iscrowd']!r}: it must be 0 (one object) or 1 (a crowd)")
        if area is not None and (not _are_numbers([area]) or area < 0):
            found.append(f"'area' is {area!r}: state the mask's area in pixels (0 or more)")
        box = [*bbox[:2], bbox[0] + bbox[2], bbox[1] + bbox[3]] if len(bbox) == 4 and _are_numbers(bbox) else [np.nan]
        found.append(box_problem(f"box {bbox} (x, y, width, height)", box, size))
        if self.masks:
            found.append(_segmentation_problem(annotation.get("segmentation"), size))
        found = [problem for problem in found if problem]
        if not found and area is None:
            odd = ["no 'area': that of its box is taken"]
        elif not found and not 0 < area <= (bbox[2] + OVERHANG) * (bbox[3] + OVERHANG):
            what = "by its area an object counts as small, medium or large; state that of the mask or of the box"
            odd = [f"'area' is {area}, its box has {bbox[2] * bbox[3]:g} pixels: {what}"]
        where = f"image {image_id} ({image['file_name']!r}), {name}: "
        return [where + problem for problem in found], [where + note for note in odd]

    def read_target(self, index: int) -> Target:
        """The objects of image ``index``; see the class for its keys."""
        _, objects = self.records[index]
        corners = [(x, y, x + w, y + h) for x, y, w, h in (one["bbox"] for one in objects)]
        areas = [one["bbox"][2] * one["bbox"][3] if one.get("area") is None else one["area"] for one in objects]
        target: Target = {
            "boxes": torch.tensor(corners, dtype=torch.float32).reshape(-1, 4),  # (G, 4), also for G = 0
            "labels": torch.tensor([self._label_of[one["category_id"]] for one in objects], dtype=torch.int64),  # (G,)
            "iscrowd": torch.tensor([one.get("iscrowd", 0) for one in objects], dtype=torch.bool),  # (G,)
            "area": torch.tensor(areas, dtype=torch.float32),  # (G,)
        }
        if self.masks:
            target["masks"] = run_lengths([one["segmentation"] for one in objects], self.stated_sizes[index])
        return target


def _read_json(path: Path) -> tuple[list[Any], list[Any], list[Any]]:
    """The lists of categories, images and annotations of a file.

    What programs write in other ways is read where its meaning is plain: numbers as text or with a fraction of zero, a
    category that is listed several times.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"), object_hook=_with_numbers)
    except (ValueError, RecursionError) as error:  # also numbers of thousands of digits, lists in lists in lists …
        remedy = "the file may be incomplete: fetch or write it again"
        raise DatasetError(f"{path}: no JSON in UTF-8 ({error}); {remedy}") from error
    lists = [content.get(key) if isinstance(content, dict) else None for key in ("categories", "images", "annotations")]
    if not all(isinstance(one, list) for one in lists):
        what = "one JSON object with the lists 'images', 'annotations' and 'categories', of which not all are there"
        raise DatasetError(f"{path}: a COCO data set is {what} (a file of results is something else)")
    categories, images, annotations = lists
    # Some programs write the category anew for each image.
    said = [repr((one.get("id"), one.get("name")) if isinstance(one, dict) else one) for one in categories]
    return list(dict(zip(said, categories, strict=True)).values()), images, annotations


def _with_numbers(record: Record) -> Record:
    """An object of the JSON, in which no number is a text."""
    record |= {key: _as_numbers(record[key]) for key in _NUMBERS & record.keys()}
    return record


def _as_numbers(value: Any) -> Any:  # noqa: ANN401 - what the JSON holds
    """A number that is written as text, also in lists, and a whole one with a fraction of zero; else the value."""
    if isinstance(value, list):
        return [_as_numbers(one) if isinstance(one, str | list) else one for one in value]
    if isinstance(value, str):
        with suppress(ValueError, RecursionError):
            value = json.loads(value)
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < LARGEST else value


def _is(value: object, kind: type) -> bool:
    """Whether a value of the JSON has a type; True and False, which Python counts as numbers, do not pass as such."""
    return isinstance(value, kind) and not isinstance(value, bool)


def _are_numbers(values: list[Any]) -> bool:
    """Whether all are finite numbers (Python's json also reads NaN and Infinity)."""
    return all((_is(v, int) or _is(v, float)) and abs(v) < LARGEST for v in values)


def _key_problem(name: str, record: Any, ids: set[int], kinds: Mapping[str, type]) -> str | None:  # noqa: ANN401
    """What is wrong with the keys of a record, or None; then its id joins those of the records before it."""
    if not isinstance(record, dict):
        return f"'{name}': {record!r} is not an object {{…}}: correct the file"
    for key, kind in [("id", int), *kinds.items()]:
        if not _is(record.get(key), kind):
            words = {int: "a whole number", str: "a text", list: "a list"}[kind]
            what = f"{key!r} is {record[key]!r}: it must be {words}" if key in record else f"no {key!r}: add it"
            return f"'{name}', id {record.get('id', '?')}: {what}"
    if record["id"] in ids:
        return f"'{name}', id {record['id']}: it is used twice: give each its own"
    ids.add(record["id"])
    return None


def _image_problems(images: list[Record], root: Path) -> Iterator[str]:
    """Images that could not be read, among them files that are not there, one sentence each."""
    remedy: str | None = None  # searched for once
    for image in images:
        file_name, height, width = image["file_name"], image["height"], image["width"]
        name = f"image {image['id']} ({file_name!r})"
        if height < 1 or width < 1:
            yield f"{name}: height {height}, width {width}: both must be at least 1"
        elif height * width > MOST_PIXELS:
            yield f"{name}: height {height}, width {width}: too large to be read; correct the numbers"
        path = PureWindowsPath(file_name)  # which reads / as well
        if path.anchor or normpath(path.as_posix()).split("/")[0] == "..":
            yield f"{name}: its name leads out of {root}: give the folder above all images as root, and names within it"
        elif not _is_file(root / file_name):
            remedy = remedy or _where_it_is(root, file_name)
            yield f"{name}: no such file in {root}: {remedy}"


def _where_it_is(root: Path, file_name: str) -> str:
    """What to do about a file that is not in the root, after a look around."""
    above = root.resolve().parent
    for folder in islice(chain(root.glob("*/"), root.glob("*/*/"), [above], above.glob("*/")), MOST_NEAR):
        if _is_file(folder / file_name):
            return f"it lies in {folder}; give that folder as root"
    return "put it there, give another root, or correct its name, which is within the root and with /"


def _repeated_files(images: list[Record]) -> Iterator[str]:
    """Files that several images name, one sentence each."""
    first: dict[str, int] = {}
    for image in images:
        other = first.setdefault(normpath(image["file_name"]), image["id"])
        if other != image["id"]:
            remedy = "it may be both learned from and tested with; give the objects of both one image id"
            yield f"image {image['id']} ({image['file_name']!r}): the same file as image {other}: {remedy}"


def _segmentation_problem(segmentation: object, size: tuple[int, int]) -> str | None:
    """What is wrong with a mask of an image of ``size``, in any of the three ways of writing it; None if nothing is."""
    if isinstance(segmentation, dict):
        stated = segmentation.get("size")
        if stated != list(size):
            return f"mask of size {stated} for an image of [height, width] = {list(size)}: make the mask in that size"
        problem = runs_problem(segmentation)
        return f"its mask: {problem}: make the mask again" if problem else None
    if not isinstance(segmentation, list) or not segmentation:
        remedy = "add it, or use boxes only: a detector such as faster_rcnn, masks=False, or --no-masks in a check"
        return f"its 'segmentation' is {segmentation!r}, not a list of polygons or a run-length mask: {remedy}"
    for number, polygon in enumerate(segmentation):
        # Four numbers are refused too: pycocotools reads them as a box, not as two corners of a polygon.
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2 or not _are_numbers(polygon):
            rule = "at least three corners, an even count of finite numbers"
            return f"polygon {number} is malformed: it needs x1, y1, x2, y2, x3, y3, …: {rule}"
        if max(-min(polygon), max(polygon[::2]) - size[1], max(polygon[1::2]) - size[0]) > OVERHANG:
            return f"polygon {number} leaves the image of {size[1]}×{size[0]} pixels: clip it"
    return None
