"""PASCAL VOC, and data sets of one's own in its format: an XML file about each image, masks for some of them.

Everingham et al. 2010, "The PASCAL Visual Object Classes (VOC) Challenge" (IJCV 88). The folder of a year:

    VOCdevkit/VOC2007/JPEGImages/000005.jpg
    VOCdevkit/VOC2007/Annotations/000005.xml             classes, boxes, difficult or not
    VOCdevkit/VOC2007/ImageSets/Main/trainval.txt        the images of a split; Segmentation/ lists those with masks
    VOCdevkit/VOC2007/SegmentationObject/000032.png      0 background, n the n-th object of the XML, 255 the border

Labelling programs write such files into other folders, or side by side, and without lists;
:mod:`minircnn.datasets.voc_files` says how those are read.

Shape comments: G ground-truth objects, H W image size.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from minircnn.datasets.coco import Target
from minircnn.datasets.coco_format import DatasetError, raise_problems
from minircnn.datasets.folder import (
    FolderDataset,
    check_folder,
    masks_of_numbers,
    read_values,
    size_problem,
    upright_size,
)
from minircnn.datasets.images import fit_stated_size, turn, turn_boxes
from minircnn.datasets.voc_files import (
    WHAT,
    alike,
    class_names,
    names_of_split,
    names_with_masks,
    read_folder,
    unannotated,
)
from minircnn.datasets.voc_format import VocAnnotation

VOID = 255  # in a mask: the border around each object, five pixels wide, which belongs to nobody


class VocDataset(FolderDataset):
    """One split of a year of PASCAL VOC, or of a data set of one's own in its format.

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

    Only some images have masks: with ``masks=True`` the others are left out (VOC 2007: 422 of 5011 stay), and those
    remain that ImageSets/Segmentation lists in any of its files (without lists: that have a file in
    SegmentationObject). An object that has no pixels in its mask file (the border covers it) keeps its box and is
    marked as a crowd.

    Attributes:
        root: The folder of the year.
        classes: "background" and the names of :func:`~minircnn.datasets.voc_files.class_names`.
        names: Of the images, such as "000005", sorted.
        image_ids: Their places in ``names``, from 1.
        dropped: Defects of objects and images that were left out (only with ``drop_invalid=True``).
        odd: Names of classes that may be meant to be one.
        notes: What is left out though it is no defect: images without annotation or without masks, or all masks.
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
        root = check_folder(root, (), WHAT)
        found, images_left = read_folder(root)
        names = names_of_split(root, sorted(found), split)
        with_masks = set(names) & names_with_masks(root) if masks is not False else set()
        if masks and not with_masks:
            raise DatasetError(
                f"{root}: none of the {len(names)} images has masks (SegmentationObject), which Mask R-CNN learns "
                "from; detectors of boxes need none (masks=False)"
            )
        classes = class_names(one for one in found.values() if isinstance(one, VocAnnotation))
        super().__init__(root, classes, [], bool(with_masks), drop_invalid)
        self._annotations: list[VocAnnotation] = []
        self.dropped: list[str] = []
        for name in names:
            if name in with_masks or not self.masks:
                missing = DatasetError(f"{root}: {name[:50]!r} is listed in ImageSets, but has no annotation file")
                self._add(name, found.get(name, missing))
        if not drop_invalid or not self.names:
            raise_problems(root, self.dropped)
        self.image_ids = list(range(1, len(self) + 1))
        self.odd, self.notes = alike(self.classes), unannotated(images_left)
        if self.masks and len(with_masks) < len(names):
            self.notes.append(f"left out: {len(names) - len(with_masks)} of {len(names)} images, which have no masks")
        elif masks is None and not self.masks:
            self.notes.append("no masks: boxes only")

    def _add(self, name: str, annotation: VocAnnotation | Exception) -> None:
        """Take an image into the data set, or note why it cannot be used."""
        try:
            if isinstance(annotation, Exception):
                raise annotation
            if self.masks and not self._mask_path(name).is_file():
                raise DatasetError(f"{self._mask_path(name)}: there is no such file; unpack the archive again")
            if annotation.size is None:
                annotation.size = upright_size(annotation.image)
        except (DatasetError, OSError) as error:
            self.dropped.append(str(error))
            return
        self.dropped += annotation.problems()
        self.names.append(name)
        self._annotations.append(annotation)

    def image_path(self, index: int) -> Path:
        """Where the file of image ``index`` lies."""
        return self._annotations[index].image

    def image_size(self, index: int) -> tuple[int, int]:
        """(height, width) of image ``index``, upright; for errors see :meth:`load_image`."""
        return self._look_at(index)[0]

    def _look_at(self, index: int) -> tuple[tuple[int, int], int]:
        """The upright size of an image, and the EXIF tag to turn its annotations by."""
        try:
            return fit_stated_size(self.image_path(index), self._annotations[index].size)
        except DatasetError as error:
            raise DatasetError(f"{self.image_path(index)}: {error}") from error

    def _mask_path(self, name: str) -> Path:
        return self.root / "SegmentationObject" / f"{name}.png"

    def load_image(self, index: int) -> Tensor:
        """Only the image: (3, H, W) float32 in [0, 1].

        Raises:
            IndexError: No such image.
            DatasetError: The file cannot be decoded, or its size is not the one that the XML states.
        """
        self._look_at(index)
        return super().load_image(index)

    def annotation_sources(self, index: int) -> list[str | Path]:
        """What the files say about the objects of image ``index``: text, and files whose content says the rest."""
        name = self.names[index]
        return [name, repr(self._annotations[index].valid), *([self._mask_path(name)] if self.masks else [])]

    def load_target(self, index: int) -> Target:
        """Only the target; of the image only its head is read. See the class for its keys.

        Raises:
            IndexError: No such image.
            DatasetError: The image is of another size than the XML states, or the mask file cannot be used.
        """
        size, orientation = self._look_at(index)
        objects = self._annotations[index].valid
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
            path, values = self._mask_path(self.names[index]), self._mask_values(index)  # (H, W)
            masks = torch.from_numpy(masks_of_numbers(path, values, [one.number for one in objects]))
            target["masks"] = turn(masks, orientation)
            target["iscrowd"] = difficult | ~target["masks"].flatten(1).any(dim=1)
        return target

    def find_problems(self, index: int) -> list[str]:
        """Every defect of the mask of image ``index``; those of its XML were found when the data set was opened."""
        if not self.masks:
            return []
        try:
            values = self._mask_values(index)
        except (DatasetError, OSError) as error:
            return [str(error)]
        annotation, path = self._annotations[index], self._mask_path(self.names[index])
        numbers, count = set(np.unique(values).tolist()) - {0, VOID}, len(annotation.objects)
        return [
            f"{path}: object {one.number} ({one.name}) has no pixels; draw it (training leaves it out)"
            for one in annotation.valid
            if one.number not in numbers
        ] + [
            f"{path}: pixels of object {number}, but the XML has {count}; correct the one or the other"
            for number in sorted(numbers)
            if not 0 < number <= count
        ]

    def _mask_values(self, index: int) -> np.ndarray:
        """The numbers (H, W) in the mask file of an image."""
        path = self._mask_path(self.names[index])
        values = read_values(path)
        if problem := size_problem(values, self._annotations[index].size):
            raise DatasetError(f"{path}: {problem}")
        return values
