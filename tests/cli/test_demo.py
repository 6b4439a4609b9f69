"""``minircnn demo`` against the detectors called directly, its page as a browser would read it, and ``make demo``."""

import base64
import io
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib import pyplot as plt
from PIL import Image
from typer.testing import CliRunner

from minircnn.cli import app
from minircnn.cli.demo import DETECTORS, DRAWN, SCENE
from minircnn.cli.demo_page import link
from minircnn.datasets import ToyTown
from minircnn.datasets.images import read_image
from minircnn.plotting import class_color
from minircnn.shipped import DETECTOR_WEIGHTS, TOYTOWN_FOLDER
from tests.cli.conftest import LOAD, ON_PROPOSALS, directly, regions

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
def tree(page):
    return ElementTree.fromstring(page)


def text(element):
    return "".join(element.itertext()).strip()


def figures(section):
    return {one.get("class"): one for one in section.iter("figure")}


def test_the_page_is_well_formed_and_stands_alone(page, tree, place):
    """Nothing to run, and nothing to fetch: what an element refers to is in the page, or a file of the project."""
    assert page.startswith("<!DOCTYPE html>\n")
    assert text(tree.find("head/title")) == text(tree.find("body/main/h1")) == "Four detectors, the same images"
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert policy in [one.get("content") for one in tree.iter("meta")]
    assert not {one.tag for one in tree.iter()} & {"script", "link", "iframe", "object", "img"}
    assert not [key for one in tree.iter() for key in one.attrib if key.startswith("on") or key == "src"]
    assert "url(" not in page and "@import" not in page and "://" not in page
    links = {one.get("href") for one in tree.iter("a")}
    found = {(place / "demo" / unquote(link)).resolve().relative_to(ROOT).as_posix() for link in links}
    books = [f"notebooks/{book}.ipynb" for *_, book in DETECTORS.values()]
    wanted = {*books, *(f"minircnn/{key}.py" for key in DETECTORS), "notebooks/11_history_in_numbers.ipynb"}
    assert found == (wanted if place.drive == ROOT.drive else set()) and all((ROOT / name).is_file() for name in wanted)


def test_links_lead_to_the_project_from_everywhere(tmp_path, monkeypatch):
    assert link("minircnn/rcnn.py", "source", ROOT / "demo") == '<a href="../minircnn/rcnn.py">source</a>'
    project = tmp_path / "a b%20 #1 &amp; 'ü'?".rstrip("?" * (os.name == "nt"))
    (project / "notebooks").mkdir(parents=True), (project / "notebooks" / "04.ipynb").touch()
    monkeypatch.setattr("minircnn.cli.demo_page.PROJECT_FOLDER", project)
    found = ElementTree.fromstring(link("notebooks/04.ipynb", "notebook 04", tmp_path / "new" / "demo"))
    way = urlsplit(found.get("href"))
    assert not way.query and not way.fragment and not way.scheme and found.text == "notebook 04"
    assert (tmp_path / "new" / "demo" / unquote(way.path)).resolve() == project / "notebooks" / "04.ipynb"
    assert link("notebooks/none.ipynb", "notebook", tmp_path) == "notebook"


def test_names_are_shown_letter_for_letter_and_nothing_is_empty(tree, page):
    assert [text(one) for one in tree.iter("h2")][:3] == ["A scene of Toy Town", f"in/{HOSTILE}", "large.png"]
    assert "<b>&" not in page and "160 × 110 pixels, shrunk to 128 × 88 before the detectors saw it." in page
    for section, known in zip(tree.iter("section"), (True, False, False), strict=True):
        choices = [one.get("value") for one in section.iter("input")]
        assert choices == [*["truth"] * known, *DETECTORS, "proposals"]
        assert list(figures(section)) == choices[:-1], "every button has its view"
        assert [one.get("value") for one in section.iter("input") if one.get("checked")] == ["rcnn"]
        assert len(list(section.iter("image"))) == 1, "the photograph is there once"
        names = {one.get("href") for one in section.iter("use")}
        assert names == {f"#{one.get('id')}" for one in section.iter("image")}


def test_what_is_drawn_is_what_the_detectors_find(tree, place):
    """Boxes, masks, proposals and words, of the two images that come to the detectors as they are."""
    data = ToyTown("test")
    given = [data[SCENE][0], read_image(place / "in" / HOSTILE)]
    for section, image in zip(tree.iter("section"), given, strict=False):
        for name in DETECTORS:
            figure = figures(section)[name]
            wanted = directly(name, DETECTOR_WEIGHTS[name], image, 0.0 if name == "rcnn" else 0.5, 300)
            check_objects(figure, wanted, data.classes)
            model = LOAD[name](DETECTOR_WEIGHTS[name])
            proposals = regions(image)[:300] if name in ON_PROPOSALS else model.propose([image])[0]["boxes"]
            assert f" {len(proposals)} proposals from " in text(figure)
            assert f" the first {min(DRAWN, len(proposals))}." in text(figure)
            (path,) = (one.get("d") for one in figure.iter("path") if one.get("class") == "proposals")
            corners = [[float(word) for word in re.findall(r"[\d.-]+", box)[:4]] for box in path.split("Z")[:-1]]
            assert np.allclose(corners, proposals[:DRAWN].numpy(), atol=0.051)
    truth = next(tree.iter("section"))
    check_objects(figures(truth)["truth"], data[SCENE][1], data.classes)


def check_objects(figure, wanted, classes):
    """The figure has just these objects, the best on top: boxes, colors, masks, labels and words."""
    boxes = [[float(one.get(key)) for key in ("x", "y", "width", "height")] for one in figure.iter("rect")]
    corners = np.array(boxes).reshape(-1, 4)[::-1]
    corners[:, 2:] += corners[:, :2]
    assert np.allclose(corners, wanted["boxes"].reshape(-1, 4).numpy(), atol=0.011)
    colors = [f"#{''.join(f'{round(255 * v):02x}' for v in class_color(one))}" for one in wanted["labels"]]
    assert [one.get("stroke") for one in figure.iter("rect")][::-1] == colors
    words = [classes[label] for label in wanted["labels"]]
    if "scores" in wanted:
        words = [f"{word} {score:.2f}" for word, score in zip(words, wanted["scores"], strict=True)]
    assert f": {', '.join(words) or 'nothing'}." in text(figure.find("figcaption"))
    assert [text(one) for one in figure.iter("span")][::-1] == words
    masks = [one.get("d") for one in figure.iter("path") if one.get("class") == "mask"][::-1]
    true = np.asarray(wanted.get("masks", np.zeros((0, 1, 1))))
    true = true[:, 0] > 0.5 if true.ndim == 4 else true
    for path, mask in zip(masks, true, strict=True):
        drawn = np.zeros(mask.shape, bool)
        for x, y, length in re.findall(r"M(\d+) (\d+)h(\d+)", path):
            drawn[int(y), int(x) : int(x) + int(length)] = True
        assert (drawn == mask).all()


def test_times_add_up_and_their_bars_have_one_scale(tree, result):
    printed = re.findall(r"^(.+): (.+): \d+ objects? in ([\d.]+) s$", result.stdout, flags=re.MULTILINE)
    for number, section in enumerate(tree.iter("section")):
        totals, searches = [], set()
        for group, (_, detector, seconds) in zip(section.iter("tbody"), printed[4 * number :], strict=False):
            (name, total), *rows = ([text(cell) for cell in row] for row in group)
            stages = {row[0]: int(row[2].removesuffix(" ms").replace(",", "")) for row in rows}
            assert name == detector == DETECTORS[group.get("class")][0] and len(stages) >= 3
            assert total == f"{sum(stages.values()):,} ms" and sum(stages.values()) == round(1000 * float(seconds))
            assert ("selective search" in stages) == (group.get("class") in ON_PROPOSALS)
            searches |= {stages.get("selective search")}
            bars = [[float(v) for v in re.findall(r"[\d.]+(?=%)", one.get("style"))] for one in group.iter("div")]
            starts, lengths = np.array(bars).T
            assert np.allclose(starts, np.cumsum([0, *lengths[:-1]]), atol=0.05)
            totals.append((sum(stages.values()), lengths.sum()))
        milliseconds, percent = np.array(totals).T
        (search,) = searches - {None}
        assert len(totals) == 4 and search > 0, "it runs once for both"
        assert np.allclose(percent, 100 * milliseconds / milliseconds.max(), atol=0.05)


def test_photographs_are_those_that_were_given(tree, place):
    paths = (SCENE_FILE, place / "in" / HOSTILE, place / "large.png")
    for element, path in zip(tree.iter("image"), paths, strict=True):
        kind, _, data = element.get("href").partition(",")
        assert kind == "data:image/jpeg;base64"
        with Image.open(io.BytesIO(base64.b64decode(data, validate=True))) as shown, Image.open(path) as file:
            assert shown.size == (int(element.get("width")), int(element.get("height")))
            pair = (one.convert("RGB").resize((16, 12), Image.Resampling.BOX) for one in (shown, file))
            shown, file = (np.asarray(one, float) for one in pair)
        assert np.abs(shown - file).mean() < 3
    with Image.open(place / "demo" / "four_detectors.png") as file:
        assert file.format == "PNG" and file.size[0] == 1500 and file.size[1] > 600


@pytest.fixture(params=[390, 1400])
def opened(browser, place, result, request):
    """The page at a width, on a phone or a desk, without a network; it asks for nothing, and nothing goes wrong."""
    phone = request.param == 390
    size = {"width": request.param, "height": 800}
    context = browser.new_context(viewport=size, is_mobile=phone, has_touch=phone, offline=True)
    page, wrong, asked = context.new_page(), [], []
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda one: asked.append(one.url.split(":")[0]))
    page.goto((place / "demo" / "index.html").as_uri())
    yield page
    context.close()
    assert not wrong and set(asked) <= {"file", "data"} and asked.count("file") == 1


SHOWN = """section => [...section.querySelectorAll("figure, .proposals")]
    .filter((one) => one.checkVisibility({ visibilityProperty: true })).map((one) => one.getAttribute("class"))"""


def test_the_switch_works_by_mouse_by_touch_and_by_keyboard(opened):
    for number, section in enumerate(opened.locator("section").all()):
        press = "tap" if opened.viewport_size["width"] == 390 else "click"
        names = [*["Ground truth"] * (number == 0), *(name for name, *_ in DETECTORS.values())]
        keys = [*["truth"] * (number == 0), *DETECTORS]
        assert section.evaluate(SHOWN) == ["rcnn"]
        for name, key in zip(names, keys, strict=True):
            getattr(section.get_by_text(name, exact=True).first, press)()
            assert section.evaluate(SHOWN) == [key]
            marked = "body => [...body].map((one) => getComputedStyle(one).backgroundColor)"
            colors = section.locator("tbody").evaluate_all(marked)
            assert colors.count("rgba(0, 0, 0, 0)") == 4 - (key != "truth")
        for before, after in zip([*keys[::-1], keys[-1]], [*keys[-2::-1], keys[-1]], strict=False):
            assert section.evaluate(SHOWN) == [before]
            opened.keyboard.press("ArrowLeft")
            assert section.evaluate(SHOWN) == [after]
        opened.keyboard.press("Tab")
        opened.keyboard.press("Space")
        assert section.evaluate(SHOWN) == [keys[-1], "proposals"]


def test_it_fits_the_width_and_its_letters_are_large_enough(opened):
    width = opened.viewport_size["width"]
    assert opened.evaluate("document.documentElement.scrollWidth") == width == opened.evaluate("window.innerWidth")
    sizes = "(all) => all.map((one) => parseFloat(getComputedStyle(one).fontSize))"
    assert min(opened.locator("body *").evaluate_all(sizes)) >= 12
    outside = """() => [...document.querySelectorAll(".label")].filter((label) => {
        const [inner, outer] = [label, label.closest(".view")].map((one) => one.getBoundingClientRect());
        return inner.left < outer.left - 1 || inner.right > outer.right + 1 || inner.top < outer.top - 1
            || inner.bottom > outer.bottom + 1;
    }).map((label) => label.textContent)"""
    assert not opened.evaluate(outside)
    assert opened.evaluate("document.scripts.length") == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_accessible(opened, scheme):
    """No violation that axe-core calls serious or critical, with the fullest view and an emptier one."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    opened.emulate_media(color_scheme=scheme)
    for key in ("mask_rcnn", "truth"):
        opened.locator("section").first.locator(f"input[value={key}]").check()
        found = axe.run(opened, options={"preload": False}).response["violations"]
        assert not {
            one["id"]: one["nodes"][0]["html"][:100] for one in found if one["impact"] in ("serious", "critical")
        }


def test_on_paper_and_without_css_every_view_is_there(opened):
    opened.emulate_media(media="print")
    assert opened.locator("section").first.evaluate(SHOWN) == ["truth", *DETECTORS]
    opened.evaluate("document.querySelectorAll('style').forEach((one) => one.remove())")
    every = [name for key in ("truth", *DETECTORS) for name in (key, "proposals")]
    opened.emulate_media(media="screen")
    assert opened.locator("section").first.evaluate(SHOWN) == every


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
