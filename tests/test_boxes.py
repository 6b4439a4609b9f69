"""Boxes and matching against torchvision, values worked by hand, slow loops, and the docstrings' laws."""

import math

import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler, BoxCoder, Matcher

from minircnn import boxes as B

NAN = float("nan")


def random_boxes(n, seed=0, scale=100.0):
    g = torch.Generator().manual_seed(seed)
    corner = torch.rand(n, 2, generator=g) * scale
    return torch.cat([corner, corner + torch.rand(n, 2, generator=g) * scale * 0.5 + 0.1], dim=1)


def iou_by_hand(a, b):
    """One pair, in plain Python arithmetic."""
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return width * height / union if union else NAN


def nms_by_hand(boxes, scores, groups, threshold):
    """The greedy definition, one pair at a time."""
    order = sorted(range(len(scores)), key=lambda i: -scores[i])  # Python's sort is stable
    kept = []
    for i in order:
        if all(groups[i] != groups[j] or not iou_by_hand(boxes[i], boxes[j]) > threshold for j in kept):
            kept.append(i)
    return kept


# Whole coordinates on a small grid: equal scores, equal boxes, touching edges and no area all come up.
grid_boxes = st.lists(st.tuples(*[st.integers(0, 6)] * 4), max_size=25).map(
    lambda rows: torch.tensor([[x, y, x + w, y + h] for x, y, w, h in rows], dtype=torch.float32).reshape(-1, 4)
)


class TestAreaAndIoU:
    def test_values_by_hand(self):
        a = torch.tensor([[0.0, 0.0, 4.0, 3.0]])
        b = torch.tensor([[2.0, 1.0, 6.0, 4.0], [4.0, 0.0, 8.0, 3.0], [1.0, 1.0, 2.0, 2.0]])
        assert B.box_area(a).tolist() == [12.0]
        assert B.box_iou(a, b)[0].tolist() == pytest.approx([4 / 20, 0.0, 1 / 12])

    def test_equals_torchvision(self):
        # Points, lines, inside-out boxes and boxes outside of any image, among ordinary ones; 0 / 0 is nan.
        odd = torch.tensor([[5.0, 5, 5, 5], [5, 5, 5, 5], [0, 3, 9, 3], [9, 9, 2, 2], [-7, -7, -3, -3]])
        a, b = torch.cat([odd, random_boxes(300, 1)]), torch.cat([odd, random_boxes(200, 2)])
        iou, expected = B.box_iou(a, b), torchvision.ops.box_iou(a, b)
        assert torch.equal(iou.nan_to_num(-1), expected.nan_to_num(-1)) and iou[0, 1].isnan()
        assert torch.equal(B.box_area(a), torchvision.ops.box_area(a))
        assert torch.equal(B.nms(b, b[:, 0], 0.5), torchvision.ops.nms(b, b[:, 0], 0.5))

    @pytest.mark.parametrize("dtype", [torch.float16, torch.int32, torch.int64, torch.float64])
    def test_other_dtypes_do_not_overflow(self, dtype):
        box = torch.tensor([[0, 0, 400, 400]]).to(dtype)  # its area is beyond half precision
        assert B.box_area(box).tolist() == [160000.0]
        assert B.box_iou(box, box).item() == 1.0

    @given(st.integers(0, 10_000), st.floats(0.01, 100), st.floats(-1000, 1000))
    def test_laws_symmetric_and_unmoved_by_shift_and_scale(self, seed, scale, shift):
        a, b = random_boxes(5, seed).double(), random_boxes(7, seed + 1).double()
        iou = B.box_iou(a, b)
        torch.testing.assert_close(iou, B.box_iou(b, a).T)
        torch.testing.assert_close(iou, B.box_iou(a * scale + shift, b * scale + shift), atol=1e-8, rtol=1e-6)


class TestEncodeDecode:
    @pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0, 1.0), (10.0, 10.0, 5.0, 5.0)])
    def test_equal_torchvision(self, weights):
        src, dst, coder = random_boxes(500, 1), random_boxes(500, 2), BoxCoder(weights)
        deltas = B.encode_boxes(src, dst, weights)
        torch.testing.assert_close(deltas, coder.encode([dst], [src])[0], atol=1e-6, rtol=1e-6)
        wild = torch.randn(500, 3 * 4, generator=torch.Generator().manual_seed(3)) * 20  # beyond the cap as well
        expected = coder.decode(wild, [src])
        torch.testing.assert_close(B.decode_boxes(src, wild.view(500, 3, 4), weights), expected, atol=1e-6, rtol=1e-6)

    def test_values_by_hand(self):
        src = torch.tensor([[10.0, 20.0, 30.0, 60.0]])  # 20 wide, 40 high, centered on (20, 40)
        dst = torch.tensor([[15.0, 10.0, 55.0, 50.0]])  # 40 wide, 40 high, centered on (35, 30)
        expected = [15 / 20, -10 / 40, math.log(2), 0.0]
        assert B.encode_boxes(src, dst)[0].tolist() == pytest.approx(expected)
        assert B.encode_boxes(src, dst, (10, 10, 5, 5))[0].tolist() == pytest.approx([7.5, -2.5, 5 * math.log(2), 0.0])

    @given(st.integers(0, 10_000), st.sampled_from([(1.0, 1.0, 1.0, 1.0), (10.0, 10.0, 5.0, 5.0)]))
    def test_law_decode_undoes_encode(self, seed, weights):
        src, dst = random_boxes(20, seed).double(), random_boxes(20, seed + 1).double()
        grown = (dst[:, 2:] - dst[:, :2]) / (src[:, 2:] - src[:, :2])
        fair = grown.amax(1) < 62.5
        back = B.decode_boxes(src, B.encode_boxes(src, dst, weights), weights)
        torch.testing.assert_close(back[fair], dst[fair], atol=1e-6, rtol=1e-6)


def test_clip_equals_torchvision_and_takes_height_first():
    boxes = random_boxes(200, 5) * 4 - 150
    before = boxes.clone()
    assert torch.equal(B.clip_boxes(boxes, (90, 160)), torchvision.ops.clip_boxes_to_image(boxes, (90, 160)))
    assert torch.equal(boxes, before)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda wrong, right: B.box_iou(wrong, right), r"a must have shape \(N, 4\).*\(3, 5\)"),
        (lambda wrong, right: B.decode_boxes(right, wrong), r"deltas must have shape \(N, 4\) or \(N, K, 4\)"),
        (lambda wrong, right: B.clip_boxes(wrong, (4, 4)), r"boxes must have shape \(…, 4\)"),
        (lambda wrong, right: B.encode_boxes(right, right[:1]), "src and dst must pair up"),
        (lambda wrong, right: B.decode_boxes(right, right[:1]), "src and deltas must pair up"),
        (lambda wrong, right: B.nms(right, torch.zeros(3), 0.5), r"each of the 2 boxes, but scores have shape \(3,\)"),
        (lambda wrong, right: B.batched_nms(right, right[:, 0], torch.zeros(3), 0.5), r"groups \(3,\)"),
        (lambda wrong, right: B.match(wrong, high=0.3, low=0.7), "low"),
        (lambda wrong, right: B.match(wrong[0], high=0.7, low=0.3), r"\(objects, boxes\)"),
        (lambda wrong, right: B.subsample(right[:, 0], -1, 0.5), "num"),
        (lambda wrong, right: B.subsample(right[:, 0], 4, 1.1), "positive_fraction"),
        (lambda wrong, right: select(right.tolist(), [[0.0, 1.0]] * 3), r"\(P, K\).*\(3, 2\).*\(2, 2, 4\)"),
    ],
)
def test_what_does_not_fit_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(torch.zeros(3, 5), random_boxes(2))


class TestNMS:
    @pytest.mark.parametrize("n", [0, 1, 256, 600])
    def test_ties_in_scores_and_overlaps_equal_torchvision(self, n):
        g = torch.Generator().manual_seed(n)
        corner = torch.randint(0, 12, (n, 2), generator=g).float()
        boxes = torch.cat([corner, corner + torch.randint(0, 6, (n, 2), generator=g)], dim=1)  # some have no area
        scores = torch.randint(0, 10, (n,), generator=g) / 10.0
        for threshold in (0.0, 1 / 3, 0.5, 0.25, 0.6, 0.7, 1.0):  # many IoUs equal these exactly
            expected = torchvision.ops.nms(boxes, scores, threshold)
            assert torch.equal(B.nms(boxes, scores, threshold), expected)
            assert torch.equal(B.nms_loop(boxes, scores, threshold), expected)

    def test_threshold_that_single_precision_rounds_up(self):
        """An IoU of float32(0.6), which is a little more than 0.6: greater, yet equal to the rounded threshold.

        And one of float32(0.7), which is a little less than 0.7.
        """
        scores = torch.tensor([0.9, 0.8])
        for iou, kept in ((0.6, [0]), (0.7, [0, 1])):
            boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 10 * iou]])
            assert B.box_iou(boxes, boxes)[0, 1] == torch.tensor(iou)
            assert B.nms(boxes, scores, iou).tolist() == kept
            for threshold in (iou, iou - 1e-9, iou + 1e-9, iou + 1e-7, iou - 1e-6):
                assert torch.equal(B.nms(boxes, scores, threshold), torchvision.ops.nms(boxes, scores, threshold))

    def test_negative_coordinates_do_not_reach_into_another_group(self):
        """The case of the docstring: offsets push one group onto another, comparing groups does not."""
        boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [-11.0, -11.0, -1.0, -1.0]])
        scores, groups = torch.tensor([0.9, 0.8]), torch.tensor([0, 1])
        assert torchvision.ops.batched_nms(boxes, scores, groups, 0.5).tolist() == [0]
        assert B.batched_nms(boxes, scores, groups, 0.5).tolist() == [0, 1]


def select(boxes, scores, **changes):
    options = {"score_threshold": 0.0, "nms_threshold": 0.3, "max_detections": 100} | changes
    return B.select_detections(torch.tensor(boxes), torch.tensor(scores), (50, 50), **options)


def test_the_threshold_itself_is_not_enough_and_margins_may_be_negative():
    """And a box without area is no detection."""
    boxes = [*([x, 0.0, x + 10, 10.0] for x in (0.0, 15.0, 30.0)), [45.0, 0.0, 45.0, 10.0]]
    found = select(boxes, [[0.0, -1.0], [-torch.inf, -0.9], [0.0, -1.1], [0.0, 0.9]], score_threshold=-1.0)
    assert found["scores"].tolist() == pytest.approx([-0.9])


def to_torchvision(gt_index, label):
    """torchvision writes both answers into one number: the object, or -1 background, or -2 ignored."""
    return torch.where(label == 1, gt_index, torch.where(label == 0, -1, -2))


class TestMatch:
    @pytest.mark.parametrize("allow_low_quality_matches", [False, True])
    @pytest.mark.parametrize("high, low", [(0.7, 0.3), (0.5, 0.5)])
    @pytest.mark.parametrize("shape", [(1, 1), (1, 50), (7, 3), (20, 5000)])
    def test_equals_torchvision(self, shape, high, low, allow_low_quality_matches):
        iou = torch.rand(shape, generator=torch.Generator().manual_seed(len(shape)))
        iou = (iou * 20).round() / 20  # ties between boxes and between objects
        iou[:, 0] = iou[:, 0].clamp(min=0.05)  # every object is touched: the case of the docstring is tested below
        expected = Matcher(high, low, allow_low_quality_matches=allow_low_quality_matches)(iou)
        assert torch.equal(to_torchvision(*B.match(iou, high, low, allow_low_quality_matches)), expected)

    def test_an_object_that_overlaps_nothing_makes_nothing_positive(self):
        """Nor does no object; and without boxes there is no answer."""
        iou = torch.tensor([[0.0, 0.0, 0.0]])
        assert Matcher(0.7, 0.3, allow_low_quality_matches=True)(iou).tolist() == [0, 0, 0]  # torchvision: all positive
        assert B.match(iou, 0.7, 0.3, allow_low_quality_matches=True)[1].tolist() == [0, 0, 0]
        assert [one.tolist() for one in B.match(iou[:0], 0.7, 0.3, allow_low_quality_matches=True)] == [[0] * 3] * 2
        for low_quality in (False, True):
            assert [one.shape for one in B.match(iou[:, :0], 0.7, 0.3, low_quality)] == [(0,)] * 2


@pytest.mark.parametrize("num, fraction", [(256, 0.5), (64, 0.25), (10, 1.0), (10, 0.0), (5000, 0.5), (7, 0.5)])
def test_subsample_takes_the_same_boxes_as_torchvision_for_the_same_seed(num, fraction):
    labels = torch.randint(-1, 4, (1000,), generator=torch.Generator().manual_seed(num))
    torch.manual_seed(3)
    expected = BalancedPositiveNegativeSampler(num, fraction)([labels])
    torch.manual_seed(3)
    for found, (mask,) in zip(B.subsample(labels, num, fraction), expected, strict=True):
        assert found.tolist() == torch.where(mask)[0].tolist()
