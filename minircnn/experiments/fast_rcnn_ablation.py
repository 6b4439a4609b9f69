"""What joint training and the softmax are worth: the shape of the paper's tables 6 and 8, on Toy Town.

    python -m minircnn.experiments.fast_rcnn_ablation

For each seed two networks are trained on the same pictures and proposals: one for classes alone, one for classes and
boxes together. The first then learns boxes with everything else held fast (stage-wise training). For the second,
support vector machines are fitted to its fc7 features, as R-CNN had them. All are measured on the same test pictures.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from minircnn.alexnet import SMALL_WEIGHTS, AlexNet, load_alexnet
from minircnn.boxes import decode_boxes
from minircnn.datasets import ToyTown
from minircnn.evaluation import evaluate
from minircnn.experiments import RESULTS_FOLDER, first_samples, in_percent, write_results
from minircnn.fast_rcnn import FastRCNN, RoIConfig
from minircnn.rcnn import (
    RCNNConfig,
    SVMSettings,
    far_from_class,
    mine_hard_negatives,
    scale_to,
    select_detections,
)
from minircnn.selective_search import stored_proposals
from minircnn.targets import Sample, in_crowd, single_objects
from minircnn.training import FastRCNNTrainingSettings, LoopSettings, fit, joint_losses, train_fast_rcnn
from minircnn.transforms import resize_boxes

RESULTS = RESULTS_FOLDER / "fast_rcnn_ablation.json"


@dataclass(frozen=True)
class Data:
    """Pictures and their proposals."""

    samples: Sequence[Sample]
    proposals: Sequence[Tensor]


@dataclass(frozen=True)
class Row:
    """One detector of the tables; averages in [0, 1]."""

    seed: int
    training: str
    classifier: str
    box_regression: bool
    ap: float
    ap50: float
    ap75: float


def compare(
    network: Callable[[], AlexNet],
    train: Data,
    test: Data,
    classes: Sequence[str],
    settings: FastRCNNTrainingSettings,
    *,
    report: Callable[[str], None] = print,
) -> list[Row]:
    """Trains and measures the detectors of one seed.

    Args:
        network: gives the pre-trained network, anew each time.
        train: to learn from.
        test: to measure with.
        classes: names; ``classes[0]`` is the background.
        settings: of both trainings; the boxes of the stage-wise one learn for a third of the iterations.
        report: is told each row as soon as it is there.

    Returns:
        The rows in the paper's order: classes alone; both, boxes unused; stage-wise; both; with SVMs.
    """
    rows = []

    def row(training: str, classifier: str, regress: bool, detect: Callable[[Tensor, Tensor], dict]) -> None:
        pairs = [(test.samples[i], test.proposals[i]) for i in range(len(test.samples))]
        found = [detect(image, boxes) for (image, _), boxes in pairs]
        result = evaluate(found, [target for (_, target), _ in pairs], classes=classes)
        rows.append(Row(settings.seed, training, classifier, regress, result.ap, result.ap50, result.ap75))
        report(describe(rows[-1]))

    def softmax(model: FastRCNN, regress: bool) -> Callable[[Tensor, Tensor], dict]:
        return lambda image, boxes: model.detect([image], [boxes], regress=regress)[0]

    def trained(config: RoIConfig) -> FastRCNN:
        return train_fast_rcnn(network(), train.samples, train.proposals, classes, settings, config=config)[0]

    classes_alone = trained(RoIConfig(box_loss_weight=0.0))
    row("classes", "softmax", False, softmax(classes_alone, False))
    joint = trained(RoIConfig())
    row("joint", "softmax", False, softmax(joint, False))
    row("stages", "softmax", True, softmax(learn_boxes_alone(classes_alone, train, settings), True))
    row("joint", "softmax", True, softmax(joint, True))
    row("joint", "SVM", True, with_svms(joint, train))
    return rows


def learn_boxes_alone(model: FastRCNN, train: Data, settings: FastRCNNTrainingSettings) -> FastRCNN:
    """The second stage of stage-wise training: only the box layer learns, on features that were made for classes."""
    model.requires_grad_(False)
    box_layer = model.roi_heads.box_predictor["bbox_pred"].requires_grad_(True)
    model.roi_heads.config = RoIConfig()
    joint = joint_losses(model, train.samples, settings, train.proposals)
    fit(
        model,
        lambda iteration: {"loss_box_reg": joint(iteration)["loss_box_reg"]},
        LoopSettings(max(settings.iterations // 3, 1), settings.learning_rate, seed=settings.seed),
        groups=[{"params": list(box_layer.parameters()), "scale": 1.0}],
    )
    return model.eval()


@torch.no_grad()
def with_svms(model: FastRCNN, train: Data) -> Callable[[Tensor, Tensor], dict[str, Tensor]]:
    """Detection with R-CNN's support vector machines, fitted to fc7, in place of the softmax; boxes stay the same."""
    config, num_classes = RCNNConfig(), len(model.classes)
    model.eval()

    def represent(image: Tensor, boxes: Tensor) -> Tensor:
        features, (size,) = model.features([image])
        return model.roi_heads.box_features(features, [resize_boxes(boxes, tuple(image.shape[1:]), size)])  # (P, D)

    indices = range(len(train.samples))
    objects = [single_objects(train.samples[i][1]) for i in indices]
    own = torch.cat([represent(train.samples[i][0], objects[i]["boxes"]) for i in indices])
    labels = torch.cat([found["labels"] for found in objects])
    some = torch.cat([represent(train.samples[i][0], train.proposals[i]) for i in indices[:: len(indices) // 100 or 1]])
    scale = scale_to(config.feature_norm, some.norm(dim=1))

    def pictures() -> Iterator[tuple[Tensor, Tensor]]:
        for i in indices:
            image, target = train.samples[i]
            far = far_from_class(train.proposals[i], objects[i], num_classes, config.negative_iou)
            yield represent(image, train.proposals[i]) * scale, far & ~in_crowd(train.proposals[i], target)[:, None]

    positives = [own[labels == label] * scale for label in range(1, num_classes)]
    weights, _ = mine_hard_negatives(positives, pictures, SVMSettings())

    @torch.no_grad()
    def detect(image: Tensor, boxes: Tensor) -> dict[str, Tensor]:
        x = represent(image, boxes)
        deltas = model.roi_heads.box_predictor["bbox_pred"](x).view(len(boxes), num_classes, 4)
        margins = x * scale @ weights[:, :-1].T + weights[:, -1]  # (P, K - 1)
        return select_detections(
            decode_boxes(boxes, deltas, model.roi_heads.config.box_weights),
            F.pad(margins, (1, 0), value=-torch.inf),
            tuple(image.shape[1:]),
            score_threshold=config.score_threshold,
            nms_threshold=config.nms_threshold,
            max_detections=config.max_detections,
        )

    return detect


def describe(row: Row) -> str:
    """One line of the table, figures in percent.

    >>> describe(Row(0, "joint", "softmax", True, 0.5, 0.75, 0.625))
    'seed 0  joint    softmax  box regression  AP 50.0  AP50 75.0  AP75 62.5'
    """
    moved = "box regression" if row.box_regression else ""
    return f"seed {row.seed}  {row.training:<7}  {row.classifier:<7}  {moved:<14}  " + in_percent(
        AP=row.ap, AP50=row.ap50, AP75=row.ap75
    )


def main(arguments: list[str] | None = None) -> None:
    """Runs the comparison and writes the results."""
    parser = argparse.ArgumentParser(prog="python -m minircnn.experiments.fast_rcnn_ablation", description=__doc__)
    parser.add_argument("--pictures", type=int, default=1000, help="training pictures")
    parser.add_argument("--test-pictures", type=int, default=200)
    parser.add_argument("--iterations", type=int, default=1500)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS, help="JSON file to write")
    options = parser.parse_args(arguments)
    train, test = (
        _read(split, count) for split, count in (("train", options.pictures), ("test", options.test_pictures))
    )
    rows = []
    for seed in range(options.seeds):
        settings = FastRCNNTrainingSettings(iterations=options.iterations, seed=seed)
        rows += compare(
            lambda: load_alexnet(SMALL_WEIGHTS), train, test, ToyTown("train", masks=False).classes, settings
        )
    record = {
        "training_pictures": len(train.samples),
        "test_pictures": len(test.samples),
        "settings": asdict(settings),
        "rows": [asdict(row) for row in rows],
    }
    write_results(options.out, "fast_rcnn_ablation", record)


def _read(split: str, count: int) -> Data:
    samples = first_samples(split, count)
    return Data(samples, stored_proposals(samples, max_proposals=FastRCNNTrainingSettings().max_proposals, workers=-1))


if __name__ == "__main__":
    main()
