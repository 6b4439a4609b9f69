"""Which anchors suit the objects of a data set.

Ren et al. 2015 chose 3 sizes and 3 shapes by hand, for photographs whose shorter side has 600 pixels. For other
pictures others are better, and the boxes of the training set say which: here their sizes and their shapes are
clustered, each by itself, since a region proposal network has every size in every shape.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from minircnn.faster_rcnn import base_anchors

MOST_SHAPES = 20_000  # are clustered; of more, every second, third, … is taken


@dataclass(frozen=True)
class Anchors:
    """A suggestion for ``anchor_sizes`` and ``aspect_ratios`` of :class:`minircnn.faster_rcnn.RPNConfig`.

    Attributes:
        sizes: Square roots of areas, in pixels of the picture as the network sees it, ascending.
        ratios: Height divided by width, ascending.
        mean_iou: Of each object with the anchor that fits it best, centre on centre: nearer to 1 is better.
        covered: Which share of the objects an anchor overlaps by half or more.
    """

    sizes: tuple[float, ...]
    ratios: tuple[float, ...]
    mean_iou: float
    covered: float


def suggest_anchors(shapes: Tensor, num_sizes: int = 4, num_ratios: int = 3) -> Anchors:
    """Sizes and ratios of anchors that fit the objects of a data set, the same in every run.

    Sizes are clustered in the logarithm of the square root of the area, ratios in their own logarithm: then twice as
    large is as far as half as large. Each cluster is named by its mean.

    Args:
        shapes: (N, 2) width and height of each object, in pixels of the picture as the network sees it.
        num_sizes: How many sizes; fewer come back where the objects have fewer.
        num_ratios: How many ratios; fewer likewise.

    Raises:
        ValueError: There are no objects, or one has no width or height.

    Example:
        >>> square, tall = [16.0, 16.0], [30.0, 120.0]
        >>> suggest_anchors(torch.tensor([square, tall, tall]), num_sizes=2, num_ratios=2)
        Anchors(sizes=(16.0, 60.0), ratios=(1.0, 4.0), mean_iou=1.0, covered=1.0)
    """
    if not len(shapes) or not (shapes > 0).all() or not shapes.isfinite().all():
        raise ValueError(f"anchors need objects with a width and a height, but of {len(shapes)} not all have both")
    shapes = shapes[:: math.ceil(len(shapes) / MOST_SHAPES)].double()
    width, height = shapes.log().numpy().T  # (N,) each
    sizes = tuple(float(_two_digits(size)) for size in np.exp(_centres((width + height) / 2, num_sizes)))
    ratios = tuple(float(_two_digits(ratio)) for ratio in np.exp(_centres(height - width, num_ratios)))
    best = best_overlaps(shapes, sizes, ratios)
    return Anchors(sizes, ratios, float(best.mean()), float((best >= 0.5).double().mean()))


def best_overlaps(shapes: Tensor, sizes: Sequence[float], ratios: Sequence[float]) -> Tensor:
    """The IoU of each shape with the anchor that fits it best, centre on centre.

    Args:
        shapes: (N, 2) width and height.
        sizes: See :func:`minircnn.faster_rcnn.base_anchors`.
        ratios: See there.

    Returns:
        (N,) in (0, 1].
    """
    anchors = base_anchors(sizes, ratios).to(shapes.dtype)
    anchors = anchors[:, 2:] - anchors[:, :2]  # (A, 2)
    common = torch.minimum(anchors[:, None], shapes).prod(dim=2)  # (A, N)
    union = anchors.prod(dim=1)[:, None] + shapes.prod(dim=1) - common
    return (common / union).amax(dim=0)  # (N,)


def _centres(values: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """The means of ``count`` clusters of numbers, ascending; of fewer, where there are fewer different numbers."""
    from sklearn.cluster import KMeans  # takes a second to import

    count = min(count, len(np.unique(values.round(6))))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that clusters coincide, which the count above nearly rules out
        found = KMeans(count, n_init=10, random_state=0).fit(values[:, None])
    return np.sort(found.cluster_centers_[:, 0])


def _two_digits(value: float) -> float:
    """A number of two leading digits: a cluster's mean is not known better."""
    return round(value, 1 - math.floor(math.log10(value)))
