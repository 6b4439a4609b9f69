"""Pre-training: an interrupted run ends in the same file, and what is learned is what was painted."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from minircnn.alexnet import SMALL, SMALL_STRIDE_16, SMALL_STRIDE_16_WEIGHTS, SMALL_WEIGHTS, load_alexnet
from minircnn.cache import Cache
from minircnn.course.one_object import accuracy, reframe
from minircnn.datasets.toytown import SUBTYPES
from minircnn.weights import WeightsError, load_weights
from workshop import pretraining
from workshop.pretraining import PretrainingSettings, main, painted, train_alexnet

TINY = PretrainingSettings(images=24, val_images=12, epochs=3, batch=8, seed=3)  # 9 iterations


NARROW, NARROW_16 = (replace(one, channels=(8, 8, 16, 16, 16), hidden=32) for one in (SMALL, SMALL_STRIDE_16))


@pytest.fixture(scope="module", autouse=True)
def narrow():
    """Networks that take a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretraining, "SMALL", NARROW)
        patch.setattr(pretraining, "SMALL_STRIDE_16", NARROW_16)
        yield


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return Cache(tmp_path_factory.mktemp("painted"))


@pytest.fixture
def histories(monkeypatch):
    """What each run has learned; a checkpoint every four iterations."""
    histories = []

    def noted(*args, **options):
        histories.append(fit(*args, checkpoint_every=4, **options))

    fit = pretraining.fit
    monkeypatch.setattr(pretraining, "fit", noted)
    return histories


@pytest.fixture(scope="module")
def unbroken(cache, tmp_path_factory):
    """The file that a run gives which nobody interrupts, and its accuracy."""
    out = tmp_path_factory.mktemp("unbroken") / "alexnet.safetensors"
    return out, train_alexnet(TINY, out=out, cache=cache, command="c", quiet=True)


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_what_a_run_leaves(unbroken, cache):
    out, reached = unbroken
    assert files(out.parent) == [out.with_suffix(".json"), out], "and no checkpoint"
    _, about = load_weights(out)
    assert (about["settings"], about["command"]) == (asdict(TINY), "c")
    assert about["held_out_accuracy"] == asdict(reached)
    network = load_alexnet(out)
    assert network.config == NARROW and network.fc8.out_features == len(SUBTYPES)
    assert accuracy(network, *painted("val", 12, cache)) == reached, "of the file, not of what it was before"


def test_another_seed_gives_another_file(unbroken, cache, tmp_path):
    for seed, same in ((3, True), (4, False)):
        out = tmp_path / f"{seed}.safetensors"
        train_alexnet(replace(TINY, seed=seed), out=out, cache=cache, quiet=True)
        assert (out.read_bytes() == unbroken[0].read_bytes()) == same


def stop_at(call, function):
    """The function, but the user presses Ctrl-C when it is called for the n-th time."""
    calls = []

    def stopped(*args, **options):
        calls.append(1)
        if len(calls) == call:
            raise KeyboardInterrupt
        return function(*args, **options)

    return stopped


@pytest.mark.parametrize("name, call, left", [("reframe", 6, 5), ("accuracy", 1, 0)])
def test_an_interrupted_run_ends_in_the_same_file(unbroken, cache, tmp_path, histories, monkeypatch, name, call, left):
    out = tmp_path / "alexnet.safetensors"
    with monkeypatch.context() as patch:
        patch.setattr(pretraining, name, stop_at(call, getattr(pretraining, name)))
        with pytest.raises(KeyboardInterrupt):
            train_alexnet(TINY, out=out, cache=cache, command="c", quiet=True)
    assert files(tmp_path) == [tmp_path / "alexnet.checkpoint"]
    with pytest.raises(WeightsError, match=r"alexnet\.checkpoint: begun with other settings \(label_smoothing"):
        train_alexnet(replace(TINY, label_smoothing=0.1), out=out, cache=cache, resume=True, quiet=True)
    histories.clear()
    assert train_alexnet(TINY, out=out, cache=cache, command="c", quiet=True, resume=True) == unbroken[1]
    assert len(histories[0]) == left
    assert files(tmp_path) == [out.with_suffix(".json"), out]
    for suffix in (".safetensors", ".json"):
        assert out.with_suffix(suffix).read_bytes() == unbroken[0].with_suffix(suffix).read_bytes()


def test_learns_what_it_sees(cache, tmp_path, histories):
    """A few images, often: the loss falls far below guessing, and they are classified."""
    settings = replace(TINY, images=8, epochs=40, learning_rate=5e-3, label_smoothing=0.0)
    train_alexnet(settings, out=tmp_path / "a.safetensors", cache=cache, quiet=True)
    losses = [losses["classification"] for losses in histories[0]]
    assert losses[0] == pytest.approx(np.log(len(SUBTYPES)), abs=0.5)
    assert np.mean(losses[-8:]) < 0.4 * np.mean(losses[:4])
    found = accuracy(load_alexnet(tmp_path / "a.safetensors"), *painted("train", 8, cache))
    assert found.subtypes > 0.6, "by guessing 1 of 21"


def test_an_epoch_shows_every_image_once(cache, tmp_path, monkeypatch):
    """In another order each time; what does not fill a batch waits for the next epoch."""
    seen = []

    def note(images):
        seen.append(images)
        return reframe(images)

    monkeypatch.setattr(pretraining, "reframe", note)
    train_alexnet(replace(TINY, epochs=2, images=26), out=tmp_path / "a.safetensors", cache=cache, quiet=True)
    assert [len(batch) for batch in seen] == [8] * 6
    first, second = torch.cat(seen[:3]).flatten(1), torch.cat(seen[3:]).flatten(1)
    assert len(first.unique(dim=0)) == len(second.unique(dim=0)) == 24
    assert not torch.equal(first, second)
    known = painted("train", 26, cache)[0].float().flatten(1) / 255
    assert (torch.cdist(first, known).amin(dim=1) < 0.1).all()


def test_the_command(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("MINIRCNN_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "a.safetensors"
    arguments = f"--images 16 --val-images 8 --epochs 1 --batch 8 --stride 16 --seed 5 --out {out}".split()
    main(arguments)
    assert load_alexnet(out).config == NARROW_16
    _, about = load_weights(out)
    assert about["settings"] == asdict(PretrainingSettings(16, 8, 1, 8, stride=16, seed=5))
    assert about["command"] == f"python -m workshop.pretraining {' '.join(arguments)}"
    assert "accuracy on 8 held-out images" in capsys.readouterr().out
    for wrong, message in (("--stride 12", "stride must be 8 or 16"), ("--images 5 --batch 6", "a batch at most all")):
        with pytest.raises(SystemExit):
            main(wrong.split())
        assert message in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"a\.pth: weights are written as \.safetensors"):
        train_alexnet(TINY, out=tmp_path / "a.pth")


@pytest.mark.parametrize("path, config", [(SMALL_WEIGHTS, SMALL), (SMALL_STRIDE_16_WEIGHTS, SMALL_STRIDE_16)])
def test_the_weights_that_come_with_the_project_were_trained_by_the_defaults(path, config):
    """What they reach, tests/test_shipped.py measures."""
    about = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    assert about["settings"] == asdict(PretrainingSettings(stride=config.total_stride))
