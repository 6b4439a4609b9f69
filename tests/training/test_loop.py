"""The training loop: its schedule by hand, where it ends, and that an interruption changes nothing."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from minircnn.training import LoopSettings, fit
from minircnn.weights import WeightsError

# ------------------------------------------------------------------------------------------------------------ schedule


def test_schedule_by_hand():
    """Two of ten iterations to rise, eight to fall: a cosine from 0 to π in eight steps."""
    settings = LoopSettings(10, 1.0, warmup=0.2)
    rising = [1 / 3, 2 / 3]
    falling = [1, 0.9619, 0.8536, 0.6913, 0.5, 0.3087, 0.1464, 0.0381]  # (1 + cos(kπ / 8)) / 2
    assert [settings.rate(i) for i in range(10)] == pytest.approx([*rising, *falling], abs=1e-4)
    assert LoopSettings(10, 1.0, warmup=0).rate(0) == 1.0
    assert LoopSettings(1, 1.0).rate(0) == pytest.approx(1 / 1.1)


@pytest.mark.parametrize("iterations", [1, 2, 7, 100, 1001])
@pytest.mark.parametrize("warmup", [0, 0.1, 0.5, 0.99])
def test_schedule_rises_and_then_falls_within_0_and_1(iterations, warmup):
    rates = np.array([LoopSettings(iterations, 1.0, warmup).rate(i) for i in range(iterations)])
    assert (rates > 0).all() and (rates <= 1).all()
    turn = math.ceil(warmup * iterations)
    assert (np.diff(rates[:turn]) > 0).all() and (np.diff(rates[turn:]) < 0).all()


@pytest.mark.parametrize(
    "changes",
    [
        {"iterations": 0},
        {"iterations": -3},
        {"warmup": 1.0},
        {"warmup": -0.1},
        {"learning_rate": 0},
        {"learning_rate": -1.0},
        {"learning_rate": math.nan},
    ],
)
def test_settings_that_mean_nothing_are_refused(changes):
    with pytest.raises(ValueError, match=r"iterations must be at least 1, warmup in \[0, 1\), learning_rate positive"):
        replace(LoopSettings(10, 1e-3), **changes)


# ------------------------------------------------------------------------------------------------------------ learning


def problem(count=200, inputs=4):
    """A line, and noise around it."""
    random = torch.Generator().manual_seed(3)
    x = torch.randn(count, inputs, generator=random)
    y = x @ torch.tensor([1.0, -2.0, 0.5, 3.0]) + 0.7 + torch.randn(count, generator=random)
    return x, y


def test_reaches_the_solution_of_the_normal_equations():
    x, y = problem()
    model = nn.Linear(4, 1)
    found = fit(
        model,
        lambda _: {"squares": (model(x)[:, 0] - y).square().mean()},
        LoopSettings(300, 0.1, weight_decay=0),
        quiet=True,
    )
    design = np.hstack([x.numpy(), np.ones((200, 1))])
    wanted = np.linalg.solve(design.T @ design, design.T @ y.numpy())
    np.testing.assert_allclose(model.weight[0].detach(), wanted[:4], atol=1e-3)
    assert model.bias.item() == pytest.approx(wanted[4], abs=1e-3)
    residual = np.square(design @ wanted - y.numpy()).mean()
    assert len(found) == 300 and found[-1]["squares"] == pytest.approx(residual, rel=1e-4)
    assert found[-1]["squares"] < found[0]["squares"] / 5


def noisy(model):
    """Batches drawn at random, losses of very different size, so that some gradients are clipped and others are not."""
    x, y = problem()

    def losses(iteration):
        rows = torch.randint(0, len(x), (16,))
        error = (model(x[rows])[:, 0] - y[rows]) * 10.0 ** (iteration % 3 - 1)
        return {"squares": error.square().mean(), "absolute": error.abs().mean()}

    return losses


def test_equals_plain_torch():
    """AdamW, a scheduler, and gradients shortened by hand."""
    settings = LoopSettings(40, 0.05, warmup=0.25, weight_decay=0.1, clip=2.0, seed=5)
    torch.manual_seed(0)
    ours, plain = nn.Linear(4, 1), nn.Linear(4, 1)
    plain.load_state_dict(ours.state_dict())
    history = fit(ours, noisy(ours), settings, quiet=True)

    losses, wanted, shortened = noisy(plain), [], 0
    optimiser = torch.optim.AdamW(plain.parameters(), lr=0.05, weight_decay=0.1)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda i: (i + 1) / 11 if i < 10 else 0.5 + 0.5 * math.cos(math.pi * (i - 10) / 30)
    )
    for i in range(40):
        torch.manual_seed(5 * 1_000_003 + i)
        found = losses(i)
        wanted.append({name: loss.item() for name, loss in found.items()})
        optimiser.zero_grad()
        (found["squares"] + found["absolute"]).backward()
        length = math.sqrt(sum(p.grad.square().sum().item() for p in plain.parameters()))
        if length > 2:
            shortened += 1
            for p in plain.parameters():
                p.grad *= 2 / length
        optimiser.step()
        scheduler.step()
    assert 5 < shortened < 35
    for found, expected in zip(history, wanted, strict=True):
        assert found == pytest.approx(expected, rel=1e-4)
    for found, expected in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_weight_decay_by_hand():
    """Without a gradient nothing but the decay is left: a factor in every iteration."""
    model, settings = nn.Linear(3, 1), LoopSettings(8, 0.2, weight_decay=0.3)
    before = model.weight.detach().clone()
    fit(model, lambda _: {"none": model.weight.sum() * 0 + model.bias.sum() * 0}, settings, quiet=True)
    factor = math.prod(1 - 0.2 * settings.rate(i) * 0.3 for i in range(8))
    torch.testing.assert_close(model.weight.detach(), before * factor)


def test_groups_learn_at_their_scale_and_others_stay():
    """In AdamW's first step every number moves by the learning rate, however long the gradient."""
    model = nn.ModuleList(nn.Linear(5, 1) for _ in range(3))
    before = [layer.weight.detach().clone() for layer in model]
    groups = [
        {"params": list(model[0].parameters()), "scale": 1.0},
        {"params": list(model[1].parameters()), "scale": 0.1},
    ]
    x = torch.rand(8, 5) + 0.5
    settings = LoopSettings(1, 0.01, warmup=0, weight_decay=0)
    fit(model, lambda _: {"sum": sum(layer(x).sum() for layer in model)}, settings, groups=groups, quiet=True)
    moved = [layer.weight.detach() - old for layer, old in zip(model, before, strict=True)]
    torch.testing.assert_close(moved[0], torch.full((1, 5), -0.01), atol=1e-6, rtol=0)
    torch.testing.assert_close(moved[1], torch.full((1, 5), -0.001), atol=1e-6, rtol=0)
    assert moved[2].abs().sum() == 0


def draws(settings, greedy=False):
    """What each iteration draws; a greedy one takes a different share of the random numbers each time."""
    model, seen = nn.Linear(1, 1), []

    def losses(iteration):
        seen.append(torch.rand(1).item())
        if greedy:
            torch.rand(iteration * 7)
        return {"loss": model.weight.sum()}

    fit(model, losses, settings, quiet=True)
    return seen


def test_what_an_iteration_draws_hangs_on_seed_and_number_alone():
    settings = LoopSettings(20, 1e-3, seed=1)
    assert draws(settings) == draws(settings, greedy=True) == draws(replace(settings, iterations=30))[:20]
    every = [value for seed in range(4) for value in draws(replace(settings, seed=seed))]
    assert len(set(every)) == 80


def test_training_mode_and_history():
    model, modes = nn.Sequential(nn.Linear(1, 1), nn.Dropout()).eval(), []

    def losses(iteration):
        modes.append((model.training, iteration))
        return {"a": model[0].weight.sum() * 0 + iteration, "b": torch.tensor(2.5)}

    assert fit(model, losses, LoopSettings(3, 1e-3), quiet=True) == [{"a": float(i), "b": 2.5} for i in range(3)]
    assert modes == [(True, 0), (True, 1), (True, 2)]


@pytest.mark.parametrize("quiet, shown", [(True, False), (None, False), (False, True)])
def test_progress_is_shown_where_somebody_looks(capfd, quiet, shown):
    """In a test nobody does: the output is no terminal."""
    model = nn.Linear(1, 1)
    fit(model, lambda _: {"box": model.weight.square().sum()}, LoopSettings(3, 1e-3), quiet=quiet)
    written = "".join(capfd.readouterr())
    assert ("3/3" in written and "box=" in written) if shown else written == ""


# ----------------------------------------------------------------------------------------------------------- not finite


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_is_named_and_teaches_nothing(tmp_path, bad):
    model, checkpoint, kept = nn.Linear(2, 1), tmp_path / "run.checkpoint", []

    def losses(iteration):
        kept.append([value.clone() for value in model.state_dict().values()])
        loss = model.weight.square().sum()
        return {"fine": loss, "box": loss + bad if iteration == 5 else loss}

    with pytest.raises(FloatingPointError, match=r"iteration 5: \{.*'box': -?(nan|inf)\}.*: try a lower learning rate"):
        fit(model, losses, LoopSettings(10, 1e-2), checkpoint=checkpoint, checkpoint_every=1, quiet=True)
    assert len(kept) == 6
    assert all(torch.equal(a, b) for a, b in zip(kept[5], model.state_dict().values(), strict=True))
    assert torch.load(checkpoint, weights_only=True)["iteration"] == 5


def test_a_gradient_that_is_not_finite_is_named_and_teaches_nothing():
    """The root of 0 is 0, but infinitely steep."""
    model = nn.Linear(2, 1)
    before = model.weight.detach().clone()
    with pytest.raises(FloatingPointError, match=r"iteration 0: \{'root': 0\.0\}, gradient of length nan"):
        fit(model, lambda _: {"root": (model.weight * 0).sum().sqrt()}, LoopSettings(3, 1e-2), quiet=True)
    assert torch.equal(model.weight, before)


# --------------------------------------------------------------------------------------------------------- interruption


def network():
    """With dropout, which draws, and batch normalisation, whose statistics are no parameters."""
    torch.manual_seed(11)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 1))


def interrupted(losses, at):
    """The same losses, but the user presses Ctrl-C in iteration `at`."""

    def or_stop(iteration):
        found = losses(iteration)
        if iteration == at:
            raise KeyboardInterrupt
        return found

    return or_stop


SETTINGS = LoopSettings(24, 0.02, seed=2)


@pytest.fixture(scope="module")
def unbroken():
    model = network()
    return fit(model, noisy(model), SETTINGS, quiet=True), model.state_dict()


def assert_same_state(found, wanted):
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("at, every, start", [(0, 5, 0), (3, 5, 0), (5, 5, 5), (13, 5, 10), (23, 5, 20), (7, 1, 7)])
def test_an_interrupted_run_goes_on_as_if_nothing_had_been(tmp_path, unbroken, at, every, start):
    """Bit for bit: losses, weights, and the statistics of the batch normalisation."""
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


def test_twice_interrupted(tmp_path, unbroken):
    history, state = unbroken
    options = {"checkpoint": tmp_path / "run.checkpoint", "checkpoint_every": 4, "resume": True, "quiet": True}
    for at in (6, 17):
        model = network()
        with pytest.raises(KeyboardInterrupt):
            fit(model, interrupted(noisy(model), at), SETTINGS, **options)
    model = network()
    assert fit(model, noisy(model), SETTINGS, **options) == history[16:]
    assert_same_state(model.state_dict(), state)


def test_groups_are_resumed_with_their_scales(tmp_path):
    def run(**options):
        model = network()
        losses = interrupted(noisy(model), options.pop("at", None))
        groups = [
            {"params": list(model[0].parameters()), "scale": 0.1},
            {"params": list(model[4].parameters()), "scale": 2},
        ]
        history = fit(model, losses, SETTINGS, groups=groups, quiet=True, **options)
        return history, model.state_dict()

    history, state = run()
    options = {"checkpoint": tmp_path / "run.checkpoint", "checkpoint_every": 6}
    with pytest.raises(KeyboardInterrupt):
        run(at=9, **options)
    found = run(resume=True, **options)
    assert found[0] == history[6:]
    assert_same_state(found[1], state)


def test_without_resume_a_run_begins_anew(tmp_path, unbroken):
    options = {"checkpoint": tmp_path / "run.checkpoint", "checkpoint_every": 5, "quiet": True}
    model = network()
    with pytest.raises(KeyboardInterrupt):
        fit(model, interrupted(noisy(model), 13), SETTINGS, **options)
    again = network()
    assert fit(again, noisy(again), SETTINGS, **options) == unbroken[0]


def test_without_a_checkpoint_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = network()
    fit(model, noisy(model), replace(SETTINGS, iterations=2), resume=True, checkpoint_every=1, quiet=True)
    assert not list(tmp_path.iterdir())


def test_an_interrupted_save_leaves_the_last_good_checkpoint(tmp_path, unbroken, monkeypatch):
    checkpoint, whole, saved = tmp_path / "run.checkpoint", Path.write_bytes, []

    def third_breaks(path, content):
        saved.append(path)
        if len(saved) == 3:
            whole(path, content[: len(content) // 2])
            raise KeyboardInterrupt
        return whole(path, content)

    model = network()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", third_breaks)
        with pytest.raises(KeyboardInterrupt):
            fit(model, noisy(model), SETTINGS, checkpoint=checkpoint, checkpoint_every=5, quiet=True)
    assert list(tmp_path.iterdir()) == [checkpoint]
    again = network()
    found = fit(again, noisy(again), SETTINGS, checkpoint=checkpoint, resume=True, quiet=True)
    assert found == unbroken[0][10:]
    assert_same_state(again.state_dict(), unbroken[1])


# --------------------------------------------------------------------------------------------------- other checkpoints


@pytest.fixture
def checkpoint(tmp_path):
    """Of an unfinished run, ten iterations old."""
    path, model = tmp_path / "run.checkpoint", network()
    with pytest.raises(KeyboardInterrupt):
        fit(model, interrupted(noisy(model), 12), SETTINGS, checkpoint=path, checkpoint_every=10, about={"pictures": 7})
    return path


def resume(checkpoint, model=None, settings=SETTINGS, **options):
    model = model or network()
    options = {"about": {"pictures": 7}, **options}
    return fit(model, noisy(model), settings, checkpoint=checkpoint, resume=True, quiet=True, **options)


def refused(checkpoint, message, model=None, **options):
    """Is refused with this message; the model and the file stay as they were."""
    model, content = model or network(), checkpoint.read_bytes()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(WeightsError, match=message):
        resume(checkpoint, model, **options)
    assert_same_state(model.state_dict(), before)
    assert checkpoint.read_bytes() == content


@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, 0.99])
def test_a_checkpoint_that_is_cut_short_is_named(checkpoint, keep):
    content = checkpoint.read_bytes()
    checkpoint.write_bytes(content[: keep if isinstance(keep, int) else int(keep * len(content))])
    refused(checkpoint, r"run\.checkpoint: damaged, or of another model \(.*\); start without resume$")


@pytest.mark.parametrize(
    "content",
    [
        [1, 2],
        None,
        torch.zeros(3),
        network().state_dict(),
        {"settings": None},
        {"iteration": 3, "settings": [1]},
        {"iteration": 3, "settings": {}},
    ],
    ids=lambda value: f"{value!r:.30}",
)
def test_a_file_of_something_else_is_named(checkpoint, content):
    torch.save(content, checkpoint)
    refused(
        checkpoint, r"run\.checkpoint: (damaged, or of another model|begun with other settings).*start without resume"
    )


@pytest.mark.parametrize("part", ["iteration", "model", "optimiser"])
def test_a_missing_part_is_named(checkpoint, part):
    state = torch.load(checkpoint, weights_only=True)
    del state[part]
    torch.save(state, checkpoint)
    refused(checkpoint, rf"run\.checkpoint: damaged, or of another model \(KeyError\('{part}'\)\)")


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"iterations": 30}, "iterations 24 → 30"),
        ({"learning_rate": 0.5}, r"learning_rate 0\.02 → 0\.5"),
        ({"warmup": 0.0}, r"warmup 0\.1 → 0\.0"),
        ({"weight_decay": 0.0}, r"weight_decay 0\.01 → 0\.0"),
        ({"clip": 1.0}, r"clip 5\.0 → 1\.0"),
        ({"seed": 3, "clip": 1.0}, r"clip 5\.0 → 1\.0, seed 2 → 3"),
    ],
)
def test_other_settings_are_named(checkpoint, changes, message):
    message = rf"run\.checkpoint: begun with other settings \({message}\); give the same, or start without resume"
    refused(checkpoint, message, settings=replace(SETTINGS, **changes))


@pytest.mark.parametrize(
    "about, message",
    [
        ({"pictures": 8}, "pictures 7 → 8"),
        ({"pictures": 7, "stride": 8}, "stride None → 8"),
        ({}, "pictures 7 → None"),
        (None, "pictures 7 → None"),
    ],
)
def test_another_run_is_named(checkpoint, about, message):
    refused(checkpoint, rf"begun with other settings \({message}\)", about=about)
    assert len(resume(checkpoint)) == 14, "the right one goes on"


def test_another_model_is_named_and_stays_as_it_is(checkpoint):
    wider = nn.Sequential(nn.Linear(4, 9), nn.BatchNorm1d(9), nn.ReLU(), nn.Dropout(0.3), nn.Linear(9, 1))
    refused(checkpoint, r"damaged, or of another model \(.*0\.bias has shape \(8,\), the network needs \(9,\)", wider)
    longer = nn.Sequential(*network(), nn.Linear(1, 1))
    refused(checkpoint, "damaged, or of another model", longer)
    model = network()
    groups = [{"params": [p], "scale": 1.0} for p in model.parameters()]
    refused(checkpoint, "damaged, or of another model", model, groups=groups)


class Mischief:
    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


def test_a_checkpoint_that_holds_code_is_refused_and_does_not_run(checkpoint, tmp_path):
    state, trace = torch.load(checkpoint, weights_only=True), tmp_path / "trace"
    torch.save({**state, "more": Mischief(trace)}, checkpoint)
    refused(checkpoint, r"run\.checkpoint: damaged, or of another model")
    assert not trace.exists()
    torch.load(checkpoint, weights_only=False)
    assert trace.exists(), "the file would have done it"
