"""The fixed set in data/toytown: valid COCO, as promised in its card, and repaintable from its seeds."""

import hashlib
import json
import shutil
from collections import Counter
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, JpegImagePlugin
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO

from minircnn.datasets.toytown import (
    CLASSES,
    DATA_FOLDER,
    SPLITS,
    SUBTYPES,
    ToyTown,
    build,
    check_checksums,
)
from minircnn.datasets.toytown.__main__ import main
from minircnn.datasets.toytown.build import jpeg, repaint
from minircnn.datasets.toytown.card import BEGIN, END, card_tables, write_card
from minircnn.datasets.toytown.checksums import write_checksums
from minircnn.datasets.toytown.landscape import MOODS
from minircnn.datasets.toytown.layout import MIN_VISIBLE_PIXELS, MIN_VISIBLE_SHARE, SCALE
from minircnn.datasets.toytown.photographs import HELD_OUT_PHOTOGRAPHS
from minircnn.datasets.toytown.render import SUPERSAMPLE

# pycocotools 2.0.x decodes through an interface that NumPy 2 warns about.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

COUNTS = {"train": 1000, "val": 200, "test": 200}
SMALL = {"train": 2, "val": 1, "test": 1}
each_split = pytest.mark.parametrize("split", list(COUNTS))


@pytest.fixture(scope="module")
def content():
    return {s: json.loads((DATA_FOLDER / f"instances_{s}.json").read_text(encoding="utf-8")) for s in COUNTS}


@pytest.fixture(scope="module")
def small_set(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toytown")
    build(folder, SMALL, progress=lambda line: None)
    return folder


def _everything(content):
    return [a for part in content.values() for a in part["annotations"]]


@each_split
def test_pycocotools_reads_it_and_agrees_with_every_number(split, capsys):
    coco = COCO(str(DATA_FOLDER / f"instances_{split}.json"))
    capsys.readouterr()  # COCO() prints
    assert len(coco.imgs) == COUNTS[split]
    assert [(c["id"], c["name"]) for c in coco.loadCats(coco.getCatIds())] == list(enumerate(CLASSES[1:], start=1))
    for annotation in coco.anns.values():
        assert isinstance(annotation["segmentation"]["counts"], str)
        assert annotation["area"] == mask_utils.area(annotation["segmentation"])
        np.testing.assert_array_equal(annotation["bbox"], mask_utils.toBbox(annotation["segmentation"]))
        assert annotation["iscrowd"] == 0


@each_split
def test_visible_masks_are_disjoint_and_boxes_lie_in_the_picture(split, capsys):
    coco = COCO(str(DATA_FOLDER / f"instances_{split}.json"))
    capsys.readouterr()
    for image_id in coco.getImgIds():
        annotations = coco.imgToAnns[image_id]
        assert 1 <= len(annotations) <= 6
        masks = np.stack([coco.annToMask(a) for a in annotations])
        assert masks.shape[1:] == (128, 128)
        assert masks.sum(axis=0).max() == 1
        for x, y, width, height in (a["bbox"] for a in annotations):
            assert 0 <= x < x + width <= 128 and 0 <= y < y + height <= 128


def test_objects_can_be_seen_well_enough_to_be_asked_for(content):
    for annotation in _everything(content):
        assert annotation["area"] >= 0.35 * annotation["full_area"]
        assert annotation["area"] >= 40
        assert annotation["area"] <= annotation["full_area"]


def test_scale_runs_from_about_20_to_about_90_pixels(content):
    longer = np.array([max(a["bbox"][2:]) for a in _everything(content)])
    assert longer.max() <= 92
    whole = np.array([max(a["bbox"][2:]) for a in _everything(content) if a["area"] == a["full_area"]])
    assert whole.min() >= 14  # the string of a balloon is too thin to be in its mask
    assert np.quantile(whole, 0.02) < 27 and np.quantile(longer, 0.98) > 83
    assert 40 < np.median(longer) < 70


def test_shapes_differ_as_those_of_real_classes_do(content):
    aspect = {}
    for label, name in enumerate(CLASSES[1:], start=1):
        boxes = np.array([a["bbox"] for a in _everything(content) if a["category_id"] == label])
        aspect[name] = np.median(boxes[:, 2] / boxes[:, 3])
    assert aspect["person"] < 0.6 < 1.5 < aspect["car"]
    assert aspect["person"] < aspect["tree"] < aspect["balloon"] < aspect["house"] < aspect["car"]
    assert aspect["cat"] > 1.05


def test_every_class_and_subtype_is_common(content):
    objects = _everything(content)
    subtypes = Counter(a["subtype"] for a in objects)
    assert set(subtypes) == set(SUBTYPES)
    assert min(subtypes.values()) > 0.015 * len(objects)
    for split in COUNTS:
        counts = Counter(a["category_id"] for a in content[split]["annotations"])
        assert set(counts) == set(range(1, 7)) and min(counts.values()) > 0.1 * counts.total()
    assert all(a["subtype"].startswith(CLASSES[a["category_id"]] + "/") for a in objects)


def test_there_is_real_occlusion_and_truncation(content):
    share = np.array([a["area"] / a["full_area"] for a in _everything(content)])
    assert 0.2 < np.mean(share < 0.95) < 0.7
    assert np.mean(share < 0.6) > 0.05


def test_splits_share_no_scene(content):
    seeds = {split: {image["seed"] for image in part["images"]} for split, part in content.items()}
    assert all(len(seeds[split]) == COUNTS[split] for split in COUNTS)
    assert len(set.union(*seeds.values())) == sum(COUNTS.values())
    digests = [hashlib.sha256(p.read_bytes()).digest() for p in DATA_FOLDER.glob("*/*.jpg")]
    assert len(digests) == len(set(digests)) == sum(COUNTS.values())


def test_val_and_test_show_photographs_that_train_never_shows(content):
    backgrounds = {split: {image["background"] for image in part["images"]} for split, part in content.items()}
    held_out = {f"photograph/{name}" for name in HELD_OUT_PHOTOGRAPHS}
    assert held_out and not held_out & backgrounds["train"]
    assert held_out <= backgrounds["val"] and held_out <= backgrounds["test"]
    for split in ("val", "test"):
        shown = [image["background"] in held_out for image in content[split]["images"]]
        assert 0.15 < np.mean(shown) < 0.5


@each_split
def test_pictures_are_colour_jpegs_of_128_pixels_with_full_colour_resolution(split):
    for number in (1, COUNTS[split]):
        with Image.open(DATA_FOLDER / split / f"{number:06d}.jpg") as image:
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (128, 128))
            assert JpegImagePlugin.get_sampling(image) == 0  # 4:4:4


@each_split
def test_repainting_gives_the_stored_pictures(split, content):
    """The tolerance is for another Pillow; a changed painter or another seed is far outside it."""
    for number in (1, 2, 3, 57, COUNTS[split]):
        scene = repaint(split, number)
        record = content[split]["images"][number - 1]
        assert (record["id"], record["background"]) == (number, scene.background)
        with Image.open(DATA_FOLDER / record["file_name"]) as image:
            stored = np.asarray(image, np.float32)
        with Image.open(BytesIO(jpeg(scene.image))) as image:
            assert np.abs(stored - np.asarray(image)).mean() < 1.5
        assert np.abs(stored - scene.image).mean() < 5  # what JPEG itself may change
        objects = [a for a in content[split]["annotations"] if a["image_id"] == number]
        assert [a["category_id"] for a in objects] == scene.labels.tolist()
        for annotation, mask in zip(objects, scene.masks, strict=True):
            stored_mask = mask_utils.decode(annotation["segmentation"]).astype(bool)
            assert (stored_mask & mask).sum() >= 0.93 * (stored_mask | mask).sum()


def test_two_builds_are_equal_to_the_last_byte(small_set, tmp_path):
    build(tmp_path, SMALL, progress=lambda line: None)
    files = sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*") if p.is_file())
    assert len(files) == sum(SMALL.values()) + 3 + 1
    assert all((tmp_path / f).read_bytes() == (small_set / f).read_bytes() for f in files)


def test_build_leaves_no_temporary_files_and_says_what_it_did(tmp_path):
    lines = []
    build(tmp_path, SMALL, lines.append)
    assert not list(tmp_path.rglob("*.part"))
    assert [line.split(",")[0] for line in lines] == ["train: 2 pictures", "val: 1 pictures", "test: 1 pictures"]


def test_annotations_hold_nothing_of_machine_or_day(content):
    for part in content.values():
        assert set(part) == {"info", "licenses", "categories", "images", "annotations"}
        assert set(part["info"]) == {"description", "version"}
        assert all(
            set(image) == {"id", "file_name", "height", "width", "license", "seed", "background"}
            for image in part["images"]
        )


# --- checksums -------------------------------------------------------------------------------------------------------


def test_the_set_is_as_its_checksums_say():
    assert check_checksums(DATA_FOLDER) == []


def test_checksums_are_those_of_sha256sum(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"abc")  # FIPS 180-2, appendix B.1
    write_checksums(tmp_path)
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  a.txt\n"
    assert (tmp_path / "SHA256SUMS").read_bytes() == expected.encode()


def test_checksums_find_a_flipped_bit_a_missing_and_a_stray_file(small_set, tmp_path):
    folder = tmp_path / "set"
    shutil.copytree(small_set, folder)
    assert check_checksums(folder) == []
    picture = folder / "train" / "000001.jpg"
    content = bytearray(picture.read_bytes())
    content[len(content) // 2] ^= 1
    picture.write_bytes(content)
    (folder / "val" / "000001.jpg").unlink()
    (folder / "stray.txt").write_text("?")
    faults = check_checksums(folder)
    assert len(faults) == 3
    for name, fault in (("train/000001.jpg", "changed"), ("val/000001.jpg", "missing"), ("stray.txt", "not listed")):
        assert any(str(folder / name) in line and fault in line for line in faults)


def test_a_broken_list_of_checksums_is_reported(tmp_path):
    (tmp_path / "SHA256SUMS").write_text("rubbish\n")
    assert "line 1" in check_checksums(tmp_path)[0]
    with pytest.raises(FileNotFoundError, match="SHA256SUMS"):
        check_checksums(tmp_path / "elsewhere")


def test_the_command_checks(small_set, tmp_path, capsys):
    assert main(["--check", "--out", str(small_set)]) == 0
    assert "as listed" in capsys.readouterr().out
    assert main(["--check", "--out", str(tmp_path)]) == 1
    assert "not found" in capsys.readouterr().err


# --- data card -------------------------------------------------------------------------------------------------------


def test_the_card_holds_the_tables_of_the_data():
    card = (DATA_FOLDER.parent / "README.md").read_text(encoding="utf-8")
    assert card.split(BEGIN)[1].split(END)[0].strip() == card_tables(DATA_FOLDER)


def test_the_numbers_in_the_words_of_the_card_are_those_of_the_code():
    card = " ".join((DATA_FOLDER.parent / "README.md").read_text(encoding="utf-8").split())
    assert f"at least {MIN_VISIBLE_SHARE:.0%} of its pixels and at least {MIN_VISIBLE_PIXELS} pixels" in card
    assert f"its longer side is {SCALE[0]:.0f} to {SCALE[1]:.0f} pixels" in card
    assert f"drawn at {({4: 'four'})[SUPERSAMPLE]} times that size" in card
    assert f"painted landscapes in {({10: 'ten'})[len(MOODS)]} moods" in card


def test_the_command_renews_the_card(tmp_path, capsys):
    shutil.copytree(DATA_FOLDER, tmp_path / "toytown", ignore=shutil.ignore_patterns("*.jpg"))
    (tmp_path / "README.md").write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    assert main(["--card", "--out", str(tmp_path / "toytown")]) == 0
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert "| 1 person |" in text
    (tmp_path / "README.md").write_text("no marks")
    with pytest.raises(ValueError, match=r"README\.md"):
        write_card(tmp_path / "toytown", tmp_path / "README.md")


def test_counts_of_the_card_are_those_of_pycocotools(capsys):
    coco = COCO(str(DATA_FOLDER / "instances_val.json"))
    capsys.readouterr()
    table = card_tables(DATA_FOLDER)
    for label, name in enumerate(CLASSES[1:], start=1):
        row = next(line for line in table.splitlines() if line.startswith(f"| {label} {name} |"))
        assert int(row.split("|")[3]) == len(coco.getAnnIds(catIds=[label]))


# --- ToyTown ---------------------------------------------------------------------------------------------------------


def test_toytown_yields_what_pycocotools_reads(capsys):
    coco = COCO(str(DATA_FOLDER / "instances_val.json"))
    capsys.readouterr()
    dataset = ToyTown("val")
    assert len(dataset) == 200
    assert dataset.classes == list(CLASSES)
    for index in (0, 57, 199):
        image, target = dataset[index]
        annotations = coco.imgToAnns[target["image_id"]]
        assert tuple(image.shape) == (3, 128, 128)
        assert target["labels"].tolist() == [a["category_id"] for a in annotations]
        np.testing.assert_array_equal(target["masks"].numpy(), [coco.annToMask(a).astype(bool) for a in annotations])
        corners = [[x, y, x + w, y + h] for x, y, w, h in (a["bbox"] for a in annotations)]
        np.testing.assert_array_equal(target["boxes"].numpy(), corners)


def test_toytown_reads_another_folder(small_set):
    assert [len(ToyTown(split, small_set)) for split in SPLITS] == [2, 1, 1]
    assert "masks" not in ToyTown("val", small_set, masks=False)[0][1]


def test_toytown_says_what_is_wrong(tmp_path):
    with pytest.raises(ValueError, match=r"'training'.*'train', 'val', 'test'"):
        ToyTown("training")
    with pytest.raises(FileNotFoundError, match=r"instances_val\.json.*--out"):
        ToyTown("val", tmp_path / "nowhere")
