"""Masks of the branch's own small grid, back in the picture.

Shape comments: N detections, m side of a mask, H W size of the picture.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pycocotools import mask as rle
from torch import Tensor

from minircnn.pooling import interpolation_weights

Part = tuple[slice, slice]


def paste_masks(masks: Tensor, boxes: Tensor, size: tuple[int, int], aligned: bool = True) -> Tensor:
    """Stretches each mask over its box (Mask R-CNN, section 3.1, "Inference").

    Args:
        masks: ``(N, m, m)`` probabilities.
        boxes: ``(N, 4)`` in pixels of the picture; parts outside of it are cut off.
        size: ``(H, W)`` of the picture.
        aligned: whether a mask lies exactly on its box. Paper vs code: the first programs, and torchvision, stretch it
            over whole pixels, from the corner cut down to a whole number up to the one that holds the other corner.
            Without ``aligned`` the values are torchvision's, pixel by pixel.

    Returns:
        ``(N, 1, H, W)`` probabilities in torchvision's form. Around a box they fade out: beyond a mask's edge is 0.

    >>> paste_masks(torch.ones(1, 2, 2), torch.tensor([[1.0, 1.0, 3.0, 3.0]]), (4, 4))[0, 0]
    tensor([[0., 0., 0., 0.],
            [0., 1., 1., 0.],
            [0., 1., 1., 0.],
            [0., 0., 0., 0.]])
    """
    pasted = masks.new_zeros(len(masks), 1, *size)
    for image, parts in zip(pasted, _stretched(masks, boxes, size, aligned), strict=True):
        for place, values in parts:
            image[0][place] = values
    return pasted


def encode_pasted(
    masks: Tensor, boxes: Tensor, size: tuple[int, int], aligned: bool = True, threshold: float = 0.5
) -> list[dict[str, Any]]:
    """:func:`paste_masks` and :func:`binary_masks`, as COCO's run-length encodings, one mask after the other.

    A hundred masks of 24 megapixels take 10 GB as probabilities. Here one lies in memory at a time.

    Args:
        masks: see :func:`paste_masks`, also for the next three.
        boxes: of the masks.
        size: of the image.
        aligned: whether a mask lies exactly on its box.
        threshold: what a probability must exceed, at least 0.

    Returns:
        N dicts of ``size`` ``[H, W]`` and ``counts``, as pycocotools makes them.

    >>> one = encode_pasted(torch.ones(1, 2, 2), torch.tensor([[1.0, 1.0, 3.0, 3.0]]), (4, 4))
    >>> one[0]["size"], int(rle.area(one[0])), rle.toBbox(one[0]).tolist()
    ([4, 4], 4, [1.0, 1.0, 2.0, 2.0])
    """
    canvas, encoded = np.zeros(size[::-1], dtype=np.uint8).T, []  # runs go down the columns
    for parts in _stretched(masks, boxes, size, aligned):
        canvas.fill(0)
        for place, values in parts:
            canvas[place] = (values > threshold).cpu().numpy()
        encoded.append(rle.encode(canvas))
    return encoded


def _stretched(
    masks: Tensor, boxes: Tensor, size: tuple[int, int], aligned: bool
) -> Iterator[list[tuple[Part, Tensor]]]:
    """For each mask the part of the image that it reaches, if any, and its values there."""
    if masks.dim() != 3 or masks.shape[1] != masks.shape[2] or len(masks) != len(boxes):
        raise ValueError(f"masks must be (N, m, m) for {len(boxes)} boxes, but are {tuple(masks.shape)}")
    stretch = _stretch if aligned else _stretch_over_whole_pixels
    return (stretch(mask, box, size) for mask, box in zip(masks, boxes.tolist(), strict=True))


def _stretch(mask: Tensor, box: list[float], size: tuple[int, int]) -> list[tuple[Part, Tensor]]:
    """The part of the image that a mask reaches, see :func:`_stretched`."""
    parts, weights = [], []
    for low, high, pixels in ((box[1], box[3], size[0]), (box[0], box[2], size[1])):
        cell = max(high - low, 1e-6) / len(mask)  # in pixels
        first, last = max(math.floor(low - cell), 0), min(math.ceil(high + cell), pixels)
        if first >= last:
            return []
        middle = torch.arange(first, last, device=mask.device) + 0.5  # of each pixel
        place = (middle - low) / cell - 0.5  # cell k has its value in its middle, at k + 1/2
        parts.append(slice(first, last))
        weights.append(interpolation_weights(place[None, :, None], torch.ones_like(place)[None, :, None], len(mask))[0])
    return [((parts[0], parts[1]), weights[0].to(mask.dtype) @ mask @ weights[1].to(mask.dtype).T)]


def _stretch_over_whole_pixels(mask: Tensor, box: list[float], size: tuple[int, int]) -> list[tuple[Part, Tensor]]:
    """The same, as torchvision does it: a row of zeros on each side, and the box grown with them."""
    mask = F.pad(mask, (1, 1, 1, 1))
    x1, y1, x2, y2 = _grown(torch.tensor(box), len(mask) - 2)
    height, width = size
    left, top, right, bottom = max(x1, 0), max(y1, 0), min(x2 + 1, width), min(y2 + 1, height)
    if left >= right or top >= bottom:
        return []
    tall, wide = max(y2 - y1 + 1, 1), max(x2 - x1 + 1, 1)
    stretched = F.interpolate(mask[None, None], size=(tall, wide), mode="bilinear", align_corners=False)[0, 0]
    part = stretched[top - y1 : bottom - y1, left - x1 : right - x1]
    return [((slice(top, bottom), slice(left, right)), part)]


def _grown(box: Tensor, side: int) -> list[int]:
    """The box of a mask that a row has been added to on each side, in whole pixels."""
    scale = (side + 2) / side
    half, middle = (box[2:] - box[:2]) * 0.5, (box[2:] + box[:2]) * 0.5
    return torch.cat([middle - half * scale, middle + half * scale]).long().tolist()


def binary_masks(detections: dict[str, Tensor], threshold: float = 0.5) -> dict[str, Tensor]:
    """Detections with a decision about each pixel, as evaluation and pictures want them: ``masks`` (N, H, W) bool."""
    return {**detections, "masks": detections["masks"][:, 0] > threshold}
