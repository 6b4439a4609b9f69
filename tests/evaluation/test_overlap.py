"""The overlaps of the evaluation are those of the rest of the course, and pycocotools' for crowds."""

import numpy as np
import pytest
import torch
from pycocotools import mask as rle

from minircnn.boxes import box_iou
from minircnn.evaluation.overlap import overlaps


def random_boxes(count, seed):
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, 30, (count, 2, 2)).astype(float)
    return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)


def test_boxes_are_those_of_box_iou():
    a, b = random_boxes(40, 0), random_boxes(30, 1)
    expected = box_iou(torch.from_numpy(a), torch.from_numpy(b)).nan_to_num(0.0)
    np.testing.assert_array_equal(overlaps(a, b, np.zeros(30, bool)), expected)
    assert 0 < expected.max() <= 1


def test_crowds_are_those_of_pycocotools():
    a, b, crowd = random_boxes(40, 2), random_boxes(30, 3), np.arange(30) % 2 == 0
    as_lengths = [np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1) for boxes in (a, b)]
    np.testing.assert_allclose(overlaps(a, b, crowd), rle.iou(*as_lengths, crowd.astype(np.uint8)), atol=1e-12)


@pytest.mark.parametrize(("found", "wanted"), [(0, 3), (3, 0), (0, 0)])
def test_nothing_has_no_overlaps(found, wanted):
    shape = overlaps(random_boxes(found, 4), random_boxes(wanted, 5), np.zeros(wanted, bool)).shape
    assert shape == (found, wanted)
    assert overlaps([], [], np.zeros(0, bool)).shape == (0, 0)
