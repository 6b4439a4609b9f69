"""What an annotation file of PASCAL VOC says, checked before any image is opened.

Everingham et al. 2010, "The PASCAL Visual Object Classes (VOC) Challenge", and the development kit's documentation. One
XML file belongs to each image; labelling programs write the same:

    <annotation>
      <filename>000005.jpg</filename>
      <size><width>500</width><height>375</height><depth>3</depth></size>
      <object><name>dog</name><difficult>0</difficult>
        <bndbox><xmin>48</xmin><ymin>240</ymin><xmax>195</xmax><ymax>371</ymax></bndbox></object>
    </annotation>

A box names its first and its last column and row, the first of the image being 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

import numpy as np

from minircnn.datasets.coco_format import MOST_PIXELS, OVERHANG, DatasetError

CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog"),
    *("horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
BACKGROUND = "background"  # the name of label 0 in every data set
LARGEST_FILE = 10_000_000  # bytes; the largest annotation of VOC has about 30 thousand


@dataclass
class VocObject:
    """An object of an image.

    Attributes:
        number: Its place in the file, from 1; in SegmentationObject its pixels have this number.
        name: Its class.
        box: x1, y1, x2, y2, half open.
        difficult: Whether the file says that it is hard to recognise.
        problems: What is wrong with it, each with a remedy; the rest means something only where nothing is.
    """

    number: int
    name: str
    box: tuple[float, float, float, float]
    difficult: bool
    problems: list[str]


@dataclass
class VocAnnotation:
    """What an annotation file says.

    Attributes:
        path: Of the file.
        file_name: Of its image, without folders; empty where the file does not state it.
        size: (height, width) of the image; None where the file does not state it (some programs write 0).
        objects: In the order of the file, valid or not.
        image: Where the image lies.
    """

    path: Path
    file_name: str
    size: tuple[int, int] | None
    objects: list[VocObject] = field(default_factory=list)
    image: Path | None = None

    @property
    def valid(self) -> list[VocObject]:
        """The objects without defects; see :meth:`problems`."""
        return [one for one in self.objects if not one.problems]

    def problems(self) -> list[str]:
        """Every defect of the objects, those included that show once ``size`` is known."""
        found = []
        for one in self.objects:
            overhang = None if one.problems else _overhang(one.box, self.size)
            one.problems += [overhang] if overhang else []
            found += [f"{self.path}: object {one.number} ({one.name or 'no name'}): {what}" for what in one.problems]
        return found


def read_annotation(path: Path) -> VocAnnotation:
    """Read an annotation file.

    Raises:
        FileNotFoundError: There is no such file.
        DatasetError: It is no XML, declares entities, or is something else than an annotation.
    """
    tree = read_xml(path)
    if tree.tag != "annotation":
        raise DatasetError(f"{path}: its root is <{tree.tag:.50}>, not <annotation>; this is no annotation of VOC")
    annotation = VocAnnotation(path, PureWindowsPath(_texts(tree).get("filename", "")).name, _size(tree))
    for number, element in enumerate(tree.findall("object"), start=1):
        texts = _texts(element)
        name, difficult = texts.get("name", ""), texts.get("difficult", "")
        box, problem = _box(element)
        problems = [problem] if problem else []
        if difficult not in ("", "0", "1"):
            problems.insert(0, f"<difficult> is {difficult[:20]!r}: it must be 0 or 1")
        if name in ("", BACKGROUND):
            problems.insert(0, f"it has the <name> {name!r}: write its class; background is what no object is")
        annotation.objects.append(VocObject(number, name, box, difficult == "1", problems))
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


def _texts(element: Element | None) -> dict[str, str]:
    """The texts in an element by tag, without space around them; of several of one tag the first."""
    return {} if element is None else {child.tag: (child.text or "").strip() for child in reversed(element)}


def _size(tree: Element) -> tuple[int, int] | None:
    """(height, width) if the file states a size that an image can have."""
    stated = _texts(tree.find("size"))
    texts = [stated.get(side, "") for side in ("height", "width")]
    height, width = (int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0 for text in texts)
    return (height, width) if 0 < height * width <= MOST_PIXELS else None


def _box(element: Element) -> tuple[tuple[float, float, float, float], str | None]:
    """The box of an object, half open, and what is wrong with it."""
    stated = _texts(element.find("bndbox"))
    texts = [stated.get(side, "") for side in ("xmin", "ymin", "xmax", "ymax")]
    try:
        xmin, ymin, xmax, ymax = (float(text) for text in texts)
    except ValueError:
        xmin = ymin = xmax = ymax = math.nan
    box = (xmin - 1, ymin - 1, xmax, ymax)
    written = f"box {', '.join(text[:20] or '–' for text in texts)} (xmin, ymin, xmax, ymax)"
    if not all(map(math.isfinite, box)):
        return box, f"{written} is not four finite numbers: correct it or delete the object"
    # Looked at in float32, as the target holds it.
    for name, low, high in (("width", box[0], box[2]), ("height", box[1], box[3])):
        if not np.float32(high) > np.float32(low):
            return box, f"{written} has no {name}: correct it or delete the object (a loss over such a box is NaN)"
    return box, None


def _overhang(box: tuple[float, float, float, float], size: tuple[int, int]) -> str | None:
    """What is wrong with a half-open box in an image of ``size`` (height, width); None if nothing is."""
    x1, y1, x2, y2 = box
    if max(-x1, -y1, x2 - size[1], y2 - size[0]) <= OVERHANG:
        return None
    written = ", ".join(f"{side:g}" for side in (x1 + 1, y1 + 1, x2, y2))
    where = f"the image of {size[1]}×{size[0]} pixels"
    return f"box {written} (xmin, ymin, xmax, ymax) leaves {where}: clip it, or look whose box it is"
