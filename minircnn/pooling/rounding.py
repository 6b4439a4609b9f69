"""What rounding does to a region: where RoIPool looks, where it should look, and how far apart the two are.

He, Gkioxari, Dollár and Girshick 2017, "Mask R-CNN", arXiv 1703.06870, section 3. RoIWarp: Dai, He and Sun 2016,
"Instance-aware semantic segmentation via multi-task network cascades", arXiv 1512.04412.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from minircnn.pooling.roialign import roi_align
from minircnn.pooling.roipool import read_regions, round_half_away


@dataclass(frozen=True)
class Misalignment:
    """One region, as three ways of pooling see it. Boxes are x1, y1, x2, y2; cell k reaches from k to k + 1.

    Attributes:
        exact: the region in cells, not rounded: what RoIAlign pools.
        rounded_down: whole cells, fractions left away, as the story is often told.
        pooled: the whole cells that RoIPool takes: edges rounded to the nearest number, the last cell included.
        points: ``(n, m, S, S, 2)`` where RoIAlign samples, x and y, in cells.
        shift: how far the edges of what RoIPool takes are from the region's, in pixels of the picture; positive is to
            the right or downwards.
        iou: of what RoIPool takes with the region.
    """

    exact: tuple[float, float, float, float]
    rounded_down: tuple[int, int, int, int]
    pooled: tuple[int, int, int, int]
    points: Tensor
    shift: tuple[float, float, float, float]
    iou: float


def misalignment(
    region: Sequence[float],
    image_size: tuple[int, int],
    feature_size: tuple[int, int],
    output_size: int = 2,
    sampling_ratio: int = 2,
) -> Misalignment:
    """What becomes of a region of a picture on a feature map (Mask R-CNN, section 3, "RoIAlign").

    Args:
        region: x1, y1, x2, y2 in pixels.
        image_size: ``(height, width)`` of the picture.
        feature_size: ``(height, width)`` of the map, in cells.
        output_size: rows and columns of bins.
        sampling_ratio: points of a bin along an axis.

    Raises:
        ValueError: the region is empty, or a size is.

    The example of the story: of 128 pixels that became 25 cells, 15 pixels are 2.93 cells.

    >>> example = misalignment((0, 0, 15, 15), image_size=(128, 128), feature_size=(25, 25))
    >>> round(example.exact[2], 2), example.rounded_down[2], example.pooled[2]
    (2.93, 2, 4)
    >>> [round(pixels, 2) for pixels in example.shift]
    [0.0, 0.0, 5.48, 5.48]
    """
    box = torch.tensor([float(value) for value in region], dtype=torch.float64)
    if box.shape != (4,) or not (box.isfinite().all() and (box[2:] > box[:2]).all()):
        raise ValueError(f"region must be x1, y1, x2, y2 with x1 < x2 and y1 < y2, but is {tuple(region)}")
    if min(*image_size, *feature_size, output_size, sampling_ratio) < 1:
        raise ValueError("image_size, feature_size, output_size and sampling_ratio must all be at least 1")
    cells_per_pixel = box.new_tensor([f / i for f, i in zip(feature_size, image_size, strict=True)])[[1, 0, 1, 0]]
    exact = box * cells_per_pixel
    pooled = _taken(exact)
    low, high = torch.maximum(exact[:2], pooled[:2]), torch.minimum(exact[2:], pooled[2:])
    shared = (high - low).clamp(min=0).prod()
    union = (exact[2:] - exact[:2]).prod() + (pooled[2:] - pooled[:2]).prod() - shared
    return Misalignment(
        exact=tuple(exact.tolist()),
        rounded_down=tuple(exact.floor().int().tolist()),
        pooled=tuple(pooled.int().tolist()),
        points=_sampling_points(exact, output_size, sampling_ratio),
        shift=tuple(((pooled - exact) / cells_per_pixel).tolist()),
        iou=float(shared / union),
    )


def roi_warp(
    features: Tensor,
    rois: Tensor | Sequence[Tensor],
    output_size: int | tuple[int, int],
    spatial_scale: float,
    sampling_ratio: int = 2,
) -> Tensor:
    """Half of both: the region is rounded to whole cells as in RoIPool, then interpolated as in RoIAlign.

    With it one can tell which half matters: Mask R-CNN's table 2c.

    Args:
        features: ``(B, C, h, w)``.
        rois: as for :func:`roi_align`.
        output_size: rows and columns of the grid.
        spatial_scale: cells per pixel.
        sampling_ratio: points of a bin along an axis; see :func:`roi_align`.

    Returns:
        ``(R, C, n, m)``. Only the edges of regions differ from ``roi_align(…, aligned=True)``.

    >>> features, rois = torch.rand(1, 2, 8, 8), torch.tensor([[0.0, 8.0, 8.0, 31.0, 31.0]])
    >>> cells = torch.tensor([[0.0, 1.0, 1.0, 5.0, 5.0]])  # 31 / 8 is rounded to 4, and cell 4 is the last one
    >>> torch.equal(roi_warp(features, rois, 2, 1 / 8), roi_align(features, cells, 2, 1.0, 2, aligned=True))
    True
    """
    rois, rows, columns = read_regions(features, rois, output_size)
    cells = torch.cat([rois[:, :1], _taken(rois[:, 1:] * spatial_scale)], dim=1)
    return roi_align(features, cells, (rows, columns), 1.0, sampling_ratio, aligned=True)


def _taken(regions: Tensor) -> Tensor:
    """The whole cells that RoIPool takes: ``(…, 4)`` in cells to ``(…, 4)``, half open, at least one cell each way."""
    first, last = round_half_away(regions[..., :2]), round_half_away(regions[..., 2:])
    return torch.cat([first, torch.maximum(last, first) + 1], dim=-1)


def _sampling_points(exact: Tensor, count: int, ratio: int) -> Tensor:
    """The points of a grid's bins: (4,) region in cells to (n, m, S, S, 2)."""
    steps = (torch.arange(count * ratio, dtype=exact.dtype) + 0.5) / (count * ratio)
    x, y = (exact[axis] + steps * (exact[axis + 2] - exact[axis]) for axis in (0, 1))
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)  # (n · S, m · S, 2)
    return grid.view(count, ratio, count, ratio, 2).transpose(1, 2)
