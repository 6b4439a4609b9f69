"""The programs for one's own data do what their page says, on a small folder in COCO's format."""

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from minircnn.cli import app
from minircnn.datasets import ToyTown
from minircnn.datasets.toytown import DATA_FOLDER
from minircnn.mask_rcnn import load_mask_rcnn
from minircnn.training import FineTuningSettings

PAGE = Path(__file__).parent.parent / "docs" / "own_data.md"


@pytest.fixture
def own_data(tmp_path):
    """Ten scenes with two kinds of objects, as somebody might have them."""
    given = json.loads((DATA_FOLDER / "instances_val.json").read_text())
    (tmp_path / "my" / "images").mkdir(parents=True)
    images, categories = given["images"][:10], given["categories"][:2]
    for image in images:
        place = tmp_path / "my" / "images" / image["file_name"]
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes((DATA_FOLDER / image["file_name"]).read_bytes())
    pairs = {(image["id"], category["id"]) for image in images for category in categories}
    kept = [one for one in given["annotations"] if (one["image_id"], one["category_id"]) in pairs]
    file = {"images": images, "categories": categories, "annotations": kept}
    (tmp_path / "my" / "annotations.json").write_text(json.dumps(file))
    return tmp_path


def test_the_program_for_your_own_data(own_data, monkeypatch, capsys):
    program, fine_tuning = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    words = "chosen.training(MaskRCNNTrainingSettings)"
    assert program.count(words) == 1
    monkeypatch.chdir(own_data)
    names = {}
    exec(compile(program.replace(words, f"{words[:-1]}, iterations=2)"), "own_data.md", "exec"), names)
    classes = ToyTown("val").classes[:3]
    assert (len(names["train"]), len(names["held_out"]), len(names["losses"])) == (8, 2, 2)
    assert list(load_mask_rcnn("my/detector.safetensors").classes) == list(classes)
    printed = capsys.readouterr().out
    assert all(name in printed for name in classes[1:]) and "image size: shorter side" in printed

    for words, small in (
        ('weights="coco"', "weights=None"),  # random ones, for there may be no network
        ("fine_tune(model, train,", "fine_tune(model, train, FineTuningSettings(iterations=1, min_size=64),"),
    ):
        assert fine_tuning.count(words) == 1
        fine_tuning = fine_tuning.replace(words, small)
    names["FineTuningSettings"] = FineTuningSettings
    exec(compile(fine_tuning, "own_data.md", "exec"), names)
    tuned = load_mask_rcnn("my/fine_tuned.safetensors")
    assert list(tuned.classes) == list(classes) and list(tuned.backbone.config.blocks) == [3, 4, 6, 3]


def test_the_commands_for_your_own_data(own_data, monkeypatch):
    commands = re.findall(
        r"^    minircnn (\w+ \w+ .*my/annotations.json.*)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE
    )
    assert [command.split()[0] for command in commands] == ["data", "train", "evaluate"]
    monkeypatch.chdir(own_data)
    outputs = []
    for command in commands:
        few = ["--iterations", "1"] if command.startswith("train") else []
        result = CliRunner().invoke(app, [*command.split(), *few])
        assert result.exit_code == 0, result.output
        outputs.append(result.output)
    checked, trained, measured = outputs
    assert "10 images" in checked and "my/detector.safetensors" in trained
    assert all(name in measured for name in ToyTown("val").classes[1:3])
