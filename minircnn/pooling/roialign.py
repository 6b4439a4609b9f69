"""2017: nothing is rounded. Values between cells are interpolated, at a few points of each bin, and averaged.

He, Gkioxari, Dollár and Girshick 2017, "Mask R-CNN", arXiv 1703.06870, section 3, "RoIAlign".

Shape comments: B images, C channels, h w size of the feature map, R regions, n m rows and columns of the grid, S points
of a bin along an axis, K cells of a bin along an axis.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from minircnn.pooling.roipool import read_regions


def roi_align(
    features: Tensor,
    rois: Tensor | Sequence[Tensor],
    output_size: int | tuple[int, int],
    spatial_scale: float,
    sampling_ratio: int = -1,
    aligned: bool = False,
) -> Tensor:
    """Regions of feature maps as grids of one size, without rounding (Mask R-CNN, section 3).

    Each bin holds S by S points, spread evenly. The map's value at a point is interpolated bilinearly between the four
    cells around it, and the bin's value is the mean over its points. All of that is linear in the map: a bin is a
    weighted sum of the cells near it, and the weights are products of one weight for the row and one for the column.

    Args:
        features: ``(B, C, h, w)`` floats; any memory format.
        rois: ``(R, 5)``: image, x1, y1, x2, y2 in pixels of the image; R may be 0. Or boxes ``(P, 4)`` for each image.
        output_size: n and m, or one number for both.
        spatial_scale: cells per pixel: 1 / stride.
        sampling_ratio: S. Not positive: as many as a bin is long in cells, rounded up, for each region on its own.
        aligned: whether the centre of cell k is at k + 1/2 in the map's coordinates, as that of a pixel is; otherwise
            it is at k, half a cell to the left and above. Paper vs code: the first programs had it like that, and made
            every region at least one cell large.

    Returns:
        ``(R, C, n, m)`` of the type of ``features``, equal to ``torchvision.ops.roi_align``'s up to rounding. Points
        more than a cell outside of the map count as 0; nearer ones have the value of the edge. No gradient flows to
        ``rois``.

    Raises:
        ValueError: a shape does not fit, a region is not finite, or there is no image of its number.

    >>> features = torch.arange(16.0).view(1, 1, 4, 4)
    >>> roi_align(features, torch.tensor([[0.0, 0.0, 0.0, 32.0, 32.0]]), 2, 1 / 8, sampling_ratio=2, aligned=True)
    tensor([[[[ 2.5000,  4.5000],
              [10.5000, 12.5000]]]])
    """
    rois, rows, columns = read_regions(features, rois, output_size)
    height, width = features.shape[2:]
    (y, tall), (x, wide) = _extent(features, rois, spatial_scale, aligned)
    top, row_weights = _cells_of_bins(*_points(y, tall, rows, height, sampling_ratio), height)  # (R, n), (R, n, K)
    left, column_weights = _cells_of_bins(*_points(x, wide, columns, width, sampling_ratio), width)
    pooled = _weighted_sums(features, rois[:, 0].long(), top, row_weights, left, column_weights)
    return pooled.view(len(rois), rows, columns, features.shape[1]).permute(0, 3, 1, 2)


def roi_align_separable(
    features: Tensor,
    rois: Tensor | Sequence[Tensor],
    output_size: int | tuple[int, int],
    spatial_scale: float,
    sampling_ratio: int = -1,
    aligned: bool = False,
) -> Tensor:
    """The same as :func:`roi_align` in a form that can be read at a glance: Wy F Wxᵀ.

    Bilinear interpolation treats rows and columns apart, and so does the mean over the points of a bin. So there is one
    matrix ``(n, h)`` that says how much each row of the map counts in each row of bins, and another one for columns.
    Most of their numbers are 0, which is why this takes long on large maps; on single masks it is the faster way.

    Args and errors are those of :func:`roi_align`.

    >>> features, rois = torch.rand(2, 3, 9, 8), torch.tensor([[1.0, 8.0, 16.0, 40.0, 56.0]])
    >>> slow, fast = (align(features, rois, 7, 1 / 8) for align in (roi_align_separable, roi_align))
    >>> torch.allclose(slow, fast, atol=1e-6)
    True
    """
    rois, rows, columns = read_regions(features, rois, output_size)
    height, width = features.shape[2:]
    (y, tall), (x, wide) = _extent(features, rois, spatial_scale, aligned)
    of_rows = interpolation_weights(*_points(y, tall, rows, height, sampling_ratio), height)  # (R, n, h)
    of_columns = interpolation_weights(*_points(x, wide, columns, width, sampling_ratio), width)  # (R, m, w)
    maps = features[rois[:, 0].long()].to(of_rows.dtype)  # (R, C, h, w)
    return (of_rows[:, None] @ maps @ of_columns[:, None].transpose(2, 3)).to(features.dtype)  # (R, C, n, m)


def interpolation_weights(place: Tensor, share: Tensor, size: int) -> Tensor:
    """How much each cell of an axis counts in each bin.

    Args:
        place: ``(R, count, S)`` the points of each bin, in cells; cell k has its value at k.
        share: ``(R, count, S)`` how much each point counts.
        size: cells of the map.

    Returns:
        ``(R, count, size)``. A cell gives a point 1 minus its distance from it, or nothing beyond a distance of 1: that
        is linear interpolation.

    >>> interpolation_weights(torch.tensor([[[1.25]]]), torch.ones(1, 1, 1), 4)
    tensor([[[0.0000, 0.7500, 0.2500, 0.0000]]])
    """
    cells = torch.arange(size, device=place.device)
    distance = (place[..., None] - cells).abs()  # (R, count, S, size)
    return ((1 - distance).clamp(min=0) * share[..., None]).sum(dim=2)


def _extent(
    features: Tensor, rois: Tensor, scale: float, aligned: bool
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Where regions start and how long they are, in cells, each ``(R,)``: first along y, then along x."""
    precise = rois.double() if features.dtype == torch.float64 else rois.float()
    x1, y1, x2, y2 = (precise[:, 1:] * scale - (0.5 if aligned else 0.0)).unbind(1)
    shortest = -torch.inf if aligned else 1.0
    return (y1, (y2 - y1).clamp(min=shortest)), (x1, (x2 - x1).clamp(min=shortest))


def _points(start: Tensor, length: Tensor, count: int, size: int, ratio: int) -> tuple[Tensor, Tensor]:
    """Along one axis: the points of each bin.

    Args:
        start: ``(R,)`` where regions begin, in cells.
        length: ``(R,)`` how long they are.
        count: bins of a region.
        size: cells of the map.
        ratio: points of a bin, or not positive: as many as its length in cells, rounded up.

    Returns:
        ``(R, count, S)`` places, on the map, and how much each counts: one share of as many as the bin has points, or 0
        if it lies outside.
    """
    length = length / count  # (R,) of a bin
    points = torch.full_like(length, ratio) if ratio > 0 else length.ceil().clamp(min=0)  # (R,)
    number = torch.arange(int(points.max()) if len(points) else 0, device=start.device)  # (S,)
    bins = torch.arange(count, device=start.device)[:, None]  # (count, 1)
    start, length, points = (value[:, None, None] for value in (start, length, points))
    # In the reference's order: a point on the very limit, a cell outside of the map, is in or out by the last digit.
    place = start + bins * length + (number + 0.5) * length / points.clamp(min=1)
    inside = (number < points) & (place >= -1) & (place <= size)
    return place.clamp(0, size - 1), inside / points.clamp(min=1)


def _cells_of_bins(place: Tensor, share: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Those cells alone that count in a bin, of which there are few.

    Args:
        place: see :func:`interpolation_weights`, also for the others.
        share: of each point.
        size: cells of the map.

    Returns:
        ``(R, count)`` int64, the first cell of each bin, and ``(R, count, K)``, the weights of it and of those behind.
    """
    if not share.numel():
        return place.new_zeros(place.shape[:2]).long(), place.new_zeros(*place.shape[:2], 1)
    first = torch.where(share > 0, place, size - 1).floor().amin(dim=-1)  # (R, count)
    last = torch.where(share > 0, place, -1).floor().amax(dim=-1) + 1
    longest = max(int((last - first).max()) + 1, 1)
    return first.long(), interpolation_weights(place - first[..., None], share, longest)


def _weighted_sums(
    features: Tensor, picture: Tensor, top: Tensor, row_weights: Tensor, left: Tensor, column_weights: Tensor
) -> Tensor:
    """The bins of all regions, each a weighted sum of its cells: ``(R · n · m, C)``."""
    height, width = features.shape[2:]
    rows = picture[:, None, None] * height + top[..., None] + torch.arange(row_weights.shape[2], device=top.device)
    columns = left[..., None] + torch.arange(column_weights.shape[2], device=left.device)  # (R, m, Kx)
    weights = row_weights[:, :, None, :, None] * column_weights[:, None, :, None, :]  # (R, n, m, Ky, Kx)
    cells = rows[:, :, None, :, None] * width + columns[:, None, :, None, :]
    counts = weights != 0
    length = counts.sum(dim=(3, 4)).flatten()  # (R · n · m,) cells of each bin
    places, used = cells[counts], ()
    if few := 2 * len(length) < features.shape[0] * height * width and not features.permute(0, 2, 3, 1).is_contiguous():
        used, places = _needed(features, places)
    dtype = features.dtype if features.dtype in (torch.float32, torch.float64) else torch.float32
    bags = {"offsets": length.cumsum(0) - length, "per_sample_weights": weights[counts].to(dtype), "mode": "sum"}
    # For few bins a copy of the map would be the most of work and memory: only cells that count, a third of the
    # channels at a time. Of many bins the sums are the most.
    parts = features.chunk(3 if few else 1, dim=1)
    sums = [F.embedding_bag(places, _table(part, used).to(dtype), **bags) for part in parts]
    return (torch.cat(sums, dim=1) if few else sums[0]).to(features.dtype)


def _needed(features: Tensor, cells: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
    """Which cells of ``(B, C, h, w)`` count: picture, row and column of each; and which of these each of cells is."""
    used = torch.zeros((len(features), *features.shape[2:]), dtype=torch.bool, device=cells.device)
    used.view(-1)[cells] = True
    return used.nonzero(as_tuple=True), (used.flatten().cumsum(0) - 1)[cells]


def _table(features: Tensor, used: tuple[Tensor, ...]) -> Tensor:
    """Those cells, or all, ``(U, C)``: what belongs to one lies side by side, which makes sums ten times as fast."""
    by_cell = features.permute(0, 2, 3, 1)  # (B, h, w, C)
    return by_cell[used] if used else by_cell.flatten(0, 2).contiguous()
