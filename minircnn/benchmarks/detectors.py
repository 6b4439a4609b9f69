"""Whole detectors against torchvision's classes around the same layers, and the pasting of masks."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torchvision.models.detection.roi_heads import paste_masks_in_image

from minircnn.alexnet import SMALL, AlexNet
from minircnn.benchmarks.references import torchvision_faster_rcnn, torchvision_mask_rcnn
from minircnn.benchmarks.timing import Case
from minircnn.fast_rcnn import RoIConfig
from minircnn.faster_rcnn import TOY_TOWN_RPN, FasterRCNN, faster_rcnn_alexnet
from minircnn.mask_rcnn import MaskRoIConfig, mask_rcnn_alexnet, paste_masks

_CLASSES = ("background", *"abcdef")
_RPN = replace(TOY_TOWN_RPN, anchor_shift=0.0, nms_threshold=(0.7, 0.7))  # torchvision has one threshold, and no shift


def cases() -> list[Case]:
    """Pasted masks, a picture's detection, and a step of training without the optimiser's."""
    return [
        _paste(20, (128, 128)),
        _paste(100, (800, 1088)),
        *(
            case
            for make in (_faster, _mask)
            for case in (_detection(make), _training(make, 4), _training(make, 4, True))
        ),
    ]


def _paste(count: int, size: tuple[int, int]) -> Case:
    """In torchvision's way, over whole pixels; boxes have from a tenth to half of the picture's sides."""
    generator = torch.Generator().manual_seed(0)
    masks, sides = torch.rand(count, 28, 28, generator=generator), torch.tensor(size).flip(0)
    start = torch.rand(count, 2, generator=generator) * 0.5 * sides
    boxes = torch.cat([start, start + (0.1 + 0.4 * torch.rand(count, 2, generator=generator)) * sides], dim=1)
    return Case(
        f"paste_masks, {count} in {size[0]}×{size[1]}",
        "torchvision",
        lambda: paste_masks(masks, boxes, size, aligned=False),
        lambda: paste_masks_in_image(masks[:, None], boxes, size),
        torch.equal,
        memory=True,
    )


def _faster() -> tuple[str, FasterRCNN, Any]:
    torch.manual_seed(0)
    model = faster_rcnn_alexnet(AlexNet(SMALL, 1), _CLASSES, _RPN, RoIConfig(smooth_l1_beta=1 / 9))
    model.transform = replace(model.transform, min_size=192)
    return "Faster R-CNN", model, torchvision_faster_rcnn(model)


def _mask() -> tuple[str, FasterRCNN, Any]:
    torch.manual_seed(0)
    heads = MaskRoIConfig(smooth_l1_beta=1 / 9, aligned=False, mask_channels=(64,) * 4)
    model = mask_rcnn_alexnet(AlexNet(SMALL, 1), _CLASSES, _RPN, heads)
    model.transform = replace(model.transform, min_size=192)
    return "Mask R-CNN", model, torchvision_mask_rcnn(model)


def _detection(make: Callable[[], tuple[str, FasterRCNN, Any]]) -> Case:
    name, ours, theirs = make()
    ours.eval(), theirs.eval()
    image = torch.rand(3, 128, 128)

    def agree(a: list[dict[str, Tensor]], b: list[dict[str, Tensor]]) -> bool:
        return torch.allclose(a[0]["boxes"], b[0]["boxes"], atol=1e-2) and torch.equal(a[0]["labels"], b[0]["labels"])

    def reference() -> list[dict[str, Tensor]]:
        with torch.no_grad():
            return theirs([image])

    return Case(f"{name}, a picture of 128²", "torchvision", lambda: ours.detect([image]), reference, agree)


def _training(make: Callable[[], tuple[str, FasterRCNN, Any]], pictures: int, backward: bool = False) -> Case:
    name, ours, theirs = make()
    ours.train(), theirs.train()
    theirs.transform.eval()
    images = list(torch.rand(pictures, 3, 128, 128))
    start = torch.rand(pictures, 4, 2) * 60
    boxes = torch.cat([start, start + 15 + torch.rand(pictures, 4, 2) * 50], dim=2)
    targets = [
        {"boxes": found, "labels": torch.randint(1, 7, (4,)), "masks": torch.rand(4, 128, 128) > 0.5} for found in boxes
    ]

    def run(model: FasterRCNN) -> dict[str, float]:
        torch.manual_seed(0)
        losses = model(images, targets)
        if backward:
            model.zero_grad()
            sum(losses.values()).backward()
        return {name: float(loss.detach()) for name, loss in losses.items()}

    def agree(a: dict[str, float], b: dict[str, float]) -> bool:
        return all(abs(a[name] - b[name]) < 1e-4 for name in b)

    what = "losses and gradients" if backward else "losses"
    return Case(f"{name}, {what} of {pictures}", "torchvision", lambda: run(ours), lambda: run(theirs), agree)
