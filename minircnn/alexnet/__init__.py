"""AlexNet: the network that R-CNN took from image classification, and on which three of the four detectors stand."""

from minircnn.alexnet.network import (
    ALEXNET_2012,
    LAYERS,
    SMALL,
    SMALL_STRIDE_16,
    TORCHVISION,
    AlexNet,
    AlexNetConfig,
    fold_batch_norm,
    up_to_pool5,
)
from minircnn.alexnet.pretrained import (
    IMAGENET_URL,
    build_alexnet,
    load_alexnet,
    load_alexnet_2012,
    load_imagenet_weights,
    load_pretrained,
    rename_keys,
    save_alexnet,
)
from minircnn.shipped import SMALL_STRIDE_16_WEIGHTS, SMALL_WEIGHTS

__all__ = [
    "ALEXNET_2012",
    "IMAGENET_URL",
    "LAYERS",
    "SMALL",
    "SMALL_STRIDE_16",
    "SMALL_STRIDE_16_WEIGHTS",
    "SMALL_WEIGHTS",
    "TORCHVISION",
    "AlexNet",
    "AlexNetConfig",
    "build_alexnet",
    "fold_batch_norm",
    "load_alexnet",
    "load_alexnet_2012",
    "load_imagenet_weights",
    "load_pretrained",
    "rename_keys",
    "save_alexnet",
    "up_to_pool5",
]
