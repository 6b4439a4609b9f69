"""Images of the explorables, for where nothing runs: a still of each, and the README's moving one."""

import argparse
import io
import os
import shutil
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from minircnn.course import explorables
from minircnn.course.explorables import PoolingBench
from minircnn.course.explorables.base import Explorable
from minircnn.files import write_atomically
from minircnn.shipped import PROJECT_FOLDER

BROWSERS = ("chromium", "google-chrome", "msedge")
MOVING = PROJECT_FOLDER / "docs" / "pooling_bench.webp"


def show(page: Page, kind: type[Explorable], folder: str) -> None:
    """Open the page of an explorable's example."""
    path = Path(folder, "page.html")
    path.write_text(kind.example().page(), encoding="utf-8")
    page.goto(path.as_uri())
    page.wait_for_function(f"document.getElementById('{kind.name}')?.explorable")


def moving(page: Page) -> bytes:
    """The right edge of the pooling bench's region goes from 15 pixels to 27 and back; it starts with the story."""
    steps = [15.0] * 6 + [15 + step / 2 for step in range(1, 25)] + [27.0] * 3
    frames = []
    for right in [*steps, *(value for value in steps[-4:5:-2])]:
        page.evaluate("(right) => pooling_bench.explorable.model.set('region', [0, 0, right, 15])", right)
        image = page.locator(".explorable .stage").screenshot(), page.locator(".explorable table").screenshot()
        frames.append(_below(*(Image.open(io.BytesIO(part)).convert("RGB") for part in image)))
    buffer = io.BytesIO()
    options = {"duration": 160, "loop": 0, "quality": 75, "method": 6}
    frames[0].save(buffer, "WEBP", save_all=True, append_images=frames[1:], **options)
    return buffer.getvalue()


def as_jpeg(png: bytes) -> bytes:
    """As a notebook holds it beside its figures, which has to stay below 2 MB."""
    buffer = io.BytesIO()
    options = {"quality": 80, "subsampling": 0, "optimize": True, "progressive": True}
    Image.open(io.BytesIO(png)).convert("RGB").save(buffer, "JPEG", **options)
    return buffer.getvalue()


def _below(first: Image.Image, second: Image.Image) -> Image.Image:
    both = Image.new("RGB", (max(first.width, second.width), first.height + second.height + 8), "white")
    both.paste(first, (0, 0))
    both.paste(second, (0, first.height + 8))
    return both


def main() -> None:
    """Write all of them."""
    parser = argparse.ArgumentParser(prog="python -m workshop.stills", description=__doc__)
    found = os.environ.get("MINIRCNN_BROWSER") or next(filter(None, map(shutil.which, BROWSERS)), None)
    parser.add_argument("--browser", default=found, help="a Chromium, Chrome or Edge (default: %(default)s)")
    parser.add_argument("--only", metavar="NAME", help="one explorable's still, or `moving`")
    options = parser.parse_args()
    with sync_playwright() as tools, tempfile.TemporaryDirectory() as folder:
        running = tools.chromium.launch(executable_path=options.browser, args=["--no-sandbox"])
        light = {"color_scheme": "light", "viewport": {"width": 800, "height": 700}}
        page = running.new_page(device_scale_factor=1.25, **light)
        for kind in map(explorables.__dict__.get, explorables.__all__):
            if options.only in (None, kind.name):
                show(page, kind, folder)
                write_atomically(kind.still(), as_jpeg(page.locator(".explorable").screenshot()))
                print(kind.still())
        if options.only in (None, "moving"):
            page = running.new_page(**light)
            show(page, PoolingBench, folder)
            write_atomically(MOVING, moving(page))
            print(MOVING)


if __name__ == "__main__":
    main()
