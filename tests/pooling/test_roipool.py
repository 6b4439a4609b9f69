"""RoIPool against a loop over bins, torchvision (bit for bit), values worked by hand and finite differences."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.overrides import TorchFunctionMode
from torchvision import ops

from minircnn.pooling import multiscale_roi_align, roi_align, roi_align_separable, roi_pool, roi_warp, to_rois


def maps(pictures=2, channels=3, height=9, width=13, seed=0, dtype=torch.float32):
    """Feature maps like those behind a ReLU: half of the values are 0, so that bins tie."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(pictures, channels, height, width, generator=generator, dtype=torch.float64).relu().to(dtype)


def regions(count, pictures=2, stride=8, height=9, width=13, seed=0, dtype=torch.float32):
    """Regions of all sizes on a grid of half strides, many of them partly or wholly outside, some turned around."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(-8, 2 * width + 8, (count, 2), generator=generator) * stride / 2
    y = torch.randint(-8, 2 * height + 8, (count, 2), generator=generator) * stride / 2
    turned = torch.rand(count, 1, generator=generator) < 0.1
    x, y = (torch.where(turned, value, value.sort(dim=1).values) for value in (x, y))
    picture = torch.randint(pictures, (count,), generator=generator)
    return torch.stack([picture, x[:, 0], y[:, 0], x[:, 1], y[:, 1]], dim=1).to(dtype)


def anywhere(count, pictures=2, stride=8, height=9, width=13, seed=0, dtype=torch.float32):
    """Regions whose corners lie anywhere, also between cells."""
    generator = torch.Generator().manual_seed(seed)
    size = torch.tensor([width, height], dtype=torch.float64) * stride
    a, b = ((torch.rand(count, 2, generator=generator, dtype=torch.float64) * 1.4 - 0.2) * size for _ in range(2))
    picture = torch.randint(pictures, (count, 1), generator=generator)
    return torch.cat([picture, torch.minimum(a, b), torch.maximum(a, b)], dim=1).to(dtype)


def loop(features, rois, rows, columns, scale):
    """The definition, one bin after the other; what it computes in single precision is stated with .float()."""
    result = torch.zeros(len(rois), features.shape[1], rows, columns, dtype=features.dtype)
    height, width = features.shape[2:]

    def edges(low, high, count, number, size):
        first, last = (math.floor(abs(v) + 0.5) * (1 if v > 0 else -1) for v in (low, high))
        bin_length = (torch.tensor(max(last - first + 1, 1)) / count).float()
        start = math.floor(float((torch.tensor(float(number)) * bin_length).float())) + first
        end = math.ceil(float((torch.tensor(float(number + 1)) * bin_length).float())) + first
        return min(max(start, 0), size), min(max(end, 0), size)

    for r, (picture, x1, y1, x2, y2) in enumerate(rois.tolist()):
        for i in range(rows):
            for j in range(columns):
                top, bottom = edges(y1 * scale, y2 * scale, rows, i, height)
                left, right = edges(x1 * scale, x2 * scale, columns, j, width)
                if bottom > top and right > left:
                    result[r, :, i, j] = features[int(picture), :, top:bottom, left:right].amax(dim=(1, 2))
    return result


def gradient(pool, features, rois, size, scale):
    """How much each value of the map is worth when bins are weighted 1, 2, 3 … (exact in floating point)."""
    features = features.detach().clone().requires_grad_()
    pooled = pool(features, rois, size, scale)
    pooled.backward(torch.arange(pooled.numel(), dtype=pooled.dtype).view_as(pooled) % 97)
    return features.grad


SIZES = [(1, 1), (2, 3), (6, 6), (7, 7), (7, 2)]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("make", [regions, anywhere])
def test_equals_torchvision_bit_for_bit(size, make):
    features, rois = maps(), make(3000)
    assert torch.equal(roi_pool(features, rois, size, 1 / 8), ops.roi_pool(features, rois, size, 1 / 8))
    ours, theirs = (gradient(pool, features, rois, size, 1 / 8) for pool in (roi_pool, ops.roi_pool))
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("make", [regions, anywhere])
def test_with_gradient_and_without_it_are_the_same(make):
    features, rois = maps(), make(3000, seed=1)
    with_gradient = roi_pool(features.requires_grad_(), rois, 7, 1 / 8)
    with torch.no_grad():
        without = roi_pool(features, rois, 7, 1 / 8)
    assert with_gradient.requires_grad and not without.requires_grad
    assert torch.equal(with_gradient, without)


@pytest.mark.parametrize("make", [regions, anywhere])
def test_equals_a_loop_over_bins(make):
    features, rois = maps(), make(120, seed=2)
    assert torch.equal(roi_pool(features, rois, (3, 4), 1 / 8), loop(features, rois, 3, 4, 1 / 8))


@given(st.integers(0, 10**6), st.sampled_from([1 / 4, 1 / 8, 1 / 16, 0.3]), st.integers(1, 8), st.integers(1, 8))
def test_any_map_scale_and_grid(seed, scale, rows, columns):
    height, width = 1 + seed % 17, 1 + seed % 23
    features = maps(1, 2, height, width, seed)
    rois = anywhere(40, 1, 1 / scale, height, width, seed)
    expected = ops.roi_pool(features, rois, (rows, columns), scale)
    assert torch.equal(roi_pool(features, rois, (rows, columns), scale), expected)
    assert torch.equal(roi_pool(features.requires_grad_(), rois, (rows, columns), scale), expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_other_number_types(dtype):
    features, rois = maps(dtype=dtype), anywhere(2000, dtype=dtype, seed=3)
    ours, theirs = roi_pool(features, rois, 7, 1 / 8), ops.roi_pool(features, rois, 7, 1 / 8)
    assert ours.dtype == dtype
    assert torch.equal(ours, theirs)
    assert torch.equal(roi_pool(features.requires_grad_(), rois, 7, 1 / 8), theirs)


def test_bfloat16_features_with_single_precision_regions():
    features, rois = maps(dtype=torch.bfloat16), anywhere(500)
    expected = ops.roi_pool(features.float(), rois, 7, 1 / 8)  # the largest of numbers is one of them, in any type
    assert torch.equal(roi_pool(features, rois, 7, 1 / 8).float(), expected)
    assert torch.equal(roi_pool(features.requires_grad_(), rois, 7, 1 / 8).float(), expected)


def test_any_memory_format():
    features, rois = maps(), anywhere(500)
    expected = ops.roi_pool(features, rois, 7, 1 / 8)
    for stored in (features.contiguous(memory_format=torch.channels_last), features.mT.contiguous().mT):
        assert torch.equal(roi_pool(stored, rois, 7, 1 / 8), expected)
        assert torch.equal(gradient(roi_pool, stored, rois, 7, 1 / 8), gradient(ops.roi_pool, features, rois, 7, 1 / 8))


def test_gradients_against_finite_differences():
    order = torch.randperm(2 * 2 * 5 * 6, generator=torch.Generator().manual_seed(0)).double()
    features = order.view(2, 2, 5, 6).requires_grad_()  # all values differ by 1 or more: no step crosses a tie
    rois = torch.cat([regions(20, height=5, width=6), anywhere(20, height=5, width=6)]).double()
    assert torch.autograd.gradcheck(lambda x: roi_pool(x, rois, (3, 2), 1 / 8), features, eps=1e-3)


def test_a_region_by_hand():
    features = torch.arange(30.0).view(1, 1, 5, 6)
    # Columns 1 … 3 and rows 1 … 4. Two bins across: 1.5 cells each, so columns 1, 2 and 2, 3, which share column 2.
    # Two bins down: 2 cells each, so rows 1, 2 and 3, 4.
    pooled = roi_pool(features, torch.tensor([[0.0, 8.0, 8.0, 24.0, 32.0]]), 2, 1 / 8)
    assert pooled.tolist() == [[[[14, 15], [26, 27]]]]


@pytest.mark.parametrize(
    "x, column",
    [(3.9, 0), (4.0, 1), (11.9, 1), (12.0, 2), (20.0, 3), (-3.9, 0)],
    ids=["below half", "half goes up", "below", "half goes up, 1.5", "half goes up, 2.5", "above minus a half"],
)
def test_edges_round_half_away_from_zero(x, column):
    features = torch.arange(6.0).view(1, 1, 1, 6)
    assert roi_pool(features, torch.tensor([[0.0, x, 0.0, x, 0.0]]), 1, 1 / 8).item() == column


def test_minus_a_half_is_the_cell_before_the_first():
    features = torch.ones(1, 1, 1, 6)
    assert roi_pool(features, torch.tensor([[0.0, -4.0, 0.0, -4.0, 0.0]]), 1, 1 / 8).item() == 0


def test_the_largest_number_below_a_half_rounds_to_zero():
    """Adding a half and taking the floor would make it 1, because the sum rounds up."""
    below = torch.nextafter(torch.tensor(0.5), torch.tensor(0.0))
    features = torch.arange(3.0).view(1, 1, 1, 3)
    rois = torch.tensor([[0.0, below, 0.0, below, 0.0]])
    assert roi_pool(features, rois, 1, 1.0).item() == ops.roi_pool(features, rois, 1, 1.0).item() == 0


def test_of_equal_cells_the_first_one_gets_the_gradient():
    features = torch.ones(1, 1, 3, 3, requires_grad=True)
    roi_pool(features, torch.tensor([[0.0, 8.0, 8.0, 16.0, 16.0]]), 1, 1 / 8).sum().backward()
    assert features.grad.nonzero().tolist() == [[0, 0, 1, 1]]


def test_negative_values_outside_of_the_map_do_not_count():
    """Only a bin without any cell is 0; one that is cut off has the largest of the cells that are left."""
    features = torch.full((1, 1, 2, 2), -3.0)
    pooled = roi_pool(features, torch.tensor([[0.0, -8.0, 0.0, 8.0, 8.0]]), (1, 3), 1 / 8)
    assert pooled.tolist() == [[[[0, -3, -3]]]]


@pytest.mark.parametrize(
    "box", [(-90.0, -90, -50, -50), (300, 300, 400, 400), (-1e6, 5, -1e5, 9), (1e7, 1e7, 2e7, 2e7)]
)
def test_outside_of_the_picture_there_is_nothing(box):
    features = maps(1) - 1
    rois = torch.tensor([[0.0, *box]])
    assert roi_pool(features, rois, 7, 1 / 8).count_nonzero() == 0
    assert gradient(roi_pool, features, rois, 7, 1 / 8).count_nonzero() == 0


def test_no_regions():
    features = maps().requires_grad_()
    pooled = roi_pool(features, torch.zeros(0, 5), (4, 2), 1 / 8)
    assert pooled.shape == (0, 3, 4, 2)
    pooled.sum().backward()
    assert features.grad.count_nonzero() == 0
    assert roi_pool(features.detach(), torch.zeros(0, 5), (4, 2), 1 / 8).shape == (0, 3, 4, 2)


def test_regions_of_one_picture_of_many():
    features = maps(3)
    rois = anywhere(50, pictures=1)
    rois[:, 0] = 2
    assert torch.equal(roi_pool(features, rois, 3, 1 / 8), ops.roi_pool(features, rois, 3, 1 / 8))


def test_the_map_is_not_changed():
    features = maps()
    before = features.clone()
    roi_pool(features, anywhere(50), 7, 1 / 8)
    roi_pool(features.requires_grad_(), anywhere(50), 7, 1 / 8).sum().backward()
    assert torch.equal(features, before)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"features": torch.zeros(3, 9, 13)}, r"features must be a float tensor \(B, C, h, w\)"),
        ({"features": torch.zeros(1, 3, 9, 13, dtype=torch.int64)}, "features must be a float tensor"),
        ({"features": torch.zeros(1, 3, 0, 13)}, "features must be a float tensor"),
        ({"rois": torch.zeros(2, 4)}, r"rois must be a float tensor \(R, 5\)"),
        ({"rois": torch.zeros(2, 5, dtype=torch.int64)}, "rois must be a float tensor"),
        ({"rois": torch.tensor([[0, 1.0, 1, 2, 2], [0, 1, math.nan, 2, 2]])}, "region 1 holds nan"),
        ({"rois": torch.tensor([[0, 1.0, 1, 2, math.inf]])}, "region 0 holds nan or inf"),
        ({"rois": torch.tensor([[0, 1.0, 1, 2, 2], [2, 1, 1, 2, 2]])}, "region 1 is of image 2, but .* features of 2"),
        ({"rois": torch.tensor([[-1, 1.0, 1, 2, 2]])}, "region 0 is of image -1"),
        ({"rois": torch.tensor([[0.5, 1.0, 1, 2, 2]])}, "region 0 is of image 0.5"),
        ({"rois": torch.tensor([[math.nan, 1.0, 1, 2, 2]])}, "region 0 holds nan"),
        ({"rois": [torch.zeros(1, 4)]}, "boxes of 1 images, but features of 2"),
        ({"rois": [torch.zeros(1, 5)] * 2}, r"or a list of boxes \(P, 4\) .* \(2, 6\)"),
        ({"output_size": 0}, "output_size must be at least 1"),
        ({"output_size": (7, 0)}, "output_size must be at least 1"),
    ],
)
def test_bad_input_is_refused(change, message):
    arguments = {"features": maps(), "rois": regions(3), "output_size": 7, "spatial_scale": 1 / 8}
    with pytest.raises(ValueError, match=message):
        roi_pool(**{**arguments, **change})


ANY_POOLING = {
    "pool": (lambda *given: roi_pool(*given, 1 / 8), lambda *given: ops.roi_pool(*given, 1 / 8)),
    "align": (lambda *given: roi_align(*given, 1 / 8), lambda *given: ops.roi_align(*given, 1 / 8)),
    "separable": (lambda *given: roi_align_separable(*given, 1 / 8), lambda *given: ops.roi_align(*given, 1 / 8)),
    "pyramid": (lambda f, *given: multiscale_roi_align([f], *given, [8]), lambda *given: ops.roi_align(*given, 1 / 8)),
    "warp": (lambda *given: roi_warp(*given, 1 / 8), lambda f, r, size: roi_warp(f, to_rois(r), size, 1 / 8)),
}


@pytest.mark.parametrize("pooling", ANY_POOLING)
@pytest.mark.parametrize("channels", [0, 3])
@pytest.mark.parametrize("counts", [(4, 0), (0, 7), (0, 0)], ids=str)
def test_every_pooling_takes_boxes_of_each_image_and_no_channels(pooling, channels, counts):
    """As torchvision does; and the regions get no gradient."""
    ours, theirs = ANY_POOLING[pooling]
    features = maps(channels=channels).requires_grad_()
    boxes = [anywhere(count, 1, seed=count)[:, 1:].requires_grad_() for count in counts]
    found = ours(features, boxes, (2, 3))
    assert found.shape == (sum(counts), channels, 2, 3)
    assert torch.allclose(found, theirs(features, boxes, (2, 3)), atol=1e-6)
    assert torch.equal(found, ours(features, to_rois(boxes), (2, 3)))
    found.sum().backward()
    assert features.grad.shape == features.shape and not any(box.grad is not None for box in boxes)


@pytest.mark.parametrize("shape", [(1, 700), (700, 1), (40, 90), (5, 333)], ids=str)
def test_bins_of_any_length_on_long_maps(shape):
    """Bins much longer than the windows of which each length exists."""
    features, rois = maps(2, 3, *shape) - 0.3, anywhere(500, 2, 8, *shape)
    for size in ((1, 1), (2, 3), (7, 7)):
        assert torch.equal(roi_pool(features, rois, size, 1 / 8), ops.roi_pool(features, rois, size, 1 / 8))
    # A bin of every length there is.
    side = max(shape)
    ends = 8 * torch.arange(side, dtype=torch.float32)[:, None]
    every = torch.cat([torch.zeros(side, 1), ends * 0, ends * 0, ends, ends], dim=1)
    assert torch.equal(roi_pool(features, every, 1, 1 / 8), ops.roi_pool(features, every, 1, 1 / 8))


def test_long_maps_are_compared_few_times():
    """Of windows as long as the map there are a few dozen, not one for each length: the work grows with the area."""
    compared = 0

    class Count(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            nonlocal compared
            compared += function is torch.maximum
            return function(*args, **(kwargs or {}))

    features, rois = maps(1, 1, 24, 3000), anywhere(500, 1, 8, 24, 3000)
    with Count():
        roi_pool(features, rois, 6, 1 / 8)
    assert 10 < compared < 300


def test_to_rois_numbers_the_pictures():
    boxes = [torch.rand(2, 4), torch.zeros(0, 4), torch.rand(1, 4)]
    rois = to_rois(boxes)
    assert rois[:, 0].tolist() == [0, 0, 2]
    assert torch.equal(rois[:, 1:], torch.cat(boxes))
    assert to_rois([torch.zeros(0, 4)]).shape == (0, 5)
    with pytest.raises(ValueError, match="there is no image"):
        to_rois([])


def test_pooling_the_whole_map_is_alexnets_pool5():
    """So that fc6 and fc7, trained on pictures of one object, can go on with what RoIPool gives them."""
    features = maps(1, 8, 8, 8)
    whole = torch.tensor([[0.0, 0.0, 0.0, 56.0, 56.0]])  # cells 0 … 7
    assert torch.equal(roi_pool(features, whole, 6, 1 / 8), torch.nn.functional.adaptive_max_pool2d(features, 6))
