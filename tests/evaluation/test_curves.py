"""Precision, recall and their averages against scikit-learn and against values worked by hand."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, precision_recall_curve

from minircnn.evaluation.curves import (
    RECALLS_COCO,
    RECALLS_VOC2007,
    area_under_curve,
    average_at_points,
    envelope,
    interpolate,
    precision_recall,
)


def random_ranking(seed, length=60):
    """Which of a ranked list are right; all objects are found somewhere in it, and no two scores are equal."""
    rng = np.random.default_rng(seed)
    right = rng.random(length) < np.linspace(0.9, 0.2, length)
    return right, np.linspace(1.0, 0.1, length)


@pytest.mark.parametrize("seed", range(5))
def test_curve_equals_scikit_learn(seed):
    right, scores = random_ranking(seed)
    precision, recall = precision_recall(right, ~right, right.sum())
    # scikit-learn starts at the end of the list, drops what comes after full recall, and adds the point (0, 1).
    theirs_precision, theirs_recall, _ = precision_recall_curve(right, scores)
    kept = len(theirs_recall) - 1
    np.testing.assert_allclose(precision[:kept], theirs_precision[:-1][::-1], atol=1e-12)
    np.testing.assert_allclose(recall[:kept], theirs_recall[:-1][::-1], atol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_area_without_interpolation_is_scikit_learns_average_precision(seed):
    right, scores = random_ranking(seed)
    precision, recall = precision_recall(right, ~right, right.sum())
    theirs = average_precision_score(right, scores)
    assert (np.diff(recall, prepend=0) * precision).sum() == pytest.approx(theirs, abs=1e-12)
    # Interpolation only lifts the curve.
    assert area_under_curve(precision, recall) > theirs


def test_area_equals_scikit_learn_where_interpolation_changes_nothing():
    """Precision that falls from one right detection to the next is its own envelope there."""
    right = np.array([1, 1, 1, 0, 1, 0, 0, 1, 0, 0, 0, 0, 1, 0], dtype=bool)
    precision, recall = precision_recall(right, ~right, right.sum())
    theirs = average_precision_score(right, np.linspace(1, 0.1, len(right)))
    assert area_under_curve(precision, recall) == pytest.approx(theirs, abs=1e-12)


def test_scikit_learn_cannot_know_of_objects_that_were_missed():
    right = np.array([True, True])
    precision, recall = precision_recall(right, ~right, num_objects=4)
    assert area_under_curve(precision, recall) == 0.5


@pytest.mark.parametrize("seed", range(5))
def test_interpolation_is_the_best_precision_at_this_recall_or_beyond(seed):
    right, _ = random_ranking(seed)
    precision, recall = precision_recall(right, ~right, num_objects=int(right.sum()) + 7)
    for points in (RECALLS_VOC2007, RECALLS_COCO, recall):
        slow = [max(precision[recall >= point], default=0.0) for point in points]
        np.testing.assert_array_equal(interpolate(precision, recall, points), slow)
        assert average_at_points(precision, recall, points) == pytest.approx(np.mean(slow), abs=1e-12)


def test_the_three_averages_of_one_curve():
    """Right, wrong, right of four objects."""
    precision, recall = precision_recall(np.array([1, 0, 1]), np.array([0, 1, 0]), num_objects=4)
    np.testing.assert_allclose(precision, [1, 1 / 2, 2 / 3])
    np.testing.assert_allclose(recall, [1 / 4, 1 / 4, 1 / 2])
    assert average_at_points(precision, recall, RECALLS_VOC2007) == pytest.approx((3 * 1 + 3 * 2 / 3) / 11)
    assert area_under_curve(precision, recall) == pytest.approx(1 / 4 + 1 / 4 * 2 / 3)
    assert average_at_points(precision, recall, RECALLS_COCO) == pytest.approx((26 * 1 + 25 * 2 / 3) / 101)


def test_ignored_detections_change_neither_precision_nor_recall():
    precision, recall = precision_recall(np.array([0, 1, 0, 0]), np.array([0, 0, 0, 1]), num_objects=1)
    assert precision.tolist() == [0, 1, 1, 0.5]
    assert recall.tolist() == [0, 1, 1, 1]


def test_an_empty_list_has_an_empty_curve_and_averages_of_zero():
    precision, recall = precision_recall(np.zeros(0, bool), np.zeros(0, bool), num_objects=3)
    assert precision.shape == recall.shape == envelope(precision).shape == (0,)
    assert area_under_curve(precision, recall) == 0
    assert average_at_points(precision, recall, RECALLS_COCO) == 0
