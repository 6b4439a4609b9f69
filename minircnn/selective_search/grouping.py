"""The hierarchical grouping: how similar two regions are, and the tree that merging the most similar ones makes."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from minircnn.selective_search.regions import Regions

SIMILARITIES = ("colour", "texture", "size", "fill")


def check_similarities(names: Sequence[str]) -> None:
    """Raises a ValueError unless these are one or more of ``SIMILARITIES``."""
    if not names or not set(names) <= set(SIMILARITIES):
        raise ValueError(f"similarities must be some of {', '.join(SIMILARITIES)}, not {names!r}")


def histogram_intersection(a: NDArray, b: NDArray) -> NDArray:
    """``sum_k min(a_k, b_k)`` over the last axis: 1 for equal histograms, 0 for disjoint ones (equations 1 and 3).

    >>> float(histogram_intersection(np.array([0.5, 0.5, 0.0]), np.array([0.25, 0.25, 0.5])))
    0.5
    """
    return np.minimum(a, b).sum(axis=-1)


def size_similarity(size_a: NDArray, size_b: NDArray, image_area: float) -> NDArray:
    """``1 - (size_a + size_b) / image_area``: small regions merge first, so that none swallows the rest (equation 4).

    >>> size_similarity(30, 20, image_area=100)
    0.5
    """
    return 1 - (size_a + size_b) / image_area


def fill_similarity(size_a: NDArray, size_b: NDArray, box_a: NDArray, box_b: NDArray, image_area: float) -> NDArray:
    """``1 - (area of the box around both - size_a - size_b) / image_area``: regions should fit each other (equation 5).

    A region inside the hole of another fills it; two regions that touch at a corner leave half of their box empty.

    >>> float(fill_similarity(4, 4, np.array([0, 0, 2, 2]), np.array([2, 2, 4, 4]), image_area=100))
    0.92
    """
    size = np.maximum(box_a[..., 2:], box_b[..., 2:]) - np.minimum(box_a[..., :2], box_b[..., :2])  # (…, 2)
    return 1 - (size[..., 0] * size[..., 1] - size_a - size_b) / image_area


@dataclass(frozen=True)
class MergeTree:
    """Every region that existed while n first regions became one, in the order in which they came to be.

    Node i < n is a first region; node n + k is what the k-th merge made, k from 0. The last node is the whole picture.

    Attributes:
        labels: ``(H, W)`` int64, the first region of each pixel.
        boxes: ``(2n - 1, 4)`` float32, in pixels of ``labels``.
        sizes: ``(2n - 1,)`` int64, in pixels of ``labels``.
        children: ``(n - 1, 2)`` int64, the two nodes that each merge joined.
        similarity: ``(n - 1,)`` float32, the similarity of those two.
    """

    labels: Tensor
    boxes: Tensor
    sizes: Tensor
    children: Tensor
    similarity: Tensor

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
        """The label map when the first ``merges`` merges are done: ``(H, W)`` int64, the node of each pixel.

        Raises:
            ValueError: if there are not as many merges in the tree.
        """
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
        used = [getattr(regions, name) for name in ("colour", "texture") if name in similarities]
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
        """Node ``new`` becomes the union of a and b; no pixel is looked at again (section 3.2, equation 2)."""
        size_a, size_b = self.sizes[a], self.sizes[b]
        self.sizes[new] = size_a + size_b
        self.histograms[new] = (size_a * self.histograms[a] + size_b * self.histograms[b]) / self.sizes[new]
        self.boxes[new, :2] = np.minimum(self.boxes[a, :2], self.boxes[b, :2])
        self.boxes[new, 2:] = np.maximum(self.boxes[a, 2:], self.boxes[b, 2:])


def hierarchical_grouping(regions: Regions, similarities: Sequence[str] = SIMILARITIES) -> MergeTree:
    """Merges the two most similar neighbours, again and again, until one region is left (algorithm 1).

    The paper's set of similarities is a heap here, in which pairs stay when one of the two is gone: passing over them
    when their turn comes is cheaper than searching for them. Of equally similar pairs the one with the lowest numbers
    goes first, so that the same regions always give the same tree.

    Args:
        regions: n described regions.
        similarities: which of ``SIMILARITIES`` to add up, with equal weights.

    Raises:
        ValueError: if there is no similarity of such a name.
    """
    check_similarities(similarities)
    nodes = _Nodes(regions, similarities)
    neighbours: list[set[int]] = [set() for _ in regions.sizes]
    for a, b in regions.neighbours.tolist():
        neighbours[a].add(b)
        neighbours[b].add(a)
    first, second = regions.neighbours.T
    # heapq pops the smallest entry first, hence the minus.
    heap = list(zip((-nodes.similarity(first, second)).tolist(), first.tolist(), second.tolist(), strict=True))
    heapq.heapify(heap)
    merges: list[tuple[int, int, float]] = []
    alive = [True] * len(neighbours)
    while heap:
        negative, a, b = heapq.heappop(heap)
        if not (alive[a] and alive[b]):
            continue
        new = len(alive)
        nodes.merge(a, b, new)
        merges.append((a, b, -negative))
        alive[a] = alive[b] = False
        alive.append(True)
        around = _replace(neighbours, a, b)
        for negative, other in zip((-nodes.similarity(new, around)).tolist(), around.tolist(), strict=True):
            heapq.heappush(heap, (negative, other, new))
    return MergeTree(
        labels=torch.from_numpy(regions.labels),
        boxes=torch.from_numpy(nodes.boxes),
        sizes=torch.from_numpy(nodes.sizes).long(),
        children=torch.tensor([merge[:2] for merge in merges], dtype=torch.int64).view(-1, 2),
        similarity=torch.tensor([merge[2] for merge in merges], dtype=torch.float32),
    )


def _replace(neighbours: list[set[int]], a: int, b: int) -> NDArray:
    """Appends the neighbours of the union of a and b, makes them know it, and returns them."""
    new, around = len(neighbours), (neighbours[a] | neighbours[b]) - {a, b}
    for other in around:
        neighbours[other] -= {a, b}
        neighbours[other].add(new)
    neighbours.append(around)
    return np.array(sorted(around), dtype=np.int64)
