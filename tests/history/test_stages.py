"""Detection stage by stage against ``detect`` itself, for all four detectors, and the clock beside it."""

import time

import pytest
import torch

from minircnn.history import STAGES, Search, by_stages, needs_proposals, search
from minircnn.history.stages import Stopwatch
from minircnn.selective_search import selective_search

EXTERNAL = ["rcnn", "fast_rcnn"]
OWN = ["faster_rcnn", "mask_rcnn"]


def detected(model, image, boxes, **options):
    return (model.detect([image], *([[boxes]] if boxes is not None else []), **options))[0]


def assert_equal(ours, theirs):
    assert ours.keys() == theirs.keys()
    for key in theirs:
        assert torch.equal(ours[key], theirs[key]), key


@pytest.mark.parametrize("key", EXTERNAL + OWN)
def test_stages_give_exactly_what_detect_gives(key, models, samples):
    model = models[key]
    for number, (image, _) in enumerate(samples):
        found = search(image, (300, 60, 60)[number]) if key in EXTERNAL else None
        trace = by_stages(model, image, found)
        expected = detected(model, image, found and found.boxes)
        assert len(expected["labels"]) > 3
        assert_equal(trace.detections, expected)
        unmoved = detected(model, image, found and found.boxes, regress=False)
        unmoved.pop("masks", None)
        assert_equal(trace.unmoved, unmoved)
        assert not torch.equal(unmoved["boxes"][:3], expected["boxes"][:3])


@pytest.mark.parametrize("key", EXTERNAL + OWN)
def test_pictures_of_another_shape(key, models):
    """Sides that differ, so that exchanged ones would be seen, and more proposals than R-CNN takes at once."""
    image = torch.rand(3, 90, 150, generator=torch.Generator().manual_seed(0))
    found = None
    if key in EXTERNAL:
        corner = torch.rand(530, 2, generator=torch.Generator().manual_seed(1)) * torch.tensor([100.0, 50.0])
        found = Search(torch.cat([corner, corner + 40], dim=1), 0.0)
    assert_equal(by_stages(models[key], image, found).detections, detected(models[key], image, found and found.boxes))


@pytest.mark.parametrize("key", EXTERNAL)
def test_no_proposals_no_detections(key, models, samples):
    trace = by_stages(models[key], samples[0][0], Search(torch.zeros(0, 4), 0.5))
    assert len(trace.detections["labels"]) == len(trace.unmoved["labels"]) == 0
    assert trace.passes == (0 if key == "rcnn" else 1)


def test_proposals_are_those_that_were_given_or_made(models, samples):
    image = samples[0][0]
    found = search(image, 40)
    assert torch.equal(found.boxes, selective_search(image, max_proposals=40))
    traces = {key: by_stages(model, image, found if key in EXTERNAL else None) for key, model in models.items()}
    for key in EXTERNAL:
        assert torch.equal(traces[key].proposals, found.boxes)
        assert traces[key].seconds["proposals"] == found.seconds > 0
    for key in OWN:
        (own,) = models[key].propose([image])
        assert torch.equal(traces[key].proposals, own["boxes"]) and len(own["boxes"]) > 10
    assert {key: trace.passes for key, trace in traces.items()} == {"rcnn": 40, **dict.fromkeys([*OWN, "fast_rcnn"], 1)}


def test_convolutions_run_as_often_as_the_trace_says(models, samples):
    """Counted in the backbone itself: pictures or squares that go through conv1."""
    image, seen = samples[0][0], []
    found = search(image, 70)
    for key, model in models.items():
        backbone = model.network.backbone if key == "rcnn" else model.backbone
        hook = backbone.conv1.register_forward_hook(lambda module, given, out: seen.append(len(given[0])))
        trace = by_stages(model, image, found if key in EXTERNAL else None)
        hook.remove()
        assert trace.passes == sum(seen), key
        seen.clear()


@pytest.mark.parametrize("key", EXTERNAL + OWN)
def test_every_call_is_timed_under_its_stage(key, models, samples, monkeypatch):
    """A clock that stands still except while certain functions run: each belongs to one stage."""
    model, image = models[key], samples[0][0]
    now = [0.0]
    monkeypatch.setattr("minircnn.history.stages.perf_counter", lambda: now[0])

    def slow(owner, name, seconds):
        original = getattr(owner, name)

        def called(*arguments, **options):
            now[0] += seconds
            return original(*arguments, **options)

        monkeypatch.setattr(owner, name, called)

    expected = dict.fromkeys(STAGES[1:4], 0.0)
    if key == "rcnn":
        places = [("features", model, "warp"), ("heads", model, "scores"), ("heads", model, "regress")]
    else:
        places = [("features", model.transform.__class__, "batch"), ("heads", model.roi_heads, "predict")]
        places += (
            [("proposals", model.rpn, "filter_proposals"), ("proposals", model, "rpn_outputs")] if key in OWN else []
        )
        last = "masks" if key == "mask_rcnn" else "selection"
        places += [(last, model, "postprocess")]
        places += [("masks", model.roi_heads, "predict_masks")] if key == "mask_rcnn" else []
    for number, (stage, owner, name) in enumerate(places):
        slow(owner, name, 2.0**number)
        expected[stage] = expected.get(stage, 0.0) + 2.0**number
    found = Search(selective_search(image, max_proposals=30), 1000.0) if key in EXTERNAL else None
    if found:
        expected["proposals"] = 1000.0
    assert by_stages(model, image, found).seconds == expected


def test_stages_come_in_order_and_add_up(models, samples):
    for key, model in models.items():
        start = time.perf_counter()
        found = search(samples[0][0], 50) if key in EXTERNAL else None
        seconds = by_stages(model, samples[0][0], found).seconds
        total = time.perf_counter() - start
        assert list(seconds) == [*STAGES] if key == "mask_rcnn" else [*STAGES[:4]]
        assert all(value > 0 for value in seconds.values())
        assert sum(seconds.values()) < total
        if key == "rcnn":  # it takes long enough for what is not timed to be little
            assert sum(seconds.values()) > 0.6 * total


def test_a_stopwatch_adds_up_and_passes_on():
    watch = Stopwatch()
    assert watch("heads", divmod, 7, 2) == (3, 1)
    watch("heads", time.sleep, 0.02)
    watch("heads", time.sleep, 0.02)
    assert list(watch.seconds) == ["heads"] and watch.seconds["heads"] >= 0.035
    with pytest.raises(ZeroDivisionError):
        watch("heads", divmod, 1, 0)


def test_what_is_refused(models, samples):
    image = samples[0][0]
    with pytest.raises(ValueError, match=r"^RCNN needs proposals: give what search\(image\) returns$"):
        by_stages(models["rcnn"], image)
    with pytest.raises(ValueError, match=r"^MaskRCNN makes its own proposals$"):
        by_stages(models["mask_rcnn"], image, search(image, 5))
    assert [needs_proposals(model) for model in models.values()] == [True, True, False, False]
