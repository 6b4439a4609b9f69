"""What comes out of an evaluation, and what must not go in."""

import dataclasses
from itertools import product

import numpy as np
import pytest
import torch

from minircnn.evaluation import evaluate
from minircnn.evaluation.curves import RECALLS_VOC2007, average_at_points
from workshop.benchmarks.evaluation import random_detections, random_targets

NAMES = ["background", "person", "car", "zeppelin"]


@pytest.fixture(scope="module")
def images():
    targets = random_targets(25, (128, 128), num_classes=2, seed=9)
    return random_detections(targets, num_classes=2, seed=9, masks=False), targets


def test_a_curve_holds_what_its_average_was_made_from(images):
    result = evaluate(*images, protocol="voc2007", classes=NAMES)
    curve = result.curve(1)
    assert (curve.name, curve.iou_threshold) == ("person", 0.5)
    assert curve.average_precision == result.per_class[1].ap50
    assert average_at_points(curve.precision, curve.recall, RECALLS_VOC2007) == curve.average_precision
    assert curve.interpolated.mean() == pytest.approx(curve.average_precision)
    assert len(curve.recall) == len(curve.precision) == len(curve.scores) == result.per_class[1].detections
    assert (np.diff(curve.scores) <= 0).all()
    assert (np.diff(curve.recall) >= 0).all()
    assert curve.recall[-1] == pytest.approx(result.per_class[1].recall)


def test_cocos_curve_is_the_one_in_its_arrays(images):
    result = evaluate(*images, classes=NAMES)
    for (t, threshold), k in product(enumerate(result.iou_thresholds), range(2)):
        curve = result.curve(k + 1, threshold)
        np.testing.assert_array_equal(curve.interpolated, result.precision[t, :, k, 0, -1])
    # Only the best 100 of a picture are part of the curve.
    assert len(curve.scores) == result.per_class[2].detections
    assert result.per_class[1].detections < evaluate(*images, protocol="voc2010").per_class[1].detections
    assert [curve.label for curve in result.curves(0.75)] == [1, 2]  # nobody has seen a zeppelin


def test_the_curve_leaves_ignored_detections_out():
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [50.0, 50.0, 90.0, 90.0]])
    target = {"boxes": boxes, "labels": torch.tensor([1, 1]), "iscrowd": torch.tensor([False, True])}
    found = {"boxes": boxes.flip(0), "labels": torch.tensor([1, 1]), "scores": torch.tensor([0.9, 0.8])}
    curve = evaluate([found], [target]).curve(1)
    assert curve.scores.tolist() == pytest.approx([0.8])
    assert curve.precision.tolist() == curve.recall.tolist() == [1.0]


def test_asking_for_a_curve_that_is_not_there(images):
    result = evaluate(*images, classes=NAMES)
    with pytest.raises(ValueError, match="label 4"):
        result.curve(4)
    with pytest.raises(ValueError, match=r"0\.42.*0\.5, 0\.55"):
        result.curve(1, 0.42)


def test_the_table_names_the_classes_and_shows_their_figures(images):
    result = evaluate(*images, classes=NAMES)
    lines = result.table().splitlines()
    assert [line.split()[0] for line in lines] == ["class", "person", "car", "zeppelin", "mean"]
    row = result.per_class[1]
    figures = [f"{100 * value:.1f}" for value in (row.ap, row.ap50, row.ap75, row.recall)]
    assert lines[1].split() == ["person", str(row.objects), str(row.detections), *figures]
    assert lines[3].split() == ["zeppelin", "0", "0", "–", "–", "–", "–"]
    assert f"ap50 {100 * result.ap50:.1f}" in str(result)
    assert "nan" not in str(result)
    assert len({len(line) for line in lines}) == 1


def test_names_keep_the_table_in_its_rows(images):
    result = evaluate(*images, classes=["background", "per\nson", "c\x1b[31mar", "zeppelin"])
    assert [line.split()[0] for line in result.table().splitlines()] == [
        "class",
        "per?son",
        "c?[31mar",
        "zeppelin",
        "mean",
    ]


def test_a_class_without_objects_does_not_count_in_the_mean(images):
    result = evaluate(*images, classes=NAMES)
    assert result.ap == pytest.approx((result.per_class[1].ap + result.per_class[2].ap) / 2)
    assert evaluate(*images).ap == result.ap


def test_the_result_is_frozen(images):
    with pytest.raises(dataclasses.FrozenInstanceError):
        evaluate(*images).ap = 1.0


def test_no_images_at_all():
    result = evaluate([], [])
    assert np.isnan(result.ap)
    assert result.per_class == {}
    assert evaluate([], [], kind="masks", classes=NAMES).per_class[1].objects == 0


def test_the_data_set_counts_and_not_the_image():
    """Pitfall: the mean over images of each image's average precision is another number."""
    box = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    target = {"boxes": box, "labels": torch.tensor([1])}
    sure = {"boxes": torch.cat([box + 50, box]), "labels": torch.tensor([1, 1]), "scores": torch.tensor([0.9, 0.8])}
    unsure = {"boxes": box, "labels": torch.tensor([1]), "scores": torch.tensor([0.3])}
    of_images = [evaluate([found], [target], protocol="voc2010").ap for found in (sure, unsure)]
    assert of_images == [0.5, 1.0]
    for order in ([sure, unsure], [unsure, sure]):  # scores rank all detections, wherever they were made
        assert evaluate(order, [target, target], protocol="voc2010").ap == pytest.approx(2 / 3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_any_precision_and_gradients_and_order(images, dtype):
    detections, targets = images
    expected = evaluate(detections, targets)
    cast = [{**d, "boxes": d["boxes"].double().requires_grad_(), "scores": d["scores"].to(dtype)} for d in detections]
    assert evaluate(cast, targets).ap == pytest.approx(expected.ap, abs=1e-3)


def good():
    box = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    found = {"boxes": box, "labels": torch.tensor([1]), "scores": torch.tensor([0.5])}
    # Two detections in the first image: the second image's only one is the third of all.
    two = {key: values.repeat_interleave(2, dim=0) for key, values in found.items()}
    return [two, found], [{"boxes": box, "labels": torch.tensor([1])} for _ in range(2)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": torch.tensor([float("nan")])}, r"detections\[1\]: a score is nan"),
        ({"scores": torch.tensor([0.5, 0.4])}, r"detections\[1\] has 1 labels but scores of shape \(2,\)"),
        ({"labels": torch.tensor([0])}, r"detections\[1\]: label 0"),
        ({"labels": torch.tensor([1.7])}, r"detections\[1\]: labels must be whole numbers, but are float"),
        ({"labels": torch.tensor([1, 1])}, r"detections\[1\] has 1 boxes but 2 labels"),
        ({"boxes": torch.tensor([[10.0, 0.0, 0.0, 10.0]])}, r"detections\[1\]: box \[10\.0"),
        ({"boxes": torch.tensor([[0.0, 0.0, float("inf"), 10.0]])}, r"detections\[1\]: box .*must be finite"),
        ({"boxes": torch.zeros(1, 5)}, r"detections\[1\]: boxes must have shape \(N, 4\)"),
        ({"scores": None}, None),
    ],
)
def test_bad_detections_are_named_with_their_image(change, message):
    detections, targets = good()
    if message is None:
        del detections[1]["scores"]
        message = r'detections\[1\] must have "scores"'
    else:
        detections[1].update(change)
    with pytest.raises(ValueError, match=message):
        evaluate(detections, targets)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"iscrowd": torch.tensor([True, False])}, r"targets\[0\]: there are boxes for 1 objects, but iscrowd for 2"),
        ({"area": torch.zeros(0)}, r"targets\[0\] has 1 labels but area of shape \(0,\)"),
        ({"labels": torch.tensor([-1])}, r"targets\[0\]: labels\[0\] is -1"),
        ({"area": torch.tensor([float("nan")])}, r"targets\[0\]: area nan must be a finite number"),
    ],
)
def test_bad_targets_are_named_with_their_image(change, message):
    detections, targets = good()
    targets[0].update(change)
    with pytest.raises(ValueError, match=message):
        evaluate(detections, targets)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "polygons"}, "polygons"),
        ({"protocol": "voc2012"}, "voc2012"),
        ({"iou_thresholds": [0.5, 1.5]}, "iou_thresholds"),
        ({"iou_thresholds": []}, "iou_thresholds"),
        ({"classes": ["person", "car"]}, "background"),
        ({"classes": ["background"]}, "label 1 has no name"),
        ({"kind": "masks"}, r'detections\[0\] must be a dict with "masks"'),
    ],
)
def test_bad_settings_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        evaluate(*good(), **arguments)


def test_lists_of_different_length():
    detections, targets = good()
    with pytest.raises(ValueError, match="2 and 1"):
        evaluate(detections, targets[:1])


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        (torch.rand(1, 8, 8), "compare probabilities with 0.5 first"),
        (torch.ones(1, 1, 8, 8, dtype=torch.bool), r"shape \(1, 1, 8, 8\)"),
        (
            torch.ones(1, 9, 8, dtype=torch.bool),
            r"image 0: masks of different \(height, width\): \[\(8, 8\), \(9, 8\)\]",
        ),
        (torch.ones(2, 8, 8, dtype=torch.bool), r"detections\[0\] has 2 masks but 1 labels"),
        ([{"size": [8, 8]}], r"detections\[0\]: mask 0"),
        # Without a look at them, pycocotools computes overlaps of these for ever.
        ([{"size": [8, 8], "counts": [0, 40]}], r"detections\[0\]: mask 0: its runs cover 40 pixels"),
        ([{"size": [8, 8], "counts": [90, -26]}], r"detections\[0\]: mask 0: its runs cover 64 pixels"),
        ([{"size": [8, 8], "counts": b"04"}], r"detections\[0\]: mask 0: its runs cover 4 pixels"),
        ([{"size": [8, 8], "counts": b"rubbish"}], r"detections\[0\]: mask 0: its run-length string has a character"),
    ],
)
def test_bad_masks_are_named(masks, message):
    target = {"masks": torch.ones(1, 8, 8, dtype=torch.bool), "labels": torch.tensor([1])}
    found = {"masks": masks, "labels": torch.tensor([1]), "scores": torch.tensor([0.5])}
    with pytest.raises(ValueError, match=message):
        evaluate([found], [target], kind="masks")


def test_true_and_false_as_scores_rank_like_one_and_zero():
    detections, targets = good()
    for detection in detections:
        detection["scores"] = torch.ones(len(detection["labels"]), dtype=torch.bool)
    assert evaluate(detections, targets).ap50 == pytest.approx(evaluate(*good()).ap50)
