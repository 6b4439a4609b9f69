"""AlexNet against torchvision's, the paper's numbers and slow formulas; and what files hold."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F
from torchvision.models import AlexNet_Weights

from minircnn import alexnet
from minircnn.alexnet import (
    ALEXNET_2012,
    LAYERS,
    SMALL,
    SMALL_STRIDE_16,
    TORCHVISION,
    AlexNet,
    AlexNetConfig,
    ResponseNorm,
    fold_batch_norm,
    load_alexnet,
    load_alexnet_2012,
    load_imagenet_weights,
    load_pretrained,
    save_alexnet,
    up_to_pool5,
)
from minircnn.files import sha256
from minircnn.weights import WeightsError, save_weights

CONFIGS = {"2012": ALEXNET_2012, "torchvision": TORCHVISION, "small": SMALL, "small, stride 16": SMALL_STRIDE_16}
# The 2012 network with all that is special about it, in a size that is quick to make.
THIN_2012 = replace(ALEXNET_2012, channels=(8, 12, 8, 8, 12), hidden=16)


def fresh(config, classes=5, seed=0):
    torch.manual_seed(seed)
    return AlexNet(config, classes).eval()


def images_of(*shape, seed=1):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def reference():
    """Torchvision's network with random weights that half precision can hold."""
    torch.manual_seed(0)
    network = torchvision.models.alexnet().eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(parameter.half())
    return network


@pytest.fixture(scope="module")
def published(reference, tmp_path_factory):
    """Its weights in a file, as they can be downloaded."""
    path = tmp_path_factory.mktemp("weights") / "alexnet.pth"
    torch.save({name: value.half() for name, value in reference.state_dict().items()}, path)
    yield path
    path.unlink()  # 120 MB


@pytest.fixture(scope="module")
def ours(published):
    network, last = load_pretrained(published)
    assert (network.config, last, network.training) == (TORCHVISION, "fc7", False)
    return network


class TestTorchvision:
    @pytest.mark.parametrize("height, width", [(63, 63), (301, 130)])
    @torch.no_grad()
    def test_equals_torchvision(self, reference, ours, height, width):
        """In training, too, where the same seed drops the same values."""
        images, found = images_of(2, 3, height, width) * 4 - 2, []
        torch.testing.assert_close(ours.backbone(images), reference.features[:-1](images), atol=1e-6, rtol=1e-6)
        for network in (ours, reference):
            answers = [network(images)]
            torch.manual_seed(7)
            answers.append(network.train()(images))
            network.eval()
            found.append(answers)
        torch.testing.assert_close(*found, atol=1e-6, rtol=1e-6)
        assert not torch.equal(*found[0])

    def test_imagenet_weights_are_torchvisions(self, ours, published, tmp_path, monkeypatch):
        assert AlexNet_Weights.IMAGENET1K_V1.url == alexnet.IMAGENET_URL
        monkeypatch.setenv("MINIRCNN_CACHE", str(tmp_path))
        monkeypatch.setattr(alexnet, "IMAGENET_URL", published.as_uri())
        monkeypatch.setattr(alexnet, "IMAGENET_SHA256", sha256(published)[:8])
        assert torch.equal(load_imagenet_weights().fc8.weight, ours.fc8.weight)


class TestOf2012:
    def test_number_of_parameters_from_the_layer_sizes_of_the_paper(self):
        """Filters of half of the channels below, in conv2, conv4 and conv5; as often stated, 61 million."""
        filters = [(96, 3 * 11**2), (256, 48 * 5**2), (384, 256 * 3**2), (384, 192 * 3**2), (256, 192 * 3**2)]
        wanted = [*filters, (4096, 256 * 6 * 6), (4096, 4096), (1000, 4096)]
        with torch.device("meta"):  # all the shapes and no memory
            network = AlexNet(ALEXNET_2012, 1000)
        weights = [value for value in network.parameters() if value.dim() > 1]
        assert [(len(value), value[0].numel()) for value in weights] == wanted
        assert sum(value.numel() for value in network.parameters()) == 60_965_224

    @torch.no_grad()
    def test_layers_are_those_of_the_paper(self):
        """Written out; with pixels from 0 to 255, so that the response normalization has something to divide."""
        network = fresh(THIN_2012).double()
        for parameter in network.parameters():
            parameter.mul_(3)
        layers, sizes = network.backbone, []
        x = image = (images_of(1, 3, 227, 227) * 255 - 110).double()
        for conv, options in ((layers.conv1, {"stride": 4}), (layers.conv2, {"padding": 2, "groups": 2})):
            x = F.conv2d(x, conv.weight, conv.bias, **options).relu()
            x = F.max_pool2d(F.local_response_norm(x, 5, 1e-4, 0.75, 1.0), 3, 2)
            sizes.append(x.shape[2])
        for conv, groups in ((layers.conv3, 1), (layers.conv4, 2), (layers.conv5, 2)):
            x = F.conv2d(x, conv.weight, conv.bias, padding=1, groups=groups).relu()
        torch.testing.assert_close(network.backbone(image), x, rtol=1e-9, atol=1e-9)
        x = F.max_pool2d(x, 3, 2)
        assert [*sizes, x.shape[2]] == [27, 13, 6], "as in the paper"
        x = x.flatten(1)
        for fc in (network.classifier.fc6, network.classifier.fc7):
            x = F.linear(x, fc.weight, fc.bias).relu()
        torch.testing.assert_close(network(image), network.fc8(x), rtol=1e-9, atol=1e-9)

    @pytest.mark.parametrize("size, alpha, k", [(5, 1e-4, 1.0), (3, 0.5, 2.0)])
    @pytest.mark.parametrize("channels", [1, 12])
    def test_response_norm_equals_pytorchs(self, size, alpha, k, channels):
        x = (torch.randn(2, channels, 4, 3, generator=torch.Generator().manual_seed(0)) * 60).requires_grad_()
        before, found = x.detach().clone(), []
        for layer in (ResponseNorm(size, alpha, k), nn.LocalResponseNorm(size, alpha, 0.75, k)):
            y = layer(x)
            found.append((y.detach(), *torch.autograd.grad(y.square().sum(), x)))
        for ours, theirs in zip(*found, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-5)
        assert torch.equal(x.detach(), before)
        # The cache tells networks apart by what they say of themselves.
        assert repr(ResponseNorm(5, 1e-4, 1.0)) == "ResponseNorm(5, alpha=0.0001, beta=0.75, k=1.0)"


@pytest.mark.parametrize("name", CONFIGS)
def test_normalize_against_numpy(name):
    with torch.device("meta"):
        network = AlexNet(CONFIGS[name], 2)
    images = images_of(2, 3, 5, 7)
    before, pixels = images.clone(), images.double().numpy()
    if name == "2012":  # Caffe: blue, green, red from 0 to 255, less the mean of ImageNet
        wanted = pixels[:, [2, 1, 0]] * 255 - np.array([104.00699, 116.66877, 122.67891]).reshape(3, 1, 1)
    elif name == "torchvision":
        mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
        wanted = (pixels - mean.reshape(3, 1, 1)) / std.reshape(3, 1, 1)
    else:
        wanted = (pixels - 0.45) / 0.25
    np.testing.assert_allclose(network.normalize(images), wanted, rtol=1e-4, atol=1e-4)
    assert torch.equal(images, before)
    flat = torch.tensor(network.mean_color).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    torch.testing.assert_close(network.normalize(flat), torch.zeros(1, 3, 4, 4), atol=1e-4, rtol=0)


class TestFeatures:
    @pytest.mark.parametrize("config", [THIN_2012, SMALL], ids=["2012", "small"])
    @torch.no_grad()
    def test_they_are_what_forward_computes_on_its_way(self, config):
        network = fresh(config)
        images, seen = network.normalize(images_of(3, 3, config.input_size, config.input_size)), {}
        names = {"pool5": network.pool5, "fc6": network.classifier.relu6, "fc7": network.classifier.relu7}
        hooks = [
            module.register_forward_hook(lambda _, __, out, name=name: seen.update({name: out.clone().flatten(1)}))
            for name, module in names.items()
        ]
        answers = network(images)
        torch.testing.assert_close(network.fc8(seen["fc7"]), answers)
        for hook in hooks:
            hook.remove()
        found = network.features(images, LAYERS)
        assert list(found) == ["pool5", "fc6", "fc7"]
        for name, value in found.items():
            assert torch.equal(value, seen[name]) and value.shape == (3, network.feature_sizes[name]), name
        for some in (["fc7", "pool5"], {"fc6"}, ("pool5",)):
            part = network.features(images, some)
            assert list(part) == [name for name in LAYERS if name in some]
            assert all(torch.equal(part[name], found[name]) for name in part)
        assert network.features(images[:0], LAYERS)["fc6"].shape == (0, config.hidden)
        for wrong in (["fc8"], []):
            with pytest.raises(ValueError, match=r"layers must be some of pool5, fc6, fc7, not \["):
                network.features(images, wrong)

    def test_up_to_pool5_they_are_the_same_and_nothing_else_is_left(self):
        network, images = fresh(SMALL), images_of(2, 3, SMALL.input_size, SMALL.input_size)
        cut = up_to_pool5(network)
        assert cut.config == replace(SMALL, hidden=0) and network.config == SMALL and not cut.training
        with torch.no_grad():
            pool5 = cut.features(images, ["pool5"])["pool5"]
            assert torch.equal(pool5, network.features(images, ["pool5"])["pool5"])
        with pytest.raises(ValueError, match=r"layers must be some of pool5, not \['fc6'\]"):
            cut.features(images, ["fc6"])


class TestGeometry:
    @pytest.mark.parametrize("height", [1, 6, 13])
    def test_grid_is_roi_pool_of_the_whole_map(self, height):
        network = fresh(SMALL)
        for width in (1, 6, 7, height + 9):
            maps = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(width))
            rois = torch.tensor([[float(i), 0.0, 0.0, width - 1.0, height - 1.0] for i in range(2)])
            assert torch.equal(network.pool5(maps), torchvision.ops.roi_pool(maps, rois, 6))

    @pytest.mark.parametrize("config, side, reach", [(SMALL, 96, 41), (SMALL_STRIDE_16, 192, 81)], ids=["8", "16"])
    def test_cells_are_centered_where_the_comment_says(self, config, side, reach):
        """Pixel 8k + 3 or 16k + 7: as far to the left as to the right of it, and no farther.

        How far: half of the kernels' widths less one, times the pixels between their inputs. At stride 8 conv1 looks 3
        to each side, pool1 1 · 2, conv2 2 · 4, pool2 1 · 4, the other three 1 · 8 each: 41. Many images, because a pool
        takes one of nine.
        """
        network = fresh(replace(config, channels=(16, 16, 16, 16, 16), hidden=8))
        images = torch.randn(24, 3, side, side, generator=torch.Generator().manual_seed(0)).requires_grad_()
        network.backbone(images)[:, :, 5, 6].sum().backward()
        reached = images.grad.abs().amax(dim=(0, 1)) > 0
        for axis, k in ((0, 6), (1, 5)):
            center = config.total_stride * k + {8: 3, 16: 7}[config.total_stride]
            found = torch.where(reached.any(dim=axis))[0]
            assert found.tolist() == list(range(center - reach, center + reach + 1))


class TestFoldBatchNorm:
    @torch.no_grad()
    def test_folded_equals_unfolded_in_evaluation(self):
        network = fresh(replace(SMALL, batch_norm=True))
        random = torch.Generator().manual_seed(5)
        norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
        for norm in norms:
            norm.running_mean.normal_(generator=random)
            norm.running_var.uniform_(0.2, 3, generator=random)
            norm.running_var[0] = 1e-5  # as large as the epsilon that is added to it
            nn.init.uniform_(norm.weight, 0.5, 2, generator=random)
            nn.init.normal_(norm.bias, generator=random)
        images = network.normalize(images_of(4, 3, 64, 64))
        wanted = network(images)
        network.train()
        before = {name: value.clone() for name, value in network.state_dict().items()}
        folded = fold_batch_norm(network)
        torch.testing.assert_close(folded(images), wanted, atol=1e-5, rtol=1e-5)
        assert len(norms) == 5 and not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
        assert not folded.training and network.training and folded.config == SMALL
        for parameter in folded.parameters():
            assert parameter.requires_grad
            parameter.zero_()
        assert all(torch.equal(network.state_dict()[name], value) for name, value in before.items())


class TestFiles:
    @pytest.mark.parametrize(
        "changes, message",
        [
            ({"channels": (1, 2, 3, 4)}, "five convolutions"),
            ({"pool5": "mean"}, 'pool5 must be "max", "max average" or "grid", not \'mean\''),
            ({"hidden": -1}, "hidden and padding at least 0"),
            ({"pool2_padding": 2}, "pool2_padding must be 0 or 1, not 2"),
            ({"input_size": 100}, "input_size 100 leaves 2 cells, pool5_size is 6"),
        ],
    )
    def test_numbers_that_make_no_network_are_refused(self, changes, message):
        with pytest.raises(ValueError, match=message):
            AlexNetConfig(**changes)

    @pytest.mark.parametrize("config", [SMALL, THIN_2012], ids=["small", "2012"])
    @torch.no_grad()
    def test_saved_and_loaded_in_half_precision(self, tmp_path, config):
        network, path = fresh(config, classes=18), tmp_path / "ä b" / "alexnet.safetensors"
        save_alexnet(network, path, {"what": "a test"})
        found, last = load_pretrained(path)
        assert found.config == config and not found.training and last == "fc7"
        for name, value in network.state_dict().items():
            assert torch.equal(found.state_dict()[name], value.half().float()), name
        told = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        assert told["num_classes"] == 18 and told["what"] == "a test"
        assert told["network"] == json.loads(json.dumps(asdict(config)))
        path.with_suffix(".json").unlink()
        with pytest.raises(FileNotFoundError, match=r"alexnet\.json: not found"):
            load_pretrained(path)

    def test_weights_of_another_network_and_of_none_are_named(self, tmp_path):
        path = tmp_path / "w.safetensors"
        save_weights(path, fresh(SMALL).state_dict(), {"network": asdict(SMALL) | {"input_size": 2}, "num_classes": 5})
        with pytest.raises(WeightsError, match=r"w\.safetensors: its JSON does not describe an AlexNet"):
            load_alexnet(path)
        save_weights(path, fresh(SMALL).state_dict(), {"network": asdict(SMALL_STRIDE_16), "num_classes": 5})
        with pytest.raises(WeightsError, match=r"another network: backbone\.conv1\.weight has shape \(32, 3, 7, 7\)"):
            load_alexnet(path)
        for name, message in (
            ("features.0.weight", "weights for another network: .* is missing"),
            ("layer1.weight", r"no AlexNet, it holds layer1.weight ….*\.safetensors.*\.pth.*\.npz"),
        ):
            torch.save({name: torch.zeros(64, 3, 11, 11)}, tmp_path / "x.pth")
            with pytest.raises(WeightsError, match=rf"x\.pth: {message}"):
                load_pretrained(tmp_path / "x.pth")


class TestConvolutionsOf2012:
    @pytest.fixture
    def convolutions(self, monkeypatch):
        """Names and shapes as Caffe has them, by hand; random numbers. The layers behind them are small here."""
        monkeypatch.setattr(alexnet, "ALEXNET_2012", replace(ALEXNET_2012, hidden=8))
        random = np.random.default_rng(0)
        shapes = [(96, 3, 11, 11), (256, 48, 5, 5), (384, 256, 3, 3), (384, 192, 3, 3), (256, 192, 3, 3)]
        arrays = {}
        for i, shape in enumerate(shapes, start=1):
            arrays[f"conv{i}.weight"] = random.normal(size=shape).astype(np.float16)
            arrays[f"conv{i}.bias"] = random.normal(size=shape[0]).astype(np.float16)
        return arrays

    def test_from_a_file(self, convolutions, tmp_path):
        np.savez(tmp_path / "conv.npz", **convolutions)
        network = load_alexnet_2012(tmp_path / "conv.npz", num_classes=2)
        assert network.config == alexnet.ALEXNET_2012 and network.fc8.out_features == 2 and not network.training
        for name, value in convolutions.items():
            assert np.array_equal(network.backbone.get_parameter(name).detach(), value.astype(np.float32)), name
        # Fully connected layers in the file do not disturb, and only convolutions have learned something.
        convolutions |= {"fc6.weight": np.zeros(3), "mean": np.array([10.0, 20.0, 30.0])}
        np.savez(tmp_path / "conv.npz", **convolutions)
        network, last = load_pretrained(tmp_path / "conv.npz")
        assert last == "pool5" and network.fc8.out_features == 1000 and network.classifier.fc7.weight.any()
        assert network.mean_color == pytest.approx((30 / 255, 20 / 255, 10 / 255))
        assert replace(network.config, mean=ALEXNET_2012.mean) == alexnet.ALEXNET_2012

        del convolutions["conv4.bias"]
        for mean, message in (
            (np.zeros(3), r"another network: backbone\.conv4\.bias is missing$"),
            (np.zeros((3, 7, 7)), r"mean has shape \(3, 7, 7\); give one number for each"),
        ):
            np.savez(tmp_path / "conv.npz", **{**convolutions, "mean": mean})
            with pytest.raises(WeightsError, match=rf"conv\.npz: .*{message}"):
                load_alexnet_2012(tmp_path / "conv.npz", num_classes=2)

    def test_the_trained_ones(self, real_data):
        """Of a published file."""
        network = load_alexnet_2012(real_data / "alexnet-imagenet" / "alexnet_conv.npz", num_classes=2)
        assert network.backbone.conv1.weight.abs().max().item() == pytest.approx(0.3767, abs=1e-3)
        assert [255 * v for v in network.config.mean] == pytest.approx([104.00699, 116.66877, 122.67891], abs=1e-3)
