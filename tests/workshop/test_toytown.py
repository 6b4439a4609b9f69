"""The sets that the painter writes: repaintable from their seeds, and as the data card says."""

import json
import re
import sys
from importlib.metadata import version
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as mask_utils

from minircnn.course.one_object import one_object_images
from minircnn.datasets.toytown import CLASSES, SPLITS, ToyTown, check_checksums
from minircnn.files import sha256
from minircnn.shipped import ONE_OBJECT_FOLDER, PROJECT_FOLDER, TOYTOWN_FOLDER
from workshop.pages import with_section
from workshop.toytown import build, paint_single
from workshop.toytown.__main__ import main
from workshop.toytown.background import MOODS
from workshop.toytown.build import JPEG, encoded, repaint
from workshop.toytown.card import MARKER
from workshop.toytown.layout import MIN_VISIBLE_PIXELS, MIN_VISIBLE_SHARE, SCALE
from workshop.toytown.photographs import HELD_OUT_PHOTOGRAPHS, TRAIN_PHOTOGRAPHS
from workshop.toytown.render import SUPERSAMPLE
from workshop.toytown.single import SHEETS

# pycocotools 2.0.x decodes through an interface that NumPy 2 warns about.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SMALL = {"train": 2, "val": 1, "test": 1}
CARD = (TOYTOWN_FOLDER.parent / "README.md").read_text(encoding="utf-8")


def as_painted():
    """Whether the packages that decide about pixels are those that the sets were painted with."""
    pins = dict(re.findall(r"^([a-z-]+)==([0-9.]+)", (PROJECT_FOLDER / "constraints.txt").read_text(), re.MULTILINE))
    return sys.platform == "linux" and all(version(name) == pins[name] for name in ("pillow", "scikit-image"))


@pytest.mark.parametrize("split", SPLITS)
def test_repainting_gives_the_stored_scenes(split):
    """To the byte with the tested versions; others may differ a little at edges."""
    content = json.loads((TOYTOWN_FOLDER / f"instances_{split}.json").read_text(encoding="utf-8"))
    for number in (1, 57, len(content["images"])):
        scene = repaint(split, number)
        record = content["images"][number - 1]
        assert (record["id"], record["background"]) == (number, scene.background)
        stored, painted = (TOYTOWN_FOLDER / record["file_name"]).read_bytes(), encoded(scene.image, **JPEG)
        assert stored == painted or not as_painted()
        one, other = (np.asarray(Image.open(BytesIO(file)), np.float32) for file in (stored, painted))
        assert np.abs(one - other).mean() < 1.5
        objects = [a for a in content["annotations"] if a["image_id"] == number]
        assert [a["category_id"] for a in objects] == scene.labels.tolist()
        for annotation, mask in zip(objects, scene.masks, strict=True):
            known = mask_utils.decode(annotation["segmentation"]).astype(bool)
            assert (known & mask).sum() >= 0.93 * (known | mask).sum()


@pytest.mark.parametrize("split, first", [("train", 10_000_000), ("val", 20_000_000)])
def test_repainting_gives_the_stored_images_of_one_object(split, first):
    images, subtypes = one_object_images(split)
    photographs = TRAIN_PHOTOGRAPHS if split == "train" else TRAIN_PHOTOGRAPHS[:4] + HELD_OUT_PHOTOGRAPHS
    _, file, options = SHEETS[split]
    for index in (0, 49, 50, len(images) - 1):
        image, _, subtype = paint_single(first + index, 64, photographs)
        kept = np.asarray(Image.open(BytesIO(encoded(image, **options))), int)
        difference = np.abs(kept - images[index].permute(1, 2, 0).numpy())
        assert subtypes[index] == subtype
        assert difference.max() == 0 if as_painted() else difference.mean() < 1.5
    about = json.loads((ONE_OBJECT_FOLDER / "about.json").read_text(encoding="utf-8"))
    assert about[split]["sha256"] == sha256(ONE_OBJECT_FOLDER / file)


def test_two_builds_are_equal_to_the_last_byte(tmp_path, capsys):
    for name in ("one", "two"):
        build(tmp_path / name, SMALL)
    files = sorted(p.relative_to(tmp_path / "one") for p in (tmp_path / "one").rglob("*") if p.is_file())
    assert len(files) == sum(SMALL.values()) + 3 + 1, "and nothing temporary"
    assert all((tmp_path / "one" / f).read_bytes() == (tmp_path / "two" / f).read_bytes() for f in files)
    assert check_checksums(tmp_path / "one") == []
    assert [len(ToyTown(split, tmp_path / "one")) for split in SPLITS] == [2, 1, 1]
    assert main(["--check", "--out", str(tmp_path / "one")]) == 0
    assert "as listed" in capsys.readouterr().out
    assert main(["--check", "--out", str(tmp_path)]) == 1
    assert "SHA256SUMS: not found" in capsys.readouterr().out


def test_the_card_says_what_data_and_code_say(tmp_path):
    """`--card` writes it, into a folder that looks like data/."""
    old = with_section(TOYTOWN_FOLDER.parent / "README.md", MARKER, ["old"])
    (tmp_path / "README.md").write_text(old, encoding="utf-8")
    (tmp_path / "toytown").symlink_to(TOYTOWN_FOLDER)
    assert main(["--card", "--out", str(tmp_path / "toytown")]) == 0
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == CARD
    labels = ToyTown("val", masks=False)
    counts = np.bincount([label for i in range(len(labels)) for label in labels.load_target(i)["labels"].tolist()])
    for label, name in enumerate(CLASSES[1:], start=1):
        row = next(line for line in CARD.splitlines() if line.startswith(f"| {label} {name} |"))
        assert int(row.split("|")[3]) == counts[label]
    words = " ".join(CARD.split())
    assert f"at least {MIN_VISIBLE_SHARE:.0%} of its pixels and at least {MIN_VISIBLE_PIXELS} pixels" in words
    assert f"its longer side is {SCALE[0]:.0f} to {SCALE[1]:.0f} pixels" in words
    assert f"drawn at {({4: 'four'})[SUPERSAMPLE]} times that size" in words
    assert f"painted landscapes in {({10: 'ten'})[len(MOODS)]} moods" in words
