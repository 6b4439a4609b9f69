"""The site builds without a warning, leads nowhere that is not there, asks no network, and can be used by everyone."""

import re
import subprocess
import sys
import threading
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import pytest

from minircnn.shipped import PROJECT_FOLDER
from tests.explorables.conftest import FIGURES
from workshop.site import elsewhere

pytest.importorskip("sphinx", reason="the site needs Python 3.11 and `pip install -e .[site]`")
PAGES = (
    "index",
    "notebooks/01_boxes_and_metrics",
    "notebooks/09_roi_align",
    "notebooks/glossary",
    "api/pooling",
    "figures",
)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "workshop.site", "--out", str(folder), "--repository", "someone/minircnn"]
    run = subprocess.run(command, cwd=PROJECT_FOLDER, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    return folder / "html"


class Links(HTMLParser):
    """What a page points to, what it loads, its anchors, and images without a text."""

    def __init__(self, text):
        super().__init__()
        self.links, self.loaded, self.anchors, self.silent = [], [], set(), []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.anchors.add(found.get("id"))
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        if tag in ("script", "img", "iframe") and found.get("src"):
            self.loaded.append(found["src"])
        if tag == "link" and "stylesheet" in found.get("rel", ""):
            self.loaded.append(found["href"])
        if tag == "img" and not (found.get("alt") or "").strip():
            self.silent.append(found.get("src"))


@pytest.fixture(scope="module")
def parsed(site):
    pages = [path for path in sorted(site.rglob("*.html")) if "_static" not in path.parts]  # the theme's templates
    return {path: Links(path.read_text(encoding="utf-8")) for path in pages}


def test_every_link_leads_somewhere_and_nothing_is_loaded_from_elsewhere(site, parsed):
    wrong = []
    for path, page in parsed.items():
        for link in page.loaded + page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                wrong += [(path.name, link)] if link in page.loaded and parts.scheme != "data" else []
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file() or (
                parts.fragment and target.suffix == ".html" and unquote(parts.fragment) not in parsed[target].anchors
            ):
                wrong.append((path.name, link))
    assert not wrong
    assert len(list(site.glob("notebooks/[0-9]*.html"))) == 13


def test_images_say_what_they_show_and_formulas_need_no_script(site, parsed):
    assert not {path.name: page.silent for path, page in parsed.items() if page.silent}
    text = (site / "notebooks" / "01_boxes_and_metrics.html").read_text(encoding="utf-8")
    assert len(re.findall(r"<math ", text)) >= 5
    assert not re.search(r"mathjax[@.]|katex|require\.min\.js", text, re.I)
    assert len(re.findall(r"<details><summary>(Hint|Solution)", text)) >= 20
    source = (site / "_modules" / "minircnn" / "pooling.html").read_text(encoding="utf-8")
    assert "def</span>" in source and "roi_align" in source


def test_notebooks_can_be_opened_where_they_run(site, parsed):
    links = parsed[site / "notebooks" / "09_roi_align.html"].links
    for address in (
        "https://colab.research.google.com/github/someone/minircnn/blob/colab/09_roi_align.ipynb",
        "https://mybinder.org/v2/gh/someone/minircnn/main?labpath=notebooks/09_roi_align.ipynb",
        "https://codespaces.new/someone/minircnn",
    ):
        assert address in links
    assert elsewhere(PROJECT_FOLDER / "notebooks" / "09_roi_align.ipynb", None) == ""


def test_pages_follow_each_other_in_the_order_of_the_history(site):
    for number, (before, after) in {1: ("00", "02"), 9: ("08", "10")}.items():
        (path,) = site.glob(f"notebooks/{number:02}_*.html")
        text = path.read_text(encoding="utf-8")
        for side, other in (("left-prev", before), ("right-next", after)):
            assert re.search(rf'class="{side}"\s+href="{other}_', text), (path.name, side)


@pytest.fixture(scope="module")
def address(site):
    """Of the pages on a server of this machine, as readers have them."""
    handler = partial(SimpleHTTPRequestHandler, directory=site)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture
def opened(browser, address):
    """Open a page; what goes wrong on it, or asks for a network, fails the test."""
    contexts = []

    def open_page(name, **options):
        context = browser.new_context(**{"viewport": {"width": 1200, "height": 900}, **options})
        page, wrong = context.new_page(), []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: message.type == "error" and wrong.append((message.text, message.location)))
        page.on("requestfailed", lambda asked: asked.failure == "net::ERR_ABORTED" or wrong.append(asked.url))
        page.on("request", lambda asked: asked.url.startswith((address, "data:", "blob:")) or wrong.append(asked.url))
        page.goto(f"{address}{name}.html")
        page.wait_for_load_state("load")
        contexts.append((context, wrong))
        return page

    yield open_page
    for context, wrong in contexts:
        context.close()
        assert not wrong


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_pages_are_accessible(opened, name, scheme):
    """No violation that axe-core calls serious or critical."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    found = axe.run(opened(name, color_scheme=scheme), options={"preload": False}).response["violations"]
    serious = {one["id"]: one["nodes"][0]["html"][:100] for one in found if one["impact"] in ("serious", "critical")}
    assert not serious


@pytest.mark.parametrize("name", PAGES)
def test_pages_fit_a_phone(opened, name):
    page = opened(name, viewport={"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_figures_are_live_and_search_finds(opened):
    page = opened("notebooks/09_roi_align")
    edge = page.get_by_role("slider", name="right edge")
    edge.press("ArrowRight")
    assert edge.get_attribute("aria-valuetext") == "16 pixels, 3.13 cells"
    page = opened("figures")
    for name in FIGURES:
        page.wait_for_function(f"document.getElementById('{name}')?.explorable")
        assert page.locator(f"#{name} .handle").count()
    page = opened("search")
    page.goto(page.url + "?q=RoIAlign")
    page.locator("#search-results a", has_text="09").first.wait_for()
