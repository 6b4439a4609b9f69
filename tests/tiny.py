"""Tiny networks, images, proposals and targets that the tests of the detectors share."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from minircnn.alexnet import AlexNet, AlexNetConfig
from minircnn.fast_rcnn import RoIConfig
from minircnn.faster_rcnn import RPNConfig
from minircnn.mask_rcnn import MaskRoIConfig, mask_rcnn_alexnet
from minircnn.transforms import Transform

CLASSES = ("background", "cat", "dog", "bird")
TINY = AlexNetConfig(
    channels=(4, 6, 8, 8, 6),
    groups=(1, 1, 1, 1, 1),
    kernel=7,
    stride=2,
    padding=2,
    pool2_padding=1,
    response_norm=False,
    pool5="grid",
    pool5_size=3,
    hidden=16,
    input_size=64,
    blue_first=False,
)


def boxes_in(count, height, width, seed):
    """Proposals of at least four pixels, some of which reach out of the image."""
    generator = torch.Generator().manual_seed(seed)
    start = torch.rand(count, 2, generator=generator) * torch.tensor([width, height]) - 4
    return torch.cat([start, start + 4 + torch.rand(count, 2, generator=generator) * 40], dim=1)


def target_of(proposals, count, seed):
    """Objects near some of the proposals, so that there are positives."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(proposals), generator=generator)[:count]
    boxes = proposals[chosen] + torch.rand(len(chosen), 4, generator=generator) * 2
    return {"boxes": boxes, "labels": torch.randint(1, len(CLASSES), (len(chosen),), generator=generator)}


RPN_CONFIG = RPNConfig(
    anchor_sizes=((12.0, 30.0),),
    batch_size_per_image=48,
    pre_nms_top_n=(300, 200),
    post_nms_top_n=(60, 40),
    nms_threshold=(0.6, 0.6),
)
HEADS = RoIConfig(pool_size=3, batch_size_per_image=24, smooth_l1_beta=1 / 9, max_detections=30, score_threshold=0.1)
PADDED = Transform((0.4, 0.5, 0.6), (0.2, 0.3, 0.4), min_size=80, max_size=130, divisor=16)


def random_answers(model):
    """Random weights, but large enough in all siblings for answers that differ from place to place."""
    for layer in model.backbone:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
    nn.init.normal_(model.rpn.head.conv[0][0].weight, std=0.3)
    for layer in (model.rpn.head.cls_logits, model.rpn.head.bbox_pred):
        nn.init.normal_(layer.weight, std=0.05)
    for parameter in model.roi_heads.box_predictor.parameters():
        nn.init.normal_(parameter, std=0.5)


def some_images():
    """Four images of different sizes, none a multiple of the stride; the last one shows nothing."""
    generator = torch.Generator().manual_seed(0)
    images, targets = [], []
    for (height, width), count in zip([(70, 93), (101, 60), (85, 85), (61, 77)], (3, 1, 5, 0), strict=True):
        images.append(torch.rand(3, height, width, generator=generator))
        start = torch.rand(count, 2, generator=generator) * torch.tensor([width - 40, height - 40])
        boxes = torch.cat([start, start + 12 + torch.rand(count, 2, generator=generator) * 25], dim=1)
        targets.append({"boxes": boxes, "labels": torch.randint(1, 4, (count,), generator=generator)})
    return images, targets


def assert_same_losses_and_gradients(model, reference, scenes, seed):
    """In training mode, with the same draws, for every loss and every parameter."""
    images, targets = scenes
    model.train(), reference.train()
    reference.transform.eval()  # in training it draws one of its sizes, which disturbs the sequence of draws
    torch.manual_seed(seed)
    ours = model.losses(images, targets)
    sum(ours.values()).backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    torch.manual_seed(seed)
    theirs = reference(images, targets)
    sum(theirs.values()).backward()
    assert ours.keys() == theirs.keys()
    for name in theirs:
        assert ours[name].item() == pytest.approx(theirs[name].item(), rel=1e-5), name
        assert ours[name].item() > 0
    for name, parameter in model.named_parameters():
        assert torch.allclose(gradients[name], parameter.grad, rtol=1e-3, atol=1e-5), name


def assert_same_detections(mine, other, pixels=1e-3, scores=1e-5):
    assert len(mine["labels"]) > 3 and torch.equal(mine["labels"], other["labels"])
    assert torch.allclose(mine["scores"], other["scores"], rtol=0, atol=scores)
    assert torch.allclose(mine["boxes"], other["boxes"], rtol=0, atol=pixels)
    if "masks" in other:
        assert mine["masks"].shape == other["masks"].shape
        # A corner of a box that lies on a whole pixel, up to rounding, may go to either side: such a mask is shifted.
        apart = (mine["masks"] - other["masks"]).abs().flatten(1).amax(dim=1)
        assert (apart < 10 * scores).float().mean() > 0.8


MASK_HEADS = MaskRoIConfig(
    **vars(replace(HEADS, pooling="align", aligned=False)), mask_pool_size=5, mask_channels=(6, 7)
)


def tiny_mask_rcnn(**changes):
    """Random weights, but large enough in all siblings for answers that differ from place to place."""
    torch.manual_seed(0)
    model = mask_rcnn_alexnet(AlexNet(TINY, 5), CLASSES, RPN_CONFIG, replace(MASK_HEADS, **changes), PADDED)
    random_answers(model)
    nn.init.normal_(model.roi_heads.mask_predictor.mask_fcn_logits.weight, std=1)
    return model


def ellipses(boxes, size):
    """Masks (N, H, W) bool that fill their boxes as far as ellipses do."""
    rows, columns = (torch.arange(side) + 0.5 for side in size)
    middle, half = (boxes[:, 2:] + boxes[:, :2]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
    x, y = (columns - middle[:, :1]) / half[:, :1], (rows - middle[:, 1:]) / half[:, 1:]
    return x[:, None, :] ** 2 + y[:, :, None] ** 2 <= 1
