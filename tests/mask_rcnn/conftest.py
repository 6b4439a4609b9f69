"""A tiny Mask R-CNN, the same in torchvision's classes, and pictures of different sizes for both."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from minircnn.alexnet import AlexNet
from minircnn.course.compare import torchvision_mask_rcnn
from minircnn.mask_rcnn import MaskRoIConfig, mask_rcnn_alexnet
from tests.fast_rcnn.conftest import CLASSES, TINY
from tests.faster_rcnn.conftest import HEADS, PADDED, RPN_CONFIG, random_answers, some_pictures

MASK_HEADS = MaskRoIConfig(
    **vars(replace(HEADS, pooling="align", aligned=False)), mask_pool_size=5, mask_channels=(6, 7)
)


def make(**changes):
    """Random weights, but large enough in all siblings for answers that differ from place to place."""
    torch.manual_seed(0)
    model = mask_rcnn_alexnet(AlexNet(TINY, 5), CLASSES, RPN_CONFIG, replace(MASK_HEADS, **changes), PADDED)
    random_answers(model)
    nn.init.normal_(model.roi_heads.mask_predictor.mask_fcn_logits.weight, std=1)
    return model


@pytest.fixture
def model():
    return make()


@pytest.fixture
def reference(model):
    """Torchvision's MaskRCNN around the very same layers."""
    return torchvision_mask_rcnn(model)


@pytest.fixture
def pictures():
    """With an ellipse in each box, as its object's mask."""
    images, targets = some_pictures()
    for image, target in zip(images, targets, strict=True):
        target["masks"] = ellipses(target["boxes"], image.shape[1:])
    return images, targets


def ellipses(boxes, size):
    """Masks (N, H, W) bool that fill their boxes as far as ellipses do."""
    rows, columns = (torch.arange(side) + 0.5 for side in size)
    middle, half = (boxes[:, 2:] + boxes[:, :2]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
    x, y = (columns - middle[:, :1]) / half[:, :1], (rows - middle[:, 1:]) / half[:, 1:]
    return x[:, None, :] ** 2 + y[:, :, None] ** 2 <= 1
