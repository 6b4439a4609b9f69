"""The comparison of poolings and of mask losses, run small, against the same steps taken directly."""

import json
from dataclasses import replace

import pytest
import torch

from minircnn.alexnet import SMALL, SMALL_STRIDE_16_WEIGHTS, AlexNet, load_alexnet
from minircnn.datasets import ToyTown
from minircnn.evaluation import evaluate
from minircnn.experiments import mask_rcnn_ablation
from minircnn.experiments.mask_rcnn_ablation import RPN_128, SHORT, WAYS, Row, compare, measure
from minircnn.mask_rcnn import TOY_TOWN_MASK_HEADS, binary_masks, load_mask_rcnn
from minircnn.training import train_mask_rcnn

SETTINGS = replace(SHORT, iterations=4, images_per_batch=2, seed=1)


@pytest.fixture(scope="module")
def data():
    train = ToyTown("train")
    return [train[index] for index in range(6)], train.classes


def network(stride):
    torch.manual_seed(0)
    config = SMALL if stride == 8 else load_alexnet(SMALL_STRIDE_16_WEIGHTS).config
    return AlexNet(config, 18)


def figures(row):
    return row.box_ap, row.box_ap50, row.box_ap75, row.mask_ap, row.mask_ap50, row.mask_ap75


def test_rows_are_those_of_the_trainings(data):
    samples, classes = data
    said, strides = [], []

    def counted(stride):
        strides.append(stride)
        return network(stride)

    rows = compare(counted, samples, samples, classes, SETTINGS, report=said.append)
    assert strides == [16, 16, 16, 8, 8, 8, 8] and len(said) == 7
    assert [(row.stride, row.pooling, row.mask_kind) for row in rows] == WAYS
    assert {(row.seed, row.seconds > 0) for row in rows} == {(1, True)}
    for row in (rows[1], rows[6]):
        heads = replace(TOY_TOWN_MASK_HEADS, pooling=row.pooling, mask_kind=row.mask_kind)
        options = {"rpn": RPN_128, "heads": heads, "quiet": True}
        model, _ = train_mask_rcnn(network(row.stride), samples, classes, SETTINGS, **options)
        assert figures(row) == pytest.approx(measure(model, samples), abs=1e-3)


def test_figures_are_the_evaluators(data):
    model, samples = load_mask_rcnn(), data[0]
    found = [binary_masks(one) for one in model.detect([image for image, _ in samples])]
    boxes, masks = (evaluate(found, [t for _, t in samples], kind=kind) for kind in ("boxes", "masks"))
    expected = (boxes.ap, boxes.ap50, boxes.ap75, masks.ap, masks.ap50, masks.ap75)
    assert measure(model, samples) == pytest.approx(expected, abs=1e-2)
    assert 0.3 < masks.ap != boxes.ap


def test_the_command_writes_its_rows(tmp_path, monkeypatch):
    def of_seed(network, train, test, classes, settings):
        assert [network(stride).config.total_stride for stride in (16, 8)] == [16, 8]
        assert "masks" in train[0][1] and settings.min_size == 128
        return [Row(settings.seed, 8, "align", "softmax", *[0.5] * 6, settings.iterations)]

    monkeypatch.setattr(mask_rcnn_ablation, "compare", of_seed)
    options = ["--iterations", "5", "--seeds", "2", "--pictures", "4", "--out", str(tmp_path / "x.json")]
    mask_rcnn_ablation.main([*options, "--test-pictures", "3"])
    written = json.loads((tmp_path / "x.json").read_text())
    assert [(row["seed"], row["seconds"]) for row in written["rows"]] == [(0, 5), (1, 5)]
    assert (written["training_pictures"], written["test_pictures"], written["settings"]["iterations"]) == (4, 3, 5)
