"""Data sets: each yields the same ``(image, target)`` pairs."""

from importlib import import_module
from typing import Any

from minircnn.datasets.named import DATA_NAMES, DatasetError, open_data

_PLACES = {"CocoDataset": "coco", "NucleiDataset": "folders", "PennFudanDataset": "folders", "ToyTown": "toytown"}
_PLACES |= {"VocDataset": "voc", "collate": "images", "read_image": "images"}
__all__ = ["DATA_NAMES", "DatasetError", "open_data", *_PLACES]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - the signature that Python gives it
    """Import a data set only when it is asked for: PyTorch takes seconds."""
    if name in _PLACES:
        return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
