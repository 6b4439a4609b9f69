"""Mask R-CNN in one file of numbers, with a JSON file that says how they fit together."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from minircnn.alexnet import AlexNetConfig, build_alexnet
from minircnn.faster_rcnn import RPNConfig
from minircnn.mask_rcnn.detector import MaskRCNN, mask_rcnn_alexnet
from minircnn.mask_rcnn.heads import MaskRoIConfig
from minircnn.mask_rcnn.pyramid import mask_rcnn_fpn
from minircnn.resnet_fpn import ResNetFPNConfig
from minircnn.shipped import MASK_RCNN_WEIGHTS
from minircnn.transforms import Transform
from minircnn.weights import config_of, load_detector, save_detector


def save_mask_rcnn(
    model: MaskRCNN, network: AlexNetConfig | ResNetFPNConfig, path: Path, about: Mapping[str, Any]
) -> None:
    """Writes a detector that :func:`mask_rcnn_alexnet` or :func:`mask_rcnn_fpn` made of such a network.

    In the way of :func:`minircnn.fast_rcnn.save_fast_rcnn`.
    """
    heads, hidden = model.roi_heads.config, model.roi_heads.mask_predictor.mask_fcn_logits.in_channels
    # The predictor may be another one by now, such as torchvision's.
    heads = replace(heads, mask_hidden=None if hidden == heads.mask_channels[-1] else hidden)
    configs = {"rpn": model.rpn.config, "heads": heads, "network": network}
    save_detector(path, "mask_rcnn", model, {**configs, "transform": model.transform}, about)


def load_mask_rcnn(path: str | Path = MASK_RCNN_WEIGHTS) -> MaskRCNN:
    """A detector that :func:`save_mask_rcnn` wrote, by default the one that comes with the project.

    Errors are those of :func:`minircnn.weights.load_detector`.
    """
    return load_detector(path, "mask_rcnn", "a Mask R-CNN", _build)


def _build(about: Mapping[str, Any]) -> MaskRCNN:
    rpn, heads = config_of(RPNConfig, about["rpn"]), config_of(MaskRoIConfig, about["heads"])
    transform, network = config_of(Transform, about["transform"]), about["network"]
    if "blocks" in network:
        return mask_rcnn_fpn(config_of(ResNetFPNConfig, network), about["classes"], rpn, heads, transform)
    return mask_rcnn_alexnet(build_alexnet(network, 1), about["classes"], rpn, heads, transform)
