"""The reader of Toy Town, and the set in data/toytown: valid COCO, as listed in its checksums."""

import hashlib
import json

import numpy as np
import pytest
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO

from minircnn.datasets.toytown import CLASSES, DATA_FOLDER, SPLITS, SUBTYPES, ToyTown, check_checksums

# pycocotools 2.0.x decodes through an interface that NumPy 2 warns about.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

COUNTS = {"train": 1000, "val": 200, "test": 200}


@pytest.mark.parametrize("split", SPLITS)
def test_pycocotools_reads_it_and_agrees_with_every_number(split, capsys):
    coco = COCO(str(DATA_FOLDER / f"instances_{split}.json"))
    capsys.readouterr()  # COCO() prints
    assert len(coco.imgs) == COUNTS[split]
    assert [(c["id"], c["name"]) for c in coco.loadCats(coco.getCatIds())] == list(enumerate(CLASSES[1:], start=1))
    for annotation in coco.anns.values():
        assert annotation["area"] == mask_utils.area(annotation["segmentation"])
        np.testing.assert_array_equal(annotation["bbox"], mask_utils.toBbox(annotation["segmentation"]))
        assert annotation["iscrowd"] == 0
        assert max(40, 0.35 * annotation["full_area"]) <= annotation["area"] <= annotation["full_area"]
        assert SUBTYPES[SUBTYPES.index(annotation["subtype"])].startswith(CLASSES[annotation["category_id"]] + "/")
    for image_id in coco.getImgIds():
        masks = np.stack([coco.annToMask(a) for a in coco.imgToAnns[image_id]])
        assert 1 <= len(masks) <= 6 and masks.shape[1:] == (128, 128)
        assert masks.sum(axis=0).max() == 1, "visible masks are disjoint"


def test_splits_share_no_scene():
    parts = [json.loads((DATA_FOLDER / f"instances_{split}.json").read_text(encoding="utf-8")) for split in SPLITS]
    seeds = [image["seed"] for part in parts for image in part["images"]]
    digests = [hashlib.sha256(path.read_bytes()).digest() for path in DATA_FOLDER.glob("*/*.jpg")]
    assert len(seeds) == len(set(seeds)) == len(digests) == len(set(digests)) == sum(COUNTS.values())
    assert all(
        set(image) == {"id", "file_name", "height", "width", "license", "seed", "background"}
        for part in parts
        for image in part["images"]
    ), "nothing of machine or day"


def test_checksums_find_a_changed_a_missing_and_a_stray_file(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "a.txt").write_bytes(b"abc")  # FIPS 180-2, appendix B.1
    abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    (tmp_path / "SHA256SUMS").write_text(f"{abc}  a.txt\n")
    (tmp_path / ".DS_Store").write_text("hidden")
    assert check_checksums(tmp_path) == check_checksums(DATA_FOLDER) == []
    (tmp_path / "SHA256SUMS").write_text(f"{abc}  a.txt\n{abc}  train/b.jpg\n{abc}  train/c.jpg\nrubbish\n")
    (tmp_path / "train" / "b.jpg").write_bytes(b"abd"), (tmp_path / "stray.txt").write_text("?")
    wanted = [("c.jpg", "missing"), (str(tmp_path), "missing"), ("b.jpg", "has changed"), ("stray.txt", "not listed")]
    faults = check_checksums(tmp_path)
    assert all(name in line and fault in line for line, (name, fault) in zip(faults, wanted, strict=True))
    with pytest.raises(FileNotFoundError, match="SHA256SUMS"):
        check_checksums(tmp_path / "elsewhere")


def test_toytown_yields_what_pycocotools_reads(capsys):
    coco, dataset = COCO(str(DATA_FOLDER / "instances_val.json")), ToyTown("val")
    assert len(dataset) == 200 and dataset.classes == list(CLASSES) and capsys.readouterr()
    for index in (0, 57, 199):
        image, target = dataset[index]
        annotations = coco.imgToAnns[target["image_id"]]
        assert tuple(image.shape) == (3, 128, 128)
        assert target["labels"].tolist() == [a["category_id"] for a in annotations]
        np.testing.assert_array_equal(target["masks"].numpy(), [coco.annToMask(a).astype(bool) for a in annotations])
        corners = [[x, y, x + w, y + h] for x, y, w, h in (a["bbox"] for a in annotations)]
        np.testing.assert_array_equal(target["boxes"].numpy(), corners)
