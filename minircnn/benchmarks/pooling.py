"""Regions to tensors of fixed size, against torchvision."""

import torch
from torch import Tensor
from torchvision import ops

from minircnn.benchmarks._timing import Case
from minircnn.pooling import warp_regions


def cases() -> list[Case]:
    """Every operation of ``pooling.py`` that has a counterpart in torchvision."""
    return [_warp(size=128, regions=300, side=64), _warp(size=500, regions=200, side=227)]


def _warp(size: int, regions: int, side: int) -> Case:
    """Beside RoIAlign with one sample for each pixel, which does the same for boxes inside of a picture."""
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(3, size, size, generator=generator)
    start = torch.rand(regions, 2, generator=generator) * 0.5 * size
    boxes = torch.cat([start, start + (0.1 + 0.4 * torch.rand(regions, 2, generator=generator)) * size], dim=1)

    def agree(ours: Tensor, theirs: Tensor) -> bool:
        return torch.allclose(ours, theirs, atol=1e-3)

    return Case(
        f"warp_regions, {regions} of {side}² from {size}²",
        "torchvision",
        lambda: warp_regions(image, boxes, side, context=0),
        lambda: ops.roi_align(image[None], [boxes], side, sampling_ratio=1, aligned=True),
        agree,
    )
