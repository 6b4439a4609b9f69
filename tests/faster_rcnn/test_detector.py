"""Faster R-CNN against torchvision's class with the same layers, weights and seed."""

from dataclasses import replace

import pytest
import torch

from minircnn.alexnet import ALEXNET_2012, SMALL, AlexNet
from minircnn.fast_rcnn import FastRCNN, fast_rcnn_alexnet
from minircnn.faster_rcnn import RPNConfig, faster_rcnn_alexnet
from minircnn.transforms import padded_size
from tests.fast_rcnn.conftest import CLASSES, TINY
from tests.faster_rcnn.conftest import assert_same_losses_and_gradients


@pytest.mark.parametrize("seed", range(3))
def test_losses_and_gradients_equal_torchvisions(model, reference, pictures, seed):
    assert_same_losses_and_gradients(model, reference, pictures, seed)


def test_detections_equal_torchvisions(model, reference, pictures):
    images, _ = pictures
    ours, theirs = model.eval().detect(images), reference.eval()(images)
    for mine, other in zip(ours, theirs, strict=True):
        assert len(mine["labels"]) > 3
        assert torch.equal(mine["labels"], other["labels"])
        assert torch.allclose(mine["scores"], other["scores"], atol=1e-5)
        assert torch.allclose(mine["boxes"], other["boxes"], atol=1e-3)


@pytest.mark.parametrize("training", [True, False])
def test_proposals_equal_torchvisions(model, reference, pictures, training):
    images, _ = pictures
    model.train(training), reference.train(training)
    batch, _ = reference.transform(images)
    features = reference.backbone(batch.tensors)
    seen, sizes = model.features(images)
    rpn_outputs = model.rpn(seen, model.batch_size(sizes))
    with torch.no_grad():
        objectness, deltas = reference.rpn.head([features])
        anchors = reference.rpn.anchor_generator(batch, [features])
        assert torch.equal(rpn_outputs.anchors, anchors[0])
        flat = deltas[0].view(4, -1, 4, *deltas[0].shape[2:]).permute(0, 3, 4, 1, 2).reshape(-1, 4)
        boxes = reference.rpn.box_coder.decode(flat, anchors).view(4, -1, 4)
        logits = objectness[0].permute(0, 2, 3, 1).flatten()
        expected, scores = reference.rpn.filter_proposals(boxes, logits, batch.image_sizes, rpn_outputs.counts)
    found = model.rpn.filter_proposals(rpn_outputs, sizes)
    for mine, box, score in zip(found, expected, scores, strict=True):
        assert 0 < len(mine["boxes"]) <= model.rpn.config.post_nms_top_n[0 if training else 1]
        assert torch.allclose(mine["boxes"], box, atol=1e-3)
        assert torch.allclose(mine["scores"], score, atol=1e-6)


def test_anchors_of_a_padded_batch(model, pictures):
    """The map's stride is that of the batch, padding included, on each axis."""
    images, _ = pictures
    features, sizes = model.features(images)
    size = padded_size(sizes, 16)
    rpn_outputs = model.rpn(features, model.batch_size(sizes))
    h, w = features.shape[2:]
    assert rpn_outputs.counts == [h * w * 6] == [len(rpn_outputs.anchors)]
    across = rpn_outputs.anchors[6] - rpn_outputs.anchors[0]
    assert across.tolist() == [size[1] // w, 0, size[1] // w, 0]


def test_no_gradient_flows_through_the_coordinates_of_proposals(model, pictures):
    """The heads' losses leave the layers that propose alone, and proposals do not ask for gradients."""
    images, targets = pictures
    losses = model.train().losses(images, targets)
    (losses["loss_classifier"] + losses["loss_box_reg"]).backward(retain_graph=True)
    assert all(parameter.grad is None for parameter in model.rpn.parameters())
    assert model.backbone.conv1.weight.grad.abs().sum() > 0
    (losses["loss_objectness"] + losses["loss_rpn_box_reg"]).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.rpn.parameters())
    features, sizes = model.features(images)
    for found in model.rpn.filter_proposals(model.rpn(features, model.batch_size(sizes)), sizes):
        assert not found["boxes"].requires_grad and not found["scores"].requires_grad


NOTHING = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
ONE = {"boxes": torch.tensor([[5.0, 5, 40, 30]]), "labels": torch.tensor([1])}


@pytest.mark.parametrize(
    "target",
    [NOTHING, ONE, {**ONE, "iscrowd": torch.tensor([True])}, {**ONE, "boxes": torch.tensor([[5.0, 5, 5.5, 5.5]])}],
    ids=["no objects", "one", "only a crowd", "an object smaller than a pixel"],
)
def test_finite_in_every_case(model, target):
    losses = model.train().losses([torch.rand(3, 60, 70)], [target])
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_no_proposals_are_survived(model, pictures):
    """All anchors are too small to stay: the heads have only the objects to learn from, and nothing is found."""
    images, targets = pictures
    model.rpn.config = RPNConfig(anchor_sizes=((12.0, 30.0),), min_size=1e4)
    losses = model.train().losses(images, targets)
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    for found in model.eval().detect(images):
        assert found["boxes"].shape == (0, 4) and found["labels"].shape == found["scores"].shape == (0,)


def test_crowds_teach_the_proposer_nothing(model):
    target = {
        "boxes": torch.tensor([[0.0, 0, 80, 80], [5, 5, 35, 35]]),
        "labels": torch.tensor([1, 2]),
        "iscrowd": torch.tensor([True, False]),
    }
    anchors = torch.tensor([[2.0, 2, 60, 60], [5, 5, 36, 35], [100, 100, 130, 130]])
    gt_index, label = model.rpn.label_anchors(anchors, target)
    assert label.tolist() == [-1, -1, 0]  # both lie in the crowd
    without = {name: value[1:] for name, value in target.items()}
    assert model.rpn.label_anchors(anchors, without)[1].tolist() == [0, 1, 0]
    assert gt_index.tolist() == [0, 0, 0]


def test_forward_is_losses_or_detect(model, pictures):
    images, targets = pictures
    torch.manual_seed(0)
    losses = model.train()(images, targets)
    torch.manual_seed(0)
    assert losses == model.losses(images, targets)
    with pytest.raises(ValueError, match="targets are needed for training"):
        model(images)
    assert torch.equal(model.eval()(images)[0]["boxes"], model.detect(images)[0]["boxes"])


def test_proposals_are_those_that_detection_uses(model, pictures):
    """Fast R-CNN on the proposals of the network gives what Faster R-CNN gives."""
    images, _ = pictures
    model.eval()
    found = model.detect(images[:1])[0]
    proposals = model.propose(images[:1])[0]["boxes"]
    fast = FastRCNN(model.backbone, model.roi_heads, CLASSES, model.transform)
    again = fast.eval().detect(images[:1], [proposals])[0]
    assert torch.equal(found["labels"], again["labels"])
    assert torch.allclose(found["boxes"], again["boxes"], atol=1e-3)


def test_bad_input_is_refused(model, pictures):
    images, targets = pictures
    with pytest.raises(ValueError, match="4 images but targets for 3"):
        model.losses(images, targets[:3])
    with pytest.raises(ValueError, match="nan or infinite"):
        model.eval().detect([torch.full_like(images[0], -torch.inf)])
    with pytest.raises(ValueError, match="2 levels of features, but anchor_sizes for 1"):
        model.rpn([torch.zeros(1, 6, 4, 4)] * 2, (32, 32))
    with pytest.raises(ValueError, match="every level must have equally many anchor_sizes"):
        RPNConfig(anchor_sizes=((1.0,), (2.0, 3.0)))


def test_what_is_found_may_be_changed_and_learned_from(model, pictures):
    """PyTorch refuses both with what was made in inference mode; a picture that is not resized shows it."""
    images, targets = pictures
    model.transform = replace(model.transform, min_size=None)
    for found in model.eval().detect(images):
        assert not any(value.is_inference() for value in found.values())
        found["boxes"] += 1
        weight = torch.ones((), requires_grad=True)
        (weight * found["scores"].square()).sum().backward()
    sum(model.train().losses(images, targets).values()).backward()  # remembered anchors are no obstacle


@pytest.mark.parametrize("side", range(56, 80))
def test_anchors_stay_on_their_cells_at_every_size(side):
    """A cell of the map looks at its own 8 pixels, of all sizes; so the last anchor is centred on the last ones."""
    model = faster_rcnn_alexnet(AlexNet(SMALL, 1), CLASSES).eval()
    with torch.no_grad():
        features, sizes = model.features([torch.rand(3, side, 100)])
        anchors = model.rpn(features, model.batch_size(sizes)).anchors
    rows, columns = features.shape[2:]
    centres = ((anchors[:, :2] + anchors[:, 2:]) / 2).view(rows, columns, -1, 2)
    assert centres[-1, -1, 0].tolist() == [8 * columns - 4, 8 * rows - 4]
    assert 0 <= 8 * rows - side < 8 and 0 <= 8 * columns - 100 < 8


SLIM = [(1, 1), (1, 20000), (20000, 1), (3, 1000), (5, 6), (60, 90)]
IMAGENET = replace(ALEXNET_2012, channels=(4, 4, 4, 4, 4), hidden=8, response_norm=False)


@pytest.mark.parametrize("network", [TINY, IMAGENET], ids=["stride 8", "stride 16, nothing beyond the edge"])
@pytest.mark.parametrize("build", [fast_rcnn_alexnet, faster_rcnn_alexnet])
@pytest.mark.parametrize("min_size", [None, 64])
def test_slim_and_tiny_images_alone_and_together(network, build, min_size):
    """What the backbone sees is bounded by the largest side, and is never too small for a cell of the map."""
    torch.manual_seed(0)
    model = build(AlexNet(network, 5), CLASSES).eval()
    model.transform = replace(model.transform, min_size=min_size)
    seen = []
    model.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[2:]))
    images = [torch.rand(3, *size) for size in SLIM]
    alone = images if min_size else [images[0], images[3], images[4]]
    for batch in [*([image] for image in alone), images if min_size else images[3:]]:
        proposals = [[torch.tensor([[0.0, 0.0, image.shape[2], image.shape[1]]]) for image in batch]]
        proposals = proposals if build is fast_rcnn_alexnet else []
        for image, found in zip(batch, model.detect(batch, *proposals), strict=True):
            assert found["boxes"].isfinite().all() and (found["boxes"] >= 0).all()
            assert (found["boxes"] <= torch.tensor([image.shape[2], image.shape[1]] * 2)).all()
        targets = [{"boxes": torch.tensor([[0.0, 0, 1, 1]]), "labels": torch.tensor([1])} for _ in batch]
        assert all(loss.isfinite() for loss in model.losses(batch, *proposals, targets).values())
    if min_size:
        assert max(max(size) for size in seen) == 256
