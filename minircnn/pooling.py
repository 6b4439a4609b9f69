"""How a region becomes a tensor of fixed size, in the order of history.

Fully connected layers need inputs of one size; regions have all sizes.

* 2014, R-CNN: :func:`warp_regions` warps the *pixels* of each region, and the network runs on each crop.
* 2015, Fast R-CNN: the network runs once on the image; :func:`roi_pool` takes each region out of the *feature map*.
* 2017, Mask R-CNN: :func:`roi_align` does so without rounding. :func:`multiscale_roi_align` takes regions from the
  levels of a feature pyramid; :func:`roi_warp` and :func:`misalignment` show what the rounding costs.

``roi_pool_loop`` and ``roi_align_separable`` are the definitions written plainly; the fast forms, which give the same,
are in :mod:`minircnn.kernels`.

Shape comments: B images, C channels, h w size of the feature map, R regions, n m rows and columns of the grid of bins,
S sampling points of a bin along an axis (and the side of a warped crop), K cells of a bin along an axis.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from minircnn import kernels
from minircnn.boxes import box_iou

Rois = Tensor | Sequence[Tensor]
Grid = int | tuple[int, int]

WARP_MODES = ("warp", "square with context", "square without context")
_WARPED = 2**17  # pixels of crops that are warped at a time: about what a core's cache holds
CANONICAL_SIZE, CANONICAL_LEVEL = 224, 4  # an object that fills an ImageNet image belongs to P4, of stride 16


def warp_regions(
    image: Tensor,
    boxes: Tensor,
    size: int,
    context: float = 16.0,
    mode: str = "warp",
    fill: Sequence[float] = (0.0, 0.0, 0.0),
) -> Tensor:
    """Regions of an image as crops of one size: the input of R-CNN's network (R-CNN, appendix A).

    Three ways to get from a box to a square crop, the figure's columns D, B and C:

    * "warp": stretch the box in each direction as much as it takes. The aspect ratio is lost.
    * "square with context": take the tightest square around the box. What lies beside the object comes with it.
    * "square without context": the same square, but only the box is kept in it; the rest is ``fill``.

    All three leave ``context`` pixels of the crop on each side for what surrounds the box (the square). Every pixel of
    the crop is interpolated bilinearly at its own center. Paper vs code: the paper does not say how images were
    resized; R-CNN's code did it like this, without anti-aliasing, but with box edges rounded to whole pixels.

    Args:
        image: ``(3, H, W)`` floats.
        boxes: ``(R, 4)``. They may reach outside of the image, or lie there, or have no area.
        size: S, the side of the crops.
        context: pixels of the crop on each side that show surroundings; 16 of 227 in the paper. Less than S / 2.
        mode: one of ``WARP_MODES``.
        fill: the color of what is outside of the image; the network's mean color in the paper.

    Returns:
        ``(R, 3, S, S)``, of the image's type; computed at least in single precision.

    Raises:
        ValueError: a shape, the size, the context, the mode or the color does not fit, or a box holds nan or infinity.

    >>> image = torch.arange(16.0).view(1, 4, 4).expand(3, 4, 4)
    >>> warp_regions(image, torch.tensor([[1.0, 1.0, 3.0, 3.0]]), size=2, context=0)[0, 0]
    tensor([[ 5.,  6.],
            [ 9., 10.]])
    """
    _check_warp(image, boxes, size, context, mode, fill)
    if image.dtype not in (torch.float32, torch.float64):  # half precision cannot tell one place from the next
        return warp_regions(image.float(), boxes, size, context, mode, fill).to(image.dtype)
    boxes = boxes.to(image.dtype)
    low, high = boxes[:, :2], boxes[:, 2:]  # (R, 2) x and y of the corners
    if mode != "warp":  # the tightest square around the box, with the same center
        center, half = (low + high) / 2, (high - low).amax(dim=1, keepdim=True) / 2
        low, high = center - half, center + half
    # The inner S - 2 * context pixels of the crop are the box; the margin shows the image around it at that scale.
    margin = context / (size - 2 * context) * (high - low)
    low, high = low - margin, high + margin
    centers = (torch.arange(size, dtype=low.dtype, device=low.device) + 0.5) / size  # of the crop's pixels, as shares
    x, y = (low[..., None] + centers * (high - low)[..., None]).unbind(1)  # (R, S) in pixels of the image
    height, width = image.shape[1:]
    seen_x, seen_y = (x >= 0) & (x <= width), (y >= 0) & (y <= height)  # (R, S)
    if mode == "square without context":
        (x1, y1), (x2, y2) = (boxes[:, :2] - margin).T[..., None], (boxes[:, 2:] + margin).T[..., None]  # (R, 1)
        seen_x &= (x >= x1) & (x <= x2)
        seen_y &= (y >= y1) & (y <= y2)
    crops, color = image.new_empty(len(boxes), 3, size, size), image.new_tensor(fill).view(3, 1, 1)
    few = max(_WARPED // size**2, 1)
    for first in range(0, len(boxes), few):
        part = slice(first, first + few)
        seen = seen_y[part, None, :, None] & seen_x[part, None, None, :]  # (…, 1, S, S)
        crops[part] = torch.where(seen, _bilinear(image, x[part], y[part]), color)
    return crops


def _check_warp(image: Tensor, boxes: Tensor, size: int, context: float, mode: str, fill: Sequence[float]) -> None:
    if image.dim() != 3 or image.shape[0] != 3 or not image.numel() or not image.is_floating_point():
        raise ValueError(f"image must be a float tensor (3, H, W), but is {image.dtype} of {tuple(image.shape)}")
    if boxes.dim() != 2 or boxes.shape[1] != 4:
        raise ValueError(f"boxes must have shape (R, 4), x1 y1 x2 y2, but have shape {tuple(boxes.shape)}")
    if not boxes.isfinite().all():
        raise ValueError(f"box {int((~boxes.isfinite()).any(dim=1).nonzero()[0])} holds nan or infinity")
    if size < 1 or not 0 <= context < size / 2:
        raise ValueError(f"size must be at least 1 and context in [0, size / 2), but are {size} and {context}")
    if mode not in WARP_MODES:
        raise ValueError(f"mode must be one of {', '.join(map(repr, WARP_MODES))}, not {mode!r}")
    if len(fill) != 3:
        raise ValueError(f"fill must be a color of 3 numbers, but has {len(fill)}")


def _bilinear(image: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """The image at all pairs of places: ``(3, H, W)``, ``(R, S)`` and ``(R, S)`` to ``(R, 3, S, S)``.

    Interpolated between the centers of pixels; beyond the outermost centers their values hold.
    """
    height, width = image.shape[1:]
    across, down = 2 * x / width - 1, 2 * y / height - 1  # from -1 to 1, as grid_sample counts
    places = torch.stack(torch.broadcast_tensors(across[:, None, :], down[:, :, None]), dim=-1)  # (R, S, S, 2)
    return F.grid_sample(image.expand(len(x), -1, -1, -1), places, padding_mode="border", align_corners=False)


def to_rois(boxes: Sequence[Tensor]) -> Tensor:
    """The regions of all images of a batch in one tensor, each with the number of its image in front.

    Args:
        boxes: for each image ``(P, 4)``; P may be 0.

    Returns:
        ``(R, 5)``: image, x1, y1, x2, y2.

    >>> to_rois([torch.tensor([[0.0, 1.0, 2.0, 3.0]]), torch.tensor([[4.0, 5.0, 6.0, 7.0]])])
    tensor([[0., 0., 1., 2., 3.],
            [1., 4., 5., 6., 7.]])
    """
    if not len(boxes):
        raise ValueError("boxes must hold a tensor (P, 4) for each image, but there is no image")
    images = [found.new_full((len(found), 1), index) for index, found in enumerate(boxes)]
    return torch.cat([torch.cat([image, found], dim=1) for image, found in zip(images, boxes, strict=True)])


def _read_rois(features: Tensor, rois: Rois, output_size: Grid) -> tuple[Tensor, Tensor, int, int]:
    """Check what every pooling takes: number of image ``(R,)``, boxes ``(R, 4)`` without a gradient, rows, columns."""
    rows, columns = (output_size, output_size) if isinstance(output_size, int) else output_size
    if features.dim() != 4 or not features.is_floating_point() or 0 in features.shape[2:]:
        kind = f"{features.dtype} of {tuple(features.shape)}"
        raise ValueError(f"features must be a float tensor (B, C, h, w), but are {kind}")
    if not isinstance(rois, Tensor):
        if len(rois) != len(features):
            raise ValueError(f"there are boxes of {len(rois)} images, but features of {len(features)}")
        rois = to_rois(rois)
    if rois.dim() != 2 or rois.shape[1] != 5 or not rois.is_floating_point():
        raise ValueError(
            "rois must be a float tensor (R, 5), image x1 y1 x2 y2, or a list of boxes (P, 4) for each image, but are "
            f"{rois.dtype} of {tuple(rois.shape)}"
        )
    if rows < 1 or columns < 1:
        raise ValueError(f"output_size must be at least 1, but is ({rows}, {columns})")
    image, finite = rois[:, 0], rois.isfinite().all(dim=1)
    right = finite & (image >= 0) & (image < len(features)) & (image == image.floor())
    if not right.all():
        first = int((~right).nonzero()[0])
        if not finite[first]:
            raise ValueError(f"region {first} holds nan or infinity")
        raise ValueError(f"region {first} is of image {image[first]:g}, but there are features of {len(features)}")
    return rois[:, 0].long(), rois[:, 1:].detach(), rows, columns


def roi_pool(features: Tensor, rois: Rois, output_size: Grid, spatial_scale: float) -> Tensor:
    """Regions of feature maps as grids of one size, each cell the largest value of its bin (Fast R-CNN, section 2.1).

    A region goes through two roundings. First its edges, divided by the stride, are rounded to whole cells of the map.
    Then these cells are divided into n by m bins, whose edges are rounded again, outwards, so that neighboring bins
    may share cells. Nothing is interpolated: every value of the result is a value of the map.

    Args:
        features: ``(B, C, h, w)`` floats without nan; any memory format.
        rois: ``(R, 5)``: image, x1, y1, x2, y2 in pixels of the image; R may be 0. Or boxes ``(P, 4)`` for each image,
            from which :func:`to_rois` makes that.
        output_size: n and m, or one number for both.
        spatial_scale: cells per pixel: 1 / stride.

    Returns:
        ``(R, C, n, m)`` of the type of ``features``. A bin without a cell, which happens outside of the map, is 0. The
        gradient of a bin goes to its largest cell, of equals to the first, row by row: values and gradients are those
        of ``torchvision.ops.roi_pool``, bit for bit. None flows to ``rois``: rounding has none.

    Raises:
        ValueError: a shape does not fit, a region is not finite, or there is no image of its number.

    Paper vs code: the paper divides a region of h by w cells into bins of h / n by w / m and leaves open how edges are
    rounded; code counts the last cell in (a region from cell 2 to cell 2 is one cell wide, and none is narrower) and
    lets bins overlap.

    >>> features = torch.arange(16.0).view(1, 1, 4, 4)
    >>> roi_pool(features, torch.tensor([[0.0, 0.0, 0.0, 24.0, 24.0]]), 2, 1 / 8)  # all four by four cells
    tensor([[[[ 5.,  7.],
              [13., 15.]]]])
    """
    grid, bins = _cut_into_bins(features, rois, output_size, spatial_scale)
    if features.requires_grad and torch.is_grad_enabled():
        return kernels.LargestCells.apply(features, grid, bins)
    cells = features.permute(0, 2, 3, 1).contiguous()  # (B, h, w, C): what belongs to a cell lies side by side
    pooled = kernels.largest_values(cells, bins)
    return pooled.view(*grid, features.shape[1]).permute(0, 3, 1, 2)


def roi_pool_loop(features: Tensor, rois: Rois, output_size: Grid, spatial_scale: float) -> Tensor:
    """The same as :func:`roi_pool`, one bin after the other."""
    grid, bins = _cut_into_bins(features, rois, output_size, spatial_scale)
    pooled = features.new_zeros(len(bins.image), features.shape[1])
    for number, (image, top, left, height, width) in enumerate(torch.stack([*vars(bins).values()], dim=1).tolist()):
        cells = features[image, :, top : top + height, left : left + width].flatten(1)  # (C, …)
        if cells.shape[1]:
            pooled[number] = cells.max(dim=1).values
    return pooled.view(*grid, features.shape[1]).permute(0, 3, 1, 2)


def _cut_into_bins(
    features: Tensor, rois: Rois, output_size: Grid, scale: float
) -> tuple[tuple[int, int, int], kernels.Bins]:
    """Both roundings: R, n and m, and as many bins.

    Bins that reach beyond the cells of the map are cut off there. The length of a bin is computed in the type of the
    regions, single precision as a rule: where it should come out as a whole number, it may be a little more, and then
    the bin ends a cell later. The reference does the same.
    """
    image, boxes, rows, columns = _read_rois(features, rois, output_size)
    cells, (height, width) = cells_of_roi_pool(boxes * scale), features.shape[2:]
    edges = []
    for axis, count, size in ((1, rows, height), (0, columns, width)):
        first = cells[:, axis, None]  # (R, 1)
        length = (cells[:, axis + 2, None] - first) / count  # of a bin, in cells
        number = torch.arange(count, device=cells.device, dtype=cells.dtype)
        start, end = (number * length).floor(), ((number + 1) * length).ceil()  # (R, count)
        edges.append([(edge + first).clamp(0, size).long() for edge in (start, end)])
    (top, bottom), (left, right) = edges
    grid = (len(image), rows, columns)
    tall, wide = (bottom - top)[:, :, None].expand(grid), (right - left)[:, None].expand(grid)
    filled = (tall > 0) & (wide > 0)
    corner = (value.expand(grid) for value in (image[:, None, None], top[:, :, None], left[:, None]))
    return grid, kernels.Bins(*(value.flatten() for value in (*corner, tall * filled, wide * filled)))


def cells_of_roi_pool(regions: Tensor) -> Tensor:
    """The whole cells that RoIPool takes of ``(…, 4)`` regions in cells: half open, at least one each way."""
    whole = regions.trunc()  # halves are rounded away from 0, as C does it; torch.round takes the nearest even number
    rounded = whole + regions.sign() * ((regions - whole).abs() >= 0.5)
    first, last = rounded[..., :2], rounded[..., 2:]
    return torch.cat([first, torch.maximum(last, first) + 1], dim=-1)


def roi_align(
    features: Tensor,
    rois: Rois,
    output_size: Grid,
    spatial_scale: float,
    sampling_ratio: int = -1,
    aligned: bool = False,
) -> Tensor:
    """Regions of feature maps as grids of one size, without rounding (Mask R-CNN, section 3, "RoIAlign").

    Each bin holds S by S points, spread evenly. The map's value at a point is interpolated bilinearly between the four
    cells around it, and the bin's value is the mean over its points. All of that is linear in the map: a bin is a
    weighted sum of the cells near it, and the weights are products of one weight for the row and one for the column.

    Args:
        features: ``(B, C, h, w)`` floats; any memory format.
        rois: as for :func:`roi_pool`.
        output_size: n and m, or one number for both.
        spatial_scale: cells per pixel: 1 / stride.
        sampling_ratio: S. Not positive: as many as a bin is long in cells, rounded up, for each region on its own.
        aligned: whether the center of cell k is at k + 1/2 in the map's coordinates, as that of a pixel is; otherwise
            it is at k, half a cell to the left and above. Paper vs code: the first code had it like that, and made
            every region at least one cell large.

    Returns:
        ``(R, C, n, m)``, equal to ``torchvision.ops.roi_align``'s up to rounding. Points more than a cell outside of
        the map count as 0; nearer ones have the value of the edge. No gradient flows to ``rois``.

    >>> features = torch.arange(16.0).view(1, 1, 4, 4)
    >>> roi_align(features, torch.tensor([[0.0, 0.0, 0.0, 32.0, 32.0]]), 2, 1 / 8, sampling_ratio=2, aligned=True)
    tensor([[[[ 2.5000,  4.5000],
              [10.5000, 12.5000]]]])
    """
    image, *axes = _place_points(features, rois, output_size, spatial_scale, sampling_ratio, aligned)
    near = []
    for (place, share), size in zip(axes, features.shape[2:], strict=True):  # the few cells that count in each bin
        first = last = place.new_zeros(place.shape[:2])  # (R, count)
        if share.numel():
            first = torch.where(share > 0, place, size - 1).floor().amin(dim=-1)
            last = torch.where(share > 0, place, -1).floor().amax(dim=-1) + 1
        longest = max(int((last - first).max()) + 1, 1) if first.numel() else 1
        near.append((first.long(), interpolation_weights(place - first[..., None], share, longest)))
    return kernels.sums_of_bins(features, image, *near)


def roi_align_separable(
    features: Tensor,
    rois: Rois,
    output_size: Grid,
    spatial_scale: float,
    sampling_ratio: int = -1,
    aligned: bool = False,
) -> Tensor:
    """The same as :func:`roi_align` in a form that can be read at a glance: Wy F Wxᵀ.

    Bilinear interpolation treats rows and columns apart, and so does the mean over the points of a bin. So one matrix
    ``(n, h)`` says how much each row of the map counts in each row of bins, and another one does so for columns. Most
    of their numbers are 0, which makes this slow on large maps; on single masks it is the faster form.
    """
    image, y, x = _place_points(features, rois, output_size, spatial_scale, sampling_ratio, aligned)
    of_rows = interpolation_weights(*y, features.shape[2])  # (R, n, h)
    of_columns = interpolation_weights(*x, features.shape[3])  # (R, m, w)
    maps = features[image].to(of_rows.dtype)  # (R, C, h, w)
    return (of_rows[:, None] @ maps @ of_columns[:, None].transpose(2, 3)).to(features.dtype)  # (R, C, n, m)


def interpolation_weights(place: Tensor, share: Tensor, size: int) -> Tensor:
    """How much each cell of an axis counts in each bin.

    Args:
        place: ``(R, count, S)`` the points of each bin, in cells; cell k has its value at k.
        share: ``(R, count, S)`` how much each point counts.
        size: cells of the map.

    Returns:
        ``(R, count, size)``. Linear interpolation: a cell counts for a point as 1 minus its distance from it, or
        nothing beyond a distance of 1.

    >>> interpolation_weights(torch.tensor([[[1.25]]]), torch.ones(1, 1, 1), 4)
    tensor([[[0.0000, 0.7500, 0.2500, 0.0000]]])
    """
    cells = torch.arange(size, device=place.device)
    distance = (place[..., None] - cells).abs()  # (R, count, S, size)
    return ((1 - distance).clamp(min=0) * share[..., None]).sum(dim=2)


def _place_points(
    features: Tensor, rois: Rois, output_size: Grid, scale: float, ratio: int, aligned: bool
) -> tuple[Tensor, tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Image of each region ``(R,)``, and the points of all bins along y and along x.

    The points of an axis are ``(R, count, S)`` places on the map, and how much each counts: 1 / points of its bin, or
    0 if it lies outside.
    """
    image, boxes, rows, columns = _read_rois(features, rois, output_size)
    boxes, (height, width) = boxes.double() if features.dtype == torch.float64 else boxes.float(), features.shape[2:]
    cells, axes = boxes * scale - (0.5 if aligned else 0.0), []
    for axis, count, size in ((1, rows, height), (0, columns, width)):
        start, length = cells[:, axis], cells[:, axis + 2] - cells[:, axis]  # (R,)
        length = (length if aligned else length.clamp(min=1.0)) / count  # of a bin
        points = torch.full_like(length, ratio) if ratio > 0 else length.ceil().clamp(min=0)  # (R,) of a bin
        number = torch.arange(int(points.max()) if len(points) else 0, device=start.device)  # (S,)
        bins = torch.arange(count, device=start.device)[:, None]  # (count, 1)
        start, length, points = (value[:, None, None] for value in (start, length, points))
        # In the reference's order: a point on the very limit, a cell outside, is in or out by the last digit.
        place = start + bins * length + (number + 0.5) * length / points.clamp(min=1)
        inside = (number < points) & (place >= -1) & (place <= size)
        axes.append((place.clamp(0, size - 1), inside / points.clamp(min=1)))
    return image, *axes


def pyramid_level(boxes: Tensor, lowest: int = 2, highest: int = 5) -> Tensor:
    """Which pyramid level each box is pooled from (Lin et al. 2017, equation 1): k = ⌊4 + log₂(√(w h) / 224)⌋.

    Half as large is one level finer, so that a region has about as many cells whatever its size.

    Args:
        boxes: ``(R, 4)`` in pixels of the image as the backbone sees it.
        lowest: the finest level that there is, with stride 2ᵏ; a box of no size belongs to it.
        highest: the coarsest.

    Returns:
        ``(R,)`` int64.

    >>> pyramid_level(torch.tensor([[0.0, 0.0, 224.0, 224.0], [0, 0, 112, 112], [0, 0, 112, 448], [0, 0, 9, 9]]))
    tensor([4, 3, 4, 2])
    """
    size = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).sqrt()
    # A little more than the equation, as in the reference: 224 is not to fall below its level by rounding.
    level = (CANONICAL_LEVEL + torch.log2(size / CANONICAL_SIZE) + 1e-6).floor()
    return level.nan_to_num(lowest, neginf=lowest).clamp(lowest, highest).long()


def multiscale_roi_align(
    levels: Sequence[Tensor],
    rois: Rois,
    output_size: Grid,
    strides: Sequence[int],
    sampling_ratio: int = -1,
    aligned: bool = False,
) -> Tensor:
    """:func:`roi_align` of each region from the level that suits its size: ``(R, C, n, m)`` in the order of ``rois``.

    ``levels`` are feature maps, each ``(B, C, h, w)``, from fine to coarse; ``strides`` says how many pixels a cell of
    each is large: powers of 2, each twice the one before.

    >>> fine, coarse = torch.zeros(1, 1, 64, 64), torch.ones(1, 1, 32, 32)
    >>> rois = torch.tensor([[0.0, 0.0, 0.0, 224.0, 224.0], [0.0, 0.0, 0.0, 100.0, 100.0]])
    >>> multiscale_roi_align([fine, coarse], rois, 1, strides=[8, 16], sampling_ratio=1).flatten()
    tensor([1., 0.])
    """
    lowest = int(strides[0]).bit_length() - 1 if len(strides) else 0
    if list(strides) != [2 ** (lowest + number) for number in range(len(levels))] or not len(levels):
        raise ValueError(f"strides must be powers of 2 for each of {len(levels)} levels, doubling, not {list(strides)}")
    image, boxes, *_ = _read_rois(levels[0], rois, output_size)
    rois = torch.cat([image[:, None], boxes], dim=1)
    level = pyramid_level(boxes, lowest, lowest + len(levels) - 1) - lowest  # (R,)
    order = level.argsort(stable=True)
    parts = [
        roi_align(features, rois[level == number], output_size, 1 / stride, sampling_ratio, aligned)
        for number, (features, stride) in enumerate(zip(levels, strides, strict=True))
    ]
    return torch.cat(parts)[order.argsort()]


def roi_warp(features: Tensor, rois: Rois, output_size: Grid, spatial_scale: float, sampling_ratio: int = 2) -> Tensor:
    """RoIWarp: a region rounded to whole cells as in RoIPool, then interpolated as in RoIAlign: ``(R, C, n, m)``.

    Mask R-CNN's table 2c uses it to tell which of the two matters (Dai, He and Sun 2016, arXiv 1512.04412). Arguments
    are those of :func:`roi_align`; only the edges of regions differ from ``roi_align(…, aligned=True)``.
    """
    image, boxes, rows, columns = _read_rois(features, rois, output_size)
    cells = torch.cat([image[:, None], cells_of_roi_pool(boxes * spatial_scale)], dim=1)
    return roi_align(features, cells, (rows, columns), 1.0, sampling_ratio, aligned=True)


@dataclass(frozen=True)
class Misalignment:
    """One region, as three ways of pooling see it. Boxes are x1, y1, x2, y2; cell k reaches from k to k + 1."""

    exact: tuple[float, float, float, float]  # the region in cells: what RoIAlign pools
    rounded_down: tuple[int, int, int, int]  # fractions left away, as the story is often told
    pooled: tuple[int, int, int, int]  # what RoIPool takes: edges rounded to the nearest cell, the last one included
    points: Tensor  # (n, m, S, S, 2) where RoIAlign samples, x and y, in cells
    shift: tuple[float, float, float, float]  # from exact to pooled, in pixels of the image, to the right or downwards
    iou: float  # of exact and pooled


def misalignment(
    region: Sequence[float],
    image_size: tuple[int, int],
    feature_size: tuple[int, int],
    output_size: int = 2,
    sampling_ratio: int = 2,
) -> Misalignment:
    """What becomes of a region of an image on a feature map (Mask R-CNN, section 3, "RoIAlign").

    Args:
        region: x1, y1, x2, y2 in pixels, not empty.
        image_size: ``(height, width)`` in pixels.
        feature_size: ``(height, width)`` of the map, in cells.
        output_size: rows and columns of bins.
        sampling_ratio: points of a bin along an axis.

    >>> example = misalignment((0, 0, 15, 15), image_size=(128, 128), feature_size=(25, 25))
    >>> round(example.exact[2], 2), example.rounded_down[2], example.pooled[2]
    (2.93, 2, 4)
    """
    box = torch.tensor([float(value) for value in region], dtype=torch.float64)
    if box.shape != (4,) or not (box.isfinite().all() and (box[2:] > box[:2]).all()):
        raise ValueError(f"region must be x1, y1, x2, y2 with x1 < x2 and y1 < y2, but is {tuple(region)}")
    if min(*image_size, *feature_size, output_size, sampling_ratio) < 1:
        raise ValueError("image_size, feature_size, output_size and sampling_ratio must all be at least 1")
    cells_per_pixel = box.new_tensor([f / i for f, i in zip(feature_size, image_size, strict=True)])[[1, 0, 1, 0]]
    exact = box * cells_per_pixel
    pooled = cells_of_roi_pool(exact)
    steps = (torch.arange(output_size * sampling_ratio, dtype=box.dtype) + 0.5) / (output_size * sampling_ratio)
    x, y = (exact[axis] + steps * (exact[axis + 2] - exact[axis]) for axis in (0, 1))
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)  # (n · S, m · S, 2)
    return Misalignment(
        exact=tuple(exact.tolist()),
        rounded_down=tuple(exact.floor().int().tolist()),
        pooled=tuple(pooled.int().tolist()),
        points=grid.view(output_size, sampling_ratio, output_size, sampling_ratio, 2).transpose(1, 2),
        shift=tuple(((pooled - exact) / cells_per_pixel).tolist()),
        iou=box_iou(exact[None], pooled[None]).item(),
    )
