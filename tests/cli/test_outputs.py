"""No command writes over what it reads, over another output, or over a file that this program has not written."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from minircnn.cli.common import RefusedError, check_outputs
from minircnn.cli.demo import MOST_IMAGES
from minircnn.shipped import DETECTOR_WEIGHTS, TOYTOWN_FOLDER
from minircnn.training import Log
from tests.cli.conftest import IMAGE


@pytest.fixture
def place(tmp_path, folder, monkeypatch):
    """A folder with a data set in COCO format, weights, and files of the user's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path)), monkeypatch.setenv("USERPROFILE", str(tmp_path))
    shutil.copytree(folder, "own")
    for suffix in (".safetensors", ".json"):
        shutil.copy(DETECTOR_WEIGHTS["mask_rcnn"].with_suffix(suffix), f"w{suffix}")
        shutil.copy(DETECTOR_WEIGHTS["mask_rcnn"].parent / f"alexnet{suffix}", f"net{suffix}")
    shutil.copy(IMAGE, "image.jpg")
    os.link("image.jpg", "same.jpg")
    Path("link.json").symlink_to("w.json")
    Path("mine.json").write_text('{"a": 1}')
    Path("mine.csv").write_text("name,size\na,1\n")
    shutil.copy("w.safetensors", "theirs.safetensors")
    for drawn in ("detections.png", "demo/four_detectors.png", "dets/image.png", "own/extra.png"):
        Path(drawn).parent.mkdir(exist_ok=True)
        Image.open(IMAGE).save(drawn)
    for folder in ("many", "made/image.png", "page/index.html", "mine"):
        Path(folder).mkdir(parents=True)
    Path("mine/index.html").write_bytes(b"<html>\xff mine, not minircnn demo's")
    for number in range(61):
        Path(f"many/{number}.png").touch()
    return tmp_path


OWN = ["--data", "coco", "--root", "own/images", "--annotations", "own/instances.json"]
CHECK = ["data", "check", "coco", *OWN[2:]]
DETECT, EVALUATE = ["detect", "mask_rcnn", "image.jpg", "--out", "y.png"], ["evaluate", "mask_rcnn"]
TRAIN = ["train", "faster_rcnn", *OWN, "--out"]
NOT_OURS = "is there, was not written by this program"


@pytest.mark.parametrize(
    ("arguments", "lost"),
    [
        ([*DETECT, "--weights", "w.safetensors", "--json", "w.json"], "w.json, which is read"),
        ([*DETECT, "--weights", "w.safetensors", "--json", "link.json"], "w.json, which is read"),
        ([*DETECT, "--json", "same.jpg"], "image.jpg, which is read"),
        ([*DETECT, "--json", "./y.png"], "what --out writes"),
        ([*DETECT[:3], "--out", "new", "--json", "dets/../new/image.png"], "what --out writes"),
        (DETECT[:3], f"detections.png {NOT_OURS}"),
        ([*DETECT[:3], "--out", "dets"], f"image.png {NOT_OURS}"),
        ([*EVALUATE, "--weights", "w.safetensors", "--json", "w.json"], "w.json, which is read"),
        ([*EVALUATE, *OWN, "--json", "own/instances.json"], f"own/instances.json {NOT_OURS}"),
        ([*EVALUATE, "--json", str(TOYTOWN_FOLDER / "instances_test.json")], NOT_OURS),
        ([*CHECK, "--json", "own/images/000001.jpg"], NOT_OURS),
        ([*CHECK, "--out", "own/extra.png"], NOT_OURS),
        ([*CHECK, "--out", "y.png", "--json", "y.png"], "what --out writes"),
        ([*TRAIN, "mine.safetensors"], f"mine.json {NOT_OURS}"),
        ([*TRAIN, "theirs.safetensors"], f"theirs.safetensors {NOT_OURS}"),
        ([*TRAIN, "x.safetensors", "--csv", "mine.csv"], f"mine.csv {NOT_OURS}"),
        ([*TRAIN, "x.safetensors", "--csv", "x.checkpoint"], "what --out writes"),
        ([*TRAIN, "net.safetensors", "--network", "net.safetensors"], "net.safetensors, which is read"),
        (["demo", "image.jpg"], f"four_detectors.png {NOT_OURS}"),
        (["demo", "--out", "x.HTML"], "--out x.HTML: this is the name of a file; name a folder"),
        (["demo", "--out", "page"], "index.html: this is a folder; name a file in it, or another place"),
        (["demo", "--out", "mine"], "index.html is there, was not written by this program, and would be lost"),
        (["demo", "~/demo/four_detectors.png"], "four_detectors.png, which is read"),
        (["demo", "many", "--out", "new"], f"61 images, but a demo shows at most {MOST_IMAGES}; name fewer"),
        ([*DETECT[:3], "--out", "mine.json"], "mine.json: this is the name of a file; name a folder"),
        ([*DETECT[:3], "--out", "new.jpg"], "new.jpg: this is the name of a file; name a folder"),
        ([*DETECT, "--json", "mine.json/x.json"], "mine.json may not be written into"),
        ([*DETECT, "--json", "own"], "--json own: this is a folder"),
        ([*DETECT, "--json", "Y.PNG"], "would be written over what --out writes"),  # one file on many machines
        (["detect", "mask_rcnn", "many", "--out", "y.png"], "61 images, but one PNG shows at most 60; name a f"),
        ([*DETECT[:3], "--out", "made"], "image.png: this is a folder"),
    ],
    ids=lambda value: " ".join(value)[-60:] if isinstance(value, list) else "",
)
def test_nothing_of_the_users_is_written_over(place, call, arguments, lost):
    before = {path: path.is_file() and path.read_bytes() for path in place.rglob("*")}
    result = call(*arguments)
    assert result.exit_code == 2 and lost in result.stderr and len(result.stderr.splitlines()) == 1
    assert {path: path.is_file() and path.read_bytes() for path in place.rglob("*")} == before


def test_what_this_program_has_written_may_be_replaced(place, call, files):
    """The page of a demo: test_demo.py."""
    weights = ("--weights", files["faster_rcnn"])
    Path("detections.png").unlink(), Path("n.json").touch()  # in an empty file nothing is lost
    assert call(*CHECK, "--out", "own/sheet.png", "--json", "n.json").exit_code == 0
    assert call("detect", "faster_rcnn", "image.jpg", *weights, "--json", "new/n.json").exit_code == 0
    assert call("evaluate", "faster_rcnn", "--images", 1, *weights, "--json", "e.json").exit_code == 0
    Log(Path("x.csv")).write({"iteration": 1, "learning_rate": 0.1, "total": 2, "box": 2}, {})
    for name in ("own/sheet.png", "n.json", "detections.png", "new/n.json", "e.json", "x.csv", "w.safetensors"):
        assert Path(name).stat().st_size
        check_outputs([("--out", Path(name))])


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="here every folder may be written into")
def test_a_folder_that_may_not_be_written_into(place):
    Path("closed").mkdir(mode=0o500), Path("mine.json").chmod(0o400)
    for path in ("closed/x.png", "closed/new/x.png", "mine.json"):
        with pytest.raises(RefusedError, match=r"(closed|mine\.json) may not be written into; name another place"):
            check_outputs([("--out", Path(path))])


@pytest.mark.skipif(sys.platform != "linux", reason="needs bash and /dev/fd")
def test_devices_and_pipes(tmp_path):
    """As a shell gives them: nothing is lost in them."""
    code = "import sys; from pathlib import Path; from minircnn.cli.common import check_outputs"
    check = f"{sys.executable} -c '{code}; check_outputs([(\"--json\", Path(sys.argv[1]))])'"
    script = f"{check} >(cat) && {check} /dev/null && {check} /dev/stdout | cat"
    process = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert (process.returncode, process.stderr) == (0, "")
