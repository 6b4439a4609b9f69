"""Figures of all detectors against the same steps taken one by one, and small examples worked by hand."""

import json

import pytest
import torch

from minircnn.evaluation import evaluate, proposal_recall
from minircnn.history import GENERATIONS, count_parameters, figures_of, load_all, scenes, search, trace_all
from minircnn.history.measure import alignment_example, medians
from minircnn.history.stages import Trace
from minircnn.mask_rcnn import binary_masks

BY_KEY = {one.key: one for one in GENERATIONS}


@pytest.fixture(scope="module")
def traces(models, samples):
    shown = []

    def progress(numbers):
        for number in numbers:
            shown.append(number)
            yield number

    threads = torch.get_num_threads()
    found = trace_all(models, samples, max_proposals=150, progress=progress)
    assert shown == [0, 0, 1, 2], "the first one warms up"
    assert torch.get_num_threads() == threads
    return found


def summary(result):
    return {"ap": result.ap, "ap50": result.ap50, "ap75": result.ap75}


@pytest.mark.parametrize("key", BY_KEY)
def test_figures_are_those_of_the_evaluator(key, models, samples, traces, toytown):
    model, targets = models[key], [target for _, target in samples]
    if key in ("rcnn", "fast_rcnn"):
        proposals = [search(image, 150).boxes for image, _ in samples]
        found, unmoved = (
            [model.detect([s[0]], [p], regress=r)[0] for s, p in zip(samples, proposals, strict=True)]
            for r in (True, False)
        )
    else:
        proposals = [model.propose([image])[0]["boxes"] for image, _ in samples]
        found, unmoved = ([model.detect([image], regress=r)[0] for image, _ in samples] for r in (True, False))
    figures = figures_of(BY_KEY[key], model, traces[key], targets, toytown.classes)
    assert figures.box == summary(evaluate(found, targets, classes=toytown.classes))
    assert figures.unmoved == summary(evaluate(unmoved, targets, classes=toytown.classes)) != figures.box
    assert 0.3 < figures.box["ap"] < figures.box["ap50"]
    if key == "mask_rcnn":
        binary = [binary_masks(one) for one in found]
        assert figures.mask == summary(evaluate(binary, targets, classes=toytown.classes, kind="masks"))
        assert figures.mask != figures.box
    else:
        assert figures.mask is None
    assert figures.proposals == pytest.approx(sum(map(len, proposals)) / len(samples))
    assert figures.passes == (figures.proposals if key == "rcnn" else 1)
    assert figures.recall == proposal_recall(proposals, targets, 0.5, [1000]).item() > 0.8


def test_files_and_trainings(models, samples, traces, toytown):
    for key, one in BY_KEY.items():
        figures = figures_of(one, models[key], traces[key], [t for _, t in samples], toytown.classes)
        assert (figures.name, figures.year, figures.trainings) == (one.name, one.year, one.trainings)
        assert figures.file_bytes == len(one.weights.read_bytes())
        assert figures.sha256 == json.loads(one.weights.with_suffix(".json").read_text())["sha256"]
    assert [(one.name, one.year, one.trainings) for one in GENERATIONS] == [
        *(("R-CNN", 2014, 3), ("Fast R-CNN", 2015, 1), ("Faster R-CNN", 2016, 1), ("Mask R-CNN", 2017, 1))
    ]


def test_parameters_by_hand(models):
    """Weights and biases of each layer; six classes and the background."""
    convolutions = sum(
        inputs * outputs * side**2 + outputs
        for inputs, outputs, side in ((3, 32, 7), (32, 96, 5), (96, 192, 3), (192, 128, 3), (128, 128, 3))
    )
    fc6, fc7 = 128 * 36 * 256 + 256, 256 * 256 + 256
    siblings = 256 * 7 + 7 + 256 * 28 + 28
    window = 128 * 128 * 9 + 128 + 5 * 12 * (128 + 1)  # 12 anchors a place: a score and four numbers each
    branch = (128 * 64 + 3 * 64 * 64) * 9 + 4 * 64 + 64 * 64 * 4 + 64 + 64 * 7 + 7
    machines, regressions = 6 * (256 + 1), 6 * 4 * (128 * 36 + 1)
    expected = {
        "rcnn": convolutions + fc6 + fc7 + 256 * 7 + 7 + machines + regressions,
        "fast_rcnn": convolutions + fc6 + fc7 + siblings,
        "faster_rcnn": convolutions + fc6 + fc7 + siblings + window,
        "mask_rcnn": convolutions + fc6 + fc7 + siblings + window + branch,
    }
    assert {key: count_parameters(model) for key, model in models.items()} == expected


def test_every_detector_has_its_turn_with_every_picture(models, samples, two_threads, monkeypatch):
    order = []

    def noted(model, image, found=None):
        assert torch.get_num_threads() == 1
        place = next(k for k, (other, _) in enumerate(samples) if other is image)
        order.append((next(key for key, one in models.items() if one is model), place, found and len(found.boxes)))
        return Trace({"scores": torch.zeros(0)}, {}, torch.zeros(0, 4), 1, {})

    monkeypatch.setattr("minircnn.history.stages.by_stages", noted)
    trace_all(models, samples[:2], max_proposals=7)
    one = [("rcnn", 7), ("fast_rcnn", 7), ("faster_rcnn", None), ("mask_rcnn", None)]
    assert order == [(key, place, count) for place in (0, 0, 1) for key, count in one]


def test_selective_search_is_left_out_where_nobody_needs_it(models, samples, monkeypatch):
    monkeypatch.setattr("minircnn.history.stages.search", None)
    traces = trace_all({"faster_rcnn": models["faster_rcnn"]}, samples[:1])
    assert len(traces["faster_rcnn"]) == 1


def test_medians_by_hand():
    rows = [{"features": 1.0, "heads": 5.0, "proposals": 0.5}, {"features": 3.0, "heads": 2.0, "proposals": 0.5}]
    rows.append({"features": 2.0, "heads": 9.0, "proposals": 0.5})
    found = medians(rows)
    assert found == {"proposals": 500.0, "features": 2000.0, "heads": 5000.0, "all": 6500.0}
    assert list(found) == ["proposals", "features", "heads", "all"]


def test_scenes_by_hand():
    box = torch.tensor([[0.0, 0, 10, 10], [5, 5, 15, 15], [20, 20, 30, 30]])
    targets = [
        {"boxes": box[:2], "labels": torch.tensor([1, 1])},  # several, of one kind, overlapping
        {"boxes": box[1:], "labels": torch.tensor([1, 2])},  # several kinds, apart
        {"boxes": box[:1], "labels": torch.tensor([3])},
        {"boxes": box[:0], "labels": torch.zeros(0, dtype=torch.int64)},
    ]
    assert scenes(targets) == {"objects": 1.25, "several": 0.5, "kinds": 0.25, "crowded": 0.25}


def test_the_example_of_the_story():
    """15 · 25 / 128 = 2.9296875; 2 rounded down; 3 rounded, and the cell from 3 to 4 is counted in."""
    found = alignment_example()
    assert found["aligned"] == pytest.approx(2.9296875, abs=1e-6)
    assert {**found, "aligned": 0} == {"exact": 2.9296875, "rounded_down": 2.0, "pooled": 4.0, "aligned": 0}


def test_what_is_refused(models, tmp_path):
    with pytest.raises(ValueError, match=r"^samples must hold at least one picture$"):
        trace_all(models, [])
    missing = GENERATIONS[1].__class__(**{**vars(GENERATIONS[1]), "weights": tmp_path / "none.safetensors"})
    with pytest.raises(
        FileNotFoundError,
        match=r"none.safetensors: not there; it comes with a clone .* `minircnn train fast_rcnn` makes",
    ):
        load_all([missing])
