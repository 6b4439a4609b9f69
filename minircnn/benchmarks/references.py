"""Torchvision's detectors around the layers of ours: the same weights, computed by other code."""

from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN as TorchvisionFasterRCNN
from torchvision.models.detection import MaskRCNN as TorchvisionMaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign, roi_pool

from minircnn.faster_rcnn import FasterRCNN
from minircnn.mask_rcnn import MaskRCNN


class _RoIPool(MultiScaleRoIAlign):
    """Torchvision's RoIPool where its detector wants to see its RoIAlign."""

    def __init__(self, size: int, stride: int) -> None:
        super().__init__(["0"], size, 2)
        self.size, self.stride = size, stride

    def forward(self, features: dict[str, Tensor], boxes: list[Tensor], sizes: list[tuple[int, int]]) -> Tensor:
        return roi_pool(features["0"], boxes, self.size, 1 / self.stride)


class _Siblings(nn.Module):
    """The two layers behind the box head, which answer both."""

    def __init__(self, predictor: nn.ModuleDict) -> None:
        super().__init__()
        self.cls_score, self.bbox_pred = predictor["cls_score"], predictor["bbox_pred"]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.cls_score(x), self.bbox_pred(x)


class _Head(nn.Module):
    """The sliding window, for a list of maps."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.conv, self.cls_logits, self.bbox_pred = head.conv, head.cls_logits, head.bbox_pred

    def forward(self, levels: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        levels = [self.conv(level) for level in levels]
        return [self.cls_logits(x) for x in levels], [self.bbox_pred(x) for x in levels]


class _ChannelsLast(nn.Module):
    """The trunk, with the memory format that ours is given: a fair comparison of time."""

    def __init__(self, trunk: nn.Module, channels: int) -> None:
        super().__init__()
        self.trunk, self.out_channels = trunk, channels

    def forward(self, images: Tensor) -> Tensor:
        return self.trunk(images.contiguous(memory_format=torch.channels_last))


def torchvision_faster_rcnn(model: FasterRCNN) -> TorchvisionFasterRCNN:
    """Torchvision's FasterRCNN with the very layers and numbers of one of ours; its weights are not copies.

    Args:
        model: with one level of features, RoIPool, anchors without a shift, and one NMS threshold for training and
            detection: torchvision has no others.
    """
    pool = _RoIPool(model.roi_heads.config.pool_size, model.roi_heads.stride)
    return _around(model, TorchvisionFasterRCNN, box_roi_pool=pool)


def torchvision_mask_rcnn(model: MaskRCNN) -> TorchvisionMaskRCNN:
    """Torchvision's MaskRCNN with the very layers and numbers of one of ours.

    Args:
        model: as for :func:`torchvision_faster_rcnn`, but with RoIAlign, not ``aligned``, and a stride of a power of 2.
    """
    heads = model.roi_heads.config
    return _around(
        model,
        TorchvisionMaskRCNN,
        box_roi_pool=MultiScaleRoIAlign(["0"], heads.pool_size, heads.sampling_ratio),
        mask_roi_pool=MultiScaleRoIAlign(["0"], heads.mask_pool_size, heads.sampling_ratio),
        mask_head=model.roi_heads.mask_head,
        mask_predictor=model.roi_heads.mask_predictor,
    )


def _around(
    model: FasterRCNN,
    kind: type[TorchvisionFasterRCNN],
    **layers: Any,  # noqa: ANN401 - modules, named as torchvision names them
) -> Any:  # noqa: ANN401 - of that kind
    rpn, heads, transform = model.rpn.config, model.roi_heads.config, model.transform
    reference = kind(
        _ChannelsLast(model.trunk, model.rpn.head.cls_logits.in_channels),
        min_size=transform.min_size,
        max_size=transform.max_size or 10**6,
        image_mean=transform.mean,
        image_std=transform.std,
        size_divisible=transform.divisor,
        rpn_anchor_generator=AnchorGenerator(rpn.anchor_sizes, (rpn.anchor_ratios,)),
        rpn_head=_Head(model.rpn.head),
        rpn_pre_nms_top_n_train=rpn.before_nms[0],
        rpn_pre_nms_top_n_test=rpn.before_nms[1],
        rpn_post_nms_top_n_train=rpn.after_nms[0],
        rpn_post_nms_top_n_test=rpn.after_nms[1],
        rpn_nms_thresh=rpn.nms_threshold[0],
        rpn_batch_size_per_image=rpn.anchors_per_image,
        box_head=nn.Sequential(nn.Flatten(), model.roi_heads.box_head),  # as torchvision's: a product of matrices
        box_predictor=_Siblings(model.roi_heads.box_predictor),
        box_score_thresh=heads.score_threshold,
        box_nms_thresh=heads.nms_threshold,
        box_detections_per_img=heads.max_detections,
        box_batch_size_per_image=heads.rois_per_image,
        box_positive_fraction=heads.positive_fraction,
        **layers,
    )
    reference.transform.eval()  # in training it draws one of its sizes, which disturbs the sequence of draws
    return reference
