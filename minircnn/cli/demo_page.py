"""What ``minircnn demo`` shows: the words about the detectors, the sections of its page, and the same as one PNG."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from minircnn.cli.drawing import Drawing, titles_of
from minircnn.files import printable

if TYPE_CHECKING:
    from torch import Tensor

    from minircnn.cli.page import Panel, Section

GENERATOR = "minircnn demo"
TITLE = "Four detectors, the same pictures"
PANEL_WIDTH = 3.2  # inches, for one picture on the page
TABLE_WIDTH = 15.0  # inches, for a picture and what four detectors found in it
TABLE_MARGIN = 0.8  # inches, for what stands above and below the pictures
MEANING = (
    "The number behind a class says how sure a detector is: for R-CNN the margin of a support vector machine, shown "
    "from 0 up, for the others a probability, shown from 0.5 up."
)
INTRODUCTION = (
    "Four detectors look at the same pictures, in the order in which they were invented. Boxes show what each one "
    f"finds; the last one also outlines it. {MEANING} Times were measured on this machine, just now."
)


@dataclass(frozen=True)
class Detector:
    """What is said about a detector.

    Attributes:
        command: as in ``minircnn detect COMMAND``; its weights have this name, too.
        year: of the paper as it is quoted.
        proposer: where its proposals come from.
        new: what it brought, in one sentence.
        notebook: where the course builds it.
    """

    command: str
    name: str
    year: int
    proposer: str
    new: str
    notebook: str


DETECTORS = (
    Detector(
        *("rcnn", "R-CNN", 2014, "selective search"),
        "Each proposed region is cut out of the picture and goes through the network by itself; support vector "
        "machines name it.",
        "04_rcnn",
    ),
    Detector(
        *("fast_rcnn", "Fast R-CNN", 2015, "selective search"),
        "The network sees the whole picture once; regions are cut out of its features, and all is learned together.",
        "06_fast_rcnn",
    ),
    Detector(
        *("faster_rcnn", "Faster R-CNN", 2016, "its own"),
        "The same features also say where to look: a small network proposes regions in place of selective search.",
        "08_faster_rcnn",
    ),
    Detector(
        *("mask_rcnn", "Mask R-CNN", 2017, "its own"),
        "Features are read between cells, without rounding, and one more branch outlines each object pixel by pixel.",
        "10_mask_rcnn",
    ),
)


@dataclass(frozen=True)
class Look:
    """What one detector made of one picture.

    Attributes:
        found: detections above its threshold, best first; masks are bool.
        proposals: how many regions it judged.
        proposing: seconds that these took.
        rest: seconds that all else took.
    """

    found: dict[str, Tensor]
    proposals: int
    proposing: float
    rest: float


@dataclass(frozen=True)
class Seen:
    """A picture that all detectors have looked at, ready to be drawn.

    Attributes:
        size: ``(height, width)`` of the picture in its file.
        shown: ``(height, width)`` of what the detectors saw.
        given: the picture, with what is there if that is known.
        truth: whether it is.
        looks: of each detector, in the order of ``DETECTORS``.
        drawings: of what each found.
    """

    size: tuple[int, int]
    shown: tuple[int, int]
    given: Drawing
    truth: bool
    looks: list[Look]
    drawings: list[Drawing]


def counts(look: Look) -> str:
    """How much was found."""
    found = len(look.found["scores"])
    return f"{found} object{'s' * (found != 1)}"


def times(look: Look) -> str:
    """How many proposals there were, and how long all took."""
    return f"{look.proposals} proposals in {look.proposing:.3f} s, the rest in {look.rest:.3f} s"


def section_of(seen: Seen, classes: Sequence[str]) -> Section:
    """The part of the page about one picture."""
    from minircnn.cli.page import Panel, Section, panel_png
    from minircnn.plotting import plot_detections

    name = printable(seen.given.path.name)

    def panel(title: str, drawing: Drawing, shows: str, **more: Any) -> Panel:  # noqa: ANN401 - what Panel takes
        h, w = drawing.pixels.shape[:2]
        width = PANEL_WIDTH * min(1.0, w / h)
        png = panel_png(plot_detections(drawing.pixels, drawing.found, classes, width=width))
        return Panel(title, png, f"{name} {shows}", **more)

    bare = replace(seen.given, found={key: value[:0] for key, value in seen.given.found.items()})
    given = [panel("The picture", bare, "as it is")]
    if seen.truth:
        given.append(panel("What is there", seen.given, f"with what is there: {_names(seen.given.found, classes)}"))
    found = []
    for one, look, drawing in zip(DETECTORS, seen.looks, seen.drawings, strict=True):
        shows = f"with what {one.name} finds: {_names(look.found, classes)}"
        numbers = {
            "proposals": f"{look.proposals} ({one.proposer})",
            "time for these": f"{look.proposing:.3f} s",
            "for the rest": f"{look.rest:.3f} s",
            "found": counts(look),
        }
        found.append(panel(f"{one.name} ({one.year})", drawing, shows, text=one.new, facts=numbers))
    return Section(name, [_about(seen)], [given, found])


def _names(found: Mapping[str, Any], classes: Sequence[str]) -> str:
    """What a picture shows, for those who cannot see it."""
    names = [classes[label] for label in found["labels"]]
    if "scores" in found:
        names = [f"{name} {score:.2f}" for name, score in zip(names, found["scores"].tolist(), strict=True)]
    return ", ".join(names) or "nothing"


def _about(seen: Seen) -> str:
    (height, width), (h, w) = seen.size, seen.shown
    size = f"{width} × {height} pixels"
    if seen.shown != seen.size:
        size += f", shrunk to {w} × {h} before the detectors saw it"
    if seen.truth:
        return f"{size}. The detectors learned from other scenes of this kind; none of them was trained on this one."
    return f"{size}. The detectors know painted toys and nothing else: what they find in a photograph is mostly wrong."


def notes(classes: Sequence[str], left_out: Sequence[str]) -> list[Section]:
    """What is said below the pictures."""
    import torch

    from minircnn.cli.page import Section

    now, threads = f"{datetime.now():%Y-%m-%d %H:%M}", torch.get_num_threads()
    numbers = [
        f"Seconds were measured on this machine, in this one run ({now}, {threads} thread{'s' * (threads != 1)}); the "
        "next run will give others. Selective search ran once for each picture: R-CNN and Fast R-CNN were given the "
        "same proposals. The others propose regions themselves, from the features that they need anyway; counted as "
        "time of the proposals is what that adds.",
        f"{_known(classes)} They were trained on painted scenes of 128 × 128 pixels and have never seen a photograph "
        "of any of these.",
    ]
    steps = [
        "`make course` opens the notebooks, in which each of these detectors is built and measured: "
        + ", ".join(f"`notebooks/{one.notebook}.ipynb` ({one.name})" for one in DETECTORS[:-1])
        + f" and `notebooks/{DETECTORS[-1].notebook}.ipynb` ({DETECTORS[-1].name}).",
        "`make demo PICTURE=holiday.jpg` makes this page with a picture of yours, and "
        "`minircnn detect mask_rcnn holiday.jpg --out found.png` looks at one with one detector. "
        "`minircnn evaluate mask_rcnn` says how good it is, on 200 scenes.",
    ]
    missing = [Section("What was left out", ["These could not be read:"], items=left_out)] if left_out else []
    return [*missing, Section("What the numbers mean", numbers), Section("Where to go next", steps)]


def draw_table(seen: Sequence[Seen], classes: Sequence[str]) -> bytes:
    """The same as one PNG: a row for each picture, with what each detector found beside it."""
    import matplotlib.pyplot as plt

    from minircnn.plotting import image_grid, render_png

    names = [title.partition("\n")[0] for title in titles_of([one.given for one in seen])]
    drawings, titles = [], []
    for one, name in zip(seen, names, strict=True):
        drawings += [one.given, *one.drawings]
        titles.append(f"{name}\n{'what is there' if one.truth else 'as it is'}\n")
        titles += [
            f"{detector.name} ({detector.year})\n{counts(look)}\n{times(look)}"
            for detector, look in zip(DETECTORS, one.looks, strict=True)
        ]
    axes = image_grid(
        [drawing.pixels for drawing in drawings],
        titles=titles,
        objects=[drawing.found for drawing in drawings],
        classes=classes,
        columns=1 + len(DETECTORS),
        width=TABLE_WIDTH,
    )
    figure = axes[0].get_figure()
    figure.set_size_inches(TABLE_WIDTH, figure.get_size_inches()[1] + TABLE_MARGIN)
    figure.suptitle(TITLE, fontsize=14)
    figure.supxlabel(f"{MEANING}\nSeconds are those of this run on this machine. {_known(classes)}", fontsize=9)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph")  # letters of names that the font lacks become boxes
            return render_png(figure)
    finally:
        plt.close(figure)


def _known(classes: Sequence[str]) -> str:
    names = f"{', '.join(classes[1:-1])} and {classes[-1]}"
    return f"The detectors know {len(classes) - 1} painted classes, {names}: on photographs they are mostly wrong."
