"""Checkpoints: one that is being written when the program ends, and those that are not of this run."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import Subset

from minircnn.datasets import CocoDataset, open_data
from minircnn.training import LoopSettings, fit
from minircnn.training.checkpoints import describe_data
from minircnn.weights import WeightsError
from tests.training.conftest import SETTINGS, assert_same_state, interrupted, network, noisy


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


def test_however_long_the_settings_of_another_run_are_the_line_is_short(checkpoint):
    torch.save({"settings": {f"{number}": "x" * 10**4 for number in range(100)}}, checkpoint)
    with pytest.raises(WeightsError, match=r"begun with other settings \(0 x+ → None, .* more\)") as caught:
        resume(checkpoint)
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize("keep", [0, 0.5, 0.99])
def test_a_checkpoint_that_is_cut_short_is_named(checkpoint, keep):
    content = checkpoint.read_bytes()
    checkpoint.write_bytes(content[: int(keep * len(content))])
    refused(checkpoint, r"run\.checkpoint: damaged, or of another model \(.*\); start without resume$")


@pytest.mark.parametrize("content", [None, network().state_dict(), {"settings": None}, {"settings": {}}], ids=repr)
def test_a_file_of_something_else_is_named(checkpoint, content):
    torch.save(content, checkpoint)
    refused(checkpoint, r"run\.checkpoint: (damaged, or of another|begun with other settings).*start without resume")


def changed(checkpoint, change):
    state = torch.load(checkpoint, weights_only=True)
    change(state)
    torch.save(state, checkpoint)


def other_moments(state):
    """AdamW's of another shape, which PyTorch would take."""
    state["optimizer"]["state"][0]["exp_avg"] = torch.zeros(1, 4)


@pytest.mark.parametrize(
    "change",
    [
        *(lambda state, value=value: state.update(iteration=value) for value in (-3, 10**9, 9, "10")),
        *(lambda state, part=part: state.pop(part) for part in ("iteration", "model", "scaler", "fingerprint")),
        other_moments,
        lambda state: state["optimizer"]["state"][0].update(step=torch.tensor(3.0)),
        lambda state: state["model"]["0.weight"].mul_(2),
        lambda state: state["totals"].pop(),
        lambda state: state["totals"].append(torch.zeros(1).expand(10**6, 10**6)),
    ],
)
def test_what_is_not_as_it_was_written_is_refused(checkpoint, change):
    changed(checkpoint, change)
    refused(checkpoint, r"run\.checkpoint: damaged, or of another model \(ValueError\(.*; start without resume$")


def test_a_copy_of_the_same_content_is_taken(checkpoint):
    changed(checkpoint, lambda state: None)
    assert len(resume(checkpoint)) == 14


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
    longer = nn.Sequential(*network(), nn.Linear(1, 1))
    refused(checkpoint, "damaged, or of another model", longer)
    model = network()
    groups = [{"params": [p], "lr_mult": 1.0} for p in model.parameters()]
    refused(checkpoint, "damaged, or of another model", model, groups=groups)


# ---------------------------------------------------------------------------------------------------------- other data


def describe(folder, content, classes=None):
    """Of a data set with that JSON file; the images are empty files, which nobody could read."""
    for image in content["images"]:
        (folder / image["file_name"]).touch()
    (folder / "a.json").write_text(json.dumps(content))
    data = CocoDataset(folder, folder / "a.json")
    data = data.only(classes) if classes else data
    return describe_data(Subset(data, range(2)), data.classes)


def content():
    box = {"bbox": [1, 2, 10, 12], "area": 120, "iscrowd": 0, "segmentation": [[1, 2, 11, 2, 11, 14, 1, 14]]}
    return {
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": 40, "height": 30} for i in (1, 2, 3)],
        "annotations": [{**box, "id": i, "image_id": i, "category_id": 1} for i in (1, 2, 3)],
        "categories": [{"id": 1, "name": "pen"}, {"id": 2, "name": "cup"}],
    }


CROWD = {"size": [30, 40], "counts": [1200]}


@pytest.mark.parametrize(
    "change, names",
    [
        (lambda all_: all_["annotations"][1].update(bbox=[1, 2, 10, 11]), {"annotations"}),
        (lambda all_: all_["annotations"][1].update(iscrowd=1, segmentation=CROWD), {"annotations"}),
        (lambda all_: all_["annotations"][1]["segmentation"][0].extend([5, 13]), {"annotations"}),
        (lambda all_: all_["annotations"][1].update(image_id=1), {"annotations"}),
        (lambda all_: all_["images"][1].update(file_name="other.jpg"), {"annotations"}),
        (lambda all_: all_["categories"][1].update(name="mug"), {"classes"}),
        (lambda all_: all_["images"].reverse(), {"annotations"}),
        (lambda all_: all_["annotations"][2].update(bbox=[1, 2, 10, 11]), set()),  # of the third image, not chosen
        (lambda all_: all_.update(info={"year": 2020}), set()),
    ],
)
def test_other_annotations_are_other_data_and_no_image_is_read(tmp_path, change, names):
    before, other = describe(tmp_path, content()), content()
    change(other)
    after = describe(tmp_path, other)
    assert {name for name in before if before[name] != after[name]} == names
    few = describe(tmp_path, content(), classes=["pen"])
    assert few["classes"] == ("background", "pen") and few["annotations"] == before["annotations"]


def test_pairs_in_memory_and_proposals_are_told_apart():
    def pairs(right, label=1, iscrowd=False):
        target = {"boxes": torch.tensor([[0.0, 0, right, 9]]), "labels": torch.tensor([label]), "image_id": 3}
        return [(torch.zeros(3, 20, 20), {**target, "iscrowd": torch.tensor([iscrowd])})]

    classes, proposals = ["background", "a"], [torch.tensor([[0.0, 0, 5, 5]])]
    made = [
        describe_data(pairs(9.0), classes, proposals),
        describe_data(pairs(8.0), classes, proposals),
        describe_data(pairs(9.0, label=2), classes, proposals),
        describe_data(pairs(9.0, iscrowd=True), classes, proposals),
        describe_data(pairs(9.0), classes, [proposals[0] + 1]),
        describe_data(pairs(9.0), ["background", "b"], proposals),
    ]
    assert all(one != other for place, one in enumerate(made) for other in made[:place])
    assert made[0] == describe_data(pairs(9.0), classes, proposals)


def test_mask_files_count_by_their_content(real_data, tmp_path):
    shutil.copytree(real_data / "nuclei" / "stage1_train", tmp_path / "train")
    one, two = (open_data("nuclei", root) for root in (real_data / "nuclei" / "stage1_train", tmp_path / "train"))
    assert describe_data(one, one.classes) == describe_data(two, two.classes), "wherever they lie"
    next((tmp_path / "train" / two.records[3] / "masks").iterdir()).unlink()
    assert describe_data(one, one.classes)["annotations"] != describe_data(two, two.classes)["annotations"]


# ------------------------------------------------------------------------------------------- what is not to be replaced


@pytest.mark.parametrize(
    "totals, better",
    [
        ([1.0, 0.9], True),
        ([0.9, 1.0], False),
        ([1.0, 1.0], False),
        ([1.0], False),
        ([1.0] * 2 + [0.5] * 17 + [3.0], False),
        ([1.0] * 2 + [9.0] * 16 + [0.5, 1.4], True),
    ],
)
def test_a_training_that_ended_no_better_than_it_began_replaces_nothing(tmp_path, totals, better):
    """Of twenty iterations the last two, as a mean, against the first two."""
    model, out, checkpoint = nn.Linear(1, 1), tmp_path / "w.safetensors", tmp_path / "w.checkpoint"
    options = {"checkpoint": checkpoint, "quiet": True}

    def train(**more):
        losses = lambda iteration: {"loss": model.weight.sum() * 0 + totals[iteration]}  # noqa: E731
        return fit(model, losses, LoopSettings(len(totals), 0.1), **options, **more)

    assert len(train(replaces=out)) == len(totals), "there is nothing to replace"
    out.write_bytes(b"good")
    if better:
        assert len(train(replaces=out)) == len(totals)
        return
    with pytest.raises(WeightsError, match=r"w\.safetensors: kept, because the new training ended no better than"):
        train(replaces=out)
    with pytest.raises(WeightsError, match="kept"):  # of the whole run, not only of what was left to do
        train(replaces=out, resume=True)
    assert out.read_bytes() == b"good"
    out.unlink()
    assert train(replaces=out, resume=True) == [], "what it learned is not lost"
