"""What ``minircnn data check`` finds: one defect planted at a time, and counts by hand."""

import json
import shutil

import pytest
import torch
from PIL import Image

from minircnn.datasets.checking import examine, object_problems, open_to_check
from minircnn.datasets.toytown import DATA_FOLDER
from tests.datasets import conftest as small
from tests.datasets.conftest import an_object, write_cell, write_people, write_voc, xml

SQUARE = [2.0, 1.0, 6.0, 1.0, 6.0, 4.0, 2.0, 4.0]


def coco_content():
    """Three images of height 8 and width 10, each of its own color; the last without an object."""
    one = {"bbox": [2, 1, 4, 3], "area": 12, "segmentation": [SQUARE]}
    crowd = {"bbox": [0, 0, 10, 8], "area": 80, "iscrowd": 1, "segmentation": {"size": [8, 10], "counts": [0, 80]}}
    return {
        "images": [{"id": n, "file_name": f"{n}.png", "height": 8, "width": 10} for n in (1, 2, 3)],
        "annotations": [
            {"id": 5, "image_id": 1, "category_id": 1, **one},
            {"id": 6, "image_id": 1, "category_id": 2, **one},
            {"id": 7, "image_id": 2, "category_id": 2, **one},
            {"id": 8, "image_id": 2, "category_id": 2, **crowd},
        ],
        "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}, {"id": 3, "name": "cow"}],
    }


@pytest.fixture
def coco(tmp_path):
    for n in (1, 2, 3):
        Image.new("RGB", (10, 8), (n, 0, 0)).save(tmp_path / f"{n}.png")
    return tmp_path


def look(folder, content):
    """The report on a COCO data set, and every defect."""
    path = folder / "x.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    data, problems = open_to_check("coco", folder, path, split=None, masks=True)
    if data is None:
        return None, problems
    report = examine(data)
    return report, problems + report.problems


def test_counts_by_hand(coco):
    content = coco_content()
    Image.new("RGB", (30, 4), (9, 0, 0)).save(coco / "3.png")
    content["images"][2].update(height=4, width=30)
    report, problems = look(coco, content)
    assert problems == []
    assert (report.images, report.empty, report.objects, report.crowds) == (3, 1, 4, 1)
    assert report.per_class == {"dog": (1, 1), "cat": (3, 2), "cow": (0, 0)}
    assert (report.smallest, report.largest, report.readable) == ((8, 10), (4, 30), [0, 1, 2])
    del content["annotations"][1:]
    assert look(coco, content)[0].empty == 2, "an image of one object is not empty"


def change(number, **values):
    """Plant these values into the annotation of this number."""
    return lambda folder, content: content["annotations"][number].update(values)


def same_image(folder, content):
    shutil.copy(folder / "1.png", folder / "3.png")


def unreadable(folder, content):
    (folder / "2.png").write_bytes(b"no image")


def other_size(folder, content):
    content["images"][1].update(height=10, width=8)
    content["annotations"] = content["annotations"][:2]


def turned(folder, content):
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.new("RGB", (10, 8)).save(folder / "2.png", exif=exif)


def fractions(folder, content):
    content["annotations"] = [content["annotations"][2] | {"bbox": [0.2, 0.1, 0.4, 0.3], "area": 0.12}]
    content["annotations"][0]["segmentation"] = [[0, 0, 1, 0, 1, 1, 0, 1]]


@pytest.mark.parametrize(
    ("plant", "words"),
    [
        (same_image, "3.png: the same image as {folder}/1.png; remove one"),
        (unreadable, "2.png: the image cannot be decoded"),
        (other_size, "2.png: the image is 8 high and 10 wide, its annotations say 10 and 8"),
        (
            change(1, bbox=[2, 1, 4, 30]),
            "image 1 ('1.png'), annotation 6: box [2, 1, 4, 30] (x, y, width, height) le",
        ),
        (change(1, category_id=1), "1.png, object 2 (dog): the same class and box as object 1; delete one"),
        (change(1, segmentation={"size": [8, 10], "counts": [80]}), "1.png, object 2 (cat): its mask is empty"),
        (change(1, bbox=[9, 1, 1, 1], area=1), "1.png, object 2 (cat): its mask lies in the box 2, 1, 6, 4, its box"),
        (turned, "2.png: its EXIF tag turns it (orientation 3)"),
        (fractions, "2.png (image_id 2): boxes[0] is [0.2"),
    ],
)
def test_each_defect_is_found_and_named_once(coco, plant, words):
    content = coco_content()
    plant(coco, content)
    _, (problem,) = look(coco, content)
    where = "" if words.startswith("image ") else f"{coco}/"  # seen in the JSON, or in the image itself
    assert problem.startswith(where + words.replace("{folder}", str(coco)))


def test_all_defects_are_listed_however_many(coco):
    """An error of the loader would list ten."""
    content = coco_content()
    content["annotations"] = [{**content["annotations"][0], "id": n, "category_id": 50} for n in range(40)]
    report, problems = look(coco, content)
    assert (len(problems), report.objects, report.empty) == (40, 0, 3)
    content["images"] += [{**content["images"][0], "id": n, "file_name": f"{n}.png"} for n in range(100, 130)]
    report, problems = look(coco, content)
    assert (report, len(problems)) == (None, 30), "without its images the set cannot be opened"


@pytest.mark.parametrize(
    ("box", "count"),
    [
        ([10.0, 10, 20, 20], 0),
        ([4.0, 10, 20, 26], 0),  # the border of VOC
        ([3.0, 10, 20, 27], 1),  # 7 pixels, and less than half of the box
        ([10.0, 10, 20, 29], 0),  # 9 pixels, and more than half
        ([50.0, 50, 60, 60], 1),
    ],
)
def test_small_differences_between_mask_and_box_are_none(box, count):
    masks = torch.zeros(1, 100, 100, dtype=torch.bool)
    masks[0, 10:20, 10:20] = True
    target = {"labels": torch.tensor([1]), "masks": masks, "boxes": torch.tensor([box])}
    found = object_problems(target, (100, 100), ["background", "x"], "p")
    assert len(found) == count
    assert all(problem.startswith("p, object 1 (x): its mask lies in the box 10, 10, 20, 20") for problem in found)


def test_the_other_data_sets(tmp_path):
    """Each with a defect that only its own loader knows; a split is looked at as a whole set is."""
    voc = write_voc(tmp_path / "voc", {"a": xml(an_object(), an_object("")), "b": xml(size=(5, 5))})
    data, problems = open_to_check("voc", voc, None, split="trainval", masks=False)
    assert [problem.partition(": ")[2][:8] for problem in problems] == ["object 2"]
    report = examine(data)
    assert (report.objects, report.crowds, report.readable) == (1, 0, [0])
    assert [problem.partition(": ")[2][:30] for problem in report.problems] == ["the image is 12 high and 20 wi"]

    people = write_people(tmp_path / "people", {"a": small.three_people(), "b": small.three_people()})
    (people / "PedMasks" / "b_mask.png").write_bytes(b"broken")
    (people / "PNGImages" / "c.png").write_bytes(b"")
    data, (problem,) = open_to_check("pennfudan", people, None, split=None, masks=True)
    assert "c_mask.png: is missing" in problem
    report = examine(data)
    assert (report.images, report.objects, report.readable) == (2, 3, [0])
    (problem,) = report.problems  # once, although it is looked for and loaded
    assert "b_mask.png: the image cannot be decoded" in problem

    for n in range(5):
        write_cell(tmp_path / "cells", f"{n}" * (n + 1), small.block((2, 5), (3, 9)), small.block((0, 0), (0, 0)))
    data, _ = open_to_check("nuclei", tmp_path / "cells", None, split="test", masks=True)
    report = examine(data)
    assert (report.images, report.objects, len(report.problems)) == (1, 1, 1)
    assert "44444.png, mask b.png: it is empty" in report.problems[0]


@pytest.mark.parametrize(("content", "words"), [(b"x", "cannot be"), (small.png_that_claims(9999, 9999), "is too l")])
def test_an_image_that_cannot_be_read_is_told_once_and_no_warning_is_seen(tmp_path, recwarn, content, words):
    """Pillow warns of 89 million pixels and more: on the screen, in the midst of the progress."""
    write_cell(tmp_path, "x", small.block((2, 5), (3, 9)))
    (tmp_path / "x" / "images" / "x.png").write_bytes(content)
    data, _ = open_to_check("nuclei", tmp_path, None, split=None, masks=True)
    report = examine(data)
    assert (report.readable, report.smallest, report.objects) == ([], None, 0)
    (problem,) = report.problems
    assert problem.startswith(f"{data.image_path(0)}: the image {words}")
    assert not list(recwarn)


def test_toy_town_has_no_defects():
    data, problems = open_to_check("toytown", None, None, split="test", masks=True)
    report = examine(data)
    assert problems == report.problems == []
    assert (report.images, report.smallest, report.largest) == (200, (128, 128), (128, 128))
    listed = json.loads((DATA_FOLDER / "instances_test.json").read_text(encoding="utf-8"))["annotations"]
    assert report.objects == sum(objects for objects, _ in report.per_class.values()) == len(listed)
