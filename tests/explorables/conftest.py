"""A real browser for the figures that one takes hold of: the Chromium of the system, or the user's Chrome or Edge."""

import os
import shutil
from types import SimpleNamespace

import pytest

from minircnn.course import explorables

FIGURES = {kind.name: kind for kind in map(explorables.__dict__.get, explorables.__all__)}

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
MACS = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Microsoft Edge.app/Contents/MacOS/Microsoft Edge",
)


def installed_browser():
    named = os.environ.get("MINIRCNN_BROWSER")
    return named or next(filter(None, map(shutil.which, (*BROWSERS, *MACS))), None)


@pytest.fixture(scope="session")
def browser():
    path = installed_browser()
    if path is None:
        pytest.skip("no Chromium, Chrome or Edge found; MINIRCNN_BROWSER may name one")
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
    with api.sync_playwright() as tools:
        running = tools.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture(scope="session")
def pages(tmp_path_factory):
    """The page of each explorable, by name."""
    folder = tmp_path_factory.mktemp("pages")
    for name, kind in FIGURES.items():
        (folder / f"{name}.html").write_text(kind.example().page(), encoding="utf-8")
    return folder


@pytest.fixture
def shown(browser, pages):
    """Open the page of an explorable; what it asks for and what goes wrong on it is noted, and must be nothing."""
    opened = []

    def show(name, width=1000, height=900, **options):
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        page, wrong = context.new_page(), []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: message.type in ("error", "warning") and wrong.append(message.text))
        page.on("request", lambda asked: asked.url.startswith(("http", "ws")) and wrong.append(asked.url))
        page.goto((pages / f"{name}.html").as_uri())
        page.wait_for_function(f"document.getElementById('{name}')?.explorable")
        opened.append((context, wrong))

        def run(code, argument=None):
            return page.evaluate(f"(given) => {{ const {{ model, math }} = {name}.explorable; {code} }}", argument)

        return SimpleNamespace(page=page, run=run, wrong=wrong, state=lambda key: run(f"return model.get('{key}')"))

    yield show
    for context, wrong in opened:
        context.close()
        assert not wrong
