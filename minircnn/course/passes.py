"""Thousands of passes against one: the work and the time of R-CNN's features and of Fast R-CNN's, at two sizes."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from minircnn.alexnet import SMALL, TORCHVISION, AlexNet, AlexNetConfig
from minircnn.course.compare import in_turn
from minircnn.pooling import roi_pool, to_rois


@dataclass(frozen=True)
class Size:
    """What both have to do for an image."""

    config: AlexNetConfig
    stride: int  # of its feature map
    image: tuple[int, int]  # height and width
    regions: int
    timed: int  # of their warped crops, and of their rows through fc6 and fc7: the rest takes as long, each


SIZES = {"Toy Town": Size(SMALL, 8, (128, 128), 300, 300), "the paper": Size(TORCHVISION, 16, (600, 800), 2000, 16)}


def operations(call: Callable[[], object]) -> int:
    """How many multiplications and additions a call does."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        call()
    return counter.get_total_flops()


def count_operations(size: Size) -> dict[str, int]:
    """Those of the convolutions on all crops, on the image, and of fc6 and fc7."""
    with torch.device("meta"):  # tensors with a shape and without values
        net, side = AlexNet(size.config, 2).eval(), size.config.input_size
        calls = {
            "crops": lambda: net.backbone(torch.zeros(size.regions, 3, side, side)),
            "image": lambda: net.backbone(torch.zeros(1, 3, *size.image)),
            "fc6 and fc7": lambda: net.classifier(torch.zeros(size.regions, net.classifier.fc6.in_features)),
        }
        return {name: operations(call) for name, call in calls.items()}


def time_stages(size: Size) -> dict[str, float]:
    """Seconds of the same three, and of RoIPool, on one core. Weights and images are random, which takes no longer."""
    torch.manual_seed(0)
    net, side = AlexNet(size.config, 2).eval(), size.config.input_size
    # Convolutions are fastest on a CPU if the channels of a pixel lie side by side.
    crops, image = (
        torch.rand(n, 3, *s).contiguous(memory_format=torch.channels_last)
        for n, s in ((size.timed, (side, side)), (1, size.image))
    )
    with torch.no_grad():
        features = net.backbone(image)
        rois = to_rois([random_regions(size.regions, *size.image)])
        rows = roi_pool(features, rois, 6, 1 / size.stride).flatten(1)[: 20 * size.timed]
    calls = {
        "crops": lambda: net.pool5(net.backbone(crops)),
        "image": lambda: net.backbone(image),
        "RoIPool": lambda: roi_pool(features, rois, 6, 1 / size.stride),
        "fc6 and fc7": lambda: net.classifier(rows),
    }
    shares = {"crops": size.regions / len(crops), "fc6 and fc7": size.regions / len(rows)}
    seconds = interleaved(calls.values(), rounds=3)
    return {name: time * shares.get(name, 1) for name, time in zip(calls, seconds, strict=True)}


interleaved = torch.no_grad()(in_turn)
"""Seconds of each call, see :func:`~minircnn.course.compare.in_turn`."""


def random_regions(count: int, height: int, width: int) -> Tensor:
    """Boxes in an image, with sides from a sixteenth of its shorter one on, equally many of each scale."""
    sides = torch.exp(torch.rand(count, 2) * np.log(16)) / 16 * min(height, width)
    corner = torch.rand(count, 2) * (torch.tensor([width, height]) - sides)
    return torch.cat([corner, corner + sides], dim=1)


def receptive_field(layers: nn.Sequential) -> tuple[int, int, float]:
    """Pixels that cell 0 of a feature map depends on, pixels to the next cell, and where their middle lies."""
    field, stride, middle = 1, 1, 0.5
    for layer in layers:
        if hasattr(layer, "kernel_size"):
            k, s, p = (int(np.ravel(value)[0]) for value in (layer.kernel_size, layer.stride, layer.padding))
            field, middle, stride = field + (k - 1) * stride, middle + ((k - 1) / 2 - p) * stride, stride * s
    return field, stride, middle
