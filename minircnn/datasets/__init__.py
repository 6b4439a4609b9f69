"""Data sets: each yields the same ``(image, target)`` pairs."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from minircnn.datasets.named import DATA_NAMES, DatasetError, open_data

if TYPE_CHECKING:
    from minircnn.datasets.coco import CocoDataset
    from minircnn.datasets.folders import NucleiDataset, PennFudanDataset
    from minircnn.datasets.images import collate, read_image
    from minircnn.datasets.toytown import ToyTown
    from minircnn.datasets.voc import VocDataset

__all__ = [
    "DATA_NAMES",
    "CocoDataset",
    "DatasetError",
    "NucleiDataset",
    "PennFudanDataset",
    "ToyTown",
    "VocDataset",
    "collate",
    "open_data",
    "read_image",
]
_PLACES = {"CocoDataset": "coco", "NucleiDataset": "folders", "PennFudanDataset": "folders", "ToyTown": "toytown"}
_PLACES |= {"VocDataset": "voc", "collate": "images", "read_image": "images"}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - the signature that Python gives it
    """Import a data set only when it is asked for: PyTorch takes seconds."""
    if name in _PLACES:
        return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
