"""2017: Mask R-CNN. Which pixels belong to each object, by a branch beside class and box."""

from minircnn.mask_rcnn.detector import TOY_TOWN_MASK_HEADS, TOY_TOWN_MASK_RPN, MaskRCNN, mask_rcnn_alexnet
from minircnn.mask_rcnn.heads import MaskRoIConfig, MaskRoIHeads, SampledMaskRoIs
from minircnn.mask_rcnn.masks import crop_masks, mask_loss, mask_probabilities
from minircnn.mask_rcnn.pasting import binary_masks, paste_masks
from minircnn.mask_rcnn.saving import MASK_RCNN_WEIGHTS, load_mask_rcnn, save_mask_rcnn

__all__ = [
    "MASK_RCNN_WEIGHTS",
    "TOY_TOWN_MASK_HEADS",
    "TOY_TOWN_MASK_RPN",
    "MaskRCNN",
    "MaskRoIConfig",
    "MaskRoIHeads",
    "SampledMaskRoIs",
    "binary_masks",
    "crop_masks",
    "load_mask_rcnn",
    "mask_loss",
    "mask_probabilities",
    "mask_rcnn_alexnet",
    "paste_masks",
    "save_mask_rcnn",
]
