"""``minircnn data check``: what it prints and writes about small folders."""

import json
import weakref

import numpy as np
import pytest
from PIL import Image

from minircnn.datasets import images, open_data
from minircnn.training import settings_for
from tests.cli.conftest import COUNT, own
from tests.datasets.conftest import an_object, block, write_cell, write_voc, write_voc_mask, xml


@pytest.fixture
def voc(tmp_path):
    """Two images with three sound objects; the first has a fourth, without a class."""
    objects = (an_object(), an_object("person", (8, 4, 20, 12), "1"), an_object(""))
    return write_voc(tmp_path / "VOC2007", {"a": xml(*objects), "b": xml(an_object("person", (1, 1, 10, 5)))})


def test_defects_are_listed_and_end_with_status_one(call, voc, tmp_path):
    numbers, where = tmp_path / "x.json", voc / "Annotations" / "a.xml"
    result = call("data", "check", "voc", "--root", voc, "--no-masks", "--split", "trainval", "--json", numbers)
    lines = result.stdout.splitlines()
    assert result.exit_code == 1 and lines[:2] == [
        "voc, trainval: 2 images (0 without objects), 3 objects, 1 of them crowds or difficult",
        "height × width: 12 × 20 pixels",
    ]
    assert f"  {'person':<11}  {2:>7} objects in {2:>6} images" in lines
    problem = "object 3 (no name): it has the <name> '': write its class; background is what no object is"
    assert f"{where}: {problem}" in lines and lines[-2:] == [f"written to {numbers}", "1 defect"]
    written = json.loads(numbers.read_text(encoding="utf-8"))
    assert (written["data"], written["split"]) == ("voc", "trainval")
    assert (written["images"], written["empty"], written["objects"], written["crowds"]) == (2, 0, 3, 1)
    assert written["per_class"]["person"] == [2, 2] and len(written["problems"]) == 1
    assert written["smallest"] == written["largest"] == [12, 20]
    chosen = settings_for(open_data("voc", voc, split="trainval", masks=False, drop_invalid=True))
    assert all(f"  {reason}" in lines for reason in chosen.reasons)


def test_images_without_masks_are_counted(call, voc):
    write_voc(voc, {}, {"trainval": ["a", "b"]})
    mask = np.zeros((12, 20))
    mask[:5, :10] = 1
    write_voc_mask(voc, "b", mask)
    result = call("data", "check", "voc", "--root", voc)
    assert result.exit_code == 0
    assert result.stdout.startswith("voc: 1 image (0 without objects), 1 object\n")
    assert "\nleft out: 1 of 2 images, which have no masks\n" in result.stdout
    assert "left out" not in call("data", "check", "voc", "--root", voc, "--no-masks").stdout


def test_the_drawing_shows_the_objects(call, tmp_path):
    """Red boxes and masks of the first class lie where the object is and nowhere else; of unreadable images none."""
    out, files = tmp_path / "sheet.png", [tmp_path / "cells" / name / "images" / f"{name}.png" for name in "abc"]
    command = ("data", "check", "nuclei", "--root", tmp_path / "cells", "--out", out, "--images")
    for file in files:
        write_cell(tmp_path / "cells", file.stem, block((0, 5), (0, 8)))
        Image.new("RGB", (16, 10), "white").save(file)
    result = call(*command, 1)
    assert result.exit_code == 1, "the images are the same"
    assert f"written to {out}" in result.stdout
    with Image.open(out) as file:
        pixels = np.asarray(file.convert("RGB")).astype(int)
    red = (pixels[..., 0] - pixels[..., 1]) > 60
    rows, columns = np.nonzero(red)
    height, width = rows.max() - rows.min() + 1, columns.max() - columns.min() + 1
    assert red.mean() > 0.15
    assert width / height == pytest.approx(8 / 5, rel=0.05)
    assert red[rows.min() : rows.max(), columns.min() : columns.max()].mean() > 0.98
    call(*command, 3)
    with Image.open(out) as file:
        assert file.height != len(pixels), "three images have another sheet than one"
    for count, file in enumerate(files, start=1):
        out.unlink()
        file.write_bytes(b"")
        result = call(*command, 3)
        assert (result.exit_code, out.exists()) == (1, count < 3)
    assert result.stdout.splitlines()[-1] == "3 defects", "no images, so not the same ones"


def test_a_set_that_cannot_be_opened_is_listed_too(call, tmp_path):
    listed = [{"id": n, "file_name": f"{n}.png", "height": 8, "width": 10} for n in range(14)]
    content = {"images": listed, "annotations": [], "categories": [{"id": 1, "name": "dog"}]}
    (tmp_path / "x.json").write_text(json.dumps(content), encoding="utf-8")
    numbers = tmp_path / "y.json"
    result = call("data", "check", "coco", "--root", tmp_path, "--annotations", tmp_path / "x.json", "--json", numbers)
    (line,) = [line for line in result.stdout.splitlines() if "no such file in" in line]
    assert line.endswith("(and 13 more like this: image 1 ('1.png'); image 2 ('2.png'); …)")
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (1, "14 defects")
    assert len(json.loads(numbers.read_text(encoding="utf-8"))["problems"]) == 14


@pytest.mark.parametrize(
    "command",
    [
        ("data", "check", "coco"),
        ("evaluate", "faster_rcnn", "--data", "coco", "--split", "all", "--classes", "tree,car"),
        ("evaluate", "fast_rcnn", "--data", "coco", "--split", "all", "--max-proposals", 5),
        ("train", "mask_rcnn", "--data", "coco", "--from-scratch", "--iterations", 6, "--min-size", 64),
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_one_image_is_in_memory_at_a_time(call, files, folder, tmp_path, monkeypatch, command):
    """Whenever one is read, those before are gone, but for the one just looked at; of a training the bytes stay."""
    alive, counts, read = [], [], images.read_image

    def counted(path):
        counts.append(sum(one() is not None for one in alive))
        alive.append(weakref.ref(image := read(path)))
        return image

    monkeypatch.setattr(images, "read_image", counted)
    more = {"evaluate": ("--weights", files.get(command[1])), "train": ("--out", tmp_path / "x.safetensors")}
    more["train"] += ("--images-per-batch", 1)
    result = call(*command, *own(folder)[2:], *more.get(command[0], ()))
    assert result.exit_code == 0, result.output
    assert len(counts) >= (COUNT if command[0] != "train" else 6) and max(counts) <= 1
