"""The heads of Fast R-CNN against torchvision's, and against sums worked by hand."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.detection.roi_heads import RoIHeads as TorchvisionHeads
from torchvision.ops import RoIPool

from minircnn.boxes import box_iou, decode_boxes, encode_boxes
from minircnn.fast_rcnn import RegionLinear, RoIConfig, RoIHeads, SampledRoIs, fast_rcnn_loss
from minircnn.matching import match
from tests.fast_rcnn.conftest import CLASSES, boxes_in, target_of

K = len(CLASSES)
SIZE = (72, 88)


class PoolOneMap(nn.Module):
    """Torchvision's RoIPool behind the interface that its heads expect."""

    def __init__(self, size, scale):
        super().__init__()
        self.pool = RoIPool(size, scale)

    def forward(self, features, boxes, sizes):
        return self.pool(features["0"], boxes)


class Siblings(nn.Module):
    """Torchvision's predictor with our two layers."""

    def __init__(self, predictor):
        super().__init__()
        self.cls_score, self.bbox_pred = predictor["cls_score"], predictor["bbox_pred"]

    def forward(self, x):
        return self.cls_score(x), self.bbox_pred(x)


def make_heads(config=None, seed=0):
    torch.manual_seed(seed)
    config = config or RoIConfig(pool_size=3, smooth_l1_beta=1 / 9)
    head = nn.Sequential(RegionLinear(6 * config.pool_size**2, 16), nn.ReLU())
    heads = RoIHeads(head, 16, K, 8, config)
    for parameter in heads.box_predictor.parameters():
        nn.init.normal_(parameter, std=0.5)
    return heads


def torchvision_heads(ours):
    config = ours.config
    head = nn.Sequential(nn.Flatten(), ours.box_head)
    return TorchvisionHeads(
        PoolOneMap(config.pool_size, 1 / ours.stride),
        head,
        Siblings(ours.box_predictor),
        config.foreground_iou,
        config.background_iou[1],
        config.batch_size_per_image,
        config.positive_fraction,
        config.box_weights,
        config.score_threshold,
        config.nms_threshold,
        config.max_detections,
    )


def data(counts=(60, 90, 20), objects=(3, 1, 0)):
    proposals = [boxes_in(count, *SIZE, seed) for seed, count in enumerate(counts)]
    targets = [target_of(found, n, seed) for seed, (found, n) in enumerate(zip(proposals, objects, strict=True))]
    features = torch.randn(len(counts), 6, 9, 11, generator=torch.Generator().manual_seed(5)).relu()
    return features, proposals, targets


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "config",
    [
        RoIConfig(pool_size=3, smooth_l1_beta=1 / 9),
        RoIConfig(
            pool_size=2,
            smooth_l1_beta=1 / 9,
            batch_size_per_image=17,
            positive_fraction=0.5,
            foreground_iou=0.6,
            background_iou=(0.0, 0.3),
            box_weights=(1.0, 2.0, 3.0, 4.0),
        ),
    ],
    ids=["usual", "other"],
)
def test_losses_and_gradients_equal_torchvisions(seed, config):
    features, proposals, targets = data()
    ours = make_heads(config, seed)
    theirs = torchvision_heads(ours).train()
    gradients, losses = [], []
    for side in ("ours", "theirs"):
        leaf = features.clone().requires_grad_()
        torch.manual_seed(seed)
        if side == "ours":
            found = ours.losses(leaf, ours.sample(proposals, targets))
        else:
            _, found = theirs({"0": leaf}, list(proposals), [SIZE] * 3, targets)
        ours.zero_grad()
        sum(found.values()).backward()
        losses.append({name: float(value.detach()) for name, value in found.items()})
        gradients.append([leaf.grad, *(parameter.grad.clone() for parameter in ours.parameters())])
    assert losses[0].keys() == losses[1].keys()
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert losses[0]["loss_box_reg"] > 0
    for mine, reference in zip(*gradients, strict=True):
        assert torch.allclose(mine, reference, atol=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_the_same_regions_are_drawn_as_by_torchvision(seed):
    _, proposals, targets = data()
    ours = make_heads(seed=seed)
    torch.manual_seed(seed)
    sampled = ours.sample(proposals, targets)
    torch.manual_seed(seed)
    boxes, gt_index, labels, deltas = torchvision_heads(ours).select_training_samples(list(proposals), targets)
    for i, rois in enumerate(sampled):
        assert torch.equal(rois.boxes, boxes[i])
        assert torch.equal(rois.labels, labels[i])
        positive = labels[i] > 0  # elsewhere torchvision's other two mean nothing
        assert torch.equal(rois.gt_index[positive], gt_index[i][positive])
        assert torch.allclose(rois.deltas[positive], deltas[i][positive], atol=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_detections_equal_torchvisions(seed):
    features, proposals, _ = data()
    ours = make_heads(RoIConfig(pool_size=3, max_detections=25), seed).eval()
    with torch.no_grad():
        found = ours.detect(features, proposals, [SIZE] * 3)
        expected, _ = torchvision_heads(ours).eval()({"0": features}, list(proposals), [SIZE] * 3)
    for mine, reference in zip(found, expected, strict=True):
        assert len(mine["labels"]) > 5
        assert torch.equal(mine["labels"], reference["labels"])
        assert torch.allclose(mine["boxes"], reference["boxes"], atol=1e-4)
        assert torch.allclose(mine["scores"], reference["scores"], atol=1e-6)


def test_without_regression_boxes_are_proposals():
    features, proposals, _ = data((40,), (0,))
    found = make_heads().detect(features, proposals, [(1000, 1000)], regress=False)[0]
    inside = proposals[0].clamp(min=0)
    assert len(found["boxes"])
    assert all((inside == box).all(dim=1).any() for box in found["boxes"])


def test_a_quarter_shows_objects_and_objects_take_part():
    proposals = [torch.tensor([[0.0, 0, 10, 10], [40, 40, 60, 60]]).repeat(50, 1)]
    target = {"boxes": torch.tensor([[0.0, 0, 10, 10]]), "labels": torch.tensor([2])}
    rois = make_heads().sample(proposals, [target])[0]
    assert len(rois.labels) == 64
    assert (rois.labels == 2).sum() == 16 and (rois.labels == 0).sum() == 48
    assert (rois.deltas[rois.labels == 0] == 0).all()
    lonely = make_heads().sample([torch.zeros(0, 4)], [target])[0]  # no proposals: the object itself is the region
    assert torch.equal(lonely.boxes, target["boxes"]) and lonely.labels.tolist() == [2]


def test_background_has_a_band_of_overlaps():
    """Proposals that overlap an object by 0.0, 0.05, 0.2, 0.45, 0.5 and 0.9, in the paper's bands."""
    overlaps = torch.tensor([0.0, 0.05, 0.2, 0.45, 0.5, 0.9])
    proposals = torch.stack([torch.zeros(6), torch.zeros(6), torch.full((6,), 100.0), 100 * overlaps], dim=1)
    proposals[0] = torch.tensor([200.0, 200.0, 300.0, 300.0])
    target = {"boxes": torch.tensor([[0.0, 0, 100, 100]]), "labels": torch.tensor([1])}
    assert box_iou(proposals, target["boxes"]).flatten().tolist() == pytest.approx(overlaps.tolist())

    def drawn(**bands):
        config = RoIConfig(pool_size=3, batch_size_per_image=100, **bands)
        rois = make_heads(config).sample([proposals], [target])[0]
        return [
            (round(float(iou), 2), int(label))
            for iou, label in zip(box_iou(rois.boxes, target["boxes"]).flatten(), rois.labels, strict=True)
        ]

    paper = drawn(background_iou=(0.1, 0.5))
    assert paper == [(0.2, 0), (0.45, 0), (0.5, 1), (0.9, 1), (1.0, 1)]
    assert drawn()[:2] == [(0.0, 0), (0.05, 0)]
    assert drawn(background_iou=(0.0, 0.3))[2:4] == [(0.2, 0), (0.5, 1)]


def test_crowds_are_neither_objects_nor_background():
    proposals = [torch.tensor([[0.0, 0, 10, 10], [50, 50, 60, 60], [52, 52, 58, 58]])]
    target = {
        "boxes": torch.tensor([[48.0, 48, 70, 70], [0, 0, 10, 10]]),
        "labels": torch.tensor([3, 1]),
        "iscrowd": torch.tensor([True, False]),
    }
    rois = make_heads().sample(proposals, [target])[0]
    assert rois.boxes.tolist() == [[0, 0, 10, 10], [0, 0, 10, 10]]  # the proposal and the object
    assert rois.labels.tolist() == [1, 1] and rois.gt_index.tolist() == [0, 0]


def test_deltas_lead_to_the_objects():
    _, proposals, targets = data()
    config = make_heads().config
    for rois, target in zip(make_heads().sample(proposals, targets), targets, strict=True):
        positive = rois.labels > 0
        reached = decode_boxes(rois.boxes[positive], rois.deltas[positive], config.box_weights)
        assert torch.allclose(reached, target["boxes"][rois.gt_index[positive]], atol=1e-3)
        _, label = match(box_iou(target["boxes"], rois.boxes), 0.5, 0.5)
        assert torch.equal(positive, label == 1)


class TestLoss:
    def test_by_hand(self):
        logits = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
        deltas = torch.zeros(2, 2, 4)
        deltas[1, 1] = torch.tensor([0.5, -3.0, 0.0, 0.0])
        deltas[:, 0] = 77.0  # background's own deltas do not count
        classifier, box = fast_rcnn_loss(logits, deltas, torch.tensor([0, 1]), torch.zeros(2, 4), beta=1.0)
        wanted = (math.log(1 + math.exp(-1)) + math.log(1 + math.exp(-2))) / 2
        assert float(classifier) == pytest.approx(wanted)
        assert float(box) == pytest.approx((0.5 * 0.25 + 2.5) / 2)

    def test_lambda_weighs_the_box(self):
        features, proposals, targets = data()
        sampled = make_heads().sample(proposals, targets)
        one, three = (
            make_heads(RoIConfig(pool_size=3, box_loss_weight=weight)).losses(features, sampled) for weight in (1, 3)
        )
        assert torch.allclose(three["loss_box_reg"], 3 * one["loss_box_reg"])
        assert torch.equal(three["loss_classifier"], one["loss_classifier"])

    def test_only_the_true_class_gets_a_gradient_for_its_box(self):
        deltas = torch.zeros(2, 3, 4, requires_grad=True)
        _, box = fast_rcnn_loss(torch.zeros(2, 3), deltas, torch.tensor([2, 0]), torch.ones(2, 4))
        box.backward()
        assert deltas.grad.nonzero()[:, :2].unique(dim=0).tolist() == [[0, 2]]

    @pytest.mark.parametrize("labels", [[], [0, 0, 0]], ids=["no regions", "background only"])
    def test_nothing_to_regress_gives_zero_with_gradients(self, labels):
        logits = torch.randn(len(labels), K, requires_grad=True)
        deltas = torch.randn(len(labels), K, 4, requires_grad=True)
        labels = torch.tensor(labels, dtype=torch.int64)
        classifier, box = fast_rcnn_loss(logits, deltas, labels, torch.zeros(len(labels), 4))
        (classifier + box).backward()
        assert float(box.detach()) == 0 and bool(classifier.isfinite())
        assert logits.grad.isfinite().all() and (deltas.grad == 0).all()

    @pytest.mark.parametrize("beta", [1.0, 1 / 9, 0.5])
    def test_smooth_l1_is_torchs(self, beta):
        deltas, wanted = torch.randn(6, 1, 4), torch.randn(6, 4)
        deltas = torch.cat([torch.zeros_like(deltas), deltas], dim=1)
        _, box = fast_rcnn_loss(torch.zeros(6, 2), deltas, torch.ones(6, dtype=torch.int64), wanted, beta)
        expected = nn.SmoothL1Loss(beta=beta, reduction="sum")(deltas[:, 1], wanted) / 6
        assert float(box) == pytest.approx(float(expected), rel=1e-5)


def test_fresh_siblings_know_nothing():
    """Section 2.3: deviations 0.01 and 0.001, no bias: all classes about equally probable, boxes stay."""
    torch.manual_seed(0)
    heads = RoIHeads(nn.Flatten(), 512, 21, 16)
    assert heads.box_predictor["cls_score"].weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert heads.box_predictor["bbox_pred"].weight.std().item() == pytest.approx(0.001, rel=0.05)
    assert not heads.box_predictor["cls_score"].bias.any() and not heads.box_predictor["bbox_pred"].bias.any()
    assert sorted(heads.state_dict()) == [
        f"box_predictor.{name}.{kind}" for name in ("bbox_pred", "cls_score") for kind in ("bias", "weight")
    ]


def test_bands_that_contradict_each_other_are_refused():
    for bands in ({"background_iou": (0.3, 0.1)}, {"background_iou": (0.1, 0.7)}, {"foreground_iou": 0.4}):
        with pytest.raises(ValueError, match="background_iou must rise and end at or below foreground_iou"):
            RoIConfig(**bands)


def test_encode_is_used_with_the_weights():
    proposals = [torch.tensor([[0.0, 0, 10, 10]])]
    target = {"boxes": torch.tensor([[1.0, 0, 11, 10]]), "labels": torch.tensor([1])}
    rois = make_heads(RoIConfig(pool_size=3, box_weights=(10.0, 10.0, 5.0, 5.0))).sample(proposals, [target])[0]
    assert rois.deltas[0].tolist() == pytest.approx([1.0, 0, 0, 0])
    assert torch.allclose(rois.deltas[0], encode_boxes(proposals[0], target["boxes"], (10, 10, 5, 5))[0])
    assert isinstance(rois, SampledRoIs) and F.relu(rois.deltas).sum() == 1
