"""2014: the *pixels* of each region are warped to a square, and the network sees one square after the other.

Shape comments: R regions, S side of the warped square, H W picture size.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

WARP_MODES = ("warp", "square with context", "square without context")


def warp_regions(
    image: Tensor,
    boxes: Tensor,
    size: int,
    context: float = 16.0,
    mode: str = "warp",
    fill: Sequence[float] = (0.0, 0.0, 0.0),
) -> Tensor:
    """Regions of a picture as squares of one size: what R-CNN shows to its network (R-CNN, appendix A).

    Three ways to get from a box to a square, the figure's columns D, B and C:

    * "warp": stretch the box in each direction as much as it takes. Shapes get distorted; nothing is lost or added.
    * "square with context": take the tightest square around the box. What lies beside the object comes with it.
    * "square without context": the same square, but only the box is kept in it; the rest is ``fill``.

    All three leave ``context`` pixels of the result on each side for what surrounds the box (the square) in the
    picture. Places outside of the picture are ``fill``.

    Every pixel of the result takes the bilinear interpolation of the picture at its own centre. Paper vs code: the
    paper does not say how its pictures were shrunk and stretched; R-CNN's program did it like this, without
    anti-aliasing, but with box edges rounded to whole pixels.

    Args:
        image: ``(3, H, W)`` floats.
        boxes: ``(R, 4)``. They may reach outside of the picture, or lie there, or have no area.
        size: S, the side of the squares.
        context: pixels of the result on each side that show surroundings; 16 of 227 in the paper. Less than S / 2.
        mode: one of ``WARP_MODES``.
        fill: the colour of what is not in the picture; the network's mean colour in the paper.

    Returns:
        ``(R, 3, S, S)``, of the image's type; computed at least in single precision, and for all regions at once.

    Raises:
        ValueError: a shape, the size, the context, the mode or the colour does not fit, or a box holds nan or infinity.

    >>> image = torch.arange(16.0).view(1, 4, 4).expand(3, 4, 4)
    >>> warp_regions(image, torch.tensor([[1.0, 1.0, 3.0, 3.0]]), size=2, context=0)[0, 0]
    tensor([[ 5.,  6.],
            [ 9., 10.]])
    """
    _check_warp(image, boxes, size, context, mode, fill)
    if image.dtype not in (torch.float32, torch.float64):  # half precision cannot tell one place from the next
        return warp_regions(image.float(), boxes, size, context, mode, fill).to(image.dtype)
    boxes = boxes.to(image.dtype)
    inner = boxes if mode == "warp" else _tightest_squares(boxes)
    # The inner S - 2 * context pixels of the result are the box; the margin shows the picture around it at that scale.
    source = _grow(inner, context / (size - 2 * context))  # (R, 4)
    x = _sample_places(source[:, 0], source[:, 2], size)  # (R, S) in pixels of the picture
    y = _sample_places(source[:, 1], source[:, 3], size)
    height, width = image.shape[1:]
    seen_x, seen_y = (x >= 0) & (x <= width), (y >= 0) & (y <= height)  # (R, S)
    if mode == "square without context":
        kept = _grow(boxes, context / (size - 2 * context), reference=inner)
        seen_x &= (x >= kept[:, 0, None]) & (x <= kept[:, 2, None])
        seen_y &= (y >= kept[:, 1, None]) & (y <= kept[:, 3, None])
    seen = seen_y[:, None, :, None] & seen_x[:, None, None, :]  # (R, 1, S, S)
    background = image.new_tensor(fill).view(1, 3, 1, 1)
    return torch.where(seen, _bilinear(image, x, y), background)


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
        raise ValueError(f"fill must be a colour of 3 numbers, but has {len(fill)}")


def _tightest_squares(boxes: Tensor) -> Tensor:
    """The smallest squares around boxes, with the same centres: (R, 4)."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]).amax(dim=1, keepdim=True) / 2
    return torch.cat([centre - half, centre + half], dim=1)


def _grow(boxes: Tensor, share: float, reference: Tensor | None = None) -> Tensor:
    """Boxes with a margin of a share of their sides (or of the reference boxes' sides) all around: (R, 4)."""
    reference = boxes if reference is None else reference
    margin = share * (reference[:, 2:] - reference[:, :2])
    return torch.cat([boxes[:, :2] - margin, boxes[:, 2:] + margin], dim=1)


def _sample_places(start: Tensor, end: Tensor, size: int) -> Tensor:
    """Where the centres of ``size`` equal cells between start and end lie: (R,), (R,) to (R, size)."""
    share = (torch.arange(size, dtype=start.dtype, device=start.device) + 0.5) / size
    return start[:, None] + share * (end - start)[:, None]


def _bilinear(image: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """The picture at all pairs of places, between the centres of its pixels: (3, H, W), (R, S), (R, S) to (R, 3, S, S).

    Beyond the centres of the outermost pixels their values hold.
    """
    height, width = image.shape[1:]
    across, down = 2 * x / width - 1, 2 * y / height - 1  # from -1 to 1, as grid_sample counts
    regions, size = x.shape
    grid = torch.stack(
        [across[:, None, :].expand(-1, size, -1), down[:, :, None].expand(-1, -1, size)], dim=-1
    )  # (R, S, S, 2)
    rows = grid.reshape(1, regions * size, size, 2)
    sampled = F.grid_sample(image[None], rows, padding_mode="border", align_corners=False)  # (1, 3, R * S, S)
    return sampled.view(3, regions, size, size).transpose(0, 1)
