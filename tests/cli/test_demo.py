"""``minircnn demo`` against the detectors called directly, its page as a browser would read it, and ``make demo``."""

import base64
import io
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib import pyplot as plt
from PIL import Image
from typer.testing import CliRunner

from minircnn.cli import app
from minircnn.cli.demo import DETECTORS, SCENE
from minircnn.datasets import ToyTown
from minircnn.datasets.images import read_image
from minircnn.shipped import DETECTOR_WEIGHTS, TOYTOWN_FOLDER
from tests.cli.conftest import directly

ROOT = Path(__file__).parent.parent.parent
SCENE_FILE = TOYTOWN_FOLDER / "test" / f"{SCENE + 1:06d}.jpg"
# What HTML, make, the shell or matplotlib could take for their own; Windows forbids some of it in names.
HOSTILE = "a  'b' & ü 日本 $x_1$ `c` &lt;.png" if os.name == "nt" else "a  'b' <b>&\"> ü 日本 $x_1$ `c` &lt;.png"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with an image of a difficult name in a folder of its own, a large one, and one that is broken."""
    folder = tmp_path_factory.mktemp("demo")
    (folder / "in").mkdir()
    with Image.open(TOYTOWN_FOLDER / "test" / "000112.jpg") as file:
        file.crop((0, 0, 128, 90)).save(folder / "in" / HOSTILE)
        file.resize((160, 110), Image.Resampling.BICUBIC).save(folder / "large.png")
    (folder / "broken.jpg").write_bytes(SCENE_FILE.read_bytes()[:700])
    return folder


@pytest.fixture(scope="module")
def result(place):
    """A demo of all of them, over a former one. What it writes stays; what it prints is returned."""
    figures = plt.get_fignums()
    (place / "demo").mkdir()
    (place / "demo" / "mine.txt").touch(), (place / "demo" / "four_detectors.png").touch()
    (place / "demo" / "index.html").write_text('<!DOCTYPE html>\n<meta name="generator" content="minircnn demo">')
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setattr("minircnn.cli.demo.LONGEST_SIDE", 128)
        result = CliRunner().invoke(app, ["demo", f"in/{HOSTILE}", "none.jpg", "broken.jpg", "large.png"])
    assert plt.get_fignums() == figures, "figures are closed"
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture(scope="module")
def page(place, result):
    return (place / "demo" / "index.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def texts(page):
    """The text of each element of a kind."""
    return lambda tag: ["".join(one.itertext()).strip() for one in ElementTree.fromstring(page).iter(tag)]


def test_the_page_is_well_formed_and_stands_alone(page, texts):
    """Nothing to run, and nothing to fetch: no element or attribute that refers to anything but the embedded images."""
    assert page.startswith("<!DOCTYPE html>\n")
    assert texts("title") == texts("h1") == ["Four detectors, the same images"]
    elements = list(ElementTree.fromstring(page).iter())
    assert not {one.tag for one in elements} & {"script", "link", "iframe", "object", "a"}
    known = {"lang", "charset", "name", "content", "http-equiv", "src", "alt"}
    assert {key for one in elements for key in one.attrib} <= known
    assert "url(" not in page and "@import" not in page and "://" not in page
    notebooks = [text for text in texts("code") if text.endswith(".ipynb")]
    assert len(notebooks) == 4 and all((ROOT / name).is_file() for name in notebooks)


def test_what_is_found_is_what_the_detectors_find_and_names_are_shown_letter_for_letter(texts, page, place):
    assert texts("h2")[:3] == ["A scene of Toy Town", f"in/{HOSTILE}", "large.png"] and "<b>" not in page
    classes, images = ToyTown("test").classes, list(ElementTree.fromstring(page).iter("img"))
    given = [ToyTown("test")[SCENE][0], read_image(place / "in" / HOSTILE), None]
    for image, alt in zip(given, (one.get("alt") for one in images), strict=True):
        for name, (title, *_) in DETECTORS.items():
            (found,) = re.findall(rf"[;.] {title} finds (.+?) in \d+\.\d{{3}} s", alt)
            if image is not None:  # the large one is shrunk in another way than Pillow's
                wanted = directly(name, DETECTOR_WEIGHTS[name], image, 0.0 if name == "rcnn" else 0.5, 300)
                pairs = zip(wanted["labels"].tolist(), wanted["scores"].tolist(), strict=True)
                assert found == (", ".join(f"{classes[label]} {score:.2f}" for label, score in pairs) or "nothing")
    there = [classes[label] for label in ToyTown("test")[SCENE][1]["labels"]]
    assert len(there) == 6 and f"What is there: {', '.join(there)}." in " ".join(texts("p"))
    assert "160 × 110 pixels, shrunk to 128 × 88 before the detectors saw it." in " ".join(texts("p"))
    # The first of each row is the image itself: its colors are where they should be.
    for element, path in zip(images[1:], (place / "in" / HOSTILE, place / "large.png"), strict=True):
        kind, _, data = element.get("src").partition(",")
        assert kind == "data:image/png;base64"
        with Image.open(io.BytesIO(base64.b64decode(data, validate=True))) as shown, Image.open(path) as file:
            width, height = shown.width / 5, shown.width / 5 * file.height / file.width
            part = shown.crop((8, int(shown.height - height + 8), int(width - 8), shown.height - 8))
            pair = (one.convert("RGB").resize((16, 12), Image.Resampling.BOX) for one in (part, file))
            part, file = (np.asarray(one, float) for one in pair)
        assert np.abs(part - file).mean() < 12
    with Image.open(place / "demo" / "four_detectors.png") as file:
        assert file.format == "PNG" and file.size[0] == 1500 and file.size[1] > 600


def test_what_cannot_be_read_is_named_and_left_out(result, place):
    assert result.exit_code == 1
    bad = [line.partition(": skipped: ")[0] for line in result.stderr.splitlines()]
    assert bad == ["none.jpg", "broken.jpg"]
    folder = Path("demo")
    assert result.stdout.splitlines()[-2:] == [
        f"written to {folder / 'four_detectors.png'}",
        f"written to {folder / 'index.html'}: open it in a browser",
    ]
    assert sorted(path.name for path in (place / "demo").iterdir()) == ["four_detectors.png", "index.html", "mine.txt"]


RUNS = '$(shell touch "$$RAN").jpg'


@pytest.mark.skipif(os.name == "nt" or not shutil.which("make"), reason="needs make and a POSIX shell")
@pytest.mark.parametrize(
    ("given", "arguments"),
    [
        ([f"IMAGE={HOSTILE}"], ["--", HOSTILE]),
        (['IMAGE=it\'s `x` $(y) $HOME $$ \\ * ; # "z".jpg'], ["--", 'it\'s `x` $(y) $HOME $$ \\ * ; # "z".jpg']),
        (["IMAGE=-x y.jpg", "IMAGES=c 'd e'"], ["--", "-x y.jpg", "c", "d e"]),
        ([f"IMAGES='{RUNS}'", f"ARGS={RUNS}", f"OTHER={RUNS}"], [RUNS]),
    ],
)
def test_make_hands_names_on_as_they_are(tmp_path, given, arguments):
    """In place of the program stands one that says what it was called with; it is installed already."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "minircnn"
    program.write_text('#!/bin/sh\nfor word in "$@"; do printf "%s\\0" "$word"; done\n')
    program.chmod(0o755)
    (tmp_path / "installed").touch()
    command = ["make", "--silent", "-C", str(ROOT), "demo", f"VENV={tmp_path}", *given]
    environment = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL")}
    environment["RAN"] = str(tmp_path / "ran")
    said = subprocess.run(command, capture_output=True, check=True, env=environment)
    assert not (tmp_path / "ran").exists(), "make has run a command that stands in a name"
    assert said.stdout.decode().split("\0")[:-1] == ["demo", *arguments], shlex.join(command)
