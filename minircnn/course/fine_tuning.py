"""Mask R-CNN learns photographs from little: coins from half a photograph, nuclei from 48 images of microscopes.

    python -m workshop.ablations fine_tuning --root …/stage1_train      # BBBC038

Both start from an AlexNet that has named images of one object, from one that has learned all of Toy Town, or from
random weights. The coins are those of :mod:`minircnn.course.coins`: it learns from the upper half of the photograph,
and the lower half measures. The nuclei are a part of BBBC038: every fifth image measures, the others teach.

All settings were chosen on training images alone: on one row of coins after learning from the other, and on every fifth
of the training images of nuclei after learning from the rest. Sizes of anchors follow from the training objects. In all
trainings conv1 stays as it is, also where it is random.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import process_time

import numpy as np
import torch
from torch import Tensor, nn

from minircnn.alexnet import SMALL_WEIGHTS, AlexNet, load_alexnet
from minircnn.course.ablations import judged
from minircnn.course.coins import Coins, RandomSquares
from minircnn.datasets import open_data
from minircnn.evaluation import evaluate
from minircnn.faster_rcnn import RPNConfig
from minircnn.mask_rcnn import TOY_TOWN_MASK_RPN, MaskRCNN, load_mask_rcnn
from minircnn.targets import Sample
from minircnn.training import MaskRCNNTrainingSettings, train_mask_rcnn

SURE = 0.5  # a detection that is more probable than this counts as found


@dataclass(frozen=True)
class Task:
    """What to fine-tune on, and how."""

    side: int  # of the squares that are cut out of the training images, in their own pixels
    squares: int  # how many different ones there are
    enlarged: float  # how many times larger than it is the backbone sees an image
    anchor_sizes: int  # how many sizes of anchors; see `anchor_sizes`
    rpn: RPNConfig  # the RPN's configuration, sizes of anchors aside
    training: MaskRCNNTrainingSettings  # the settings, `min_size` aside, which follows from `side` and `enlarged`


@dataclass(frozen=True)
class Row:
    """How good one detector is on the test images; averages in [0, 1]."""

    start: str  # what it began with, see `STARTS`
    iterations: int  # that it learned for
    backbone_lr_mult: float  # what its convolutions learned with, as a share of the learning rate
    box_ap: float  # over IoU 0.50 to 0.95, of boxes; `box_ap50` and `box_ap75` at one IoU; `mask_…` of masks
    box_ap50: float
    box_ap75: float
    mask_ap: float
    mask_ap50: float
    mask_ap75: float
    objects: int  # in the test images
    found: int  # how many of them a detection of a score above 0.5 covers, by masks at IoU 0.5
    wrong: int  # detections of such a score that cover none, or one that another covers better
    seconds: float  # of a processor, that the training took


@dataclass(frozen=True)
class FineTuned:
    """A detector after fine-tuning."""

    model: MaskRCNN  # in evaluation mode; it enlarges test images as much as it did those that it learned from
    history: list[dict[str, float]]  # the losses of each iteration
    row: Row  # how good it is on the test images


COINS = Task(
    side=150,  # the height of the upper half
    squares=400,
    enlarged=1.25,
    anchor_sizes=3,
    rpn=replace(TOY_TOWN_MASK_RPN, aspect_ratios=(1.0,), post_nms_top_n=(150, 300)),  # coins are round
    training=MaskRCNNTrainingSettings(
        iterations=200, learning_rate=3e-3, backbone_lr_mult=0.1, color_jitter=0.3, scale_jitter=0.25
    ),
)
# Nuclei are small, a tenth of them less than 8 pixels, which is one cell of the feature map; and there are many in a
# whole image: on validation images 300 proposals cover 77% of them, 1000 cover 88%.
NUCLEI = Task(
    side=128,
    squares=2000,
    enlarged=3.0,
    anchor_sizes=4,
    rpn=replace(TOY_TOWN_MASK_RPN, pre_nms_top_n=(1000, 4000), post_nms_top_n=(200, 1000)),
    training=MaskRCNNTrainingSettings(
        iterations=800, learning_rate=3e-3, backbone_lr_mult=0.5, color_jitter=0.3, scale_jitter=0.25
    ),
)


def coins(start: str = "pretrained", task: Task = COINS, *, quiet: bool | None = None) -> FineTuned:
    """Learn coins from the upper half of one photograph, and measure on the lower half."""
    return fine_tune(start, [Coins("train")[0]], [Coins("test")[0]], Coins().classes, task, quiet=quiet)


def nuclei(root: str | Path, start: str = "pretrained", task: Task = NUCLEI, *, quiet: bool | None = None) -> FineTuned:
    """Learn nuclei from four of five images, and measure on every fifth.

    Args:
        root: the folder stage1_train of BBBC038, or a part of it.
        start: one of :data:`STARTS`.
        task: the numbers.
        quiet: no progress bar.
    """
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
    """Train on random squares of some images and measure on whole other ones.

    Args:
        start: one of :data:`STARTS`.
        train: to learn from, with masks.
        test: to measure with, with masks.
        classes: names; ``classes[0]`` is the background.
        task: the numbers.
        quiet: no progress bar.

    Raises:
        ValueError: there is no such start, or not even one image or object in ``train``.
    """
    if start not in STARTS:
        raise ValueError(f"start must be one of {', '.join(STARTS)}, but is {start!r}")
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
    row = Row(start, settings.iterations, settings.backbone_lr_mult, *measure(model, test), round(seconds, 1))
    return FineTuned(model, history, row)


def with_random_weights(network: AlexNet) -> AlexNet:
    """A network of the same form that has learned nothing: activations of late layers are as large as of early ones."""
    fresh = AlexNet(network.config, network.fc8.out_features).eval()
    generator = torch.Generator().manual_seed(0)
    for module in fresh.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            spread = (2 / module.weight[0].numel()) ** 0.5  # He et al. 2015
            module.weight.data = torch.randn(module.weight.shape, generator=generator) * spread
            nn.init.zeros_(module.bias)
    return fresh


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
    """Sizes of anchors for the objects of the training images: a geometric series from the small to the large.

    Args:
        boxes: ``(G, 4)`` of each training image; at least one in all.
        count: how many sizes.
        enlarged: how many times larger than in ``boxes`` the backbone sees objects.

    Returns:
        Square roots of areas in whole pixels as the backbone sees them. One object of twenty is smaller than the first,
        one larger than the last.

    Raises:
        ValueError: there is no object.

    >>> anchor_sizes([torch.tensor([[0.0, 0.0, 10.0, 10.0], [5.0, 5.0, 25.0, 85.0]])], 3, enlarged=2.0)
    (21.0, 40.0, 75.0)
    """
    sides = torch.cat(list(boxes)).double()
    sides = (sides[:, 2:] - sides[:, :2]).prod(dim=1).sqrt()  # (G,)
    if not (sides > 0).any():
        raise ValueError("boxes hold no object: give training images that show some")
    small, large = np.quantile(sides[sides > 0].log().numpy(), (0.05, 0.95))
    return tuple(float(round(enlarged * float(size))) for size in np.exp(np.linspace(small, large, count)))


def measure(model: MaskRCNN, test: Sequence[Sample]) -> tuple[float, ...]:
    """AP, AP50 and AP75 of boxes, then of masks; objects, how many were found, and how many finds were wrong."""
    found, targets, results = judged(model, test)
    sure = [{key: value[one["scores"] > SURE] for key, value in one.items()} for one in found]
    counts = evaluate(sure, targets, classes=model.classes, kind="masks", iou_thresholds=[0.5]).rankings.values()
    return (
        *(value for result in results for value in (result.ap, result.ap50, result.ap75)),
        int(sum(ranking.num_objects[0] for ranking in counts)),
        *(int(sum(getattr(ranking, name)[0].sum() for ranking in counts)) for name in ("tp", "fp")),
    )
