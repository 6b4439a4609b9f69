"""The page of ``minircnn demo``: one file of HTML that is XML, too, without a script, and with nothing to fetch.

Which detector an image is shown with, buttons and CSS decide. Where CSS is not at work, or on paper, all are shown.
"""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from minircnn.files import printable
from minircnn.shipped import PROJECT_FOLDER

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from minircnn.plotting import Drawing

SIDE = 640  # pixels of the longer side of an image on the page
PHONE = 358  # of the width that a phone of 390 pixels leaves for an image; labels are placed so that they fit there
LABEL = (6.8, 8, 17)  # of a label, in pixels: the width of a letter, of its margins, and the height

# The policy is one more lock: what slipped into the page, a browser would neither run nor fetch.
_PAGE = Template("""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8" />
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'" />
<meta name="generator" content="minircnn demo" />
<meta name="viewport" content="width=device-width, initial-scale=1" />
<title>Four detectors, the same images</title>
<style>
:root { color-scheme: light dark; background: Canvas }
body { max-width: 80rem; margin: 0 auto; padding: 1rem; font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere }
h1 { line-height: 1.2 } section { margin-top: 3rem } fieldset { display: none }
figure { margin: 0 0 1rem } figcaption { margin-top: .5rem; max-width: 40rem }
.view { position: relative; max-width: var(--side) }
svg { display: block; width: 100%; height: auto } svg * { vector-effect: non-scaling-stroke }
.boxes, .proposals { filter: drop-shadow(0 0 1px black) }
.label { position: absolute; padding: 0 4px; font: 12px/17px system-ui, sans-serif; white-space: nowrap }
.legend { padding: 0 } .legend li { display: inline-block; padding: 0 .6rem; margin: 0 .3rem .3rem 0 }
table { width: 100%; table-layout: fixed; border-collapse: collapse; font-variant-numeric: tabular-nums }
caption { text-align: left } col:first-child { width: 40% } col:last-child { width: 6rem }
th, td { padding: .15rem .4rem; text-align: left; font-weight: normal; line-height: 1.3 }
td:last-child { text-align: right; white-space: nowrap } tr:first-child > * { padding-top: .5rem; font-weight: bold }
.bar { min-width: 2px; height: .8rem; background: #3d82c8 }
@media (min-width: 60rem) {
  .columns { display: grid; align-items: start; gap: 2rem }
  .columns { grid-template-columns: minmax(0, max(22rem, var(--side))) minmax(0, 1fr) }
  .label { font-size: 14px; line-height: 20px }
}
@supports selector(:has(a)) { @media screen {
  fieldset { display: grid; grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); margin: 0 0 1rem }
  fieldset label { display: flex; align-items: center; gap: .4rem; min-height: 2.5rem; padding: 0 .6rem }
  fieldset label:has(:checked) { box-shadow: inset 0 0 0 2px }
  .figures { display: grid } .figures > * { grid-area: 1 / 1; visibility: hidden; min-width: 0 }
  $shown { visibility: inherit }
  $timed { background: color-mix(in srgb, #3d82c8 18%, Canvas) }
} section:not(:has([value=proposals]:checked)) .proposals { display: none } }
</style>
</head>
<body>
<main>
<h1>Four detectors, the same images</h1>
<p>Choose a detector: its boxes show what it finds; Mask R-CNN also outlines it. The number behind a class is its score:
of R-CNN the margin of a support vector machine, shown from 0 up, of the others a probability, shown from 0.5 up.</p>
<ul class="legend">$legend</ul>
$content
<h2>Where to go next</h2>
<p>The detectors know these six painted classes and have never seen a photograph of any of them: on photographs they are
mostly wrong. <code>make course</code> opens the notebooks, in which each is built and measured; $last compares all four
on 200 scenes. <code>minircnn detect mask_rcnn holiday.jpg --out found.png</code> looks at an image with one detector,
and <code>minircnn evaluate mask_rcnn</code> says how good it is.</p>
</main>
</body>
</html>
""")
_CAPTION = """\
<caption>Time of each stage, measured on this machine in one pass; all bars have one scale. Selective search ran once,
and counts for both R-CNN and Fast R-CNN.</caption>
<colgroup><col /><col /><col /></colgroup>
"""


@dataclass(frozen=True)
class View:
    """An image with its ground truth, or with what one detector found."""

    key: str  # of the detector, or "truth"
    name: str
    drawing: Drawing
    proposals: Sequence[Sequence[float]] = ()  # boxes in pixels of the drawing
    proposed: str = ""  # a sentence about them
    milliseconds: Mapping[str, int] = field(default_factory=dict)  # by stage


def make_page(
    images: Sequence[tuple[str, str, Sequence[View]]],
    detectors: Mapping[str, tuple[str, int, str]],
    classes: Sequence[str],
    folder: Path,
) -> bytes:
    """The page that will lie in a folder, with a title, some words and views of each image.

    ``detectors`` by key are the name, the year, and the notebook that builds it.
    """
    from minircnn.plotting import class_color

    built = {"truth": ""}
    for key, (_, year, book) in detectors.items():
        notebook = link(f"notebooks/{book}.ipynb", f"notebook {book[:2]}", folder)
        built[key] = f" ({year}; built in {notebook}, {link(f'minircnn/{key}.py', 'source', folder)})"
    chosen = {key: f"section:has([value={key}]:checked)" for key in built}
    legend = [f'<li style="{_colors(class_color(k))}">{escape(classes[k])}</li>' for k in range(1, len(classes))]
    return _PAGE.substitute(
        shown=", ".join(f"{section} .figures .{key}" for key, section in chosen.items()),
        timed=", ".join(f"{section} tbody.{key}" for key, section in chosen.items()),
        legend="".join(legend),
        content="\n".join(_section(number, *one, built, classes) for number, one in enumerate(images, 1)),
        last=link("notebooks/11_history_in_numbers.ipynb", "notebook 11", folder),
    ).encode()


def link(file: str, text: str, folder: Path) -> str:
    """A link from a page in a folder to a file of the project; where that is not there, the text alone."""
    with suppress(ValueError):  # Windows knows no way to another drive
        if (PROJECT_FOLDER / file).is_file():
            way = Path(os.path.relpath(PROJECT_FOLDER / file, os.path.realpath(folder)))
            return f'<a href="{quote(os.fsencode(way.as_posix()))}">{text}</a>'
    return text


def _section(
    number: int, title: str, about: str, views: Sequence[View], built: Mapping[str, str], classes: Sequence[str]
) -> str:
    """The part of the page about an image: buttons, the image with each view, and the time that each stage took."""
    looks, (height, width) = [view for view in views if view.milliseconds], views[0].drawing.pixels.shape[:2]
    checked = ' checked="checked"'
    buttons = "".join(
        f'<label><input type="radio" name="view-{number}" value="{view.key}"{checked * (view is looks[0])} />'
        f"{view.name}</label>\n"
        for view in views
    )
    photographs = [_photograph(views[0].drawing, number), *[f'<use href="#photograph-{number}" />'] * (len(views) - 1)]
    figures = [_figure(*pair, built[pair[0].key], classes) for pair in zip(views, photographs, strict=True)]
    return (
        f"<section>\n<h2>{escape(printable(title))}</h2>\n<p>{about}.</p>\n"
        f"<fieldset><legend>Show on the image</legend>\n{buttons}"
        f'<label><input type="checkbox" value="proposals" />Proposals</label></fieldset>\n'
        f'<div class="columns" style="--side: {SIDE * width / max(width, height):.0f}px">\n'
        f'<div class="figures">\n{"".join(figures)}</div>\n{_times(looks)}</div>\n</section>'
    )


def _say(found: Mapping[str, Any], classes: Sequence[str]) -> list[str]:
    """Each object in words: its class, and the score of what was detected."""
    names = [classes[label] for label in found["labels"].tolist()]
    if "scores" in found:
        names = [f"{name} {score:.2f}" for name, score in zip(names, found["scores"].tolist(), strict=True)]
    return names


def _colors(color: Sequence[float]) -> str:
    """CSS of a text on a color."""
    from matplotlib.colors import to_hex

    from minircnn.plotting import text_color

    return f"background: {to_hex(color)}; color: {text_color(color)}"


def _photograph(drawing: Drawing, number: int) -> str:
    """The image itself, which the page holds once; all views refer to it by its number."""
    from PIL import Image

    buffer, (height, width) = io.BytesIO(), drawing.pixels.shape[:2]
    Image.fromarray(drawing.pixels).save(buffer, "jpeg", quality=90)
    data = f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return f'<image id="photograph-{number}" width="{width}" height="{height}" href="{data}" />'


def _figure(view: View, photograph: str, built: str, classes: Sequence[str]) -> str:
    """The image with masks, proposals, boxes and labels, and below it the same in words."""
    from matplotlib.colors import to_hex

    from minircnn.plotting import class_color

    found, (height, width) = view.drawing.found, view.drawing.pixels.shape[:2]
    rows, texts = list(zip(found["boxes"].tolist(), found["labels"].tolist(), strict=True)), _say(found, classes)
    colors = [class_color(label) for _, label in rows]
    masks = [_mask(mask.numpy(), to_hex(c)) for mask, c in zip(found.get("masks", ()), colors, strict="masks" in found)]
    boxes = [
        f'<rect x="{x1:.2f}" y="{y1:.2f}" width="{x2 - x1:.2f}" height="{y2 - y1:.2f}" stroke="{to_hex(color)}" />'
        for ((x1, y1, x2, y2), _), color in zip(rows, colors, strict=True)
    ]
    lines = [f"M{x1:.1f} {y1:.1f}H{x2:.1f}V{y2:.1f}H{x1:.1f}Z" for x1, y1, x2, y2 in view.proposals]
    places = _places(texts, [box for box, _ in rows], (height, width))
    labels = [
        f'<span class="label" style="{place}; {_colors(color)}">{escape(text)}</span>'
        for text, place, color in zip(texts, places, colors, strict=True)
    ]
    # The first lies on top, since detections stand best first.
    return (
        f'<figure class="{view.key}">\n<div class="view">'
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{view.name}">{photograph}{"".join(masks[::-1])}'
        f'<path class="proposals" fill="none" stroke="white" d="{"".join(lines)}" />'
        f'<g class="boxes" fill="none" stroke-width="2.5">{"".join(boxes[::-1])}</g></svg>'
        f'<div aria-hidden="true">{"".join(labels[::-1])}</div></div>\n'
        f"<figcaption><b>{view.name}</b>{built}: {escape(', '.join(texts)) or 'nothing'}."
        f"{view.proposed}</figcaption>\n</figure>\n"
    )


def _mask(mask: NDArray, color: str) -> str:
    """A mask (h, w) bool, as a translucent area and its outline; both follow the sides of pixels."""
    import numpy as np

    rows = "".join(f"M{first} {row}h{last - first}v1H{first}z" for row, first, last in _runs(mask))
    padded = np.pad(mask, 1)
    across = [f"M{first - 1} {row}h{last - first}" for row, first, last in _runs(padded[1:] != padded[:-1])]
    down = [f"M{x} {first - 1}v{last - first}" for x, first, last in _runs((padded[:, 1:] != padded[:, :-1]).T)]
    area = f'<path class="mask" fill="{color}" fill-opacity=".4" d="{rows}" />'
    return f'{area}<path fill="none" stroke="{color}" d="{"".join([*across, *down])}" />'


def _runs(marks: NDArray) -> NDArray:
    """Where something is marked in (h, w) bool, run by run: (N, 3), the row, the first column, and that behind it."""
    import numpy as np

    change = np.diff(np.pad(marks, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    return np.column_stack([np.argwhere(change == 1), np.argwhere(change == -1)[:, 1]])


def _places(texts: Sequence[str], boxes: Sequence[Sequence[float]], size: tuple[int, int]) -> Iterator[str]:
    """CSS of the place of each label: so that it fits on a phone, and where there is more room stays at its box."""
    import numpy as np

    from minircnn.plotting import place_label

    (height, width), taken = size, np.zeros((0, 4))
    pixel = max(width / PHONE, max(width, height) / SIDE)  # of the page, on a phone, in those of the image
    for text, box in zip(texts, boxes, strict=True):
        letter, margins, tall = (value * pixel for value in LABEL)
        x1, y1, x2, y2 = place_label((len(text) * letter + margins, tall), box, taken, size)
        taken = np.concatenate([taken, [[x1, y1, x2, y2]]])
        right = x1 > 0 and (np.isclose(x2, box[2]) or np.isclose(x2, width)) and not np.isclose(x1, box[0])
        below = y1 > 0 and (np.isclose(y2, box[1]) or np.isclose(y2, height))
        across = f"right: {1 - x2 / width:.2%}" if right else f"left: {x1 / width:.2%}"
        yield f"{across}; " + (f"bottom: {1 - y2 / height:.2%}" if below else f"top: {y1 / height:.2%}")


def _times(looks: Sequence[View]) -> str:
    """The stages of all detectors as bars of one scale; each bar begins where the one before it ends."""
    totals = [sum(view.milliseconds.values()) for view in looks]
    percent, parts = 100 / max(1, *totals), []
    for view, total in zip(looks, totals, strict=True):
        parts.append(f'<tbody class="{view.key}">\n<tr><th colspan="2" scope="rowgroup">{view.name}</th>')
        parts.append(f"<td>{total:,} ms</td></tr>\n")
        start = 0
        for stage, taken in view.milliseconds.items():
            bar = f'style="margin-left: {start * percent:.2f}%; width: {taken * percent:.2f}%"'
            parts.append(f'<tr><th scope="row">{stage}</th><td><div class="bar" {bar}></div></td>')
            parts.append(f"<td>{taken:,} ms</td></tr>\n")
            start += taken
        parts.append("</tbody>\n")
    return f"<table>\n{_CAPTION}{''.join(parts)}</table>\n"
