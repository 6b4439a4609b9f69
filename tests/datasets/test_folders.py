"""Penn-Fudan and nuclei against torchvision, scikit-image, values by hand and the real images; and their defects."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.ops import masks_to_boxes

from minircnn.datasets import DatasetError, NucleiDataset, PennFudanDataset
from minircnn.datasets.folders import boxes_around
from tests.datasets.conftest import (
    CELLS_SIZE,
    PEOPLE_SIZE,
    block,
    png_that_claims,
    three_people,
    write_cell,
    write_people,
)

HEIGHT, WIDTH = PEOPLE_SIZE


def test_by_hand(tmp_path):
    root = write_people(tmp_path, {"FudanPed00002": np.zeros((HEIGHT, WIDTH)), "FudanPed00001": three_people()})
    data = PennFudanDataset(root)
    assert data.classes == ["background", "pedestrian"]
    assert (data.records, data.image_ids) == (["FudanPed00001", "FudanPed00002"], [1, 2])
    assert (data.image_path(0), data.image_size(0)) == (root / "PNGImages" / "FudanPed00001.png", (14, 22))
    image, target = data[0]
    pixels = np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    assert torch.equal(image, torch.from_numpy(pixels).permute(2, 0, 1) / 255)
    assert target["boxes"].tolist() == [[3, 2, 5, 9], [18, 10, 22, 14], [0, 0, 1, 1]]
    assert (target["labels"].tolist(), target["area"].tolist()) == ([1, 1, 1], [9, 16, 1])
    assert (target["iscrowd"].tolist(), target["image_id"]) == ([False] * 3, 1)
    assert np.array_equal(target["masks"].numpy(), [three_people() == number for number in (1, 2, 3)])
    empty = data.load_target(1)
    assert (empty["boxes"].shape, empty["masks"].shape) == ((0, 4), (0, HEIGHT, WIDTH))
    assert (empty["masks"].dtype, empty["area"].dtype) == (torch.bool, torch.float32)
    assert "masks" not in PennFudanDataset(root, masks=False)[0][1]
    assert data.find_problems(0) == data.find_problems(1) == data.dropped == []


def test_nuclei_by_hand(tmp_path):
    """Hidden files are left alone; two nuclei that touch stay apart."""
    blocks = block((2, 5), (3, 6)), block((2, 5), (6, 9))
    write_cell(tmp_path, "ff", *blocks)
    pixels = write_cell(tmp_path, "0a1", block((0, 10), (0, 16)))
    write_cell(tmp_path, "a0")
    (tmp_path / ".hidden").mkdir(), (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "stage1_train_labels.csv").write_text("ImageId,EncodedPixels\n")
    for name in (".DS_Store", "._a.png"):
        (tmp_path / "ff" / "masks" / name).write_bytes(b"x")
    data = NucleiDataset(tmp_path)
    assert (data.records, data.image_ids, data.classes) == (["0a1", "a0", "ff"], [1, 2, 3], ["background", "nucleus"])
    assert data.image_path(2) == tmp_path / "ff" / "images" / "ff.png"
    image, target = data[0]
    assert torch.equal(image, torch.from_numpy(pixels[..., :3].copy()).permute(2, 0, 1) / 255), "without transparency"
    assert (target["boxes"].tolist(), target["area"].tolist()) == ([[0, 0, 16, 10]], [160])
    assert data.load_target(1)["masks"].shape == (0, *CELLS_SIZE)
    target = data.load_target(2)
    assert (target["boxes"].tolist(), target["image_id"]) == ([[3, 2, 6, 5], [6, 2, 9, 5]], 3)
    assert np.array_equal(target["masks"].numpy(), [one > 0 for one in blocks])
    assert data.find_problems(0) == data.find_problems(2) == []


def test_against_torchvision(tmp_path):
    """torchvision's boxes name the last pixel, so theirs are one less on the right and below."""
    rng = np.random.default_rng(4)
    arrays = {f"p{n}": rng.integers(0, 9, (HEIGHT, WIDTH)) * (rng.random((HEIGHT, WIDTH)) < 0.1) for n in range(6)}
    data = PennFudanDataset(write_people(tmp_path, arrays))
    for index, values in enumerate(arrays.values()):
        target = data.load_target(index)
        masks = torch.from_numpy(values == np.unique(values)[1:, None, None])  # as the tutorial of torchvision does it
        assert torch.equal(target["masks"], masks)
        assert torch.equal(target["boxes"], masks_to_boxes(masks) + torch.tensor([0, 0, 1, 1]))
        assert torch.equal(target["area"], masks.sum(dim=(1, 2)).float())


def test_boxes_of_masks_without_pixels_are_zero():
    masks = torch.zeros(2, 3, 4, dtype=torch.bool)
    masks[1, 2, 3] = True
    assert boxes_around(masks).tolist() == [[0, 0, 0, 0], [3, 2, 4, 3]]
    assert boxes_around(masks[:0]).shape == (0, 4)


def test_missing_and_damaged_files_are_named(tmp_path):
    """Each by its name, which may hold any letter. What is no file is left alone."""
    people = write_people(tmp_path / "Straße 道", {name: three_people() for name in ("a", "b ü", "c")})
    cells = tmp_path / "Kern 核"
    for name in "abc":
        write_cell(cells, name, block((2, 5), (3, 9)))
    (cells / "c" / "masks" / "b.png").mkdir()
    for kind, root, missing, left in (
        (PennFudanDataset, people, ("PedMasks/a_mask.png", "PedMasks/c_mask.png"), "b ü"),
        (NucleiDataset, cells, ("a/masks", "b/images/b.png"), "c"),
    ):
        for path in missing:
            (root / path).rename((root / path).with_suffix(".other"))
        with pytest.raises(DatasetError, match="2 problems") as error:
            kind(root)
        assert all(f"{root / path}: is missing" in str(error.value) for path in missing)
        data = kind(root, drop_invalid=True)
        assert (data.records, data.image_ids, len(data.dropped)) == ([left], [1], 2)
        for path in missing:
            (root / path).with_suffix(".other").rename(root / path)
        data, index = kind(root), ord(left[0]) - ord("a")
        assert len(data[index][1]["labels"]) in (1, 3)
        for path in (data.image_path(index), data.mask_files(index)[0]):
            whole = path.read_bytes()
            for content in (b"", whole[: len(whole) // 2], png_that_claims(10_000, 10_000)):  # of the last Pillow warns
                path.write_bytes(content)
                with pytest.raises(DatasetError, match=path.name):
                    data[index]
            path.write_bytes(whole)


def test_wrong_folders(tmp_path):
    write_people(tmp_path / "one" / "PennFudanPed", {"a": three_people()})
    (tmp_path / "two" / "x" / "images").mkdir(parents=True)
    for kind, name in ((PennFudanDataset, "PennFudanPed"), (NucleiDataset, "stage1_train")):
        with pytest.raises(FileNotFoundError, match=f"nowhere: there is no such folder; name the folder {name}"):
            kind(tmp_path / "nowhere")
        for folder in ("one", "two"):
            with pytest.raises(DatasetError, match=f"no image with masks in it; name the folder {name}"):
                kind(tmp_path / folder, drop_invalid=True)


GRAY = block((2, 5), (3, 9), 200)
GRAY[2, 3] = 90


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (block((0, 0), (0, 0)), "mask b.png: it is empty, no pixel is above 0: draw the nucleus or delete the file"),
        (GRAY, "mask b.png: it holds 0, 90, 200, but a mask has 0 and 255 only: write it without smoothing"),
        (np.full((16, 10), 255, np.uint8), "mask b.png: the mask is 16 high and 10 wide, the image 10 and 16"),
        (-np.eye(10, 16, dtype=np.int32), "mask b.png: holds -1, but objects have numbers above 0"),
    ],
)
def test_nuclei_that_are_refused(tmp_path, bad, words):
    write_cell(tmp_path, "x", block((6, 9), (3, 9)), block((5, 6), (5, 6)), block((0, 1), (0, 1), 1))
    path = tmp_path / "x" / "masks" / "b.png"
    Image.fromarray(bad).save(path, format="TIFF")  # a kind that may hold a sign, whatever its name says
    data = NucleiDataset(tmp_path)
    (problem,) = data.find_problems(0)
    assert problem.startswith(f"{data.image_path(0)}, {words}")
    with pytest.raises(DatasetError, match="1 problem") as error:
        data.load_target(0)
    assert words in str(error.value)
    assert NucleiDataset(tmp_path, drop_invalid=True).load_target(0)["area"].tolist() == [18, 1]


def test_kinds_of_masks(tmp_path):
    """Numbers of 16 and 32 bits, and of several equal channels, with transparency or not."""
    root = write_people(tmp_path, {"a": three_people()})
    path, data, people = root / "PedMasks" / "a_mask.png", PennFudanDataset(root), three_people().astype(np.uint8)
    transparent = np.full_like(people, 7)
    for values, areas in (
        (np.where(people == 2, 65_535, people).astype(np.uint16), [9, 1, 16]),
        (np.where(people == 2, 2**31 - 1, people).astype(np.int32), [9, 1, 16]),
        (np.dstack([people, transparent]), [9, 16, 1]),
        (np.dstack([people] * 3), [9, 16, 1]),
        (np.dstack([people] * 3 + [transparent]), [9, 16, 1]),
        (people == 2, [16]),
    ):
        Image.fromarray(values).save(path, format="TIFF")
        assert data.load_target(0)["area"].tolist() == areas
    for values, words in (
        (np.dstack([people * n for n in (1, 2, 3)]), r"a_mask\.png: an image in colors, no mask"),
        (people.astype(np.float32), "an image of the kind 'F', no mask"),
    ):
        Image.fromarray(values).save(path, format="TIFF")
        with pytest.raises(DatasetError, match=words):
            data.load_target(0)
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 22 14\n%%EndComments\nshowpage\n")
    with pytest.raises(DatasetError, match="PostScript is a program"):
        data.load_target(0)


def test_masks_that_would_fill_the_memory_are_refused_before_they_are_made(tmp_path):
    """A smooth image instead of a mask: every pixel would be a pedestrian, with a mask of its own."""
    root = write_people(tmp_path, {"a": np.zeros((250, 250))})
    smooth = Image.fromarray(np.arange(62_500, dtype=np.uint16).reshape(250, 250))
    smooth.save(root / "PedMasks" / "a_mask.png")
    data = PennFudanDataset(root)
    with pytest.raises(DatasetError, match=r"a_mask\.png: 62499 objects, whose masks would fill the memory"):
        data.load_target(0)
