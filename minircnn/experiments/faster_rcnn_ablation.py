"""All at once or in turns, and how many anchors: questions of the Faster R-CNN paper, asked on Toy Town.

    python -m minircnn.experiments.faster_rcnn_ablation

For each seed a detector is trained jointly, and two in the paper's four steps: one with equally many batches in all,
one with twice as many, so that proposals and heads each learn from as many batches as in the joint training. Three
more, trained jointly, have fewer anchors (the shape of the paper's table 8). All see the same test pictures.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import process_time

from minircnn.alexnet import SMALL_WEIGHTS, AlexNet, load_alexnet
from minircnn.datasets import ToyTown
from minircnn.evaluation import evaluate, proposal_recall
from minircnn.experiments import RESULTS_FOLDER, first_samples, in_percent, write_results
from minircnn.faster_rcnn import TOY_TOWN_RPN, FasterRCNN, RPNConfig
from minircnn.targets import Sample
from minircnn.training import FasterRCNNTrainingSettings, train_alternating, train_faster_rcnn

RESULTS = RESULTS_FOLDER / "faster_rcnn_ablation.json"

# For pictures of 128 pixels as they are; as in the paper each size is twice the one before.
SCALES = {1: (36.0,), 3: (18.0, 36.0, 72.0)}
RATIOS = {1: (1.0,), 3: (0.5, 1.0, 2.0)}
ALL = (3, 3)
# In few batches the new layers must learn fast, and the pre-trained ones are best left nearly as they are.
SHORT = FasterRCNNTrainingSettings(
    iterations=1000, learning_rate=3e-3, backbone_lr_mult=0.1, min_size=128, color_jitter=0, scale_jitter=0
)
FEWER = ((1, 1), (1, 3), (3, 1))


@dataclass(frozen=True)
class Row:
    """One detector of the tables; averages and the recall in [0, 1].

    Attributes:
        seed: of the training.
        training: "joint" or "turns".
        iterations: of all steps together.
        scales: sizes of anchors.
        ratios: shapes of anchors.
        ap: over IoU 0.50 to 0.95.
        ap50: at IoU 0.5.
        ap75: at IoU 0.75.
        recall: share of the objects that a proposal covers at IoU 0.5; at most ``post_nms_top_n`` of an image.
        seconds: of a processor, that the training took.
    """

    seed: int
    training: str
    iterations: int
    scales: int
    ratios: int
    ap: float
    ap50: float
    ap75: float
    recall: float
    seconds: float


def anchors(scales: int, ratios: int) -> RPNConfig:
    """The proposals' numbers, with so many sizes and shapes of anchors.

    >>> anchors(3, 1).anchors_per_cell
    3
    """
    return replace(TOY_TOWN_RPN, anchor_sizes=(SCALES[scales],), aspect_ratios=RATIOS[ratios])


def compare(
    network: Callable[[], AlexNet],
    train: Sequence[Sample],
    test: Sequence[Sample],
    classes: Sequence[str],
    settings: FasterRCNNTrainingSettings,
    *,
    report: Callable[[str], None] = print,
) -> list[Row]:
    """Trains and measures the detectors of one seed.

    Args:
        network: gives the pre-trained network, anew each time.
        train: to learn from.
        test: to measure with.
        classes: names; ``classes[0]`` is the background.
        settings: of the joint trainings.
        report: is told each row as soon as it is there.

    Returns:
        Joint; in turns; in turns with twice the batches; joint with fewer anchors.
    """
    rows = []
    twice = replace(settings, iterations=2 * settings.iterations)
    ways = [("joint", settings, ALL), ("turns", settings, ALL), ("turns", twice, ALL)]
    for training, its, kinds in ways + [("joint", settings, kinds) for kinds in FEWER]:
        start = process_time()
        learn = train_faster_rcnn if training == "joint" else train_alternating
        model, _ = learn(network(), train, classes, its, rpn=anchors(*kinds))
        seconds = process_time() - start
        rows.append(Row(its.seed, training, its.iterations, *kinds, *measure(model, test), round(seconds, 1)))
        report(describe(rows[-1]))
    return rows


def measure(model: FasterRCNN, test: Sequence[Sample]) -> tuple[float, float, float, float]:
    """AP, AP50, AP75, and the proposals' recall at IoU 0.5."""
    targets = [target for _, target in test]
    result = evaluate([model.detect([image])[0] for image, _ in test], targets, classes=model.classes)
    proposals = [model.propose([image])[0]["boxes"] for image, _ in test]
    (recall,) = proposal_recall(proposals, targets, 0.5, [model.rpn.config.post_nms_top_n[1]]).tolist()
    return result.ap, result.ap50, result.ap75, recall


def describe(row: Row) -> str:
    """One line of the table, figures in percent.

    >>> describe(Row(0, "joint", 1500, 3, 3, 0.5, 0.75, 0.625, 0.875, 60.0))
    'seed 0  joint  1500 batches  3 scales, 3 ratios  AP 50.0  AP50 75.0  AP75 62.5  recall 87.5  60 s'
    """
    return (
        f"seed {row.seed}  {row.training}  {row.iterations} batches  {row.scales} scales, {row.ratios} ratios  "
        + in_percent(AP=row.ap, AP50=row.ap50, AP75=row.ap75, recall=row.recall)
        + f"  {row.seconds:.0f} s"
    )


def main(arguments: list[str] | None = None) -> None:
    """Runs the comparison and writes the results."""
    parser = argparse.ArgumentParser(prog="python -m minircnn.experiments.faster_rcnn_ablation", description=__doc__)
    parser.add_argument("--pictures", type=int, default=1000, help="training pictures")
    parser.add_argument("--test-pictures", type=int, default=200)
    parser.add_argument("--iterations", type=int, default=SHORT.iterations, help="of a joint training")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS, help="JSON file to write")
    options = parser.parse_args(arguments)
    classes = ToyTown("train", masks=False).classes
    train = first_samples("train", options.pictures)
    test = first_samples("test", options.test_pictures)
    rows = []
    for seed in range(options.seeds):
        settings = replace(SHORT, iterations=options.iterations, seed=seed)
        rows += compare(lambda: load_alexnet(SMALL_WEIGHTS), train, test, classes, settings)
    record = {
        "training_pictures": len(train),
        "test_pictures": len(test),
        "settings": asdict(settings),
        "rows": [asdict(row) for row in rows],
    }
    write_results(options.out, "faster_rcnn_ablation", record)


if __name__ == "__main__":
    main()
