"""RoIPool's bins as rectangles of cells, and the list of all cells of all bins.

Shape comments: N bins, L cells of all bins together.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Bins:
    """Rectangles of cells; each attribute is ``(N,)`` int64.

    Attributes:
        picture: on whose feature map it lies.
        top: its first row of cells.
        left: its first column of cells.
        height: how many rows, 0 for an empty bin.
        width: how many columns, 0 for an empty bin.
    """

    picture: Tensor
    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor


def list_cells(bins: Bins, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Lists the cells of bins on maps of ``height`` by ``width`` cells, bin after bin, each of them row by row.

    Returns:
        ``(L,)`` rows of the table of all cells of all maps, ``(B · h · w, C)``, and ``(N,)`` where in the list each bin
        begins.

    >>> zero, two = torch.tensor([0]), torch.tensor([2])
    >>> list_cells(Bins(zero, torch.tensor([1]), torch.tensor([3]), two, two), height=4, width=10)
    (tensor([13, 14, 23, 24]), tensor([0]))
    """
    count = bins.height * bins.width  # (N,)
    start = count.cumsum(0) - count
    owner = torch.repeat_interleave(count)  # (L,)
    number = torch.arange(len(owner), device=owner.device) - start[owner]  # within its bin
    row = number.div(bins.width[owner], rounding_mode="floor")
    column = number - row * bins.width[owner]
    first = (bins.picture * height + bins.top) * width + bins.left  # (N,)
    return first[owner] + row * width + column, start
