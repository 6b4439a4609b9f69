"""Checkpoints: one that is being written when the program ends, and those that are not of this run."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import Subset

from minircnn.datasets import open_data
from minircnn.training import KeptSamples, LoopSettings, fit
from minircnn.training.checkpoints import describe_data
from minircnn.weights import WeightsError
from tests.datasets.conftest import block, write_cell
from tests.training.conftest import SETTINGS, assert_same_state, interrupted, network, noisy


def test_an_interrupted_save_leaves_the_last_good_checkpoint(tmp_path, unbroken, monkeypatch):
    checkpoint, whole, saved = tmp_path / "run.checkpoint", Path.write_bytes, []

    def third_breaks(path, content):
        saved.append(path)
        if len(saved) == 3:
            whole(path, content[: len(content) // 2])
            raise KeyboardInterrupt
        return whole(path, content)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "write_bytes", third_breaks)
        fit(model := network(), noisy(model), SETTINGS, checkpoint=checkpoint, checkpoint_every=5, quiet=True)
    assert list(tmp_path.iterdir()) == [checkpoint]
    again = network()
    assert resume(checkpoint, again, about=None) == unbroken[0][10:]
    assert_same_state(again.state_dict(), unbroken[1])


@pytest.fixture
def checkpoint(tmp_path):
    """Of an unfinished run, ten iterations old."""
    path, model = tmp_path / "run.checkpoint", network()
    with pytest.raises(KeyboardInterrupt):
        fit(model, interrupted(noisy(model), 12), SETTINGS, checkpoint=path, checkpoint_every=10, about={"images": 7})
    return path


def resume(checkpoint, model=None, settings=SETTINGS, **options):
    model = model or network()
    options = {"about": {"images": 7}, **options}
    return fit(model, noisy(model), settings, checkpoint=checkpoint, resume=True, quiet=True, **options)


def refused(checkpoint, message, model=None, **options):
    """Is refused with this message; the model and the file stay as they were."""
    model, content = model or network(), checkpoint.read_bytes()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(WeightsError, match=message):
        resume(checkpoint, model, **options)
    assert_same_state(model.state_dict(), before)
    assert checkpoint.read_bytes() == content


@pytest.mark.parametrize("content", [0.0, 0.5, 0.99, None, network().state_dict(), {"settings": {}}], ids=repr)
def test_what_is_cut_short_or_something_else_is_named(checkpoint, content):
    whole = checkpoint.read_bytes()
    if isinstance(content, float):
        checkpoint.write_bytes(whole[: int(content * len(whole))])
    else:
        torch.save(content, checkpoint)
    refused(checkpoint, r"run\.checkpoint: (damaged, or of another|begun with other settings).*start without resume$")


@pytest.mark.parametrize(
    ("changes", "about", "message"),
    [
        ({"learning_rate": 0.5}, {"images": 7}, r"learning_rate 0\.02 → 0\.5"),
        ({"seed": 3, "clip": 1.0}, {"images": 7}, r"clip 5\.0 → 1\.0, seed 2 → 3"),
        ({}, {"images": 8}, "images 7 → 8"),
        ({}, {"images": 7, "stride": 8}, "stride None → 8"),
        ({}, None, "images 7 → None"),
    ],
)
def test_another_run_is_named(checkpoint, changes, about, message):
    message = rf"run\.checkpoint: begun with other settings \({message}\); give the same, or start without resume"
    refused(checkpoint, message, settings=replace(SETTINGS, **changes), about=about)
    assert len(resume(checkpoint)) == 14, "the right one goes on"


def test_another_model_is_named_and_stays_as_it_is(checkpoint):
    wider = nn.Sequential(nn.Linear(4, 9), nn.BatchNorm1d(9), nn.ReLU(), nn.Dropout(0.3), nn.Linear(9, 1))
    refused(checkpoint, r"damaged, or of another model \(.*0\.bias has shape \(8,\), the network needs \(9,\)", wider)
    refused(checkpoint, "damaged, or of another model", nn.Sequential(*network(), nn.Linear(1, 1)))
    model = network()
    groups = [{"params": [p], "lr_mult": 1.0} for p in model.parameters()]
    refused(checkpoint, "damaged, or of another model", model, groups=groups)


class Unread(list):
    """Pairs whose images nobody may read."""

    def __getitem__(self, index):
        raise AssertionError

    def load_target(self, index):
        return super().__getitem__(index)[1]


def test_other_annotations_are_other_data_and_no_image_is_read():
    def pairs(right=9.0, label=1, iscrowd=False, pixel=True):
        masks = torch.ones(1, 20, 20, dtype=torch.bool)
        masks[0, 3, 3] = pixel
        target = {"boxes": torch.tensor([[0.0, 0, right, 9]]), "labels": torch.tensor([label]), "masks": masks}
        return [(torch.zeros(3, 20, 20), {**target, "iscrowd": torch.tensor([iscrowd]), "image_id": i}) for i in (3, 4)]

    classes, proposals = ["background", "a"], [torch.tensor([[0.0, 0, 5, 5]])] * 2
    other = ({"right": 8.0}, {"label": 2}, {"iscrowd": True}, {"pixel": False})
    made = [describe_data(pairs(**changes), classes, proposals) for changes in ({}, *other)]
    made.append(describe_data(pairs()[::-1], classes, proposals))
    made.append(describe_data(pairs(), classes, [proposals[0], proposals[1] + 1]))
    made.append(describe_data(pairs(), ["background", "b"], proposals))
    assert all(one != another for place, one in enumerate(made) for another in made[:place])
    assert [name for name in made[0] if made[0][name] != made[1][name]] == ["annotations"]
    unread = Subset(Unread(pairs()), [0, 1])
    assert [describe_data(one, classes, proposals) for one in (unread, KeptSamples(unread, 2))] == made[:1] * 2


def test_data_sets_tell_by_their_files_what_they_hold(tmp_path):
    """A pixel of a mask file, or a box of the annotations, changes what a run learns from."""
    for name in ("a", "b"):
        write_cell(tmp_path, name, block((0, 5), (0, 8)))
    before, again = (describe_data(open_data("nuclei", tmp_path), ["background", "nucleus"]) for _ in range(2))
    Image.fromarray(block((0, 5), (0, 9))).save(tmp_path / "b" / "masks" / "a.png")
    assert before == again != describe_data(open_data("nuclei", tmp_path), ["background", "nucleus"])


@pytest.mark.parametrize(
    ("totals", "better"),
    [
        ([1.0, 0.9], True),
        ([1.0, 1.0], False),
        ([1.0], False),
        ([1.0] * 2 + [0.5] * 17 + [3.0], False),
        ([1.0] * 2 + [9.0] * 16 + [0.5, 1.4], True),
    ],
)
def test_a_training_that_ended_no_better_than_it_began_replaces_nothing(tmp_path, totals, better):
    """Of twenty iterations the last two, as a mean, against the first two."""
    model, out = nn.Linear(1, 1), tmp_path / "w.safetensors"

    def train(**more):
        losses = lambda iteration: {"loss": model.weight.sum() * 0 + totals[iteration]}  # noqa: E731
        more |= {"checkpoint": tmp_path / "w.checkpoint", "quiet": True, "replaces": out}
        return fit(model, losses, LoopSettings(len(totals), 0.1), **more)

    assert len(train()) == len(totals), "there is nothing to replace"
    out.write_bytes(b"good")
    if better:
        assert len(train()) == len(totals)
        return
    for resume in (False, True):  # of the whole run, not only of what was left to do
        with pytest.raises(WeightsError, match=r"w\.safetensors: kept, because the new training ended no better than"):
            train(resume=resume)
    assert out.read_bytes() == b"good"
    out.unlink()
    assert train(resume=True) == [], "what it learned is not lost"
