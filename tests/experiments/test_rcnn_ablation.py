"""The comparison of layers, fine-tuning and box regression, run small, against the same steps taken directly."""

import json

import pytest
import torch

from minircnn.alexnet import LAYERS, SMALL, AlexNet
from minircnn.cache import Cache
from minircnn.datasets import ToyTown
from minircnn.evaluation import evaluate
from minircnn.experiments import rcnn_ablation
from minircnn.experiments.rcnn_ablation import Row, compare
from minircnn.rcnn import RCNN, RCNNConfig

NETWORKS = {False: 0, True: 1}  # seeds; here one stands for the network before fine-tuning and one for that after it


@pytest.fixture(scope="module")
def data():
    train, generator = ToyTown("train", masks=False), torch.Generator().manual_seed(0)
    samples, proposals = [train[index] for index in range(6)], []
    for _, target in samples:
        start = torch.rand(15, 2, generator=generator) * 90
        anywhere = torch.cat([start, start + 10 + torch.rand(15, 2, generator=generator) * 25], dim=1)
        proposals.append(torch.cat([target["boxes"] + torch.tensor([1.0, -1, 2, 1]), anywhere]))
    return samples, proposals, train.classes


def network(seed):
    torch.manual_seed(seed)
    return AlexNet(SMALL, 18).eval()


def test_rows_are_those_of_the_detectors(data, tmp_path):
    samples, proposals, classes = data
    networks, said = {tuned: network(seed) for tuned, seed in NETWORKS.items()}, []
    rows = compare(networks, *data[:2], *data[:2], classes, cache=Cache(tmp_path), report=said.append)
    assert [(row.fine_tuned, row.layer, row.box_regression) for row in rows] == [
        *((tuned, layer, False) for tuned in (False, True) for layer in LAYERS),
        (True, LAYERS[-1], True),
    ]
    assert said == [rcnn_ablation.describe(row) for row in rows]
    images, targets = zip(*samples, strict=True)
    for row in (rows[0], rows[-1]):
        model = RCNN(network(NETWORKS[row.fine_tuned]), classes, RCNNConfig(svm_layer=row.layer))
        model.fit_svms(samples, proposals, cache=Cache(tmp_path))
        if row.box_regression:
            model.fit_box_regressors(samples, proposals, cache=Cache(tmp_path))
        result = evaluate(model.detect(images, proposals, regress=row.box_regression), targets, classes=classes)
        assert result.ap > 0
        assert (row.ap, row.ap50, row.ap75) == pytest.approx((result.ap, result.ap50, result.ap75), abs=1e-3)


def test_the_command_writes_its_rows(tmp_path, monkeypatch, data):
    asked = {}

    def proposals_of(samples, **options):
        asked.update(options)
        return [torch.zeros(1, 4)] * len(samples)

    def stand_in(networks, train, train_proposals, test, test_proposals, classes):
        assert (len(train), len(train_proposals), len(test), len(test_proposals)) == (5, 5, 3, 3)
        assert classes == data[2] and networks.keys() == {False, True}
        assert not torch.equal(*(network.backbone.conv5.weight for network in networks.values())), "one is fine-tuned"
        return [Row("fc7", True, True, 0.5, 0.75, 0.625)]

    monkeypatch.setattr(rcnn_ablation, "stored_proposals", proposals_of)
    monkeypatch.setattr(rcnn_ablation, "compare", stand_in)
    options = ["--pictures", "5", "--test-pictures", "3", "--max-proposals", "7", "--out", str(tmp_path / "x.json")]
    rcnn_ablation.main(options)
    written = json.loads((tmp_path / "x.json").read_text())
    assert asked["max_proposals"] == 7
    assert (written["training_pictures"], written["test_pictures"], written["max_proposals"]) == (5, 3, 7)
    assert written["rows"] == [
        {"layer": "fc7", "fine_tuned": True, "box_regression": True, "ap": 0.5, "ap50": 0.75, "ap75": 0.625}
    ]
