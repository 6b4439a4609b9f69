"""The exercises of notebook 09: interpolation, the value at 2.93, sampling points, RoIAlign, and its matrices."""

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import max_pool2d
from torchvision.ops import roi_align as torchvision_roi_align

from minircnn.course.check.judge import Ask, NotYet, exercise, refuse_type
from minircnn.course.check.roi_pool import compare_cases, random_map, random_regions
from minircnn.pooling import interpolation_weights

# ------------------------------------------------------------------------------ the value at a point


def _bilinear(features: Tensor, y: float, x: float) -> Tensor:
    """By torchvision: one bin of one cell, whose only point is its middle."""
    roi = torch.tensor([[0.0, x, y, x + 1, y + 1]])
    return torchvision_roi_align(features[None], roi, 1, 1.0, 1, aligned=True).flatten()


def _neighbors(
    features: Tensor, y: float, x: float, near: Callable[[float], float] = lambda share: share, border: str = "edge"
) -> Tensor:
    """The same by hand: weights that may be other ones, and another way to treat what lies outside of the map."""
    height, width = features.shape[1:]
    value = features.new_zeros(len(features))
    for row in (math.floor(y), math.floor(y) + 1):
        for column in (math.floor(x), math.floor(x) + 1):
            weight = near(1 - abs(y - row)) * near(1 - abs(x - column))
            inside = 0 <= row < height and 0 <= column < width
            if inside or border == "edge":
                cell = features[:, min(max(row, 0), height - 1), min(max(column, 0), width - 1)]
                value = value + weight * cell
    return value


@exercise(_bilinear)
def bilinear(ask: Ask) -> str:
    """The value of a feature map at any point."""
    features = random_map(3, 6, 8)
    slips = {
        "x and y are exchanged: y chooses rows, the axis of features.shape[1]": lambda f, y, x: _bilinear(f, x, y),
        "the weights are exchanged: the nearer cell counts more, by 1 minus its distance": partial(
            _neighbors, near=lambda share: 1 - share
        ),
        "it takes the nearest cell; weigh all four around the point": partial(
            _neighbors, near=lambda share: float(share >= 0.5)
        ),
        "it rounds down to one cell; weigh all four around the point": lambda f, y, x: f[:, int(y), int(x)],
        "it takes the mean of the four cells; the nearer one counts more": partial(_neighbors, near=lambda share: 0.5),
        "it moves the point by half a cell; here the value of cell k belongs to the point k": lambda f, y, x: _bilinear(
            f, y - 0.5, x - 0.5
        ),
    }
    inside = [(features, y, x) for y, x in ((2.25, 3.4), (1.3, 4.1), (3.7, 1.85), (0.6, 2.1), (2.0, 3.0))]
    compare_cases(ask, inside, _bilinear, slips, "at y = {1}, x = {2}")
    slips = {
        "beyond the edge the value fades to 0; up to one cell away it is that of the edge": partial(
            _neighbors, border=""
        ),
        "more than one cell outside the value is 0, not that of the edge": _neighbors,
    }
    beyond = [(features, y, x) for y, x in ((-0.4, 2.5), (5.7, 3.2), (2.5, 7.9), (1.2, -0.6), (-1.2, 3.0), (2.0, 9.1))]
    try:
        compare_cases(ask, beyond, _bilinear, slips, "at y = {1}, x = {2}")
        corners = [(features, y, x) for y, x in ((5.0, 7.0), (-0.9, 7.6), (6.0, 8.0), (-1.0, -1.0), (6.1, 2.0))]
        compare_cases(ask, corners, _bilinear, {}, "at y = {1}, x = {2}")
    except NotYet as error:
        if "IndexError" in str(error):
            raise NotYet(f"at the border it looks at a cell that does not exist ({error})") from error
        raise
    for y, x in np.random.RandomState(1).uniform(-2, 10, (200, 2)).round(3).tolist():
        ask.compare(features, y, x, wanted=_bilinear(features, y, x), case=f"at y = {y}, x = {x}")
    return "equal to torchvision's interpolation at 200 points, some outside"


def _value_at_pixel(features: Tensor, image_size: tuple[int, int], y: float, x: float) -> Tensor:
    height, width = features.shape[1:]
    return _bilinear(features, y * height / image_size[0] - 0.5, x * width / image_size[1] - 0.5)


@exercise(_value_at_pixel)
def value_at_pixel(ask: Ask) -> str:
    """The value of a feature map at a place of the image."""

    def scaled(features: Tensor, size: tuple[int, int], y: float, x: float, change: Callable[[float], float]) -> Tensor:
        y, x = y * features.shape[1] / size[0], x * features.shape[2] / size[1]
        return _bilinear(features, change(y), change(x))

    slips = {
        "the half is missing: place 2.93 is 2.43 cells behind the center of cell 0": partial(scaled, change=float),
        "it adds the half; the center of cell 0 lies at 0.5, so subtract it": partial(scaled, change=lambda p: p + 0.5),
        "it rounds down, as in the story of RoIPool; interpolate": partial(scaled, change=math.floor),
        "it rounds to the nearest whole number; interpolate": partial(scaled, change=round),
        "it subtracts half a pixel; subtract half a cell, after the division": lambda f, size, y, x: scaled(
            f, size, y - 0.5, x - 0.5, float
        ),
        "x and y are exchanged": lambda f, size, y, x: _value_at_pixel(f, size, x, y),
        "rows and columns have their own ratios; height belongs to y": lambda f, size, y, x: _bilinear(
            f, y * f.shape[2] / size[1] - 0.5, x * f.shape[1] / size[0] - 0.5
        ),
    }
    other = random_map(2, 20, 30, seed=3), (90, 200)
    places = ((31.0, 77.5), (55.0, 90.25), (12.5, 150.0), (70.0, 41.0))
    cases = [(random_map(2, 25, 25, seed=2), (128, 128), 15.0, 15.0), *((*other, y, x) for y, x in places)]
    compare_cases(ask, cases, _value_at_pixel, slips, "for an image of {1} at y = {2}, x = {3}")
    for y, x in np.random.RandomState(5).uniform(0, 90, (50, 2)).tolist():
        ask.compare(*other, y, x, wanted=_value_at_pixel(*other, y, x), case=f"at y = {y:.2f}, x = {x:.2f}")
    return "equal to torchvision's at 55 places"


# ------------------------------------------------------------------------------ points, and the whole region


def _sampling_points(start: float, end: float, n: int, samples: int, aligned: bool = True) -> Tensor:
    length = end - start if aligned else max(end - start, 1.0)
    shares = (torch.arange(n * samples) + 0.5) / (n * samples)
    return (start - 0.5 * aligned + shares * length).view(n, samples)


@exercise(_sampling_points)
def sampling_points(ask: Ask) -> str:
    """Where RoIAlign samples along one axis."""
    ours = _sampling_points

    slips = {
        "the half is missing: with aligned, subtract 0.5": lambda *case: ours(*case) + 0.5,
        "it adds the half; subtract it": lambda *case: ours(*case) + 1,
        "the points of a bin lie on its edges; each lies in the middle of its part": lambda s, e, n, m: (
            s - 0.5 + (torch.arange(n)[:, None] + torch.linspace(0, 1, m)) * (e - s) / n
        ),
        "points begin at a bin's left edge; each lies in the middle of its part": lambda s, e, n, m: (
            ours(s, e, n, m) - (e - s) / (2 * n * m)
        ),
        "bins and points are exchanged: row k holds the points of bin k": lambda s, e, n, m: (
            ours(s, e, 1, n * m).view(m, n).T
        ),
        "it rounds the edges; RoIAlign rounds nothing": lambda s, e, n, m: ours(round(s), round(e), n, m),
        "the points count from the region's edge; add start": lambda s, e, n, m: ours(0, e - s, n, m),
    }
    cases = [(0.0, 2.93, 2, 2), (1.625, 6.25, 2, 3), (3.2, 11.4, 3, 2), (-1.5, 4.0, 4, 2), (2.0, 3.1, 2, 4)]
    compare_cases(ask, cases, ours, slips, "from {0} to {1}, {2} bins of {3} points")
    slips = {
        "with aligned=False nothing is subtracted": lambda s, e, n, m, _: ours(s, max(e, s + 1), n, m),
        "with aligned=False no region is shorter than one cell": lambda s, e, n, m, _: ours(s, e, n, m) + 0.5,
        "it ignores aligned": lambda s, e, n, m, _: ours(s, e, n, m),
    }
    cases = [(1.5, 6.0, 2, 2, False), (2.0, 2.25, 3, 2, False), (4.0, 4.5, 1, 1, False)]
    compare_cases(ask, cases, ours, slips, "from {0} to {1}, {2} bins of {3} points, aligned=False")
    narrow = (2.0, 2.25, 3, 2, True)
    slips = {"with aligned a region may be shorter than one cell": lambda s, e, n, m, _: ours(s, s + 1, n, m)}
    compare_cases(ask, [narrow], ours, slips, "from {0} to {1}, a quarter of a cell, aligned")
    return "the points of 9 regions, with and without aligned"


def _align_region(
    features: Tensor, box: Tensor, n: int, stride: float, samples: int = 2, aligned: bool = True
) -> Tensor:
    rois = torch.cat([box.new_zeros(1), box])[None]
    return torchvision_roi_align(features[None], rois, n, 1 / stride, samples, aligned)[0]


def _largest_sample(features: Tensor, box: Tensor, n: int, stride: float, samples: int, aligned: bool) -> Tensor:
    return max_pool2d(_align_region(features, box, n * samples, stride, 1, aligned), samples)


@exercise(_align_region)
def align_region(ask: Ask) -> str:
    """RoIAlign of one region."""
    right = _align_region
    slips = {
        "rows and columns of the result are exchanged: [:, i, j] is row i, column j": lambda *case: right(*case).mT,
        "x and y are exchanged: x1 and x2 give the points of columns": lambda f, b, *c: right(f, b[[1, 0, 3, 2]], *c),
        "it takes the largest of a bin's points; take their mean": _largest_sample,
        "it takes the sum of a bin's points; take their mean": lambda f, b, n, s, m, a: right(f, b, n, s, m, a) * m * m,
        "it takes one point of each bin; there are samples × samples": lambda f, b, n, s, m, a: right(f, b, n, s, 1, a),
        "it rounds the box to cells; RoIAlign rounds nothing": lambda f, b, n, s, *c: right(
            f, (b / s).round() * s, n, s, *c
        ),
    }
    features, boxes = random_map(3, 12, 15, seed=6), random_regions(5, seed=7, high=85)
    boxes[:, 2:] += 9  # none narrower than a cell
    cases = [(features, box + 0.3, 3, 8, 2, aligned) for box in boxes for aligned in (True, False)]
    compare_cases(ask, cases[::2], right, slips, "for a region inside of the map")
    slips = {"it ignores aligned; hand it on to sampling_points": lambda *c: right(*c[:-1], True)}
    compare_cases(ask, cases[1::2], right, slips, "for aligned=False")
    for number, box in enumerate(random_regions(12, seed=8, low=-20, high=140)):
        samples, aligned = 1 + number % 3, number % 2 == 0
        case = features, box, 4, 8, samples, aligned
        ask.compare(*case, wanted=right(*case), case=f"for the region {box.int().tolist()}, aligned={aligned}")
    return "equal to torchvision's roi_align for 22 regions, aligned and not"


# ------------------------------------------------------------------------------ weights of an axis


def _hats(points: Tensor, size: int) -> Tensor:
    """The weight of each cell at each point, ``(…, size)``."""
    return (1 - (points[..., None] - torch.arange(size)).abs()).clamp(min=0)


def _axis_weights(points: Tensor, size: int) -> Tensor:
    counts = ((points >= -1) & (points <= size)) / points.shape[1]
    return interpolation_weights(points.clamp(0, size - 1)[None], counts[None], size)[0]


@exercise(_axis_weights)
def axis_weights(ask: Ask) -> str:
    """How much each cell of an axis counts in each bin."""
    right = _axis_weights
    slips = {
        "each row adds up to the number of points; take their mean": lambda p, size: right(p, size) * p.shape[1],
        "a cell counts by its distance; it counts by 1 minus its distance": lambda p, size: (1 - _hats(p, size)).mean(
            dim=1
        ),
        "cells farther than 1 from a point count below 0; they count 0": lambda p, size: (
            1 - (p[..., None] - torch.arange(size)).abs()
        ).mean(dim=1),
        "it takes the nearest cell of each point; two cells share a point": lambda p, size: right(p.round(), size),
        "it moves the points by half a cell once more": lambda p, size: right(p - 0.5, size),
        "it returns the weights of each point; take the mean over the points of a bin": _hats,
        "rows and columns are exchanged: one row for each bin": lambda p, size: right(p, size).T,
    }
    inside = [(_sampling_points(*case), 8) for case in ((1.625, 6.25, 2, 2), (1.0, 7.3, 3, 3), (2.0, 3.1, 2, 1))]
    compare_cases(ask, inside, right, slips, "for points inside of the map")
    slips = {
        "a point up to a cell outside of the map has the value of the edge: limit it to 0 … size - 1": lambda p, size: (
            _hats(p, size).mean(dim=1)
        ),
        "a point more than a cell outside counts 0, though it is one of the S points": lambda p, size: _hats(
            p.clamp(0, size - 1), size
        ).mean(dim=1),
    }
    beyond = [(_sampling_points(*case), 8) for case in ((-1.6, 3.0, 3, 2), (4.0, 9.9, 4, 2), (-4.0, 12.0, 5, 3))]
    compare_cases(ask, beyond, right, slips, "for points beyond the map")
    features = random_map(2, 8, 11, seed=9)
    for box in random_regions(20, seed=10, low=-20, high=100):
        x1, y1, x2, y2 = (box / 8).tolist()
        rows, columns = ask(_sampling_points(y1, y2, 3, 2), 8), ask(_sampling_points(x1, x2, 3, 2), 11)
        refuse_type(rows, columns)
        product = rows.to(features.dtype) @ features @ columns.to(features.dtype).T
        if not torch.allclose(product, _align_region(features, box, 3, 8), atol=1e-4):
            raise NotYet("the product Wy F Wxᵀ differs from torchvision's roi_align")
    return "Wy F Wxᵀ is torchvision's roi_align for 20 regions"


def _exact_weights(start: float, end: float, size: int) -> Tensor:
    def area(t: Tensor) -> Tensor:
        """Under the hat max(0, 1 - |t|), left of t."""
        t = t.clamp(-1, 1)
        return torch.where(t < 0, (1 + t) ** 2 / 2, 1 - (1 - t) ** 2 / 2)

    cells = torch.arange(size)
    return (area(end - cells) - area(start - cells)) / (end - start)


@exercise(_exact_weights)
def exact_weights(ask: Ask) -> str:
    """The mean weight of each cell over all points of a bin."""
    right = _exact_weights
    cells = torch.arange(-0.5, 8)
    slips = {
        "it counts how much of each cell lies in the bin; weigh by 1 minus the distance": lambda start, end, size: (
            cells.clamp(start, end).diff()[:size] / (end - start)
        ),
        "it is the integral; the mean divides it by the bin's length": lambda start, end, size: (
            right(start, end, size) * (end - start)
        ),
        "that is the weight at the bin's middle; take the mean over all points": lambda start, end, size: _hats(
            torch.tensor((start + end) / 2), size
        ),
        "that is the mean of the weights at both ends; take it over all points": lambda start, end, size: _hats(
            torch.tensor([start, end]), size
        ).mean(dim=0),
        "the sign is wrong: subtract the area left of start": lambda *case: -right(*case),
    }
    cases = [(0.25, 0.75, 7), (1.3, 4.9, 7), (2.5, 3.5, 7), (1.0, 2.0, 5)]
    compare_cases(ask, cases, right, slips, "from {0} to {1}")
    for start, end in np.random.RandomState(11).uniform(0, 6, (30, 2)).round(2):
        low, high = sorted((float(start), float(end) + 0.01))
        points = low + (high - low) * (torch.arange(2000.0) + 0.5) / 2000
        wanted = _axis_weights(points[None], 8)[0]
        ask.compare(low, high, 8, wanted=wanted, case=f"from {low:.2f} to {high:.2f}", atol=2e-3)
    return "equal to the mean over 2,000 points, for 34 bins"
