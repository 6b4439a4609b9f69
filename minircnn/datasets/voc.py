"""PASCAL VOC, and data sets of one's own in its format: an XML file about each image, masks for some of them.

Everingham et al. 2010, "The PASCAL Visual Object Classes (VOC) Challenge" (IJCV 88). The folder of a year:

    VOCdevkit/VOC2007/JPEGImages/000005.jpg
    VOCdevkit/VOC2007/Annotations/000005.xml             classes, boxes, difficult or not
    VOCdevkit/VOC2007/ImageSets/Main/trainval.txt        the images of a split
    VOCdevkit/VOC2007/SegmentationObject/000032.png      of some: 0 background, n the n-th object, 255 the border

    <annotation>
      <filename>000005.jpg</filename>
      <size><width>500</width><height>375</height><depth>3</depth></size>
      <object><name>dog</name><difficult>0</difficult>
        <bndbox><xmin>48</xmin><ymin>240</ymin><xmax>195</xmax><ymax>371</ymax></bndbox></object>
    </annotation>

A box names its first and its last column and row, counted from 1. Labeling programs write such files into other
folders, or side by side, and without lists; docs/data_sets.md says how those are read.

Shape comments: G ground-truth objects, H W image size.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import NamedTuple, NoReturn
from xml.etree.ElementTree import Element, ParseError, TreeBuilder, XMLParser

import numpy as np
import pycocotools.mask as rle_codec
import torch
from PIL import Image

from minircnn.datasets.folders import masks_of_numbers, read_numbers
from minircnn.datasets.images import BACKGROUND, MOST_PIXELS, ImageDataset, Target, box_problem, read_head
from minircnn.datasets.named import WHAT_TO_NAME, DatasetError, check_places, indices_by_id, no_such, raise_problems

CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog"),
    *("horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
VOID = 255  # in a mask: the border around each object, five pixels wide, which belongs to nobody
MOST_FOLDERS = 4  # below the root, one in the other, that are looked into
_MASKS = ("SegmentationObject", "SegmentationClass")  # PASCAL's folders of images that are masks


class VocDataset(ImageDataset):
    """One split of a year of PASCAL VOC, or of a data set of one's own in its format.

    ``dataset[i]`` is ``(image, target)`` as of :class:`~minircnn.datasets.CocoDataset`, with

    ==========  ===================  ========================================================
    boxes       (G, 4) float32       half open: ``(xmin - 1, ymin - 1, xmax, ymax)`` of the file
    area        (G,) float32         of the box: VOC does not state that of the mask
    difficult   (G,) bool            the file says that it is hard to recognize
    iscrowd     (G,) bool            the same, and objects without pixels in a mask; see below
    ==========  ===================  ========================================================

    VOC's evaluation ignores difficult objects, and the papers left them out of training. Here a crowd is what training
    leaves out, so they are marked as crowds. In evaluation "voc2007" and "voc2010" ignore them by either flag; "coco"
    looks at ``iscrowd`` alone, and forgives any number of detections inside of them.

    Only some images have masks: with ``masks=True`` the others are left out (VOC 2007: 422 of 5011 stay). An object
    that has no pixels in its mask file (the border covers it) keeps its box and is marked as a crowd.

    The classes are those of all splits: PASCAL's twenty in their own order if every object is of one of them, even if
    not all occur; else the names found, sorted. ``records`` are the annotations by name (such as "000005"); ids are
    the places among them, from 1.
    """

    def __init__(
        self, root: str | Path, split: str | None = None, *, masks: bool | None = None, drop_invalid: bool = False
    ) -> None:
        """Read the annotation files and check all of them; no image is opened unless its annotation lacks a size.

        For arguments and errors see :func:`minircnn.datasets.open_data`; with ``drop_invalid`` images that cannot be
        used are left out, too.
        """
        check_places("voc", root, None)
        super().__init__(root, masks is not False)
        found, images_left = _read_folder(self.root)
        names = _names_of_split(self.root, sorted(found), split)
        with_masks = {name for name in names if self.masks and self._mask_path(name).is_file()}
        self.masks = bool(with_masks)
        if masks and not with_masks:
            remedy = "which Mask R-CNN learns from; detectors of boxes need none (masks=False)"
            raise DatasetError(f"{root}: none of the {len(names)} images has masks (SegmentationObject), {remedy}")
        known = {name for record in found.values() for name in record.classes}
        self.classes += CLASSES if known <= set(CLASSES) else sorted(known)
        for name in names:
            if name in with_masks or not self.masks:
                missing = f"{root}: {name[:50]!r} is listed in ImageSets, but has no annotation file"
                record = found.get(name) or _Record(name, problems=[missing])
                self.dropped += record.problems
                self.records += [record] if record.image else []
        if not drop_invalid or not self.records:
            raise_problems(self.root, self.dropped)
        self.image_ids = list(range(1, len(self.records) + 1))
        self.image_files = [record.image for record in self.records]
        self.stated_sizes = [record.size for record in self.records]
        if images_left:
            which = f"{len(images_left)} of the images, such as {images_left[0]}, of which there is no annotation file"
            self.notes.append(f"left out: {which}; where nothing is to be found, write one without objects")
        if self.masks and len(with_masks) < len(names):
            self.notes.append(f"left out: {len(names) - len(with_masks)} of {len(names)} images, which have no masks")
        elif masks is None and not self.masks:
            self.notes.append("no masks: boxes only")

    def _mask_path(self, name: str) -> Path:
        return self.root / _MASKS[0] / f"{name}.png"

    def mask_files(self, index: int) -> list[Path]:
        """The mask file of image ``index``, if targets hold masks."""
        return [self._mask_path(self.records[index].name)] if self.masks else []

    def read_target(self, index: int) -> Target:
        """The objects of image ``index``; see the class for its keys."""
        record = self.records[index]
        boxes = torch.tensor([one.box for one in record.objects], dtype=torch.float32).reshape(-1, 4)  # (G, 4)
        labels = [self._all_classes.index(one.name) for one in record.objects]
        difficult = torch.tensor([one.difficult for one in record.objects], dtype=torch.bool)  # (G,)
        target: Target = {
            "boxes": boxes,
            "labels": torch.tensor(labels, dtype=torch.int64),  # (G,)
            "iscrowd": difficult.clone(),
            "difficult": difficult,
            "area": (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]),  # (G,)
        }
        for path in self.mask_files(index):
            values = read_numbers(path, record.size)  # (H, W)
            target["masks"] = masks_of_numbers(path, values, [one.number for one in record.objects])
            areas = [int(rle_codec.area(runs)) for runs in target["masks"]]
            target["iscrowd"] = difficult | (torch.tensor(areas, dtype=torch.int64) == 0)
        return target

    def find_problems(self, index: int) -> list[str]:
        """Numbers in the mask file of image ``index`` that no object has; defects of its XML are known already."""
        count, problems = self.records[index].count, []
        for path in self.mask_files(index):
            numbers = set(np.unique(read_numbers(path, self.records[index].size)).tolist())
            for number in sorted(numbers - {VOID, *range(count + 1)}):
                what = f"pixels of object {number}, but the XML has {count}"
                problems.append(f"{path}: {what}; correct the one or the other")
        return problems


class _Object(NamedTuple):
    """An object of an image; ``number`` is its place in the file, from 1, and that of its pixels in a mask."""

    number: int
    name: str
    box: tuple[float, float, float, float]  # x1, y1, x2, y2, half open
    difficult: bool


@dataclass
class _Record:
    """An image and what its annotation says."""

    name: str
    size: tuple[int, int] = (0, 0)  # (height, width) that the file states, else (some write 0) that of the image
    count: int = 0  # of all objects
    objects: list[_Object] = field(default_factory=list)  # those without defects
    classes: set[str] = field(default_factory=set, repr=False)  # of all objects
    problems: list[str] = field(default_factory=list, repr=False)
    image: Path | None = field(default=None, repr=False)  # where it lies; None if it cannot be used

    def read(self, path: Path, images: Mapping[str, list[Path]], stems: set[str]) -> None:
        """Find the image of an annotation file, and its objects; see :func:`_take_image` for arguments."""
        tree = read_xml(path)
        elements = tree.findall("object")
        image = _take_image(path, PureWindowsPath(_texts(tree).get("filename", "")), images, stems)
        self.count, self.classes = len(elements), {_texts(one).get("name", "") for one in elements} - {"", BACKGROUND}
        stated = _texts(tree.find("size"))
        texts = [stated.get(side, "") for side in ("height", "width")]
        height, width = (int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0 for text in texts)
        self.size = (height, width) if 0 < height * width <= MOST_PIXELS else read_head(image)[0]
        for number, element in enumerate(elements, start=1):
            found, problem = _read_object(number, element, self.size)
            if problem:
                self.problems.append(f"{path}: object {number} ({found.name or 'no name'}): {problem}")
            else:
                self.objects.append(found)
        self.image = image


def _read_object(number: int, element: Element, size: tuple[int, int]) -> tuple[_Object, str | None]:
    """An object, and what is wrong with it."""
    texts, stated = _texts(element), _texts(element.find("bndbox"))
    name, difficult = texts.get("name", ""), texts.get("difficult", "") or "0"
    sides = [stated.get(side, "") for side in ("xmin", "ymin", "xmax", "ymax")]
    try:
        xmin, ymin, xmax, ymax = map(float, sides)
    except ValueError:
        xmin = ymin = xmax = ymax = float("nan")
    box = (xmin - 1, ymin - 1, xmax, ymax)
    problem = box_problem(f"box {', '.join(text[:20] or '–' for text in sides)} (xmin, ymin, xmax, ymax)", box, size)
    if difficult not in ("0", "1"):
        problem = f"<difficult> is {difficult[:20]!r}: it must be 0 or 1"
    if name in ("", BACKGROUND):
        problem = f"it has the <name> {name!r}: write its class; background is what no object is"
    return _Object(number, name, box, difficult == "1"), problem


def _texts(element: Element | None) -> dict[str, str]:
    """The texts in an element by tag, without space around them; of several of one tag the first."""
    return {} if element is None else {child.tag: (child.text or "").strip() for child in reversed(element)}


class _Builder(TreeBuilder):
    """Refuses entities, which may grow to gigabytes or stand for other files, before anything of them is read."""

    def doctype(self, *_: object) -> NoReturn:
        raise ParseError("it declares a document type or entities, which no annotation of VOC does; delete that")


def read_xml(path: Path) -> Element:
    """The tree of an annotation file; a DatasetError says what else it is, or where it is damaged."""
    parser = XMLParser(target=_Builder())
    try:
        parser.feed(path.read_bytes())
        tree = parser.close()
    except (ParseError, ValueError, LookupError) as error:  # the latter of an encoding that nobody knows
        remedy = "the file may be incomplete: unpack or write it again"
        raise DatasetError(f"{path}: broken XML ({error}); {remedy}") from error
    if tree.tag != "annotation":
        raise DatasetError(f"{path}: its root is <{tree.tag:.50}>, not <annotation>; this is no annotation of VOC")
    return tree


def _read_folder(root: Path) -> tuple[dict[str, _Record], list[Path]]:
    """All annotations of a data set by name, whatever their split, and the images that no annotation is about.

    A name is that of the file, and before it the folders that not all annotations share: "000005", "train/cat 1".
    """
    files, images = _find_files(root)
    inside = root / "Annotations"
    shared = inside if files[0].is_relative_to(inside) else os.path.commonpath([path.parent for path in files])
    found: dict[str, _Record] = {}
    stems = {path.stem for path in files}
    for path in files:
        name = path.relative_to(shared).with_suffix("").as_posix()
        found[name] = _Record(name)
        try:
            found[name].read(path, images, stems)
        except (DatasetError, OSError) as error:
            found[name].problems = [str(error)]
    # What is left of the other stems are masks or copies.
    return found, [path for stem, paths in images.items() if stem not in stems for path in paths]


def _find_files(root: Path) -> tuple[list[Path], dict[str, list[Path]]]:
    """The annotation files (in Annotations, or else all below the root), and the images by stem."""
    endings = Image.registered_extensions()
    annotations: list[Path] = []
    images: dict[str, list[Path]] = {}
    for place, folders, files in os.walk(root, onerror=_refuse, followlinks=True):
        here = Path(place)
        deep = len(here.relative_to(root).parts) >= MOST_FOLDERS
        folders[:] = [] if deep else sorted(name for name in folders if name[0] not in "._" and name not in _MASKS)
        for path in (here / name for name in sorted(files) if name[0] != "."):
            if path.suffix.lower() == ".xml":
                annotations.append(path)
            elif path.suffix.lower() in endings:
                images.setdefault(path.stem, []).append(path)
    annotations = [path for path in annotations if path.is_relative_to(root / "Annotations")] or annotations
    off = [] if (root / "ImageSets").is_dir() else sorted(root.glob("*/ImageSets"))
    if off or not annotations:
        hint = f"did you mean {off[0].parent}?" if off else f"name {WHAT_TO_NAME['voc']}"
        raise FileNotFoundError(f"{root}: there are no annotation files (.xml) of images in this folder; {hint}")
    return annotations, images


def _refuse(error: OSError) -> NoReturn:
    raise DatasetError(f"{error.filename}: this folder cannot be read ({error.strerror}); change its permissions")


def _take_image(path: Path, named: PureWindowsPath, images: Mapping[str, list[Path]], stems: set[str]) -> Path:
    """Take the image that an annotation is about out of all images.

    It has the stem of the annotation, or else that of <filename> (``named``) if this is of no annotation (``stems`` are
    those of all). Of several the one is meant that <filename> names in full, that lies beside the annotation, in
    JPEGImages, or of folders of one name (train/images, test/images) in the nearest. What is left to guess is refused.
    """
    found = images.get(path.stem) or images.get("" if named.stem in stems else named.stem) or []
    if not found:
        remedy = "put it there, or remove this file"
        raise DatasetError(f"{path}: no image {path.stem}.jpg (or .png …) that no other annotation is about; {remedy}")

    def likely(image: Path) -> tuple[bool, bool, bool, int]:
        of_voc, shared = image.parent.name == "JPEGImages", len(os.path.commonpath([path, image]))
        return image.name == named.name, image.parent == path.parent, of_voc, shared

    best, *others = sorted(found, key=likely, reverse=True)
    for image in others:  # the nearest is meant only among folders of one name
        alike = image.parent.name == best.parent.name
        if likely(image)[: 3 + alike] == likely(best)[: 3 + alike]:
            raise DatasetError(f"{path}: is it about {best} or {image}? Remove one, or name it in <filename>")
    return found.pop(found.index(best))


def _names_of_split(root: Path, names: Sequence[str], split: str | None) -> list[str]:
    """Those of all names, sorted, that belong to a split; a DatasetError says that there is no such, or nothing in it.

    If ImageSets/Main lists train, val, trainval or test, the splits are its lists. Else they are the folders of the
    annotations if one of these is "train", and else every fifth image is "test" and the others are "train", and "all"
    is all. Where there is no "trainval" it is another word for "train".
    """
    folder = root / "ImageSets" / "Main"
    lists = {path.stem: path for path in folder.glob("[!.]*.txt") if "_" not in path.stem}
    if lists.keys() & {"train", "val", "trainval", "test"}:
        split, parts = split or "trainval", {part: _read_names(path) for part, path in lists.items()}
    else:
        folders = {name.partition("/")[0] for name in names}
        if "train" in folders:
            parts = {part: [name for name in names if name.startswith(f"{part}/")] for part in folders}
        else:
            parts = {part: [names[i] for i in indices_by_id(range(len(names)), part)] for part in ("train", "test")}
        folder, split, parts["all"] = root, split or "all", names
    if split == "trainval" and "train" in parts:
        parts.setdefault("trainval", parts["train"])
    if split not in parts:
        raise DatasetError(f"split: {no_such(split, sorted(parts), f' in {folder}')}")
    if not parts[split]:
        raise DatasetError(f"split: {split!r} in {folder} holds none of the {len(names)} images; name another")
    return parts[split]


def _read_names(path: Path) -> list[str]:
    """The names in a list of images, one on each line, sorted."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: no UTF-8 text at byte {error.start}; unpack the archive again") from error
    return sorted({line.strip() for line in lines if line.strip()})
