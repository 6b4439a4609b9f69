"""RoIAlign on a pyramid against torchvision's MultiScaleRoIAlign."""

import math

import pytest
import torch
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.poolers import LevelMapper

from minircnn.pooling import multiscale_roi_align, pyramid_level, roi_align, to_rois

STRIDES = (4, 8, 16, 32)


def pyramid(size=(192, 256), channels=3, requires_grad=False):
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(2, channels, size[0] // s, size[1] // s, generator=generator).requires_grad_(requires_grad)
        for s in STRIDES
    ]


def boxes_of_all_sizes(counts=(40, 25)):
    """From a pixel to more than the picture, over two pictures."""
    generator, found = torch.Generator().manual_seed(1), []
    for count in counts:
        corner = torch.rand(count, 2, generator=generator) * 150
        side = 2 ** (9 * torch.rand(count, 2, generator=generator))
        found.append(torch.cat([corner, corner + side], dim=1))
    return found


@pytest.mark.parametrize("size, ratio", [(7, 2), (14, 2), ((3, 5), -1)])
@pytest.mark.parametrize("counts", [(40, 25), (0, 9), (1, 0), (0, 0)])
def test_equals_torchvisions(size, ratio, counts):
    boxes, found = boxes_of_all_sizes(counts), []
    for ours in (True, False):
        levels = pyramid(requires_grad=True)
        if ours:
            pooled = multiscale_roi_align(levels, to_rois(boxes), size, STRIDES, ratio)
        else:
            pool = MultiScaleRoIAlign([str(number) for number in range(4)], size, ratio)
            named = {str(number): level for number, level in enumerate(levels)}
            pooled = pool(named, boxes, [(192, 256)] * 2)
        (pooled * torch.arange(pooled.numel()).view(pooled.shape).cos()).sum().backward()
        gradients = [torch.zeros_like(level) if level.grad is None else level.grad for level in levels]
        found.append([pooled.detach(), *gradients])
    for ours, theirs in zip(*found, strict=True):
        assert ours.shape == theirs.shape and torch.allclose(ours, theirs, atol=1e-4)


def test_levels_equal_torchvisions_mapper():
    boxes = torch.cat(boxes_of_all_sizes((500, 500)))
    edges = torch.tensor([[0.0, 0, side, side] for side in (0, 1, 28, 55.999, 56, 112, 223.999, 224, 447.9, 448, 1e6)])
    for some in (boxes, edges):
        assert torch.equal(pyramid_level(some), LevelMapper(2, 5)([some]) + 2)
    assert pyramid_level(edges).tolist() == [2, 2, 2, 2, 2, 3, 3, 4, 4, 5, 5]


@pytest.mark.parametrize("side", [30, 60, 100, 113, 150, 170, 224, 300, 400, 500])
def test_equation_one_by_hand(side):
    level = min(max(math.floor(4 + math.log2(side / 224)), 2), 5)
    assert pyramid_level(torch.tensor([[5.0, 9.0, 5.0 + side, 9.0 + side]])).tolist() == [level]


def test_one_level_is_plain_roi_align():
    level, rois = pyramid()[1], to_rois(boxes_of_all_sizes())
    assert torch.equal(
        multiscale_roi_align([level], rois, 7, [8], 2, aligned=True), roi_align(level, rois, 7, 1 / 8, 2, aligned=True)
    )


def test_each_region_comes_from_its_own_level():
    """Levels of one number each, which is the level's own, and regions in no order."""
    levels = [torch.full((2, 1, 640 // s, 640 // s), float(number + 2)) for number, s in enumerate(STRIDES)]
    sides = torch.tensor([[500.0, 60, 230, 130], [60, 460, 120, 600]])
    boxes = [torch.cat([torch.full((4, 2), 8.0), 8 + side[:, None].expand(4, 2)], dim=1) for side in sides]
    values = multiscale_roi_align(levels, to_rois(boxes), 1, STRIDES, 1).flatten()
    assert values.tolist() == [5, 2, 4, 3, 2, 5, 3, 5]


def test_degenerate_boxes():
    rois = torch.tensor([[0.0, 5, 5, 5, 5], [1.0, 9, 9, 3, 3], [1.0, 9, 9, 3, 20]])
    levels = pyramid()
    pool = MultiScaleRoIAlign(["0", "1", "2", "3"], 7, 2)
    assert pyramid_level(rois[:, 1:]).tolist() == [2, 2, 2]
    wanted = pool({str(n): level for n, level in enumerate(levels)}, [rois[:1, 1:], rois[1:2, 1:]], [(192, 256)] * 2)
    assert torch.allclose(multiscale_roi_align(levels, rois[:2], 7, STRIDES, 2), wanted, atol=1e-5)


@pytest.mark.parametrize("strides", [(4, 8, 16), (4, 8, 16, 64), (3, 6, 12, 24), (32, 16, 8, 4), ()])
def test_strides_that_do_not_fit_are_refused(strides):
    with pytest.raises(ValueError, match="strides must be powers of 2 for each of 4 levels"):
        multiscale_roi_align(pyramid(), torch.zeros(1, 5), 7, strides)


def test_no_levels_are_refused():
    with pytest.raises(ValueError, match="0 levels"):
        multiscale_roi_align([], torch.zeros(1, 5), 7, ())
