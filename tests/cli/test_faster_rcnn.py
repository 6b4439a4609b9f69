"""``minircnn train / evaluate / detect faster_rcnn`` against the same steps without the command line."""

import csv
import json
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torchvision.ops import box_iou
from typer.main import get_command

from minircnn.alexnet import SMALL, AlexNet, load_alexnet, save_alexnet
from minircnn.cli import app
from minircnn.datasets import ToyTown
from minircnn.datasets.images import read_image
from minircnn.datasets.toytown import DATA_FOLDER
from minircnn.evaluation import evaluate
from minircnn.faster_rcnn import RPNConfig, faster_rcnn_alexnet, load_faster_rcnn
from minircnn.shipped import DETECTOR_WEIGHTS
from minircnn.training import FasterRCNNTrainingSettings, train_faster_rcnn
from minircnn.weights import save
from tests.cli.conftest import lines_of
from tests.fast_rcnn.conftest import TINY

COUNT = 5


@pytest.fixture(scope="module")
def faster_detector(tmp_path_factory):
    """Random weights: no good, but sure of itself."""
    torch.manual_seed(1)
    rpn = RPNConfig(anchor_sizes=((20.0, 50.0),), pre_nms_top_n=(300, 300), post_nms_top_n=(80, 60))
    model = faster_rcnn_alexnet(AlexNet(TINY, 5), ToyTown("train").classes, rpn)
    torch.nn.init.normal_(model.rpn.head.cls_logits.weight, std=3)
    torch.nn.init.normal_(model.roi_heads.box_predictor["cls_score"].weight, std=4)
    torch.nn.init.normal_(model.roi_heads.box_predictor["bbox_pred"].weight, std=2)
    path = tmp_path_factory.mktemp("detector") / "faster.safetensors"
    save(model, path, {})
    return path


class TestEvaluate:
    @pytest.mark.parametrize("split", ["test", "val"])
    def test_numbers_are_those_of_evaluate(self, call, faster_detector, tmp_path, split):
        data, model = ToyTown(split), load_faster_rcnn(faster_detector)
        samples = [data[index] for index in range(COUNT)]
        expected = evaluate(
            [model.detect([image])[0] for image, _ in samples], [t for _, t in samples], classes=data.classes
        )
        file = tmp_path / "x.json"
        options = ("--weights", faster_detector, "--split", split, "--pictures", COUNT, "--json", file)
        result = call("evaluate", "faster_rcnn", *options)
        assert result.exit_code == 0, result.output
        assert result.stdout.startswith(f"Faster R-CNN on 5 pictures, Toy Town's {split} split: {expected}\n\n")
        written = json.loads(file.read_text())
        assert written["result"]["ap50"] == expected.ap50
        recalls = {}
        for limit in (10, 50, 60):
            covered = [
                bool((box_iou(one[None], model.propose([image])[0]["boxes"][:limit]) >= 0.5).any())
                for image, target in samples
                for one in target["boxes"]
            ]
            recalls[str(limit)] = sum(covered) / len(covered)
        assert recalls["60"] > 0
        assert written["proposal_recall"] == {"iou": 0.5, "recall": pytest.approx(recalls)}
        shares = ", ".join(f"{limit}: {100 * recall:.1f} %" for limit, recall in recalls.items())
        assert f"recall of the first proposals at IoU 0.5: {shares}\n" in result.stdout
        assert re.search(r"seconds a picture: \d\.\d{3}; features and proposals alone: \d\.\d{3}\n", result.stdout)
        assert (written["detector"], written["pictures"], written["data"]) == ("faster_rcnn", 5, f"Toy Town, {split}")

    def test_what_is_refused(self, call, faster_detector, fast_detector, tmp_path, monkeypatch):
        result = call("evaluate", "faster_rcnn", "--weights", fast_detector, "--pictures", 1)
        assert (result.exit_code, result.stdout) == (1, "")
        assert "holds fast_rcnn, not a Faster R-CNN" in result.stderr
        result = call("evaluate", "faster_rcnn", "--weights", faster_detector, "--pictures", 201)
        assert (result.exit_code, result.stdout) == (2, "")
        monkeypatch.setitem(DETECTOR_WEIGHTS, "faster_rcnn", tmp_path / "none.safetensors")
        result = call("evaluate", "faster_rcnn")
        assert "none.safetensors: not there; train it with `minircnn train faster_rcnn`" in result.stderr


class TestDetect:
    @pytest.mark.parametrize("threshold", [0.5, 0.03])
    def test_lines_and_numbers_are_those_of_the_detector(self, call, faster_detector, tmp_path, monkeypatch, threshold):
        monkeypatch.chdir(tmp_path)
        shutil.copy(DATA_FOLDER / "test" / "000001.jpg", "scene.jpg")
        options = ("--weights", faster_detector, "--threshold", threshold, "--out", "x.png", "--json", "x.json")
        result = call("detect", "faster_rcnn", "scene.jpg", *options)
        assert result.exit_code == 0, result.output
        model = load_faster_rcnn(faster_detector)
        model.roi_heads.config = replace(model.roi_heads.config, score_threshold=threshold)
        (found,) = model.detect([read_image(Path("scene.jpg"))])
        assert len(found["scores"]) > 1
        assert result.stdout.splitlines() == [
            *lines_of("scene.jpg", found, model.classes),
            "written to x.png",
            "written to x.json",
        ]
        written = json.loads(Path("x.json").read_text())
        assert (written["detector"], written["threshold"]) == ("faster_rcnn", threshold)
        assert [one["label"] for one in written["pictures"][0]["detections"]] == found["labels"].tolist()
        assert Path("x.png").read_bytes().startswith(b"\x89PNG")

    def test_no_probability_is_refused(self, call, faster_detector, tmp_path):
        options = ("--weights", faster_detector, "--out", tmp_path / "x.png", "--threshold", 1.5)
        result = call("detect", "faster_rcnn", DATA_FOLDER / "test" / "000001.jpg", *options)
        assert result.exit_code == 2 and "1.5 is no probability" in result.stderr


class TestTrain:
    ARGUMENTS = ("--pictures", 6, "--iterations", 3, "--learning-rate", 0.002, "--min-size", 96)

    @pytest.fixture
    def network(self, tmp_path):
        torch.manual_seed(1)
        save_alexnet(AlexNet(SMALL, 18), tmp_path / "small.safetensors", {})
        return tmp_path / "small.safetensors"

    def test_the_file_is_that_of_the_same_training(self, call, network, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("minircnn.cli.train_jointly.VALIDATION_PICTURES", 3)
        options = ("--network", network, "--seed", 4, "--out", "x.safetensors")
        result = call("train", "faster_rcnn", *self.ARGUMENTS, *options, "--csv", "x.csv", "--evaluate-every", 2)
        assert result.exit_code == 0, result.output
        data = ToyTown("train")
        settings = FasterRCNNTrainingSettings(3, learning_rate=0.002, min_size=96, seed=4)
        samples = [data[index] for index in range(6)]
        expected, history = train_faster_rcnn(load_alexnet(network), samples, data.classes, settings, quiet=True)
        loaded = load_faster_rcnn("x.safetensors")
        wanted = {name: value.half().float() for name, value in expected.state_dict().items()}
        torch.testing.assert_close(loaded.state_dict(), wanted, atol=0, rtol=0)
        assert loaded.transform.min_size == 96
        with Path("x.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert [bool(row["val_ap50"]) for row in rows] == [False, True, True]
        for name in history[0]:
            assert [float(row[name]) for row in rows] == pytest.approx([row[name] for row in history], rel=1e-6)
        about, weights = json.loads(Path("x.json").read_text()), Path("x.safetensors").read_bytes()
        Path("x.safetensors").unlink()
        program, *words = shlex.split(about["command"])
        assert program == "minircnn" and call(*words).exit_code == 0
        assert Path("x.safetensors").read_bytes() == weights
        assert (
            "written to x.safetensors; `minircnn evaluate faster_rcnn --weights x.safetensors` tells" in result.stdout
        )

    def test_defaults_are_those_of_the_settings(self):
        options = get_command(app).commands["train"].commands["faster_rcnn"].params
        stated = {o.name: str(o.show_default) for o in options if o.name in vars(FasterRCNNTrainingSettings())}
        stated.pop("mixed_precision")
        assert stated == {name: str(getattr(FasterRCNNTrainingSettings(), name)) for name in stated}
        assert set(vars(FasterRCNNTrainingSettings())) - set(stated) == {
            *("backbone_lr_mult", "color_jitter", "scale_jitter", "mixed_precision")
        }

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--mixed-precision"], "--mixed-precision: needs an NVIDIA GPU"),
            (["--images-per-batch", 7], "--images-per-batch 7: there are only 6 pictures"),
            (["--schedule", "linear"], "Invalid value for '--schedule'"),
        ],
    )
    def test_what_is_refused(self, call, tmp_path, arguments, message):
        out = tmp_path / "x.safetensors"
        result = call("train", "faster_rcnn", *self.ARGUMENTS, "--from-scratch", "--out", out, *arguments)
        assert result.exit_code != 0 and result.stdout == ""
        assert message in " ".join(result.stderr.split())
        assert not list(tmp_path.iterdir())
