"""The exercises of notebook 05: a region's cells, its bins, RoIPool for one region and for a batch, its gradient."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import roi_pool as _torchvision_pool

from minircnn import pooling as ours
from minircnn.course.check.judge import Ask, NotYet, altered, exercise, refuse_type

# ------------------------------------------------------------------------------ which cells, which bins


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
        whole => math.ceil !! it rounds up; an edge goes to the nearest cell
        whole(start / stride), whole( => math.floor(start / stride), math.ceil(
            !! it rounds outwards; only bins are rounded so, an edge goes to the nearest cell
        whole(end / stride) => whole(end / stride) - 1
            !! the last cell is one too few: the cell to which the end is rounded counts in
        whole(end / stride) => whole(end / stride) + 1
            !! the last cell is one too many: return the last cell itself, not the one behind it
        / stride => !! those are pixels; divide the edges by the stride
        whole( => math.floor(0.5 + !! -0.5 becomes 0; halves go away from zero, to -1
        whole => float !! it returns edges that are not rounded
    """
    cases = [(20, 60, 8), (17, 30, 8), (19, 30, 8), (12, 44, 8), (13.0, 50.0, 8), (40, 41, 16), (-4.0, 20.0, 8)]
    ask.cases(cases, slips, "for pixels {0:g} to {1:g} at stride {2}")
    for cell in ask(13.0, 50.0, 8):
        if not isinstance(cell, (int, np.integer)):
            raise NotYet(f"cells are whole numbers, to index with; it returns a {type(cell).__name__}: use int(…)")
    ruler = torch.stack([-torch.arange(16.0), torch.arange(16.0)])[None, :, None]  # (1, 2, 1, 16)
    for start, width in np.random.RandomState(0).randint(0, 60, (200, 2)):
        edges = float(start), float(start + width)
        seen = _torchvision_pool(ruler, torch.tensor([[0.0, edges[0], 0.0, edges[1], 0.0]]), 1, 1 / 8).flatten()
        case = f"for pixels {edges[0]:g} to {edges[1]:g} at stride 8"
        ask.compare(*edges, 8, wanted=(-int(seen[0]), int(seen[1])), case=case)
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
        math.floor(k * cells / n), first + math.ceil( => math.ceil(k * cells / n), first + math.floor(
            !! bins are rounded inwards; round outwards: starts down, ends up
        math.floor(k * cells / n), first + math.ceil( => round(k * cells / n), first + round(
            !! bins are rounded to the nearest cell; round outwards: starts down, ends up
        first + math => math !! bins are counted from the region's first cell; add first to get cells of the map
        min(max(end, 0), size) => min(max(end, 0), size) - 1
            !! an end is the cell before which the bin ends, not its last cell
        min(max(end, 0), size) => min(max(end, 0), size) - start
            !! it returns start and length of each bin; wanted are start and end
    """
    inside = [(2, 6, 2, 8), (1, 5, 2, 7), (3, 13, 3, 16), (0, 5, 6, 16), (4, 4, 3, 16), (3, 9, 5, 12)]
    ask.cases(inside, slips, "for cells {0} to {1}, {2} bins")
    slips = """
        (min(max(start, 0), size), min(max(end, 0), size)) => (start, end)
            !! cells beyond the map do not exist: limit starts and ends to 0 and size
    """
    beyond = [(-3, 4, 2, 7), (5, 9, 3, 7), (9, 12, 2, 7)]
    many = [(first, first + more, n, 16) for first in range(8) for more in range(10) for n in (1, 2, 3, 6, 7)]
    ask.cases([*beyond, *many], slips, "for cells {0} to {1} of {3}, {2} bins")
    return "the bins of 400 regions"


# ------------------------------------------------------------------------------ one region, all regions


def _pool_region(features: Tensor, box: Tensor, n: int, stride: float) -> Tensor:
    rois = torch.cat([box.new_zeros(1), box])[None]
    return _torchvision_pool(features[None], rois, n, 1 / stride)[0]


def _region_by_hand(features: Tensor, box: Tensor, n: int, stride: float) -> Tensor:
    x1, y1, x2, y2 = box.tolist()
    rows = _bins(*_pooled_cells(y1, y2, stride), n, features.shape[1])
    columns = _bins(*_pooled_cells(x1, x2, stride), n, features.shape[2])
    pooled = features.new_zeros(len(features), n, n)
    for i, j in np.ndindex(n, n):
        (top, bottom), (left, right) = rows[i], columns[j]
        if top < bottom and left < right:
            pooled[:, i, j] = features[:, top:bottom, left:right].flatten(1).max(dim=1).values
    return pooled


def random_regions(count: int, seed: int, low: float = 0.0, high: float = 100.0) -> Tensor:
    """Regions ``(count, 4)`` in whole pixels, x1 ≤ x2 and y1 ≤ y2."""
    corners = np.random.RandomState(seed).uniform(low, high, (count, 2, 2)).round()
    return torch.from_numpy(np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)).float()


def random_map(*shape: int, seed: int = 0) -> Tensor:
    """Values of a normal distribution, the same for a seed on every machine."""
    return torch.from_numpy(np.random.RandomState(seed).normal(size=shape)).float()


@exercise(_pool_region)
def pool_region(ask: Ask) -> str:
    """RoIPool for one region."""
    features = random_map(3, 12, 15)
    slips = """
        pooled[:, i, j] => pooled[:, j, i]
            !! rows and columns of the result are exchanged: [:, i, j] is row i, column j
        x1, y1, x2, y2 => y1, x1, y2, x2 !! x and y are exchanged: x1 and x2 choose columns
        .max(dim=1).values => .mean(dim=1) !! it takes the mean of a bin; take the maximum
        .max(dim=1).values => .max() !! it takes one maximum over all channels; each has its own
        .max(dim=1).values => [:, 0] !! it takes the first cell of each bin; take the maximum
    """
    cases = [(features, box, 3, 8) for box in random_regions(6, seed=1, high=90)]
    ask.cases(cases, what="for a region inside of the map", also=altered(_region_by_hand, slips))
    beyond = torch.tensor([100.0, 60.0, 150.0, 130.0])  # the map ends at pixels 120 and 96
    try:
        value = ask(features, beyond, 3, 8)
    except NotYet as error:
        text = "a bin beyond the map has no cells, and no maximum; its value is 0"
        raise NotYet(f"{text} ({error})") from error
    refuse_type(value, features)
    if value.isinf().any():
        raise NotYet("a bin beyond the map has no cells; its value is 0, not an infinite one")
    for number, box in enumerate([beyond, *random_regions(60, seed=2, low=-20, high=140)]):
        case = features, box, 6 if number else 3, 8
        ask.compare(*case, wanted=_pool_region(*case), case=f"for the region {box.int().tolist()}")
    return "equal to torchvision's roi_pool for 67 regions, some beyond the map"


@exercise(ours.roi_pool)
def roi_pool(ask: Ask) -> str:
    """RoIPool for the regions of a batch."""
    features, boxes = random_map(2, 3, 12, 12, seed=3), random_regions(8, seed=4)
    rois = torch.cat([torch.tensor([1.0, 0, 0, 1, 1, 0, 1, 0])[:, None], boxes], dim=1)

    slips = {
        "it always looks at the first image; column 0 of rois is the number of the image": lambda f, r, n, s: (
            _torchvision_pool(f, r * torch.tensor([0.0, 1, 1, 1, 1]), n, s)
        ),
        "the regions come in another order: one result for each row of rois, in their order": lambda f, r, n, s: (
            _torchvision_pool(f, r[r[:, 0].argsort(stable=True)], n, s)
        ),
        "it takes columns 0 to 3 as the box; column 0 is the image, the box follows": lambda f, r, n, s: (
            _torchvision_pool(f, r[:, [0, 0, 1, 2, 3]], n, s)
        ),
        "scale is 1 / stride: you divide by it where you should multiply": lambda f, r, n, s: _torchvision_pool(
            f, r, n, 1 / s
        ),
    }
    ask.cases([(features, rois, 4, 1 / 8)], what="for 8 regions of 2 images", right=_torchvision_pool, also=slips)
    try:
        none = ask(features, torch.zeros(0, 5), 4, 1 / 8)
    except NotYet as error:
        raise NotYet(f"for no regions the result is empty, of shape (0, 3, 4, 4) ({error})") from error
    refuse_type(none, features)
    if tuple(none.shape) != (0, 3, 4, 4):
        raise NotYet(f"for no regions the result has shape (0, 3, 4, 4); it returns {tuple(none.shape)}")
    needs = random_map(1, 2, 6, 6, seed=5).requires_grad_()
    if not ask(needs, torch.tensor([[0.0, 3.0, 3.0, 40.0, 40.0]]), 2, 1 / 8).requires_grad:
        raise NotYet("no gradient comes through it: do not detach, nor go through numbers or numpy")
    boxes = random_regions(100, seed=6, low=-10, high=110)
    rois = torch.cat([torch.arange(100.0)[:, None] % 2, boxes], dim=1)
    ask.compare(features, rois, 6, 1 / 8, wanted=_torchvision_pool(features, rois, 6, 1 / 8), case="for 100 regions")
    return "equal to torchvision's for 108 regions of two images"


# ------------------------------------------------------------------------------ where the gradient goes


def _pool_gradient(gradient: Tensor, features: Tensor, box: Tensor, n: int, stride: float) -> Tensor:
    leaf = features[None].clone().requires_grad_()
    rois = torch.cat([box.new_zeros(1), box])[None]
    _torchvision_pool(leaf, rois, n, 1 / stride).backward(gradient[None])
    return leaf.grad[0]


def _gradient_by_hand(gradient: Tensor, features: Tensor, box: Tensor, n: int, stride: float) -> Tensor:
    x1, y1, x2, y2 = box.tolist()
    rows = _bins(*_pooled_cells(y1, y2, stride), n, features.shape[1])
    columns = _bins(*_pooled_cells(x1, x2, stride), n, features.shape[2])
    back = torch.zeros_like(features)
    for c, i, j in np.ndindex(*gradient.shape):
        (top, bottom), (left, right) = rows[i], columns[j]
        if top < bottom and left < right:
            cells = features[c, top:bottom, left:right]
            row, column = divmod(int(cells.argmax()), right - left)
            back[c, top + row, left + column] += gradient[c, i, j]
    return back


@exercise(_pool_gradient)
def pool_gradient(ask: Ask) -> str:
    """The gradient of RoIPool at the feature map."""
    slips = """
        += => = !! a cell that is the maximum of several bins gets the sum: add, do not overwrite
        top + row, left + column => top:bottom, left:right
            !! every cell of a bin gets the gradient; only the largest one of each channel does
        top + row, left + column] += gradient[c, i, j] => top:bottom, left:right] += gradient[c, i, j] / cells.numel()
            !! the gradient is spread over the bin, as for a mean; all of it goes to the largest cell
        += gradient[c, i, j] => += 1
            !! it counts how often a cell is the maximum; add up the gradients of those bins
        += gradient[c, i, j] => += 0
            !! it returns zeros: the gradient of each bin belongs to the place of its maximum
    """
    features = random_map(2, 9, 11, seed=7)
    boxes = random_regions(4, seed=8, high=70)
    cases = [(random_map(2, 3, 3, seed=9 + k), features, box, 3, 8) for k, box in enumerate(boxes)]
    ask.cases(cases, what="for random values", also=altered(_gradient_by_hand, slips))
    flat = [(case[0], features.relu().round(), *case[2:]) for case in cases]
    slips = """
        cells.argmax() => cells.numel() - 1 - cells.flatten().flip(0).argmax()
            !! of equal cells the first one gets the gradient, row by row; yours is the last
        top + row, left + column] += => top:bottom, left:right] += (cells == cells.max()) *
            !! of equal cells only the first one gets the gradient; yours gives it to all of them
    """
    ask.cases(flat, what="for a map with many equal values", also=altered(_gradient_by_hand, slips))
    for seed, box in enumerate(random_regions(30, seed=20, low=-20, high=110)):
        case = random_map(2, 3, 3, seed=30 + seed), features, box, 3, 8
        ask.compare(*case, wanted=_pool_gradient(*case), case="for a region that reaches beyond the map")
    return "equal to torchvision's gradient for 38 regions"


# ------------------------------------------------------------------------------ windows out of windows


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
    values, calls = random_map(40, seed=40), []

    def maximum(a: Tensor, b: Tensor) -> Tensor:
        calls.append(1)
        return torch.maximum(a, b)

    def largest(k: int) -> Tensor | None:
        return values.unfold(0, k, 1).amax(dim=1) if 1 <= k <= len(values) else None

    for k in (1, 2, 3, 4, 5, 8, 13, 31, 40):
        calls.clear()
        enough = (k - 1).bit_length()
        slips = {
            f"windows only double, to {1 << enough} for k = {k}; the last step may be shorter": 1 << enough,
            f"for k = {k} it returns the values themselves": 1,
            f"for k = {k} the windows have {k - 1} values, one too few": k - 1,
            f"for k = {k} the windows have {k + 1} values, one too many": k + 1,
        }
        slips = {text: largest(n) for text, n in slips.items() if n != k and largest(n) is not None}
        ask.compare(values, k, maximum, wanted=largest(k), slips=slips, case=f"for windows of {k}", rtol=0, atol=0)
        if len(calls) > enough:
            raise NotYet(f"the values are right, but for k = {k} it calls maximum {len(calls)} times; {enough} suffice")
        if not calls and k > 1:
            raise NotYet("the values are right, but it does not call the function maximum, whose calls are counted")
    return "equal to the maxima of windows of 9 lengths, with the fewest calls"
