"""Mask R-CNN learns photographs from little: coins from half a photograph, nuclei from 48 images of microscopes.

    python -m workshop.ablations fine_tuning --root …/stage1_train      # BBBC038

Both start from an AlexNet that has named images of one object, from one that has learned all of Toy Town, or from
random weights. The coins are those of :mod:`minircnn.course.coins`: it learns from the upper half of the photograph,
and the lower half measures. The nuclei are a part of BBBC038: every fifth image measures, the others teach.

All settings were chosen on training images alone: on one row of coins after learning from the other, and on every fifth
of the training images of nuclei after learning from the rest. Sizes of anchors follow from the training objects. In all
trainings conv1 stays as it is, also where it is random.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from minircnn.alexnet import SMALL_WEIGHTS, AlexNet, load_alexnet
from minircnn.course.coins import RandomSquares, coins_of
from minircnn.course.fine_tuning import FIGURES, measure
from minircnn.course.probes import initialize_as_he
from minircnn.datasets import open_data
from minircnn.faster_rcnn import RPNConfig
from minircnn.mask_rcnn import TOY_TOWN_MASK_RPN, MaskRCNN, load_mask_rcnn
from minircnn.targets import Sample
from minircnn.training import MaskRCNNTrainingSettings, train_mask_rcnn

FineTuned = tuple[MaskRCNN, list[dict[str, float]], dict[str, Any]]
"""A detector, the losses of each iteration, and the row of a table about it."""


@dataclass(frozen=True)
class Task:
    """What to fine-tune on, and how."""

    side: int  # of the squares that are cut out of the training images, in their own pixels
    squares: int  # how many different ones there are
    enlarged: float  # how many times larger than it is the backbone sees an image
    anchor_sizes: int  # how many sizes of anchors; see `anchor_sizes`
    rpn: RPNConfig  # the RPN's configuration, sizes of anchors aside
    training: MaskRCNNTrainingSettings  # the settings, `min_size` aside, which follows from `side` and `enlarged`


TRAINING = MaskRCNNTrainingSettings(learning_rate=3e-3, color_jitter=0.3, scale_jitter=0.25)
COINS = Task(
    side=150,  # the height of the upper half
    squares=400,
    enlarged=1.25,
    anchor_sizes=3,
    rpn=replace(TOY_TOWN_MASK_RPN, aspect_ratios=(1.0,), post_nms_top_n=(150, 300)),  # coins are round
    training=replace(TRAINING, iterations=200, backbone_lr_mult=0.1),
)
# Nuclei are small, a tenth of them less than 8 pixels, which is one cell of the feature map; and there are many in a
# whole image: on validation images 300 proposals cover 77% of them, 1000 cover 88%.
NUCLEI = Task(
    side=128,
    squares=2000,
    enlarged=3.0,
    anchor_sizes=4,
    rpn=replace(TOY_TOWN_MASK_RPN, pre_nms_top_n=(1000, 4000), post_nms_top_n=(200, 1000)),
    training=replace(TRAINING, iterations=800, backbone_lr_mult=0.5),
)


def coins(start: str = "pretrained", task: Task = COINS, *, quiet: bool | None = None) -> FineTuned:
    """Learn coins from the upper half of one photograph, and measure on the lower half."""
    return fine_tune(start, [coins_of("train")], [coins_of("test")], ("background", "coin"), task, quiet=quiet)


def nuclei(root: str | Path, start: str = "pretrained", task: Task = NUCLEI, *, quiet: bool | None = None) -> FineTuned:
    """Learn nuclei from four of five images in the folder stage1_train of BBBC038, and measure on every fifth."""
    train, test = (open_data("nuclei", root, split=split) for split in ("train", "test"))
    # Read once: an image comes again and again, and has up to a hundred files of masks.
    return fine_tune(start, *([*part] for part in (train, test)), train.classes, task, quiet=quiet)


def fine_tune(
    start: str,
    train: Sequence[Sample],
    test: Sequence[Sample],
    classes: Sequence[str],
    task: Task,
    *,
    quiet: bool | None = None,
) -> FineTuned:
    """From one of :data:`STARTS`, train on random squares of some images and measure on whole other ones.

    The detector is in evaluation mode, and enlarges test images as much as it did those that it learned from. The row
    also says what it began with, for how many iterations it learned, what its convolutions learned with, as a share of
    the learning rate, and how many seconds of a processor that took.
    """
    squares = RandomSquares(train, task.side, task.squares, seed=task.training.seed)
    sizes = anchor_sizes([target["boxes"] for _, target in train], task.anchor_sizes, task.enlarged)
    settings, rpn = replace(task.training, min_size=round(task.side * task.enlarged)), task.rpn
    before = process_time()
    model, history = train_mask_rcnn(
        STARTS[start](), squares, classes, settings, rpn=replace(rpn, anchor_sizes=(sizes,)), quiet=quiet
    )
    seconds = process_time() - before
    shorter = min(min(image.shape[1:]) for image, _ in test)
    model.transform = replace(model.transform, min_size=round(shorter * task.enlarged))
    row = {"start": start, "iterations": settings.iterations, "backbone_lr_mult": settings.backbone_lr_mult}
    row |= dict(zip(FIGURES, measure(model, test), strict=True)) | {"seconds": round(seconds, 1)}
    return model, history, row


def with_random_weights(network: AlexNet) -> AlexNet:
    """A network of the same form that has learned nothing, always the same."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return initialize_as_he(copy.deepcopy(network))


def toy_town_network() -> AlexNet:
    """Our small AlexNet with the convolutions, fc6 and fc7 of the Mask R-CNN that has learned from all of Toy Town."""
    network, model = load_alexnet(SMALL_WEIGHTS), load_mask_rcnn()
    network.backbone.load_state_dict(model.backbone.state_dict())
    network.classifier.load_state_dict(model.roi_heads.box_head.state_dict())
    return network


STARTS: Mapping[str, Callable[[], AlexNet]] = {
    "pretrained": lambda: load_alexnet(SMALL_WEIGHTS),
    "toy town": toy_town_network,
    "random": lambda: with_random_weights(load_alexnet(SMALL_WEIGHTS)),
}
"""What the backbone, fc6 and fc7 begin with."""


def anchor_sizes(boxes: Sequence[Tensor], count: int, enlarged: float = 1.0) -> tuple[float, ...]:
    """A geometric series of so many sizes, from the small to the large objects ``(G, 4)`` of the training images.

    They are square roots of areas in whole pixels as the backbone sees them, which sees objects that many times larger.
    One object of twenty is smaller than the first, one larger than the last.

    >>> anchor_sizes([torch.tensor([[0.0, 0.0, 10.0, 10.0], [5.0, 5.0, 25.0, 85.0]])], 3, enlarged=2.0)
    (21.0, 40.0, 75.0)
    """
    sides = torch.cat(list(boxes)).double()
    sides = (sides[:, 2:] - sides[:, :2]).prod(dim=1).sqrt()  # (G,)
    small, large = np.quantile(sides[sides > 0].log().numpy(), (0.05, 0.95))
    return tuple(float(round(enlarged * float(size))) for size in np.exp(np.linspace(small, large, count)))
