"""Files that are damaged, hostile or no files at all: each is refused with an error that is part of the contract.

What a file holds comes from elsewhere. Whatever that is, reading it ends soon, with the right result or with an error
that names the file: DatasetError, WeightsError or an OSError, which the command line prints as one line. Damage is
drawn with seeds, so that every run sees the same.
"""

import copy
import hashlib
import io
import json
import random
import struct
import warnings
import zlib
from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pycocotools.mask as rle_codec
import pytest
import safetensors.torch
import torch
from PIL import Image, features

from minircnn.alexnet import AlexNet, AlexNetConfig, load_alexnet, save_alexnet
from minircnn.cache import Cache
from minircnn.datasets import CocoDataset, DatasetError
from minircnn.datasets.images import read_image
from minircnn.fast_rcnn import fast_rcnn_alexnet
from minircnn.faster_rcnn import faster_rcnn_alexnet
from minircnn.mask_rcnn import mask_rcnn_alexnet
from minircnn.rcnn import RCNN
from minircnn.training import fit
from minircnn.training.checkpoints import Checkpoint
from minircnn.transforms import Transform
from minircnn.weights import WeightsError, config_of, load, load_weights, read_tensors, save
from tests.tiny import CLASSES, TINY
from tests.training.conftest import SETTINGS, network, noisy


def flipped(content, dice):
    """One bit is another."""
    damaged = bytearray(content)
    damaged[dice.randrange(len(damaged))] ^= 1 << dice.randrange(8)
    return bytes(damaged)


def damaged(content, trials, seed=0):
    """Cut short, a bit flipped, a byte of the header at a limit, or a piece replaced by another one."""
    dice = random.Random(seed)
    for trial in range(trials):
        start = dice.randrange(len(content))
        if trial % 4 == 0:
            yield content[:start]
        elif trial % 4 == 1:
            yield flipped(content, dice)
        elif trial % 4 == 2:
            start = dice.randrange(min(200, len(content)))
            yield content[:start] + bytes([dice.choice([0, 1, 127, 128, 255])]) + content[start + 1 :]
        else:
            piece = bytes(dice.randrange(256) for _ in range(dice.randint(0, 40)))
            yield content[:start] + piece + content[start + dice.randint(1, 40) :]


def places(value, place=()):
    """The way to every part of a JSON value, but for the whole."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inside:
        yield (*place, key)
        yield from places(part, (*place, key))


def changed(value, place, new):
    """A copy with another part at a place."""
    result = copy.deepcopy(value)
    part = result
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = new
    return result


KINDS = ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "DDS", "JPEG2000", *["AVIF"] * features.check("avif")]


def image_file(kind):
    pixels = np.random.default_rng(0).integers(0, 256, (24, 31, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, compression="tiff_lzw" if kind == "TIFF" else None)
    return stream.getvalue()


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_image_is_read_or_refused(tmp_path, kind):
    """As `minircnn detect` reads it: what is neither of these two errors would be a traceback there."""
    path, refused = tmp_path / "mit Leerzeichen ü 重み.bin", 0
    for content in damaged(image_file(kind), 40):
        path.write_bytes(content)
        try:
            image = read_image(path)
        except (OSError, ValueError) as error:
            refused += 1
            assert "make it smaller" in str(error) or "again" in str(error) or "8 or 16 bits" in str(error)
        else:
            assert image.dim() == 3 and image.shape[0] == 3 and image.min() >= 0 and image.max() <= 1
    assert refused > 10


@pytest.mark.parametrize("side", [60_000, 2**31 - 1, 2**32 - 1])
def test_an_image_that_promises_too_much_is_refused_before_it_fills_the_memory(tmp_path, side):
    content = image_file("PNG")
    header = b"IHDR" + struct.pack(">II", side, side) + content[24:29]
    path = tmp_path / "bomb.png"
    path.write_bytes(content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:])
    with pytest.raises(DatasetError, match=r"too large|cannot be decoded"):
        read_image(path)


def runs_of_a_rectangle():
    mask = np.zeros((8, 10), np.uint8, order="F")
    mask[2:4, 3:7] = 1
    return rle_codec.encode(mask)["counts"].decode()


def small_set():
    """Two images, and a mask of each of the three kinds."""
    common, runs = {"area": 12, "iscrowd": 0, "bbox": [2, 1, 4, 3]}, runs_of_a_rectangle()
    return {
        "images": [
            {"id": 7, "file_name": "a.png", "height": 8, "width": 10},
            {"id": 3, "file_name": "b.png", "height": 8, "width": 10},
        ],
        "categories": [{"id": 9, "name": "dog"}, {"id": 4, "name": "cat"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 9, **common, "segmentation": [[2, 1, 6, 1, 6, 4, 2, 4]]},
            {"id": 2, "image_id": 3, "category_id": 4, **common, "segmentation": {"size": [8, 10], "counts": [17, 63]}},
            {"id": 3, "image_id": 3, "category_id": 4, **common, "segmentation": {"size": [8, 10], "counts": runs}},
        ],
    }


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "mit Leerzeichen ü 重み"
    folder.mkdir()
    for name in "ab":
        Image.new("RGB", (10, 8)).save(folder / f"{name}.png")
    return folder


def read_set(folder, content):
    """All of a data set, or None where it is refused by its name."""
    path = folder / "instances.json"
    path.write_bytes(content)
    try:
        dataset = CocoDataset(folder, path)
    except DatasetError as error:
        assert str(error).startswith(str(path))
        return None
    return [(dataset.load_image(i), dataset.load_target(i)) for i in range(len(dataset))]


def as_json(value):
    return json.dumps(value).encode()


HOSTILE = [
    *[None, True, -1, 0, 1.5, float("nan"), 1e308, 10**18, 10**400, "", "\ud800", "a\0b", "..", [[]], [1], [{}], {}],
    {"size": [8, 10], "counts": "\ud800"},
    {"size": [8.0, 10.0], "counts": [80]},
]


@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: f"{value!r:.30}".encode("ascii", "replace").decode())
def test_any_part_of_a_data_set_may_be_something_else(folder, value):
    """Each part in turn: most are refused, and what is not can be read to the end."""
    refused = 0
    for place in places(small_set()):
        try:
            text = as_json(changed(small_set(), place, value))
        except ValueError:  # a number that Python does not write
            return
        try:
            refused += read_set(folder, text) is None
        except DatasetError as error:  # of an image: another size, or a folder
            assert "a.png" in str(error) or "b.png" in str(error)
    assert refused > 20


def test_any_damage_to_an_annotation_file_is_refused_or_harmless(folder):
    assert [len(target["boxes"]) for _, target in read_set(folder, as_json(small_set()))] == [1, 2]
    results = [read_set(folder, content) for content in damaged(as_json(small_set()), 100)]
    assert results.count(None) > 75 and any(results)


@pytest.mark.parametrize(
    "content",
    [b"[" * 200_000, b'{"images": [' + b"9" * 5000 + b"]}", json.dumps({}).encode("utf-16")],
    ids=["lists in lists", "5000 digits", "UTF-16"],
)
def test_what_is_no_data_set_is_refused(folder, content):
    assert read_set(folder, content) is None


@pytest.mark.parametrize("size", [(60_000, 60_000), (1, 10**18), (2**32, 2**32)])
def test_an_image_that_could_not_be_read_is_refused_before_its_masks_fill_the_memory(folder, size):
    content = small_set()
    content["images"][0] |= {"height": size[0], "width": size[1]}
    with pytest.raises(DatasetError, match=r"image 7 \('a.png'\): height .* too large to be read"):
        (folder / "instances.json").write_bytes(as_json(content))
        CocoDataset(folder, folder / "instances.json")


def header(dtype="F32", shape=(2,), data_offsets=(0, 8)):
    """A safetensors file with a header that says this, and eight bytes of numbers."""
    text = json.dumps({"a": {"dtype": dtype, "shape": shape, "data_offsets": data_offsets}}).encode()
    return struct.pack("<Q", len(text)) + text + bytes(8)


LIES = {
    "length beyond the file": struct.pack("<Q", 2**62) + b"{}",
    "offsets beyond the file": header(data_offsets=[0, 2**40], shape=[2**38]),
    "a shape that overflows": header(shape=[2**33, 2**33, 2**33]),
    "no such type": header(dtype="F33"),
    "lists in lists": struct.pack("<Q", 100_000) + b"[" * 100_000,
}


@pytest.mark.parametrize("lie", LIES)
def test_a_header_that_lies_is_refused(tmp_path, lie):
    path = tmp_path / "w.safetensors"
    path.write_bytes(LIES[lie])
    with pytest.raises(WeightsError, match=r"w\.safetensors: damaged, or no weights .*; fetch it again"):
        read_tensors(path)


@pytest.mark.parametrize("ending", [".png", ".pth", ".npz", ".safetensors", "_before_zip_files.pt"])
def test_one_wrong_bit_is_never_another_number(tmp_path, ending):
    """Of zip files, with a checksum of every part, which torch.load does not look at; others are read or refused."""
    path, dice, values = tmp_path / f"w{ending}", random.Random(0), torch.randn(500)
    read = read_image if ending == ".png" else lambda path: read_tensors(path)["a"]
    if ending == ".png":
        path.write_bytes(image_file("PNG"))
        values = read(path)
    elif ending == ".npz":
        np.savez(path, a=values.numpy())
    elif ending == ".safetensors":
        path.write_bytes(safetensors.torch.save({"a": values}))
    else:
        torch.save({"a": values}, path, _use_new_zipfile_serialization=ending == ".pth")
    content, refused = path.read_bytes(), 0
    for wrong in [*(flipped(content, dice) for _ in range(60)), *damaged(content, 60)]:
        path.write_bytes(wrong)
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Detected pickle protocol")  # torch's, of a damaged header
                found = read(path)
            assert ending not in (".png", ".pth", ".npz") or torch.equal(found, values)
        except (WeightsError, DatasetError) as error:
            assert str(error).startswith(f"{path}: ")
            refused += 1
    assert refused > 40


BUILD = {
    "alexnet": lambda network, _: network,
    "rcnn": RCNN,
    "fast_rcnn": fast_rcnn_alexnet,
    "faster_rcnn": faster_rcnn_alexnet,
    "mask_rcnn": mask_rcnn_alexnet,
}


def stored(detector, path):
    """Write a tiny one into a file; returns what reads it."""
    model = BUILD[detector](AlexNet(TINY, 5), CLASSES)
    if detector == "alexnet":
        save_alexnet(model, path, {})
        return load_alexnet
    save(model, path)
    return load


ANYTHING = [None, 10**9, True, -1, "x", float("nan"), {}, [["a"]]]
# Mask R-CNN's description holds all that the other two hold.
DESCRIPTIONS = [(name, value) for name in ("alexnet", "rcnn", "mask_rcnn") for value in ANYTHING]
DESCRIPTIONS += [(name, 10**9) for name in ("fast_rcnn", "faster_rcnn")]


@pytest.mark.parametrize(("detector", "value"), DESCRIPTIONS, ids=repr)
def test_any_part_of_a_description_may_be_something_else(tmp_path, detector, value):
    """A type that fits no setting, or a network that no memory holds (10⁹): refused before anything is computed."""
    path, record = tmp_path / "w.safetensors", tmp_path / "w.json"
    read = stored(detector, path)
    about = json.loads(record.read_text())
    own = type(read(path))
    refused = []
    for place in places(about):
        record.write_text(json.dumps(changed(about, place, value)))
        try:
            assert isinstance(read(path), own)
        except WeightsError as error:
            refused.append(place)
            assert "w.safetensors" in str(error) or "w.json" in str(error)
    # What is a size of layers, and so of the weights, or of another type, never passes.
    for name in ("channels", "kernel", "hidden", "pool5"):
        assert ("network", name) in refused
    assert ("sha256",) in refused


@pytest.mark.parametrize("detector", BUILD)
def test_other_weights_are_refused(tmp_path, detector):
    """Missing, unknown, of another shape, of whole numbers, not a number: with a checksum that is right."""
    path = tmp_path / "w.safetensors"
    read = stored(detector, path)
    tensors, about = load_weights(path)
    name = next(iter(name for name in tensors if name.endswith("conv1.weight")))
    values = tensors[name]
    changes = {
        "is missing": {name: None},
        "more is not in the network": {"more": torch.zeros(1)},
        "has shape": {name: values[1:]},
        "holds torch.int64, the network needs torch.float32": {name: values.long()},
        "holds nan or infinity": {name: torch.full_like(values, torch.nan)},
    }
    for message, change in changes.items():
        other = {key: value for key, value in (tensors | change).items() if value is not None}
        content = safetensors.torch.save(other)  # save_weights would refuse to write nan
        path.write_bytes(content)
        path.with_suffix(".json").write_text(json.dumps({**about, "sha256": hashlib.sha256(content).hexdigest()}))
        with pytest.raises(WeightsError, match=rf"w\.safetensors: .*{message}"):
            read(path)


WRONG_SETTINGS = [
    *[(Transform, {"mean": value}) for value in ([0.5, 0.5], 0.5, [0, 0, float("nan")], [0, 0, True])],
    *[(Transform, {name: value}) for name, value in (("min_size", 0.5), ("divisor", None), ("blue_first", 1))],
    *[(Transform, {"size": 1}), (AlexNetConfig, {"padding": True}), (AlexNetConfig, {"padding": 10**10})],
]


@pytest.mark.parametrize(("kind", "values"), WRONG_SETTINGS, ids=repr)
def test_a_setting_of_another_type_is_refused(kind, values):
    with pytest.raises((TypeError, KeyError, ValueError)):
        config_of(kind, values)
    right = {"mean": (1, 0.5, 0.5), "min_size": None} if kind is Transform else {"groups": (1, 1, 1, 1, 1)}
    assert config_of(kind, json.loads(json.dumps(right))) == kind(**right)


def test_a_cached_result_with_one_wrong_bit_is_computed_anew(tmp_path):
    """Also where the file is still in order, with other numbers, or another name for them."""
    right, dice, calls = {"boxes": torch.arange(40.0).view(10, 4), "scores": torch.rand(10)}, random.Random(0), []
    cache = Cache(tmp_path)
    cache.get("a", ("k",), lambda: right)
    (path,) = (file for file in tmp_path.rglob("*") if file.is_file())
    content = path.read_bytes()
    for wrong in [*(flipped(content, dice) for _ in range(60)), *damaged(content, 20)]:
        path.write_bytes(wrong)
        known = len(calls)
        found = cache.get("a", ("k",), lambda: calls.append(1) or right)
        assert found.keys() == right.keys() and all(torch.equal(found[name], right[name]) for name in right)
        assert all(found[name].dtype == right[name].dtype for name in right)
        assert path.read_bytes() == (content if len(calls) > known else wrong)
    assert len(calls) > 30


def test_a_checkpoint_with_one_wrong_bit_is_the_same_or_refused(tmp_path):
    """A run that goes on with other numbers than it had would end in weights that nobody can make again."""
    settings, path, dice, refused = replace(SETTINGS, iterations=6), tmp_path / "run.checkpoint", random.Random(0), 0
    model, scaler = network(), SimpleNamespace(load_state_dict=lambda state: None)
    fit(model, noisy(model), settings, checkpoint=path, quiet=True)
    content, right = path.read_bytes(), model.state_dict()
    for _ in range(60):
        path.write_bytes(flipped(content, dice))
        again = network()
        optimizer = torch.optim.AdamW([{"params": list(again.parameters()), "lr_mult": 1.0}])
        try:
            assert Checkpoint(path, asdict(settings), model=again, optimizer=optimizer, scaler=scaler).load() == 6
        except WeightsError as error:
            refused += 1
            assert str(error).startswith(f"{path}: ") and "start without resume" in str(error)
        else:
            assert all(torch.equal(again.state_dict()[name], right[name]) for name in right)
    assert refused > 30
