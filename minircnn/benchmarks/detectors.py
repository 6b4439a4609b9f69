"""Whole detectors against torchvision's classes around the same layers."""

from dataclasses import replace

import torch
from torch import Tensor
from torchvision.models.detection import FasterRCNN as TorchvisionFasterRCNN

from minircnn.alexnet import SMALL, AlexNet
from minircnn.benchmarks._timing import Case
from minircnn.benchmarks.references import torchvision_faster_rcnn
from minircnn.fast_rcnn import RoIConfig
from minircnn.faster_rcnn import TOY_TOWN_RPN, FasterRCNN, faster_rcnn_alexnet

_CLASSES = ("background", *"abcdef")


def cases() -> list[Case]:
    """A picture's detection, and a step of training without the optimiser's."""
    return [_detection(), _training(4)]


def _pair() -> tuple[FasterRCNN, TorchvisionFasterRCNN]:
    torch.manual_seed(0)
    rpn = replace(TOY_TOWN_RPN, anchor_shift=0.0, nms_threshold=(0.7, 0.7))
    heads = RoIConfig(smooth_l1_beta=1 / 9)
    ours = faster_rcnn_alexnet(AlexNet(SMALL, 1), _CLASSES, rpn, heads)
    ours.transform = replace(ours.transform, min_size=192)
    return ours, torchvision_faster_rcnn(ours)


def _detection() -> Case:
    ours, theirs = _pair()
    ours.eval(), theirs.eval()
    image = torch.rand(3, 128, 128)

    def agree(a: list[dict[str, Tensor]], b: list[dict[str, Tensor]]) -> bool:
        return torch.allclose(a[0]["boxes"], b[0]["boxes"], atol=1e-2) and torch.equal(a[0]["labels"], b[0]["labels"])

    def reference() -> list[dict[str, Tensor]]:
        with torch.no_grad():
            return theirs([image])

    return Case("Faster R-CNN, a picture of 128²", "torchvision", lambda: ours.detect([image]), reference, agree)


def _training(pictures: int) -> Case:
    ours, theirs = _pair()
    ours.train(), theirs.train()
    theirs.transform.eval()
    images = list(torch.rand(pictures, 3, 128, 128))
    start = torch.rand(pictures, 4, 2) * 60
    boxes = torch.cat([start, start + 15 + torch.rand(pictures, 4, 2) * 50], dim=2)
    targets = [{"boxes": found, "labels": torch.randint(1, 7, (4,))} for found in boxes]

    def run(model: FasterRCNN | TorchvisionFasterRCNN) -> dict[str, float]:
        torch.manual_seed(0)
        losses = model(images, targets)
        model.zero_grad()
        sum(losses.values()).backward()
        return {name: float(loss.detach()) for name, loss in losses.items()}

    def agree(a: dict[str, float], b: dict[str, float]) -> bool:
        return all(abs(a[name] - b[name]) < 1e-4 for name in b)

    return Case(
        f"Faster R-CNN, losses and gradients of {pictures}",
        "torchvision",
        lambda: run(ours),
        lambda: run(theirs),
        agree,
    )
