"""Two dozen coins: a real photograph that comes with scikit-image, and a mask for each coin.

Greek coins from Pompeii, of the Brooklyn Museum; ``skimage.data.coins`` has them in 303 × 384 grey
pixels. Nobody has drawn their masks, so a classical segmentation does, whose every step can be looked at, and whose
result can be checked: there are 24 coins, and coins are nearly round.

The coins lie in four rows. Two parts of the picture, one to learn from and one to measure with, lie above and below a
line that meets no coin.

Shape comments: G coins, H W picture size.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

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

from minircnn.datasets.coco import Target
from minircnn.datasets.coco_format import DatasetError
from minircnn.datasets.folder import boxes_around
from minircnn.datasets.splits import did_you_mean

COIN = "coin"
NUM_COINS = 24

PARTS = {"all": (0, 303), "train": (0, 150), "test": (150, 303), "first row": (0, 84), "second row": (84, 150)}
"""Parts of the picture and the rows of pixels that they have. The two rows of coins in "train" are for choosing
settings: learn from one, look at the other, and leave "test" alone."""

DARK, BRIGHT = 30, 150  # grey levels: below the first there is surely no coin, above the second surely one
SMOOTHING = 3  # pixels; what is thinner than twice this is no coin but a scratch or a fringe of its edge


@dataclass(frozen=True)
class Segmentation:
    """The steps from a picture to coins; all arrays are (H, W).

    Attributes:
        gradient: How steep the grey is; high on outlines. Floats.
        markers: 1 where there is surely no coin, 2 where there is surely one, 0 where the next step decides.
        flooded: bool: the watershed of ``gradient`` that rises from the markers.
        filled: bool: without holes inside of coins, scratches and fringes.
        labels: The coins: 1 … G in reading order, 0 elsewhere.
    """

    gradient: NDArray[np.float64]
    markers: NDArray[np.int64]
    flooded: NDArray[np.bool_]
    filled: NDArray[np.bool_]
    labels: NDArray[np.int64]


def segment_coins(picture: NDArray[np.uint8]) -> Segmentation:
    """Finds coins on a dark ground without any learning.

    The light falls unevenly: no threshold parts all coins from the ground. But two thresholds say where there surely is
    a coin and where there surely is none, and from there on two floods rise over the gradient, as if it were a
    landscape, until they meet on its ridges: the outlines (Beucher and Meyer 1993, "The morphological approach to
    segmentation: the watershed transformation").

    Args:
        picture: (H, W) grey levels.

    Raises:
        ValueError: Another shape or another kind of number.
    """
    if picture.ndim != 2 or picture.dtype != np.uint8:
        raise ValueError(f"picture must be (H, W) uint8, but is {picture.shape} {picture.dtype}; give a grey picture")
    gradient = sobel(picture.astype(np.float64) / 255)
    markers = np.where(picture < DARK, 1, np.where(picture > BRIGHT, 2, 0))
    flooded = watershed(gradient, markers) == 2
    filled = ndimage.binary_opening(ndimage.binary_fill_holes(flooded), disk(SMOOTHING))
    return Segmentation(gradient, markers, flooded, filled, _in_reading_order(label(filled)))


def _in_reading_order(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Regions numbered anew: row by row, and in each from left to right."""
    regions = ndimage.find_objects(labels)
    middles = [((rows.start + rows.stop) / 2, (columns.start + columns.stop) / 2) for rows, columns in regions]
    waiting, order = sorted(range(len(regions)), key=lambda index: middles[index]), []
    while waiting:
        # The lowest edge of the topmost region that is left bounds its row.
        floor = regions[waiting[0]][0].stop
        row = [index for index in waiting if middles[index][0] < floor]
        order += sorted(row, key=lambda index: middles[index][1])
        waiting = [index for index in waiting if index not in row]
    numbers = np.zeros(len(regions) + 1, dtype=np.int64)
    numbers[np.array(order, dtype=np.int64) + 1] = np.arange(1, len(order) + 1)
    return numbers[labels]


@lru_cache(maxsize=1)
def _masks() -> Tensor:
    """All coins of the picture: (G, H, W) bool."""
    labels = segment_coins(skimage.data.coins()).labels
    return torch.from_numpy(labels == np.arange(1, labels.max() + 1)[:, None, None])


class Coins(Dataset[tuple[Tensor, Target]]):
    """A part of the picture of coins: one ``(image, target)`` pair as of :class:`~minircnn.datasets.CocoDataset`.

    Attributes:
        part: Its name, one of :data:`PARTS`.
        classes: "background" and "coin".
        image_ids: ``[1]``.
    """

    def __init__(self, part: str = "all") -> None:
        """Choose a part; nothing is read.

        Args:
            part: One of :data:`PARTS`.

        Raises:
            DatasetError: There is no such part.
        """
        if part not in PARTS:
            raise DatasetError(
                f"part: there is no {part!r}{did_you_mean(part, list(PARTS))}; choose from {list(PARTS)}"
            )
        self.part = part
        self.classes: list[str] = ["background", COIN]
        self.image_ids: list[int] = [1]

    def __len__(self) -> int:
        """Number of pictures."""
        return 1

    def __getitem__(self, index: int) -> tuple[Tensor, Target]:
        """The picture and its coins.

        Raises:
            IndexError: Another index than 0.
        """
        return self.load_image(index), self.load_target(index)

    def image_size(self, index: int) -> tuple[int, int]:
        """(height, width) of the part."""
        return tuple(self.load_image(index).shape[1:])

    def load_image(self, index: int) -> Tensor:
        """Only the picture: (3, H, W) float32 in [0, 1], three equal channels."""
        rows = self._rows(index)
        grey = torch.from_numpy(skimage.data.coins()[rows].copy()).float() / 255  # (H, W)
        return grey.expand(3, -1, -1).contiguous()

    def load_target(self, index: int) -> Target:
        """Only the target: the coins in reading order."""
        masks = _masks()[:, self._rows(index)]
        masks = masks[masks.any(dim=2).any(dim=1)]  # (G, H, W)
        return {
            "boxes": boxes_around(masks),
            "labels": torch.ones(len(masks), dtype=torch.int64),
            "image_id": self.image_ids[index],
            "iscrowd": torch.zeros(len(masks), dtype=torch.bool),
            "area": masks.sum(dim=(1, 2)).float(),
            "masks": masks,
        }

    def _rows(self, index: int) -> slice:
        if index != 0:
            raise IndexError(f"picture {index}: there is one, number 0")
        return slice(*PARTS[self.part])
