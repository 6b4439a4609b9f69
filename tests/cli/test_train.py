"""``minircnn train``: files that load and hold what training without the command line makes, and refusals."""

import json

import joblib
import pytest
import torch
from typer.main import get_command
from typer.testing import CliRunner

from minircnn.alexnet import SMALL, AlexNet, load_alexnet, save_alexnet
from minircnn.cache import Cache
from minircnn.cli import app
from minircnn.cli.train import _named
from minircnn.datasets import ToyTown
from minircnn.rcnn import load_rcnn
from minircnn.selective_search import selective_search
from minircnn.training import (
    PretrainingSettings,
    RCNNTrainingSettings,
    accuracy,
    single_objects,
    train_rcnn,
)
from minircnn.weights import WEIGHTS_FOLDER, load_weights

FEW = 6  # training pictures that show all classes


@pytest.fixture(autouse=True)
def threads():
    """Threads start faster than processes; the test of the whole program starts processes."""
    with joblib.parallel_backend("threading"):
        yield


def defaults(name, settings):
    """The defaults that the help states for those options that are numbers of the settings."""
    options = get_command(app).commands["train"].commands[name].params
    return {o.name: (o.default, float(o.show_default)) for o in options if hasattr(settings, o.name)}


@pytest.mark.parametrize(
    ("name", "settings", "without_option"),
    [
        ("alexnet", PretrainingSettings(), {"weight_decay", "label_smoothing"}),
        ("rcnn", RCNNTrainingSettings(), set()),
    ],
)
def test_defaults_are_those_of_the_settings(name, settings, without_option):
    stated = defaults(name, settings)
    assert set(stated) | without_option == set(vars(settings))
    assert stated == {option: (None, getattr(settings, option)) for option in stated}


# So little work that a test ends soon also where something is not refused that should be.
FEW_SCENES = ("--pictures", 1, "--iterations", 0)
FEW_SINGLE = ("--pictures", 32, "--val-pictures", 40, "--epochs", 2, "--batch", 16)


@pytest.fixture(scope="module")
def trained(cache, tmp_path_factory):
    """One run of `train alexnet`, for several tests: its file and what it printed."""
    out = tmp_path_factory.mktemp("trained") / "a b.safetensors"
    options = (*FEW_SINGLE, "--learning-rate", 0.003, "--stride", 16, "--seed", 5, "--out", out)
    with joblib.parallel_backend("threading"):
        result = CliRunner(env={"MINIRCNN_CACHE": str(cache)}).invoke(app, ["train", "alexnet", *map(str, options)])
    assert result.exit_code == 0, result.output
    return out, result


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A file with a network to begin with."""
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("network") / "small.safetensors"
    save_alexnet(AlexNet(SMALL, 18), path, {})
    return path


class TestAlexNet:
    def test_file_holds_the_network_and_how_it_was_made(self, trained):
        out, _ = trained
        assert load_alexnet(out).config.total_stride == 16
        _, about = load_weights(out)
        wanted = PretrainingSettings(32, 40, 2, 16, learning_rate=0.003, stride=16, seed=5)
        assert about["settings"] == vars(wanted)
        assert about["command"] == (
            "minircnn train alexnet --pictures 32 --val-pictures 40 --epochs 2 --batch 16 --learning-rate 0.003 "
            "--stride 16 --seed 5 --out 'a b.safetensors'"
        )
        assert sorted(path.name for path in out.parent.iterdir()) == ["a b.json", "a b.safetensors"]

    def test_accuracy_is_that_of_the_saved_network(self, trained):
        out, result = trained
        reached = accuracy(load_alexnet(out), *single_objects("val", 40))
        *_, line, last = result.stdout.splitlines()
        assert line == (
            f"accuracy on 40 held-out pictures: {100 * reached.subtypes:.1f} % of the sub-types, "
            f"{100 * reached.classes:.1f} % of the classes"
        )
        assert last == f"written to {out}"

    def test_unfinished_run(self, call, tmp_path):
        """--resume reads the state of it; without, the user is told that it goes."""
        out, unfinished = tmp_path / "x.safetensors", tmp_path / "x.checkpoint"
        unfinished.write_bytes(b"no checkpoint")
        result = call("train", "alexnet", *FEW_SINGLE, "--out", out, "--resume")
        assert result.exit_code == 1
        assert result.stderr.startswith(f"Error: {unfinished}: damaged")
        assert not out.exists()
        result = call("train", "alexnet", *FEW_SINGLE, "--out", out)
        assert result.exit_code == 0
        assert result.stdout.startswith(f"{unfinished}: the state of an unfinished run will be replaced")
        assert not unfinished.exists()
        result = call("train", "alexnet", *FEW_SINGLE, "--out", out, "--resume")
        assert result.exit_code == 0
        assert result.stdout.startswith(f"no unfinished run at {unfinished}: beginning at the beginning\n")

    @pytest.mark.parametrize(
        ("arguments", "status", "message"),
        [
            (["--stride", 12], 1, "Error: stride must be 8 or 16, not 12"),
            (["--pictures", 5, "--batch", 6], 1, "a batch at most all pictures"),
            (["--learning-rate", 0], 2, "0.0 is no positive number"),
            (["--learning-rate", "nan"], 2, "nan is no positive number"),
            (["--learning-rate", "inf"], 2, "inf is no positive number"),
            (["--epochs", 0], 2, "epochs"),
            (["--device", "cuda:77"], 2, "Error: --device cuda:77: not on this machine"),
        ],
    )
    def test_what_is_refused(self, call, tmp_path, arguments, status, message):
        result = call("train", "alexnet", *FEW_SINGLE, "--out", tmp_path / "x.safetensors", *arguments)
        assert (result.exit_code, result.stdout) == (status, "")
        assert message in " ".join(result.stderr.split())
        assert not list(tmp_path.iterdir())


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
        assert result.stdout.endswith(f"written to {out}; `minircnn evaluate rcnn` tells how good it is\n")
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
                ["--from-scratch", "--network", "x.safetensors", "--pictures", 1],
                2,
                "Error: --network and --from-scratch: these exclude",
            ),
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
        assert f"{detector}: its JSON does not describe an AlexNet" in result.stderr

    def test_without_the_projects_weights_the_command_that_trains_them_is_named(self, call, tmp_path, monkeypatch):
        monkeypatch.setattr("minircnn.alexnet.SMALL_WEIGHTS", tmp_path / "none.safetensors")
        result = call("train", "rcnn", "--pictures", FEW, "--out", tmp_path / "x.safetensors")
        assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)
        assert "none.safetensors: not there; train it with `minircnn train alexnet`" in result.stderr


@pytest.mark.parametrize("command", ["alexnet", "rcnn"])
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
    few = FEW_SINGLE if command == "alexnet" else FEW_SCENES
    result = call("train", command, *few, "--out", out)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.rstrip().endswith(message)
    assert not list(tmp_path.iterdir())


def test_commands_name_files_of_the_project_by_their_place_in_it():
    assert _named(WEIGHTS_FOLDER / "rcnn.safetensors") == "data/weights/rcnn.safetensors"
    assert _named(WEIGHTS_FOLDER.parent.parent.parent / "rcnn.safetensors") == "rcnn.safetensors"


@pytest.mark.parametrize(
    ("command", "options", "constant"),
    [
        ("alexnet", ["--pictures", 16, "--val-pictures", 8, "--epochs", 1, "--batch", 16], "SMALL_WEIGHTS"),
        (
            "alexnet",
            ["--pictures", 16, "--val-pictures", 8, "--epochs", 1, "--batch", 16, "--stride", 16],
            "SMALL_STRIDE_16_WEIGHTS",
        ),
    ],
)
def test_where_networks_are_written_by_default(call, tmp_path, monkeypatch, command, options, constant):
    for name in ("SMALL_WEIGHTS", "SMALL_STRIDE_16_WEIGHTS"):
        monkeypatch.setattr(f"minircnn.alexnet.{name}", tmp_path / "weights" / f"{name}.safetensors")
    assert call("train", command, *options).exit_code == 0
    names = sorted(path.name for path in (tmp_path / "weights").iterdir())
    assert names == [f"{constant}.json", f"{constant}.safetensors"]
