"""The exercises of notebook 05: a region's cells, its bins, RoIPool for one region and for a batch, its gradient."""

import math
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import roi_pool as _torchvision_pool

from minircnn import pooling as ours
from minircnn.course.check.judge import Ask, NotYet, difference, exercise, refuse_shape, refuse_type

Slips = Mapping[str, Callable[..., Any]]


def compare_cases(
    ask: Ask, cases: Sequence[tuple], right: Callable[..., Any], slips: Slips, what: str, atol: float = 1e-5
) -> None:
    """Ask for several inputs and only then look for slips: a single input often fits more than one of them.

    Args:
        ask: the learner's function.
        cases: its arguments, one tuple for each call.
        right: what is right for such arguments.
        slips: what a learner gets who made them, by what to say.
        what: the arguments in words, to be formatted with them: "for columns {0} to {1}".
        atol: absolute tolerance.
    """
    answers, wanted = [ask(*case) for case in cases], [right(*case) for case in cases]
    for answer, value in zip(answers, wanted, strict=True):
        refuse_type(answer, value)
    wrong = [difference(answer, value, 1e-4, atol) for answer, value in zip(answers, wanted, strict=True)]
    if not any(wrong):
        return
    for text, slip in slips.items():
        if all(
            difference(answer, slip(*case), 1e-4, atol) is None for answer, case in zip(answers, cases, strict=True)
        ):
            raise NotYet(text)
    first = next(number for number, found in enumerate(wrong) if found)
    refuse_shape(answers[first], wanted[first])
    raise NotYet(f"{what.format(*cases[first])}: {wrong[first]}")


# ------------------------------------------------------------------------------ which cells, which bins


def whole(value: float) -> int:
    """The nearest whole number, halves away from zero, as C rounds."""
    return int(math.copysign(math.floor(abs(value) + 0.5), value))


def _pooled_cells(start: float, end: float, stride: float) -> tuple[int, int]:
    return whole(start / stride), whole(end / stride)


def _cells_by(first: Callable[[float], int], last: Callable[[float], int]) -> Callable[..., tuple[int, int]]:
    """First and last cell, rounded in another way."""
    return lambda start, end, stride: (first(start / stride), last(end / stride))


@exercise(_pooled_cells)
def pooled_cells(ask: Ask) -> str:
    """First and last cell of a region along one axis."""
    slips = {
        "Python's round takes 2.5 to the even number, 2; here halves go away from zero": _cells_by(round, round),
        "it rounds down; an edge goes to the nearest cell": _cells_by(math.floor, math.floor),
        "it rounds up; an edge goes to the nearest cell": _cells_by(math.ceil, math.ceil),
        "it rounds outwards; only bins are rounded so, an edge goes to the nearest cell": _cells_by(
            math.floor, math.ceil
        ),
        "the last cell is one too few: the cell to which the end is rounded counts in": _cells_by(
            whole, lambda x: whole(x) - 1
        ),
        "the last cell is one too many: return the last cell itself, not the one behind it": _cells_by(
            whole, lambda x: whole(x) + 1
        ),
        "those are pixels; divide the edges by the stride": lambda start, end, stride: (whole(start), whole(end)),
        "-0.5 becomes 0; halves go away from zero, to -1": _cells_by(*[lambda x: math.floor(x + 0.5)] * 2),
        "it returns edges that are not rounded": _cells_by(float, float),
    }
    cases = [(20, 60, 8), (17, 30, 8), (19, 30, 8), (12, 44, 8), (13.0, 50.0, 8), (40, 41, 16), (-4.0, 20.0, 8)]
    compare_cases(ask, cases, _pooled_cells, slips, "for pixels {0:g} to {1:g} at stride {2}")
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
    return _bins_by(math.floor, math.ceil)(first, last, n, size)


def _bins_by(
    down: Callable[[Fraction], int], up: Callable[[Fraction], int], fewer: int = 0
) -> Callable[..., list[tuple[int, int]]]:
    """Bins whose edges are rounded in another way, or that leave out cells."""

    def cut(first: int, last: int, n: int, size: int) -> list[tuple[int, int]]:
        length = Fraction(last - first + 1 - fewer, n)
        edges = [(first + down(k * length), first + up((k + 1) * length)) for k in range(n)]
        return [(min(max(start, 0), size), min(max(end, 0), size)) for start, end in edges]

    return cut


@exercise(_bins)
def bins(ask: Ask) -> str:
    """The bins of a region along one axis."""
    floor, ceil = math.floor, math.ceil
    slips = {
        "the last cell counts in: from first to last there are last - first + 1 cells": _bins_by(floor, ceil, 1),
        "bins end too early: an end is rounded up, so that neighbors may share a cell": _bins_by(floor, floor),
        "bins start too late: a start is rounded down, so that neighbors may share a cell": _bins_by(ceil, ceil),
        "bins are rounded inwards; round outwards: starts down, ends up": _bins_by(ceil, floor),
        "bins are rounded to the nearest cell; round outwards: starts down, ends up": _bins_by(round, round),
        "bins are counted from the region's first cell; add first to get cells of the map": (
            lambda first, last, *rest: _bins(0, last - first, *rest)
        ),
        "an end is the cell before which the bin ends, not its last cell": (
            lambda *case: [(start, end - 1) for start, end in _bins(*case)]
        ),
        "it returns start and length of each bin; wanted are start and end": (
            lambda *case: [(start, end - start) for start, end in _bins(*case)]
        ),
    }
    inside = [(2, 6, 2, 8), (1, 5, 2, 7), (3, 13, 3, 16), (0, 5, 6, 16), (4, 4, 3, 16), (3, 9, 5, 12)]
    compare_cases(ask, inside, _bins, slips, "for cells {0} to {1}, {2} bins")
    text = "cells beyond the map do not exist: limit starts and ends to 0 and size"
    slips = {text: lambda first, last, n, size: [(a + first, b + first) for a, b in _bins(0, last - first, n, 10**6)]}
    compare_cases(ask, [(-3, 4, 2, 7), (5, 9, 3, 7), (9, 12, 2, 7)], _bins, slips, "for cells {0} to {1} of {3}")
    for first, last, n in ((f, f + more, n) for f in range(8) for more in range(10) for n in (1, 2, 3, 6, 7)):
        ask.compare(first, last, n, 16, wanted=_bins(first, last, n, 16), case=f"for cells {first} to {last}, {n} bins")
    return "the bins of 400 regions"


# ------------------------------------------------------------------------------ one region, all regions


def _pool_region(features: Tensor, box: Tensor, n: int, stride: float) -> Tensor:
    rois = torch.cat([box.new_zeros(1), box])[None]
    return _torchvision_pool(features[None], rois, n, 1 / stride)[0]


def _loop(features: Tensor, box: Tensor, n: int, stride: float, take: Callable[[Tensor], Tensor]) -> Tensor:
    """Like RoIPool, with something else than the maximum of a bin."""
    x1, y1, x2, y2 = box.tolist()
    rows = _bins(*_pooled_cells(y1, y2, stride), n, features.shape[1])
    columns = _bins(*_pooled_cells(x1, x2, stride), n, features.shape[2])
    pooled = features.new_zeros(len(features), n, n)
    for i, (top, bottom) in enumerate(rows):
        for j, (left, right) in enumerate(columns):
            if top < bottom and left < right:
                pooled[:, i, j] = take(features[:, top:bottom, left:right].flatten(1))
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
    slips = {
        "rows and columns of the result are exchanged: [:, i, j] is row i, column j": lambda *case: (
            _pool_region(*case).mT
        ),
        "x and y are exchanged: x1 and x2 choose columns": lambda f, b, *rest: _pool_region(f, b[[1, 0, 3, 2]], *rest),
        "it takes the mean of a bin; take the maximum": partial(_loop, take=lambda cells: cells.mean(dim=1)),
        "it takes one maximum over all channels; each has its own": partial(_loop, take=lambda cells: cells.max()),
        "it takes the first cell of each bin; take the maximum": partial(_loop, take=lambda cells: cells[:, 0]),
    }
    cases = [(features, box, 3, 8) for box in random_regions(6, seed=1, high=90)]
    compare_cases(ask, cases, _pool_region, slips, "for a region inside of the map")
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
    compare_cases(ask, [(features, rois, 4, 1 / 8)], _torchvision_pool, slips, "for 8 regions of 2 images")
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


def _scatter(
    gradient: Tensor, features: Tensor, box: Tensor, n: int, stride: float, share: Callable[[Tensor], Tensor]
) -> Tensor:
    """The gradient, spread over the cells of each bin by shares that are computed from their values."""
    leaf = features.clone().requires_grad_()
    _loop(leaf, box, n, stride, lambda cells: (cells * share(cells.detach())).sum(dim=1)).backward(gradient)
    return leaf.grad


def _overwritten(gradient: Tensor, *rest: Any) -> Tensor:  # noqa: ANN401
    """Where several bins share a maximum, the gradient of the last one."""
    back = torch.zeros_like(rest[0])
    for i, j in np.ndindex(*gradient.shape[1:]):
        alone = torch.zeros_like(gradient)
        alone[:, i, j] = gradient[:, i, j]
        part = _pool_gradient(alone, *rest)
        back = torch.where(part != 0, part, back)
    return back


def _last_maximum(cells: Tensor) -> Tensor:
    place = cells.shape[1] - 1 - cells.flip(1).argmax(dim=1)
    return torch.zeros_like(cells).scatter_(1, place[:, None], 1)


@exercise(_pool_gradient)
def pool_gradient(ask: Ask) -> str:
    """The gradient of RoIPool at the feature map."""
    slips = {
        "a cell that is the maximum of several bins gets the sum: add, do not overwrite": _overwritten,
        "every cell of a bin gets the gradient; only the largest one of each channel does": partial(
            _scatter, share=torch.ones_like
        ),
        "the gradient is spread over the bin, as for a mean; all of it goes to the largest cell": partial(
            _scatter, share=lambda cells: torch.full_like(cells, 1 / cells.shape[1])
        ),
        "it counts how often a cell is the maximum; add up the gradients of those bins": lambda g, *rest: (
            _pool_gradient(torch.ones_like(g), *rest)
        ),
        "it returns zeros: the gradient of each bin belongs to the place of its maximum": lambda g, f, *rest: f * 0,
    }
    features = random_map(2, 9, 11, seed=7)
    boxes = random_regions(4, seed=8, high=70)
    cases = [(random_map(2, 3, 3, seed=9 + k), features, box, 3, 8) for k, box in enumerate(boxes)]
    compare_cases(ask, cases, _pool_gradient, slips, "for random values")
    flat = [(case[0], features.relu().round(), *case[2:]) for case in cases]
    slips = {
        "of equal cells the first one gets the gradient, row by row; yours is the last": partial(
            _scatter, share=_last_maximum
        ),
        "of equal cells only the first one gets the gradient; yours gives it to all of them": partial(
            _scatter, share=lambda cells: (cells == cells.amax(dim=1, keepdim=True)).float()
        ),
    }
    compare_cases(ask, flat, _pool_gradient, slips, "for a map with many equal values")
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
