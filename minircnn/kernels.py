"""The fast forms of NMS, RoIPool, RoIAlign and fc6. A reader may skip this file: it computes nothing new.

What these functions compute is written plainly in :mod:`minircnn.boxes` and :mod:`minircnn.pooling`
(``nms_loop``, ``roi_pool_loop``, ``roi_align_separable``); the tests prove that both give the same.

Shape comments: N boxes or bins, B images, C channels, h w size of the feature map, R regions, n m rows and columns of
the grid, Ky Kx rows and columns of cells that a bin reaches, L cells of all bins together.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# Boxes that NMS settles at a time. Larger blocks mean fewer steps, but more overlaps computed between boxes of
# which one is about to be dropped. A GPU computes millions of them in less time than the next step takes to begin.
NMS_BLOCK, NMS_BLOCK_ON_GPU = 256, 2048
NMS_STEP = 128  # the same of groups in a batch
NMS_PAIRS, NMS_PAIRS_ON_GPU = 2**17, 2**23  # of boxes compared in a step, about what a core's cache holds
_EACH_LENGTH = 16  # cells, a power of 2; see largest_values
_FEW = 10  # times as many cells in all bins as in the maps: of fewer, listing them takes less time than sorting
_BINS = 2**17  # of RoIAlign that are summed at a time, where there are many
_PART, _PART_ON_GPU = 2**17, 2**25  # values that are moved at a time: about what a core's cache holds


# ---------------------------------------------------------------------------------------------------------------- NMS


def greedy_nms(
    boxes: Tensor, iou_threshold: float, max_keep: int | None, iou: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """Which of ``(N, 4)`` boxes survive, given best first: positions, ascending, at most about ``max_keep``.

    Settles a block of boxes, drops what the survivors suppress among those behind it, and repeats.
    """
    threshold, size = _round_down(iou_threshold, boxes.dtype), NMS_BLOCK_ON_GPU if boxes.is_cuda else NMS_BLOCK
    if len(boxes) <= size:
        return _resolve(iou(boxes, boxes).gt_(threshold)).nonzero()[:, 0]
    left = torch.arange(len(boxes), device=boxes.device)  # positions that are neither kept nor dropped
    kept, found = [left[:0]], 0
    while len(left) and (max_keep is None or found < max_keep):
        block, left = left[:size], left[size:]
        # nan is not greater, so a pair of boxes without area (0 / 0) never drops one another.
        survivors = block[_resolve(iou(boxes[block], boxes[block]).gt_(threshold))]
        kept.append(survivors)
        found += len(survivors)
        if len(left):
            few = (NMS_PAIRS_ON_GPU if boxes.is_cuda else NMS_PAIRS) // max(len(survivors), 1)
            parts = [iou(boxes[survivors], behind).gt_(threshold).amax(dim=0) for behind in boxes[left].split(few)]
            left = left[torch.cat(parts) == 0]
    return torch.cat(kept)


def greedy_nms_in_groups(
    boxes: Tensor,
    groups: Tensor,
    iou_threshold: float,
    max_keep: int | None,
    iou: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """The same within each of ``(N,)`` groups.

    A step of torch takes long to begin, whatever it works on. So groups of like size are settled side by side, as a
    batch that empty boxes fill up; large ones, of which most boxes are soon dropped, go one by one.
    """
    if len(boxes) <= NMS_BLOCK:  # one step for all of them
        threshold = _round_down(iou_threshold, boxes.dtype)
        return _resolve(iou(boxes, boxes).gt_(threshold).mul_(groups[:, None] == groups)).nonzero()[:, 0]
    by_group = groups.argsort(stable=True)  # best first within each
    boxes, counts = boxes[by_group], groups[by_group].unique_consecutive(return_counts=True)[1]
    starts, batches, kept = counts.cumsum(0) - counts, defaultdict(list), []
    for start, length in zip(starts.tolist(), counts.tolist(), strict=True):
        if length <= 2 * NMS_BLOCK:
            batches[(length - 1).bit_length()].append((start, length))
        else:
            kept.append(start + greedy_nms(boxes[start : start + length], iou_threshold, max_keep, iou))
    pairs = NMS_PAIRS_ON_GPU if boxes.is_cuda else NMS_PAIRS
    for batch in batches.values():
        start, length = torch.tensor(batch, device=boxes.device).T[..., None]  # (G, 1)
        place = torch.arange(int(length.max()), device=boxes.device)  # (n,) within its group
        left, position = place < length, start + place  # (G, n)
        padded = boxes.new_zeros(*left.shape, 4)
        padded[left] = boxes[position[left]]
        few = max(1, pairs // (NMS_STEP * len(place)))
        for part, left_of_part in zip(padded.split(few), left.split(few), strict=True):
            _greedy_nms_of_batch(part, left_of_part, iou_threshold, iou)
        kept.append(position[left])
    return by_group[torch.cat(kept)].sort().values


def _greedy_nms_of_batch(
    boxes: Tensor, left: Tensor, iou_threshold: float, iou: Callable[[Tensor, Tensor], Tensor]
) -> None:
    """Of ``(G, n, 4)`` boxes that are ``left`` ``(G, n)``, leave only the survivors."""
    threshold = _round_down(iou_threshold, boxes.dtype)
    for first in range(0, boxes.shape[1], NMS_STEP):
        end = first + NMS_STEP
        suppresses = iou(boxes[:, first:end], boxes[:, first:]).gt_(threshold)  # (G, NMS_STEP, n - first)
        left[:, first:end] = _resolve(suppresses[..., :NMS_STEP], left[:, first:end])
        if end < boxes.shape[1]:
            survivors = left[:, None, first:end].to(boxes)
            left[:, end:] &= (survivors @ suppresses[..., NMS_STEP:])[:, 0] == 0


def _round_down(threshold: float, dtype: torch.dtype) -> float:
    """The nearest number of this type that is not above a threshold.

    IoUs are single precision as a rule, and the threshold is double. Rounded to the nearest single, 0.6 would grow a
    little, and an IoU of exactly that single would not count as greater. Rounded down, the comparison has the same
    outcome as one in double precision, torchvision's.
    """
    if dtype == torch.float64:
        return threshold
    rounded = np.float32(threshold)
    return float(np.nextafter(rounded, np.float32(-np.inf)) if float(rounded) > threshold else rounded)


def _resolve(suppresses: Tensor, left: Tensor | None = None) -> Tensor:
    """Who survives greedy NMS, given who would suppress whom: ``(…, N, N)`` 1 or 0, best first, to ``(…, N)`` bool.

    A box survives if it is ``left`` (all are, if nothing is said) and no survivor before it suppresses it. Starting
    from "all survive" and applying that sentence again and again settles box i after at most i rounds; real images
    need a handful. ``suppresses`` is changed.
    """
    before = suppresses.triu_(1)  # only a better box suppresses
    left = before.new_ones(before.shape[:-1]) if left is None else left.to(before)
    survives = left
    while True:
        update = (survives[..., None, :] @ before == 0)[..., 0, :] * left
        if torch.equal(update, survives):
            return survives.bool()
        survives = update


# ------------------------------------------------------------------------------------------------------------ RoIPool


@dataclass(frozen=True)
class Bins:
    """Rectangles of cells, each attribute ``(N,)`` int64: image, first row and column, rows and columns (or 0, 0)."""

    image: Tensor
    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor


class LargestCells(torch.autograd.Function):
    """RoIPool once its bins are known, with a gradient, which goes to the first of the largest cells of each bin.

    ``apply`` takes ``(B, C, h, w)``, the R, n and m of the bins, and the bins; it gives ``(R, C, n, m)``.

    The largest value does not tell where it was. So the cells of a channel are numbered by their rank, of equal ones
    the first has the highest, and what is pooled is their ranks: a number says which value it is and where the gradient
    goes. Of few bins the cells are listed instead, for ranks need all cells sorted. Values and gradients are moved a
    part at a time, which stays in a core's cache.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, grid: tuple[int, int, int], bins: Bins) -> Tensor:  # noqa: ANN401, D102
        channels, count = features.shape[1], bins.height * bins.width
        few = int(count.sum()) < _FEW * (features.numel() // max(channels, 1))
        number, values, cells = (_first_listed if few else _first_by_rank)(features, bins)
        empty, step = (count == 0).nonzero()[:, 0], _part(features, channels)
        pooled = values.new_empty(len(number), channels)
        for part, out in zip(number.split(step), pooled.split(step), strict=True):
            torch.gather(values, 0, part.long(), out=out)
        pooled.index_fill_(0, empty, 0)
        number.index_fill_(0, empty, len(values))  # one row more than there are, for gradients that go nowhere
        ctx.save_for_backward(number, cells)
        ctx.shape, ctx.grid = features.shape, grid
        return pooled.view(*grid, channels).permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable  # a gradient of the gradient is refused
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401, D102
        (number, cells), (images, channels, height, width) = ctx.saved_tensors, ctx.shape
        _, rows, columns = ctx.grid
        sums = gradient.new_zeros(images * height * width + 1, channels)
        step = _part(gradient, channels * rows * columns)
        for part, own in zip(number.split(step * rows * columns), gradient.split(step), strict=True):
            sums.scatter_add_(0, part.long(), own.permute(0, 2, 3, 1).flatten(0, 2))
        sums = sums[:-1].view(images, height * width, channels).transpose(1, 2).contiguous()
        if len(cells):  # from ranks back to cells
            sums = torch.empty_like(sums).scatter_(2, cells, sums)
        return sums.view(ctx.shape), None, None


def _part(like: Tensor, each: int) -> int:
    """How many things of so many values are moved at a time."""
    return max((_PART_ON_GPU if like.is_cuda else _PART) // max(each, 1), 1)


def _first_by_rank(features: Tensor, bins: Bins) -> tuple[Tensor, Tensor, Tensor]:
    """For each bin and channel the rank of its first largest cell ``(N, C)``; values ``(L, C)`` by rank, and cells.

    Ranks count through all cells of the batch, image after image, in each channel from the smallest value up.
    """
    images, _, height, width = features.shape
    size = height * width
    first = size * torch.arange(images, device=features.device)[:, None, None]
    flat = features.detach().flatten(2).contiguous()  # (B, C, h · w)
    cells = _by_value(flat)
    values = _by_cell(flat.gather(2, cells))
    kind = torch.int16 if images * size < 2**15 else torch.int32
    ranks = (first + torch.arange(size, device=first.device)).to(kind).expand(cells.shape)
    ranks = torch.empty_like(ranks, memory_format=torch.contiguous_format).scatter_(2, cells, ranks)
    number = largest_values(_by_cell(ranks).view(images, height, width, -1), bins)
    return number, values, cells


def _by_value(cells: Tensor) -> Tensor:
    """The places along the last dimension in the order of values, the smallest first; of equals the first comes last.

    NumPy sorts whole numbers twenty times as fast as torch sorts others along with their places. So each value and its
    place become one number, whose upper half are the bits of the value.
    """
    last = cells.shape[-1] - 1
    if cells.is_cuda or cells.dtype == torch.float64:
        return last - cells.flip(-1).sort(dim=-1, stable=True).indices
    bits = (cells.float() + 0.0).view(torch.int32)  # -0 becomes the 0 that it equals
    bits ^= (bits >> 31).bitwise_and_(0x7FFFFFFF)  # the bits of numbers below 0 count backwards
    both = bits.long().bitwise_left_shift_(32).bitwise_or_(torch.arange(last, -1, -1))
    both.numpy().sort(axis=-1)
    return both.bitwise_and_(0xFFFFFFFF).neg_().add_(last)


def _first_listed(features: Tensor, bins: Bins) -> tuple[Tensor, Tensor, Tensor]:
    """The same by cells instead of ranks: their numbers ``(N, C)``, values by number ``(L, C)``, and nothing.

    The bins' cells are listed, bin after bin, each row by row, and torch finds in which cell each channel has its
    maximum (a bin is a "bag" of rows of a table).
    """
    height, width = features.shape[2:]
    count = bins.height * bins.width  # (N,)
    start = count.cumsum(0) - count  # where in the list each bin begins
    owner = torch.repeat_interleave(count)
    number = torch.arange(len(owner), device=owner.device) - start[owner]  # within its bin
    row = number.div(bins.width[owner], rounding_mode="floor")
    first = (bins.image * height + bins.top) * width + bins.left  # (N,)
    listed = first[owner] + row * width + (number - row * bins.width[owner])
    table = _by_cell(features.detach().flatten(2))
    _, _, _, place = torch.embedding_bag(table, listed, start, mode=2)  # 2: maximum
    return place.clamp_(min=0), table, place[:0]  # on a GPU the largest cell of an empty bin is number -1


def _by_cell(values: Tensor) -> Tensor:
    """``(B, C, L)`` to ``(B · L, C)``: side by side what belongs to a cell."""
    return values.transpose(1, 2).contiguous().flatten(0, 1)


def largest_values(cells: Tensor, bins: Bins) -> Tensor:
    """The same without a gradient, and faster: ``(B, h, w, C)`` to ``(N, C)``, the largest values, or 0.

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
                places = [(bins.image[chosen] * rows + bins.top[chosen]) * columns + bins.left[chosen]]
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


# ----------------------------------------------------------------------------------------------------------- RoIAlign


def sums_of_bins(
    features: Tensor, image: Tensor, rows: tuple[Tensor, Tensor], columns: tuple[Tensor, Tensor]
) -> Tensor:
    """Weighted sums of cells: RoIAlign once the weights are known.

    Args:
        features: ``(B, C, h, w)``.
        image: ``(R,)`` int64.
        rows: ``(R, n)`` int64, the first row of cells of each row of bins; and ``(R, n, Ky)``, the weights of that row
            and those behind it.
        columns: the same along x, ``(R, m)`` and ``(R, m, Kx)``. A cell's weight is that of its row times its column's.

    Returns:
        ``(R, C, n, m)`` of the type of ``features``.
    """
    (top, row_weights), (left, column_weights) = rows, columns
    channels, height, width = features.shape[1:]
    if not channels:  # of which embedding_bag fails on several threads
        return features.new_zeros(len(top), 0, top.shape[1], left.shape[1])
    step = _BINS // (top.shape[1] * left.shape[1]) or 1
    if len(top) > 4 * step and not top.is_cuda:  # of fewer, putting the parts together takes more than they save
        features = features.contiguous(memory_format=torch.channels_last)  # once for all parts
        parts = zip(*(each.split(step) for each in (image, *rows, *columns)), strict=True)
        return torch.cat([sums_of_bins(features, of, part[:2], part[2:]) for of, *part in parts])
    y = image[:, None, None] * height + top[..., None] + torch.arange(row_weights.shape[2], device=top.device)
    x = left[..., None] + torch.arange(column_weights.shape[2], device=left.device)  # (R, m, Kx)
    weights = row_weights[:, :, None, :, None] * column_weights[:, None, :, None, :]  # (R, n, m, Ky, Kx)
    cells = y[:, :, None, :, None] * width + x[:, None, :, None, :]
    counts = weights != 0
    length = counts.sum(dim=(3, 4)).flatten()  # (R · n · m,) cells of each bin
    places = cells[counts]
    # For few bins a copy of the map would be the most of work and memory: only cells that count, a third of the
    # channels at a time. Of many bins the sums are the most.
    by_cell = features.permute(0, 2, 3, 1)  # (B, h, w, C): side by side what belongs to a cell, sums take a tenth
    few = 2 * len(length) < len(features) * height * width and not by_cell.is_contiguous()
    if few:
        needed = torch.zeros(by_cell.shape[:3], dtype=torch.bool, device=places.device)
        needed.view(-1)[places] = True
        places, needed = (needed.flatten().cumsum(0) - 1)[places], needed.nonzero(as_tuple=True)
    dtype = features.dtype if features.dtype in (torch.float32, torch.float64) else torch.float32
    bags = {"offsets": length.cumsum(0) - length, "per_sample_weights": weights[counts].to(dtype), "mode": "sum"}
    tables = (
        part[needed] if few else part.flatten(0, 2).contiguous() for part in by_cell.chunk(3 if few else 1, dim=3)
    )
    sums = [F.embedding_bag(places, table.to(dtype), **bags) for table in tables]
    pooled = (torch.cat(sums, dim=1) if few else sums[0]).to(features.dtype)  # (R · n · m, C)
    return pooled.view(*top.shape, left.shape[1], channels).permute(0, 3, 1, 2)


# ---------------------------------------------------------------------------------------------- fully connected layers


class RegionLinear(nn.Linear):
    """A fully connected layer on maps of fixed size, computed as the convolution that it is.

    Each of its neurons has a weight for every channel of every cell: a filter as large as the map, which fits in one
    place only. A CPU's convolutions are often faster than its matrix products, and a map need not become a row first.

    >>> maps, layer = torch.rand(5, 4, 3, 3), RegionLinear(4 * 3 * 3, 10)
    >>> torch.allclose(layer(maps), F.linear(maps.flatten(1), layer.weight, layer.bias), atol=1e-6)
    True
    """

    _kept: tuple[object, Tensor] | None = None  # filters in the order of channels_last, and which weights they are of

    def forward(self, maps: Tensor) -> Tensor:
        """``(R, C, n, m)``, or rows ``(R, C · n · m)``, to ``(R, D)``."""
        if maps.dim() == 2 or maps.is_cuda:  # on a GPU products are fast, and not every filter is as large in 16 bits
            return super().forward(maps.flatten(1))
        filters = self.weight.view(self.out_features, *maps.shape[1:])
        if not (torch.is_grad_enabled() or self.weight.is_inference() or maps.is_contiguous()):
            # RoIPool's maps are channels_last in memory: keep the filters in that order, until the weights change.
            version = (self.weight.data_ptr(), self.weight._version, filters.shape)
            if self._kept is None or self._kept[0] != version:
                self._kept = (version, filters.contiguous(memory_format=torch.channels_last))
            filters = self._kept[1]
        return F.conv2d(maps, filters, self.bias).flatten(1)

    @classmethod
    def of(cls, layer: nn.Linear) -> "RegionLinear":
        """The same layer, with the same tensors."""
        region = cls(layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta")
        region.weight, region.bias = layer.weight, layer.bias
        return region
