"""The exercises of notebook 09: interpolation, the value at 2.93, sampling points, RoIAlign, and its matrices."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import roi_align as torchvision_roi_align

from minircnn.course.check.judge import Ask, NotYet, exercise, refuse_type
from minircnn.course.check.roi_pool import random_map, random_regions


def _bilinear(features: Tensor, y: float, x: float) -> Tensor:
    height, width = features.shape[1:]
    if not (-1 <= y <= height and -1 <= x <= width):
        return features.new_zeros(len(features))
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    down, across = y - top, x - left
    upper = (1 - across) * features[:, top, left] + across * features[:, top, right]
    lower = (1 - across) * features[:, bottom, left] + across * features[:, bottom, right]
    return (1 - down) * upper + down * lower


def _by_torchvision(features: Tensor, y: float, x: float) -> Tensor:
    """One bin of one cell, whose only point is its middle."""
    roi = torch.tensor([[0.0, x, y, x + 1, y + 1]])
    return torchvision_roi_align(features[None], roi, 1, 1.0, 1, aligned=True).flatten()


@exercise(_bilinear)
def bilinear(ask: Ask) -> str:
    """The value of a feature map at any point."""
    slips = """
        y: float, x: float => x: float, y: float !! x and y are exchanged: y chooses rows, the axis of features.shape[1]
        y - top, x - left => 1 - (y - top), 1 - (x - left) !! the weights are exchanged: the nearer cell counts more
        y - top, x - left => round(y - top), round(x - left) !! it takes the nearest cell; weigh all four around it
        y - top, x - left => 0, 0 !! it rounds down to one cell; weigh all four around the point
        y - top, x - left => 0.5, 0.5 !! it takes the mean of the four cells; the nearer one counts more
        top, left = => y, x = y - 0.5, x - 0.5; top, left = !! it moves the point by half a cell; cell k is at point k
    """
    features, what = random_map(3, 6, 8), "at y = {1}, x = {2}"
    inside = [(features, y, x) for y, x in ((2.25, 3.4), (1.3, 4.1), (3.7, 1.85), (0.6, 2.1), (2.0, 3.0))]
    ask.cases(inside, slips, what, right=_by_torchvision)

    def fading(features: Tensor, y: float, x: float) -> Tensor:
        return _by_torchvision(F.pad(features, (2, 2, 2, 2)), y + 2, x + 2)

    slips = "if not (-1 <= y <= height and -1 <= x <= width) => if False !! the value more than a cell outside is 0"
    also = {"beyond the edge the value fades to 0; up to one cell away it is that of the edge": fading}
    beyond = [(-0.4, 2.5), (5.7, 3.2), (2.5, 7.9), (1.2, -0.6), (-1.2, 3.0), (2.0, 9.1)]
    corners = [(5.0, 7.0), (-0.9, 7.6), (6.0, 8.0), (-1.0, -1.0), (6.1, 2.0)]
    points = np.random.RandomState(1).uniform(-2, 10, (200, 2)).round(3).tolist()
    try:
        cases = [(features, y, x) for y, x in (*beyond, *corners, *points)]
        ask.cases(cases, slips, what, right=_by_torchvision, also=also)
    except NotYet as error:
        if "IndexError" in str(error):
            raise NotYet(f"at the border it looks at a cell that does not exist ({error})") from error
        raise
    return "equal to torchvision's interpolation at 200 points, some outside"


def _value_at_pixel(features: Tensor, image_size: tuple[int, int], y: float, x: float) -> Tensor:
    height, width = features.shape[1:]
    down, across = y * height / image_size[0], x * width / image_size[1]
    return _by_torchvision(features, down - 0.5, across - 0.5)


@exercise(_value_at_pixel)
def value_at_pixel(ask: Ask) -> str:
    """The value of a feature map at a place of the image."""
    slips = """
        - 0.5 => !! the half is missing: place 2.93 is 2.43 cells behind the center of cell 0
        - 0.5 => + 0.5 !! it adds the half; the center of cell 0 lies at 0.5, so subtract it
        down - 0.5, across - 0.5 => int(down), int(across) !! it rounds down, as in the story of RoIPool; interpolate
        down - 0.5, across - 0.5 => round(down), round(across) !! it rounds to the nearest whole number; interpolate
        down - 0.5, across - 0.5 => down - 0.5 * height / image_size[0], across - 0.5 * width / image_size[1]
            !! it subtracts half a pixel; subtract half a cell, after the division
        y: float, x: float => x: float, y: float !! x and y are exchanged
        height, width = => width, height = !! rows and columns have their own ratios; height belongs to y
    """
    other = random_map(2, 20, 30, seed=3), (90, 200)
    places = [[31.0, 77.5], [55.0, 90.25], [12.5, 150.0], [70.0, 41.0]]
    places += np.random.RandomState(5).uniform(0, 90, (50, 2)).tolist()
    cases = [(random_map(2, 25, 25, seed=2), (128, 128), 15.0, 15.0), *((*other, y, x) for y, x in places)]
    ask.cases(cases, slips, "for an image of {1} at y = {2:.2f}, x = {3:.2f}")
    return "equal to torchvision's at 55 places"


def _sampling_points(start: float, end: float, n: int, samples: int, aligned: bool = True) -> Tensor:
    length = end - start
    if aligned:
        start = start - 0.5
    else:
        length = max(length, 1.0)
    count = n * samples
    shares = (torch.arange(count) + 0.5) / count
    return (start + shares * length).view(n, samples)


@exercise(_sampling_points)
def sampling_points(ask: Ask) -> str:
    """Where RoIAlign samples along one axis."""
    slips = """
        start - 0.5 => start !! the half is missing: with aligned, subtract 0.5
        (torch.arange(count) + 0.5) / count => (torch.arange(n)[:, None] + torch.linspace(0, 1, samples)) / n
            !! the points of a bin lie on its edges; each lies in the middle of its part
        .view(n, samples) => .view(samples, n).T !! bins and points are exchanged: row k holds the points of bin k
        length = end => start, end = round(start), round(end); length = end !! it rounds edges; RoIAlign rounds nothing
        length = end - start => length = max(end - start, 1.0) !! with aligned a region may be shorter than one cell
    """
    cases = [(0.0, 2.93, 2, 2), (1.625, 6.25, 2, 3), (3.2, 11.4, 3, 2), (-1.5, 4.0, 4, 2), (2.0, 3.1, 2, 4)]
    ask.cases([*cases, (2.0, 2.25, 3, 2)], slips, "from {0} to {1}, {2} bins of {3} points")
    slips = """
        length = max( => start, length = start - 0.5, max( !! with aligned=False nothing is subtracted
        max(length, 1.0) => length !! with aligned=False no region is shorter than one cell
        if aligned => if True !! it ignores aligned
    """
    cases = [(1.5, 6.0, 2, 2, False), (2.0, 2.25, 3, 2, False), (4.0, 4.5, 1, 1, False)]
    ask.cases(cases, slips, "from {0} to {1}, {2} bins of {3} points, aligned=False")
    return "the points of 9 regions, with and without aligned"


def _align_region(
    features: Tensor, box: Tensor, n: int, stride: float, samples: int = 2, aligned: bool = True
) -> Tensor:
    x1, y1, x2, y2 = (box / stride).tolist()
    rows = _sampling_points(y1, y2, n, samples, aligned)
    columns = _sampling_points(x1, x2, n, samples, aligned)
    pooled = features.new_zeros(len(features), n, n)
    for i, j in np.ndindex(n, n):
        values = [_bilinear(features, y, x) for y in rows[i].tolist() for x in columns[j].tolist()]
        pooled[:, i, j] = torch.stack(values).mean(dim=0)
    return pooled


def _aligned(features: Tensor, box: Tensor, n: int, stride: float, samples: int = 2, aligned: bool = True) -> Tensor:
    """The same by torchvision."""
    rois = torch.cat([box.new_zeros(1), box])[None]
    return torchvision_roi_align(features[None], rois, n, 1 / stride, samples, aligned)[0]


@exercise(_align_region)
def align_region(ask: Ask) -> str:
    """RoIAlign of one region."""
    slips = """
        pooled[:, i, j] => pooled[:, j, i] !! rows and columns of the result are exchanged: [:, i, j] is row i, column j
        x1, y1, x2, y2 = => y1, x1, y2, x2 = !! x and y are exchanged: x1 and x2 give the points of columns
        .mean(dim=0) => .amax(dim=0) !! it takes the largest of a bin's points; take their mean
        .mean(dim=0) => .sum(dim=0) !! it takes the sum of a bin's points; take their mean
        n, samples, aligned) => n, 1, aligned) !! it takes one point of each bin; there are samples × samples
        (box / stride) => (box / stride).round() !! it rounds the box to cells; RoIAlign rounds nothing
    """
    features, boxes = random_map(3, 12, 15, seed=6), random_regions(5, seed=7, high=85)
    boxes[:, 2:] += 9  # none narrower than a cell
    cases = [(features, box + 0.3, 3, 8, 2, True) for box in boxes]
    ask.cases(cases, slips, "for a region inside of the map", right=_aligned)
    slips = "n, samples, aligned) => n, samples) !! it ignores aligned; hand it on to sampling_points"
    cases = [(features, box + 0.3, 3, 8, 2, False) for box in boxes]
    for number, box in enumerate(random_regions(12, seed=8, low=-20, high=140)):
        cases.append((features, box, 4, 8, 1 + number % 3, number % 2 == 0))
    ask.cases(cases, slips, "for the region {1}, aligned={5}", right=_aligned)
    return "equal to torchvision's roi_align for 22 regions, aligned and not"


def _axis_weights(points: Tensor, size: int) -> Tensor:
    counts = (points >= -1) & (points <= size)  # (n, S)
    distance = (points.clamp(0, size - 1)[..., None] - torch.arange(size)).abs()  # (n, S, size)
    weights = (1 - distance).clamp(min=0) * counts[..., None]
    return weights.mean(dim=1)


@exercise(_axis_weights)
def axis_weights(ask: Ask) -> str:
    """How much each cell of an axis counts in each bin."""
    slips = """
        .mean(dim=1) => .sum(dim=1) !! each row adds up to the number of points; take their mean
        (1 - distance).clamp(min=0) => distance !! a cell counts by its distance; it counts by 1 minus its distance
        .clamp(min=0) => !! cells farther than 1 from a point count below 0; they count 0
        (1 - distance).clamp(min=0) => (distance < 0.5).float() !! it takes the nearest cell; two share a point
        .mean(dim=1) => !! it returns the weights of each point; take the mean over the points of a bin
    """
    inside = [(_sampling_points(*case), 8) for case in ((1.625, 6.25, 2, 2), (1.0, 7.3, 3, 3), (2.0, 3.1, 2, 1))]
    ask.cases(inside, slips, "for points inside of the map")
    slips = """
        .clamp(0, size - 1) => !! a point up to a cell outside has the value of the edge: limit it to 0 … size - 1
        * counts[..., None] => !! a point more than a cell outside counts 0, though it is one of the S points
    """
    beyond = [(_sampling_points(*case), 8) for case in ((-1.6, 3.0, 3, 2), (4.0, 9.9, 4, 2), (-4.0, 12.0, 5, 3))]
    ask.cases(beyond, slips, "for points beyond the map")
    features = random_map(2, 8, 11, seed=9)
    for box in random_regions(20, seed=10, low=-20, high=100):
        x1, y1, x2, y2 = (box / 8).tolist()
        rows, columns = ask(_sampling_points(y1, y2, 3, 2), 8), ask(_sampling_points(x1, x2, 3, 2), 11)
        refuse_type(rows, columns)
        product = rows.to(features.dtype) @ features @ columns.to(features.dtype).T
        if not torch.allclose(product, _aligned(features, box, 3, 8), atol=1e-4):
            raise NotYet("the product Wy F Wxᵀ differs from torchvision's roi_align")
    return "Wy F Wxᵀ is torchvision's roi_align for 20 regions"


def _exact_weights(start: float, end: float, size: int) -> Tensor:
    def area(t: Tensor) -> Tensor:
        """Under the hat max(0, 1 - |t|), left of t."""
        t = t.clamp(-1, 1)
        return torch.where(t < 0, (1 + t) ** 2 / 2, 1 - (1 - t) ** 2 / 2)

    cells = torch.arange(size)
    areas = area(end - cells) - area(start - cells)
    return areas / (end - start)


@exercise(_exact_weights)
def exact_weights(ask: Ask) -> str:
    """The mean weight of each cell over all points of a bin."""
    slips = """
        area(end - cells) - area(start - cells) => (end - cells).clamp(-0.5, 0.5) - (start - cells).clamp(-0.5, 0.5)
            !! it counts how much of each cell lies in the bin; weigh by 1 minus the distance
        / (end - start) => !! it is the integral; the mean divides it by the bin's length
        return areas / (end - start) => return (1 - ((start + end) / 2 - cells).abs()).clamp(min=0)
            !! that is the weight at the bin's middle; take the mean over all points
        return areas / (end - start) => return sum((1 - (t - cells).abs()).clamp(min=0) for t in (start, end)) / 2
            !! that is the mean of the weights at both ends; take it over all points
        / (end - start) => / (start - end) !! the sign is wrong: subtract the area left of start
    """
    ask.cases([(0.25, 0.75, 7), (1.3, 4.9, 7), (2.5, 3.5, 7), (1.0, 2.0, 5)], slips, "from {0} to {1}")

    def right(low: float, high: float, size: int) -> Tensor:
        points = low + (high - low) * (torch.arange(2000.0) + 0.5) / 2000
        return _axis_weights(points[None], size)[0]

    bins = [sorted(pair) for pair in np.random.RandomState(11).uniform(0, 6, (30, 2)).round(2).tolist()]
    ask.cases([(low, high + 0.01, 8) for low, high in bins], what="from {0} to {1:.2f}", right=right, atol=2e-3)
    return "equal to the mean over 2,000 points, for 34 bins"
