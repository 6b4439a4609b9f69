"""R-CNN against the same steps taken one proposal at a time, and against what users may give it."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import torchvision
from sklearn.linear_model import Ridge
from sklearn.svm import LinearSVC

from minircnn.alexnet import SMALL, AlexNet
from minircnn.boxes import decode_boxes, encode_boxes
from minircnn.cache import Cache
from minircnn.pooling import warp_regions
from minircnn.rcnn import RCNN, RCNNConfig, SVMSettings, far_from_class, load_rcnn, scale_to
from minircnn.weights import WeightsError, load_weights, save, save_weights

CLASSES = ["background", "red", "green", "blue"]


@pytest.fixture(scope="module")
def samples(picture):
    return [picture([1, 2, 3, 1]), picture([2, 3]), picture([]), picture([3, 1, 1])]


@pytest.fixture(scope="module")
def proposals(samples, random_boxes):
    """Some at random, and some near the objects."""
    shifts = torch.tensor([[2.0, -1.0, 1.0, 2.0], [0.0, 1.0, 2.0, 0.0], [1.0, 1.0, -1.0, 2.0]])
    near = [(target["boxes"][:, None] + shifts).flatten(0, 1) for _, target in samples]
    return [torch.cat([boxes, random_boxes(60, seed)]) for seed, boxes in enumerate(near)]


def fresh_model(config=None):
    torch.manual_seed(3)
    return RCNN(AlexNet(SMALL, 18).eval(), CLASSES, config)


@pytest.fixture(scope="module")
def fitted(samples, proposals):
    model = fresh_model(RCNNConfig(score_threshold=-1.0))
    model.fit_svms(samples, proposals)
    model.fit_box_regressors(samples, proposals)
    return model


def one_by_one(model, image, boxes, layer):
    """Features of each box in a pass of its own."""
    rows = [
        model.network.features(
            model.network.normalize(warp_regions(image, box[None], 64, 64 * 16 / 227, fill=(0.45, 0.45, 0.45))), [layer]
        )[layer]
        for box in boxes
    ]
    return torch.cat(rows).detach()


def test_features_are_those_of_each_box_alone(samples, proposals):
    model = fresh_model()
    found = model.features(samples[0][0], proposals[0], ["fc7", "pool5"])
    for layer in ("pool5", "fc7"):
        expected = one_by_one(model, samples[0][0], proposals[0], layer)
        torch.testing.assert_close(found[layer], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("size", [(1, 1), (1, 20000), (20000, 1), (3, 1000)], ids=str)
def test_slim_images_are_warped_like_others(size):
    model, image = fresh_model(RCNNConfig(score_threshold=-100.0)), torch.rand(3, *size)
    boxes = torch.tensor([[0.0, 0, size[1], size[0]], [0, 0, size[1] / 2, size[0] / 2]])
    features = model.features(image, boxes, ["fc7"])["fc7"]
    torch.testing.assert_close(features, one_by_one(model, image, boxes, "fc7"), atol=1e-4, rtol=1e-4)
    assert all(found["boxes"].isfinite().all() for found in model.detect([image], [boxes]))


def test_more_crops_than_fit_at_once(samples, random_boxes):
    model, boxes = fresh_model(), random_boxes(600, 5)
    found = model.features(samples[0][0], boxes, ["fc6"])["fc6"]
    assert found.shape == (600, 256)
    torch.testing.assert_close(found[550:], model.features(samples[0][0], boxes[550:], ["fc6"])["fc6"])


@pytest.mark.parametrize("side, at_once", [(64, 256), (227, 20), (128, 64), (2000, 1)])
def test_larger_crops_come_in_smaller_portions(samples, random_boxes, side, at_once):
    """So that a portion always holds about as many pixels, a million."""
    network, seen = AlexNet(replace(SMALL, channels=(2,) * 5, hidden=2, input_size=side), 2), []
    network.backbone.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape))
    count = 2 if at_once == 1 else at_once + 3
    RCNN(network, CLASSES).features(samples[0][0], random_boxes(count, 0), ["pool5"])
    assert seen == [(at_once, 3, side, side), (count - at_once, 3, side, side)]


def test_svms_equal_scikit_learn_on_the_papers_examples(samples, proposals):
    """Positives are the objects, negatives overlap none of the class by 0.3, features have the mean norm 20."""
    model = fresh_model()
    records = model.fit_svms(samples, proposals, settings=SVMSettings(retrain_after=10_000))
    everything = torch.cat([one_by_one(model, s[0], p, "fc7") for s, p in zip(samples, proposals, strict=True)])
    scale = 20 / everything.norm(dim=1).mean()
    assert float(model.svm_scale) == pytest.approx(float(scale), rel=1e-3)
    for label in (1, 2, 3):
        positives, negatives, between = [], [], 0
        for (image, target), boxes in zip(samples, proposals, strict=True):
            own = target["boxes"][target["labels"] == label]
            positives += [one_by_one(model, image, own, "fc7")] if len(own) else []
            best = torchvision.ops.box_iou(boxes, own).amax(dim=1) if len(own) else torch.zeros(len(boxes))
            negatives.append(one_by_one(model, image, boxes[best < 0.3], "fc7"))
            between += int(((best >= 0.3) & (best < 0.5)).sum())
        assert records[label - 1].negatives == [sum(map(len, negatives))] and between > 0
        x = scale * torch.cat([*positives, *negatives])
        count = sum(map(len, positives))
        machine = LinearSVC(
            C=1e-3, loss="hinge", class_weight={1: 2.0, 0: 1.0}, intercept_scaling=10, max_iter=100_000, random_state=0
        ).fit(x.double().numpy(), np.arange(len(x)) < count)
        expected = machine.decision_function(x.double().numpy())
        margins = x @ model.svm[label - 1, :-1] + model.svm[label - 1, -1]
        np.testing.assert_allclose(margins, expected, atol=0.02)


def test_box_regressors_equal_scikit_learn(samples, proposals):
    model = fresh_model(RCNNConfig(box_layer="fc6", ridge=5.0))
    counts = model.fit_box_regressors(samples, proposals)
    near = []
    for (image, target), boxes in zip(samples, proposals, strict=True):
        if len(target["boxes"]):
            iou, which = torchvision.ops.box_iou(boxes, target["boxes"]).max(dim=1)
            rows = torch.where(iou > 0.6)[0]
            features = one_by_one(model, image, boxes[rows], "fc6")
            near.append((features, boxes[rows], target["boxes"][which[rows]], target["labels"][which[rows]]))
    features, source, goal, label = (torch.cat(part) for part in zip(*near, strict=True))
    scale = 20 / features.norm(dim=1).mean()
    for k in (1, 2, 3):
        own = label == k
        assert counts[k - 1] == own.sum() > 3
        line = Ridge(alpha=5.0).fit((features[own] * scale).double(), encode_boxes(source[own], goal[own]).double())
        expected = decode_boxes(source, torch.from_numpy(line.predict((features * scale).double())).float())
        torch.testing.assert_close(model.regress(features, source)[:, k], expected, atol=0.02, rtol=1e-3)


@pytest.mark.parametrize("regress", [True, False])
def test_detects_what_the_steps_by_hand_give(fitted, samples, proposals, regress):
    image, boxes = samples[0][0], proposals[0]
    fc7, pool5 = (one_by_one(fitted, image, boxes, layer) for layer in ("fc7", "pool5"))
    (found,) = fitted.detect([image], [boxes], regress=regress)
    rows = []
    for label in (1, 2, 3):
        margins = fc7 * fitted.svm_scale @ fitted.svm[label - 1, :-1] + fitted.svm[label - 1, -1]
        weights = fitted.box[label - 1]
        deltas = pool5 * fitted.box_scale @ weights[:, :-1].T + weights[:, -1]
        moved = (decode_boxes(boxes, deltas) if regress else boxes).clamp(0, 60)
        good = torch.where(margins > -1.0)[0]
        kept = good[torchvision.ops.nms(moved[good], margins[good], 0.3)]
        rows += [(float(margins[i]), label, *moved[i].tolist()) for i in kept]
    rows = sorted(rows, reverse=True)[:100]
    assert len(rows) > 3
    assert found["labels"].tolist() == [row[1] for row in rows]
    np.testing.assert_allclose(found["scores"], [row[0] for row in rows], atol=1e-3)
    np.testing.assert_allclose(found["boxes"], [row[2:] for row in rows], atol=1e-2)


def test_features_that_are_there_need_not_be_computed_again(fitted, samples, proposals):
    image, boxes = samples[0][0], proposals[0]
    features = fitted.features(image, boxes, ["pool5", "fc7"])
    for regress in (True, False):
        (wanted,) = fitted.detect([image], [boxes], regress=regress)
        found = fitted.judge(features, boxes, (60, 60), regress=regress)
        assert found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in found)
    narrow = fitted.judge(features, boxes, (60, 30))
    assert len(narrow["boxes"]) and float(narrow["boxes"][:, 2].max()) <= 30


def test_finds_the_squares_that_it_was_shown(samples, proposals):
    """The whole of it, on pictures in which colour is the class: the objects themselves are the proposals."""
    fitted = fresh_model(RCNNConfig(score_threshold=-3.0))
    fitted.fit_svms(samples, proposals, settings=SVMSettings(cost=1.0))
    for image, target in samples:
        (found,) = fitted.detect([image], [target["boxes"]], regress=False)
        best = {
            tuple(box.tolist()): int(k) for box, k in zip(found["boxes"].flip(0), found["labels"].flip(0), strict=True)
        }
        assert [best[tuple(box.tolist())] for box in target["boxes"]] == target["labels"].tolist()


def test_no_proposals_and_no_pictures(fitted, samples):
    (found,) = fitted.detect([samples[0][0]], [torch.zeros(0, 4)])
    assert found["boxes"].shape == (0, 4) and found["labels"].shape == found["scores"].shape == (0,)
    assert fitted.detect([], []) == []


def test_a_picture_smaller_than_its_regions(fitted):
    """Proposals that reach out of the picture are seen with the mean colour around, and detections end at its edge."""
    image = torch.rand(3, 9, 7, generator=torch.Generator().manual_seed(0))
    (found,) = fitted.detect([image], [torch.tensor([[-20.0, -20.0, 40.0, 40.0], [100.0, 100.0, 140.0, 150.0]])])
    assert (found["boxes"] >= 0).all() and (found["boxes"] <= torch.tensor([7.0, 9.0, 7.0, 9.0])).all()
    assert ((found["boxes"][:, 2:] - found["boxes"][:, :2]) > 0).all()


def test_proposals_without_area_are_survived(fitted, samples):
    boxes = torch.tensor([[10.0, 10.0, 10.0, 10.0], [5.0, 5.0, 30.0, 5.0]])
    (found,) = fitted.detect([samples[0][0]], [boxes], regress=False)
    assert len(found["boxes"]) == 0


def test_training_survives_pictures_without_proposals(samples, proposals):
    model, fewer = fresh_model(), [*proposals[:1], torch.zeros(0, 4), *proposals[2:]]
    model.fit_svms(samples, fewer)
    model.fit_box_regressors(samples, fewer)
    assert model.svm.isfinite().all() and model.box.isfinite().all()


def test_a_class_without_objects_is_named(samples, proposals):
    with pytest.raises(ValueError, match="no object of class 'green'"):
        fresh_model().fit_svms([samples[3]], [proposals[3]])


def test_a_class_without_near_proposals_leaves_boxes_alone(samples, proposals, random_boxes):
    model = fresh_model()
    counts = model.fit_box_regressors([samples[3]], [proposals[3]])
    assert counts[1] == 0 and counts[0] > 0
    features = torch.rand(5, 4608)
    boxes = random_boxes(5, 0)
    torch.testing.assert_close(model.regress(features, boxes)[:, 2], boxes)


def test_nan_is_refused_where_it_enters(fitted, samples, proposals):
    image = samples[0][0].clone()
    image[0, 30, 30] = torch.nan
    with pytest.raises(ValueError, match="nan or infinite"):
        fitted.detect([image], [torch.tensor([[10.0, 10.0, 50.0, 50.0]])])
    broken = fresh_model()
    with torch.no_grad():
        broken.network.backbone.conv3.bias[0] = torch.inf
    with pytest.raises(ValueError, match="weights hold such"):
        broken.fit_svms(samples, proposals)


def test_lists_of_different_lengths_are_refused(fitted, samples, proposals):
    for call in (fitted.fit_svms, fitted.fit_box_regressors):
        with pytest.raises(ValueError, match="4 images but proposals for 3"):
            call(samples, proposals[:3])
    with pytest.raises(ValueError, match="1 images but proposals for 2"):
        fitted.detect([samples[0][0]], proposals[:2])


def test_crowds_serve_neither_as_positives_nor_as_negatives(samples, proposals):
    image, target = samples[0]
    crowded = {**target, "iscrowd": torch.tensor([False, False, False, True])}
    model = fresh_model()
    records = model.fit_svms([(image, crowded), *samples[1:]], proposals, settings=SVMSettings(retrain_after=10_000))
    plain = fresh_model().fit_svms(samples, proposals, settings=SVMSettings(retrain_after=10_000))
    assert records[0].positives == plain[0].positives - 1
    inside = torchvision.ops.box_iou(proposals[0], target["boxes"][3:])[:, 0]
    assert (inside > 0).any() and records[1].negatives[0] < plain[1].negatives[0]


def test_cached_features_are_used_and_never_stale(samples, proposals, tmp_path, monkeypatch):
    cache, calls = Cache(tmp_path), []
    original = RCNN.features
    monkeypatch.setattr(RCNN, "features", lambda self, *a: calls.append(1) or original(self, *a))
    model = fresh_model()
    model.fit_svms(samples, proposals, cache=cache)
    first, count = model.svm.clone(), len(calls)
    assert count == 8  # proposals and objects of each picture, once
    model.fit_svms(samples, proposals, cache=cache)
    assert len(calls) == count and torch.equal(model.svm, first)
    # Other pictures, other weights, other context, another layer: nothing old is found.
    changed = [(samples[0][0] * 0.9, samples[0][1]), *samples[1:]]
    model.fit_svms(changed, proposals, cache=cache)
    assert len(calls) == count + 2
    with torch.no_grad():
        model.network.classifier.fc7.weight[0, 0] += 0.5
    model.fit_svms(samples, proposals, cache=cache)
    assert len(calls) == count + 2 + 8
    fresh_model(RCNNConfig(context=0.0)).fit_svms(samples, proposals, cache=cache)
    fresh_model(RCNNConfig(svm_layer="fc6")).fit_svms(samples, proposals, cache=cache)
    assert len(calls) == count + 2 + 24


def test_saved_and_loaded_it_detects_the_same(fitted, samples, proposals, tmp_path):
    fitted.network.half().float()  # what a file holds
    path = tmp_path / "ein Ordner ü" / "model.safetensors"
    save(fitted, path, {"note": "for a test"})
    loaded = load_rcnn(path)
    assert loaded.classes == tuple(CLASSES) and loaded.config == fitted.config
    assert json.loads(path.with_suffix(".json").read_text())["note"] == "for a test"
    for a, b in zip(*(m.detect([s[0] for s in samples], proposals) for m in (fitted, loaded)), strict=True):
        assert all(torch.equal(a[key], b[key]) for key in a)


NO_NAMES = (None, "abcd", 4, {}, [0, 1, 2, 3], [*CLASSES[:3], None], [*CLASSES[:3], ["x"]])


def test_files_of_something_else_are_refused(fitted, tmp_path):
    path = tmp_path / "model.safetensors"
    save(fitted, path, {})
    tensors, about = load_weights(path)
    for change, message in (
        ({"detector": "fast_rcnn"}, "holds fast_rcnn, not an R-CNN"),
        ({"config": {"colour": 1}}, "does not describe an R-CNN"),
        ({"network": 5}, "does not describe an R-CNN"),
        ({"classes": ["background", "one"]}, "weights for another network"),
        *(({"classes": names}, r"does not describe an R-CNN .*classes must be a list of names") for names in NO_NAMES),
    ):
        save_weights(path, tensors, {**about, **change})
        with pytest.raises(WeightsError, match=message):
            load_rcnn(path)
    save_weights(path, {"box": tensors["box"]}, about)
    with pytest.raises(WeightsError, match="is missing"):
        load_rcnn(path)


def test_a_negative_for_one_class_may_be_an_object_of_another(samples, proposals):
    for (_, target), boxes in zip(samples, proposals, strict=True):
        found = far_from_class(boxes, target, num_classes=4, iou=0.3)
        assert found.shape == (len(boxes), 3)
        for label in (1, 2, 3):
            own = target["boxes"][target["labels"] == label]
            best = torchvision.ops.box_iou(boxes, own).amax(dim=1) if len(own) else torch.zeros(len(boxes))
            assert found[:, label - 1].tolist() == (best < 0.3).tolist()


def test_features_are_scaled_to_a_mean_length_unless_they_are_all_zero():
    assert scale_to(20.0, torch.tensor([1.0, 3.0])) == 10.0
    assert scale_to(20.0, torch.zeros(3)) == scale_to(20.0, torch.zeros(0)) == 1.0
