"""What a training shows of itself on its way, and what it begins with, on the user's own images."""

import csv
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import resnet

from minircnn.cli import watch as module
from minircnn.cli.watch import Watch
from minircnn.datasets.named import open_data
from minircnn.evaluation import evaluate
from minircnn.training import FasterRCNNTrainingSettings, starts
from minircnn.weights import load
from tests.cli.conftest import own
from tests.training.test_starts import write

BESIDE = ["x_best.json", "x_best.safetensors", "x_curve.png", "x_predictions.png"]


def test_a_training_is_measured_on_images_that_it_does_not_learn_from(call, folder, tmp_path, network):
    """Every fifth image is for validation; the numbers in the table are those of the best weights on these images."""
    out, table = tmp_path / "x.safetensors", tmp_path / "x.csv"
    options = ("--network", network, "--iterations", 4, "--evaluate-every", 2, "--min-size", 64, "--csv", table)
    result = call("train", "mask_rcnn", *own(folder), *options, "--out", out)
    assert result.exit_code == 0 and "1 of the 8 images are for validation" in result.stdout, result.output
    assert "of the objects in the validation images by half or more" in result.stdout
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("x_")) == BESIDE
    rows = list(csv.DictReader(table.read_text().splitlines()))
    measured = {int(row["iteration"]): row for row in rows if row["val_ap"]}
    assert list(measured) == [2, 4] and all(0 <= float(row["val_recall"]) <= 1 for row in measured.values())
    about = json.loads((tmp_path / "x_best.json").read_text())
    scores = {done: float(row["val_mask_ap"]) for done, row in measured.items()}
    assert scores[about["iteration"]] == max(scores.values())
    data = open_data("coco", folder / "images", folder / "instances.json", split="train").part([4])
    model = load(tmp_path / "x_best.safetensors")
    found = [model.detect_encoded([data.load_image(0)])[0]]
    again = evaluate(found, [data.load_target(0)], classes=data.classes, kind="masks").ap
    assert again == pytest.approx(about["validation"]["val_mask_ap"], abs=0.05)  # the file holds half precision
    for name in BESIDE[2:]:
        with Image.open(tmp_path / name) as image:
            assert image.size[0] > 500 and np.asarray(image.convert("L")).std() > 10


def test_too_few_images_to_spare_one(call, folder, tmp_path):
    options = ("--from-scratch", "--images", 4, "--evaluate-every", 1, "--out", tmp_path / "x.safetensors")
    result = call("train", "faster_rcnn", *own(folder), *options)
    assert result.exit_code == 2 and "--evaluate-every: of 4 images none can be spared" in result.stderr


@pytest.fixture
def told(monkeypatch):
    """What a watch says."""
    lines = []
    monkeypatch.setattr(module, "say", lambda *found: lines.extend(found))
    return lines


def follow(tmp_path, totals, **evaluations):
    """A watch that has seen losses, and what each iteration measured."""
    watch, history = Watch(tmp_path / "x.safetensors", FasterRCNNTrainingSettings(iterations=len(totals))), []
    for done, total in enumerate(totals, start=1):
        history.append({"loss_a": total / 2, "loss_b": total / 2, **evaluations.get(f"after_{done}", {})})
        watch(SimpleNamespace(classes=()), history)


@pytest.mark.parametrize(
    ("totals", "warned"),
    [
        (np.linspace(2, 1, 1000), False),
        (np.linspace(1, 2, 1000), True),
        (np.full(1000, 1.5), True),
        ([*np.linspace(1, 3, 150), *np.linspace(3, 0.5, 850)], False),  # it may rise in the beginning
        (np.linspace(1, 2, 90), False),  # so few tell nothing
    ],
)
def test_a_loss_that_does_not_fall(tmp_path, told, totals, warned):
    follow(tmp_path, totals)
    assert [line.partition(":")[2][:24] for line in told] == [" the loss is not falling"] * warned


@pytest.mark.parametrize(("done", "recall", "warned"), [(600, 0.29, True), (600, 0.3, False), (90, 0.0, False)])
def test_proposals_that_cover_nothing_after_the_warm_up(tmp_path, told, monkeypatch, done, recall, warned):
    """In the first tenth of the iterations nobody can expect much."""
    monkeypatch.setattr(Watch, "_draw_predictions", lambda *_: b"")
    monkeypatch.setattr("minircnn.weights.save", lambda *_: None)
    numbers = {"val_ap": 0.1, "val_ap50": 0.2, "val_recall": recall}
    follow(tmp_path, np.linspace(2, 1, 1000), **{f"after_{done}": numbers, "after_1000": numbers | {"val_recall": 1}})
    wanted = f"Warning: after {done} iterations proposals cover only {100 * recall:.0f} % of the objects"
    assert [line[: len(wanted)] for line in told] == [wanted][:warned]


def test_the_best_weights_are_kept_and_not_the_last(tmp_path, monkeypatch):
    kept = []
    monkeypatch.setattr(Watch, "_draw_predictions", lambda *_: b"")
    monkeypatch.setattr("minircnn.weights.save", lambda _, path, about: kept.append((path.name, about["iteration"])))
    scores = {2: 0.3, 4: 0.2, 6: 0.3, 8: 0.1}
    follow(tmp_path, [1.0] * 8, **{f"after_{done}": {"val_ap": ap, "val_ap50": ap} for done, ap in scores.items()})
    assert kept == [("x_best.safetensors", 2), ("x_best.safetensors", 6)]


def test_training_begins_with_a_file_on_a_pyramid(call, folder, tmp_path):
    """Of a residual network for images, whose early layers stay; what comes out may begin another training."""
    torch.manual_seed(0)
    path = write(tmp_path, resnet.ResNet(resnet.Bottleneck, [1, 1, 1, 1], num_classes=5))
    options = ("--iterations", 1, "--images-per-batch", 1, "--images", 2, "--min-size", 64)
    result = call("train", "faster_rcnn", *own(folder), *options, "--start", path, "--out", tmp_path / "a.safetensors")
    assert result.exit_code == 0, result.output
    about = json.loads((tmp_path / "a.json").read_text())
    assert about["network"]["blocks"] == [1, 1, 1, 1] and about["pretrained"]["file"] == "x.pth"
    assert [len(sizes) for sizes in about["rpn"]["anchor_sizes"]] == [1] * 5
    assert about["settings"]["learning_rate"] == 1e-4
    before, after = (
        starts.read_start(path, "faster_rcnn").network.state_dict(),
        load(tmp_path / "a.safetensors").backbone,
    )
    frozen = [name for name in before if name.startswith(("body.conv1", "body.layer1"))]
    assert frozen and all(torch.equal(before[name].half().float(), after.state_dict()[name]) for name in frozen)
    assert not torch.equal(before["body.layer4.0.conv1.weight"].half().float(), after.body.layer4[0].conv1.weight)
    more = ("--start", tmp_path / "a.safetensors", "--out", tmp_path / "b.safetensors")
    few = call("train", "faster_rcnn", *own(folder), *options, *more, "--anchor-sizes", "8,16")
    assert few.exit_code == 1 and "a pyramid has 5 levels with one each, but is given 8, 16" in few.stderr


def test_published_weights_are_not_for_all(call, folder, tmp_path):
    options = ("--start", "coco", "--out", tmp_path / "x.safetensors")
    result = call("train", "faster_rcnn", *own(folder), *options, "--from-scratch")
    assert result.exit_code == 2 and "--from-scratch: with --start coco nothing is random" in result.stderr
    result = call("train", "fast_rcnn", *own(folder), *options)
    assert result.exit_code == 2 and "Error: --start coco: there is no fast_rcnn trained on COCO" in result.stderr
