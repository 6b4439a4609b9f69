"""What an annotation file of PASCAL VOC must say, checked before any picture is opened.

Everingham et al. 2010, "The PASCAL Visual Object Classes (VOC) Challenge", and the development kit's documentation. One
XML file belongs to each picture:

    <annotation>
      <size><width>500</width><height>375</height><depth>3</depth></size>
      <object><name>dog</name><difficult>0</difficult>
        <bndbox><xmin>48</xmin><ymin>240</ymin><xmax>195</xmax><ymax>371</ymax></bndbox></object>
    </annotation>

A box names its first and its last column and row, the first of the picture being 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

import numpy as np

from minircnn.datasets.coco_format import MOST_PIXELS, OVERHANG, DatasetError
from minircnn.datasets.splits import did_you_mean

CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog"),
    *("horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
LARGEST_FILE = 10_000_000  # bytes; the largest annotation of VOC has about 30 thousand


@dataclass(frozen=True)
class VocObject:
    """An object of a picture.

    Attributes:
        number: Its place in the file, from 1; in SegmentationObject its pixels have this number.
        label: From 1.
        box: x1, y1, x2, y2, half open.
        difficult: Whether the file says that it is hard to recognise.
    """

    number: int
    label: int
    box: tuple[float, float, float, float]
    difficult: bool


@dataclass
class VocAnnotation:
    """What an annotation file says.

    Attributes:
        size: (height, width) of the picture.
        objects: The valid ones.
        count: Of all objects, valid or not.
        problems: Defects of the others, each with the object's number and a remedy.
    """

    size: tuple[int, int]
    objects: list[VocObject] = field(default_factory=list)
    count: int = 0
    problems: list[str] = field(default_factory=list)


def read_annotation(path: Path) -> VocAnnotation:
    """Read an annotation file and check all of it.

    Raises:
        FileNotFoundError: There is no such file.
        DatasetError: It is no XML, declares entities, or does not state the picture's size.
    """
    tree = read_xml(path)
    if tree.tag != "annotation":
        raise DatasetError(f"{path}: its root is <{tree.tag:.50}>, not <annotation>; this is no annotation of VOC")
    annotation = VocAnnotation(_size(tree, path))
    for number, element in enumerate(tree.findall("object"), start=1):
        name = _text(element, "name")
        problems = [*_class_problems(name), *_difficult_problems(element)]
        box, box_problem = _box(element, annotation.size)
        if box_problem:
            problems.append(box_problem)
        annotation.count += 1
        annotation.problems += [f"object {number} ({name or 'no name'}): {problem}" for problem in problems]
        if not problems:
            label, difficult = CLASSES.index(name) + 1, _text(element, "difficult") == "1"
            annotation.objects.append(VocObject(number, label, box, difficult))
    return annotation


def read_xml(path: Path) -> Element:
    """The tree of an XML file that holds text and nothing that is worked out from declarations.

    A file may declare entities that grow to gigabytes when they are put in, or that stand for other files. Those of
    VOC declare nothing, so a file that begins to is refused there and then, before anything else of it is read.

    Raises:
        FileNotFoundError: There is no such file.
        DatasetError: It is too large, declares a document type, or is damaged (with line and column).
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such annotation file; check the folder Annotations")
    if path.stat().st_size > LARGEST_FILE:
        raise DatasetError(f"{path}: {path.stat().st_size} bytes, far more than any annotation of VOC; write it again")

    def refuse(*_: object) -> None:
        raise DatasetError(
            f"{path}: declares a document type or entities, which no annotation of VOC does; delete that"
        )

    builder, parser = TreeBuilder(), expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = builder.start, builder.end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = refuse
    try:
        parser.Parse(path.read_bytes(), True)
    except expat.ExpatError as error:
        raise DatasetError(
            f"{path}: broken XML at line {error.lineno}, column {error.offset}: {expat.errors.messages[error.code]}; "
            "the file may be incomplete: unpack or write it again"
        ) from error
    except (ValueError, LookupError) as error:  # an encoding that nobody knows
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(f"{path}: cannot be read as text ({error}); save the file as UTF-8") from error
    return builder.close()


def _text(element: Element, path: str) -> str:
    """The text at a place in an element, without space around it; empty if there is none."""
    return (element.findtext(path) or "").strip()


def _size(tree: Element, path: Path) -> tuple[int, int]:
    """(height, width) as the file states it."""
    texts = [_text(tree, f"size/{side}") for side in ("height", "width")]
    sides = [int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0 for text in texts]
    if min(sides) < 1 or sides[0] * sides[1] > MOST_PIXELS:
        raise DatasetError(
            f"{path}: <size> states height {texts[0][:20]!r} and width {texts[1][:20]!r}: write the picture's size in "
            "pixels"
        )
    return sides[0], sides[1]


def _class_problems(name: str) -> list[str]:
    if name in CLASSES:
        return []
    if not name:
        return ["it has no <name>: write its class"]
    return [f"unknown class {name[:50]!r}{did_you_mean(name[:50], CLASSES)}: correct it or delete the object"]


def _difficult_problems(element: Element) -> list[str]:
    text = _text(element, "difficult")
    return [] if text in ("", "0", "1") else [f"<difficult> is {text[:20]!r}: it must be 0 or 1"]


def _box(element: Element, size: tuple[int, int]) -> tuple[tuple[float, float, float, float], str | None]:
    """The box of an object, half open, and what is wrong with it."""
    texts = [_text(element, f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")]
    nothing = (0.0, 0.0, 0.0, 0.0)
    try:
        xmin, ymin, xmax, ymax = (float(text) for text in texts)
    except ValueError:
        xmin = ymin = xmax = ymax = math.nan
    written = f"box {', '.join(text[:20] or '–' for text in texts)} (xmin, ymin, xmax, ymax)"
    if not all(map(math.isfinite, (xmin, ymin, xmax, ymax))):
        return nothing, f"{written} is not four finite numbers: correct it or delete the object"
    box = (xmin - 1, ymin - 1, xmax, ymax)
    # Looked at in float32, as the target holds it.
    for name, low, high in (("width", box[0], box[2]), ("height", box[1], box[3])):
        if not np.float32(high) > np.float32(low):
            return nothing, f"{written} has no {name}: correct it or delete the object (a loss over such a box is NaN)"
    if max(-box[0], -box[1], box[2] - size[1], box[3] - size[0]) > OVERHANG:
        return nothing, f"{written} leaves the picture of {size[1]}×{size[0]} pixels: clip it, or look whose box it is"
    return box, None
