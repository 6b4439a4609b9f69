"""No command writes over what it reads, over another output, or over a file that the user did not name."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from minircnn.cli.detect import make_plan
from minircnn.cli.options import RefusedError
from minircnn.cli.outputs import Output, check_outputs
from minircnn.shipped import DETECTOR_WEIGHTS, TOYTOWN_FOLDER

IMAGE = TOYTOWN_FOLDER / "test" / "000001.jpg"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a data set in COCO format, weights, and files of the user's."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(TOYTOWN_FOLDER / "val", "own/val")
    given = json.loads((TOYTOWN_FOLDER / "instances_val.json").read_text())
    keep = {one["id"] for one in given["images"][:5]}
    given["images"] = [one for one in given["images"] if one["id"] in keep]
    given["annotations"] = [one for one in given["annotations"] if one["image_id"] in keep]
    Path("own/annotations.json").write_text(json.dumps(given))
    for suffix in (".safetensors", ".json"):
        shutil.copy(DETECTOR_WEIGHTS["mask_rcnn"].with_suffix(suffix), f"w{suffix}")
        shutil.copy(DETECTOR_WEIGHTS["mask_rcnn"].parent / f"alexnet{suffix}", f"net{suffix}")
    Image.open(IMAGE).save("own/val/extra.png")
    Image.open(IMAGE).save("detections.png")
    shutil.copy(IMAGE, "image.jpg")
    Path("image-link.json").symlink_to("own/annotations.json")
    os.link("own/annotations.json", "same.json")
    Path("mine.json").write_text('{"a": 1}')
    Path("record.json").write_text('{"command": "minircnn history"}')
    for folder in ("demo", "figures", "dets"):
        Path(folder).mkdir()
    Image.open(IMAGE).save("demo/four_detectors.png")
    Image.open(IMAGE).save("figures/history.png")
    Image.open(IMAGE).save("dets/image.png")
    return tmp_path


OWN = ["--data", "coco", "--root", "own", "--annotations", "own/annotations.json"]
CHECK = ["data", "check", "coco", *OWN[2:]]
DETECT, EVALUATE = ["detect", "mask_rcnn", "image.jpg", "--out", "y.png"], ["evaluate", "mask_rcnn"]
TRAIN = ["train", "faster_rcnn", *OWN]


@pytest.mark.parametrize(
    ("arguments", "lost"),
    [
        ([*DETECT, "--weights", "w.safetensors", "--json", "w.json"], "w.json, which is read"),
        ([*DETECT, "--json", "image.jpg"], "image.jpg, which is read"),
        ([*DETECT[:3], "--out", "y.png", "--json", "./y.png"], "what --out writes"),
        ([*DETECT[:3]], "detections.png is there, was not written by this program"),
        ([*DETECT[:3], "--out", "dets"], "image.png is there, was not written by this program"),
        ([*EVALUATE, "--weights", "w.safetensors", "--json", "w.json"], "w.json, which is read"),
        ([*EVALUATE, *OWN, "--json", "own/annotations.json"], "own/annotations.json, which is read"),
        ([*EVALUATE, *OWN, "--json", "image-link.json"], "own/annotations.json, which is read"),
        ([*EVALUATE, *OWN, "--json", "same.json"], "own/annotations.json, which is read"),
        ([*EVALUATE, "--json", str(TOYTOWN_FOLDER / "instances_test.json")], "which is read"),
        ([*CHECK, "--json", "own/annotations.json"], "own/annotations.json, which is read"),
        ([*CHECK, "--json", "own/val/000001.jpg"], "own/val/000001.jpg, which is read"),
        ([*CHECK, "--out", "own/val/extra.png"], "own/val/extra.png, which is read"),
        ([*CHECK, "--out", "y.png", "--json", "y.png"], "what --out writes"),
        ([*TRAIN, "--out", "own/annotations.safetensors"], "own/annotations.json, which is read"),
        ([*TRAIN, "--out", "mine.safetensors"], "mine.json is there, was not written by this program"),
        ([*TRAIN, "--out", "x.safetensors", "--csv", "own/annotations.json"], "own/annotations.json, which is read"),
        ([*TRAIN, "--out", "x.safetensors", "--csv", "x.json"], "what --out writes"),
        ([*TRAIN, "--out", "x.safetensors", "--csv", "x.checkpoint"], "what --out writes"),
        ([*TRAIN, "--out", "x.safetensors", "--csv", "own/val/000001.jpg"], "own/val/000001.jpg, which is read"),
        ([*TRAIN, "--out", "net.safetensors", "--network", "net.safetensors"], "net.safetensors, which is read"),
        (["train", "rcnn", *OWN, "--out", "net.safetensors", "--network", "net.safetensors"], "which is read"),
        (["demo", "image.jpg"], "four_detectors.png is there, was not written by this program"),
    ],
    ids=lambda value: " ".join(value)[-60:] if isinstance(value, list) else "",
)
def test_nothing_of_the_users_is_written_over(place, call, arguments, lost):
    before = {path: path.is_file() and path.read_bytes() for path in place.rglob("*")}
    result = call(*arguments)
    assert result.exit_code == 2 and lost in result.stderr and len(result.stderr.splitlines()) == 1
    assert {path: path.is_file() and path.read_bytes() for path in place.rglob("*")} == before


def test_what_this_program_has_written_is_replaced(place, call):
    options = ["--root", "own", "--annotations", "own/annotations.json"]
    for _ in range(2):  # the sheet lies in the folder of the images
        assert call("data", "check", "coco", *options, "--out", "own/sheet.png", "--json", "n.json").exit_code == 0
    Path("detections.png").unlink()
    for _ in range(2):
        assert call("detect", "faster_rcnn", "image.jpg").exit_code == 0


@pytest.mark.parametrize(
    ("images", "out", "json_file", "message"),
    [
        (["image.jpg"], "none/x.png", None, r"--out none.x\.png: the folder none does not exist"),
        (["image.jpg"], "none/x", None, r"--out none.x: the folder none does not exist"),
        (["image.jpg"], "mine.json", None, r"--out mine\.json: this is a file; name a folder"),
        (["image.jpg"], "new.jpg", None, r"--out new\.jpg: images are written as PNG"),
        (["own/val/extra.png"], "own/val", None, r"would be written over own.val.extra\.png, which is read"),
        (["own/val/extra.png"], "hard.png", None, r"own.val.extra\.png, which is read"),
        (["own/val/extra.png"], "dets/../own/val/extra.png", None, r"own.val.extra\.png, which is read"),
        (["image.jpg"], "x.png", "none/x.json", r"--json none.x\.json: the folder none does not exist"),
        (["image.jpg"], "x.png", "own", r"--json own: this is a folder"),
        (["image.jpg"], "new", "dets/../new/a.png", r"--json .*: the folder .* does not exist"),
        (["image.jpg"], "figures", "figures/image.png", r"--json figures.image\.png: would be written over what --out"),
        (["many"], "x.png", None, "61 images, but one PNG shows at most 60; name a folder"),
        (["image.jpg"], "made", None, r"image\.png would be written, but this is a folder"),
    ],
)
def test_what_detect_refuses_to_write(place, images, out, json_file, message):
    os.link("own/val/extra.png", "hard.png")
    Path("many").mkdir(), Path("made/image.png").mkdir(parents=True)
    for number in range(61):
        Path(f"many/{number}.png").write_bytes(b"no image, but nobody looks yet")
    before = sorted(place.rglob("*"))
    with pytest.raises(RefusedError, match=message):
        make_plan([Path(image) for image in images], Path(out), json_file and Path(json_file))
    assert sorted(place.rglob("*")) == before
    assert len(make_plan([Path("many")], Path("new"), None).targets) == 61, "a folder takes them, and is not made yet"


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="here every folder may be written into")
def test_a_folder_that_may_not_be_written_into(place, monkeypatch):
    """Also that of the default place is refused before the work."""
    Path("closed").mkdir(mode=0o500)
    for out, json_file in (("closed/x.png", None), ("closed/x", None), ("closed", None), ("x", "closed/x")):
        with pytest.raises(RefusedError, match="closed may not be written into; name another one"):
            make_plan([place / "image.jpg"], Path(out), json_file and Path(json_file))
    monkeypatch.chdir("closed")
    with pytest.raises(RefusedError, match=r"--out d\.png: the folder \. may not be written into; name another one"):
        make_plan([place / "image.jpg"], Path("d.png"), None, named=False)


def test_names_that_differ_in_case_alone_are_one_file_on_many_machines(tmp_path):
    outputs = [Output("--out", tmp_path / "X.json"), Output("--csv", tmp_path / "x.JSON")]
    with pytest.raises(RefusedError, match="would be written over what --out writes"):
        check_outputs(outputs)


def test_a_loop_of_links_in_a_data_set_ends(tmp_path):
    (tmp_path / "data" / "inner").mkdir(parents=True)
    (tmp_path / "data" / "inner" / "again").symlink_to(tmp_path / "data", target_is_directory=True)
    (tmp_path / "far").mkdir()
    shutil.copy(IMAGE, tmp_path / "far" / "x.png")
    (tmp_path / "data" / "inner" / "linked").symlink_to(tmp_path / "far", target_is_directory=True)
    with pytest.raises(RefusedError, match=r"linked.x\.png, which is read"):
        check_outputs([Output("--out", tmp_path / "far" / "x.png")], [tmp_path / "data"])


@pytest.mark.skipif(sys.platform != "linux", reason="needs bash and /dev/fd")
def test_devices_pipes_and_what_is_printed(tmp_path):
    """As a shell gives them: nothing is lost in them, but for a file that this command prints into."""
    shutil.copy(IMAGE, tmp_path / "x.jpg")
    program = f"{sys.executable} -m minircnn detect faster_rcnn x.jpg --out y.png --json"
    script = (
        f"{program} >(cat > piped.json) && {program} /dev/null && {program} /dev/stdout > all.txt; echo $? > status"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MINIRCNN_CACHE": str(tmp_path / "cache")}
    process = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert json.loads((tmp_path / "piped.json").read_text())["detector"] == "faster_rcnn"
    assert Path("/dev/null").is_char_device()
    assert (tmp_path / "status").read_text() == "2\n"
    assert process.stderr == "Error: --json /dev/stdout: would be written over what is printed; name another place\n"
