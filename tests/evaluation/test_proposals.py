"""Recall and overlap of proposals against loops over every pair of boxes."""

import pytest
import torch
from torchvision.ops import box_iou as torchvision_iou

from minircnn.evaluation import mean_best_overlap, proposal_recall
from workshop.benchmarks.evaluation import random_targets

COUNTS = [1, 3, 10, 1000]


def random_proposals(targets, seed=0):
    """Shifted objects and boxes from anywhere, in no good order; fewer than the largest count, in one image none."""
    generator = torch.Generator().manual_seed(seed)
    proposals = []
    for target in targets:
        shifted = target["boxes"] + 4 * torch.randn(target["boxes"].shape, generator=generator)
        corners = 128 * torch.rand(30, 2, 2, generator=generator)
        anywhere = torch.cat([corners.amin(dim=1), corners.amax(dim=1)], dim=1)  # (30, 4)
        boxes = torch.cat([shifted, anywhere])
        proposals.append(boxes[torch.randperm(len(boxes), generator=generator)])
    proposals[2] = torch.zeros(0, 4)
    return proposals


def slow_best(proposals, targets, count):
    """(label, best IoU) of every object that is not a crowd."""
    best = []
    for boxes, target in zip(proposals, targets, strict=True):
        for g in range(len(target["boxes"])):
            if not target["iscrowd"][g]:
                overlaps = [float(torchvision_iou(b[None], target["boxes"][g, None])) for b in boxes[:count]]
                best.append((int(target["labels"][g]), max(overlaps, default=0.0)))
    return best


@pytest.fixture(scope="module")
def images():
    targets = random_targets(25, (128, 128), num_classes=3, seed=2, crowd_fraction=0.2)
    assert any(target["iscrowd"].any() for target in targets)
    assert any(len(target["boxes"]) == 0 for target in targets)
    return random_proposals(targets), targets


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
def test_recall_equals_a_loop(images, threshold):
    slow = [slow_best(*images, count) for count in COUNTS]
    expected = [sum(iou >= threshold for _, iou in best) / len(best) for best in slow]
    ours = proposal_recall(*images, threshold, COUNTS)
    assert ours.tolist() == pytest.approx(expected, abs=1e-9)
    assert 0 < ours[0] < ours[-1] < 1


def test_mean_best_overlap_equals_a_loop(images):
    slow = [slow_best(*images, count) for count in COUNTS]
    expected = [sum(iou for _, iou in best) / len(best) for best in slow]
    assert mean_best_overlap(*images, COUNTS).tolist() == pytest.approx(expected, abs=1e-6)


def test_mean_over_classes_equals_a_loop(images):
    expected = []
    for best in (slow_best(*images, count) for count in COUNTS):
        of_classes = [[iou for label, iou in best if label == wanted] for wanted in (1, 2, 3)]
        expected.append(sum(sum(ious) / len(ious) for ious in of_classes) / 3)
    ours = mean_best_overlap(*images, COUNTS, average="classes")
    assert ours.tolist() == pytest.approx(expected, abs=1e-6)
    assert ours.tolist() != pytest.approx(mean_best_overlap(*images, COUNTS).tolist(), abs=1e-4)


def test_objects_count_the_same_whichever_image_they_are_in():
    """One object found of one, none of three: a quarter, and not the mean of the images, a half."""
    box = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    targets = [{"boxes": box}, {"boxes": box.repeat(3, 1) + 50}]
    assert proposal_recall([box, box], targets, 0.5, [1]).tolist() == [0.25]


def test_an_overlap_equal_to_the_threshold_counts():
    target = {"boxes": torch.tensor([[0.0, 0.0, 10.0, 10.0]])}
    half = torch.tensor([[0.0, 0.0, 10.0, 5.0]])
    assert proposal_recall([half], [target], 0.5, [1]).tolist() == [1.0]
    assert proposal_recall([half], [target], 0.51, [1]).tolist() == [0.0]


def test_a_crowd_is_not_asked_for():
    target = {"boxes": torch.tensor([[0.0, 0.0, 10.0, 10.0]]), "iscrowd": torch.tensor([True])}
    assert proposal_recall([target["boxes"]], [target], 0.5, [1]).isnan().all()
    assert mean_best_overlap([target["boxes"]], [target], [1]).isnan().all()
    target["labels"] = torch.tensor([1])
    assert mean_best_overlap([target["boxes"]], [target], [1], average="classes").isnan().all()


def test_boxes_without_area_overlap_nothing():
    flat = torch.tensor([[5.0, 5.0, 5.0, 5.0]])
    target = {"boxes": torch.cat([flat, torch.tensor([[0.0, 0.0, 10.0, 10.0]])])}
    assert mean_best_overlap([flat], [target], [1]).tolist() == [0.0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"proposals": []}, "0 and 1"),
        ({"proposals": [torch.zeros(3, 5)]}, r"proposals\[0\]"),
        ({"counts": [0]}, "counts"),
        ({"counts": []}, "counts"),
        ({"iou_threshold": 0.0}, "iou_threshold"),
    ],
)
def test_bad_input_is_named(change, message):
    good = {
        "proposals": [torch.zeros(1, 4)],
        "targets": [{"boxes": torch.zeros(1, 4)}],
        "iou_threshold": 0.5,
        "counts": [1],
    }
    with pytest.raises(ValueError, match=message):
        proposal_recall(**{**good, **change})


def test_unknown_average_is_named():
    with pytest.raises(ValueError, match="pictures"):
        mean_best_overlap([], [], [1], average="pictures")
