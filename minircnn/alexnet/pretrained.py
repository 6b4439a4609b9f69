"""Where a trained AlexNet comes from: our own file, torchvision's, or the convolutions of 2012."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minircnn.alexnet.network import ALEXNET_2012, TORCHVISION, AlexNet, AlexNetConfig
from minircnn.shipped import SMALL_WEIGHTS
from minircnn.weights import (
    WeightsError,
    built_as_described,
    config_of,
    download,
    halve,
    load_into,
    load_weights,
    read_tensors,
    save_weights,
)

IMAGENET_URL = "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth"
_IMAGENET_SHA256 = "7be5be79"  # the prefix that its name states

_TORCHVISION_NAMES = {
    "features.0": "backbone.conv1",
    "features.3": "backbone.conv2",
    "features.6": "backbone.conv3",
    "features.8": "backbone.conv4",
    "features.10": "backbone.conv5",
    "classifier.1": "classifier.fc6",
    "classifier.4": "classifier.fc7",
    "classifier.6": "fc8",
}
_NAMES_2012 = {f"conv{i}": f"backbone.conv{i}" for i in range(1, 6)}


def rename_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our names for the tensors of torchvision's AlexNet and of the 2012 network; others keep theirs.

    >>> import torch
    >>> list(rename_keys({"features.3.bias": torch.zeros(192), "conv5.weight": torch.zeros(1)}))
    ['backbone.conv2.bias', 'backbone.conv5.weight']
    """
    names = _TORCHVISION_NAMES | _NAMES_2012
    renamed = {}
    for key, value in state.items():
        layer, _, kind = key.rpartition(".")
        renamed[f"{names.get(layer, layer)}.{kind}" if layer else key] = value
    return renamed


def load_pretrained(path: str | Path) -> tuple[AlexNet, str]:
    """A trained AlexNet of whichever kind a file holds: ours, torchvision's, or the convolutions of 2012.

    Args:
        path: what :func:`save_alexnet` wrote, with its JSON file; or a state dict of torchvision's AlexNet; or a file
            for :func:`load_alexnet_2012`. What it holds decides, not what it is called.

    Returns:
        A network in evaluation mode, and the last of ``LAYERS`` that was trained: "fc7", or "pool5" where the file has
        the convolutions alone. Layers behind it are fresh.

    Raises:
        FileNotFoundError: no such file, or none of the JSON that belongs to it.
        WeightsError: it is damaged, or of another network.
    """
    tensors = read_tensors(path)
    if "backbone.conv1.weight" in tensors:
        return load_alexnet(path), "fc7"
    if "features.0.weight" in tensors:
        return load_imagenet_weights(path), "fc7"
    if "conv1.weight" in tensors:
        return load_alexnet_2012(path), "pool5"
    some = ", ".join(sorted(tensors)[:3]) or "nothing"
    raise WeightsError(
        f"{path}: no AlexNet, it holds {some} …; give a file of `python -m workshop.pretraining` (.safetensors), "
        "torchvision's weights (.pth, with features.0.weight), or the convolutions of 2012 (.npz, with conv1.weight)"
    )


def load_imagenet_weights(weights: str | Path | None = None) -> AlexNet:
    """Torchvision's AlexNet with the weights that it learned on ImageNet.

    Args:
        weights: the file if you have it (``.pth``). None: it is downloaded (233 MB, once) and its checksum compared.

    Returns:
        A network of 1000 classes in evaluation mode.

    Raises:
        WeightsError: the file could not be fetched (the message says what to do offline), or is damaged.
    """
    path = Path(weights) if weights is not None else download(IMAGENET_URL, _IMAGENET_SHA256, size="233 MB")
    network = AlexNet(TORCHVISION, num_classes=1000)
    load_into(network, rename_keys(read_tensors(path)), path)
    return network.eval()


def load_alexnet_2012(weights: str | Path, num_classes: int = 1000) -> AlexNet:
    """The network of 2012 with trained convolutions; its fully connected layers are fresh.

    Args:
        weights: a file with ``conv1.weight`` … ``conv5.bias``, for pictures with blue first and values from 0 to 255,
            as Caffe has them. An entry ``mean`` takes the place of the usual mean.
        num_classes: outputs of fc8.

    Returns:
        A network in evaluation mode.

    Raises:
        FileNotFoundError: no such file.
        WeightsError: it is damaged, or of another network.
    """
    tensors = read_tensors(weights)
    config = ALEXNET_2012
    mean = tensors.pop("mean", None)
    if mean is not None:
        if mean.shape != (3,):
            raise WeightsError(f"{weights}: mean has shape {tuple(mean.shape)}; give one number for each colour, (3,)")
        config = AlexNetConfig(mean=tuple(mean.div(255).tolist()))
    network = AlexNet(config, num_classes)
    load_into(network, rename_keys(tensors), weights, only="backbone.")
    return network.eval()


def save_alexnet(network: AlexNet, path: Path, about: Mapping[str, Any]) -> None:
    """Writes a network, in half precision, and what it is, for :func:`load_alexnet`."""
    record = {"network": asdict(network.config), "num_classes": network.fc8.out_features, **about}
    save_weights(path, halve(network.state_dict()), record)


def load_alexnet(path: str | Path = SMALL_WEIGHTS) -> AlexNet:
    """A network that :func:`save_alexnet` wrote; by default the small one that comes with the project.

    Returns:
        A network in evaluation mode.

    Raises:
        FileNotFoundError: a file is missing.
        WeightsError: a file is damaged, or of something else.
    """
    tensors, about = load_weights(path)
    return built_as_described(
        path, tensors, "an AlexNet", lambda: build_alexnet(about["network"], about["num_classes"])
    )


def build_alexnet(config: Mapping[str, Any], num_classes: int) -> AlexNet:
    """A network from its configuration as JSON holds it, where tuples are lists.

    On the meta device, where nothing is computed, an image passes through it: errors are those of layers that do not
    fit together, too.
    """
    network = AlexNet(config_of(AlexNetConfig, config), num_classes)
    if network.fc8.weight.is_meta:
        side = network.config.input_size
        network.eval()(torch.empty(1, 3, side, side, device="meta"))
    return network
