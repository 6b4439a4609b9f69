"""``minircnn demo`` against the detectors called directly, its page as a browser would read it, and ``make demo``."""

import base64
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from PIL import Image
from typer.testing import CliRunner

from minircnn.cli import app
from minircnn.cli.demo import MAX_PROPOSALS, MOST_PICTURES, SCENE, load_detectors, look_at
from minircnn.cli.demo_page import DETECTORS
from minircnn.cli.page import picture_page
from minircnn.course.history import GENERATIONS
from minircnn.datasets import ToyTown
from minircnn.datasets.toytown import DATA_FOLDER
from minircnn.mask_rcnn import binary_masks
from minircnn.plotting import render_png
from minircnn.selective_search import selective_search
from minircnn.shipped import DETECTOR_WEIGHTS
from tests.plotting.conftest import Reader

ROOT = Path(__file__).parent.parent.parent
SCENE_FILE = DATA_FOLDER / "test" / f"{SCENE + 1:06d}.jpg"
TITLES = ["R-CNN (2014)", "Fast R-CNN (2015)", "Faster R-CNN (2016)", "Mask R-CNN (2017)"]
# What HTML, make, the shell or matplotlib could take for their own; Windows forbids some of it in names.
HOSTILE = "a  'b' & ü 日本 $x_1$ `c` &lt;.png" if os.name == "nt" else "a  'b' <b>&\"> ü 日本 $x_1$ `c` &lt;.png"


def decoded(element):
    """The picture of an ``img``, by a reader that knows nothing of the page."""
    kind, _, data = element["src"].partition(",")
    assert kind == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(data, validate=True))) as file:
        return np.asarray(file.convert("RGB"))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a picture of a difficult name in a folder of its own, a large one, and one that is broken."""
    folder = tmp_path_factory.mktemp("demo")
    (folder / "in").mkdir()
    with Image.open(DATA_FOLDER / "test" / "000112.jpg") as file:
        file.crop((0, 0, 128, 90)).save(folder / "in" / HOSTILE)
        file.resize((1600, 1100), Image.Resampling.BICUBIC).save(folder / "large.png")
    (folder / "broken.jpg").write_bytes(SCENE_FILE.read_bytes()[:700])
    return folder


@pytest.fixture(scope="module")
def result(place):
    """A demo of all of them. What it writes stays; what it prints is returned, with how long it took."""
    before, figures, start = Path.cwd(), plt.get_fignums(), time.perf_counter()
    os.chdir(place)
    try:
        result = CliRunner().invoke(app, ["demo", f"in/{HOSTILE}", "none.jpg", "broken.jpg", "large.png"])
    finally:
        os.chdir(before)
    assert plt.get_fignums() == figures, "figures are closed"
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result, time.perf_counter() - start


@pytest.fixture(scope="module")
def page(place, result):
    return (place / "demo" / "index.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def reader(page):
    return Reader(page)


@pytest.fixture(scope="module")
def models():
    return load_detectors()


def panels_of(reader):
    """Picture, heading and facts of each figure, grouped by section: the scene, and the user's two."""
    sections, panel = [], None
    for element in reader.elements:
        if element["tag"] == "section":
            sections.append([])
        elif element["tag"] == "img":
            panel = {"img": element, "facts": {}}
            sections[-1].append(panel)
        elif element["tag"] == "h3":
            panel["title"] = element["text"]
        elif element["tag"] == "dt":
            name = element["text"]
        elif element["tag"] == "dd":
            panel["facts"][name] = element["text"]
    return [section for section in sections if section]


# ------------------------------------------------------------------------------------------------------ the page


def test_the_page_is_well_formed_and_stands_alone(page, reader):
    assert page.startswith("<!doctype html>\n")
    assert not reader.problems
    (html,) = reader.all("html")
    assert html["lang"] == "en"
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"}.items() <= reader.all("meta")[
        1
    ].items()
    assert reader.texts("title") == reader.texts("h1") == ["Four detectors, the same pictures"]
    # Nothing to run, and nothing to fetch: no element or attribute that refers to anything but the embedded pictures.
    assert not reader.all("script", "link", "iframe", "object", "a")
    assert {key for element in reader.elements for key in element} <= {
        *("tag", "text", "lang", "charset", "name", "content", "http-equiv", "class", "src", "width", "height", "alt")
    }
    assert "url(" not in page and "@import" not in page and "://" not in page


def test_four_detectors_in_the_order_of_history_and_what_is_there_beside_the_scene(reader):
    titles = [[panel["title"] for panel in section] for section in panels_of(reader)]
    assert titles == [["The picture", "What is there", *TITLES], *[["The picture", *TITLES]] * 2]
    assert reader.texts("h2")[0] == "A scene of Toy Town"
    assert [(one.command, one.name, one.year) for one in DETECTORS] == [
        (one.key, one.name, one.year) for one in GENERATIONS
    ]
    for one in DETECTORS:  # in each of the three sections
        assert sum(text == one.new for text in reader.texts("p")) == 3


def test_every_picture_is_described_and_decodes_to_the_size_that_the_page_states(reader):
    shapes = {"A scene of Toy Town": 1.0, HOSTILE: 128 / 90, "large.png": 1600 / 1100}
    images = reader.all("img")
    assert len(images) == 6 + 5 + 5
    for image in images:
        pixels = decoded(image)
        height, width = pixels.shape[:2]
        assert (int(image["width"]), int(image["height"])) == (width // 2, height // 2)  # two dots a pixel
        assert width == 640 and pixels.std() > 20, "a picture, not an empty sheet"
        (name,) = [name for name in shapes if image["alt"].startswith(f"{name} ")]
        assert width / height == pytest.approx(shapes[name], rel=0.03)  # with the thin frame around it
    assert len({image["alt"] for image in images}) == len(images)


def test_the_scene_shows_six_objects_which_stand_in_its_description(reader):
    """Read from the annotations themselves, not through the data set. No other test scene has more."""
    content = json.loads((DATA_FOLDER / "instances_test.json").read_text(encoding="utf-8"))
    names = {row["id"]: row["name"] for row in content["categories"]}
    (number,) = [row["id"] for row in content["images"] if row["file_name"].endswith(SCENE_FILE.name)]
    there = [names[row["category_id"]] for row in content["annotations"] if row["image_id"] == number]
    counts = [sum(row["image_id"] == image["id"] for row in content["annotations"]) for image in content["images"]]
    assert len(there) == 6 == max(counts)
    assert reader.all("img")[1]["alt"] == f"A scene of Toy Town with what is there: {', '.join(there)}"
    bare, marked = (decoded(image).astype(int) for image in reader.all("img")[:2])
    assert (np.abs(bare - marked).max(axis=2) > 20).mean() > 0.2, "boxes and masks are drawn on one of the two"


def test_pictures_are_the_ones_that_were_given(reader, place):
    """The first of each section is the picture itself, enlarged or shrunk: its colours are where they should be."""
    files = [SCENE_FILE, place / "in" / HOSTILE, place / "large.png"]
    for section, path in zip(panels_of(reader), files, strict=True):
        with Image.open(path) as file:
            wanted = np.asarray(file.convert("RGB").resize((32, 24), Image.Resampling.BOX)).astype(int)
        shown = Image.fromarray(decoded(section[0]["img"])).crop((4, 4, 636, section_height(section) - 4))
        shown = np.asarray(shown.resize((32, 24), Image.Resampling.BOX)).astype(int)
        assert np.abs(shown - wanted).mean() < 8


def section_height(section):
    return decoded(section[0]["img"]).shape[0]


def test_names_are_shown_letter_for_letter(page, reader, place):
    assert reader.texts("h2")[1] == HOSTILE
    assert all(panel["img"]["alt"].startswith(f"{HOSTILE} ") for panel in panels_of(reader)[1])
    assert "<b>" not in page
    assert "<code>c</code>" not in page, "backticks in a name are backticks"


def test_what_it_sends_the_reader_to_is_there(page, reader):
    notebooks = [text for text in reader.texts("code") if text.endswith(".ipynb")]
    assert notebooks == [f"notebooks/{one.notebook}.ipynb" for one in DETECTORS]
    assert all((ROOT / name).is_file() for name in notebooks)
    (course,) = [text for text in reader.texts("code") if text == "make course"]
    assert f"\n{course.split()[1]}: " in (ROOT / "Makefile").read_text(encoding="utf-8")
    for words in (text.split() for text in reader.texts("code") if text.startswith("minircnn")):
        assert CliRunner().invoke(app, [*words[1:3], "--help"]).exit_code == 0
    classes = ToyTown("test").classes[1:]
    assert any(all(name in text for name in classes) and "mostly wrong" in text for text in reader.texts("p"))


# ---------------------------------------------------------------------------------------------------- the numbers


def test_numbers_are_those_of_the_detect_command(reader, place, call, tmp_path, result):
    """The scene and the small picture, with the same proposals and thresholds, without the demo."""
    sections = panels_of(reader)
    for row, one in enumerate(DETECTORS):
        file = tmp_path / "x.json"
        options = ("--out", tmp_path / "x", "--json", file)
        assert call("detect", one.command, SCENE_FILE, place / "in" / HOSTILE, *options).exit_code == 0
        for section, record in zip(sections, json.loads(file.read_text(encoding="utf-8"))["pictures"], strict=False):
            panel = section[-4:][row]
            found = [f"{row['class']} {row['score']:.2f}" for row in record["detections"]]
            assert panel["img"]["alt"].endswith(f" with what {one.name} finds: {', '.join(found) or 'nothing'}")
            assert panel["facts"]["found"] == f"{len(found)} object{'s' * (len(found) != 1)}"


def test_a_large_picture_is_shrunk_first_and_the_page_says_so(reader, place, models):
    """By Pillow: its antialiased bilinear filter is another implementation, so scores may differ a little."""
    assert "1600 × 1100 pixels, shrunk to 1000 × 688 before the detectors saw it." in " ".join(reader.texts("p"))
    assert "128 × 90 pixels. " in " ".join(reader.texts("p"))
    with Image.open(place / "large.png") as file:
        small = file.convert("RGB").resize((1000, 688), Image.Resampling.BILINEAR)
    image = torch.from_numpy(np.array(small)).permute(2, 0, 1) / 255
    (found,) = models["mask_rcnn"].detect([image])
    alt = panels_of(reader)[2][-1]["img"]["alt"]
    scores = [float(score) for score in re.findall(r" (\d\.\d\d)", alt)]
    assert scores and scores == pytest.approx(found["scores"].tolist(), abs=0.05)


def test_looks_are_what_the_detectors_own_detect_finds(models):
    image, _ = ToyTown("test")[SCENE]
    looks = look_at(models, image)
    proposals = selective_search(image, max_proposals=300)
    rcnn, fast, *alone = models.values()
    expected = [model.detect([image], [proposals])[0] for model in (rcnn, fast)]
    expected += [alone[0].detect([image])[0], binary_masks(alone[1].detect([image])[0])]
    for look, found in zip(looks, expected, strict=True):
        assert look.found.keys() == found.keys()
        assert all(torch.equal(look.found[name], found[name]) for name in found)
    own = [len(model.propose([image])[0]["boxes"]) for model in alone]
    assert [look.proposals for look in looks] == [len(proposals), len(proposals), *own]
    assert own[0] != own[1] and MAX_PROPOSALS == 300


def test_proposals_and_seconds_on_the_page(reader, result):
    seconds = 0.0
    for section in panels_of(reader):
        searches = set()
        for panel, whose in zip(section[-4:], ["selective search"] * 2 + ["its own"] * 2, strict=True):
            facts = panel["facts"]
            assert list(facts) == ["proposals", "time for these", "for the rest", "found"]
            assert re.fullmatch(rf"\d+ \({whose}\)", facts["proposals"])
            searches.add(facts["time for these"])
            assert float(facts["for the rest"].removesuffix(" s")) > 0
            seconds += float(facts["for the rest"].removesuffix(" s"))
        assert len(searches) >= 2, "one search for the first two"
        assert section[-4]["facts"]["time for these"] == section[-3]["facts"]["time for these"]
        seconds += sum(float(search.removesuffix(" s")) for search in searches)
    assert seconds < result[1]
    (note,) = [text for text in reader.texts("p") if text.startswith("Seconds")]
    assert "measured on this machine, in this one run" in note


def test_seconds_go_to_the_stage_that_took_them(models, monkeypatch):
    """By a clock that only the stages move, each by another number: it shows which of them were added up."""
    image = torch.rand(3, 40, 40, generator=torch.Generator().manual_seed(0))

    now = [0.0]

    def taking(seconds, work):
        def wrapped(*arguments, **options):
            now[0] += seconds
            return work(*arguments, **options)

        return wrapped

    rcnn, fast, *alone = models.values()
    monkeypatch.setattr("minircnn.course.history.perf_counter", lambda: now[0])
    monkeypatch.setattr("minircnn.course.history.selective_search", taking(1, selective_search))
    monkeypatch.setattr(rcnn, "scores", taking(10, rcnn.scores))
    monkeypatch.setattr(fast.roi_heads, "predict", taking(20, fast.roi_heads.predict))
    for model in alone:
        monkeypatch.setattr(model, "features", taking(100, model.features))
        monkeypatch.setattr(model, "rpn_outputs", taking(1000, model.rpn_outputs))
        monkeypatch.setattr(model.rpn, "filter_proposals", taking(2000, model.rpn.filter_proposals))
        monkeypatch.setattr(model.roi_heads, "predict", taking(10000, model.roi_heads.predict))
    monkeypatch.setattr(alone[1].roi_heads, "predict_masks", taking(50000, alone[1].roi_heads.predict_masks))
    looks = look_at(models, image)
    assert [look.proposing for look in looks] == [1, 1, 3000, 3000]
    assert [look.rest for look in looks] == [10, 20, 10100, 60100]


def test_the_table_says_the_same_as_the_page(models, call, tmp_path, monkeypatch):
    """Its figure is looked at just before it becomes a PNG."""
    figures = []
    from minircnn import plotting

    render = plotting.render_png
    monkeypatch.setattr(plotting, "render_png", lambda figure: figures.append(describe(figure)) or render(figure))
    shutil.copy(DATA_FOLDER / "test" / "000001.jpg", tmp_path / "two $words$.jpg")
    assert call("demo", tmp_path / "two $words$.jpg", "--out", tmp_path / "out").exit_code == 0
    reader = Reader((tmp_path / "out" / "index.html").read_text(encoding="utf-8"))
    (figure,) = figures
    wanted = []
    for section, name in zip(panels_of(reader), ["A scene of Toy Town\nwhat is there\n", ""], strict=True):
        wanted.append(name or "two \\$words\\$.jpg\nas it is\n")
        for panel in section[-4:]:
            facts = panel["facts"]
            count = facts["proposals"].split()[0]
            numbers = f"{count} proposals in {facts['time for these']}, the rest in {facts['for the rest']}"
            wanted.append(f"{panel['title']}\n{facts['found']}\n{numbers}")
    assert figure["titles"] == wanted
    assert figure["top"] == reader.texts("h1")[0]
    assert "this run on this machine" in figure["bottom"] and "mostly wrong" in figure["bottom"]
    alts = [panel["img"]["alt"] for section in panels_of(reader) for panel in section[-5:]]
    shown = ["nothing" if alt.endswith("as it is") else alt.split(": ")[1] for alt in alts]
    assert [", ".join(texts) or "nothing" for texts in figure["labels"]] == shown
    with Image.open(tmp_path / "out" / "four_detectors.png") as file:
        assert file.format == "PNG" and file.size[0] == 1500 and file.size[1] > 600


def describe(figure):
    return {
        "titles": [ax.get_title() for ax in figure.axes],
        "labels": [[text.get_text() for text in ax.texts] for ax in figure.axes],
        "top": figure.get_suptitle(),
        "bottom": figure.get_supxlabel(),
    }


# --------------------------------------------------------------------------------------- what cannot be read or written


def test_what_cannot_be_read_is_named_and_left_out(result, reader, place):
    outcome, _ = result
    assert outcome.exit_code == 1
    assert [line.split(": ")[:2] for line in outcome.stderr.splitlines()] == [
        ["none.jpg", "skipped"],
        ["broken.jpg", "skipped"],
    ]
    assert reader.texts("li") == outcome.stderr.splitlines()
    assert reader.texts("h2")[1:4] == [HOSTILE, "large.png", "What was left out"]
    folder = Path("demo")
    assert outcome.stdout.splitlines()[-2:] == [
        f"written to {folder / 'four_detectors.png'}",
        f"written to {folder / 'index.html'}: open it in a browser",
    ]
    assert sorted(path.name for path in (place / "demo").iterdir()) == ["four_detectors.png", "index.html"]


def test_without_pictures_a_former_demo_is_replaced(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("demo").mkdir()
    Path("demo/index.html").write_text(picture_page("old", ["former words"], [], generator="minircnn demo"))
    figure = plt.figure(figsize=(1, 1))
    Path("demo/four_detectors.png").write_bytes(render_png(figure))
    plt.close(figure)
    Path("demo/mine.txt").write_text("kept")
    result = call("demo")
    assert (result.exit_code, result.stderr) == (0, "")
    assert [line.split(": ")[1] for line in result.stdout.splitlines()[1:5]] == [one.name for one in DETECTORS]
    page = Path("demo/index.html").read_text(encoding="utf-8")
    assert "former words" not in page and "left out" not in page and len(panels_of(Reader(page))) == 1
    with Image.open("demo/four_detectors.png") as file:
        assert file.size[0] == 1500
    assert sorted(path.name for path in Path("demo").iterdir()) == ["four_detectors.png", "index.html", "mine.txt"]


def former_demo(folder):
    folder.mkdir()
    (folder / "index.html").write_text(picture_page("old", [], [], generator="minircnn demo"))
    shutil.copy(SCENE_FILE, folder / "four_detectors.png")


@pytest.mark.parametrize(
    ("prepare", "arguments", "message"),
    [
        (lambda: Path("x").write_text(""), ["--out", "x"], "--out x: this is a file; name a folder"),
        (lambda: None, ["--out", "x.png"], "--out x.png: name a folder, not a file"),
        (lambda: None, ["--out", "x.HTML"], "--out x.HTML: name a folder, not a file"),
        (lambda: None, ["--out", "no/x"], "the folder no does not exist; make it first"),
        (lambda: Path("x/index.html").mkdir(parents=True), ["--out", "x"], "index.html would be written, but this is"),
        (
            lambda: Path("x/four_detectors.png").mkdir(parents=True),
            ["--out", "x"],
            "would be written, but this is a fo",
        ),
        (
            lambda: (Path("x").mkdir(), Path("x/index.html").write_bytes(b"<html>\xff mine, not minircnn demo's")),
            ["--out", "x"],
            "index.html is there, was not written by this program, and would be lost; move it, or name another place",
        ),
        (
            lambda: former_demo(Path("x")),
            ["x/../x/four_detectors.png", "--out", "x"],
            "four_detectors.png, which is read",
        ),
        (
            lambda: former_demo(Path("demo")),
            ["~/demo/four_detectors.png"],
            "four_detectors.png, which is read",
        ),
        (
            lambda: [shutil.copy(SCENE_FILE, f"{n}.jpg") for n in range(MOST_PICTURES + 1)],
            ["."],
            f"{MOST_PICTURES + 1} pictures, but a demo shows at most {MOST_PICTURES}; name fewer",
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
    assert f"{tmp_path / 'rcnn.safetensors'}: not there; it comes with a clone" in result.stderr
    assert "`minircnn train rcnn`" in result.stderr


# ---------------------------------------------------------------------------------------------------------- make


RUNS = '$(shell touch "$$RAN").jpg'


@pytest.mark.skipif(os.name == "nt" or not shutil.which("make"), reason="needs make and a POSIX shell")
@pytest.mark.parametrize(
    ("given", "arguments"),
    [
        ([], []),
        (["PICTURE=a b.jpg"], ["--", "a b.jpg"]),
        ([f"PICTURE={HOSTILE}"], ["--", HOSTILE]),
        (['PICTURE=it\'s `x` $(y) $HOME $$ \\ * ; # "z".jpg'], ["--", 'it\'s `x` $(y) $HOME $$ \\ * ; # "z".jpg']),
        (["PICTURE=-x.jpg"], ["--", "-x.jpg"]),
        (["PICTURES=a.jpg 'b c.jpg'"], ["a.jpg", "b c.jpg"]),
        (["PICTURE=a b.jpg", "PICTURES=c d"], ["--", "a b.jpg", "c", "d"]),
        ([f"PICTURE={RUNS}"], ["--", RUNS]),
        ([f"PICTURES='{RUNS}'", f"ARGS={RUNS}", f"OTHER={RUNS}"], [RUNS]),
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
