"""The comparison of trainings and of anchors, run small, against the same steps taken directly."""

import json
from dataclasses import replace

import pytest
import torch

from minircnn.alexnet import SMALL, AlexNet
from minircnn.datasets import ToyTown
from minircnn.evaluation import evaluate
from minircnn.experiments import faster_rcnn_ablation
from minircnn.experiments.faster_rcnn_ablation import Row, anchors, compare, measure
from minircnn.faster_rcnn import load_faster_rcnn
from minircnn.training import FasterRCNNTrainingSettings, train_alternating, train_faster_rcnn

SETTINGS = FasterRCNNTrainingSettings(iterations=8, images_per_batch=2, min_size=128, seed=1)


@pytest.fixture(scope="module")
def data():
    train = ToyTown("train", masks=False)
    return [train[index] for index in range(6)], train.classes


def network():
    torch.manual_seed(0)
    return AlexNet(SMALL, 18)


def figures(row):
    return row.ap, row.ap50, row.ap75, row.recall


def test_rows_are_those_of_the_trainings(data):
    said = []
    samples, classes = data
    rows = compare(network, samples, samples, classes, SETTINGS, report=said.append)
    assert [(row.training, row.iterations, row.scales, row.ratios) for row in rows] == [
        *(("joint", 8, 3, 3), ("turns", 8, 3, 3), ("turns", 16, 3, 3)),
        *(("joint", 8, 1, 1), ("joint", 8, 1, 3), ("joint", 8, 3, 1)),
    ]
    assert len(said) == 6 and {row.seed for row in rows} == {1} and all(row.seconds > 0 for row in rows)
    joint, _ = train_faster_rcnn(network(), samples, classes, SETTINGS, rpn=anchors(3, 3), quiet=True)
    assert figures(rows[0]) == pytest.approx(measure(joint, samples), abs=1e-3)
    few, _ = train_faster_rcnn(network(), samples, classes, SETTINGS, rpn=anchors(1, 3), quiet=True)
    assert figures(rows[4]) == pytest.approx(measure(few, samples), abs=1e-3)
    twice = replace(SETTINGS, iterations=16)
    turns, _ = train_alternating(network(), samples, classes, twice, rpn=anchors(3, 3), quiet=True)
    assert figures(rows[2]) == pytest.approx(measure(turns, samples), abs=1e-3)


def test_anchors_have_the_shapes_of_the_table():
    assert [anchors(*kinds).anchors_per_cell for kinds in ((1, 1), (1, 3), (3, 1), (3, 3))] == [1, 3, 3, 9]
    assert anchors(1, 3).anchor_sizes[0][0] == anchors(3, 3).anchor_sizes[0][1]  # the middle one stays


def test_figures_are_the_evaluators_and_recall_is_counted(data):
    model, samples = load_faster_rcnn(), data[0]
    targets = [target for _, target in samples]
    ap, ap50, ap75, recall = measure(model, samples)
    result = evaluate(model.detect([image for image, _ in samples]), targets, classes=model.classes)
    assert (ap, ap50, ap75) == pytest.approx((result.ap, result.ap50, result.ap75), abs=1e-2)
    covered = total = 0
    for image, target in samples:
        (found,) = model.propose([image])
        assert len(found["boxes"]) <= 60
        for x1, y1, x2, y2 in target["boxes"].tolist():
            best = 0.0
            for a1, b1, a2, b2 in found["boxes"].tolist():
                width, height = min(x2, a2) - max(x1, a1), min(y2, b2) - max(y1, b1)
                shared = max(width, 0) * max(height, 0)
                best = max(best, shared / ((x2 - x1) * (y2 - y1) + (a2 - a1) * (b2 - b1) - shared))
            covered, total = covered + (best >= 0.5), total + 1
    assert recall == pytest.approx(covered / total) and recall > 0.5


def test_the_command_writes_its_rows(tmp_path, monkeypatch, data):
    def of_seed(network, train, test, classes, settings):
        assert network().config.total_stride == 8 and settings.min_size == 128
        return [Row(settings.seed, "turns", settings.iterations, 3, 3, 0.5, 0.75, 0.5, 0.9, 1.0)]

    monkeypatch.setattr(faster_rcnn_ablation, "compare", of_seed)
    options = ["--iterations", "5", "--seeds", "2", "--pictures", "4", "--out", str(tmp_path / "x.json")]
    faster_rcnn_ablation.main([*options, "--test-pictures", "3"])
    written = json.loads((tmp_path / "x.json").read_text())
    assert [(row["seed"], row["iterations"]) for row in written["rows"]] == [(0, 5), (1, 5)]
    assert (written["training_pictures"], written["test_pictures"], written["settings"]["iterations"]) == (4, 3, 5)
