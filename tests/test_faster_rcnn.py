"""Faster R-CNN, its anchors and its RPN against torchvision's with the same layers, weights and seed."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RegionProposalNetwork
from torchvision.models.detection.rpn import RPNHead as TorchvisionHead

from minircnn.alexnet import ALEXNET_2012, SMALL, AlexNet
from minircnn.course.compare import torchvision_faster_rcnn
from minircnn.fast_rcnn import FastRCNN, fast_rcnn_alexnet
from minircnn.faster_rcnn import (
    PYRAMID_HEADS,
    RPN,
    RPNConfig,
    base_anchors,
    faster_rcnn_alexnet,
    grid_anchors,
    pyramid_head,
)
from tests.tiny import (
    CLASSES,
    HEADS,
    PADDED,
    RPN_CONFIG,
    TINY,
    assert_same_detections,
    assert_same_losses_and_gradients,
    random_answers,
    some_images,
)


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = faster_rcnn_alexnet(AlexNet(TINY, 5), CLASSES, RPN_CONFIG, HEADS, PADDED)
    random_answers(model)
    return model


@pytest.fixture
def scenes():
    return some_images()


SETS = [
    ((128, 256, 512), (0.5, 1.0, 2.0)),
    ((20, 38, 72), (0.5, 1, 2)),
    ((16,), (1.0,)),
    ((33.3, 7), (0.3, 3.0, 0.9, 1)),
]


@pytest.mark.parametrize(("sizes", "aspect_ratios"), SETS)
def test_anchors_equal_torchvisions(sizes, aspect_ratios):
    """Also where the image is no multiple of the stride."""
    generator = AnchorGenerator((sizes,), (aspect_ratios,))
    assert torch.equal(base_anchors(sizes, aspect_ratios), generator.cell_anchors[0])
    for image, grid in (((128, 128), (16, 16)), ((130, 203), (16, 25)), ((9, 30), (1, 4))):
        stride = (image[0] // grid[0], image[1] // grid[1])
        expected = generator(ImageList(torch.zeros(2, 3, *image), [image, image]), [torch.zeros(2, 4, *grid)])
        assert torch.equal(grid_anchors(grid, stride, sizes, aspect_ratios), expected[0])


def test_shifted_anchors_lie_around_the_middle_of_their_cells():
    anchors = grid_anchors((2, 3), (8, 10), [12], [1.0], offset=0.5)
    centers = (anchors[:, :2] + anchors[:, 2:]) / 2
    assert centers.tolist() == [[5, 4], [15, 4], [25, 4], [5, 12], [15, 12], [25, 12]]


ONE = RPNConfig(
    anchor_sizes=((16.0, 40.0),), batch_size_per_image=40, pre_nms_top_n=(200, 150), post_nms_top_n=(50, 30)
)
THREE = RPNConfig(
    anchor_sizes=((10.0,), (24.0,), (60.0,)), batch_size_per_image=64, pre_nms_top_n=(90, 60), post_nms_top_n=(70, 40)
)
SIZES = [(90, 101), (75, 128)]  # of the images; the batch has (96, 128)


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
        assert len(boxes) > 10 and not mine["boxes"].requires_grad and not mine["scores"].requires_grad
        assert torch.allclose(mine["boxes"], boxes, atol=1e-4)
        assert mine["scores"].tolist() == sorted(mine["scores"].tolist(), reverse=True)
        assert mine["boxes"].min() >= 0 and (mine["boxes"] <= torch.tensor([*size[::-1]] * 2)).all()
    if training:
        torch.manual_seed(1)
        mine = ours.losses(rpn_outputs, targets)
        for name, value in losses.items():
            assert mine[name].item() == pytest.approx(value.item(), rel=1e-5)


def test_levels_do_not_suppress_each_other():
    """The same box from two levels stays twice, as in torchvision: suppression is for each level on its own."""
    rpn = RPN(8, RPNConfig(anchor_sizes=((16.0,), (16.0,)), aspect_ratios=(1.0,), post_nms_top_n=(50, 5))).train()
    nn.init.zeros_(rpn.head.bbox_pred.weight)
    rpn_outputs = rpn([torch.randn(1, 8, 2, 2)] * 2, (64, 64))
    found = rpn.filter_proposals(rpn_outputs, [(64, 64)])[0]["boxes"]
    assert len(found) == 8 and len(found.unique(dim=0)) == 4
    assert len(rpn.eval().filter_proposals(rpn_outputs, [(64, 64)])[0]["boxes"]) == 5  # in detection


@pytest.mark.parametrize("seed", range(2))
def test_losses_and_gradients_equal_torchvisions(model, scenes, seed):
    assert_same_losses_and_gradients(model, torchvision_faster_rcnn(model), scenes, seed)


def test_detections_equal_torchvisions(model, scenes):
    images, _ = scenes
    ours, theirs = model.eval().detect(images), torchvision_faster_rcnn(model).eval()(images)
    for mine, other in zip(ours, theirs, strict=True):
        assert_same_detections(mine, other)


NOTHING, SMALL_ONE = torch.zeros(0, 4), torch.tensor([[5.0, 5, 5.5, 5.5]])


@pytest.mark.parametrize("objects, crowd", [(NOTHING, False), (SMALL_ONE, False), (SMALL_ONE * 4, True)])
@pytest.mark.parametrize("min_size", [1e-3, 1e4], ids=["", "no proposals"])
def test_finite_in_every_case(model, objects, crowd, min_size):
    """Without objects, with one smaller than a pixel, with a crowd alone; and if all anchors are too small to stay."""
    model.rpn.config = replace(model.rpn.config, min_size=min_size)
    labels, image = torch.ones(len(objects), dtype=torch.int64), torch.rand(3, 60, 70)
    losses = model.train().losses([image], [{"boxes": objects, "labels": labels, "iscrowd": labels * crowd}])
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    (found,) = model.eval().detect([image])
    assert found["boxes"].shape == (len(found["labels"]), 4) and (min_size < 1 or not len(found["labels"]))


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


def test_forward_is_losses_or_detect(model, scenes):
    """What is found may be changed and learned from: PyTorch refuses both with what was made in inference mode."""
    images, targets = scenes
    model.transform = replace(model.transform, min_size=None)  # an image that is not resized shows it
    torch.manual_seed(0)
    losses = model.train()(images, targets)
    torch.manual_seed(0)
    assert losses == model.losses(images, targets)
    with pytest.raises(ValueError, match="targets are needed for training"):
        model(images)
    for found, again in zip(model.eval()(images), model.detect(images), strict=True):
        assert torch.equal(found["boxes"], again["boxes"])
        assert not any(value.is_inference() for value in found.values())
        (torch.ones((), requires_grad=True) * found["scores"].square()).sum().backward()
    sum(model.train().losses(images, targets).values()).backward()  # remembered anchors are no obstacle


def test_proposals_are_those_that_detection_uses(model, scenes):
    """Fast R-CNN on the proposals of the network gives what Faster R-CNN gives."""
    images, _ = scenes
    model.eval()
    fast = FastRCNN(model.backbone, model.roi_heads, CLASSES, model.transform).eval()
    proposals = model.propose(images[:1])[0]["boxes"]
    assert_same_detections(fast.detect(images[:1], [proposals])[0], model.detect(images[:1])[0])


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda m, i, t: m.losses(i, t[:3]), "4 images but targets for 3"),
        (lambda m, i, t: m.eval().detect([torch.full_like(i[0], -torch.inf)]), "nan or infinite"),
        (lambda m, i, t: m.rpn([torch.zeros(1, 6, 4, 4)] * 2, (32, 32)), "2 levels of .*, but anchor_sizes for 1"),
        (lambda m, i, t: RPNConfig(anchor_sizes=((1.0,), (2.0, 3.0))), "must have equally many anchor_sizes"),
        (lambda m, i, t: base_anchors([0], [1.0]), "must be positive numbers, at least one each"),
    ],
)
def test_bad_input_is_refused(model, scenes, call, message):
    with pytest.raises(ValueError, match=message):
        call(model, *scenes)


@pytest.mark.parametrize("side", range(56, 80, 3))
def test_anchors_stay_on_their_cells_at_every_size(side):
    """A cell of the map looks at its own 8 pixels, of all sizes; so the last anchor is centered on the last ones."""
    model = faster_rcnn_alexnet(AlexNet(SMALL, 1), CLASSES).eval()
    with torch.no_grad():
        features, sizes = model.features([torch.rand(3, side, 100)])
        anchors = model.rpn(features, model.batch_size(sizes)).anchors
    rows, columns = features.shape[2:]
    centers = ((anchors[:, :2] + anchors[:, 2:]) / 2).view(rows, columns, -1, 2)
    assert centers[-1, -1, 0].tolist() == [8 * columns - 4, 8 * rows - 4]
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


def test_the_head_on_a_pyramid_has_the_layers_of_torchvisions():
    found, _ = pyramid_head(256, PYRAMID_HEADS)
    shapes = {name: value.shape for name, value in TwoMLPHead(256 * 7**2, 1024).state_dict().items()}
    assert {name: value.shape for name, value in found.state_dict().items()} == shapes
