"""NucleiDataset against values by hand, scikit-image and the real pictures, and every defect that it names."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.measure import regionprops

from minircnn.datasets import DatasetError, NucleiDataset, open_data
from tests.datasets.conftest import CELLS_SIZE, block, write_cell

HEIGHT, WIDTH = CELLS_SIZE

BOMBS = ((30_000, 20_000), (10_000, 10_000))  # at the second Pillow only warns, raw on the screen


def problems_of(tmp_path, *masks):
    """The defects of these masks, without the name of the picture in front."""
    write_cell(tmp_path, "x", *masks)
    found = NucleiDataset(tmp_path).find_problems(0)
    head = f"{tmp_path / 'x' / 'images' / 'x.png'}, "
    assert all(problem.startswith(head) for problem in found)
    return [problem.removeprefix(head) for problem in found]


def test_by_hand(tmp_path):
    write_cell(tmp_path, "ff", block((2, 5), (3, 9)), block((9, 10), (15, 16)))
    pixels = write_cell(tmp_path, "0a1", block((0, 10), (0, 16)))
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "stage1_train_labels.csv").write_text("ImageId,EncodedPixels\n")
    (tmp_path / "ff" / "masks" / ".DS_Store").write_bytes(b"x")
    (tmp_path / "ff" / "masks" / "._a.png").write_bytes(b"x")
    data = NucleiDataset(tmp_path)
    assert (data.names, data.image_ids, data.classes) == (["0a1", "ff"], [1, 2], ["background", "nucleus"])
    assert data.image_path(1) == tmp_path / "ff" / "images" / "ff.png"
    image, target = data[0]
    assert torch.equal(image, torch.from_numpy(pixels[..., :3].copy()).permute(2, 0, 1) / 255), (
        "transparency is dropped"
    )
    assert (target["boxes"].tolist(), target["area"].tolist()) == ([[0, 0, 16, 10]], [160])
    target = data.load_target(1)
    assert target["boxes"].tolist() == [[3, 2, 9, 5], [15, 9, 16, 10]]
    assert target["area"].tolist() == [18, 1]
    assert target["labels"].tolist() == [1, 1]
    assert target["iscrowd"].tolist() == [False, False]
    assert target["image_id"] == 2
    expected = torch.zeros(2, HEIGHT, WIDTH, dtype=torch.bool)
    expected[0, 2:5, 3:9], expected[1, 9, 15] = True, True
    assert torch.equal(target["masks"], expected)
    assert data.find_problems(0) == data.find_problems(1) == []


def test_picture_without_nuclei(tmp_path):
    write_cell(tmp_path, "x")
    _, target = NucleiDataset(tmp_path)[0]
    assert target["boxes"].shape == (0, 4)
    assert target["masks"].shape == (0, HEIGHT, WIDTH)


def test_nuclei_that_touch_stay_apart(tmp_path):
    assert problems_of(tmp_path, block((2, 5), (3, 6)), block((2, 5), (6, 9))) == []
    assert NucleiDataset(tmp_path).load_target(0)["boxes"].tolist() == [[3, 2, 6, 5], [6, 2, 9, 5]]


def test_overlaps_are_told_in_pairs(tmp_path):
    masks = (block((0, 4), (0, 4)), block((3, 6), (2, 6)), block((8, 9), (8, 9)), block((5, 9), (5, 9)))
    masks += (block((0, 2), (12, 15)), block((1, 3), (13, 16)))  # further to the right than the picture is high
    assert problems_of(tmp_path, *masks) == [
        "masks a.png and b.png: 2 pixels in both; give each to one nucleus",
        "masks b.png and d.png: 1 pixel in both; give each to one nucleus",
        "masks c.png and d.png: 1 pixel in both; give each to one nucleus",
        "masks e.png and f.png: 2 pixels in both; give each to one nucleus",
    ]
    assert len(NucleiDataset(tmp_path).load_target(0)["labels"]) == 6, "no reason to refuse them"


GREY = block((2, 5), (3, 9), 200)
GREY[2, 3] = 90


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (block((0, 0), (0, 0)), "mask b.png: it is empty, no pixel is above 0: draw the nucleus or delete the file"),
        (GREY, "mask b.png: it holds 0, 90, 200, but a mask has 0 and 255 only: write it without smoothing"),
        (np.full((10, 16), 255, np.uint8) - GREY, "mask b.png: it holds 55, 165, 255, but a mask has 0 and 255 only"),
        (np.full((9, 16), 255, np.uint8), "mask b.png: the mask is 9 high and 16 wide, the image 10 and 16"),
        (np.full((16, 10), 255, np.uint8), "mask b.png: the mask is 16 high and 10 wide, the image 10 and 16"),
    ],
)
def test_masks_that_are_refused(tmp_path, bad, words):
    (problem,) = problems_of(tmp_path, block((6, 9), (3, 9)), bad, block((0, 1), (0, 1)))
    assert problem.startswith(words)
    data = NucleiDataset(tmp_path)
    with pytest.raises(DatasetError, match="1 problem") as error:
        data.load_target(0)
    assert words in str(error.value)
    assert str(data.image_path(0)) in str(error.value)
    assert NucleiDataset(tmp_path, drop_invalid=True).load_target(0)["area"].tolist() == [18, 1]


def test_masks_of_zero_and_one_are_read_and_told(tmp_path):
    (problem,) = problems_of(tmp_path, block((2, 5), (3, 9), 1))
    assert problem.startswith("mask a.png: the nucleus is drawn in 1, not in 255")
    assert NucleiDataset(tmp_path).load_target(0)["area"].tolist() == [18]
    Image.fromarray(block((2, 5), (3, 9)) > 0).save(tmp_path / "x" / "masks" / "a.png")  # one bit for each pixel
    data = NucleiDataset(tmp_path)
    assert (data.load_target(0)["area"].tolist(), data.find_problems(0)) == ([18], [])


def test_missing_files(tmp_path):
    for name in "abc":
        write_cell(tmp_path, name, block((2, 5), (3, 9)))
    shutil.rmtree(tmp_path / "a" / "masks")
    (tmp_path / "b" / "images" / "b.png").rename(tmp_path / "b" / "images" / "other.png")
    with pytest.raises(DatasetError, match="2 problems") as error:
        NucleiDataset(tmp_path)
    assert f"{tmp_path / 'a' / 'masks'}: there is no such folder" in str(error.value)
    assert f"{tmp_path / 'b' / 'images' / 'b.png'}: there is no such image" in str(error.value)
    data = NucleiDataset(tmp_path, drop_invalid=True)
    assert (data.names, len(data.dropped)) == (["c"], 2)


def test_wrong_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: there is no such folder; name the folder stage1_train"):
        NucleiDataset(tmp_path / "nowhere")
    write_cell(tmp_path / "stage1_train", "x")
    with pytest.raises(DatasetError, match="no image with masks in it; name the folder stage1_train"):
        NucleiDataset(tmp_path)
    with pytest.raises(DatasetError, match="no image with masks in it"):
        NucleiDataset(tmp_path, drop_invalid=True)


def test_damaged_files_are_named(tmp_path):
    root = tmp_path / "Kern 核"
    write_cell(root, "x", block((2, 5), (3, 9)), block((0, 1), (0, 1)))
    mask, picture = root / "x" / "masks" / "b.png", root / "x" / "images" / "x.png"
    for path in (mask, picture):
        whole = path.read_bytes()
        for content in (b"", whole[:30], whole[: len(whole) // 2], b"GIF89a", whole.replace(b"IDAT", b"IDAX")):
            path.write_bytes(content)
            with pytest.raises(DatasetError) as error:
                NucleiDataset(root)[0]
            assert path.name in str(error.value)
            assert any(path.name in problem for problem in NucleiDataset(root).find_problems(0)) or path == picture
        for size in BOMBS:
            Image.new("1", size).save(path)
            with pytest.raises(DatasetError, match=f"{path.name}.* too large to be read safely"):
                NucleiDataset(root)[0]
        path.write_bytes(whole)
    mask.unlink()
    mask.mkdir()  # not a file: left alone
    assert len(NucleiDataset(root)[0][1]["labels"]) == 1


def test_masks_that_would_fill_the_memory(tmp_path, monkeypatch):
    write_cell(tmp_path, "x", block((2, 5), (3, 9)), block((0, 1), (0, 1)))
    monkeypatch.setattr("minircnn.datasets.folders.MOST_MASK_PIXELS", 2 * HEIGHT * WIDTH)
    assert len(NucleiDataset(tmp_path).load_target(0)["labels"]) == 2
    monkeypatch.setattr("minircnn.datasets.folders.MOST_MASK_PIXELS", 2 * HEIGHT * WIDTH - 1)
    with pytest.raises(DatasetError, match="masks: 2 objects in an image of 10 × 16 pixels, whose masks would fill"):
        NucleiDataset(tmp_path).load_target(0)


def test_masks_of_other_kinds_of_files(tmp_path):
    """None is passed over; and 255 in 32 bits of which the first is a sign is refused, not taken for background."""
    write_cell(tmp_path, "x", block((2, 5), (3, 9)))
    folder = tmp_path / "x" / "masks"
    Image.fromarray(block((0, 1), (0, 1))).save(folder / "b.tif")
    assert NucleiDataset(tmp_path).load_target(0)["area"].tolist() == [18, 1]
    Image.fromarray(np.where(block((0, 1), (0, 1)) > 0, -1, 0).astype(np.int32)).save(folder / "b.tif")
    with pytest.raises(DatasetError, match=r"mask b\.tif: holds -1, but objects have numbers above 0"):
        NucleiDataset(tmp_path).load_target(0)


def test_real_pictures(real_data):
    """All masks of ten real pictures, against Pillow and scikit-image; and the one defect that the sixty have."""
    root = real_data / "nuclei" / "stage1_train"
    data = open_data("nuclei", root)
    assert len(data) == 60
    for index in range(0, 60, 6):
        image, target = data[index]
        assert image.shape == (3, 256, 256)
        files = sorted((root / data.names[index] / "masks").iterdir(), key=lambda path: path.name)
        assert len(files) == len(target["labels"])
        for path, box, area in zip(files, target["boxes"].tolist(), target["area"].tolist(), strict=True):
            with Image.open(path) as file:
                (region,) = regionprops((np.array(file) > 0).astype(int))
            y1, x1, y2, x2 = region.bbox
            assert (box, area) == ([x1, y1, x2, y2], region.area)
    found = [problem for index in range(60) for problem in data.find_problems(index)]
    assert len(found) == 1
    assert "2 pixels in both" in found[0]
