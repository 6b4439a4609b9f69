"""Data sets that draw their objects as masks, which are images themselves: boxes and areas follow from these.

* Penn-Fudan, 170 street scenes with pedestrians. Wang, Shi, Song and Shen 2007, "Object Detection Combining Recognition
  and Segmentation" (ACCV):

      PennFudanPed/PNGImages/FudanPed00001.png
      PennFudanPed/PedMasks/FudanPed00001_mask.png    0 is background, n the n-th pedestrian

* Cell nuclei under the microscope, 670 images of many kinds of tissue: BBBC038, known from the 2018 Data Science Bowl.
  Caicedo et al. 2019, "Nucleus segmentation across imaging experiments" (Nature Methods 16):

      stage1_train/<id>/images/<id>.png     the image, RGBA
      stage1_train/<id>/masks/<any>.png     a nucleus: 255 where it is, 0 elsewhere

The files are listed when a data set is opened, and refused where something is missing. Masks are opened when a target
is asked for: there may be tens of thousands of them.

Shape comments: G ground-truth objects, H W image size.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from minircnn.datasets.images import ImageDataset, Target, open_image
from minircnn.datasets.named import WHAT_TO_NAME, DatasetError, raise_problems

MOST_MASK_PIXELS = 3_000_000_000  # of all masks of an image together; each takes a byte


class MaskFolder(ImageDataset):
    """Images with names, and the objects of one class in them; targets are those of :class:`CocoDataset`.

    No object is a crowd. ``names`` are sorted; the id of an image is its place among them, from 1.

    Args:
        root: The folder of the data set.
        name: Of the class.
        missing: The name of each image, and what it lacks, or None.
        masks: Whether targets hold masks.
        drop_invalid: Leave invalid masks out, and images that lack something, rather than refuse them.
    """

    def __init__(
        self, root: Path, name: str, missing: dict[str, str | None], *, masks: bool, drop_invalid: bool
    ) -> None:
        super().__init__(root, masks)
        self.dropped = [problem for problem in missing.values() if problem]
        if not drop_invalid:
            raise_problems(root, self.dropped)
        self.drop_invalid = drop_invalid
        self.classes.append(name)
        self.names: list[str] = sorted(name for name, problem in missing.items() if not problem)
        self.image_ids = list(range(1, len(self.names) + 1))

    @abstractmethod
    def read_objects(self, index: int) -> tuple[NDArray[np.bool_], list[str]]:
        """The objects of an image as masks (G, H, W), each of at least a pixel, and the defects of those left out."""

    def load_target(self, index: int) -> Target:
        """Only the target; of the image only its size is read. Masks that cannot be used are named by file."""
        objects, invalid = self.read_objects(index)  # (G, H, W)
        if not self.drop_invalid:
            raise_problems(self.image_path(index), invalid)
        masks = torch.from_numpy(objects)
        target: Target = {
            "boxes": boxes_around(masks),
            "labels": torch.ones(len(masks), dtype=torch.int64),  # (G,)
            "image_id": self.image_ids[index],
            "iscrowd": torch.zeros(len(masks), dtype=torch.bool),  # (G,)
            "area": torch.from_numpy(objects.sum(axis=(1, 2))).float(),  # (G,); torch would copy to 64 bits
        }
        return {**target, "masks": masks} if self.masks else target

    def find_problems(self, index: int) -> list[str]:
        """Every defect of the masks of an image, one sentence each; the image is not decoded."""
        try:
            return [f"{self.image_path(index)}, {problem}" for problem in self.read_objects(index)[1]]
        except (DatasetError, OSError) as error:
            return [str(error)]


class PennFudanDataset(MaskFolder):
    """Images of streets and the pedestrians in them, in the folder PennFudanPed.

    The files in Annotation, which say the same, are not read. For arguments see :class:`MaskFolder`.
    """

    def __init__(self, root: str | Path, *, masks: bool = True, drop_invalid: bool = False) -> None:
        root = check_folder(root, WHAT_TO_NAME["pennfudan"], ("PNGImages", "PedMasks"))
        missing: dict[str, str | None] = {}
        for image in images_in(root / "PNGImages", ".png"):
            mask = root / "PedMasks" / f"{image.stem}_mask.png"
            problem = f"{image}: its mask {mask} is missing; unpack the archive again or remove the image"
            missing[image.stem] = None if mask.is_file() else problem
        if not missing:
            raise DatasetError(f"{root / 'PNGImages'}: no images (.png) in this folder; unpack the archive again")
        super().__init__(root, "pedestrian", missing, masks=masks, drop_invalid=drop_invalid)

    def image_path(self, index: int) -> Path:
        """Where the file of an image lies."""
        return self.root / "PNGImages" / f"{self.names[index]}.png"

    def _mask_path(self, index: int) -> Path:
        return self.root / "PedMasks" / f"{self.names[index]}_mask.png"

    def annotation_sources(self, index: int) -> list[str | Path]:
        """The name of an image and its mask file."""
        return [self.names[index], self._mask_path(index)]

    def read_objects(self, index: int) -> tuple[NDArray[np.bool_], list[str]]:
        """The pedestrians of an image: every number above 0 in its mask file is one, and none is invalid."""
        path = self._mask_path(index)
        values = read_numbers(path, self.image_size(index))  # (H, W)
        return masks_of_numbers(path, values, np.unique(values[values > 0]).tolist()), []


class NucleiDataset(MaskFolder):
    """Images of cells in the folder stage1_train, and their nuclei in the order of the names of their files.

    Nuclei that touch stay apart, since each has a mask of its own. Transparency of an image is dropped. For arguments
    see :class:`MaskFolder`.
    """

    def __init__(self, root: str | Path, *, masks: bool = True, drop_invalid: bool = False) -> None:
        root = check_folder(root, WHAT_TO_NAME["nuclei"])
        folders = sorted(path for path in root.iterdir() if path.is_dir() and path.name[0] not in "._")
        missing = {folder.name: self._what_is_missing(folder) for folder in folders}
        if all(missing.values()):
            raise DatasetError(
                f"{root}: no image with masks in it; name the folder stage1_train, which holds <id>/images/<id>.png "
                "and <id>/masks/*.png"
            )
        super().__init__(root, "nucleus", missing, masks=masks, drop_invalid=drop_invalid)

    @staticmethod
    def _what_is_missing(folder: Path) -> str | None:
        image = folder / "images" / f"{folder.name}.png"
        if not image.is_file():
            return f"{image}: there is no such image; unpack the archive again or remove {folder}"
        if not (folder / "masks").is_dir():
            return (
                f"{folder / 'masks'}: there is no such folder; make it (empty if the image shows no nucleus). Images "
                "without it are for testing: nobody has drawn their nuclei"
            )
        return None

    def image_path(self, index: int) -> Path:
        """Where the file of an image lies."""
        return self.root / self.names[index] / "images" / f"{self.names[index]}.png"

    def annotation_sources(self, index: int) -> list[str | Path]:
        """The name of an image and its mask files."""
        return [self.names[index], *images_in(self.root / self.names[index] / "masks")]

    def read_objects(self, index: int) -> tuple[NDArray[np.bool_], list[str]]:
        """The nuclei of an image, and the defects of masks that are none."""
        folder, size = self.root / self.names[index] / "masks", self.image_size(index)
        paths = images_in(folder)
        masks, kept, invalid = room_for_masks(folder, len(paths), size), 0, []
        for path in paths:
            try:
                values = read_numbers(path, size)  # (H, W)
                _check_nucleus(path, values)
            except (DatasetError, OSError) as error:
                invalid.append(f"mask {str(error).removeprefix(f'{path.parent}/')}")
                continue
            masks[kept] = values > 0
            kept += 1
        return masks[:kept], invalid


def _check_nucleus(path: Path, values: NDArray[np.integer]) -> None:
    """Refuse a mask whose numbers cannot be told apart into nucleus and the rest."""
    found = np.unique(values).tolist()
    if not any(found):
        raise DatasetError(f"{path}: it is empty, no pixel is above 0: draw the nucleus or delete the file")
    if len(set(found) | {0}) > 2:
        listed = ", ".join(map(str, found[:5])) + (" …" if len(found) > 5 else "")
        remedy = "write it without smoothing, one file for each nucleus"
        raise DatasetError(f"{path}: it holds {listed}, but a mask has 0 and 255 only: {remedy}")


def room_for_masks(path: Path, count: int, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Empty masks for the objects of an image, refused where they would fill the memory: (count, *size) bool."""
    if count * size[0] * size[1] > MOST_MASK_PIXELS:
        raise DatasetError(
            f"{path}: {count} objects in an image of {size[0]} × {size[1]} pixels, whose masks would fill the memory; "
            "let each object have one number or file, or cut the image into parts"
        )
    return np.zeros((count, *size), dtype=bool)


def masks_of_numbers(path: Path, values: NDArray[np.integer], numbers: Sequence[int]) -> NDArray[np.bool_]:
    """Where a mask file holds each of some numbers: (H, W) to (G, H, W) bool; see :func:`room_for_masks`."""
    masks = room_for_masks(path, len(numbers), values.shape)
    for mask, number in zip(masks, numbers, strict=True):
        np.equal(values, number, out=mask)
    return masks


def boxes_around(masks: Tensor) -> Tensor:
    """The smallest boxes that hold all pixels of masks: (G, H, W) bool to (G, 4) float32, half open.

    ``x2`` is the last column + 1. A mask without pixels gets a box of zeros.

    Example:
        >>> mask = torch.zeros(1, 4, 5, dtype=torch.bool)
        >>> mask[0, 1:3, 2] = True
        >>> boxes_around(mask)
        tensor([[2., 1., 3., 3.]])
    """
    sides = []
    for occupied in (masks.any(dim=1), masks.any(dim=2)):  # (G, W) columns, (G, H) rows
        length = occupied.shape[1]
        place = torch.arange(length)
        first = torch.where(occupied, place, length).amin(dim=1)  # (G,)
        last = torch.where(occupied, place, -1).amax(dim=1) + 1  # (G,)
        sides.append((torch.minimum(first, last), last))
    (x1, x2), (y1, y2) = sides
    return torch.stack([x1, y1, x2, y2], dim=1).float()  # (G, 4)


def read_numbers(path: Path, size: tuple[int, int]) -> NDArray[np.integer]:
    """The numbers in a mask file, as they lie in it: of a palette the indices, not the colors.

    Args:
        path: An image of one channel, or of three equal ones; transparency is dropped.
        size: (height, width) of the image that it belongs to.

    Returns:
        (H, W) whole numbers; of an image of one bit 0 and 255.

    Raises:
        DatasetError: It cannot be decoded, is of another size, or has colors or negative numbers.
    """
    with open_image(path) as file:
        if file.mode not in ("P", "L", "1", "LA", "RGB", "RGBA") and not file.mode.startswith("I"):
            raise DatasetError(f"{path}: an image of the kind {file.mode!r}, no mask; save it as gray PNG of 8 bits")
        values = np.array(file)  # (H, W) or (H, W, channels)
    if values.dtype == bool:
        values = values.astype(np.uint8) * 255
    if values.ndim == 3:
        colors = values[..., : 1 if values.shape[2] == 2 else 3]
        if (colors != colors[..., :1]).any():
            raise DatasetError(
                f"{path}: an image in colors, no mask; save the numbers of the objects as gray or palette"
            )
        values = colors[..., 0]
    if values.size and values.min() < 0:
        raise DatasetError(
            f"{path}: holds {values.min()}, but objects have numbers above 0; save it as PNG of 8 or 16 bits"
        )
    if values.shape != size:
        raise DatasetError(
            f"{path}: the mask is {values.shape[0]} high and {values.shape[1]} wide, the image {size[0]} and "
            f"{size[1]}: make the mask in the image's size"
        )
    return values


def check_folder(root: str | Path, what: str, inside: Sequence[str] = ()) -> Path:
    """The folder of a data set, called ``what``, after a look whether it is there and holds the folders ``inside``."""
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: there is no such folder; name {what}")
    for name in inside:
        if not (root / name).is_dir():
            near = [path for path in sorted(root.iterdir()) if all((path / part).is_dir() for part in inside)]
            hint = f"did you mean {near[0]}?" if near else f"name {what}"
            raise FileNotFoundError(f"{root}: there is no folder {name} in it; {hint}")
    return root


def images_in(folder: Path, *endings: str) -> list[Path]:
    """The files of a folder with these endings (none: those of any image), by name, without hidden ones (macOS's)."""
    known = endings or Image.registered_extensions()
    found = (path for path in folder.iterdir() if path.suffix.lower() in known and not path.name.startswith("."))
    return sorted((path for path in found if path.is_file()), key=lambda path: path.name)
