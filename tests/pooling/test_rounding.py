"""Where RoIPool looks, against what it takes; RoIWarp; the example of the story."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision import ops

from minircnn.pooling import misalignment, roi_align, roi_warp
from tests.pooling.test_roialign import maps
from tests.pooling.test_roipool import anywhere


def test_the_example_of_the_story():
    """Of 128 pixels that became 25 cells, 15 pixels are 2.93 cells."""
    example = misalignment((0, 0, 15, 15), (128, 128), (25, 25), output_size=2, sampling_ratio=2)
    assert example.exact == pytest.approx((0, 0, 15 * 25 / 128, 15 * 25 / 128))
    assert round(example.exact[2], 2) == 2.93
    assert example.rounded_down == (0, 0, 2, 2)
    assert example.pooled == (0, 0, 4, 4)  # 2.93 is rounded to 3, and cell 3 counts in
    assert example.shift == pytest.approx((0, 0, 4 * 5.12 - 15, 4 * 5.12 - 15))
    assert example.iou == pytest.approx(15**2 / 20.48**2)
    quarter = 15 * 25 / 128 / 4
    across = example.points[0, :, 0, :, 0].flatten()
    assert across.tolist() == pytest.approx([quarter * (k + 0.5) for k in range(4)])
    assert torch.equal(example.points[:, 0, :, 0, 1].flatten(), across)


@given(st.integers(0, 10**6))
def test_pooled_cells_are_those_that_change_torchvisions_roi_pool(seed):
    """A map with one cell that is 1: RoIPool sees it if, and only if, it is one of the cells named."""
    generator = torch.Generator().manual_seed(seed)
    x1, y1 = (torch.rand(2, generator=generator) * 80).tolist()
    region = (x1, y1, x1 + 1 + seed % 40, y1 + 1 + seed % 23)
    left, top, right, bottom = misalignment(region, (128, 160), (16, 20)).pooled
    units = torch.eye(16 * 20).view(16 * 20, 1, 16, 20)
    rois = torch.tensor([[k, *region] for k in range(16 * 20)])
    seen = ops.roi_pool(units, rois, 1, 1 / 8).view(16, 20) > 0
    expected = torch.zeros(16, 20, dtype=torch.bool)
    expected[top:bottom, left:right] = True
    assert torch.equal(seen, expected)


def test_points_are_where_roi_align_samples():
    """On a map that is its own coordinate, the mean of a bin is the mean of its points."""
    region = (9.0, 17.0, 61.0, 43.0)
    points = misalignment(region, (80, 100), (10, 20), output_size=3, sampling_ratio=2).points  # strides of 8 and 5
    for axis, stride in ((0, 5), (1, 8)):
        ramp = (torch.arange(20.0) if axis == 0 else torch.arange(10.0)[:, None]).expand(10, 20) + 0.5
        box = torch.tensor([[0.0, *region]]) / torch.tensor([1, 5, 8, 5, 8])
        found = roi_align(ramp[None, None], box, 3, 1.0, 2, aligned=True)[0, 0]
        assert torch.allclose(found.double(), points[..., axis].mean(dim=(2, 3)), atol=1e-5), stride


def test_shift_is_none_on_whole_cells():
    """Up to the last cell, which RoIPool counts in."""
    assert misalignment((16, 8, 32, 24), (64, 64), (8, 8)).shift == (0, 0, 8, 8)


def test_roi_warp_is_torchvisions_roi_align_of_rounded_regions():
    features, rois = maps(), anywhere(200)
    cells = rois.clone()
    scaled = rois[:, 1:].double() / 8
    whole = torch.where(scaled < 0, (scaled - 0.5).ceil(), (scaled + 0.5).floor())  # half away from zero
    cells[:, 1:3] = whole[:, :2]
    cells[:, 3:] = torch.maximum(whole[:, 2:], whole[:, :2]) + 1
    expected = ops.roi_align(features, cells, 5, 1.0, 2, True)
    assert torch.allclose(roi_warp(features, rois, 5, 1 / 8), expected, atol=1e-5)
    assert roi_warp(features, rois[:0], 5, 1 / 8).shape == (0, 3, 5, 5)


@pytest.mark.parametrize(
    ("region", "size"),
    [((5, 5, 5, 9), (8, 8)), ((0, 0, float("nan"), 4), (8, 8)), ((0, 0, 4), (8, 8)), ((0, 0, 4, 4), (0, 8))],
)
def test_empty_regions_and_sizes_are_refused(region, size):
    with pytest.raises(ValueError, match="must"):
        misalignment(region, (64, 64), size)
