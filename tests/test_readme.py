"""The README's program does what it says, on a small folder in COCO's format."""

import json
import re
from pathlib import Path

import pytest

from minircnn.datasets import ToyTown
from minircnn.datasets.toytown import DATA_FOLDER
from minircnn.mask_rcnn import load_mask_rcnn

README = Path(__file__).parent.parent / "README.md"


@pytest.fixture
def own_data(tmp_path):
    """Ten scenes with two kinds of objects, as somebody might have them."""
    given = json.loads((DATA_FOLDER / "instances_val.json").read_text())
    (tmp_path / "my" / "pictures").mkdir(parents=True)
    images = given["images"][:10]
    for image in images:
        name = image["file_name"]
        (tmp_path / "my" / "pictures" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "my" / "pictures" / name).write_bytes((DATA_FOLDER / name).read_bytes())
    numbers, categories = {image["id"] for image in images}, given["categories"][:2]
    kept = [
        one
        for one in given["annotations"]
        if one["image_id"] in numbers and one["category_id"] in {category["id"] for category in categories}
    ]
    file = {"images": images, "categories": categories, "annotations": kept}
    (tmp_path / "my" / "annotations.json").write_text(json.dumps(file))
    return tmp_path


def test_the_program_for_your_own_data(own_data, monkeypatch, capsys):
    (program,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert program.count("iterations=2000") == 1
    monkeypatch.chdir(own_data)
    names = {}
    exec(compile(program.replace("iterations=2000", "iterations=2"), "README.md", "exec"), names)
    classes = ToyTown("val").classes[:3]
    assert (len(names["train"]), len(names["held_out"]), len(names["losses"])) == (8, 2, 2)
    assert list(load_mask_rcnn("my/detector.safetensors").classes) == list(classes)
    printed = capsys.readouterr().out
    assert all(name in printed for name in classes[1:])
