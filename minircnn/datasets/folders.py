"""Data sets that draw their objects as masks, which are images themselves: boxes and areas follow from these.

* Penn-Fudan, 170 street scenes with pedestrians. Wang, Shi, Song and Shen 2007, "Object Detection Combining Recognition
  and Segmentation" (ACCV):

      PennFudanPed/PNGImages/FudanPed00001.png
      PennFudanPed/PedMasks/FudanPed00001_mask.png    0 is background, n the n-th pedestrian

* Cell nuclei under the microscope, 670 images of many kinds of tissue: BBBC038, known from the 2018 Data Science Bowl.
  Caicedo et al. 2019, "Nucleus segmentation across imaging experiments" (Nature Methods 16):

      stage1_train/<id>/images/<id>.png     the image, RGBA
      stage1_train/<id>/masks/<any>.png     a nucleus: 255 where it is, 0 elsewhere

Masks are opened when a target is asked for: there may be tens of thousands of them.

Shape comments: G ground-truth objects, H W image size.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as rle_codec
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from minircnn.datasets.images import ImageDataset, Target, open_image
from minircnn.datasets.masks import encode_masks
from minircnn.datasets.named import WHAT_TO_NAME, DatasetError, check_places, raise_problems

Runs = dict[str, Any]  # a mask as run lengths, as pycocotools has it
MOST_MASK_PIXELS = 3_000_000_000  # of all masks of an image together; each takes a byte


class MaskFolder(ImageDataset):
    """Images with names, and the objects of one class in them; targets are those of :class:`CocoDataset`.

    No object is a crowd. ``records`` are the names of the images, sorted; ids are the places among them, from 1. With
    ``drop_invalid`` invalid masks are left out, and images that lack something, rather than refused.
    """

    name: str  # by which the data set is opened
    class_name: str
    image: str  # where the image of a name lies below the root, and its mask file or the folder of these
    mask: str

    def __init__(self, root: str | Path, *, masks: bool = True, drop_invalid: bool = False) -> None:
        check_places(self.name, root, None)
        super().__init__(root, masks)
        for name in sorted(self._find_names()):
            files = [self.root / place.format(name) for place in (self.image, self.mask)]
            lacking = [str(path) for path in files if not path.exists()]
            self.dropped += [f"{path}: is missing; unpack the archive again or remove {name}" for path in lacking[:1]]
            self.records += [] if lacking else [name]
        if not self.records:
            raise DatasetError(f"{self.root}: no image with masks in it; name {WHAT_TO_NAME[self.name]}")
        if not drop_invalid:
            raise_problems(self.root, self.dropped)
        self.drop_invalid = drop_invalid
        self.classes.append(self.class_name)
        self.image_ids = list(range(1, len(self.records) + 1))
        self.image_files = [self.root / self.image.format(name) for name in self.records]
        self.stated_sizes = [None] * len(self.records)

    @abstractmethod
    def _find_names(self) -> set[str]:
        """The names of the images, whether all of their files are there or not."""

    @abstractmethod
    def read_objects(self, index: int) -> tuple[list[Runs], list[str]]:
        """The objects of an image as masks, each of at least a pixel, and the defects of those left out."""

    def mask_files(self, index: int) -> list[Path]:
        """Where the masks of an image lie: of a folder the images by name, without hidden ones (macOS's)."""
        place = self.root / self.mask.format(self.records[index])
        known, files = Image.registered_extensions(), sorted(place.glob("[!.]*"), key=lambda path: path.name)
        return (
            [path for path in files if path.suffix.lower() in known and path.is_file()] if place.is_dir() else [place]
        )

    def read_target(self, index: int) -> Target:
        """The objects of an image; masks that cannot be used are named by file."""
        masks, invalid = self.read_objects(index)
        if not self.drop_invalid:
            raise_problems(self.image_path(index), invalid)
        boxes = torch.from_numpy(rle_codec.toBbox(masks)).float() if masks else torch.zeros(0, 4)  # x, y, w, h
        boxes[:, 2:] += boxes[:, :2]
        target: Target = {
            "boxes": boxes,
            "labels": torch.ones(len(masks), dtype=torch.int64),  # (G,)
            "iscrowd": torch.zeros(len(masks), dtype=torch.bool),  # (G,)
            "area": torch.tensor(rle_codec.area(masks) if masks else [], dtype=torch.float32),  # (G,)
        }
        return {**target, "masks": masks} if self.masks else target

    def find_problems(self, index: int) -> list[str]:
        """Every defect of the masks of an image, one sentence each; the image is not decoded."""
        return [f"{self.image_path(index)}, {problem}" for problem in self.read_objects(index)[1]]


class PennFudanDataset(MaskFolder):
    """Images of streets and the pedestrians in them, in the folder PennFudanPed; see :class:`MaskFolder`.

    The files in Annotation, which say the same, are not read.
    """

    name, class_name = "pennfudan", "pedestrian"
    image, mask = "PNGImages/{}.png", "PedMasks/{}_mask.png"

    def _find_names(self) -> set[str]:
        return {path.stem for path in self.root.glob("PNGImages/[!.]*.png")}

    def read_objects(self, index: int) -> tuple[list[Runs], list[str]]:
        """The pedestrians of an image: every number above 0 in its mask file is one, and none is invalid."""
        (path,) = self.mask_files(index)
        values = read_numbers(path, self.image_size(index))  # (H, W)
        return masks_of_numbers(path, values, np.unique(values[values > 0]).tolist()), []


class NucleiDataset(MaskFolder):
    """Images of cells in the folder stage1_train, and their nuclei, ordered by file name; see :class:`MaskFolder`.

    Nuclei that touch stay apart, since each has a mask of its own. Transparency of an image is dropped. An image
    without nuclei has an empty folder of masks; one without such a folder is for testing.
    """

    name, class_name = "nuclei", "nucleus"
    image, mask = "{0}/images/{0}.png", "{0}/masks"

    def _find_names(self) -> set[str]:
        return {path.parent.name for path in self.root.glob("[!._]*/*")}

    def read_objects(self, index: int) -> tuple[list[Runs], list[str]]:
        """The nuclei of an image, and the defects of masks that are none."""
        size, masks, invalid = self.image_size(index), [], []
        for path in self.mask_files(index):
            try:
                values = read_numbers(path, size)  # (H, W)
                found = np.unique(values).tolist()
                if not any(found):
                    raise DatasetError(f"{path}: it is empty, no pixel is above 0: draw the nucleus or delete the file")
                if len({0, *found}) > 2:
                    rule = "a mask has 0 and 255 only: write it without smoothing, one file for each nucleus"
                    raise DatasetError(f"{path}: it holds {', '.join(map(str, found[:5]))}, but {rule}")
                masks += masks_of_numbers(path, values, [max(found)])
            except (DatasetError, OSError) as error:
                invalid.append(f"mask {str(error).removeprefix(f'{path.parent}/')}")
        return masks, invalid


def masks_of_numbers(path: Path, values: NDArray[np.integer], numbers: Sequence[int]) -> list[Runs]:
    """Where a mask file (H, W) holds each of some numbers, unless that would fill the memory as pixels."""
    if len(numbers) * values.size > MOST_MASK_PIXELS:
        what = f"{len(numbers)} objects, whose masks would fill the memory"
        raise DatasetError(f"{path}: {what}; let each object have one number, or cut the image into parts")
    return [encode_masks(torch.from_numpy(values == number)[None])[0] for number in numbers]


def boxes_around(masks: Tensor) -> Tensor:
    """The smallest boxes that hold all pixels of masks, of none zeros: (G, H, W) bool to (G, 4) float32, half open.

    >>> boxes_around(torch.tensor([[[False, False, False], [False, True, True]]]))
    tensor([[1., 1., 3., 2.]])
    """
    sides = []
    for occupied in (masks.any(dim=1), masks.any(dim=2)):  # (G, W) columns, (G, H) rows
        ends = occupied * torch.arange(1, occupied.shape[1] + 1)
        sides.append((occupied.int().argmax(dim=1), ends.amax(dim=1)))  # (G,)
    (x1, x2), (y1, y2) = sides
    return torch.stack([x1, y1, x2, y2], dim=1).float()  # (G, 4)


def read_numbers(path: Path, size: tuple[int, int]) -> NDArray[np.integer]:
    """The numbers in a mask file, as they lie in it, (H, W): of a palette the indices, of one bit 0 and 255.

    It has one channel, or three equal ones; transparency is dropped. What cannot be decoded, is not of the ``size``
    (height, width) of its image, or has colors or negative numbers, is a DatasetError.
    """
    with open_image(path) as file:
        if file.mode not in ("P", "L", "1", "LA", "RGB", "RGBA") and not file.mode.startswith("I"):
            raise DatasetError(f"{path}: an image of the kind {file.mode!r}, no mask; save it as gray PNG of 8 bits")
        if file.format == "TIFF":
            file.load()  # which may exchange height and width
        if (file.height, file.width) != size:  # before its pixels fill the memory
            found = f"the mask is {file.height} high and {file.width} wide, the image {size[0]} and {size[1]}"
            raise DatasetError(f"{path}: {found}: make the mask in the image's size")
        kind = {"1": "L", "LA": "RGB", "RGBA": "RGB"}.get(file.mode, file.mode)
        values = np.array(file if kind == file.mode else file.convert(kind))  # (H, W), or (H, W, 3)
    if values.ndim == 3:
        if (values != values[..., :1]).any():
            raise DatasetError(f"{path}: an image in colors, no mask; save the objects' numbers as gray or palette")
        values = values[..., 0]
    if values.size and values.min() < 0:
        remedy = "save it as PNG of 8 or 16 bits"
        raise DatasetError(f"{path}: holds {values.min()}, but objects have numbers above 0; {remedy}")
    return values
