"""PASCAL VOC: photographs with objects of twenty classes, of which some pictures have masks, too.

Everingham et al. 2010, "The PASCAL Visual Object Classes (VOC) Challenge" (IJCV 88). The folder of a year:

    VOCdevkit/VOC2007/JPEGImages/000005.jpg
    VOCdevkit/VOC2007/Annotations/000005.xml             classes, boxes, difficult or not
    VOCdevkit/VOC2007/ImageSets/Main/trainval.txt        the pictures of a split; Segmentation/ lists those with masks
    VOCdevkit/VOC2007/SegmentationObject/000032.png      0 background, n the n-th object of the XML, 255 the border

Shape comments: G ground-truth objects, H W picture size.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from minircnn.datasets.coco import Target
from minircnn.datasets.coco_format import DatasetError, raise_problems
from minircnn.datasets.folder import FolderDataset, check_folder, read_values, size_problem, stack_masks
from minircnn.datasets.splits import did_you_mean
from minircnn.datasets.voc_format import CLASSES, VocAnnotation, read_annotation

VOID = 255  # in a mask: the border around each object, five pixels wide, which belongs to nobody
WHAT = "a folder such as VOCdevkit/VOC2007 with JPEGImages, Annotations and ImageSets"


class VocDataset(FolderDataset):
    """One split of a year of PASCAL VOC.

    ``dataset[i]`` is ``(image, target)`` as of :class:`~minircnn.datasets.CocoDataset`, with

    ==========  ===================  ========================================================
    boxes       (G, 4) float32       half open: ``(xmin - 1, ymin - 1, xmax, ymax)`` of the file
    area        (G,) float32         of the box: VOC does not state that of the mask
    difficult   (G,) bool            the file says that it is hard to recognise
    iscrowd     (G,) bool            the same, and objects without pixels in a mask; see below
    ==========  ===================  ========================================================

    Objects that are difficult are neither to be found nor to be missed: VOC's evaluation ignores them, and the papers
    left them out of training. Here a crowd is what training leaves out, so they are marked as crowds. In evaluation
    "voc2007" and "voc2010" ignore them by either flag in the same way; "coco" looks at ``iscrowd`` alone, and forgives
    any number of detections inside of them.

    Only some pictures have masks: with ``masks=True`` the others are left out (VOC 2007: 422 of 5011 stay), and the
    split's pictures that ImageSets/Segmentation lists in any of its files remain. An object that has no pixels in its
    mask file (the border covers it) keeps its box and is marked as a crowd.

    Attributes:
        root: The folder of the year.
        split: Such as "trainval".
        classes: "background" and the 20 classes, in alphabetical order.
        names: Of the pictures, such as "000005", sorted.
        image_ids: Their places in ``names``, from 1.
        without_masks: Names of the split's pictures that were left out because they have no masks.
        dropped: Defects of objects and pictures that were left out (only with ``drop_invalid=True``).
    """

    def __init__(
        self, root: str | Path, split: str = "trainval", *, masks: bool = True, drop_invalid: bool = False
    ) -> None:
        """Read the annotation files and check all of them; no picture is opened yet.

        Args:
            root: The folder of a year, such as VOCdevkit/VOC2007.
            split: A file of ImageSets/Main: "train", "val", "trainval", "test".
            masks: Whether targets hold masks; pictures without them are then left out.
            drop_invalid: Leave invalid objects out, and pictures that lack a file or whose annotation cannot be read,
                rather than refuse them.

        Raises:
            FileNotFoundError: No such folder.
            DatasetError: No such split, or every defect that the files show, each with file, object and remedy.
        """
        root = check_folder(root, ("JPEGImages", "Annotations", "ImageSets/Main"), WHAT)
        names = _read_split(root / "ImageSets" / "Main", split)
        with_masks = _segmented(root) if masks else set(names)
        kept = [name for name in names if name in with_masks]
        if not kept:
            raise DatasetError(
                f"{root}: none of the {len(names)} pictures of split {split!r} has masks; use boxes only, with "
                "masks=False or --no-masks"
            )
        self.split, self.without_masks = split, [name for name in names if name not in with_masks]
        annotations: dict[str, VocAnnotation] = {}
        self.dropped: list[str] = []
        for name in kept:
            found, problems = _read_picture(root, name, masks)
            self.dropped += problems
            if found:
                annotations[name] = found
        if not drop_invalid or not annotations:
            raise_problems(root, self.dropped)
        super().__init__(root, CLASSES, list(annotations), masks, drop_invalid)
        self._annotations = list(annotations.values())

    def image_path(self, index: int) -> Path:
        """Where the file of picture ``index`` lies."""
        return self.root / "JPEGImages" / f"{self.names[index]}.jpg"

    def image_size(self, index: int) -> tuple[int, int]:
        """(height, width) of picture ``index``, as the XML states it."""
        return self._annotations[index].size

    def load_image(self, index: int) -> Tensor:
        """Only the picture: (3, H, W) float32 in [0, 1].

        Raises:
            IndexError: No such picture.
            DatasetError: The file cannot be decoded, or its size is not the one that the XML states.
        """
        image = super().load_image(index)
        stated, actual = self.image_size(index), tuple(image.shape[1:])
        if stated != actual:
            raise DatasetError(
                f"{self.image_path(index)}: the picture is {actual[0]} high and {actual[1]} wide, its XML says "
                f"{stated[0]} and {stated[1]}; its boxes may not fit: use the original picture or correct the XML"
            )
        return image

    def load_target(self, index: int) -> Target:
        """Only the target, without opening the picture. See the class for its keys.

        Raises:
            IndexError: No such picture.
            DatasetError: The mask file cannot be used.
        """
        objects = self._annotations[index].objects
        boxes = torch.tensor([one.box for one in objects], dtype=torch.float32).reshape(-1, 4)  # (G, 4)
        difficult = torch.tensor([one.difficult for one in objects], dtype=torch.bool)  # (G,)
        target: Target = {
            "boxes": boxes,
            "labels": torch.tensor([one.label for one in objects], dtype=torch.int64),  # (G,)
            "image_id": self.image_ids[index],
            "iscrowd": difficult.clone(),
            "difficult": difficult,
            "area": (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]),  # (G,)
        }
        if self.masks:
            values = self._mask_values(index)  # (H, W)
            target["masks"] = stack_masks([values == one.number for one in objects], self.image_size(index))
            target["iscrowd"] = difficult | ~target["masks"].flatten(1).any(dim=1)
        return target

    def find_problems(self, index: int) -> list[str]:
        """Every defect of the mask of picture ``index``; those of its XML were found when the data set was opened."""
        if not self.masks:
            return []
        try:
            values = self._mask_values(index)
        except (DatasetError, OSError) as error:
            return [str(error)]
        annotation, path = self._annotations[index], _mask_path(self.root, self.names[index])
        numbers = set(np.unique(values).tolist()) - {0, VOID}
        return [
            f"{path}: object {one.number} ({self.classes[one.label]}) has no pixels; draw it (training leaves it out)"
            for one in annotation.objects
            if one.number not in numbers
        ] + [
            f"{path}: pixels of object {number}, but the XML has {annotation.count}; correct the one or the other"
            for number in sorted(numbers)
            if not 0 < number <= annotation.count
        ]

    def _mask_values(self, index: int) -> np.ndarray:
        """The numbers (H, W) in the mask file of a picture."""
        path = _mask_path(self.root, self.names[index])
        values = read_values(path)
        if problem := size_problem(values, self.image_size(index)):
            raise DatasetError(f"{path}: {problem}")
        return values


def _mask_path(root: Path, name: str) -> Path:
    return root / "SegmentationObject" / f"{name}.png"


def _read_picture(root: Path, name: str, masks: bool) -> tuple[VocAnnotation | None, list[str]]:
    """What the XML of a picture says, None if the picture cannot be used, and every defect."""
    wanted = [root / "JPEGImages" / f"{name}.jpg", *([_mask_path(root, name)] if masks else [])]
    problems = [f"{path}: there is no such file; unpack the archive again" for path in wanted if not path.is_file()]
    path = root / "Annotations" / f"{name}.xml"
    try:
        annotation = read_annotation(path)
    except (DatasetError, OSError) as error:
        return None, [*problems, str(error)]
    usable = None if problems else annotation
    return usable, [*problems, *(f"{path}: {problem}" for problem in annotation.problems)]


def _read_split(folder: Path, split: str) -> list[str]:
    """The names that a file of ImageSets lists, sorted."""
    known = sorted(path.stem for path in folder.glob("*.txt") if "_" not in path.stem and path.name[0] != ".")
    if split not in known:
        raise DatasetError(
            f"split: there is no {split!r}{did_you_mean(split, known)} in {folder}; there are "
            f"{', '.join(known) or 'none'}"
        )
    names = _read_names(folder / f"{split}.txt")
    if not names:
        raise DatasetError(f"{folder / split}.txt: lists no pictures; unpack the archive again")
    return sorted(names)


def _read_names(path: Path) -> set[str]:
    """The names in a list of pictures, one on each line."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: no UTF-8 text at byte {error.start}; unpack the archive again") from error
    names = [line.strip() for line in lines if line.strip()]
    for number, name in enumerate(names, start=1):
        if any(letter in name for letter in "/\\\0") or len(name) > 200:
            raise DatasetError(f"{path}: entry {number}, {name[:50]!r}, names no picture; unpack the archive again")
    return set(names)


def _segmented(root: Path) -> set[str]:
    """The names of all pictures that have masks, whatever their split."""
    folder = root / "ImageSets" / "Segmentation"
    return {name for path in sorted(folder.glob("*.txt")) if path.name[0] != "." for name in _read_names(path)}
