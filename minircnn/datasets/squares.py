"""Many pictures out of few: random squares of them, turned and mirrored, with what they show of the objects.

Good for pictures without up and down, such as photographs from straight above or through a microscope.

Shape comments: G objects of a picture, H W its size, S side of a square.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset

from minircnn.datasets.coco import Target
from minircnn.datasets.folder import boxes_around
from minircnn.transforms import hflip


class RandomSquares(Dataset[tuple[Tensor, Target]]):
    """Squares of some pictures; which ones, depends on the seed alone, so that an index always gives the same.

    ``squares[i]`` is ``(image, target)`` as of :class:`~minircnn.datasets.CocoDataset`; ``image_id`` is i + 1. The
    pictures take turns. An object that the edge cuts stays with what is left of it, its box fitting that; of which too
    little is left to know what it is becomes a crowd: training takes it neither for an object nor for background.

    Attributes:
        samples: The ``(image, target)`` pairs that squares are taken of, with masks.
        side: S, in pixels; from a picture with a shorter side the square is as large as that.
        count: How many squares there are.
        seed: Of all that is drawn.
        least: Share of an object's pixels that has to be left, in [0, 1].
    """

    def __init__(
        self,
        samples: Sequence[tuple[Tensor, Target]],
        side: int,
        count: int,
        *,
        seed: int = 0,
        least: float = 0.3,
    ) -> None:
        """Draw nothing yet.

        Args:
            samples: Pairs with masks; they are kept as they are.
            side: See above.
            count: See above.
            seed: See above.
            least: See above.

        Raises:
            ValueError: There is no picture, or a number means nothing.
        """
        if not len(samples):
            raise ValueError("samples is empty: give at least one picture to take squares of")
        if side < 1 or count < 0 or not 0 <= least <= 1:
            raise ValueError(
                f"side must be at least 1, count at least 0 and least in [0, 1], not {side}, {count} and {least}"
            )
        self.samples, self.side, self.count, self.seed, self.least = samples, side, count, seed, least

    def __len__(self) -> int:
        """Number of squares."""
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, Target]:
        """A square and the objects in it.

        Raises:
            IndexError: There is no such square.
        """
        if not 0 <= index < self.count:
            raise IndexError(f"square {index}: there are {self.count}, counted from 0")
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + index)
        image, target = self.samples[index % len(self.samples)]
        side = min(self.side, *image.shape[1:])
        top, left = (int(torch.randint(length - side + 1, (), generator=generator)) for length in image.shape[1:])
        image, target = cut_out(image, target, (top, left, top + side, left + side), self.least)
        image, target = turn(image, target, int(torch.randint(4, (), generator=generator)))
        if torch.rand((), generator=generator) < 0.5:
            image, target = hflip(image, target)
        return image, {**target, "image_id": index + 1}


def cut_out(
    image: Tensor, target: Target, part: tuple[int, int, int, int], least: float = 0.0
) -> tuple[Tensor, Target]:
    """A part of a picture and what it shows of the objects.

    Args:
        image: (3, H, W).
        target: With masks.
        part: First row and column, and those behind the last.
        least: Of objects with a smaller share of their pixels in the part than this, what is left counts as a crowd.

    Returns:
        A view of the picture and a new target. Objects without a pixel in the part are gone; boxes and areas are those
        of the remaining pixels.
    """
    top, left, bottom, right = part
    masks = target["masks"][:, top:bottom, left:right]  # (G, h, w)
    pixels, before = masks.sum(dim=(1, 2)), target["masks"].sum(dim=(1, 2))  # (G,)
    seen = pixels > 0
    kept = {name: value[seen] for name, value in target.items() if isinstance(value, Tensor)}
    kept["masks"] = masks[seen]
    kept["boxes"], kept["area"] = boxes_around(kept["masks"]), pixels[seen].float()
    kept["iscrowd"] = kept["iscrowd"] | (pixels[seen] < least * before[seen])
    return image[:, top:bottom, left:right], {**target, **kept}


def turn(image: Tensor, target: Target, quarters: int) -> tuple[Tensor, Target]:
    """A picture and its objects, turned counterclockwise by so many times 90°.

    Args:
        image: (3, H, W).
        target: With masks.
        quarters: Any whole number.

    Returns:
        A new picture, (3, W, H) where ``quarters`` is odd, and a new target.
    """
    masks = torch.rot90(target["masks"], quarters, dims=(1, 2))
    return torch.rot90(image, quarters, dims=(1, 2)), {**target, "masks": masks, "boxes": boxes_around(masks)}
