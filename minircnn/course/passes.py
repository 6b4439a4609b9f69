"""Thousands of passes against one: the work and the time of R-CNN's features and of Fast R-CNN's, at two sizes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from minircnn.alexnet import SMALL, TORCHVISION, AlexNet, AlexNetConfig
from minircnn.course.compare import limit_threads
from minircnn.pooling import roi_pool, to_rois


@dataclass(frozen=True)
class Size:
    """What both have to do for an image."""

    config: AlexNetConfig
    stride: int  # of its feature map
    image: tuple[int, int]  # height and width
    regions: int
    timed: int  # of their warped crops, and of their rows through fc6 and fc7: the rest takes as long, each


SIZES = {
    "Toy Town": Size(SMALL, 8, (128, 128), 300, 300),
    "the paper": Size(TORCHVISION, 16, (600, 800), 2000, 16),
}


def count_operations(size: Size) -> dict[str, int]:
    """Multiplications and additions of the convolutions on all crops, on the image, and of fc6 and fc7."""
    with torch.device("meta"):  # tensors with a shape and without values
        net, side = AlexNet(size.config, 2).eval(), size.config.input_size
        calls = {
            "crops": lambda: net.backbone(torch.zeros(size.regions, 3, side, side)),
            "image": lambda: net.backbone(torch.zeros(1, 3, *size.image)),
            "fc6 and fc7": lambda: net.classifier(torch.zeros(size.regions, net.classifier.fc6.in_features)),
        }
        return {name: _operations(call) for name, call in calls.items()}


def _operations(call: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        call()
    return counter.get_total_flops()


def time_stages(size: Size, rounds: int = 3) -> dict[str, float]:
    """Seconds of the same three, and of RoIPool: the median of rounds that run each once, on one core.

    Weights and images are random; the time does not depend on them.
    """
    torch.manual_seed(0)
    net, side = AlexNet(size.config, 2).eval(), size.config.input_size
    crops, image = (_channels_last(torch.rand(n, 3, *s)) for n, s in ((size.timed, (side, side)), (1, size.image)))
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
    seconds = interleaved(list(calls.values()), rounds)
    shares = {"crops": size.regions / len(crops), "fc6 and fc7": size.regions / len(rows)}
    return {name: float(time) * shares.get(name, 1) for name, time in zip(calls, seconds, strict=True)}


def interleaved(calls: Sequence[Callable[[], object]], rounds: int) -> np.ndarray:
    """Median seconds of each call; every round runs each once, without gradients, on one core. The first is left out.

    What else the machine does meets all of them alike.
    """
    times = np.zeros((rounds + 1, len(calls)))
    with limit_threads(1), torch.no_grad():
        for index in np.ndindex(times.shape):
            start = perf_counter()
            calls[index[1]]()
            times[index] = perf_counter() - start
    return np.median(times[1:], axis=0)


def random_regions(count: int, height: int, width: int) -> Tensor:
    """Boxes in an image, with sides from a sixteenth of its shorter one on, equally many of each scale."""
    sides = torch.exp(torch.rand(count, 2) * np.log(16)) / 16 * min(height, width)
    corner = torch.rand(count, 2) * (torch.tensor([width, height]) - sides)
    return torch.cat([corner, corner + sides], dim=1)


def _channels_last(images: Tensor) -> Tensor:
    """The memory format in which convolutions are fastest on a CPU."""
    return images.contiguous(memory_format=torch.channels_last)


def receptive_field(layers: nn.Sequential) -> tuple[int, int]:
    """Width of the part of the image that a cell of the last layer depends on, and the stride between two cells."""
    field, stride = 1, 1
    for layer in layers:
        if hasattr(layer, "kernel_size"):
            kernel, step = (int(np.ravel(value)[0]) for value in (layer.kernel_size, layer.stride))
            field, stride = field + (kernel - 1) * stride, stride * step
    return field, stride
