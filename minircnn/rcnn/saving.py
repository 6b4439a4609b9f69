"""R-CNN's three models in one file of numbers, with a JSON file that says how they fit together."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from minircnn.alexnet import build_alexnet
from minircnn.rcnn.detector import RCNN, RCNNConfig
from minircnn.weights import WEIGHTS_FOLDER, WeightsError, halve, load_into, load_weights, save_weights

RCNN_WEIGHTS = WEIGHTS_FOLDER / "rcnn.safetensors"
"""The detector that comes with the project, trained on Toy Town by ``minircnn train rcnn``."""


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
    """A detector that :func:`save_rcnn` wrote; by default the one that comes with the project.

    Returns:
        A detector in evaluation mode.

    Raises:
        FileNotFoundError: one of the two files is missing.
        WeightsError: a file is damaged, or describes something else.
    """
    tensors, about = load_weights(path)
    if about.get("detector") != "rcnn":
        raise WeightsError(f"{path}: holds {about.get('detector', about.get('what', 'something else'))}, not an R-CNN")
    try:
        network = build_alexnet(about["network"], about["num_outputs"])
        model = RCNN(network, about["classes"], RCNNConfig(**about["config"]))
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{path}: its JSON does not describe an R-CNN ({error})") from error
    load_into(model, tensors, path)
    return model.eval()
