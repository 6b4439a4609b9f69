"""``minircnn demo`` against the detectors called directly, its page as a browser would read it, and ``make demo``."""

import base64
import io
import os
import re
import shlex
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from matplotlib import pyplot as plt
from PIL import Image
from typer.testing import CliRunner

from minircnn.cli import app
from minircnn.cli.demo import DETECTORS, MOST_IMAGES, SCENE
from minircnn.datasets import ToyTown
from minircnn.datasets.images import read_image
from minircnn.shipped import DETECTOR_WEIGHTS, TOYTOWN_FOLDER
from tests.cli.conftest import directly

ROOT = Path(__file__).parent.parent.parent
SCENE_FILE = TOYTOWN_FOLDER / "test" / f"{SCENE + 1:06d}.jpg"
# What HTML, make, the shell or matplotlib could take for their own; Windows forbids some of it in names.
HOSTILE = "a  'b' & ü 日本 $x_1$ `c` &lt;.png" if os.name == "nt" else "a  'b' <b>&\"> ü 日本 $x_1$ `c` &lt;.png"
VOID = ("meta", "img", "br")


class Reader(HTMLParser):
    """What a page holds: its elements, each with its own text, and tags that do not match."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.open, self.problems = [], [], []
        self.feed(page)
        self.close()
        self.problems += [f"<{one['tag']}> is not closed" for one in self.open]

    def handle_starttag(self, tag, attrs):
        self.elements.append({"tag": tag, "text": "", **dict(attrs)})
        if tag not in VOID:
            self.open.append(self.elements[-1])

    def handle_endtag(self, tag):
        if not self.open or self.open.pop()["tag"] != tag:
            self.problems.append(f"</{tag}> closes nothing")

    def handle_data(self, data):
        for element in self.open:
            element["text"] += data

    def all(self, *tags):
        return [element for element in self.elements if element["tag"] in tags]

    def texts(self, *tags):
        return [element["text"].strip() for element in self.all(*tags)]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with an image of a difficult name in a folder of its own, a large one, and one that is broken."""
    folder = tmp_path_factory.mktemp("demo")
    (folder / "in").mkdir()
    with Image.open(TOYTOWN_FOLDER / "test" / "000112.jpg") as file:
        file.crop((0, 0, 128, 90)).save(folder / "in" / HOSTILE)
        file.resize((1600, 1100), Image.Resampling.BICUBIC).save(folder / "large.png")
    (folder / "broken.jpg").write_bytes(SCENE_FILE.read_bytes()[:700])
    return folder


@pytest.fixture(scope="module")
def result(place):
    """A demo of all of them. What it writes stays; what it prints is returned."""
    before, figures = Path.cwd(), plt.get_fignums()
    os.chdir(place)
    try:
        result = CliRunner().invoke(app, ["demo", f"in/{HOSTILE}", "none.jpg", "broken.jpg", "large.png"])
    finally:
        os.chdir(before)
    assert plt.get_fignums() == figures, "figures are closed"
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture(scope="module")
def page(place, result):
    return (place / "demo" / "index.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def reader(page):
    return Reader(page)


def test_the_page_is_well_formed_and_stands_alone(page, reader):
    assert page.startswith("<!doctype html>\n") and not reader.problems
    assert reader.all("html")[0]["lang"] == "en"
    assert reader.texts("title") == reader.texts("h1") == ["Four detectors, the same images"]
    # Nothing to run, and nothing to fetch: no element or attribute that refers to anything but the embedded images.
    assert not reader.all("script", "link", "iframe", "object", "a")
    assert {key for element in reader.elements for key in element} <= {
        *("tag", "text", "lang", "charset", "name", "content", "http-equiv", "src", "alt")
    }
    assert "url(" not in page and "@import" not in page and "://" not in page


def test_what_is_found_is_what_the_detectors_find_and_names_are_shown_letter_for_letter(reader, page, place, result):
    assert reader.texts("h2")[:3] == ["A scene of Toy Town", f"in/{HOSTILE}", "large.png"] and "<b>" not in page
    classes, cells = ToyTown("test").classes, reader.texts("td")
    assert cells[::3] == [f"{name} ({year})" for name, year, *_ in DETECTORS.values()]
    images = [ToyTown("test")[SCENE][0], read_image(place / "in" / HOSTILE), None]
    for image, alt in zip(images, (one["alt"] for one in reader.all("img")), strict=True):
        for name, (title, *_) in DETECTORS.items():
            (found,) = re.findall(rf"[;.] {title} finds (.+?) in \d+\.\d{{3}} s", alt)
            if image is not None:  # the large one is shrunk in another way than Pillow's
                wanted = directly(name, DETECTOR_WEIGHTS[name], image, 0.0 if name == "rcnn" else 0.5, 300)
                pairs = zip(wanted["labels"].tolist(), wanted["scores"].tolist(), strict=True)
                assert found == (", ".join(f"{classes[label]} {score:.2f}" for label, score in pairs) or "nothing")
    there = [classes[label] for label in ToyTown("test")[SCENE][1]["labels"]]
    assert len(there) == 6 and f"What is there: {', '.join(there)}." in " ".join(reader.texts("p"))
    assert "1600 × 1100 pixels, shrunk to 1000 × 688 before the detectors saw it." in " ".join(reader.texts("p"))


def test_images_are_the_ones_that_were_given(reader, place):
    """The first of each row is the image itself: its colors are where they should be."""
    for element, path in zip(reader.all("img")[1:], (place / "in" / HOSTILE, place / "large.png"), strict=True):
        kind, _, data = element["src"].partition(",")
        assert kind == "data:image/png;base64"
        shown = Image.open(io.BytesIO(base64.b64decode(data, validate=True))).convert("RGB")
        with Image.open(path) as file:
            wanted = np.asarray(file.convert("RGB").resize((16, 12), Image.Resampling.BOX)).astype(int)
        width = shown.width / 5
        height = width * file.height / file.width
        part = shown.crop((8, int(shown.height - height + 8), int(width - 8), shown.height - 8))
        assert np.abs(np.asarray(part.resize((16, 12), Image.Resampling.BOX)).astype(int) - wanted).mean() < 12
    with Image.open(place / "demo" / "four_detectors.png") as file:
        assert file.format == "PNG" and file.size[0] == 1500 and file.size[1] > 600


def test_what_it_sends_the_reader_to_is_there(reader):
    codes = reader.texts("code")
    notebooks = [text for text in codes if text.endswith(".ipynb")]
    assert len(notebooks) == 4 and all((ROOT / name).is_file() for name in notebooks)
    assert "make course" in codes
    for words in (text.split() for text in codes if text.startswith("minircnn")):
        assert CliRunner().invoke(app, [words[1], "--help"]).exit_code == 0


def test_what_cannot_be_read_is_named_and_left_out(result, reader, place):
    assert result.exit_code == 1
    assert [line.split(": ")[:2] for line in result.stderr.splitlines()] == [
        ["none.jpg", "skipped"],
        ["broken.jpg", "skipped"],
    ]
    assert reader.texts("li") == result.stderr.splitlines() and reader.texts("h2")[3] == "What was left out"
    folder = Path("demo")
    assert result.stdout.splitlines()[-2:] == [
        f"written to {folder / 'four_detectors.png'}",
        f"written to {folder / 'index.html'}: open it in a browser",
    ]
    assert sorted(path.name for path in (place / "demo").iterdir()) == ["four_detectors.png", "index.html"]


def test_a_former_demo_is_replaced(call, result, place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(place / "demo", "demo")
    Path("demo/mine.txt").write_text("kept")
    again = call("demo")
    assert (again.exit_code, again.stderr) == (0, "")
    page = Path("demo/index.html").read_text(encoding="utf-8")
    assert "left out" not in page and len(Reader(page).all("img")) == 1
    assert sorted(path.name for path in Path("demo").iterdir()) == ["four_detectors.png", "index.html", "mine.txt"]


def a_scene_there():
    Path("demo").mkdir()
    shutil.copy(SCENE_FILE, "demo/four_detectors.png")


@pytest.mark.parametrize(
    ("prepare", "arguments", "message"),
    [
        (lambda: Path("x").write_text(""), ["--out", "x"], "--out x: name a folder, not a file"),
        (lambda: None, ["--out", "x.HTML"], "--out x.HTML: name a folder, not a file"),
        (lambda: None, ["--out", "no/x"], "the folder no does not exist; make it first"),
        (lambda: Path("x/index.html").mkdir(parents=True), ["--out", "x"], "index.html would be written, but this is"),
        (
            lambda: (Path("x").mkdir(), Path("x/index.html").write_bytes(b"<html>\xff mine, not minircnn demo's")),
            ["--out", "x"],
            "index.html is there, was not written by this program, and would be lost; move it, or name another place",
        ),
        (a_scene_there, ["~/demo/four_detectors.png"], "four_detectors.png, which is read"),
        (
            lambda: [shutil.copy(SCENE_FILE, f"{n}.jpg") for n in range(MOST_IMAGES + 1)],
            ["."],
            f"{MOST_IMAGES + 1} images, but a demo shows at most {MOST_IMAGES}; name fewer",
        ),
    ],
)
def test_what_is_refused_before_any_work(call, tmp_path, monkeypatch, prepare, arguments, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    prepare()
    before = {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")}
    result = call("demo", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("Error: ") and message in result.stderr
    assert {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")} == before


def test_weights_that_are_missing_are_named(monkeypatch, tmp_path, call):
    monkeypatch.setitem(DETECTOR_WEIGHTS, "rcnn", tmp_path / "rcnn.safetensors")
    result = call("demo", "--out", tmp_path / "x")
    assert result.exit_code == 1 and not (tmp_path / "x").exists()
    assert f"{tmp_path / 'rcnn.safetensors'}: not there; train it with `minircnn train rcnn`" in result.stderr


# ---------------------------------------------------------------------------------------------------------- make


RUNS = '$(shell touch "$$RAN").jpg'


@pytest.mark.skipif(os.name == "nt" or not shutil.which("make"), reason="needs make and a POSIX shell")
@pytest.mark.parametrize(
    ("given", "arguments"),
    [
        ([], []),
        ([f"IMAGE={HOSTILE}"], ["--", HOSTILE]),
        (['IMAGE=it\'s `x` $(y) $HOME $$ \\ * ; # "z".jpg'], ["--", 'it\'s `x` $(y) $HOME $$ \\ * ; # "z".jpg']),
        (["IMAGE=-x y.jpg", "IMAGES=c 'd e'"], ["--", "-x y.jpg", "c", "d e"]),
        ([f"IMAGE={RUNS}"], ["--", RUNS]),
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


def test_what_is_written_is_left_alone_by_git():
    assert "/demo/" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
