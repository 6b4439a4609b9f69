"""The ablations, run small, against the same steps taken directly; what is written, and the two on photographs."""

from dataclasses import replace
from itertools import islice

import pytest
import torch
from torchvision.ops import box_iou

from minircnn.alexnet import LAYERS, load_alexnet
from minircnn.course.ablations import MASK_SHORT, anchors, read
from minircnn.datasets import ToyTown
from minircnn.evaluation import evaluate
from minircnn.faster_rcnn import load_faster_rcnn
from minircnn.mask_rcnn import TOY_TOWN_MASK_HEADS, binary_masks
from minircnn.training import train_mask_rcnn
from workshop import ablations
from workshop.ablations import ABLATIONS, Data, Detector, measure, run

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
    said, settings = [], ABLATIONS[name].settings
    ablation = replace(ABLATIONS[name], settings=settings and replace(settings, **QUICK), seeds=1)
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


def test_trained_convolutions_find_what_random_ones_do_not():
    """As the record in data/results says."""
    trained, untrained = read("rcnn_2014")["rows"]
    assert trained.ap50 > 3 * untrained.ap50 > 0 and trained.objects == untrained.objects > 0
