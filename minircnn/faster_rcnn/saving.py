"""Faster R-CNN in one file of numbers, with a JSON file that says how they fit together."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from minircnn.alexnet import AlexNetConfig, build_alexnet
from minircnn.fast_rcnn import RoIConfig
from minircnn.faster_rcnn.detector import FasterRCNN, faster_rcnn_alexnet
from minircnn.faster_rcnn.rpn import RPNConfig
from minircnn.transforms import Transform
from minircnn.weights import WEIGHTS_FOLDER, halve, load_detector, save_weights, with_tuples

FASTER_RCNN_WEIGHTS = WEIGHTS_FOLDER / "faster_rcnn.safetensors"
"""The detector that comes with the project, trained on Toy Town by ``minircnn train faster_rcnn``."""


def save_faster_rcnn(model: FasterRCNN, network: AlexNetConfig, path: Path, about: Mapping[str, Any]) -> None:
    """Writes a detector that :func:`faster_rcnn_alexnet` made, in half precision, for :func:`load_faster_rcnn`.

    Args:
        model: the detector.
        network: the configuration of the AlexNet that it was made of.
        path: the ``.safetensors`` file; the ``.json`` is written beside it.
        about: noted in the JSON file.
    """
    record = {
        "detector": "faster_rcnn",
        "classes": list(model.classes),
        "rpn": asdict(model.rpn.config),
        "heads": asdict(model.roi_heads.config),
        "network": asdict(network),
        "transform": asdict(model.transform),
    }
    save_weights(path, halve(model.state_dict()), {**record, **about})


def load_faster_rcnn(path: str | Path = FASTER_RCNN_WEIGHTS) -> FasterRCNN:
    """A detector that :func:`save_faster_rcnn` wrote; by default the one that comes with the project.

    Returns:
        A detector in evaluation mode.

    Raises:
        FileNotFoundError: one of the two files is missing.
        WeightsError: a file is damaged, or describes something else.
    """
    return load_detector(path, "faster_rcnn", "a Faster R-CNN", _build)


def _build(about: Mapping[str, Any]) -> FasterRCNN:
    rpn, heads, transform = (with_tuples(about[name]) for name in ("rpn", "heads", "transform"))
    network = build_alexnet(about["network"], 1)
    return faster_rcnn_alexnet(network, about["classes"], RPNConfig(**rpn), RoIConfig(**heads), Transform(**transform))
