"""The region proposal network on its own, with one and with several levels, against torchvision's."""

import pytest
import torch
from torch import nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RegionProposalNetwork
from torchvision.models.detection.rpn import RPNHead as TorchvisionHead

from minircnn.boxes import box_iou
from minircnn.faster_rcnn import RPN, RPNConfig, RPNHead

ONE = RPNConfig(
    anchor_sizes=((16.0, 40.0),), batch_size_per_image=40, pre_nms_top_n=(200, 150), post_nms_top_n=(50, 30)
)
THREE = RPNConfig(
    anchor_sizes=((10.0,), (24.0,), (60.0,)), batch_size_per_image=64, pre_nms_top_n=(90, 60), post_nms_top_n=(70, 40)
)
SIZES = [(90, 101), (75, 128)]  # of the pictures; the batch has (96, 128)


def pair(config, seed=0):
    """Ours and torchvision's, with the same weights, and feature maps of as many levels."""
    torch.manual_seed(seed)
    ours = RPN(8, config)
    for layer in (ours.head.cls_logits, ours.head.bbox_pred, ours.head.conv[0][0]):
        nn.init.normal_(layer.weight, std=0.3)
    head = TorchvisionHead(8, config.anchors_per_cell)
    head.load_state_dict(ours.head.state_dict())  # by name: they have the same
    theirs = RegionProposalNetwork(
        AnchorGenerator(config.anchor_sizes, (config.aspect_ratios,) * len(config.anchor_sizes)),
        head,
        config.foreground_iou,
        config.background_iou,
        config.batch_size_per_image,
        config.positive_fraction,
        dict(zip(("training", "testing"), config.pre_nms_top_n, strict=True)),
        dict(zip(("training", "testing"), config.post_nms_top_n, strict=True)),
        config.nms_threshold[0],
    )
    levels = [torch.randn(2, 8, 96 // s, 128 // s) for s in (8, 16, 32)[: len(config.anchor_sizes)]]
    start = torch.rand(2, 4, 2) * 60
    boxes = torch.cat([start, start + 8 + torch.rand(2, 4, 2) * 25], dim=2)
    targets = [{"boxes": found, "labels": torch.ones(4, dtype=torch.int64)} for found in boxes]
    return ours, theirs, levels, targets


@pytest.mark.parametrize("config", [ONE, THREE], ids=["one level", "three levels"])
@pytest.mark.parametrize("training", [True, False])
def test_proposals_and_losses_equal_torchvisions(config, training):
    ours, theirs, levels, targets = pair(config)
    ours.train(training), theirs.train(training)
    images = ImageList(torch.zeros(2, 3, 96, 128), SIZES)
    torch.manual_seed(1)
    expected, losses = theirs(images, {str(i): level for i, level in enumerate(levels)}, targets)
    rpn_outputs = ours(levels, (96, 128))
    found = ours.filter_proposals(rpn_outputs, SIZES)
    for mine, boxes, size in zip(found, expected, SIZES, strict=True):
        assert len(boxes) > 10
        assert torch.allclose(mine["boxes"], boxes, atol=1e-4)
        assert mine["scores"].tolist() == sorted(mine["scores"].tolist(), reverse=True)
        assert mine["boxes"].min() >= 0 and (mine["boxes"] <= torch.tensor([*size[::-1]] * 2)).all()
    if training:
        torch.manual_seed(1)
        mine = ours.losses(rpn_outputs, targets)
        for name, value in losses.items():
            assert mine[name].item() == pytest.approx(value.item(), rel=1e-5)


def test_the_window_is_a_small_network_at_every_place():
    """A convolution and two siblings, against a loop over places with matrices."""
    torch.manual_seed(0)
    head, features = RPNHead(3, 2), torch.randn(1, 3, 4, 5)
    logits, deltas = head(features)
    window, padded = head.conv[0][0], torch.nn.functional.pad(features, (1, 1, 1, 1))
    place = 0
    for y in range(4):
        for x in range(5):
            patch = padded[0, :, y : y + 3, x : x + 3].flatten()
            hidden = (window.weight.flatten(1) @ patch + window.bias).relu()
            scores = head.cls_logits.weight.flatten(1) @ hidden + head.cls_logits.bias
            boxes = (head.bbox_pred.weight.flatten(1) @ hidden + head.bbox_pred.bias).view(2, 4)
            assert torch.allclose(logits[0, place : place + 2], scores, atol=1e-6)
            assert torch.allclose(deltas[0, place : place + 2], boxes, atol=1e-6)
            place += 2
    assert logits.shape == (1, place) and deltas.shape == (1, place, 4)


def test_labels_by_hand():
    """Good, between, bad, and the best of an object that none overlaps well."""
    rpn = RPN(8, ONE)
    anchors = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 20], [0, 0, 40, 40], [50, 50, 60, 60], [90, 90, 99, 99]])
    target = {"boxes": torch.tensor([[0.0, 0, 10, 10], [50, 50, 75, 60]]), "labels": torch.tensor([1, 1])}
    assert box_iou(target["boxes"], anchors)[1, 3].item() == pytest.approx(0.4)
    gt_index, label = rpn.label_anchors(anchors, target)
    assert label.tolist() == [1, -1, 0, 1, 0]
    assert gt_index[[0, 3]].tolist() == [0, 1]


def test_levels_do_not_suppress_each_other():
    """The same box from two levels stays twice, as in torchvision: suppression is for each level on its own."""
    rpn = RPN(8, RPNConfig(anchor_sizes=((16.0,), (16.0,)), aspect_ratios=(1.0,), post_nms_top_n=(50, 50))).eval()
    nn.init.zeros_(rpn.head.bbox_pred.weight)
    rpn_outputs = rpn([torch.randn(1, 8, 2, 2)] * 2, (64, 64))
    found = rpn.filter_proposals(rpn_outputs, [(64, 64)])[0]["boxes"]
    assert len(found) == 8 and len(found.unique(dim=0)) == 4


def test_small_boxes_and_few_anchors():
    rpn = RPN(8, RPNConfig(anchor_sizes=((16.0,),), min_size=17.0)).eval()
    nn.init.zeros_(rpn.head.bbox_pred.weight)
    found = rpn.filter_proposals(rpn([torch.randn(1, 8, 3, 3)], (48, 48)), [(48, 48)])[0]
    assert found["boxes"].shape == (0, 4) and found["scores"].shape == (0,)


def test_training_and_detection_have_numbers_of_their_own():
    limits = {"nms_threshold": (0.9, 0.1), "pre_nms_top_n": (300, 50), "post_nms_top_n": (200, 9)}
    rpn = RPN(8, RPNConfig(anchor_sizes=((16.0, 40.0),), **limits))
    torch.manual_seed(0)
    rpn_outputs = rpn([torch.randn(1, 8, 12, 16)], (96, 128))
    many, few = (len(rpn.train(mode).filter_proposals(rpn_outputs, [(96, 128)])[0]["boxes"]) for mode in (True, False))
    assert 100 < many <= 200 and few <= 9
    found = rpn.eval().filter_proposals(rpn_outputs, [(96, 128)])[0]["boxes"]
    assert (box_iou(found, found).triu(1) <= 0.1).all()
    more = rpn.train().filter_proposals(rpn_outputs, [(96, 128)])[0]["boxes"]
    assert box_iou(more, more).triu(1).max() > 0.5
