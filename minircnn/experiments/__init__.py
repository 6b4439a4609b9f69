"""Comparisons that take longer than a notebook may. Each writes its figures into data/results, which notebooks read."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from minircnn.datasets import ToyTown
from minircnn.evaluation import Result, evaluate
from minircnn.files import write_json
from minircnn.mask_rcnn import MaskRCNN, binary_masks
from minircnn.shipped import RESULTS_FOLDER  # noqa: F401 - also for the experiments below
from minircnn.targets import Sample


def first_samples(split: str, count: int, masks: bool = False) -> list[Sample]:
    """The first so many ``(image, target)`` pairs of a split of Toy Town, or all, if there are fewer."""
    data = ToyTown(split, masks=masks)
    return [data[index] for index in range(min(count, len(data)))]


def judged(
    model: MaskRCNN, test: Sequence[Sample]
) -> tuple[list[dict[str, Tensor]], list[dict[str, Any]], list[Result]]:
    """What a detector finds in pictures, with decided masks; their targets; and the results of boxes and of masks."""
    found = [binary_masks(model.detect([image])[0]) for image, _ in test]
    targets = [target for _, target in test]
    return found, targets, [evaluate(found, targets, classes=model.classes, kind=kind) for kind in ("boxes", "masks")]


def write_results(path: Path, module: str, record: Mapping[str, Any]) -> None:
    """Writes the figures of an experiment, with the command that makes them, and says so.

    Args:
        path: the JSON file.
        module: the experiment's name in this package.
        record: settings and figures.
    """
    write_json(path, {"command": f"python -m minircnn.experiments.{module}", **record})
    print(f"written to {path}")


def in_percent(**figures: float) -> str:
    """Figures from 0 to 1 by name.

    >>> in_percent(AP=0.5, AP50=0.75)
    'AP 50.0  AP50 75.0'
    """
    return "  ".join(f"{name} {100 * value:.1f}" for name, value in figures.items())
