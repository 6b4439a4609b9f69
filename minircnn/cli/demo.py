"""``minircnn demo``: the four detectors side by side, on a scene of Toy Town and on the user's own images."""

from __future__ import annotations

import base64
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Annotated, Any

import typer

from minircnn.cli.detect import (
    LONGEST_SIDE,
    MAX_PROPOSALS,
    Drawing,
    complain,
    draw,
    find_images,
    make_drawing,
    set_threshold,
    threshold_of,
)
from minircnn.cli.options import RefusedError, detect_in, detector_file, echo, naming_memory, read_detector
from minircnn.cli.outputs import SUFFIXES, Output, check_folder, check_outputs, with_json
from minircnn.files import printable
from minircnn.shipped import DETECTOR_WEIGHTS

if TYPE_CHECKING:
    from torch import Tensor

PAGE, TABLE = "index.html", "four_detectors.png"
MOST_IMAGES = 20  # of the user's: a page of more is heavy, and nobody looks at it
SCENE = 194  # of the test split: one of the seven scenes with six objects, the most that a scene has
SIDE = 640  # pixels of the longer side of an image on the page
WIDTH = 15.0  # inches, for an image and what four detectors found in it
TITLE = "Four detectors, the same images"

# key: name, year, what was new, where the course builds it
DETECTORS = {
    "rcnn": (
        *("R-CNN", 2014),
        "Each proposed region is cropped and goes through the network by itself; support vector machines classify it.",
        "04_rcnn",
    ),
    "fast_rcnn": (
        *("Fast R-CNN", 2015),
        "The network sees the whole image once; regions are pooled from its features, and all is learned together.",
        "06_fast_rcnn",
    ),
    "faster_rcnn": (
        *("Faster R-CNN", 2016),
        "The same features also say where to look: a small network proposes regions in place of selective search.",
        "08_faster_rcnn",
    ),
    "mask_rcnn": (
        *("Mask R-CNN", 2017),
        "Features are read between cells, without rounding, and one more branch outlines each object pixel by pixel.",
        "10_mask_rcnn",
    ),
}
INTRODUCTION = (
    "Four detectors look at the same images, in the order in which they were invented. Boxes show what each one finds; "
    "the last one also outlines it. The number behind a class is the detector's score: for R-CNN the margin of a "
    "support vector machine, shown from 0 up, for the others a probability, shown from 0.5 up. Times were measured on "
    "this machine, just now; selective search, whose proposals R-CNN and Fast R-CNN share, counts for both."
)
# The policy is one more lock: even if something slipped into the page, a browser would neither run nor fetch it.
_PAGE = Template("""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="generator" content="minircnn demo">
<title>$title</title>
<style>
:root { color-scheme: light dark }
body { max-width: 95rem; margin: 0 auto; padding: 1rem; font: 1rem/1.5 system-ui, sans-serif }
h2 { overflow-wrap: anywhere }
p { max-width: 46rem }
img { max-width: 100%; height: auto }
td, th { padding: .2rem 1rem .2rem 0; text-align: left; vertical-align: top }
</style>
</head>
<body>
<h1>$title</h1>
$content
</body>
</html>
""")


@dataclass(frozen=True)
class Seen:
    """An image that all detectors have looked at."""

    name: str
    size: tuple[int, int]  # (height, width) of the image in its file
    shown: tuple[int, int]  # (height, width) of what the detectors saw
    drawings: Sequence[Drawing]  # of the image with what is there, if that is known, and of what each detector found
    seconds: Sequence[float]  # that each took


def demo(
    images: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[IMAGE]...", help="Your own, beside a scene of Toy Town.", readable=False),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where to write; made if need be.")] = Path("demo"),
) -> None:
    """Show R-CNN, Fast R-CNN, Faster R-CNN and Mask R-CNN side by side, on a scene and on your own images.

    Writes a page, index.html, which needs no other file and no network, and the same as one image, four_detectors.png;
    those of a former demo are replaced. Images that cannot be read are named and left out; the exit status is then 1.
    """
    # ``~``, which not every shell replaces in ``make demo IMAGE=~/holiday.jpg``
    files, skipped = find_images([path.expanduser() if path.parts[:1] == ("~",) else path for path in images or ()])
    _check_out(out, files)
    from minircnn.datasets import ToyTown
    from minircnn.datasets.images import read_image
    from minircnn.files import write_atomically

    left_out = [complain(path, reason) for path, reason in skipped]
    echo("reading the detectors")
    models = load_detectors()
    data = ToyTown("test")
    classes, (scene, truth) = data.classes, data[SCENE]
    look_at(models, scene)  # not counted: the first look takes longer, while memory is fetched and code is chosen
    seen = [_see(models, "A scene of Toy Town", scene, truth)]
    for path in files:
        try:
            with naming_memory():
                seen.append(_see(models, str(path), read_image(path)))
        except (OSError, ValueError) as error:
            left_out.append(complain(path, str(error)))
    pages = [_section(one, classes) for one in seen]
    rows = [(drawing, title) for one in seen for drawing, title in zip(one.drawings, _titles(one), strict=True)]
    table = draw([drawing for drawing, _ in rows], classes, [title for _, title in rows], columns=5, width=WIDTH)
    content = "\n".join([f"<p>{INTRODUCTION}</p>", *pages, *_notes(classes, left_out)])
    write_atomically(out / TABLE, table)
    write_atomically(out / PAGE, _PAGE.substitute(title=TITLE, content=content).encode())
    echo(f"written to {out / TABLE}", f"written to {out / PAGE}: open it in a browser")
    if left_out:
        raise typer.Exit(1)


def _check_out(out: Path, files: Sequence[Path]) -> None:
    """Refuse what cannot be written, and what would replace anything but a former demo."""
    if out.is_file() or (not out.exists() and out.suffix.lower() in (*SUFFIXES, ".html", ".htm")):
        raise RefusedError(f"--out {out}: name a folder, not a file; it gets {PAGE} and {TABLE}")
    check_folder("--out", out)
    weights = [file for path in DETECTOR_WEIGHTS.values() for file in with_json(path)]
    check_outputs([Output("--out", out / name, named=False) for name in (PAGE, TABLE)], [*files, *weights])
    if len(files) > MOST_IMAGES:
        raise RefusedError(
            f"{len(files)} images, but a demo shows at most {MOST_IMAGES}; name fewer, or look at all of them with "
            "`minircnn detect`"
        )


def load_detectors() -> dict[str, Any]:
    """The four detectors that come with the project, which give what ``minircnn detect`` shows by default."""
    models = {key: read_detector(key, detector_file(key, None), None) for key in DETECTORS}
    for key, model in models.items():
        set_threshold(model, threshold_of(key, None))
    return models


def look_at(models: Mapping[str, Any], image: Tensor) -> list[tuple[dict[str, Any], float]]:
    """What each detector finds in an image (3, H, W), and the seconds that it took; selective search runs once."""
    from minircnn.selective_search import selective_search

    start = time.perf_counter()
    proposals = selective_search(image, max_proposals=MAX_PROPOSALS)
    searching, looks = time.perf_counter() - start, []
    for key, model in models.items():
        on_proposals, start = key in ("rcnn", "fast_rcnn"), time.perf_counter()
        found = detect_in(model, image, proposals if on_proposals else None)
        looks.append((found, time.perf_counter() - start + searching * on_proposals))
    return looks


def _see(models: Mapping[str, Any], name: str, image: Tensor, truth: Mapping[str, Any] | None = None) -> Seen:
    """Let all detectors look at an image, and print what they found.

    Large images are shrunk first: the detectors would shrink them anyway, and masks of many million pixels fill the
    memory.
    """
    import torch

    from minircnn.selective_search import shrink

    size = tuple(image.shape[1:])
    if max(size) > LONGEST_SIDE:
        image = torch.from_numpy(shrink(image, LONGEST_SIDE)).float().permute(2, 0, 1).contiguous()
    looks = look_at(models, image)
    for (one, *_), (found, seconds) in zip(DETECTORS.values(), looks, strict=True):
        echo(f"{name}: {one}: {_objects(found)} in {seconds:.3f} s")
    there = truth or {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    drawings = [make_drawing(image, found, SIDE) for found in (there, *(found for found, _ in looks))]
    return Seen(name, size, tuple(image.shape[1:]), drawings, [seconds for _, seconds in looks])


def _titles(seen: Seen) -> list[str]:
    detectors = zip(DETECTORS.values(), seen.drawings[1:], seen.seconds, strict=True)
    found = [f"{name} ({year})\n{_objects(one.found)}, {time:.3f} s" for (name, year, *_), one, time in detectors]
    return [Path(seen.name).name, *found]


def _section(seen: Seen, classes: Sequence[str]) -> str:
    """The part of the page about one image: a row of drawings, described, and a table of what each detector found."""
    png = draw(seen.drawings, classes, _titles(seen), columns=5, width=WIDTH, dpi=150)
    (height, width), (h, w) = seen.size, seen.shown
    shrunk = f", shrunk to {w} × {h} before the detectors saw it" if seen.shown != seen.size else ""
    there = _names(seen.drawings[0].found, classes)
    about = f"{width} × {height} pixels{shrunk}." + (f" What is there: {there}." if there != "nothing" else "")
    rows, alt = [], []
    for (name, year, new, _), drawing, seconds in zip(DETECTORS.values(), seen.drawings[1:], seen.seconds, strict=True):
        found = _names(drawing.found, classes)
        alt.append(f"{name} finds {found}")
        cells = (f"{name} ({year})", new, found, f"{seconds:.3f} s")
        rows.append("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>")
    return "\n".join(
        [
            f"<section>\n<h2>{escape(printable(seen.name))}</h2>\n<p>{about}</p>",
            f'<img src="data:image/png;base64,{base64.b64encode(png).decode()}" '
            f'alt="{escape(printable(seen.name))} five times: as it is, and with what each detector finds. '
            f'{escape("; ".join(alt))}">',
            "<table>\n<tr><th>detector</th><th>what was new</th><th>found</th><th>time</th></tr>",
            *rows,
            "</table>\n</section>",
        ]
    )


def _notes(classes: Sequence[str], left_out: Sequence[str]) -> list[str]:
    """What is said below the images."""
    notebooks = ", ".join(f"<code>notebooks/{book}.ipynb</code> ({name})" for name, _, _, book in DETECTORS.values())
    missing = "".join(f"<li>{escape(line)}</li>" for line in left_out)
    return [
        *([f"<h2>What was left out</h2>\n<ul>{missing}</ul>"] if left_out else []),
        f"<h2>Where to go next</h2>\n<p>The detectors know {len(classes) - 1} painted classes, "
        f"{', '.join(classes[1:-1])} and {classes[-1]}, and have never seen a photograph of any of these: on "
        "photographs they are mostly wrong.</p>",
        f"<p><code>make course</code> opens the notebooks, in which each detector is built and measured: {notebooks}. "
        "<code>minircnn detect mask_rcnn holiday.jpg --out found.png</code> looks at an image with one detector, and "
        "<code>minircnn evaluate mask_rcnn</code> says how good it is, on 200 scenes.</p>",
    ]


def _objects(found: Mapping[str, Any]) -> str:
    return f"{len(found['labels'])} object{'s' * (len(found['labels']) != 1)}"


def _names(found: Mapping[str, Any], classes: Sequence[str]) -> str:
    """What an image shows, for those who cannot see it."""
    names = [classes[label] for label in found["labels"].tolist()]
    if "scores" in found:
        names = [f"{name} {score:.2f}" for name, score in zip(names, found["scores"].tolist(), strict=True)]
    return ", ".join(names) or "nothing"
