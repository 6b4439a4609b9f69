"""Faster R-CNN's trainings: what learns and what stays, broken and unbroken runs, one process and two."""

import copy
import json

import pytest
import torch

from minircnn.alexnet import AlexNet
from minircnn.datasets import ToyTown
from minircnn.fast_rcnn import RoIConfig
from minircnn.faster_rcnn import RPNConfig, faster_rcnn_alexnet, load_faster_rcnn, save_faster_rcnn
from minircnn.training import faster_rcnn as module
from minircnn.training import joint, loop
from minircnn.training.batches import draw_batch
from minircnn.training.faster_rcnn import (
    FasterRCNNTrainingSettings,
    proposals_of,
    train_alternating,
    train_faster_rcnn,
)
from minircnn.weights import WeightsError, load_weights, save_weights
from tests.fast_rcnn.conftest import TINY

RPN = RPNConfig(
    anchor_sizes=((20.0, 60.0),), batch_size_per_image=32, pre_nms_top_n=(200, 100), post_nms_top_n=(40, 20)
)
SETTINGS = FasterRCNNTrainingSettings(iterations=6, learning_rate=0.002, min_size=128)


@pytest.fixture(scope="module")
def data():
    train = ToyTown("train", masks=False)
    return [train[index] for index in range(8)], train.classes


def network(seed=0):
    torch.manual_seed(seed)
    return AlexNet(TINY, 5)


def run(data, settings=SETTINGS, **options):
    return train_faster_rcnn(network(), *data, settings, rpn=RPN, quiet=True, **options)


def differing(before, after):
    """The names of the tensors that are not the same."""
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_all_learns_but_conv1(data):
    torch.manual_seed(SETTINGS.seed)
    before = copy.deepcopy(faster_rcnn_alexnet(network(), data[1], RPN).state_dict())
    torch.manual_seed(SETTINGS.seed)
    model, history = run(data)
    changed = differing({n: v for n, v in before.items() if n.startswith("backbone")}, model.state_dict())
    assert changed == {name for name in before if name.startswith("backbone") and "conv1" not in name}
    assert not model.training and len(history) == 6
    names = {"loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg"}
    assert all(set(row) == names for row in history)


def test_losses_fall(data):
    settings = FasterRCNNTrainingSettings(
        iterations=120,
        images_per_batch=2,
        learning_rate=0.005,
        backbone_lr_mult=1.0,
        min_size=128,
        color_jitter=0,
        scale_jitter=0,
    )
    _, history = run((data[0][:4], data[1]), settings)
    for name in ("loss_classifier", "loss_objectness", "loss_rpn_box_reg"):
        values = torch.tensor([row[name] for row in history])
        assert values[-10:].mean() < 0.9 * values[:10].mean(), name


def test_losses_are_those_of_the_model_for_the_drawn_batch(data):
    _, history = run(data, FasterRCNNTrainingSettings(iterations=1, color_jitter=0, scale_jitter=0, min_size=128))
    torch.manual_seed(0)
    start = network()
    torch.manual_seed(0)
    model = faster_rcnn_alexnet(start, data[1], RPN).train()
    batch = draw_batch(0, data[0], None, pictures=4, seed=0)  # only mirrored
    torch.manual_seed(0)  # as the loop does in its first iteration, with seed 0
    expected = model.losses(batch.images, batch.targets)
    assert history[0] == pytest.approx({name: value.item() for name, value in expected.items()}, rel=1e-6)


def test_an_interrupted_run_goes_on_to_the_same_file(data, tmp_path, monkeypatch):
    monkeypatch.setattr(loop.fit, "__kwdefaults__", {**loop.fit.__kwdefaults__, "checkpoint_every": 1})
    whole, history = run(data, out=tmp_path / "whole.safetensors")
    calls = []

    def stop(*arguments, **options):
        calls.append(arguments)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return draw_batch(*arguments, **options)

    monkeypatch.setattr(joint, "draw_batch", stop)
    with pytest.raises(KeyboardInterrupt):
        run(data, out=tmp_path / "broken.safetensors")
    monkeypatch.undo()
    with pytest.raises(WeightsError, match="backbone_lr_mult"):
        other = FasterRCNNTrainingSettings(**{**vars(SETTINGS), "backbone_lr_mult": 0.4})
        run(data, other, out=tmp_path / "broken.safetensors", resume=True)
    with pytest.raises(WeightsError, match="rpn"):
        train_faster_rcnn(
            network(),
            *data,
            SETTINGS,
            rpn=RPNConfig(anchor_sizes=((20.0, 50.0),)),
            quiet=True,
            out=tmp_path / "broken.safetensors",
            resume=True,
        )
    resumed, rest = run(data, out=tmp_path / "broken.safetensors", resume=True)
    assert rest == history[3:]
    assert not differing(whole.state_dict(), resumed.state_dict())
    for ending in ("safetensors", "json"):
        assert (tmp_path / f"whole.{ending}").read_bytes() == (tmp_path / f"broken.{ending}").read_bytes()
    assert len(list(tmp_path.iterdir())) == 4


class TestFiles:
    def test_saved_and_loaded_it_finds_the_same(self, data, tmp_path):
        heads = RoIConfig(pool_size=3, score_threshold=0.01)
        model, _ = run(data, heads=heads, out=tmp_path / "x.safetensors", about={"command": "c"})
        loaded, halved = load_faster_rcnn(tmp_path / "x.safetensors"), copy.deepcopy(model).half().float()
        assert not differing(halved.state_dict(), loaded.state_dict())
        assert (loaded.rpn.config, loaded.roi_heads.config, loaded.transform) == (RPN, heads, model.transform)
        images = [image for image, _ in data[0]]
        for found, wanted in zip(loaded.detect(images), halved.detect(images), strict=True):
            assert len(found["labels"]) and torch.equal(found["boxes"], wanted["boxes"])
        about = json.loads((tmp_path / "x.json").read_text())
        assert (about["command"], about["settings"]) == ("c", vars(SETTINGS))

    def test_what_is_no_faster_rcnn_is_named(self, data, tmp_path):
        path = tmp_path / "x.safetensors"
        save_faster_rcnn(faster_rcnn_alexnet(network(), data[1], RPN), TINY, path, {})
        tensors, about = load_weights(path)
        for change, message in (
            ({"detector": "fast_rcnn"}, "holds fast_rcnn, not a Faster R-CNN"),
            ({"rpn": {"pools": 3}}, "does not describe a Faster R-CNN"),
            ({"network": {**about["network"], "hidden": 0}}, "does not describe a Faster R-CNN"),
            ({"transform": {**about["transform"], "min_size": 2**31 - 1}}, "does not describe a Faster R-CNN"),
            ({"rpn": {**about["rpn"], "anchor_sizes": [[20]]}}, "x.safetensors"),
        ):
            save_weights(path, tensors, {**about, **change})
            with pytest.raises(WeightsError, match=message):
                load_faster_rcnn(path)


@pytest.fixture(scope="module")
def steps(data):
    """What each call of fit was given to train, before and after, in the order of the four steps."""
    seen, fit = [], module.fit

    def record(model, losses, settings, *, groups, quiet):
        before = copy.deepcopy(model.state_dict())
        history = fit(model, losses, settings, groups=groups, quiet=quiet)
        seen.append((before, copy.deepcopy(model.state_dict()), set(history[0]), len(history)))
        return history

    start = network()
    original = copy.deepcopy(start.state_dict())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "fit", record)
        model, history = train_alternating(
            start, *data, FasterRCNNTrainingSettings(iterations=12, min_size=128), rpn=RPN, quiet=True
        )
    assert not differing(original, start.state_dict()), "what is given is not changed"
    return seen, model, history


def test_each_step_has_its_losses_and_a_quarter_of_the_iterations(steps):
    seen, _, history = steps
    proposer, detector = {"loss_objectness", "loss_rpn_box_reg"}, {"loss_classifier", "loss_box_reg"}
    assert [names for _, _, names, _ in seen] == [proposer, detector, proposer, detector]
    assert [count for *_, count in seen] == [3] * 4 == [len(step) for step in history]


def test_what_learns_in_each_step(steps):
    parts = [{name.split(".")[0] for name in differing(before, after)} for before, after, *_ in steps[0]]
    assert parts == [{"backbone", "rpn"}, {"backbone", "roi_heads"}, {"rpn"}, {"roi_heads"}]
    assert not any("conv1" in name for before, after, *_ in steps[0] for name in differing(before, after))


def test_all_end_in_one_detector(steps, data):
    """The backbone of the second step, the proposer of the third, the heads of the fourth."""
    (_, _, *_), (_, second, *_), (_, third, *_), (_, fourth, *_) = steps[0]
    final = steps[1].state_dict()
    for part, source in (("backbone", second), ("rpn", third), ("roi_heads", fourth)):
        for name in (name for name in final if name.startswith(part)):
            assert torch.equal(final[name], source[name]), name
    assert not steps[1].training
    found = steps[1].detect([data[0][0][0]])[0]
    assert found["boxes"].isfinite().all()


def test_proposals_are_as_many_as_in_training(data):
    model = faster_rcnn_alexnet(network(), data[1], RPN)
    found = proposals_of(model, data[0][:3])
    assert [boxes.shape for boxes in found] == [(RPN.post_nms_top_n[0], 4)] * 3
    model.train()
    assert torch.equal(found[1], model.propose([data[0][1][0]])[0]["boxes"])
