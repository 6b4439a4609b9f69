"""Mask R-CNN, its targets, losses and pasted masks against torchvision's, loops and values worked by hand."""

import math
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as rle
from torch.nn import functional as F
from torchvision.models.detection.roi_heads import paste_masks_in_image
from torchvision.models.detection.roi_heads import project_masks_on_boxes as torchvision_projection

from minircnn.course.compare import peak_memory, torchvision_mask_rcnn
from minircnn.fast_rcnn import POOLINGS
from minircnn.mask_rcnn import (
    MaskRoIConfig,
    binary_masks,
    encode_pasted,
    mask_loss,
    paste_masks,
    project_masks_on_boxes,
)
from tests.tiny import (
    assert_same_detections,
    assert_same_losses_and_gradients,
    ellipses,
    some_images,
    tiny_mask_rcnn,
)


@pytest.fixture
def model():
    return tiny_mask_rcnn()


@pytest.fixture
def scenes():
    """With an ellipse in each box, as its object's mask."""
    images, targets = some_images()
    for image, target in zip(images, targets, strict=True):
        target["masks"] = ellipses(target["boxes"], image.shape[1:])
    return images, targets


@pytest.mark.parametrize("seed", range(2))
def test_losses_and_gradients_equal_torchvisions(model, scenes, seed):
    assert_same_losses_and_gradients(model, torchvision_mask_rcnn(model), scenes, seed)
    assert model.roi_heads.mask_head[0][0].weight.grad.abs().sum() > 0


def test_detections_equal_torchvisions(model, scenes):
    images, _ = scenes
    ours, theirs = model.eval().detect(images), torchvision_mask_rcnn(model).eval()(images)
    for image, mine, other in zip(images, ours, theirs, strict=True):
        assert_same_detections(mine, other)
        assert binary_masks(mine)["masks"].shape == (len(mine["labels"]), *image.shape[1:])


@pytest.mark.parametrize("aligned", [False, True])
def test_encoded_detections_are_the_detections(scenes, aligned):
    images, _ = scenes
    model = tiny_mask_rcnn(aligned=aligned).eval()
    for mine, encoded in zip(model.detect(images), model.detect_encoded(images), strict=True):
        wanted = binary_masks(mine)["masks"].permute(1, 2, 0).numpy().astype(np.uint8)
        assert encoded.pop("masks") == rle.encode(np.asfortranarray(wanted))
        assert all(torch.equal(value, mine[name]) for name, value in encoded.items())
    for image, mine, small in zip(images, model.detect(images), model.detect(images, paste=False), strict=True):
        assert small["masks"].shape[1:] == (2 * model.roi_heads.config.mask_pool_size,) * 2
        pasted = paste_masks(small.pop("masks"), small["boxes"], tuple(image.shape[1:]), aligned)
        assert torch.equal(pasted, mine["masks"]) and all(torch.equal(small[name], mine[name]) for name in small)
    model.roi_heads.config = replace(model.roi_heads.config, score_threshold=1.0)
    assert [one["masks"] for one in model.detect_encoded(images)] == [[] for _ in images]


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("kind", ["sigmoid", "softmax"])
def test_every_variant(pooling, kind, scenes):
    """Masks of detections are those of their final boxes and classes, and nothing is no obstacle."""
    model = tiny_mask_rcnn(pooling=pooling, mask_kind=kind)
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0).long(), "masks": torch.zeros(0, 60, 70).bool()}
    losses = model.train()([torch.rand(3, 60, 70)], [nothing])
    sum(losses.values()).backward()
    assert losses["loss_mask"] == 0 and all(loss.isfinite() for loss in losses.values())
    images, heads = scenes[0][:1], model.eval().roi_heads
    features, sizes = model.features(images)
    boxes = [one["boxes"] for one in model.rpn.filter_proposals(model.rpn(features, model.batch_size(sizes)), sizes)]
    with torch.no_grad():
        (found,) = heads.add_masks(features, heads.detect(features, boxes, sizes))
        logits = heads.predict_masks(features, [found["boxes"]])
    every = logits.sigmoid() if kind == "sigmoid" else logits.exp() / logits.exp().sum(dim=1, keepdim=True)
    own = torch.stack([row[label] for row, label in zip(every, found["labels"], strict=True)])
    assert len(own) > 3 and torch.allclose(found["masks"], own, atol=1e-6)
    heads.config = replace(heads.config, score_threshold=1.1)
    assert model(images)[0]["masks"].shape == (0, 1, *images[0].shape[1:])


def test_crowds_give_no_masks(model, scenes):
    """Objects are counted without crowds; so are their masks."""
    (image, *_), (target, *_) = scenes
    features, _ = model.features([image])
    far = torch.tensor([[0.0, 0, 3, 3]])
    crowded = {
        "boxes": torch.cat([far, target["boxes"]]),
        "labels": torch.cat([torch.tensor([1]), target["labels"]]),
        "masks": torch.cat([torch.ones(1, *image.shape[1:]).bool(), target["masks"]]),
        "iscrowd": torch.tensor([True, False, False, False]),
    }
    losses = []
    for truth in (target, crowded):
        torch.manual_seed(0)
        sampled = model.roi_heads.sample([target["boxes"]], [truth])
        losses.append(model.roi_heads.mask_loss(features, sampled, [truth]).item())
    assert losses[0] > 0 and losses[0] == losses[1]


def test_targets_equal_torchvisions():
    masks, boxes = ellipses(random_boxes(5, 70, 80, seed=0), (70, 80)), random_boxes(200, 70, 80, seed=1)
    gt_index = torch.randint(0, 5, (200,), generator=torch.Generator().manual_seed(0))
    found = project_masks_on_boxes(masks, boxes, gt_index, 28, aligned=False)
    assert torch.allclose(found, torchvision_projection(masks, boxes, gt_index, 28), atol=1e-5)
    assert project_masks_on_boxes(masks[:0], boxes[:0], gt_index[:0], 28).shape == (0, 28, 28)


def test_aligned_targets_are_the_share_that_is_covered():
    """Boxes whose cells are two by two pixels: each cell's value is the mean of its four."""
    mask = torch.rand(1, 12, 16, generator=torch.Generator().manual_seed(0)) > 0.5
    found = project_masks_on_boxes(mask, torch.tensor([[4.0, 2.0, 12.0, 10.0]]), torch.tensor([0]), 4)
    expected = F.avg_pool2d(mask[:, None, 2:10, 4:12].float(), 2)[:, 0]
    assert torch.equal(found, expected)


@pytest.mark.parametrize("kind", ["sigmoid", "softmax"])
def test_loss_by_a_loop(kind):
    generator = torch.Generator().manual_seed(0)
    logits, wanted = torch.randn(2, 3, 2, 2, generator=generator), torch.rand(2, 2, 2, generator=generator)
    labels, total = [2, 1], 0.0
    for region, row, column in product(range(2), repeat=3):
        numbers, share = logits[region, :, row, column].tolist(), wanted[region, row, column].item()
        own = numbers[labels[region]]
        if kind == "sigmoid":
            total += math.log(1 + math.exp(own)) - share * own
        else:
            total += math.log(sum(map(math.exp, numbers))) - (own if share >= 0.5 else numbers[0])
    assert mask_loss(logits, torch.tensor(labels), wanted, kind).item() == pytest.approx(total / 8, rel=1e-5)
    nothing = torch.zeros(0, 3, 4, 4, requires_grad=True)
    loss = mask_loss(nothing, torch.zeros(0).long(), torch.zeros(0, 4, 4), kind)
    loss.backward()
    assert loss == 0 and nothing.grad.shape == nothing.shape


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda m, i, t: m.train().losses(i[:1], [{k: v for k, v in t[0].items() if k != "masks"}]), "hold no masks"),
        (lambda m, i, t: MaskRoIConfig(pooling="crop"), "pooling"),
        (lambda m, i, t: MaskRoIConfig(mask_kind="tanh"), "mask_kind must be one of sigmoid, softmax, but is 'tanh'"),
        (lambda m, i, t: MaskRoIConfig(mask_channels=()), "mask_channels"),
        (lambda m, i, t: mask_loss(torch.zeros(1, 3, 4, 4), None, None, "tanh"), "sigmoid, softmax, but is 'tanh'"),
        (lambda m, i, t: paste_masks(torch.zeros(1, 5, 5), torch.zeros(2, 4), (9, 9)), r"2 boxes, but are \(1, 5, 5\)"),
        (lambda m, i, t: paste_masks(torch.zeros(1, 1, 5, 5), torch.zeros(1, 4), (30, 30)), r"must be \(N, m, m\)"),
    ],
)
def test_bad_input_is_refused(model, scenes, call, message):
    with pytest.raises(ValueError, match=message):
        call(model, *scenes)


def random_boxes(count, height, width, seed):
    """Most of them reach out of the image, but none lies outside: that torchvision cannot take. Some are flat."""
    generator = torch.Generator().manual_seed(seed)
    start = (torch.rand(count, 2, generator=generator) * 1.2 - 0.3) * torch.tensor([width, height])
    size = torch.rand(count, 2, generator=generator) ** 2 * 1.2 * torch.tensor([width, height])
    return torch.cat([start, (start + size).clamp(min=2)], dim=1)


@given(st.integers(0, 10**6), st.sampled_from([1, 5, 28]))
def test_equal_to_torchvisions_pixel_by_pixel(seed, side):
    height, width = 20 + seed % 37, 20 + seed % 53
    boxes = random_boxes(12, height, width, seed)
    masks = torch.rand(12, side, side, generator=torch.Generator().manual_seed(seed))
    expected = paste_masks_in_image(masks[:, None], boxes, (height, width))
    assert torch.equal(paste_masks(masks, boxes, (height, width), aligned=False), expected)


def test_aligned_by_a_loop_over_pixels():
    masks = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(0))
    boxes = torch.tensor([[2.3, 1.7, 9.4, 12.2], [-4.0, -3.0, 5.5, 30.0], [10.0, 3.0, 10.5, 3.2]])
    found = paste_masks(masks, boxes, (15, 12))
    for mask, (x1, y1, x2, y2), image in zip(masks.tolist(), boxes.tolist(), found[:, 0], strict=True):
        for row in range(15):
            for column in range(12):
                v, u = (row + 0.5 - y1) / (y2 - y1) * 4 - 0.5, (column + 0.5 - x1) / (x2 - x1) * 4 - 0.5
                value = sum(
                    max(1 - abs(v - i), 0) * max(1 - abs(u - j), 0) * mask[i][j] for i in range(4) for j in range(4)
                )
                assert image[row, column].item() == pytest.approx(value, abs=1e-5)


@pytest.mark.parametrize("size", [(40, 60), (128, 100)])
def test_what_was_cropped_comes_back(size):
    """Law: of objects larger than the grid nearly every pixel is the same after cropping and pasting, if aligned."""
    boxes = torch.tensor([[3.0, 5.0, 35.0, 37.0], [10.5, 2.25, 55.0, 36.75]])
    masks = ellipses(boxes, size)

    def again(aligned):
        cropped = project_masks_on_boxes(masks, boxes, torch.arange(2), 28, aligned)
        pasted = binary_masks({"masks": paste_masks(cropped, boxes, size, aligned)})["masks"]
        return ((pasted & masks).sum(dim=(1, 2)) / (pasted | masks).sum(dim=(1, 2))).min()

    assert again(aligned=True) > 0.97 > again(aligned=False)


@given(st.integers(0, 10**6), st.sampled_from([1, 5, 28]), st.booleans(), st.sampled_from([0.0, 0.5, 0.9]))
def test_encoded_one_by_one_equals_pasted_and_encoded_together(seed, side, aligned, threshold):
    """By pycocotools' runs, also of masks that are outside, flat or empty."""
    size = 1 + seed % 37, 1 + seed % 53
    outside = torch.tensor([[-50.0, 0, -30, 20], [0, 90, 20, 99], [5, 5, 5, 5], [9, 9, 4, 2]])
    boxes = torch.cat([random_boxes(8, *size, seed), outside])
    masks = torch.rand(12, side, side, generator=torch.Generator().manual_seed(seed))
    pasted = paste_masks(masks, boxes, size, aligned)
    assert pasted.isfinite().all() and not pasted[8:10].any()  # those outside
    pasted = binary_masks({"masks": pasted}, threshold)["masks"]
    expected = rle.encode(np.asfortranarray(pasted.permute(1, 2, 0).numpy().astype(np.uint8)))
    assert encode_pasted(masks, boxes, size, aligned, threshold) == expected
    assert encode_pasted(masks[:0], boxes[:0], size, aligned) == []
    assert paste_masks(masks[:0], boxes[:0], size, aligned).shape == (0, 1, *size)


def test_encoded_masks_take_the_memory_of_one():
    masks, boxes = torch.rand(20, 28, 28), torch.tensor([[100.0, 50, 700, 350]]).expand(20, 4)
    one = peak_memory(lambda: paste_masks(masks[:1], boxes[:1], (400, 800)))
    assert peak_memory(lambda: encode_pasted(masks, boxes, (400, 800))) < 2 * one
    assert peak_memory(lambda: paste_masks(masks, boxes, (400, 800))) > 10 * one
