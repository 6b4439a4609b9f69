"""Fine-tuning on real pictures: coins in a photograph, and nuclei under the microscope.

    python -m minircnn.experiments.fine_tuning --root …/stage1_train

Mask R-CNN starts from our small AlexNet, which has learned to name drawn things, from the same with what Mask R-CNN
learned from all of Toy Town (coins only), and from random weights. The coins come with scikit-image: it learns from the
upper half of the photograph, and the lower half measures. The nuclei are a part of BBBC038: every fifth picture
measures, the others teach. All settings were chosen on training pictures alone: on one row of coins after learning from
the other, and on every fifth of the training pictures of nuclei after learning from the rest. Sizes of anchors follow
from the training objects. In all trainings conv1 stays as it is, also where it is random.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from minircnn.alexnet import SMALL_WEIGHTS, AlexNet, load_alexnet
from minircnn.course.coins import Coins, RandomSquares
from minircnn.datasets import open_data
from minircnn.evaluation import evaluate
from minircnn.experiments import RESULTS_FOLDER, in_percent, judged, write_results
from minircnn.faster_rcnn import RPNConfig
from minircnn.mask_rcnn import (
    TOY_TOWN_MASK_HEADS,
    TOY_TOWN_MASK_RPN,
    MaskRCNN,
    MaskRoIConfig,
    load_mask_rcnn,
    mask_rcnn_alexnet,
)
from minircnn.targets import Sample
from minircnn.training import MaskRCNNTrainingSettings, train_jointly

RESULTS = RESULTS_FOLDER / "fine_tuning.json"
SURE = 0.5  # a detection that is more probable than this counts as found


@dataclass(frozen=True)
class Task:
    """What to fine-tune on, and how.

    Attributes:
        side: of the squares that are cut out of the training pictures, in their own pixels.
        squares: how many different ones there are.
        enlarged: how many times larger than it is the backbone sees a picture.
        anchor_sizes: how many sizes of anchors; see :func:`anchor_sizes`.
        rpn: the numbers of the proposals, sizes of anchors aside.
        heads: the numbers of what is done with them.
        training: the numbers of the training, ``min_size`` aside, which follows from ``side`` and ``enlarged``.
    """

    side: int
    squares: int
    enlarged: float
    anchor_sizes: int
    rpn: RPNConfig
    heads: MaskRoIConfig
    training: MaskRCNNTrainingSettings


@dataclass(frozen=True)
class Row:
    """One detector; averages in [0, 1].

    Attributes:
        start: what it began with, see :data:`STARTS`.
        iterations: that it learned for.
        backbone_lr_mult: what its convolutions learned with, as a share of the learning rate.
        box_ap: over IoU 0.50 to 0.95, of boxes.
        box_ap50: at IoU 0.5.
        box_ap75: at IoU 0.75.
        mask_ap: the same for masks.
        mask_ap50: at IoU 0.5.
        mask_ap75: at IoU 0.75.
        objects: in the test pictures.
        found: how many of them a detection of a score above 0.5 covers, by masks at IoU 0.5.
        wrong: detections of such a score that cover none, or one that another covers better.
        seconds: of a processor, that the training took.
    """

    start: str
    iterations: int
    backbone_lr_mult: float
    box_ap: float
    box_ap50: float
    box_ap75: float
    mask_ap: float
    mask_ap50: float
    mask_ap75: float
    objects: int
    found: int
    wrong: int
    seconds: float


@dataclass(frozen=True)
class FineTuned:
    """A detector after fine-tuning.

    Attributes:
        model: in evaluation mode; it enlarges test pictures as much as it did those that it learned from.
        history: the losses of each iteration.
        row: how good it is on the test pictures.
    """

    model: MaskRCNN
    history: list[dict[str, float]]
    row: Row


COINS = Task(
    side=150,  # the height of the upper half
    squares=400,
    enlarged=1.25,
    anchor_sizes=3,
    rpn=replace(TOY_TOWN_MASK_RPN, aspect_ratios=(1.0,), post_nms_top_n=(150, 300)),  # coins are round
    heads=TOY_TOWN_MASK_HEADS,
    training=MaskRCNNTrainingSettings(
        iterations=200, learning_rate=3e-3, backbone_lr_mult=0.1, color_jitter=0.3, scale_jitter=0.25
    ),
)
# Nuclei are small, a tenth of them less than 8 pixels, which is one cell of the backbone's map; and there are many in a
# whole picture: on validation pictures 300 proposals cover 77% of them, 1000 cover 88%.
NUCLEI = Task(
    side=128,
    squares=2000,
    enlarged=3.0,
    anchor_sizes=4,
    rpn=replace(TOY_TOWN_MASK_RPN, pre_nms_top_n=(1000, 4000), post_nms_top_n=(200, 1000)),
    heads=TOY_TOWN_MASK_HEADS,
    training=MaskRCNNTrainingSettings(
        iterations=800, learning_rate=3e-3, backbone_lr_mult=0.5, color_jitter=0.3, scale_jitter=0.25
    ),
)


def coins(start: str = "pretrained", task: Task = COINS, *, quiet: bool | None = None) -> FineTuned:
    """Learns coins from the upper half of one photograph, and is measured on the lower half.

    Args:
        start: one of :data:`STARTS`.
        task: the numbers.
        quiet: no progress bar.
    """
    return fine_tune(start, [Coins("train")[0]], [Coins("test")[0]], Coins().classes, task, quiet=quiet)


def nuclei(root: str | Path, start: str = "pretrained", task: Task = NUCLEI, *, quiet: bool | None = None) -> FineTuned:
    """Learns nuclei from four of five pictures, and is measured on every fifth.

    Args:
        root: the folder stage1_train of BBBC038, or a part of it.
        start: one of :data:`STARTS`.
        task: the numbers.
        quiet: no progress bar.
    """
    train, test = (open_data("nuclei", root, split=split) for split in ("train", "test"))
    # Read once: a picture comes again and again, and has up to a hundred files of masks.
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
    """Trains on random squares of some pictures and measures on whole other ones.

    Args:
        start: one of :data:`STARTS`.
        train: to learn from, with masks.
        test: to measure with, with masks.
        classes: names; ``classes[0]`` is the background.
        task: the numbers.
        quiet: no progress bar.

    Raises:
        ValueError: there is no such start, or not even one picture or object in ``train``.
    """
    if start not in STARTS:
        raise ValueError(f"start must be one of {', '.join(STARTS)}, but is {start!r}")
    squares = RandomSquares(train, task.side, task.squares, seed=task.training.seed)
    sizes = anchor_sizes([target["boxes"] for _, target in train], task.anchor_sizes, task.enlarged)
    settings = replace(task.training, min_size=round(task.side * task.enlarged))
    before, network = process_time(), STARTS[start]()
    heads = replace(task.heads, pool_size=network.config.pool5_size)
    torch.manual_seed(settings.seed)
    model = mask_rcnn_alexnet(network, classes, replace(task.rpn, anchor_sizes=(sizes,)), heads)
    history = train_jointly(model, squares, settings, quiet=quiet)
    seconds = process_time() - before
    shorter = min(min(image.shape[1:]) for image, _ in test)
    model.transform = replace(model.transform, min_size=round(shorter * task.enlarged))
    row = Row(start, settings.iterations, settings.backbone_lr_mult, *measure(model, test), round(seconds, 1))
    return FineTuned(model, history, row)


def random_network() -> AlexNet:
    """Our small AlexNet before it has seen anything, with weights as He et al. 2015 draw them."""
    network = AlexNet(load_alexnet(SMALL_WEIGHTS).config, num_classes=2).eval()
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            spread = (2 / module.weight[0].numel()) ** 0.5
            module.weight.data = spread * torch.randn(module.weight.shape, generator=generator)
            nn.init.zeros_(module.bias)
    return network


def toy_town_network() -> AlexNet:
    """Our small AlexNet with the convolutions, fc6 and fc7 of the Mask R-CNN that has learned from all of Toy Town."""
    network, model = load_alexnet(SMALL_WEIGHTS), load_mask_rcnn()
    network.backbone.load_state_dict(model.backbone.state_dict())
    network.classifier.load_state_dict(model.roi_heads.box_head.state_dict(), strict=True)
    return network


STARTS: Mapping[str, Callable[[], AlexNet]] = {
    "pretrained": lambda: load_alexnet(SMALL_WEIGHTS),
    "toy town": toy_town_network,
    "random": random_network,
}
"""What the backbone, fc6 and fc7 begin with."""
COINS_STARTS = ("pretrained", "toy town", "random")
NUCLEI_STARTS = ("pretrained", "random")


def anchor_sizes(boxes: Sequence[Tensor], count: int, enlarged: float = 1.0) -> tuple[float, ...]:
    """Sizes of anchors for the objects of the training pictures: from the small to the large, each by as much larger.

    Args:
        boxes: ``(G, 4)`` of each training picture; at least one in all.
        count: how many sizes.
        enlarged: how many times larger than in ``boxes`` the backbone sees objects.

    Returns:
        Square roots of areas in whole pixels as the backbone sees them: a geometric series. One object of twenty is
        smaller than the first, one larger than the last.

    Raises:
        ValueError: there is no object.

    >>> anchor_sizes([torch.tensor([[0.0, 0.0, 10.0, 10.0], [5.0, 5.0, 25.0, 85.0]])], 3, enlarged=2.0)
    (21.0, 40.0, 75.0)
    """
    sides = torch.cat(list(boxes)).double()
    sides = (sides[:, 2:] - sides[:, :2]).prod(dim=1).sqrt()  # (G,)
    if not (sides > 0).any():
        raise ValueError("boxes hold no object: give training pictures that show some")
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


def describe(row: Row) -> str:
    """One line of the table, figures in percent.

    >>> describe(Row("random", 200, 0.1, 0.5, 0.75, 0.625, 0.375, 0.75, 0.25, 12, 9, 1, 60.0))
    'random      box AP 50.0  AP50 75.0  AP75 62.5  mask AP 37.5  AP50 75.0  AP75 25.0  found 9 of 12, 1 wrong  60 s'
    """
    boxes = in_percent(AP=row.box_ap, AP50=row.box_ap50, AP75=row.box_ap75)
    masks = in_percent(AP=row.mask_ap, AP50=row.mask_ap50, AP75=row.mask_ap75)
    return (
        f"{row.start:<10}  box {boxes}  mask {masks}  found {row.found} of {row.objects}, {row.wrong} wrong  "
        f"{row.seconds:.0f} s"
    )


def compare(
    learn: Callable[[str, Task], FineTuned],
    task: Task,
    starts: Sequence[str],
    *,
    report: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Fine-tunes from several starts.

    Args:
        learn: gives a detector from a start.
        task: what it learns by.
        starts: some of :data:`STARTS`.
        report: is told each row as soon as it is there.

    Returns:
        The settings, the anchors that followed from the training objects, and the rows.
    """
    rows, anchors = [], ()
    for start in starts:
        tuned = learn(start, task)
        anchors = tuned.model.rpn.config.anchor_sizes[0]
        rows.append(asdict(tuned.row))
        report(describe(tuned.row))
    return {"settings": asdict(task), "anchors": anchors, "rows": rows}


def main(arguments: list[str] | None = None) -> None:
    """Runs both trainings from both starts, and writes the results."""
    parser = argparse.ArgumentParser(prog="python -m minircnn.experiments.fine_tuning", description=__doc__)
    parser.add_argument("--root", type=Path, required=True, help="the folder stage1_train of BBBC038, or a part of it")
    parser.add_argument("--iterations", type=int, help="of all trainings, for a quick look; by default as many as fit")
    parser.add_argument("--out", type=Path, default=RESULTS, help="JSON file to write")
    options = parser.parse_args(arguments)
    few, many = COINS, NUCLEI
    if options.iterations is not None:
        few, many = (replace(t, training=replace(t.training, iterations=options.iterations)) for t in (few, many))
    pictures = {split: len(open_data("nuclei", options.root, split=split)) for split in ("train", "test")}
    record = {
        "coins": compare(coins, few, COINS_STARTS),
        "nuclei": {
            "pictures": pictures,
            **compare(lambda start, task: nuclei(options.root, start, task), many, NUCLEI_STARTS),
        },
    }
    write_results(options.out, "fine_tuning --root …/stage1_train", record)


if __name__ == "__main__":
    main()
