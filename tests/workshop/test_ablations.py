"""The ablations, run small, against the same steps taken directly; what is written, and the two on photographs."""

import json
from dataclasses import replace
from itertools import islice
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from torchvision.ops import box_iou

from minircnn.alexnet import LAYERS, load_alexnet
from minircnn.course.ablations import MASK_SHORT, anchors, read
from minircnn.datasets import ToyTown
from minircnn.evaluation import evaluate
from minircnn.fast_rcnn import load_fast_rcnn
from minircnn.faster_rcnn import load_faster_rcnn
from minircnn.mask_rcnn import TOY_TOWN_MASK_HEADS, binary_masks
from minircnn.training import train_mask_rcnn
from workshop import ablations
from workshop.ablations import ABLATIONS, Data, Detector, measure, run, with_svms

QUICK = {"iterations": 1, "images_per_batch": 2}


@pytest.fixture(scope="module")
def data():
    """Two images with every class, and for each proposals that are near its objects, and others."""
    train, generator = ToyTown("train"), torch.Generator().manual_seed(0)
    samples, proposals = [train[index] for index in range(6)], []
    for _, target in samples:
        start = torch.rand(15, 2, generator=generator) * 90
        anywhere = torch.cat([start, start + 10 + torch.rand(15, 2, generator=generator) * 25], dim=1)
        proposals.append(torch.cat([target["boxes"] + torch.tensor([1.0, -1, 2, 1]), anywhere]))
    return Data(samples, proposals, train.classes)


def small(name, **changes):
    ablation = ABLATIONS[name]
    settings = ablation.settings and replace(ablation.settings, **{**QUICK, **changes})
    return replace(ablation, settings=settings, seeds=1)


def figures(row, *names):
    return pytest.approx([row[name] for name in names or ("ap", "ap50", "ap75")], abs=1e-6)


def summary(found, data, **options):
    result = evaluate(found, [target for _, target in data.samples], classes=data.classes, **options)
    return [result.ap, result.ap50, result.ap75]


LABELS = {
    "rcnn": [(layer, tuned, False) for tuned in (False, True) for layer in LAYERS] + [("fc7", True, True)],
    "fast_rcnn": [
        *(("classes", "softmax", False), ("joint", "softmax", False), ("stages", "softmax", True)),
        *(("joint", "softmax", True), ("joint", "SVM", True)),
    ],
    "faster_rcnn": [
        *(("joint", 1, 3, 3), ("turns", 1, 3, 3), ("turns", 2, 3, 3)),
        *(("joint", 1, 1, 1), ("joint", 1, 1, 3), ("joint", 1, 3, 1)),
    ],
    "mask_rcnn": [
        *((stride, pooling, "sigmoid") for stride in (16, 8) for pooling in ("pool", "warp", "align")),
        (8, "align", "softmax"),
    ],
}


@pytest.mark.parametrize("name", LABELS)
def test_rows_are_those_of_the_papers_tables(name, data, monkeypatch):
    """One iteration of each training, and every row told as soon as it is there; the stored table has the same rows."""
    said, ablation = [], small(name)
    monkeypatch.setattr(ablations, "measure", lambda detector, test, masks: {"ap": 0.5})
    rows = run(ablation, data, data, report=said.append)
    first = "seed" in rows[0]
    assert first == (name != "rcnn") and {row.get("seed", 0) for row in rows} == {0}
    found = [tuple(row.values())[first:-2] for row in rows]
    assert found == LABELS[name]
    assert len(said) == len(rows) and all("ap 50.0" in line for line in said)
    record = read(f"{name}_ablation")
    assert (record["training_images"], record["test_images"]) == (1000, 200)
    stored = [tuple(vars(row).values())[first : first + len(found[0])] for row in record["rows"]]
    if name == "faster_rcnn":  # that has 1000 batches for 1
        stored = [(way, batches // 1000, *kinds) for way, batches, *kinds in stored]
    assert stored == LABELS[name] * ABLATIONS[name].seeds


def test_a_row_is_the_training_that_it_names(data):
    settings = replace(MASK_SHORT, **QUICK, seed=1)
    _, warp = islice(ABLATIONS["mask_rcnn"].detectors(data, settings), 2)
    network = load_alexnet(ablations.SMALL_STRIDE_16_WEIGHTS)
    heads = replace(TOY_TOWN_MASK_HEADS, pool_size=network.config.pool5_size, pooling="warp", mask_kind="sigmoid")
    options = {"rpn": anchors(3, 3), "heads": heads, "quiet": True}
    model, _ = train_mask_rcnn(network, data.samples, data.classes, settings, **options)
    found = [binary_masks(model.detect([image])[0]) for image, _ in data.samples]
    row = measure(warp, data, masks=True)
    assert figures(row, "box_ap", "box_ap50", "box_ap75") == summary(found, data)
    assert figures(row, "mask_ap", "mask_ap50", "mask_ap75") == summary(found, data, kind="masks")


def test_recall_is_counted(data):
    model = load_faster_rcnn()
    detector = Detector({}, lambda image, _: model.detect([image])[0], lambda image: model.propose([image])[0]["boxes"])
    overlaps = [box_iou(target["boxes"], model.propose([image])[0]["boxes"]) for image, target in data.samples]
    covered = torch.cat([iou.amax(dim=1) >= 0.5 for iou in overlaps])
    row = measure(detector, data, masks=False)
    assert row["recall"] == pytest.approx(covered.double().mean().item()) and row["recall"] > 0.5
    assert figures(row) == summary(model.detect([image for image, _ in data.samples]), data)


def test_svms_find_the_objects_that_they_learned_from(data):
    """On proposals that are the objects themselves, and on features of a detector that knows them."""
    detect = with_svms(load_fast_rcnn(), data)
    correct = []
    for image, target in data.samples:
        found = detect(image, target["boxes"])
        near = torch.cdist(target["boxes"], found["boxes"], p=torch.inf)  # (G, D)
        mine = near == near.amin(dim=0)
        best = torch.where(mine, found["scores"], -torch.inf).argmax(dim=1)
        correct += ((found["labels"][best] == target["labels"]) & mine.any(dim=1)).tolist()
    assert sum(correct) >= 0.85 * len(correct)


def written(tmp_path, *words):
    """What a command writes."""
    out = tmp_path / "x.json"
    ablations.main([*words, "--out", str(out)])
    return json.loads(out.read_text())


def test_trained_and_random_convolutions_are_measured_alike(tmp_path, monkeypatch):
    """What is run, what is made of what ``minircnn evaluate rcnn --json`` writes, and a failure that is one line."""
    commands = []

    def option(command, name):
        return command[command.index(name) + 1]

    def minircnn(words, check):
        command = words[3:]
        commands.append(command)
        if command[0] == "evaluate":
            ap50 = 0.25 if "trained" in option(command, "--weights") else 0.05
            ap50 -= 0.01 * ("--no-regression" in command)
            result = {"ap": ap50 / 4, "ap50": ap50, "classes": [{"objects": 100}, {"objects": 9}]}
            recall = {"iou": 0.5, "recall": {"10": 0.1, "50": 0.3, "500": 0.67}}
            figures = {"images": 40, "result": result, "proposal_recall": recall}
            Path(option(command, "--json")).write_text(json.dumps(figures))

    words = ["rcnn_2014", "--root", "p", "--annotations", "a.json", "--network", "n.npz", "--max-proposals", "7"]
    with monkeypatch.context() as patch, pytest.raises(SystemExit, match=r"^Error: no space$"):
        patch.setattr(ablations.subprocess, "run", Mock(side_effect=OSError("no space")))
        written(tmp_path, *words)
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(ablations.subprocess, "run", minircnn)
    record = written(tmp_path, *words)
    assert [command[:2] for command in commands] == [["train", "rcnn"], *[["evaluate", "rcnn"]] * 2] * 2
    for command in commands:
        given = [option(command, f"--{name}") for name in ("data", "root", "annotations", "classes", "max-proposals")]
        assert given == ["coco", "p", "a.json", "person", "7"]
    trainings = commands[::3]
    assert [option(command, "--network") for command in trainings] == ["n.npz", "n.npz"]
    assert ["--from-scratch" in command for command in trainings] == [False, True]
    for training, *measurings in zip(trainings, commands[1::3], commands[2::3], strict=True):
        assert {option(one, "--weights") for one in measurings} == {option(training, "--out")}
    assert record["class"] == "person" and record["max_proposals"] == 7
    rows = [(row["start"], row["ap50"], row["ap50_without"]) for row in record["rows"]]
    assert rows == [("trained", 0.25, 0.24), ("random", 0.05, pytest.approx(0.04))]
    assert {(row["objects"], row["images"], row["recall"]) for row in record["rows"]} == {(109, 40, 0.67)}
    trained, untrained = read("rcnn_2014")["rows"]  # what the record in data/results says
    assert vars(trained).keys() == record["rows"][0].keys()
    assert trained.ap50 > 3 * untrained.ap50 > 0 and trained.objects == untrained.objects > 0
