"""Weights of networks on disk: a safetensors file, and beside it a JSON file that says what they are.

safetensors holds numbers and nothing else: reading it never runs code, as unpickling would. The JSON holds the settings
that the weights were trained with, what they reached, and a checksum. :mod:`~minircnn.weights.tensors` reads and writes
such files, :mod:`~minircnn.weights.configs` makes settings of JSON, :mod:`~minircnn.weights.detectors` keeps whole
detectors, and :mod:`~minircnn.weights.downloads` fetches weights that others have published.
"""

from minircnn.shipped import WEIGHTS_FOLDER
from minircnn.weights.configs import config_of
from minircnn.weights.detectors import built_as_described, load_detector, save_detector
from minircnn.weights.downloads import cache_folder, download
from minircnn.weights.tensors import (
    WeightsError,
    check_fit,
    halve,
    load_into,
    load_weights,
    read_tensors,
    read_torch,
    save_weights,
)

__all__ = [
    "WEIGHTS_FOLDER",
    "WeightsError",
    "built_as_described",
    "cache_folder",
    "check_fit",
    "config_of",
    "download",
    "halve",
    "load_detector",
    "load_into",
    "load_weights",
    "read_tensors",
    "read_torch",
    "save_detector",
    "save_weights",
]
