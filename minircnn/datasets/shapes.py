"""Which anchors suit the objects of a data set.

Ren et al. 2015 chose 3 sizes and 3 aspect ratios by hand, for photographs whose shorter side has 600 pixels. For other
images others are better, and the boxes of the training set say which: here their sizes and their aspect ratios are
taken at evenly spread quantiles, each by itself, since a region proposal network has every size in every ratio.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from minircnn.faster_rcnn import base_anchors


@dataclass(frozen=True)
class Anchors:
    """A suggestion for ``anchor_sizes`` and ``aspect_ratios`` of :class:`minircnn.faster_rcnn.RPNConfig`."""

    sizes: tuple[float, ...]  # square roots of areas, in pixels of the image as the network sees it, ascending
    ratios: tuple[float, ...]  # height divided by width, ascending
    mean_iou: float  # of each object with the anchor that fits it best, center on center: nearer to 1 is better
    covered: float  # the share of the objects that an anchor overlaps by half or more


def suggest_anchors(shapes: Tensor, num_sizes: int = 4, num_ratios: int = 3) -> Anchors:
    """Sizes and ratios of anchors that fit the objects of a data set.

    Args:
        shapes: (N, 2) width and height of each object, in pixels of the image as the network sees it.
        num_sizes: How many sizes; fewer come back where the objects have fewer.
        num_ratios: How many ratios; fewer likewise.

    Raises:
        ValueError: There are no objects, or one has no width or height.

    Example:
        >>> square, tall = [16.0, 16.0], [30.0, 120.0]
        >>> suggest_anchors(torch.tensor([square, square, tall, tall]), num_sizes=2, num_ratios=2)
        Anchors(sizes=(16.0, 60.0), ratios=(1.0, 4.0), mean_iou=1.0, covered=1.0)
    """
    if not len(shapes) or not (shapes > 0).all() or not shapes.isfinite().all():
        raise ValueError(f"anchors need objects with a width and a height, but of {len(shapes)} not all have both")
    width, height = shapes.double().numpy().T  # (N,) each
    sizes = _spread(np.sqrt(width * height), num_sizes)
    ratios = _spread(height / width, num_ratios)
    best = best_overlaps(shapes.double(), sizes, ratios)
    return Anchors(sizes, ratios, float(best.mean()), float((best >= 0.5).double().mean()))


def _spread(values: np.ndarray, count: int) -> tuple[float, ...]:
    """The middles of ``count`` equal parts of the sorted numbers, to two digits, each once."""
    middles = np.quantile(values, (np.arange(count) + 0.5) / count, method="nearest")
    return tuple(sorted({round(float(value), 1 - math.floor(math.log10(value))) for value in middles}))


def best_overlaps(shapes: Tensor, sizes: Sequence[float], ratios: Sequence[float]) -> Tensor:
    """The IoU of each shape (N, 2) with the anchor that fits it best, center on center: (N,) in (0, 1].

    Sizes and ratios are those of :func:`minircnn.faster_rcnn.base_anchors`.
    """
    anchors = base_anchors(sizes, ratios).to(shapes.dtype)
    anchors = anchors[:, 2:] - anchors[:, :2]  # (A, 2)
    common = torch.minimum(anchors[:, None], shapes).prod(dim=2)  # (A, N)
    union = anchors.prod(dim=1)[:, None] + shapes.prod(dim=1) - common
    return (common / union).amax(dim=0)  # (N,)
