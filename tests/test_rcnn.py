"""R-CNN against the same steps taken one proposal at a time, scikit-learn, and what users may give it."""

import json

import numpy as np
import pytest
import torch
import torchvision
from sklearn.linear_model import Ridge
from sklearn.svm import LinearSVC
from torch import nn

from minircnn.alexnet import SMALL, AlexNet
from minircnn.boxes import decode_boxes, encode_boxes
from minircnn.cache import Cache
from minircnn.pooling import warp_regions
from minircnn.rcnn import (
    RCNN,
    FineTuningSettings,
    ProposalPool,
    RCNNConfig,
    SVMSettings,
    load_rcnn,
    mine_hard_negatives,
    scale_to,
    train_svm,
)
from minircnn.weights import WeightsError, load_weights, save, save_weights

COLORS = torch.tensor([[0.5, 0.5, 0.5], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])


def photo(labels):
    """Uniform squares of 20 pixels, a color for each class, on gray."""
    image = COLORS[0][:, None, None].expand(3, 60, 60).clone()
    boxes = []
    for i, label in enumerate(labels):
        x, y = 20 * (i % 3), 20 * (i // 3)
        image[:, y : y + 20, x : x + 20] = COLORS[label][:, None, None]
        boxes.append([x, y, x + 20, y + 20])
    return image, {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor(labels, dtype=torch.int64),
    }


def random_boxes(count, seed):
    random = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=random) * 50
    return torch.cat([corner, (corner + 5 + torch.rand(count, 2, generator=random) * 25).clamp(max=60)], dim=1)


CLASSES = ["background", "red", "green", "blue"]


@pytest.fixture(scope="module")
def samples():
    return [photo([1, 2, 3, 1]), photo([2, 3]), photo([]), photo([3, 1, 1])]


@pytest.fixture(scope="module")
def proposals(samples):
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
    crops = [warp_regions(image, box[None], 64, 64 * 16 / 227, fill=(0.45, 0.45, 0.45)) for box in boxes]
    rows = [model.network.features(model.network.normalize(crop), [layer])[layer] for crop in crops]
    return torch.cat(rows).detach()


def test_svms_equal_scikit_learn_on_the_papers_examples(samples, proposals):
    """Positives are the objects, negatives overlap none of the class by 0.3, features have the mean norm 20."""
    model = fresh_model()
    records = model.fit_svms(samples, proposals, settings=SVMSettings(retrain_after=10_000))
    features = [one_by_one(model, s[0], p, "fc7") for s, p in zip(samples, proposals, strict=True)]
    scale = 20 / torch.cat(features).norm(dim=1).mean()
    assert float(model.svm_scale) == pytest.approx(float(scale), rel=1e-3)
    for label in (1, 2, 3):
        positives, negatives, between = [], [], 0
        for (image, target), boxes, rows in zip(samples, proposals, features, strict=True):
            own = target["boxes"][target["labels"] == label]
            positives += [one_by_one(model, image, own, "fc7")] if len(own) else []
            best = torchvision.ops.box_iou(boxes, own).amax(dim=1) if len(own) else torch.zeros(len(boxes))
            negatives.append(rows[best < 0.3])
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
    features, rows = fitted.features(image, boxes, ["fc7", "pool5"]), []
    for layer, expected in (("fc7", fc7), ("pool5", pool5)):
        torch.testing.assert_close(features[layer], expected, atol=1e-4, rtol=1e-4)
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


def test_an_image_smaller_than_its_regions(fitted):
    """Proposals that reach out of the image are seen with the mean color around, and detections end at its edge."""
    image = torch.rand(3, 9, 7, generator=torch.Generator().manual_seed(0))
    (found,) = fitted.detect([image], [torch.tensor([[-20.0, -20.0, 40.0, 40.0], [100.0, 100.0, 140.0, 150.0]])])
    assert (found["boxes"] >= 0).all() and (found["boxes"] <= torch.tensor([7.0, 9.0, 7.0, 9.0])).all()
    assert ((found["boxes"][:, 2:] - found["boxes"][:, :2]) > 0).all()


def test_a_class_without_near_proposals_leaves_boxes_alone(samples, proposals):
    model = fresh_model()
    counts = model.fit_box_regressors([samples[3]], [proposals[3]])
    assert counts[1] == 0 and counts[0] > 0
    features = torch.rand(5, 4608)
    boxes = random_boxes(5, 0)
    torch.testing.assert_close(model.regress(features, boxes)[:, 2], boxes)
    assert scale_to(20.0, torch.zeros(3)) == scale_to(20.0, torch.zeros(0)) == 1.0


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
    assert count == 8  # proposals and objects of each image, once
    model.fit_svms(samples, proposals, cache=cache)
    assert len(calls) == count and torch.equal(model.svm, first)
    # Other images, other weights, other context, another layer: nothing old is found.
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
    tensors, about = load_weights(path)
    save_weights(path, tensors, {**about, "detector": "fast_rcnn"})
    with pytest.raises(WeightsError, match="holds fast_rcnn, not an R-CNN"):
        load_rcnn(path)


def test_the_pool_equals_a_loop():
    samples = [photo([1, 2, 3, 1, 2]), photo([]), photo([3])]
    proposals = [random_boxes(200, seed) for seed in range(3)]
    pool = ProposalPool(samples, proposals, positive_iou=0.5)
    row = 0
    for index, (_, target) in enumerate(samples):
        for box in [*proposals[index], *target["boxes"]]:
            best, name = 0.0, 0
            for other, label in zip(target["boxes"], target["labels"], strict=True):
                iou = float(torchvision.ops.box_iou(box[None], other[None]))
                if iou > best:
                    best, name = iou, int(label)
            assert pool.image[row] == index
            assert pool.boxes[row].tolist() == box.tolist()
            assert pool.labels[row] == (name if best >= 0.5 else 0)
            row += 1
    assert row == len(pool.labels)


def test_draws_as_many_of_each_kind_as_asked_and_all_of_a_kind_alike():
    samples = [photo([1, 2]), photo([3])]
    pool = ProposalPool(samples, [random_boxes(30, seed) for seed in range(2)], 0.5)
    torch.manual_seed(0)
    drawn = pool.draw(4000, 8000)
    labels = pool.labels[drawn]
    assert (labels > 0).sum() == 4000 and (labels == 0).sum() == 8000
    assert (drawn.diff() >= 0).all()
    for kind in (pool.labels > 0, pool.labels == 0):
        counts = drawn.bincount(minlength=len(pool.labels))[kind]
        expected = counts.float().mean()
        assert (counts - expected).abs().max() < 5 * expected.sqrt()


class ByColor(nn.Module):
    """In place of a network: names a crop by the color in its middle, quite sure of itself."""

    def __init__(self):
        super().__init__()
        self.config, self.backbone, self.classifier = SMALL, nn.Sequential(), nn.Sequential()
        self.fc8 = nn.Linear(3, 4)
        self.mean_color, self.feature_sizes = (0.45, 0.45, 0.45), {"pool5": 3, "fc6": 3, "fc7": 3}

    def normalize(self, images):
        return images

    def forward(self, crops):
        middle = crops[:, :, 32, 32]
        return -100 * torch.cdist(middle, COLORS)


def test_every_crop_meets_its_own_name():
    samples = [photo([1, 2, 3, 3, 2, 1]), photo([2]), photo([3, 3, 1])]
    # Half a pixel inside of each object, and gray places, so that the color in the middle is never in doubt.
    proposals = [torch.cat([t["boxes"] + 1, torch.tensor([[5.0, 45.0, 15.0, 55.0]])]) for _, t in samples]
    model = RCNN(ByColor(), ["background", "a", "b", "c"])
    found = []

    def optimize(network, losses, groups):
        assert network is model.network and [group["lr_mult"] for group in groups] == [0.1, 1.0]
        assert sorted(id(p) for g in groups for p in g["params"]) == sorted(map(id, network.parameters()))
        torch.manual_seed(0)
        found.extend(float(losses(i)["classification"]) for i in range(4))

    model.finetune(samples, proposals, optimize, FineTuningSettings(batch=40, positives=20))
    assert max(found) < 1e-3
    assert not model.network.training


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, s, p: m.detect([torch.full_like(s[0][0], torch.nan)], p[:1]), "nan or infinite"),
        (lambda m, s, p: m.fit_svms(s, p[:3]), "4 images but proposals for 3"),
        (lambda m, s, p: m.fit_box_regressors(s, p[:3]), "4 images but proposals for 3"),
        (lambda m, s, p: m.detect([s[0][0]], p[:2]), "1 images but proposals for 2"),
        (lambda m, s, p: fresh_model().fit_svms(s[3:], p[3:]), "no object of class 'green'"),
        (lambda m, s, p: train_svm(torch.zeros(0, 8), torch.ones(3, 8), SVMSettings()), "0 positives, 3 negatives"),
    ],
)
def test_bad_input_is_refused(fitted, samples, proposals, call, message):
    with pytest.raises(ValueError, match=message):
        call(fitted, samples, proposals)


def test_mining_finds_the_machine_that_all_negatives_make():
    """The point of it: what is not hard has no influence on the solution. 30 images with 100 negatives each."""
    settings, random = SVMSettings(cost=0.01, retrain_after=100), torch.Generator().manual_seed(0)
    shift = 1.2 * torch.eye(8)[0]
    positives = torch.randn(60, 8, generator=random) + shift
    negatives = torch.randn(3000, 8, generator=random) - shift
    everything = train_svm(positives, negatives, settings)
    images = [(some, torch.ones(100, 1, dtype=torch.bool)) for some in negatives.chunk(30)]
    weights, (record,) = mine_hard_negatives([positives], lambda: iter(images), settings)
    torch.testing.assert_close(weights[0], everything, atol=1e-3, rtol=1e-3)
    assert max(record.negatives) < 500, "it never held them all"
    assert record.positives == 60
    torch.testing.assert_close(record.weights[-1], weights[0])
