"""Mask targets, losses and probabilities, against torchvision, loops and values worked by hand."""

import math

import pytest
import torch
from torch.nn import functional as F
from torchvision.models.detection.roi_heads import maskrcnn_loss
from torchvision.models.detection.roi_heads import project_masks_on_boxes as torchvision_projection

from minircnn.mask_rcnn import mask_loss, mask_probabilities, project_masks_on_boxes
from tests.mask_rcnn.conftest import ellipses


def boxes_in(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    start = torch.rand(count, 2, generator=generator) * 60 - 10
    return torch.cat([start, start + 2 + torch.rand(count, 2, generator=generator) * 50], dim=1)


def test_targets_equal_torchvisions():
    masks, boxes = ellipses(boxes_in(5), (70, 80)), boxes_in(200, seed=1)
    gt_index = torch.randint(0, 5, (200,), generator=torch.Generator().manual_seed(0))
    found = project_masks_on_boxes(masks, boxes, gt_index, 28, aligned=False)
    assert torch.allclose(found, torchvision_projection(masks, boxes, gt_index, 28), atol=1e-5)


def test_aligned_targets_are_the_share_that_is_covered():
    """Boxes whose cells are two by two pixels: each cell's value is the mean of its four."""
    mask = torch.rand(1, 12, 16, generator=torch.Generator().manual_seed(0)) > 0.5
    found = project_masks_on_boxes(mask, torch.tensor([[4.0, 2.0, 12.0, 10.0]]), torch.tensor([0]), 4)
    expected = F.avg_pool2d(mask[:, None, 2:10, 4:12].float(), 2)[:, 0]
    assert torch.equal(found, expected)


def test_no_regions():
    assert project_masks_on_boxes(torch.ones(2, 5, 5).bool(), torch.zeros(0, 4), torch.zeros(0).long(), 28).shape == (
        0,
        28,
        28,
    )
    assert project_masks_on_boxes(torch.ones(0, 5, 5).bool(), torch.zeros(0, 4), torch.zeros(0).long(), 28).shape == (
        0,
        28,
        28,
    )


def test_loss_equals_torchvisions():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(20, 4, 14, 14, generator=generator).requires_grad_()
    masks, boxes = ellipses(boxes_in(5), (70, 80)), boxes_in(20, seed=1)
    gt_index, labels = torch.arange(20) % 5, 1 + torch.arange(5) % 3
    expected = maskrcnn_loss(logits, [boxes], [masks.byte()], [labels], [gt_index])
    found = mask_loss(logits, labels[gt_index], project_masks_on_boxes(masks, boxes, gt_index, 14, aligned=False))
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    ours, theirs = (torch.autograd.grad(loss, logits)[0] for loss in (found, expected))
    assert torch.allclose(ours, theirs, atol=1e-7)


def test_only_the_true_classes_mask_is_looked_at():
    logits = torch.randn(3, 4, 2, 2, generator=torch.Generator().manual_seed(0)).requires_grad_()
    labels = torch.tensor([1, 3, 2])
    mask_loss(logits, labels, torch.ones(3, 2, 2)).backward()
    touched = logits.grad.abs().sum(dim=(2, 3)) > 0
    assert touched.nonzero().tolist() == [[0, 1], [1, 3], [2, 2]]


def test_softmax_by_a_loop():
    generator = torch.Generator().manual_seed(0)
    logits, wanted = torch.randn(2, 3, 2, 2, generator=generator), torch.rand(2, 2, 2, generator=generator)
    labels, total = [2, 1], 0.0
    for region in range(2):
        for row in range(2):
            for column in range(2):
                numbers = logits[region, :, row, column].tolist()
                right = labels[region] if wanted[region, row, column] >= 0.5 else 0
                total -= numbers[right] - math.log(sum(map(math.exp, numbers)))
    assert mask_loss(logits, torch.tensor(labels), wanted, "softmax").item() == pytest.approx(total / 8, rel=1e-5)
    chosen = mask_probabilities(logits, torch.tensor(labels), "softmax")
    assert torch.allclose(chosen[0], logits[0].exp()[2] / logits[0].exp().sum(dim=0))


def test_probabilities_are_those_of_the_class():
    logits = torch.randn(2, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    found = mask_probabilities(logits, torch.tensor([2, 1]))
    assert torch.equal(found, torch.stack([logits[0, 2], logits[1, 1]]).sigmoid())
    assert mask_probabilities(torch.zeros(0, 3, 4, 4), torch.zeros(0).long()).shape == (0, 4, 4)


@pytest.mark.parametrize("kind", ["sigmoid", "softmax"])
def test_no_regions_cost_nothing(kind):
    logits = torch.zeros(0, 3, 4, 4, requires_grad=True)
    loss = mask_loss(logits, torch.zeros(0).long(), torch.zeros(0, 4, 4), kind)
    loss.backward()
    assert loss == 0 and logits.grad.shape == logits.shape


def test_unknown_kinds_are_refused():
    for call in (
        lambda: mask_loss(torch.zeros(1, 3, 4, 4), torch.tensor([1]), torch.zeros(1, 4, 4), "tanh"),
        lambda: mask_probabilities(torch.zeros(1, 3, 4, 4), torch.tensor([1]), "tanh"),
    ):
        with pytest.raises(ValueError, match="'sigmoid' or 'softmax', but is 'tanh'"):
            call()
