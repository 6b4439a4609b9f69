"""``minircnn train`` against the same trainings without the command line, runs that go on, and what is refused."""

import csv
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from sklearn.metrics import roc_auc_score
from typer.main import get_command

from minircnn import training
from minircnn.alexnet import ALEXNET_2012, SMALL, AlexNet, load_alexnet, load_alexnet_2012
from minircnn.cache import Cache
from minircnn.cli import app
from minircnn.cli.data import DataOptions
from minircnn.cli.options import INTERRUPTED
from minircnn.cli.train import SETTINGS
from minircnn.datasets import ToyTown
from minircnn.datasets.named import DATA_NAMES, open_data
from minircnn.evaluation import evaluate
from minircnn.rcnn import RCNNConfig, far_from_class
from minircnn.selective_search import selective_search
from minircnn.shipped import WEIGHTS_FOLDER
from minircnn.training import loop
from minircnn.training.checkpoints import Checkpoint
from tests.cli.conftest import LOAD, ON_PROPOSALS, changed, directly, own
from tests.datasets import conftest as small
from tests.training.test_parallel import needs_torchrun

JOINT = ("fast_rcnn", "faster_rcnn", "mask_rcnn")
SHORT = ("--iterations", 1, "--images-per-batch", 2)


def trained_directly(name, network, samples, classes, settings, config=None):
    """The same training without the command line."""
    train, more = getattr(training, f"train_{name}"), {"quiet": True}
    proposals = [[selective_search(image) for image, _ in samples]] if name in ON_PROPOSALS else []
    if name == "rcnn":
        return train(network, samples, *proposals, classes, settings, config=config, report=lambda _: None, **more)
    return train(network, samples, *proposals, classes, settings, **more)[0]


def assert_same(path, name, expected):
    """The file holds half precision."""
    found = LOAD[name](path).state_dict()
    for key, value in expected.state_dict().items():
        torch.testing.assert_close(found.pop(key), value.half().float() if name != "rcnn" else value, msg=key)
    assert not found


@pytest.mark.parametrize("name", LOAD)
def test_defaults_and_settings_are_those_of_the_training(name):
    """The help states a default for each option that is a setting; where they differ, one for each detector."""
    settings = getattr(training, SETTINGS[name])()
    options = {option.name: option for option in get_command(app).commands["train"].params}
    shared = {key: options[key] for key in vars(settings) if key in options}
    assert set(vars(settings)) - set(shared) <= {"backbone_lr_mult", "color_jitter", "scale_jitter"}
    for key, option in shared.items():
        stated = str(option.show_default).split(", ")
        assert option.is_flag or stated[min(list(LOAD).index(name), len(stated) - 1)] == str(getattr(settings, key))
    assert all(data in options["data"].help for data in DATA_NAMES)


@pytest.mark.parametrize("name", LOAD)
def test_the_file_is_that_of_the_same_training_and_its_command_makes_it_again(
    call, folder, network, tmp_path, monkeypatch, name
):
    for part in ("images", "instances.json"):
        (shutil.copytree if part == "images" else shutil.copy)(folder / part, tmp_path / part)
    shutil.copy(network, tmp_path), shutil.copy(network.with_suffix(".json"), tmp_path)
    monkeypatch.chdir(tmp_path)
    more = {"max_proposals": 9} if name in ON_PROPOSALS else {}
    more |= {"min_size": 96, "schedule": "step"} if name in JOINT else {"learning_rate": 0.002}
    words = [word for key, value in more.items() for word in (f"--{key.replace('_', '-')}", value)]
    options = ("--network", "small.safetensors", "--iterations", 1, "--seed", 4, *words, "--out", "x.safetensors")
    result = call("train", name, *own(Path()), "--classes", "cat", "--classes", "person", *options)
    assert result.exit_code == 0, result.output
    data = open_data("coco", "images", "instances.json", split="train", classes=["cat", "person"])
    samples = [data[index] for index in range(len(data))]
    settings = getattr(training, SETTINGS[name])(iterations=1, seed=4, **more)
    start = load_alexnet("small.safetensors")
    expected = trained_directly(name, start, samples, ["background", "cat", "person"], settings)
    assert_same("x.safetensors", name, expected)
    about, weights = json.loads(Path("x.json").read_text()), Path("x.safetensors").read_bytes()
    assert about["classes"] == ["background", "cat", "person"] and about["settings"] == vars(settings)
    checksum = json.loads(Path("small.json").read_text())["sha256"]
    assert about["pretrained"] == {"file": "small.safetensors", "sha256": checksum}
    where = "--data coco --root images --annotations instances.json --classes cat,person --images 8 "
    assert about["command"].startswith(f"minircnn train {name} {where}")
    assert not list(Path().glob("*.checkpoint"))
    Path("x.safetensors").unlink()
    assert call(*shlex.split(about["command"])[1:]).exit_code == 0
    assert Path("x.safetensors").read_bytes() == weights
    advice = result.stdout.splitlines()[-1].split("`")[1]
    assert "--split test" in advice
    measured = call(*shlex.split(advice)[1:], "--images", 1)
    assert measured.exit_code == 0 and " on 1 images, coco's test split" in measured.stdout, measured.output
    assert "not measured" not in measured.stdout, "these are its classes"


@pytest.mark.parametrize("name", ["fast_rcnn", "mask_rcnn"])
def test_a_log_with_measurements_from_scratch(call, tmp_path, monkeypatch, name):
    monkeypatch.setattr("minircnn.cli.train.VALIDATION_IMAGES", 2)
    monkeypatch.chdir(tmp_path)
    few = ("--max-proposals", 40) if name in ON_PROPOSALS else ()
    options = ("--images", 4, "--iterations", 2, "--min-size", 96, "--from-scratch", "--seed", 7, *few)
    files = ("--out", "x.safetensors", "--csv", "x.csv", "--evaluate-every", 2)
    result = call("train", name, *options, *files)
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in Path().iterdir()) == ["x.csv", "x.json", "x.safetensors"]
    about = json.loads(Path("x.json").read_text())
    assert about["pretrained"] == {"file": "none: random weights"} and about["command"].endswith(" --from-scratch")
    data, val = ToyTown("train"), ToyTown("val")
    torch.manual_seed(7)
    settings = getattr(training, SETTINGS[name])(
        iterations=2, min_size=96, seed=7, **({"max_proposals": 40} if few else {})
    )
    samples = [data[index] for index in range(4)]
    expected = trained_directly(name, AlexNet(SMALL, 1), samples, data.classes, settings)
    assert_same("x.safetensors", name, expected)
    rows = list(csv.DictReader(Path("x.csv").read_text().splitlines()))
    assert [row["iteration"] for row in rows] == ["1", "2"] and [bool(row["val_ap50"]) for row in rows] == [False, True]
    # What was measured before the weights were rounded to half precision.
    found = [directly(name, Path("x.safetensors"), val[index][0], proposals=40) for index in range(2)]
    found = [{key: value for key, value in one.items() if key != "masks"} for one in found]
    reached = evaluate(found, [val[index][1] for index in range(2)], classes=val.classes)
    assert float(rows[1]["val_ap50"]) == pytest.approx(reached.ap50, abs=0.02)
    assert ("val_mask_ap50" in rows[1]) == (name == "mask_rcnn")


# --------------------------------------------------------------------------------------------------------------- R-CNN


@pytest.fixture(scope="module")
def convolutions(tmp_path_factory):
    """A file as that of the 2012 network: convolutions alone, and the mean color."""
    torch.manual_seed(0)
    backbone = AlexNet(ALEXNET_2012, 1).backbone
    path = tmp_path_factory.mktemp("convolutions") / "conv.npz"
    arrays = {name: value.detach().half().numpy() for name, value in backbone.named_parameters()}
    np.savez(path, mean=np.array([100.0, 110.0, 120.0], np.float32), **arrays)
    return path


def test_convolutions_of_2012_give_pool5_without_fine_tuning(call, folder, convolutions, tmp_path):
    """And random ones in the same network, for a comparison that differs in nothing but the weights."""
    few = ("--images", 3, "--classes", "person,tree", "--max-proposals", 6, "--seed", 3)
    command = ("train", "rcnn", *own(folder), *few, "--weights", convolutions, "--out")
    result = call(*command, tmp_path / "x.safetensors")
    assert result.exit_code == 0, result.output
    assert "1 of 3" not in result.stdout and "3 of 3: box regression" in result.stdout
    data = open_data("coco", folder / "images", folder / "instances.json", split="train", classes=["person", "tree"])
    settings = training.RCNNTrainingSettings(iterations=0, max_proposals=6, seed=3)
    learned, config = load_alexnet_2012(convolutions), RCNNConfig(svm_layer="pool5")
    samples = [data[index] for index in range(3)]
    expected = trained_directly("rcnn", learned, samples, data.classes, settings, config)
    assert_same(tmp_path / "x.safetensors", "rcnn", expected)
    loaded = LOAD["rcnn"](tmp_path / "x.safetensors")
    assert loaded.svm.shape == (2, 9217) and loaded.network.config.mean[0] == pytest.approx(100 / 255)
    about = json.loads((tmp_path / "x.json").read_text())
    assert about["settings"] == vars(settings) and about["command"].endswith(
        f"--network {convolutions} --features pool5"
    )
    assert call(*command, tmp_path / "y.safetensors", "--from-scratch").exit_code == 0
    found, about = LOAD["rcnn"](tmp_path / "y.safetensors").network, json.loads((tmp_path / "y.json").read_text())
    torch.manual_seed(3)
    for name, value in AlexNet(learned.config, 1).backbone.state_dict().items():
        assert torch.equal(found.backbone.state_dict()[name], value.half().float()), name
    assert found.config.mean == learned.config.mean
    assert about["pretrained"] == {"file": "none: random weights", "network_of": "conv.npz"}


def test_torchvisions_weights_in_the_same_place(call, folder, tmp_path):
    torch.manual_seed(0)
    reference, file = torchvision.models.alexnet(weights=None), tmp_path / "alexnet.pth"
    torch.save(reference.state_dict(), file)
    few = ("--images", 3, "--classes", "person", "--max-proposals", 2, "--iterations", 0, "--features", "pool5")
    result = call("train", "rcnn", *own(folder), *few, "--weights", file, "--out", tmp_path / "x.safetensors")
    file.unlink()  # 240 MB
    assert result.exit_code == 0, result.output
    network = LOAD["rcnn"](tmp_path / "x.safetensors").network
    assert torch.equal(network.backbone.conv4.weight, reference.features[8].weight.half().float())
    assert network.config.input_size == 224 and network.config.hidden == 0


def test_proposals_and_features_stay_in_the_cache(call, network, tmp_path, monkeypatch):
    monkeypatch.setenv("MINIRCNN_CACHE", str(tmp_path / "fresh"))
    few = ("--images", 6, "--max-proposals", 20, "--iterations", 0)
    before = None
    for name in "ab":
        result = call("train", "rcnn", *few, "--network", network, "--out", tmp_path / f"{name}.safetensors")
        assert result.exit_code == 0, result.output
        stored = {path: path.stat().st_mtime_ns for path in Cache().folder.rglob("*.safetensors")}
        assert sum(path.parts[-3] == "proposals" for path in stored) == 6
        assert sum(path.parts[-3] == "features" for path in stored) >= 12
        assert name == "a" or stored == before
        before = stored
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_real_photographs_and_the_convolutions_of_2012(call, real_data, tmp_path):
    """From a few images of COCO the SVM learns to rank people whom it has not seen above what is none."""
    where = ("--root", real_data / "coco-mini" / "images", "--annotations", real_data / "coco-mini" / "instances.json")
    few = ("--classes", "person", "--images", 8, "--max-proposals", 25)
    weights, out = real_data / "alexnet-imagenet" / "alexnet_conv.npz", tmp_path / "x.safetensors"
    result = call("train", "rcnn", "--data", "coco", *where, *few, "--weights", weights, "--out", out)
    assert result.exit_code == 0, result.output
    data = open_data("coco", where[1], where[3], split="test", classes=["person"], masks=False)
    model = LOAD["rcnn"](out)
    margins, people = [], []
    for index in range(12):
        image, target = data[index]
        whole = target["boxes"][~target["iscrowd"]][:4]
        far = torch.tensor([[20.0, 20.0, 120.0, 200.0], [300.0, 100.0, 420.0, 330.0], [150.0, 10.0, 350.0, 90.0]])
        far = far[far_from_class(far, target, 2, 0.3)[:, 0]]
        boxes = torch.cat([whole, far])
        margins.append(model.scores(model.features(image, boxes, ["pool5"])["pool5"])[:, 1])
        people += [1] * len(whole) + [0] * len(far)
    assert 10 < sum(people) < len(people) - 10
    assert roc_auc_score(people, torch.cat(margins)) > 0.75  # area under the ROC curve


# ------------------------------------------------------------------------------------------------------ runs that go on


@pytest.fixture
def interrupted(monkeypatch):
    """After each iteration the state is kept, and the run ends as by Ctrl-C."""
    monkeypatch.setattr(loop.fit, "__kwdefaults__", {**loop.fit.__kwdefaults__, "checkpoint_every": 1})
    save = Checkpoint.save

    def save_and_stop(self, iteration):
        save(self, iteration)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "save", save_and_stop)
        yield patch


@pytest.mark.parametrize("name", ["rcnn", "mask_rcnn"])
def test_an_unfinished_run_does_not_go_on_with_other_data(call, folder, tmp_path, interrupted, name):
    """With as many images, and in the same network."""
    few = ("--max-proposals", 20) if name == "rcnn" else ("--min-size", 64)
    options = ("--from-scratch", "--iterations", 2, "--out", tmp_path / "x.safetensors", *few)
    assert call("train", name, *own(folder), *options).exit_code == INTERRUPTED
    moved = changed(folder, f"moved_{name}.json", lambda content: content["annotations"][0].update(bbox=[1, 2, 9, 9]))
    for data, names in ((moved, "annotations"), ((*own(folder), "--classes", "person,car"), "classes")):
        result = call("train", name, *data, *options, "--resume")
        (line,) = [line for line in result.stderr.splitlines() if "Error" in line]
        assert result.exit_code == 1 and "x.checkpoint: begun with other settings (" in line and f"{names} " in line
    assert call("train", name, *own(folder), *options, "--resume").exit_code == INTERRUPTED, "it goes on"


def test_an_interrupted_run_is_resumed(call, tmp_path, interrupted):
    """Its losses are in the log only once, and the file is that of an unbroken run."""
    options = ("train", "fast_rcnn", "--images", 4, *SHORT, "--iterations", 3, "--max-proposals", 40, "--from-scratch")

    def files(name):
        (tmp_path / name).mkdir(exist_ok=True)
        return "--out", tmp_path / name / "x.safetensors", "--csv", tmp_path / name / "x.csv"

    result = call(*options, *files("broken"))
    assert result.stderr == "Stopped. With --resume the same command goes on from there.\n"
    assert sorted(path.name for path in (tmp_path / "broken").iterdir()) == ["x.checkpoint", "x.csv"]
    interrupted.undo()
    assert call(*options, *files("whole")).exit_code == 0
    result = call(*options, *files("broken"), "--resume")
    assert (result.exit_code, result.stdout.count("unfinished")) == (0, 0)
    for name in ("x.safetensors", "x.csv"):
        assert (tmp_path / "broken" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not list(tmp_path.rglob("*.checkpoint"))
    unfinished = tmp_path / "broken" / "x.checkpoint"
    result = call(*options, *files("broken"), "--resume")
    assert result.stdout.startswith(f"no unfinished run at {unfinished}: beginning at the beginning\n")


@pytest.mark.parametrize("name", ["rcnn", "faster_rcnn"])
def test_a_damaged_unfinished_run(call, tmp_path, name):
    out, unfinished = tmp_path / "x.safetensors", tmp_path / "x.checkpoint"
    unfinished.write_bytes(b"no checkpoint")
    few = ("--max-proposals", 20) if name == "rcnn" else ("--min-size", 64)
    command = ("train", name, "--images", 6, *few, "--iterations", 1, "--from-scratch", "--out", out)
    result = call(*command, "--resume")
    assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)
    assert result.stderr.startswith(f"Error: {unfinished}: damaged")
    result = call(*command)
    assert result.exit_code == 0 and f"{unfinished}: the state of an unfinished run will be replaced" in result.stdout
    assert not unfinished.exists()


def test_good_weights_are_not_replaced_by_numbers_that_are_not_finite(call, folder, tmp_path):
    """A learning rate of 1e5 makes weights that half precision cannot hold, although every loss is finite."""
    options = ("--from-scratch", "--iterations", 1, "--images-per-batch", 1, "--min-size", 64, "--learning-rate", 1e5)
    out = tmp_path / "x.safetensors"
    for before in ([], [b"good", b'{"sha256": "of good"}']):  # a new file, and one that is there
        for content, ending in zip(before, (".safetensors", ".json"), strict=False):
            out.with_suffix(ending).write_bytes(content)
        result = call("train", "faster_rcnn", *own(folder), *options, "--out", out)
        (line,) = [line for line in result.stderr.splitlines() if "Error" in line]
        assert result.exit_code == 1 and f"{out}: " in line and "lower learning rate" in line
        assert ("not written" in line) if not before else ("kept" in line)
        assert [path.read_bytes() for path in (out, out.with_suffix(".json")) if path.exists()] == before


@needs_torchrun
def test_two_processes_write_one_file(cache, tmp_path):
    two = tmp_path / "two.safetensors"
    few = ("--images", 4, *SHORT, "--max-proposals", 20, "--min-size", 64, "--from-scratch", "--out", two, "--resume")
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    with subprocess.Popen(
        [sys.executable, *torchrun, "-m", "minircnn", "train", "fast_rcnn", *map(str, few)],
        env={**os.environ, "MINIRCNN_CACHE": str(cache), "OMP_NUM_THREADS": "1", "LOKY_MAX_CPU_COUNT": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            output, errors = process.communicate(timeout=180)
        finally:
            process.terminate()  # if it does not stop: torchrun then ends its processes
    assert process.returncode == 0, errors
    assert output.splitlines() == [
        f"no unfinished run at {tmp_path / 'two.checkpoint'}: beginning at the beginning",
        "proposals of 4 images, as far as they are not in the cache",
        f"written to {two}; `minircnn evaluate fast_rcnn --weights {two}` tells how good it is",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["two.json", "two.safetensors"]
    assert all(value.isfinite().all() for value in LOAD["fast_rcnn"](two).state_dict().values())


# ------------------------------------------------------------------------------------------------- data, and the advice


@pytest.mark.parametrize(
    ("options", "measured_on", "remark"),
    [
        (("coco", None), "test", ""),
        (("coco", "train"), "test", ""),
        (("coco", "all"), "all", ", on the images that it has learned from"),
        (("voc", None), "test", ""),
        (("voc", "train"), "val", ""),
    ],
)
def test_the_advice_measures_on_unseen_images_if_there_are_any(options, measured_on, remark):
    name, split = options
    annotations = Path("a.json") if name == "coco" else None
    wanted = DataOptions(name, Path("x y"), annotations, split, ["cat, person"], drop_invalid=True)
    said = wanted.advice("rcnn", Path("w.safetensors"))
    _, command, rest = said.split("`")
    assert rest == f" tells how good it is{remark}"
    words = shlex.split(command)
    assert words[:3] == ["minircnn", "evaluate", "rcnn"]
    words.remove("--drop-invalid")
    given = dict(zip(words[3::2], words[4::2], strict=True))
    given.pop("--annotations", None)
    assert given == {
        "--data": name,
        "--root": "x y",
        "--split": measured_on,
        "--classes": "cat,person",
        "--weights": "w.safetensors",
    }
    assert (
        DataOptions().advice("rcnn", WEIGHTS_FOLDER / "rcnn.safetensors").startswith("`minircnn evaluate rcnn` tells")
    )


def only_crowds(content):
    for one in content["annotations"]:
        one["iscrowd"] = 1


def test_nothing_is_learned_without_objects(call, folder, tmp_path):
    out = tmp_path / "x.safetensors"
    options = ("--from-scratch", "--iterations", 1, "--classes", "cat", "--out", out)
    for name in ("rcnn", "mask_rcnn"):
        result = call("train", name, *changed(folder, "crowds.json", only_crowds), *options)
        assert (result.exit_code, result.stdout, len(result.stderr.splitlines())) == (1, "", 1)
        assert "Error: coco's train split, classes cat: only crowds (" in result.stderr
        assert "in its 8 images, nothing to learn from" in result.stderr
    assert not list(tmp_path.iterdir())
    Image.new("RGB", (10, 8)).save(tmp_path / "a.png")
    content = {"images": [{"id": 1, "file_name": "a.png", "width": 10, "height": 8}], "annotations": []}
    (tmp_path / "a.json").write_text(json.dumps({**content, "categories": [{"id": 1, "name": "cat"}]}))
    small.write_voc(tmp_path / "voc", {"a": small.xml(small.an_object(difficult="1"))})
    small.write_people(tmp_path / "people", {"a": np.zeros((14, 22), dtype=int)})
    small.write_cell(tmp_path / "cells", "x")
    for options, words in (
        (DataOptions("coco", tmp_path, tmp_path / "a.json", "all"), "no object in its 1 images"),
        (DataOptions("voc", tmp_path / "voc"), r"only crowds \(1\) in its 1 images"),
        (DataOptions("pennfudan", tmp_path / "people", split="all"), "no object in its 1 images"),
        (DataOptions("nuclei", tmp_path / "cells", split="all"), "no object in its 1 images"),
    ):
        with pytest.raises(ValueError, match=words):
            options.to_learn_from(None, masks=False)


def one_defect(content):
    """Of the first and of the last image, which is for testing."""
    for image in (content["images"][0], content["images"][-1]):
        first = next(one for one in content["annotations"] if one["image_id"] == image["id"])
        first["bbox"] = [0, 0, 5, -1]


def test_what_is_invalid_is_left_out_if_asked_and_counted(call, folder, files, tmp_path, capsys):
    options = changed(folder, "defects.json", one_defect)
    train = ("train", "faster_rcnn", *options, *SHORT, "--from-scratch", "--out", tmp_path / "x.safetensors")
    for command in (train, ("evaluate", "fast_rcnn", *options, "--weights", files["fast_rcnn"], "--max-proposals", 5)):
        result = call(*command)
        assert (result.exit_code, result.stdout) == (1, "") and "--drop-invalid" in result.stderr
        result = call(*command, "--drop-invalid")
        assert result.exit_code == 0, result.output
        assert "2 annotations left out\n" in result.stdout and result.stdout.count("has no height") == 2
    assert "--drop-invalid" in json.loads((tmp_path / "x.json").read_text())["command"]
    for name in ("x", "yy"):  # masks that are files, which are opened one by one
        small.write_cell(tmp_path, name, small.block((2, 5), (3, 9)), small.block((0, 0), (0, 0)))
    DataOptions("nuclei", tmp_path, split="all", drop_invalid=True).to_learn_from(1, masks=False)
    assert capsys.readouterr().out.startswith("1 annotation left out\n  mask b.png: it is empty")


def test_what_is_odd_is_said_before_a_training(folder, tmp_path, capsys):
    """An image that a tag turns, a file under two ids, a second category of the same name."""
    (tmp_path / "images").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 3

    def odd(content):
        content["categories"].append({**content["categories"][0], "id": 99})
        content["images"] = [content["images"][0], {**content["images"][0], "id": 98}]
        first = content["images"][0]
        content["annotations"] = [one for one in content["annotations"] if one["image_id"] == first["id"]]
        with Image.open(folder / "images" / first["file_name"]) as file:
            file.save(tmp_path / "images" / first["file_name"], exif=exif)

    _, name, _, _, _, annotations = changed(folder, "odd.json", odd)
    DataOptions(name, tmp_path / "images", annotations, "all").to_learn_from(None, masks=False)
    lines = capsys.readouterr().out.splitlines()
    for line, words in zip(lines, ("the same file", "same name", "orientation 3", "orientation 3"), strict=True):
        assert words in line


# ------------------------------------------------------------------------------------------------------ what is refused


def other_size(content):
    content["images"][7]["width"] += 1


@pytest.mark.parametrize(
    ("name", "arguments", "status", "message"),
    [
        ("faster_rcnn", ["--data", "cocoa"], 2, "--data: there is no 'cocoa' (did you mean 'coco'?); there are toy"),
        ("faster_rcnn", ["--data", "coco"], 2, "Error: --root: coco needs one: the folder of the "),
        ("faster_rcnn", ["--data", "coco", "--root", "."], 2, "Error: --annotations: coco needs the JSON file"),
        ("faster_rcnn", ["--root", "."], 2, "Error: --root .: toytown comes with the project; leave it out"),
        ("faster_rcnn", ["--split", "val"], 2, "Error: --split val: this part of Toy Town is to measure with"),
        ("faster_rcnn", ["OWN", "--split", "val"], 2, "--split: there is no 'val' here; choose 'train' or 'test'"),
        ("faster_rcnn", ["OWN", "--classes", "person,preson"], 2, "there is no 'preson' (did you mean 'person'?)"),
        ("faster_rcnn", ["OWN", "--images", 9], 2, "Error: --images 9: coco's train split has only 8"),
        ("faster_rcnn", ["OWN", "--evaluate-every", 1], 2, "--evaluate-every: coco has no images that are neither for"),
        ("faster_rcnn", ["SIZES"], 1, "boxes may not fit"),
        ("fast_rcnn", ["--images", 1001], 2, "Error: --images 1001: Toy Town's train split has only 1000"),
        ("fast_rcnn", ["--images-per-batch", 3], 2, "Error: --images-per-batch 3: there are only 2 images"),
        ("fast_rcnn", ["--iterations", 0], 1, "iterations"),
        ("fast_rcnn", ["--device", "cuda:77"], 2, "Error: --device cuda:77: not on this machine"),
        ("fast_rcnn", ["--features", "fc7"], 2, "--features: fast_rcnn has no such option, only rcnn; leave it out"),
        ("rcnn", ["--network", "none.safetensors"], 1, "Error: --network none.safetensors: there is no such file"),
        ("rcnn", ["--network", "RCNN"], 1, ": no AlexNet, it holds box, box_scale, network."),
        ("rcnn", ["--images", 1, "--iterations", 0], 1, "Error: no object of class"),
        *[("rcnn", ["--learning-rate", rate], 2, f"{rate} is no positive number") for rate in ("nan", "inf")],
        ("rcnn", ["--out", "."], 2, "this is a folder; name a file in it"),
        ("rcnn", ["--classes", "person", "--out", "NONE"], 2, "--out FILE: say where to write; the files of data"),
        ("mask_rcnn", ["OWN", "--out", "NONE"], 2, "--out FILE: say where to write; the files of data/weights"),
        ("mask_rcnn", ["OWN", "--out", WEIGHTS_FOLDER / "new.safetensors"], 2, "this folder holds the weights that"),
    ],
)
def test_what_is_refused(call, folder, files, tmp_path, monkeypatch, name, arguments, status, message):
    monkeypatch.chdir(tmp_path)
    replaced = {"OWN": own(folder), "RCNN": [files["rcnn"]]}
    if "SIZES" in arguments:
        replaced["SIZES"] = changed(folder, "sizes.json", other_size)
    words = [word for one in arguments for word in replaced.get(one, [one])]
    short = SHORT if name != "rcnn" else ("--max-proposals", 10)
    few = ("--images", 2) if "OWN" not in arguments and "SIZES" not in arguments else ()
    start = () if "--network" in words else ("--from-scratch",)
    out = ("--out", "x.safetensors") if "--out" not in words else ()
    if words[-1] == "NONE":
        words = words[:-2]
    result = call("train", name, *few, *short, *start, *out, *words)
    assert result.exit_code == status and "written" not in result.stdout
    assert message in " ".join(result.stderr.split())
    assert not list(tmp_path.iterdir())


def test_without_the_projects_weights_the_command_that_trains_them_is_named(call, tmp_path, monkeypatch):
    monkeypatch.setattr("minircnn.cli.train.SMALL_WEIGHTS", tmp_path / "none.safetensors")
    result = call("train", "rcnn", "--images", 6, "--out", tmp_path / "x.safetensors")
    assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)
    assert "none.safetensors: not there; train it with `python -m workshop.pretraining`" in result.stderr


def test_a_batch_that_processes_cannot_share_is_refused_before_any_work(call, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "world_size", lambda: 2)
    monkeypatch.setattr(loop, "rank", lambda: 0)
    few = ("--images", 3, "--images-per-batch", 3, "--iterations", 1, "--from-scratch")
    result = call("train", "fast_rcnn", *few, "--out", tmp_path / "x.safetensors")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: a batch of 3 does not divide into equal parts for 2 processes")
    assert not list(tmp_path.iterdir())
