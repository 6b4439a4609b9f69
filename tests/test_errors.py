"""The kinds of errors, by hand and against TIDE's own program (tidecv 1.0.1), whose numbers are written down here."""

import numpy as np
import pytest
import torch

from minircnn.errors import KINDS, find_errors
from minircnn.evaluation import encode_masks, evaluate

BOX = [0.0, 0.0, 100.0, 100.0]


def entry(boxes, labels, scores=None, **others):
    """A target, or with scores detections."""
    found = {"boxes": torch.tensor(np.array(boxes).reshape(-1, 4)).double(), "labels": torch.tensor(labels).long()}
    return found | ({"scores": torch.tensor(scores, dtype=torch.float64)} if scores is not None else {}) | others


@pytest.mark.parametrize(
    ("box", "label", "kind"),
    [
        ([0, 0, 100, 49], 1, "localization"),  # IoU 0.49
        ([0, 0, 100, 10], 1, "localization"),  # 0.10
        ([0, 0, 100, 9], 1, "background"),
        ([0, 0, 100, 50], 2, "class"),  # 0.50
        ([0, 0, 100, 49], 2, "both"),
        ([0, 0, 100, 9], 2, "background"),
        ([200, 200, 300, 300], 1, "background"),
    ],
)
def test_a_detection_beside_one_object(box, label, kind):
    """A class error is mended into the class of its object."""
    report = find_errors([entry([box], [label], [0.9])], [entry([BOX], [1])], classes=["background", "cat", "dog"])
    kinds = [error.kind for error in report.errors]
    explained = kind in ("localization", "class")  # what would be right if it were mended
    assert kinds == [kind, *([] if explained else ["missed"])]
    first = report.errors[0]
    assert (first.detection, first.object, first.label) == (0, None if kind == "background" else 0, label)
    assert (report.ap50, report.ap50_without[kind]) == (0, 1 if explained else 0)


def test_duplicates_cost_what_precision_they_take():
    """Of two objects the first is found twice before the second is found: precisions 1 and 2/3."""
    boxes = [BOX, BOX, [200, 200, 300, 300]]
    report = find_errors([entry(boxes, [1, 1, 1], [0.9, 0.8, 0.7])], [entry([BOX, boxes[2]], [1, 1])])
    assert report.counts == dict.fromkeys(KINDS, 0) | {"duplicate": 1}
    assert report.ap50 == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert report.ap50_without["duplicate"] == 1
    assert report.ap50_without["background"] == report.ap50


def test_only_the_most_confident_of_two_is_mended():
    """Both of low IoU with one object: the second would be a duplicate, so it goes."""
    halves = [[0, 0, 100, 40], [0, 60, 100, 100]]
    report = find_errors([entry(halves, [1, 1], [0.6, 0.8])], [entry([BOX], [1])])
    assert [(error.kind, error.detection) for error in report.errors] == [("localization", 1), ("localization", 0)]
    assert report.ap50_without["localization"] == 1


def test_what_finds_a_crowd_counts_for_nothing():
    crowd = entry([BOX], [1], iscrowd=torch.tensor([True]))
    report = find_errors([entry([[10, 10, 30, 30], [300, 300, 320, 320]], [1, 1], [0.9, 0.8])], [crowd])
    assert [(error.kind, error.detection) for error in report.errors] == [("background", 1)]
    assert np.isnan(report.ap50)  # there is no object that counts


def test_no_detection_no_object_no_image():
    nothing = entry([], [], [])
    assert find_errors([], []).errors == []
    assert find_errors([nothing], [entry([], [])]).errors == []
    report = find_errors([nothing, nothing], [entry([], []), entry([BOX, BOX], [1, 2])])
    rows = [(error.kind, error.image, error.label, error.object) for error in report.errors]
    assert rows == [("missed", 1, 1, 0), ("missed", 1, 2, 1)]


def scenes(seed, images=40):
    """Objects, and detections near them, far from them and of other classes."""
    g, targets, detections = np.random.default_rng(seed), [], []
    for _ in range(images):
        n = int(g.integers(0, 6))
        corner, side, labels = g.uniform(0, 100, (n, 2)), g.uniform(10, 50, (n, 2)), g.integers(1, 4, n)
        objects = np.concatenate([corner, corner + side], axis=1)
        boxes, found = [], []
        for box, label in zip(objects, labels, strict=True):
            for _ in range(int(g.integers(0, 4))):
                spread = g.choice([2, 8, 25])
                boxes.append(box + g.normal(0, spread, 4))
                found.append(int(label) if g.random() < 0.7 else int(g.integers(1, 4)))
        for _ in range(int(g.integers(0, 3))):
            corner = g.uniform(0, 120, 2)
            boxes.append([*corner, *(corner + g.uniform(10, 40, 2))])
            found.append(int(g.integers(1, 4)))
        boxes = [[min(x1, x2 - 1), min(y1, y2 - 1), x2, y2] for x1, y1, x2, y2 in boxes]
        targets.append(entry(objects, labels.tolist()))
        detections.append(entry(boxes, found, g.random(len(found)).tolist()))
    return detections, targets


def test_the_numbers_of_tide():
    """Of these scenes tidecv says: AP50 15.1846, and how much AP50 grows without each kind of error."""
    report = find_errors(*scenes(1))
    counts = {"localization": 31, "class": 10, "both": 11, "duplicate": 7, "background": 75, "missed": 36}
    gains = {
        "localization": 9.626494230150408,
        "class": 3.5130224147792273,
        "both": 0.789318328744649,
        "duplicate": 0.4860740527611078,
        "background": 9.587520111009356,
        "missed": 7.833843123550325,
    }
    assert report.counts == counts
    assert 100 * report.ap50 == pytest.approx(15.184567068598499)
    # Where a recall is one of the 101 points but for rounding, tidecv reads its curve one detection further.
    found = {kind: 100 * (ap - report.ap50) for kind, ap in report.ap50_without.items()}
    assert found == pytest.approx(gains, abs=4e-3)
    lines = str(report).splitlines()
    assert len(lines) == 7
    assert lines[1].split()[:3] == ["localization", "31", "24.8"]


@pytest.mark.parametrize("seed", range(3))
def test_average_precision_is_that_of_the_evaluation(seed):
    """And every detection is a find or one error; every object is found, explained by an error, or missed."""
    detections, targets = scenes(seed)
    report = find_errors(detections, targets)
    assert report.ap50 == pytest.approx(evaluate(detections, targets).ap50)
    rankings = evaluate(detections, targets, iou_thresholds=[0.5]).rankings.values()
    assert sum(ranking.fp[0, 0].sum() for ranking in rankings) == sum(error.kind != "missed" for error in report.errors)
    scores = [error.score for error in report.errors]
    assert scores == sorted(scores, reverse=True)
    for error in report.errors:
        if error.detection is not None:
            assert float(detections[error.image]["scores"][error.detection]) == error.score
        if error.object is not None and error.kind in ("localization", "missed"):
            assert int(targets[error.image]["labels"][error.object]) == error.label


def test_masks_are_compared_as_masks():
    """Two boxes of one size whose masks share nothing are no find."""
    left, right = torch.zeros(1, 10, 10, dtype=torch.bool), torch.zeros(1, 10, 10, dtype=torch.bool)
    left[:, :, :5], right[:, :, 5:] = True, True
    one = {"labels": torch.tensor([1]), "scores": torch.tensor([0.9])}
    for found, kind in ((left, []), (right, ["background", "missed"])):
        detections, targets = [{**one, "masks": encode_masks(found)}], [{"labels": one["labels"], "masks": left}]
        assert [error.kind for error in find_errors(detections, targets, kind="masks").errors] == kind
