"""COCO's protocol: every number equal to pycocotools', on detections made to find differences."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minircnn.course.compare import encode_masks, for_pycocotools, largest_difference, run_pycocotools
from minircnn.datasets import CocoDataset, ToyTown
from minircnn.datasets.coco import decode_masks
from minircnn.evaluation import evaluate
from workshop.benchmarks.evaluation import random_detections, random_targets

TOLERANCE = 1e-9


def compare(detections, targets, kind, num_classes):
    """Our result and pycocotools', after checking that all arrays and the twelve numbers agree."""
    names = ["background", *(f"thing {label}" for label in range(1, num_classes + 1))]
    ours = evaluate(detections, targets, kind=kind, classes=names)
    theirs = run_pycocotools(*for_pycocotools(detections, targets, kind, num_classes), kind)
    assert ours.precision.shape == theirs.eval["precision"].shape
    assert largest_difference(ours, theirs) <= TOLERANCE
    return ours, theirs


@pytest.mark.parametrize("kind", ["boxes", "masks"])
@pytest.mark.parametrize(("seed", "size", "crowds"), [(0, (128, 128), 0.0), (1, (128, 128), 0.2), (2, (300, 260), 0.1)])
def test_random_detections(kind, seed, size, crowds):
    targets = random_targets(40, size, num_classes=6, seed=seed, crowd_fraction=crowds)
    detections = random_detections(targets, num_classes=6, seed=seed)
    ours, _ = compare(detections, encode_masks(targets), kind, num_classes=6)
    # The comparison says something only if there is something to compare.
    assert 0.05 < ours.ap < 0.9
    assert 0 < ours.ap_small != ours.ap_medium > 0
    assert ours.ar_1 < ours.ar_10 < ours.ar_100
    assert (ours.ap_large > 0) == (size != (128, 128))
    counts = [(d["labels"] == 1).sum() for d in detections]
    assert max(counts) > 100
    assert len(torch.cat([d["scores"] for d in detections]).unique()) <= 51


@pytest.mark.parametrize("kind", ["boxes", "masks"])
def test_toy_town(kind):
    dataset = ToyTown("val")
    targets = [dataset.load_target(i) for i in range(len(dataset))]
    detections = random_detections(targets, num_classes=6, seed=7, noise=4)
    ours, _ = compare(detections, encode_masks(targets), kind, num_classes=6)
    assert ours.per_class.keys() == set(range(1, 7))
    assert 0.05 < ours.ap < 0.9
    assert min(ours.ap_small, ours.ap_medium) > 0


@pytest.mark.parametrize("kind", ["boxes", "masks"])
def test_coco_photographs_with_crowds(real_data, kind):
    root = real_data / "coco-mini"
    dataset = CocoDataset(root / "images", root / "instances.json", masks=kind == "masks")
    indices = range(len(dataset))
    if kind == "masks":  # all pictures with a crowd and a few more: random masks of 200 pictures take long to make
        boxes_only = CocoDataset(root / "images", root / "instances.json", masks=False)
        crowds = [bool(boxes_only.load_target(i)["iscrowd"].any()) for i in indices]
        indices = [i for i in indices if crowds[i]] + [i for i in indices if not crowds[i]][:6]
    targets = [dataset.load_target(i) for i in indices]
    assert sum(int(target["iscrowd"].sum()) for target in targets) == 23
    num_classes = len(dataset.classes) - 1
    detections = random_detections(targets, num_classes, seed=3, noise=4, masks=kind == "masks")
    ours, _ = compare(detections, encode_masks(targets) if kind == "masks" else targets, kind, num_classes)
    assert 0.05 < ours.ap < 0.9
    assert min(ours.ap_small, ours.ap_medium, ours.ap_large) > 0


# Corners on a coarse grid: equal IoUs, IoUs that equal a threshold, boxes without area, areas of 32² and 96².
corner = st.sampled_from([0, 8, 16, 24, 32, 96, 128])
box = st.tuples(corner, corner, corner, corner).map(
    lambda c: [min(c[0], c[2]), min(c[1], c[3]), max(c[0], c[2]), max(c[1], c[3])]
)
found = st.tuples(box, st.integers(1, 2), st.sampled_from([0.0, 0.25, 0.5, 1.0]))
wanted = st.tuples(box, st.integers(1, 2), st.booleans())
image = st.tuples(st.lists(found, max_size=8), st.lists(wanted, max_size=5))


def as_tensors(images):
    detections, targets = [], []
    for found_here, wanted_here in images:
        boxes, labels, scores = zip(*found_here, strict=True) if found_here else ([], [], [])
        detections.append(
            {
                "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
                "labels": torch.tensor(labels, dtype=torch.int64),
                "scores": torch.tensor(scores),
            }
        )
        boxes, labels, crowds = zip(*wanted_here, strict=True) if wanted_here else ([], [], [])
        boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
        targets.append(
            {
                "boxes": boxes,
                "labels": torch.tensor(labels, dtype=torch.int64),
                "iscrowd": torch.tensor(crowds, dtype=torch.bool),
                "area": (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]),
            }
        )
    return detections, targets


@settings(max_examples=80)
@given(st.lists(image, min_size=1, max_size=3))
def test_any_small_set(images):
    compare(*as_tensors(images), "boxes", num_classes=2)


def test_no_detection_at_all_is_zero():
    targets = random_targets(5, (64, 64), num_classes=2, seed=0)
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64), "scores": torch.zeros(0)}
    ours, theirs = compare([nothing] * 5, targets, "boxes", num_classes=2)
    assert ours.ap == ours.ar_100 == theirs.stats[0] == 0


def test_no_object_at_all_is_nan_where_pycocotools_has_minus_one():
    nothing = {
        "boxes": torch.zeros(0, 4),
        "labels": torch.zeros(0, dtype=torch.int64),
        "iscrowd": torch.zeros(0, dtype=torch.bool),
        "area": torch.zeros(0),
    }
    detections = random_detections(random_targets(4, (64, 64), 2), num_classes=2, masks=False)
    ours, theirs = compare(detections, [nothing] * 4, "boxes", num_classes=2)
    assert all(np.isnan(value) for value in ours.summary().values())
    assert (theirs.stats == -1).all()


def test_only_crowds_count_as_no_object():
    targets = random_targets(4, (64, 64), 2, crowd_fraction=1.0)
    detections = random_detections(targets, 2)
    ours, _ = compare(detections, encode_masks(targets), "masks", num_classes=2)
    assert np.isnan(ours.ap)


def test_the_size_of_an_object_is_its_annotation_and_of_a_detection_its_own():
    box = torch.tensor([[0.0, 0.0, 40.0, 40.0]])  # 1600: medium as a box
    target = {
        "boxes": box,
        "labels": torch.tensor([1]),
        "area": torch.tensor([900.0]),
        "iscrowd": torch.tensor([False]),
    }
    # Missed by a small box and a medium one: each is wrong only among its own size.
    boxes = torch.tensor([[50.0, 50.0, 60.0, 60.0], [50.0, 50.0, 90.0, 90.0], [0.0, 0.0, 40.0, 40.0]])
    found = {"boxes": boxes, "labels": torch.ones(3, dtype=torch.int64), "scores": torch.tensor([0.9, 0.8, 0.7])}
    ours, _ = compare([found], [target], "boxes", num_classes=1)
    assert ours.ap == pytest.approx(1 / 3)
    assert ours.ap_small == pytest.approx(1 / 2)
    assert np.isnan(ours.ap_medium)


def test_a_crowd_forgives_many_detections_inside_it():
    crowd = torch.tensor([[0.0, 0.0, 100.0, 100.0], [200.0, 0.0, 220.0, 20.0]])
    target = {
        "boxes": crowd,
        "labels": torch.tensor([1, 1]),
        "iscrowd": torch.tensor([True, False]),
        "area": torch.tensor([10000.0, 400.0]),
    }
    inside = [[10.0 * n, 10.0, 10.0 * n + 9, 30.0] for n in range(5)]
    boxes = torch.tensor([*inside, [200.0, 0.0, 220.0, 20.0]])
    found = {"boxes": boxes, "labels": torch.ones(6, dtype=torch.int64), "scores": torch.linspace(0.9, 0.4, 6)}
    ours, _ = compare([found], [target], "boxes", num_classes=1)
    assert ours.ap == 1.0
    not_a_crowd = {**target, "iscrowd": torch.tensor([False, False])}
    assert evaluate([found], [not_a_crowd]).ap == pytest.approx(0.5 / 6, abs=0.01)


@pytest.mark.parametrize(("order", "expected"), [([0, 1], 1.0), ([1, 0], 51 / 101)])
def test_of_equally_overlapped_objects_the_last_is_taken(order, expected):
    """The first detection fits both objects equally; only the left one would do for the second detection."""
    objects = torch.tensor([[0.0, 0.0, 10.0, 10.0], [2.0, 0.0, 12.0, 10.0]])[order]
    target = {
        "boxes": objects,
        "labels": torch.tensor([1, 1]),
        "iscrowd": torch.tensor([False, False]),
        "area": torch.tensor([100.0, 100.0]),
    }
    boxes = torch.tensor([[1.0, 0.0, 11.0, 10.0], [-3.0, 0.0, 7.0, 10.0]])
    found = {"boxes": boxes, "labels": torch.tensor([1, 1]), "scores": torch.tensor([0.9, 0.8])}
    ours, _ = compare([found], [target], "boxes", num_classes=1)
    assert ours.ap50 == pytest.approx(expected)


def one_object():
    """A box, and the target of a picture that holds just this."""
    box = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    flags = {"area": torch.tensor([100.0]), "iscrowd": torch.tensor([False])}
    return box, {"boxes": box, "labels": torch.tensor([1]), **flags}


def test_equal_scores_keep_the_order_of_the_images():
    """Right in the first image, wrong in the second: precision is 1 at the top only in this order."""
    box, target = one_object()
    right = {"boxes": box, "labels": torch.tensor([1]), "scores": torch.tensor([0.5])}
    wrong = {**right, "boxes": box + 50}
    ours, _ = compare([right, wrong], [target, target], "boxes", num_classes=1)
    assert ours.ap == pytest.approx(51 / 101)
    ours, _ = compare([wrong, right], [target, target], "boxes", num_classes=1)
    assert ours.ap == pytest.approx(51 / 101 / 2)


def test_pycocotools_loses_an_object_with_id_zero_and_we_do_not():
    """The one place where we differ on purpose; see the docstring of evaluate."""
    box, target = one_object()
    found = {"boxes": box, "labels": torch.tensor([1]), "scores": torch.tensor([0.5])}
    truth, results = for_pycocotools([found], [target], "boxes", 1)
    truth.dataset["annotations"][0]["id"] = 0
    truth.createIndex()
    assert run_pycocotools(truth, results, "boxes").stats[0] == 0
    assert evaluate([found], [target]).ap == 1


def test_masks_as_pixels_as_runs_and_as_plain_numbers_are_the_same():
    targets = random_targets(6, (60, 40), num_classes=2, seed=4)
    detections = random_detections(targets, num_classes=2, seed=4, noise=2)
    as_pixels = [{**d, "masks": decode_masks(d["masks"], (60, 40))} for d in detections]
    as_numbers = [{**t, "masks": [plain_runs(mask.numpy()) for mask in t["masks"]]} for t in targets]
    expected = evaluate(detections, encode_masks(targets), kind="masks").summary()
    assert expected["ap"] > 0.05
    assert evaluate(as_pixels, targets, kind="masks").summary() == pytest.approx(expected, nan_ok=True)
    assert evaluate(as_pixels, as_numbers, kind="masks").summary() == pytest.approx(expected, nan_ok=True)


def plain_runs(mask):
    """COCO's uncompressed runs: lengths of zeros, ones, zeros … down the columns."""
    pixels = mask.T.reshape(-1)
    borders = np.flatnonzero(np.diff(pixels)) + 1
    runs = np.diff(np.concatenate([[0], borders, [len(pixels)]])).tolist()
    return {"size": list(mask.shape), "counts": [0, *runs] if pixels[0] else runs}
