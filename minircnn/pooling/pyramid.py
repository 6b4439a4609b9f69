"""RoIAlign on a pyramid: large regions from coarse maps, small regions from fine ones.

Lin et al. 2017, "Feature Pyramid Networks for Object Detection", arXiv 1612.03144, section 4.2.

Shape comments: B images, C channels, R regions, n m rows and columns of the grid.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from minircnn.pooling.roialign import roi_align
from minircnn.pooling.roipool import read_regions

CANONICAL_SIZE, CANONICAL_LEVEL = 224, 4  # an object that fills a picture of ImageNet belongs to P4, of stride 16


def pyramid_level(boxes: Tensor, lowest: int = 2, highest: int = 5) -> Tensor:
    """Which level each box is taken from (equation 1): k = ⌊4 + log₂(√(w h) / 224)⌋.

    Half as large is one level finer, so that a region has about as many cells whatever its size.

    Args:
        boxes: ``(R, 4)`` in pixels of the picture as the trunk sees it.
        lowest: the finest level that there is; level k has stride 2ᵏ.
        highest: the coarsest.

    Returns:
        ``(R,)`` int64. A box of no size belongs to the lowest.

    >>> pyramid_level(torch.tensor([[0.0, 0.0, 224.0, 224.0], [0, 0, 112, 112], [0, 0, 112, 448], [0, 0, 9, 9]]))
    tensor([4, 3, 4, 2])
    """
    size = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).sqrt()
    # A little more than the equation, as in the reference: 224 is not to fall below its level by rounding.
    level = (CANONICAL_LEVEL + torch.log2(size / CANONICAL_SIZE) + 1e-6).floor()
    return level.nan_to_num(lowest, neginf=lowest).clamp(lowest, highest).long()


def multiscale_roi_align(
    levels: Sequence[Tensor],
    rois: Tensor | Sequence[Tensor],
    output_size: int | tuple[int, int],
    strides: Sequence[int],
    sampling_ratio: int = -1,
    aligned: bool = False,
) -> Tensor:
    """Regions as grids of one size, each from the level that suits its size.

    Args:
        levels: feature maps, each ``(B, C, h, w)``, from fine to coarse.
        rois: as for :func:`roi_align`.
        output_size: see there, also for the last two.
        strides: pixels per cell of each level: powers of 2, each twice the one before.
        sampling_ratio: points of a bin along an axis.
        aligned: whether cell k is centred at k + 1/2.

    Returns:
        ``(R, C, n, m)``, in the order of ``rois``.

    Raises:
        ValueError: see :func:`roi_align`; or strides do not fit.

    >>> fine, coarse = torch.zeros(1, 1, 64, 64), torch.ones(1, 1, 32, 32)
    >>> rois = torch.tensor([[0.0, 0.0, 0.0, 224.0, 224.0], [0.0, 0.0, 0.0, 100.0, 100.0]])
    >>> multiscale_roi_align([fine, coarse], rois, 1, strides=[8, 16], sampling_ratio=1).flatten()
    tensor([1., 0.])
    """
    lowest = int(strides[0]).bit_length() - 1 if len(strides) else 0
    if list(strides) != [2 ** (lowest + number) for number in range(len(levels))] or not len(levels):
        raise ValueError(
            f"strides must be a power of 2 for each of {len(levels)} levels, doubling, not {list(strides)}"
        )
    rois, *_ = read_regions(levels[0], rois, output_size)
    level = pyramid_level(rois[:, 1:], lowest, lowest + len(levels) - 1) - lowest  # (R,)
    order = level.argsort(stable=True)
    parts = [
        roi_align(features, rois[level == number], output_size, 1 / stride, sampling_ratio, aligned)
        for number, (features, stride) in enumerate(zip(levels, strides, strict=True))
    ]
    return torch.cat(parts)[order.argsort()]
