"""Regions to tensors of fixed size, against torchvision."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torchvision import ops

from minircnn.benchmarks.timing import Case
from minircnn.pooling import roi_align, roi_pool, warp_regions


def cases() -> list[Case]:
    """Every operation of ``minircnn.pooling`` that has a counterpart in torchvision."""
    return [
        _warp(size=128, regions=300, side=64),
        _warp(size=500, regions=200, side=227),
        *(
            _roi_pool(regions, channels, height, width, stride, grid, backward)
            for regions, channels, height, width, stride, grid in (
                (8, 256, 50, 68, 16, 7),
                (300, 128, 16, 16, 8, 6),  # Toy Town
                (512, 256, 50, 68, 16, 7),
                (2000, 512, 38, 50, 16, 7),  # the paper's network, picture and proposals
            )
            for backward in (False, True)
        ),
        *(
            _roi_align(regions, grid, ratio, backward)
            for regions, grid, ratio in ((8, 7, 2), (512, 7, 2), (512, 7, -1), (100, 14, 2))
            for backward in (False, True)
        ),
    ]


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


def _roi_pool(regions: int, channels: int, height: int, width: int, stride: int, grid: int, backward: bool) -> Case:
    """On a map with many zeros, as ReLU leaves it."""
    features = torch.randn(1, channels, height, width, generator=torch.Generator().manual_seed(0)).relu()
    name = f"roi_pool{' + gradient' if backward else ''}, {regions} of {grid}², {channels}×{height}×{width}"
    return _pooling(name, roi_pool, ops.roi_pool, features, regions, stride, (grid,), backward, torch.equal)


def _roi_align(regions: int, grid: int, ratio: int, backward: bool) -> Case:
    """On the map of a picture of 800 × 1088 pixels at stride 16."""
    features = torch.randn(1, 256, 50, 68, generator=torch.Generator().manual_seed(0))
    name = f"roi_align{' + gradient' if backward else ''}, {regions} of {grid}², ratio {ratio}"

    def agree(ours: Tensor, theirs: Tensor) -> bool:
        return torch.allclose(ours, theirs, atol=1e-3 if backward else 1e-4)

    return _pooling(name, roi_align, ops.roi_align, features, regions, 16, (grid, ratio, True), backward, agree)


def _pooling(
    name: str,
    ours: Callable[..., Tensor],
    theirs: Callable[..., Tensor],
    features: Tensor,
    regions: int,
    stride: int,
    options: tuple[int, ...],
    backward: bool,
    agree: Callable[[Tensor, Tensor], bool],
) -> Case:
    """Values, or values and gradients, of so many regions; the first of the options is the grid's size."""
    generator, (grid, *rest) = torch.Generator().manual_seed(1), options
    rois = _regions(regions, features.shape[2] * stride, features.shape[3] * stride, generator)
    weights = torch.rand(regions, features.shape[1], grid, grid, generator=generator)

    def run(pool: Callable[..., Tensor]) -> Tensor:
        if not backward:
            return pool(features, rois, grid, 1 / stride, *rest)
        leaf = features.clone().requires_grad_()
        pool(leaf, rois, grid, 1 / stride, *rest).backward(weights)
        return leaf.grad

    return Case(name, "torchvision", lambda: run(ours), lambda: run(theirs), agree, memory=True)


def _regions(count: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Regions of picture 0, of sides from a sixteenth of the shorter side to all of it, equally many of each scale."""
    side = torch.exp(torch.rand(count, 2, generator=generator) * math.log(16)) / 16 * min(height, width)
    size = torch.tensor([width, height])
    start = torch.rand(count, 2, generator=generator) * (size - side)
    return torch.cat([torch.zeros(count, 1), start, start + side], dim=1)
