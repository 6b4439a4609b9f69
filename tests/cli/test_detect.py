"""``minircnn detect`` against detectors called directly, with every kind of image that users have."""

import json
import os
import shutil
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as rle

from minircnn import published
from minircnn.cli.detect import LONGEST_SIDE, find_images
from minircnn.datasets.images import read_image
from minircnn.evaluation import encode_masks
from minircnn.faster_rcnn import FasterRCNN
from minircnn.mask_rcnn import binary_masks, load_mask_rcnn
from minircnn.plotting import GRID_SIDE, make_drawing
from minircnn.shipped import DETECTOR_WEIGHTS
from minircnn.weights import load_weights, save_weights
from tests.cli.conftest import FEW, IMAGE, LOAD, ON_PROPOSALS, directly, own

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools' own


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
    """A working folder with images of several kinds; their names have blanks and letters of several scripts."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(IMAGE, "street scene.jpg")
    (tmp_path / "kinds").mkdir()
    with Image.open(IMAGE.with_name("000003.jpg")) as file:
        town = file.convert("RGB")
    town.convert("CMYK").save("kinds/日本 $x_1$ ü.jpg")
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


@pytest.mark.parametrize(
    ("name", "options", "threshold"),
    [
        ("rcnn", ("--threshold", -5), -5.0),
        ("rcnn", (), 0),
        ("fast_rcnn", ("--threshold", 0.03), 0.03),
        ("faster_rcnn", (), 0.5),
        ("mask_rcnn", (), 0.5),
    ],
)
def test_lines_and_json_are_what_the_detector_finds(detect, files, place, name, options, threshold):
    """Thresholds count, also where they are below the detector's own."""
    result = detect(name, "street scene.jpg", "--out", "new/x.png", "--json", "x.json", *options)
    assert result.exit_code == 0, result.output
    found = directly(name, files[name], read_image(Path("street scene.jpg")), threshold)
    classes, png = LOAD[name](files[name]).classes, str(Path("new/x.png"))
    rows = zip(found["labels"].tolist(), found["scores"].tolist(), found["boxes"].tolist(), strict=True)
    assert len(found["scores"]) > 1 and result.stdout.splitlines() == [
        *[f"street scene.jpg: {classes[k]} {s:.2f} at {' '.join(f'{edge:.1f}' for edge in box)}" for k, s, box in rows],
        *[f"written to {png}", "written to x.json"],
    ]
    written = json.loads(Path("x.json").read_text())
    (record,) = written.pop("images")
    assert_same(record, found)
    assert record.items() >= {"image": "street scene.jpg", "height": 128, "width": 128, "png": png}.items()
    assert [row["class"] for row in record["detections"]] == [classes[label] for label in found["labels"]]
    about = {"detector": name, "weights": str(files[name]), "threshold": threshold, "skipped": []}
    assert written == about | ({"max_proposals": FEW} if name in ON_PROPOSALS else {})
    if name == "mask_rcnn":
        decoded = np.stack([rle.decode(one["segmentation"]) for one in record["detections"]]).astype(bool)
        assert np.array_equal(decoded, binary_masks(found)["masks"].numpy()) and 0 < decoded.mean() < 1


def test_one_png_for_images_of_all_kinds_is_a_grid(detect, place):
    """Turned ones upright, the slimmest with a margin."""
    for name, size in {"dot": (1, 1), "line": (700, 3)}.items():
        Image.new("RGB", size, "#4080c0").save(f"kinds/{name}.png")
    result = detect("faster_rcnn", "kinds", "--out", "grid.png", "--json", "x.json", "--threshold", 0)
    assert result.exit_code == 0 and "日本 $x_1$ ü.jpg: " in result.stdout, result.output
    width, height = size_of("grid.png")
    assert width == 900  # three columns of three inches
    assert 940 < height < 1060  # a row of squares, one of the turned image, 60 pixels by 128; names
    sizes = {"dot.png": (1, 1), "line.png": (3, 700), "moving.gif": (128, 128), "turned.jpg": (128, 60)}
    sizes["日本 $x_1$ ü.jpg"] = (128, 128)
    records = json.loads(Path("x.json").read_text())["images"]
    found = [(Path(one["image"]).name, (one["height"], one["width"])) for one in records]
    assert found == list(sizes.items())
    assert detect("faster_rcnn", "kinds/line.png", "--out", "line.png").exit_code == 0
    assert min(size_of("line.png")) > 80, "there is room to read the labels"


def test_folder_gets_a_png_for_each_and_none_is_lost(detect, place):
    (place / "again").mkdir()
    for name in ("street scene.jpg", "Street Scene.png"):
        shutil.copy(IMAGE.with_name("000004.jpg"), f"again/{name}")
    result = detect("faster_rcnn", "street scene.jpg", "again", "--out", "out", "--json", "x.json")
    assert result.exit_code == 0, result.output
    names = ["street scene.png", "Street Scene_2.png", "street scene_3.png"]
    assert sorted(path.name for path in (place / "out").iterdir()) == sorted(names)
    pngs = [record["png"] for record in json.loads(Path("x.json").read_text())["images"]]
    assert pngs == [str(Path("out", name)) for name in names]
    first, *others = (Path(png).read_bytes() for png in pngs)
    assert others[0] == others[1] != first, "the last two show the same image"


def test_the_pngs_show_the_images_with_their_boxes_and_masks(call, detect, place):
    """Where no box lies, the drawn image has the colors of the file; along each box, and in masks, it has others.

    By default by the Mask R-CNN that comes with the project.
    """
    result = detect("rcnn", "street scene.jpg", "--out", "plain.png", "--threshold", 100)
    assert result.stdout.splitlines()[0] == "street scene.jpg: nothing found"
    assert call("detect", "street scene.jpg", "--out", "x.png", "--json", "x.json").exit_code == 0
    plain, marked = (np.asarray(Image.open(name).convert("RGB")).astype(float) for name in ("plain.png", "x.png"))
    assert marked.shape[:2] == (600, 600)
    with Image.open("street scene.jpg") as file, Image.open("plain.png") as drawn:
        drawn = drawn.crop((0, drawn.height - drawn.width, drawn.width, drawn.height))  # below the title
        town, small = (
            np.asarray(one.convert("RGB").resize((32, 32), Image.Resampling.BOX), float) for one in (file, drawn)
        )
    assert np.abs(small - town)[1:-1, 1:-1].mean() < 6
    written = json.loads(Path("x.json").read_text())
    assert (written["detector"], written["weights"]) == ("mask_rcnn", str(DETECTOR_WEIGHTS["mask_rcnn"]))
    rows = written["images"][0]["detections"]
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


def test_bad_files_are_named_and_the_others_go_on(detect, place, monkeypatch):
    """Also where an image needs more memory than any machine has."""
    Path("text.jpg").write_text("this is no image")
    Path("cut.jpg").write_bytes(IMAGE.read_bytes()[:2000])
    (place / "empty").mkdir()
    Image.new("RGB", (7, 3)).save("slim.png")
    find = FasterRCNN.detect
    hungry = lambda self, given: torch.zeros(10**15) if given[0].shape[2] == 7 else find(self, given)  # noqa: E731
    monkeypatch.setattr(FasterRCNN, "detect", hungry)
    bad = ["text.jpg", "missing.jpg", "cut.jpg", "empty", "slim.png"]
    result = detect("faster_rcnn", *bad[:2], "street scene.jpg", *bad[2:], "--out", "out", "--json", "x.json")
    assert result.exit_code == 1
    lines = result.stderr.splitlines()
    assert sorted(line.split(": skipped: ")[0] for line in lines) == sorted(bad)
    assert all(line.count(line.split(":")[0]) == 1 for line in lines), "names come once"
    assert sum("cannot be decoded" in line for line in lines) == 2
    assert sum("not enough memory" in line for line in lines) == 1
    assert result.stdout.splitlines()[-2:] == ["written to out", "written to x.json"]
    assert [path.name for path in (place / "out").iterdir()] == ["street scene.png"]
    written = json.loads(Path("x.json").read_text())
    assert {entry["image"] for entry in written["skipped"]} == set(bad) and len(written["images"]) == 1
    before = sorted(place.rglob("*"))
    result = detect("faster_rcnn", "text.jpg", "missing.jpg", "--out", "x.png")
    assert (result.exit_code, result.stdout, len(result.stderr.splitlines())) == (1, "", 2)
    assert sorted(place.rglob("*")) == before, "nothing is written when nothing can be read"


@pytest.mark.parametrize(
    ("name", "arguments", "status", "message"),
    [
        ("fast_rcnn", ["--device", "cuda:77"], 2, "Error: --device cuda:77: not on this machine"),
        ("fast_rcnn", ["--classes", "background,cat"], 2, "names its classes: background, person"),
        ("rcnn", ["--weights", "coco"], 1, "coco: there is no such file"),
        ("rcnn", [], 1, "none.safetensors: not there; train it with `minircnn train rcnn`"),
        ("rcnn", ["--weights", "damaged.safetensors"], 1, "Error: damaged.safetensors: damaged"),
        ("rcnn", ["--weights", "w.pth"], 1, "w.pth: only .safetensors files of this project's own"),
        ("fast_rcnn", ["--weights", "mask_rcnn"], 1, "mask_rcnn.safetensors"),
    ],
)
def test_what_is_refused_before_any_work(call, files, place, monkeypatch, name, arguments, status, message):
    Path("damaged.safetensors").write_bytes(files["rcnn"].read_bytes()[:-9])
    shutil.copy(files["rcnn"].with_suffix(".json"), "damaged.json")
    torch.save({"a": torch.zeros(1)}, "w.pth")
    monkeypatch.setitem(DETECTOR_WEIGHTS, "rcnn", place / "none.safetensors")
    before = sorted(place.rglob("*"))
    own = ["--weights", files[name]] if arguments and "--weights" not in arguments else []
    result = call("detect", name, "kinds", "--out", "x.png", *own, *(files.get(word, word) for word in arguments))
    assert (result.exit_code, result.stdout) == (status, "")
    assert message in " ".join(result.stderr.split())
    assert sorted(place.rglob("*")) == before


def test_names_from_files_do_nothing_to_a_terminal(detect, files, place):
    """Class names that erase the screen, turn the text, or write a line that looks like another."""
    tensors, about = load_weights(files["faster_rcnn"])
    names = ["background", *(f"a\x1b[2J\u202e\nError: {letter}" for letter in "bcdefg")]
    save_weights(place / "odd.safetensors", tensors, {**about, "classes": names})
    result = detect("faster_rcnn", "street scene.jpg", "--out", "x.png", "--weights", "odd.safetensors")
    lines = result.stdout.splitlines()
    assert result.exit_code == 0 and len(lines) > 1 and all(line.isprintable() for line in lines)
    assert all(line.startswith("street scene.jpg: a?[2J??Error: ") for line in lines[:-1])


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
    if hasattr(os, "mkfifo"):  # is not waited for
        os.mkfifo(tmp_path / "pipe.png")
        assert find_images([tmp_path / "pipe.png"]) == ([], [(tmp_path / "pipe.png", "neither a file nor a folder")])


def test_published_detectors_and_files_of_ones_own(call, files, folder, place, monkeypatch):
    """Never an answer from layers that were drawn at random; evaluation takes the same files.

    In the place of the published detectors stands a small one; tests/test_published.py has the others.
    """
    asked = []

    def build(classes, weights, *, new_layers):
        asked.append((classes, weights, new_layers))
        model = load_mask_rcnn(files["mask_rcnn"])
        model.classes = classes or model.classes
        return model

    monkeypatch.setattr(published, "maskrcnn_resnet50_fpn", build)
    Path("own.pth").touch()
    names = ["background", *reversed(load_mask_rcnn().classes[1:])]
    given = ("--classes", ", ".join(names), "--weights", "own.pth")
    assert call("detect", "street scene.jpg", "--weights", "coco").exit_code == 0
    assert call("detect", "street scene.jpg", *given, "--json", "x.json").exit_code == 0
    result = call("evaluate", "mask_rcnn", *own(folder), "--images", 1, *given, "--json", "r.json")
    assert result.exit_code == 0, result.output
    assert [row["name"] for row in json.loads(Path("r.json").read_text())["result"]["classes"]] == names[:0:-1]
    assert asked == [(None, "coco", False), (names, "own.pth", False), (names, "own.pth", False)]
    found = {row["class"] for row in json.loads(Path("x.json").read_text())["images"][0]["detections"]}
    assert found and found <= set(names)
