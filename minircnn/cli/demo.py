"""``minircnn demo``: the four detectors side by side, on a scene of Toy Town and on the user's own images."""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Mapping, Sequence
from html import escape
from itertools import chain
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Annotated, Any

import typer

from minircnn.cli import common
from minircnn.cli.common import RefusedError, check_folder, check_outputs, echo
from minircnn.cli.detect import LONGEST_SIDE, MAX_PROPOSALS, complain, find_images
from minircnn.files import printable, write_atomically

if TYPE_CHECKING:
    from torch import Tensor

    from minircnn.plotting import Drawing

PAGE, TABLE = "index.html", "four_detectors.png"
MOST_IMAGES = 20  # of the user's: a page of more is heavy, and nobody looks at it
SCENE = 194  # of the test split: one of the seven scenes with six objects, the most that a scene has
SIDE = 640  # pixels of the longer side of an image on the page
GRID = {"columns": 5, "width": 15.0}  # an image, and what four detectors found in it; inches

# key: name, year, where the course builds it
DETECTORS = {
    "rcnn": ("R-CNN", 2014, "04_rcnn"),
    "fast_rcnn": ("Fast R-CNN", 2015, "06_fast_rcnn"),
    "faster_rcnn": ("Faster R-CNN", 2016, "08_faster_rcnn"),
    "mask_rcnn": ("Mask R-CNN", 2017, "10_mask_rcnn"),
}
# HTML that is XML, too. The policy is one more lock: what slipped into the page, a browser would neither run nor fetch.
_PAGE = Template("""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8" />
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'" />
<meta name="generator" content="minircnn demo" />
<title>Four detectors, the same images</title>
<style>
body { max-width: 95rem; margin: 0 auto; padding: 1rem; font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere }
img { max-width: 100%; height: auto }
</style>
</head>
<body>
<h1>Four detectors, the same images</h1>
<p>Boxes show what each detector finds; the last one also outlines it. The number behind a class is its score: of R-CNN
the margin of a support vector machine, shown from 0 up, of the others a probability, shown from 0.5 up. Times were
measured on this machine, just now; selective search counts for both R-CNN and Fast R-CNN.</p>
$content
<h2>Where to go next</h2>
<p>The detectors know six painted classes and have never seen a photograph of any of these: on photographs they are
mostly wrong. <code>make course</code> opens the notebooks, in which each is built and measured: $notebooks.
<code>minircnn detect mask_rcnn holiday.jpg --out found.png</code> looks at an image with one detector, and
<code>minircnn evaluate mask_rcnn</code> says how good it is, on 200 scenes.</p>
</body>
</html>
""")


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
    # Not every shell replaces the ``~`` of ``make demo IMAGE=~/holiday.jpg``. Path.expanduser refuses unknown users.
    files, skipped = find_images([Path(os.path.expanduser(path)) for path in images or ()])  # noqa: PTH111
    check_folder("--out", out)
    check_outputs([("--out", out / name) for name in (PAGE, TABLE)], files)
    if len(files) > MOST_IMAGES:
        raise RefusedError(f"{len(files)} images, but a demo shows at most {MOST_IMAGES}; name fewer, or use detect")
    from minircnn.datasets import ToyTown, read_image
    from minircnn.plotting import draw_png

    for path, reason in skipped:
        complain(path, reason)
    echo("reading the detectors")
    models = {key: common.read_detector(key, common.detector_file(key, None)) for key in DETECTORS}
    for key, model in models.items():
        common.set_threshold(model, common.score_threshold(key))
    data = ToyTown("test")
    scene, truth = data[SCENE]
    _look_at(models, scene)  # not counted: the first look takes longer, while memory is fetched and code is chosen
    rows = [_show(models, data.classes, "A scene of Toy Town", scene, truth)]
    for path in files:
        try:
            with common.naming_memory():
                rows.append(_show(models, data.classes, str(path), read_image(path)))
        except (OSError, ValueError) as error:
            skipped.append((path, str(error)))
            complain(*skipped[-1])
    sections, drawings, titles = zip(*rows, strict=True)
    write_atomically(out / TABLE, draw_png([*chain(*drawings)], data.classes, [*chain(*titles)], **GRID))
    notebooks = ", ".join(f"<code>notebooks/{book}.ipynb</code>" for _, _, book in DETECTORS.values())
    write_atomically(out / PAGE, _PAGE.substitute(notebooks=notebooks, content="\n".join(sections)).encode())
    echo(f"written to {out / TABLE}", f"written to {out / PAGE}: open it in a browser")
    if skipped:
        raise typer.Exit(1)


def _look_at(models: Mapping[str, Any], image: Tensor) -> list[tuple[common.Detections, float]]:
    """What each detector finds in an image (3, H, W), and the seconds that it took; selective search runs once."""
    from minircnn.selective_search import selective_search

    start = time.perf_counter()
    proposals = selective_search(image, max_proposals=MAX_PROPOSALS)
    searching, looks = time.perf_counter() - start, []
    for key, model in models.items():
        on_proposals, start = key in common.ON_PROPOSALS, time.perf_counter()
        found = common.detect_in(model, image, proposals if on_proposals else None)
        looks.append((found, time.perf_counter() - start + searching * on_proposals))
    return looks


def _show(
    models: Mapping[str, Any], classes: Sequence[str], name: str, image: Tensor, truth: Mapping[str, Any] | None = None
) -> tuple[str, list[Drawing], list[str]]:
    """Let all detectors look at an image, and print what they found.

    Returns the part of the page about it; drawings of what is there, if that is known, and of what each found; titles.
    """
    import torch

    from minircnn.plotting import draw_png, make_drawing
    from minircnn.selective_search import shrink

    about = f"{image.shape[2]} × {image.shape[1]} pixels"
    if max(image.shape) > LONGEST_SIDE:  # the detectors would shrink it, too; masks of many pixels fill the memory
        image = torch.from_numpy(shrink(image, LONGEST_SIDE)).float().permute(2, 0, 1).contiguous()
        about += f", shrunk to {image.shape[2]} × {image.shape[1]} before the detectors saw it"
    about += f". What is there: {_names(truth, classes)}." if truth else "."
    there = truth or {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    drawings, titles, finds = [make_drawing(image, there, SIDE)], [Path(name).name], []
    for (detector, year, *_), (found, seconds) in zip(DETECTORS.values(), _look_at(models, image), strict=True):
        objects = f"{len(found['labels'])} object{'s' * (len(found['labels']) != 1)}"
        echo(f"{name}: {detector}: {objects} in {seconds:.3f} s")
        drawings.append(make_drawing(image, found, SIDE))
        titles.append(f"{detector} ({year})\n{objects}, {seconds:.3f} s")
        finds.append(f"{detector} finds {_names(found, classes)} in {seconds:.3f} s")
    png = base64.b64encode(draw_png(drawings, classes, titles, dpi=150, **GRID)).decode()
    title, alt = escape(printable(name)), escape("; ".join(finds))
    alt = f"{title} five times: as it is, and with what each detector finds. {alt}"
    section = f'<h2>{title}</h2>\n<p>{about}</p>\n<img src="data:image/png;base64,{png}" alt="{alt}" />'
    return section, drawings, titles


def _names(found: Mapping[str, Any], classes: Sequence[str]) -> str:
    """What an image shows, for those who cannot see it."""
    names = [classes[label] for label in found["labels"].tolist()]
    if "scores" in found:
        names = [f"{name} {score:.2f}" for name, score in zip(names, found["scores"].tolist(), strict=True)]
    return ", ".join(names) or "nothing"
