"""Overlaps, curves and proposals' recall against scikit-learn, pycocotools, slow loops and values worked by hand."""

import numpy as np
import pytest
import torch
from pycocotools import mask as rle
from sklearn.metrics import average_precision_score, precision_recall_curve
from torchvision.ops import box_iou as torchvision_iou

from minircnn.boxes import box_iou
from minircnn.metrics import (
    RECALLS_COCO,
    RECALLS_VOC2007,
    area_under_curve,
    average_at_points,
    interpolate,
    mean_best_overlap,
    overlaps,
    precision_recall,
    proposal_recall,
    read_curve,
)
from workshop.benchmarks.evaluation import random_targets


def random_boxes(count, seed):
    corners = np.random.default_rng(seed).integers(0, 30, (count, 2, 2)).astype(float)
    return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)


def test_overlaps_are_those_of_box_iou_and_pycocotools():
    a, b, crowd = random_boxes(40, 0), random_boxes(30, 1), np.arange(30) % 2 == 0
    expected = box_iou(torch.from_numpy(a), torch.from_numpy(b)).nan_to_num(0.0)
    np.testing.assert_array_equal(overlaps(a, b, np.zeros(30, bool)), expected)
    as_lengths = [np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1) for boxes in (a, b)]
    np.testing.assert_allclose(overlaps(a, b, crowd), rle.iou(*as_lengths, crowd.astype(np.uint8)), atol=1e-12)
    assert overlaps(a[:0], b, crowd).shape == (0, 30)


def random_ranking(seed, length=60):
    """Which of a ranked list are right; all objects are found somewhere in it, and no two scores are equal."""
    tp = np.random.default_rng(seed).random(length) < np.linspace(0.9, 0.2, length)
    return tp, np.linspace(1.0, 0.1, length)


@pytest.mark.parametrize("seed", range(2))
def test_curve_and_its_area_are_scikit_learns(seed):
    tp, scores = random_ranking(seed)
    precision, recall = precision_recall(tp, ~tp, tp.sum())
    # scikit-learn starts at the end of the list, drops what comes after full recall, and adds the point (0, 1).
    theirs_precision, theirs_recall, _ = precision_recall_curve(tp, scores)
    kept = len(theirs_recall) - 1
    np.testing.assert_allclose(precision[:kept], theirs_precision[:-1][::-1], atol=1e-12)
    np.testing.assert_allclose(recall[:kept], theirs_recall[:-1][::-1], atol=1e-12)
    theirs = average_precision_score(tp, scores)
    assert (np.diff(recall, prepend=0) * precision).sum() == pytest.approx(theirs, abs=1e-12)
    assert area_under_curve(precision, recall) > theirs  # interpolation only lifts the curve


@pytest.mark.parametrize("seed", range(2))
def test_interpolation_is_the_best_precision_at_this_recall_or_beyond(seed):
    tp, scores = random_ranking(seed)
    precision, recall = precision_recall(tp, ~tp, num_objects=int(tp.sum()) + 7)
    for points in (RECALLS_VOC2007, RECALLS_COCO, recall):
        slow = [max(precision[recall >= point], default=0.0) for point in points]
        np.testing.assert_array_equal(read_curve(interpolate(precision), recall, points), slow)
        assert average_at_points(precision, recall, points) == pytest.approx(np.mean(slow), abs=1e-12)
        first = [max(scores[recall >= point], default=0.0) for point in points]  # scores fall
        np.testing.assert_array_equal(read_curve(scores, recall, points), first)
    nothing = precision_recall(np.zeros(0, bool), np.zeros(0, bool), num_objects=3)
    assert area_under_curve(*nothing) == average_at_points(*nothing, RECALLS_COCO) == 0


COUNTS = [1, 3, 10, 1000]


@pytest.fixture(scope="module")
def images():
    """Shifted objects and boxes from anywhere, in no good order; fewer than the largest count, in one image none."""
    targets = random_targets(15, (128, 128), num_classes=3, seed=2, crowd_fraction=0.2)
    assert any(target["iscrowd"].any() for target in targets)
    assert any(len(target["boxes"]) == 0 for target in targets)
    generator = torch.Generator().manual_seed(0)
    proposals = []
    for target in targets:
        shifted = target["boxes"] + 4 * torch.randn(target["boxes"].shape, generator=generator)
        corners = 128 * torch.rand(30, 2, 2, generator=generator)
        boxes = torch.cat([shifted, torch.cat([corners.amin(dim=1), corners.amax(dim=1)], dim=1)])
        proposals.append(boxes[torch.randperm(len(boxes), generator=generator)])
    proposals[2] = torch.zeros(0, 4)
    return proposals, targets


def test_proposals_equal_a_loop(images):
    """Over every object that is not a crowd, and every box."""
    best = {count: [] for count in COUNTS}
    for boxes, target in zip(*images, strict=True):
        for g in torch.nonzero(~target["iscrowd"]).flatten():
            ious = [float(torchvision_iou(box[None], target["boxes"][g, None])) for box in boxes]
            for count in COUNTS:
                best[count].append((int(target["labels"][g]), max(ious[:count], default=0.0)))
    for threshold in (0.3, 0.7):
        expected = [sum(iou >= threshold for _, iou in best[count]) / len(best[count]) for count in COUNTS]
        recall = proposal_recall(*images, threshold, COUNTS)
        assert recall.tolist() == pytest.approx(expected, abs=1e-9)
        assert 0 < recall[-1] < 1
    overall = [sum(iou for _, iou in best[count]) / len(best[count]) for count in COUNTS]
    assert mean_best_overlap(*images, COUNTS).tolist() == pytest.approx(overall, abs=1e-6)
    of_classes = [[[iou for k, iou in best[count] if k == label] for label in (1, 2, 3)] for count in COUNTS]
    expected = [sum(sum(ious) / len(ious) for ious in classes) / 3 for classes in of_classes]
    assert mean_best_overlap(*images, COUNTS, average="classes").tolist() == pytest.approx(expected, abs=1e-6)
    assert expected != pytest.approx(overall, abs=1e-4)


BOX = torch.tensor([[0.0, 0.0, 10.0, 10.0]])


def test_edges():
    """An overlap equal to the threshold counts, a crowd is not asked for, boxes without area overlap nothing."""
    for threshold, recall in ((0.5, 1.0), (0.51, 0.0)):
        half = torch.tensor([[0.0, 0.0, 10.0, 5.0]])
        assert proposal_recall([half], [{"boxes": BOX}], threshold, [1]).tolist() == [recall]
    target = {"boxes": BOX, "labels": torch.tensor([1]), "iscrowd": torch.tensor([True])}
    assert proposal_recall([BOX], [target], 0.5, [1]).isnan().all()
    for average in ("objects", "classes"):
        assert mean_best_overlap([BOX], [target], [1], average=average).isnan().all()
    flat = torch.tensor([[5.0, 5.0, 5.0, 5.0]])
    assert mean_best_overlap([flat], [{"boxes": torch.cat([flat, BOX])}], [1]).tolist() == [0.0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"proposals": []}, "0 and 1"),
        ({"proposals": [torch.zeros(3, 5)]}, r"proposals\[0\]"),
        ({"counts": [0]}, "counts"),
        ({"iou_threshold": 0.0}, "iou_threshold"),
    ],
)
def test_bad_input_is_named(change, message):
    good = {"proposals": [BOX], "targets": [{"boxes": BOX}], "iou_threshold": 0.5, "counts": [1]}
    with pytest.raises(ValueError, match=message):
        proposal_recall(**{**good, **change})
    with pytest.raises(ValueError, match="images"):
        mean_best_overlap([], [], [1], average="images")
