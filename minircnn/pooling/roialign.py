"""2017: nothing is rounded. Values between cells are interpolated, at a few points of each bin, and averaged.

He, Gkioxari, Dollár and Girshick 2017, "Mask R-CNN", arXiv 1703.06870, section 3, "RoIAlign".

Shape comments: B images, C channels, h w size of the feature map, R regions, n m rows and columns of the grid, S points
of a bin along an axis, K cells of a bin along an axis.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from minircnn.pooling.bins import Bins, list_cells
from minircnn.pooling.roipool import check_pooling


def roi_align(
    features: Tensor,
    rois: Tensor,
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
        rois: ``(R, 5)``: picture, x1, y1, x2, y2 in pixels of the picture; R may be 0. See :func:`to_rois`.
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
        ValueError: a shape does not fit, a region is not finite, or its picture does not exist.

    >>> features = torch.arange(16.0).view(1, 1, 4, 4)
    >>> roi_align(features, torch.tensor([[0.0, 0.0, 0.0, 32.0, 32.0]]), 2, 1 / 8, sampling_ratio=2, aligned=True)
    tensor([[[[ 2.5000,  4.5000],
              [10.5000, 12.5000]]]])
    """
    rows, columns = (output_size, output_size) if isinstance(output_size, int) else output_size
    check_pooling(features, rois, rows, columns)
    height, width = features.shape[2:]
    precise = rois.double() if features.dtype == torch.float64 else rois.float()
    x1, y1, x2, y2 = (precise[:, 1:] * spatial_scale - (0.5 if aligned else 0.0)).unbind(1)
    shortest = -torch.inf if aligned else 1.0
    tall, wide = (y2 - y1).clamp(min=shortest), (x2 - x1).clamp(min=shortest)  # (R,) cells
    top, row_weights = _axis(y1, tall, rows, height, sampling_ratio)  # (R, n), (R, n, K)
    left, column_weights = _axis(x1, wide, columns, width, sampling_ratio)  # (R, m), (R, m, K)
    table = features.permute(0, 2, 3, 1).flatten(0, 2)  # (B · h · w, C): what belongs to a cell lies side by side
    pooled = _weighted_sums(table, rois[:, 0].long(), top, row_weights, left, column_weights, (height, width))
    return pooled.view(len(rois), rows, columns, features.shape[1]).permute(0, 3, 1, 2)


def _axis(start: Tensor, length: Tensor, count: int, size: int, ratio: int) -> tuple[Tensor, Tensor]:
    """Along one axis: which cells each bin looks at, and how much each of them counts.

    Args:
        start: ``(R,)`` where regions begin, in cells.
        length: ``(R,)`` how long they are.
        count: bins of a region.
        size: cells of the map.
        ratio: points of a bin, or not positive.

    Returns:
        ``(R, count)`` int64, the first cell of each bin, and ``(R, count, K)``, the weights of it and of those behind.
    """
    bin_length = length / count  # (R,)
    points = torch.full_like(bin_length, ratio) if ratio > 0 else bin_length.ceil().clamp(min=0)  # (R,)
    number = torch.arange(int(points.max()) if len(points) else 0, device=start.device)  # (S,)
    bins = torch.arange(count, device=start.device)[:, None]  # (count, 1)
    start, bin_length, points = (value[:, None, None] for value in (start, bin_length, points))
    # In the reference's order: a point on the very limit, a cell outside of the map, is in or out by the last digit.
    place = start + bins * bin_length + (number + 0.5) * bin_length / points.clamp(min=1)  # (R, count, S)
    counts = (number < points) & (place >= -1) & (place <= size)
    place = place.clamp(0, size - 1)
    first = torch.where(counts, place, size).floor().amin(dim=-1) if len(number) else place.new_zeros(place.shape[:2])
    last = torch.where(counts, place, -1).floor().amax(dim=-1) + 1 if len(number) else first
    first = first.clamp(max=size - 1)
    cells = torch.arange(max(int((last - first).max()) + 1 if len(first) else 1, 1), device=start.device)  # (K,)
    # Bilinear interpolation gives a cell 1 minus its distance from the point, or nothing beyond a distance of 1.
    distance = (place[..., None, :] - (first[..., None] + cells)[..., None]).abs()  # (R, count, K, S)
    shares = (1 - distance).clamp(min=0) * counts[..., None, :]
    return first.long(), shares.sum(dim=-1) / points.clamp(min=1)


def _weighted_sums(
    table: Tensor,
    picture: Tensor,
    top: Tensor,
    row_weights: Tensor,
    left: Tensor,
    column_weights: Tensor,
    size: tuple[int, int],
) -> Tensor:
    """The bins of all regions, each a weighted sum of its cells: ``(B · h · w, C)`` to ``(R · n · m, C)``."""
    shape = (*top.shape, left.shape[1])  # R, n, m
    tall, wide = ((weights != 0).cumsum(-1).argmax(-1) + 1 for weights in (row_weights, column_weights))  # to the last
    tall, wide = tall * (row_weights != 0).any(-1), wide * (column_weights != 0).any(-1)

    def of_rows(value: Tensor) -> Tensor:
        return value[:, :, None].expand(shape).flatten()

    def of_columns(value: Tensor) -> Tensor:
        return value[:, None, :].expand(shape).flatten()

    picture = picture[:, None, None].expand(shape).flatten()
    bins = Bins(picture, of_rows(top), of_columns(left), of_rows(tall), of_columns(wide))
    listed = list_cells(bins, *size)
    numbers = torch.arange(row_weights.shape[0] * shape[1], device=table.device).view(shape[:2])
    of_row = of_rows(numbers)[listed.owner] * row_weights.shape[-1] + listed.row
    numbers = torch.arange(column_weights.shape[0] * shape[2], device=table.device).view(shape[0], shape[2])
    of_column = of_columns(numbers)[listed.owner] * column_weights.shape[-1] + listed.column
    weights = row_weights.flatten()[of_row] * column_weights.flatten()[of_column]  # (L,)
    wide_enough = table if table.dtype in (torch.float32, torch.float64) else table.float()
    sums = F.embedding_bag(
        listed.cell, wide_enough, listed.start, mode="sum", per_sample_weights=weights.to(wide_enough.dtype)
    )
    return sums.to(table.dtype)
