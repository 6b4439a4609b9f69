"""``minircnn detect`` against detectors called directly, with every kind of image that users have."""

import hashlib
import json
import os
import shutil
import string
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import safetensors.torch
import torch
import typer
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as rle
from torchvision.models.detection import maskrcnn_resnet50_fpn
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNPredictor

from minircnn import published
from minircnn.cli.detect import LONGEST_SIDE, detect_all, distinct_stems, find_images, make_plan
from minircnn.datasets.images import read_image
from minircnn.evaluation import encode_masks
from minircnn.mask_rcnn import binary_masks
from minircnn.plotting import GRID_SIDE, make_drawing
from minircnn.rcnn import load_rcnn
from minircnn.shipped import DETECTOR_WEIGHTS
from minircnn.weights import load_weights, save_weights
from tests.cli.conftest import FEW, IMAGE, LOAD, ON_PROPOSALS, directly

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools' own
NOTHING = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64), "scores": torch.zeros(0)}


@pytest.fixture
def detect(call, files):
    def run(name, *arguments):
        figures = plt.get_fignums()
        few = ("--max-proposals", FEW) if name in ON_PROPOSALS else ()
        result = call("detect", name, "--weights", files[name], *few, *arguments)
        assert plt.get_fignums() == figures, "figures are closed"
        return result

    return run


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working folder with images of all kinds; their names have blanks and letters of several scripts."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(IMAGE, "street scene.jpg")
    shutil.copy(IMAGE.with_name("000002.jpg"), "日本 $x_1$ ü.jpg")
    (tmp_path / "kinds").mkdir()
    with Image.open(IMAGE.with_name("000003.jpg")) as file:
        town = file.convert("RGB")
    for mode in ("L", "RGBA", "P"):
        town.convert(mode).save(f"kinds/{mode}.png")
    town.convert("CMYK").save("kinds/CMYK.jpg")
    Image.fromarray(np.asarray(town.convert("L")).astype(np.uint16) * 257).save("kinds/sixteen.png")
    town.save("kinds/moving.gif", save_all=True, append_images=[Image.new("RGB", town.size)])
    exif = Image.Exif()
    exif[0x0112] = 8
    town.crop((0, 0, 128, 60)).save("kinds/turned.jpg", exif=exif)
    return tmp_path


def size_of(path):
    with Image.open(path) as file:
        file.load()
        assert file.format == "PNG"
        return file.size


def assert_same(record, found):
    assert [row["label"] for row in record["detections"]] == found["labels"].tolist()
    torch.testing.assert_close(torch.tensor([row["score"] for row in record["detections"]]), found["scores"])
    boxes = torch.tensor([row["box"] for row in record["detections"]]).reshape(-1, 4)
    torch.testing.assert_close(boxes, found["boxes"])


# ------------------------------------------------------------------------------------------------------ what is found


@pytest.mark.parametrize(
    ("name", "options", "threshold"),
    [
        *[(name, (), 0.0 if name == "rcnn" else 0.5) for name in LOAD],
        *[("rcnn", ("--threshold", -5), -5.0), ("fast_rcnn", ("--threshold", 0.03), 0.03)],
    ],
)
def test_lines_and_json_are_what_the_detector_finds(detect, files, place, name, options, threshold):
    """Thresholds count, also where they are below the detector's own."""
    result = detect(name, "street scene.jpg", "--out", "x.png", "--json", "x.json", *options)
    assert result.exit_code == 0, result.output
    found = directly(name, files[name], read_image(Path("street scene.jpg")), threshold)
    classes = LOAD[name](files[name]).classes
    rows = zip(found["labels"].tolist(), found["scores"].tolist(), found["boxes"].tolist(), strict=True)
    assert len(found["scores"]) > 1 and result.stdout.splitlines() == [
        *[f"street scene.jpg: {classes[k]} {s:.2f} at {' '.join(f'{edge:.1f}' for edge in box)}" for k, s, box in rows],
        *["written to x.png", "written to x.json"],
    ]
    written = json.loads(Path("x.json").read_text())
    (record,) = written.pop("images")
    assert_same(record, found)
    assert record.items() >= {"image": "street scene.jpg", "height": 128, "width": 128, "png": "x.png"}.items()
    assert [row["class"] for row in record["detections"]] == [classes[label] for label in found["labels"]]
    about = {"detector": name, "weights": str(files[name]), "threshold": threshold, "skipped": []}
    assert written == about | ({"max_proposals": FEW} if name in ON_PROPOSALS else {})
    if name == "mask_rcnn":
        decoded = np.stack([rle.decode(one["segmentation"]) for one in record["detections"]]).astype(bool)
        assert np.array_equal(decoded, binary_masks(found)["masks"].numpy()) and 0 < decoded.mean() < 1


def test_mask_rcnn_of_the_project_by_default_and_options_may_come_first(call, place):
    assert call("detect", "--json", "x.json", "--out", "x.png", "street scene.jpg").exit_code == 0
    written = json.loads(Path("x.json").read_text())
    assert (written["detector"], written["weights"]) == ("mask_rcnn", str(DETECTOR_WEIGHTS["mask_rcnn"]))
    found = directly("mask_rcnn", DETECTOR_WEIGHTS["mask_rcnn"], read_image(Path("street scene.jpg")), 0.5)
    assert_same(written["images"][0], found)


def test_three_hundred_proposals_by_default(call, files, place, monkeypatch):
    monkeypatch.setitem(DETECTOR_WEIGHTS, "fast_rcnn", files["fast_rcnn"])
    assert call("detect", "fast_rcnn", "street scene.jpg", "--out", "x.png", "--json", "x.json").exit_code == 0
    written = json.loads(Path("x.json").read_text())
    assert written["max_proposals"] == 300
    image = read_image(Path("street scene.jpg"))
    assert_same(written["images"][0], directly("fast_rcnn", files["fast_rcnn"], image, 0.5, 300))


def test_all_kinds_of_images_and_photographs(detect, files, place, real_data):
    photographs = sorted((real_data / "coco-mini" / "images").glob("*.jpg"))[:1]
    result = detect("fast_rcnn", "kinds", *photographs, "--out", "out", "--json", "x.json")
    assert result.exit_code == 0, result.output
    records = json.loads(Path("x.json").read_text())["images"]
    expected = ["CMYK.jpg", "L.png", "P.png", "RGBA.png", "moving.gif", "sixteen.png", "turned.jpg"]
    assert [Path(record["image"]).name for record in records] == [*expected, photographs[0].name]
    for record in records:
        image = read_image(Path(record["image"]))
        assert (record["height"], record["width"]) == tuple(image.shape[1:])
        assert_same(record, directly("fast_rcnn", files["fast_rcnn"], image, 0.5))
        assert record["png"] == str(Path("out", Path(record["image"]).stem + ".png")) and size_of(record["png"])
    by_name = {Path(record["image"]).stem: record for record in records}
    assert (by_name["turned"]["height"], by_name["turned"]["width"]) == (128, 60), "upright"
    assert by_name["L"]["detections"] == by_name["sixteen"]["detections"] != by_name["RGBA"]["detections"]


@pytest.mark.parametrize("size", [(1, 1), (700, 3)])
def test_odd_shapes(detect, place, size):
    Image.new("RGB", size, "#4080c0").save("odd.png")
    assert detect("fast_rcnn", "odd.png", "--out", "x.png", "--threshold", 0).exit_code == 0
    assert min(size_of("x.png")) > 80, "there is room to read the labels"
    assert detect("fast_rcnn", "odd.png", "street scene.jpg", "--out", "y.png", "--threshold", 0).exit_code == 0


# ------------------------------------------------------------------------------------------------- what is written


def test_one_png_for_several_is_a_grid(detect, place):
    result = detect("fast_rcnn", "street scene.jpg", "日本 $x_1$ ü.jpg", "kinds", "--out", "grid.png")
    assert result.exit_code == 0, result.output
    assert "日本 $x_1$ ü.jpg: " in result.stdout
    width, height = size_of("grid.png")
    assert width == 900  # three columns of three inches
    assert 1290 < height < 1450  # two rows of squares and one of the turned image, 60 pixels by 128; names
    assert not list(place.glob("*.part"))


def test_folder_gets_a_png_for_each_and_none_is_lost(detect, place):
    (place / "again").mkdir()
    shutil.copy(IMAGE.with_name("000004.jpg"), "again/street scene.jpg")
    shutil.copy(IMAGE.with_name("000004.jpg"), "again/Street Scene.png")
    result = detect("fast_rcnn", "street scene.jpg", "again", "--out", "out", "--json", "x.json")
    assert result.exit_code == 0, result.output
    names = ["street scene.png", "Street Scene_2.png", "street scene_3.png"]
    assert sorted(path.name for path in (place / "out").iterdir()) == sorted(names)
    records = json.loads(Path("x.json").read_text())["images"]
    assert [record["png"] for record in records] == [str(Path("out", name)) for name in names]
    pngs = [Path(record["png"]).read_bytes() for record in records]
    assert pngs[1] == pngs[2] != pngs[0], "the last two show the same image"


def test_the_pngs_show_the_images_with_their_boxes_and_masks(call, detect, place):
    """Where no box lies, the drawn image has the colors of the file; along each box, and in masks, it has others."""
    result = detect("rcnn", "street scene.jpg", "--out", "plain.png", "--threshold", 100)
    assert result.stdout.splitlines()[0] == "street scene.jpg: nothing found"
    command = ("detect", "street scene.jpg", "--out", "x.png", "--json", "x.json")
    assert call(*command).exit_code == 0
    plain, marked = (np.asarray(Image.open(name).convert("RGB")).astype(float) for name in ("plain.png", "x.png"))
    with Image.open("street scene.jpg") as file:
        town = np.asarray(file.convert("RGB").resize((32, 32), Image.Resampling.BOX)).astype(float)
    below_title = Image.fromarray(plain[-plain.shape[1] :].astype(np.uint8))
    small = np.asarray(below_title.resize((32, 32), Image.Resampling.BOX)).astype(float)
    assert np.abs(small - town)[1:-1, 1:-1].mean() < 6
    assert marked.shape[0] == marked.shape[1] == 600
    rows = json.loads(Path("x.json").read_text())["images"][0]["detections"]
    for row in rows:
        _, y1, x2, y2 = (2 + value * 596 / 128 for value in row["box"])
        middle = marked[int((y1 + y2) / 2), max(int(x2) - 4, 0) : int(x2) + 4]  # across the right side
        assert np.ptp(middle, axis=0).max() > 60
    mask = rle.decode(rows[0]["segmentation"]).astype(bool)
    ys, xs = ((2 + (place + 0.5) * 596 / 128).astype(int) for place in np.nonzero(mask))
    assert (np.abs(marked - plain[-600:])[ys, xs].max(axis=1) > 20).mean() > 0.5


def test_masks_and_boxes_shrink_with_their_image_and_what_is_slim_gets_a_margin():
    """An image so wide that it is shrunk and gets a margin below: what it shows moves with it."""
    image, masks = torch.zeros(3, 100, 2000), torch.zeros(1, 100, 2000, dtype=torch.bool)
    masks[0, 20:60, 400:1200] = image[:, 20:60, 400:1200] = 1
    found = {"boxes": torch.tensor([[400.0, 20, 1200, 60]]), "labels": torch.tensor([1]), "masks": masks}
    drawing = make_drawing(image, found, LONGEST_SIDE)
    of_runs = make_drawing(image, {**found, "masks": encode_masks(masks)}, LONGEST_SIDE)
    assert torch.equal(of_runs.found["masks"], drawing.found["masks"])
    assert drawing.found["masks"].shape[1:] == drawing.pixels.shape[:2] == (125, 1000)
    white = torch.from_numpy((drawing.pixels[:50] > 127).all(axis=2))
    assert (white == drawing.found["masks"][0, :50]).float().mean() > 0.99
    assert (drawing.pixels[50:] == 255).all() and not drawing.found["masks"][0, 50:].any()
    assert drawing.found["boxes"].tolist() == [[200, 10, 600, 30]] and drawing.found["masks"].sum() == 400 * 20
    assert found["boxes"].tolist() == [[400, 20, 1200, 60]] and masks.shape == (1, 100, 2000), "not changed"
    assert make_drawing(image, found, GRID_SIDE).pixels.shape == (57, 450, 3)


# ------------------------------------------------------------------------------------------------- what goes wrong


def test_bad_files_are_named_and_the_others_go_on(detect, files, place):
    Path("text.jpg").write_text("this is no image")
    Path("cut.jpg").write_bytes(IMAGE.read_bytes()[:2000])
    Path("nothing.png").write_bytes(b"")
    (place / "empty").mkdir()
    bad = ["text.jpg", "missing.jpg", "cut.jpg", "nothing.png", "empty"]
    result = detect("fast_rcnn", *bad[:2], "street scene.jpg", *bad[2:], "--out", "out", "--json", "x.json")
    assert result.exit_code == 1
    lines = result.stderr.splitlines()
    assert sorted(line.split(": skipped: ")[0] for line in lines) == sorted(bad)
    assert all(line.count(line.split(":")[0]) == 1 for line in lines), "names come once"
    assert sum("cannot be decoded" in line for line in lines) == 3
    assert result.stdout.splitlines()[-2:] == ["written to out", "written to x.json"]
    assert [path.name for path in (place / "out").iterdir()] == ["street scene.png"]
    written = json.loads(Path("x.json").read_text())
    assert {entry["image"] for entry in written["skipped"]} == set(bad) and len(written["images"]) == 1
    before = sorted(place.rglob("*"))
    for out in ("x.png", "new"):
        result = detect("fast_rcnn", "text.jpg", "missing.jpg", "--out", out)
        assert (result.exit_code, result.stdout, len(result.stderr.splitlines())) == (1, "", 2)
    assert sorted(place.rglob("*")) == before, "nothing is written when nothing can be read"


HUGE = 10**15  # bytes that no machine has


@pytest.mark.parametrize(
    ("hungry", "out"),
    [(lambda: bytearray(HUGE), "x.png"), (lambda: np.zeros(HUGE), "out"), (lambda: torch.zeros(HUGE), "x.png")],
)
def test_an_image_without_enough_memory_leaves_the_others_their_results(place, capsys, hungry, out):
    """The errors are those that Python, NumPy and PyTorch raise themselves; an image may also vanish in between."""
    Image.new("RGB", (7, 3)).save("slim.png")
    shutil.copy(IMAGE, "gone.jpg")
    names = ["kinds/L.png", "slim.png", "gone.jpg", "street scene.jpg"]
    plan = make_plan([Path(name) for name in names], Path(out), Path("x.json"))
    Path("gone.jpg").unlink()
    with pytest.raises(typer.Exit) as ended:
        detect_all(plan, lambda image: hungry() if image.shape[2] == 7 else NOTHING, ["background"], {})
    assert ended.value.exit_code == 1
    slim, gone = capsys.readouterr().err.splitlines()
    assert slim.startswith("slim.png: skipped: there is not enough memory")
    assert gone == "gone.jpg: skipped: there is no such image; check the path"
    written = json.loads(Path("x.json").read_text())
    assert [entry["image"] for entry in written["images"]] == [str(Path("kinds/L.png")), "street scene.jpg"]
    assert [entry["image"] for entry in written["skipped"]] == ["slim.png", "gone.jpg"]
    assert all(Path(entry["png"]).exists() for entry in written["images"])


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="here every file may be read")
def test_a_file_that_may_not_be_read_is_named(detect, place):
    Path("secret.jpg").write_bytes(IMAGE.read_bytes())
    Path("secret.jpg").chmod(0)
    result = detect("fast_rcnn", "secret.jpg", "street scene.jpg", "--out", "x.png")
    assert result.exit_code == 1
    assert result.stderr.splitlines() == ["secret.jpg: skipped: may not be read; change its permissions"]


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("rcnn", ["--threshold", "nan"], "Error: --threshold nan: this is no number"),
        *[("fast_rcnn", ["--threshold", x], "no probability, from 0 to 1") for x in ("-0.01", "1.01")],
        ("fast_rcnn", ["--device", "cuda:77"], "Error: --device cuda:77: not on this machine"),
        ("fast_rcnn", ["--max-proposals", "0"], "max-proposals"),
        ("fast_rcnn", ["--classes", "background,cat"], "names its classes: background, person"),
    ],
)
def test_what_is_refused_before_any_work(detect, place, name, arguments, message):
    before = sorted(place.rglob("*"))
    result = detect(name, "kinds", "--out", "x.png", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in " ".join(result.stderr.split())
    assert sorted(place.rglob("*")) == before


def test_weights_that_are_missing_damaged_or_of_another_detector(call, files, place, monkeypatch, tmp_path):
    def refused(name, *arguments):
        result = call("detect", name, "street scene.jpg", "--out", "x.png", *arguments)
        assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1) and not Path("x.png").exists()
        return result.stderr

    monkeypatch.setitem(DETECTOR_WEIGHTS, "rcnn", tmp_path / "none.safetensors")
    wanted = f"Error: {tmp_path / 'none.safetensors'}: not there; train it with `minircnn train rcnn`"
    assert refused("rcnn").startswith(wanted)
    assert "--weights absent.safetensors: there is no such file" in refused("rcnn", "--weights", "absent.safetensors")
    shutil.copy(files["rcnn"], "alone.safetensors")
    assert "alone.json" in refused("rcnn", "--weights", "alone.safetensors")
    shutil.copy(files["rcnn"].with_suffix(".json"), "alone.json")
    Path("alone.safetensors").write_bytes(files["rcnn"].read_bytes()[:-9])
    assert refused("rcnn", "--weights", "alone.safetensors").startswith("Error: alone.safetensors: damaged")
    for name, other in zip(LOAD, reversed(LOAD), strict=True):
        assert str(files[other]) in refused(name, "--weights", files[other])
    model = load_rcnn(files["rcnn"])
    model.network.classifier.fc6.bias.data[0] = torch.nan
    content = safetensors.torch.save(model.state_dict())  # the project's own function would refuse to write this
    Path("nan.safetensors").write_bytes(content)
    record = {**load_weights(files["rcnn"])[1], "sha256": hashlib.sha256(content).hexdigest()}
    Path("nan.json").write_text(json.dumps(record))
    assert "network.classifier.fc6.bias holds nan or infinity" in refused("rcnn", "--weights", "nan.safetensors")


def test_names_from_files_do_nothing_to_a_terminal(call, files, place, tmp_path):
    """Class and tensor names that erase the screen, turn the text, or write a line that looks like another."""
    tensors, about = load_weights(files["rcnn"])
    names = ["background", *(f"a\x1b[2J\u202e\nError: {letter}" for letter in "bcdefg")]
    save_weights(tmp_path / "odd.safetensors", tensors, {**about, "classes": names})
    command = ("detect", "rcnn", "street scene.jpg", "--out", tmp_path / "x.png", "--max-proposals", FEW, "--weights")
    result = call(*command, tmp_path / "odd.safetensors")
    lines = result.stdout.splitlines()
    assert result.exit_code == 0 and len(lines) > 1 and all(line.isprintable() for line in lines)
    assert all(line.startswith("street scene.jpg: a?[2J??Error: ") for line in lines[:-1])
    save_weights(tmp_path / "odd.safetensors", {**tensors, "b\x1b[31m\nx": torch.zeros(1)}, about)
    (line,) = call(*command, tmp_path / "odd.safetensors").stderr.splitlines()
    assert line.endswith("odd.safetensors: weights for another network: b?[31m?x is not in the network")


# --------------------------------------------------------------------------------------------- which files are meant


def touch(*paths):
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"no image, but nobody looks yet")
    return list(paths)


def test_files_that_are_meant(tmp_path):
    """Of a folder by suffix and name; named ones need no suffix, and come in the order given, each once."""
    wanted = touch(*(tmp_path / "f" / name for name in ("10.PNG", "9.jpeg", "b c.gif", "ü.webp")))
    touch(*(tmp_path / "f" / name for name in ("notes.txt", ".hidden.png", "png", "x.json", "z.png.part")))
    touch(tmp_path / "f" / "inner.png" / "deep.png")
    assert find_images([tmp_path / "f"]) == (wanted, [])
    b, a, odd = touch(tmp_path / "b.png", tmp_path / "a.png", tmp_path / "odd")
    assert find_images([b, odd, tmp_path, tmp_path / "." / "b.png"]) == ([b, odd, a], [])
    (tmp_path / "empty").mkdir()
    images, skipped = find_images([tmp_path / "empty", b, tmp_path / "none.png", tmp_path / ("x" * 300)])
    assert images == [b] and [path.name for path, _ in skipped] == ["empty", "none.png", "x" * 300]
    assert "no images in this folder" in skipped[0][1] and "no such file" in skipped[1][1] and skipped[2][1]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    assert find_images([tmp_path / "pipe.png"]) == ([], [(tmp_path / "pipe.png", "neither a file nor a folder")])


names = st.text(string.ascii_letters[:2] + "AB_2", min_size=1, max_size=4)


@given(st.lists(st.tuples(names, st.sampled_from([".png", ".jpg"]))))
def test_no_two_images_share_a_name_and_the_first_keeps_its_own(entries):
    paths = [Path(stem + suffix) for stem, suffix in entries]
    found = distinct_stems(paths)
    assert len({name.lower() for name in found}) == len(found) == len(paths)
    for index, (path, name) in enumerate(zip(paths, found, strict=True)):
        assert name.startswith(path.stem)
        if path.stem.lower() not in {earlier.lower() for earlier in found[:index]}:
            assert name == path.stem


# ------------------------------------------------------------------------------------------- the published detectors


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    """A small one, so that what it is enlarged to is not wide."""
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    torch.manual_seed(0)
    pixels = torch.nn.functional.interpolate(torch.rand(1, 3, 5, 4), size=(50, 40))[0].mul(255).byte()
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(path)
    return path


def torchvisions(sure_of):
    """Torchvision's Mask R-CNN, random, whose classifier is sure of one class."""
    torch.manual_seed(0)
    model = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None)
    if sure_of == 1:  # two classes, as torchvision's tutorial makes them, with a narrower mask predictor
        heads = model.roi_heads
        heads.box_predictor = FastRCNNPredictor(heads.box_predictor.cls_score.in_features, 2)
        heads.mask_predictor = MaskRCNNPredictor(heads.mask_predictor.conv5_mask.in_channels, 64, 2)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_var.fill_(6.0)
    with torch.no_grad():
        model.roi_heads.box_predictor.cls_score.bias[sure_of] = 8.0
    return model.state_dict()


def test_finds_what_the_published_detector_finds(call, photo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(torchvisions(sure_of=18), "coco.pth")
    checksum = hashlib.sha256(Path("coco.pth").read_bytes()).hexdigest()[:8]
    source = published.Published((tmp_path / "coco.pth").as_uri(), checksum, "170 MB")
    monkeypatch.setattr(published, "MASK_RCNN_COCO", source)
    result = call("detect", photo, "--weights", "coco", "--json", "found.json")
    assert result.exit_code == 0, result.output
    (record,) = json.loads((tmp_path / "found.json").read_text())["images"]
    (wanted,) = published.maskrcnn_resnet50_fpn(weights="coco").detect([read_image(photo)])
    sure = wanted["scores"] > 0.5
    assert int(sure.sum()) > 0
    assert_same(record, {name: wanted[name][sure] for name in ("labels", "scores", "boxes")})
    assert {row["class"] for row in record["detections"]} == {"dog"} and "written to detections.png" in result.output
    result = call("detect", "faster_rcnn", photo, "--weights", "coco.pth", "--out", "x.png")
    assert result.exit_code == 1 and "coco.pth: holds a Mask R-CNN, not a Faster R-CNN; use it as" in result.stderr


def test_classes_of_a_file_of_ones_own(call, photo, tmp_path, monkeypatch):
    """Never an answer from layers that were drawn at random; evaluation takes the same files."""
    monkeypatch.chdir(tmp_path)
    torch.save({"model": torchvisions(sure_of=1)}, "two.pth")
    Image.new("RGB", (40, 50), "red").save("1.png")
    box = {"id": 1, "image_id": 1, "bbox": [0, 0, 40, 50], "area": 2000, "segmentation": [[0, 0, 40, 0, 40, 50, 0, 50]]}
    data = {
        "images": [{"id": 1, "file_name": "1.png", "width": 40, "height": 50}],
        "annotations": [{**box, "category_id": 2, "iscrowd": 0}],
        "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "pedestrian"}],
    }
    Path("a.json").write_text(json.dumps(data))
    own = ("--data", "coco", "--root", ".", "--annotations", "a.json", "--split", "all")
    detect = ("detect", photo, "--weights", "two.pth")
    evaluate = ("evaluate", "mask_rcnn", "--weights", "two.pth", *own)
    for command in (detect, (*detect, "--classes", "pedestrian"), evaluate):
        (line,) = call(*command).stderr.strip().splitlines()
        assert line.startswith("Error: two.pth: has 2 classes") and "--classes background,NAME" in line
    assert not Path("detections.png").exists()
    result = call(*detect, "--classes", "background, pedestrian")
    assert result.exit_code == 0 and ": pedestrian 1.00 at " in result.stdout, result.output
    result = call(*evaluate, "--classes", "background,pedestrian", "--json", "r.json")
    assert result.exit_code == 0, result.output
    assert "not measured, because the detector does not know them: dog" in result.stdout
    (row,) = json.loads(Path("r.json").read_text())["result"]["classes"]
    assert row["name"] == "pedestrian" and row["objects"] == 1
    result = call("evaluate", "mask_rcnn", *own, "--classes", "background,dog")
    assert result.exit_code == 2 and "names its classes" in result.stderr


def test_weights_that_cannot_be_fetched_or_are_not_published(call, photo, tmp_path, monkeypatch):
    def nobody(*_, **__):
        raise OSError("no such host")

    monkeypatch.setattr("torch.hub.download_url_to_file", nobody)
    torch.save({"a": torch.zeros(1)}, tmp_path / "w.pth")
    for name, weights, words in (
        ("mask_rcnn", "coco", "Error: could not fetch https://download.pytorch.org/models/mask"),
        ("rcnn", "coco", "coco: there is no such file"),
        ("fast_rcnn", tmp_path / "w.pth", "w.pth: only .safetensors files of this project's own"),
    ):
        result = call("detect", name, photo, "--weights", weights, "--out", tmp_path / "x.png")
        (line,) = result.stderr.strip().splitlines()
        assert result.exit_code == 1 and words in line and not (tmp_path / "x.png").exists()
