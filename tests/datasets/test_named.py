"""Data sets by name, and their parts: some images, some classes."""

import json
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader

from minircnn import datasets
from minircnn.datasets import CocoDataset, DatasetError, ToyTown, open_data
from minircnn.datasets.named import indices_by_id
from tests.datasets.conftest import an_object, block, three_people, write_cell, write_people, write_voc, xml


@pytest.fixture
def coco(tmp_path):
    """Twelve images, the last one listed first; each has a dog, a cat and a crowd of dogs, but for id 4."""
    images, annotations = [], []
    one = {"bbox": [2, 1, 4, 3], "segmentation": [[2, 1, 6, 1, 6, 4, 2, 4]]}
    for number in reversed(range(12)):
        Image.fromarray(np.full((8, 10, 3), number, dtype=np.uint8)).save(tmp_path / f"{number}.png")
        images.append({"id": 4 + number, "file_name": f"{number}.png", "height": 8, "width": 10})
        for place, (category, crowd) in enumerate([(3, 0), (8, 0), (3, 1)] if number else []):
            own = {"id": 100 * number + place, "category_id": category, "area": place + 1, "iscrowd": crowd}
            annotations.append({**one, **own, "image_id": 4 + number})
    categories = [{"id": 3, "name": "dog"}, {"id": 8, "name": "cat"}, {"id": 9, "name": "traffic light"}]
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return tmp_path, path


def same(a, b):
    """Whether two targets are equal."""
    return a.keys() == b.keys() and all(torch.equal(torch.as_tensor(a[key]), torch.as_tensor(b[key])) for key in a)


def test_every_name_opens_its_class(tmp_path, coco):
    voc = write_voc(tmp_path / "VOC2007", {"a": xml(an_object()), "b": xml()}, {"trainval": ["a", "b"], "val": ["a"]})
    people = write_people(tmp_path / "PennFudanPed", {"a": three_people()})
    write_cell(tmp_path / "stage1_train", "x", block((2, 5), (3, 9)))
    wanted = {
        "toytown": (ToyTown, 200, (), {"split": "val"}),
        "coco": (CocoDataset, 12, coco, {}),
        "voc": (datasets.VocDataset, 1, (voc,), {"split": "val"}),
        "pennfudan": (datasets.PennFudanDataset, 1, (people,), {}),
        "nuclei": (datasets.NucleiDataset, 1, (str(tmp_path / "stage1_train"),), {}),
    }
    assert tuple(wanted) == datasets.DATA_NAMES
    for name, (kind, count, places, options) in wanted.items():
        data, without_masks = (open_data(name, *places, **options, masks=masks) for masks in (None, False))
        assert (type(data), len(data), data.classes[0]) == (kind, count, "background")
        image, target = data[0]
        assert (tuple(image.shape[1:]), target["image_id"]) == (data.image_size(0), data.image_ids[0])
        assert same(target, data.load_target(0)) and torch.equal(image, data.load_image(0))
        assert ("masks" in target) == (name != "voc")
        assert same({key: value for key, value in target.items() if key != "masks"}, without_masks.load_target(0))
    assert [record.name for record in open_data("voc", voc).records] == ["a", "b"]
    assert open_data("toytown").annotations.name == "instances_train.json"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("cooc",), r"there is no 'cooc' \(did you mean 'coco'\?\); there are toytown, coco, voc, pennfudan, nuclei"),
        (("toytown", "."), r"root \.: toytown comes with the project"),
        (("toytown", None, "x.json"), r"annotations x\.json: toytown comes with the project"),
        (("coco",), "root: coco needs one: the folder of the images"),
        (("coco", "."), "annotations: coco needs the JSON file"),
        (("nuclei", ".", "x.json"), r"annotations x\.json: nuclei finds its own"),
        (["Dgo"], r"there is no 'Dgo' \(did you mean 'dog'\?\); there are dog, cat, traffic light"),
        (["background"], "there is no 'background'"),
        (["dog", "dog"], "'dog' is named twice"),
        ([], "none is named; choose from dog, cat, traffic light"),
    ],
)
def test_what_cannot_be_meant(coco, arguments, words):
    """Names of data sets with their places, and lists of classes."""
    with pytest.raises(DatasetError, match=words):
        open_data(*arguments) if isinstance(arguments, tuple) else open_data("coco", *coco, classes=arguments)


@given(st.lists(st.integers(0, 10**6), unique=True, max_size=60), st.randoms(use_true_random=False))
def test_split_is_disjoint_and_complete_and_knows_no_order(ids, rng):
    train, test = indices_by_id(ids, "train"), indices_by_id(ids, "test")
    assert sorted(train + test) == list(range(len(ids)))
    assert {ids[i] for i in test} == set(sorted(ids)[4::5])
    shuffled = rng.sample(ids, len(ids))
    assert {shuffled[i] for i in indices_by_id(shuffled, "test")} == {ids[i] for i in test}
    assert train == sorted(train) and test == sorted(test)


def test_splits_and_parts_of_a_data_set(coco):
    """In the order of ids 4 … 15 the fifth and the tenth are for testing."""
    whole = open_data("coco", *coco)
    train, test = (open_data("coco", *coco, split=split) for split in ("train", "test"))
    assert (whole.image_ids, test.image_ids) == (list(range(15, 3, -1)), [13, 8])
    assert sorted(train.image_ids + test.image_ids) == sorted(whole.image_ids)
    assert open_data("coco", *coco, split="test", classes=["cat"]).image_ids == [13, 8]
    image, target = test[1]
    assert image[0, 0, 0].item() == pytest.approx(4 / 255), "image 4.png has id 8"
    assert (target["image_id"], test.image_path(1).name, test.image_size(1)) == (8, "4.png", (8, 10))
    part = whole.part([3, 0])
    assert (len(part), part.image_ids, part.classes, len(whole)) == (2, [12, 15], whole.classes, 12)
    assert same(part[0][1], whole[3][1]) and torch.equal(part[1][0], whole[0][0])
    assert part.part([1]).image_ids == [15]
    with pytest.raises(IndexError):
        part[2]
    for wrong in (12, -1):
        with pytest.raises(IndexError, match=f"image {wrong}: the data set has 12, counted from 0"):
            whole.part([wrong])


def test_only_classes_by_hand(coco, tmp_path):
    """Images without objects stay, and so do crowds; a class may be left out of those that were kept."""
    whole = CocoDataset(*coco)
    data = whole.only(["cat", "dog"])
    assert (data.classes, len(data)) == (["background", "cat", "dog"], 12)
    target = data.load_target(0)
    assert target["labels"].tolist() == [2, 1, 2], "dog, cat and a crowd of dogs, in the order of the file"
    assert target["iscrowd"].tolist() == [False, False, True]
    for chosen in (whole.only(["dog"]), data.only(["dog"])):
        only = chosen.load_target(0)
        assert (only["labels"].tolist(), only["area"].tolist(), only["iscrowd"].tolist()) == ([1, 1], [1, 3], [0, 1])
        assert (only["boxes"].shape, only["masks"].shape, only["image_id"]) == ((2, 4), (2, 8, 10), 15)
    _, target = whole.only(["traffic light"])[0]
    assert (target["boxes"].shape, target["masks"].shape, target["labels"].dtype) == ((0, 4), (0, 8, 10), torch.int64)
    objects = (an_object("cat"), an_object("dog", difficult="1"), an_object("dog"))
    data = open_data("voc", write_voc(tmp_path, {"a": xml(*objects)}), masks=False, classes=["dog"])
    assert data.load_target(0)["difficult"].tolist() == data.load_target(0)["iscrowd"].tolist() == [True, False]


def test_parts_travel_to_other_processes(coco):
    """As a DataLoader sends them to its workers."""
    data = open_data("coco", *coco, split="train", classes=["dog"])
    copy = pickle.loads(pickle.dumps(data))
    assert same(copy.load_target(3), data.load_target(3))
    images, targets = next(iter(DataLoader(data, batch_size=3, collate_fn=datasets.collate)))
    assert [image.shape for image in images] == [(3, 8, 10)] * 3
    assert [target["image_id"] for target in targets] == data.image_ids[:3]
