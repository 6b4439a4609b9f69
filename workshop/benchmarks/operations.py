"""Boxes, matching and pooling against torchvision, at the sizes at which the detectors of this course call them."""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torchvision import ops
from torchvision.models.detection._utils import BoxCoder, Matcher

from minircnn.boxes import batched_nms, box_iou, decode_boxes, encode_boxes, match, nms
from minircnn.pooling import roi_align, roi_pool, warp_regions
from workshop.benchmarks.timing import Case

OBJECTS, ANCHORS = 20, 10_000  # nine anchors in each of 33 × 33 cells, a square image of 528 pixels at stride 16
torchvision = partial(Case, reference="torchvision")


def seeded(seed: int) -> torch.Generator:
    """A generator of its own."""
    return torch.Generator().manual_seed(seed)


def close(tolerance: float) -> Callable[[Tensor, Tensor], bool]:
    """A check that two tensors differ by no more than this."""
    return partial(torch.allclose, atol=tolerance)


def random_boxes(count: int, seed: int = 0) -> Tensor:
    """``(count, 4)`` boxes of sides from 20 to 240 pixels in an image of 600 × 1000."""
    generator = seeded(seed)
    center = torch.rand(count, 2, generator=generator) * torch.tensor([1000.0, 600.0])
    half = torch.exp(torch.rand(count, 2, generator=generator) * 2.5) * 10
    return torch.cat([center - half, center + half], dim=1)


def box_cases() -> list[Case]:
    """Every operation of ``boxes.py`` that has a counterpart in torchvision."""
    objects, anchors, others = random_boxes(OBJECTS), random_boxes(ANCHORS, 1), random_boxes(ANCHORS)
    coder, matcher = BoxCoder((1.0, 1.0, 1.0, 1.0)), Matcher(0.7, 0.3, allow_low_quality_matches=True)
    iou, deltas = box_iou(objects, anchors), encode_boxes(others, anchors)

    def same_matches(ours: tuple[Tensor, Tensor], theirs: Tensor) -> bool:
        gt_index, label = ours
        return torch.equal(torch.where(label == 1, gt_index, torch.where(label == 0, -1, -2)), theirs)

    return [
        torchvision(
            name=f"box_iou, {OBJECTS} × {ANCHORS}",
            ours=lambda: box_iou(objects, anchors),
            theirs=lambda: ops.box_iou(objects, anchors),
            check=torch.equal,
        ),
        torchvision(
            name=f"match, {OBJECTS} × {ANCHORS}",
            ours=lambda: match(iou, 0.7, 0.3, allow_low_quality_matches=True),
            theirs=lambda: matcher(iou),
            check=same_matches,
        ),
        torchvision(
            name=f"encode_boxes, {ANCHORS}",
            ours=lambda: encode_boxes(others, anchors),
            theirs=lambda: coder.encode([anchors], [others])[0],
            check=close(1e-6),
        ),
        torchvision(
            name=f"decode_boxes, {ANCHORS}",
            ours=lambda: decode_boxes(others, deltas),
            theirs=lambda: coder.decode(deltas, [others])[:, 0],
            check=close(1e-3),
        ),
        *(case for count in (200, 2000, 6000) for case in _nms(count)),
    ]


def _nms(count: int) -> list[Case]:
    boxes, generator = random_boxes(count), seeded(2)
    whole = boxes.round()  # whole pixels, where torchvision's offsets between groups are exact
    scores = torch.randperm(count, generator=generator) / count  # no ties: torchvision's order of those is not fixed
    groups = torch.randint(0, 20, (count,), generator=generator)
    return [
        torchvision(
            name=f"nms, {count} boxes",
            ours=lambda: nms(boxes, scores, 0.5),
            theirs=lambda: ops.nms(boxes, scores, 0.5),
            check=torch.equal,
        ),
        torchvision(
            name=f"batched_nms, {count} boxes, 20 groups",
            ours=lambda: batched_nms(whole, scores, groups, 0.5),
            theirs=lambda: ops.batched_nms(whole, scores, groups, 0.5),
            check=torch.equal,
        ),
    ]


def pooling_cases() -> list[Case]:
    """Every operation of ``minircnn.pooling`` that has a counterpart in torchvision."""
    maps = (  # regions, channels, height, width, stride, grid
        (8, 256, 50, 68, 16, 7),
        (300, 128, 16, 16, 8, 6),  # Toy Town
        (512, 256, 50, 68, 16, 7),
        (2000, 512, 38, 50, 16, 7),  # the paper's network, image and proposals
    )
    grids = ((8, 7, 2), (512, 7, 2), (512, 7, -1), (100, 14, 2))  # regions, grid, sampling ratio
    return [
        _warp(size=128, regions=300, side=64),
        _warp(size=500, regions=200, side=227),
        *(_roi_pool(*sizes, backward) for sizes in maps for backward in (False, True)),
        *(_roi_align(*sizes, backward) for sizes in grids for backward in (False, True)),
    ]


def _warp(size: int, regions: int, side: int) -> Case:
    """Beside RoIAlign with one sample for each pixel, which does the same for boxes inside of an image."""
    image, boxes = torch.rand(3, size, size, generator=seeded(0)), _regions(regions, size, size, seeded(1))[:, 1:]
    return torchvision(
        name=f"warp_regions, {regions} of {side}² from {size}²",
        ours=lambda: warp_regions(image, boxes, side, context=0),
        theirs=lambda: ops.roi_align(image[None], [boxes], side, sampling_ratio=1, aligned=True),
        check=close(1e-3),
    )


def _roi_pool(regions: int, channels: int, height: int, width: int, stride: int, grid: int, backward: bool) -> Case:
    """On a feature map with many zeros, as ReLU leaves it."""
    features = torch.randn(1, channels, height, width, generator=seeded(0)).relu()
    name = f"roi_pool{' + gradient' if backward else ''}, {regions} of {grid}², {channels}×{height}×{width}"
    return _pooling(name, (roi_pool, ops.roi_pool), features, regions, stride, (grid,), backward, torch.equal)


def _roi_align(regions: int, grid: int, ratio: int, backward: bool) -> Case:
    """On the feature map of an image of 800 × 1088 pixels at stride 16."""
    features = torch.randn(1, 256, 50, 68, generator=seeded(0))
    name = f"roi_align{' + gradient' if backward else ''}, {regions} of {grid}², ratio {ratio}"
    check = close(1e-3 if backward else 1e-4)
    return _pooling(name, (roi_align, ops.roi_align), features, regions, 16, (grid, ratio, True), backward, check)


def _pooling(
    name: str,
    both: tuple[Callable[..., Tensor], Callable[..., Tensor]],
    features: Tensor,
    regions: int,
    stride: int,
    options: tuple[int, ...],
    backward: bool,
    check: Callable[[Tensor, Tensor], bool],
) -> Case:
    """Values, or gradients, of so many regions; the first of the options is the grid's size."""
    generator, (grid, *rest) = seeded(1), options
    rois = _regions(regions, features.shape[2] * stride, features.shape[3] * stride, generator)
    weights = torch.rand(regions, features.shape[1], grid, grid, generator=generator)

    def run(pool: Callable[..., Tensor]) -> Tensor:
        if not backward:
            return pool(features, rois, grid, 1 / stride, *rest)
        leaf = features.clone().requires_grad_()
        pool(leaf, rois, grid, 1 / stride, *rest).backward(weights)
        return leaf.grad

    ours, theirs = (partial(run, pool) for pool in both)
    return torchvision(name=name, ours=ours, theirs=theirs, check=check, memory=True)


def _regions(count: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Regions of image 0, of sides from a sixteenth of the shorter side to all of it, equally many of each scale."""
    side = torch.exp(torch.rand(count, 2, generator=generator) * math.log(16)) / 16 * min(height, width)
    size = torch.tensor([width, height])
    start = torch.rand(count, 2, generator=generator) * (size - side)
    return torch.cat([torch.zeros(count, 1), start, start + side], dim=1)
