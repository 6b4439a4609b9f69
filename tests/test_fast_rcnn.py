"""Fast R-CNN and its heads against torchvision's, sums worked by hand, and what users may give it."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads as TorchvisionHeads

from minircnn.alexnet import AlexNet
from minircnn.boxes import box_iou
from minircnn.course.compare import _RoIPool, around
from minircnn.fast_rcnn import RegionLinear, RoIConfig, RoIHeads, compress, fast_rcnn_alexnet, truncate
from minircnn.transforms import Transform
from tests.tiny import CLASSES, TINY, assert_same_detections, boxes_in, target_of


@pytest.fixture
def model():
    """A tiny Fast R-CNN with random weights, whose answers differ from class to class."""
    torch.manual_seed(0)
    model = fast_rcnn_alexnet(AlexNet(TINY, 5), CLASSES)
    for parameter in model.roi_heads.box_predictor.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model


K = len(CLASSES)
SIZE = (72, 88)


def data():
    """Features and proposals of three images of one size, and their targets, the last one without objects."""
    proposals = [boxes_in(count, *SIZE, seed) for seed, count in enumerate((60, 90, 20))]
    targets = [target_of(found, n, seed) for seed, (found, n) in enumerate(zip(proposals, (3, 1, 0), strict=True))]
    features = torch.randn(3, 6, 9, 11, generator=torch.Generator().manual_seed(5)).relu()
    return features, proposals, targets


@pytest.fixture
def scenes():
    """The same with images."""
    return [torch.rand(3, *SIZE, generator=torch.Generator().manual_seed(i)) for i in range(3)], *data()[1:]


NOTHING, OBJECT = torch.zeros(0, 4), torch.tensor([[8.0, 8, 40, 40]])


@pytest.mark.parametrize(
    "proposals, objects, crowd",
    [
        (NOTHING, NOTHING, False),
        (NOTHING, OBJECT, False),
        (OBJECT, NOTHING, False),
        (torch.tensor([[60.0, 60, 70, 70]]), OBJECT, False),
        (torch.tensor([[5.0, 5, 5, 5], [9, 3, 9, 30], [30, 30, 8, 8]]), OBJECT, False),
        (torch.tensor([[500.0, 500, 600, 600], [-90, -90, -10, -10]]), OBJECT, False),
        (OBJECT, OBJECT, True),
    ],
    ids=["nothing", "no proposals", "no objects", "only background", "degenerate", "outside", "only a crowd"],
)
def test_nothing_to_learn_from_is_survived(model, proposals, objects, crowd):
    image, labels = torch.rand(3, 72, 88), torch.full((len(objects),), 2)
    target = {"boxes": objects, "labels": labels, "iscrowd": torch.full((len(objects),), crowd)}
    losses = model.losses([image], [proposals], [target])
    sum(losses.values()).backward()
    assert all(value.isfinite() for value in losses.values())
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    found = model.eval().detect([image], [proposals])[0]
    assert found["boxes"].shape == (len(found["labels"]), 4) and found["boxes"].isfinite().all()
    assert found["labels"].dtype == torch.int64 and len(found["labels"]) <= 3 * len(proposals)


def test_forward_is_losses_or_detect(model, scenes):
    """Nothing that is given changes; what is found may be changed; images alone give what a batch gives."""
    images, proposals, targets = scenes
    before = copy.deepcopy(scenes)
    torch.manual_seed(0)
    losses = model.train()(images, proposals, targets)
    torch.manual_seed(0)
    assert losses == model.losses(images, proposals, targets)
    with pytest.raises(ValueError, match="targets are needed for training"):
        model(images, proposals)
    for image, boxes, found in zip(images, proposals, model.eval()(images, proposals), strict=True):
        assert_same_detections(model.detect([image], [boxes])[0], found)
        assert not any(value.is_inference() for value in found.values())
    torch.testing.assert_close(scenes, before, rtol=0, atol=0)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda m, i, p, t: m.losses(i, p[:2], t), "3 images but proposals for 2"),
        (lambda m, i, p, t: m.losses(i, p, t[:1]), "3 images but targets for 1"),
        (lambda m, i, p, t: m.detect([i[0], i[1][None]], p[:2]), "image 1 must be a float tensor"),
        (lambda m, i, p, t: m.detect([], []), "at least one image"),
        (lambda m, i, p, t: fast_rcnn_alexnet(AlexNet(TINY, 5), CLASSES, RoIConfig(7)), "pool_size is 7, but .* 3²"),
        (lambda m, i, p, t: compress(compress(m, 2, 2), 2, 2), "compress the original"),
        (lambda m, i, p, t: truncate(nn.Linear(30, 20), 21), "rank must be from 1 to 20"),
        (lambda m, i, p, t: RoIConfig(foreground_iou=0.4), "background_iou must rise and end at or below"),
        (lambda m, i, p, t: setattr(m, "classes", ("background",)), "1 names, but the box predictor has 4 classes"),
    ],
)
def test_bad_input_is_refused(model, scenes, call, message):
    with pytest.raises(ValueError, match=message):
        call(model, *scenes)


def test_the_network_starts_where_alexnet_ended(scenes):
    """RoIPool of the whole image, fc6, fc7: the very features that the classification network computes."""
    torch.manual_seed(0)
    network = AlexNet(TINY, 5).eval()
    model = fast_rcnn_alexnet(network, CLASSES)
    image = scenes[0][0]
    whole = torch.tensor([[0.0, 0.0, 80.0, 64.0]])  # cells 0 … 10 and 0 … 8
    with torch.no_grad():
        ours = model.roi_heads.box_features(model.features([image])[0], [whole])
        theirs = network.features(network.normalize(image[None]), ["fc7"])["fc7"]
    assert torch.allclose(ours, theirs, atol=1e-6)


def test_enlarged_images_are_found_as_if_they_had_been_enlarged_before(scenes):
    """The backbone and the heads see large images and boxes; what comes out is in pixels of the small ones."""
    images, proposals, targets = scenes
    large = Transform(TINY.mean, TINY.std, min_size=144)
    torch.manual_seed(0)
    resizing = fast_rcnn_alexnet(AlexNet(TINY, 5), CLASSES, transform=large).eval()
    torch.nn.init.normal_(resizing.roi_heads.box_predictor["cls_score"].weight, std=0.5)
    plain = copy.deepcopy(resizing)
    plain.transform = Transform(TINY.mean, TINY.std)
    twice = [torch.nn.functional.interpolate(image[None], size=(144, 176), mode="bilinear")[0] for image in images]
    found = resizing.detect(images, proposals)
    expected = plain.detect(twice, [2 * boxes for boxes in proposals])
    for mine, reference in zip(found, expected, strict=True):
        assert_same_detections(mine, {**reference, "boxes": reference["boxes"] / 2})
    doubled = [{**target, "boxes": 2 * target["boxes"]} for target in targets]
    torch.manual_seed(3)
    losses = resizing.losses(images, proposals, targets)
    torch.manual_seed(3)
    wanted = plain.losses(twice, [2 * boxes for boxes in proposals], doubled)
    assert all(torch.allclose(losses[name], wanted[name], rtol=1e-3) for name in wanted)


def test_compressed_to_full_rank_nothing_changes(model, scenes):
    before = copy.deepcopy(model.eval().state_dict())
    found = compress(model, 16, 16).detect(*scenes[:2])
    for mine, reference in zip(found, model.detect(*scenes[:2]), strict=True):
        assert_same_detections(mine, reference, pixels=1e-2)
    assert compress(model, 2, 2).roi_heads.box_head.fc6[0].weight.shape == (2, 54)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def make_heads(config, seed=0):
    torch.manual_seed(seed)
    head = nn.Sequential(RegionLinear(6 * config.pool_size**2, 16), nn.ReLU())
    heads = RoIHeads(head, 16, K, 8, config)
    for parameter in heads.box_predictor.parameters():
        nn.init.normal_(parameter, std=0.5)
    return heads


def torchvision_heads(ours):
    """Torchvision's heads around our layers: its RoIPool, behind the interface that it expects."""
    config, head = ours.config, nn.Sequential(nn.Flatten(), ours.box_head)
    pool, predictor = _RoIPool(config.pool_size, ours.stride), around(FastRCNNPredictor, ours.box_predictor)
    ious = config.foreground_iou, config.background_iou[1]
    training = config.batch_size_per_image, config.positive_fraction, config.box_weights
    detection = config.score_threshold, config.nms_threshold, config.max_detections
    return TorchvisionHeads(pool, head, predictor, *ious, *training, *detection)


USUAL = RoIConfig(pool_size=3, smooth_l1_beta=1 / 9)
OTHER = replace(USUAL, pool_size=2, batch_size_per_image=17, positive_fraction=0.1, box_weights=(1.0, 2.0, 3.0, 4.0))
OTHER = replace(OTHER, foreground_iou=0.6, background_iou=(0.0, 0.3))


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("config", [USUAL, OTHER], ids=["usual", "other"])
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


@pytest.mark.parametrize("seed", range(2))
def test_detections_equal_torchvisions(seed):
    features, proposals, _ = data()
    ours = make_heads(RoIConfig(pool_size=3, max_detections=25), seed).eval()
    with torch.no_grad():
        found = ours.detect(features, proposals, [SIZE] * 3)
        expected, _ = torchvision_heads(ours).eval()({"0": features}, list(proposals), [SIZE] * 3)
    for mine, reference in zip(found, expected, strict=True):
        assert_same_detections(mine, reference, pixels=1e-4, scores=1e-6)


@pytest.mark.parametrize(
    ("band", "drawn"),
    [
        ((0.1, 0.5), [(0.2, 0), (0.45, 0), (0.5, 1), (0.9, 1), (1.0, 1)]),  # the paper's; the last is the object
        ((0.0, 0.3), [(0.0, 0), (0.05, 0), (0.2, 0), (0.5, 1), (0.9, 1), (1.0, 1)]),
    ],
)
def test_background_has_a_band_of_overlaps(band, drawn):
    overlaps = torch.tensor([0.0, 0.05, 0.2, 0.45, 0.5, 0.9])
    proposals = torch.stack([torch.zeros(6), torch.zeros(6), torch.full((6,), 100.0), 100 * overlaps], dim=1)
    proposals[0] = torch.tensor([200.0, 200.0, 300.0, 300.0])
    target = {"boxes": torch.tensor([[0.0, 0, 100, 100]]), "labels": torch.tensor([1])}
    config = RoIConfig(pool_size=3, batch_size_per_image=100, background_iou=band)
    rois = make_heads(config).sample([proposals], [target])[0]
    found = [round(iou, 2) for iou in box_iou(rois.boxes, target["boxes"]).flatten().tolist()]
    assert list(zip(found, rois.labels.tolist(), strict=True)) == drawn


def test_crowds_are_neither_objects_nor_background():
    proposals = [torch.tensor([[0.0, 0, 10, 10], [50, 50, 60, 60], [52, 52, 58, 58]])]
    target = {
        "boxes": torch.tensor([[48.0, 48, 70, 70], [0, 0, 10, 10]]),
        "labels": torch.tensor([3, 1]),
        "iscrowd": torch.tensor([True, False]),
    }
    rois = make_heads(USUAL).sample(proposals, [target])[0]
    assert rois.boxes.tolist() == [[0, 0, 10, 10], [0, 0, 10, 10]]  # the proposal and the object
    assert rois.labels.tolist() == [1, 1] and rois.gt_index.tolist() == [0, 0]


def test_fresh_siblings_know_nothing():
    """Section 2.3: deviations 0.01 and 0.001, no bias: all classes about equally probable, boxes stay."""
    torch.manual_seed(0)
    heads = RoIHeads(nn.Flatten(), 512, 21, 16)
    assert heads.box_predictor["cls_score"].weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert heads.box_predictor["bbox_pred"].weight.std().item() == pytest.approx(0.001, rel=0.05)
    assert not heads.box_predictor["cls_score"].bias.any() and not heads.box_predictor["bbox_pred"].bias.any()


@pytest.mark.parametrize("rank", [1, 20])
def test_no_layers_of_this_rank_come_nearer(rank):
    """Eckart and Young: the squared error is the sum of the squared singular values that are left out."""
    torch.manual_seed(0)
    layer = nn.Linear(30, 20)
    first, second = truncate(layer, rank)
    product, weight = (second.weight @ first.weight).detach().numpy(), layer.weight.detach().numpy()
    singular = np.linalg.svd(weight, compute_uv=False)
    assert ((product - weight) ** 2).sum() == pytest.approx((singular[rank:] ** 2).sum(), rel=1e-4, abs=1e-9)
    assert np.linalg.matrix_rank(product, tol=1e-5) == rank


@pytest.mark.parametrize("pooling", ["pool", "align", "warp"])
def test_regions_are_pooled_at_the_stride_of_the_map(pooling):
    """As on a map of stride 1 from boxes an eighth as large, whose halves and quarters are exact."""
    features, (boxes, *_), _ = data()
    boxes = (boxes / 4).round() * 4
    heads = make_heads(RoIConfig(pool_size=3, pooling=pooling))
    found = heads.pool(features[:1], [boxes])
    heads.stride = 1
    assert torch.allclose(found, heads.pool(features[:1], [boxes / 8]), atol=1e-5) and found.any()


@torch.no_grad()
def test_a_batch_of_tiny_images_is_padded_to_three_strides(model):
    """As the backbone gets it; with less, AlexNet makes no cell, and anchors would be spread over another size."""
    images = [torch.rand(3, 5, 70), torch.rand(3, 11, 9)]
    batch, sizes = model.transform.batch(images, 3 * model.roi_heads.stride)
    assert model.batch_size(sizes) == tuple(batch.shape[2:]) == (3 * model.roi_heads.stride, 70)
