"""``minircnn train / evaluate / detect mask_rcnn`` against the same steps without the command line."""

import csv
import json
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as rle
from typer.main import get_command

from minircnn.alexnet import SMALL, AlexNet, load_alexnet, save_alexnet
from minircnn.cli import app
from minircnn.cli.drawing import make_drawing
from minircnn.datasets import ToyTown
from minircnn.datasets.images import read_image
from minircnn.datasets.toytown import DATA_FOLDER
from minircnn.evaluation import encode_masks, evaluate
from minircnn.faster_rcnn import RPNConfig
from minircnn.mask_rcnn import MaskRCNN, MaskRoIConfig, binary_masks, load_mask_rcnn, mask_rcnn_alexnet
from minircnn.shipped import DETECTOR_WEIGHTS
from minircnn.training import MaskRCNNTrainingSettings, train_mask_rcnn
from minircnn.weights import save
from tests.cli.conftest import lines_of
from tests.fast_rcnn.conftest import TINY

COUNT = 4


@pytest.fixture(scope="module")
def mask_detector(tmp_path_factory):
    """Random weights: no good, but sure of itself, also of pixels."""
    torch.manual_seed(1)
    rpn = RPNConfig(anchor_sizes=((20.0, 50.0),), pre_nms_top_n=(300, 300), post_nms_top_n=(80, 60))
    heads = MaskRoIConfig(pool_size=3, mask_channels=(8,))
    model = mask_rcnn_alexnet(AlexNet(TINY, 5), ToyTown("train").classes, rpn, heads)
    torch.nn.init.normal_(model.rpn.head.cls_logits.weight, std=3)
    torch.nn.init.normal_(model.roi_heads.box_predictor["cls_score"].weight, std=4)
    torch.nn.init.normal_(model.roi_heads.box_predictor["bbox_pred"].weight, std=2)
    torch.nn.init.normal_(model.roi_heads.mask_predictor.mask_fcn_logits.weight, std=4)
    path = tmp_path_factory.mktemp("detector") / "mask.safetensors"
    save(model, path, {})
    return path


def without_masks(found):
    return {name: value for name, value in found.items() if name != "masks"}


class TestEvaluate:
    def test_numbers_are_those_of_evaluate(self, call, tmp_path):
        """With the weights that come with the project: random ones find neither boxes nor masks."""
        data, model = ToyTown("val"), load_mask_rcnn()
        samples = [data[index] for index in range(COUNT)]
        found = [binary_masks(model.detect([image])[0]) for image, _ in samples]
        boxes, masks = (
            evaluate(found, [t for _, t in samples], classes=data.classes, kind=kind) for kind in ("boxes", "masks")
        )
        file = tmp_path / "x.json"
        options = ("--split", "val", "--pictures", COUNT, "--json", file)
        result = call("evaluate", "mask_rcnn", *options)
        assert result.exit_code == 0, result.output
        assert f"Mask R-CNN on 4 pictures, Toy Town's val split, boxes: {boxes}\n\n" in result.stdout
        assert f"Mask R-CNN on 4 pictures, Toy Town's val split, masks: {masks}\n\n" in result.stdout
        written = json.loads(file.read_text())
        assert (written["result"]["ap"], written["mask_result"]["ap"]) == (boxes.ap, masks.ap)
        assert boxes.ap != masks.ap
        assert written["detector"] == "mask_rcnn"

    def test_what_is_refused(self, call, fast_detector, tmp_path, monkeypatch):
        result = call("evaluate", "mask_rcnn", "--weights", fast_detector, "--pictures", 1)
        assert (result.exit_code, result.stdout) == (1, "")
        assert "holds fast_rcnn, not a Mask R-CNN" in result.stderr
        monkeypatch.setitem(DETECTOR_WEIGHTS, "mask_rcnn", tmp_path / "none.safetensors")
        result = call("evaluate", "mask_rcnn")
        assert "none.safetensors: not there; train it with `minircnn train mask_rcnn`" in result.stderr


class TestDetect:
    @pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools' own
    def test_lines_and_masks_are_those_of_the_detector(self, call, mask_detector, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        shutil.copy(DATA_FOLDER / "test" / "000001.jpg", "scene.jpg")
        options = ("--weights", mask_detector, "--threshold", 0.5, "--out", "x.png", "--json", "x.json")
        result = call("detect", "mask_rcnn", "scene.jpg", *options)
        assert result.exit_code == 0, result.output
        model = load_mask_rcnn(mask_detector)
        model.roi_heads.config = replace(model.roi_heads.config, score_threshold=0.5)
        found = binary_masks(model.detect([read_image(Path("scene.jpg"))])[0])
        assert len(found["scores"]) > 1 and 0 < found["masks"].float().mean() < 1
        assert result.stdout.splitlines() == [
            *lines_of("scene.jpg", found, model.classes),
            "written to x.png",
            "written to x.json",
        ]
        (record,) = json.loads(Path("x.json").read_text())["pictures"]
        decoded = [rle.decode(one["segmentation"]) for one in record["detections"]]
        assert np.array_equal(np.stack(decoded).astype(bool), found["masks"].numpy())

    def test_the_picture_shows_the_masks(self, call, mask_detector, tmp_path, monkeypatch):
        """Two runs that differ in nothing but the masks: the pixels of objects have another colour."""
        monkeypatch.chdir(tmp_path)
        shutil.copy(DATA_FOLDER / "test" / "000001.jpg", "scene.jpg")
        options = ("--weights", mask_detector, "--threshold", 0.5, "--out")
        assert call("detect", "mask_rcnn", "scene.jpg", *options, "with.png").exit_code == 0
        detect = MaskRCNN.detect_encoded
        monkeypatch.setattr(MaskRCNN, "detect_encoded", lambda *given: [without_masks(one) for one in detect(*given)])
        assert call("detect", "mask_rcnn", "scene.jpg", *options, "without.png").exit_code == 0
        shown, plain = (np.asarray(Image.open(name).convert("RGB"), dtype=int) for name in ("with.png", "without.png"))
        assert shown.shape == plain.shape and (np.abs(shown - plain).max(axis=2) > 20).mean() > 0.01

    def test_masks_shrink_and_grow_margins_with_their_picture(self):
        """A picture so wide that it is shrunk and gets a margin below: what it shows moves with it."""
        image = torch.zeros(3, 100, 2000)
        masks = torch.zeros(1, 100, 2000, dtype=torch.bool)
        masks[0, 20:60, 400:1200] = image[:, 20:60, 400:1200] = 1
        found = {"boxes": torch.tensor([[400.0, 20, 1200, 60]]), "labels": torch.tensor([1]), "masks": masks}
        drawing = make_drawing(Path("x.png"), image, found, 1000)
        of_runs = make_drawing(Path("x.png"), image, {**found, "masks": encode_masks(masks)}, 1000)
        assert torch.equal(of_runs.found["masks"], drawing.found["masks"])
        assert drawing.found["masks"].shape[1:] == drawing.pixels.shape[:2]
        white = torch.from_numpy((drawing.pixels[:50] > 127).all(axis=2))
        assert (white == drawing.found["masks"][0, :50]).float().mean() > 0.99
        assert not drawing.found["masks"][0, 50:].any()
        x1, y1, x2, y2 = drawing.found["boxes"][0].int().tolist()
        assert drawing.found["masks"][0, y1:y2, x1:x2].all() and drawing.found["masks"].sum() == (y2 - y1) * (x2 - x1)
        assert masks.shape == (1, 100, 2000), "what is given is not changed"


class TestTrain:
    ARGUMENTS = ("--pictures", 5, "--iterations", 2, "--min-size", 96)

    def test_the_file_is_that_of_the_same_training(self, call, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("minircnn.cli.train_jointly.VALIDATION_PICTURES", 2)
        torch.manual_seed(1)
        save_alexnet(AlexNet(SMALL, 18), Path("small.safetensors"), {})
        options = ("--network", "small.safetensors", "--seed", 4, "--out", "x.safetensors")
        result = call("train", "mask_rcnn", *self.ARGUMENTS, *options, "--csv", "x.csv", "--evaluate-every", 2)
        assert result.exit_code == 0, result.output
        data = ToyTown("train")
        settings = MaskRCNNTrainingSettings(2, min_size=96, seed=4)
        samples = [data[index] for index in range(5)]
        network = load_alexnet("small.safetensors")
        expected, history = train_mask_rcnn(network, samples, data.classes, settings, quiet=True)
        wanted = {name: value.half().float() for name, value in expected.state_dict().items()}
        torch.testing.assert_close(load_mask_rcnn("x.safetensors").state_dict(), wanted, atol=0, rtol=0)
        with Path("x.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert [bool(row["val_mask_ap50"]) for row in rows] == [False, True]
        for name in history[0]:
            assert [float(row[name]) for row in rows] == pytest.approx([row[name] for row in history], rel=1e-6)
        about, weights = json.loads(Path("x.json").read_text()), Path("x.safetensors").read_bytes()
        Path("x.safetensors").unlink()
        program, *words = shlex.split(about["command"])
        assert program == "minircnn" and call(*words).exit_code == 0
        assert Path("x.safetensors").read_bytes() == weights

    def test_defaults_are_those_of_the_settings(self):
        options = get_command(app).commands["train"].commands["mask_rcnn"].params
        stated = {o.name: str(o.show_default) for o in options if o.name in vars(MaskRCNNTrainingSettings())}
        stated.pop("mixed_precision")
        assert stated == {name: str(getattr(MaskRCNNTrainingSettings(), name)) for name in stated}
