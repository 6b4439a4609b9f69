"""Matching and sampling against torchvision, slow loops and values worked by hand."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler, Matcher

from minircnn.matching import match, subsample


def match_by_hand(iou, high, low, allow_low_quality_matches):
    """One box at a time."""
    objects, boxes = len(iou), len(iou[0])
    index, label = [], []
    for n in range(boxes):
        column = [iou[g][n] for g in range(objects)]
        best = max(column)
        index.append(column.index(best))
        label.append(1 if best >= high else 0 if best < low else -1)
        if allow_low_quality_matches and any(iou[g][n] == max(iou[g]) > 0 for g in range(objects)):
            label[n] = 1
    return index, label


def to_torchvision(gt_index, label):
    """torchvision writes both answers into one number: the object, or -1 background, or -2 ignored."""
    return torch.where(label == 1, gt_index, torch.where(label == 0, -1, -2))


ious = st.integers(1, 5).flatmap(
    lambda g: st.integers(1, 12).flatmap(
        lambda n: st.lists(
            st.lists(st.integers(0, 10).map(lambda k: k / 10), min_size=n, max_size=n), min_size=g, max_size=g
        )
    )
)


class TestMatch:
    @pytest.mark.parametrize("allow_low_quality_matches", [False, True])
    @pytest.mark.parametrize("high, low", [(0.7, 0.3), (0.5, 0.5)])
    @pytest.mark.parametrize("shape", [(1, 1), (1, 50), (7, 3), (20, 5000)])
    def test_equals_torchvision(self, shape, high, low, allow_low_quality_matches):
        iou = torch.rand(shape, generator=torch.Generator().manual_seed(len(shape)))
        iou = (iou * 20).round() / 20  # ties between boxes and between objects
        iou[:, 0] = iou[:, 0].clamp(min=0.05)  # every object is touched: the case of the docstring is tested below
        expected = Matcher(high, low, allow_low_quality_matches=allow_low_quality_matches)(iou)
        assert torch.equal(to_torchvision(*match(iou, high, low, allow_low_quality_matches)), expected)

    @given(ious, st.sampled_from([(0.7, 0.3), (0.5, 0.5), (1.0, 0.0)]), st.booleans())
    def test_against_slow_loop(self, iou, thresholds, allow_low_quality_matches):
        gt_index, label = match(torch.tensor(iou, dtype=torch.float64), *thresholds, allow_low_quality_matches)
        assert (gt_index.tolist(), label.tolist()) == match_by_hand(iou, *thresholds, allow_low_quality_matches)

    def test_thresholds_include_high_and_exclude_low(self):
        assert match(torch.tensor([[0.5, 0.25, 0.24]]), 0.5, 0.25)[1].tolist() == [1, -1, 0]

    def test_an_object_that_overlaps_nothing_makes_nothing_positive(self):
        iou = torch.tensor([[0.0, 0.0, 0.0]])
        assert Matcher(0.7, 0.3, allow_low_quality_matches=True)(iou).tolist() == [0, 0, 0]  # torchvision: all positive
        assert match(iou, 0.7, 0.3, allow_low_quality_matches=True)[1].tolist() == [0, 0, 0]

    def test_no_objects_and_no_boxes(self):
        gt_index, label = match(torch.zeros(0, 5), 0.7, 0.3, allow_low_quality_matches=True)
        assert gt_index.tolist() == label.tolist() == [0] * 5
        for allow_low_quality_matches in (False, True):
            gt_index, label = match(torch.zeros(3, 0), 0.7, 0.3, allow_low_quality_matches)
            assert gt_index.shape == label.shape == (0,)
            assert gt_index.dtype == label.dtype == torch.int64

    def test_bad_arguments_are_named(self):
        with pytest.raises(ValueError, match="low"):
            match(torch.zeros(1, 1), high=0.3, low=0.7)
        with pytest.raises(ValueError, match="objects, boxes"):
            match(torch.zeros(3), high=0.7, low=0.3)


class TestSubsample:
    @pytest.mark.parametrize("num, fraction", [(256, 0.5), (64, 0.25), (10, 1.0), (10, 0.0), (5000, 0.5), (7, 0.5)])
    def test_same_boxes_as_torchvision_for_the_same_seed(self, num, fraction):
        labels = torch.randint(-1, 4, (1000,), generator=torch.Generator().manual_seed(num))
        torch.manual_seed(3)
        (expected_positive,), (expected_negative,) = BalancedPositiveNegativeSampler(num, fraction)([labels])
        torch.manual_seed(3)
        positive, negative = subsample(labels, num, fraction)
        assert positive.tolist() == torch.where(expected_positive)[0].tolist()
        assert negative.tolist() == torch.where(expected_negative)[0].tolist()

    @pytest.mark.parametrize("num, fraction", [(-1, 0.5), (4, -0.1), (4, 1.1)])
    def test_bad_arguments_are_named(self, num, fraction):
        with pytest.raises(ValueError, match="positive_fraction"):
            subsample(torch.zeros(3), num, fraction)

    def test_a_generator_of_its_own_leaves_the_global_one_alone(self):
        labels = torch.tensor([1, 0, 0, -1, 2, 0, 0, 1] * 10)
        state = torch.random.get_rng_state()
        first = subsample(labels, 20, 0.25, torch.Generator().manual_seed(3))
        assert torch.equal(state, torch.random.get_rng_state())
        torch.manual_seed(3)  # both are the same kind of generator
        again = subsample(labels, 20, 0.25)
        assert all(map(torch.equal, first, again))
