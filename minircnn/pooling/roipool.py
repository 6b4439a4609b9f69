"""2015: each region is a part of the feature map, cut into a grid of bins; the largest value of each bin is kept.

Girshick 2015, "Fast R-CNN", arXiv 1504.08083, section 2.1.

Shape comments: B images, C channels, h w size of the feature map, R regions, n m rows and columns of the grid.
"""

from collections.abc import Iterator, Sequence
from functools import reduce

import torch
from torch import Tensor

from minircnn.pooling.bins import Bins, list_cells

_EACH_LENGTH = 16  # cells, a power of 2; see _largest_values


def to_rois(boxes: Sequence[Tensor]) -> Tensor:
    """The regions of all pictures of a batch in one tensor, each with the number of its picture in front.

    Args:
        boxes: for each picture ``(P, 4)``; P may be 0.

    Returns:
        ``(R, 5)``: picture, x1, y1, x2, y2.

    >>> to_rois([torch.tensor([[0.0, 1.0, 2.0, 3.0]]), torch.tensor([[4.0, 5.0, 6.0, 7.0]])])
    tensor([[0., 0., 1., 2., 3.],
            [1., 4., 5., 6., 7.]])
    """
    if not len(boxes):
        raise ValueError("boxes must hold a tensor (P, 4) for each picture, but there is no picture")
    pictures = [found.new_full((len(found), 1), index) for index, found in enumerate(boxes)]
    return torch.cat([torch.cat([picture, found], dim=1) for picture, found in zip(pictures, boxes, strict=True)])


def roi_pool(
    features: Tensor, rois: Tensor | Sequence[Tensor], output_size: int | tuple[int, int], spatial_scale: float
) -> Tensor:
    """Regions of feature maps as grids of one size, each cell the largest value of its bin (Fast R-CNN, section 2.1).

    A region goes through two roundings. First its edges, divided by the stride, are rounded to whole cells of the map.
    Then these cells are divided into n by m bins, whose edges are rounded again, outwards, so that neighbouring bins
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
    rois, rows, columns = read_regions(features, rois, output_size)
    bins = _cut_into_bins(rois, rows, columns, spatial_scale, *features.shape[2:])
    cells = features.permute(0, 2, 3, 1).contiguous()  # (B, h, w, C): what belongs to a cell lies side by side
    if features.requires_grad and torch.is_grad_enabled():
        pooled = _largest_cells(cells.flatten(0, 2), bins, *features.shape[2:])
    else:
        pooled = _largest_values(cells, bins)
    return pooled.view(len(rois), rows, columns, features.shape[1]).permute(0, 3, 1, 2)


def read_regions(
    features: Tensor, rois: Tensor | Sequence[Tensor], output_size: int | tuple[int, int]
) -> tuple[Tensor, int, int]:
    """The regions as ``(R, 5)`` without a gradient, and rows and columns of the grid, for every kind of pooling.

    Raises:
        ValueError: see :func:`roi_pool`.
    """
    rows, columns = (output_size, output_size) if isinstance(output_size, int) else output_size
    if features.dim() != 4 or not features.is_floating_point() or 0 in features.shape[2:]:
        raise ValueError(
            f"features must be a float tensor (B, C, h, w), but are {features.dtype} of {tuple(features.shape)}"
        )
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
    return rois.detach(), rows, columns


def _cut_into_bins(rois: Tensor, rows: int, columns: int, scale: float, height: int, width: int) -> Bins:
    """Both roundings: (R, 5) regions in pixels to bins in cells of a map of height x width."""
    x1, y1, x2, y2 = round_half_away(rois[:, 1:] * scale).unbind(1)  # (R,) whole cells, the last ones included
    top, bottom = _cut(y1, y2, rows, height)  # (R, n)
    left, right = _cut(x1, x2, columns, width)  # (R, m)
    shape = (len(rois), rows, columns)
    tall, wide = (bottom - top)[:, :, None].expand(shape), (right - left)[:, None, :].expand(shape)
    filled = (tall > 0) & (wide > 0)
    picture, top, left = rois[:, 0].long()[:, None, None], top[:, :, None], left[:, None, :]
    return Bins(
        *(value.expand(shape).flatten() for value in (picture, top, left)),
        (tall * filled).flatten(),
        (wide * filled).flatten(),
    )


def round_half_away(values: Tensor) -> Tensor:
    """Rounds 0.5 to 1 and -0.5 to -1, as C does; torch.round would round both to 0, the nearest even number."""
    whole = values.trunc()
    return whole + values.sign() * ((values - whole).abs() >= 0.5)


def _cut(first: Tensor, last: Tensor, count: int, size: int) -> tuple[Tensor, Tensor]:
    """Cuts intervals of cells into ``count`` bins: (R,), (R,) to where bins start and end, (R, count) int64 each.

    Bins that reach beyond the ``size`` cells of the map are cut off there. The length of a bin is computed in the type
    of the regions, single precision as a rule: where it should come out as a whole number, it may be a little more, and
    then the bin ends a cell later. The reference does the same.
    """
    length = ((last - first + 1).clamp(min=1) / count)[:, None]  # (R, 1) cells in a bin
    number = torch.arange(count, device=first.device, dtype=first.dtype)
    start, end = (number * length).floor(), ((number + 1) * length).ceil()  # (R, count)
    first = first[:, None]
    return (start + first).clamp(0, size).long(), (end + first).clamp(0, size).long()


def _largest_values(cells: Tensor, bins: Bins) -> Tensor:
    """The largest value of each bin: (B, h, w, C) to (bins, C). For prediction, where no gradient is asked for.

    Thousands of bins overlap, but they come in a few dozen sizes. So the map is pooled once for each size, with windows
    of that size at every place, and each bin is looked up at its place. Larger windows grow out of smaller ones, by one
    comparison for each cell. Beyond ``_EACH_LENGTH`` cells only every doubled length has its windows: a bin in between
    is the largest of two that overlap, so that long bins, on maps of slim images, do not take more sizes than time.
    """
    pooled = cells.new_zeros(len(bins.top), cells.shape[-1])
    members = _by_window(bins)
    for width, across in _sliding_largest(cells, 2, max((width for width, _ in members), default=0)):
        tallest = max((height for w, height in members if w == width), default=0)
        for height, largest in _sliding_largest(across, 1, tallest):
            if (width, height) in members:
                chosen = members[width, height]
                _, rows, columns, _ = largest.shape
                table = largest.flatten(0, 2)
                place = (bins.picture[chosen] * rows + bins.top[chosen]) * columns + bins.left[chosen]
                places = [place]
                if height >= _EACH_LENGTH:
                    places += [place + (bins.height[chosen] - height) * columns for place in places]
                if width >= _EACH_LENGTH:
                    places += [place + bins.width[chosen] - width for place in places]
                pooled[chosen] = reduce(torch.maximum, (table.index_select(0, place) for place in places))
    return pooled


def _by_window(bins: Bins) -> dict[tuple[int, int], Tensor]:
    """The numbers of the bins that windows of each (width, height) cover, one or some that overlap."""
    width, height = map(_window, (bins.width, bins.height))
    base = int(height.max()) + 1 if len(height) else 1
    sizes, of_size, count = (width * base + height).unique(return_inverse=True, return_counts=True)
    members = of_size.argsort().split(count.tolist())
    return {divmod(size, base): chosen for size, chosen in zip(sizes.tolist(), members, strict=True)}


def _window(side: Tensor) -> Tensor:
    """How long the windows are that cover bins of these lengths: as long, or from some length on a power of 2."""
    if not len(side) or side.max() < _EACH_LENGTH:
        return side
    return torch.where(side < _EACH_LENGTH, side, 2 ** (torch.frexp(side.float()).exponent - 1))


def _sliding_largest(cells: Tensor, dim: int, longest: int) -> Iterator[tuple[int, Tensor]]:
    """For windows of 1, 2, … cells along a dimension, from ``_EACH_LENGTH`` on doubled: length, and largest values."""
    largest, length = cells, 1
    while length <= longest:
        yield length, largest
        step = 1 if length < _EACH_LENGTH else length
        places = largest.shape[dim] - step
        if length + step > longest or places < 1:
            return
        largest = torch.maximum(largest.narrow(dim, 0, places), largest.narrow(dim, step, places))
        length += step


def _largest_cells(table: Tensor, bins: Bins, height: int, width: int) -> Tensor:
    """The same as :func:`_largest_values`, with a gradient: (B · h · w, C) cells to (bins, C).

    The bins' cells are listed, bin after bin, and torch finds in which cell each channel has its maximum (a bin is a
    "bag" of rows of a table). What is picked there is a copy, through which the gradient goes back.
    """
    cells, start = list_cells(bins, height, width)
    with torch.no_grad():
        _, _, _, place = torch.embedding_bag(table, cells, start, mode=2)  # 2: maximum
    empty = (bins.height * bins.width == 0)[:, None]
    if place.is_cuda:
        place.masked_fill_(empty, 0)  # there the largest cell of an empty bin is number -1
    return table.gather(0, place).masked_fill_(empty, 0)
