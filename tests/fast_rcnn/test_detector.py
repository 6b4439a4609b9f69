"""Fast R-CNN as a whole: against torchvision's parts, alone and in a batch, with nothing to see, and on disk."""

import copy
import json

import pytest
import torch
from torchvision.ops import roi_pool

from minircnn.alexnet import AlexNet
from minircnn.boxes import decode_boxes
from minircnn.fast_rcnn import RoIConfig, compress, fast_rcnn_alexnet, load_fast_rcnn
from minircnn.transforms import Transform
from minircnn.weights import WeightsError, load_weights, save, save_weights
from tests.fast_rcnn.conftest import CLASSES, TINY


def finite(losses, model):
    sum(losses.values()).backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    return all(bool(value.detach().isfinite()) for value in losses.values()) and all(
        bool(gradient.isfinite().all()) for gradient in gradients
    )


def test_one_pass_and_both_siblings_step_by_step(model, pictures):
    """What predict says, from torchvision's RoIPool and plain layers."""
    image, proposals = pictures[0][0], pictures[1][0]
    model.eval()
    with torch.no_grad():
        features = model.backbone((image[None] - image.new_tensor(TINY.mean).view(3, 1, 1)) * 255)  # std is 1 / 255
        regions = roi_pool(features, [proposals], 3, 1 / 8).flatten(1)
        head, predictor = model.roi_heads.box_head, model.roi_heads.box_predictor
        x = head.fc7(head.fc6(regions).relu()).relu()
        probabilities = predictor["cls_score"](x).softmax(dim=1)
        boxes = decode_boxes(proposals, predictor["bbox_pred"](x).view(-1, 4, 4), (10, 10, 5, 5))
        found = model.detect([image], [proposals])[0]
    seen, sizes = model.features([image])
    assert seen.shape == (1, 6, 9, 11) and sizes == [(72, 88)]
    assert torch.allclose(seen, features, atol=1e-3)
    best = int(probabilities[:, 1:].max(dim=1).values.argmax())
    label = int(probabilities[best, 1:].argmax()) + 1
    assert int(found["labels"][0]) == label
    assert float(found["scores"][0]) == pytest.approx(float(probabilities[best, label]), abs=1e-5)
    height, width = image.shape[1:]
    expected = boxes[best, label].clamp(min=0).minimum(torch.tensor([width, height, width, height]))
    assert torch.allclose(found["boxes"][0], expected, atol=1e-3)


def test_the_network_starts_where_alexnet_ended(pictures):
    """RoIPool of the whole picture, fc6, fc7: the very features that the classification network computes."""
    torch.manual_seed(0)
    network = AlexNet(TINY, 5).eval()
    model = fast_rcnn_alexnet(network, CLASSES)
    image = pictures[0][0]
    whole = torch.tensor([[0.0, 0.0, 80.0, 64.0]])  # cells 0 … 10 and 0 … 8
    with torch.no_grad():
        ours = model.roi_heads.box_features(model.features([image])[0], [whole])
        theirs = network.features(network.normalize(image[None]), ["fc7"])["fc7"]
    assert torch.allclose(ours, theirs, atol=1e-6)


def test_a_batch_gives_what_pictures_alone_give(model, pictures):
    images, proposals, _ = pictures
    together = model.eval().detect(images, proposals)
    for image, boxes, expected in zip(images, proposals, together, strict=True):
        alone = model.detect([image], [boxes])[0]
        assert torch.equal(alone["labels"], expected["labels"])
        assert torch.allclose(alone["boxes"], expected["boxes"], atol=1e-3)


def test_pictures_of_different_sizes(model, pictures):
    """The largest picture is not padded, so it gives what it gives alone; boxes of the others stay inside of them."""
    images, proposals, _ = pictures
    small = images[1][:, :40, :56]
    found = model.eval().detect([images[0], small], [proposals[0], proposals[1]])
    alone = model.detect([images[0]], [proposals[0]])[0]
    assert torch.allclose(found[0]["boxes"], alone["boxes"], atol=1e-3)
    assert len(found[1]["boxes"])
    assert found[1]["boxes"][:, 0::2].max() <= 56 and found[1]["boxes"][:, 1::2].max() <= 40


def test_enlarged_pictures_are_found_as_if_they_had_been_enlarged_before(pictures):
    """The backbone and the heads see large pictures and boxes; what comes out is in pixels of the small ones."""
    images, proposals, targets = pictures
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
        assert torch.equal(mine["labels"], reference["labels"])
        assert torch.allclose(mine["boxes"], reference["boxes"] / 2, atol=1e-3)
    doubled = [{**target, "boxes": 2 * target["boxes"]} for target in targets]
    torch.manual_seed(3)
    losses = resizing.losses(images, proposals, targets)
    torch.manual_seed(3)
    wanted = plain.losses(twice, [2 * boxes for boxes in proposals], doubled)
    assert all(torch.allclose(losses[name], wanted[name], rtol=1e-3) for name in wanted)


def test_losses_fall_when_it_learns(model, pictures):
    images, proposals, targets = pictures
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    history = []
    for _ in range(80):
        torch.manual_seed(0)
        losses = model.losses(images, proposals, targets)
        optimiser.zero_grad()
        sum(losses.values()).backward()
        optimiser.step()
        history.append({name: float(value.detach()) for name, value in losses.items()})
    assert history[-1]["loss_classifier"] < 0.3 * history[0]["loss_classifier"]
    assert history[-1]["loss_box_reg"] < 0.6 * history[0]["loss_box_reg"]


def test_every_layer_gets_a_gradient(model, pictures):
    sum(model.losses(*pictures).values()).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())


NO_BOXES = torch.zeros(0, 4)
NO_OBJECTS = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
OBJECT = {"boxes": torch.tensor([[8.0, 8, 40, 40]]), "labels": torch.tensor([2])}


@pytest.mark.parametrize(
    "proposals, target",
    [
        (NO_BOXES, NO_OBJECTS),
        (NO_BOXES, OBJECT),
        (torch.tensor([[8.0, 8, 40, 40]]), NO_OBJECTS),
        (torch.tensor([[60.0, 60, 70, 70]]), OBJECT),
        (torch.tensor([[5.0, 5, 5, 5], [9, 3, 9, 30], [30, 30, 8, 8]]), OBJECT),
        (torch.tensor([[500.0, 500, 600, 600], [-90, -90, -10, -10]]), OBJECT),
        (torch.tensor([[8.0, 8, 40, 40]]), {**OBJECT, "iscrowd": torch.tensor([True])}),
    ],
    ids=["nothing", "no proposals", "no objects", "only background", "degenerate", "outside", "only a crowd"],
)
def test_nothing_to_learn_from_is_survived(model, proposals, target):
    image = torch.rand(3, 72, 88)
    assert finite(model.losses([image], [proposals], [target]), model)
    found = model.eval().detect([image], [proposals])[0]
    assert found["boxes"].shape == (len(found["labels"]), 4) and found["scores"].shape == found["labels"].shape
    assert found["boxes"].isfinite().all()
    assert found["labels"].dtype == torch.int64
    if not len(proposals):
        assert not len(found["labels"])


def test_a_picture_without_objects_beside_one_with_objects(model):
    images = [torch.rand(3, 72, 88), torch.rand(3, 72, 88)]
    losses = model.losses(images, [NO_BOXES, torch.tensor([[8.0, 8, 40, 40]])], [NO_OBJECTS, OBJECT])
    assert finite(losses, model)


def test_forward_is_losses_or_detect(model, pictures):
    images, proposals, targets = pictures
    torch.manual_seed(0)
    losses = model.train()(images, proposals, targets)
    torch.manual_seed(0)
    assert losses == model.losses(images, proposals, targets)
    with pytest.raises(ValueError, match="targets are needed for training"):
        model(images, proposals)
    found = model.eval()(images, proposals)
    assert torch.equal(found[0]["boxes"], model.detect(images, proposals)[0]["boxes"])


def test_nothing_that_is_given_changes(model, pictures):
    images, proposals, targets = pictures
    before = (
        [image.clone() for image in images],
        [boxes.clone() for boxes in proposals],
        json.dumps([{name: value.tolist() for name, value in target.items()} for target in targets]),
    )
    model.losses(images, proposals, targets)
    model.detect(images, proposals)
    assert all(map(torch.equal, images, before[0])) and all(map(torch.equal, proposals, before[1]))
    assert json.dumps([{n: v.tolist() for n, v in target.items()} for target in targets]) == before[2]


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda m, i, p, t: m.losses(i, p[:2], t), "3 images but proposals for 2"),
        (lambda m, i, p, t: m.losses(i, p, t[:1]), "3 images but targets for 1"),
        (lambda m, i, p, t: m.detect(i, p[:1]), "3 images but proposals for 1"),
        (lambda m, i, p, t: m.detect([i[0].mul(255).byte()], p[:1]), "image 0 must be a float tensor"),
        (lambda m, i, p, t: m.detect([i[0], i[1][None]], p[:2]), "image 1 must be a float tensor"),
        (lambda m, i, p, t: m.detect([i[0] * torch.nan], p[:1]), "image 0 must .* but holds nan"),
        (lambda m, i, p, t: m.detect([], []), "at least one image"),
    ],
)
def test_bad_input_is_refused(model, pictures, call, message):
    with pytest.raises(ValueError, match=message):
        call(model, *pictures)


def test_another_grid_than_fc6_expects_is_refused():
    with pytest.raises(ValueError, match="pool_size is 7, but fc6 expects maps of 3² cells"):
        fast_rcnn_alexnet(AlexNet(TINY, 5), CLASSES, RoIConfig(pool_size=7))


class TestFiles:
    def test_saved_and_loaded_it_finds_the_same(self, tmp_path, model, pictures):
        model = model.half().float().eval()
        save(model, tmp_path / "fast.safetensors", {"note": "hello"})
        loaded = load_fast_rcnn(tmp_path / "fast.safetensors")
        assert not loaded.training and loaded.classes == CLASSES
        assert loaded.roi_heads.config == model.roi_heads.config and loaded.transform == model.transform
        ours, theirs = loaded.detect(*pictures[:2]), model.detect(*pictures[:2])
        assert all(torch.equal(a["boxes"], b["boxes"]) for a, b in zip(ours, theirs, strict=True))
        assert load_weights(tmp_path / "fast.safetensors")[1]["note"] == "hello"

    def test_what_is_no_fast_rcnn_is_named(self, tmp_path, model):
        path = tmp_path / "fast.safetensors"
        save(model, path, {})
        tensors, about = load_weights(path)
        for change, message in (
            ({"detector": "rcnn"}, "holds rcnn, not a Fast R-CNN"),
            ({"config": {"pools": 3}}, "does not describe a Fast R-CNN"),
            ({"network": {**about["network"], "hidden": 17}}, "fast.safetensors"),
            ({"classes": ["background", "cat"]}, "fast.safetensors"),
        ):
            save_weights(path, tensors, {**about, **change})
            with pytest.raises(WeightsError, match=message):
                load_fast_rcnn(path)
        with pytest.raises(FileNotFoundError, match="nowhere"):
            load_fast_rcnn(tmp_path / "nowhere.safetensors")


class TestTruncatedSVD:
    def test_compressed_to_full_rank_nothing_changes(self, model, pictures):
        model.eval()
        found = compress(model, 16, 16).detect(*pictures[:2])
        for mine, reference in zip(found, model.detect(*pictures[:2]), strict=True):
            assert torch.equal(mine["labels"], reference["labels"])
            assert torch.allclose(mine["boxes"], reference["boxes"], atol=1e-2)

    def test_the_original_stays_as_it_is(self, model):
        before = {name: value.clone() for name, value in model.state_dict().items()}
        compressed = compress(model, 2, 2)
        assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
        assert compressed.roi_heads.box_head.fc6[0].weight.shape == (2, 54)
        count = sum(parameter.numel() for parameter in compressed.parameters())
        assert count < sum(parameter.numel() for parameter in model.parameters())

    def test_twice_is_refused(self, model):
        with pytest.raises(ValueError, match="compress the original"):
            compress(compress(model, 2, 2), 2, 2)


def test_what_is_found_may_be_changed(model, pictures):
    images, proposals, _ = pictures
    for found in model.eval().detect(images, proposals):
        assert not any(value.is_inference() for value in found.values())
        found["boxes"] += 1
