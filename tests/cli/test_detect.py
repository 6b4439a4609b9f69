"""``minircnn detect`` against a detector called directly, with every kind of picture that users have."""

import hashlib
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import safetensors.torch
import torch
import typer
from PIL import Image

from minircnn.cli import drawing
from minircnn.cli.detect import detect_all
from minircnn.cli.drawing import GRID_SIDE, LONGEST_SIDE, draw_grid, draw_one, make_drawing, titles_of
from minircnn.cli.pictures import make_plan
from minircnn.datasets.images import read_image
from minircnn.datasets.toytown import DATA_FOLDER
from minircnn.fast_rcnn import load_fast_rcnn
from minircnn.rcnn import load_rcnn
from minircnn.selective_search import selective_search
from minircnn.shipped import DETECTOR_WEIGHTS
from minircnn.weights import load_weights, save_weights
from tests.cli.conftest import lines_of

TOWN = [DATA_FOLDER / "test" / f"00000{i}.jpg" for i in range(1, 5)]
FEW = 30  # proposals, so that the tests are quick
NOTHING = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64), "scores": torch.zeros(0)}


@pytest.fixture
def detect(call, detector):
    def run(*arguments):
        figures = plt.get_fignums()
        result = call("detect", "rcnn", "--weights", detector, "--max-proposals", FEW, *arguments)
        assert plt.get_fignums() == figures, "figures are closed"
        return result

    return run


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working folder with pictures of all kinds; their names have blanks and letters of several scripts."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(TOWN[0], "street scene.jpg")
    shutil.copy(TOWN[1], "日本 $x_1$ ü.jpg")
    (tmp_path / "kinds").mkdir()
    with Image.open(TOWN[2]) as file:
        town = file.convert("RGB")
    for mode in ("L", "LA", "RGBA", "P"):
        town.convert(mode).save(f"kinds/{mode}.png")
    town.convert("CMYK").save("kinds/CMYK.jpg")
    Image.fromarray(np.asarray(town.convert("L")).astype(np.uint16) * 257).save("kinds/sixteen.png")
    town.save("kinds/moving.gif", save_all=True, append_images=[Image.new("RGB", town.size)])
    exif = Image.Exif()
    exif[0x0112] = 8
    town.crop((0, 0, 128, 60)).save("kinds/turned.jpg", exif=exif)
    return tmp_path


def directly(detector, path, threshold, proposals=FEW):
    """What the detector finds without the command line, above its own low threshold first."""
    model, image = load_rcnn(detector), read_image(Path(path))
    (found,) = model.detect([image], [selective_search(image)[:proposals]])
    above = found["scores"] > threshold
    return {name: value[above] for name, value in found.items()}, model.classes


def size_of(path):
    with Image.open(path) as file:
        file.load()
        assert file.format == "PNG"
        return file.size


def assert_same(record, found, classes):
    assert [row["label"] for row in record["detections"]] == found["labels"].tolist()
    assert [row["class"] for row in record["detections"]] == [classes[label] for label in found["labels"]]
    torch.testing.assert_close(torch.tensor([row["score"] for row in record["detections"]]), found["scores"])
    boxes = torch.tensor([row["box"] for row in record["detections"]]).reshape(-1, 4)
    torch.testing.assert_close(boxes, found["boxes"])


# ---------------------------------------------------------------------------------------------------- what it finds


@pytest.mark.parametrize("threshold", [-0.5, 0.0, 0.3])
def test_lines_and_json_are_what_the_detector_finds(detect, detector, place, threshold):
    result = detect("street scene.jpg", "--out", "x.png", "--json", "x.json", "--threshold", threshold)
    assert result.exit_code == 0, result.output
    found, classes = directly(detector, "street scene.jpg", threshold)
    assert len(found["scores"]) > 1
    assert result.stdout.splitlines() == [
        *lines_of("street scene.jpg", found, classes),
        "written to x.png",
        "written to x.json",
    ]
    written = json.loads(Path("x.json").read_text())
    assert written["threshold"] == threshold
    assert written["max_proposals"] == FEW
    assert written["weights"] == str(detector)
    assert written["skipped"] == []
    (record,) = written["pictures"]
    assert (record["picture"], record["height"], record["width"]) == ("street scene.jpg", 128, 128)
    assert_same(record, found, classes)


def test_threshold_below_the_detectors_own_finds_more(detect, detector, place):
    detect("street scene.jpg", "--out", "x.png", "--json", "x.json", "--threshold", -5)
    model, image = load_rcnn(detector), read_image(Path("street scene.jpg"))
    model.config = replace(model.config, score_threshold=-5.0)
    (found,) = model.detect([image], [selective_search(image)[:FEW]])
    assert found["scores"].min() < load_rcnn(detector).config.score_threshold
    assert_same(json.loads(Path("x.json").read_text())["pictures"][0], found, model.classes)


def test_all_kinds_of_pictures(detect, detector, place):
    result = detect("kinds", "--out", "out", "--json", "x.json")
    assert result.exit_code == 0, result.output
    records = json.loads(Path("x.json").read_text())["pictures"]
    expected = ["CMYK.jpg", "L.png", "LA.png", "P.png", "RGBA.png", "moving.gif", "sixteen.png", "turned.jpg"]
    assert [Path(record["picture"]).name for record in records] == expected
    for record in records:
        upright = (128, 60) if "turned" in record["picture"] else (128, 128)
        assert (record["height"], record["width"]) == upright
        assert_same(record, *directly(detector, record["picture"], 0.0))
        assert record["png"] == str(Path("out", Path(record["picture"]).stem + ".png"))
    # These hold the very same pixels.
    by_name = {Path(record["picture"]).stem: record["detections"] for record in records}
    assert by_name["L"] == by_name["LA"] == by_name["sixteen"] != by_name["RGBA"]


def test_nothing_found(detect, place):
    result = detect("street scene.jpg", "kinds/L.png", "--out", "x.png", "--json", "x.json", "--threshold", 100)
    assert result.exit_code == 0
    name = Path("kinds", "L.png")
    assert result.stdout.splitlines()[:2] == ["street scene.jpg: nothing found", f"{name}: nothing found"]
    assert [record["detections"] for record in json.loads(Path("x.json").read_text())["pictures"]] == [[], []]
    size_of("x.png")


@pytest.mark.parametrize("size", [(1, 1), (2, 300), (700, 3)])
def test_odd_shapes(detect, place, size):
    Image.new("RGB", size, "#4080c0").save("odd.png")
    assert detect("odd.png", "--out", "x.png", "--threshold", -100).exit_code == 0
    assert min(size_of("x.png")) > 80, "there is room to read the labels"
    assert detect("odd.png", "street scene.jpg", "--out", "y.png", "--threshold", -100).exit_code == 0
    size_of("y.png")


@pytest.mark.parametrize(
    ("options", "threshold"), [((), 0.5), (("--threshold", 0.8), 0.8), (("--threshold", 0.03), 0.03)]
)
def test_fast_rcnn(call, fast_detector, place, options, threshold):
    """The threshold counts, also where it is below the detector's own."""
    arguments = ("detect", "fast_rcnn", "street scene.jpg", "--weights", fast_detector, "--max-proposals", FEW)
    result = call(*arguments, "--out", "x.png", "--json", "x.json", *options)
    assert result.exit_code == 0, result.output
    model, image = load_fast_rcnn(fast_detector), read_image(Path("street scene.jpg"))
    own = model.roi_heads.config
    model.roi_heads.config = replace(own, score_threshold=0.0, max_detections=10_000)
    (found,) = model.detect([image], [selective_search(image)[:FEW]])
    above = torch.where(found["scores"] > threshold)[0][: own.max_detections]
    assert 1 < len(above) < len(found["scores"])
    found = {name: value[above] for name, value in found.items()}
    assert result.stdout.splitlines() == [
        *lines_of("street scene.jpg", found, model.classes),
        "written to x.png",
        "written to x.json",
    ]
    written = json.loads(Path("x.json").read_text())
    (record,) = written.pop("pictures")
    assert_same(record, found, model.classes)
    assert written == {
        "detector": "fast_rcnn",
        "weights": str(fast_detector),
        "threshold": threshold,
        "max_proposals": FEW,
        "skipped": [],
    }
    assert size_of("x.png")[0] == 600


def test_fast_rcnn_by_default(call, fast_detector, place, monkeypatch):
    """With the weights of the project and 300 proposals."""
    monkeypatch.setitem(DETECTOR_WEIGHTS, "fast_rcnn", fast_detector)
    assert call("detect", "fast_rcnn", "street scene.jpg", "--out", "x.png", "--json", "x.json").exit_code == 0
    written = json.loads(Path("x.json").read_text())
    assert (written["weights"], written["threshold"], written["max_proposals"]) == (str(fast_detector), 0.5, 300)
    model, image = load_fast_rcnn(fast_detector), read_image(Path("street scene.jpg"))
    model.roi_heads.config = replace(model.roi_heads.config, score_threshold=0.5)
    assert_same(written["pictures"][0], *model.detect([image], [selective_search(image)[:300]]), model.classes)


# --------------------------------------------------------------------------------------------------- what it writes


def test_one_png_for_several_is_a_grid(detect, place):
    result = detect("street scene.jpg", "日本 $x_1$ ü.jpg", "kinds", "--out", "grid.png")
    assert result.exit_code == 0, result.output
    assert "日本 $x_1$ ü.jpg: " in result.stdout
    width, height = size_of("grid.png")
    assert width == 1200  # four columns of three inches
    assert 1240 < height < 1400  # two rows of squares; the turned picture, 60 pixels by 128, is twice as tall; names
    assert not list(place.glob("*.part"))


def test_folder_gets_a_png_for_each_and_none_is_lost(detect, place):
    (place / "again").mkdir()
    shutil.copy(TOWN[3], "again/street scene.jpg")
    shutil.copy(TOWN[3], "again/Street Scene.png")
    result = detect("street scene.jpg", "again", "--out", "out", "--json", "x.json")
    assert result.exit_code == 0, result.output
    names = ["street scene.png", "Street Scene_2.png", "street scene_3.png"]
    assert sorted(path.name for path in (place / "out").iterdir()) == sorted(names)
    records = json.loads(Path("x.json").read_text())["pictures"]
    assert [record["png"] for record in records] == [str(Path("out", name)) for name in names]
    pngs = [Path(record["png"]).read_bytes() for record in records]
    assert pngs[1] == pngs[2] != pngs[0], "the last two show the same picture"


def test_one_picture_into_a_folder(detect, place):
    assert detect("street scene.jpg", "--out", "out").exit_code == 0
    assert [path.name for path in (place / "out").iterdir()] == ["street scene.png"]


def test_the_pngs_show_the_pictures_with_their_boxes(detect, place):
    """Where no box lies, the drawn picture has the colours of the file; along each box it has others."""
    detect("street scene.jpg", "--out", "plain.png", "--threshold", 100)
    detect("street scene.jpg", "--out", "x.png", "--json", "x.json", "--threshold", 0.3)
    with Image.open("plain.png") as file:
        plain = file.convert("RGB")
    with Image.open("street scene.jpg") as file:
        town = np.asarray(file.convert("RGB").resize((32, 32), Image.Resampling.BOX)).astype(float)
    below_title = plain.crop((0, plain.height - plain.width, plain.width, plain.height))
    small = np.asarray(below_title.resize((32, 32), Image.Resampling.BOX)).astype(float)
    assert np.abs(small - town)[1:-1, 1:-1].mean() < 6
    with Image.open("x.png") as file:
        marked = np.asarray(file.convert("RGB")).astype(float)
    assert marked.shape[0] == marked.shape[1] == 600
    for row in json.loads(Path("x.json").read_text())["pictures"][0]["detections"]:
        _, y1, x2, y2 = (2 + value * 596 / 128 for value in row["box"])
        middle = marked[int((y1 + y2) / 2), int(x2) - 3 : int(x2) + 4]  # across the right side
        assert np.ptp(middle, axis=0).max() > 60


def test_what_is_drawn_of_a_large_picture_has_its_boxes_shrunk(tmp_path):
    """By 133 / 333 in height, which is not quite the 1000 / 2500 of the width."""
    found = {"boxes": torch.tensor([[500.0, 111.0, 2500.0, 333.0]]), "labels": torch.tensor([1])}
    shrunk = make_drawing(tmp_path, torch.zeros(3, 333, 2500), found, LONGEST_SIDE)
    assert shrunk.pixels.shape == (133, 1000, 3)
    torch.testing.assert_close(shrunk.found["boxes"], torch.tensor([[200.0, 133 / 3, 1000.0, 133.0]]))
    assert found["boxes"].tolist() == [[500.0, 111.0, 2500.0, 333.0]]
    assert make_drawing(tmp_path, torch.zeros(3, 333, 2500), found, GRID_SIDE).pixels.shape == (60, 450, 3)


def test_large_pictures_do_not_fill_the_memory_before_a_grid_is_drawn(place, monkeypatch):
    sizes = []
    monkeypatch.setattr(drawing, "draw_grid", lambda them, _: sizes.extend(d.pixels.shape for d in them) or b"png")
    monkeypatch.setattr(drawing, "draw_one", lambda it, _: sizes.append(it.pixels.shape) or b"png")
    for name in ("a.png", "b.png"):
        Image.new("RGB", (1200, 900)).save(name)
    for names, out in ((["a.png", "b.png"], "x.png"), (["a.png"], "y.png"), (["a.png", "b.png"], "out")):
        detect_all(make_plan([Path(name) for name in names], Path(out), None), lambda _: NOTHING, ["background"], {})
    assert sizes == [(338, 450, 3)] * 2 + [(750, 1000, 3)] * 3


@pytest.mark.parametrize(
    ("size", "drawn"), [((10, 1000), (125, 1000)), ((1000, 10), (1000, 400)), ((2, 3), (2, 3)), ((1, 9), (2, 9))]
)
def test_margin_of_slim_pictures_is_white_and_moves_nothing(tmp_path, size, drawn):
    found = {"boxes": torch.tensor([[0.0, 0.0, 2.0, 1.0]]), "labels": torch.tensor([1])}
    slim = make_drawing(tmp_path, torch.full((3, *size), 0.2), found, LONGEST_SIDE)
    assert slim.pixels.shape == (*drawn, 3)
    assert (slim.pixels[: size[0], : size[1]] == 51).all()
    assert slim.pixels.sum() == 3 * (51 * size[0] * size[1] + 255 * (drawn[0] * drawn[1] - size[0] * size[1]))
    assert torch.equal(slim.found["boxes"], found["boxes"])


def test_titles_tell_pictures_apart(tmp_path):
    def draw(path, objects=1):
        found = {"boxes": torch.zeros(objects, 4) + torch.tensor([0.0, 0, 2, 2]), "labels": torch.ones(objects).long()}
        return make_drawing(Path(path), torch.zeros(3, 4, 4), found, GRID_SIDE)

    drawings = [
        draw("a/x.png"),
        draw("b/x.png"),
        draw("c/5 $ or $6.png", 0),
        draw("d/" + "y" * 40 + ".png"),
    ]
    titles = titles_of(drawings)
    assert titles == [
        str(Path("a/x.png")),
        str(Path("b/x.png")),
        r"5 \$ or \$6.png" + "\nnothing found",
        "…" + "y" * 27 + ".png",
    ]
    assert draw_grid(drawings, ["background", "thing"]).startswith(b"\x89PNG")
    assert draw_one(drawings[2], ["background", "thing"]).startswith(b"\x89PNG")


def test_photographs(detect, detector, real_data, tmp_path):
    photographs = sorted((real_data / "coco-mini" / "images").glob("*.jpg"))[:2]
    result = detect(*photographs, "--out", tmp_path, "--json", tmp_path / "x.json")
    assert result.exit_code == 0, result.output
    for record, path in zip(json.loads((tmp_path / "x.json").read_text())["pictures"], photographs, strict=True):
        assert_same(record, *directly(detector, path, 0.0))
        assert size_of(record["png"])[0] >= 400


# ------------------------------------------------------------------------------------------------- what goes wrong


def test_bad_files_are_named_and_the_others_go_on(detect, detector, place):
    Path("text.jpg").write_text("this is no picture")
    Path("cut.jpg").write_bytes(TOWN[0].read_bytes()[:2000])
    Path("nothing.png").write_bytes(b"")
    (place / "empty").mkdir()
    bad = ["text.jpg", "missing.jpg", "cut.jpg", "nothing.png", "empty"]
    result = detect(*bad[:2], "street scene.jpg", *bad[2:], "--out", "out", "--json", "x.json")
    assert result.exit_code == 1
    lines = result.stderr.splitlines()
    assert sorted(line.split(": skipped: ")[0] for line in lines) == sorted(bad)
    assert all(line.count(line.split(":")[0]) == 1 for line in lines), "names come once"
    assert sum("cannot be decoded" in line for line in lines) == 3
    assert result.stdout.splitlines()[-2:] == ["written to out", "written to x.json"]
    assert [path.name for path in (place / "out").iterdir()] == ["street scene.png"]
    written = json.loads(Path("x.json").read_text())
    assert {entry["picture"] for entry in written["skipped"]} == set(bad)
    (record,) = written["pictures"]
    assert_same(record, *directly(detector, "street scene.jpg", 0.0))


HUGE = 10**15  # bytes that no machine has
HUNGRY = {
    "Python": lambda: bytearray(HUGE),
    "NumPy": lambda: np.zeros(HUGE),
    "torch": lambda: torch.zeros(HUGE),
}


@pytest.mark.parametrize("kind", HUNGRY)
@pytest.mark.parametrize("out", ["x.png", "out"])
def test_an_image_without_enough_memory_leaves_the_others_their_results(place, capsys, kind, out):
    """The errors are those that Python, NumPy and PyTorch raise themselves."""
    Image.new("RGB", (7, 3)).save("slim.png")

    def find(image):
        return HUNGRY[kind]() if image.shape[2] == 7 else NOTHING

    plan = make_plan([Path("kinds/L.png"), Path("slim.png"), Path("street scene.jpg")], Path(out), Path("x.json"))
    with pytest.raises(typer.Exit) as ended:
        detect_all(plan, find, ["background"], {})
    assert ended.value.exit_code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("slim.png: skipped: there is not enough memory")
    written = json.loads(Path("x.json").read_text())
    assert [entry["picture"] for entry in written["pictures"]] == [str(Path("kinds/L.png")), "street scene.jpg"]
    assert [entry["picture"] for entry in written["skipped"]] == ["slim.png"]
    pngs = [Path("x.png")] if out == "x.png" else [Path("out/L.png"), Path("out/street scene.png")]
    assert all(path.exists() for path in pngs)


def test_other_runtime_errors_are_faults(place):
    def find(image):
        raise RuntimeError("sizes of tensors must match")

    with pytest.raises(RuntimeError, match="must match"):
        detect_all(make_plan([Path("street scene.jpg")], Path("x.png"), None), find, ["background"], {})


def test_a_picture_that_vanishes_in_between_is_named_once(place, capsys):
    plan = make_plan([Path("street scene.jpg"), Path("kinds")], Path("x.png"), None)
    Path("street scene.jpg").unlink()
    with pytest.raises(typer.Exit):
        detect_all(plan, lambda _: NOTHING, ["background"], {})
    assert capsys.readouterr().err == "street scene.jpg: skipped: there is no such image; check the path\n"
    size_of("x.png")


def test_grid_of_what_can_be_read(detect, place):
    Path("text.jpg").write_text("this is no picture")
    assert detect("text.jpg", "street scene.jpg", "--out", "x.png").exit_code == 1
    assert size_of("x.png")[0] == 900


def test_nothing_is_written_when_nothing_can_be_read(detect, place):
    Path("text.jpg").write_text("this is no picture")
    before = sorted(place.rglob("*"))
    for out in ("x.png", "out"):
        result = detect("text.jpg", "missing.jpg", "--out", out, "--json", "x.json")
        assert result.exit_code == 1
        assert result.stdout == ""
        assert len(result.stderr.splitlines()) == 2
    result = detect("missing.jpg", "--out", "x.png")
    assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)
    assert sorted(place.rglob("*")) == before


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="here every file may be read")
def test_a_file_that_may_not_be_read_is_named(detect, place):
    Path("secret.jpg").write_bytes(TOWN[0].read_bytes())
    Path("secret.jpg").chmod(0)
    result = detect("secret.jpg", "street scene.jpg", "--out", "x.png")
    assert result.exit_code == 1
    assert result.stderr.splitlines() == ["secret.jpg: skipped: may not be read; change its permissions"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "none/x.png"], "Error: --out none/x.png: the folder none does not exist; make it first"),
        (["--out", "kinds/L.png"], "would be written over"),
        (["--out", "x.png", "--json", "kinds"], "Error: --json kinds: this is a folder; name a file in it"),
        (["--out", "x.png", "--threshold", "nan"], "Error: --threshold nan: this is no number"),
        (["--out", "x.png", "--device", "cuda:77"], "Error: --device cuda:77: not on this machine"),
        (["--out", "x.png", "--device", "toaster"], "Error: --device toaster: not on this machine"),
        (["--out", "x.png", "--max-proposals", "0"], "max-proposals"),
    ],
)
def test_what_is_refused_before_any_work(detect, place, arguments, message):
    before = sorted(place.rglob("*"))
    result = detect("kinds", *arguments)
    assert result.exit_code == 2
    assert message.replace("/", os.sep) in result.stderr
    assert result.stdout == ""
    assert sorted(place.rglob("*")) == before


@pytest.mark.parametrize("threshold", ["-0.01", "1.01", "50", "nan", "inf"])
def test_what_is_no_probability_is_refused(call, fast_detector, place, threshold):
    before = sorted(place.rglob("*"))
    arguments = ("--weights", fast_detector, "--out", "x.png", "--threshold", threshold)
    result = call("detect", "fast_rcnn", "street scene.jpg", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"{float(threshold)} is no probability, from 0 to 1" in " ".join(result.stderr.split())
    assert sorted(place.rglob("*")) == before


@pytest.mark.parametrize("threshold", [0, 1])
def test_the_ends_are_probabilities(call, fast_detector, place, threshold):
    arguments = ("--weights", fast_detector, "--out", "x.png", "--threshold", threshold, "--max-proposals", 5)
    result = call("detect", "fast_rcnn", "street scene.jpg", *arguments)
    assert result.exit_code == 0, result.output
    assert (result.stdout.splitlines()[0] == "street scene.jpg: nothing found") == (threshold == 1)


def test_weights_that_are_missing_or_wrong(call, detector, place, monkeypatch, tmp_path):
    monkeypatch.setitem(DETECTOR_WEIGHTS, "rcnn", tmp_path / "none.safetensors")
    arguments = ("detect", "rcnn", "street scene.jpg", "--out", "x.png")
    result = call(*arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith(
        f"Error: {tmp_path / 'none.safetensors'}: not there; train it with `minircnn train rcnn`"
    )
    result = call(*arguments, "--weights", "absent.safetensors")
    assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)
    assert "--weights absent.safetensors: there is no such file" in result.stderr
    shutil.copy(detector, "alone.safetensors")
    assert "alone.json" in call(*arguments, "--weights", "alone.safetensors").stderr
    shutil.copy(detector.with_suffix(".json"), "alone.json")
    Path("alone.safetensors").write_bytes(detector.read_bytes()[:-9])
    result = call(*arguments, "--weights", "alone.safetensors")
    assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)
    assert result.stderr.startswith("Error: alone.safetensors: damaged")
    assert not Path("x.png").exists()


def test_weights_by_default_are_those_of_the_project(call, detector, place, monkeypatch):
    monkeypatch.setitem(DETECTOR_WEIGHTS, "rcnn", detector)
    assert call("detect", "rcnn", "street scene.jpg", "--out", "x.png", "--json", "x.json").exit_code == 0
    written = json.loads(Path("x.json").read_text())
    assert (written["threshold"], written["max_proposals"]) == (0.0, 300)
    assert_same(written["pictures"][0], *directly(detector, "street scene.jpg", 0.0, proposals=300))


def test_nan_in_the_weights_is_one_line(call, detector, place, tmp_path):
    model = load_rcnn(detector)
    model.network.classifier.fc6.bias.data[0] = torch.nan
    content = safetensors.torch.save(model.state_dict())  # the project's own function would refuse to write this
    (tmp_path / "nan.safetensors").write_bytes(content)
    record = {**load_weights(detector)[1], "sha256": hashlib.sha256(content).hexdigest()}
    (tmp_path / "nan.json").write_text(json.dumps(record))
    result = call("detect", "rcnn", "street scene.jpg", "--out", "x.png", "--weights", tmp_path / "nan.safetensors")
    assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)
    assert "nan.safetensors: network.classifier.fc6.bias holds nan or infinity; train or fetch" in result.stderr
    assert not Path("x.png").exists()


def test_names_from_files_do_nothing_to_a_terminal(call, detector, place, tmp_path):
    """Class names, that erase the screen, turn the text, or write a line that looks like another."""
    tensors, about = load_weights(detector)
    names = ["background", *(f"a\x1b[2J\u202e\nError: {letter}" for letter in "bcdefg")]
    save_weights(tmp_path / "odd.safetensors", tensors, {**about, "classes": names})
    options = ("--out", tmp_path / "x.png", "--max-proposals", FEW, "--weights", tmp_path / "odd.safetensors")
    result = call("detect", "rcnn", "street scene.jpg", *options)
    lines = result.stdout.splitlines()
    assert result.exit_code == 0 and len(lines) > 1 and all(line.isprintable() for line in lines)
    assert all(line.startswith("street scene.jpg: a?[2J??Error: ") for line in lines[:-1])


def test_messages_do_nothing_to_a_terminal(call, detector, place, tmp_path):
    tensors, about = load_weights(detector)
    save_weights(tmp_path / "odd.safetensors", {**tensors, "b\x1b[31m\nx": torch.zeros(1)}, about)
    result = call("detect", "rcnn", "street scene.jpg", "--weights", tmp_path / "odd.safetensors")
    (line,) = result.stderr.splitlines()
    assert result.exit_code == 1 and line.endswith(
        "odd.safetensors: weights for another network: b?[31m?x is not in the network"
    )
