"""The suggestion of anchors, against boxes in a grid, a search through a grid, and objects made to fit."""

import math

import numpy as np
import pytest
import torch

from minircnn.boxes import box_iou
from minircnn.datasets.shapes import best_overlaps, suggest_anchors
from minircnn.faster_rcnn import base_anchors


def drawn(sizes, ratios, count, spread, seed=0):
    """Shapes around a grid of sizes and ratios."""
    rng = np.random.default_rng(seed)
    size = rng.choice(sizes, count) * np.exp(rng.normal(0, spread, count))
    tall = np.sqrt(rng.choice(ratios, count) * np.exp(rng.normal(0, spread, count)))
    return torch.tensor(np.stack([size / tall, size * tall], axis=1), dtype=torch.float32)


def test_best_overlaps_by_hand():
    """16 × 16 in 16 × 32 is half of it; 11 × 23 (ratio 2, rounded to 12 × 22) shares 12 · 16 with a square of 16."""
    shapes = torch.tensor([[16.0, 16.0], [16.0, 32.0], [8.0, 8.0]])
    assert best_overlaps(shapes, [16], [1]).tolist() == [1, 0.5, 0.25]
    # anchors of 16 × 16 and 12 × 22
    wanted = [1, max(0.5, 12 * 22 / (16 * 32)), max(0.25, 64 / (12 * 22))]
    assert best_overlaps(shapes, [16], [1, 2]).tolist() == pytest.approx(wanted)


def test_best_overlaps_are_those_of_centered_boxes():
    shapes = drawn([20, 50], [0.5, 2], 200, 0.4)
    sizes, ratios = (16, 32, 64), (0.5, 1.3)
    half = shapes / 2
    iou = box_iou(torch.cat([-half, half], dim=1), base_anchors(sizes, ratios))
    assert torch.allclose(best_overlaps(shapes, sizes, ratios), iou.amax(dim=1), atol=1e-6)


def test_sizes_and_ratios_that_are_there_are_found():
    anchors = suggest_anchors(drawn([12, 40, 150], [0.4, 2.5], 600, 0.05), num_sizes=3, num_ratios=2)
    assert anchors.sizes == pytest.approx((12, 40, 150), rel=0.05)
    assert anchors.ratios == pytest.approx((0.4, 2.5), rel=0.1)
    assert anchors.mean_iou > 0.9
    assert anchors.covered == 1


def test_height_is_divided_by_width():
    tall = torch.tensor([[10.0, 40.0]] * 3)
    assert suggest_anchors(tall).ratios == (4.0,)
    assert suggest_anchors(tall.flip(1)).ratios == (0.25,)
    assert suggest_anchors(tall).sizes == (20.0,)


def test_nearly_as_good_as_a_search():
    """Of many sets of 2 sizes and 2 ratios, all of a fine grid, none fits much better."""
    shapes = drawn([20, 70], [0.5, 1.5], 300, 0.3, seed=1)
    found = suggest_anchors(shapes, 2, 2)
    steps = [math.exp(x) for x in np.linspace(math.log(12), math.log(110), 12)]
    ratios = [math.exp(x) for x in np.linspace(math.log(0.3), math.log(2.5), 9)]
    best = max(
        best_overlaps(shapes, [a, b], [r, s]).mean().item()
        for i, a in enumerate(steps)
        for b in steps[i + 1 :]
        for j, r in enumerate(ratios)
        for s in ratios[j + 1 :]
    )
    assert found.mean_iou > best - 0.04
    assert found.mean_iou == pytest.approx(best_overlaps(shapes, found.sizes, found.ratios).mean().item(), abs=1e-6)
    share = (best_overlaps(shapes, found.sizes, found.ratios) >= 0.5).float().mean().item()
    assert found.covered == pytest.approx(share)


def test_twice_the_size_for_twice_the_objects():
    shapes = drawn([20, 70], [0.5, 1.5], 300, 0.3)
    found, doubled = suggest_anchors(shapes), suggest_anchors(2 * shapes)
    assert doubled.sizes == pytest.approx([2 * size for size in found.sizes], rel=0.06)
    assert doubled.ratios == found.ratios
    one = suggest_anchors(torch.tensor([[30.0, 30.0]]))
    assert (one.sizes, one.ratios, one.mean_iou) == ((30.0,), (1.0,), 1.0)


@pytest.mark.parametrize("shapes", [torch.zeros(0, 2), torch.tensor([[3.0, 0.0]]), torch.tensor([[3.0, math.nan]])])
def test_objects_without_a_shape(shapes):
    with pytest.raises(ValueError, match="anchors need objects with a width and a height"):
        suggest_anchors(shapes)
