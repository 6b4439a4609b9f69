"""AlexNet, the network that R-CNN took from image classification, in three sizes: of 2012, torchvision's, and ours.

Krizhevsky, Sutskever and Hinton 2012, "ImageNet Classification with Deep Convolutional Neural Networks". Five
convolutions see the image, three fully connected layers classify it. R-CNN takes the whole network; Fast R-CNN and all
that follow keep the five convolutions, the *backbone*, and let the rest look at one region at a time.

Shape comments: B images, K classes, C channels, H W image size, h w feature-map size, D features.
"""

from collections import OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import fusion

from minircnn.shipped import SMALL_STRIDE_16_WEIGHTS as SMALL_STRIDE_16_WEIGHTS
from minircnn.shipped import SMALL_WEIGHTS
from minircnn.weights import (
    WeightsError,
    built_as_described,
    config_of,
    download,
    halve,
    load_into,
    load_weights,
    read_tensors,
    save_weights,
)

LAYERS = ("pool5", "fc6", "fc7")
"""The layers whose outputs serve as features, in the order in which an image passes them."""


@dataclass(frozen=True)
class AlexNetConfig:
    """Hyperparameters of the network. The defaults are those of 2012 (section 3.5)."""

    channels: tuple[int, ...] = (96, 256, 384, 384, 256)  # of the five convolutions
    groups: tuple[int, ...] = (1, 2, 1, 2, 2)  # 2: the halves of the channels lay on two GPUs and did not meet
    kernel: int = 11  # of conv1
    stride: int = 4  # of conv1; the two pools behind it double it twice
    padding: int = 0  # of conv1
    pool2_padding: int = 0
    response_norm: bool = True  # behind conv1 and conv2; nobody has used it since
    batch_norm: bool = False  # behind every convolution, for training only: see fold_batch_norm
    pool5: str = "max"  # or "max average", torchvision's; or "grid": the largest value in each cell of a grid
    pool5_size: int = 6
    hidden: int = 4096  # width of fc6 and fc7; 0: there are none, see up_to_pool5
    dropout: float = 0.5
    input_size: int = 227  # paper vs code: the paper says 224, which does not fit its own map sizes
    mean: tuple[float, float, float] = (104.00699 / 255, 116.66877 / 255, 122.67891 / 255)  # of each channel
    std: tuple[float, float, float] = (1 / 255, 1 / 255, 1 / 255)
    blue_first: bool = True  # the order of the channels in the mean and in conv1's weights

    def __post_init__(self) -> None:
        """Validate the settings."""
        if len(self.channels) != 5 or len(self.groups) != 5:
            raise ValueError(f"channels and groups describe five convolutions, not {self.channels}, {self.groups}")
        if self.pool5 not in ("max", "max average", "grid"):
            raise ValueError(f'pool5 must be "max", "max average" or "grid", not {self.pool5!r}')
        if min(self.stride, self.input_size, self.kernel, self.pool5_size) < 1 or min(self.hidden, self.padding) < 0:
            raise ValueError(
                f"stride, input_size, kernel and pool5_size are at least 1, hidden and padding at least 0: {self}"
            )
        if self.pool2_padding not in (0, 1):
            raise ValueError(f"pool2_padding must be 0 or 1, not {self.pool2_padding}")
        side = (self.input_size + 2 * self.padding - self.kernel) // self.stride + 1
        for padding in (0, self.pool2_padding, *(() if self.pool5 == "grid" else (0,))):
            side = (side + 2 * padding - 3) // 2 + 1  # windows of three cells, two apart
        if side < 1 or (self.pool5 == "max" and side != self.pool5_size):
            raise ValueError(f"input_size {self.input_size} leaves {side} cells, pool5_size is {self.pool5_size}")

    @property
    def total_stride(self) -> int:
        """How many pixels of the image lie between two cells of conv5's map."""
        return 4 * self.stride


ALEXNET_2012 = AlexNetConfig()
# One GPU holds all by now (Krizhevsky 2014, "One weird trick"): no groups, fewer filters, no response normalization.
TORCHVISION = AlexNetConfig(
    channels=(64, 192, 384, 256, 256),
    groups=(1, 1, 1, 1, 1),
    padding=2,
    response_norm=False,
    pool5="max average",
    input_size=224,
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    blue_first=False,
)
# Half of torchvision's width. The paddings put the middle of each cell within half a pixel of the middle of the square
# that it stands for: cell k is centered on pixel 8k + 3 (or 16k + 7), of the pixels 8k … 8k + 7.
SMALL = AlexNetConfig(
    channels=(32, 96, 192, 128, 128),
    groups=(1, 1, 1, 1, 1),
    kernel=7,
    stride=2,
    padding=2,
    pool2_padding=1,
    response_norm=False,
    pool5="grid",
    hidden=256,
    input_size=64,
    mean=(0.45, 0.45, 0.45),
    std=(0.25, 0.25, 0.25),
    blue_first=False,
)
SMALL_STRIDE_16 = replace(SMALL, kernel=11, stride=4)


class AlexNet(nn.Module):
    """Five convolutions and three fully connected layers.

    Images enter normalized: call :meth:`normalize` first. Nothing is resized in here.

    Paper vs code: dropout stands before fc6 and fc7, as in torchvision; the paper has it behind them. In detection
    there is none, so that the same weights mean the same network.

    Attributes:
        config: the hyperparameters.
        backbone: conv1 … relu5: (B, 3, H, W) to (B, C, h, w). Later detectors run only this on a whole image.
        pool5: the last pooling, to a map of fixed size: (B, C, h, w) to (B, C, 6, 6).
        classifier: fc6 and fc7: (B, C · 6 · 6) to (B, hidden). With ``hidden=0`` it is empty.
        fc8: one score for each class, before the softmax.
    """

    def __init__(self, config: AlexNetConfig, num_classes: int) -> None:
        super().__init__()
        self.config = config
        self.backbone = _backbone(config)
        self.backbone.config = config  # a detector saves it
        self.pool5 = _pool5(config)
        size = config.channels[-1] * config.pool5_size**2
        self.classifier = _classifier(size, config) if config.hidden else nn.Sequential()
        self.fc8 = nn.Linear(config.hidden or size, num_classes)

    @property
    def feature_sizes(self) -> dict[str, int]:
        """D of each of ``LAYERS`` that the network has."""
        hidden = self.config.hidden
        connected = {"fc6": hidden, "fc7": hidden} if hidden else {}
        return {"pool5": self.config.channels[-1] * self.config.pool5_size**2, **connected}

    def normalize(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W), red first, in [0, 1], as the network expects them: mean, spread, order of channels."""
        images = images.flip(1) if self.config.blue_first else images
        mean, std = (images.new_tensor(values).view(3, 1, 1) for values in (self.config.mean, self.config.std))
        return (images - mean) / std

    @property
    def mean_color(self) -> tuple[float, float, float]:
        """The color, red first and in [0, 1], that :meth:`normalize` turns into 0: what to fill gaps with."""
        return self.config.mean[::-1] if self.config.blue_first else self.config.mean

    def features(self, images: Tensor, layers: Collection[str]) -> dict[str, Tensor]:
        """The outputs of some of ``LAYERS`` in one pass, which ends with the last of them.

        Normalized images (B, 3, H, W) give (B, D) for each name; of fc6 and fc7 behind their ReLU, of pool5 row by row.
        """
        unknown = set(layers) - set(self.feature_sizes)
        if unknown or not layers:
            raise ValueError(f"layers must be some of {', '.join(self.feature_sizes)}, not {sorted(layers)}")
        last = max(map(LAYERS.index, layers))
        x = self.pool5(self.backbone(images)).flatten(1)  # (B, D)
        found = {"pool5": x}
        if last >= 1:
            found["fc6"] = x = self.classifier[:3](x)
        if last >= 2:
            found["fc7"] = self.classifier[3:](x)
        return {name: found[name] for name in LAYERS if name in layers}

    def extra_repr(self) -> str:
        """The configuration, so that two networks with equal layers but other means do not look (or hash) alike."""
        return repr(self.config)

    def forward(self, images: Tensor) -> Tensor:
        """Scores of the classes before the softmax: normalized (B, 3, H, W) to (B, K)."""
        return self.fc8(self.classifier(self.pool5(self.backbone(images)).flatten(1)))


class ResponseNorm(nn.LocalResponseNorm):
    """Divide each value by what its neighbors in other channels have at the same place (Krizhevsky et al., 3.3).

    The values are those of ``nn.LocalResponseNorm``, in half of its time or less, which otherwise is most of the whole
    network's on a CPU. The exponent is 3/4, whose power two square roots give.
    """

    def __init__(self, size: int, alpha: float, k: float) -> None:
        super().__init__(size, alpha, beta=0.75, k=k)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to the same shape."""
        squares = x.square()
        total = squares.clone()  # over the channels c - size // 2 … c + size // 2, as far as there are such
        for distance in range(1, self.size // 2 + 1):
            total[:, distance:] += squares[:, :-distance]
            total[:, :-distance] += squares[:, distance:]
        root = total.mul_(self.alpha / self.size).add_(self.k).rsqrt_()  # to the power of -1/2
        return x * root * root.sqrt()


def _backbone(config: AlexNetConfig) -> nn.Sequential:
    """The layers from conv1 to relu5, named as in the paper."""
    sizes = [(config.kernel, config.stride, config.padding), (5, 1, 2), (3, 1, 1), (3, 1, 1), (3, 1, 1)]
    inputs = (3, *config.channels[:-1])
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for i, (kernel, stride, padding) in enumerate(sizes, start=1):
        into, out, groups = inputs[i - 1], config.channels[i - 1], config.groups[i - 1]
        layers[f"conv{i}"] = nn.Conv2d(into, out, kernel, stride, padding, groups=groups)
        if config.batch_norm:
            layers[f"bn{i}"] = nn.BatchNorm2d(out)
        layers[f"relu{i}"] = nn.ReLU(inplace=True)
        if i <= 2:
            if config.response_norm:
                # Paper vs code: Caffe, in which R-CNN's weights were trained, divides alpha by the size, takes k = 1.
                layers[f"norm{i}"] = ResponseNorm(size=5, alpha=1e-4, k=1.0)
            layers[f"pool{i}"] = nn.MaxPool2d(3, 2, config.pool2_padding if i == 2 else 0)
    return nn.Sequential(layers)


def _pool5(config: AlexNetConfig) -> nn.Module:
    if config.pool5 == "grid":  # exactly RoIPool of the whole map, as Fast R-CNN will have it
        return nn.AdaptiveMaxPool2d(config.pool5_size)
    pool = nn.MaxPool2d(3, 2)
    return pool if config.pool5 == "max" else nn.Sequential(pool, nn.AdaptiveAvgPool2d(config.pool5_size))


def _classifier(size: int, config: AlexNetConfig) -> nn.Sequential:
    """fc6 and fc7, with dropout before each."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        dropout6=nn.Dropout(config.dropout),
        fc6=nn.Linear(size, config.hidden),
        relu6=nn.ReLU(inplace=True),
        dropout7=nn.Dropout(config.dropout),
        fc7=nn.Linear(config.hidden, config.hidden),
        relu7=nn.ReLU(inplace=True),
    )
    return nn.Sequential(layers)


def up_to_pool5(network: AlexNet) -> AlexNet:
    """The same convolutions, shared, without fc6 and fc7, which are nine tenths of the weights: for pool5 features.

    The new network is in evaluation mode, on the same device; fc8, which stands on pool5, has one output, all zeros.
    """
    cut = AlexNet(replace(network.config, hidden=0), num_classes=1).to(network.fc8.weight.device)
    cut.backbone = network.backbone
    for parameter in cut.fc8.parameters():
        nn.init.zeros_(parameter)
    return cut.eval()


def fold_batch_norm(network: AlexNet) -> AlexNet:
    """A new network of the same function, in evaluation mode, without batch normalization.

    A convolution and the normalization behind it are two linear maps, and two linear maps are one. Detectors see a few
    images at a time, whose mean and variance are noise, so that they would have to freeze these layers anyway.
    """
    folded = AlexNet(replace(network.config, batch_norm=False), network.fc8.out_features)
    state = {name: value for name, value in network.state_dict().items() if ".bn" not in name}
    if network.config.batch_norm:
        for i in range(1, 6):
            conv, norm = network.backbone.get_submodule(f"conv{i}"), network.backbone.get_submodule(f"bn{i}")
            parameters = (conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias)
            with torch.no_grad():
                weight, bias = fusion.fuse_conv_bn_weights(*parameters)
            state[f"backbone.conv{i}.weight"], state[f"backbone.conv{i}.bias"] = weight, bias
    folded.load_state_dict(state)
    return folded.to(network.fc8.weight.device).eval()


# Where a trained AlexNet comes from: our own file, torchvision's, or the convolutions of 2012.

IMAGENET_URL = "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth"
IMAGENET_SHA256 = "7be5be79"  # the prefix that its name states

# Of torchvision's network, and of the one of 2012.
_NAMES = {f"features.{place}": f"backbone.conv{i}" for i, place in enumerate((0, 3, 6, 8, 10), start=1)}
_NAMES |= {"classifier.1": "classifier.fc6", "classifier.4": "classifier.fc7", "classifier.6": "fc8"}
_NAMES |= {f"conv{i}": f"backbone.conv{i}" for i in range(1, 6)}


def rename_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our names for the tensors of torchvision's AlexNet and of the 2012 network; others keep theirs.

    >>> list(rename_keys({"features.3.bias": torch.zeros(192), "conv5.weight": torch.zeros(1)}))
    ['backbone.conv2.bias', 'backbone.conv5.weight']
    """
    renamed = {}
    for key, value in state.items():
        layer, dot, kind = key.rpartition(".")
        renamed[f"{_NAMES.get(layer, layer)}{dot}{kind}"] = value
    return renamed


def load_pretrained(path: str | Path) -> tuple[AlexNet, str]:
    """A trained AlexNet of whichever kind a file holds: ours, torchvision's, or the convolutions of 2012.

    Returns:
        A network in evaluation mode, and the last of ``LAYERS`` that was trained: "fc7", or "pool5" where the file has
        the convolutions alone. Layers behind it are fresh. A file of none of these is refused with a WeightsError.
    """
    tensors = read_tensors(path)
    if "backbone.conv1.weight" in tensors:
        return load_alexnet(path), "fc7"
    if "features.0.weight" in tensors:
        return load_imagenet_weights(path), "fc7"
    if "conv1.weight" in tensors:
        return load_alexnet_2012(path), "pool5"
    some = ", ".join(sorted(tensors)[:3]) or "nothing"
    raise WeightsError(
        f"{path}: no AlexNet, it holds {some} …; give a file of `python -m workshop.pretraining` (.safetensors), "
        "torchvision's weights (.pth, with features.0.weight), or the convolutions of 2012 (.npz, with conv1.weight)"
    )


def load_imagenet_weights(weights: str | Path | None = None) -> AlexNet:
    """Torchvision's AlexNet with the weights that it learned on ImageNet, 1000 classes, in evaluation mode.

    ``weights`` is the file if you have it (``.pth``). None: it is downloaded (233 MB, once) and its checksum compared;
    a WeightsError says what to do offline.
    """
    path = Path(weights) if weights is not None else download(IMAGENET_URL, IMAGENET_SHA256, size="233 MB")
    network = AlexNet(TORCHVISION, num_classes=1000)
    load_into(network, rename_keys(read_tensors(path)), path)
    return network.eval()


def load_alexnet_2012(weights: str | Path, num_classes: int = 1000) -> AlexNet:
    """The network of 2012 with trained convolutions, in evaluation mode; its fully connected layers are fresh.

    The file has ``conv1.weight`` … ``conv5.bias``, for images with blue first and values from 0 to 255, as Caffe has
    them. An entry ``mean`` takes the place of the usual mean. One that is damaged, or of another network, is refused
    with a WeightsError.
    """
    tensors = read_tensors(weights)
    config = ALEXNET_2012
    mean = tensors.pop("mean", None)
    if mean is not None:
        if mean.shape != (3,):
            raise WeightsError(f"{weights}: mean has shape {tuple(mean.shape)}; give one number for each color, (3,)")
        config = replace(config, mean=tuple(mean.div(255).tolist()))
    network = AlexNet(config, num_classes)
    load_into(network, rename_keys(tensors), weights, only="backbone.")
    return network.eval()


def save_alexnet(network: AlexNet, path: Path, about: Mapping[str, Any]) -> None:
    """Write a network, in half precision, and what it is, for :func:`load_alexnet`."""
    record = {"network": asdict(network.config), "num_classes": network.fc8.out_features, **about}
    save_weights(path, halve(network), record)


def load_alexnet(path: str | Path = SMALL_WEIGHTS) -> AlexNet:
    """A network that :func:`save_alexnet` wrote, in evaluation mode; by default the small one of the project.

    A missing file is a FileNotFoundError, one that is damaged or of something else a WeightsError.
    """
    tensors, about = load_weights(path)
    return built_as_described(
        path, tensors, "an AlexNet", lambda: build_alexnet(about["network"], about["num_classes"])
    )


def build_alexnet(config: Mapping[str, Any], num_classes: int) -> AlexNet:
    """A network from its configuration as JSON holds it, where tuples are lists."""
    return AlexNet(config_of(AlexNetConfig, config), num_classes)
