"""``minircnn train`` against the same trainings without the command line, runs that go on, and what is refused."""

import csv
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.main import get_command

from minircnn import training
from minircnn.alexnet import ALEXNET_2012, SMALL, AlexNet, load_alexnet, load_alexnet_2012
from minircnn.cache import Cache
from minircnn.cli import app
from minircnn.cli.common import INTERRUPTED
from minircnn.cli.data import DataOptions
from minircnn.cli.train import SETTINGS
from minircnn.datasets import ToyTown
from minircnn.datasets.named import DATA_NAMES, open_data
from minircnn.evaluation import evaluate
from minircnn.rcnn import RCNNConfig
from minircnn.shipped import WEIGHTS_FOLDER
from minircnn.training import loop
from minircnn.training.checkpoints import Checkpoint
from tests.cli.conftest import LOAD, ON_PROPOSALS, changed, directly, own, regions
from tests.datasets import conftest as small
from tests.training.test_parallel import needs_torchrun

SHORT = ("--iterations", 1, "--images-per-batch", 2)


def trained_directly(name, network, samples, classes, settings, config=None, **more):
    """The same training without the command line."""
    train, more = getattr(training, f"train_{name}"), {"quiet": True, **more}
    proposals = [[regions(image) for image, _ in samples]] if name in ON_PROPOSALS else []
    more |= {"config": config, "report": lambda _: None} if name == "rcnn" else {}
    found = train(network, samples, *proposals, classes, settings, **more)
    return found if name == "rcnn" else found[0]


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
    assert set(vars(settings)) - set(shared) <= {"backbone_lr_mult", "frozen", "color_jitter", "crop_size"}
    shared.pop("max_size", None)  # which is that of --min-size
    for key, option in shared.items():
        stated = str(option.show_default).split(";")[0].split(", ")
        assert option.is_flag or stated[min(list(LOAD).index(name), len(stated) - 1)] == str(getattr(settings, key))
    assert all(data in options["data"].help for data in DATA_NAMES)


@pytest.mark.parametrize("name", LOAD)
def test_its_command_makes_the_same_file_again(call, folder, network, tmp_path, monkeypatch, name):
    """As the training without the command line. Its advice measures on images that were held out, from the cache."""
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    shutil.copy(network, tmp_path), shutil.copy(network.with_suffix(".json"), tmp_path)
    monkeypatch.chdir(tmp_path)
    more = {"max_proposals": 9} if name in ON_PROPOSALS else {}
    more |= {"min_size": 64, "schedule": "step"} if name != "rcnn" else {"learning_rate": 0.002}
    words = [word for key, value in more.items() for word in (f"--{key.replace('_', '-')}", value)]
    options = ("--network", "small.safetensors", "--iterations", 1, "--seed", 4, *words, "--out", "new/x.safetensors")
    result = call("train", name, *own(Path()), "--classes", "cat", "--classes", "person", *options)
    assert result.exit_code == 0, result.output
    data = open_data("coco", "images", "instances.json", split="train", classes=["cat", "person"])
    samples = [data[index] for index in range(len(data))]
    kind, start, parts = getattr(training, SETTINGS[name]), load_alexnet("small.safetensors"), {}
    more |= {"iterations": 1, "seed": 4}
    settings, masks = kind(**more), name == "mask_rcnn"
    if name != "rcnn":
        found = training.settings_for(data, min_size=64)
        settings = found.training(kind, **more)
        parts = {} if name == "fast_rcnn" else {"rpn": found.rpn(masks), "heads": found.heads(start, masks)}
    assert_same("new/x.safetensors", name, trained_directly(name, start, samples, data.classes, settings, **parts))
    about, weights = json.loads(Path("new/x.json").read_text()), Path("new/x.safetensors").read_bytes()
    assert about["classes"] == ["background", "cat", "person"] and about["settings"] == vars(settings)
    checksum = json.loads(Path("small.json").read_text())["sha256"]
    assert about["pretrained"] == {"file": "small.safetensors", "sha256": checksum}
    where = "--data coco --root images --annotations instances.json --classes cat,person --images 8 "
    assert about["command"].startswith(f"minircnn train {name} {where}")
    assert len(list(Path("new").iterdir())) == 2
    stored = {path: path.stat().st_mtime_ns for path in Cache().folder.rglob("*.pt")}
    assert {path.parts[-3] for path in stored} >= ({"proposals", "features"} if name == "rcnn" else set())
    Path("new/x.safetensors").unlink()
    assert call(*shlex.split(about["command"])[1:]).exit_code == 0
    assert Path("new/x.safetensors").read_bytes() == weights
    assert {path: path.stat().st_mtime_ns for path in Cache().folder.rglob("*.pt")} == stored
    advice = result.stdout.splitlines()[-1].split("`")[1]
    measured = call(*shlex.split(advice)[1:], "--images", 1)
    assert measured.exit_code == 0 and " on 1 images, coco's test split" in measured.stdout, measured.output
    assert "not measured" not in measured.stdout, "these are its classes"


def test_settings_follow_from_the_data_or_are_given(call, folder, network, tmp_path):
    """What was chosen is said, with what it was chosen for; what was given stands beside the weights."""
    anchors = ("--anchor-sizes", "1,2", "--aspect-ratios", "9")
    few = ("--network", network, *SHORT, "--images", 2, *own(folder), "--out")
    data = open_data("coco", folder / "images", folder / "instances.json", split="train", masks=False).part([0, 1])
    chosen = training.settings_for(data, images_per_batch=2)
    given = training.settings_for(data, images_per_batch=2, min_size=100, anchor_sizes=(1.0, 2.0), aspect_ratios=(9.0,))
    sizes = ("--min-size", 100, "--max-size", 150, *anchors, "--scale-jitter", 0.5)
    for options, wanted in (((), chosen), (sizes, given)):
        out = tmp_path / f"{len(options)}.safetensors"
        result = call("train", "faster_rcnn", *few, out, *options)
        assert result.exit_code == 0, result.output
        recall = 100 * training.anchor_recall(training.measure(data), wanted)
        reasons = [] if options else chosen.reasons
        for line in (*reasons, f"{recall:.1f} % of the objects", "1 batches of 2, from 2 images: about 1 min"):
            assert line in result.stdout
        about = json.loads(out.with_suffix(".json").read_text())
        assert about["rpn"]["anchor_sizes"] == [list(wanted.anchor_sizes)]
        assert about["settings"]["min_size"] == wanted.min_size == about["transform"]["min_size"]
    assert (about["rpn"]["aspect_ratios"], about["settings"]["scale_jitter"]) == ([9], 0.5)
    assert about["transform"]["max_size"] == 150 and " ".join(anchors) in about["command"]
    assert "Warning: that is low" in result.stdout, "no object is as small and as tall as these anchors"


@pytest.fixture
def interrupted(monkeypatch):
    """After each iteration the state is kept, and the run ends as by Ctrl-C."""
    monkeypatch.setattr(loop.fit, "__kwdefaults__", {**loop.fit.__kwdefaults__, "checkpoint_every": 1})
    save, waits = Checkpoint.save, iter([KeyboardInterrupt])

    def save_and_stop(self, iteration):
        save(self, iteration)
        for error in waits:
            raise error

    monkeypatch.setattr(Checkpoint, "save", save_and_stop)


@pytest.mark.usefixtures("interrupted")
@pytest.mark.parametrize("name", ["fast_rcnn", "mask_rcnn"])
def test_a_run_from_scratch_that_is_stopped_and_resumed(call, tmp_path, monkeypatch, name):
    """Its table has each iteration once, with what was measured, and the file is that of an unbroken run."""
    monkeypatch.setattr("minircnn.cli.train.VALIDATION_IMAGES", 2)
    monkeypatch.chdir(tmp_path)
    few = {"max_proposals": 40} if name in ON_PROPOSALS else {}
    words = ("--images", 4, "--iterations", 2, "--min-size", 64, "--from-scratch", "--seed", 7)
    words += ("--out", "x.safetensors", "--csv", "x.csv", "--evaluate-every", 2)
    words += tuple(f"--max-proposals={most}" for most in few.values())
    result = call("train", name, *words)
    assert (result.exit_code, result.stderr.splitlines()[-1][:29]) == (INTERRUPTED, "Stopped. With --resume the sa")
    assert sorted(path.name for path in Path().iterdir()) == ["x.checkpoint", "x.csv"]
    other = call("train", name, *words, "--classes", "person,car", "--resume")
    assert other.exit_code == 1 and "Error: x.checkpoint: begun with other settings (" in other.stderr
    result = call("train", name, *words, "--resume")
    assert result.exit_code == 0 and "unfinished" not in result.stdout, result.output
    beside = [f"x_{name}" for name in ("best.json", "best.safetensors", "curve.png", "predictions.png")]
    assert sorted(path.name for path in Path().iterdir()) == ["x.csv", "x.json", "x.safetensors", *beside]
    about = json.loads(Path("x.json").read_text())
    assert about["pretrained"] == {"file": "none: random weights"} and about["command"].endswith(" --from-scratch")
    data, val = ToyTown("train"), ToyTown("val")
    torch.manual_seed(7)
    settings = getattr(training, SETTINGS[name])(iterations=2, min_size=64, seed=7, **few)
    samples = [data[index] for index in range(4)]
    assert_same("x.safetensors", name, trained_directly(name, AlexNet(SMALL, 1), samples, data.classes, settings))
    rows = list(csv.DictReader(Path("x.csv").read_text().splitlines()))
    assert [row["iteration"] for row in rows] == ["1", "2"] and [bool(row["val_ap50"]) for row in rows] == [False, True]
    # What was measured before the weights were rounded to half precision.
    found = [directly(name, Path("x.safetensors"), val[index][0], proposals=40) for index in range(2)]
    found = [{key: value for key, value in one.items() if key != "masks"} for one in found]
    reached = evaluate(found, [val[index][1] for index in range(2)], classes=val.classes)
    assert float(rows[1]["val_ap50"]) == pytest.approx(reached.ap50, abs=0.02)
    assert ("val_mask_ap50" in rows[1]) == (name == "mask_rcnn")
    Path("x.checkpoint").write_bytes(b"no checkpoint")
    (line,) = call("train", name, *words, "--resume").stderr.splitlines()
    assert line.startswith("Error: x.checkpoint: damaged")
    Path("x.safetensors").unlink()  # which would be kept after a training as short
    result = call("train", name, *words, "--iterations", 1)
    assert result.exit_code == 0 and not Path("x.checkpoint").exists()
    assert "x.checkpoint: the state of an unfinished run will be replaced" in result.stdout


def test_convolutions_of_2012_give_pool5_without_fine_tuning(call, folder, tmp_path):
    """And random ones in the same network, for a comparison that differs in nothing but the weights."""
    torch.manual_seed(0)
    arrays = {k: v.detach().half().numpy() for k, v in AlexNet(ALEXNET_2012, 1).backbone.named_parameters()}
    np.savez(tmp_path / "conv.npz", mean=np.array([100.0, 110.0, 120.0], np.float32), **arrays)

    def trained(name, out, *options):
        words = ("--images", 3, "--network", tmp_path / "conv.npz", "--out", tmp_path / out)
        result = call("train", name, *own(folder), *words, *options)
        assert result.exit_code == 0, result.output
        return result.stdout, LOAD[name](tmp_path / out), json.loads((tmp_path / out).with_suffix(".json").read_text())

    few = ("--classes", "person,tree", "--max-proposals", 6, "--seed", 3)
    said, loaded, about = trained("rcnn", "x.safetensors", *few)
    assert "1 of 3" not in said and "3 of 3: box regression" in said
    data = open_data("coco", folder / "images", folder / "instances.json", split="train", classes=["person", "tree"])
    settings = training.RCNNTrainingSettings(iterations=0, max_proposals=6, seed=3)
    learned, config = load_alexnet_2012(tmp_path / "conv.npz"), RCNNConfig(svm_layer="pool5")
    expected = trained_directly("rcnn", learned, [data[index] for index in range(3)], data.classes, settings, config)
    assert_same(tmp_path / "x.safetensors", "rcnn", expected)
    assert loaded.svm.shape == (2, 9217) and loaded.network.config.mean[0] == pytest.approx(100 / 255)
    assert about["settings"] == vars(settings)
    _, found, about = trained("rcnn", "y.safetensors", *few, "--from-scratch")
    torch.manual_seed(3)
    for name, value in AlexNet(learned.config, 1).backbone.state_dict().items():
        assert torch.equal(found.network.backbone.state_dict()[name], value.half().float()), name
    assert found.network.config.mean == learned.config.mean
    assert about["pretrained"] == {"file": "none: random weights", "network_of": "conv.npz"}
    # A detector that is trained jointly gets new, smaller layers behind them: the same ones each time.
    for name in ("a.safetensors", "b.safetensors"):
        _, detector, _ = trained("faster_rcnn", name, *SHORT)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert detector.roi_heads.box_head.fc7.weight.shape == (512, 512) and detector.backbone.config.total_stride == 16


@needs_torchrun
def test_two_processes_write_one_file(cache, tmp_path):
    two, torchrun = tmp_path / "two.safetensors", ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    few = ("--images", 4, *SHORT, "--max-proposals", 20, "--min-size", 64, "--from-scratch", "--out", two, "--resume")
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
        "1 batches of 2, from 4 images: about 1 min",
        f"written to {two}; `minircnn evaluate fast_rcnn --weights {two}` tells how good it is",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["two.json", "two.safetensors"]
    assert all(value.isfinite().all() for value in LOAD["fast_rcnn"](two).state_dict().values())


@pytest.mark.parametrize(
    ("name", "split", "measured_on", "remark"),
    [
        ("coco", None, "test", ""),
        ("coco", "all", "all", ", on the images that it has learned from"),
        ("voc", None, "test", ""),
        ("voc", "train", "val", ""),
    ],
)
def test_the_advice_measures_on_unseen_images_if_there_are_any(name, split, measured_on, remark):
    wanted = DataOptions(name, Path("x y"), None, split, ["cat, person"], drop_invalid=True)
    _, command, rest = wanted.advice("rcnn", Path("w.safetensors")).split("`")
    options = f"--data {name} --root 'x y' --split {measured_on} --classes cat,person --drop-invalid"
    assert command == f"minircnn evaluate rcnn {options} --weights w.safetensors"
    assert rest == f" tells how good it is{remark}"
    said = DataOptions().advice("rcnn", WEIGHTS_FOLDER / "rcnn.safetensors")
    assert said.startswith("`minircnn evaluate rcnn` tells")


def one_defect(content):
    """Of the first and of the last image, which is for testing."""
    for image in (content["images"][0], content["images"][-1]):
        next(one for one in content["annotations"] if one["image_id"] == image["id"])["bbox"] = [0, 0, 5, -1]


def test_what_is_invalid_is_left_out_if_asked_and_counted(call, folder, files, tmp_path, capsys):
    options = ("faster_rcnn", *changed(folder, "defects.json", one_defect))
    few = (*SHORT, "--min-size", 64, "--from-scratch", "--out", tmp_path / "x.safetensors")
    for command in (("train", *options, *few), ("evaluate", *options, "--weights", files["faster_rcnn"])):
        result = call(*command)
        assert (result.exit_code, result.stdout) == (1, "") and "--drop-invalid" in result.stderr
        result = call(*command, "--drop-invalid")
        assert result.exit_code == 0, result.output
        assert "2 annotations left out\n" in result.stdout and result.stdout.count("has no height") == 2
    assert "--drop-invalid" in json.loads((tmp_path / "x.json").read_text())["command"]
    for name in ("x", "yy"):  # masks that are files, which are opened one by one
        small.write_cell(tmp_path, name, small.block((2, 5), (3, 9)), small.block((0, 0), (0, 0)))
    DataOptions("nuclei", tmp_path, split="all", drop_invalid=True).to_learn_from(1, masks=False)
    assert re.match(r"1 annotation left out\n  .*mask b\.png: it is empty", capsys.readouterr().out)


def test_what_is_odd_is_said_before_a_training(folder, tmp_path, capsys):
    """An image that a tag turns, a file under two ids, a second category of the same name."""
    exif = Image.Exif()
    exif[0x0112] = 3

    def odd(content):
        content["categories"].append({**content["categories"][0], "id": 99})
        first = content["images"][0]
        content["images"] = [first, {**first, "id": 98}]
        content["annotations"] = [one for one in content["annotations"] if one["image_id"] == first["id"]]
        with Image.open(folder / "images" / first["file_name"]) as file:
            file.save(tmp_path / first["file_name"], exif=exif)

    DataOptions("coco", tmp_path, changed(folder, "odd.json", odd)[-1], "all").to_learn_from(None, masks=False)
    lines = capsys.readouterr().out.splitlines()
    for line, words in zip(lines, ("the same file", "same name", "orientation 3", "orientation 3"), strict=True):
        assert words in line


def only_crowds(content):
    content["annotations"] = [{**one, "iscrowd": 1} for one in content["annotations"]]


def other_size(content):
    content["images"][7]["width"] += 1


FEW = ["--images", 2]
NEW = WEIGHTS_FOLDER / "new.safetensors"


@pytest.mark.parametrize(
    ("name", "start", "arguments", "status", "message"),
    [
        ("faster_rcnn", own, ["--classes", "person,preson"], 2, "there is no 'preson' (did you mean 'person'?)"),
        ("faster_rcnn", own, ["--images", 9], 2, "Error: --images 9: coco's train split has only 8"),
        ("faster_rcnn", other_size, [], 1, "boxes may not fit"),
        ("mask_rcnn", only_crowds, ["--classes", "cat"], 1, "Error: coco's train split, classes cat: only crowds ("),
        ("fast_rcnn", FEW, ["--images-per-batch", 3], 2, "Error: --images-per-batch 3: there are only 2 images"),
        ("fast_rcnn", FEW, ["TWO", "--images-per-batch", 1], 1, "a batch of 1 does not divide into equal parts for 2"),
        ("rcnn", FEW, ["TWO"], 2, "rcnn: several processes cannot share its training; start one"),
        ("rcnn", FEW, ["--network", "RCNN"], 1, ": no AlexNet, it holds box, box_scale, network."),
        ("rcnn", FEW, ["NO WEIGHTS"], 1, "none.safetensors: not there; train it with `python -m workshop.pretraining`"),
        ("rcnn", FEW, ["--images", 1, "--iterations", 0], 1, "Error: no object of class"),
        ("mask_rcnn", own, ["--out", NEW], 2, "this folder holds the weights that"),
        ("faster_rcnn", FEW, ["--iterations", 0], 1, "iterations must be at least 1"),
    ],
)
def test_what_is_refused(call, folder, files, tmp_path, monkeypatch, name, start, arguments, status, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("minircnn.cli.train.SMALL_WEIGHTS", tmp_path / "none.safetensors")
    if "TWO" in arguments:
        monkeypatch.setattr(loop, "world_size", lambda: 2), monkeypatch.setattr(loop, "rank", lambda: 0)
        monkeypatch.setattr(training, "world_size", lambda: 2)
    if callable(start):
        start = own(folder) if start is own else changed(folder, f"{start.__name__}.json", start)
    command = [*start, *(SHORT if name != "rcnn" else ["--max-proposals", 10])]
    command += ["--from-scratch"] * (not {"--network", "NO WEIGHTS"} & {*arguments})
    command += ["--out", "x.safetensors"]
    words = [files["rcnn"] if word == "RCNN" else word for word in arguments if word not in ("TWO", "NO WEIGHTS")]
    result = call("train", name, *command, *words)
    assert result.exit_code == status and "written" not in result.stdout
    assert message in " ".join(result.stderr.split())
    assert not list(tmp_path.iterdir())
