"""PASCAL VOC's protocol against its devkit's loop, written out slowly, and against values worked by hand."""

import numpy as np
import pytest
import torch

from minircnn.evaluation import evaluate
from workshop.benchmarks.evaluation import random_detections, random_targets


def devkit(detections, targets, label, threshold, pixels=0):
    """VOCevaldet.m, line by line: (true positives, false positives, number of objects), best detection first.

    ``pixels=1`` measures lengths as the devkit does, ``x2 - x1 + 1``.
    """
    positives = sum(int(((target["labels"] == label) & ~target["difficult"]).sum()) for target in targets)
    rows, taken = [], set()
    for i, detection in enumerate(detections):
        for box, its_label, score in zip(*(detection[k].tolist() for k in ("boxes", "labels", "scores")), strict=True):
            if its_label == label:
                rows.append((-score, i, box))
    rows.sort(key=lambda row: row[0])
    right, wrong = np.zeros(len(rows)), np.zeros(len(rows))
    for d, (_, i, a) in enumerate(rows):
        best, best_j = -np.inf, None
        for j, (b, its_label) in enumerate(
            zip(targets[i]["boxes"].tolist(), targets[i]["labels"].tolist(), strict=True)
        ):
            width = min(a[2], b[2]) - max(a[0], b[0]) + pixels
            height = min(a[3], b[3]) - max(a[1], b[1]) + pixels
            if its_label == label and width > 0 and height > 0:
                union = area(a, pixels) + area(b, pixels) - width * height
                if width * height / union > best:
                    best, best_j = width * height / union, j
        if best >= threshold:
            if not targets[i]["difficult"][best_j]:
                right[d], wrong[d] = (1, 0) if (i, best_j) not in taken else (0, 1)
                taken.add((i, best_j))
        else:
            wrong[d] = 1
    return right.cumsum(), wrong.cumsum(), positives


def area(box, pixels):
    return (box[2] - box[0] + pixels) * (box[3] - box[1] + pixels)


def devkit_ap(right, wrong, positives, protocol):
    with np.errstate(invalid="ignore"):  # 0 / 0 where the first detections are ignored, as in MATLAB
        recall, precision = right / positives, right / (right + wrong)
    if protocol == "voc2007":
        points = [i / 10 for i in range(11)]
        reached = [precision[(recall >= t) & ~np.isnan(precision)] for t in points]
        return sum(p.max() if len(p) else 0.0 for p in reached) / 11
    recall = np.concatenate([[0], recall, [1]])
    precision = np.concatenate([[0], np.nan_to_num(precision), [0]])
    for i in range(len(precision) - 2, -1, -1):
        precision[i] = max(precision[i], precision[i + 1])
    steps = np.flatnonzero(recall[1:] != recall[:-1]) + 1
    return ((recall[steps] - recall[steps - 1]) * precision[steps]).sum()


def difficult_set(seed):
    targets = random_targets(30, (128, 128), num_classes=3, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for target in targets:
        target["difficult"] = torch.rand(len(target["labels"]), generator=generator) < 0.25
    return random_detections(targets, num_classes=3, seed=seed, masks=False), targets


@pytest.mark.parametrize("protocol", ["voc2007", "voc2010"])
@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.75])
def test_equals_the_devkit_with_difficult_objects(protocol, threshold):
    detections, targets = difficult_set(seed=5)
    ours = evaluate(detections, targets, protocol=protocol, iou_thresholds=[threshold])
    expected = [devkit_ap(*devkit(detections, targets, label, threshold), protocol) for label in (1, 2, 3)]
    assert [row.ap for row in ours.per_class.values()] == pytest.approx(expected, abs=1e-12)
    assert ours.ap == pytest.approx(np.mean(expected), abs=1e-12)
    assert 0.02 < ours.ap < 0.9
    assert any(target["difficult"].any() for target in targets)


def test_equals_the_devkit_in_whole_pixels_once_boxes_are_half_open():
    """The devkit's (x1, y1, x2, y2) includes its last pixel: half open it is (x1, y1, x2 + 1, y2 + 1)."""
    detections, targets = difficult_set(seed=6)
    for entry in (*detections, *targets):
        entry["boxes"] = entry["boxes"].round()
    half_open = torch.tensor([0.0, 0.0, 1.0, 1.0])
    widened = [[{**entry, "boxes": entry["boxes"] + half_open} for entry in side] for side in (detections, targets)]
    ours = evaluate(*widened, protocol="voc2007")
    expected = [devkit_ap(*devkit(detections, targets, label, 0.5, pixels=1), "voc2007") for label in (1, 2, 3)]
    assert [row.ap for row in ours.per_class.values()] == pytest.approx(expected, abs=1e-12)


def boxes_at(*columns):
    """Boxes 10 wide and high that start at these columns."""
    return torch.tensor([[x, 0.0, x + 10.0, 10.0] for x in columns])


def entry(boxes, scores=None, **extra):
    labels = torch.ones(len(boxes), dtype=torch.int64)
    return {"boxes": boxes, "labels": labels, **({} if scores is None else {"scores": torch.tensor(scores)}), **extra}


def test_three_boxes_by_hand():
    """Right, wrong, right of two objects: precision 1, 1/2, 2/3 at recall 1/2, 1/2, 1."""
    target = entry(boxes_at(0.0, 50.0))
    found = entry(boxes_at(0.0, 100.0, 50.0), [0.9, 0.8, 0.7])
    assert evaluate([found], [target], protocol="voc2007").ap == pytest.approx((6 * 1 + 5 * 2 / 3) / 11)
    assert evaluate([found], [target], protocol="voc2010").ap == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert evaluate([found], [target], protocol="coco").ap == pytest.approx((51 * 1 + 50 * 2 / 3) / 101)


def test_a_recall_of_three_tenths_reaches_the_point_at_three_tenths():
    target = entry(boxes_at(*range(0, 200, 20)))
    found = entry(boxes_at(0.0, 20.0, 40.0), [0.9, 0.8, 0.7])
    assert evaluate([found], [target], protocol="voc2007").ap == pytest.approx(4 / 11)


@pytest.mark.parametrize("protocol", ["voc2007", "voc2010", "coco"])
def test_an_object_is_found_once(protocol):
    """The same box twice, then another object: were both right, precision would never fall."""
    target = entry(boxes_at(0.0, 50.0))
    found = entry(boxes_at(0.0, 0.0, 50.0), [0.9, 0.8, 0.7])
    twice = entry(boxes_at(0.0, 100.0, 50.0), [0.9, 0.8, 0.7])  # as in the test by hand: the second finds nothing
    expected = evaluate([twice], [target], protocol=protocol).ap
    assert 0.8 < expected < 0.9
    assert evaluate([found], [target], protocol=protocol).ap == expected


def test_a_duplicate_is_wrong_for_voc_where_coco_finds_the_neighbour():
    """Both detections prefer the first object; the second could also pass for the other one."""
    target = entry(torch.tensor([[0.0, 0.0, 10.0, 10.0], [4.0, 0.0, 14.0, 10.0]]))
    found = entry(torch.tensor([[0.0, 0.0, 10.0, 10.0], [1.5, 0.0, 11.5, 10.0]]), [0.9, 0.8])
    assert evaluate([found], [target], protocol="voc2010").ap == 0.5
    assert evaluate([found], [target], protocol="coco").ap50 == 1.0


@pytest.mark.parametrize(("protocol", "expected"), [("voc2010", 1.0), ("coco", 1.0)])
def test_an_overlap_equal_to_the_threshold_is_enough(protocol, expected):
    target = entry(torch.tensor([[0.0, 0.0, 10.0, 10.0]]))
    found = entry(torch.tensor([[0.0, 0.0, 10.0, 5.0]]), [0.9])
    assert evaluate([found], [target], protocol=protocol).ap50 == expected
    less = entry(torch.tensor([[0.0, 0.0, 10.0, 4.9]]), [0.9])
    assert evaluate([less], [target], protocol=protocol).ap50 == 0.0


def test_difficult_objects_cost_nothing_and_earn_nothing():
    target = entry(boxes_at(0.0, 50.0), difficult=torch.tensor([False, True]))
    found = entry(boxes_at(50.0, 50.0, 50.0, 0.0), [0.9, 0.8, 0.7, 0.6])
    result = evaluate([found], [target], protocol="voc2007")
    assert result.ap == 1.0
    assert result.per_class[1].objects == 1
    # COCO does not know the mark.
    assert evaluate([found], [target], protocol="coco").per_class[1].objects == 2


def test_voc_counts_all_detections_and_defines_no_sizes():
    target = entry(boxes_at(0.0))
    found = entry(torch.cat([boxes_at(100.0).repeat(150, 1), boxes_at(0.0)]), [0.9] * 150 + [0.1])
    result = evaluate([found], [target], protocol="voc2010")
    assert result.ap == pytest.approx(1 / 151)
    assert np.isnan([result.ap_small, result.ar_100, result.ap75]).all()
    assert evaluate([found], [target]).ap == 0  # COCO stops after 100


def test_masks_are_judged_by_the_same_rules():
    mask = torch.zeros(1, 20, 20, dtype=torch.bool)
    mask[0, :10, :10] = True
    half = mask.clone()
    half[0, :, 5:] = False
    target = {"masks": mask, "labels": torch.tensor([1])}
    found = {"masks": half, "labels": torch.tensor([1]), "scores": torch.tensor([0.5])}
    assert evaluate([found], [target], kind="masks", protocol="voc2010").ap == 1.0
    assert evaluate([found], [target], kind="masks", protocol="voc2010", iou_thresholds=[0.51]).ap == 0.0


def test_a_crowd_around_an_object_does_not_hide_it():
    """VOC has no crowd regions: one counts as a difficult object, by its plain IoU, 0.009 here against 0.9."""
    target = entry(
        torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 100.0, 100.0]]), iscrowd=torch.tensor([False, True])
    )
    found = entry(torch.tensor([[0.0, 0.0, 10.0, 9.0]]), [0.5])
    assert evaluate([found], [target], protocol="voc2010").ap50 == 1.0
    assert evaluate([found], [target], protocol="coco").ap50 == 1.0
