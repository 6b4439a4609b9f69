"""Data sets: each yields the same ``(image, target)`` pairs."""

from typing import TYPE_CHECKING, Any

from minircnn.datasets.coco import CocoDataset, collate
from minircnn.datasets.coco_format import DatasetError
from minircnn.datasets.images import read_image
from minircnn.datasets.named import DATA_NAMES, open_data
from minircnn.datasets.nuclei import NucleiDataset
from minircnn.datasets.penn_fudan import PennFudanDataset
from minircnn.datasets.splits import OnlyClasses, Part
from minircnn.datasets.voc import VocDataset

if TYPE_CHECKING:
    from minircnn.datasets.toytown import ToyTown

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


def __getattr__(name: str) -> Any:  # noqa: ANN401 - the signature that Python gives it
    """Import Toy Town's painter only when it is asked for: real photographs do not need it."""
    if name == "ToyTown":
        from minircnn.datasets.toytown import ToyTown

        return ToyTown
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
