"""``minircnn detect PICTURE --weights coco``: the published detectors, from the command line."""

import hashlib
import json

import pytest
import torch
from PIL import Image
from torchvision.models.detection import fasterrcnn_resnet50_fpn, maskrcnn_resnet50_fpn
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNPredictor

import minircnn.mask_rcnn as ours
from minircnn import published
from minircnn.datasets.images import read_image

BUILD = {"mask_rcnn": maskrcnn_resnet50_fpn, "faster_rcnn": fasterrcnn_resnet50_fpn}
NAME = {"mask_rcnn": "MASK_RCNN_COCO", "faster_rcnn": "FASTER_RCNN_COCO"}


@pytest.fixture
def picture(tmp_path):
    """A small one, so that what it is enlarged to is not wide."""
    path = tmp_path / "photo.png"
    pixels = torch.nn.functional.interpolate(torch.rand(1, 3, 5, 4), size=(50, 40))[0].mul(255).byte()
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(path)
    return path


def random_file(kind, folder):
    """Torchvision's weights, random, whose classifier is sure of the 18th class: a dog."""
    torch.manual_seed(0)
    model = BUILD[kind](weights=None, weights_backbone=None)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_var.fill_(6.0)
    with torch.no_grad():
        model.roi_heads.box_predictor.cls_score.bias[18] = 8.0
    path = folder / f"{kind}.pth"
    torch.save(model.state_dict(), path)
    return path


@pytest.mark.parametrize("kind", ["mask_rcnn", "faster_rcnn"])
def test_finds_what_the_published_detector_finds(call, kind, picture, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = random_file(kind, tmp_path)
    checksum = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    monkeypatch.setattr(published, NAME[kind], published.Published(path.as_uri(), checksum, "170 MB"))
    command = ["detect", *([] if kind == "mask_rcnn" else [kind])]  # mask_rcnn is what `detect` means
    result = call(*command, picture, "--weights", "coco", "--json", "found.json")
    assert result.exit_code == 0, result.output
    (record,) = json.loads((tmp_path / "found.json").read_text())["pictures"]
    build = {"mask_rcnn": ours.maskrcnn_resnet50_fpn, "faster_rcnn": ours.fasterrcnn_resnet50_fpn}[kind]
    (wanted,) = build(weights="coco").detect([read_image(picture)])
    sure = wanted["scores"] > 0.5
    assert 0 < int(sure.sum()) == len(record["detections"])
    for found, label, score, box in zip(
        record["detections"], *(wanted[name][sure].tolist() for name in ("labels", "scores", "boxes")), strict=True
    ):
        assert (found["label"], found["score"], found["box"]) == (label, score, box)
        assert label == 18 and found["class"] == "dog" and ("segmentation" in found) == (kind == "mask_rcnn")
    assert "dog" in result.output and "written to detections.png" in result.output
    with Image.open(tmp_path / "detections.png") as drawn:
        assert drawn.size[0] >= 40


def test_a_file_of_torchvisions(call, picture, tmp_path):
    path = random_file("mask_rcnn", tmp_path)
    result = call("detect", picture, "--weights", path, "--out", tmp_path / "x.png")
    assert result.exit_code == 0 and ": dog " in result.output
    result = call("detect", "faster_rcnn", picture, "--weights", path, "--out", tmp_path / "x.png")
    assert result.exit_code == 1 and f"{path}: holds a Mask R-CNN, not a Faster R-CNN; use it as" in result.output


@pytest.fixture(scope="module")
def two_classes(tmp_path_factory):
    """A file that torchvision's tutorial makes, with a narrower mask predictor; it sees pedestrians everywhere."""
    torch.manual_seed(0)
    model = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None)
    heads = model.roi_heads
    heads.box_predictor = FastRCNNPredictor(heads.box_predictor.cls_score.in_features, 2)
    heads.mask_predictor = MaskRCNNPredictor(heads.mask_predictor.conv5_mask.in_channels, 64, 2)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_var.fill_(6.0)
    with torch.no_grad():
        heads.box_predictor.cls_score.bias[1] = 8.0
    path = tmp_path_factory.mktemp("own") / "two.pth"
    torch.save({"model": model.state_dict()}, path)
    return path


def test_classes_of_a_file_of_ones_own(call, picture, two_classes, tmp_path, monkeypatch):
    """Never an answer from layers that were drawn at random."""
    monkeypatch.chdir(tmp_path)
    for options in ((), ("--classes", "pedestrian")):
        result = call("detect", picture, "--weights", two_classes, *options)
        (line,) = result.stderr.strip().splitlines()
        assert result.exit_code == 1 and not (tmp_path / "detections.png").exists()
        assert line.startswith(f"Error: {two_classes}: has 2 classes") and "--classes background,NAME" in line
    result = call("detect", picture, "--weights", two_classes, "--classes", "background, pedestrian")
    assert result.exit_code == 0 and ": pedestrian 1.00 at " in result.stdout, result.output


def test_our_files_name_their_classes(call, picture, tmp_path):
    result = call("detect", picture, "--classes", "background,cat", "--out", tmp_path / "x.png")
    assert result.exit_code == 2 and "mask_rcnn.safetensors names its classes: background, person" in result.stderr


def test_evaluate_takes_the_same_files(call, two_classes, tmp_path):
    """One image with one pedestrian, who fills it, and a data set that also knows dogs."""
    Image.new("RGB", (40, 50), "red").save(tmp_path / "1.png")
    box = {"id": 1, "image_id": 1, "bbox": [0, 0, 40, 50], "area": 2000, "segmentation": [[0, 0, 40, 0, 40, 50, 0, 50]]}
    data = {
        "images": [{"id": 1, "file_name": "1.png", "width": 40, "height": 50}],
        "annotations": [{**box, "category_id": 2, "iscrowd": 0}],
        "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "pedestrian"}],
    }
    (tmp_path / "a.json").write_text(json.dumps(data))
    own = ("--data", "coco", "--root", tmp_path, "--annotations", tmp_path / "a.json", "--split", "all")
    command = ("evaluate", "mask_rcnn", "--weights", two_classes, *own)
    result = call(*command)
    assert result.exit_code == 1 and "has 2 classes" in result.stderr and "--classes background,NAME" in result.stderr
    result = call(*command, "--classes", "background,pedestrian", "--json", tmp_path / "r.json")
    assert result.exit_code == 0, result.output
    assert "not measured, because the detector does not know them: dog" in result.stdout
    (row,) = json.loads((tmp_path / "r.json").read_text())["result"]["classes"]
    assert row["name"] == "pedestrian" and row["objects"] == 1
    result = call("evaluate", "mask_rcnn", *own, "--classes", "background,dog")
    assert result.exit_code == 2 and "names its classes" in result.stderr


def test_offline_one_line(call, picture, tmp_path, monkeypatch):
    def nobody(*_, **__):
        raise OSError("no such host")

    monkeypatch.setattr("torch.hub.download_url_to_file", nobody)
    result = call("detect", picture, "--weights", "coco", "--out", tmp_path / "x.png")
    (line,) = result.stderr.strip().splitlines()
    assert result.exit_code == 1 and line.startswith("Error: could not fetch https://download.pytorch.org/models/mask")
    assert not (tmp_path / "x.png").exists()


def test_the_older_detectors_have_no_published_weights(call, picture, tmp_path):
    for kind in ("rcnn", "fast_rcnn"):
        result = call("detect", kind, picture, "--weights", "coco", "--out", tmp_path / "x.png")
        assert result.exit_code == 1 and "coco: there is no such file" in result.output
        torch.save({"a": torch.zeros(1)}, tmp_path / "w.pth")
        result = call("detect", kind, picture, "--weights", tmp_path / "w.pth")
        assert result.exit_code == 1 and "w.pth: only .safetensors files of this project's own" in result.stderr


def test_options_may_come_first(call, picture, tmp_path):
    """With the weights that come with the project."""
    result = call("detect", "--out", tmp_path / "x.png", picture)
    assert result.exit_code == 0 and (tmp_path / "x.png").is_file()
    named = call("detect", "mask_rcnn", picture, "--out", tmp_path / "y.png")
    assert named.output == result.output.replace("x.png", "y.png")


def test_help_is_that_of_the_group(call):
    for arguments in ((), ("--help",)):
        output = call("detect", *arguments).output
        assert "mask_rcnn" in output and "rcnn" in output and "COMMAND" in output
