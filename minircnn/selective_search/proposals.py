"""Strategies, and the proposals that several of them find together."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from minircnn.boxes import nms
from minircnn.selective_search.grouping import SIMILARITIES, MergeTree, check_similarities, hierarchical_grouping
from minircnn.selective_search.regions import COLOUR_SPACES, Pixels, Regions, segment, shrink


@dataclass(frozen=True)
class Strategy:
    """One way to look at a picture: first regions to start from and a notion of similarity (section 3.2).

    Attributes:
        colour_space: one of ``COLOUR_SPACES``, for the first regions and for the histograms.
        scale: felzenszwalb's k. The larger, the larger the first regions.
        similarities: which of ``SIMILARITIES`` are added up.
        min_size: regions with fewer pixels (of the shrunk picture) join a neighbour before the grouping begins.
        max_side: the picture is shrunk until its longer side has at most this many pixels. Paper vs code: the paper
            takes the pictures of PASCAL VOC as they are (500 pixels), R-CNN's code shrinks them to a width of 500. Most
            of the time is felzenszwalb's, which grows faster than the number of pixels, so we shrink further.
    """

    colour_space: str = "hsv"
    scale: float = 100.0
    similarities: tuple[str, ...] = SIMILARITIES
    min_size: int = 20
    max_side: int = 400

    def __post_init__(self) -> None:
        """Refuses names and numbers that mean nothing."""
        if self.colour_space not in COLOUR_SPACES:
            raise ValueError(f"colour_space must be one of {', '.join(COLOUR_SPACES)}, not {self.colour_space!r}")
        check_similarities(self.similarities)
        if not (self.scale > 0 and self.min_size >= 1 and self.max_side >= 1):
            raise ValueError(f"scale must be positive, min_size and max_side at least 1, but this is {self}")


_NO_COLOUR = ("texture", "size", "fill")
# The paper's three settings (table 5): 1, 8 and 80 strategies.
SINGLE = (Strategy("hsv", 100, SIMILARITIES),)
FAST = tuple(Strategy(c, k, s) for c in ("hsv", "lab") for k in (50, 100) for s in (SIMILARITIES, _NO_COLOUR))
QUALITY = tuple(
    Strategy(c, k, s)
    for c in ("hsv", "lab", "rgi", "hue", "intensity")
    for k in (50, 100, 150, 300)
    for s in (SIMILARITIES, _NO_COLOUR, ("fill",), ("size",))
)


def merge_trees(image: Tensor, strategies: Sequence[Strategy]) -> list[MergeTree]:
    """The tree of each strategy. Strategies that start from the same regions share the work of finding them.

    Args:
        image: ``(3, H, W)`` float tensor in [0, 1].
        strategies: one or more.

    Returns:
        One tree for each strategy, in pixels of the picture shrunk to that strategy's ``max_side``.

    Raises:
        TypeError: if the picture is not a float tensor.
        ValueError: if its shape or its values do not fit, or there are no strategies.
    """
    _check_image(image)
    if not strategies:
        raise ValueError("strategies must name at least one Strategy, for example selective_search.FAST")
    pixels: dict[tuple[str, int], Pixels] = {}
    regions: dict[tuple[str, int, float, int], Regions] = {}
    trees = []
    for strategy in strategies:
        view = strategy.colour_space, strategy.max_side
        if view not in pixels:
            pixels[view] = Pixels.of(shrink(image, strategy.max_side), strategy.colour_space)
        start = (*view, strategy.scale, strategy.min_size)
        if start not in regions:
            regions[start] = segment(pixels[view], strategy.scale, strategy.min_size)
        trees.append(hierarchical_grouping(regions[start], strategy.similarities))
    return trees


def selective_search(
    image: Tensor,
    *,
    strategies: Sequence[Strategy] = FAST,
    max_proposals: int | None = None,
    seed: int = 0,
    duplicate_iou: float = 0.8,
) -> Tensor:
    """Boxes that may hold an object, of whatever class, the more promising first.

    Every node of every strategy's tree gives a box. Node i from the top (the whole picture is 1) has rank
    ``random * i``, lowest first: large regions tend to come early, and chance mixes the small ones in (section 3.3).

    Paper vs code: the paper drops boxes that are equal to an earlier one; we also drop those that are nearly so, which
    makes room among the first n for boxes that differ (``duplicate_iou=1`` gives the paper's list). OpenCV ranks from
    the small regions up.

    Args:
        image: ``(3, H, W)`` float tensor in [0, 1], on the CPU or not; the work is done on the CPU.
        strategies: ``SINGLE``, ``FAST``, ``QUALITY`` or your own.
        max_proposals: how many boxes at most; None for all.
        seed: of the random ranks. The same picture and seed give the same boxes; on another kind of processor, where
            rounding decides otherwise between nearly equal similarities, a few may differ.
        duplicate_iou: a box goes if its IoU with an earlier one is more than this, or if it equals an earlier one.

    Returns:
        ``(P, 4)`` float32 boxes inside the picture, P at least 1, all different, best first.

    Raises:
        TypeError: if the picture is not a float tensor.
        ValueError: if its shape or its values do not fit, or another argument is out of its range.
    """
    if max_proposals is not None and max_proposals < 1:
        raise ValueError(f"max_proposals must be at least 1, or None for all, not {max_proposals}")
    if not 0 < duplicate_iou <= 1:
        raise ValueError(f"duplicate_iou must lie in (0, 1], not {duplicate_iou}")
    random = np.random.default_rng(seed)
    boxes, ranks = [], []
    for tree in merge_trees(image, strategies):
        boxes.append(_to_picture(tree, image.shape[1:]))
        from_top = np.arange(len(tree.boxes), 0, -1)  # the last node is number 1
        ranks.append(torch.from_numpy(random.random(len(from_top)) * from_top))
    best_first = torch.cat(boxes)[torch.cat(ranks).argsort(stable=True)]  # (P, 4) with duplicates
    return _without_duplicates(best_first, duplicate_iou)[:max_proposals]


def _to_picture(tree: MergeTree, size: tuple[int, int]) -> Tensor:
    """The tree's boxes in pixels of the picture of the given (height, width): ``(2n - 1, 4)``."""
    (height, width), (h, w) = size, tree.labels.shape
    scale = torch.tensor([width / w, height / h, width / w, height / h])
    # 3.2 * 100 may be 320.00003 in single precision.
    return torch.minimum(tree.boxes * scale, torch.tensor([width, height, width, height]))


def _without_duplicates(boxes: Tensor, iou_threshold: float) -> Tensor:
    """Boxes, best first, without those that equal or nearly equal an earlier one."""
    _, group = boxes.unique(dim=0, return_inverse=True)  # equal boxes have equal numbers
    order = group.argsort(stable=True)  # equal boxes side by side, the earliest first
    starts = torch.ones(len(boxes), dtype=torch.bool)
    starts[1:] = group[order][1:] != group[order][:-1]
    boxes = boxes[order[starts].sort().values]
    if iou_threshold < 1:
        boxes = boxes[nms(boxes, -torch.arange(len(boxes), dtype=torch.float32), iou_threshold)]
    return boxes


def _check_image(image: Tensor) -> None:
    if not isinstance(image, Tensor) or not image.is_floating_point():
        kind = image.dtype if isinstance(image, Tensor) else type(image).__name__
        raise TypeError(f"image must be a float tensor with values in [0, 1], but is {kind}; divide bytes by 255")
    if image.dim() != 3 or image.shape[0] != 3 or not image.numel():
        raise ValueError(f"image must have shape (3, H, W) with H and W at least 1, but has {tuple(image.shape)}")
    if not image.isfinite().all():
        raise ValueError("image holds nan or infinity; every value must be a number in [0, 1]")
    if image.min() < 0 or image.max() > 1:
        raise ValueError(f"image must lie in [0, 1], but reaches from {image.min():.4g} to {image.max():.4g}")
