"""What alignment is worth, and whether classes should compete for pixels: tables 2b to 2d of the Mask R-CNN paper.

    python -m minircnn.experiments.mask_rcnn_ablation

For each seed and each of two backbones, with a stride of 16 and of 8 pixels, three detectors are trained that differ in
nothing but how regions become grids: by RoIPool, by RoIWarp (rounded regions, interpolated) and by RoIAlign. One more
has a softmax over the classes of each pixel in place of a sigmoid for each class. All see the same test pictures.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import process_time

from minircnn.alexnet import SMALL_STRIDE_16_WEIGHTS, SMALL_WEIGHTS, AlexNet, load_alexnet
from minircnn.datasets import ToyTown
from minircnn.experiments import RESULTS_FOLDER, faster_rcnn_ablation, first_samples, in_percent, judged, write_results
from minircnn.experiments.faster_rcnn_ablation import anchors
from minircnn.mask_rcnn import TOY_TOWN_MASK_HEADS, MaskRCNN
from minircnn.targets import Sample
from minircnn.training import MaskRCNNTrainingSettings, train_mask_rcnn

RESULTS = RESULTS_FOLDER / "mask_rcnn_ablation.json"

NETWORKS = {16: SMALL_STRIDE_16_WEIGHTS, 8: SMALL_WEIGHTS}
WAYS = [(stride, pooling, "sigmoid") for stride in NETWORKS for pooling in ("pool", "warp", "align")]
WAYS.append((8, "align", "softmax"))

RPN_128 = anchors(3, 3)  # for pictures of 128 pixels as they are
# Longer than Faster R-CNN's short training: one loss more, and what rounding costs shows the more, the more is learned.
SHORT = MaskRCNNTrainingSettings(**{**vars(faster_rcnn_ablation.SHORT), "iterations": 2000})


@dataclass(frozen=True)
class Row:
    """One detector of the tables; averages in [0, 1].

    Attributes:
        seed: of the training.
        stride: of the feature map, in pixels.
        pooling: "pool", "warp" or "align".
        mask_kind: "sigmoid" or "softmax".
        box_ap: over IoU 0.50 to 0.95, of boxes.
        box_ap50: at IoU 0.5.
        box_ap75: at IoU 0.75.
        mask_ap: the same for masks.
        mask_ap50: at IoU 0.5.
        mask_ap75: at IoU 0.75.
        seconds: of a processor, that the training took.
    """

    seed: int
    stride: int
    pooling: str
    mask_kind: str
    box_ap: float
    box_ap50: float
    box_ap75: float
    mask_ap: float
    mask_ap50: float
    mask_ap75: float
    seconds: float


def compare(
    network: Callable[[int], AlexNet],
    train: Sequence[Sample],
    test: Sequence[Sample],
    classes: Sequence[str],
    settings: MaskRCNNTrainingSettings,
    *,
    report: Callable[[str], None] = print,
) -> list[Row]:
    """Trains and measures the detectors of one seed.

    Args:
        network: gives the pre-trained network of a stride, anew each time.
        train: to learn from, with masks.
        test: to measure with, with masks.
        classes: names; ``classes[0]`` is the background.
        settings: of the trainings.
        report: is told each row as soon as it is there.

    Returns:
        A row for each of :data:`WAYS`.
    """
    rows = []
    for stride, pooling, kind in WAYS:
        start, backbone = process_time(), network(stride)
        heads = replace(TOY_TOWN_MASK_HEADS, pool_size=backbone.config.pool5_size, pooling=pooling, mask_kind=kind)
        model, _ = train_mask_rcnn(backbone, train, classes, settings, rpn=RPN_128, heads=heads)
        seconds = process_time() - start
        rows.append(Row(settings.seed, stride, pooling, kind, *measure(model, test), round(seconds, 1)))
        report(describe(rows[-1]))
    return rows


def measure(model: MaskRCNN, test: Sequence[Sample]) -> tuple[float, ...]:
    """AP, AP50 and AP75 of boxes, then of masks."""
    _, _, results = judged(model, test)
    return tuple(value for result in results for value in (result.ap, result.ap50, result.ap75))


def describe(row: Row) -> str:
    """One line of the table, figures in percent.

    >>> describe(Row(0, 8, "align", "sigmoid", 0.5, 0.75, 0.625, 0.375, 0.75, 0.25, 60.0))
    'seed 0  stride 8  align  sigmoid  box AP 50.0  AP50 75.0  AP75 62.5  mask AP 37.5  AP50 75.0  AP75 25.0  60 s'
    """
    boxes = in_percent(AP=row.box_ap, AP50=row.box_ap50, AP75=row.box_ap75)
    masks = in_percent(AP=row.mask_ap, AP50=row.mask_ap50, AP75=row.mask_ap75)
    return (
        f"seed {row.seed}  stride {row.stride}  {row.pooling}  {row.mask_kind}  box {boxes}  mask {masks}  "
        f"{row.seconds:.0f} s"
    )


def main(arguments: list[str] | None = None) -> None:
    """Runs the comparison and writes the results."""
    parser = argparse.ArgumentParser(prog="python -m minircnn.experiments.mask_rcnn_ablation", description=__doc__)
    parser.add_argument("--pictures", type=int, default=1000, help="training pictures")
    parser.add_argument("--test-pictures", type=int, default=200)
    parser.add_argument("--iterations", type=int, default=SHORT.iterations)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS, help="JSON file to write")
    options = parser.parse_args(arguments)
    classes = ToyTown("train", masks=False).classes
    train = first_samples("train", options.pictures, masks=True)
    test = first_samples("test", options.test_pictures, masks=True)
    rows = []
    for seed in range(options.seeds):
        settings = replace(SHORT, iterations=options.iterations, seed=seed)
        rows += compare(lambda stride: load_alexnet(NETWORKS[stride]), train, test, classes, settings)
    record = {
        "training_pictures": len(train),
        "test_pictures": len(test),
        "settings": asdict(settings),
        "rows": [asdict(row) for row in rows],
    }
    write_results(options.out, "mask_rcnn_ablation", record)


if __name__ == "__main__":
    main()
