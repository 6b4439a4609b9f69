"""CocoDataset against pycocotools, and every defect that it promises to name."""

import copy
import json
import tracemalloc
import warnings

import numpy as np
import pycocotools.mask as rle_codec
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from pycocotools.coco import COCO

from minircnn.datasets import CocoDataset, DatasetError
from minircnn.datasets.coco import decode_counts, first_bad_runs

SQUARE = [2.0, 1.0, 6.0, 1.0, 6.0, 4.0, 2.0, 4.0]  # x 2…6, y 1…4: pycocotools fills exactly these 12 pixels


def tiny(**changes):
    """A data set of two 8×10 images (height 8, width 10); the second holds no object."""
    content = {
        "images": [
            {"id": 7, "file_name": "a.png", "height": 8, "width": 10},
            {"id": 3, "file_name": "b.png", "height": 8, "width": 10},
        ],
        "categories": [{"id": 9, "name": "dog"}, {"id": 4, "name": "cat"}],
        "annotations": [
            {
                "id": 11,
                "image_id": 7,
                "category_id": 9,
                "bbox": [2, 1, 4, 3],
                "area": 12,
                "iscrowd": 0,
                "segmentation": [SQUARE],
            }
        ],
    }
    content.update(copy.deepcopy(changes))
    return content


@pytest.fixture
def folder(tmp_path):
    """Two images whose pixels are all different, so that an exchange of axes or channels shows."""
    for number, name in enumerate(("a.png", "b.png")):
        pixels = np.arange(8 * 10 * 3, dtype=np.uint8).reshape(8, 10, 3) + number
        Image.fromarray(pixels).save(tmp_path / name)
    return tmp_path


def write(folder, content):
    path = folder / "instances.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def load(folder, content, **options):
    return CocoDataset(folder, write(folder, content), **options)


def annotation(**changes):
    """The annotation of `tiny`, changed; a value of None removes the key."""
    record = tiny()["annotations"][0] | changes
    return {key: value for key, value in record.items() if value is not None}


# ---------------------------------------------------------------------------------------------------- what it yields


def test_tiny_data_set_by_hand(folder):
    dataset = load(folder, tiny())
    assert len(dataset) == 2
    assert dataset.classes == ["background", "cat", "dog"]
    assert dataset.category_ids == [4, 9]
    assert dataset.image_ids == [7, 3]
    assert dataset.image_size(0) == (8, 10)
    assert dataset.image_path(1) == folder / "b.png"

    image, target = dataset[0]
    pixels = np.arange(8 * 10 * 3).reshape(8, 10, 3)
    assert image.dtype == torch.float32
    assert torch.equal(image, torch.tensor(pixels.transpose(2, 0, 1) / 255, dtype=torch.float32))
    assert target["boxes"].tolist() == [[2, 1, 6, 4]]
    assert target["labels"].tolist() == [2]
    assert target["image_id"] == 7
    assert target["iscrowd"].tolist() == [False]
    assert target["area"].tolist() == [12]
    expected = torch.zeros(1, 8, 10, dtype=torch.bool)
    expected[0, 1:4, 2:6] = True
    assert torch.equal(target["masks"], expected)


def test_image_without_objects_stays_with_empty_tensors(folder):
    _, target = load(folder, tiny())[1]
    shapes = {key: (tuple(value.shape), value.dtype) for key, value in target.items() if key != "image_id"}
    assert shapes == {
        "boxes": ((0, 4), torch.float32),
        "labels": ((0,), torch.int64),
        "masks": ((0, 8, 10), torch.bool),
        "iscrowd": ((0,), torch.bool),
        "area": ((0,), torch.float32),
    }


def test_three_ways_to_write_a_mask_agree(folder):
    mask = np.zeros((8, 10), dtype=np.uint8, order="F")
    mask[1:4, 2:6] = 1
    compressed = rle_codec.encode(mask)
    compressed["counts"] = compressed["counts"].decode()
    uncompressed = {"size": [8, 10], "counts": [17, 3, 5, 3, 5, 3, 5, 3, 36]}
    segmentations = [[SQUARE], compressed, uncompressed]
    records = [annotation(id=n, segmentation=s, iscrowd=n % 2) for n, s in enumerate(segmentations)]
    _, target = load(folder, tiny(annotations=records))[0]
    assert torch.equal(target["masks"], torch.from_numpy(mask).bool().expand(3, -1, -1))
    assert target["iscrowd"].tolist() == [False, True, False]


def test_masks_false_needs_no_segmentation_and_a_missing_iscrowd_means_one_object(folder):
    content = tiny(annotations=[annotation(segmentation=None, iscrowd=None)])
    _, target = load(folder, content, masks=False)[0]
    assert "masks" not in target
    assert (target["boxes"].tolist(), target["iscrowd"].tolist()) == ([[2, 1, 6, 4]], [False])
    with pytest.raises(DatasetError, match="masks=False"):
        load(folder, content)


def test_index_out_of_range_ends_iteration(folder):
    dataset = load(folder, tiny())
    with pytest.raises(IndexError):
        dataset[2]
    assert [target["image_id"] for _, target in dataset] == [7, 3]


def test_whole_of_coco_mini_equals_pycocotools(real_data):
    root = real_data / "coco-mini"
    dataset = CocoDataset(root / "images", root / "instances.json")
    oracle = COCO(root / "instances.json")
    assert dataset.image_ids == list(oracle.imgs)
    assert dataset.category_ids == sorted(oracle.cats)
    assert dataset.classes[1:] == [oracle.cats[c]["name"] for c in sorted(oracle.cats)]
    assert dataset.classes[0] == "background"
    assert dataset.odd == []
    crowds = objects = 0
    for index, image_id in list(enumerate(oracle.imgs))[::3]:
        target = dataset.load_target(index)
        records = oracle.loadAnns(oracle.getAnnIds(image_id))
        assert len(target["labels"]) == len(records)
        for row, record in enumerate(records):
            with warnings.catch_warnings():  # of pycocotools about itself, see decode_masks
                warnings.simplefilter("ignore", DeprecationWarning)
                expected = oracle.annToMask(record).astype(bool)
            assert np.array_equal(target["masks"][row].numpy(), expected)
        bbox = np.array([record["bbox"] for record in records]).reshape(-1, 4)
        corners = np.concatenate([bbox[:, :2], bbox[:, :2] + bbox[:, 2:]], axis=1).astype(np.float32)
        assert np.array_equal(target["boxes"].numpy(), corners)
        assert [dataset.category_ids[k - 1] for k in target["labels"]] == [r["category_id"] for r in records]
        assert target["iscrowd"].tolist() == [bool(r["iscrowd"]) for r in records]
        assert torch.equal(target["area"], torch.tensor([r["area"] for r in records], dtype=torch.float32))
        crowds += int(target["iscrowd"].sum())
        objects += len(records)
    assert objects > 300
    assert crowds > 0


def test_files_that_do_not_fit_or_cannot_be_read_are_named(folder):
    turned = load(folder, tiny(images=[tiny()["images"][0] | {"height": 10, "width": 8}], annotations=[]))
    with pytest.raises(DatasetError, match="EXIF"):
        turned[0]
    dataset = load(folder, tiny())
    whole = (folder / "a.png").read_bytes()
    for content in (whole[:45], b"this is no image", b""):
        (folder / "a.png").write_bytes(content)
        with pytest.raises(DatasetError, match=r"a\.png: the image cannot be decoded"):
            dataset[0]
    Image.new("RGB", (10, 9)).save(folder / "a.png")
    with pytest.raises(DatasetError, match=r"a\.png: the image is 9 high and 10 wide, its annotations say 8 and 10"):
        dataset[0]
    (folder / "a.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"a\.png"):
        dataset[0]
    assert dataset[1][1]["image_id"] == 3


# --------------------------------------------------------------------------------------------- defects seen on loading

MASK_SHORT = {"size": [8, 10], "counts": [17, 3, 5]}
MASK_OTHER_SIZE = {"size": [10, 8], "counts": [80]}

BAD_ANNOTATIONS = {
    "no image_id": (annotation(image_id=None), r"annotation 11: no 'image_id'"),
    "no bbox": (annotation(bbox=None), r"annotation 11: no 'bbox'"),
    "area a word": (annotation(area="small"), r"'area' is 'small'"),
    "no object": ("nonsense", r"annotation 'nonsense': 'nonsense' is not an object"),
    "id a word": (annotation(id="eleven"), r"'id' is 'eleven': it must be a whole number"),
    "id with a fraction": (annotation(id=11.5), r"'id' is 11.5: it must be a whole number"),
    "unknown image": (annotation(image_id=99), r"annotation 11: belongs to image 99"),
    "unknown category": (annotation(category_id=5), r"unknown category 5"),
    "iscrowd 2": (annotation(iscrowd=2), r"'iscrowd' is 2"),
    "no width": (annotation(bbox=[2, 1, 0, 3]), r"has no width"),
    "width lost in float32": (annotation(bbox=[7, 1, 1e-9, 3]), r"has no width"),
    "three numbers": (annotation(bbox=[2, 1, 4]), r"is not four finite numbers"),
    "nan": (annotation(bbox=[2, 1, float("nan"), 3]), r"is not four finite numbers"),
    "text in box": (annotation(bbox=[2, 1, "4 px", 3]), r"is not four finite numbers"),
    "right of image": (annotation(bbox=[2, 1, 9.5, 3]), r"leaves the image of 10×8 pixels"),
    "empty segmentation": (annotation(segmentation=[]), r"'segmentation' is \[\]"),
    "flat polygon of two corners": (annotation(segmentation=SQUARE[:4]), r"polygon 0 is malformed"),
    "polygon of two corners": (annotation(segmentation=[SQUARE, [1, 1, 2, 2]]), r"polygon 1 is malformed"),
    "polygon of odd count": (annotation(segmentation=[SQUARE[:7]]), r"polygon 0 is malformed"),
    "polygon with nan": (annotation(segmentation=[[*SQUARE, 1, float("nan")]]), r"polygon 0 is malformed"),
    "polygon far outside": (annotation(segmentation=[[*SQUARE, 1, 1e9]]), r"polygon 0 leaves the image"),
    "mask too short": (annotation(segmentation=MASK_SHORT), r"its runs cover 25 pixels, but its size is 8 × 10"),
    "mask of another size": (annotation(segmentation=MASK_OTHER_SIZE), r"mask of size \[10, 8\]"),
    "negative run": (annotation(segmentation={"size": [8, 10], "counts": [90, -10]}), r"a run of negative length"),
    "no counts": (annotation(segmentation={"size": [8, 10]}), r"no run-length encoding"),
    "string too short": (annotation(segmentation={"size": [8, 10], "counts": "52203"}), r"its runs cover 16 pixels"),
    "string of rubbish": (annotation(segmentation={"size": [8, 10], "counts": "zz!"}), r"no string in COCO's code"),
}


@pytest.mark.parametrize("case", BAD_ANNOTATIONS)
def test_bad_annotation_is_named(folder, case):
    record, message = BAD_ANNOTATIONS[case]
    content = tiny()
    content["annotations"].append(annotation(id=12, image_id=3))
    content["annotations"].insert(0, record)
    content["annotations"][1]["id"] = 10
    with pytest.raises(DatasetError, match=message) as caught:
        load(folder, content)
    text = str(caught.value)
    assert text.startswith(f"{folder / 'instances.json'}: 1 problem\n")
    if isinstance(record, dict) and record.get("id") == 11 and record.get("image_id") == 7 and "bbox" in record:
        assert "image 7 ('a.png'), annotation 11: " in text
    dataset = load(folder, content, drop_invalid=True)
    assert (len(dataset.dropped), dataset.left_out) == (1, 1)
    assert dataset[0][1]["boxes"].tolist() == [[2, 1, 6, 4]]


BAD_FILES = {
    "one id for two annotations": (
        {"annotations": [annotation(), annotation()]},
        r"annotation 11: its id is used twice",
    ),
    "one id for two images": ({"images": [tiny()["images"][0]] * 2}, r"image 7 \('a.png'\): its id is used twice"),
    "one id for two categories": (
        {"categories": [{"id": 9, "name": "dog"}, {"id": 9, "name": "cat"}]},
        r"category id 9 \('cat'\) is used twice",
    ),
    "missing image": (
        {"images": [tiny()["images"][0] | {"file_name": "none.png"}]},
        r"image 7 \('none.png'\): no such file",
    ),
    "image without file_name": ({"images": [{"id": 7, "height": 8, "width": 10}]}, r"images\[0\]: no 'file_name'"),
    "image of no height": ({"images": [tiny()["images"][0] | {"height": 0}]}, r"height 0, width 10"),
    "category without name": ({"categories": [{"id": 9}]}, r"categories\[0\]: no 'name'"),
    "no categories": ({"categories": []}, r"'categories' is empty"),
    "no images": ({"images": []}, r"'images' is empty"),
    "annotations no list": ({"annotations": {}}, r"lists 'images', 'annotations' and 'categories', of which not all"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_file_is_named(folder, case):
    changes, message = BAD_FILES[case]
    with pytest.raises(DatasetError, match=message) as caught:
        load(folder, tiny(**changes))
    assert str(folder / "instances.json") in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"images": [],\n "categories"', r"instances\.json: broken JSON at line 2, column 14"),
        (b"", "broken JSON at line 1, column 1"),
        (b"[]", "file of results is something else"),
        ('{"images": "café"}'.encode("latin-1"), "no UTF-8"),
    ],
)
def test_what_is_no_data_set_is_refused(folder, content, words):
    path = write(folder, tiny())
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())  # Windows editors write a byte order mark
    assert len(CocoDataset(folder, path)) == 2
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=words):
        CocoDataset(folder, path)


def test_missing_folder_and_file(folder):
    with pytest.raises(FileNotFoundError, match=r"absent\.json"):
        CocoDataset(folder, folder / "absent.json")
    write(folder, tiny())
    with pytest.raises(FileNotFoundError, match="absent: there is no such folder"):
        CocoDataset(folder / "absent", folder / "instances.json")


def test_a_flood_of_problems_is_a_line_for_each_kind(folder):
    records = [annotation(id=n, bbox=[2, 1, 0, 0], category_id=1) for n in range(20)]
    with pytest.raises(DatasetError) as caught:
        load(folder, tiny(annotations=records))
    lines = str(caught.value).splitlines()
    assert "40 problems" in lines[0]
    assert len(lines) == 4, "a line for each kind, and what helps"
    for line, words in zip(lines[1:3], ("unknown category", "no width"), strict=True):
        assert line.startswith("  image 7 ('a.png'), annotation 0: ")
        assert words in line
        more = "(and 19 more like this: image 7 ('a.png'), annotation 1; image 7 ('a.png'), annotation 2; …)"
        assert line.endswith(more)
    assert "--drop-invalid" in lines[3]
    assert len(caught.value.problems) == 40
    data = load(folder, tiny(annotations=records), drop_invalid=True)
    assert (data.left_out, len(data.dropped)) == (20, 40), "annotations, and their defects"


def test_box_may_stick_out_by_the_rounding_of_a_tool_and_stays_as_stated(folder):
    _, target = load(folder, tiny(annotations=[annotation(bbox=[-0.5, -0.25, 11, 8.75])]))[0]
    assert target["boxes"].tolist() == [[-0.5, -0.25, 10.5, 8.5]]


# ------------------------------------------------------------------------------------- what programs write otherwise


def assert_same_targets(found, wanted):
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        for key, value in other[1].items():
            assert torch.equal(torch.as_tensor(one[1][key]), torch.as_tensor(value)), key


def written(value, convert):
    """The same with every number converted."""
    if isinstance(value, dict):
        return {key: one if key in ("name", "file_name") else written(one, convert) for key, one in value.items()}
    return [written(one, convert) for one in value] if isinstance(value, list) else convert(value)


PLAIN = {
    "numbers as text": lambda c: written(c, str),
    "whole numbers with a fraction of zero": lambda c: written(c, float),
    "one of four numbers as text": lambda c: {**c, "annotations": [annotation(bbox=[2, 1, "4.0", " 3e0"])]},
    "a flat polygon": lambda c: {**c, "annotations": [annotation(segmentation=SQUARE)]},
    "a polygon of points": lambda c: {
        **c,
        "annotations": [annotation(segmentation=[SQUARE[n : n + 2] for n in range(0, 8, 2)])],
    },
    "a category for each image": lambda c: {**c, "categories": c["categories"] * 20},
    "an unused category of the background": lambda c: {
        **c,
        "categories": [{"id": 0, "name": "background"}, *c["categories"]],
    },
}


@pytest.mark.parametrize("kind", PLAIN)
def test_what_is_plainly_meant_is_read(folder, kind):
    wanted = load(folder, tiny())
    found = load(folder, PLAIN[kind](tiny()))
    assert (found.classes, found.image_ids, found.odd) == (wanted.classes, wanted.image_ids, [])
    assert_same_targets(found, wanted)


@pytest.mark.parametrize("text", ["1_0", "0x10", "1,5", "nan", "inf", "", "٣", "1" * 50])
def test_text_that_is_no_plain_number_is_refused(folder, text):
    with pytest.raises(DatasetError, match="is not four finite numbers"):
        load(folder, tiny(annotations=[annotation(bbox=[2, 1, 4, text])]))


def test_two_categories_of_one_name_are_one_class_and_said_to_be(folder):
    """As a labeling service writes them: the first is a group without objects."""
    categories = [{"id": 0, "name": "dog"}, {"id": 4, "name": "cat"}, {"id": 9, "name": "dog"}]
    data = load(folder, tiny(categories=categories))
    assert (data.classes, data.category_ids) == (["background", "dog", "cat"], [9, 4])
    (note,) = data.odd
    assert note.startswith("categories 0 and 9: two categories of the same name, 'dog', are read as one class")
    records = [annotation(id=1, category_id=0), annotation(id=2), annotation(id=3, category_id=4)]
    assert load(folder, tiny(categories=categories, annotations=records))[0][1]["labels"].tolist() == [1, 1, 2]
    assert load(folder, tiny(categories=categories[1:])).odd == []


def test_objects_of_the_background_are_refused(folder):
    categories = [{"id": 9, "name": "background"}, {"id": 4, "name": "cat"}]
    with pytest.raises(DatasetError, match="category 9: objects cannot be of the class 'background'"):
        load(folder, tiny(categories=categories))


def test_one_file_under_two_ids_is_noted(folder):
    first, second = tiny()["images"]
    (note,) = load(folder, tiny(images=[first, second | {"file_name": "./a.png"}])).odd
    assert note.startswith("image 3 ('./a.png'): the same file as image 7")


@pytest.mark.parametrize(("area", "noted"), [(0, True), (12, False), (20, False), (20.5, True), (0.5, False)])
def test_areas_that_cannot_be_are_noted(folder, area, noted):
    """The box has 4 × 3 pixels; one more in each direction is rounding."""
    data = load(folder, tiny(annotations=[annotation(area=area)]))
    assert data[0][1]["area"].tolist() == [area]
    assert [note.partition(" is ")[0] for note in data.odd] == ["image 7 ('a.png'), annotation 11: 'area'"] * noted


def test_without_an_area_that_of_the_box_is_taken(folder):
    data = load(folder, tiny(annotations=[annotation(area=None, bbox=[2, 1, 4, 2.5])]))
    assert data[0][1]["area"].tolist() == [10]
    assert data.odd == ["image 7 ('a.png'), annotation 11: no 'area': that of its box is taken"]


def test_words_as_ids_of_images_are_numbered_in_their_order(folder):
    first, second = tiny()["images"]
    images = [first | {"id": "north"}, second | {"id": "12"}]
    data = load(folder, tiny(images=images, annotations=[annotation(image_id="north")]))
    assert (data.image_ids, [len(target["boxes"]) for _, target in data]) == ([2, 1], [1, 0])
    with pytest.raises(DatasetError, match=r"annotation 11: 'image_id' is 'south .no image has"):
        load(folder, tiny(images=images, annotations=[annotation(image_id="south")]))
    for other in (1, "1"):  # which north and 12 have become
        with pytest.raises(DatasetError, match=r"annotation 11: 'image_id' is '1 \(no image has this id\)'"):
            load(folder, tiny(images=images, annotations=[annotation(image_id=other)]))
    with pytest.raises(DatasetError, match=r"images\[1\]: 'id' is 'north': it must be a whole number"):
        load(folder, tiny(images=[first, second | {"id": "north"}], annotations=[]))


def test_long_numbers_in_text_are_read_exactly(folder):
    first, second = tiny()["images"]
    images = [first | {"id": str(2**60 + 1)}, second | {"id": str(2**60 + 2)}]
    data = load(folder, tiny(images=images, annotations=[annotation(image_id=str(2**60 + 2))]))
    assert (data.image_ids, len(data[1][1]["boxes"])) == ([2**60 + 1, 2**60 + 2], 1)


# ------------------------------------------------------------------------------------------------ where the files are


@pytest.mark.parametrize("name", ["../a.png", "x/../../a.png", "/etc/a.png", "C:\\a.png", "..\\a.png", ".."])
def test_a_name_that_leads_out_of_the_root_is_refused(folder, name):
    (folder / "inside").mkdir()
    path = write(folder, tiny(images=[tiny()["images"][0] | {"file_name": name}]))
    with pytest.raises(DatasetError, match=r"leads out of .*inside: give the folder above all images as root"):
        CocoDataset(folder / "inside", path)


@pytest.mark.parametrize(
    ("root", "lies", "name", "words"),
    [
        ("img", "img/img", "{}", "it lies in {top}/img/img; give that folder as root"),
        ("img", "img/x/y", "{}", "it lies in {top}/img/x/y; give that folder as root"),
        ("img/train", "img", "{}", "it lies in {top}/img; give that folder as root"),
        ("labels", "img", "{}", "it lies in {top}/img; give that folder as root"),
        ("img", "img", "img/{}", "it lies in {top}; give that folder as root"),
        ("img", "img", "data\\{}", "a 'a.png' lies in {top}/img; correct the names"),
        ("img", "elsewhere/deep/down", "{}", "put it there, give another root"),
    ],
)
def test_a_root_that_is_off_is_told_where_the_files_are(folder, root, lies, name, words):
    (folder / root).mkdir(parents=True)
    (folder / lies).mkdir(parents=True, exist_ok=True)
    for file in ("a.png", "b.png"):
        (folder / file).rename(folder / lies / file)
    images = [image | {"file_name": name.format(image["file_name"])} for image in tiny()["images"]]
    path = write(folder, tiny(images=images))
    with pytest.raises(DatasetError) as caught:
        CocoDataset(folder / root, path)
    assert len(caught.value.problems) == 2
    for problem in caught.value.problems:
        assert f"no such file in {folder / root}: {words.format(top=folder)}" in problem


# ------------------------------------------------------------------------------------------------------- EXIF's turns


@pytest.mark.parametrize("stated", ["raw", "upright"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_objects_lie_on_the_upright_image(folder, orientation, stated):
    """Against Pillow: a white rectangle in the image, and an object that is the same rectangle."""
    white = np.zeros((8, 10), dtype=np.uint8)
    white[1:4, 2:6] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(white).save(folder / "a.png", exif=exif)
    with Image.open(folder / "a.png") as file:
        upright = np.asarray(ImageOps.exif_transpose(file)) > 0
    # Where the file states the size of the raw pixels, and it differs, boxes are of the raw pixels.
    drawn_on = white > 0 if stated == "raw" and orientation > 4 else upright
    rows, columns = np.nonzero(drawn_on)
    x, y, w, h = columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1
    corners = [float(one) for one in (x, y, x + w, y, x + w, y + h, x, y + h)]
    record = annotation(bbox=[float(one) for one in (x, y, w, h)], segmentation=[corners])
    image = {"id": 7, "file_name": "a.png", "height": drawn_on.shape[0], "width": drawn_on.shape[1]}
    data = load(folder, tiny(images=[image], annotations=[record]))
    pixels, target = data[0]
    assert torch.equal(pixels[0] > 0, torch.from_numpy(upright))
    assert data.image_size(0) == upright.shape
    rows, columns = np.nonzero(upright)
    assert target["boxes"].tolist() == [[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]]
    assert torch.equal(target["masks"][0], torch.from_numpy(upright))


def test_sizes_are_compared_before_masks_fill_the_memory(folder):
    """Two masks of 9000 × 9000 pixels, for an image of 8 × 10, would be 162 MB."""
    image = tiny()["images"][0] | {"height": 9000, "width": 9000}
    data = load(folder, tiny(images=[image], annotations=[annotation(id=n, area=1) for n in range(2)]))
    tracemalloc.start()
    try:
        with pytest.raises(DatasetError, match="8 high and 10 wide, its annotations say 9000 and 9000"):
            data.load_target(0)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


# ------------------------------------------------------------------------------------------------------- run lengths


@settings(max_examples=50)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_decode_counts_is_the_inverse_of_pycocotools_encode(height, width, seed, density):
    mask = (np.random.default_rng(seed).random((height, width)) < density).astype(np.uint8)
    (runs,) = decode_counts([rle_codec.encode(np.asfortranarray(mask))["counts"]])
    column_order = np.repeat(np.arange(len(runs)) % 2, runs)
    assert np.array_equal(column_order.reshape(width, height).T, mask)


def test_decode_counts_of_several_strings_at_once():
    """Also of a long one, of one without pixels of the object, and of none at all."""
    long = np.zeros((1000, 1000), dtype=np.uint8, order="F")
    long[:, 999] = 1
    strings = [rle_codec.encode(mask)["counts"] for mask in (long, np.asfortranarray(long[:2, :3]), long)]
    found = decode_counts([strings[0], b"", *strings[1:], b"52203", b""])
    assert [runs.tolist() for runs in found] == [[999_000, 1000], [], [6], [999_000, 1000], [5, 2, 2, 2, 5], []]
    assert decode_counts([]) == []
    assert [runs.tolist() for runs in decode_counts([b"", b""])] == [[], []]


@pytest.mark.parametrize("counts", ["5!", "5ä", "5P", "P" * 20 + "0", "\ud800", b"\xff", 5, [1.5], None])
def test_runs_that_are_no_code(counts):
    good = {"size": [4, 4], "counts": "52203"}
    assert first_bad_runs([good]) is None
    number, what = first_bad_runs([good, {"size": [4, 4], "counts": counts}, good])
    assert number == 1
    assert "no string in COCO's code" in what
    assert first_bad_runs([{"size": [1, 1], "counts": "N"}])[1] == "it has a run of negative length"
