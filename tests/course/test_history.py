"""The clock beside the detectors, the traces, and the figures that are made of them."""

import json
from dataclasses import replace
from unittest.mock import Mock

import pytest
import torch

from minircnn import mask_rcnn
from minircnn.course import history, stopwatch
from minircnn.course.history import (
    GENERATIONS,
    STAGES,
    Search,
    all_by_stages,
    by_stages,
    count_parameters,
    figures_of,
    load_all,
    search,
    trace_all,
)
from minircnn.evaluation import evaluate, proposal_recall
from minircnn.mask_rcnn import binary_masks
from minircnn.selective_search import selective_search

BY_KEY = {one.key: one for one in GENERATIONS}
EXTERNAL = ["rcnn", "fast_rcnn"]
OWN = ["faster_rcnn", "mask_rcnn"]


@pytest.mark.parametrize("key", EXTERNAL + OWN)
def test_a_trace_is_what_the_detector_says(key, models, samples):
    model, (image, _) = models[key], samples[0]
    found = search(image, 40) if key in EXTERNAL else None
    inputs = [[image], *([[found.boxes]] if found else [])]
    before = vars(model).keys(), vars(getattr(model, "roi_heads", model)).keys()
    trace = by_stages(model, image, found, unmoved=True)
    assert (vars(model).keys(), vars(getattr(model, "roi_heads", model)).keys()) == before, "nothing is left behind"
    torch.testing.assert_close(trace.detections, model.detect(*inputs)[0], rtol=0, atol=0)
    assert len(trace.detections["labels"]) > 1
    unmoved = model.detect(*inputs, regress=False)[0]
    unmoved.pop("masks", None)
    torch.testing.assert_close(trace.unmoved, unmoved, rtol=0, atol=0)
    proposals = selective_search(image, max_proposals=40) if found else model.propose([image])[0]["boxes"]
    assert torch.equal(trace.proposals, proposals)
    assert not found or trace.seconds["proposals"] == found.seconds > 0
    assert trace.passes == (40 if key == "rcnn" else 1)
    assert list(trace.seconds) == [*STAGES[: 5 if key == "mask_rcnn" else 4]]
    assert by_stages(model, image, found).unmoved is None


@pytest.mark.parametrize("key", EXTERNAL + OWN)
def test_every_call_is_timed_under_its_stage(key, models, samples, monkeypatch):
    """A clock that stands still except while certain functions run, each of which belongs to one stage."""
    model, image = models[key], samples[0][0]
    now = [0.0]
    monkeypatch.setattr(stopwatch, "perf_counter", lambda: now[0])

    def slow(owner, name, seconds):
        original = getattr(owner, name)

        def called(*arguments, **options):
            now[0] += seconds
            return original(*arguments, **options)

        monkeypatch.setattr(owner, name, called)

    if key == "rcnn":
        places = [("features", model, "warp"), ("heads", model, "scores"), ("heads", model, "regress")]
        places += [("heads", model.network.classifier.fc6, "forward"), ("features", model.network.backbone, "forward")]
    else:
        places = [("features", model.transform.__class__, "batch"), ("heads", model.roi_heads, "predict")]
        places += [("masks" if key == "mask_rcnn" else "selection", model, "postprocess")]
    if key in OWN:
        places += [("proposals", model.rpn, "filter_proposals"), ("proposals", model.rpn, "forward")]
    if key == "mask_rcnn":
        places += [("masks", model.roi_heads, "predict_masks"), ("masks", mask_rcnn, "paste_masks")]
    expected = dict.fromkeys(STAGES[1:4], 0.0)
    for number, (stage, owner, name) in enumerate(places):
        slow(owner, name, 2.0**number)
        expected[stage] = expected.get(stage, 0.0) + 2.0**number
    found = Search(selective_search(image, max_proposals=30), 1000.0) if key in EXTERNAL else None
    if found:
        expected["proposals"] = 1000.0
    assert by_stages(model, image, found).seconds == expected
    monkeypatch.undo()
    assert "forward" not in vars(model) and "features" not in vars(model)


def test_nothing_is_searched_that_nobody_needs(models, samples, monkeypatch):
    monkeypatch.setattr(history, "search", None)
    assert list(all_by_stages({"faster_rcnn": models["faster_rcnn"]}, samples[0][0])) == ["faster_rcnn"]


def test_detectors_that_tell_probabilities_may_have_the_same_thresholds(models):
    """In place of their own, which stay in the other models; R-CNN's scores are none, and it keeps its own."""
    alike = load_all(alike=True)
    assert alike["rcnn"].config == models["rcnn"].config
    for key in ("fast_rcnn", "faster_rcnn", "mask_rcnn"):
        own, given = models[key].roi_heads.config, alike[key].roi_heads.config
        assert given == replace(own, score_threshold=0.003, nms_threshold=0.5)
    assert models["fast_rcnn"].roi_heads.config.score_threshold == 0.05


@pytest.fixture(scope="module")
def traces(models, samples):
    progress, threads = Mock(side_effect=iter), torch.get_num_threads()
    found = trace_all(models, samples, max_proposals=100, progress=progress)
    assert progress.call_args.args == ([0, 0, 1],), "the first one warms up"
    assert torch.get_num_threads() == threads
    return found


def summary(result):
    return {"ap": result.ap, "ap50": result.ap50, "ap75": result.ap75}


@pytest.mark.parametrize("key", BY_KEY)
def test_figures_are_those_of_the_evaluator(key, models, samples, traces, toytown):
    targets, one = [target for _, target in samples], BY_KEY[key]
    figures = figures_of(one, models[key], traces[key], targets, toytown.classes)
    found = [trace.detections for trace in traces[key]]
    assert figures.box == summary(evaluate(found, targets, classes=toytown.classes))
    assert figures.unmoved == summary(evaluate([trace.unmoved for trace in traces[key]], targets)) != figures.box
    assert 0.3 < figures.box["ap"] < figures.box["ap50"]
    if key == "mask_rcnn":
        binary = [binary_masks(models[key].detect([image])[0]) for image, _ in samples]
        assert figures.mask == summary(evaluate(binary, targets, classes=toytown.classes, kind="masks"))
    else:
        assert figures.mask is None
    proposals = [trace.proposals for trace in traces[key]]
    assert figures.proposals == pytest.approx(sum(map(len, proposals)) / len(samples))
    assert figures.passes == (figures.proposals if key == "rcnn" else 1)
    assert figures.recall == proposal_recall(proposals, targets, 0.5, [1000]).item() > 0.7
    assert (figures.name, figures.year, figures.trainings) == (one.name, one.year, one.trainings)
    assert figures.detections == sum(len(trace.detections["labels"]) for trace in traces[key]) / len(samples)
    about = json.loads(one.weights.with_suffix(".json").read_text())
    batches = about["settings"]["iterations"]
    seen = {"crops": 128 * batches} if key == "rcnn" else {"images": 4 * batches}
    assert figures.learned_from == {"batches": batches, **seen}
    assert figures.file_bytes == len(one.weights.read_bytes())
    assert figures.sha256 == about["sha256"]


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
