"""An AlexNet of whichever kind a file holds, its convolutions alone, and the response normalisation of 2012."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from minircnn.alexnet import (
    ALEXNET_2012,
    SMALL,
    TORCHVISION,
    AlexNet,
    ResponseNorm,
    load_pretrained,
    save_alexnet,
    up_to_pool5,
)
from minircnn.weights import WeightsError

THIN_2012 = replace(ALEXNET_2012, channels=(8, 12, 8, 8, 12), hidden=16)


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# ------------------------------------------------------------------------------------------------------- what is loaded


def test_our_own(tmp_path):
    torch.manual_seed(0)
    network = AlexNet(SMALL, 18)
    save_alexnet(network, tmp_path / "x.safetensors", {})
    loaded, last = load_pretrained(tmp_path / "x.safetensors")
    assert (loaded.config, last, loaded.training) == (SMALL, "fc7", False)
    assert torch.equal(loaded.classifier.fc7.weight, network.classifier.fc7.weight.half().float())
    (tmp_path / "x.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"x\.json: not found"):
        load_pretrained(tmp_path / "x.safetensors")


def test_torchvisions(tmp_path):
    """As torch.save writes it; the same answers come out of both networks."""
    torch.manual_seed(0)
    reference = torchvision.models.alexnet(weights=None).eval()
    path = tmp_path / "renamed.pt"
    torch.save(reference.state_dict(), path)
    loaded, last = load_pretrained(path)
    path.unlink()  # 240 MB
    assert (loaded.config, last, loaded.training) == (TORCHVISION, "fc7", False)
    images = numbers(1, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(loaded(images), reference(images), atol=1e-6, rtol=1e-6)


def test_convolutions_of_2012(tmp_path):
    """Only they have learned something: so says the name of the last layer."""
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in AlexNet(ALEXNET_2012, 2).backbone.named_parameters()}
    arrays = {name: np.full(shape, i, np.float16) for i, (name, shape) in enumerate(shapes.items())}
    np.savez(tmp_path / "x.npz", mean=np.array([1.0, 2, 3], np.float32), **arrays)
    loaded, last = load_pretrained(tmp_path / "x.npz")
    assert last == "pool5" and not loaded.training
    assert loaded.config.mean == pytest.approx((1 / 255, 2 / 255, 3 / 255))
    for name, value in loaded.backbone.named_parameters():
        assert np.array_equal(value.detach(), arrays[name].astype(np.float32)), name


@pytest.mark.parametrize("holds", [{"layer1.weight": torch.zeros(2)}, {}], ids=["another", "nothing"])
def test_what_is_none_of_the_three_is_named_with_what_would_be(tmp_path, holds):
    torch.save(holds, tmp_path / "x.pth")
    with pytest.raises(WeightsError) as caught:
        load_pretrained(tmp_path / "x.pth")
    for words in ("x.pth: no AlexNet, it holds", next(iter(holds), "nothing"), ".safetensors", ".pth", ".npz"):
        assert words in str(caught.value)


def test_parts_of_a_network_are_not_enough(tmp_path):
    torch.save({"features.0.weight": torch.zeros(64, 3, 11, 11)}, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match=r"x\.pth: weights for another network: .* is missing"):
        load_pretrained(tmp_path / "x.pth")
    np.savez(tmp_path / "x.npz", **{"conv1.weight": np.zeros((96, 3, 11, 11))})
    with pytest.raises(WeightsError, match=r"x\.npz: weights for another network: .* is missing"):
        load_pretrained(tmp_path / "x.npz")


# --------------------------------------------------------------------------------------------------- convolutions alone


@pytest.mark.parametrize("config", [SMALL, THIN_2012], ids=["small", "2012"])
def test_up_to_pool5_the_features_are_the_same(config):
    torch.manual_seed(0)
    network = AlexNet(config, 5).eval()
    cut, images = up_to_pool5(network), numbers(2, 3, config.input_size, config.input_size)
    assert cut.config == replace(config, hidden=0) and not cut.training
    assert cut.feature_sizes == {"pool5": network.feature_sizes["pool5"]}
    with torch.no_grad():
        pool5 = cut.features(images, ["pool5"])["pool5"]
        assert torch.equal(pool5, network.features(images, ["pool5"])["pool5"])
    with pytest.raises(ValueError, match=r"layers must be some of pool5, not \['fc6'\]"):
        cut.features(images, ["fc6"])


def test_up_to_pool5_nothing_else_is_left():
    """Convolutions, and an fc8 of one output that stands on pool5 and depends on nothing that was drawn before."""
    network = AlexNet(SMALL, 5)
    cut = up_to_pool5(network)
    size = network.feature_sizes["pool5"]
    convolutions = sum(value.numel() for value in network.backbone.parameters())
    assert sum(value.numel() for value in cut.parameters()) == convolutions + size + 1
    assert not cut.fc8.weight.any() and not cut.fc8.bias.any()
    assert cut(torch.zeros(2, 3, 64, 64)).shape == (2, 1)
    assert network.config == SMALL and list(network.classifier.children())


def test_no_fewer_than_no_neurons():
    with pytest.raises(ValueError, match="hidden must be at least 0, not -1"):
        replace(SMALL, hidden=-1)


# ----------------------------------------------------------------------------------------------- response normalisation


@pytest.mark.parametrize("size, alpha, k", [(5, 1e-4, 1.0), (3, 0.5, 2.0), (1, 0.1, 0.5)])
@pytest.mark.parametrize("channels", [1, 2, 5, 12])
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_response_norm_equals_pytorchs(size, alpha, k, channels, order):
    x = (numbers(2, channels, 4, 3) * 60).contiguous(memory_format=order).requires_grad_()
    before, found = x.detach().clone(), []
    for layer in (ResponseNorm(size, alpha, k), nn.LocalResponseNorm(size, alpha, 0.75, k)):
        y = layer(x)
        found.append((y.detach(), *torch.autograd.grad(y.square().sum(), x)))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-5)
    assert torch.equal(x.detach(), before)


def test_response_norm_by_hand():
    """Three channels of 1, 2, 2, in windows of three: sums of squares 5, 9, 8, times 3 / 3, plus 1; to the 3/4."""
    x = torch.tensor([1.0, 2.0, 2.0]).view(1, 3, 1, 1)
    found = ResponseNorm(3, 3.0, 1.0)(x).flatten()
    np.testing.assert_allclose(found, [1 / 6**0.75, 2 / 10**0.75, 2 / 9**0.75], rtol=1e-6)


def test_response_norm_says_what_it_is():
    """The cache tells networks apart by what they say of themselves."""
    assert repr(ResponseNorm(5, 1e-4, 1.0)) == "ResponseNorm(5, alpha=0.0001, beta=0.75, k=1.0)"
