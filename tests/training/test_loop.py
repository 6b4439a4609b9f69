"""The training loop: its schedule by hand, where it ends, and that an interruption changes nothing."""

import math
from contextlib import nullcontext
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import nn

from minircnn.training import LoopSettings, fit, loop
from tests.training.conftest import SETTINGS, assert_same_state, interrupted, network, noisy


def test_schedule_by_hand():
    """Two of ten iterations to rise, eight to fall: a cosine from 0 to π in eight steps."""
    settings = LoopSettings(10, 1.0, warmup=0.2)
    rising = [1 / 3, 2 / 3]
    falling = [1, 0.9619, 0.8536, 0.6913, 0.5, 0.3087, 0.1464, 0.0381]  # (1 + cos(kπ / 8)) / 2
    assert [settings.rate(i) for i in range(10)] == pytest.approx([*rising, *falling], abs=1e-4)
    assert LoopSettings(10, 1.0, warmup=0).rate(0) == 1.0
    assert LoopSettings(1, 1.0).rate(0) == pytest.approx(1 / 1.1)


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"iterations": 0}, {}, r"iterations must be at least 1, warmup in \[0, 1\), learning_rate positive"),
        ({"warmup": 1.0}, {}, "iterations must be at least 1"),
        ({"learning_rate": math.nan}, {}, "iterations must be at least 1"),
        ({"schedule": "linear"}, {}, 'schedule must be "cosine" or "step", not'),
        ({"mixed_precision": True}, {}, "mixed_precision needs an NVIDIA GPU, but the model is on cpu; move it"),
        ({}, {"checkpoint_every": 0}, "must be at least 1: checkpoint_every 0"),
        ({}, {"evaluate_every": -5}, "must be at least 1: .*evaluate_every -5"),
        ({}, {"evaluate": lambda _: {"AP": 1, "box": 2}}, "of the name of a loss: box; rename one"),
    ],
)
def test_what_is_refused(changes, options, message):
    model = nn.Linear(1, 1)
    with pytest.raises(ValueError, match=message):
        fit(model, lambda _: {"box": model.weight.sum()}, replace(LoopSettings(3, 1e-3), **changes), **options)


def test_equals_plain_torch():
    """AdamW, a scheduler, and gradients shortened by hand."""
    settings = LoopSettings(40, 0.05, warmup=0.25, weight_decay=0.1, clip=2.0, seed=5)
    ours, plain = nn.Linear(4, 1), nn.Linear(4, 1)
    plain.load_state_dict(ours.state_dict())
    history = fit(ours, noisy(ours), settings, quiet=True)

    losses, wanted, shortened = noisy(plain), [], 0
    optimizer = torch.optim.AdamW(plain.parameters(), lr=0.05, weight_decay=0.1)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda i: (i + 1) / 11 if i < 10 else 0.5 + 0.5 * math.cos(math.pi * (i - 10) / 30)
    )
    for i in range(40):
        torch.manual_seed(5 * 1_000_003 + i)
        found = losses(i)
        wanted.append({name: loss.item() for name, loss in found.items()})
        optimizer.zero_grad()
        sum(found.values()).backward()
        length = math.sqrt(sum(p.grad.square().sum().item() for p in plain.parameters()))
        shortened += length > 2
        for p in plain.parameters():
            p.grad *= min(2 / length, 1)
        optimizer.step(), scheduler.step()
    assert 5 < shortened < 35
    for found, expected in zip(history, wanted, strict=True):
        assert found == pytest.approx(expected, rel=1e-4)
    torch.testing.assert_close(ours.state_dict(), plain.state_dict(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("iterations, every, wanted", [(7, 3, [3, 6, 7]), (6, 3, [3, 6]), (4, None, [4]), (2, 5, [2])])
def test_evaluations_come_when_they_are_due_and_at_the_end(iterations, every, wanted):
    model, modes = nn.Sequential(nn.Linear(2, 1), nn.Dropout()).eval(), []

    def losses(iteration):
        modes.append(model.training and model[1].training)
        return {"loss": model[0].weight.square().sum()}

    def evaluate(given):
        assert given is model and not model.training and not model[1].training and not torch.is_grad_enabled()
        return {"AP": losses(None)["loss"], "AP of a cat": modes.pop() + 3}

    settings = LoopSettings(iterations, 0.1)
    history = fit(model, losses, settings, evaluate=evaluate, evaluate_every=every, quiet=True)
    assert modes == [True] * iterations and model.training
    assert [i for i, row in enumerate(history, 1) if row.keys() == {"loss", "AP", "AP of a cat"}] == wanted
    for done in wanted[:-1]:  # measured after the step: what the next iteration begins with
        assert history[done - 1]["AP"] == pytest.approx(history[done]["loss"])
    assert history[-1]["AP"] == pytest.approx(losses(None)["loss"].item()) and history[-1]["AP of a cat"] == 3
    assert all(type(value) is float for row in history for value in row.values())


@pytest.mark.parametrize("quiet, shown", [(True, False), (None, False), (False, True)])
def test_progress_is_shown_where_somebody_looks(capfd, quiet, shown):
    """In a test nobody does: the output is no terminal."""
    model = nn.Linear(1, 1)
    fit(model, lambda _: {"box": model.weight.square().sum()}, LoopSettings(3, 1e-3), quiet=quiet)
    written = "".join(capfd.readouterr())
    assert ("3/3" in written and "box=" in written) if shown else written == ""


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_named_and_teaches_nothing(tmp_path, bad):
    model, checkpoint, kept = nn.Linear(2, 1), tmp_path / "run.checkpoint", []

    def losses(iteration):
        kept.append([value.clone() for value in model.state_dict().values()])
        loss = model.weight.square().sum()
        return {"fine": loss, "box": loss + bad if iteration == 5 else loss}

    with pytest.raises(FloatingPointError, match=r"iteration 5: \{.*'box': (nan|inf)\}.*: try a lower learning rate"):
        fit(model, losses, LoopSettings(10, 1e-2), checkpoint=checkpoint, checkpoint_every=1, quiet=True)
    assert len(kept) == 6
    assert all(torch.equal(a, b) for a, b in zip(kept[5], model.state_dict().values(), strict=True))
    assert torch.load(checkpoint, weights_only=True)["iteration"] == 5


@pytest.fixture
def scaled(monkeypatch):
    """Mixed precision is for GPUs, but what scales the gradients works on the CPU, too: with 32 bits."""

    def scale(start):
        scaler = torch.amp.GradScaler("cpu", init_scale=start, growth_interval=5)
        monkeypatch.setattr(loop, "_precision", lambda mixed, device: (nullcontext(), scaler))
        return scaler

    return scale


def test_scaled_gradients_are_clipped_at_their_true_length(scaled, unbroken):
    """A power of two changes no digit, so that everything is as without it."""
    ours, scaler = network(), scaled(2.0**10)
    assert fit(ours, noisy(ours), replace(SETTINGS, mixed_precision=True), quiet=True) == unbroken[0]
    assert_same_state(ours.state_dict(), unbroken[1])
    assert scaler.get_scale() == 2.0**14, "24 iterations, and it doubles after each five without an overflow"


@pytest.mark.parametrize("mixed, last", [(False, 0), (True, 19)])
def test_a_gradient_that_is_not_finite_is_named_and_teaches_nothing(scaled, mixed, last):
    """The root of 0 is 0, but infinitely steep. Mixed precision skips twenty steps before it gives up."""
    model = nn.Linear(2, 1)
    before, settings = model.weight.detach().clone(), LoopSettings(30, 0.01, mixed_precision=mixed)
    if mixed:
        scaled(2.0**10)
    with pytest.raises(FloatingPointError, match=rf"iteration {last}: \{{'root': 0\.0\}}, gradient of norm nan"):
        fit(model, lambda _: {"root": (model.weight * 0).sum().sqrt()}, settings, quiet=True)
    assert torch.equal(model.weight, before)


def test_the_scale_is_found_by_skipping_steps_and_is_resumed(tmp_path, scaled):
    """An interruption while gradients still overflow. The checkpoint holds the state of what scales them."""

    def run(at=None, **options):
        kept, model, scaler = [], network(), scaled(2.0**126)
        losses = interrupted(noisy(model), at)

        def watched(iteration):
            kept.append(model[0].weight.detach().clone())
            return losses(iteration)

        history = fit(model, watched, settings, quiet=True, checkpoint_every=1, **options)
        return history, model.state_dict(), [not torch.equal(a, b) for a, b in pairwise(kept)], scaler.get_scale()

    settings, checkpoint = replace(SETTINGS, mixed_precision=True), tmp_path / "run.checkpoint"
    history, state, moved, scale = run()
    assert moved[:6] == [True, True, False, True, False, False] and sum(moved) > 10 and scale < 2.0**120
    with pytest.raises(KeyboardInterrupt):
        run(at=8, checkpoint=checkpoint)
    stored = torch.load(checkpoint, weights_only=True)["scaler"]
    assert stored["scale"] == 2.0**123, "halved by each of the three"
    found = run(checkpoint=checkpoint, resume=True)
    assert (found[0], found[3]) == (history[8:], scale)
    assert_same_state(found[1], state)


@pytest.mark.parametrize("at, every, start", [(3, 5, 0), (5, 5, 5), (13, 5, 10), (7, 1, 7)])
def test_an_interrupted_run_goes_on_as_if_nothing_had_been(tmp_path, unbroken, at, every, start):
    """Bit for bit: losses, weights, and the statistics of the batch normalization."""
    history, state = unbroken
    options = {"checkpoint": tmp_path / "run ä.checkpoint", "checkpoint_every": every, "quiet": True}
    first = network()
    with pytest.raises(KeyboardInterrupt):
        fit(first, interrupted(noisy(first), at), SETTINGS, **options)
    assert options["checkpoint"].is_file() == (start > 0)
    second = network()
    nn.init.zeros_(second[0].weight) if start else None  # what it began with does not matter
    torch.rand(123)  # nor what others have drawn
    assert fit(second, noisy(second), SETTINGS, resume=True, **options) == history[start:]
    assert_same_state(second.state_dict(), state)
    third = network()
    assert fit(third, noisy(third), SETTINGS, resume=True, **options) == [], "there is nothing left to do"
    assert_same_state(third.state_dict(), state)
