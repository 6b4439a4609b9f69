"""Measure all four detectors side by side, and check the story's claims.

Each sees the same test images of Toy Town, in turn, on one thread. The table says how much they find, how long each
stage takes, and what their trainings and weights come to; then it says the same about time for an image and a network
of the papers' size. Below stand the claims of the story, each with what was measured about it. If one does not hold,
the exit status is 1: on few images that may be chance.
"""

import argparse
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from textwrap import fill
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from PIL import Image, PngImagePlugin
from tqdm import tqdm

from minircnn.cache import fingerprint
from minircnn.course.claims import CLAIMS, Results, gather
from minircnn.course.figures.history import plot_generations, plot_history
from minircnn.course.history import GENERATIONS, SCENE, load_all, views_of
from minircnn.course.record import as_text, notes, read_record, rows_of, table, titles_of
from minircnn.datasets import ToyTown
from minircnn.files import sha256, write_atomically, write_json
from minircnn.plotting import render_png
from minircnn.shipped import PROJECT_FOLDER
from workshop.history.measure import make_record
from workshop.history.scale import PaperScale
from workshop.pages import as_markdown, section_of, with_section

WIDTH = 110  # letters in a line of prose: about as many as the table has
MARKER = "history"  # between two of these stand the parts of pages that are written by the program
README, PAGE = PROJECT_FOLDER / "README.md", PROJECT_FOLDER / "docs" / "history.md"
_CHUNK = "minircnn"  # the name of the text in a PNG that says what it was drawn from
Record = Mapping[str, Any]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, or read a record; print the report and write the files that were asked for."""
    parser = argparse.ArgumentParser(prog="python -m workshop.history", description=__doc__)
    parser.add_argument("--images", type=int, metavar="N", help="the first N test images (all of them)")
    parser.add_argument("--no-scale", dest="scale", action="store_false", help="do not time the papers' size")
    parser.add_argument("--no-training", dest="training", action="store_false", help="do not time trainings")
    parser.add_argument("--read", type=Path, metavar="FILE", help="report on this history.json, and measure nothing")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write history.json and the two figures here")
    parser.add_argument("--update", action="store_true", help="renew data/results, docs and the README")
    options = parser.parse_args(arguments)
    if options.read and (options.images or not options.scale or not options.training):
        parser.error(f"--read {options.read}: nothing is measured; leave --images, --no-scale and --no-training out")
    if options.out and (options.out.exists() or not options.out.absolute().parent.is_dir()):
        parser.error(f"--out {options.out}: name a new folder, in a folder that exists")
    try:
        if options.update:
            for page in (README, PAGE):
                section_of(page, MARKER)  # refuses a page without markers before any work
        record = read_record(options.read) if options.read else _measured(options)
        results = gather(record)
        print(as_text(table(record)), *(fill(note, WIDTH) for note in notes(record)), sep="\n\n")
        print("\n" + claims_as_text(results))
        _write(record, results, options.out, options.update)
    except (ValueError, OSError) as error:
        raise SystemExit(f"Error: {error}") from None
    if wrong := [one.id for one in CLAIMS if one.verdict(results) == "no"]:
        raise SystemExit(f"Not borne out: {', '.join(wrong)}.")


def _measured(options: argparse.Namespace) -> dict[str, Any]:
    words = [*([f"--images {options.images}"] if options.images else []), *([] if options.scale else ["--no-scale"])]
    words += [*([] if options.training else ["--no-training"]), *(["--update"] if options.update else [])]
    return make_record(
        options.images,
        scale=PaperScale() if options.scale else None,
        training=options.training,
        command=" ".join(["python -m workshop.history", *words]),
        progress=lambda things, what: tqdm(things, desc=what, disable=None, leave=False),
    )


def _write(record: Record, results: Results, out: Path | None, update: bool) -> None:
    """Draw first and write last, each file whole."""
    places = [(out / "history.json", out)] if out else []
    places += [(PROJECT_FOLDER / "data" / "results" / "history.json", PROJECT_FOLDER / "docs")] if update else []
    if not places:
        return
    if fingerprint_of_weights(record) != fingerprint_of_weights():
        raise ValueError("the record was made with other weights than are there now: measure again")
    matplotlib.use("Agg")
    drawn = {"history.png": draw_history(record), "history_images.png": draw_scene()}
    for json_file, folder in places:
        write_json(json_file, record)
        for name, png in drawn.items():
            write_atomically(folder / name, png)
        print(f"written to {json_file} and {folder}")
    if update:
        for page, new in ((README, summary(results)), (PAGE, details(results))):
            write_atomically(page, with_section(page, MARKER, new).encode())
            print(f"written to {page}")


# ------------------------------------------------------------------------- words


def claims_as_text(results: Results) -> str:
    """The claims for a terminal, two lines each."""
    lines = []
    for one in CLAIMS:
        sign = {"yes": "✓", "in part": "~", "no": "✗"}[one.verdict(results)]
        lines += [f"{sign} {one.id:<3} {one.text} [{', '.join(one.notebooks)}]", f"      {one.evidence(results)}"]
    return "\n".join(lines)


_FIGURE = "![Bars for the four detectors: average precision of boxes and masks, and the time for an image by stages]"


def summary(results: Results) -> list[str]:
    """The paragraphs of the README's part."""
    return [f"{_FIGURE}(docs/history.png)", as_markdown(table(results["history"], stages=False))]


def details(results: Results) -> list[str]:
    """Those of the page's part."""
    record = results["history"]
    claims = [
        [one.id, one.text, one.evidence(results), ", ".join(one.notebooks), one.verdict(results)] for one in CLAIMS
    ]
    return [
        f"{_FIGURE}(history.png)",
        as_markdown(table(record, stages=False)),
        "\n".join(f"- {note}" for note in notes(record)),
        "![One scene as the four detectors see it: above their proposals, below what they find in it]"
        "(history_images.png)",
        "One scene, chosen because much overlaps in it. How good the detectors are, the table says, not this image. "
        "Shown is what an SVM says yes to, or what has a probability above one half.",
        f"## The story's {len(claims)} claims, and what was measured about each",
        as_markdown([["", "claim", "measured", "notebooks", "holds"], *claims], right=False),
    ]


# ------------------------------------------------------------------------- figures

# Whether a PNG belongs to a record cannot be seen from its pixels, which differ from one version of matplotlib to the
# next. So a text inside the file says from which figures, or from which weights, it was drawn.


def draw_history(record: Record) -> bytes:
    """The figure of accuracy and time, as PNG."""
    return _finish(plot_history(rows_of(record), titles_of(record)), fingerprint_of_record(record))


def fingerprint_of_record(record: Record) -> str:
    """A name for what the figure of a record shows; of another record that shows the same, the same."""
    return fingerprint(json.dumps([[asdict(row) for row in rows_of(record)], titles_of(record)]))


def draw_scene() -> bytes:
    """One scene as all four detectors see it, as PNG."""
    test = ToyTown("test", masks=False)
    image = test.load_image(SCENE)
    with torch.no_grad():
        axes = plot_generations(image, views_of(image, load_all()), test.classes)
    return _finish(axes[0, 0].get_figure(), fingerprint_of_weights())


def fingerprint_of_weights(record: Record | None = None) -> str:
    """A name for what the scene was drawn from: its number, and the weights of a record, or those that are there."""
    names = [record["detectors"][one.key]["sha256"] if record else sha256(one.weights) for one in GENERATIONS]
    return fingerprint(SCENE, *names)


def _finish(figure: Figure, name: str) -> bytes:
    try:
        png = render_png(figure)
    finally:
        plt.close(figure)
    info, buffer = PngImagePlugin.PngInfo(), io.BytesIO()
    info.add_text(_CHUNK, name)
    with Image.open(io.BytesIO(png)) as image:
        image.save(buffer, format="png", pnginfo=info, optimize=True)
    return buffer.getvalue()


if __name__ == "__main__":
    main()
