"""Pre-training: what is painted, how it is reframed, and that an interrupted run ends in the same file."""

import json
from dataclasses import asdict, replace
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score

from minircnn.alexnet import (
    SMALL,
    SMALL_STRIDE_16,
    SMALL_STRIDE_16_WEIGHTS,
    SMALL_WEIGHTS,
    AlexNet,
    load_alexnet,
)
from minircnn.cache import Cache
from minircnn.datasets import toytown
from minircnn.datasets.toytown.photographs import HELD_OUT_PHOTOGRAPHS, TRAIN_PHOTOGRAPHS
from minircnn.training import PretrainingSettings, accuracy, one_object_pictures, pretraining, train_alexnet
from minircnn.training.pretraining import reframe
from minircnn.weights import WeightsError, load_weights


@pytest.fixture(scope="module")
def painted(tmp_path_factory):
    """A cache that several tests fill and use."""
    return Cache(tmp_path_factory.mktemp("painted"))


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


# ------------------------------------------------------------------------------------------------------------- pictures


@pytest.mark.parametrize(
    "split, first, photographs",
    [
        ("train", 10_000_000, TRAIN_PHOTOGRAPHS),
        ("val", 20_000_000, TRAIN_PHOTOGRAPHS[:4] + HELD_OUT_PHOTOGRAPHS),
    ],
)
def test_pictures_are_the_painters(painted, split, first, photographs):
    images, subtypes = one_object_pictures(split, 12, painted)
    assert images.shape == (12, 3, 64, 64) and images.dtype == torch.uint8
    assert subtypes.shape == (12,) and subtypes.dtype == torch.int64
    for i in range(12):
        image, label, subtype = toytown.paint_single(first + i, 64, photographs)
        assert np.array_equal(images[i].permute(1, 2, 0), image)
        assert subtypes[i] == subtype
        assert toytown.SUBTYPES[subtype].startswith(toytown.CLASSES[label] + "/")


def test_half_of_the_photographs_of_val_are_held_out():
    assert len(HELD_OUT_PHOTOGRAPHS) == 4 and not set(HELD_OUT_PHOTOGRAPHS) & set(TRAIN_PHOTOGRAPHS)


def test_painting_again_gives_the_same_and_splits_share_nothing(painted, tmp_path):
    train, val = one_object_pictures("train", 60, painted)[0], one_object_pictures("val", 60, painted)[0]
    assert torch.equal(one_object_pictures("train", 60, Cache(tmp_path))[0], train)
    both = torch.cat([train, val]).flatten(1)
    assert len(both.unique(dim=0)) == 120


def test_what_is_painted_is_kept(tmp_path):
    cache = Cache(tmp_path)
    first = one_object_pictures("train", 10, cache)
    (path,) = files(tmp_path)
    written = path.stat().st_mtime_ns
    again = one_object_pictures("train", 10, cache)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert files(tmp_path) == [path] and path.stat().st_mtime_ns == written
    one_object_pictures("val", 10, cache)
    assert len(files(tmp_path)) == 2


def test_the_users_cache_is_the_default(tmp_path, monkeypatch):
    monkeypatch.setenv("MINIRCNN_CACHE", str(tmp_path))
    one_object_pictures("train", 2)
    assert len(files(tmp_path / "results" / "single_objects")) == 1


def test_many_pictures_are_painted_in_parts(tmp_path, monkeypatch):
    """By several processes; in the same order as by one, and a shorter request finds the parts of a longer one."""
    wanted = one_object_pictures("val", 25, Cache(tmp_path / "one"))
    monkeypatch.setattr(pretraining, "_CHUNK", 10)
    found = one_object_pictures("val", 25, Cache(tmp_path / "parts"))
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
    assert len(files(tmp_path / "parts")) == 3
    shorter = one_object_pictures("val", 20, Cache(tmp_path / "parts"))
    assert all(torch.equal(a, b[:20]) for a, b in zip(shorter, wanted, strict=True))
    assert len(files(tmp_path / "parts")) == 3


@pytest.mark.parametrize("split, count", [("test", 5), ("train", 0), ("val", -1)])
def test_other_splits_and_no_pictures_are_refused(tmp_path, split, count):
    with pytest.raises(
        ValueError, match=rf'split must be "train" or "val" and count at least 1, .*{split}.* and {count}'
    ):
        one_object_pictures(split, count, Cache(tmp_path))


# -------------------------------------------------------------------------------------------------------------- reframe


def reframe_by_hand(image, amount, width, height, right, down, mirror):
    """One picture, one pixel at a time; the numbers between -1 and 1 as they were drawn."""
    image = image.double().numpy()
    side = image.shape[1]
    result = np.empty_like(image)
    for row in range(side):
        for column in range(side):
            across, along = (2 * column + 1) / side - 1, (2 * row + 1) / side - 1  # from -1 to 1
            across = across * (1 + amount * width) * mirror + amount * right
            along = along * (1 + amount * height) + amount * down
            x = min(max((across + 1) / 2 * side - 0.5, 0), side - 1)
            y = min(max((along + 1) / 2 * side - 0.5, 0), side - 1)
            left, top = min(int(x), side - 2), min(int(y), side - 2)
            a, b = x - left, y - top
            upper = (1 - a) * image[:, top, left] + a * image[:, top, left + 1]
            lower = (1 - a) * image[:, top + 1, left] + a * image[:, top + 1, left + 1]
            result[:, row, column] = (1 - b) * upper + b * lower
    return result


@pytest.mark.parametrize("amount", [0.2, 0.5])
def test_reframe_equals_a_slow_loop(amount):
    images = torch.rand(8, 3, 9, 9, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(4)
    found = reframe(images, amount)
    torch.manual_seed(4)
    drawn, coin = torch.rand(4, 8) * 2 - 1, torch.rand(8)
    for i, (image, numbers) in enumerate(zip(images, drawn.T.tolist(), strict=True)):
        wanted = reframe_by_hand(image, amount, *numbers, mirror=-1 if coin[i] < 0.5 else 1)
        np.testing.assert_allclose(found[i], wanted, atol=1e-5)


def test_reframe_by_nothing_mirrors_half():
    images = torch.rand(400, 3, 5, 5, generator=torch.Generator().manual_seed(1))
    before = images.clone()
    torch.manual_seed(0)
    found = reframe(images, amount=0)
    assert torch.equal(images, before)
    same = (found - images).abs().amax(dim=(1, 2, 3)) < 1e-5
    mirrored = (found - images.flip(3)).abs().amax(dim=(1, 2, 3)) < 1e-5
    assert (same ^ mirrored).all()
    assert 160 < mirrored.sum() < 240


def test_reframe_moves_and_stretches_within_its_limits():
    """A picture tells places: how far apart two pixels look is the stretch, where the middle looks is the shift."""
    side, amount = 64, 0.2
    places = torch.arange(side) + 0.5
    images = torch.stack([places.expand(side, side), places[:, None].expand(side, side), torch.zeros(side, side)])
    torch.manual_seed(0)
    found = reframe(images.expand(2000, 3, side, side), amount)
    middle = found[:, :, 31:33, 31:33].mean(dim=(2, 3))[:, :2]
    shift = (middle - side / 2) / side
    stretch = torch.stack([found[:, 0, 32, 40] - found[:, 0, 32, 24], found[:, 1, 40, 32] - found[:, 1, 24, 32]]) / 16
    assert ((stretch[0] < 0).double().mean() - 0.5).abs() < 0.05, "half are mirrored"
    assert (stretch[1] > 0).all(), "none stands on its head"
    numbers = torch.cat([shift.T * 2, stretch.abs() - 1])  # (4, 2000)
    assert numbers.abs().max() <= amount + 1e-4
    for row in numbers:
        assert row.min() < -0.95 * amount and row.max() > 0.95 * amount and row.mean().abs() < 0.1 * amount
    assert (torch.corrcoef(numbers) - torch.eye(4)).abs().max() < 0.1, "each on its own"


# ------------------------------------------------------------------------------------------------------------- accuracy


@pytest.mark.parametrize("pictures", [1, 520])
def test_accuracy_equals_scikit_learns(pictures):
    """In training mode before, with dropout, and more pictures than are looked at at once."""
    torch.manual_seed(0)
    network = AlexNet(replace(SMALL, channels=(4, 4, 4, 4, 8), hidden=16), len(toytown.SUBTYPES)).train()
    blots = torch.rand(pictures, 3, 3, 3, generator=torch.Generator().manual_seed(2))
    images = (torch.nn.functional.interpolate(blots, (64, 64)) * 255).to(torch.uint8)
    network.eval()
    with torch.no_grad():
        network.fc8.bias -= network((images[:50] / 255 - 0.45) / 0.25).mean(dim=0)  # so that not all get the same name
        guess = [int(network((image[None] / 255 - 0.45) / 0.25).argmax()) for image in images]
    network.train()
    truth = [g if i % 3 else (g + 1 + i) % len(toytown.SUBTYPES) for i, g in enumerate(guess)]
    found = accuracy(network, images, torch.tensor(truth))
    assert pictures == 1 or len(set(guess)) > 3
    assert found.subtypes == pytest.approx(accuracy_score(truth, guess))
    words = [[toytown.SUBTYPES[index].split("/")[0] for index in indices] for indices in (truth, guess)]
    assert found.classes == pytest.approx(accuracy_score(*words))
    assert pictures == 1 or found.classes > found.subtypes > 0.5


def test_classes_by_name():
    found = pretraining._classes_of(torch.arange(len(toytown.SUBTYPES)))
    for name, index in zip(toytown.SUBTYPES, found.tolist(), strict=True):
        assert name.split("/")[0] == toytown.CLASSES[index]
    assert set(found.tolist()) == {1, 2, 3, 4, 5, 6}
    assert pretraining._classes_of(torch.zeros(0, dtype=torch.int64)).shape == (0,)


# ------------------------------------------------------------------------------------------------------------- training

TINY = PretrainingSettings(pictures=48, val_pictures=24, epochs=5, batch=16, seed=3)  # 15 iterations


@pytest.fixture
def saves_often(monkeypatch):
    """A checkpoint every four iterations; what has been learned is noted."""
    histories = []

    def noted(*args, **options):
        histories.append(fit(*args, checkpoint_every=4, **options))

    fit = pretraining.fit
    monkeypatch.setattr(pretraining, "fit", noted)
    return histories


@pytest.fixture(scope="module")
def unbroken(painted, tmp_path_factory):
    """The file that a run gives which nobody interrupts, and its accuracy."""
    out = tmp_path_factory.mktemp("unbroken") / "alexnet.safetensors"
    return out, train_alexnet(TINY, out=out, cache=painted, command="minircnn train alexnet", quiet=True)


def test_what_a_run_leaves(unbroken, painted):
    out, reached = unbroken
    assert files(out.parent) == [out.with_suffix(".json"), out], "and no checkpoint"
    _, about = load_weights(out)
    assert about["settings"] == asdict(TINY)
    assert about["command"] == "minircnn train alexnet"
    assert about["held_out_accuracy"] == asdict(reached)
    network = load_alexnet(out)
    assert network.config == SMALL and network.fc8.out_features == len(toytown.SUBTYPES)
    assert accuracy(network, *one_object_pictures("val", 24, painted)) == reached, (
        "of the file, not of what it was before"
    )


def test_the_same_seed_gives_the_same_file_and_another_does_not(unbroken, painted, tmp_path, monkeypatch):
    """Another one also means: pictures are framed and dropped otherwise, not only shown in another order."""
    drawn = set()

    def note(images):
        drawn.add(torch.rand(1, generator=torch.Generator().manual_seed(torch.initial_seed())).item())
        return reframe(images)

    monkeypatch.setattr(pretraining, "reframe", note)
    for seed, same in ((3, True), (4, False)):
        out = tmp_path / f"{seed}.safetensors"
        train_alexnet(replace(TINY, seed=seed), out=out, cache=painted, quiet=True)
        assert (out.read_bytes() == unbroken[0].read_bytes()) == same
    assert len(drawn) == 30


def stop_at(call, function):
    """The function, but the user presses Ctrl-C when it is called for the n-th time."""
    calls = []

    def stopped(*args, **options):
        calls.append(1)
        if len(calls) == call:
            raise KeyboardInterrupt
        return function(*args, **options)

    return stopped


@pytest.mark.parametrize(
    "name, call, left", [("reframe", 2, 15), ("reframe", 11, 7), ("reframe", 15, 3), ("accuracy", 1, 0)]
)
def test_an_interrupted_run_ends_in_the_same_file(
    unbroken, painted, tmp_path, saves_often, monkeypatch, name, call, left
):
    out = tmp_path / "alexnet.safetensors"
    run = partial(train_alexnet, TINY, out=out, cache=painted, command="minircnn train alexnet", quiet=True)
    with monkeypatch.context() as patch:
        patch.setattr(pretraining, name, stop_at(call, getattr(pretraining, name)))
        with pytest.raises(KeyboardInterrupt):
            run()
    assert files(tmp_path) == ([tmp_path / "alexnet.checkpoint"] if left < 15 else [])
    saves_often.clear()
    assert run(resume=True) == unbroken[1]
    assert len(saves_often[0]) == left
    assert out.read_bytes() == unbroken[0].read_bytes()
    assert out.with_suffix(".json").read_bytes() == unbroken[0].with_suffix(".json").read_bytes()
    assert files(tmp_path) == [out.with_suffix(".json"), out]


@pytest.mark.parametrize("changes", [{"label_smoothing": 0.1}, {"stride": 16}, {"pictures": 47, "batch": 15}])
def test_an_unfinished_run_of_other_settings_is_not_taken_up(painted, tmp_path, saves_often, monkeypatch, changes):
    """Also of settings that change neither the network nor the number of iterations."""
    out = tmp_path / "alexnet.safetensors"
    with monkeypatch.context() as patch:
        patch.setattr(pretraining, "reframe", stop_at(6, reframe))
        with pytest.raises(KeyboardInterrupt):
            train_alexnet(TINY, out=out, cache=painted, quiet=True)
    name, value = next(iter(changes.items()))
    with pytest.raises(WeightsError, match=rf"alexnet\.checkpoint: begun with other settings \({name} .* → {value}"):
        train_alexnet(replace(TINY, **changes), out=out, cache=painted, resume=True, quiet=True)
    assert files(tmp_path) == [tmp_path / "alexnet.checkpoint"]


def test_learns_what_it_sees(painted, tmp_path, saves_often):
    """A few pictures, often: the loss falls far below guessing, and they are named."""
    settings = replace(TINY, pictures=16, epochs=60, learning_rate=5e-3, label_smoothing=0.0)
    train_alexnet(settings, out=tmp_path / "a.safetensors", cache=painted, quiet=True)
    losses = [losses["classification"] for losses in saves_often[0]]
    assert losses[0] == pytest.approx(np.log(len(toytown.SUBTYPES)), abs=0.5)
    assert np.mean(losses[-8:]) < 0.4 * np.mean(losses[:4])
    found = accuracy(load_alexnet(tmp_path / "a.safetensors"), *one_object_pictures("train", 16, painted))
    assert found.subtypes > 0.6, "by guessing 1 of 21"


def test_an_epoch_shows_every_picture_once(painted, tmp_path, monkeypatch):
    """In another order each time; what does not fill a batch waits for the next epoch."""
    seen = []

    def note(images):
        seen.append(images)
        return reframe(images)

    monkeypatch.setattr(pretraining, "reframe", note)
    train_alexnet(replace(TINY, epochs=2, pictures=50), out=tmp_path / "a.safetensors", cache=painted, quiet=True)
    assert [len(batch) for batch in seen] == [16] * 6
    first, second = torch.cat(seen[:3]), torch.cat(seen[3:])
    assert len(first.flatten(1).unique(dim=0)) == len(second.flatten(1).unique(dim=0)) == 48
    assert not torch.equal(first, second)
    assert first.max() <= 1 and first.min() >= 0 and first.max() > 0.9


def test_stride_16_and_label_smoothing(painted, tmp_path, saves_often):
    out, settings = tmp_path / "a.safetensors", replace(TINY, stride=16, epochs=1)
    train_alexnet(settings, out=out, cache=painted, quiet=True)
    smoother = replace(settings, label_smoothing=0.5)
    train_alexnet(smoother, out=tmp_path / "b.safetensors", cache=painted, quiet=True)
    assert load_alexnet(out).config == SMALL_STRIDE_16
    plain, smooth = (history[1]["classification"] for history in saves_often)
    assert plain != smooth


def test_the_saved_network_is_the_folded_one_and_the_measured_one(painted, tmp_path, monkeypatch):
    given = {}

    def noting(name):
        function = getattr(pretraining, name)
        monkeypatch.setattr(
            pretraining, name, lambda network, *args: given.update({name: network}) or function(network, *args)
        )

    noting("fold_batch_norm")
    noting("accuracy")
    train_alexnet(TINY, out=tmp_path / "a.safetensors", cache=painted, quiet=True)
    trained, found = given["fold_batch_norm"].eval(), load_alexnet(tmp_path / "a.safetensors")
    assert trained.config.batch_norm and trained.backbone.bn1.running_mean.abs().sum() > 0
    images = found.normalize(one_object_pictures("val", 24, painted)[0].float() / 255)
    with torch.no_grad():
        torch.testing.assert_close(found(images), trained(images), atol=2e-2, rtol=2e-2)
    for name, value in given["accuracy"].state_dict().items():
        assert torch.equal(value, found.state_dict()[name]), "measured as the file holds it, in half precision"


def test_another_ending_is_refused_before_hours_are_spent(tmp_path):
    with pytest.raises(ValueError, match=r"alexnet\.pth: weights are written as \.safetensors"):
        train_alexnet(TINY, out=tmp_path / "alexnet.pth", cache=Cache(tmp_path))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"stride": 4}, "stride must be 8 or 16, not 4"),
        ({"pictures": 15}, "a batch at most all pictures"),
        ({"pictures": 0, "batch": 0}, "pictures, epochs and batch must be at least 1"),
        ({"epochs": 0}, "must be at least 1"),
        ({"val_pictures": 0}, "must be at least 1"),
    ],
)
def test_settings_that_mean_nothing_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(TINY, **changes)


# ------------------------------------------------------------------------------------------------------ shipped weights


@pytest.mark.parametrize("path, config", [(SMALL_WEIGHTS, SMALL), (SMALL_STRIDE_16_WEIGHTS, SMALL_STRIDE_16)])
def test_the_weights_that_come_with_the_project_do_what_their_json_says(painted, path, config):
    """On 300 of the 2000 held-out pictures: within what so small a sample can differ."""
    network, about = load_alexnet(path), json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    assert network.config == config
    assert about["settings"] == asdict(PretrainingSettings(stride=config.total_stride))
    found, stated = accuracy(network, *one_object_pictures("val", 300, painted)), about["held_out_accuracy"]
    assert found.subtypes == pytest.approx(stated["subtypes"], abs=0.04)
    assert found.classes == pytest.approx(stated["classes"], abs=0.02)
