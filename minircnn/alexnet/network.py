"""One network in three sizes: the 2012 AlexNet, torchvision's, and ours for pictures of 128 pixels.

Krizhevsky, Sutskever and Hinton 2012, "ImageNet Classification with Deep Convolutional Neural Networks". Five
convolutions see the picture, three fully connected layers name it. R-CNN takes the whole network; Fast R-CNN and all
that follow keep the five convolutions, the *backbone*, and let the rest look at one region at a time.

Shape comments: B pictures, K classes, C channels, H W picture size, h w feature-map size, D features.
"""

from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.utils import fusion

LAYERS = ("pool5", "fc6", "fc7")
"""The layers whose outputs serve as features, in the order in which a picture passes them."""


@dataclass(frozen=True)
class AlexNetConfig:
    """Every number of the network. The defaults are those of 2012 (section 3.5)."""

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
        """Refuses numbers that make no network."""
        if len(self.channels) != 5 or len(self.groups) != 5:
            raise ValueError(f"channels and groups describe five convolutions, not {self.channels}, {self.groups}")
        if self.stride < 1 or self.input_size < 1:
            raise ValueError(f"stride and input_size must be at least 1, not {self.stride} and {self.input_size}")
        if self.hidden < 0:
            raise ValueError(f"hidden must be at least 0, not {self.hidden}")
        if self.pool5 not in ("max", "max average", "grid"):
            raise ValueError(f'pool5 must be "max", "max average" or "grid", not {self.pool5!r}')

    @property
    def total_stride(self) -> int:
        """How many pixels of the picture lie between two cells of conv5's map."""
        return 4 * self.stride


ALEXNET_2012 = AlexNetConfig()
# One GPU holds all by now (Krizhevsky 2014, "One weird trick"): no groups, fewer filters, no response normalisation.
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
# that it stands for: cell k is centred on pixel 8k + 3 (or 16k + 7), of the pixels 8k … 8k + 7.
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

    Attributes:
        config: the numbers.
        backbone: conv1 … relu5: (B, 3, H, W) to (B, C, h, w). This is what later detectors run once for a picture.
        pool5: the last pooling, to a map of fixed size: (B, C, h, w) to (B, C, 6, 6).
        classifier: fc6 and fc7: (B, C · 6 · 6) to (B, hidden). Without them, with ``hidden=0``, nothing is in it.
        fc8: one score for each class, before the softmax.

    Pictures enter normalised: call :meth:`normalize` first. Nothing is resized in here.

    Paper vs code: dropout stands before fc6 and fc7, as in torchvision, the paper has it behind them. In detection
    there is none, so that the same weights mean the same network.
    """

    def __init__(self, config: AlexNetConfig, num_classes: int) -> None:
        super().__init__()
        self.config = config
        self.backbone = _backbone(config)
        self.pool5 = _pool5(config)
        size = config.channels[-1] * config.pool5_size**2
        self.classifier = _classifier(size, config) if config.hidden else nn.Sequential()
        self.fc8 = nn.Linear(config.hidden or size, num_classes)

    @property
    def feature_sizes(self) -> dict[str, int]:
        """How many numbers each of ``LAYERS`` that the network has gives for one picture."""
        hidden = self.config.hidden
        connected = {"fc6": hidden, "fc7": hidden} if hidden else {}
        return {"pool5": self.config.channels[-1] * self.config.pool5_size**2, **connected}

    def normalize(self, images: Tensor) -> Tensor:
        """Pictures as the network expects them: of known mean and spread, in its order of channels.

        Args:
            images: (B, 3, H, W), red first, in [0, 1].

        Returns:
            A new tensor of the same shape.
        """
        images = images.flip(1) if self.config.blue_first else images
        mean, std = (images.new_tensor(values).view(3, 1, 1) for values in (self.config.mean, self.config.std))
        return (images - mean) / std

    @property
    def mean_color(self) -> tuple[float, float, float]:
        """The colour, red first and in [0, 1], that :meth:`normalize` turns into 0: what to fill gaps with."""
        return self.config.mean[::-1] if self.config.blue_first else self.config.mean

    def features(self, images: Tensor, layers: Collection[str]) -> dict[str, Tensor]:
        """The outputs of some of ``LAYERS`` in one pass, which ends with the last of them.

        Args:
            images: (B, 3, H, W), normalised.
            layers: names.

        Returns:
            (B, D) for each name; for fc6 and fc7 behind their ReLU, and pool5 row by row of its map.

        Raises:
            ValueError: there is no layer of such a name.
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
        """The numbers, so that two networks with equal layers but other means do not look (or hash) alike."""
        return repr(self.config)

    def forward(self, images: Tensor) -> Tensor:
        """Scores of the classes before the softmax: normalised (B, 3, H, W) to (B, K)."""
        return self.fc8(self.classifier(self.pool5(self.backbone(images)).flatten(1)))


class ResponseNorm(nn.LocalResponseNorm):
    """Each number divided by what its neighbours in other channels say at the same place (Krizhevsky et al., 3.3).

    The values are those of ``nn.LocalResponseNorm``, in half of its time or less, which otherwise is most of the whole
    network's on a processor. The exponent is 3/4, whose power two square roots give.
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
    """The step from a map of any size to one of fixed size."""
    if config.pool5 == "grid":  # exactly RoIPool of the whole map, as Fast R-CNN will have it
        return nn.AdaptiveMaxPool2d(config.pool5_size)
    pool = nn.MaxPool2d(3, 2)
    return pool if config.pool5 == "max" else nn.Sequential(pool, nn.AdaptiveAvgPool2d(config.pool5_size))


def up_to_pool5(network: AlexNet) -> AlexNet:
    """The same convolutions without fc6 and fc7, which are nine tenths of the weights: for features of pool5.

    Args:
        network: in any mode; its convolutions are shared, not copied.

    Returns:
        A network in evaluation mode, on the same device; fc8, which now would name a picture by its pool5, has one
        output and is all zeros.
    """
    cut = AlexNet(replace(network.config, hidden=0), num_classes=1).to(network.fc8.weight.device)
    cut.backbone = network.backbone
    for parameter in cut.fc8.parameters():
        nn.init.zeros_(parameter)
    return cut.eval()


def fold_batch_norm(network: AlexNet) -> AlexNet:
    """The same function without batch normalisation, which in detection is only a factor and a summand.

    A convolution and the normalisation behind it are two linear maps, and two linear maps are one. Detectors see a few
    pictures at a time, whose mean and variance are noise, so that they would have to freeze these layers anyway.

    Args:
        network: in any mode; it is not changed.

    Returns:
        A network in evaluation mode, equal to the given one in evaluation mode. Without batch normalisation in the
        configuration: a copy.
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
