"""Image files, and what all data sets of them share: one way to open them, to turn them upright and to refuse them.

Images are always upright, as a viewer shows them; docs/data_formats.md says what follows for annotations.

Shape comments: G ground-truth objects, H W image size.
"""

from __future__ import annotations

import copy
import warnings
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import Dataset

from minircnn.datasets.masks import decode_masks, encode_masks
from minircnn.datasets.named import DatasetError, no_such
from minircnn.files import lacks_memory

Target = dict[str, Any]

BACKGROUND = "background"  # the name of label 0 in every data set
OVERHANG = 1.0  # pixels: annotation tools round corners, so a box may stick out of its image by this much
LARGEST = 1e15  # of a number in a box: beyond any image, and far from what a float can hold
MOST_PIXELS = 89_478_485  # of an image: Pillow's own limit; one that is larger could fill the memory
UPRIGHT = 1  # the value of the EXIF tag that turns nothing
_ORIENTATION = 0x0112  # the number of the tag
# Which axes of (…, H, W) its values ask to flip, after rows and columns are exchanged for those above 4.
_FLIPS = {2: (-1,), 3: (-2, -1), 4: (-2,), 5: (), 6: (-1,), 7: (-2, -1), 8: (-2,)}


class ImageDataset(Dataset[tuple[Tensor, Target]]):
    """Images and the objects in them: ``dataset[i]`` is ``(image, target)``, as :class:`CocoDataset` describes.

    A class for each layout looks through the files once, when it is opened, and reads objects in :meth:`read_target`.
    """

    def __init__(self, root: str | Path, masks: bool) -> None:
        self.root, self.masks = Path(root), masks
        self.classes = self._all_classes = [BACKGROUND]  # K names; one list, until only() chooses from it
        self.image_ids: list[int] = []  # the number of each image, by index
        self.image_files: list[Path] = []  # where it lies
        self.stated_sizes: list[tuple[int, int] | None] = []  # its (height, width) as the annotations state it
        self.records: list[Any] = []  # what else is known of it
        self.dropped: list[str] = []  # defects of what was left out (only with ``drop_invalid=True``)
        self.odd: list[str] = []  # what is odd although it can be read
        self.notes: list[str] = []  # what is left out though it is no defect

    def __len__(self) -> int:
        """Number of images, those without objects included."""
        return len(self.image_ids)

    def __getitem__(self, index: int) -> tuple[Tensor, Target]:
        """Image ``index`` and its objects; a DatasetError names a file that cannot be decoded or does not fit it."""
        return self.load_image(index), self.load_target(index)

    def part(self, indices: Sequence[int]) -> ImageDataset:
        """The data set of these images alone, in this order; an IndexError names one that is not there."""
        for index in indices:
            if not 0 <= index < len(self):
                raise IndexError(f"image {index}: the data set has {len(self)}, counted from 0")
        part = copy.copy(self)
        for name in ("image_ids", "image_files", "stated_sizes", "records"):
            setattr(part, name, [getattr(self, name)[index] for index in indices])
        return part

    def only(self, classes: Sequence[str]) -> ImageDataset:
        """The data set of the objects of these classes, whose order is that of the new labels.

        All images stay, also those that have no object any more: a detector has to stay silent on them. A name that is
        unknown or given twice, or none, is a DatasetError.
        """
        known = self.classes[1:]
        wrong = [no_such(name, known) for name in classes if name not in known]
        wrong += [f"{name!r} is named twice; name it once" for name in classes if list(classes).count(name) > 1]
        if wrong or not classes:
            raise DatasetError(f"classes: {wrong[0] if wrong else 'none is named; choose from ' + ', '.join(known)}")
        chosen = copy.copy(self)
        chosen.classes = [BACKGROUND, *classes]
        return chosen

    def image_path(self, index: int) -> Path:
        """Where the file of an image lies."""
        return self.image_files[index]

    @abstractmethod
    def read_target(self, index: int) -> Target:
        """The target as the files have it, without ``image_id``; masks are run lengths of the stated size."""

    def mask_files(self, index: int) -> list[Path]:
        """The files that hold the masks of an image, where they are images themselves."""
        return []

    def annotation_sources(self, index: int) -> list[str | Path]:
        """What the files say about the objects of an image: text, and files whose content says the rest."""
        return [repr(self.records[index]), *self.mask_files(index)]

    def find_problems(self, index: int) -> list[str]:
        """Defects of an image's annotations that show only when its files are read, one sentence each."""
        return []

    def load_image(self, index: int) -> Tensor:
        """Only the image, (3, H, W) float32 in [0, 1]; errors are those of ``dataset[index]``."""
        if self.stated_sizes[index]:
            self.upright_size(index)
        return read_image(self.image_path(index))

    def load_target(self, index: int, *, encoded: bool = False) -> Target:
        """Only the target; of the image only its head is read. Errors are those of ``dataset[index]``.

        With ``encoded`` its masks are a list of run lengths: a hundred of 12 megapixels take 1.2 GB as pixels.
        """
        size, orientation = self.upright_size(index)
        target = self.read_target(index)
        target["boxes"] = turn_boxes(target["boxes"], orientation, size)
        if self.masks and orientation != UPRIGHT:
            lying = (decode_masks([runs], self.stated_sizes[index]) for runs in target["masks"])
            target["masks"] = [encode_masks(turn(mask, orientation))[0] for mask in lying]
        if self.classes != self._all_classes:
            places = {name: label for label, name in enumerate(self.classes)}
            labels = torch.tensor([places.get(name, 0) for name in self._all_classes])[target["labels"]]  # 0: left out
            kept = (labels > 0).nonzero()[:, 0]
            masks = {"masks": [target["masks"][row] for row in kept.tolist()]} if self.masks else {}
            others = {name: value[kept] for name, value in {**target, "labels": labels}.items() if name != "masks"}
            target = {**others, **masks}
        if self.masks and not encoded:
            target["masks"] = decode_masks(target["masks"], size)  # (G, H, W)
        first = {"boxes": target["boxes"], "labels": target["labels"], "image_id": self.image_ids[index]}
        return {**first, **target}

    def image_size(self, index: int) -> tuple[int, int]:
        """(height, width) of an image, upright; for errors see :meth:`load_image`."""
        return self.upright_size(index)[0]

    def upright_size(self, index: int) -> tuple[tuple[int, int], int]:
        """The upright (height, width) of an image, and the EXIF tag to turn its annotations by, 1 for not at all.

        Annotations that state the size of the pixels as they lie in the file were drawn on these. Where that is also
        the size of the upright image, or none is stated, they count as drawn on the upright one.
        """
        path, stated = self.image_path(index), self.stated_sizes[index]
        size, orientation = read_head(path)
        if stated in (size, None):
            return size, UPRIGHT
        if orientation > 4 and stated == size[::-1]:
            return size, orientation
        found = f"the image is {size[0]} high and {size[1]} wide, its annotations say {stated[0]} and {stated[1]}"
        remedy = "use the original image (has it lost an EXIF tag?) or correct the annotations"
        raise DatasetError(f"{path}: {found}; boxes may not fit: {remedy}")


def collate(batch: list[tuple[Tensor, Target]]) -> tuple[list[Tensor], list[Target]]:
    """Batch for a ``DataLoader``: a list of images and a list of targets, since images differ in size."""
    return [image for image, _ in batch], [target for _, target in batch]


@contextmanager
def open_image(path: str | Path) -> Iterator[Image.Image]:
    """An image file for Pillow; whatever damaged files make it raise or warn of in the block becomes one kind of error.

    A FileNotFoundError or PermissionError says that it cannot be opened; a DatasetError that it cannot be decoded, is a
    program (PostScript), or states more pixels than are safe to read (``PIL.Image.MAX_IMAGE_PIXELS``, 89 million).
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            # Given a path, Pillow (13) maps some files into memory and garbles those that a TIFF's tag turns.
            with Path(path).open("rb") as stream, Image.open(stream) as file:
                if file.format == "EPS":  # which Pillow would give to Ghostscript, whatever the file is called
                    raise DatasetError(f"{path}: PostScript is a program and is not run; save the image as PNG")
                yield file
    except (FileNotFoundError, PermissionError) as error:
        what = "there is no such image" if isinstance(error, FileNotFoundError) else "may not be read"
        raise type(error)(f"{path}: {what}; check the path") from None
    except DatasetError:
        raise
    except Exception as error:  # nearly any: SyntaxError for a damaged PNG, RuntimeError for an AVIF, …
        unknown = isinstance(error, UnidentifiedImageError)  # whose own words are little more than the path
        reason = "no image of a known kind" if unknown else str(error) or type(error).__name__
        what = f"the image cannot be decoded ({reason}); fetch or write the file again"
        if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
            what = "the image is too large to be read safely; make it smaller"
        elif lacks_memory(error):
            what = "there is not enough memory to read the image; make it smaller"
        raise DatasetError(f"{path}: {what}") from error


def read_image(path: str | Path) -> Tensor:
    """Read an image file as RGB, upright as a viewer shows it: (3, H, W) float32 in [0, 1].

    Gray images get three equal channels; transparency is dropped (the colors below it show); of an animation the first
    frame is taken. 16-bit gray images are divided by 65535 (Pillow alone would clip them at 255). An EXIF tag that is
    damaged turns nothing. For errors see :func:`open_image`; numbers of no known range are a DatasetError, too.
    """
    with open_image(path) as file:
        orientation = _orientation(file)
        image = _decode(file, path)  # (3, H, W)
    return turn(image, orientation)


def read_head(path: str | Path) -> tuple[tuple[int, int], int]:
    """(height, width) of the upright image, and the EXIF tag that turns it, from 1 (nothing is turned) to 8.

    No pixels are decoded. Errors are those of :func:`open_image`.
    """
    with open_image(path) as file:
        if file.format == "TIFF":
            file.load()  # older Pillows exchange height and width only here
        orientation = _orientation(file)
        size = (file.width, file.height) if orientation > 4 else (file.height, file.width)
    return size, orientation


def orientation_note(path: str | Path) -> str | None:
    """What to know about an image that its EXIF tag turns, as a sentence; None about all others; errors as above."""
    _, orientation = read_head(path)
    about = f"{path}: its EXIF tag turns it (orientation {orientation}), with objects if they state its unturned size"
    return None if orientation == UPRIGHT else f"{about}; look whether they fit, or write the image without the tag"


def turn(image: Tensor, orientation: int) -> Tensor:
    """Turn an image or masks (…, H, W) upright, as an EXIF tag asks for: contiguous, (…, W, H) for tags from 5 on."""
    image = image.transpose(-2, -1) if orientation > 4 else image
    flipped = _FLIPS.get(orientation, ())
    return image.flip(flipped).contiguous() if flipped else image.contiguous()


def turn_boxes(boxes: Tensor, orientation: int, size: tuple[int, int]) -> Tensor:
    """Turn boxes (G, 4) on an image as :func:`turn` does with its pixels; ``size`` is that of the upright image."""
    flipped = _FLIPS.get(orientation, ())
    x1, y1, x2, y2 = (boxes[:, [1, 0, 3, 2]] if orientation > 4 else boxes).unbind(dim=1)
    if -1 in flipped:
        x1, x2 = size[1] - x2, size[1] - x1
    if -2 in flipped:
        y1, y2 = size[0] - y2, size[0] - y1
    return torch.stack([x1, y1, x2, y2], dim=1)


def box_problem(name: str, box: Sequence[float], size: tuple[int, int]) -> str | None:
    """What is wrong with a box ``x1, y1, x2, y2``, written out in ``name``, in an image of ``size`` (height, width)."""
    if not all(abs(side) < LARGEST for side in box):  # nan and whole numbers of hundreds of digits are not, either
        return f"{name} is not four finite numbers: correct it or delete the object"
    x1, y1, x2, y2 = box
    # Looked at in float32, as the target holds it: 500 + 1e-6 is 500 there, and the box has no width any more.
    for side, low, high in (("width", x1, x2), ("height", y1, y2)):
        if not np.float32(high) > np.float32(low):
            return f"{name} has no {side}: correct it or delete the object (a loss over such a box is NaN)"
    if max(-x1, -y1, x2 - size[1], y2 - size[0]) > OVERHANG:
        remedy = "clip it, or look whose box it is and whether it is written as corners or as fractions"
        return f"{name} leaves the image of {size[1]}×{size[0]} pixels: {remedy}"
    return None


def _decode(file: Image.Image, path: str | Path) -> Tensor:
    """The pixels of an opened file, as they lie in it: (3, H, W) float32 in [0, 1]."""
    file.load()  # now, because it may turn a TIFF, and exchange its height and width
    if file.mode[0] in "FI":  # 16-bit gray; "I" itself is how older Pillows open it
        gray = np.asarray(file)  # (H, W)
        if file.mode == "F" or gray.min() < 0 or gray.max() > 65535:
            found = f"its values, from {gray.min()} to {gray.max()}, have no known range"
            raise DatasetError(f"{path}: {found}; save the image with 8 or 16 bits")
        return torch.from_numpy(gray.astype(np.float32) / 65535.0).expand(3, -1, -1).contiguous()  # (3, H, W)
    # Through RGBA, because a palette with transparent entries makes Pillow warn on the direct way.
    rgb = file.convert("RGBA").convert("RGB") if file.mode == "P" else file.convert("RGB")
    pixels = np.array(rgb)  # (H, W, 3) uint8
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous().float().div_(255)  # (3, H, W)


def _orientation(file: Image.Image) -> int:
    """What the EXIF tag of an opened file says about its first row and column, from 1 (all is upright) to 8."""
    if file.format == "TIFF":  # obeyed by Pillow; older ones keep the tag all the same
        return UPRIGHT
    try:
        # A PNG's own method would decode its pixels, to look for a tag behind them.
        tag = Image.Image.getexif(file).get(_ORIENTATION, UPRIGHT)
    except Exception:  # whatever a damaged tag makes Pillow raise; the pixels are there all the same
        return UPRIGHT
    return tag if tag in _FLIPS else UPRIGHT
