"""What the history measures beside detection, by hand; and the papers' size, run small: who is timed on what."""

import json

import numpy as np
import pytest
import torch
from sklearn.linear_model import RidgeClassifierCV

from minircnn.alexnet import load_alexnet
from minircnn.course.history import GENERATIONS, by_stages, search
from minircnn.datasets import ToyTown
from minircnn.faster_rcnn import RPNConfig
from minircnn.pooling import warp_regions
from tests.tiny import TINY
from workshop.history import measure
from workshop.history import scale as module
from workshop.history.measure import first, scenes, training_costs, transfer
from workshop.history.scale import PaperScale, measure_at_scale, paper_image

BY_KEY = {one.key: one for one in GENERATIONS}
# Milliseconds of an image: selective search, the convolutions, all of it.
TIMES = {"rcnn": (120, 200, 337), "fast_rcnn": (90, 10, 117), "faster_rcnn": (9, 10, 36), "mask_rcnn": (9, 10, 36)}
FIGURES = {
    key: {"milliseconds": {"proposals": search, "features": features, "heads": 10.0, "all": whole}}
    for key, (search, features, whole) in TIMES.items()
}
SMALL = PaperScale(
    network=TINY,
    classes=4,
    size=(60, 90),
    proposals=40,
    crops=8,
    rounds=3,
    rpn=RPNConfig(anchor_sizes=((16.0, 32.0),), pre_nms_top_n=(200, 200), post_nms_top_n=(50, 30)),
    mask_channels=(6,),
)


def test_scenes_by_hand():
    box = torch.tensor([[0.0, 0, 10, 10], [5, 5, 15, 15], [20, 20, 30, 30]])
    targets = [
        {"boxes": box[:2], "labels": torch.tensor([1, 1])},  # several, of one kind, overlapping
        {"boxes": box[1:], "labels": torch.tensor([1, 2])},  # several kinds, apart
        {"boxes": box[:1], "labels": torch.tensor([3])},
        {"boxes": box[:0], "labels": torch.zeros(0, dtype=torch.int64)},
    ]
    assert scenes(targets) == {"objects": 1.25, "several": 0.5, "kinds": 0.25, "crowded": 0.25}


def test_what_a_training_does_once_counts_for_no_iteration(monkeypatch):
    """Seven seconds, and half a second an iteration, by a clock that we set."""
    now = [0.0]
    monkeypatch.setattr(measure, "process_time", lambda: now[0])
    assert measure.seconds_of_an_iteration(lambda count: now.append(now.pop() + 7 + count / 2), 4) == 0.5


def test_minutes_by_hand(monkeypatch):
    """Half a second an iteration, 1000 training images; one short run of each training, with its own settings."""
    seen = []

    def fit(model, losses, settings, **options):
        seen.append((settings.iterations, settings.learning_rate, settings.seed))
        assert all(loss.isfinite() for loss in losses(0).values())
        return []

    monkeypatch.setattr(measure, "TIMED_TRAINING_IMAGES", 4)
    monkeypatch.setattr(measure, "MAX_PROPOSALS", 40)
    monkeypatch.setattr(measure, "fit", fit)
    monkeypatch.setattr("minircnn.training.recipes.fit", fit)
    monkeypatch.setattr(measure, "seconds_of_an_iteration", lambda run, iterations: run(iterations) or 0.5)
    costs = training_costs(FIGURES, iterations=3)
    about = [json.loads(one.weights.with_suffix(".json").read_text())["settings"] for one in GENERATIONS]
    assert seen == [(3, settings["learning_rate"], settings["seed"]) for settings in about]
    once = {"rcnn": {"proposals": 2.0, "features": 3.5}, "fast_rcnn": {"proposals": 1.5}}
    for key, settings in zip(BY_KEY, about, strict=True):
        minutes = {"iterations": settings["iterations"] / 120, **once.get(key, {})}
        assert costs[key] == pytest.approx({**minutes, "all": sum(minutes.values())})


def test_learned_features_name_what_a_classifier_by_hand_names():
    """The same crops, features and regression, put together anew."""
    train, test = (first(ToyTown(split, masks=False), count) for split, count in (("train", 9), ("test", 6)))
    network = load_alexnet()

    def of(samples):
        crops = torch.cat([warp_regions(i, t["boxes"], 64, 64 * 16 / 227, fill=network.mean_color) for i, t in samples])
        with torch.no_grad():
            values = network.pool5(network.backbone(network.normalize(crops))).flatten(1).double().numpy()
        return values, np.concatenate([t["labels"].numpy() for _, t in samples])

    (x, labels), (y, wanted) = of(train), of(test)
    spread = x.std(axis=0)
    spread[spread == 0] = 1
    model = RidgeClassifierCV(alphas=np.logspace(-1, 6, 15)).fit((x - x.mean(axis=0)) / spread, labels)
    expected = (model.predict((y - x.mean(axis=0)) / spread) == wanted).mean()
    found = transfer(train, test)
    # One answer may differ: single against double precision.
    assert found["learned"] == pytest.approx(expected, abs=1.01 / len(wanted)) and found["learned"] > found["random"]
    assert found["guessing"] == pytest.approx((wanted == np.bincount(labels).argmax()).mean())
    empty = (train[0][0], {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)})
    for few in (([empty], test), (train[:3], [empty])):
        with pytest.raises(ValueError, match=r"take more images$"):
            transfer(*few)


def test_everybody_is_timed_on_what_the_settings_say(monkeypatch):
    """Each detector in turn, round by round, on one thread; R-CNN on few crops, multiplied behind the search."""
    calls = []

    def noted(model, image, found=None):
        assert torch.get_num_threads() == 1
        trace = by_stages(model, image, found)
        calls.append((type(model).__name__, trace))
        return trace

    monkeypatch.setattr(module, "by_stages", noted)
    found = measure_at_scale(SMALL)
    names = ["RCNN", "FastRCNN", "FasterRCNN", "MaskRCNN"]
    assert [name for name, _ in calls] == names * 4, "three rounds, and one to warm up"
    of = {name: [trace for other, trace in calls if other == name] for name in names}
    assert {len(trace.proposals) for trace in of["RCNN"]} == {8}
    assert {len(trace.proposals) for trace in of["FastRCNN"]} == {40}
    assert torch.equal(of["RCNN"][0].proposals, of["FastRCNN"][0].proposals[:8])
    for key, name in zip(BY_KEY, names, strict=True):
        for stage in ("proposals", "features", "heads", "selection"):
            factor = 5 if key == "rcnn" and stage != "proposals" else 1
            middle = sorted(trace.seconds[stage] for trace in of[name][1:])[1]
            assert found["milliseconds"][key][stage] == pytest.approx(1000 * factor * middle)
    assert "masks" in found["milliseconds"]["mask_rcnn"] and "masks" not in found["milliseconds"]["faster_rcnn"]
    assert (found["size"], found["proposals"], found["crops"], found["rounds"]) == ((60, 90), 40, 8, 3)
    assert found["own"] == len(of["MaskRCNN"][0].proposals) <= 30
    assert found["outlined"] == len(of["MaskRCNN"][0].detections["labels"]) > 0
    assert found["found"] == len(search(paper_image((60, 90)), 40).boxes)
