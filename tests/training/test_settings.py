"""Settings that follow from the data: those of Toy Town come out again, and other objects get other ones."""

from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import pytest
import torch
import torchvision

from minircnn.alexnet import load_alexnet
from minircnn.datasets import ToyTown, open_data
from minircnn.faster_rcnn import TOY_TOWN_RPN
from minircnn.training import FasterRCNNTrainingSettings, JointTrainingSettings
from minircnn.training.settings import Measured, anchor_recall, measure, settings_for


def drawn(images=50, each=8, size=(300, 400), side=(10, 80), seed=0):
    """Boxes of log-uniform sides and ratios from 1/2 to 2."""
    g, boxes = np.random.default_rng(seed), []
    for _ in range(images):
        area, tall = np.exp(g.uniform(*np.log(side), each)), np.exp(g.uniform(-0.7, 0.7, each))
        wide, high = area / np.sqrt(tall), area * np.sqrt(tall)
        x, y = g.uniform(0, size[1] - wide), g.uniform(0, size[0] - high)
        boxes.append(torch.from_numpy(np.stack([x, y, x + wide, y + high], axis=1)).float())
    return Measured([size] * images, boxes)


def test_toy_town_gets_the_settings_that_were_chosen_by_hand():
    found = settings_for(ToyTown("train", masks=False))
    assert (found.min_size, found.crop_size, found.max_detections) == (JointTrainingSettings().min_size, None, 100)
    assert found.iterations == 15_000  # that Mask R-CNN was trained for
    assert found.anchor_sizes == pytest.approx(TOY_TOWN_RPN.anchor_sizes[0], rel=0.25)
    assert anchor_recall(measure(ToyTown("val", masks=False)), found) > 0.98


def test_smaller_objects_get_larger_images():
    """To span five cells of a stride of 8, objects of middle size need 40 pixels, of 16 twice as many."""
    found, coarse = settings_for(drawn(side=(20, 24))), settings_for(drawn(side=(20, 24)), stride=16)
    assert found.min_size == pytest.approx(40 / 22 * 300, abs=16)
    assert coarse.min_size == pytest.approx(1333 / 4 * 3, abs=32)  # twice that would be more than 1333 across
    assert found.crop_size is not None
    assert settings_for(drawn(side=(150, 200))).min_size == 192
    small = drawn()
    large = Measured([(600, 800)] * 50, [2 * boxes for boxes in small.boxes])
    assert settings_for(small) == settings_for(large), "of images and objects twice the size"


def test_a_backbone_that_knows_photographs_learns_slowly_from_one_whole_image_at_a_time():
    """From as many pixels as another would, with the numbers of Faster R-CNN's section 3.1.3 for one image."""
    objects = drawn(images=3000, side=(20, 24))
    usual, own = (settings_for(objects, stride=16, photographs=known) for known in (False, True))
    assert (usual.images_per_batch, usual.crop_size) == (4, 384)
    assert (own.images_per_batch, own.crop_size) == (1, None)
    assert own.iterations == int(60 * 3000 * (192 / own.min_size) ** 2) > 2800
    assert settings_for(drawn(images=100, side=(20, 24)), stride=16, photographs=True).iterations == 2800
    run, other = (found.training(FasterRCNNTrainingSettings) for found in (own, usual))
    assert (run.images_per_batch, run.frozen, run.backbone_lr_mult, run.learning_rate) == (1, 2, 0.1, 1e-3)
    assert (other.frozen, other.backbone_lr_mult) == (1, 0.5)
    assert own.training(FasterRCNNTrainingSettings, images_per_batch=2, frozen=0).frozen == 0
    assert (own.rpn().batch_size_per_image, own.rpn().nms_threshold) == (256, (0.7, 0.7))
    assert (own.rpn().pre_nms_top_n[1], own.rpn().post_nms_top_n) == (4000, (500, 300))
    assert own.heads(load_alexnet()).batch_size_per_image == 128
    assert settings_for(objects, photographs=True, images_per_batch=2).images_per_batch == 2


def test_anchors_are_as_large_as_objects():
    """All alike: one size. From 10 to 80: none is further than a factor √1.7 from an anchor between the quantiles."""
    boxes = torch.tensor([[10.0, 10, 50, 50], [20, 20, 20, 60], [60, 60, 100, 100]])
    for odd in (Measured([(200, 200)], [boxes[::2]]), Measured([(200, 200)] * 2, [boxes, boxes[:0]])):
        found = settings_for(odd, min_size=200)  # a box without area and an image without objects say nothing
        assert (found.anchor_sizes, found.aspect_ratios) == ((40.0,), (1.0,))
    sizes = settings_for(drawn(), min_size=300).anchor_sizes
    assert sizes[0] == pytest.approx(10 * 8**0.05, rel=0.1)
    assert sizes[-1] == pytest.approx(10 * 8**0.95, rel=0.1)
    assert max(b / a for a, b in pairwise(sizes)) < 1.75


def test_many_objects_get_many_proposals_and_few_images_few_batches():
    few, many = settings_for(drawn(each=2)), settings_for(drawn(images=400, each=150))
    assert (few.proposals, few.max_detections, few.iterations) == (300, 100, 2000)
    assert (many.proposals, many.max_detections, many.iterations) == (1000, 250, 6000)
    assert many.rpn().post_nms_top_n[1] == 1000
    assert many.rpn(masks=True).anchor_sizes == (many.anchor_sizes,)
    assert settings_for(drawn(images=160)).iterations == 2400


def test_crowds_and_pairs_of_tensors():
    """A list of pairs is measured like a data set; crowds, which are no single object, are left out."""
    boxes = torch.tensor([[10.0, 10, 50, 50], [0, 0, 300, 300]])
    target = {"boxes": boxes, "labels": torch.ones(2, dtype=torch.int64), "iscrowd": torch.tensor([0, 1])}
    found = measure([(torch.zeros(3, 300, 400), target)])
    assert found.sizes == [(300, 400)]
    assert found.boxes[0].tolist() == [[10, 10, 50, 50]]
    with pytest.raises(ValueError, match="no object in its 1 images"):
        settings_for([(torch.zeros(3, 300, 400), {**target, "iscrowd": torch.tensor([1, 1])})])


def test_best_possible_recall_against_torchvision_and_a_loop():
    """Anchors as one writes them down, IoU as torchvision has it."""
    found = drawn(images=3, size=(64, 80), side=(6, 60))
    settings = replace(settings_for(found), min_size=128, max_size=160, anchor_sizes=(20.0,), aspect_ratios=(1.0, 4.0))
    anchors = []
    for row, column in product(range(16), range(20)):
        y, x = 8 * row + 4, 8 * column + 4
        anchors += [[x - 10, y - 10, x + 10, y + 10], [x - 5, y - 20, x + 5, y + 20]]
    overlaps = [torchvision.ops.box_iou(2 * boxes, torch.tensor(anchors).float()) for boxes in found.boxes]
    best = torch.cat([overlap.amax(dim=1) for overlap in overlaps])
    assert 0.1 < (best >= 0.5).float().mean() < 0.9
    assert anchor_recall(found, settings) == pytest.approx((best >= 0.5).double().mean().item())
    assert anchor_recall(Measured([(10, 10)], [torch.zeros(0, 4)]), settings) == 0


def test_real_nuclei_are_within_reach_of_the_anchors(real_data):
    """Toy Town's anchors and image size reach a part of them only."""
    root = real_data / "nuclei" / "stage1_train"
    train, test = (measure(open_data("nuclei", root, split=split, masks=False)) for split in ("train", "test"))
    found = settings_for(train)
    usual = replace(found, min_size=192, max_size=768, anchor_sizes=TOY_TOWN_RPN.anchor_sizes[0])
    assert anchor_recall(test, found) > 0.95
    assert anchor_recall(test, usual) < 0.6
