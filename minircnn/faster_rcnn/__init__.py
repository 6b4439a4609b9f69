"""2016: Faster R-CNN. Proposals from the same features, nearly for free."""

from minircnn.faster_rcnn.anchors import base_anchors, grid_anchors
from minircnn.faster_rcnn.detector import TOY_TOWN_HEADS, TOY_TOWN_RPN, FasterRCNN, faster_rcnn_alexnet
from minircnn.faster_rcnn.rpn import RPN, RPNConfig, RPNHead, RPNOutputs
from minircnn.faster_rcnn.saving import FASTER_RCNN_WEIGHTS, load_faster_rcnn, save_faster_rcnn

__all__ = [
    "FASTER_RCNN_WEIGHTS",
    "RPN",
    "TOY_TOWN_HEADS",
    "TOY_TOWN_RPN",
    "FasterRCNN",
    "RPNConfig",
    "RPNHead",
    "RPNOutputs",
    "base_anchors",
    "faster_rcnn_alexnet",
    "grid_anchors",
    "load_faster_rcnn",
    "save_faster_rcnn",
]
