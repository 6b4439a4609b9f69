"""2015: Fast R-CNN. One pass for the picture, regions out of its feature map, class and box learned together."""

from minircnn.fast_rcnn.detector import FastRCNN, check_finite, fast_rcnn_alexnet, numbered_classes, ordinary
from minircnn.fast_rcnn.heads import RoIConfig, RoIHeads, SampledRoIs, fast_rcnn_loss
from minircnn.fast_rcnn.layers import RegionLinear
from minircnn.fast_rcnn.saving import FAST_RCNN_WEIGHTS, load_fast_rcnn, save_fast_rcnn
from minircnn.fast_rcnn.truncated_svd import compress, truncate

__all__ = [
    "FAST_RCNN_WEIGHTS",
    "FastRCNN",
    "RegionLinear",
    "RoIConfig",
    "RoIHeads",
    "SampledRoIs",
    "check_finite",
    "compress",
    "fast_rcnn_alexnet",
    "fast_rcnn_loss",
    "load_fast_rcnn",
    "numbered_classes",
    "ordinary",
    "save_fast_rcnn",
    "truncate",
]
