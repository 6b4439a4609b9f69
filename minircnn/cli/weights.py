"""``--weights`` and ``--classes`` of the commands that look at images: which detector is meant."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from minircnn.cli.errors import RefusedError
from minircnn.cli.options import find_weights
from minircnn.cli.outputs import with_json
from minircnn.shipped import DETECTOR_WEIGHTS

PUBLISHED = Path("coco")

Weights = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="The detector; by default the one in data/weights."),
]
WeightsOrCoco = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE|coco",
        help="The detector; by default the one in data/weights. coco: the published one, which knows 80 classes on "
        "photographs and is fetched once. Also a .pth file of torchvision's model with resnet50_fpn.",
    ),
]


def detector_files(detector: str, weights: Path | None) -> list[Path]:
    """What a detector will be read from, if it is there; nothing of the published ones.

    Args:
        detector: the name of its command.
        weights: what the user named; None for what comes with the project.

    Raises:
        FileNotFoundError: it is not there.
    """
    if weights == PUBLISHED:
        return []
    return with_json(find_weights("--weights", weights, DETECTOR_WEIGHTS[detector], f"`minircnn train {detector}`"))


def read_detector(
    detector: str,
    weights: Path | None,
    classes: Sequence[str] | None,
    load: Callable[[Path], Any],
    published: Callable[..., Any] | None = None,
) -> tuple[Path, Any]:
    """The detector that is meant, all of it from the file: nothing is drawn at random.

    Args:
        detector: its name.
        weights: what the user named.
        classes: the names that the user gave for a file that has none.
        load: reads a file of ours.
        published: gives the published detector, by its name or from torchvision's file, if there is one.

    Returns:
        The file, and the detector.
    """
    if not (published and weights == PUBLISHED):
        weights = find_weights("--weights", weights, DETECTOR_WEIGHTS[detector], f"`minircnn train {detector}`")
    if published and (weights == PUBLISHED or weights.suffix in (".pth", ".pt")):
        return weights, published(classes, str(weights), new_layers=False)
    model = load(weights)
    if classes:
        raise RefusedError(f"--classes: {weights} names its classes: {', '.join(model.classes)}; leave the option out")
    return weights, model
