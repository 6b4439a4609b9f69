"""Warping, RoIPool, RoIAlign and their relatives against torchvision, loops, and values worked by hand."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision import ops
from torchvision.ops.poolers import LevelMapper

from minircnn.pooling import (
    WARP_MODES,
    misalignment,
    multiscale_roi_align,
    pyramid_level,
    roi_align,
    roi_align_separable,
    roi_pool,
    roi_pool_loop,
    roi_warp,
    to_rois,
    warp_regions,
)

SCALE = 1 / 8
ALIGN = pytest.mark.parametrize("align", [roi_align, roi_align_separable])


def maps(images=2, channels=3, height=9, width=13, seed=0, dtype=torch.float32):
    """Feature maps like those behind a ReLU: half of the values are 0, so that bins tie."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(images, channels, height, width, generator=generator, dtype=torch.float64).relu().to(dtype)


def regions(count, images=2, stride=8, height=9, width=13, seed=0, dtype=torch.float32):
    """Regions of all sizes on a grid of half strides, many of them partly or wholly outside, some turned around."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(-8, 2 * width + 8, (count, 2), generator=generator) * stride / 2
    y = torch.randint(-8, 2 * height + 8, (count, 2), generator=generator) * stride / 2
    turned = torch.rand(count, 1, generator=generator) < 0.1
    x, y = (torch.where(turned, value, value.sort(dim=1).values) for value in (x, y))
    image = torch.randint(images, (count,), generator=generator)
    return torch.stack([image, x[:, 0], y[:, 0], x[:, 1], y[:, 1]], dim=1).to(dtype)


def anywhere(count, images=2, stride=8, height=9, width=13, seed=0, dtype=torch.float32):
    """Regions whose corners lie anywhere, also between cells."""
    generator = torch.Generator().manual_seed(seed)
    size = torch.tensor([width, height], dtype=torch.float64) * stride
    a, b = ((torch.rand(count, 2, generator=generator, dtype=torch.float64) * 1.4 - 0.2) * size for _ in range(2))
    image = torch.randint(images, (count, 1), generator=generator)
    return torch.cat([image, torch.minimum(a, b), torch.maximum(a, b)], dim=1).to(dtype)


def gradient(pool, features, rois, *arguments):
    """How much each value of the map is worth when bins are weighted 1, 2, 3 … (for RoIPool exact)."""
    features = features.detach().clone().requires_grad_()
    pooled = pool(features, rois, *arguments)
    pooled.backward(torch.arange(pooled.numel(), dtype=pooled.dtype).view_as(pooled) % 97)
    return features.grad


class TestRoIPool:
    @pytest.mark.parametrize("size", [(1, 1), (2, 3), (7, 7)], ids=str)
    @pytest.mark.parametrize("make", [regions, anywhere])
    def test_equals_torchvision_bit_for_bit(self, size, make):
        features, rois = maps() - 0.3, make(1000)  # below 0: an empty bin is 0, one that is cut off has what is left
        expected = ops.roi_pool(features, rois, size, SCALE)
        assert torch.equal(roi_pool(features, rois, size, SCALE), expected)
        ours, theirs = (gradient(pool, features, rois, size, SCALE) for pool in (roi_pool, ops.roi_pool))
        assert torch.equal(ours, theirs)
        with_gradient = roi_pool(features.requires_grad_(), rois, size, SCALE)
        assert with_gradient.requires_grad and torch.equal(with_gradient, expected)

    @settings(max_examples=40)
    @given(st.integers(0, 10**6), st.sampled_from([1 / 4, 1 / 8, 1 / 16, 0.3]), st.integers(1, 8), st.integers(1, 8))
    def test_any_map_scale_and_grid(self, seed, scale, rows, columns):
        """And RoIAlign, with one to three points or as many as a bin has cells."""
        height, width = 1 + seed % 17, 1 + seed % 23
        features, rois = maps(1, 2, height, width, seed), anywhere(40, 1, 1 / scale, height, width, seed)
        expected = ops.roi_pool(features, rois, (rows, columns), scale)
        assert torch.equal(roi_pool(features, rois, (rows, columns), scale), expected)
        assert torch.equal(roi_pool(features.requires_grad_(), rois, (rows, columns), scale), expected)
        arguments = (features.detach(), rois, (rows, columns), scale, seed % 4 or -1, rows > columns)
        assert torch.allclose(roi_align(*arguments), ops.roi_align(*arguments), atol=1e-4)

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
    def test_other_number_types_and_memory_formats(self, dtype):
        features, of_rois = maps(dtype=dtype), torch.float32 if dtype == torch.bfloat16 else dtype
        rois = anywhere(200, dtype=of_rois, seed=3)
        # The largest of numbers is one of them, in any type.
        wide = features if dtype != torch.bfloat16 else features.float()
        expected = ops.roi_pool(wide, rois, 7, SCALE).to(dtype)
        for stored in (features, features.contiguous(memory_format=torch.channels_last), features.mT.contiguous().mT):
            found = roi_pool(stored, rois, 7, SCALE)
            assert found.dtype == dtype and torch.equal(found, expected)
            assert torch.equal(roi_pool(stored.detach().requires_grad_(), rois, 7, SCALE), expected)

    def test_a_region_by_hand(self):
        features = torch.arange(30.0).view(1, 1, 5, 6)
        # Columns 1 … 3 and rows 1 … 4. Two bins across: 1.5 cells each, so columns 1, 2 and 2, 3, which share column 2.
        # Two bins down: 2 cells each, so rows 1, 2 and 3, 4.
        pooled = roi_pool(features, torch.tensor([[0.0, 8.0, 8.0, 24.0, 32.0]]), 2, SCALE)
        assert pooled.tolist() == [[[[14, 15], [26, 27]]]]

    # Of the last: adding a half and taking the floor would make it 1, because the sum rounds up.
    @pytest.mark.parametrize(
        "x, column", [(3.9, 0), (4, 1), (11.9, 1), (12, 2), (20, 3), (-3.9, 0), (-4, None), (4 * (1 - 2**-24), 0)]
    )
    def test_edges_round_half_away_from_zero(self, x, column):
        """Cell -1, half a cell before the first, does not exist."""
        features = 1 + torch.arange(6.0).view(1, 1, 1, 6)
        found = roi_pool(features, torch.tensor([[0.0, x, 0.0, x, 0.0]]), 1, SCALE).item()
        assert found == (0 if column is None else 1 + column)


class TestRoIAlign:
    @ALIGN
    @pytest.mark.parametrize("ratio", [-1, 2])
    @pytest.mark.parametrize("aligned", [False, True])
    @pytest.mark.parametrize("make", [regions, anywhere])
    @pytest.mark.parametrize("size", [(1, 1), (2, 5)], ids=str)
    def test_values_and_gradients_equal_torchvisions(self, align, ratio, aligned, make, size):
        features, rois = maps() - 0.3, make(200)
        if ratio <= 0 and aligned:  # torchvision cannot take regions that are turned around; ours are empty
            assert not align(features, torch.tensor([[0.0, 80, 60, 20, 10]]), 3, SCALE, ratio, True).any()
            low, high = torch.minimum(rois[:, 1:3], rois[:, 3:]), torch.maximum(rois[:, 1:3], rois[:, 3:])
            rois = torch.cat([rois[:, :1], low, high], dim=1)
        arguments = (size, SCALE, ratio, aligned)
        assert torch.allclose(align(features, rois, *arguments), ops.roi_align(features, rois, *arguments), atol=1e-5)
        ours, theirs = (gradient(one, features, rois, *arguments) for one in (align, ops.roi_align))
        # Thousands of terms are added up for each cell, in another order.
        assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-5 * theirs.abs().max().item())

    @ALIGN
    def test_half_precision_and_any_memory_format(self, align):
        features, rois = maps() - 0.3, anywhere(300)
        expected = ops.roi_align(features, rois, 7, SCALE, 2, True)
        half = align(features.half(), rois, 7, SCALE, 2, True)
        assert half.dtype == torch.float16 and torch.allclose(half.float(), expected, atol=5e-3)
        stored = features.contiguous(memory_format=torch.channels_last)
        assert torch.allclose(align(stored, rois, 7, SCALE, 2, True), expected, atol=1e-5)


STRIDES = (4, 8, 16, 32)


def pyramid(requires_grad=False):
    generator = torch.Generator().manual_seed(0)
    levels = [torch.randn(2, 3, 192 // s, 256 // s, generator=generator) for s in STRIDES]
    return [level.requires_grad_(requires_grad) for level in levels]


def boxes_of_all_sizes(counts=(40, 25)):
    """From a pixel to more than the image, over two images."""
    generator, found = torch.Generator().manual_seed(1), []
    for count in counts:
        corner = torch.rand(count, 2, generator=generator) * 150
        found.append(torch.cat([corner, corner + 2 ** (9 * torch.rand(count, 2, generator=generator))], dim=1))
    return found


class TestPyramid:
    @pytest.mark.parametrize("size, ratio", [(7, 2), ((3, 5), -1)])
    @pytest.mark.parametrize("counts", [(40, 25), (0, 9), (0, 0)])
    def test_equals_torchvisions(self, size, ratio, counts):
        boxes, found = boxes_of_all_sizes(counts), []
        boxes[0][:1, 2:] = boxes[0][:1, :2]  # no size
        pool = ops.MultiScaleRoIAlign(["0", "1", "2", "3"], size, ratio)
        for ours in (True, False):
            levels = pyramid(requires_grad=True)
            if ours:
                pooled = multiscale_roi_align(levels, boxes, size, STRIDES, ratio)
            else:
                pooled = pool({str(number): level for number, level in enumerate(levels)}, boxes, [(192, 256)] * 2)
            (pooled * torch.arange(pooled.numel()).view(pooled.shape).cos()).sum().backward()
            gradients = [torch.zeros_like(level) if level.grad is None else level.grad for level in levels]
            found.append([pooled.detach(), *gradients])
        for ours, theirs in zip(*found, strict=True):
            assert ours.shape == theirs.shape and torch.allclose(ours, theirs, atol=1e-4)

    def test_levels_equal_torchvisions_mapper_and_strides_must_be_those_of_a_pyramid(self):
        boxes = torch.cat(boxes_of_all_sizes((500, 500)))
        sides = (0, 1, 28, 55.999, 56, 112, 223.999, 224, 447.9, 448, 1e6)
        edges = torch.tensor([[0.0, 0, side, side] for side in sides])
        for some in (boxes, edges):
            assert torch.equal(pyramid_level(some), LevelMapper(2, 5)([some]) + 2)
        assert pyramid_level(edges).tolist() == [2, 2, 2, 2, 2, 3, 3, 4, 4, 5, 5]
        assert pyramid_level(torch.tensor([[9.0, 9, 3, 20]])).tolist() == [2]  # turned around

        for strides in ((4, 8, 16), (4, 8, 16, 64), (3, 6, 12, 24), ()):
            with pytest.raises(ValueError, match="strides must be powers of 2 for each of 4 levels"):
                multiscale_roi_align(pyramid(), [boxes], 7, strides)


class TestRounding:
    def test_the_example_of_the_story(self):
        """Of 128 pixels that became 25 cells, 15 pixels are 2.93 cells."""
        example = misalignment((0, 0, 15, 15), (128, 128), (25, 25), output_size=2, sampling_ratio=2)
        assert example.exact == pytest.approx((0, 0, 15 * 25 / 128, 15 * 25 / 128))
        assert (example.rounded_down, example.pooled) == ((0, 0, 2, 2), (0, 0, 4, 4))  # 3, and cell 3 counts in
        assert example.shift == pytest.approx((0, 0, 4 * 5.12 - 15, 4 * 5.12 - 15))
        assert example.iou == pytest.approx(15**2 / 20.48**2)
        for region, size in (((5, 5, 5, 9), 8), ((0, 0, math.nan, 4), 8), ((0, 0, 4, 4), 0)):
            with pytest.raises(ValueError, match=r"must be x1, y1, x2, y2|must all be at least 1"):
                misalignment(region, (64, 64), (size, 8))

    @settings(max_examples=30)
    @given(st.integers(0, 10**6))
    def test_pooled_cells_are_those_that_change_torchvisions_roi_pool(self, seed):
        """A map with one cell that is 1: RoIPool sees it if, and only if, it is one of the cells named."""
        x1, y1 = (torch.rand(2, generator=torch.Generator().manual_seed(seed)) * 80).tolist()
        region = (x1, y1, x1 + 1 + seed % 40, y1 + 1 + seed % 23)
        left, top, right, bottom = misalignment(region, (128, 160), (16, 20)).pooled
        units = torch.eye(16 * 20).view(16 * 20, 1, 16, 20)
        seen = ops.roi_pool(units, torch.tensor([[k, *region] for k in range(16 * 20)]), 1, SCALE).view(16, 20) > 0
        expected = torch.zeros(16, 20, dtype=torch.bool)
        expected[top:bottom, left:right] = True
        assert torch.equal(seen, expected)

    def test_roi_warp_is_torchvisions_roi_align_of_rounded_regions(self):
        features, rois = maps(), anywhere(200)
        cells, scaled = rois.clone(), rois[:, 1:].double() / 8
        whole = torch.where(scaled < 0, (scaled - 0.5).ceil(), (scaled + 0.5).floor())  # half away from zero
        cells[:, 1:3] = whole[:, :2]
        cells[:, 3:] = torch.maximum(whole[:, 2:], whole[:, :2]) + 1
        expected = ops.roi_align(features, cells, 5, 1.0, 2, True)
        assert torch.allclose(roi_warp(features, rois, 5, SCALE), expected, atol=1e-5)


ANY_POOLING = {
    "pool": (lambda *given: roi_pool(*given, SCALE), lambda *given: ops.roi_pool(*given, SCALE)),
    "loop": (lambda *given: roi_pool_loop(*given, SCALE), lambda *given: ops.roi_pool(*given, SCALE)),
    "align": (lambda *given: roi_align(*given, SCALE), lambda *given: ops.roi_align(*given, SCALE)),
    "separable": (lambda *given: roi_align_separable(*given, SCALE), lambda *given: ops.roi_align(*given, SCALE)),
    "pyramid": (lambda f, *given: multiscale_roi_align([f], *given, [8]), lambda *given: ops.roi_align(*given, SCALE)),
    "warp": (lambda *given: roi_warp(*given, SCALE), lambda f, r, size: roi_warp(f, to_rois(r), size, SCALE)),
}


class TestEveryPooling:
    @pytest.mark.parametrize("pooling", ANY_POOLING)
    @pytest.mark.parametrize("counts, channels", [((4, 0), 3), ((0, 7), 0), ((0, 0), 3)], ids=str)
    def test_takes_boxes_of_each_image_and_no_channels(self, pooling, channels, counts):
        """As torchvision does; and the regions get no gradient, and nothing given changes."""
        ours, theirs = ANY_POOLING[pooling]
        features = maps(channels=channels).requires_grad_()
        before = features.detach().clone()
        boxes = [anywhere(count, 1, seed=count)[:, 1:].requires_grad_() for count in counts]
        found = ours(features, boxes, (2, 3))
        assert found.shape == (sum(counts), channels, 2, 3)
        assert torch.allclose(found, theirs(features, boxes, (2, 3)), atol=1e-6)
        assert torch.equal(found, ours(features, to_rois(boxes), (2, 3)))
        if found.requires_grad:
            found.sum().backward()
            assert features.grad.shape == features.shape and not any(box.grad is not None for box in boxes)
        assert torch.equal(features, before)

    @pytest.mark.parametrize(
        "change, message",
        [
            ({"features": torch.zeros(3, 9, 13)}, r"features must be a float tensor \(B, C, h, w\)"),
            ({"rois": torch.zeros(2, 4)}, r"rois must be a float tensor \(R, 5\)"),
            ({"rois": torch.tensor([[0, 1.0, 1, 2, 2], [0, 1, math.nan, 2, 2]])}, "region 1 holds nan"),
            ({"rois": torch.tensor([[0, 1.0, 1, 2, 2], [2, 1, 1, 2, 2]])}, "region 1 is of image 2, .* features of 2"),
            ({"rois": torch.tensor([[-1, 1.0, 1, 2, 2]])}, "region 0 is of image -1"),
            ({"rois": torch.tensor([[0.5, 1.0, 1, 2, 2]])}, "region 0 is of image 0.5"),
            ({"rois": [torch.zeros(1, 4)]}, "boxes of 1 images, but features of 2"),
            ({"output_size": (7, 0)}, "output_size must be at least 1"),
        ],
    )
    def test_bad_input_is_refused(self, change, message):
        given = {"features": maps(), "rois": regions(3), "output_size": 7, "spatial_scale": SCALE, **change}
        for pool in (roi_pool, roi_align):
            with pytest.raises(ValueError, match=message):
                pool(**given)


FILL = (0.25, 0.5, 0.75)
BOXES = {
    "inside": [3.2, 4.1, 12.7, 9.6],
    "partly outside": [-4.3, 7.2, 6.1, 20.9],
    "larger than the image": [-9.1, -5.2, 30.3, 21.4],
    "wholly outside": [40.0, 50.0, 61.0, 58.0],
    "a line": [4.3, 2.0, 4.3, 11.5],
    "a point": [4.3, 2.1, 4.3, 2.1],
    "high": [6.1, 1.2, 8.4, 12.3],
}


def photo(height, width, seed=0):
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def warp_by_hand(image, box, size, context, mode):
    """One region, one pixel of it at a time, in plain arithmetic: (3, size, size).

    A pixel whose center lies on the very edge of what is shown is nan: rounding decides on which side.
    """
    planes = image.tolist()
    height, width = image.shape[1:]
    x1, y1, x2, y2 = box
    shown_width, shown_height = x2 - x1, y2 - y1
    if mode != "warp":
        shown_width = shown_height = max(shown_width, shown_height)
    # Pixels of the image for each pixel of the result.
    step_x, step_y = shown_width / (size - 2 * context), shown_height / (size - 2 * context)
    result = torch.empty(3, size, size, dtype=torch.float64)
    for row in range(size):
        for column in range(size):
            x = (x1 + x2) / 2 + (column + 0.5 - size / 2) * step_x
            y = (y1 + y2) / 2 + (row + 0.5 - size / 2) * step_y
            inwards = [x, width - x, y, height - y]  # from the edges of what is shown
            if mode == "square without context":
                inwards += [x - x1 + context * step_x, x2 + context * step_x - x]
                inwards += [y - y1 + context * step_y, y2 + context * step_y - y]
            # Between the centers of the four nearest pixels; beyond the outermost centers their values hold.
            u, v = min(max(x - 0.5, 0), width - 1), min(max(y - 0.5, 0), height - 1)
            left, top = int(u), int(v)
            right, bottom = min(left + 1, width - 1), min(top + 1, height - 1)
            a, b = u - left, v - top
            for channel, plane in enumerate(planes):
                inside = (1 - b) * ((1 - a) * plane[top][left] + a * plane[top][right]) + b * (
                    (1 - a) * plane[bottom][left] + a * plane[bottom][right]
                )
                seen = math.nan if abs(min(inwards)) < 1e-9 else inside if min(inwards) > 0 else FILL[channel]
                result[channel, row, column] = seen
    return result


class TestWarp:
    @pytest.mark.parametrize("mode", WARP_MODES)
    @pytest.mark.parametrize("size, context", [(9, 0), (10, 3), (10, 1.5), (1, 0)])
    def test_equals_a_slow_loop(self, mode, size, context):
        image, boxes = photo(13, 17), torch.tensor(list(BOXES.values()), dtype=torch.float64)
        before = image.clone(), boxes.clone()
        found = warp_regions(image, boxes, size, context, mode, fill=FILL)
        assert found.shape == (len(boxes), 3, size, size) and found.dtype == torch.float64
        for name, box, region in zip(BOXES, boxes, found, strict=True):
            wanted = warp_by_hand(image, box.tolist(), size, context, mode)
            decided = ~wanted.isnan()
            assert torch.allclose(region[decided], wanted[decided], atol=1e-9, rtol=0), name
            assert torch.equal(region, warp_regions(image, box[None], size, context, mode, fill=FILL)[0])
        assert torch.equal(image, before[0]) and torch.equal(boxes, before[1])

    def test_16_pixels_of_context_at_227(self):
        """A box of 195 pixels fills the 227 - 2 · 16 in the middle, one for one: around it stand its 16 neighbors."""
        image, box = photo(300, 300).float(), torch.tensor([[40.0, 50.0, 235.0, 245.0]])
        (region,) = warp_regions(image, box, size=227)  # 16 pixels, as said nowhere else
        torch.testing.assert_close(region, image[:, 34:261, 24:251], atol=1e-4, rtol=0)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
    @pytest.mark.parametrize("size", [(480, 640), (3, 5000)], ids=str)
    def test_half_precision_is_single_precision_rounded(self, dtype, size):
        """Places are not halves: grid_sample on the CPU crashed with those of 480 × 640 pixels."""
        image = photo(*size).to(dtype)
        boxes = torch.tensor([[0, 0, size[1], size[0]], [size[1] // 3, 0, size[1], size[0] // 2]])  # integers, too
        found = warp_regions(image, boxes, 64, 4)
        assert found.dtype == dtype and torch.equal(found, warp_regions(image.float(), boxes, 64, 4).to(dtype))
        assert warp_regions(image, boxes[:0], 6, 1).shape == (0, 3, 6, 6)

    @pytest.mark.parametrize(
        "changes, message",
        [
            ({"image": torch.zeros(1, 8, 8)}, r"image must be a float tensor \(3, H, W\), but is .* of \(1, 8, 8\)"),
            ({"boxes": torch.zeros(2, 5)}, r"boxes must have shape \(R, 4\), x1 y1 x2 y2, but have shape \(2, 5\)"),
            ({"boxes": torch.tensor([[0.0, 0, 1, 1], [0, 0, math.nan, 1]])}, "box 1 holds nan or infinity"),
            ({"size": 0, "context": 0}, r"size must be at least 1 and context in \[0, size / 2\), but are 0 and 0"),
            ({"mode": "crop"}, "mode must be one of 'warp', 'square with context', .* not 'crop'"),
            ({"fill": (0.5,)}, "fill must be a color of 3 numbers, but has 1"),
        ],
    )
    def test_what_does_not_fit_is_named(self, changes, message):
        good = {"image": torch.zeros(3, 8, 8), "boxes": torch.tensor([[0.0, 0, 1, 1]]), "size": 8, "context": 1}
        with pytest.raises(ValueError, match=message):
            warp_regions(**(good | changes))
