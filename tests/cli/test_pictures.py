"""Which files are read and written, before any work: folders, names, and everything that must not be lost."""

import os
import string
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from minircnn.cli.errors import RefusedError
from minircnn.cli.pictures import distinct_stems, find_pictures, make_plan
from minircnn.datasets.images import read_image
from minircnn.files import printable

GREY = np.arange(6 * 7, dtype=np.uint8).reshape(6, 7) * 6
RGB = np.dstack([GREY, 255 - GREY, GREY // 2])


def touch(*paths):
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"no picture, but nobody looks yet")
    return paths


def pixels_of(path):
    return (read_image(path) * 255).permute(1, 2, 0).numpy()  # (H, W, 3)


# ------------------------------------------------------------------------------------------------------------ reading


def cmyk():
    """Inks are what is missing to white; no black."""
    inks = [Image.fromarray(channel) for channel in (255 - RGB).transpose(2, 0, 1)]
    return Image.merge("CMYK", [*inks, Image.new("L", inks[0].size)])


PALETTE = Image.fromarray(RGB).quantize(64)
KINDS = {
    "grey.png": (Image.fromarray(GREY), np.dstack([GREY] * 3)),
    "grey with alpha.png": (Image.merge("LA", [Image.fromarray(GREY)] * 2), np.dstack([GREY] * 3)),
    "RGB.bmp": (Image.fromarray(RGB), RGB),
    "RGBA.png": (Image.fromarray(np.dstack([RGB, GREY])), RGB),
    "16 bits.png": (Image.fromarray(GREY.astype(np.uint16) * 257), np.dstack([GREY] * 3)),
    "one bit.png": (Image.fromarray(GREY > 99), np.dstack([GREY > 99] * 3) * 255.0),
    "CMYK.tif": (cmyk(), RGB),
    "palette.gif": (PALETTE, np.asarray(PALETTE.convert("RGB"))),
}


@pytest.mark.parametrize("name", KINDS)
def test_any_kind_of_picture_has_known_pixels(tmp_path, name):
    picture, expected = KINDS[name]
    picture.save(tmp_path / name)
    np.testing.assert_allclose(pixels_of(tmp_path / name), expected, atol=1e-3)


def test_cmyk_photograph_equals_pillow(tmp_path):
    Image.fromarray(RGB).resize((70, 60)).convert("CMYK").save(tmp_path / "print.jpg")
    with Image.open(tmp_path / "print.jpg") as file:
        assert file.mode == "CMYK"
        expected = np.asarray(file.convert("RGB"))
    np.testing.assert_allclose(pixels_of(tmp_path / "print.jpg"), expected, atol=1e-3)


def test_picture_is_upright(tmp_path):
    """A red corner at the top left of the file belongs to the top right of a picture with orientation 6."""
    picture = Image.new("RGB", (48, 32))
    picture.paste((255, 0, 0), (0, 0, 16, 16))
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(tmp_path / "turned.jpg", exif=exif, quality=95)
    image = read_image(tmp_path / "turned.jpg")
    assert image.shape == (3, 48, 32)
    corners = image[0, [0, 0, -1, -1], [0, -1, 0, -1]]  # top left, top right, bottom left, bottom right
    torch.testing.assert_close(corners, torch.tensor([0.0, 1.0, 0.0, 0.0]), atol=0.05, rtol=0)
    with Image.open(tmp_path / "turned.jpg") as file:
        np.testing.assert_allclose(
            pixels_of(tmp_path / "turned.jpg"), np.asarray(ImageOps.exif_transpose(file)), atol=1e-3
        )


def test_of_an_animation_the_first_frame_is_read(tmp_path):
    frames = [Image.new("RGB", (4, 3), colour) for colour in ("#ff0000", "#00ff00")]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    assert torch.equal(read_image(tmp_path / "moving.gif"), torch.tensor([1.0, 0, 0])[:, None, None].expand(3, 3, 4))


def test_larger_than_pillow_thinks_safe_is_refused(tmp_path, monkeypatch):
    """Pillow only warns between its limit and twice the limit."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 41)
    Image.fromarray(GREY).save(tmp_path / "large.png")
    with pytest.raises(ValueError, match="too large to be read safely"):
        read_image(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 42)
    assert read_image(tmp_path / "large.png").shape == (3, 6, 7)


def test_what_pillow_warns_of_is_read_silently(tmp_path, recwarn):
    Image.fromarray(RGB).save(tmp_path / "odd.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x05\x01\x12\0\x03")
    assert read_image(tmp_path / "odd.jpg").shape == (3, 6, 7)
    assert not list(recwarn)


# ------------------------------------------------------------------------------------------------------------ finding


def test_folder_gives_its_pictures_by_suffix_and_name(tmp_path):
    wanted = touch(*(tmp_path / "f" / name for name in ("10.PNG", "9.jpeg", "b c.gif", "ü.webp")))
    touch(*(tmp_path / "f" / name for name in ("notes.txt", ".hidden.png", "png", "x.json", "z.png.part")))
    touch(tmp_path / "f" / "inner.png" / "deep.png")
    assert find_pictures([tmp_path / "f"]) == (list(wanted), [])


def test_named_files_need_no_suffix_and_come_in_the_order_given_each_once(tmp_path):
    b, a, odd = touch(tmp_path / "b.png", tmp_path / "a.png", tmp_path / "odd")
    pictures, skipped = find_pictures([b, odd, tmp_path, tmp_path / "." / "b.png"])
    assert pictures == [b, odd, a]
    assert skipped == []


def test_what_is_no_picture_is_named_with_the_reason(tmp_path):
    (tmp_path / "empty").mkdir()
    (fine,) = touch(tmp_path / "fine.png")
    pictures, skipped = find_pictures([tmp_path / "empty", fine, tmp_path / "none.png", tmp_path / ("x" * 300)])
    assert pictures == [fine]
    assert [path.name for path, _ in skipped] == ["empty", "none.png", "x" * 300]
    assert ["no pictures in this folder" in skipped[0][1], "no such file" in skipped[1][1]] == [True, True]
    assert skipped[2][1]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    assert find_pictures([tmp_path / "pipe.png"]) == ([], [(tmp_path / "pipe.png", "neither a file nor a folder")])


names = st.text(string.ascii_letters[:2] + "AB_2", min_size=1, max_size=4)


@given(st.lists(st.tuples(names, st.sampled_from([".png", ".jpg"]))))
def test_no_two_pictures_share_a_name_and_the_first_keeps_its_own(tmp_path_factory, entries):
    paths = [Path(stem + suffix) for stem, suffix in entries]
    found = distinct_stems(paths)
    assert len({name.lower() for name in found}) == len(found) == len(paths)
    for index, (path, name) in enumerate(zip(paths, found, strict=True)):
        assert name.startswith(path.stem)
        if path.stem.lower() not in {earlier.lower() for earlier in found[:index]}:
            assert name == path.stem


def test_printable():
    assert printable("straße 日本 – ok.png") == "straße 日本 – ok.png"
    assert printable("a\nb\tc\x1b[31m\udcff") == "a?b?c?[31m?"


# ----------------------------------------------------------------------------------------------------------- the plan


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working folder with two pictures, a file and a folder."""
    touch(tmp_path / "a.png", tmp_path / "b.jpg", tmp_path / "file.txt", tmp_path / "folder" / "a.jpg")
    (tmp_path / "folder.png").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def plan(pictures, out, json_file=None):
    return make_plan([Path(p) for p in pictures], Path(out), Path(json_file) if json_file else None)


def test_one_png_or_one_for_each(place):
    assert plan(["a.png"], "new.png").targets == ()
    assert plan(["a.png", "b.jpg"], "new.PNG").targets == ()
    assert [str(path) for path in plan(["a.png"], "new").targets] == [str(Path("new", "a.png"))]
    found = plan(["a.png", "b.jpg", "folder"], "folder.d")
    assert [path.name for path in found.targets] == ["a.png", "b.png", "a_2.png"]
    assert {path.parent.name for path in found.targets} == {"folder.d"}
    assert [str(path) for path in found.pictures] == ["a.png", "b.jpg", str(Path("folder", "a.jpg"))]
    assert not (place / "new").exists(), "planning makes nothing"


@pytest.mark.parametrize(
    ("pictures", "out", "json_file", "message"),
    [
        (["a.png"], "none/x.png", None, r"--out none.x\.png: the folder none does not exist"),
        (["a.png"], "none/x", None, r"--out none.x: the folder none does not exist"),
        (["a.png"], "folder.png", None, r"--out folder\.png: this is a folder"),
        (["a.png"], "file.txt", None, r"--out file\.txt: this is a file; name a folder"),
        (["a.png"], "new.jpg", None, r"--out new\.jpg: pictures are written as PNG"),
        (["a.png"], "a.png", None, r"would be written over a\.png, which is read"),
        (["a.png", "b.jpg"], ".", None, r"would be written over a\.png, which is read"),
        (["a.png"], "x.png", "none/x.json", r"--json none.x\.json: the folder none does not exist"),
        (["a.png"], "x.png", "folder", r"--json folder: this is a folder"),
        (["a.png"], "x.png", "x.png", r"--json x\.png: would be written over what --out writes"),
        (["a.png"], "x", "folder/../x/a.png", r"--json .*: the folder .* does not exist"),
        (["a.png", "b.jpg"], "x.png", "b.jpg", r"b\.jpg, which is read"),
        (["a.png"], "folder", "folder/a.png", r"--json folder.a\.png: would be written over what --out writes"),
    ],
)
def test_refusals(place, pictures, out, json_file, message):
    before = sorted(place.rglob("*"))
    with pytest.raises(RefusedError, match=message):
        plan(pictures, out, json_file)
    assert sorted(place.rglob("*")) == before


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="here every folder may be written into")
@pytest.mark.parametrize(
    ("out", "json_file"), [("closed/x.png", None), ("closed/x", None), ("closed", None), ("x", "closed/x")]
)
def test_a_folder_that_may_not_be_written_into(place, out, json_file):
    (place / "closed").mkdir(mode=0o500)
    with pytest.raises(RefusedError, match="closed may not be written into; name another one"):
        plan(["a.png"], out, json_file)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="here every folder may be written into")
def test_the_default_place_is_refused_before_the_work_too(place, monkeypatch):
    (place / "closed").mkdir(mode=0o500)
    monkeypatch.chdir(place / "closed")
    with pytest.raises(RefusedError, match=r"--out d\.png: the folder \. may not be written into; name another one"):
        make_plan([place / "a.png"], Path("d.png"), None, named=False)


def test_other_names_of_a_picture_are_seen_through(place):
    os.link("a.png", "hard.png")
    for name in ("hard.png", "./folder/../a.png"):
        with pytest.raises(RefusedError, match="which is read"):
            plan(["a.png"], name)


def test_a_folder_in_the_place_of_a_result(place):
    (place / "out" / "b.png").mkdir(parents=True)
    with pytest.raises(RefusedError, match=r"b\.png would be written, but this is a folder"):
        plan(["a.png", "b.jpg"], "out")


def ours():
    info = PngInfo()
    info.add_text("Software", "minircnn")
    return info


def test_results_of_an_earlier_run_may_be_replaced(place):
    touch(place / "out" / "a.png", place / "out.png", place / "out.json")
    with pytest.raises(RefusedError, match=r"a\.png is there, was not written by this program"):
        plan(["b.jpg", "folder/a.jpg"], "out")
    Image.new("RGB", (1, 1)).save(place / "out" / "a.png", pnginfo=ours())
    assert plan(["b.jpg", "folder/a.jpg"], "out").targets
    assert plan(["a.png"], "out.png", "out.json").json_file


def test_a_grid_holds_sixty_pictures(place):
    more = touch(*(place / "many" / f"{i}.png" for i in range(61)))
    assert len(plan(more[:60], "x.png").pictures) == 60
    with pytest.raises(RefusedError, match="61 pictures, but one PNG shows at most 60; name a folder"):
        plan(["many"], "x.png")
    assert len(plan(["many"], "x").targets) == 61
