"""Four detectors in one figure: what they find beside how long they take, and one image as each of them sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from minircnn.course.figures.charts import plot_proposals
from minircnn.course.figures.colors import BLUE, GRAY, GREEN, ORANGE, PURPLE, RED
from minircnn.course.figures.panels import plot_bars
from minircnn.plotting import NOTEBOOK_WIDTH, Image, Objects, draw_objects, image_grid

# Stages have the colors that they have in the notebooks: red where one waits for selective search, green where the
# network proposes itself.
STAGE_COLORS = {
    "selective search": RED,
    "convolutions": BLUE,
    "region proposal network": GREEN,
    "heads": ORANGE,
    "selection": GRAY,
    "masks": PURPLE,
}
_BOX, _MASK = "#4d4d4d", STAGE_COLORS["masks"]
_BAR = 0.68  # height of a detector's bars; the next detector is 1 away
_TIME = 0.24  # height of the bar of its time
_LEAST_LABEL = 8  # percent: in a narrower part of a bar its number has no room


@dataclass(frozen=True)
class Row:
    """One detector of the figure."""

    name: str  # stands in front of its bars
    box: float  # average precision of boxes, in [0, 1]
    mask: float | None  # the same of masks, or None
    # Panel by panel, milliseconds by stage; names of stages are those of `STAGE_COLORS`
    times: Sequence[Mapping[str, float]]
    totals: Sequence[float]  # panel by panel, milliseconds of all stages. They need not be the sums, as medians are not


def plot_history(rows: Sequence[Row], titles: Sequence[str]) -> Figure:
    """Average precision beside the time for an image, a row for each detector.

    Time has two bars in a row, both on a linear axis. The dark one is as long as the time itself, beside the longest of
    its panel: the fastest is hundreds of times as fast as the slowest, and so its bar is all but gone. The colored one
    below has full length for every detector, and is divided as its stages divide its time. ``titles`` are those of the
    panels with times.
    """
    figure, axes = plt.subplots(
        1,
        1 + len(titles),
        figsize=(NOTEBOOK_WIDTH, 1.5 + 0.6 * len(rows)),
        sharey=True,
        layout="constrained",
        gridspec_kw={"width_ratios": [0.8, *[1.25] * len(titles)]},
        squeeze=False,
    )
    first, *others = axes[0]
    _draw_accuracy(first, rows)
    for panel, (ax, title) in enumerate(zip(others, titles, strict=True)):
        _draw_times(ax, [row.times[panel] for row in rows], [row.totals[panel] for row in rows], title)
    first.set_yticks(range(len(rows)), [row.name for row in rows])
    first.set_ylim(len(rows) - 0.5, -0.5)
    used = [stage for stage in STAGE_COLORS if any(stage in times for row in rows for times in row.times)]
    handles = [Patch(color=STAGE_COLORS[stage], label=stage) for stage in used]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=8.5)
    return figure


def _draw_accuracy(ax: Axes, rows: Sequence[Row]) -> None:
    """A bar for boxes, and below it one for masks, if there are masks."""
    for y, row in enumerate(rows):
        bars = [("boxes", row.box, _BOX), *([("masks", row.mask, _MASK)] if row.mask is not None else [])]
        tall = _BAR / len(bars)
        for k, (kind, value, color) in enumerate(bars):
            middle = y - _BAR / 2 + (k + 0.5) * tall
            ax.barh(middle, 100 * value, tall * 0.94, color=color)
            text = f"{100 * value:.0f}" + (f" {kind}" if len(bars) > 1 else "")
            ax.text(100 * value - 1.5, middle, text, ha="right", va="center", fontsize=8.5, color="white")
    ax.set(xlim=(0, 100), xticks=[0, 25, 50, 75], xlabel="percent")
    ax.set_title("What they find: AP50", fontsize=10)
    _bare(ax)


def _draw_times(ax: Axes, rows: Sequence[Mapping[str, float]], totals: Sequence[float], title: str) -> None:
    """For each detector its time in percent of the longest, and below it the shares of its stages."""
    for y, (times, total) in enumerate(zip(rows, totals, strict=True)):
        whole, top = 100 * total / max(totals), y - _BAR / 2
        ax.barh(top + _TIME / 2, whole, _TIME * 0.94, color=_BOX)
        ax.text(whole + 1.5, top + _TIME / 2, in_words(total), va="center", fontsize=8.5)
        shares = 100 * np.array([*times.values()]) / sum(times.values())
        middle, tall = top + (_TIME + _BAR) / 2, _BAR - _TIME
        for (stage, time), share, end in zip(times.items(), shares, shares.cumsum(), strict=True):
            left = end - share
            ax.barh(middle, share, tall, left=left, color=STAGE_COLORS[stage], edgecolor="white", linewidth=0.5)
            if share >= _LEAST_LABEL:
                # Of the total, as in tables: the sum of medians, which makes the bar whole, is a little off it.
                label = f"{100 * time / total:.0f}"
                ax.text(left + share / 2, middle, label, ha="center", va="center", fontsize=8.5, color="white")
    ax.set(xlim=(0, 124), xticks=[0, 25, 50, 75, 100])
    ax.set(xlabel="dark: time for an image, percent of the longest\ncolors: where it goes, percent of it")
    ax.set_title(title, fontsize=10)
    _bare(ax)


def plot_cost_of_rounding(costs: Mapping[tuple[int, str], tuple[float, float]]) -> Figure:
    """What RoIPool loses against RoIAlign in points and in percent, by ``(stride, "boxes" or "masks")``."""
    figure, axes = plt.subplots(1, 2, figsize=(NOTEBOOK_WIDTH, 2.3), sharey=True, layout="constrained")
    names = [f"{kind}, stride {stride}" for stride, kind in costs]
    colors = [_MASK if kind == "masks" else _BOX for _, kind in costs]
    for n, (ax, what) in enumerate(zip(axes, ("points of AP", "percent of RoIAlign's AP"), strict=True)):
        values = [cost[n] for cost in costs.values()]
        plot_bars(ax, dict(zip(names, values, strict=True)), colors)
        ax.set(xlabel=f"lost, {what}", xlim=(0, 1.15 * max(values)))
        _bare(ax)
    return figure


def in_words(milliseconds: float) -> str:
    """A time in the unit that suits it.

    >>> in_words(8.21), in_words(38.4), in_words(1340), in_words(61200)
    ('8.2 ms', '38 ms', '1.3 s', '61 s')
    """
    value, unit = (milliseconds / 1000, "s") if milliseconds >= 1000 else (milliseconds, "ms")
    whole = value >= 9.95 or value == round(value)
    return f"{value:.0f} {unit}" if whole else f"{value:.1f} {unit}"


def _bare(ax: Axes) -> None:
    ax.tick_params(axis="y", length=0)
    ax.tick_params(labelsize=9)
    ax.xaxis.label.set_size(8.5)
    ax.grid(axis="x", color="0.92")
    ax.set_axisbelow(True)
    for side in ("top", "right", "left"):
        ax.spines[side].set_visible(False)


def plot_generations(image: Image, views: Sequence[Mapping[str, Any]], classes: Sequence[str]) -> np.ndarray:
    """One image as each of several detectors sees it: above its proposals, below what it makes of them.

    A view has ``name``, ``proposals`` ``(P, 4)`` and ``found``, its detections, which may have ``masks`` bool. Scores
    are not shown: those of support vector machines and probabilities look alike. The axes are ``(2, detectors)``.
    """
    found: list[Objects] = [{key: value for key, value in view["found"].items() if key != "scores"} for view in views]
    titles = [f"{view['name']}\n{len(view['proposals'])} proposals" for view in views]
    for objects in found:
        count, kind = len(objects["labels"]), "outlined" if "masks" in objects else "found"
        titles.append(f"{count} {kind}" if count else "nothing found")
    axes = image_grid([image] * (2 * len(views)), titles=titles, columns=len(views)).reshape(2, len(views))
    for upper, lower, view, objects in zip(*axes, views, found, strict=True):
        plot_proposals(image, view["proposals"], ax=upper)
        draw_objects(lower, objects, classes)
    return axes
