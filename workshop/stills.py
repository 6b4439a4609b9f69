"""Stills of the explorables, for where nothing runs: each example's page as a browser shows it, at twice its size."""

import argparse
import os
import shutil
import tempfile
from pathlib import Path

from minircnn.course import explorables

BROWSERS = ("chromium", "google-chrome", "msedge")


def main() -> None:
    """Write all of them."""
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(prog="python -m workshop.stills", description=__doc__)
    found = os.environ.get("MINIRCNN_BROWSER") or next(filter(None, map(shutil.which, BROWSERS)), None)
    parser.add_argument("--browser", default=found, help="a Chromium, Chrome or Edge (default: %(default)s)")
    browser = parser.parse_args().browser
    with sync_playwright() as tools, tempfile.TemporaryDirectory() as folder:
        running = tools.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = running.new_page(viewport={"width": 800, "height": 700}, device_scale_factor=2, color_scheme="light")
        for kind in map(explorables.__dict__.get, explorables.__all__):
            path = Path(folder, "page.html")
            path.write_text(kind.example().page(), encoding="utf-8")
            page.goto(path.as_uri())
            page.wait_for_function(f"document.getElementById('{kind.name}')?.explorable")
            kind.still().parent.mkdir(exist_ok=True)
            page.locator(".explorable").screenshot(path=kind.still())
            print(kind.still())


if __name__ == "__main__":
    main()
