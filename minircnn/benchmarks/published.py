"""The published Mask R-CNN against torchvision's, at the size at which people use it.

Random weights take as long as published ones, and prove the same, as long as what they answer depends on the picture
and is not amplified rounding: :func:`pair` sees to that.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN as TorchvisionFasterRCNN
from torchvision.models.detection import MaskRCNN as TorchvisionMaskRCNN
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.models.resnet import Bottleneck, ResNet
from torchvision.ops.misc import FrozenBatchNorm2d

from minircnn.benchmarks.timing import Case
from minircnn.faster_rcnn import FasterRCNN
from minircnn.mask_rcnn import (
    COCO_CLASSES,
    PYRAMID_HEADS,
    PYRAMID_MASK_HEADS,
    PYRAMID_RPN,
    PYRAMID_TRANSFORM,
    faster_rcnn_fpn,
    load_torchvision_weights,
    mask_rcnn_fpn,
)
from minircnn.resnet_fpn import ResNetFPNConfig
from minircnn.transforms import Transform

RESNET_50 = (3, 4, 6, 3)


def cases() -> list[Case]:
    """A picture's detection, and a step of training without the optimiser's."""
    ours, theirs = pair()
    image = _photograph(427, 640)
    generator = torch.Generator().manual_seed(0)
    start = torch.rand(8, 2, generator=generator) * torch.tensor([400.0, 250.0])
    boxes = torch.cat([start, start + 20 + 150 * torch.rand(8, 2, generator=generator)], dim=1)
    target = {"boxes": boxes, "labels": torch.arange(1, 9), "masks": torch.rand(8, 427, 640, generator=generator) > 0.5}

    def detect(model: nn.Module) -> dict[str, Tensor]:
        model.eval()
        with torch.no_grad():
            return model([image])[0]

    def step(model: nn.Module) -> dict[str, float]:
        model.train()
        if isinstance(model.transform, nn.Module):
            model.transform.eval()  # in training it draws one of its sizes, which disturbs the sequence of draws
        torch.manual_seed(0)
        losses = model([image], [target])
        model.zero_grad()
        sum(losses.values()).backward()
        return {name: float(loss.detach()) for name, loss in losses.items()}

    return [
        Case(
            "published Mask R-CNN, a picture of 427 × 640",
            "torchvision",
            lambda: detect(ours),
            lambda: detect(theirs),
            lambda a, b: torch.equal(a["labels"], b["labels"]) and torch.allclose(a["boxes"], b["boxes"], atol=1e-2),
        ),
        Case(
            "published Mask R-CNN, losses and gradients of 1",
            "torchvision",
            lambda: step(ours),
            lambda: step(theirs),
            lambda a, b: all(abs(a[name] - b[name]) < 1e-4 for name in b),
        ),
    ]


def pair(
    kind: str = "mask",
    blocks: tuple[int, int, int, int] = RESNET_50,
    classes: Sequence[str] = COCO_CLASSES,
    transform: Transform = PYRAMID_TRANSFORM,
    most: int = 100,
    proposals: int = 1000,
) -> tuple[FasterRCNN, Any]:
    """Ours and torchvision's, of the same weights, in evaluation mode.

    Args:
        kind: "mask" or "faster".
        blocks: of the residual network.
        classes: names.
        transform: what happens to pictures.
        most: detections of a picture.
        proposals: of a picture, in training and in detection; half as many are learned from.
    """
    theirs = {"mask": TorchvisionMaskRCNN, "faster": TorchvisionFasterRCNN}[kind](
        _trunk(blocks),
        len(classes),
        min_size=transform.min_size,
        max_size=transform.max_size,
        box_detections_per_img=most,
        rpn_post_nms_top_n_train=proposals,
        rpn_post_nms_top_n_test=proposals,
        box_batch_size_per_image=proposals // 2,
    )
    _spread_answers(theirs)
    build, heads = {
        "mask": (mask_rcnn_fpn, PYRAMID_MASK_HEADS),
        "faster": (faster_rcnn_fpn, PYRAMID_HEADS),
    }[kind]
    heads = replace(heads, max_detections=most, rois_per_image=proposals // 2)
    rpn = replace(PYRAMID_RPN, after_nms=(proposals, proposals))
    ours = build(ResNetFPNConfig(blocks=blocks), classes, rpn, heads, transform)
    load_torchvision_weights(ours, theirs.state_dict())
    return ours.eval(), theirs.eval()


def _trunk(blocks: tuple[int, int, int, int]) -> nn.Module:
    """Torchvision's, with statistics of batches as a trained network has them: taken from a batch."""
    torch.manual_seed(0)
    learning, frozen = (ResNet(Bottleneck, blocks, norm_layer=kind) for kind in (nn.BatchNorm2d, FrozenBatchNorm2d))
    for module in learning.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the plain mean
        if isinstance(module, Bottleneck):  # each adds little, or rounding would be amplified from block to block
            nn.init.constant_(module.bn3.weight, 0.1)
    with torch.no_grad():
        learning.train()(torch.stack([_photograph(128, 128) for _ in range(4)]) * 4 - 2)
    state = {name: value for name, value in learning.state_dict().items() if not name.endswith("num_batches_tracked")}
    frozen.load_state_dict(state)
    return _resnet_fpn_extractor(frozen, 3)


def _spread_answers(model: nn.Module) -> None:
    """Scales the last layers, so that objectness, classes, boxes and masks differ from place to place.

    Not by so much that probabilities become 1, all alike.
    """
    heads = model.roi_heads
    spreads = {model.rpn.head.cls_logits: 0.5, model.rpn.head.bbox_pred: 0.2}
    spreads |= {heads.box_predictor.cls_score: 0.7, heads.box_predictor.bbox_pred: 0.5}
    if heads.has_mask():
        spreads[heads.mask_predictor.mask_fcn_logits] = 2.0

    def scale(layer: nn.Module, _: object, out: Tensor) -> Tensor:
        factor = spreads[layer] / out.std()
        layer.weight.data.mul_(factor)
        layer.bias.data.zero_()
        return out * factor

    handles = [layer.register_forward_hook(scale) for layer in spreads]
    with torch.no_grad():
        model.eval()([_photograph(160, 213)])
    for handle in handles:
        handle.remove()


def _photograph(height: int, width: int) -> Tensor:
    """Large soft shapes, ``(3, H, W)`` in [0, 1]: noise would look the same everywhere."""
    coarse = torch.rand(1, 3, height // 12, width // 12)
    return nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")[0]
