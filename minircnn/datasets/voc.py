"""PASCAL VOC, and data sets of one's own in its format: an XML file about each image, masks for some of them.

Everingham et al. 2010, "The PASCAL Visual Object Classes (VOC) Challenge" (IJCV 88). The folder of a year:

    VOCdevkit/VOC2007/JPEGImages/000005.jpg
    VOCdevkit/VOC2007/Annotations/000005.xml             classes, boxes, difficult or not
    VOCdevkit/VOC2007/ImageSets/Main/trainval.txt        the images of a split; Segmentation/ lists those with masks
    VOCdevkit/VOC2007/SegmentationObject/000032.png      0 background, n the n-th object of the XML, 255 the border

    <annotation>
      <filename>000005.jpg</filename>
      <size><width>500</width><height>375</height><depth>3</depth></size>
      <object><name>dog</name><difficult>0</difficult>
        <bndbox><xmin>48</xmin><ymin>240</ymin><xmax>195</xmax><ymax>371</ymax></bndbox></object>
    </annotation>

A box names its first and its last column and row, the first of the image being 1. Labeling programs write such files
into other folders, or side by side, and without lists; :func:`_read_folder` and :func:`_names_of_split` say how those
are read.

Shape comments: G ground-truth objects, H W image size.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import NoReturn
from xml.etree.ElementTree import Element, ParseError, TreeBuilder, XMLParser

import numpy as np
import torch
from PIL import Image

from minircnn.datasets.folders import check_folder, images_in, masks_of_numbers, read_numbers
from minircnn.datasets.images import (
    BACKGROUND,
    MOST_PIXELS,
    ImageDataset,
    Target,
    box_problem,
    read_head,
    turn,
    turn_boxes,
)
from minircnn.datasets.named import WHAT_TO_NAME, DatasetError, did_you_mean, indices_by_id, raise_problems

CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog"),
    *("horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
VOID = 255  # in a mask: the border around each object, five pixels wide, which belongs to nobody
LARGEST_FILE = 10_000_000  # bytes; the largest annotation of VOC has about 30 thousand
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

    Objects that are difficult are neither to be found nor to be missed: VOC's evaluation ignores them, and the papers
    left them out of training. Here a crowd is what training leaves out, so they are marked as crowds. In evaluation
    "voc2007" and "voc2010" ignore them by either flag in the same way; "coco" looks at ``iscrowd`` alone, and forgives
    any number of detections inside of them.

    Only some images have masks: with ``masks=True`` the others are left out (VOC 2007: 422 of 5011 stay), and those
    remain that ImageSets/Segmentation lists in any of its files (without lists: that have a file in
    SegmentationObject). An object that has no pixels in its mask file (the border covers it) keeps its box and is
    marked as a crowd.

    The classes are those of all splits: PASCAL's twenty in their own order if every object is of one of them, even if
    not all occur; else the names found, sorted. Names that differ in case or spaces are different classes.

    Attributes:
        names: Of the images, such as "000005", sorted; ``image_ids`` are their places in them, from 1.
        notes: Images without annotation or without masks, or that there are no masks.
    """

    def __init__(
        self, root: str | Path, split: str | None = None, *, masks: bool | None = None, drop_invalid: bool = False
    ) -> None:
        """Read the annotation files and check all of them; no image is opened unless its annotation lacks a size.

        Args:
            root: The folder of a year, such as VOCdevkit/VOC2007.
            split: A list of ImageSets/Main, such as "train", "val", "trainval" (the default) or "test". Without lists:
                "train", "test" (every fifth image), or "all" (the default).
            masks: Whether targets hold masks; images without them are then left out. None: if any image has them.
            drop_invalid: Leave invalid objects out, and images that lack a file or whose annotation cannot be read,
                rather than refuse them.

        Raises:
            FileNotFoundError: No such folder, or it holds no annotations.
            DatasetError: No such split, no masks, or every defect that the files show, each with file, object and
                remedy.
        """
        root = check_folder(root, WHAT_TO_NAME["voc"])
        found, images_left = _read_folder(root)
        names = _names_of_split(root, sorted(found), split)
        with_masks = set(names) & _names_with_masks(root) if masks is not False else set()
        if masks and not with_masks:
            raise DatasetError(
                f"{root}: none of the {len(names)} images has masks (SegmentationObject), which Mask R-CNN learns "
                "from; detectors of boxes need none (masks=False)"
            )
        super().__init__(root, bool(with_masks))
        known = {name for one in found.values() if isinstance(one, _Annotation) for name in one.class_names()}
        self.classes += CLASSES if known <= set(CLASSES) else sorted(known)
        self.names: list[str] = []
        self._annotations: list[_Annotation] = []
        for name in names:
            if name in with_masks or not self.masks:
                missing = DatasetError(f"{root}: {name[:50]!r} is listed in ImageSets, but has no annotation file")
                self._add(name, found.get(name, missing))
        if not drop_invalid or not self.names:
            raise_problems(root, self.dropped)
        self.image_ids = list(range(1, len(self.names) + 1))
        if images_left:
            which = f"{len(images_left)} image{'s' * (len(images_left) > 1)} of which there is no annotation file"
            self.notes.append(
                f"left out: {which}, such as {images_left[0]}; where nothing is to be found, write one without objects"
            )
        if self.masks and len(with_masks) < len(names):
            self.notes.append(f"left out: {len(names) - len(with_masks)} of {len(names)} images, which have no masks")
        elif masks is None and not self.masks:
            self.notes.append("no masks: boxes only")

    def _add(self, name: str, annotation: _Annotation | Exception) -> None:
        """Take an image into the data set, or note why it cannot be used."""
        try:
            if isinstance(annotation, Exception):
                raise annotation
            if self.masks and not self._mask_path(name).is_file():
                raise DatasetError(f"{self._mask_path(name)}: there is no such file; unpack the archive again")
            self.dropped += annotation.read_objects()
        except (DatasetError, OSError) as error:
            self.dropped.append(str(error))
            return
        self.names.append(name)
        self._annotations.append(annotation)

    def image_path(self, index: int) -> Path:
        """Where the file of image ``index`` lies."""
        return self._annotations[index].image

    def stated_size(self, index: int) -> tuple[int, int]:
        """The (height, width) that the XML states, else that of the image."""
        return self._annotations[index].size

    def _mask_path(self, name: str) -> Path:
        return self.root / "SegmentationObject" / f"{name}.png"

    def annotation_sources(self, index: int) -> list[str | Path]:
        """The name of image ``index``, its objects, and its mask file."""
        name = self.names[index]
        return [name, repr(self._annotations[index].objects), *([self._mask_path(name)] if self.masks else [])]

    def load_target(self, index: int) -> Target:
        """Only the target; of the image only its head is read. See the class for its keys."""
        size, orientation = self.upright_size(index)
        objects = self._annotations[index].objects
        boxes = torch.tensor([one.box for one in objects], dtype=torch.float32).reshape(-1, 4)  # (G, 4)
        difficult = torch.tensor([one.difficult for one in objects], dtype=torch.bool)  # (G,)
        target: Target = {
            "boxes": turn_boxes(boxes, orientation, size),
            "labels": torch.tensor([self.classes.index(one.name) for one in objects], dtype=torch.int64),  # (G,)
            "image_id": self.image_ids[index],
            "iscrowd": difficult.clone(),
            "difficult": difficult,
            "area": (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]),  # (G,)
        }
        if self.masks:
            path = self._mask_path(self.names[index])
            values = read_numbers(path, self.stated_size(index))  # (H, W)
            masks = torch.from_numpy(masks_of_numbers(path, values, [one.number for one in objects]))
            target["masks"] = turn(masks, orientation)
            target["iscrowd"] = difficult | ~target["masks"].flatten(1).any(dim=1)
        return target

    def find_problems(self, index: int) -> list[str]:
        """Every defect of the mask of image ``index``; those of its XML were found when the data set was opened."""
        if not self.masks:
            return []
        path, annotation = self._mask_path(self.names[index]), self._annotations[index]
        try:
            numbers = set(np.unique(read_numbers(path, annotation.size)).tolist()) - {0, VOID}
        except (DatasetError, OSError) as error:
            return [str(error)]
        empty = [one for one in annotation.objects if one.number not in numbers]
        count = len(annotation.tree.findall("object"))
        return [
            *(f"{path}: object {n.number} ({n.name}) has no pixels; draw it (training leaves it out)" for n in empty),
            *(
                f"{path}: pixels of object {number}, but the XML has {count}; correct the one or the other"
                for number in sorted(numbers)
                if not 0 < number <= count
            ),
        ]


@dataclass
class _Object:
    """An object of an image; ``number`` is its place in the file, from 1, and that of its pixels in a mask."""

    number: int
    name: str
    box: tuple[float, float, float, float]  # x1, y1, x2, y2, half open
    difficult: bool


class _Annotation:
    """An annotation file; :meth:`read_objects` needs to know its image."""

    def __init__(self, path: Path) -> None:
        self.path, self.tree = path, read_xml(path)
        self.file_name = PureWindowsPath(_texts(self.tree).get("filename", "")).name  # empty where it is not stated
        self.image = path  # where that lies
        self.size = (0, 0)  # (height, width) that the file states, else (some programs write 0) that of the image
        self.objects: list[_Object] = []  # those without defects

    def class_names(self) -> set[str]:
        """The classes of all objects, valid or not."""
        return {_texts(element).get("name", "") for element in self.tree.findall("object")} - {"", BACKGROUND}

    def read_objects(self) -> list[str]:
        """Find ``size`` and ``objects``; return every defect of an object.

        Raises:
            DatasetError: The file states no size, and the image cannot be read.
        """
        stated = _texts(self.tree.find("size"))
        texts = [stated.get(side, "") for side in ("height", "width")]
        height, width = (int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0 for text in texts)
        self.size = (height, width) if 0 < height * width <= MOST_PIXELS else read_head(self.image)[0]
        problems = []
        for number, element in enumerate(self.tree.findall("object"), start=1):
            texts, name = _texts(element), _texts(element).get("name", "")
            difficult = texts.get("difficult", "") or "0"
            box, problem = _read_box(element, self.size)
            found = [problem] if problem else []
            if difficult not in ("0", "1"):
                found.insert(0, f"<difficult> is {difficult[:20]!r}: it must be 0 or 1")
            if name in ("", BACKGROUND):
                found.insert(0, f"it has the <name> {name!r}: write its class; background is what no object is")
            problems += [f"{self.path}: object {number} ({name or 'no name'}): {what}" for what in found]
            if not found:
                self.objects.append(_Object(number, name, box, difficult == "1"))
        return problems


def _read_box(element: Element, size: tuple[int, int]) -> tuple[tuple[float, float, float, float], str | None]:
    """The box of an object, half open, and what is wrong with it."""
    stated = _texts(element.find("bndbox"))
    texts = [stated.get(side, "") for side in ("xmin", "ymin", "xmax", "ymax")]
    try:
        xmin, ymin, xmax, ymax = map(float, texts)
    except ValueError:
        xmin = ymin = xmax = ymax = float("nan")
    box = (xmin - 1, ymin - 1, xmax, ymax)
    return box, box_problem(f"box {', '.join(text[:20] or '–' for text in texts)} (xmin, ymin, xmax, ymax)", box, size)


def _texts(element: Element | None) -> dict[str, str]:
    """The texts in an element by tag, without space around them; of several of one tag the first."""
    return {} if element is None else {child.tag: (child.text or "").strip() for child in reversed(element)}


def read_xml(path: Path) -> Element:
    """The tree of an annotation file; a DatasetError says what else it is, or where it is damaged.

    A file may declare entities that grow to gigabytes when they are put in, or that stand for other files. Those of
    VOC declare nothing, so a file that begins to is refused there and then, before anything else of it is read.
    """
    if path.stat().st_size > LARGEST_FILE:
        raise DatasetError(f"{path}: {path.stat().st_size} bytes, far more than any annotation of VOC; write it again")

    class Builder(TreeBuilder):
        def doctype(self, *_: object) -> NoReturn:
            raise DatasetError(
                f"{path}: declares a document type or entities, which no annotation of VOC does; delete that"
            )

    parser = XMLParser(target=Builder())
    try:
        parser.feed(path.read_bytes())
        tree = parser.close()
    except ParseError as error:
        line, column = error.position
        raise DatasetError(
            f"{path}: broken XML at line {line}, column {column}: {str(error).partition(':')[0]}; the file may be "
            "incomplete: unpack or write it again"
        ) from error
    except (ValueError, LookupError) as error:  # an encoding that nobody knows
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(f"{path}: cannot be read as text ({error}); save the file as UTF-8") from error
    if tree.tag != "annotation":
        raise DatasetError(f"{path}: its root is <{tree.tag:.50}>, not <annotation>; this is no annotation of VOC")
    return tree


def _read_folder(root: Path) -> tuple[dict[str, _Annotation | Exception], list[Path]]:
    """All annotations of a data set, whatever their split: those in Annotations, or else all below the root.

    Returns:
        By name the annotation with its image, or what is wrong with either; and the images that no annotation is about.
        A name is that of the file, and before it the folders that not all annotations share: "000005", "train/cat 1".

    Raises:
        FileNotFoundError: There are no annotations, or ``root`` is one level off.
    """
    files, images = _find_files(root)
    inside = root / "Annotations"
    shared = inside if files[0].is_relative_to(inside) else os.path.commonpath([path.parent for path in files])
    found: dict[str, _Annotation | Exception] = {}
    stems = {path.stem for path in files}
    for path in files:
        name = path.relative_to(shared).with_suffix("").as_posix()
        try:
            found[name] = _Annotation(path)
            found[name].image = _take_image(found[name], images, stems)
        except (DatasetError, OSError) as error:
            found[name] = error
    # What is left of the other stems are masks or copies.
    return found, [path for stem, paths in images.items() if stem not in stems for path in paths]


def _find_files(root: Path) -> tuple[list[Path], dict[str, list[Path]]]:
    """The annotation files, and the images by stem."""
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


def _take_image(annotation: _Annotation, images: dict[str, list[Path]], stems: set[str]) -> Path:
    """Take the image that an annotation is about out of all images.

    It has the stem of the annotation, or else that of <filename> if this is of no annotation (``stems`` are those of
    all), and any ending. Several may have it, since masks are images, too: then the one is meant that <filename> names
    in full, that lies beside the annotation, in JPEGImages, or of folders of one name (train/images, test/images) in
    the nearest. Whatever is left to guess is refused.
    """
    path, named = annotation.path, Path(annotation.file_name).stem
    found = images.get(path.stem) or images.get("" if named in stems else named) or []
    meant = [image for image in found if image.name == annotation.file_name] or found
    meant = [image for image in meant if image.parent == path.parent] or meant
    meant = [image for image in meant if image.parent.name == "JPEGImages"] or meant
    if len({image.parent.name for image in meant}) == 1:
        shared = [len(os.path.commonpath([path, image])) for image in meant]
        meant = [image for image, length in zip(meant, shared, strict=True) if length == max(shared)]
    if not meant:
        raise DatasetError(
            f"{path}: no image {path.stem}.jpg (or .png …) that no other annotation is about; put it there, or remove "
            "this file"
        )
    if len(meant) > 1:
        raise DatasetError(f"{path}: is it about {meant[0]} or {meant[1]}? Remove one, or name it in <filename>")
    return found.pop(found.index(meant[0]))


def _names_of_split(root: Path, names: list[str], split: str | None) -> list[str]:
    """The names of the images of a split, sorted.

    Args:
        root: If ImageSets/Main in it lists train, val, trainval or test, the splits are its lists. Else they are
            the folders of the annotations if one of these is "train", and else every fifth image is "test" and the
            others are "train", and "all" is all. Where there is no "trainval" it is another word for "train".
        names: Of all images that have an annotation, sorted.
        split: None for "trainval" of lists, and for all without lists.

    Raises:
        DatasetError: There is no such split, or nothing in it.
    """
    folder = root / "ImageSets" / "Main"
    lists = {path.stem: path for path in folder.glob("*.txt") if "_" not in path.stem and path.name[0] != "."}
    if lists.keys() & {"train", "val", "trainval", "test"}:
        split, parts = split or "trainval", {part: _read_names(path) for part, path in lists.items()}
        if "train" in parts:
            parts.setdefault("trainval", parts["train"])
    else:
        folders = {name.partition("/")[0] for name in names}
        if "train" in folders:
            parts = {part: [name for name in names if name.startswith(f"{part}/")] for part in folders}
        else:
            parts = {part: [names[i] for i in indices_by_id(range(len(names)), part)] for part in ("train", "test")}
        folder, split, parts["all"] = root, "train" if split == "trainval" else split or "all", names
    if split not in parts:
        known = sorted(parts)
        raise DatasetError(
            f"split: there is no {split!r}{did_you_mean(split, known)} in {folder}; there are {', '.join(known)}"
        )
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


def _names_with_masks(root: Path) -> set[str]:
    """The names of all images that have masks, whatever their split: as lists say, or else as there are mask files."""
    lists = [path for path in (root / "ImageSets" / "Segmentation").glob("*.txt") if path.name[0] != "."]
    listed = {name for path in lists for name in _read_names(path)}
    folder = root / "SegmentationObject"
    return listed or ({path.stem for path in images_in(folder, ".png")} if folder.is_dir() else set())
