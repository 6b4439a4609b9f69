"""VocDataset against torchvision reading the same folder, against values by hand, and every defect that it names."""

import itertools
import random
import re

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import VOCDetection

from minircnn.datasets import DatasetError, VocDataset
from minircnn.datasets.voc import CLASSES
from tests.datasets.conftest import VOC_SIZE, an_object, png_that_claims, write_voc, write_voc_mask, xml

HEIGHT, WIDTH = VOC_SIZE

PART = "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>"
ANNOTATIONS = {
    "000005": xml(an_object(), an_object("person", (8, 4, 20, 12), "1", PART), an_object("tvmonitor", (1, 1, 1, 1))),
    "000001": xml(),
    "2007_000027": xml(an_object("cat", ("2.5", "1.7000000476837158", "9", "6.25"), None)),
}


@pytest.fixture
def root(tmp_path):
    return write_voc(tmp_path / "VOCdevkit" / "VOC2007", ANNOTATIONS)


def only(root, text, **options):
    """A data set of one image with this XML."""
    write_voc(root, {"a": text})
    return VocDataset(root, masks=False, **options)


def names(root, *split, **options):
    """Of the images of a split."""
    return [record.name for record in VocDataset(root, *split, **options).records]


def test_by_hand(root):
    data = VocDataset(root, masks=False)
    assert [record.name for record in data.records] == ["000001", "000005", "2007_000027"]
    assert (data.image_ids, len(data), data.image_size(1)) == ([1, 2, 3], 3, (12, 20))
    assert (len(data.classes), data.classes[0], data.classes[20]) == (21, "background", "tvmonitor")
    assert data.image_path(1) == root / "JPEGImages" / "000005.jpg"
    image, target = data[1]
    assert (image.shape, target["image_id"], "masks" in target) == ((3, 12, 20), 2, False)
    # Columns 3 to 7 counted from 1 are the pixels that lie between 2 and 7. A box of one pixel has a width of 1.
    assert target["boxes"].tolist() == [[2, 1, 7, 6], [7, 3, 20, 12], [0, 0, 1, 1]]
    assert target["labels"].tolist() == [12, 15, 20]  # dog, person, tvmonitor
    assert target["difficult"].tolist() == target["iscrowd"].tolist() == [False, True, False]
    assert target["area"].tolist() == [25, 117, 1]
    empty = data.load_target(0)
    assert (empty["boxes"].shape, empty["labels"].dtype, empty["difficult"].dtype) == ((0, 4), torch.int64, torch.bool)
    assert data.load_target(2)["boxes"].tolist() == torch.tensor([[1.5, 0.7000000476837158, 9, 6.25]]).tolist()


def test_against_torchvision(tmp_path):
    """Many random objects: what torchvision reads as text, of the same folder, gives the same boxes and classes."""
    rng = random.Random(3)

    def something():
        x, y = rng.randint(1, WIDTH), rng.randint(1, HEIGHT)
        box = (x, y, rng.randint(x, WIDTH), rng.randint(y, HEIGHT))
        return an_object(rng.choice(CLASSES), box, rng.choice("01"), rng.choice(["", PART]))

    annotations = {f"{n:06}": xml(*(something() for _ in range(rng.randrange(1, 9)))) for n in range(12)}
    root = write_voc(tmp_path / "VOCdevkit" / "VOC2007", annotations, {"val": list(annotations)})
    data, theirs = VocDataset(root, "val", masks=False), VOCDetection(tmp_path, year="2007", image_set="val")
    assert len(data) == len(theirs) == 12
    for (image, target), (photo, parsed) in zip(data, theirs, strict=True):
        assert torch.equal(image, torch.from_numpy(np.array(photo)).permute(2, 0, 1) / 255)
        objects = parsed["annotation"]["object"]
        assert [data.classes[label] for label in target["labels"]] == [one["name"] for one in objects]
        assert [str(int(flag)) for flag in target["difficult"]] == [one["difficult"] for one in objects]
        inclusive = target["boxes"] + torch.tensor([1, 1, 0, 0])
        corners = [[float(one["bndbox"][side]) for side in ("xmin", "ymin", "xmax", "ymax")] for one in objects]
        assert inclusive.tolist() == corners


def test_masks_by_hand(root):
    """The border belongs to nobody. An object without pixels is left out of training; so are images without masks."""
    values = np.zeros((HEIGHT, WIDTH))
    values[1:6, 2:7], values[1:6, 2] = 1, 255
    values[3:12, 7:20] = 2
    values[0, 1] = 7
    write_voc_mask(root, "000005", values)
    write_voc(root, {}, {"trainval": ["000001", "000005"], "val": ["000001"]})
    data, path = VocDataset(root), root / "SegmentationObject" / "000005.png"
    assert ([record.name for record in data.records], data.image_ids) == (["000005"], [1])
    assert "left out: 1 of 2 images, which have no masks" in data.notes
    target = data.load_target(0)
    assert target["masks"].dtype == torch.bool
    assert np.array_equal(target["masks"].numpy(), [values == number for number in (1, 2, 3)])
    assert target["iscrowd"].tolist() == [False, True, True]
    assert target["difficult"].tolist() == [False, True, False]
    assert data.find_problems(0) == [f"{path}: pixels of object 7, but the XML has 3; correct the one or the other"]
    path.write_bytes(png_that_claims(9000, 9000))  # which are not there, as decoding would show
    for read in (data.load_target, data.find_problems):
        with pytest.raises(DatasetError, match=r"5\.png: the mask is 9000 high and 9000 wide, the image 12 and 20"):
            read(0)
    with pytest.raises(DatasetError, match=r"none of the 1 images has masks .* detectors of boxes need none"):
        VocDataset(root, "val", masks=True)
    data = VocDataset(root, "val")
    assert (len(data), data.masks, data.notes) == (1, False, ["no masks: boxes only"])
    assert "masks" not in data.load_target(0)


def test_mask_numbers_count_objects_that_were_dropped(tmp_path):
    """The second object is invalid: the third keeps the pixels of number 3."""
    root = write_voc(tmp_path, {"a": xml(an_object(), an_object(""), an_object("cat", (10, 1, 12, 3)))})
    values = np.zeros((HEIGHT, WIDTH))
    values[1:6, 2:7], values[8:, :5], values[0:3, 9:12] = 1, 2, 3
    write_voc_mask(root, "a", values)
    data = VocDataset(root, drop_invalid=True)
    target = data.load_target(0)
    assert [data.classes[label] for label in target["labels"]] == ["dog", "cat"]
    assert np.array_equal(target["masks"][1].numpy(), values == 3)
    assert (data.find_problems(0), len(data.dropped)) == ([], 1)


DEEP = 20_000
LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12))  # a hundred billion times l0
DECLARED = "broken XML .it declares a document type or entities"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "broken XML .no element found: line 1, column 0"),
        ("<annotation>\n<size></annotation>", "broken XML .mismatched tag: line 2, column 8"),
        ('<?xml version="1.0" encoding="latin-99"?><annotation/>', "broken XML .unknown encoding"),
        (f"<annotation>{'<object>' * DEEP}", f"broken XML .no element found: line 1, column {12 + 8 * DEEP}"),
        (f"<annotation>{'<object>' * DEEP}{'</object>' * DEEP}</annotation>", "object 1 .no name.: it has the <name>"),
        (f"<annotation>{'<object/>' * DEEP}</annotation>", f"object 1 .no name.: .* .and {DEEP - 1} more like this"),
        (f"<{'a' * DEEP}/>", "its root is <a{50}>, not <annotation>"),
        (f'<!DOCTYPE a [<!ENTITY l0 "ha">{LAUGHS}]><annotation>&l11;</annotation>', DECLARED),
        ('<!DOCTYPE a [<!ENTITY l SYSTEM "file:///etc/passwd">]><annotation>&l;</annotation>', DECLARED),
        ('<!DOCTYPE a SYSTEM "http://localhost:9/a.dtd"><annotation/>', DECLARED),
        (xml(an_object(), an_object("")), "object 2 .no name.: it has the <name> ''"),
        (xml(an_object(), an_object(difficult="2")), "object 2 .dog.: <difficult> is '2': it must be 0 or 1"),
        (xml(an_object(), an_object(box=(3, 2, "x", 6))), "object 2 .dog.: box 3, 2, x, 6 .* is not four finite num"),
        (xml(an_object(), an_object(box=(3, 6, 7, 2))), "object 2 .dog.: .* has no height"),
        (xml(an_object(), an_object(box=(3, 2, 22, 6))), "object 2 .dog.: .* leaves the image of 20×12 pixels"),
    ],
    ids=lambda value: value[:40],
)
def test_files_that_cannot_be_read(tmp_path, text, words):
    """However large or deep: in a line that names the file, and soon; declarations before they work."""
    with pytest.raises(DatasetError) as error:
        only(tmp_path, text)
    _, line, *_ = str(error.value).splitlines()
    assert re.match(rf"  {re.escape(str(tmp_path / 'Annotations' / 'a.xml'))}: {words}", line) and len(line) < 500
    if words.startswith("object 2"):
        data = only(tmp_path, text, drop_invalid=True)
        assert (len(data.load_target(0)["labels"]), len(data.dropped)) == (1, 1)


def test_missing_files_and_folders_are_all_named(root, tmp_path):
    (root / "Annotations" / "000001.xml").unlink()
    (root / "JPEGImages" / "000005.jpg").unlink()
    with pytest.raises(DatasetError, match="2 problems") as error:
        VocDataset(root, masks=False)
    assert f"{root}: '000001' is listed in ImageSets, but has no annotation file" in str(error.value)
    assert f"{root / 'Annotations' / '000005.xml'}: no image 000005.jpg (or .png …)" in str(error.value)
    data = VocDataset(root, masks=False, drop_invalid=True)
    assert (data.records[0].name, data.image_ids, len(data.dropped)) == ("2007_000027", [1], 2)
    with pytest.raises(FileNotFoundError, match=f"did you mean {root}"):
        VocDataset(root.parent)
    with pytest.raises(FileNotFoundError, match="nowhere: there is no such folder; name a folder with images"):
        VocDataset(tmp_path / "nowhere")
    odd = write_voc(tmp_path / "mein Ordner 日本", {"日 ü 1": xml(an_object())})
    assert len(VocDataset(odd, masks=False)[0][1]["labels"]) == 1


def test_lists_of_splits(root):
    folder = root / "ImageSets" / "Main"
    (folder / "dog_trainval.txt").write_text("000005 -1\n")
    for split, words in (
        ("trian", r"no 'trian' in .* \(did you mean 'trainval'\?\); there are trainval"),
        ("../Main/trainval", "there is no '../Main/trainval'"),
        ("dog_trainval", "there is no 'dog_trainval'"),
    ):
        with pytest.raises(DatasetError, match=words):
            VocDataset(root, split)
    for content, words in (
        (b"\n \n", "split: 'val' in .* holds none of the 3 images"),
        (b"../../secret\n", "'../../secret' is listed in ImageSets, but has no annotation file"),
        (b"a\xff\n", r"val\.txt: no UTF-8 text at byte 1"),
    ):
        (folder / "val.txt").write_bytes(content)
        with pytest.raises(DatasetError, match=words):
            VocDataset(root, "val", masks=False)
    (folder / "val.txt").write_bytes("\ufeff000005\r\n000001\r\n000005\r\n".encode())
    assert names(root, "val") == ["000001", "000005"]
    (folder / "trainval.txt").rename(folder / "train.txt")  # another word for it, so that val stays to measure on
    assert names(root) == names(root, "trainval") == names(root, "train")


def write_files(root, *files):
    """Images and annotations by name; an annotation has one object of the class that follows its name."""
    for file in files:
        name, _, text = file.partition(" ")
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix.lower() == ".xml":
            path.write_text(text if text.startswith("<") else xml(an_object(text)), encoding="utf-8")
        else:
            seed = int.from_bytes(name.encode(), "big")
            Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*VOC_SIZE, 3), dtype=np.uint8)).save(path)
    return root


LAYOUTS = [
    (["images/road0.png", "annotations/road0.xml stop"], ["images/road0.png"]),
    (["x_1.JPEG", "x_1.xml apple", "x_2.png", "x_2.XML kiwi"], ["x_1.JPEG", "x_2.png"]),
    (["train/a/1.jpg", "train/x/1.xml a", "test/a/1.jpg", "test/x/1.xml b"], ["test/a/1.jpg", "train/a/1.jpg"]),
    ([r"b.xml <annotation><filename>C:\me\a.png</filename></annotation>", "a.jpg"], ["a.jpg"]),
]


@pytest.mark.parametrize(("files", "images"), LAYOUTS, ids=["folders", "side by side", "one name", "<filename>"])
def test_folders_as_programs_write_them(tmp_path, files, images):
    data = VocDataset(write_files(tmp_path, *files))
    assert [data.image_path(index) for index in range(len(data))] == [tmp_path / image for image in images]
    names = sorted({file.partition(" ")[2] for file in files if ".xml " in file.lower() and "<" not in file})
    found = [data.classes[label] for index in range(len(data)) for label in data.load_target(index)["labels"]]
    assert sorted(set(found)) == names
    for index, image in enumerate(images):
        with Image.open(tmp_path / image) as file:
            assert torch.equal(data[index][0], torch.from_numpy(np.array(file)).permute(2, 0, 1) / 255)


def test_what_is_left_to_guess_is_refused(tmp_path):
    root = write_files(tmp_path, "images/a.jpg", "drawn/a.png", "xml/a.xml cat")
    with pytest.raises(DatasetError, match=r"a\.xml: is it about .*drawn/a\.png or .*images/a\.jpg\? Remove one"):
        VocDataset(root)
    root = write_files(tmp_path / "5", "images/a.jpg", "xml/masks/a.png", "xml/a.xml cat")  # the nearest is no image
    with pytest.raises(DatasetError, match=r"a\.xml: is it about .*xml/masks/a\.png or .*images/a\.jpg"):
        VocDataset(root)
    root = write_files(tmp_path / "2", "a.jpg", "xml/a.xml cat", "copy/a.xml cat")
    with pytest.raises(DatasetError, match=r"xml/a\.xml: no image a\.jpg .* that no other annotation is about"):
        VocDataset(root)
    assert names(root, drop_invalid=True) == ["copy/a"]
    copied = "a.xml <annotation><filename>b.jpg</filename></annotation>"
    with pytest.raises(DatasetError, match=r"a\.xml: no image a\.jpg"):  # and not the image of b.xml
        VocDataset(write_files(tmp_path / "4", copied, "b.jpg", "b.xml cat"))
    with pytest.raises(FileNotFoundError, match=r"there are no annotation files \(\.xml\)"):
        VocDataset(write_files(tmp_path / "3", "a.jpg"))


def test_classes(tmp_path):
    """PASCAL's where all are among them, else those found; of each split the same."""
    for given, expected in (
        (["person", "dog"], CLASSES),
        ([], CLASSES),
        (["zebra", "dog", "apple"], ["apple", "dog", "zebra"]),
        (["Dog", "dog", " dog "], ["Dog", "dog"]),
    ):
        annotations = {f"{n}": xml(an_object(name)) for n, name in enumerate(given)} or {"0": xml()}
        splits = {"train": ["0"], "test": list(annotations)[-1:]}
        root = write_voc(tmp_path / "-".join(["of", *given]), annotations, splits)
        assert all(VocDataset(root, split).classes == ["background", *expected] for split in splits)


def test_splits_without_lists(tmp_path):
    every = [f"{n:02}" for n in range(11)]
    root = write_files(tmp_path, *(f"{n}.jpg" for n in every), *(f"{n}.xml dog" for n in every))
    (root / "ImageSets" / "Main").mkdir(parents=True)
    (root / "ImageSets" / "Main" / "default.txt").write_text("00\n")  # a list that is no split
    assert names(root, "test") == ["04", "09"]
    assert names(root, "train") == names(root, "trainval") == sorted(set(every) - {"04", "09"})
    assert names(root) == names(root, "all") == every
    root = write_files(tmp_path / "2", "train/a.jpg", "train/a.xml x", "valid/b.jpg", "valid/b.xml y")
    assert names(root, "train") == names(root, "trainval") == ["train/a"]
    assert names(root, "valid") == ["valid/b"]
    with pytest.raises(DatasetError, match=r"split: there is no 'test' in .*; there are all, train, valid"):
        VocDataset(root, "test")
    with pytest.raises(DatasetError, match=r"split: 'test' in .* holds none of the 1 images"):
        VocDataset(write_files(tmp_path / "3", "a.jpg", "a.xml x"), "test")


SIZE = "<size><width>{}</width><height>{}</height></size>"
SIZES = [(0, 0), (20, 0), ("-3", 12), ("²", 12), (10**8, 10**8)]


@pytest.mark.parametrize("size", ["", *itertools.starmap(SIZE.format, SIZES)])
def test_a_size_that_is_not_stated_is_that_of_the_image(tmp_path, size):
    """Boxes are then compared with the image."""
    objects = an_object("cat", ("3.0", "2.0", "20.0", "6"))
    root = write_files(tmp_path, "a.png", f"a.xml <annotation>{size}{objects}</annotation>")
    data = VocDataset(root)
    assert (data.image_size(0), data[0][1]["boxes"].tolist()) == (VOC_SIZE, [[2, 1, 20, 6]])
    write_files(tmp_path, f"a.xml <annotation>{size}{an_object(box=(3, 2, 22, 6))}</annotation>")
    with pytest.raises(DatasetError, match=r"object 1 .dog.: box 3, 2, 22, 6 .* leaves the image of 20×12 pixels"):
        VocDataset(root)


def test_objects_of_an_image_that_a_tag_turns_are_turned_with_it(tmp_path):
    """The XML states the size of the pixels in the file, as LabelImg does; so does the mask file."""
    write_voc(tmp_path, {"a": xml(an_object("dog", (3, 2, 7, 6)))})
    drawn = np.zeros(VOC_SIZE, dtype=np.uint8)
    drawn[1:6, 2:7] = 1  # columns 3 to 7 and rows 2 to 6, counted from 1
    write_voc_mask(tmp_path, "a", drawn)
    exif = Image.Exif()
    exif[0x0112] = 6  # the first row is the right side
    Image.fromarray(drawn * 255).save(tmp_path / "JPEGImages" / "a.jpg", exif=exif, quality=100)
    image, target = VocDataset(tmp_path)[0]
    assert np.array_equal(image[0].numpy() > 0.5, np.rot90(drawn, -1))
    assert np.array_equal(target["masks"][0].numpy(), np.rot90(drawn, -1))
    assert target["boxes"].tolist() == [[HEIGHT - 6, 2, HEIGHT - 1, 7]]
