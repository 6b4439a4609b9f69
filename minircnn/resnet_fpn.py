"""ResNet-50 and the feature pyramid: the backbone of the detectors that people use.

He, Zhang, Ren and Sun 2015, "Deep Residual Learning for Image Recognition", arXiv 1512.03385.
Lin et al. 2017, "Feature Pyramid Networks for Object Detection", arXiv 1612.03144::

    image   → conv1 → layer1 ──→ layer2 ──→ layer3 ──→ layer4      C2 … C5: twice as coarse each, and twice as wide
                        │          │          │          │
                       "0"  ←──── "1"  ←──── "2"  ←──── "3" → "pool"   P2 … P6: each is told what the coarser ones know

Names of layers are torchvision's. Shape comments: B images, C channels, H W size of the images.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EXPANSION = 4  # a block's last convolution has so many times the channels of its others


@dataclass(frozen=True)
class ResNetFPNConfig:
    """Size of the network."""

    blocks: tuple[int, int, int, int] = (3, 4, 6, 3)  # of three convolutions, in each of the four stages
    width: int = 64  # channels of the first stage's convolutions; each stage has twice as many as the one before
    channels: int = 256  # C of all levels of the pyramid
    norm_eps: float = 1e-5  # see FrozenBatchNorm2d

    def __post_init__(self) -> None:
        """Validate the settings."""
        if min(*self.blocks, self.width, self.channels) < 1 or self.norm_eps < 0:
            raise ValueError(f"blocks, width and channels must be at least 1, norm_eps at least 0, but this is {self}")


class FrozenBatchNorm2d(nn.Module):
    """Batch normalization with fixed statistics: ``(x - mean) / sqrt(variance + eps) * weight + bias``.

    A detector learns from one or two large images at a time, too few for statistics. So those of the pre-training
    stay, and the layer is a factor and a summand for each channel, which :func:`convolve` folds into the convolution.
    ``eps`` keeps a variance of 0 from being divided by; the published Mask R-CNN was trained with 0.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        for name, value in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)):
            self.register_buffer(name, torch.full((channels,), value))

    def line(self) -> tuple[Tensor, Tensor]:
        """What each channel is multiplied by, and what is added to it, both ``(C,)``."""
        factor = self.weight * (self.running_var + self.eps).rsqrt()
        return factor, self.bias - self.running_mean * factor

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the same shape."""
        factor, summand = self.line()
        return x * factor[:, None, None] + summand[:, None, None]


def convolve(x: Tensor, conv: nn.Conv2d, norm: FrozenBatchNorm2d) -> Tensor:
    """``norm(conv(x))`` in one step: weights times the factor are convolved, and the summand is their bias.

    Both are linear, so the order does not matter; and there are far fewer weights than values in a feature map. The
    gradient reaches ``conv.weight`` all the same.
    """
    factor, summand = norm.line()
    return F.conv2d(x, conv.weight * factor[:, None, None, None], summand, conv.stride, conv.padding)


class Bottleneck(nn.Module):
    """Three convolutions whose output is added to their input (He et al. 2015, figure 5, right).

    1 × 1 makes it narrow, 3 × 3 looks around, 1 × 1 makes it wide again: from ``before`` channels to ``width``, and to
    four times as many. Paper vs code: the stride is in the 3 × 3 convolution, as in torchvision and all newer code; the
    paper has it in the first.
    """

    def __init__(self, before: int, width: int, stride: int, eps: float) -> None:
        super().__init__()
        after = EXPANSION * width
        self.conv1, self.bn1 = nn.Conv2d(before, width, 1, bias=False), FrozenBatchNorm2d(width, eps)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = FrozenBatchNorm2d(width, eps)
        self.conv3, self.bn3 = nn.Conv2d(width, after, 1, bias=False), FrozenBatchNorm2d(after, eps)
        self.downsample = None  # where the input already has the shape of the output, it is added as it is
        if stride != 1 or before != after:
            shortcut = nn.Conv2d(before, after, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, FrozenBatchNorm2d(after, eps))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, before, h, w)`` to ``(B, 4 · width, h / stride, w / stride)``."""
        y = convolve(x, self.conv1, self.bn1).relu_()
        y = convolve(y, self.conv2, self.bn2).relu_()
        y = convolve(y, self.conv3, self.bn3)
        y += x if self.downsample is None else convolve(x, *self.downsample)
        return y.relu_()


class ResNet(nn.Module):
    """conv1, a max pooling and four stages of blocks: ``(B, 3, H, W)`` to C2 … C5, of stride 4, 8, 16 and 32."""

    def __init__(self, config: ResNetFPNConfig) -> None:
        super().__init__()
        width, eps = config.width, config.norm_eps
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = FrozenBatchNorm2d(width, eps)
        before = width
        for stage, count in enumerate(config.blocks):
            wide, stride = width * 2**stage, 1 if stage == 0 else 2
            blocks = [Bottleneck(before, wide, stride, eps)]
            blocks += [Bottleneck(EXPANSION * wide, wide, 1, eps) for _ in range(count - 1)]
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
            before = EXPANSION * wide
        for conv in self.modules():
            if isinstance(conv, nn.Conv2d):
                nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> list[Tensor]:
        """See the class."""
        x = F.max_pool2d(convolve(images, self.conv1, self.bn1).relu_(), 3, stride=2, padding=1)
        maps = []
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
            maps.append(x)
        return maps


class FeaturePyramid(nn.Module):
    """Coarse maps know what, fine maps know where; the top-down pathway adds the former (Lin et al., figure 3).

    ``channels_of_maps`` are those of C2 … C5; every level of the pyramid has ``channels``.
    """

    def __init__(self, channels_of_maps: Sequence[int], channels: int) -> None:
        super().__init__()
        # Each layer is wrapped once more because torchvision's is: for the names.
        self.inner_blocks = nn.ModuleList(nn.Sequential(nn.Conv2d(c, channels, 1)) for c in channels_of_maps)
        self.layer_blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1)) for _ in channels_of_maps
        )
        for conv in self.modules():
            if isinstance(conv, nn.Conv2d):
                nn.init.kaiming_uniform_(conv.weight, a=1)
                nn.init.zeros_(conv.bias)

    def forward(self, maps: Sequence[Tensor]) -> dict[str, Tensor]:
        """C2 … C5 to P2 … P5, named "0" … "3" and as large, and P6, named "pool": every second cell of P5.

        P6 is for large anchors only; regions are not taken from it.
        """
        merged = [inner(one) for inner, one in zip(self.inner_blocks, maps, strict=True)]
        for level in reversed(range(len(merged) - 1)):
            fine = merged[level]
            merged[level] = fine + F.interpolate(merged[level + 1], size=fine.shape[2:], mode="nearest")
        levels = [layer(one) for layer, one in zip(self.layer_blocks, merged, strict=True)]
        return {**{str(number): level for number, level in enumerate(levels)}, "pool": levels[-1][:, :, ::2, ::2]}


class ResNetFPN(nn.Module):
    """A backbone for detectors: ``(B, 3, H, W)`` to a dict of maps ``(B, C, h, w)``, from fine to coarse.

    ``trainable_layers`` is how many of layer4, layer3, layer2, layer1, conv1, in this order, learn; the pyramid always
    does. The early ones know edges and textures, which are the same everywhere, and stay frozen.
    """

    def __init__(self, config: ResNetFPNConfig | None = None, trainable_layers: int = 3) -> None:
        super().__init__()
        self.config = config = config or ResNetFPNConfig()
        self.body = ResNet(config)
        self.fpn = FeaturePyramid([EXPANSION * config.width * 2**stage for stage in range(4)], config.channels)
        self.freeze(trainable_layers)

    def freeze(self, trainable_layers: int) -> None:
        """Freeze all layers but ``trainable_layers``; see the class."""
        order = [self.body.layer4, self.body.layer3, self.body.layer2, self.body.layer1, self.body.conv1]
        if not 0 <= trainable_layers <= len(order):
            raise ValueError(f"trainable_layers must be from 0 to {len(order)}, but is {trainable_layers}")
        self.trainable_layers = trainable_layers
        for number, layer in enumerate(order):
            layer.requires_grad_(number < trainable_layers)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """See the class."""
        return self.fpn(self.body(images))
