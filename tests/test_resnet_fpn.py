"""ResNet-50 and the feature pyramid against torchvision's, with the same weights."""

import pytest
import torch
from torch import nn
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d as Reference

from minircnn.resnet_fpn import FrozenBatchNorm2d, ResNetFPN, ResNetFPNConfig

TINY = ResNetFPNConfig(blocks=(1, 2, 1, 1), width=4, channels=6)


def randomize(norm):
    """Statistics as a trained layer has them."""
    norm.weight.uniform_(0.5, 1.5)
    norm.bias.normal_(0, 0.2)
    norm.running_mean.normal_(0, 0.2)
    norm.running_var.uniform_(0.5, 2)


@pytest.fixture(scope="module")
def pair():
    """Torchvision's backbone with frozen batch normalization, and ours with its weights."""
    torch.manual_seed(0)
    theirs = resnet_fpn_backbone(backbone_name="resnet50", weights=None, norm_layer=Reference, trainable_layers=2)
    for module in theirs.modules():
        if isinstance(module, Reference):
            randomize(module)
    ours = ResNetFPN(trainable_layers=2)
    ours.load_state_dict(theirs.state_dict())
    return ours.double(), theirs.double()


@pytest.mark.parametrize("size", [(33, 71), (1, 1)])
def test_maps_equal_torchvisions(pair, size):
    """In double precision, where fifty layers do not add up to a visible error."""
    images = torch.rand(2, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        ours, theirs = (backbone(images) for backbone in pair)
    assert list(ours) == list(theirs) == ["0", "1", "2", "3", "pool"]
    for name, level in theirs.items():
        assert ours[name].shape == level.shape
        assert (ours[name] - level).abs().max() < 1e-9 * level.abs().max()


def test_gradients_equal_torchvisions(pair):
    images, gradients = torch.rand(1, 3, 32, 32, dtype=torch.float64), []
    for backbone in pair:
        backbone.zero_grad()
        sum(level.sin().sum() for level in backbone(images).values()).backward()
        gradients.append({name: p.grad for name, p in backbone.named_parameters() if p.requires_grad})
    ours, theirs = gradients
    assert ours.keys() == theirs.keys() and "body.layer3.0.conv1.weight" in ours
    assert not any(name.startswith(("body.conv1", "body.layer1", "body.layer2")) for name in ours)
    for name, gradient in theirs.items():
        assert torch.allclose(ours[name], gradient, rtol=1e-6, atol=1e-9 * float(gradient.abs().max())), name


def test_a_fresh_network_is_torchvisions():
    """The same layers learn, from weights of the same spread; what is drawn for a layer depends on the order."""
    torch.manual_seed(0)
    theirs = resnet_fpn_backbone(backbone_name="resnet50", weights=None, norm_layer=Reference, trainable_layers=4)
    ours = ResNetFPN(trainable_layers=4)
    learn = {name for name, p in ours.named_parameters() if p.requires_grad}
    assert learn == {name for name, p in theirs.named_parameters() if p.requires_grad}
    for name, value in theirs.state_dict().items():
        if "conv" in name or name.endswith("blocks.0.0.weight"):
            assert ours.state_dict()[name].std() == pytest.approx(float(value.std()), rel=0.1), name
    for layers in (0, 5):
        ours.freeze(layers)
        assert {p.requires_grad for p in ours.body.parameters()} == {layers == 5}
        assert all(p.requires_grad for p in ours.fpn.parameters())


@pytest.mark.parametrize("eps", [0.0, 1e-5, 0.1])
def test_frozen_batch_normalization(eps):
    ours, theirs, learned = FrozenBatchNorm2d(5, eps), Reference(5, eps), nn.BatchNorm2d(5, eps).eval()
    with torch.no_grad():
        randomize(theirs)
        for other in (ours, learned):
            other.load_state_dict(theirs.state_dict(), strict=False)
        x = torch.randn(2, 5, 4, 3)
        assert torch.allclose(ours(x), theirs(x), atol=1e-6) and torch.allclose(ours(x), learned(x), atol=1e-5)
    assert not list(ours.parameters()), "nothing in it learns"
    ours.running_var.zero_()  # without eps it divides by 0, as the published network would
    assert bool(ours(x).isfinite().all()) == (eps > 0)


@pytest.mark.parametrize("change", [{"blocks": (1, 0, 1, 1)}, {"width": 0}, {"norm_eps": -1.0}])
def test_networks_that_are_none_are_refused(change):
    with pytest.raises(ValueError, match="at least"):
        ResNetFPNConfig(**change)
    for layers in (-1, 6):
        with pytest.raises(ValueError, match=f"from 0 to 5, but is {layers}"):
            ResNetFPN(TINY, layers)
