"""A tiny Faster R-CNN, the same in torchvision's classes, and pictures of different sizes for both."""

import pytest
import torch
from torch import nn
from torchvision.models.detection import FasterRCNN as TorchvisionFasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign, roi_pool

from minircnn.alexnet import AlexNet
from minircnn.fast_rcnn import RoIConfig
from minircnn.faster_rcnn import RPNConfig, faster_rcnn_alexnet
from minircnn.transforms import Transform
from tests.fast_rcnn.conftest import CLASSES, TINY

RPN_CONFIG = RPNConfig(
    anchor_sizes=((12.0, 30.0),), anchors_per_image=48, before_nms=(300, 200), after_nms=(60, 40), nms_threshold=0.6
)
HEADS = RoIConfig(pool_size=3, rois_per_image=24, smooth_l1_beta=1 / 9, max_detections=30, score_threshold=0.1)
PADDED = Transform((0.4, 0.5, 0.6), (0.2, 0.3, 0.4), min_size=80, max_size=130, divisor=16)


class Pool(MultiScaleRoIAlign):
    """Torchvision's RoIPool where its detector wants to see its RoIAlign."""

    def __init__(self):
        super().__init__(["0"], 3, 2)

    def forward(self, features, boxes, sizes):
        return roi_pool(features["0"], boxes, 3, 1 / 8)


class Siblings(nn.Module):
    def __init__(self, predictor):
        super().__init__()
        self.cls_score, self.bbox_pred = predictor["cls_score"], predictor["bbox_pred"]

    def forward(self, x):
        return self.cls_score(x), self.bbox_pred(x)


@pytest.fixture
def model():
    """Random weights, but large enough in all siblings for answers that differ from place to place."""
    torch.manual_seed(0)
    model = faster_rcnn_alexnet(AlexNet(TINY, 5), CLASSES, RPN_CONFIG, HEADS, PADDED)
    for layer in model.trunk:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
    nn.init.normal_(model.rpn.head.conv[0][0].weight, std=0.3)
    for layer in (model.rpn.head.cls_logits, model.rpn.head.bbox_pred):
        nn.init.normal_(layer.weight, std=0.05)
    for parameter in model.roi_heads.box_predictor.parameters():
        nn.init.normal_(parameter, std=0.5)
    return model


@pytest.fixture
def reference(model):
    """Torchvision's FasterRCNN around the very same layers."""
    model.trunk.out_channels = TINY.channels[-1]
    other = TorchvisionFasterRCNN(
        model.trunk,
        min_size=PADDED.min_size,
        max_size=PADDED.max_size,
        image_mean=PADDED.mean,
        image_std=PADDED.std,
        size_divisible=PADDED.divisor,
        rpn_anchor_generator=AnchorGenerator(RPN_CONFIG.anchor_sizes, (RPN_CONFIG.anchor_ratios,)),
        rpn_head=nn.Module(),
        rpn_pre_nms_top_n_train=RPN_CONFIG.before_nms[0],
        rpn_pre_nms_top_n_test=RPN_CONFIG.before_nms[1],
        rpn_post_nms_top_n_train=RPN_CONFIG.after_nms[0],
        rpn_post_nms_top_n_test=RPN_CONFIG.after_nms[1],
        rpn_nms_thresh=RPN_CONFIG.nms_threshold,
        rpn_batch_size_per_image=RPN_CONFIG.anchors_per_image,
        box_roi_pool=Pool(),
        box_head=nn.Sequential(nn.Flatten(), model.roi_heads.box_head),
        box_predictor=Siblings(model.roi_heads.box_predictor),
        box_score_thresh=HEADS.score_threshold,
        box_nms_thresh=HEADS.nms_threshold,
        box_detections_per_img=HEADS.max_detections,
        box_batch_size_per_image=HEADS.rois_per_image,
    )
    head = model.rpn.head

    class Head(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.cls_logits, self.bbox_pred = head.conv, head.cls_logits, head.bbox_pred

        def forward(self, levels):
            levels = [self.conv(level) for level in levels]
            return [self.cls_logits(x) for x in levels], [self.bbox_pred(x) for x in levels]

    other.rpn.head = Head()
    return other


@pytest.fixture
def pictures():
    """Four pictures of different sizes, none a multiple of the stride; the last one shows nothing."""
    generator = torch.Generator().manual_seed(0)
    images, targets = [], []
    for (height, width), count in zip([(70, 93), (101, 60), (85, 85), (61, 77)], (3, 1, 5, 0), strict=True):
        images.append(torch.rand(3, height, width, generator=generator))
        start = torch.rand(count, 2, generator=generator) * torch.tensor([width - 40, height - 40])
        boxes = torch.cat([start, start + 12 + torch.rand(count, 2, generator=generator) * 25], dim=1)
        targets.append({"boxes": boxes, "labels": torch.randint(1, 4, (count,), generator=generator)})
    return images, targets
