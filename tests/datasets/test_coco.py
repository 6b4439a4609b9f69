"""CocoDataset against pycocotools, and every defect that it promises to name."""

import copy
import json
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
from minircnn.datasets.masks import decode_counts, decode_masks

SQUARE = [2.0, 1.0, 6.0, 1.0, 6.0, 4.0, 2.0, 4.0]  # x 2…6, y 1…4: pycocotools fills exactly these 12 pixels


def tiny(**changes):
    """A data set of two 8×10 images (height 8, width 10); the second holds no object."""
    dog = {"image_id": 7, "category_id": 9, "bbox": [2, 1, 4, 3], "area": 12, "iscrowd": 0, "segmentation": [SQUARE]}
    content = {
        "images": [{"id": n, "file_name": f"{name}.png", "height": 8, "width": 10} for n, name in ((7, "a"), (3, "b"))],
        "categories": [{"id": 9, "name": "dog"}, {"id": 4, "name": "cat"}],
        "annotations": [{"id": 11, **dog}],
    }
    return copy.deepcopy({**content, **changes})


@pytest.fixture
def folder(tmp_path):
    """Two images whose pixels are all different, so that an exchange of axes or channels shows."""
    for number, name in enumerate(("a.png", "b.png")):
        pixels = np.arange(8 * 10 * 3, dtype=np.uint8).reshape(8, 10, 3) + number
        Image.fromarray(pixels).save(tmp_path / name)
    return tmp_path


def load(folder, content, root=".", **options):
    """The data set of this content, in a file beside the images a.png and b.png."""
    path = folder / "instances.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return CocoDataset(folder / root, path, **options)


def annotation(**changes):
    """The annotation of `tiny`, changed; a value of None removes the key."""
    record = tiny()["annotations"][0] | changes
    return {key: value for key, value in record.items() if value is not None}


def test_tiny_data_set_by_hand(folder):
    dataset = load(folder, tiny())
    assert (len(dataset), dataset.classes, dataset.category_ids) == (2, ["background", "cat", "dog"], [4, 9])
    assert (dataset.image_ids, dataset.image_size(0), dataset.image_path(1)) == ([7, 3], (8, 10), folder / "b.png")
    image, target = dataset[0]
    pixels = np.arange(8 * 10 * 3).reshape(8, 10, 3)
    assert image.dtype == torch.float32
    assert torch.equal(image, torch.tensor(pixels.transpose(2, 0, 1) / 255, dtype=torch.float32))
    assert (target["boxes"].tolist(), target["labels"].tolist(), target["image_id"]) == ([[2, 1, 6, 4]], [2], 7)
    assert (target["iscrowd"].tolist(), target["area"].tolist()) == ([False], [12])
    expected = torch.zeros(1, 8, 10, dtype=torch.bool)
    expected[0, 1:4, 2:6] = True
    assert torch.equal(target["masks"], expected)
    for key, value in dataset[1][1].items():  # without objects
        assert key == "image_id" or (value.dtype, value.shape) == (target[key].dtype, (0, *target[key].shape[1:])), key
    assert [target["image_id"] for _, target in dataset] == [7, 3], "it ends"


def test_what_may_be_missing(folder):
    """Masks where none are wanted, and iscrowd. Without an area that of the box is taken."""
    content = tiny(annotations=[annotation(segmentation=None, iscrowd=None, area=None, bbox=[2, 1, 4, 2.5])])
    data = load(folder, content, masks=False)
    _, target = data[0]
    assert "masks" not in target
    assert (target["boxes"].tolist(), target["iscrowd"].tolist()) == ([[2, 1, 6, 3.5]], [False])
    assert target["area"].tolist() == [10]
    assert data.odd == ["image 7 ('a.png'), annotation 11: no 'area': that of its box is taken"]
    with pytest.raises(DatasetError, match="masks=False"):
        load(folder, content)


def test_whole_of_coco_mini_equals_pycocotools(real_data):
    root = real_data / "coco-mini"
    dataset, oracle = CocoDataset(root / "images", root / "instances.json"), COCO(root / "instances.json")
    assert (dataset.image_ids, dataset.category_ids, dataset.odd) == (list(oracle.imgs), sorted(oracle.cats), [])
    assert dataset.classes == ["background", *(oracle.cats[c]["name"] for c in sorted(oracle.cats))]
    crowds = objects = 0
    for index, image_id in list(enumerate(oracle.imgs))[::3]:
        target = dataset.load_target(index)
        records = oracle.loadAnns(oracle.getAnnIds(image_id))
        with warnings.catch_warnings():  # of pycocotools about itself, see decode_masks
            warnings.simplefilter("ignore", DeprecationWarning)
            masks = [oracle.annToMask(record).astype(bool) for record in records]
        assert all(np.array_equal(*both) for both in zip(target["masks"].numpy(), masks, strict=True))
        bbox = np.array([record["bbox"] for record in records]).reshape(-1, 4)
        corners = np.concatenate([bbox[:, :2], bbox[:, :2] + bbox[:, 2:]], axis=1).astype(np.float32)
        assert np.array_equal(target["boxes"].numpy(), corners)
        assert [dataset.category_ids[k - 1] for k in target["labels"]] == [r["category_id"] for r in records]
        assert target["iscrowd"].tolist() == [bool(r["iscrowd"]) for r in records]
        assert torch.equal(target["area"], torch.tensor([r["area"] for r in records], dtype=torch.float32))
        crowds, objects = crowds + int(target["iscrowd"].sum()), objects + len(records)
    assert objects > 300 and crowds > 0


def test_files_that_do_not_fit_or_cannot_be_read_are_named(folder, monkeypatch):
    """Before masks are made: of 9000 × 9000 pixels, as the file may claim of an image, few fill the memory."""
    decode, data = rle_codec.decode, load(folder, tiny())
    monkeypatch.setattr(rle_codec, "decode", lambda _: pytest.fail("masks were decoded"))
    for (height, width), words in (((10, 8), "EXIF"), ((9000, 9000), "8 high and 10 wide, its annotations say 9000")):
        runs = {"size": [height, width], "counts": [0, height * width]}
        image = tiny()["images"][0] | {"height": height, "width": width}
        claims = load(folder, tiny(images=[image], annotations=[annotation(segmentation=runs, bbox=[0, 0, 1, 1])]))
        for read in (claims.load_target, claims.load_image, claims.__getitem__):
            with pytest.raises(DatasetError, match=words):
                read(0)
    with pytest.raises(ValueError, match=r"mask of size \[9000, 9000\] for an image of \[8, 10\]"):
        decode_masks([runs], (8, 10))
    monkeypatch.setattr(rle_codec, "decode", decode)
    (folder / "a.png").write_bytes(b"this is no image")
    with pytest.raises(DatasetError, match=r"a\.png: the image cannot be decoded"):
        data[0]
    (folder / "a.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"a\.png"):
        data[0]
    assert data[1][1]["image_id"] == 3


BAD_ANNOTATIONS = [
    ("nonsense", r"'annotations': 'nonsense' is not an object"),
    (annotation(image_id=None), r"'annotations', id 11: no 'image_id'"),
    (annotation(image_id=99), r"annotation 11: belongs to image 99"),
    (annotation(category_id=5), r"unknown category 5"),
    (annotation(iscrowd=2), r"'iscrowd' is 2"),
    (annotation(bbox=[2, 1, 0, 3]), r"has no width"),
    (annotation(bbox=[2, 1, 9.5, 3]), r"leaves the image of 10×8 pixels"),
    (annotation(segmentation=SQUARE), r"polygon 0 is malformed"),
    (annotation(segmentation=[[*SQUARE, 1, 1e9]]), r"polygon 0 leaves the image"),
    (annotation(segmentation={"size": [8, 10], "counts": [17, 3, 5]}), r"runs cover 25 pixels, but its size is 8 × 10"),
    (annotation(segmentation={"size": [10**9] * 2, "counts": [10**18]}), r"mask of size \[1000000000, 1000000000\]"),
    (annotation(segmentation={"size": [8, 10], "counts": [90, -10]}), r"a run of negative length"),
    (annotation(segmentation={"size": [8, 10], "counts": "zz!"}), r"no string in COCO's code"),
]


@pytest.mark.parametrize(("record", "message"), BAD_ANNOTATIONS, ids=[message for _, message in BAD_ANNOTATIONS])
def test_bad_annotation_is_named(folder, record, message):
    content = tiny(annotations=[record, annotation(id=10), annotation(id=12, image_id=3)])
    with pytest.raises(DatasetError, match=message) as caught:
        load(folder, content)
    text = str(caught.value)
    assert text.startswith(f"{folder / 'instances.json'}: 1 problem\n")
    if isinstance(record, dict) and record.get("image_id") == 7:
        assert "image 7 ('a.png'), annotation 11: " in text
    dataset = load(folder, content, drop_invalid=True)
    assert (len(dataset.dropped), dataset.left_out) == (1, 1)
    assert dataset[0][1]["boxes"].tolist() == [[2, 1, 6, 4]]


ODD_NUMBERS = ["NaN", "-Infinity", "1e400", "true", "null", "[7]", *(f'"{s}"' for s in ("4 px", "1_0", "0x1", "٣", ""))]


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("height", "'images', id 7: 'height' is .* it must be a whole number"),
        ("image_id", "'annotations', id 11: 'image_id' is .* it must be a whole number"),
        ("category_id", "'annotations', id 11: 'category_id' is .* it must be a whole number"),
        ("bbox", r"image 7 \('a.png'\), annotation 11: box .* is not four finite numbers"),
        ("area", r"image 7 \('a.png'\), annotation 11: 'area' is .*: state the mask's area"),
        ("segmentation", r"image 7 \('a.png'\), annotation 11: polygon 0 is malformed"),
    ],
)
def test_what_is_no_number_is_refused_in_a_line_that_names_its_place(folder, key, words):
    """Whatever the JSON holds: an area that is null counts as not stated, though."""
    path, place = load(folder, tiny()).annotations, {"bbox": [2, 1, 4, "?"], "segmentation": [[*SQUARE, 1, "?"]]}
    odd = {key: place.get(key, "?")}
    image = tiny()["images"][0] | (odd if key == "height" else {})
    content = tiny(images=[image], annotations=[annotation(**({} if key == "height" else odd))])
    for text in ODD_NUMBERS:
        path.write_text(json.dumps(content).replace('"?"', text), encoding="utf-8")
        if (key, text) == ("area", "null"):
            assert CocoDataset(folder, path).odd
            continue
        with pytest.raises(DatasetError, match=words) as caught:
            CocoDataset(folder, path)
        (problem,) = caught.value.problems
        assert "\n" not in problem and str(caught.value).startswith(f"{path}: 1 problem\n")


BAD_FILES = [
    ({"annotations": [annotation(), annotation()]}, r"'annotations', id 11: it is used twice"),
    ({"images": [tiny()["images"][0]] * 2}, r"'images', id 7: it is used twice"),
    ({"categories": [{"id": 9, "name": "background"}]}, "unknown category 9: .*not as 'background'"),
    ({"images": [tiny()["images"][0] | {"file_name": "none.png"}]}, r"image 7 \('none.png'\): no such file"),
    ({"images": [{"id": 7, "height": 8, "width": 10}]}, r"'images', id 7: no 'file_name'"),
    ({"images": [tiny()["images"][0] | {"height": 0}]}, r"height 0, width 10"),
    ({"annotations": {}}, r"lists 'images', 'annotations' and 'categories', of which not all"),
]


@pytest.mark.parametrize(("changes", "message"), BAD_FILES, ids=[message for _, message in BAD_FILES])
def test_bad_file_is_named(folder, changes, message):
    with pytest.raises(DatasetError, match=message) as caught:
        load(folder, tiny(**changes))
    assert str(folder / "instances.json") in str(caught.value)


def test_what_is_no_data_set_is_refused(folder):
    path = load(folder, tiny()).annotations
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())  # Windows editors write a byte order mark
    assert len(CocoDataset(folder, path)) == 2
    for content, words in (
        (b'{"images": [],\n "categories"', r"instances\.json: no JSON in UTF-8 .*line 2 column 14"),
        (b"[]", "file of results is something else"),
        ('{"images": "café"}'.encode("latin-1"), "no JSON in UTF-8 .*0xe9"),
    ):
        path.write_bytes(content)
        with pytest.raises(DatasetError, match=words):
            CocoDataset(folder, path)
    with pytest.raises(FileNotFoundError, match="absent: there is no such folder"):
        CocoDataset(folder / "absent", path)


def test_a_flood_of_problems_is_a_line_for_each_kind(folder):
    records = [annotation(id=n, bbox=[2, 1, 0, 0], category_id=1) for n in range(20)]
    with pytest.raises(DatasetError) as caught:
        load(folder, tiny(annotations=records))
    first, *lines, advice = str(caught.value).splitlines()
    assert "40 problems" in first and "--drop-invalid" in advice and len(caught.value.problems) == 40
    more = "(and 19 more like this: image 7 ('a.png'), annotation 1; image 7 ('a.png'), annotation 2; …)"
    for line, words in zip(lines, ("unknown category", "no width"), strict=True):
        assert line.startswith("  image 7 ('a.png'), annotation 0: ") and words in line and line.endswith(more)
    data = load(folder, tiny(annotations=records), drop_invalid=True)
    assert (data.left_out, len(data.dropped)) == (20, 40), "annotations, and their defects"


def written(value, convert):
    """The same with every number converted."""
    if isinstance(value, dict):
        return {key: one if key in ("name", "file_name") else written(one, convert) for key, one in value.items()}
    return [written(one, convert) for one in value] if isinstance(value, list) else convert(value)


PLAIN = {
    "text": written(tiny(), str),
    "one of four as text": tiny(annotations=[annotation(bbox=[2, 1, "4.0", " 3e0"])]),
    "runs": tiny(annotations=[annotation(segmentation={"size": [8, 10], "counts": [17, 3, 5, 3, 5, 3, 5, 3, 36]})]),
    "compressed runs": tiny(annotations=[annotation(segmentation={"size": [8, 10], "counts": "a03500000o0"})]),
}


@pytest.mark.parametrize("content", PLAIN.values(), ids=PLAIN)
def test_what_is_plainly_meant_is_read(folder, content):
    wanted, found = load(folder, tiny()), load(folder, content)
    assert (found.classes, found.image_ids, found.odd) == (wanted.classes, wanted.image_ids, [])
    for (_, one), (_, other) in zip(found, wanted, strict=True):
        assert all(torch.equal(torch.as_tensor(one[key]), torch.as_tensor(value)) for key, value in other.items())


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


def test_small_deviations_are_accepted(folder):
    """A pixel of a box is rounding. Its area may be a pixel more in each direction; others are taken, and noted."""
    _, target = load(folder, tiny(annotations=[annotation(bbox=[-0.5, -0.25, 11, 8.75])]))[0]
    assert target["boxes"].tolist() == [[-0.5, -0.25, 10.5, 8.5]]
    for area, noted in ((0, True), (0.5, False), (12, False), (20, False), (20.5, True)):
        data = load(folder, tiny(annotations=[annotation(area=area)]))
        assert data[0][1]["area"].tolist() == [area]
        assert [note.partition(" is ")[0] for note in data.odd] == ["image 7 ('a.png'), annotation 11: 'area'"] * noted


@pytest.mark.parametrize("name", ["x/../../a.png", "/etc/a.png", "C:\\a.png", "..\\a.png"])
def test_a_name_that_leads_out_of_the_root_is_refused(folder, name):
    (folder / "inside").mkdir()
    content = tiny(images=[tiny()["images"][0] | {"file_name": name}])
    with pytest.raises(DatasetError, match=r"leads out of .*inside: give the folder above all images as root"):
        load(folder, content, "inside")


@pytest.mark.parametrize(
    ("root", "lies", "name", "words"),
    [
        ("img", "img/img", "{}", "it lies in {top}/img/img; give that folder as root"),
        ("labels", "img", "{}", "it lies in {top}/img; give that folder as root"),
        ("img", "img", "img/{}", "it lies in {top}; give that folder as root"),
        ("img", "elsewhere/deep/down", "{}", "put it there, give another root"),
    ],
)
def test_a_root_that_is_off_is_told_where_the_files_are(folder, root, lies, name, words):
    (folder / root).mkdir(parents=True)
    (folder / lies).mkdir(parents=True, exist_ok=True)
    for file in ("a.png", "b.png"):
        (folder / file).rename(folder / lies / file)
    images = [image | {"file_name": name.format(image["file_name"])} for image in tiny()["images"]]
    with pytest.raises(DatasetError) as caught:
        load(folder, tiny(images=images), root)
    assert len(caught.value.problems) == 2
    for problem in caught.value.problems:
        assert f"no such file in {folder / root}: {words.format(top=folder)}" in problem


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
    x1, y1, x2, y2 = map(float, corners_of(drawn_on))
    record = annotation(bbox=[x1, y1, x2 - x1, y2 - y1], segmentation=[[x1, y1, x2, y1, x2, y2, x1, y2]])
    image = {"id": 7, "file_name": "a.png", "height": drawn_on.shape[0], "width": drawn_on.shape[1]}
    data = load(folder, tiny(images=[image], annotations=[record]))
    pixels, target = data[0]
    assert torch.equal(pixels[0] > 0, torch.from_numpy(upright)) and data.image_size(0) == upright.shape
    assert target["boxes"].tolist() == [corners_of(upright)]
    assert torch.equal(target["masks"][0], torch.from_numpy(upright))


def corners_of(mask):
    rows, columns = np.nonzero(mask)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


@settings(max_examples=30)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_decode_counts_is_the_inverse_of_pycocotools_encode(height, width, seed, density):
    mask = (np.random.default_rng(seed).random((height, width)) < density).astype(np.uint8)
    runs = decode_counts(rle_codec.encode(np.asfortranarray(mask))["counts"])
    column_order = np.repeat(np.arange(len(runs)) % 2, runs)
    assert np.array_equal(column_order.reshape(width, height).T, mask)
