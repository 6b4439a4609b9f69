"""``minircnn train``: files that load and hold what training without the command line makes, and refusals."""

import csv
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import joblib
import pytest
import torch
from typer.main import get_command

from minircnn.alexnet import SMALL, AlexNet, load_alexnet, save_alexnet
from minircnn.cache import Cache
from minircnn.cli import app
from minircnn.cli.starting import named
from minircnn.datasets import ToyTown
from minircnn.evaluation import evaluate
from minircnn.fast_rcnn import load_fast_rcnn
from minircnn.rcnn import load_rcnn
from minircnn.selective_search import selective_search
from minircnn.training import (
    FastRCNNTrainingSettings,
    RCNNTrainingSettings,
    loop,
    train_fast_rcnn,
    train_rcnn,
)
from minircnn.weights import WEIGHTS_FOLDER
from tests.training.test_parallel import needs_torchrun

FEW = 6  # training pictures that show all classes


@pytest.fixture(autouse=True)
def threads():
    """Threads start faster than processes; the test of the whole program starts processes."""
    with joblib.parallel_backend("threading"):
        yield


def defaults(name, settings):
    """The defaults that the help states for those options that are numbers or words of the settings.

    A flag that is not given is False.
    """
    options = get_command(app).commands["train"].commands[name].params
    shared = [(option, type(getattr(settings, option.name))) for option in options if option.name in vars(settings)]
    return {o.name: (None, False) if o.is_flag else (o.default, kind(o.show_default)) for o, kind in shared}


@pytest.mark.parametrize(
    ("name", "settings", "without_option"),
    [
        ("rcnn", RCNNTrainingSettings(), set()),
        ("fast_rcnn", FastRCNNTrainingSettings(), {"backbone_lr_mult", "color_jitter", "scale_jitter"}),
    ],
)
def test_defaults_are_those_of_the_settings(name, settings, without_option):
    stated = defaults(name, settings)
    assert set(stated) | without_option == set(vars(settings))
    assert stated == {option: (None, getattr(settings, option)) for option in stated}


# So little work that a test ends soon also where something is not refused that should be.
FEW_SCENES = ("--pictures", 1, "--iterations", 0)
FEW_BATCHES = ("--pictures", 2, "--iterations", 1, "--images-per-batch", 2)


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A file with a network to begin with."""
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("network") / "small.safetensors"
    save_alexnet(AlexNet(SMALL, 18), path, {})
    return path


class TestRCNN:
    ARGUMENTS = ("--pictures", FEW, "--max-proposals", 20)

    def directly(self, network, settings):
        """The same training without the command line."""
        data = ToyTown("train")
        samples = [data[index] for index in range(FEW)]
        proposals = [selective_search(image) for image, _ in samples]
        return train_rcnn(network, samples, proposals, data.classes, settings, report=lambda _: None, quiet=True)

    def assert_same(self, path, expected):
        found, wanted = load_rcnn(path).state_dict(), expected.state_dict()
        assert found.keys() == wanted.keys()
        for name, value in wanted.items():
            torch.testing.assert_close(found[name], value, msg=name)

    def test_from_a_network(self, call, network, tmp_path):
        out = tmp_path / "x.safetensors"
        result = call("train", "rcnn", *self.ARGUMENTS, "--network", network, "--iterations", 0, "--out", out)
        assert result.exit_code == 0, result.output
        settings = RCNNTrainingSettings(iterations=0, max_proposals=20)
        self.assert_same(out, self.directly(load_alexnet(network), settings))
        about = json.loads(out.with_suffix(".json").read_text())
        assert about["settings"] == vars(settings)
        assert about["command"] == (
            "minircnn train rcnn --pictures 6 --iterations 0 --learning-rate 0.001 --max-proposals 20 --seed 0 "
            "--out x.safetensors --network small.safetensors"
        )
        checksum = json.loads(network.with_suffix(".json").read_text())["sha256"]
        assert about["pretrained"] == {"file": "small.safetensors", "sha256": checksum}
        assert result.stdout.endswith(
            f"written to {out}; `minircnn evaluate rcnn --weights {out}` tells how good it is\n"
        )
        assert "3 of 3: box regression" in result.stdout

    def test_from_scratch_with_fine_tuning(self, call, tmp_path):
        out = tmp_path / "x.safetensors"
        options = ("--iterations", 2, "--learning-rate", 0.002, "--seed", 7)
        result = call("train", "rcnn", *self.ARGUMENTS, "--from-scratch", *options, "--out", out)
        assert result.exit_code == 0, result.output
        torch.manual_seed(7)
        settings = RCNNTrainingSettings(2, 0.002, 20, seed=7)
        self.assert_same(out, self.directly(AlexNet(SMALL, 1), settings))
        about = json.loads(out.with_suffix(".json").read_text())
        assert about["settings"] == vars(settings)
        assert about["command"].endswith("--seed 7 --out x.safetensors --from-scratch")
        assert about["pretrained"] == {"file": "none: random weights"}
        assert sorted(path.name for path in tmp_path.iterdir()) == ["x.json", "x.safetensors"]

    def test_proposals_and_features_stay_in_the_cache(self, call, network, tmp_path, monkeypatch):
        monkeypatch.setenv("MINIRCNN_CACHE", str(tmp_path / "fresh"))
        arguments = ("train", "rcnn", *self.ARGUMENTS, "--network", network, "--iterations", 0, "--out")
        assert call(*arguments, tmp_path / "a.safetensors").exit_code == 0
        stored = {path: path.stat().st_mtime_ns for path in Cache().folder.rglob("*.safetensors")}
        assert sum(path.parts[-3] == "proposals" for path in stored) == FEW
        assert sum(path.parts[-3] == "features" for path in stored) >= 2 * FEW
        assert call(*arguments, tmp_path / "b.safetensors").exit_code == 0
        assert {path: path.stat().st_mtime_ns for path in Cache().folder.rglob("*.safetensors")} == stored
        assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()

    def test_unfinished_run(self, call, network, tmp_path):
        out, unfinished = tmp_path / "x.safetensors", tmp_path / "x.checkpoint"
        unfinished.write_bytes(b"no checkpoint")
        arguments = ("train", "rcnn", *self.ARGUMENTS, "--network", network, "--iterations", 1, "--out", out)
        result = call(*arguments, "--resume")
        assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)
        assert result.stderr.startswith(f"Error: {unfinished}: damaged")
        result = call(*arguments)
        assert result.exit_code == 0
        assert f"{unfinished}: the state of an unfinished run will be replaced" in result.stdout

    def test_pictures_without_some_class_are_one_line(self, call, network, tmp_path):
        """What the package itself refuses, deep inside."""
        options = ("--pictures", 1, "--iterations", 0, "--network", network)
        result = call("train", "rcnn", *options, "--out", tmp_path / "x.safetensors")
        assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)
        assert result.stderr.startswith("Error: no object of class")
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize(
        ("arguments", "status", "message"),
        [
            (
                ["--from-scratch", "--network", "none.safetensors", "--pictures", 1],
                1,
                "--network none.safetensors: there is no such file",
            ),
            (["--features", "conv5"], 2, "--features conv5: there is no such layer; choose one of pool5, fc6, fc7"),
            (["--split", "test"], 2, "--split test: this part of Toy Town is to measure with; learn from train"),
            (["--network", "none.safetensors"], 1, "--network none.safetensors: there is no such file"),
            (["--pictures", 1001], 2, "Error: --pictures 1001: Toy Town's train split has only 1000"),
            (["--from-scratch", "--device", "cuda:77"], 2, "Error: --device cuda:77: not on this machine"),
            (["--learning-rate", -1], 2, "-1.0 is no positive number"),
            (["--iterations", -1], 2, "iterations"),
        ],
    )
    def test_what_is_refused(self, call, tmp_path, arguments, status, message):
        result = call("train", "rcnn", *FEW_SCENES, "--out", tmp_path / "x.safetensors", *arguments)
        assert (result.exit_code, result.stdout) == (status, "")
        assert message in " ".join(result.stderr.split())
        assert not list(tmp_path.iterdir())

    def test_a_network_that_is_none(self, call, detector, tmp_path):
        out = tmp_path / "x.safetensors"
        result = call("train", "rcnn", "--pictures", FEW, "--network", detector, "--out", out)
        assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)
        assert f"{detector}: no AlexNet, it holds box, box_scale, network.classifier.fc6.bias …; give" in result.stderr

    def test_without_the_projects_weights_the_command_that_trains_them_is_named(self, call, tmp_path, monkeypatch):
        monkeypatch.setattr("minircnn.cli.starting.SMALL_WEIGHTS", tmp_path / "none.safetensors")
        result = call("train", "rcnn", "--pictures", FEW, "--out", tmp_path / "x.safetensors")
        assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)
        assert "none.safetensors: not there; train it with `python -m workshop.pretraining`" in result.stderr


class TestFastRCNN:
    ARGUMENTS = ("--pictures", FEW, "--max-proposals", 40)
    SHORT = ("--iterations", 3, "--learning-rate", 0.002)

    def directly(self, network, settings, **options):
        """The same training without the command line."""
        data = ToyTown("train")
        samples = [data[index] for index in range(FEW)]
        proposals = [selective_search(image) for image, _ in samples]
        return train_fast_rcnn(network, samples, proposals, data.classes, settings, quiet=True, **options)

    def assert_same(self, path, expected):
        """The file holds half precision."""
        wanted = {name: value.half().float() for name, value in expected.state_dict().items()}
        torch.testing.assert_close(load_fast_rcnn(path).state_dict(), wanted, atol=0, rtol=0)

    def test_from_a_network_and_its_command_makes_it_again(self, call, network, tmp_path, monkeypatch):
        monkeypatch.chdir(network.parent)
        options = (*self.SHORT, "--images-per-batch", 3, "--schedule", "step", "--seed", 4, "--out", "x.safetensors")
        result = call("train", "fast_rcnn", *self.ARGUMENTS, "--network", network, *options)
        assert result.exit_code == 0, result.output
        settings = FastRCNNTrainingSettings(3, 3, 0.002, max_proposals=40, schedule="step", seed=4)
        expected, _ = self.directly(load_alexnet(network), settings)
        self.assert_same("x.safetensors", expected)
        content = Path("x.json").read_bytes()
        about = json.loads(content)
        assert about["settings"] == vars(settings)
        checksum = json.loads(network.with_suffix(".json").read_text())["sha256"]
        assert about["pretrained"] == {"file": "small.safetensors", "sha256": checksum}
        assert result.stdout.splitlines() == [
            "proposals of 6 pictures, as far as they are not in the cache",
            "written to x.safetensors; `minircnn evaluate fast_rcnn --weights x.safetensors` tells how good it is",
        ]
        weights = Path("x.safetensors").read_bytes()
        for name in ("x.safetensors", "x.json"):
            Path(name).unlink()
        program, *words = shlex.split(about["command"])
        assert program == "minircnn"
        assert call(*words).exit_code == 0
        assert Path("x.safetensors").read_bytes() == weights
        assert Path("x.json").read_bytes() == content
        assert not list(Path().glob("*.checkpoint"))

    def test_from_scratch_with_a_log_and_measurements(self, call, tmp_path, monkeypatch):
        monkeypatch.setattr("minircnn.cli.train_jointly.VALIDATION_PICTURES", 3)
        out, log = tmp_path / "x.safetensors", tmp_path / "x.csv"
        options = (*self.ARGUMENTS, *self.SHORT, "--from-scratch", "--seed", 7, "--out", out)
        result = call("train", "fast_rcnn", *options, "--csv", log, "--evaluate-every", 2)
        assert result.exit_code == 0, result.output
        assert sorted(path.name for path in tmp_path.iterdir()) == ["x.csv", "x.json", "x.safetensors"]
        about = json.loads(out.with_suffix(".json").read_text())
        assert about["command"].endswith("--seed 7 --max-proposals 40 --out x.safetensors --from-scratch")
        assert about["pretrained"] == {"file": "none: random weights"}

        val = ToyTown("val")
        samples = [val[index] for index in range(3)]
        proposals = [selective_search(image)[:40] for image, _ in samples]

        def measure(model):
            found = [model.detect([s[0]], [boxes])[0] for s, boxes in zip(samples, proposals, strict=True)]
            reached = evaluate(found, [target for _, target in samples], classes=val.classes)
            return {"val_ap": reached.ap, "val_ap50": reached.ap50}

        torch.manual_seed(7)
        settings = FastRCNNTrainingSettings(3, learning_rate=0.002, max_proposals=40, seed=7)
        expected, history = self.directly(AlexNet(SMALL, 1), settings, evaluate=measure, evaluate_every=2)
        self.assert_same(out, expected)
        assert ["val_ap50" in row for row in history] == [False, True, True]
        with log.open(newline="") as file:
            rows = list(csv.DictReader(file))
        for number, (row, wanted) in enumerate(zip(rows, history, strict=True), 1):
            assert int(row.pop("iteration")) == number
            found = {name: float(value) for name, value in row.items() if value}
            assert found == pytest.approx(
                {**wanted, "learning_rate": found["learning_rate"], "total": found["total"]}, rel=1e-6
            )

    def test_an_interrupted_run_is_resumed(self, call, tmp_path, monkeypatch):
        """Its losses are in the log only once, and the file is that of an unbroken run."""
        monkeypatch.setattr(loop.fit, "__kwdefaults__", {**loop.fit.__kwdefaults__, "checkpoint_every": 1})
        options = ("train", "fast_rcnn", *self.ARGUMENTS, *self.SHORT, "--from-scratch", "--images-per-batch", 2)

        def files(name):
            return "--out", tmp_path / name / "x.safetensors", "--csv", tmp_path / name / "x.csv"

        for name in ("whole", "broken"):
            (tmp_path / name).mkdir()
        assert call(*options, *files("whole")).exit_code == 0
        with monkeypatch.context() as patch:
            add, left = loop._Record.add, [2]

            def interrupted(*arguments):
                add(*arguments)
                left[0] -= 1
                if not left[0]:
                    raise KeyboardInterrupt

            patch.setattr(loop._Record, "add", interrupted)
            result = call(*options, *files("broken"))
        assert result.exit_code == 130
        assert result.stderr == "Stopped. With --resume the same command goes on from there.\n"
        assert sorted(path.name for path in (tmp_path / "broken").iterdir()) == ["x.checkpoint", "x.csv"]
        result = call(*options, *files("broken"), "--resume")
        assert (result.exit_code, result.stdout.count("unfinished")) == (0, 0)
        for name in ("x.safetensors", "x.json", "x.csv"):
            assert (tmp_path / "broken" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
        assert not list(tmp_path.rglob("*.checkpoint"))
        result = call(*options, *files("broken"), "--resume")
        unfinished = tmp_path / "broken" / "x.checkpoint"
        assert result.stdout.startswith(f"no unfinished run at {unfinished}: beginning at the beginning\n")

    def test_a_damaged_unfinished_run(self, call, tmp_path):
        out, unfinished = tmp_path / "x.safetensors", tmp_path / "x.checkpoint"
        unfinished.write_bytes(b"no checkpoint")
        options = (*self.ARGUMENTS, "--iterations", 1, "--from-scratch", "--out", out)
        result = call("train", "fast_rcnn", *options, "--resume")
        assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)
        assert result.stderr.startswith(f"Error: {unfinished}: damaged")
        result = call("train", "fast_rcnn", *options)
        assert result.exit_code == 0
        assert result.stdout.startswith(f"{unfinished}: the state of an unfinished run will be replaced")
        assert not unfinished.exists()

    @pytest.mark.parametrize(
        ("arguments", "status", "message"),
        [
            (["--mixed-precision"], 2, "Error: --mixed-precision: needs an NVIDIA GPU; give --device cuda"),
            (["--schedule", "linear"], 2, "Invalid value for '--schedule'"),
            (["--network", "x.safetensors"], 1, "Error: --network x.safetensors: there is no such file"),
            (["--pictures", 1001], 2, "Error: --pictures 1001: Toy Town's train split has only 1000"),
            (["--images-per-batch", 3], 2, "Error: --images-per-batch 3: there are only 2 pictures"),
            (["--images-per-batch", 0], 2, "images-per-batch"),
            (["--iterations", 0], 2, "iterations"),
            (["--evaluate-every", 0], 2, "evaluate-every"),
            (["--learning-rate", -1], 2, "-1.0 is no positive number"),
            (["--device", "cuda:77"], 2, "Error: --device cuda:77: not on this machine"),
            (["--csv", "none/x.csv"], 2, "Error: --csv none/x.csv: the folder none does not exist; make it first"),
        ],
    )
    def test_what_is_refused(self, call, tmp_path, monkeypatch, arguments, status, message):
        monkeypatch.chdir(tmp_path)
        options = (*FEW_BATCHES, "--from-scratch", "--out", "x.safetensors")
        result = call("train", "fast_rcnn", *options, *arguments)
        assert (result.exit_code, result.stdout) == (status, "")
        assert message.replace("/", os.sep) in " ".join(result.stderr.split())
        assert not list(tmp_path.iterdir())

    def test_a_batch_that_processes_cannot_share_is_refused_before_any_work(self, call, tmp_path, monkeypatch):
        monkeypatch.setattr(loop, "world_size", lambda: 2)
        monkeypatch.setattr(loop, "rank", lambda: 0)
        few = ("--pictures", 3, "--images-per-batch", 3, "--iterations", 1, "--from-scratch")
        result = call("train", "fast_rcnn", *few, "--out", tmp_path / "x.safetensors")
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.startswith("Error: a batch of 3 does not divide into equal parts for 2 processes")
        assert not list(tmp_path.iterdir())

    @needs_torchrun
    def test_two_processes_write_one_file(self, call, cache, tmp_path):
        options = (*self.ARGUMENTS, *self.SHORT, "--from-scratch", "--seed", 2, "--out", tmp_path / "two.safetensors")
        torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
        with subprocess.Popen(
            [sys.executable, *torchrun, "-m", "minircnn", "train", "fast_rcnn", *map(str, options), "--resume"],
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
        two = tmp_path / "two.safetensors"
        assert output.splitlines() == [
            f"no unfinished run at {tmp_path / 'two.checkpoint'}: beginning at the beginning",
            "proposals of 6 pictures, as far as they are not in the cache",
            f"written to {two}; `minircnn evaluate fast_rcnn --weights {two}` tells how good it is",
        ]
        assert sorted(path.name for path in tmp_path.iterdir()) == ["two.json", "two.safetensors"]
        assert all(value.isfinite().all() for value in load_fast_rcnn(two).state_dict().values())


@pytest.mark.parametrize("command", ["rcnn", "fast_rcnn"])
@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("none/x.safetensors", "the folder none does not exist; make it first"),
        (".", "this is a folder; name a file in it"),
        ("x.pth", "weights are written as .safetensors; give the file that ending"),
    ],
)
def test_out_is_checked_before_any_work(call, tmp_path, monkeypatch, command, out, message):
    monkeypatch.chdir(tmp_path)
    few = {"rcnn": FEW_SCENES, "fast_rcnn": FEW_BATCHES}[command]
    result = call("train", command, *few, "--out", out)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.rstrip().endswith(message)
    assert not list(tmp_path.iterdir())


def test_commands_name_files_of_the_project_by_their_place_in_it():
    assert named(WEIGHTS_FOLDER / "rcnn.safetensors") == "data/weights/rcnn.safetensors"
    assert named(WEIGHTS_FOLDER.parent.parent.parent / "rcnn.safetensors") == "rcnn.safetensors"
