"""Whole detectors against torchvision's classes around the same layers, and the pasting of masks."""

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.roi_heads import paste_masks_in_image

from minircnn.alexnet import SMALL, AlexNet
from minircnn.course.compare import pair, soft_shapes, torchvision_faster_rcnn, torchvision_mask_rcnn
from minircnn.fast_rcnn import RoIConfig
from minircnn.faster_rcnn import TOY_TOWN_RPN, FasterRCNN, faster_rcnn_alexnet
from minircnn.mask_rcnn import MaskRoIConfig, mask_rcnn_alexnet, paste_masks
from workshop.benchmarks.timing import Case

torchvision = partial(Case, reference="torchvision")
_CLASSES = ("background", *"abcdef")
_RPN = replace(TOY_TOWN_RPN, anchor_offset=0.0, nms_threshold=(0.7, 0.7))  # torchvision has one threshold, and no shift


def cases() -> list[Case]:
    """Pasted masks, detection in an image, and a training step without the optimizer's."""
    found = [_paste(20, (128, 128)), _paste(100, (800, 1088))]
    for name, make in (("Faster R-CNN", _faster), ("Mask R-CNN", _mask)):
        found.append(_detection(f"{name}, an image of 128²", *make(), torch.rand(3, 128, 128)))
        for backward in (False, True):
            found.append(_training(name, *make(), *_batch(4, 128, 128, 4), backward))
    return found


def published_cases() -> list[Case]:
    """The published architecture, with random weights, at the size at which people use it."""
    ours, theirs = pair()
    images, targets = _batch(1, 427, 640, 8)
    name = "published Mask R-CNN"
    return [
        _detection(f"{name}, an image of 427 × 640", ours, theirs, soft_shapes(427, 640)),
        _training(name, ours, theirs, images, targets, backward=True),
    ]


def _paste(count: int, size: tuple[int, int]) -> Case:
    """In torchvision's way, over whole pixels; boxes have from a tenth to half of the image's sides."""
    generator = torch.Generator().manual_seed(0)
    masks, sides = torch.rand(count, 28, 28, generator=generator), torch.tensor(size).flip(0)
    start = torch.rand(count, 2, generator=generator) * 0.5 * sides
    boxes = torch.cat([start, start + (0.1 + 0.4 * torch.rand(count, 2, generator=generator)) * sides], dim=1)
    return torchvision(
        name=f"paste_masks, {count} in {size[0]}×{size[1]}",
        ours=lambda: paste_masks(masks, boxes, size, aligned=False),
        theirs=lambda: paste_masks_in_image(masks[:, None], boxes, size),
        check=torch.equal,
        memory=True,
    )


def _faster() -> tuple[FasterRCNN, Any]:
    torch.manual_seed(0)
    model = faster_rcnn_alexnet(AlexNet(SMALL, 1), _CLASSES, _RPN, RoIConfig(smooth_l1_beta=1 / 9))
    model.transform = replace(model.transform, min_size=192)
    return model, torchvision_faster_rcnn(model)


def _mask() -> tuple[FasterRCNN, Any]:
    torch.manual_seed(0)
    heads = MaskRoIConfig(smooth_l1_beta=1 / 9, aligned=False, mask_channels=(64,) * 4)
    model = mask_rcnn_alexnet(AlexNet(SMALL, 1), _CLASSES, _RPN, heads)
    model.transform = replace(model.transform, min_size=192)
    return model, torchvision_mask_rcnn(model)


def _batch(count: int, height: int, width: int, objects: int) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Random images, and in each so many objects with masks."""
    images, targets, size = [], [], torch.tensor([width, height])
    for _ in range(count):
        images.append(soft_shapes(height, width))
        start = torch.rand(objects, 2) * 0.5 * size
        boxes = torch.cat([start, start + (0.1 + 0.4 * torch.rand(objects, 2)) * size], dim=1)
        labels, masks = torch.randint(1, 7, (objects,)), torch.rand(objects, height, width) > 0.5
        targets.append({"boxes": boxes, "labels": labels, "masks": masks})
    return images, targets


def _detection(name: str, ours: FasterRCNN, theirs: nn.Module, image: Tensor) -> Case:
    def detect(model: nn.Module) -> dict[str, Tensor]:
        model.eval()
        with torch.no_grad():
            return model([image])[0]

    return torchvision(
        name=name,
        ours=lambda: detect(ours),
        theirs=lambda: detect(theirs),
        check=_found_alike,
    )


def _found_alike(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    """Whether 95 % of what either found the other found: which of two goes may be a matter of rounding."""
    near = (ours["boxes"][:, None] - theirs["boxes"]).abs().amax(dim=2) < 1e-2
    same = (near & (ours["labels"][:, None] == theirs["labels"])).float()
    return min(same.amax(dim=dim).mean().item() for dim in (0, 1)) >= 0.95


def _training(
    name: str,
    ours: FasterRCNN,
    theirs: nn.Module,
    images: list[Tensor],
    targets: list[dict[str, Tensor]],
    backward: bool,
) -> Case:
    def run(model: nn.Module) -> dict[str, float]:
        model.train()
        theirs.transform.eval()  # in training it draws one of its sizes, which disturbs the sequence of draws
        torch.manual_seed(0)
        losses = model(images, targets)
        if backward:
            model.zero_grad()
            sum(losses.values()).backward()
        return {name: float(loss.detach()) for name, loss in losses.items()}

    what = "losses and gradients" if backward else "losses"
    return torchvision(
        name=f"{name}, {what} of {len(images)}",
        ours=partial(run, ours),
        theirs=partial(run, theirs),
        check=lambda a, b: all(abs(a[name] - b[name]) < 1e-4 + 1e-3 * b[name] for name in b),
    )
