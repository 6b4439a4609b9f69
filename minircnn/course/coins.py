"""Two dozen coins: a real photograph, a mask for each coin without annotators, and many training images out of one.

Greek coins from Pompeii, of the Brooklyn Museum; ``skimage.data.coins`` has them in 303 × 384 gray pixels. A classical
segmentation makes the masks, and its result can be checked: there are 24 coins, and coins are nearly round. They lie in
four rows; the part to train on and the part to measure with lie above and below a line that meets no coin.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import skimage.data
import torch
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import sobel
from skimage.measure import label
from skimage.morphology import disk
from skimage.segmentation import watershed
from torch import Tensor
from torch.utils.data import Dataset

from minircnn.datasets.folders import boxes_around
from minircnn.targets import Sample
from minircnn.training.batches import cut_out
from minircnn.transforms import hflip

PARTS = {"all": (0, 303), "train": (0, 150), "test": (150, 303)}
"""Parts of the photograph and the rows of pixels that they have."""

DARK, BRIGHT = 30, 150  # gray levels: below the first there is surely no coin, above the second surely one
SMOOTHING = 3  # pixels; what is thinner than twice this is no coin but a scratch or a fringe of its edge


@dataclass(frozen=True)
class Segmentation:
    """The steps from a photograph to coins; all arrays are (H, W)."""

    gradient: NDArray[np.float64]  # how steep the gray is; high on outlines
    markers: NDArray[np.int64]  # 1 where there is surely no coin, 2 where there is surely one, 0 for the next step
    flooded: NDArray[np.bool_]  # the watershed of `gradient` that rises from the markers
    filled: NDArray[np.bool_]  # without holes inside of coins, scratches and fringes
    labels: NDArray[np.int64]  # the coins: 1 … G in reading order, 0 elsewhere


def segment_coins(image: NDArray[np.uint8]) -> Segmentation:
    """Segment coins on a dark ground without any learning; ``image`` is (H, W) gray levels.

    The light falls unevenly: no threshold parts all coins from the ground. But two thresholds say where there surely is
    a coin and where there surely is none, and from there on two floods rise over the gradient, as if it were a
    landscape, until they meet on its ridges: the outlines (Beucher and Meyer 1993, "The morphological approach to
    segmentation: the watershed transformation").
    """
    gradient = sobel(image.astype(np.float64) / 255)
    markers = np.where(image < DARK, 1, np.where(image > BRIGHT, 2, 0))
    flooded = watershed(gradient, markers) == 2
    filled = ndimage.binary_opening(ndimage.binary_fill_holes(flooded), disk(SMOOTHING))
    return Segmentation(gradient, markers, flooded, filled, _in_reading_order(label(filled)))


def _in_reading_order(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Regions numbered anew: row by row, and in each from left to right."""
    regions, rows, floor = enumerate(ndimage.find_objects(labels), start=1), [], 0
    for number, (down, across) in sorted(regions, key=lambda region: region[1][0].start + region[1][0].stop):
        if (down.start + down.stop) / 2 >= floor:  # the lower edge of the row's topmost region
            rows.append([])
            floor = down.stop
        rows[-1].append((across.start + across.stop, number))
    order = [number for row in rows for _, number in sorted(row)]
    numbers = np.zeros(len(order) + 1, dtype=np.int64)
    numbers[order] = np.arange(1, len(order) + 1)
    return numbers[labels]


def coins_of(part: str = "all") -> Sample:
    """A part of the photograph, one of :data:`PARTS`, with its coins in reading order."""
    pixels, rows = skimage.data.coins(), slice(*PARTS[part])
    labels = segment_coins(pixels).labels[rows]
    masks = torch.from_numpy(labels == np.unique(labels)[1:, None, None])
    target = {"boxes": boxes_around(masks), "labels": torch.ones(len(masks), dtype=torch.int64), "masks": masks}
    return torch.from_numpy(pixels[rows]).float().div(255).repeat(3, 1, 1), target


class RandomSquares(Dataset[Sample]):
    """Random squares of some images with masks, turned and flipped; an index always gives the same square.

    Good for images without up and down, such as photographs from straight above or through a microscope.
    ``squares[i]`` is an ``(image, target)`` pair; ``image_id`` is i + 1. The images take turns. An object that the edge
    cuts stays with what is left of it, its box fitting that; of which too little is left to know what it is becomes a
    crowd: training takes it neither for an object nor for background.
    """

    def __init__(self, samples: Sequence[Sample], side: int, count: int, *, seed: int = 0) -> None:
        """Draw nothing yet. From an image with a side shorter than that the square is as large as this."""
        self.samples, self.side, self.count, self.seed = samples, side, count, seed

    def __len__(self) -> int:
        """Number of squares."""
        return self.count

    def __getitem__(self, index: int) -> Sample:
        """A square and the objects in it."""
        if not 0 <= index < self.count:
            raise IndexError(f"square {index}: there are {self.count}, counted from 0")
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + index)
        image, target = self.samples[index % len(self.samples)]
        side = min(self.side, *image.shape[1:])
        top, left = (int(torch.randint(length - side + 1, (), generator=generator)) for length in image.shape[1:])
        image, target = cut_out(image, target, (top, left, top + side, left + side))
        image, target = turn(image, target, int(torch.randint(4, (), generator=generator)))
        if torch.rand((), generator=generator) < 0.5:
            image, target = hflip(image, target)
        return image, {**target, "image_id": index + 1}


def turn(image: Tensor, target: dict[str, Any], quarters: int) -> Sample:
    """Turn an image (3, H, W) and its objects counterclockwise by so many times 90°; the target has masks."""
    masks = torch.rot90(target["masks"], quarters, dims=(1, 2))
    return torch.rot90(image, quarters, dims=(1, 2)), {**target, "masks": masks, "boxes": boxes_around(masks)}
