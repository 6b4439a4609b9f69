"""Faster R-CNN in one file of numbers, with a JSON file that says how they fit together."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minircnn.alexnet import AlexNetConfig, build_alexnet
from minircnn.fast_rcnn import RoIConfig
from minircnn.faster_rcnn.detector import FasterRCNN, faster_rcnn_alexnet
from minircnn.faster_rcnn.rpn import RPNConfig
from minircnn.shipped import FASTER_RCNN_WEIGHTS
from minircnn.transforms import Transform
from minircnn.weights import config_of, load_detector, save_detector


def save_faster_rcnn(model: FasterRCNN, network: AlexNetConfig, path: Path, about: Mapping[str, Any]) -> None:
    """Writes a detector that :func:`faster_rcnn_alexnet` made, as :func:`minircnn.fast_rcnn.save_fast_rcnn` does."""
    configs = {"rpn": model.rpn.config, "heads": model.roi_heads.config, "network": network}
    save_detector(path, "faster_rcnn", model, {**configs, "transform": model.transform}, about)


def load_faster_rcnn(path: str | Path = FASTER_RCNN_WEIGHTS) -> FasterRCNN:
    """A detector that :func:`save_faster_rcnn` wrote, by default the one that comes with the project.

    Errors are those of :func:`minircnn.weights.load_detector`.
    """
    return load_detector(path, "faster_rcnn", "a Faster R-CNN", _build)


def _build(about: Mapping[str, Any]) -> FasterRCNN:
    rpn, heads = config_of(RPNConfig, about["rpn"]), config_of(RoIConfig, about["heads"])
    transform = config_of(Transform, about["transform"])
    return faster_rcnn_alexnet(build_alexnet(about["network"], 1), about["classes"], rpn, heads, transform)
