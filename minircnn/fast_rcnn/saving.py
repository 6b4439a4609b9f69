"""Fast R-CNN in one file of numbers, with a JSON file that says how they fit together."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minircnn.alexnet import AlexNetConfig, build_alexnet
from minircnn.fast_rcnn.detector import FastRCNN, fast_rcnn_alexnet
from minircnn.fast_rcnn.heads import RoIConfig
from minircnn.shipped import FAST_RCNN_WEIGHTS
from minircnn.transforms import Transform
from minircnn.weights import config_of, load_detector, save_detector


def save_fast_rcnn(model: FastRCNN, network: AlexNetConfig, path: Path, about: Mapping[str, Any]) -> None:
    """Writes a detector that :func:`fast_rcnn_alexnet` made, in half precision, for :func:`load_fast_rcnn`.

    Args:
        model: the detector.
        network: the configuration of the AlexNet that it was made of.
        path: the ``.safetensors`` file; the ``.json`` is written beside it.
        about: noted in the JSON file.
    """
    configs = {"config": model.roi_heads.config, "network": network, "transform": model.transform}
    save_detector(path, "fast_rcnn", model, configs, about)


def load_fast_rcnn(path: str | Path = FAST_RCNN_WEIGHTS) -> FastRCNN:
    """A detector that :func:`save_fast_rcnn` wrote, by default the one that comes with the project.

    Errors are those of :func:`minircnn.weights.load_detector`.
    """
    return load_detector(path, "fast_rcnn", "a Fast R-CNN", _build)


def _build(about: Mapping[str, Any]) -> FastRCNN:
    config, transform = config_of(RoIConfig, about["config"]), config_of(Transform, about["transform"])
    return fast_rcnn_alexnet(build_alexnet(about["network"], 1), about["classes"], config, transform)
