"""The fully connected layer as a convolution, against a product of matrices."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from minircnn.fast_rcnn import RegionLinear, truncate


@pytest.mark.parametrize("shape", [(5, 4, 3, 3), (1, 2, 6, 1), (0, 4, 3, 3)])
@pytest.mark.parametrize("bias", [True, False])
def test_values_and_gradients_equal_those_of_a_linear_layer(shape, bias):
    maps = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    layer = RegionLinear(maps[0].numel() if len(maps) else 36, 7, bias=bias).double()
    weights = torch.randn(shape[0], 7, dtype=torch.float64)
    results = []
    for found in (layer(maps), F.linear(maps.flatten(1), layer.weight, layer.bias), layer(maps.flatten(1))):
        gradients = torch.autograd.grad((found * weights).sum(), [maps, *layer.parameters()])
        results.append((found.detach(), *gradients))
    for other in results[1:]:
        for mine, reference in zip(results[0], other, strict=True):
            assert torch.allclose(mine, reference, atol=1e-12)


def test_any_memory_format():
    maps, layer = torch.randn(5, 4, 3, 3), RegionLinear(36, 7)
    stored = maps.contiguous(memory_format=torch.channels_last)
    assert torch.allclose(layer(stored), layer(maps), atol=1e-6)


def test_it_shares_the_tensors_of_the_layer_that_it_replaces():
    layer = nn.Linear(36, 7)
    region = RegionLinear.of(layer)
    assert region.weight is layer.weight and region.bias is layer.bias
    assert RegionLinear.of(nn.Linear(36, 7, bias=False)).bias is None
    assert region.state_dict().keys() == layer.state_dict().keys()


def test_truncated_it_still_looks_at_maps():
    maps, layer = torch.randn(5, 4, 3, 3), RegionLinear(36, 7)
    assert torch.allclose(truncate(layer, 7)(maps), layer(maps), atol=1e-5)


@torch.no_grad()
def test_changed_weights_count_at_once():
    """Filters are kept for prediction, but never those of yesterday's weights."""
    maps = torch.randn(5, 4, 3, 3).contiguous(memory_format=torch.channels_last)
    layer = RegionLinear(36, 7)

    def agrees(other=layer):
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
    taller = torch.randn(5, 4, 9, 1).contiguous(memory_format=torch.channels_last)
    assert torch.allclose(layer(taller), F.linear(taller.flatten(1), layer.weight, layer.bias), atol=1e-5)
    assert agrees()
    with torch.inference_mode():
        assert agrees() and agrees(copy.deepcopy(layer))
    assert layer.state_dict().keys() == {"weight", "bias"}


def test_training_after_prediction_uses_the_weights_themselves():
    maps = torch.randn(5, 4, 3, 3).contiguous(memory_format=torch.channels_last)
    layer = RegionLinear(36, 7)
    with torch.no_grad():
        layer(maps)
    layer(maps).sum().backward()
    assert layer.weight.grad.abs().sum() > 0
