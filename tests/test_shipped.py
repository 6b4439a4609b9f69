"""The weights and results that come with the project are what their JSON files say, and do what is said of them."""

import json

import pytest

from minircnn.alexnet import SMALL_STRIDE_16_WEIGHTS, SMALL_WEIGHTS, load_alexnet
from minircnn.cache import Cache
from minircnn.course.one_object import accuracy, one_object_images
from minircnn.datasets import ToyTown
from minircnn.evaluation import evaluate, proposal_recall
from minircnn.fast_rcnn import FAST_RCNN_WEIGHTS, load_fast_rcnn
from minircnn.faster_rcnn import FASTER_RCNN_WEIGHTS, load_faster_rcnn
from minircnn.mask_rcnn import MASK_RCNN_WEIGHTS, binary_masks, load_mask_rcnn
from minircnn.rcnn import RCNN_WEIGHTS, load_rcnn
from minircnn.selective_search import stored_proposals
from minircnn.weights import WEIGHTS_FOLDER, load_weights

MEGABYTE = 1_000_000
FILES = sorted(WEIGHTS_FOLDER.glob("*.safetensors"))


def test_the_data_folder_stays_small():
    sizes = [path.stat().st_size for path in WEIGHTS_FOLDER.parent.rglob("*") if path.is_file()]
    assert max(sizes) < 20 * MEGABYTE and sum(sizes) < 60 * MEGABYTE


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_file_is_the_one_that_its_json_describes(path):
    _, about = load_weights(path)  # compares the checksum
    assert about["command"].startswith(("minircnn train ", "python -m workshop.pretraining "))
    assert about["command"].split("--out ")[1].split()[0] == f"data/weights/{path.name}"
    card = (WEIGHTS_FOLDER.parent / "README.md").read_text(encoding="utf-8")
    assert f"`weights/{path.stem}`" in card, "the data card lists every file"


def test_no_file_without_its_partner():
    names = {path.stem for path in FILES}
    assert names == {path.stem for path in WEIGHTS_FOLDER.glob("*.json")}
    detectors = {RCNN_WEIGHTS, FAST_RCNN_WEIGHTS, FASTER_RCNN_WEIGHTS, MASK_RCNN_WEIGHTS}
    shipped = {SMALL_WEIGHTS, SMALL_STRIDE_16_WEIGHTS, *detectors}
    assert {path.stem for path in shipped} <= names


@pytest.mark.parametrize("path", [SMALL_WEIGHTS, SMALL_STRIDE_16_WEIGHTS], ids=lambda path: path.stem)
def test_the_alexnets_classify_what_they_have_never_seen(path):
    stated = json.loads(path.with_suffix(".json").read_text())["held_out_accuracy"]
    reached = accuracy(load_alexnet(path), *one_object_images("val"))
    # 500 of the 2000: a standard error of at most 1.4 points.
    assert reached.subtypes == pytest.approx(stated["subtypes"], abs=0.05)
    assert reached.classes == pytest.approx(stated["classes"], abs=0.03)
    assert reached.subtypes > 0.85 and reached.classes > 0.95


@pytest.mark.parametrize(("load", "ap50"), [(load_rcnn, 0.60), (load_fast_rcnn, 0.72)])
def test_detectors_on_proposals_reach_their_targets_on_test_pictures(load, ap50, tmp_path):
    test = ToyTown("test", masks=False)
    samples = [test[i] for i in range(30)]  # worth a few points more or less than all 200
    proposals = stored_proposals(samples, cache=Cache(tmp_path), max_proposals=300)
    model = load()
    images, targets = zip(*samples, strict=True)
    moved, plain = (evaluate(model.detect(images, proposals, regress=r), targets) for r in (True, False))
    assert moved.ap50 >= ap50
    assert moved.ap75 > plain.ap75 + 0.05


def test_faster_rcnn_finds_more_with_its_own_proposals():
    test = ToyTown("test", masks=False)
    images, targets = zip(*(test[i] for i in range(60)), strict=True)
    model = load_faster_rcnn()
    result = evaluate([model.detect([image])[0] for image in images], targets, classes=test.classes)
    assert result.ap50 >= 0.78 and result.ap >= 0.45  # 0.85 and 0.54 on all 200 pictures
    proposals = [model.propose([image])[0]["boxes"] for image in images]
    assert max(map(len, proposals)) <= 60
    assert proposal_recall(proposals, targets, 0.5, [60])[0] >= 0.92


def test_mask_rcnn_outlines_what_it_finds():
    test = ToyTown("test")
    images, targets = zip(*(test[i] for i in range(60)), strict=True)
    model = load_mask_rcnn()
    found = [binary_masks(model.detect([image])[0]) for image in images]
    boxes, masks = (evaluate(found, targets, classes=test.classes, kind=kind) for kind in ("boxes", "masks"))
    assert boxes.ap >= 0.53 and masks.ap >= 0.44 and masks.ap50 >= 0.77  # 0.61, 0.53 and 0.84 on all 200
