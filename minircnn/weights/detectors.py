"""Whole detectors: their weights, and all that it takes to build them again."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minircnn.weights.tensors import WeightsError, check_fit, halve, load_into, load_weights, save_weights


def save_detector(
    path: Path, kind: str, model: torch.nn.Module, configs: Mapping[str, Any], about: Mapping[str, Any]
) -> None:
    """Writes a detector, in half precision, for :func:`load_detector`.

    Args:
        path: the ``.safetensors`` file; the ``.json`` is written beside it.
        kind: what the JSON is to call it.
        model: the detector, with its ``classes``.
        configs: dataclasses by name: all that it takes to build the detector again.
        about: noted in the JSON file, too.
    """
    record = {"detector": kind, "classes": list(model.classes)}
    record |= {name: asdict(config) for name, config in configs.items()}
    save_weights(path, halve(model.state_dict()), {**record, **about})


def load_detector(
    path: str | Path, kind: str, title: str, build: Callable[[dict[str, Any]], torch.nn.Module]
) -> torch.nn.Module:
    """A detector from a file of weights, built as the JSON file beside it says.

    Args:
        path: the ``.safetensors`` file.
        kind: what the JSON must call it.
        title: what people call it.
        build: makes it, with any weights, out of the content of the JSON.

    Returns:
        The detector, in evaluation mode.

    Raises:
        FileNotFoundError: one of the two files is missing.
        WeightsError: a file is damaged, or describes something else.
    """
    tensors, about = load_weights(path)
    if about.get("detector") != kind:
        holds = about.get("detector", about.get("what", "something else"))
        raise WeightsError(f"{path}: holds {holds}, not {title}")

    def described() -> torch.nn.Module:
        names = about["classes"]
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise TypeError(f"classes must be a list of names, but is {names!r:.80}")
        return build(about)

    return built_as_described(path, tensors, title, described)


def built_as_described(
    path: str | Path, tensors: Mapping[str, Tensor], title: str, build: Callable[[], torch.nn.Module]
) -> torch.nn.Module:
    """A model with these weights.

    Args:
        path: the file, for messages.
        tensors: its content.
        title: what people call such a model.
        build: makes it, with any weights, as the JSON beside the file says.

    Returns:
        The model, in evaluation mode.

    Raises:
        WeightsError: the JSON describes none, or one for other weights.
    """
    try:
        with torch.device("meta"), warnings.catch_warnings():  # tensors that have shapes and take no memory
            warnings.filterwarnings("ignore", "Initializing zero-element tensors")
            shapes = build().state_dict()
        check_fit(shapes, tensors, path)  # a JSON may describe a network that no memory holds
        model = build()
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, WeightsError):
            raise
        raise WeightsError(f"{path}: its JSON does not describe {title} ({error!r:.200})") from error
    load_into(model, tensors, path)
    return model.eval()
