"""Data sets: each yields the same ``(image, target)`` pairs."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from minircnn.datasets.coco_format import DatasetError
from minircnn.datasets.named import DATA_NAMES, open_data

if TYPE_CHECKING:
    from minircnn.datasets.coco import CocoDataset, collate
    from minircnn.datasets.images import read_image
    from minircnn.datasets.nuclei import NucleiDataset
    from minircnn.datasets.penn_fudan import PennFudanDataset
    from minircnn.datasets.splits import OnlyClasses, Part
    from minircnn.datasets.toytown import ToyTown
    from minircnn.datasets.voc import VocDataset

__all__ = [
    "DATA_NAMES",
    "CocoDataset",
    "DatasetError",
    "NucleiDataset",
    "OnlyClasses",
    "Part",
    "PennFudanDataset",
    "ToyTown",
    "VocDataset",
    "collate",
    "open_data",
    "read_image",
]


_PLACES = {
    **dict.fromkeys(("CocoDataset", "collate"), "coco"),
    **dict.fromkeys(("OnlyClasses", "Part"), "splits"),
    "read_image": "images",
    "NucleiDataset": "nuclei",
    "PennFudanDataset": "penn_fudan",
    "ToyTown": "toytown",
    "VocDataset": "voc",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - the signature that Python gives it
    """Import a data set only when it is asked for: PyTorch takes seconds."""
    if name in _PLACES:
        return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
