"""Any folder of images with annotations in COCO format, as ``(image, target)`` pairs.

Lin et al. 2014, "Microsoft COCO: Common Objects in Context", section 4 (annotation), and the format:
https://cocodataset.org/#format-data (object detection). Its three ways to write a mask are

* polygons: ``[[x1, y1, x2, y2, x3, y3, …], …]``, one list for each visible part, in pixels;
* uncompressed run lengths: ``{"size": [height, width], "counts": [zeros, ones, zeros, …]}``, column after column;
* compressed run lengths: the same with ``counts`` as a string, about five bits of a number in each character.

A detector trained on a broken data set does not crash: it learns less, or its loss becomes NaN after an hour. So
everything that can be seen in the JSON is looked at when the data set is opened, before any image is, and all defects
are reported together, each with its image, its annotation and a remedy.

Shape comments: G ground-truth objects, H W image size, K classes with background.
"""

from __future__ import annotations

import json
import os.path
import re
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import islice
from numbers import Integral
from pathlib import Path, PureWindowsPath
from posixpath import normpath
from typing import Any

import numpy as np
import pycocotools.mask as rle_codec
import torch
from numpy.typing import NDArray
from torch import Tensor

from minircnn.datasets.images import (
    BACKGROUND,
    LARGEST,
    MOST_PIXELS,
    OVERHANG,
    ImageDataset,
    Target,
    box_problem,
    turn,
    turn_boxes,
)
from minircnn.datasets.named import DatasetError, raise_problems

Record = dict[str, Any]

_is_file = os.path.isfile
NEAR_FOLDERS = 200  # that are searched for images that do not lie where they should
_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?\s*", re.IGNORECASE | re.ASCII)
_RUN_LENGTHS = re.compile(rb"(?:[P-o]{0,6}[0-O])*")  # numbers of up to seven characters, more than an image has pixels


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

    Images stand in the order of the file, objects within an image too. An image without objects stays, with G = 0: it
    is all background, and a detector has to stay silent on it.

    Images are upright, as a viewer shows them, and objects lie on the upright image: where the file states the size of
    the unturned pixels of an image that an EXIF tag turns, its annotations are turned with it (docs/data_formats.md).

    Paper vs code: COCO's 80 categories have ids from 1 to 90 with gaps. A classifier needs labels without gaps, so
    label ``k`` is the k-th category in order of its id. torchvision's ``CocoDetection`` leaves that, the conversion of
    boxes from (x, y, width, height), and the decoding of masks to its user.

    Attributes:
        annotations: The annotation file.
        category_ids: K - 1 ids of the file; ``category_ids[label - 1]`` belongs to a label.
        left_out: How many annotations were left out (only with ``drop_invalid=True``); ``dropped`` holds their defects.
        odd: Categories of one name (read as one class), files under two image ids, areas that cannot be.
    """

    def __init__(
        self, root: str | Path, annotations: str | Path, *, masks: bool = True, drop_invalid: bool = False
    ) -> None:
        """Read the annotation file and check all of it; no image is opened yet.

        Args:
            root: Folder that the ``file_name`` of each image is relative to.
            annotations: The JSON file.
            masks: Whether targets hold masks. False also accepts files without ``segmentation``.
            drop_invalid: Leave invalid annotations out and list their defects in ``dropped``, rather than refuse the
                file. Images and categories must be right all the same.

        Raises:
            DatasetError: Every defect that the file shows, each with image, annotation and remedy.
        """
        super().__init__(Path(root), masks)
        self.annotations = path = Path(annotations)
        if not self.root.is_dir():
            raise FileNotFoundError(f"{self.root}: there is no such folder of images; check the root")
        categories, images, records = _read_json(path)
        raise_problems(path, [*_category_problems(categories), *_image_problems(images, self.root)], advice="")
        self._images: list[Record] = images
        self.image_ids = [image["id"] for image in images]
        self.odd = list(_repeated_files(images))
        self._name_classes(categories, records)
        self._objects: dict[int, list[Record]] = {image_id: [] for image_id in self.image_ids}
        self.left_out, by_id, ids, problems = 0, {image["id"]: image for image in images}, set(), []
        for record in records:
            if found := list(_annotation_problems(record, by_id, self._label_of, masks, ids)):
                self.left_out += 1
                problems += found
                continue
            ids.add(record["id"])
            self._objects[record["image_id"]].append(record)
            self.odd += _area_problems(record, by_id[record["image_id"]])
        self.dropped = problems
        if not drop_invalid:
            raise_problems(path, problems)

    def _name_classes(self, categories: list[Record], records: list[Any]) -> None:
        """Labels for the categories, one for each name."""
        used = {one["category_id"] for one in records if isinstance(one, dict) and _is(one.get("category_id"), int)}
        ids: dict[str, list[int]] = {}
        for category in sorted(categories, key=lambda category: category["id"]):
            ids.setdefault(category["name"], []).append(category["id"])
        if BACKGROUND in ids and not used.intersection(ids[BACKGROUND]):
            del ids[BACKGROUND]  # which every detector has anyway
        for name, same in ids.items():
            if name == BACKGROUND:
                problem = f"category {same[0]}: objects cannot be of the class {name!r}: rename it, or delete them"
                raise_problems(self.annotations, [problem], advice="")
            if len(same) > 1:
                self.odd.append(
                    f"categories {' and '.join(map(str, same))}: two categories of the same name, {name!r}, are "
                    "read as one class: delete one, or give each its own name"
                )
        self.classes = [BACKGROUND, *ids]
        self.category_ids: list[int] = [next((one for one in same if one in used), same[0]) for same in ids.values()]
        self._label_of = {one: label for label, same in enumerate(ids.values(), start=1) for one in same}

    def image_path(self, index: int) -> Path:
        """Where the file of image ``index`` lies."""
        return self.root / self._images[index]["file_name"]

    def stated_size(self, index: int) -> tuple[int, int]:
        """The (height, width) that the JSON states."""
        return self._images[index]["height"], self._images[index]["width"]

    def annotation_sources(self, index: int) -> list[str | Path]:
        """What the file says about image ``index``."""
        return [repr((self._images[index], self._objects[self.image_ids[index]]))]

    def load_target(self, index: int) -> Target:
        """Only the target, of the image only its size; see the class for its keys, and for errors load_image."""
        objects = self._objects[self.image_ids[index]]
        size, orientation = self.upright_size(index)
        corners = [(x, y, x + w, y + h) for x, y, w, h in (one["bbox"] for one in objects)]
        areas = [one["bbox"][2] * one["bbox"][3] if one.get("area") is None else one["area"] for one in objects]
        boxes = torch.tensor(corners, dtype=torch.float32).reshape(-1, 4)  # (G, 4), also for G = 0
        target: Target = {
            "boxes": turn_boxes(boxes, orientation, size),
            "labels": torch.tensor([self._label_of[one["category_id"]] for one in objects], dtype=torch.int64),  # (G,)
            "image_id": self.image_ids[index],
            "iscrowd": torch.tensor([one.get("iscrowd", 0) for one in objects], dtype=torch.bool),  # (G,)
            "area": torch.tensor(areas, dtype=torch.float32),  # (G,)
        }
        if self.masks:
            masks = decode_masks([one["segmentation"] for one in objects], self.stated_size(index))
            target["masks"] = turn(masks, orientation)  # (G, H, W)
        return target


def decode_masks(segmentations: list[Any], size: tuple[int, int]) -> Tensor:
    """Masks of any of COCO's three kinds as pixels: (G, H, W) bool.

    Args:
        segmentations: G times polygons, uncompressed or compressed run lengths, all of one image.
        size: (height, width) of the image; a ValueError says where a run-length mask has another one.
    """
    height, width = size
    if not segmentations:
        return torch.zeros((0, height, width), dtype=torch.bool)
    encoded = []
    for segmentation in segmentations:
        if isinstance(segmentation, list):
            segmentation = rle_codec.merge(rle_codec.frPyObjects(segmentation, height, width))
        elif list(segmentation["size"]) != [height, width]:
            raise ValueError(f"mask of size {segmentation['size']} for an image of [{height}, {width}]: make it again")
        elif isinstance(segmentation["counts"], list):
            segmentation = rle_codec.frPyObjects(segmentation, height, width)
        encoded.append(segmentation)
    with warnings.catch_warnings():  # pycocotools 2.0.11 does not know a keyword that NumPy 2 would like it to know
        warnings.filterwarnings("ignore", message="__array__", category=DeprecationWarning)
        masks = rle_codec.decode(encoded)  # (H, W, G) uint8
    return torch.from_numpy(np.ascontiguousarray(masks.transpose(2, 0, 1))).bool()  # (G, H, W)


def _read_json(path: Path) -> tuple[list[Any], list[Any], list[Any]]:
    """The lists of categories, images and annotations of a file.

    What programs write in other ways is read where its meaning is plain: numbers as text or with a fraction of zero,
    words as ids of images, a polygon that is not in a list of polygons or is a list of points, a category that is
    listed several times.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such annotation file; check the path (a COCO file ends in .json)")
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise DatasetError(
            f"{path}: broken JSON at line {error.lineno}, column {error.colno}: {error.msg}; "
            "the file may be incomplete: fetch or write it again"
        ) from error
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: no UTF-8 text at byte {error.start}; save the file as UTF-8") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, lists in lists in lists …
        raise DatasetError(f"{path}: no data set ({error}); fetch or write the file again") from error
    lists = [content.get(key) if isinstance(content, dict) else None for key in ("categories", "images", "annotations")]
    if not all(isinstance(one, list) for one in lists):
        raise DatasetError(
            f"{path}: a COCO data set is one JSON object with the lists 'images', 'annotations' and 'categories', of "
            "which not all are there (a file of results is something else)"
        )
    categories, images, annotations = lists
    _number_words(images, annotations)
    for record in [*categories, *images, *annotations]:
        if isinstance(record, dict):
            _write_plainly(record)
    # Some programs write the category anew for each image.
    said = [repr((one.get("id"), one.get("name")) if isinstance(one, dict) else one) for one in categories]
    return list(dict(zip(said, categories, strict=True)).values()), images, annotations


def _number_words(images: list[Any], annotations: list[Any]) -> None:
    """Ids of images that are words become numbers, from 1 in the order of the words."""
    ids = [image.get("id") for image in images if isinstance(image, dict)]
    if all(isinstance(one, str) for one in ids) and not all(map(_NUMBER.fullmatch, ids)):
        numbers = {word: number for number, word in enumerate(sorted(set(ids)), start=1)}
        for records, key in ((images, "id"), (annotations, "image_id")):
            for record in records:
                if isinstance(record, dict) and key in record:  # a number is no id: it could meet one of those given
                    record[key] = numbers.get(str(record[key]), f"{record[key]} (no image has this id)")


def _write_plainly(record: Record) -> None:
    """Put numbers and lists of a record into the form that the format asks for, where their meaning is plain."""
    for key in ("id", "image_id", "category_id", "height", "width", "iscrowd", "area"):
        if isinstance(record.get(key), str | float):
            record[key] = _plain_number(record[key])
    if isinstance(record.get("bbox"), list):
        record["bbox"] = [_plain_number(value) if isinstance(value, str) else value for value in record["bbox"]]
    polygons = record.get("segmentation")
    if isinstance(polygons, list) and polygons:
        if not any(isinstance(one, list) for one in polygons):
            polygons = [polygons]  # x1, y1, x2, y2, … alone
        elif all(isinstance(one, list) and len(one) == 2 for one in polygons):
            polygons = [[value for point in polygons for value in point]]  # [x1, y1], [x2, y2], …
        record["segmentation"] = [
            [_plain_number(value) for value in one] if isinstance(one, list) and str in map(type, one) else one
            for one in polygons
        ]


def _plain_number(value: Any) -> Any:  # noqa: ANN401 - what the JSON holds
    """A number that is written as text, and a whole one that is written with a fraction of zero; else the value."""
    if isinstance(value, str) and len(value) < 40 and _NUMBER.fullmatch(value):
        value = int(value) if value.strip().lstrip("+-").isdigit() else float(value)  # ids may have 19 digits
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < LARGEST else value


def _is(value: object, kind: type) -> bool:
    """Whether a value of the JSON has a type; True and False, which Python counts as numbers, do not pass as such."""
    return isinstance(value, kind) and not isinstance(value, bool)


def _are_numbers(values: list[Any]) -> bool:
    """Whether all are finite numbers (Python's json also reads NaN and Infinity)."""
    return all((_is(v, int) or _is(v, float)) and abs(v) < LARGEST for v in values)


def _key_problem(record: object, **keys: type) -> str | None:
    """What is wrong with the keys of a record, or None."""
    if not isinstance(record, dict):
        return f"{record!r} is not an object {{…}}: correct the file"
    for key, kind in keys.items():
        if key not in record:
            return f"no {key!r}: add it"
        if not _is(record[key], kind):
            names = {int: "a whole number", str: "a text", list: "a list"}
            return f"{key!r} is {record[key]!r}: it must be {names[kind]}"
    return None


def _category_problems(categories: list[Any]) -> Iterator[str]:
    """Defects of the list of categories, one sentence each."""
    if not categories:
        yield "'categories' is empty: list every class as {'id': 1, 'name': 'person'}"
    seen: set[int] = set()
    for position, category in enumerate(categories):
        if problem := _key_problem(category, id=int, name=str):
            yield f"categories[{position}]: {problem}"
        elif category["id"] in seen:
            yield f"category id {category['id']} ({category['name']!r}) is used twice: give each category its own id"
        else:
            seen.add(category["id"])


def _image_problems(images: list[Any], root: Path) -> Iterator[str]:
    """Defects of the list of images, among them files that are not there, one sentence each."""
    if not images:
        yield "'images' is empty: a data set needs at least one image"
    seen: set[int] = set()
    remedy: str | None = None  # searched for once
    for position, image in enumerate(images):
        if problem := _key_problem(image, id=int, file_name=str, height=int, width=int):
            yield f"images[{position}]: {problem}"
            continue
        file_name, height, width = image["file_name"], image["height"], image["width"]
        name = f"image {image['id']} ({file_name!r})"
        if image["id"] in seen:
            yield f"{name}: its id is used twice: give each image its own id"
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
        seen.add(image["id"])


def _where_it_is(root: Path, file_name: str) -> str:
    """What to do about a file that is not in the root, after a look around."""
    name = PureWindowsPath(file_name).name
    below = list(islice((one for one in root.glob("*/") if one.is_dir()), NEAR_FOLDERS))
    deeper = islice((one for folder in below for one in folder.glob("*/") if one.is_dir()), NEAR_FOLDERS)
    beside = islice((one for one in root.resolve().parent.glob("*/") if one.is_dir()), NEAR_FOLDERS)
    for folder in (*below, *deeper, root.resolve().parent, *beside):
        if _is_file(folder / file_name):
            return f"it lies in {folder}; give that folder as root"
    for folder in (root, *below):
        if _is_file(folder / name):
            return f"a {name!r} lies in {folder}; correct the names, which are within the root and with /"
    return "put it there, give another root, or remove the image from the file"


def _repeated_files(images: list[Record]) -> Iterator[str]:
    """Files that several images name, one sentence each."""
    first: dict[str, Record] = {}
    for image in images:
        other = first.setdefault(normpath(image["file_name"]), image)
        if other is not image:
            yield (
                f"image {image['id']} ({image['file_name']!r}): the same file as image {other['id']}: it may be both "
                "learned from and tested with; give the objects of both one image id"
            )


def _annotation_problems(
    annotation: object, images: dict[int, Record], categories: Collection[int], masks: bool, ids: Collection[int]
) -> Iterator[str]:
    """Defects of one annotation, one sentence each; ``ids`` are those of annotations before it."""
    if problem := _key_problem(annotation, id=int, image_id=int, category_id=int, bbox=list):
        known = annotation.get("id", "without id") if isinstance(annotation, dict) else repr(annotation)
        yield f"annotation {known}: {problem}"
        return
    image = images.get(annotation["image_id"])
    if image is None:
        yield (
            f"annotation {annotation['id']}: belongs to image {annotation['image_id']}, which 'images' does not list: "
            "add the image or delete the annotation"
        )
        return
    where = f"image {image['id']} ({image['file_name']!r}), annotation {annotation['id']}: "
    area, bbox, size = annotation.get("area"), annotation["bbox"], (image["height"], image["width"])
    if annotation["id"] in ids:
        yield f"{where}its id is used twice: give each annotation its own id"
    if annotation["category_id"] not in categories:
        yield f"{where}unknown category {annotation['category_id']}: add it to 'categories' or delete the annotation"
    if annotation.get("iscrowd", 0) not in (0, 1):
        yield f"{where}'iscrowd' is {annotation['iscrowd']!r}: it must be 0 (one object) or 1 (a crowd)"
    if area is not None and (not _are_numbers([area]) or area < 0):
        yield f"{where}'area' is {area!r}: state the mask's area in pixels (0 or more)"
    box = [*bbox[:2], bbox[0] + bbox[2], bbox[1] + bbox[3]] if len(bbox) == 4 and _are_numbers(bbox) else [np.nan]
    if problem := box_problem(f"box {bbox} (x, y, width, height)", box, size):
        yield where + problem
    if masks and (problem := _segmentation_problem(annotation.get("segmentation"), size)):
        yield where + problem


def _area_problems(annotation: Record, image: Record) -> Iterator[str]:
    """What is odd about the area of an annotation that is right otherwise."""
    area, (width, height) = annotation.get("area"), annotation["bbox"][2:]
    where = f"image {image['id']} ({image['file_name']!r}), annotation {annotation['id']}: "
    if area is None:
        yield f"{where}no 'area': that of its box is taken"
    elif not 0 < area <= (width + OVERHANG) * (height + OVERHANG):
        yield (
            f"{where}'area' is {area}, its box has {width * height:g} pixels: by its area an object counts as small, "
            "medium or large; state that of the mask or of the box"
        )


def _segmentation_problem(segmentation: object, size: tuple[int, int]) -> str | None:
    """What is wrong with a mask of an image of ``size``, in any of the three ways of writing it; None if nothing is."""
    if isinstance(segmentation, dict):
        if segmentation.get("size") != list(size):
            stated = segmentation.get("size")
            return f"mask of size {stated} for an image of [height, width] = {list(size)}: make the mask in that size"
        found = first_bad_runs([segmentation])
        return f"its mask: {found[1]}: make the mask again" if found else None
    if not isinstance(segmentation, list) or not segmentation:
        return (
            f"its 'segmentation' is {segmentation!r}, not a list of polygons or a run-length mask: add it, "
            "or use boxes only: a detector of boxes such as faster_rcnn, masks=False, or --no-masks in a check"
        )
    for number, polygon in enumerate(segmentation):
        # Four numbers are refused too: pycocotools reads them as a box, not as two corners of a polygon.
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2 or not _are_numbers(polygon):
            return (
                f"polygon {number} is malformed: it needs x1, y1, x2, y2, x3, y3, …: "
                "at least three corners, an even count of finite numbers"
            )
        if max(-min(polygon), max(polygon[::2]) - size[1], max(polygon[1::2]) - size[0]) > OVERHANG:
            return f"polygon {number} leaves the image of {size[1]}×{size[0]} pixels: clip it"
    return None


def first_bad_runs(masks: Sequence[object]) -> tuple[int, str] | None:
    """The first of some run-length masks that cannot be decoded, and why; None if all can.

    Paper vs code: pycocotools does not look. It decodes runs of any length, and of some the overlap takes for ever.
    """
    strings = [_code_of(mask) for mask in masks]
    decoded = iter(decode_counts([code for code in strings if code is not None]))
    for number, (mask, code) in enumerate(zip(masks, strings, strict=True)):
        if not isinstance(mask, Mapping) or not {"size", "counts"} <= set(mask):
            return number, 'no run-length encoding with "size" and "counts"'
        if code is not None:
            runs = next(decoded).tolist()
        elif isinstance(mask["counts"], list) and all(isinstance(run, Integral) for run in mask["counts"]):
            runs = mask["counts"]
        else:
            return number, "its run-length 'counts' are no string in COCO's code, and no list of whole numbers"
        if min(runs, default=0) < 0:
            return number, "it has a run of negative length"
        if sum(runs) != mask["size"][0] * mask["size"][1]:
            height, width = mask["size"]
            return number, f"its runs cover {sum(runs)} pixels, but its size is {height} × {width}"
    return None


def _code_of(mask: object) -> bytes | None:
    """The string of a compressed run-length mask; None where there is none in COCO's code."""
    counts = mask.get("counts") if isinstance(mask, Mapping) else None
    counts = counts.encode(errors="surrogatepass") if isinstance(counts, str) else counts
    return counts if isinstance(counts, bytes) and _RUN_LENGTHS.fullmatch(counts) else None


def decode_counts(strings: Sequence[bytes]) -> list[NDArray[np.int64]]:
    """The run lengths that compressed ``counts`` strings hold, all strings in one go.

    Each character carries ``character - 48``: five bits of a number, lowest first, and a sixth bit (32) which says that
    the number goes on. The highest of the five bits of the last character is the sign. From the fourth run on, the
    number is the difference from the run two places before, which for the columns of a compact object is small.

    Returns:
        For each string the lengths of alternating runs of 0 and 1, column after column.

    Example:
        >>> [runs.tolist() for runs in decode_counts([b"52203", b"04"])]
        [[5, 2, 2, 2, 5], [0, 4]]
    """
    code = np.frombuffer(b"".join(strings), np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero(code < 32)  # the last character of each number
    digits = np.diff(ends, prepend=-1)
    place = np.arange(len(code)) - np.repeat(ends - digits + 1, digits)
    numbers = np.add.reduceat((code & 31) << (5 * place), ends - digits + 1) if len(ends) else ends
    numbers = numbers - (((code[ends] & 16) >> 4) << (5 * digits))
    of_strings = np.split(numbers, np.searchsorted(ends, np.cumsum([len(string) for string in strings])[:-1]))
    for runs in of_strings[: len(strings)]:
        runs[1::2], runs[2::2] = runs[1::2].cumsum(), runs[2::2].cumsum()
    return of_strings[: len(strings)]
