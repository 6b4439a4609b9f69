"""What trainings cost, counted with a clock of our own; what features are worth, against the same steps by hand."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import RidgeClassifierCV

from minircnn.alexnet import load_alexnet
from minircnn.datasets import ToyTown
from minircnn.history import GENERATIONS, naming_accuracy, search, training_costs
from minircnn.history import training as module
from minircnn.history.training import seconds_of_an_iteration
from minircnn.pooling import warp_regions

BY_KEY = {one.key: one for one in GENERATIONS}
MILLISECONDS = {
    "rcnn": {"proposals": 120.0, "features": 200.0, "heads": 10.0, "selection": 7.0, "all": 337.0},
    "fast_rcnn": {"proposals": 90.0, "features": 10.0, "heads": 10.0, "selection": 7.0, "all": 117.0},
    "faster_rcnn": {"proposals": 9.0, "features": 10.0, "heads": 10.0, "selection": 7.0, "all": 36.0},
    "mask_rcnn": {"proposals": 9.0, "features": 10.0, "heads": 10.0, "selection": 7.0, "all": 36.0},
}


@pytest.fixture(scope="module")
def few():
    train = ToyTown("train")
    samples = [train[index] for index in range(4)]
    return samples, [search(image, 60).boxes for image, _ in samples], train.classes


def test_what_stands_before_and_after_the_iterations_does_not_count(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(module, "process_time", lambda: now[0])
    runs = []

    def run(iterations):
        runs.append(iterations)
        now[0] += (100.0 if len(runs) == 1 else 7.0) + 0.25 * iterations

    assert seconds_of_an_iteration(run, 4) == 0.25
    assert runs == [1, 1, 5]
    with pytest.raises(ValueError, match=r"^iterations must be at least 1, but is 0$"):
        seconds_of_an_iteration(run, 0)


def test_minutes_by_hand(few, monkeypatch):
    """Half a second an iteration: minutes follow from the settings beside the weights."""
    monkeypatch.setattr(module, "seconds_of_an_iteration", lambda run, iterations: 0.5)
    costs = training_costs(*few, milliseconds=MILLISECONDS, pictures=1000)
    count = {
        key: json.loads(one.weights.with_suffix(".json").read_text())["settings"]["iterations"]
        for key, one in BY_KEY.items()
    }
    assert costs["rcnn"] == pytest.approx(
        {"iterations": count["rcnn"] / 120, "proposals": 2.0, "features": 3.5, "all": count["rcnn"] / 120 + 5.5}
    )
    fast = count["fast_rcnn"] / 120
    assert costs["fast_rcnn"] == pytest.approx({"iterations": fast, "proposals": 1.5, "all": fast + 1.5})
    for key in ("faster_rcnn", "mask_rcnn"):
        assert costs[key] == pytest.approx({"iterations": count[key] / 120, "all": count[key] / 120})


@pytest.mark.parametrize("key", BY_KEY)
def test_what_is_timed_is_the_shipped_training(key, few, monkeypatch):
    """With the settings beside the weights, and as many iterations as are asked for: seen in the loop itself."""
    seen = []

    def fit(model, losses, settings, **options):
        found = losses(0)
        seen.append((settings.iterations, settings.learning_rate, sorted(found)))
        return []

    target = "minircnn.history.training.fit" if key == "rcnn" else "minircnn.training.recipes.fit"
    monkeypatch.setattr(target, fit)
    costs = training_costs(*few, milliseconds=MILLISECONDS, pictures=1000, iterations=2, generations=[BY_KEY[key]])
    assert list(costs) == [key]
    settings = json.loads(BY_KEY[key].weights.with_suffix(".json").read_text())["settings"]
    names = {
        "rcnn": ["classification"],
        "fast_rcnn": ["loss_box_reg", "loss_classifier"],
        "faster_rcnn": ["loss_box_reg", "loss_classifier", "loss_objectness", "loss_rpn_box_reg"],
        "mask_rcnn": ["loss_box_reg", "loss_classifier", "loss_mask", "loss_objectness", "loss_rpn_box_reg"],
    }
    assert seen == [(count, settings["learning_rate"], names[key]) for count in (1, 1, 3)]


@pytest.mark.parametrize("key", BY_KEY)
def test_settings_are_read_and_not_assumed(key, few, monkeypatch, tmp_path):
    """Beside other weights stand other settings."""
    seen = []

    def fit(model, losses, settings, **options):
        seen.append((settings.learning_rate, settings.seed))
        return []

    monkeypatch.setattr("minircnn.history.training.fit" if key == "rcnn" else "minircnn.training.recipes.fit", fit)
    monkeypatch.setattr(module, "seconds_of_an_iteration", lambda run, iterations: run(1) and 60.0)
    about = json.loads(BY_KEY[key].weights.with_suffix(".json").read_text(encoding="utf-8"))
    about["settings"] |= {"learning_rate": 0.03, "seed": 11, "iterations": 77}
    (tmp_path / "x.json").write_text(json.dumps(about))
    other = replace(BY_KEY[key], weights=tmp_path / "x.safetensors")
    costs = training_costs(*few, milliseconds=MILLISECONDS, pictures=1000, generations=[other])
    assert seen == [(0.03, 11)] and costs[key]["iterations"] == 77


def test_a_real_iteration_takes_time(few):
    costs = training_costs(
        *few, milliseconds=MILLISECONDS, pictures=1, iterations=1, generations=[BY_KEY["faster_rcnn"]]
    )
    assert 1 < costs["faster_rcnn"]["iterations"] < 1000  # minutes for all iterations


@pytest.fixture(scope="module")
def halves():
    train, test = ToyTown("train", masks=False), ToyTown("test", masks=False)
    return [train[i] for i in range(40)], [test[i] for i in range(25)], train.classes


def test_learned_features_name_what_a_classifier_by_hand_names(halves):
    """The same crops, features and regression, put together anew."""
    train, test, classes = halves
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
    found = naming_accuracy(train, test, classes)
    assert found["learned"] == pytest.approx(expected, abs=0.03)  # one answer in 33: single against double precision
    assert found["learned"] > 0.7 and found["learned"] > max(found["random"], found["hand_made"])
    assert min(found["random"], found["hand_made"]) > found["guessing"] + 0.1
    most = np.bincount(labels).argmax()
    assert found["guessing"] == pytest.approx((wanted == most).mean())
    assert naming_accuracy(train, test, classes)["random"] == found["random"], "the same random weights each time"


def test_too_little_to_learn_from_is_refused(halves):
    train, test, classes = halves
    empty = (train[0][0], {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)})
    with pytest.raises(ValueError, match=r"at least two of the classes person, car, .* there are 0 and"):
        naming_accuracy([empty], test, classes)
    with pytest.raises(ValueError, match=r"take more pictures$"):
        naming_accuracy(train, [empty], classes)
