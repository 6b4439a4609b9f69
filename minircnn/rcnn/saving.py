"""R-CNN's three models in one file of numbers, with a JSON file that says how they fit together."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from minircnn.alexnet import build_alexnet
from minircnn.rcnn.detector import RCNN, RCNNConfig
from minircnn.shipped import RCNN_WEIGHTS
from minircnn.weights import config_of, halve, load_detector, save_weights


def save_rcnn(model: RCNN, path: Path, about: Mapping[str, Any]) -> None:
    """Writes a detector for :func:`load_rcnn`; the network's weights in half precision, the others in single."""
    state = model.state_dict()
    network = {name: value for name, value in state.items() if name.startswith("network.")}
    record = {
        "detector": "rcnn",
        "classes": list(model.classes),
        "config": asdict(model.config),
        "network": asdict(model.network.config),
        "num_outputs": model.network.fc8.out_features,
    }
    save_weights(path, state | halve(network), {**record, **about})


def load_rcnn(path: str | Path = RCNN_WEIGHTS) -> RCNN:
    """A detector that :func:`save_rcnn` wrote, by default the one that comes with the project.

    Errors are those of :func:`minircnn.weights.load_detector`.
    """
    return load_detector(path, "rcnn", "an R-CNN", _build)


def _build(about: Mapping[str, Any]) -> RCNN:
    network = build_alexnet(about["network"], about["num_outputs"])
    return RCNN(network, about["classes"], config_of(RCNNConfig, about["config"]))
