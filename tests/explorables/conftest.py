"""The page of each explorable, opened in a browser."""

from types import SimpleNamespace

import pytest

from minircnn.course import explorables

FIGURES = {kind.name: kind for kind in map(explorables.__dict__.get, explorables.__all__)}


@pytest.fixture(scope="session")
def pages(tmp_path_factory):
    """The page of each explorable, by name."""
    folder = tmp_path_factory.mktemp("pages")
    for name, kind in FIGURES.items():
        (folder / f"{name}.html").write_text(kind.example().page(), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def compute(browser, pages):
    """Run JavaScript for each case `c` with `math`, the mathematics of an explorable."""

    def run(name, cases, code):
        page = browser.new_page()
        page.goto((pages / f"{name}.html").as_uri())
        page.wait_for_function(f"document.getElementById('{name}')?.explorable")
        each = f"(cases) => {{ const {{ math }} = {name}.explorable; return cases.map((c) => {{ {code} }}); }}"
        return page.evaluate(each, cases)

    return run


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
