"""Anchors: boxes of common shapes and sizes around every cell of a feature map, from which proposals start.

Ren, He, Girshick and Sun 2015, "Faster R-CNN", arXiv 1506.01497, section 3.1.1.

Shape comments: A anchors per cell, h w size of a feature map.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def base_anchors(sizes: Sequence[float], aspect_ratios: Sequence[float]) -> Tensor:
    """The anchors of one cell, around the origin: every size in every shape.

    Args:
        sizes: square roots of areas, in pixels.
        aspect_ratios: height divided by width: 2 is tall, like a person; 0.5 is wide, like a car.

    Returns:
        ``(A, 4)``, all sizes of the first ratio, then those of the next. Coordinates are whole numbers, as in the
        paper's code and torchvision; so areas and aspect_ratios are not quite those that were asked for.

    >>> base_anchors([16], [0.5, 1, 2])
    tensor([[-11.,  -6.,  11.,   6.],
            [ -8.,  -8.,   8.,   8.],
            [ -6., -11.,   6.,  11.]])
    """
    if not len(sizes) or not len(aspect_ratios) or min(*sizes, *aspect_ratios) <= 0:
        raise ValueError(
            f"sizes and aspect_ratios must be positive numbers, at least one each, but are {sizes} and {aspect_ratios}"
        )
    size, ratio = torch.as_tensor(sizes, dtype=torch.float32), torch.as_tensor(aspect_ratios, dtype=torch.float32)
    tall = ratio.sqrt()
    heights, widths = (tall[:, None] * size).flatten(), (1 / tall[:, None] * size).flatten()  # (A,)
    return (torch.stack([-widths, -heights, widths, heights], dim=1) / 2).round()


def grid_anchors(
    grid_size: tuple[int, int],
    stride: tuple[int, int],
    sizes: Sequence[float],
    aspect_ratios: Sequence[float],
    offset: float = 0.0,
) -> Tensor:
    """The anchors of all cells of a map.

    Args:
        grid_size: ``(h, w)`` of the map.
        stride: pixels from a cell to the next, down and across: ``image_size // grid_size`` of each axis. It is not
            always the product of the network's strides, because convolutions at the edge may lose or add a cell.
        sizes: see :func:`base_anchors`.
        aspect_ratios: see :func:`base_anchors`.
        offset: where in its cell an anchor's centre lies, as a share of the stride. Paper vs code: the paper's code has
            0.5, the middle, torchvision 0, the corner. Which is right depends on the padding of the convolutions.

    Returns:
        ``(h · w · A, 4)``: cell by cell, row by row, the anchors of a cell side by side. Nothing is clipped.

    >>> grid_anchors((1, 2), (8, 8), sizes=[4], aspect_ratios=[1])
    tensor([[-2., -2.,  2.,  2.],
            [ 6., -2., 10.,  2.]])
    """
    (h, w), (down, across) = grid_size, stride
    y, x = ((torch.arange(count) + offset) * step for count, step in ((h, down), (w, across)))
    centre = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).repeat(1, 1, 2)  # (h, w, 4): x, y, x, y
    return (centre.view(-1, 1, 4) + base_anchors(sizes, aspect_ratios)).view(-1, 4)
