"""PennFudanDataset against torchvision's way to read the set, against scikit-image, and its defects."""

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.measure import regionprops
from torchvision.ops import masks_to_boxes

from minircnn.datasets import DatasetError, PennFudanDataset
from minircnn.datasets.folders import boxes_around
from tests.datasets.conftest import PEOPLE_SIZE, three_people, write_people

HEIGHT, WIDTH = PEOPLE_SIZE


def test_by_hand(tmp_path):
    root = write_people(tmp_path, {"FudanPed00002": np.zeros((HEIGHT, WIDTH)), "FudanPed00001": three_people()})
    data = PennFudanDataset(root)
    assert data.classes == ["background", "pedestrian"]
    assert (data.names, data.image_ids) == (["FudanPed00001", "FudanPed00002"], [1, 2])
    assert data.image_path(0) == root / "PNGImages" / "FudanPed00001.png"
    assert data.image_size(0) == (14, 22)
    image, target = data[0]
    pixels = np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    assert torch.equal(image, torch.from_numpy(pixels).permute(2, 0, 1) / 255)
    assert target["boxes"].tolist() == [[3, 2, 5, 9], [18, 10, 22, 14], [0, 0, 1, 1]]
    assert target["boxes"].dtype == torch.float32
    assert target["labels"].tolist() == [1, 1, 1]
    assert target["area"].tolist() == [9, 16, 1]
    assert target["iscrowd"].tolist() == [False] * 3
    assert target["image_id"] == 1
    for number, mask in enumerate(target["masks"], start=1):
        assert np.array_equal(mask.numpy(), three_people() == number)
    _, empty = data[1]
    shapes = {key: (tuple(value.shape), value.dtype) for key, value in empty.items() if key != "image_id"}
    assert shapes == {
        "boxes": ((0, 4), torch.float32),
        "labels": ((0,), torch.int64),
        "masks": ((0, HEIGHT, WIDTH), torch.bool),
        "iscrowd": ((0,), torch.bool),
        "area": ((0,), torch.float32),
    }
    assert "masks" not in PennFudanDataset(root, masks=False)[0][1]
    assert data.find_problems(0) == data.find_problems(1) == data.dropped == []


def test_against_torchvision_and_scikit_image(tmp_path):
    """torchvision's boxes name the last pixel, so theirs are one less on the right and below."""
    rng = np.random.default_rng(4)
    arrays = {f"p{n}": rng.integers(0, 9, (HEIGHT, WIDTH)) * (rng.random((HEIGHT, WIDTH)) < 0.1) for n in range(6)}
    data = PennFudanDataset(write_people(tmp_path, arrays))
    for index, values in enumerate(arrays.values()):
        target = data.load_target(index)
        numbers = np.unique(values)[1:]  # as the tutorial of torchvision does it
        masks = torch.from_numpy(values == numbers[:, None, None])
        assert torch.equal(target["masks"], masks)
        assert torch.equal(target["boxes"], masks_to_boxes(masks) + torch.tensor([0, 0, 1, 1]))
        regions = {region.label: region for region in regionprops(values)}
        for box, area, number in zip(target["boxes"].tolist(), target["area"].tolist(), numbers, strict=True):
            y1, x1, y2, x2 = regions[number].bbox
            assert (box, area) == ([x1, y1, x2, y2], regions[number].area)


def test_boxes_of_masks_without_pixels_are_zero():
    masks = torch.zeros(2, 3, 4, dtype=torch.bool)
    masks[1, 2, 3] = True
    assert boxes_around(masks).tolist() == [[0, 0, 0, 0], [3, 2, 4, 3]]
    assert boxes_around(masks[:0]).shape == (0, 4)


def test_gap_in_the_numbers_is_told_and_bridged(tmp_path):
    values = three_people()
    values[values == 2] = 0
    data = PennFudanDataset(write_people(tmp_path, {"a": values}))
    assert data.load_target(0)["area"].tolist() == [9, 1]
    assert data.find_problems(0) == [
        f"{tmp_path / 'PNGImages' / 'a.png'}, mask a_mask.png: pedestrian 2 has no pixels although there is a "
        "pedestrian 3; draw it, or number the others without gaps"
    ]


def test_mask_of_another_size(tmp_path):
    root = write_people(tmp_path, {"a": three_people()}, picture=np.zeros((14, 21, 3), dtype=np.uint8))
    data, words = PennFudanDataset(root), "the mask is 14 high and 22 wide, the image 14 and 21"
    with pytest.raises(DatasetError, match=words) as error:
        data.load_target(0)
    assert str(error.value).startswith(str(root / "PedMasks" / "a_mask.png"))
    assert data.find_problems(0) == [str(error.value)]


def test_missing_masks(tmp_path):
    root = write_people(tmp_path, {"a": three_people(), "b": three_people(), "c": three_people()})
    for name in "ac":
        (root / "PedMasks" / f"{name}_mask.png").unlink()
    with pytest.raises(DatasetError, match="2 problems") as error:
        PennFudanDataset(root)
    for name in "ac":
        assert f"{name}.png: its mask {root / 'PedMasks' / f'{name}_mask.png'} is missing" in str(error.value)
    data = PennFudanDataset(root, drop_invalid=True)
    assert (data.names, data.image_ids, len(data.dropped)) == (["b"], [1], 2)


def test_wrong_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: there is no such folder; name the folder PennFudanPed"):
        PennFudanDataset(tmp_path / "nowhere")
    inner = write_people(tmp_path / "PennFudanPed", {})
    with pytest.raises(FileNotFoundError, match=f"did you mean {inner}"):
        PennFudanDataset(tmp_path)
    with pytest.raises(DatasetError, match=r"no images .* in this folder"):
        PennFudanDataset(inner)


def damaged(path, rng):
    whole = bytearray(path.read_bytes())
    if rng.random() < 0.4:
        return bytes(whole[: rng.integers(len(whole))])
    for place in rng.integers(len(whole), size=rng.integers(1, 5)):
        whole[place] = rng.integers(256)
    return bytes(whole)


def test_damaged_files_are_named(tmp_path):
    """Of a hundred damaged masks and pictures each is read or refused with its name, and nothing else happens."""
    root = write_people(tmp_path / "Straße 道", {"a ü": three_people()})
    mask, picture = root / "PedMasks" / "a ü_mask.png", root / "PNGImages" / "a ü.png"
    rng, refused = np.random.default_rng(0), 0
    for path in (mask, picture):
        whole = path.read_bytes()
        for _ in range(100):
            path.write_bytes(damaged(path, rng))
            data = PennFudanDataset(root)
            try:
                data[0]
            except DatasetError as error:
                assert "a ü" in str(error)
                refused += 1
            path.write_bytes(whole)
    assert refused > 100
    image, target = PennFudanDataset(root)[0]
    assert (image.shape, len(target["labels"])) == ((3, 14, 22), 3)


def test_pictures_that_would_fill_the_memory_are_refused(tmp_path):
    root = write_people(tmp_path, {"a": three_people()})
    bomb = Image.new("1", (30_000, 20_000))  # 600 million pixels, in a file of some kilobytes
    for path in (root / "PedMasks" / "a_mask.png", root / "PNGImages" / "a.png"):
        whole = path.read_bytes()
        bomb.save(path)
        with pytest.raises(DatasetError, match=f"{path.name}.* too large to be read safely"):
            PennFudanDataset(root)[0]
        path.write_bytes(whole)


def test_masks_that_would_fill_the_memory_are_refused_before_they_are_made(tmp_path):
    """A smooth image instead of a mask: every pixel would be a pedestrian, with a mask of its own."""
    root = write_people(tmp_path, {"a": np.zeros((250, 250))})
    path = root / "PedMasks" / "a_mask.png"
    Image.fromarray(np.arange(62_500, dtype=np.uint16).reshape(250, 250)).save(path)
    data = PennFudanDataset(root)
    with pytest.raises(DatasetError, match=r"a_mask\.png: 62499 objects in an image of 250 × 250 pixels, whose masks"):
        data.load_target(0)
    assert len(data.find_problems(0)) == 1


@pytest.mark.parametrize(("dtype", "most"), [(np.uint16, 65_535), (np.int32, 2**31 - 1)])
def test_masks_of_more_bits(tmp_path, dtype, most):
    """Numbers of 16 and 32 bits are read as they are, in a TIFF whatever its name says."""
    root = write_people(tmp_path, {"a": three_people()})
    path = root / "PedMasks" / "a_mask.png"
    values = np.where(three_people() == 2, most, three_people()).astype(dtype)
    Image.fromarray(values).save(path, format="TIFF")
    assert PennFudanDataset(root).load_target(0)["area"].tolist() == [9, 1, 16]
    if dtype == np.int32:
        Image.fromarray(-values).save(path, format="TIFF")
        with pytest.raises(DatasetError, match=r"a_mask\.png: holds -2147483647, but objects have numbers above 0"):
            PennFudanDataset(root).load_target(0)


def test_masks_that_are_no_masks(tmp_path):
    root = write_people(tmp_path, {"a": three_people()})
    path = root / "PedMasks" / "a_mask.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 99, (14, 22, 3), dtype=np.uint8)).save(path)
    with pytest.raises(DatasetError, match=r"a_mask\.png: an image in colors, no mask"):
        PennFudanDataset(root).load_target(0)
    Image.fromarray(np.repeat(three_people().astype(np.uint8)[..., None], 3, axis=2)).save(
        path
    )  # grey in three channels
    assert PennFudanDataset(root).load_target(0)["area"].tolist() == [9, 16, 1]
    Image.fromarray(three_people().astype(np.float32)).save(path, format="TIFF")
    with pytest.raises(DatasetError, match="an image of the kind 'F', no mask"):
        PennFudanDataset(root).load_target(0)
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 22 14\n%%EndComments\nshowpage\n")
    with pytest.raises(DatasetError, match="PostScript is a program"):
        PennFudanDataset(root).load_target(0)
