"""2017: Mask R-CNN. Which pixels belong to each object, by a branch beside class and box."""

from minircnn.mask_rcnn.detector import TOY_TOWN_MASK_HEADS, TOY_TOWN_MASK_RPN, MaskRCNN, mask_rcnn_alexnet
from minircnn.mask_rcnn.heads import AlignRoIConfig, MaskRoIConfig, MaskRoIHeads, SampledMaskRoIs
from minircnn.mask_rcnn.masks import mask_loss, mask_probabilities, project_masks_on_boxes
from minircnn.mask_rcnn.pasting import binary_masks, encode_pasted, paste_masks
from minircnn.mask_rcnn.published import (
    COCO_CLASSES,
    fasterrcnn_resnet50_fpn,
    load_torchvision_weights,
    maskrcnn_resnet50_fpn,
)
from minircnn.mask_rcnn.pyramid import (
    PYRAMID_HEADS,
    PYRAMID_MASK_HEADS,
    PYRAMID_RPN,
    PYRAMID_TRANSFORM,
    PyramidMaskRoIHeads,
    PyramidRoIHeads,
    faster_rcnn_fpn,
    mask_rcnn_fpn,
)
from minircnn.mask_rcnn.saving import MASK_RCNN_WEIGHTS, load_mask_rcnn, save_mask_rcnn

__all__ = [
    "COCO_CLASSES",
    "MASK_RCNN_WEIGHTS",
    "PYRAMID_HEADS",
    "PYRAMID_MASK_HEADS",
    "PYRAMID_RPN",
    "PYRAMID_TRANSFORM",
    "TOY_TOWN_MASK_HEADS",
    "TOY_TOWN_MASK_RPN",
    "AlignRoIConfig",
    "MaskRCNN",
    "MaskRoIConfig",
    "MaskRoIHeads",
    "PyramidMaskRoIHeads",
    "PyramidRoIHeads",
    "SampledMaskRoIs",
    "binary_masks",
    "encode_pasted",
    "faster_rcnn_fpn",
    "fasterrcnn_resnet50_fpn",
    "load_mask_rcnn",
    "load_torchvision_weights",
    "mask_loss",
    "mask_probabilities",
    "mask_rcnn_alexnet",
    "mask_rcnn_fpn",
    "maskrcnn_resnet50_fpn",
    "paste_masks",
    "project_masks_on_boxes",
    "save_mask_rcnn",
]
