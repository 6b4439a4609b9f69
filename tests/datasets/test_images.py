"""Reading of image files against Pillow and by hand: kinds, EXIF tags, limits, damage."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from minircnn.datasets import DatasetError, read_image
from minircnn.datasets.images import open_image, read_head


def test_gray_palette_and_transparent_images_become_rgb(tmp_path):
    gray = np.arange(80, dtype=np.uint8).reshape(8, 10)
    Image.fromarray(gray).save(tmp_path / "gray.png")
    image = read_image(tmp_path / "gray.png")
    assert torch.equal(image, (torch.from_numpy(gray).float() / 255).expand(3, -1, -1))

    rgba = np.dstack([gray, gray + 1, gray + 2, np.full_like(gray, 9)])
    Image.fromarray(rgba).save(tmp_path / "rgba.png")
    image = read_image(tmp_path / "rgba.png")
    assert torch.equal((image * 255).round().byte(), torch.from_numpy(rgba[..., :3].transpose(2, 0, 1).copy()))

    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    palette.save(tmp_path / "palette.png", transparency=bytes([0, 128]))
    image = read_image(tmp_path / "palette.png")
    assert (image * 255).round().tolist() == [[[10, 40]], [[20, 50]], [[30, 60]]]


@pytest.mark.parametrize("suffix", [".png", ".webp"])
@pytest.mark.parametrize("orientation", range(10))  # 0 and 9 mean nothing
def test_upright_is_what_pillow_makes_of_the_tag(tmp_path, suffix, orientation):
    path, exif = tmp_path / f"turned{suffix}", Image.Exif()
    exif[0x0112] = orientation
    photo = Image.fromarray(np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3) * 4)
    photo.save(path, exif=exif, **({"lossless": True} if suffix == ".webp" else {}))
    with Image.open(path) as file:
        expected = np.asarray(ImageOps.exif_transpose(file))
    image = read_image(path)
    assert image.is_contiguous()
    assert np.array_equal((image * 255).round().byte().permute(1, 2, 0).numpy(), expected)
    assert read_head(path) == (expected.shape[:2], orientation if orientation in range(1, 9) else 1)


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
@pytest.mark.parametrize("kind", ["gray", "sixteen bits", "color"])
def test_tiff_is_turned_once(tmp_path, kind, compression):
    """By Pillow, whatever we ask for. Pillow 11 to 13 garble some of these when they open them by name."""
    gray = np.array([[10, 20, 30], [40, 50, 60]], dtype=np.uint8)
    pixels = {"gray": gray, "sixteen bits": gray.astype(np.uint16) * 257, "color": np.dstack([gray] * 3)}[kind]
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "turned.tif", exif=exif, compression=compression)
    image = read_image(tmp_path / "turned.tif")
    assert (image * 255).round().tolist() == [[[40, 10], [50, 20], [60, 30]]] * 3


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("tag", [b"MM\xff*\0\0\0\x08\0\x01\x01\x12\0\x03", b"MM\0*\0\0\0\x08\0\x05\x01\x12\0"])
def test_damaged_exif_turns_nothing(tmp_path, suffix, tag):
    """A false header, and one that is cut off."""
    path = tmp_path / f"odd{suffix}"
    Image.fromarray(np.full((4, 5, 3), 80, dtype=np.uint8)).save(path, exif=b"Exif\0\0" + tag)
    assert torch.equal(read_image(path), torch.full((3, 4, 5), 80 / 255))


@pytest.mark.parametrize("value", [np.int32(-1), np.int32(65536), np.float32(1)])
def test_values_without_a_known_range_are_refused(tmp_path, value):
    """Clipping them would show another image."""
    Image.fromarray(np.array([[0, value]], dtype=value.dtype)).save(tmp_path / "deep.tif")
    with pytest.raises(DatasetError, match="known range"):
        read_image(tmp_path / "deep.tif")


@pytest.mark.parametrize("hungry", [lambda: bytearray(10**15), lambda: torch.zeros(10**15)], ids=["Python", "torch"])
def test_a_lack_of_memory_is_no_damage(tmp_path, hungry):
    Image.new("RGB", (4, 3)).save(tmp_path / "x.png")
    with pytest.raises(DatasetError, match="not enough memory to read the image"), open_image(tmp_path / "x.png"):
        hungry()
