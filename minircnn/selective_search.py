"""Selective search: class-agnostic box proposals, made by merging regions that look alike.

Uijlings, van de Sande, Gevers and Smeulders, "Selective Search for Object Recognition", IJCV 2013; sections and
equations in this file are that paper's. R-CNN and Fast R-CNN take their proposals from it. The image falls into a few
hundred small regions (Felzenszwalb and Huttenlocher, IJCV 2004), the two most similar neighbors become one, again and
again, until one region is left, and the box around every region that ever existed is a proposal: an object of any size
has a chance to be a region at some moment. What "similar" should mean differs from image to image, so several color
spaces, scales and similarities take part.

    image → shrink → to_color_space → segment (felzenszwalb, describe_regions) → hierarchical_grouping → rank → boxes

Images, boxes and trees are tensors; the regions' features are NumPy arrays, because scikit-image and SciPy work on
those, and because a merge touches a few hundred numbers, for which a call into torch costs more than the sum.
"""

import functools
import heapq
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from skimage import color
from skimage.segmentation import felzenszwalb
from torch import Tensor
from torch.nn import functional as F

from minircnn import boxes as box_operations
from minircnn import kernels
from minircnn.cache import Cache, code_fingerprint
from minircnn.transforms import check_image

COLOR_SPACES = ("rgb", "hsv", "lab", "rgi", "hue", "intensity")
SIMILARITIES = ("color", "texture", "size", "fill")
COLOR_BINS = 25  # for each channel (section 3.2)
TEXTURE_BINS = 10  # for each channel and each of eight directions (section 3.2)


@dataclass(frozen=True)
class Pixels:
    """An image in some color space, and the histogram bin of every pixel. H W is the size after shrinking."""

    channels: NDArray  # (H, W, C) float64 in [0, 1]
    color: NDArray  # (C, H, W) integers from 0 to 24
    texture: NDArray  # (8 C, H, W) integers from 0 to 9

    @classmethod
    def of(cls, rgb: NDArray, color_space: str) -> "Pixels":
        """``(H, W, 3)`` floats in [0, 1] in the given color space, with their bins."""
        channels = to_color_space(rgb, color_space)
        return cls(channels, color_bins(channels), texture_bins(channels))


def shrink(image: Tensor, max_side: int) -> NDArray:
    """Shrink an image ``(3, H, W)`` to at most ``max_side`` pixels: ``(h, w, 3)`` float64, as scikit-image wants it."""
    image = image.detach().cpu().double()
    height, width = image.shape[1:]
    factor = max_side / max(height, width)
    if factor < 1:
        size = max(1, round(height * factor)), max(1, round(width * factor))
        # Antialiased: a bright pixel that falls between two samples must not vanish.
        image = F.interpolate(image[None], size=size, mode="bilinear", antialias=True)[0]  # (3, h, w)
    return image.clamp(0, 1).permute(1, 2, 0).contiguous().numpy()  # (h, w, 3)


def to_color_space(rgb: NDArray, name: str) -> NDArray:
    """An image in another color space, every channel scaled to [0, 1].

    Args:
        rgb: ``(H, W, 3)`` floats in [0, 1].
        name: one of ``COLOR_SPACES``. "rgi" is red and green as shares of red + green + blue, and intensity;
            "hue" and "intensity" are single channels.

    Returns:
        ``(H, W, C)`` float64.
    """
    if name == "rgb":
        return np.asarray(rgb, dtype=np.float64)
    if name in ("hsv", "hue"):
        return color.rgb2hsv(rgb)[..., : 1 if name == "hue" else 3]
    if name == "lab":  # L is in [0, 100]; a and b stay within [-128, 127]
        return np.clip((color.rgb2lab(rgb) + np.array([0, 128, 128])) / np.array([100, 255, 255]), 0, 1)
    intensity = color.rgb2gray(rgb)[..., None]
    if name == "intensity":
        return intensity
    if name != "rgi":
        raise ValueError(f"the color space must be one of {', '.join(COLOR_SPACES)}, not {name!r}")
    total = np.maximum(rgb.sum(axis=2, keepdims=True), 1e-6)  # black has no red share; call it 0
    return np.concatenate([rgb[..., :2] / total, intensity], axis=2)


def color_bins(channels: NDArray) -> NDArray:
    """The bin of every pixel in each color histogram: ``(H, W, C)`` in [0, 1] to ``(C, H, W)`` from 0 to 24."""
    return np.minimum(channels * COLOR_BINS, COLOR_BINS - 1).astype(np.int64).transpose(2, 0, 1)


def texture_bins(channels: NDArray) -> NDArray:
    """The bin of every pixel in each texture histogram: ``(H, W, C)`` in [0, 1] to ``(8 C, H, W)`` from 0 to 9.

    Gaussian derivatives with sigma 1 in eight directions (section 3.2): four are taken, and each is split into what
    rises and what falls. Ten equal bins reach from 0 to the largest response in the image.

    Paper vs code: OpenCV rotates the image and applies Scharr filters. The Gaussian derivative along a diagonal is
    ``(dx + dy) / sqrt(2)`` or ``(dx - dy) / sqrt(2)`` exactly, so nothing need be rotated.
    """
    diagonal = np.float32(0.5**0.5)
    maps = []
    for channel in np.asarray(channels, dtype=np.float32).transpose(2, 0, 1):
        dx = ndimage.gaussian_filter(channel, 1.0, order=(0, 1))
        dy = ndimage.gaussian_filter(channel, 1.0, order=(1, 0))
        for derivative in (dx, dy, (dx + dy) * diagonal, (dx - dy) * diagonal):
            for response in (np.maximum(derivative, 0), np.maximum(-derivative, 0)):
                # A flat image has rounding errors for derivatives, and they must not become its texture.
                bins_per_unit = TEXTURE_BINS / max(float(response.max()), 1e-5)
                maps.append(np.minimum(response * np.float32(bins_per_unit), TEXTURE_BINS - 1).astype(np.int64))
    return np.stack(maps)


@dataclass(frozen=True)
class Regions:
    """A segmentation and what the similarities need to know of its n regions."""

    labels: NDArray  # (H, W) integers from 0 to n - 1, every one of them used
    sizes: NDArray  # (n,) float32, pixels of each region
    boxes: NDArray  # (n, 4) float32, the smallest box around each region
    color: NDArray  # (n, 25 C) float32, the histograms of the C channels side by side; each row sums to 1
    texture: NDArray  # (n, 80 C) float32, the histograms of the derivatives side by side; each row sums to 1
    neighbors: NDArray  # (E, 2) integers, the pairs of touching regions, the smaller number first, each pair once


def segment(pixels: Pixels, scale: float, min_size: int = 20) -> Regions:
    """The first regions: Felzenszwalb's segmentation of the image, described.

    Two regions stay apart where the contrast between them exceeds that inside either by ``scale / size``: the larger
    the scale k, in colors from 0 to 255, the larger the regions. Those with fewer than ``min_size`` pixels join a
    neighbor.
    """
    labels = felzenszwalb(pixels.channels, scale=scale, sigma=0.8, min_size=min_size)  # blurred as in both papers
    return describe_regions(pixels, labels)


def describe_regions(pixels: Pixels, labels: NDArray) -> Regions:
    """Sizes, boxes, histograms and neighbors of the regions of any segmentation, ``(H, W)`` integers.

    Raises:
        ValueError: the sizes differ, or some number from 0 to n - 1 is not used.
    """
    labels = np.asarray(labels, dtype=np.int64)
    if labels.shape != pixels.channels.shape[:2]:
        raise ValueError(f"labels have size {labels.shape}, but the image has {pixels.channels.shape[:2]}")
    if labels.min() < 0 or not (sizes := np.bincount(labels.ravel())).all():
        raise ValueError("labels must use every number from 0 to the largest (skimage.segmentation.relabel_sequential)")
    slices = ndimage.find_objects(labels + 1)
    boxes = [(columns.start, rows.start, columns.stop, rows.stop) for rows, columns in slices]
    return Regions(
        labels=labels,
        sizes=sizes.astype(np.float32),
        boxes=np.array(boxes, dtype=np.float32),
        color=region_histograms(pixels.color, labels, COLOR_BINS),
        texture=region_histograms(pixels.texture, labels, TEXTURE_BINS),
        neighbors=find_neighbors(labels),
    )


def region_histograms(bins: NDArray, labels: NDArray, num_bins: int) -> NDArray:
    """Histograms of every region: ``(M, H, W)`` bins of every pixel to ``(n, M * num_bins)``, rows that sum to 1."""
    n = int(labels.max()) + 1
    first_bin = labels.ravel() * num_bins  # (H * W,) of the pixel's region
    counts = [np.bincount(first_bin + b.ravel(), minlength=n * num_bins).reshape(n, num_bins) for b in bins]
    histograms = np.concatenate(counts, axis=1).astype(np.float32)  # (n, M * num_bins)
    return histograms / histograms.sum(axis=1, keepdims=True)


def find_neighbors(labels: NDArray) -> NDArray:
    """The pairs of regions ``(H, W)`` that touch, along an edge or at a corner, in ascending order.

    Paper vs code: the paper does not say whether a corner is enough; it is in Felzenszwalb's graph, so it is here.

    >>> find_neighbors(np.array([[0, 0, 1], [2, 2, 1]])).tolist()
    [[0, 1], [0, 2], [1, 2]]
    """
    n = int(labels.max()) + 1
    side_by_side = (
        (labels[:, :-1], labels[:, 1:]),  # left and right
        (labels[:-1], labels[1:]),  # above and below
        (labels[:-1, :-1], labels[1:, 1:]),  # the two diagonals
        (labels[:-1, 1:], labels[1:, :-1]),
    )
    pairs = [(np.minimum(a, b) * n + np.maximum(a, b))[a != b] for a, b in side_by_side]  # one number for a pair
    unique = np.unique(np.concatenate(pairs))
    return np.stack([unique // n, unique % n], axis=1)


def histogram_intersection(a: NDArray, b: NDArray) -> NDArray:
    """``sum_k min(a_k, b_k)`` over the last axis: 1 for equal histograms, 0 for disjoint ones (equations 1 and 3)."""
    return np.minimum(a, b).sum(axis=-1)


def size_similarity(size_a: NDArray, size_b: NDArray, image_area: float) -> NDArray:
    """``1 - (size_a + size_b) / image_area``: small regions merge first, so that none swallows the rest (eq. 4)."""
    return 1 - (size_a + size_b) / image_area


def fill_similarity(size_a: NDArray, size_b: NDArray, box_a: NDArray, box_b: NDArray, image_area: float) -> NDArray:
    """``1 - (area of the box around both - size_a - size_b) / image_area``: regions should fit each other (eq. 5).

    A region inside the hole of another fills it; two regions that touch at a corner leave half of their box empty.
    """
    size = np.maximum(box_a[..., 2:], box_b[..., 2:]) - np.minimum(box_a[..., :2], box_b[..., :2])  # (…, 2)
    return 1 - (size[..., 0] * size[..., 1] - size_a - size_b) / image_area


@dataclass(frozen=True)
class MergeTree:
    """Every region that existed while n first regions became one, in the order in which they came to be.

    Node i < n is a first region; node n + k is what the k-th merge made, k from 0. The last node is the whole image.
    """

    labels: Tensor  # (H, W) int64, the first region of each pixel
    boxes: Tensor  # (2n - 1, 4) float32, in pixels of labels
    sizes: Tensor  # (2n - 1,) int64, in pixels of labels
    children: Tensor  # (n - 1, 2) int64, the two nodes that each merge joined
    similarity: Tensor  # (n - 1,) float32, the similarity of those two

    @property
    def num_first(self) -> int:
        """n, the number of first regions."""
        return len(self.sizes) - len(self.children)

    @property
    def parent(self) -> Tensor:
        """``(2n - 1,)`` int64: the node that each node was merged into, -1 for the last."""
        parent = torch.full((len(self.sizes),), -1)
        parent[self.children] = torch.arange(self.num_first, len(self.sizes))[:, None]
        return parent

    def labels_after(self, merges: int) -> Tensor:
        """The label map when the first ``merges`` merges are done: ``(H, W)`` int64, the node of each pixel."""
        if not 0 <= merges <= len(self.children):
            raise ValueError(f"merges must be from 0 to {len(self.children)}, not {merges}")
        node, parent = torch.arange(self.num_first), self.parent
        while True:  # climb until nobody has a parent that exists yet
            above = parent[node]
            climbs = (above >= 0) & (above < self.num_first + merges)
            if not climbs.any():
                return node[self.labels]
            node = torch.where(climbs, above, node)


class _Nodes:
    """The features of all nodes of a tree: rows 0 to n - 1 are given, the others appear as :meth:`merge` fills them."""

    def __init__(self, regions: Regions, similarities: Sequence[str]) -> None:
        n = len(regions.sizes)
        used = [getattr(regions, name) for name in ("color", "texture") if name in similarities]
        # The sum of two intersections is the intersection of the histograms side by side.
        histograms = np.concatenate(used, axis=1) if used else np.empty((n, 0), np.float32)
        room = (0, n - 1)
        self.histograms = np.pad(histograms, (room, (0, 0)))  # (2n - 1, D)
        self.boxes = np.pad(regions.boxes, (room, (0, 0)))  # (2n - 1, 4)
        self.sizes = np.pad(regions.sizes, room)  # (2n - 1,)
        self.image_area = np.float32(regions.labels.size)
        self.use_size, self.use_fill = "size" in similarities, "fill" in similarities

    def similarity(self, a: NDArray | int, b: NDArray) -> NDArray:
        """The chosen similarities added up, of node or nodes a with each of nodes b: ``(len(b),)``, equation 6."""
        total = histogram_intersection(self.histograms[a], self.histograms[b])
        if self.use_size:
            total = total + size_similarity(self.sizes[a], self.sizes[b], self.image_area)
        if self.use_fill:
            boxes = self.boxes[a], self.boxes[b]
            total = total + fill_similarity(self.sizes[a], self.sizes[b], *boxes, self.image_area)
        return total

    def merge(self, a: int, b: int, new: int) -> None:
        """Make node ``new`` the union of a and b, without looking at pixels again (section 3.2, equation 2)."""
        size_a, size_b = self.sizes[a], self.sizes[b]
        self.sizes[new] = size_a + size_b
        self.histograms[new] = (size_a * self.histograms[a] + size_b * self.histograms[b]) / self.sizes[new]
        self.boxes[new, :2] = np.minimum(self.boxes[a, :2], self.boxes[b, :2])
        self.boxes[new, 2:] = np.maximum(self.boxes[a, 2:], self.boxes[b, 2:])


def hierarchical_grouping(regions: Regions, similarities: Sequence[str] = SIMILARITIES) -> MergeTree:
    """Merge the two most similar neighbors, again and again, until one region is left (algorithm 1).

    The paper's set of similarities is a heap here, in which pairs stay when one of the two is gone: passing over them
    when their turn comes is cheaper than searching for them. Of equally similar pairs the one with the lowest numbers
    goes first, so that the same regions always give the same tree.

    Args:
        regions: n described regions.
        similarities: which of ``SIMILARITIES`` to add up, with equal weights.
    """
    _check_similarities(similarities)
    nodes = _Nodes(regions, similarities)
    neighbors: list[set[int]] = [set() for _ in regions.sizes]
    for a, b in regions.neighbors.tolist():
        neighbors[a].add(b)
        neighbors[b].add(a)
    first, second = regions.neighbors.T
    # heapq pops the smallest entry first, hence the minus.
    heap = list(zip((-nodes.similarity(first, second)).tolist(), first.tolist(), second.tolist(), strict=True))
    heapq.heapify(heap)
    merges: list[tuple[int, int, float]] = []
    alive = [True] * len(neighbors)
    while heap:
        negative, a, b = heapq.heappop(heap)
        if not (alive[a] and alive[b]):
            continue
        new = len(alive)
        nodes.merge(a, b, new)
        merges.append((a, b, -negative))
        alive[a] = alive[b] = False
        alive.append(True)
        around = _replace(neighbors, a, b)
        for negative, other in zip((-nodes.similarity(new, around)).tolist(), around.tolist(), strict=True):
            heapq.heappush(heap, (negative, other, new))
    return MergeTree(
        labels=torch.from_numpy(regions.labels),
        boxes=torch.from_numpy(nodes.boxes),
        sizes=torch.from_numpy(nodes.sizes).long(),
        children=torch.tensor([merge[:2] for merge in merges], dtype=torch.int64).view(-1, 2),
        similarity=torch.tensor([merge[2] for merge in merges], dtype=torch.float32),
    )


def _replace(neighbors: list[set[int]], a: int, b: int) -> NDArray:
    """Append the neighbors of the union of a and b, replace a and b in theirs, and return them."""
    new, around = len(neighbors), (neighbors[a] | neighbors[b]) - {a, b}
    for other in around:
        neighbors[other] -= {a, b}
        neighbors[other].add(new)
    neighbors.append(around)
    return np.array(sorted(around), dtype=np.int64)


@dataclass(frozen=True)
class Strategy:
    """One way to look at an image: first regions to start from and a notion of similarity (section 3.2).

    Paper vs code: the paper takes the images of PASCAL VOC as they are (500 pixels), R-CNN's code shrinks them to a
    width of 500. Most of the time is felzenszwalb's, which grows faster than the number of pixels; we shrink further.
    """

    color_space: str = "hsv"  # for the first regions and for the histograms
    scale: float = 100.0  # Felzenszwalb's k. The larger, the larger the first regions
    similarities: tuple[str, ...] = SIMILARITIES  # those that are added up
    min_size: int = 20  # regions with fewer pixels (of the shrunk image) join a neighbor before the grouping begins
    max_side: int = 400  # the image is shrunk until its longer side has at most this many pixels

    def __post_init__(self) -> None:
        """Validate the settings."""
        if self.color_space not in COLOR_SPACES:
            raise ValueError(f"color_space must be one of {', '.join(COLOR_SPACES)}, not {self.color_space!r}")
        _check_similarities(self.similarities)
        if not (self.scale > 0 and self.min_size >= 1 and self.max_side >= 1):
            raise ValueError(f"scale must be positive, min_size and max_side at least 1, but this is {self}")


def _check_similarities(names: Sequence[str]) -> None:
    if not names or not set(names) <= set(SIMILARITIES):
        raise ValueError(f"similarities must be some of {', '.join(SIMILARITIES)}, not {names!r}")


_NO_COLOR = ("texture", "size", "fill")
# The paper's three settings (table 5): 1, 8 and 80 strategies.
SINGLE = (Strategy("hsv", 100, SIMILARITIES),)
FAST = tuple(Strategy(c, k, s) for c in ("hsv", "lab") for k in (50, 100) for s in (SIMILARITIES, _NO_COLOR))
QUALITY = tuple(
    Strategy(c, k, s)
    for c in ("hsv", "lab", "rgi", "hue", "intensity")
    for k in (50, 100, 150, 300)
    for s in (SIMILARITIES, _NO_COLOR, ("fill",), ("size",))
)


def merge_trees(image: Tensor, strategies: Sequence[Strategy]) -> list[MergeTree]:
    """The tree of each strategy, in pixels of the shrunk image; strategies with the same first regions share them."""
    check_image(image, "image")
    if image.min() < 0 or image.max() > 1:
        raise ValueError(f"image must lie in [0, 1], but reaches from {image.min():.4g} to {image.max():.4g}")
    if not strategies:
        raise ValueError("strategies must name at least one Strategy, for example selective_search.FAST")

    @functools.cache
    def pixels(color_space: str, max_side: int) -> Pixels:
        return Pixels.of(shrink(image, max_side), color_space)

    @functools.cache
    def regions(color_space: str, max_side: int, scale: float, min_size: int) -> Regions:
        return segment(pixels(color_space, max_side), scale, min_size)

    return [
        hierarchical_grouping(regions(s.color_space, s.max_side, s.scale, s.min_size), s.similarities)
        for s in strategies
    ]


def selective_search(
    image: Tensor,
    *,
    strategies: Sequence[Strategy] = FAST,
    max_proposals: int | None = None,
    seed: int = 0,
    duplicate_iou: float = 0.8,
) -> Tensor:
    """Boxes that may hold an object, of whatever class, the more promising first.

    Every node of every strategy's tree gives a box. Node i from the top (the whole image is 1) has rank
    ``random * i``, lowest first: large regions tend to come early, and chance mixes the small ones in (section 3.3).

    Paper vs code: the paper drops boxes that are equal to an earlier one; we also drop those that are nearly so, which
    makes room among the first n for boxes that differ. OpenCV ranks from the small regions up.

    Args:
        image: ``(3, H, W)`` floats in [0, 1]; the work is done on the CPU.
        strategies: ``SINGLE``, ``FAST``, ``QUALITY`` or your own.
        max_proposals: how many boxes at most; None for all.
        seed: of the random ranks. The same image and seed give the same boxes; on another kind of processor, where
            rounding decides otherwise between nearly equal similarities, a few may differ.
        duplicate_iou: a box goes if its IoU with an earlier one is more than this; 1 for equal boxes only.

    Returns:
        ``(P, 4)`` float32 boxes inside the image, P at least 1, all different, best first.
    """
    if max_proposals is not None and max_proposals < 1:
        raise ValueError(f"max_proposals must be at least 1, or None for all, not {max_proposals}")
    if not 0 < duplicate_iou <= 1:
        raise ValueError(f"duplicate_iou must lie in (0, 1], not {duplicate_iou}")
    random = np.random.default_rng(seed)
    boxes, ranks = [], []
    for tree in merge_trees(image, strategies):
        (height, width), (h, w) = image.shape[1:], tree.labels.shape
        scaled = tree.boxes * torch.tensor([width / w, height / h, width / w, height / h])
        # 3.2 * 100 may be 320.00003 in single precision.
        boxes.append(torch.minimum(scaled, torch.tensor([width, height, width, height])))
        from_top = np.arange(len(tree.boxes), 0, -1)  # the last node is number 1
        ranks.append(torch.from_numpy(random.random(len(from_top)) * from_top))
    best_first = torch.cat(boxes)[torch.cat(ranks).argsort(stable=True)]  # (P, 4) with duplicates
    order = -torch.arange(len(best_first), dtype=torch.float32)
    # The IoU of equal boxes is exactly 1, that of boxes which differ by a pixel of a shrunk image clearly less.
    return best_first[box_operations.nms(best_first, order, min(duplicate_iou, 1 - 1e-6))[:max_proposals]]


def stored_proposals(
    samples: Sequence[tuple[Tensor, Any]],
    *,
    cache: Cache | None = None,
    strategies: Sequence[Strategy] = FAST,
    max_proposals: int | None = None,
    workers: int = 1,
) -> list[Tensor]:
    """:func:`selective_search` of every image of a data set, or what it gave the last time.

    ``samples`` are ``(image, target)`` pairs. ``cache`` keeps proposals by image, strategies, code and versions of
    packages. ``workers`` processes search side by side; -1 is one on each core.
    """
    from joblib import Parallel, delayed
    from joblib.externals.loky import get_reusable_executor

    modules = (sys.modules[__name__], box_operations, kernels)
    code = code_fingerprint(*modules, packages=("numpy", "scipy", "scikit-image", "torch"))
    cache = cache or Cache()
    # One image is sent to one worker, and only when it is its turn: a whole data set would take longer to send.
    found = Parallel(n_jobs=workers)(
        delayed(_search)(samples[i][0], cache, code, tuple(strategies)) for i in range(len(samples))
    )
    if workers != 1:  # idle workers would stay for minutes, and each would answer Ctrl-C with a traceback of its own
        get_reusable_executor().shutdown(wait=True)
    return [proposals[:max_proposals] for proposals in found]


def _search(image: Tensor, cache: Cache, code: str, strategies: tuple[Strategy, ...]) -> Tensor:
    def compute() -> dict[str, Tensor]:
        return {"boxes": selective_search(image, strategies=strategies)}

    return cache.get("proposals", (code, repr(strategies), image), compute)["boxes"]
