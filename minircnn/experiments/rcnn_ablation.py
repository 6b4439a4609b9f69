"""What each part of R-CNN is worth: the shape of the paper's table 2, on Toy Town.

    python -m minircnn.experiments.rcnn_ablation

Seven detectors on the same training pictures, proposals and test pictures: SVMs on pool5, fc6 and fc7, each with the
network as it came from pre-training and after fine-tuning, and the last one also with box regression.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from minircnn.alexnet import LAYERS, SMALL_WEIGHTS, AlexNet, load_alexnet
from minircnn.cache import Cache
from minircnn.datasets import ToyTown
from minircnn.evaluation import evaluate
from minircnn.experiments import RESULTS_FOLDER, first_samples, in_percent, write_results
from minircnn.rcnn import RCNN, RCNN_WEIGHTS, RCNNConfig, load_rcnn
from minircnn.selective_search import stored_proposals
from minircnn.targets import Sample

RESULTS = RESULTS_FOLDER / "rcnn_ablation.json"


@dataclass(frozen=True)
class Row:
    """One detector of the table; averages in [0, 1]."""

    layer: str
    fine_tuned: bool
    box_regression: bool
    ap: float
    ap50: float
    ap75: float


def compare(
    networks: dict[bool, AlexNet],
    train: Sequence[Sample],
    train_proposals: Sequence[Tensor],
    test: Sequence[Sample],
    test_proposals: Sequence[Tensor],
    classes: Sequence[str],
    *,
    cache: Cache | None = None,
    report: Callable[[str], None] = print,
) -> list[Row]:
    """Trains and measures the seven detectors.

    Args:
        networks: by whether it was fine-tuned.
        train: ``(image, target)`` pairs to learn from.
        train_proposals: for each of them.
        test: pairs to measure with.
        test_proposals: for each of them.
        classes: names; ``classes[0]`` is the background.
        cache: where features are kept; without one they are computed for each detector.
        report: is told each row as soon as it is there.

    Returns:
        The rows in the paper's order.
    """
    rows = []
    targets = [test[i][1] for i in range(len(test))]
    for fine_tuned in (False, True):
        models = {layer: RCNN(networks[fine_tuned], classes, RCNNConfig(svm_layer=layer)) for layer in LAYERS}
        for model in models.values():
            model.fit_svms(train, train_proposals, cache=cache)
        last = models[LAYERS[-1]]
        if fine_tuned:
            last.fit_box_regressors(train, train_proposals, cache=cache)
        found: dict[tuple[str, bool], list[dict[str, Tensor]]] = {(layer, False): [] for layer in LAYERS}
        if fine_tuned:
            found[LAYERS[-1], True] = []
        for index, boxes in enumerate(test_proposals):
            image = test[index][0]
            features = last.features(image, boxes, LAYERS)  # one pass serves all
            for (layer, regressed), detections in found.items():
                detections.append(models[layer].judge(features, boxes, image.shape[1:], regress=regressed))
        for (layer, regressed), detections in found.items():
            result = evaluate(detections, targets, classes=classes)
            rows.append(Row(layer, fine_tuned, regressed, result.ap, result.ap50, result.ap75))
            report(describe(rows[-1]))
    return rows


def describe(row: Row) -> str:
    """One line of the table, figures in percent.

    >>> describe(Row("fc7", True, True, 0.5, 0.75, 0.625))
    'fine-tuned  fc7    box regression  AP 50.0  AP50 75.0  AP75 62.5'
    """
    tuned, moved = "fine-tuned" if row.fine_tuned else "", "box regression" if row.box_regression else ""
    return f"{tuned:<10}  {row.layer:<5}  {moved:<14}  " + in_percent(AP=row.ap, AP50=row.ap50, AP75=row.ap75)


def main(arguments: list[str] | None = None) -> None:
    """Runs the comparison and writes the results."""
    parser = argparse.ArgumentParser(prog="python -m minircnn.experiments.rcnn_ablation", description=__doc__)
    parser.add_argument("--pictures", type=int, default=1000, help="training pictures for SVMs and regressors")
    parser.add_argument("--test-pictures", type=int, default=200)
    parser.add_argument("--max-proposals", type=int, default=300)
    parser.add_argument("--out", type=Path, default=RESULTS, help="JSON file to write")
    options = parser.parse_args(arguments)
    classes = ToyTown("train", masks=False).classes
    samples, held_out = first_samples("train", options.pictures), first_samples("test", options.test_pictures)
    proposals = [
        stored_proposals(part, max_proposals=options.max_proposals, workers=-1) for part in (samples, held_out)
    ]
    networks = {False: load_alexnet(SMALL_WEIGHTS), True: load_rcnn(RCNN_WEIGHTS).network}
    with torch.inference_mode():
        rows = compare(networks, samples, proposals[0], held_out, proposals[1], classes)
    record = {
        "training_pictures": len(samples),
        "test_pictures": len(held_out),
        "max_proposals": options.max_proposals,
        "rows": [asdict(row) for row in rows],
    }
    write_results(options.out, "rcnn_ablation", record)


if __name__ == "__main__":
    main()
