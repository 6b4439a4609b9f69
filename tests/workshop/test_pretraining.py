"""Pre-training: an interrupted run ends in the same file, and what is learned is what was painted."""

import json
from dataclasses import asdict, replace
from functools import partial

import pytest

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


@pytest.fixture(scope="module")
def unbroken(cache, tmp_path_factory):
    """The file that a run gives which nobody interrupts, and its accuracy."""
    out = tmp_path_factory.mktemp("unbroken") / "alexnet.safetensors"
    return out, train_alexnet(TINY, out=out, cache=cache, command="c", quiet=True)


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_what_a_run_leaves_depends_on_its_seed_alone(unbroken, cache, tmp_path):
    out, reached = unbroken
    assert files(out.parent) == [out.with_suffix(".json"), out], "and no checkpoint"
    assert load_weights(out)[1]["held_out_accuracy"] == asdict(reached)
    network = load_alexnet(out)
    assert network.config == NARROW and network.fc8.out_features == len(SUBTYPES)
    assert accuracy(network, *painted("val", 12, cache)) == reached, "of the file, not of what it was before"
    train_alexnet(replace(TINY, seed=4), out=tmp_path / "other.safetensors", cache=cache, quiet=True)
    assert (tmp_path / "other.safetensors").read_bytes() != out.read_bytes()


def test_an_interrupted_run_ends_in_the_same_file(unbroken, cache, tmp_path, monkeypatch):
    """The user presses Ctrl-C in the sixth iteration, after a checkpoint of four."""
    out, seen = tmp_path / "alexnet.safetensors", []

    def noted(images):
        seen.append(len(images))
        if len(seen) == 6:
            raise KeyboardInterrupt
        return reframe(images)

    monkeypatch.setattr(pretraining, "fit", partial(pretraining.fit, checkpoint_every=4))
    monkeypatch.setattr(pretraining, "reframe", noted)
    with pytest.raises(KeyboardInterrupt):
        train_alexnet(TINY, out=out, cache=cache, command="c", quiet=True)
    assert files(tmp_path) == [tmp_path / "alexnet.checkpoint"]
    with pytest.raises(WeightsError, match=r"alexnet\.checkpoint: begun with other settings \(label_smoothing"):
        train_alexnet(replace(TINY, label_smoothing=0.1), out=out, cache=cache, resume=True, quiet=True)
    assert train_alexnet(TINY, out=out, cache=cache, command="c", quiet=True, resume=True) == unbroken[1]
    assert len(seen) == 6 + 5
    assert files(tmp_path) == [out.with_suffix(".json"), out]
    for suffix in (".safetensors", ".json"):
        assert out.with_suffix(suffix).read_bytes() == unbroken[0].with_suffix(suffix).read_bytes()


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


def test_the_weights_that_come_with_the_project_were_trained_by_the_defaults():
    """What they reach, tests/test_shipped.py measures."""
    for path, config in ((SMALL_WEIGHTS, SMALL), (SMALL_STRIDE_16_WEIGHTS, SMALL_STRIDE_16)):
        about = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        assert about["settings"] == asdict(PretrainingSettings(stride=config.total_stride))
