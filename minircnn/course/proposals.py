"""What notebook 02 looks at and compares with: annotated photographs, and proposals that never see the image."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from skimage import data
from skimage.segmentation import felzenszwalb
from torch import Tensor

from minircnn import selective_search as ss
from minircnn.course.stopwatch import Stopwatch

ANNOTATIONS: dict[str, dict[str, list[int]]] = {
    "coffee": {
        "saucer": [76, 68, 480, 388],
        "cup": [172, 18, 410, 308],
        "spoon": [326, 66, 425, 327],
        "coffee": [203, 94, 371, 194],
    },
    "chelsea": {
        "cat": [0, 0, 402, 300],
        "eye": [135, 86, 208, 147],
        "other eye": [294, 110, 343, 164],
        "nose": [238, 227, 292, 266],
    },
    "rocket": {
        "rocket": [308, 126, 337, 408],
        "tower": [0, 0, 90, 427],
        "far tower": [164, 122, 206, 427],
        "last tower": [559, 0, 640, 427],
    },
    "astronaut": {
        "person": [19, 14, 363, 512],
        "helmet": [277, 343, 512, 512],
        "model": [354, 0, 473, 290],
        "flag": [0, 0, 97, 512],
        "badge": [133, 346, 210, 423],
    },
}
"""Boxes of the objects in four photographs of scikit-image, drawn by hand, good to a pixel or two."""


def photograph(name: str) -> Tensor:
    """One of the photographs that come with scikit-image, ``(3, H, W)`` in [0, 1]."""
    return torch.from_numpy(getattr(data, name)()).permute(2, 0, 1) / 255


def annotation(name: str) -> dict[str, Tensor]:
    """The objects of a photograph as a target, each of a class of its own: "boxes" ``(G, 4)`` and "labels" ``(G,)``."""
    boxes = torch.tensor(list(ANNOTATIONS[name].values())).float()
    return {"boxes": boxes, "labels": torch.arange(1, len(boxes) + 1)}


def random_windows(count: int, size: int, generator: torch.Generator) -> Tensor:
    """Boxes with random corners in a square image, ``(count, 4)``."""
    corners = torch.rand(count, 2, 2, generator=generator).sort(dim=1).values  # (count, 2 corners, x and y)
    return (corners * size).flatten(1)


def sliding_windows(size: int, generator: torch.Generator) -> Tensor:
    """Five sizes, three aspect ratios, at steps of a quarter of the size, in random order: ``(P, 4)``."""
    windows = []
    for side in (24, 34, 48, 68, 96):
        for ratio in (0.5, 1.0, 2.0):
            w, h = side * ratio**0.5, side / ratio**0.5
            for y in np.arange(0, size - h + 1e-6, side / 4):
                windows += [[x, y, x + w, y + h] for x in np.arange(0, size - w + 1e-6, side / 4)]
    return torch.tensor(windows).float()[torch.randperm(len(windows), generator=generator)]


def search_seconds(image: Tensor, rank: Callable[[list[ss.MergeTree], int], Any]) -> dict[str, float]:
    """Seconds of each stage of selective search with its eight fast strategies; ``rank`` orders the boxes of trees."""
    small, trees, clock = ss.shrink(image, max_side=400), [], Stopwatch()
    for space in ("hsv", "lab"):
        with clock("color spaces and bins"):
            pixels = ss.Pixels.of(small, space)
        for k in (50, 100):
            with clock("Felzenszwalb"):
                labels = felzenszwalb(pixels.channels, scale=k, sigma=0.8, min_size=20)
            with clock("describing"):
                regions = ss.describe_regions(pixels, labels)
            with clock("grouping"):
                kinds = (ss.SIMILARITIES, ("texture", "size", "fill"))
                trees += [ss.hierarchical_grouping(regions, similarities) for similarities in kinds]
    with clock("ranking"):
        rank(trees, 0)
    return clock.totals()
