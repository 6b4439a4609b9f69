"""The weights and results that come with the project are what their JSON files say, and do what is said of them.

What the detectors find is in test_reference.py.
"""

import json

import pytest

from minircnn.alexnet import SMALL_STRIDE_16_WEIGHTS, SMALL_WEIGHTS, load_alexnet
from minircnn.course.one_object import accuracy, one_object_images
from minircnn.shipped import DETECTOR_WEIGHTS, WEIGHTS_FOLDER
from minircnn.weights import load_weights

MEGABYTE = 1_000_000
FILES = sorted(WEIGHTS_FOLDER.glob("*.safetensors"))


def test_the_data_folder_stays_small():
    sizes = [path.stat().st_size for path in WEIGHTS_FOLDER.parent.rglob("*") if path.is_file()]
    assert max(sizes) < 20 * MEGABYTE and sum(sizes) < 60 * MEGABYTE


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_file_is_the_one_that_its_json_describes(path):
    _, about = load_weights(path)  # compares the checksum
    assert about["command"].startswith(("minircnn train ", "python -m workshop.pretraining "))
    assert about["command"].split("--out ")[1].split()[0] == f"data/weights/{path.name}"
    card = (WEIGHTS_FOLDER.parent / "README.md").read_text(encoding="utf-8")
    assert f"`weights/{path.stem}`" in card, "the data card lists every file"


def test_no_file_without_its_partner():
    names = {path.stem for path in FILES}
    assert names == {path.stem for path in WEIGHTS_FOLDER.glob("*.json")}
    assert {path.stem for path in (SMALL_WEIGHTS, SMALL_STRIDE_16_WEIGHTS, *DETECTOR_WEIGHTS.values())} <= names


@pytest.mark.parametrize("path", [SMALL_WEIGHTS, SMALL_STRIDE_16_WEIGHTS], ids=lambda path: path.stem)
def test_the_alexnets_classify_what_they_have_never_seen(path):
    stated = json.loads(path.with_suffix(".json").read_text())["held_out_accuracy"]
    reached = accuracy(load_alexnet(path), *one_object_images("val"))
    # 500 of the 2000: a standard error of at most 1.4 points.
    assert reached.subtypes == pytest.approx(stated["subtypes"], abs=0.05)
    assert reached.classes == pytest.approx(stated["classes"], abs=0.03)
    assert reached.subtypes > 0.85 and reached.classes > 0.95
