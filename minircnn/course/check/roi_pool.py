"""The exercises of notebook 05: a region's cells, its bins, RoIPool for one region and for a batch, its gradient."""

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import roi_pool as _torchvision_pool

from minircnn import pooling as ours
from minircnn.course.check.judge import Ask, NotYet, exercise, hint


def whole(value: float) -> int:
    """The nearest whole number, halves away from zero, as C rounds."""
    return int(math.copysign(math.floor(abs(value) + 0.5), value))


def _pooled_cells(start: float, end: float, stride: float) -> tuple[int, int]:
    return whole(start / stride), whole(end / stride)


@exercise(_pooled_cells)
def pooled_cells(ask: Ask) -> str:
    """First and last cell of a region along one axis."""
    slips = """
        whole => round !! Python's round takes 2.5 to the even number, 2; here halves go away from zero
        whole => math.floor !! it rounds down; an edge goes to the nearest cell
        whole(start / stride), whole( => math.floor(start / stride), math.ceil(
            !! it rounds outwards; only bins are rounded so, an edge goes to the nearest cell
        whole(end / stride) => whole(end / stride) - 1 !! the last cell is one too few: the end's cell counts in
        whole(end / stride) => whole(end / stride) + 1 !! the last cell is one too many: return the last itself
        / stride => !! those are pixels; divide the edges by the stride
        whole( => math.floor(0.5 + !! -0.5 becomes 0; halves go away from zero, to -1
    """
    cases = [(20, 60, 8), (17, 30, 8), (19, 30, 8), (12, 44, 8), (13.0, 50.0, 8), (40, 41, 16), (-4.0, 20.0, 8)]
    ask.cases(cases, slips, "for pixels {0:g} to {1:g} at stride {2}")
    for cell in ask(13.0, 50.0, 8):
        if not isinstance(cell, (int, np.integer)):
            raise NotYet(f"cells are whole numbers, to index with; it returns a {type(cell).__name__}: use int(…)")
    ruler = torch.stack([-torch.arange(16.0), torch.arange(16.0)])[None, :, None]  # (1, 2, 1, 16)

    def right(start: float, end: float, stride: float) -> tuple[int, int]:
        first, last = _torchvision_pool(ruler, torch.tensor([[0.0, start, 0.0, end, 0.0]]), 1, 1 / stride).flatten()
        return -int(first), int(last)

    edges = np.random.RandomState(0).randint(0, 60, (200, 2)).cumsum(axis=1).astype(float).tolist()
    ask.cases([(*pair, 8) for pair in edges], what="for pixels {0:g} to {1:g} at stride {2}", right=right)
    return "the cells that torchvision's roi_pool takes, for 200 regions"


def _bins(first: int, last: int, n: int, size: int) -> list[tuple[int, int]]:
    cells, found = last - first + 1, []
    for k in range(n):
        start, end = first + math.floor(k * cells / n), first + math.ceil((k + 1) * cells / n)
        found.append((min(max(start, 0), size), min(max(end, 0), size)))
    return found


@exercise(_bins)
def bins(ask: Ask) -> str:
    """The bins of a region along one axis."""
    slips = """
        last - first + 1 => last - first !! the last cell counts in: from first to last there are last - first + 1 cells
        math.ceil => math.floor !! bins end too early: an end is rounded up, so that neighbors may share a cell
        math.floor => math.ceil !! bins start too late: a start is rounded down, so that neighbors may share a cell
        math.floor(k * cells / n), first + math.ceil( => round(k * cells / n), first + round(
            !! bins are rounded to the nearest cell; round outwards: starts down, ends up
        first + math => math !! bins are counted from the region's first cell; add first to get cells of the map
        end, 0), size) => end, 0), size) - 1 !! an end is the cell before which the bin ends, not its last cell
    """
    inside = [(2, 6, 2, 8), (1, 5, 2, 7), (3, 13, 3, 16), (0, 5, 6, 16), (4, 4, 3, 16), (3, 9, 5, 12)]
    ask.cases(inside, slips, "for cells {0} to {1}, {2} bins")
    slips = "(min(max(start, 0), size), min(max(end, 0), size)) => (start, end) !! cells beyond the map do not exist"
    beyond = [(-3, 4, 2, 7), (5, 9, 3, 7), (9, 12, 2, 7)]
    many = [(first, first + more, n, 16) for first in range(8) for more in range(10) for n in (1, 2, 3, 6, 7)]
    ask.cases([*beyond, *many], slips, "for cells {0} to {1} of {3}, {2} bins")
    return "the bins of 400 regions"


def _pool_region(features: Tensor, box: Tensor, n: int, stride: float) -> Tensor:
    rois = torch.cat([box.new_zeros(1), box])[None]
    return _torchvision_pool(features[None], rois, n, 1 / stride)[0]


def _cells(box: Tensor, n: int, stride: float, size: tuple[int, int]) -> Iterator[tuple[int, int, slice, slice]]:
    """The rows and columns of a map that fall into each bin (i, j), of those that have any."""
    edges = zip(box[[1, 0]].tolist(), box[[3, 2]].tolist(), size, strict=True)
    rows, columns = ([slice(*one) for one in _bins(*_pooled_cells(*ends, stride), n, side)] for *ends, side in edges)
    for i, j in np.ndindex(n, n):
        if rows[i].start < rows[i].stop and columns[j].start < columns[j].stop:
            yield i, j, rows[i], columns[j]


def _region_by_hand(features: Tensor, box: Tensor, n: int, stride: float) -> Tensor:
    pooled = features.new_zeros(len(features), n, n)
    for i, j, rows, columns in _cells(box, n, stride, features.shape[1:]):
        pooled[:, i, j] = features[:, rows, columns].flatten(1).max(dim=1).values
    return pooled


def random_regions(count: int, seed: int, low: float = 0.0, high: float = 100.0) -> Tensor:
    """Regions ``(count, 4)`` in whole pixels, x1 ≤ x2 and y1 ≤ y2."""
    corners = np.random.RandomState(seed).uniform(low, high, (count, 2, 2)).round()
    return torch.from_numpy(np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)).float()


def random_map(*shape: int, seed: int = 0) -> Tensor:
    """Values of a normal distribution, the same for a seed on every machine."""
    return torch.from_numpy(np.random.RandomState(seed).normal(size=shape)).float()


@exercise(_pool_region, _region_by_hand)
def pool_region(ask: Ask) -> str:
    """RoIPool for one region."""
    features = random_map(3, 12, 15)
    slips = """
        pooled[:, i, j] => pooled[:, j, i] !! rows and columns of the result are exchanged: [:, i, j] is row i, column j
        (box, n => (box[[1, 0, 3, 2]], n !! x and y are exchanged: x1 and x2 choose columns
        .max(dim=1).values => .mean(dim=1) !! it takes the mean of a bin; take the maximum
        .max(dim=1).values => .max() !! it takes one maximum over all channels; each has its own
        .max(dim=1).values => [:, 0] !! it takes the first cell of each bin; take the maximum
    """
    cases = [(features, box, 3, 8) for box in random_regions(6, seed=1, high=90)]
    ask.cases(cases, slips, "for a region inside of the map")
    beyond = torch.tensor([100.0, 60.0, 150.0, 130.0])  # the map ends at pixels 120 and 96
    slips = "features.new_zeros( => -torch.inf + torch.zeros( !! not an infinite one"
    with hint("a bin beyond the map has no cells, and no maximum; its value is 0:"):
        ask.cases([(features, beyond, 3, 8)], slips)
    cases = [(features, box, 6, 8) for box in random_regions(60, seed=2, low=-20, high=140)]
    ask.cases(cases, what="for the region {1}")
    return "equal to torchvision's roi_pool for 67 regions, some beyond the map"


def _one_by_one(features: Tensor, rois: Tensor, n: int, scale: float) -> Tensor:
    return torch.stack([_pool_region(features[int(roi[0])], roi[1:], n, 1 / scale) for roi in rois])


@exercise(ours.roi_pool, _one_by_one)
def roi_pool(ask: Ask) -> str:
    """RoIPool for the regions of a batch."""
    features, boxes = random_map(2, 3, 12, 12, seed=3), random_regions(8, seed=4)
    rois = torch.cat([torch.tensor([1.0, 0, 0, 1, 1, 0, 1, 0])[:, None], boxes], dim=1)

    slips = """
        int(roi[0]) => 0 !! it always looks at the first image; column 0 of rois is the number of the image
        in rois => in rois[rois[:, 0].argsort(stable=True)] !! results must be in the order of the rows of rois
        roi[1:] => roi[:4] !! it takes columns 0 to 3 as the box; column 0 is the image, the box follows
        1 / scale => scale !! scale is 1 / stride: you divide by it where you should multiply
    """
    ask.cases([(features, rois, 4, 1 / 8)], slips, "for 8 regions of 2 images", right=_torchvision_pool)
    with hint("for no regions the result has shape (0, 3, 4, 4);"):
        ask.cases([(features, torch.zeros(0, 5), 4, 1 / 8)])
    needs = random_map(1, 2, 6, 6, seed=5).requires_grad_()
    if not ask(needs, torch.tensor([[0.0, 3.0, 3.0, 40.0, 40.0]]), 2, 1 / 8).requires_grad:
        raise NotYet("no gradient comes through it: do not detach, nor go through numbers or numpy")
    boxes = random_regions(100, seed=6, low=-10, high=110)
    rois = torch.cat([torch.arange(100.0)[:, None] % 2, boxes], dim=1)
    ask.cases([(features, rois, 6, 1 / 8)], what="for 100 regions", right=_torchvision_pool)
    return "equal to torchvision's for 108 regions of two images"


def _pool_gradient(gradient: Tensor, features: Tensor, box: Tensor, n: int, stride: float) -> Tensor:
    leaf = features[None].clone().requires_grad_()
    rois = torch.cat([box.new_zeros(1), box])[None]
    _torchvision_pool(leaf, rois, n, 1 / stride).backward(gradient[None])
    return leaf.grad[0]


def _gradient_by_hand(gradient: Tensor, features: Tensor, box: Tensor, n: int, stride: float) -> Tensor:
    back = torch.zeros_like(features)
    for i, j, rows, columns in _cells(box, n, stride, features.shape[1:]):
        for c, cells in enumerate(features[:, rows, columns]):
            row, column = divmod(int(cells.argmax()), cells.shape[1])
            back[c, rows, columns][row, column] += gradient[c, i, j]
    return back


@exercise(_pool_gradient, _gradient_by_hand)
def pool_gradient(ask: Ask) -> str:
    """The gradient of RoIPool at the feature map."""
    slips = """
        += gradient => = gradient !! a cell that is the maximum of several bins gets the sum: add, do not overwrite
        [row, column] => [:] !! every cell of a bin gets the gradient; only the largest one of each channel does
        [row, column] += gradient[c, i, j] => [:] += gradient[c, i, j] / cells.numel()
            !! the gradient is spread over the bin, as for a mean; all of it goes to the largest cell
        += gradient[c, i, j] => += 1 !! it counts how often a cell is the maximum; add up the gradients of those bins
        += gradient[c, i, j] => += 0 !! it returns zeros: the gradient of each bin belongs to the place of its maximum
    """
    features = random_map(2, 9, 11, seed=7)
    boxes = random_regions(4, seed=8, high=70)
    cases = [(random_map(2, 3, 3, seed=9 + k), features, box, 3, 8) for k, box in enumerate(boxes)]
    ask.cases(cases, slips, "for random values")
    flat = [(case[0], features.relu().round(), *case[2:]) for case in cases]
    slips = """
        cells.argmax() => cells.numel() - 1 - cells.flatten().flip(0).argmax()
            !! of equal cells the first one gets the gradient, row by row; yours is the last
        [row, column] += => [:] += (cells == cells.max()) * !! only the first of equal cells gets the gradient, not all
    """
    ask.cases(flat, slips, "for a map with many equal values")
    boxes = random_regions(30, seed=20, low=-20, high=110)
    cases = [(random_map(2, 3, 3, seed=30 + k), features, box, 3, 8) for k, box in enumerate(boxes)]
    ask.cases(cases, what="for a region that reaches beyond the map")
    return "equal to torchvision's gradient for 38 regions"


def _windows(values: Tensor, k: int, maximum: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    length = 1
    while length < k:
        step = min(length, k - length)
        values = maximum(values[:-step], values[step:])
        length += step
    return values


@exercise(_windows)
def windows(ask: Ask) -> str:
    """The largest value of every window of k neighbors, with few maxima."""
    slips = """
        step = min(length, k - length) => step = length !! windows only double; the last step may be shorter
        length = 1 => return values !! it returns the values themselves
        length = 1 => length, k = 1, k - 1 !! the windows have k - 1 values, one too few
        length = 1 => length, k = 1, k + 1 !! the windows have k + 1 values, one too many
    """
    values, calls = random_map(40, seed=40), []

    def maximum(a: Tensor, b: Tensor) -> Tensor:
        calls.append(1)
        return torch.maximum(a, b)

    sizes = (1, 2, 3, 4, 5, 8, 13, 31, 40)
    cases = [(values, k, maximum) for k in sizes]
    ask.cases(cases, slips, "for windows of {1}", right=lambda v, k, _: v.unfold(0, k, 1).amax(dim=1), rtol=0, atol=0)
    for k in sizes:
        calls.clear()
        ask(values, k, maximum)
        if len(calls) > (enough := (k - 1).bit_length()):
            raise NotYet(f"the values are right, but for k = {k} it calls maximum {len(calls)} times; {enough} suffice")
        if not calls and k > 1:
            raise NotYet("the values are right, but it does not call the function maximum, whose calls are counted")
    return "equal to the maxima of windows of 9 lengths, with the fewest calls"
