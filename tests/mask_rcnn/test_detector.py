"""Mask R-CNN against torchvision's class with the same layers, weights and seed."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from pycocotools import mask as rle

from minircnn.alexnet import AlexNet
from minircnn.fast_rcnn import POOLINGS
from minircnn.mask_rcnn import MaskRoIConfig, binary_masks, load_mask_rcnn, mask_rcnn_alexnet
from minircnn.weights import save
from tests.fast_rcnn.conftest import CLASSES, TINY
from tests.faster_rcnn.conftest import assert_same_losses_and_gradients
from tests.mask_rcnn.conftest import ellipses, make


@pytest.mark.parametrize("seed", range(3))
def test_losses_and_gradients_equal_torchvisions(model, reference, pictures, seed):
    assert_same_losses_and_gradients(model, reference, pictures, seed)
    assert model.roi_heads.mask_head[0][0].weight.grad.abs().sum() > 0


def test_detections_equal_torchvisions(model, reference, pictures):
    images, _ = pictures
    ours, theirs = model.eval().detect(images), reference.eval()(images)
    for image, mine, other in zip(images, ours, theirs, strict=True):
        assert len(mine["labels"]) > 3
        assert torch.equal(mine["labels"], other["labels"])
        assert torch.allclose(mine["scores"], other["scores"], atol=1e-5)
        assert torch.allclose(mine["boxes"], other["boxes"], atol=1e-3)
        assert mine["masks"].shape == other["masks"].shape == (len(mine["labels"]), 1, *image.shape[1:])
        # A corner of a box that lies on a whole pixel, up to rounding, may go to either side: such a mask is shifted.
        apart = (mine["masks"] - other["masks"]).abs().flatten(1).amax(dim=1)
        assert (apart < 1e-4).float().mean() > 0.9
        assert binary_masks(mine)["masks"].shape == (len(mine["labels"]), *image.shape[1:])


@pytest.mark.parametrize("aligned", [False, True])
def test_encoded_detections_are_the_detections(pictures, aligned):
    images, _ = pictures
    model = make(aligned=aligned).eval()
    for mine, encoded in zip(model.detect(images), model.detect_encoded(images), strict=True):
        wanted = binary_masks(mine)["masks"].permute(1, 2, 0).numpy().astype(np.uint8)
        assert encoded.pop("masks") == rle.encode(np.asfortranarray(wanted))
        assert all(torch.equal(value, mine[name]) for name, value in encoded.items())
    model.roi_heads.config = replace(model.roi_heads.config, score_threshold=1.0)
    assert [one["masks"] for one in model.detect_encoded(images)] == [[] for _ in images]


def test_keys_are_torchvisions(model, reference):
    """What the two call their layers behind the backbone; fc6 and fc7 are AlexNet's own."""
    ours = {key for key in model.state_dict() if key.startswith(("rpn", "roi_heads.mask", "roi_heads.box_predictor"))}
    assert ours == {
        key for key in reference.state_dict() if key.startswith(("rpn", "roi_heads.mask", "roi_heads.box_p"))
    }


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("kind", ["sigmoid", "softmax"])
def test_every_variant_survives_pictures_of_nothing(pooling, kind):
    model = make(pooling=pooling, mask_kind=kind)
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0).long(), "masks": torch.zeros(0, 60, 70).bool()}
    losses = model.train().losses([torch.rand(3, 60, 70)], [nothing])
    sum(losses.values()).backward()
    assert losses["loss_mask"] == 0
    assert all(loss.isfinite() for loss in losses.values())
    model.roi_heads.config = MaskRoIConfig(**{**vars(model.roi_heads.config), "score_threshold": 1.1})
    (found,) = model.eval().detect([torch.rand(3, 60, 70)])
    assert found["masks"].shape == (0, 1, 60, 70)


def test_crowds_give_no_masks(model, pictures):
    """Objects are counted without crowds; so are their masks."""
    (image, *_), (target, *_) = pictures
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


def test_targets_without_masks_are_refused(model, pictures):
    images, targets = pictures
    with pytest.raises(ValueError, match="hold no masks"):
        model.train().losses(images, [{k: v for k, v in target.items() if k != "masks"} for target in targets])


def test_mask_features_share_the_boxes_regions(model, pictures):
    """The masks of detections are those of their final boxes, not of the proposals."""
    images, _ = pictures
    features, sizes = model.eval().features(images[:1])
    proposals = [
        one["boxes"] for one in model.rpn.filter_proposals(model.rpn(features, model.batch_size(sizes)), sizes)
    ]
    (found,) = model.roi_heads.add_masks(features, model.roi_heads.detect(features, proposals, sizes))
    with torch.no_grad():
        logits = model.roi_heads.predict_masks(features, [found["boxes"]])
    own = torch.stack([row[label] for row, label in zip(logits, found["labels"], strict=True)])
    assert torch.allclose(found["masks"], own.sigmoid(), atol=1e-6)


def test_saved_and_read_again(tmp_path, pictures):
    images, _ = pictures
    model = make(aligned=True, pooling="warp").eval().half().float()
    save(model, tmp_path / "m.safetensors", {"command": "x"})
    again = load_mask_rcnn(tmp_path / "m.safetensors")
    assert again.roi_heads.config == model.roi_heads.config and not again.training
    for mine, other in zip(model.detect(images), again.detect(images), strict=True):
        assert all(torch.equal(mine[name], other[name]) for name in mine)


def test_bad_numbers_are_refused():
    for wrong in ({"pooling": "crop"}, {"mask_kind": "tanh"}, {"mask_channels": ()}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            MaskRoIConfig(**wrong)


def test_forward_is_losses_or_detect(model, pictures):
    images, targets = pictures
    assert "loss_mask" in model.train()(images, targets)
    assert "masks" in model.eval()(images)[0]


def test_it_learns_an_ellipse():
    """One picture, many times: the masks come out like the object's."""
    torch.manual_seed(0)
    model = mask_rcnn_alexnet(AlexNet(TINY, 5), CLASSES, heads=MaskRoIConfig(pool_size=3, mask_channels=(16, 16)))
    image, boxes = torch.zeros(3, 64, 64), torch.tensor([[16.0, 12.0, 52.0, 44.0]])
    masks = ellipses(boxes, (64, 64))
    image[:, masks[0]] = 1.0
    target = {"boxes": boxes, "labels": torch.tensor([2]), "masks": masks}
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(80):
        optimiser.zero_grad()
        sum(model.train().losses([image], [target]).values()).backward()
        optimiser.step()
    found = binary_masks(model.eval().detect([image])[0])
    assert found["labels"][0] == 2
    shared = (found["masks"][0] & masks[0]).sum() / (found["masks"][0] | masks[0]).sum()
    assert shared > 0.8


def test_proposals_have_no_masks(model, pictures):
    """They are boxes in pixels of the pictures, as Faster R-CNN's."""
    for image, found in zip(pictures[0], model.eval().propose(pictures[0]), strict=True):
        assert set(found) == {"boxes", "scores"} and len(found["boxes"]) > 3
        assert (found["boxes"][:, 2:].amax(dim=0) <= torch.tensor(image.shape[1:]).flip(0) + 1e-3).all()


def test_masks_may_be_changed(model, pictures):
    """They are made outside of inference mode."""
    images, _ = pictures
    for found in model.eval().detect(images):
        assert not any(value.is_inference() for value in found.values())
        found["masks"] *= 0.5
