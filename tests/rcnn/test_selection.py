"""select_detections against torchvision's RoIHeads, and worked by hand."""

import pytest
import torch
from torch import nn
from torchvision.models.detection.roi_heads import RoIHeads

from minircnn.boxes import decode_boxes
from minircnn.rcnn import select_detections


def torchvision_heads(score, overlap, most):
    """RoIHeads that only selects; what it would compute features with is left out."""
    return RoIHeads(
        nn.Identity(), nn.Identity(), nn.Identity(), 0.5, 0.5, 1, 0.5, (10.0, 10.0, 5.0, 5.0), score, overlap, most
    )


@pytest.mark.parametrize("proposals, classes", [(0, 3), (1, 2), (50, 7), (400, 21)])
@pytest.mark.parametrize("score, overlap, most", [(0.05, 0.5, 100), (0.2, 0.3, 5), (0.0, 0.9, 1000)])
def test_equals_torchvision(proposals, classes, score, overlap, most):
    random = torch.Generator().manual_seed(proposals + classes)
    corner = torch.rand(proposals, 2, generator=random) * 150 - 20  # some lie outside of the picture
    boxes = torch.cat([corner, corner + 1 + torch.rand(proposals, 2, generator=random) * 60], dim=1)
    logits = torch.randn(proposals, classes, generator=random) * 2
    deltas = torch.randn(proposals, classes * 4, generator=random)
    heads = torchvision_heads(score, overlap, most)
    wanted_boxes, wanted_scores, wanted_labels = heads.postprocess_detections(logits, deltas, [boxes], [(100, 130)])
    moved = decode_boxes(boxes, deltas.view(proposals, classes, 4), (10.0, 10.0, 5.0, 5.0))
    found = select_detections(
        moved, logits.softmax(1), (100, 130), score_threshold=score, nms_threshold=overlap, max_detections=most
    )
    assert found["labels"].tolist() == wanted_labels[0].tolist()
    torch.testing.assert_close(found["boxes"], wanted_boxes[0], atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(found["scores"], wanted_scores[0])


def select(boxes, scores, **changes):
    options = {"score_threshold": 0.0, "nms_threshold": 0.3, "max_detections": 100} | changes
    return select_detections(torch.tensor(boxes), torch.tensor(scores), (50, 50), **options)


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
    boxes = [[60.0, 0.0, 70.0, 10.0], [-9.0, -9.0, 5.0, 5.0]]  # the first lies at the right of the picture
    found = select(boxes, [[-torch.inf, 2.0], [-torch.inf, 1.0]])
    assert found["boxes"].tolist() == [[0, 0, 5, 5]]


def test_shapes_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"scores must be \(P, K\).*\(2, 3\).*\(1, 3, 4\)"):
        select([[0.0, 0.0, 1.0, 1.0]], [[0.0, 1.0, 2.0]] * 2)
