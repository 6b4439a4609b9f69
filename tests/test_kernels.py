"""The fast forms equal the plain ones, and are not slow or wasteful where they could be."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torchvision import ops

from minircnn import kernels
from minircnn.boxes import batched_nms
from minircnn.course.compare import peak_memory
from minircnn.fast_rcnn import RegionLinear, truncate
from minircnn.pooling import roi_align, roi_align_separable, roi_pool, roi_pool_loop
from tests.test_boxes import grid_boxes, nms_by_hand
from tests.test_pooling import SCALE, anywhere, gradient, maps, regions


class TestNMS:
    @settings(max_examples=60)
    @given(
        *(st.data(), grid_boxes, st.sampled_from([0.0, 0.2, 1 / 3, 0.5, 0.9]), st.sampled_from([1, 2, 5, 256])),
        st.none() | st.integers(0, 6),
    )
    def test_against_slow_loop_for_any_block_size_and_max_keep(self, data, boxes, threshold, block, max_keep):
        n = len(boxes)
        scores = data.draw(st.lists(st.integers(0, 5), min_size=n, max_size=n))
        groups = data.draw(st.lists(st.integers(-1, 3), min_size=n, max_size=n))
        with pytest.MonkeyPatch.context() as patch:
            for name, value in (("NMS_BLOCK", block), ("NMS_STEP", max(1, block // 2)), ("NMS_PAIRS", 2 * block)):
                patch.setattr(kernels, name, value)
            scored = torch.tensor(scores).float(), torch.tensor(groups).long()
            kept = batched_nms(boxes.double(), *scored, threshold, max_keep)
        assert kept.tolist() == nms_by_hand(boxes.tolist(), scores, groups, threshold)[:max_keep]

    @pytest.mark.parametrize("block", [256, 10])
    def test_groups_of_all_sizes_beside_each_other(self, monkeypatch, block):
        """Some fit into one step, some into a batch, the largest into neither; against torchvision, group by group."""
        generator = torch.Generator().manual_seed(0)
        sizes = (1, 2, 3, 5, 7, 8, 60, 90, 128, 129, 200, 300, 500, 513, 900)
        groups = torch.repeat_interleave(torch.tensor(sizes))[torch.randperm(sum(sizes), generator=generator)]
        corner = torch.rand(len(groups), 2, generator=generator) * 200
        boxes = torch.cat([corner, corner + 10 + torch.rand(len(groups), 2, generator=generator) * 50], dim=1)
        scores = torch.randperm(len(groups), generator=generator) / len(groups)
        members = [(groups == group).nonzero()[:, 0] for group in range(len(sizes))]
        kept = torch.cat([member[ops.nms(boxes[member], scores[member], 0.3)] for member in members])
        wanted = kept[scores[kept].argsort(descending=True)]
        monkeypatch.setattr(kernels, "NMS_BLOCK", block)
        assert torch.equal(batched_nms(boxes, scores, groups, 0.3), wanted)
        one_group, wanted_of_one = torch.zeros_like(groups), ops.nms(boxes, scores, 0.3)
        for most in range(1, 60):
            assert torch.equal(batched_nms(boxes, scores, groups, 0.3, most), wanted[:most])
            assert torch.equal(batched_nms(boxes, scores, one_group, 0.3, most), wanted_of_one[:most])


class TestRoIPool:
    @pytest.mark.parametrize("make", [regions, anywhere])
    def test_equals_the_plain_form_with_its_gradient(self, make):
        features, rois = maps() - 0.3, make(120, seed=2)
        assert torch.equal(roi_pool(features, rois, (3, 4), SCALE), roi_pool_loop(features, rois, (3, 4), SCALE))
        fast, plain = (gradient(pool, features, rois, (3, 4), SCALE) for pool in (roi_pool, roi_pool_loop))
        assert torch.equal(fast, plain)

    @pytest.mark.parametrize("shape", [(1, 700), (700, 1), (40, 90)], ids=str)
    def test_bins_of_any_length_on_long_maps(self, shape):
        """Bins much longer than the windows of which each length exists."""
        features, rois = maps(2, 3, *shape) - 0.3, anywhere(300, 2, 8, *shape)
        # And a bin of every length there is.
        ends = 8 * torch.arange(max(shape), dtype=torch.float32)[:, None]
        rois = torch.cat([rois, torch.cat([ends * 0, ends * 0, ends * 0, ends, ends], dim=1)])
        for size in ((1, 1), (2, 3)):
            assert torch.equal(roi_pool(features, rois, size, SCALE), ops.roi_pool(features, rois, size, SCALE))

    @pytest.mark.parametrize("few", [0, math.inf], ids=["by rank", "listed"])
    @pytest.mark.parametrize("shape", [(9, 13), (150, 230)], ids=["ranks of 16 bits", "of 32"])
    def test_both_ways_to_the_first_of_many_equal_cells(self, monkeypatch, few, shape):
        features = (2 * maps(2, 3, *shape)).round()
        features[:, :, ::2] *= -1  # makes -0, which equals 0
        rois = torch.cat([anywhere(200, 2, 8, *shape), regions(50, 2, 8, *shape)])
        monkeypatch.setattr(kernels, "_FEW", few)
        for layout in (torch.contiguous_format, torch.channels_last):
            given = features.contiguous(memory_format=layout)
            ours, theirs = (pool(given.requires_grad_(), rois, (2, 3), SCALE) for pool in (roi_pool, ops.roi_pool))
            assert torch.equal(ours, theirs)
            ours, theirs = (gradient(pool, given, rois, (2, 3), SCALE) for pool in (roi_pool, ops.roi_pool))
            assert torch.equal(ours, theirs)

    def test_a_gradient_of_the_gradient_is_refused(self):
        features = maps().requires_grad_()
        pooled = roi_pool(features, regions(20), 2, SCALE)
        (first,) = torch.autograd.grad((pooled**2).sum(), features, create_graph=True)
        with pytest.raises(RuntimeError, match="once_differentiable"):
            first.sum().backward()


class TestRoIAlign:
    @pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
    @pytest.mark.parametrize("count", [1, 8, 150])
    def test_few_regions_on_large_maps(self, count, layout):
        """Only the cells that they need are copied; the values are the same, and so is where the gradients go."""
        features = (maps(3, 16, 40, 60) - 0.3).contiguous(memory_format=layout)
        rois = anywhere(count, 3, 8, 40, 60, seed=count)
        for arguments in ((7, SCALE, 2, True), (7, SCALE, -1, False)):
            fast, plain = (align(features, rois, *arguments) for align in (roi_align, roi_align_separable))
            assert torch.allclose(fast, plain, atol=1e-5)
            ours, theirs = (gradient(one, features, rois, *arguments) for one in (roi_align, ops.roi_align))
            assert torch.allclose(ours, theirs, atol=1e-5 * theirs.abs().max().item())
        if count == 1:
            held = peak_memory(lambda: roi_align(features, rois, 2, SCALE, 2, True))
            assert held < features.numel() * features.element_size() / 2

    @pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
    def test_many_regions_take_the_memory_of_a_part(self, layout):
        features = (maps(3, 2, 20, 30) - 0.3).contiguous(memory_format=layout)
        rois = anywhere(12_000, 3, 8, 20, 30)
        arguments = rois, 7, SCALE, 2, True
        assert torch.allclose(roi_align(features, *arguments), ops.roi_align(features, *arguments), atol=1e-5)
        ours, theirs = (gradient(one, features, *arguments) for one in (roi_align, ops.roi_align))
        assert torch.allclose(ours, theirs, atol=1e-5 * theirs.abs().max().item())
        held, result = peak_memory(lambda: roi_align(features, *arguments)), 12_000 * 2 * 7 * 7 * 4
        assert held < 25 * result


class TestRegionLinear:
    @pytest.mark.parametrize("shape", [(5, 4, 3, 3), (1, 2, 6, 1), (0, 4, 3, 3)])
    @pytest.mark.parametrize("bias", [True, False])
    def test_values_and_gradients_equal_those_of_a_linear_layer(self, shape, bias):
        maps = torch.randn(shape, dtype=torch.float64, requires_grad=True)
        plain = nn.Linear(math.prod(shape[1:]), 7, bias=bias)
        layer = RegionLinear.of(plain.double())
        assert layer.weight is plain.weight and layer.bias is plain.bias
        weights = torch.randn(shape[0], 7, dtype=torch.float64)
        stored = maps.contiguous(memory_format=torch.channels_last)
        results = []
        for found in (plain(maps.flatten(1)), layer(maps), layer(stored), layer(maps.flatten(1))):
            gradients = torch.autograd.grad((found * weights).sum(), [maps, *layer.parameters()])
            results.append((found.detach(), *gradients))
        for other in results[1:]:
            for mine, reference in zip(results[0], other, strict=True):
                assert torch.allclose(mine, reference, atol=1e-12)

    @torch.no_grad()
    def test_changed_weights_count_at_once(self):
        """Filters are kept for prediction, but never those of yesterday's weights, and training uses the weights."""
        maps = torch.randn(5, 4, 3, 3).contiguous(memory_format=torch.channels_last)
        layer = RegionLinear(36, 7)

        def agrees(other=layer, maps=maps):
            return torch.allclose(other(maps), F.linear(maps.flatten(1), other.weight, other.bias), atol=1e-5)

        assert agrees() and agrees()
        layer.weight.mul_(2)
        assert agrees()
        layer.load_state_dict({"weight": torch.randn(7, 36), "bias": torch.randn(7)})
        assert agrees()
        layer.weight = nn.Parameter(torch.randn(7, 36))
        assert agrees()
        copied = copy.deepcopy(layer)
        copied.weight.zero_()
        assert agrees(copied) and agrees()
        assert agrees(maps=torch.randn(5, 4, 9, 1).contiguous(memory_format=torch.channels_last)) and agrees()
        assert torch.allclose(truncate(layer, 7)(maps), layer(maps), atol=1e-4)
        with torch.inference_mode():
            assert agrees() and agrees(copy.deepcopy(layer))
        assert layer.state_dict().keys() == {"weight", "bias"}
        with torch.enable_grad():
            layer(maps).sum().backward()
        assert layer.weight.grad.abs().sum() > 0
