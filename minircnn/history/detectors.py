"""The four detectors in the order of history: where their weights lie, and how they are read."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from minircnn.fast_rcnn import FAST_RCNN_WEIGHTS, load_fast_rcnn
from minircnn.faster_rcnn import FASTER_RCNN_WEIGHTS, load_faster_rcnn
from minircnn.mask_rcnn import MASK_RCNN_WEIGHTS, load_mask_rcnn
from minircnn.rcnn import RCNN, RCNN_WEIGHTS, load_rcnn


@dataclass(frozen=True)
class Generation:
    """A detector's place in the history.

    Attributes:
        key: what the command line and files call it.
        name: what people call it.
        year: of its first publication.
        trainings: one after the other, each of which needs what the one before it has made. R-CNN: the network, the
            SVMs, the box regressions. The pre-training of the convolutions, which all four share, does not count.
        weights: the file that comes with the project.
        load: reads such a file.
        searches: whether it is given proposals of selective search; those after it make their own.
        surest: the score from which a detection is worth being shown: where an SVM says yes, or a probability of 1/2.
    """

    key: str
    name: str
    year: int
    trainings: int
    weights: Path
    load: Callable[[Path], nn.Module]
    searches: bool = False
    surest: float = 0.5


GENERATIONS = (
    Generation("rcnn", "R-CNN", 2014, 3, RCNN_WEIGHTS, load_rcnn, True, 0.0),
    Generation("fast_rcnn", "Fast R-CNN", 2015, 1, FAST_RCNN_WEIGHTS, load_fast_rcnn, True),
    Generation("faster_rcnn", "Faster R-CNN", 2016, 1, FASTER_RCNN_WEIGHTS, load_faster_rcnn),
    Generation("mask_rcnn", "Mask R-CNN", 2017, 1, MASK_RCNN_WEIGHTS, load_mask_rcnn),
)


def load_all(generations: Iterable[Generation] | None = None) -> dict[str, nn.Module]:
    """The detectors by key, in evaluation mode.

    Args:
        generations: which; by default all four.

    Raises:
        FileNotFoundError: a file of weights is missing; the message says where it comes from.
        minircnn.weights.WeightsError: a file is damaged, or holds something else.
    """
    models = {}
    for one in GENERATIONS if generations is None else generations:
        if not one.weights.is_file():
            raise FileNotFoundError(
                f"{one.weights}: not there; it comes with a clone of the project, and `minircnn train {one.key}` makes "
                "it anew"
            )
        models[one.key] = one.load(one.weights)
    return models


def keep_from(model: nn.Module, score: float) -> None:
    """Has a detector keep detections of this score and more, and no others."""
    part = model if isinstance(model, RCNN) else model.roi_heads
    part.config = replace(part.config, score_threshold=score)


def count_parameters(model: nn.Module) -> int:
    """How many numbers a detector has learned, pre-training included.

    R-CNN's support vector machines and box regressions are no parameters to PyTorch, but learned they are; so is its
    network's last layer, which only fine-tuning needs.
    """
    learned = sum(parameter.numel() for parameter in model.parameters())
    return learned + model.svm.numel() + model.box.numel() if isinstance(model, RCNN) else learned
