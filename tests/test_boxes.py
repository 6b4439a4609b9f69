"""Boxes against torchvision, values worked by hand, slow loops, and the laws that the docstrings state."""

import math

import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.roi_heads import RoIHeads

from minircnn import boxes as B

NAN = float("nan")


def random_boxes(n, seed=0, scale=100.0):
    g = torch.Generator().manual_seed(seed)
    corner = torch.rand(n, 2, generator=g) * scale
    return torch.cat([corner, corner + torch.rand(n, 2, generator=g) * scale * 0.5 + 0.1], dim=1)


def degenerate_boxes():
    """Points, lines, inside-out boxes and boxes outside any image, among ordinary ones."""
    rows = [[5, 5, 5, 5], [5, 5, 5, 5], [0, 3, 9, 3], [9, 9, 2, 2], [-7, -7, -3, -3], [0, 0, 10, 10], [0, 0, 10, 10]]
    return torch.tensor(rows, dtype=torch.float32)


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
        a, b = random_boxes(300, 1), random_boxes(200, 2)
        assert torch.equal(B.box_iou(a, b), torchvision.ops.box_iou(a, b))
        assert torch.equal(B.box_area(a), torchvision.ops.box_area(a))

    def test_degenerate_equal_torchvision(self):
        d = degenerate_boxes()
        assert torch.equal(B.box_iou(d, d).nan_to_num(-1), torchvision.ops.box_iou(d, d).nan_to_num(-1))
        assert B.box_iou(d[:1], d[:1]).isnan().all()

    @pytest.mark.parametrize("dtype", [torch.float16, torch.int32, torch.int64, torch.float64])
    def test_other_dtypes_do_not_overflow(self, dtype):
        box = torch.tensor([[0, 0, 400, 400]]).to(dtype)  # its area is beyond half precision
        assert B.box_area(box).tolist() == [160000.0]
        assert B.box_iou(box, box).item() == 1.0

    @given(grid_boxes, grid_boxes)
    def test_against_slow_loop(self, a, b):
        expected = torch.tensor([[iou_by_hand(p, q) for q in b.tolist()] for p in a.tolist()]).reshape(len(a), len(b))
        torch.testing.assert_close(B.box_iou(a, b), expected, equal_nan=True)

    @given(st.integers(0, 10_000), st.floats(0.01, 100), st.floats(-1000, 1000))
    def test_laws_symmetric_and_unmoved_by_shift_and_scale(self, seed, scale, shift):
        a, b = random_boxes(5, seed).double(), random_boxes(7, seed + 1).double()
        iou = B.box_iou(a, b)
        torch.testing.assert_close(iou, B.box_iou(b, a).T)
        torch.testing.assert_close(iou, B.box_iou(a * scale + shift, b * scale + shift), atol=1e-8, rtol=1e-6)

    def test_gradient(self):
        a = random_boxes(4, 3).double().requires_grad_()
        b = random_boxes(3, 4).double().requires_grad_()
        assert torch.autograd.gradcheck(B.box_iou, (a, b))

    def test_inputs_stay_as_they_are(self):
        a, b = random_boxes(4, 1), random_boxes(4, 1)
        B.box_iou(a, a), B.encode_boxes(a, a), B.decode_boxes(a, a), B.clip_boxes(a, (5, 5))
        B.nms(a, a[:, 0], 0.5)
        assert torch.equal(a, b)

    @pytest.mark.parametrize("shape", [(4,), (3, 5), (0,), (2, 3, 4)])
    def test_wrong_shape_is_named(self, shape):
        wrong, right = torch.zeros(shape), torch.zeros(1, 4)
        with pytest.raises(ValueError, match=r"a must have shape \(N, 4\)"):
            B.box_iou(wrong, right)
        with pytest.raises(ValueError, match=r"dst must have shape \(N, 4\)"):
            B.encode_boxes(right, wrong)
        with pytest.raises(ValueError, match=r"src must have shape \(N, 4\)"):
            B.decode_boxes(wrong, right)
        with pytest.raises(ValueError, match=r"boxes must have shape \(N, 4\)"):
            B.nms(wrong, torch.zeros(2), 0.5)
        if shape[-1] != 4:
            with pytest.raises(ValueError, match=r"deltas must have shape \(N, 4\) or \(N, K, 4\)"):
                B.decode_boxes(right, wrong)
            with pytest.raises(ValueError, match=r"boxes must have shape \(…, 4\)"):
                B.clip_boxes(wrong, (4, 4))


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

    def test_growth_is_capped(self):
        src = torch.tensor([[0.0, 0.0, 16.0, 16.0]])
        grown = B.decode_boxes(src, torch.tensor([[0.0, 0.0, 500.0, 500.0]]))
        assert (grown[:, 2:] - grown[:, :2])[0].tolist() == pytest.approx([1000.0, 1000.0])

    def test_unpaired_is_an_error(self):
        with pytest.raises(ValueError, match="pair up"):
            B.encode_boxes(random_boxes(2), random_boxes(3))
        with pytest.raises(ValueError, match="pair up"):
            B.decode_boxes(random_boxes(2), torch.zeros(3, 4))

    def test_gradient_reaches_the_deltas(self):
        src = random_boxes(4).double()
        deltas = torch.randn(4, 2, 4, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(lambda d: B.decode_boxes(src, d), (deltas,))


class TestClip:
    def test_equals_torchvision_and_takes_height_first(self):
        boxes = random_boxes(200, 5) * 4 - 150
        assert torch.equal(B.clip_boxes(boxes, (90, 160)), torchvision.ops.clip_boxes_to_image(boxes, (90, 160)))
        assert B.clip_boxes(torch.tensor([[0.0, 0.0, 99.0, 99.0]]), (10, 20)).tolist() == [[0.0, 0.0, 20.0, 10.0]]

    def test_outside_keeps_no_area(self):
        clipped = B.clip_boxes(torch.tensor([[-9.0, -9.0, -1.0, -1.0], [50.0, 50.0, 60.0, 60.0]]), (20, 20))
        assert B.box_area(clipped).tolist() == [0.0, 0.0]


class TestNMS:
    @pytest.mark.parametrize("n", [1, 256, 257, 1500])
    @pytest.mark.parametrize("threshold", [0.0, 0.5, 1.0])
    def test_equals_torchvision(self, n, threshold):
        boxes = random_boxes(n, n)
        scores = torch.rand(n, generator=torch.Generator().manual_seed(n))
        expected = torchvision.ops.nms(boxes, scores, threshold)
        assert torch.equal(B.nms(boxes, scores, threshold), expected)
        assert torch.equal(B.nms_loop(boxes, scores, threshold), expected)

    @pytest.mark.parametrize("seed", range(5))
    def test_ties_in_scores_and_overlaps_equal_torchvision(self, seed):
        g = torch.Generator().manual_seed(seed)
        corner = torch.randint(0, 12, (600, 2), generator=g).float()
        boxes = torch.cat([corner, corner + torch.randint(0, 6, (600, 2), generator=g)], dim=1)  # some have no area
        scores = torch.randint(0, 10, (600,), generator=g) / 10.0
        for threshold in (1 / 3, 0.5, 0.25, 0.6, 0.7):  # many IoUs equal these exactly
            assert torch.equal(B.nms(boxes, scores, threshold), torchvision.ops.nms(boxes, scores, threshold))

    def test_degenerate_equal_torchvision(self):
        boxes = degenerate_boxes()
        scores = torch.linspace(1, 0, len(boxes))
        assert torch.equal(B.nms(boxes, scores, 0.5), torchvision.ops.nms(boxes, scores, 0.5))
        assert B.nms(boxes, scores, 0.5).tolist()[:2] == [0, 1]  # two equal points: 0 / 0 drops neither

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

    def test_an_iou_equal_to_the_threshold_is_kept(self):
        boxes = torch.tensor([[0.0, 0.0, 2.0, 1.0], [0.0, 0.0, 1.0, 1.0]])
        assert B.nms(boxes, torch.tensor([0.9, 0.8]), 0.5).tolist() == [0, 1]

    def test_a_dropped_box_drops_nobody(self):
        """B is dropped by A; C overlaps B but not A, and stays."""
        boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [4.0, 0.0, 14.0, 10.0], [8.0, 0.0, 18.0, 10.0]])
        assert B.nms(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.3).tolist() == [0, 2]

    def test_empty(self):
        keep = B.nms(torch.zeros(0, 4), torch.zeros(0), 0.5)
        assert keep.shape == (0,) and keep.dtype == torch.int64
        assert B.batched_nms(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64), 0.5).shape == (0,)

    def test_unpaired_is_an_error(self):
        with pytest.raises(ValueError, match=r"each of the 2 boxes, but scores have shape \(3,\)"):
            B.nms(random_boxes(2), torch.zeros(3), 0.5)
        with pytest.raises(ValueError, match=r"scores have shape \(2, 1\)"):
            B.nms(random_boxes(2), torch.zeros(2, 1), 0.5)
        with pytest.raises(ValueError, match=r"groups \(3,\)"):
            B.batched_nms(random_boxes(2), torch.zeros(2), torch.zeros(3), 0.5)


class TestBatchedNMS:
    @pytest.mark.parametrize("n, classes", [(50, 3), (900, 1), (3000, 2), (3000, 80), (3000, 2000)])
    def test_equals_torchvision_class_by_class(self, n, classes):
        g = torch.Generator().manual_seed(n)
        boxes, scores = random_boxes(n, n), torch.rand(n, generator=g)
        groups = torch.randint(0, classes, (n,), generator=g)
        keep = torch.cat(
            [
                (index := torch.where(groups == c)[0])[torchvision.ops.nms(boxes[index], scores[index], 0.4)]
                for c in groups.unique()
            ]
        )
        keep = keep.sort().values  # of equal scores the first box comes first
        expected = keep[scores[keep].argsort(descending=True, stable=True)]
        assert torch.equal(B.batched_nms(boxes, scores, groups, 0.4), expected)
        assert torch.equal(B.batched_nms(boxes, scores, groups, 0.4, max_keep=60), expected[:60])

    def test_negative_coordinates_do_not_reach_into_another_group(self):
        """The case of the docstring: offsets push one group onto another, comparing groups does not."""
        boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [-11.0, -11.0, -1.0, -1.0]])
        scores, groups = torch.tensor([0.9, 0.8]), torch.tensor([0, 1])
        assert torchvision.ops.batched_nms(boxes, scores, groups, 0.5).tolist() == [0]
        assert B.batched_nms(boxes, scores, groups, 0.5).tolist() == [0, 1]


def torchvision_heads(score, overlap, most):
    """RoIHeads that only selects; what it would compute features with is left out."""
    return RoIHeads(
        nn.Identity(), nn.Identity(), nn.Identity(), 0.5, 0.5, 1, 0.5, (10.0, 10.0, 5.0, 5.0), score, overlap, most
    )


@pytest.mark.parametrize("proposals, classes", [(0, 3), (1, 2), (50, 7), (400, 21)])
@pytest.mark.parametrize("score, overlap, most", [(0.05, 0.5, 100), (0.2, 0.3, 5), (0.0, 0.9, 1000)])
def test_selected_detections_equal_torchvisions(proposals, classes, score, overlap, most):
    random = torch.Generator().manual_seed(proposals + classes)
    corner = torch.rand(proposals, 2, generator=random) * 150 - 20  # some lie outside of the image
    boxes = torch.cat([corner, corner + 1 + torch.rand(proposals, 2, generator=random) * 60], dim=1)
    logits = torch.randn(proposals, classes, generator=random) * 2
    deltas = torch.randn(proposals, classes * 4, generator=random)
    heads = torchvision_heads(score, overlap, most)
    wanted_boxes, wanted_scores, wanted_labels = heads.postprocess_detections(logits, deltas, [boxes], [(100, 130)])
    moved = B.decode_boxes(boxes, deltas.view(proposals, classes, 4), (10.0, 10.0, 5.0, 5.0))
    found = B.select_detections(
        moved, logits.softmax(1), (100, 130), score_threshold=score, nms_threshold=overlap, max_detections=most
    )
    assert found["labels"].tolist() == wanted_labels[0].tolist()
    torch.testing.assert_close(found["boxes"], wanted_boxes[0], atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(found["scores"], wanted_scores[0])


def select(boxes, scores, **changes):
    options = {"score_threshold": 0.0, "nms_threshold": 0.3, "max_detections": 100} | changes
    return B.select_detections(torch.tensor(boxes), torch.tensor(scores), (50, 50), **options)


def test_background_is_never_found_and_boxes_may_be_shared():
    found = select([[0.0, 0.0, 10.0, 10.0]], [[9.0, 0.5, 0.4]])
    assert found["labels"].tolist() == [1, 2]  # one proposal, two names
    assert found["labels"].dtype == torch.int64
    assert found["boxes"].tolist() == [[0, 0, 10, 10]] * 2


def test_the_threshold_itself_is_not_enough_and_margins_may_be_negative():
    boxes = [[x, 0.0, x + 10, 10.0] for x in (0.0, 15.0, 30.0)]
    found = select(boxes, [[0.0, -1.0], [0.0, -0.9], [0.0, -1.1]], score_threshold=-1.0)
    assert found["scores"].tolist() == pytest.approx([-0.9])


def test_infinite_background_and_boxes_clipped_to_nothing():
    boxes = [[60.0, 0.0, 70.0, 10.0], [-9.0, -9.0, 5.0, 5.0]]  # the first lies at the right of the image
    found = select(boxes, [[-torch.inf, 2.0], [-torch.inf, 1.0]])
    assert found["boxes"].tolist() == [[0, 0, 5, 5]]


def test_shapes_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"scores must be \(P, K\).*\(2, 3\).*\(1, 3, 4\)"):
        select([[0.0, 0.0, 1.0, 1.0]], [[0.0, 1.0, 2.0]] * 2)
