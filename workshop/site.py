"""The course as a site that can be read and searched without Python and without a network: `build/site/html`.

Pages are those under `docs/`, the notebooks as they are stored, and a reference of the core out of its docstrings. The
explorables are live; images have the texts that say what they show.
"""

import argparse
import base64
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat

from minircnn.course import explorables
from minircnn.course.explorables.base import Explorable
from minircnn.shipped import PROJECT_FOLDER
from workshop.colab import colab

SITE = PROJECT_FOLDER / "build" / "site"
CORE = (
    "boxes", "metrics", "selective_search", "alexnet", "pooling", "rcnn", "fast_rcnn", "faster_rcnn", "resnet_fpn",
    "mask_rcnn", "published", "evaluation", "transforms", "targets",
)  # fmt: skip
LINK = re.compile(r"\]\(\.\./(minircnn/([\w/]+)\.py)(?:#[^)]*)?\)")
FORMATS = {"image/png": "png", "image/jpeg": "jpg"}


def gather(source: Path, repository: str | None) -> None:
    """All pages in one folder, as Sphinx wants them; notebooks say where else to open them, if it is known."""
    shutil.copytree(PROJECT_FOLDER / "docs", source)
    for path in source.glob("*.md"):
        _write(path, with_links(path.read_text(encoding="utf-8")))
    figures = {kind.alt: kind.example() for kind in map(explorables.__dict__.get, explorables.__all__)}
    parts = [f"## {one.title}\n\n`````{{raw}} html\n{live(one)}\n`````\n" for one in figures.values()]
    _write(source / "figures.md", "\n".join(["# Figures to take hold of\n", *parts]))
    for path in sorted((PROJECT_FOLDER / "notebooks").iterdir()):
        if path.suffix == ".md":
            text = path.read_text(encoding="utf-8")
            _write(source / "notebooks" / path.name, with_links(text))
        elif path.suffix == ".ipynb":
            write_notebook(path, source / "notebooks", figures, elsewhere(path, repository))
    for name in modules():
        module = name.replace("/", ".")
        text = f"# `minircnn/{name}.py`\n\n```{{eval-rst}}\n.. automodule:: minircnn.{module}\n```\n"
        _write(source / "api" / f"{module}.md", text)
    names = "\n".join(name.replace("/", ".") for name in modules())
    _write(source / "api" / "index.md", f"# Reference\n\n```{{toctree}}\n:maxdepth: 1\n\n{names}\n```\n")


def modules() -> list[str]:
    """The core, and every other module that a notebook points to."""
    texts = [path.read_text(encoding="utf-8") for path in sorted((PROJECT_FOLDER / "notebooks").glob("*.ipynb"))]
    linked = {found[2] for text in texts for found in LINK.finditer(text)}
    return [*CORE, *sorted(linked - set(CORE))]


def with_links(text: str) -> str:
    """Links to files of the package lead to their pages; other files of the project are only named."""
    text = LINK.sub(lambda found: f"](../api/{found[2].replace('/', '.')}.md)", text)
    return re.sub(r"\[([^]]*)\]\(\.\./(?!api/)[^)]*\)", r"\1", text)


def elsewhere(path: Path, repository: str | None) -> str:
    """A line with links that open a notebook on machines that run it."""
    if not repository:
        return ""
    places = {
        "Colab": colab(repository, path.name),
        "Binder": f"https://mybinder.org/v2/gh/{repository}/main?labpath=notebooks/{path.name}",
        "Codespaces": f"https://codespaces.new/{repository}",
    }
    links = " · ".join(f"[{name}]({address})" for name, address in places.items())
    return f"\n\nOpen this notebook in {links} (where `make course CPU=1` comes first)."


def write_notebook(path: Path, folder: Path, figures: dict[str, Explorable], links: str) -> None:
    """A notebook with live figures, and with its images as files that say what they show."""
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[0].source += links
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown":
            cell.source = with_links(cell.source)
        for count, output in enumerate(cell.get("outputs", [])):
            name = f"{path.stem}_{number}_{count}"
            output["data"] = dict(_shown(output.get("data", {}), folder / "images" / name, figures))
    _write(folder / path.name, nbformat.writes(notebook))


def live(figure: Explorable) -> str:
    """An explorable as a part of a page."""
    return f"<style>{figure._css}</style>{figure.figure()}"


def _shown(data: dict[str, Any], path: Path, figures: dict[str, Explorable]) -> Iterator[tuple[str, str]]:
    """What the site shows in place of an output's data."""
    kind, text = next((kind for kind in FORMATS if kind in data), None), data.get("text/plain", "")
    if text in figures:
        yield "text/html", live(figures[text])
    elif kind:
        file = path.with_suffix(f".{FORMATS[kind]}")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(base64.b64decode(data[kind]))
        text = re.sub(r"([\[\]*_`<\\])", r"\\\1", text)
        yield "text/markdown", f"![{text}](images/{file.name})"
    else:
        yield from data.items()


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def main() -> None:
    """Gather and build; a warning is an error."""
    parser = argparse.ArgumentParser(prog="python -m workshop.site", description=__doc__)
    parser.add_argument("--out", type=Path, default=SITE, metavar="FOLDER", help="(default: %(default)s)")
    repository = os.environ.get("GITHUB_REPOSITORY")
    parser.add_argument("--repository", default=repository, metavar="OWNER/NAME", help="GitHub's (%(default)s)")
    options = parser.parse_args()
    out = options.out
    for part in ("source", "html"):
        shutil.rmtree(out / part, ignore_errors=True)
    gather(out / "source", options.repository)
    command = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--keep-going", "-q", "-j", "auto", "-b", "html"]
    code = subprocess.run([*command, out / "source", out / "html"], check=False).returncode
    if code == 0:
        print(out / "html" / "index.html")
    sys.exit(code)


if __name__ == "__main__":
    main()
