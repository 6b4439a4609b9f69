"""RoIAlign against torchvision, a loop over points, values worked by hand and finite differences."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision import ops

from minircnn.course.compare import peak_memory
from minircnn.pooling import roi_align, roi_align_separable
from tests.pooling.test_roipool import anywhere, regions


def maps(pictures=2, channels=3, height=9, width=13, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(pictures, channels, height, width, generator=generator, dtype=torch.float64).to(dtype)


def loop(features, rois, rows, columns, scale, ratio, aligned):
    """The definition, one point after the other, in double precision."""
    result = torch.zeros(len(rois), features.shape[1], rows, columns, dtype=torch.float64)
    height, width = features.shape[2:]

    def at(plane, y, x):
        if y < -1 or y > height or x < -1 or x > width:
            return torch.zeros(plane.shape[0], dtype=torch.float64)
        y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
        top, left = int(y), int(x)
        bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
        v, u = y - top, x - left
        upper = (1 - u) * plane[:, top, left] + u * plane[:, top, right]
        return (1 - v) * upper + v * ((1 - u) * plane[:, bottom, left] + u * plane[:, bottom, right])

    for r, (picture, *box) in enumerate(rois.double().tolist()):
        x1, y1, x2, y2 = (value * scale - 0.5 * aligned for value in box)
        tall, wide = (y2 - y1, x2 - x1) if aligned else (max(y2 - y1, 1), max(x2 - x1, 1))
        down, across = (ratio, ratio) if ratio > 0 else (math.ceil(tall / rows), math.ceil(wide / columns))
        for i in range(rows):
            for j in range(columns):
                for a in range(down):
                    for b in range(across):
                        y = y1 + (i + (a + 0.5) / down) * tall / rows
                        x = x1 + (j + (b + 0.5) / across) * wide / columns
                        result[r, :, i, j] += at(features[int(picture)].double(), y, x) / (down * across)
    return result


def gradient(align, features, rois, *arguments):
    features = features.detach().clone().requires_grad_()
    pooled = align(features, rois, *arguments)
    pooled.backward(torch.arange(pooled.numel(), dtype=pooled.dtype).view_as(pooled) % 7)
    return features.grad


@pytest.mark.parametrize("align", [roi_align, roi_align_separable])
@pytest.mark.parametrize("ratio", [-1, 0, 1, 2, 5])
@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("make", [regions, anywhere])
@pytest.mark.parametrize("size", [(1, 1), (7, 7), (2, 5)], ids=str)
def test_values_and_gradients_equal_torchvisions(align, ratio, aligned, make, size):
    features, rois = maps(), make(1000)
    if ratio <= 0 and aligned:  # torchvision cannot take regions that are turned around; ours are empty
        rois = torch.cat(
            [rois[:, :1], torch.minimum(rois[:, 1:3], rois[:, 3:]), torch.maximum(rois[:, 1:3], rois[:, 3:])], 1
        )
    arguments = (size, 1 / 8, ratio, aligned)
    assert torch.allclose(align(features, rois, *arguments), ops.roi_align(features, rois, *arguments), atol=1e-5)
    ours, theirs = (gradient(one, features, rois, *arguments) for one in (align, ops.roi_align))
    # Thousands of terms are added up for each cell, in another order.
    assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-5 * theirs.abs().max().item())


@pytest.mark.parametrize("ratio", [-1, 2])
@pytest.mark.parametrize("aligned", [False, True])
def test_equals_a_loop_over_points(ratio, aligned):
    features, rois = maps(), anywhere(25, seed=2)
    found = roi_align(features, rois, (3, 2), 1 / 8, ratio, aligned)
    assert torch.allclose(found.double(), loop(features, rois, 3, 2, 1 / 8, ratio, aligned), atol=1e-5)


@given(st.integers(0, 10**6), st.sampled_from([1 / 4, 1 / 16, 0.3]), st.sampled_from([-1, 1, 2, 3]), st.booleans())
def test_any_map_scale_and_ratio(seed, scale, ratio, aligned):
    height, width = 1 + seed % 17, 1 + seed % 23
    features = maps(1, 2, height, width, seed)
    rois = anywhere(40, 1, 1 / scale, height, width, seed)
    expected = ops.roi_align(features, rois, (3, 4), scale, ratio, aligned)
    assert torch.allclose(roi_align(features, rois, (3, 4), scale, ratio, aligned), expected, atol=1e-4)


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("ratio", [-1, 2])
def test_gradients_against_finite_differences(aligned, ratio):
    features = maps(2, 2, 5, 6, dtype=torch.float64).requires_grad_()
    rois = anywhere(15, height=5, width=6, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: roi_align(x, rois, (3, 2), 1 / 8, ratio, aligned), features)


@pytest.mark.parametrize("align", [roi_align, roi_align_separable])
def test_half_precision_and_any_memory_format(align):
    features, rois = maps(), anywhere(300)
    expected = ops.roi_align(features, rois, 7, 1 / 8, 2, True)
    half = align(features.half(), rois, 7, 1 / 8, 2, True)
    assert half.dtype == torch.float16 and torch.allclose(half.float(), expected, atol=5e-3)
    stored = features.contiguous(memory_format=torch.channels_last)
    assert torch.allclose(align(stored, rois, 7, 1 / 8, 2, True), expected, atol=1e-5)


@pytest.mark.parametrize("align", [roi_align, roi_align_separable])
def test_on_a_slope_every_value_is_the_place_itself(align):
    """A map whose value is its own coordinate: the mean over a bin is the bin's middle, with no rounding anywhere."""
    features = (torch.arange(25.0) + 0.5).view(1, 1, 1, 25).expand(1, 1, 25, 25)
    rois = torch.tensor([[0.0, 0.0, 0.0, 15.0, 15.0]])
    found = align(features, rois, (1, 3), 25 / 128, 2, True)[0, 0, 0]
    width = 15 * 25 / 128  # 2.93 cells
    assert found.tolist()[1:] == pytest.approx([width / 2, 5 * width / 6])


@pytest.mark.parametrize("align", [roi_align, roi_align_separable])
def test_a_bin_for_each_cell_gives_the_map_itself(align):
    """A bin that is just one cell long has one point where their number adapts, and it lies in the cell's middle."""
    features, rois = maps(), torch.tensor([[1.0, 16.0, 8.0, 64.0, 56.0]])  # columns 2 to 7, rows 1 to 6
    assert torch.equal(align(features, rois, 6, 1 / 8, -1, True), features[1:, :, 1:7, 2:8])


@pytest.mark.parametrize("align", [roi_align, roi_align_separable])
def test_no_regions_and_regions_outside(align):
    features = maps().requires_grad_()
    assert align(features, torch.zeros(0, 5), (4, 2), 1 / 8).shape == (0, 3, 4, 2)
    far = torch.tensor([[0.0, 300, 300, 400, 400], [1, -400, -300, -300, -200]])
    for ratio in (-1, 2):
        pooled = align(features, far, 3, 1 / 8, ratio, True)
        assert not pooled.any()
        pooled.sum().backward()
    assert not features.grad.any()
    turned = torch.tensor([[0.0, 80, 60, 20, 10]])
    assert not align(features, turned, 3, 1 / 8, -1, True).any()
    for arguments in ((3, 1 / 8, -1, False), (3, 1 / 8, 2, True), (3, 1 / 8, 2, False)):
        assert torch.allclose(
            align(features, turned, *arguments), ops.roi_align(features, turned, *arguments), atol=1e-5
        )


@pytest.mark.parametrize("align", [roi_align, roi_align_separable])
def test_bad_input_is_refused(align):
    with pytest.raises(ValueError, match="region 0 holds nan"):
        align(maps(), torch.tensor([[0, 1.0, 1, 2, math.nan]]), 7, 1 / 8)
    with pytest.raises(ValueError, match="region 0 is of image 5, but there are features of 2"):
        align(maps(), torch.tensor([[5, 1.0, 1, 2, 2]]), 7, 1 / 8)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("count", [1, 3, 8])
def test_few_regions_on_large_maps(count, layout):
    """Only the cells that they need are copied; the values are the same, and so is where the gradients go."""
    features = maps(pictures=3, channels=16, height=40, width=60).contiguous(memory_format=layout)
    generator = torch.Generator().manual_seed(count)
    start = torch.rand(count, 2, generator=generator) * torch.tensor([400.0, 250.0])
    picture = torch.randint(3, (count, 1), generator=generator)
    rois = torch.cat([picture, start, start + 8 + 72 * torch.rand(count, 2, generator=generator)], dim=1)
    for arguments in ((7, 1 / 8, 2, True), (7, 1 / 8, -1, False)):
        assert torch.allclose(
            roi_align(features, rois, *arguments), ops.roi_align(features, rois, *arguments), atol=1e-5
        )
        ours, theirs = (gradient(one, features, rois, *arguments) for one in (roi_align, ops.roi_align))
        assert torch.allclose(ours, theirs, atol=1e-5 * theirs.abs().max().item())
    if count == 1:
        held = peak_memory(lambda: roi_align(features, rois, 2, 1 / 8, 2, True))
        assert held < features.numel() * features.element_size() / 2
