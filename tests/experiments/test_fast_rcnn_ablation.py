"""The comparison of trainings and classifiers, run small, against the same steps taken directly."""

import copy
import json

import pytest
import torch

from minircnn.alexnet import SMALL, AlexNet
from minircnn.datasets import ToyTown
from minircnn.evaluation import evaluate
from minircnn.experiments import fast_rcnn_ablation
from minircnn.experiments.fast_rcnn_ablation import Data, Row, compare, learn_boxes_alone, with_svms
from minircnn.fast_rcnn import RoIConfig, load_fast_rcnn
from minircnn.training import FastRCNNTrainingSettings, train_fast_rcnn

SETTINGS = FastRCNNTrainingSettings(iterations=6, images_per_batch=2, min_size=128, seed=1)


@pytest.fixture(scope="module")
def data():
    train = ToyTown("train", masks=False)
    samples, generator = [train[index] for index in range(6)], torch.Generator().manual_seed(0)
    proposals = []
    for _, target in samples:
        start = torch.rand(30, 2, generator=generator) * 90
        anywhere = torch.cat([start, start + 10 + torch.rand(30, 2, generator=generator) * 25], dim=1)
        proposals.append(torch.cat([target["boxes"] + torch.tensor([1.0, -1, 2, 1]), anywhere]))
    return Data(samples, proposals), train.classes


def network():
    torch.manual_seed(0)
    return AlexNet(SMALL, 18)


@pytest.fixture(scope="module")
def joint(data):
    return train_fast_rcnn(network(), data[0].samples, data[0].proposals, data[1], SETTINGS, quiet=True)[0]


def test_rows_are_those_of_the_detectors(data, joint):
    said = []
    rows = compare(network, *data[:1], data[0], data[1], SETTINGS, report=said.append)
    assert [(row.training, row.classifier, row.box_regression) for row in rows] == [
        *(("classes", "softmax", False), ("joint", "softmax", False), ("stages", "softmax", True)),
        *(("joint", "softmax", True), ("joint", "SVM", True)),
    ]
    assert len(said) == 5 and {row.seed for row in rows} == {1}
    targets = [target for _, target in data[0].samples]
    images = [image for image, _ in data[0].samples]
    for row, regress in ((rows[1], False), (rows[3], True)):
        result = evaluate(joint.detect(images, data[0].proposals, regress=regress), targets, classes=data[1])
        assert (row.ap, row.ap50, row.ap75) == pytest.approx((result.ap, result.ap50, result.ap75), abs=1e-3)


def test_only_the_box_layer_learns_in_the_second_stage(data):
    config = RoIConfig(box_loss_weight=0.0)
    model, _ = train_fast_rcnn(
        network(), data[0].samples, data[0].proposals, data[1], SETTINGS, config=config, quiet=True
    )
    before = copy.deepcopy(model.state_dict())
    after = learn_boxes_alone(model, data[0], SETTINGS).state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {f"roi_heads.box_predictor.bbox_pred.{kind}" for kind in ("weight", "bias")}


def test_machines_find_the_objects_that_they_learned_from(data):
    """On proposals that are the objects themselves, and on features of a detector that knows them."""
    detect = with_svms(load_fast_rcnn(), data[0])
    right = total = 0
    for image, target in data[0].samples:
        found = detect(image, target["boxes"])
        best = {}
        for box, label, score in zip(found["boxes"], found["labels"], found["scores"], strict=True):
            near = (target["boxes"] - box).abs().amax(dim=1).argmin().item()
            best[near] = max(best.get(near, (-9.0, 0)), (score.item(), label.item()))
        right += sum(target["labels"][near].item() == label for near, (_, label) in best.items())
        total += len(target["labels"])
    assert right >= 0.85 * total


def test_the_command_writes_its_rows(tmp_path, monkeypatch, data):
    monkeypatch.setattr(fast_rcnn_ablation, "_read", lambda split, count: data[0])
    monkeypatch.setattr(
        fast_rcnn_ablation, "compare", lambda *a, **b: [Row(a[4].seed, "joint", "SVM", True, 0.5, 0.75, 0.5)]
    )
    options = ["--iterations", "5", "--seeds", "2", "--out", str(tmp_path / "x.json")]
    fast_rcnn_ablation.main(options)
    written = json.loads((tmp_path / "x.json").read_text())
    assert [row["seed"] for row in written["rows"]] == [0, 1]
    assert written["settings"]["iterations"] == 5 and written["training_pictures"] == 6
