"""What data sets of files share: pictures in a folder, each with a name, and masks that are pictures themselves.

A data set reads its list of files when it is opened, and refuses it where something is missing. Masks are opened when a
target is asked for: there may be tens of thousands of them.

Shape comments: G ground-truth objects, H W picture size.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from minircnn.datasets.coco import Target
from minircnn.datasets.coco_format import DatasetError, raise_problems
from minircnn.datasets.images import open_image, read_head, read_image

MOST_MASK_PIXELS = 3_000_000_000  # of all masks of an image together; each takes a byte


class FolderDataset(Dataset[tuple[Tensor, Target]]):
    """Pictures that lie in a folder, each with a name; a base for data sets that say where the objects are.

    Attributes:
        root: Folder of the data set.
        classes: K names; ``classes[0]`` is "background".
        names: The name of each picture, by index.
        image_ids: The number of each picture, by index: its place in ``names``, from 1.
        masks: Whether targets hold masks.
        drop_invalid: Whether invalid objects are left out rather than refused.
    """

    def __init__(
        self, root: Path, classes: Sequence[str], names: Sequence[str], masks: bool, drop_invalid: bool
    ) -> None:
        self.root, self.masks, self.drop_invalid = root, masks, drop_invalid
        self.classes: list[str] = ["background", *classes]
        self.names: list[str] = list(names)
        self.image_ids: list[int] = list(range(1, len(names) + 1))

    def __len__(self) -> int:
        """Number of pictures, those without objects included."""
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[Tensor, Target]:
        """Picture ``index`` and its objects; see the class for shapes.

        Raises:
            IndexError: No such picture.
            DatasetError: A file cannot be decoded, or files do not fit together.
        """
        return self.load_image(index), self.load_target(index)

    @abstractmethod
    def image_path(self, index: int) -> Path:
        """Where the file of picture ``index`` lies."""

    @abstractmethod
    def image_size(self, index: int) -> tuple[int, int]:
        """(height, width) of picture ``index``."""

    @abstractmethod
    def load_target(self, index: int) -> Target:
        """Only the target. See the class for its keys."""

    @abstractmethod
    def find_problems(self, index: int) -> list[str]:
        """Every defect of the annotations of picture ``index``, one sentence each; the picture is not decoded."""

    def load_image(self, index: int) -> Tensor:
        """Only the picture: (3, H, W) float32 in [0, 1].

        Raises:
            IndexError: No such picture.
            DatasetError: The file cannot be decoded.
        """
        path = self.image_path(index)
        try:
            return read_image(path)  # (3, H, W)
        except DatasetError as error:
            raise DatasetError(f"{path}: {error}") from error


@dataclass
class Objects:
    """The objects of a picture as masks say, and what is wrong with them.

    Attributes:
        masks: (G, H, W) bool, each with at least one pixel.
        invalid: Defects of objects that are not among ``masks``.
        odd: Defects that leave the objects usable.
    """

    masks: NDArray[np.bool_]
    invalid: list[str] = field(default_factory=list)
    odd: list[str] = field(default_factory=list)


class MaskFolder(FolderDataset):
    """A data set of one class that draws its objects as masks and nothing else: boxes and areas follow from them."""

    @abstractmethod
    def read_objects(self, index: int) -> Objects:
        """The objects of a picture, from its mask files."""

    def image_size(self, index: int) -> tuple[int, int]:
        """(height, width) of picture ``index``, upright, from the head of its file.

        Raises:
            DatasetError: The file is no picture.
        """
        return upright_size(self.image_path(index))

    def load_target(self, index: int) -> Target:
        """Only the target; the picture is not decoded. See the class for its keys.

        Raises:
            IndexError: No such picture.
            DatasetError: Masks that cannot be used, each with its file (unless ``drop_invalid``).
        """
        objects = self.read_objects(index)
        if not self.drop_invalid:
            raise_problems(self.image_path(index), objects.invalid)
        masks = torch.from_numpy(objects.masks)  # (G, H, W)
        target: Target = {
            "boxes": boxes_around(masks),
            "labels": torch.ones(len(masks), dtype=torch.int64),  # (G,)
            "image_id": self.image_ids[index],
            "iscrowd": torch.zeros(len(masks), dtype=torch.bool),  # (G,)
            "area": torch.from_numpy(objects.masks.sum(axis=(1, 2))).float(),  # (G,); torch would copy to 64 bits
        }
        return {**target, "masks": masks} if self.masks else target

    def find_problems(self, index: int) -> list[str]:
        """Every defect of the masks of picture ``index``, one sentence each; the picture is not decoded."""
        try:
            objects = self.read_objects(index)
        except (DatasetError, OSError) as error:
            return [str(error)]
        return [f"{self.image_path(index)}, {problem}" for problem in (*objects.invalid, *objects.odd)]


def room_for_masks(path: Path, count: int, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Empty masks for the objects of an image: (G, H, W) bool.

    Args:
        path: The file that asks for them, for the message.
        count: How many objects there are.
        size: (height, width) of the image.

    Raises:
        DatasetError: They would fill the memory.
    """
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
    """The smallest boxes that hold all pixels of masks.

    Args:
        masks: (G, H, W) bool.

    Returns:
        (G, 4) float32, half open: ``x2`` is the last column + 1. A mask without pixels gets a box of zeros.

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


def upright_size(path: Path) -> tuple[int, int]:
    """(height, width) of an image, upright, from the head of its file.

    Raises:
        FileNotFoundError: There is no such file.
        PermissionError: It may not be read.
        DatasetError: It is no image.
    """
    try:
        return read_head(path)[0]
    except DatasetError as error:
        raise DatasetError(f"{path}: {error}") from error


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """A picture file, open; whatever is wrong with it becomes an error that begins with its path.

    The words are those of :func:`read_image`: a list of defects has each once, whichever way it was found.

    Raises:
        FileNotFoundError: There is no such file.
        PermissionError: It may not be read.
        DatasetError: It cannot be decoded, or states a size that would not fit into memory.
    """
    try:
        with open_image(path) as file:
            yield file
    except DatasetError as error:
        if str(error).startswith(f"{path}: "):  # of what was done with the file, and told already
            raise
        raise DatasetError(f"{path}: {error}") from error


def read_values(path: Path) -> NDArray[np.integer]:
    """The numbers in a mask file, as they lie in it: of a palette the indices, not the colours.

    Args:
        path: A picture of one channel, or of three equal ones; transparency is dropped.

    Returns:
        (H, W) whole numbers. Of a picture of one bit they are 0 and 255.

    Raises:
        FileNotFoundError: There is no such file.
        DatasetError: It cannot be decoded, or has colours or negative numbers.
    """
    with opened(path) as file:
        if file.mode not in ("P", "L", "1", "LA", "RGB", "RGBA") and not file.mode.startswith("I"):
            raise DatasetError(f"{path}: a picture of the kind {file.mode!r}, no mask; save it as grey PNG of 8 bits")
        values = np.array(file)  # (H, W) or (H, W, channels)
    if values.dtype == bool:
        return values.astype(np.uint8) * 255
    if values.ndim == 3:
        colours = values[..., : 1 if values.shape[2] == 2 else 3]
        if (colours != colours[..., :1]).any():
            raise DatasetError(
                f"{path}: a picture in colours, no mask; save the numbers of the objects as grey or palette"
            )
        values = colours[..., 0]
    if values.size and values.min() < 0:
        raise DatasetError(
            f"{path}: holds {values.min()}, but objects have numbers above 0; save it as PNG of 8 or 16 bits"
        )
    return values


def size_problem(values: NDArray[np.integer], size: tuple[int, int]) -> str | None:
    """What is wrong with the size of a mask of a picture of ``size`` (height, width); None if nothing is."""
    if values.shape == size:
        return None
    return (
        f"the mask is {values.shape[0]} high and {values.shape[1]} wide, the picture {size[0]} and {size[1]}: "
        "make the mask in the picture's size"
    )


def check_folder(root: str | Path, inside: Iterable[str], what: str) -> Path:
    """The folder of a data set, after a look whether it is one.

    Args:
        root: What the user named.
        inside: Folders that it must hold.
        what: What such a folder is called, for the message.

    Raises:
        FileNotFoundError: It is not there, or something else.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: there is no such folder; name {what}")
    inside = list(inside)
    for name in inside:
        if not (root / name).is_dir():
            near = [path for path in sorted(root.iterdir()) if all((path / part).is_dir() for part in inside)]
            hint = f"; did you mean {near[0]}?" if near else f"; name {what}"
            raise FileNotFoundError(f"{root}: there is no folder {name} in it{hint}")
    return root


def images_in(folder: Path, *endings: str) -> list[Path]:
    """The files of a folder with these endings (none: those of any image), by name, without hidden ones (macOS's)."""
    known = endings or Image.registered_extensions()
    found = (path for path in folder.iterdir() if path.suffix.lower() in known and not path.name.startswith("."))
    return sorted((path for path in found if path.is_file()), key=lambda path: path.name)
