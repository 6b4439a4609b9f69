"""What a file in COCO format must say, checked before any picture is opened.

A detector trained on a broken data set does not crash: it learns less, or its loss becomes NaN after an hour. A box of
no width has the logarithm of 0 as its regression target; an unknown category shifts labels; a run-length mask of the
wrong length is decoded by pycocotools into something without a word. So everything that can be seen in the JSON is
looked at when the data set is opened, and all defects are reported together, each with its picture, its annotation and
a remedy.

Format: https://cocodataset.org/#format-data (object detection). Its three ways to write a mask are

* polygons: ``[[x1, y1, x2, y2, x3, y3, …], …]``, one list for each visible part, in pixels;
* uncompressed run lengths: ``{"size": [height, width], "counts": [zeros, ones, zeros, …]}``, column after column;
* compressed run lengths: the same with ``counts`` as a string, about five bits of a number in each character.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from numbers import Integral
from pathlib import Path, PureWindowsPath
from posixpath import normpath
from types import UnionType
from typing import Any

import numpy as np
from numpy.typing import NDArray

Record = dict[str, Any]

OVERHANG = 1.0  # pixels: annotation tools round corners, so a box may stick out of its picture by this much
LARGEST = 1e15  # beyond any picture, and far from what a float can hold
MOST_PIXELS = 89_478_485  # of an image: Pillow's own limit; one that is larger could fill the memory
MOST_LISTED = 10  # kinds of defects that an error names
MOST_ALIKE = 3  # defects of one kind that are told one by one; of more, the first is told and the places of these
DROP_THEM = "drop_invalid=True, on the command line --drop-invalid, leaves invalid annotations out"
NEAR_FOLDERS = 200  # that are searched for images that do not lie where they should

_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?\s*", re.IGNORECASE | re.ASCII)
_RUN_LENGTHS = re.compile(rb"(?:[P-o]{0,6}[0-O])*")  # numbers of up to seven characters, more than an image has pixels
_DETAIL = re.compile(r"'[^']*'|\[[^\]]*\]|-?\d[\d.]*(e[+-]?\d+)?")  # what differs between defects of one kind


class DatasetError(ValueError):
    """A data set that cannot be used as it is; the message names file, image and annotation, and a remedy.

    Attributes:
        problems: Every defect, one sentence each, where there may be several.
    """

    def __init__(self, message: str, problems: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.problems = list(problems)


def read_coco_json(path: Path) -> Record:
    """Read a COCO annotation file and check its outermost shape.

    What programs write in other ways is read where its meaning is plain: numbers as text or with a fraction of zero,
    words as ids of images, a polygon that is not in a list of polygons or is a list of points, a category that is
    listed several times.

    Args:
        path: The JSON file.

    Returns:
        The parsed file: a dict with the lists ``images``, ``annotations`` and ``categories``.

    Raises:
        FileNotFoundError: There is no such file.
        DatasetError: It is no JSON (with line and column), or holds what no data set holds, or one of the three lists
            is missing.
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
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise DatasetError(
                f"{path}: no list {key!r}; a COCO data set is one JSON object with the lists "
                "'images', 'annotations' and 'categories' (a file of results is something else)"
            )
    _number_words(content["images"], content["annotations"])
    for record in filter(_is_record, [*content["images"], *content["categories"], *content["annotations"]]):
        _write_plainly(record)
    # Some programs write the category anew for each image.
    content["categories"] = list({_identity(one): one for one in reversed(content["categories"])}.values())[::-1]
    return content


def _is_record(value: object) -> bool:
    return isinstance(value, dict)


def _identity(category: object) -> str:
    """The same for entries that say the same."""
    return repr((category.get("id"), category.get("name")) if isinstance(category, dict) else category)


def _number_words(images: list[Any], annotations: list[Any]) -> None:
    """Ids of images that are words become numbers, from 1 in the order of the words."""
    ids = [image.get("id") for image in images if isinstance(image, dict)]
    if all(isinstance(one, str) for one in ids) and not all(map(_NUMBER.fullmatch, ids)):
        numbers = {word: number for number, word in enumerate(sorted(set(ids)), start=1)}
        for records, key in ((images, "id"), (annotations, "image_id")):
            for record in filter(_is_record, records):
                if key in record:  # a number, too, is then no id: it must not meet one of those just given
                    record[key] = numbers.get(str(record[key]), f"{record[key]} (no image has this id)")


def _write_plainly(record: Record) -> None:
    """Puts numbers and lists of a record into the form that the format asks for, where their meaning is plain."""
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


def raise_problems(path: Path, problems: Sequence[str], advice: str = DROP_THEM) -> None:
    """Raise one :class:`DatasetError` that lists the problems of a file; do nothing where there are none.

    Args:
        path: The file.
        problems: One sentence each.
        advice: A last line: what helps against all of them.
    """
    if not problems:
        return
    kinds = grouped(problems)
    lines = [f"{path}: {len(problems)} problem{'s' * (len(problems) > 1)}", *kinds[:MOST_LISTED]]
    if len(kinds) > MOST_LISTED:
        lines.append(f"… and {len(kinds) - MOST_LISTED} more lines")
    raise DatasetError("\n  ".join([*lines, *([advice] if advice else [])]), problems)


def grouped(problems: Iterable[str]) -> list[str]:
    """Defects of one kind in one line: the first, how many there are, and the first three places.

    Args:
        problems: Sentences "place: what is wrong", of one kind if they differ only in place, numbers and quoted words.

    Returns:
        As many lines as kinds, in the order of the first of each; up to three of a kind have a line each.

    Example:
        >>> grouped([f"image {n}: box [{n}, 2] is not right" for n in range(5)])
        ['image 0: box [0, 2] is not right (and 4 more like this: image 1; image 2; …)']
    """
    kinds: dict[str, list[str]] = defaultdict(list)
    for problem in problems:
        kinds[_DETAIL.sub("#", problem.partition(": ")[2] or problem)].append(problem)
    lines = []
    for alike in kinds.values():
        if len(alike) <= MOST_ALIKE:
            lines += alike
        else:
            places = "; ".join(problem.partition(": ")[0] for problem in alike[1:MOST_ALIKE])
            lines.append(f"{alike[0]} (and {len(alike) - 1} more like this: {places}; …)")
    return lines


def category_problems(categories: list[Any]) -> Iterator[str]:
    """Defects of the list of categories, one sentence each."""
    if not categories:
        yield "'categories' is empty: list every class as {'id': 1, 'name': 'person'}"
    seen: set[int] = set()
    for position, category in enumerate(categories):
        problem = _key_problem(category, {"id": int, "name": str})
        if problem:
            yield f"categories[{position}]: {problem}"
        elif category["id"] in seen:
            yield f"category id {category['id']} ({category['name']!r}) is used twice: give each category its own id"
        else:
            seen.add(category["id"])


def image_problems(images: list[Any], root: Path) -> Iterator[str]:
    """Defects of the list of images, among them files that are not there, one sentence each."""
    if not images:
        yield "'images' is empty: a data set needs at least one picture"
    seen: set[int] = set()
    remedy: str | None = None  # searched for once
    for position, image in enumerate(images):
        problem = _key_problem(image, {"id": int, "file_name": str, "height": int, "width": int})
        if problem:
            yield f"images[{position}]: {problem}"
            continue
        name = f"image {image['id']} ({image['file_name']!r})"
        if image["id"] in seen:
            yield f"{name}: its id is used twice: give each image its own id"
        if image["height"] < 1 or image["width"] < 1:
            yield f"{name}: height {image['height']}, width {image['width']}: both must be at least 1"
        elif image["height"] * image["width"] > MOST_PIXELS:
            yield f"{name}: height {image['height']}, width {image['width']}: too large to be read; correct the numbers"
        if _leaves(image["file_name"]):
            yield f"{name}: its name leads out of {root}: give the folder above all images as root, and names within it"
        elif not _is_file(root / image["file_name"]):
            if remedy is None:
                remedy = _where_it_is(root, image["file_name"])
            yield f"{name}: no such file in {root}: {remedy}"
        seen.add(image["id"])


def repeated_files(images: list[Record]) -> Iterator[str]:
    """Files that several images name, one sentence each: they may be learned from and tested with."""
    first: dict[str, Record] = {}
    for image in images:
        other = first.setdefault(normpath(image["file_name"]), image)
        if other is not image:
            yield (
                f"image {image['id']} ({image['file_name']!r}): the same file as image {other['id']}: it may be both "
                "learned from and tested with; give the objects of both one image id"
            )


def _leaves(file_name: str) -> bool:
    """Whether a name is absolute or climbs out of the root, as POSIX or as Windows reads it."""
    path = PureWindowsPath(file_name)
    return bool(path.anchor) or normpath(path.as_posix()).split("/")[0] == ".."


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


def _is_file(path: Path) -> bool:
    """Whether there is such a file; none has a name that the system refuses, such as one of a thousand letters."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def annotation_problems(
    annotation: object, images: dict[int, Record], category_ids: Collection[int], masks: bool
) -> Iterator[str]:
    """Defects of one annotation, one sentence each.

    Args:
        annotation: One entry of the list ``annotations``.
        images: The image records by their id.
        category_ids: The ids that the file's categories have.
        masks: Whether ``segmentation`` is wanted, and so has to be right.
    """
    problem = _key_problem(annotation, {"id": int, "image_id": int, "category_id": int, "bbox": list})
    if problem:
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
    where = annotation_name(annotation, image)
    if annotation["category_id"] not in category_ids:
        yield where + f"unknown category {annotation['category_id']}: add it to 'categories' or delete the annotation"
    if annotation.get("iscrowd", 0) not in (0, 1):
        yield where + f"'iscrowd' is {annotation['iscrowd']!r}: it must be 0 (one object) or 1 (a crowd)"
    if annotation.get("area") is not None and (not _are_numbers([annotation["area"]]) or annotation["area"] < 0):
        yield where + f"'area' is {annotation['area']!r}: state the mask's area in pixels (0 or more)"
    yield from (where + problem for problem in _box_problems(annotation["bbox"], image))
    if masks:
        yield from (where + problem for problem in segmentation_problems(annotation.get("segmentation"), image))


def annotation_name(annotation: Record, image: Record) -> str:
    """What a sentence about an annotation begins with."""
    return f"image {image['id']} ({image['file_name']!r}), annotation {annotation['id']}: "


def area_problem(annotation: Record) -> str | None:
    """What is wrong with the area of an annotation that is right otherwise; None if nothing is."""
    area, (width, height) = annotation.get("area"), annotation["bbox"][2:]
    if area is None:
        return "no 'area': that of its box is taken"
    if 0 < area <= (width + OVERHANG) * (height + OVERHANG):
        return None
    return (
        f"'area' is {area}, its box has {width * height:g} pixels: by its area an object counts as small, medium or "
        "large; state that of the mask or of the box"
    )


def _box_problems(bbox: list[Any], image: Record) -> Iterator[str]:
    """Defects of ``[x, y, width, height]`` in a picture."""
    if len(bbox) != 4 or not _are_numbers(bbox):
        yield f"box {bbox} is not four finite numbers [x, y, width, height]: correct it or delete the annotation"
        return
    x, y, width, height = bbox
    # Looked at in float32, as the target holds it: 500 + 1e-6 is 500 there, and the box has no width any more.
    for name, start, length in (("width", x, width), ("height", y, height)):
        if not np.float32(start + length) > np.float32(start):
            yield f"box {bbox} has no {name}: correct it or delete the annotation (a loss over such a box is NaN)"
    right, bottom = x + width - image["width"], y + height - image["height"]
    if max(-x, -y, right, bottom) > OVERHANG:
        yield (
            f"box {bbox} (x, y, width, height) leaves the picture of {image['width']}×{image['height']} pixels: "
            "clip it, or look whether it is written as corners or as fractions"
        )


def segmentation_problems(segmentation: object, image: Record) -> Iterator[str]:
    """Defects of a mask in any of the three ways of writing it."""
    if isinstance(segmentation, dict):
        yield from _rle_problems(segmentation, image)
    elif not isinstance(segmentation, list) or not segmentation:
        yield (
            f"its 'segmentation' is {segmentation!r}, not a list of polygons or a run-length mask: add it, "
            "or use boxes only: a detector of boxes such as faster_rcnn, masks=False, or --no-masks in a check"
        )
    else:
        for number, polygon in enumerate(segmentation):
            # Four numbers are refused too: pycocotools reads them as a box, not as two corners of a polygon.
            if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2 or not _are_numbers(polygon):
                yield (
                    f"polygon {number} is malformed: it needs x1, y1, x2, y2, x3, y3, …: "
                    "at least three corners, an even count of finite numbers"
                )
                return
            low, high_x, high_y = min(polygon), max(polygon[::2]), max(polygon[1::2])
            if max(-low, high_x - image["width"], high_y - image["height"]) > OVERHANG:
                yield f"polygon {number} leaves the picture of {image['width']}×{image['height']} pixels: clip it"


def _rle_problems(rle: Record, image: Record) -> Iterator[str]:
    """Defects of a run-length mask."""
    size = [image["height"], image["width"]]
    if rle.get("size") != size:
        yield f"mask of size {rle.get('size')} for a picture of [height, width] = {size}: make the mask in that size"
    elif found := first_bad_runs([rle]):
        yield f"its mask: {found[1]}: make the mask again"


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


def is_id(value: object) -> bool:
    """Whether a value of the JSON may be an id."""
    return _is(value, int)


def _is(value: object, kind: type | UnionType) -> bool:
    """Whether a value of the JSON has a type; True and False, which Python counts as numbers, do not pass as such."""
    return isinstance(value, kind) and not isinstance(value, bool)


def _are_numbers(values: list[Any]) -> bool:
    """Whether all are finite numbers (Python's json also reads NaN and Infinity)."""
    # float() of a whole number of hundreds of digits overflows, and math.isfinite calls it.
    return all(_is(v, int | float) and abs(v) < LARGEST for v in values)


def _key_problem(record: object, keys: dict[str, type]) -> str | None:
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
