"""A web page of pictures in rows, in one file that needs nothing else: no network, no other files, no JavaScript."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from string import Template

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from minircnn.course.figures.display import compress_png
from minircnn.plotting import DPI, render_png

DENSITY = 2  # dots of a picture for each pixel of the page, so that letters in it are sharp on any screen

# The policy is one more lock: even if something slipped into the page, a browser would neither run nor fetch it.
_PAGE = Template("""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="generator" content="$generator">
<title>$title</title>
<style>
:root { color-scheme: light dark; --paper: #fff; --ink: #1c1c1c; --quiet: #595959; --line: #d4d4d4; --card: #f5f5f5 }
@media (prefers-color-scheme: dark) {
  :root { --paper: #161616; --ink: #ececec; --quiet: #b0b0b0; --line: #444; --card: #222 }
}
body { margin: 0; background: var(--paper); color: var(--ink); font: 1rem/1.5 system-ui, sans-serif }
main { max-width: 84rem; margin: 0 auto; padding: 1rem }
h1, h2, h3 { line-height: 1.25; overflow-wrap: anywhere }
h2 { margin: 2.5rem 0 0; padding-top: 1rem; border-top: 1px solid var(--line) }
h3 { margin: .6rem 0 .3rem; font-size: 1.1rem }
p { max-width: 46rem; margin: .5rem 0 1rem }
figcaption p { margin: 0 0 .5rem }
.row { display: grid; grid-template-columns: repeat(4, minmax(0, 1fr)); gap: 1rem; margin: 1rem 0 }
@media (max-width: 62rem) { .row { grid-template-columns: repeat(2, minmax(0, 1fr)) } }
@media (max-width: 34rem) { .row { grid-template-columns: minmax(0, 1fr) } }
@media (min-width: 62.01rem) { .beside { grid-column: span 2 } }
.beside p:first-child { margin-top: 0 }
figure { margin: 0; padding: .75rem; background: var(--card); border: 1px solid var(--line); border-radius: .4rem }
img { display: block; max-width: 100%; height: auto; margin: 0 auto }
dl { display: grid; grid-template-columns: auto 1fr; gap: .1rem .75rem; margin: 0; font-size: .9rem }
dt { color: var(--quiet) }
dd { margin: 0; font-variant-numeric: tabular-nums }
li { overflow-wrap: anywhere }
code { font-size: .9em; overflow-wrap: anywhere }
</style>
</head>
<body>
<main>
<h1>$title</h1>
$content
</main>
</body>
</html>
""")


@dataclass(frozen=True)
class Panel:
    """A picture on a page, and what is said below it.

    Attributes:
        title: above the rest of the text.
        png: a PNG file; it is shown with ``DENSITY`` of its dots for each pixel of the page.
        alt: what can be seen, for those who cannot see it.
        text: a sentence, see :func:`picture_page`; none if empty.
        facts: names and values, in the order in which they are to stand.
    """

    title: str
    png: bytes
    alt: str
    text: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Section:
    """A part of a page.

    Attributes:
        title: its heading.
        texts: paragraphs, see :func:`picture_page`; they stand beside the panels of the first row.
        rows: of panels, each at most four side by side, fewer on a narrow screen; the first at most two.
        items: a list of plain lines behind the paragraphs.
    """

    title: str
    texts: Sequence[str] = ()
    rows: Sequence[Sequence[Panel]] = ()
    items: Sequence[str] = ()


def panel_png(ax: Axes) -> bytes:
    """The figure of these axes as a PNG for a :class:`Panel`, and closed; 100 pixels of the page to an inch."""
    figure = ax.get_figure()
    try:
        return compress_png(render_png(figure, DENSITY * DPI))
    finally:
        plt.close(figure)


def picture_page(title: str, texts: Sequence[str], sections: Sequence[Section], *, generator: str) -> str:
    """The page as HTML, pictures included. Whatever is given is text: what HTML would take for its own is escaped.

    In sentences and paragraphs, what stands between two backticks is set as code. Titles, facts, items and descriptions
    of pictures, in which names of files may stand, are shown letter for letter.

    Args:
        title: of the page.
        texts: paragraphs before the first section.
        sections: one after the other.
        generator: what made the page, as the page says.

    Raises:
        ValueError: a panel has no description, or its picture is no PNG.
    """
    content = [*map(_paragraph, texts), *(line for section in sections for line in _section(section))]
    return _PAGE.substitute(title=escape(title), generator=escape(generator), content="\n".join(content))


def _section(section: Section) -> Iterator[str]:
    yield f"<section>\n<h2>{escape(section.title)}</h2>"
    texts = [*map(_paragraph, section.texts)]
    if section.items:
        texts.append("\n".join(["<ul>", *(f"<li>{escape(item)}</li>" for item in section.items), "</ul>"]))
    for row in section.rows:
        beside = [] if row is not section.rows[0] else ['<div class="beside">', *texts, "</div>"]
        yield "\n".join(['<div class="row">', *map(_figure, row), *beside, "</div>"])
    if not section.rows:
        yield from texts
    yield "</section>"


def _figure(panel: Panel) -> str:
    if not panel.alt.strip():
        raise ValueError(f"{panel.title}: alt is empty: say in a sentence what the picture shows")
    width, height = (max(1, round(dots / DENSITY)) for dots in _size_of(panel))
    data = base64.b64encode(panel.png).decode("ascii")
    facts = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in panel.facts.items())
    lines = [
        "<figure>",
        f'<img src="data:image/png;base64,{data}" width="{width}" height="{height}" alt="{escape(panel.alt)}">',
        f"<figcaption><h3>{escape(panel.title)}</h3>",
        *([_paragraph(panel.text)] if panel.text else []),
        *([f"<dl>{facts}</dl>"] if facts else []),
        "</figcaption>",
        "</figure>",
    ]
    return "\n".join(lines)


def _size_of(panel: Panel) -> tuple[int, int]:
    """Width and height, which a PNG states in its first chunk."""
    if panel.png[:8] != b"\x89PNG\r\n\x1a\n" or len(panel.png) < 24:
        raise ValueError(f"{panel.title}: its picture is no PNG; the page holds nothing else")
    return int.from_bytes(panel.png[16:20], "big"), int.from_bytes(panel.png[20:24], "big")


def _paragraph(text: str) -> str:
    """Escaped first: no backtick comes or goes by that."""
    marked = re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))
    return f"<p>{marked}</p>"
