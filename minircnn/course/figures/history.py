"""Figures of notebooks 11 and 12: four detectors side by side; photographs, a pyramid and its levels, and coins."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from skimage.filters import threshold_otsu
from torch import Tensor

from minircnn.course.coins import Segmentation
from minircnn.course.figures.charts import plot_label_map, plot_proposals
from minircnn.course.figures.colors import BLUE, GRAY, GREEN, ORANGE, PURPLE, RED
from minircnn.course.figures.display import Names, Target, show
from minircnn.course.figures.panels import listed, plot_bars
from minircnn.plotting import NOTEBOOK_WIDTH, Image, Objects, draw_box, draw_objects, image_grid, show_image

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
LEVELS = {"P2": BLUE, "P3": GREEN, "P4": ORANGE, "P5": RED, "P6": PURPLE}


@dataclass(frozen=True)
class Row:
    """One detector of the figure."""

    name: str  # stands in front of its bars
    box: float  # average precision of boxes, in [0, 1]
    mask: float | None  # the same of masks, or None
    # Panel by panel, milliseconds by stage; names of stages are those of `STAGE_COLORS`
    times: Sequence[Mapping[str, float]]
    totals: Sequence[float]  # panel by panel, milliseconds of all stages. They need not be the sums, as medians are not


def plot_history(rows: Sequence[Row], titles: Names) -> Figure:
    """Average precision beside the time for an image, a row for each detector.

    Time has two bars in a row, both on a linear axis. The dark one is as long as the time itself, beside the longest of
    its panel; the colored one below has full length, and is divided as the stages divide the time. ``titles`` are those
    of the panels with times.
    """
    size, widths = (NOTEBOOK_WIDTH, 1.5 + 0.6 * len(rows)), [0.8, *[1.25] * len(titles)]
    figure = plt.figure(figsize=size, layout="constrained")
    first, *others = figure.subplots(1, len(widths), sharey=True, width_ratios=widths, squeeze=False)[0]
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


def plot_generations(image: Image, views: Sequence[Mapping[str, Any]], classes: Names) -> np.ndarray:
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


def found_in_photographs(photographs: Target, found: Sequence[Mapping], classes: Names) -> None:
    """Photographs by name, three in a row, each with the detections in it."""
    counts = [f"{name}: {len(one['labels'])} found" for name, one in zip(photographs, found, strict=True)]
    axes = image_grid([*photographs.values()], titles=counts, objects=found, classes=classes, columns=3)
    labels = [", ".join(classes[label] for label in one["labels"].tolist()) or "nothing" for one in found]
    texts = "; ".join(f"{name}: {label}" for name, label in zip(photographs, labels, strict=True))
    show(axes, alt=f"Photographs with masks, boxes and classes of what the detector finds: {texts}.")


def pyramid_maps(image: Tensor, levels: Sequence[Tensor]) -> None:
    """An image and the mean of the absolute values of each level ``(1, C, h, w)``."""
    figure, axes = plt.subplots(1, 6, figsize=(9, 1.9), layout="constrained")
    show_image(image, ax=axes[0], title="image")
    for ax, (name, color), level in zip(axes[1:], LEVELS.items(), levels, strict=True):
        ax.imshow(level[0].abs().mean(dim=0), cmap="viridis")
        ax.set_title(f"{name}, {level.shape[2]} × {level.shape[3]}", color=color, fontsize=10)
        ax.set_axis_off()
        ax.set_anchor("S")  # as show_image does
    sizes = ", ".join(f"{name} {level.shape[2]} × {level.shape[3]}" for name, level in zip(LEVELS, levels, strict=True))
    show(figure, alt=f"A photograph and the feature maps of {len(levels)} levels, of so many cells: {sizes}.")


def cells_of_levels(image: Tensor, boxes: Tensor, level_of: Callable[[Tensor], Tensor], enlarged: float) -> None:
    """How many cells a box covers by its size; and boxes ``(R, 4)`` on an image, with the cells of their levels."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    side = torch.arange(8, 1000).float()
    of_side = level_of(torch.stack([0 * side, 0 * side, side, side], dim=1))
    for k, (name, color) in zip(range(2, 6), LEVELS.items(), strict=False):
        here = side[of_side == k]
        left.plot(here, here / 2**k, color=color, linewidth=3, label=name)
    left.plot(side, side / 8, color=GRAY, linestyle=":", label="one map of stride 8")
    left.set(xlabel="side of a box in pixels", ylabel="cells a side", title="From a pyramid", ylim=(0, 60))
    left.set_xscale("log")
    left.set_xticks(ticks := [10, 30, 100, 300, 1000], ticks)
    left.legend(frameon=False)
    levels = level_of(enlarged * boxes).tolist()
    show_image(image, ax=right, title="Regions, and the cells of their levels")
    for box, k in zip(boxes.tolist(), levels, strict=True):
        color, step = [*LEVELS.values()][k - 2], 2**k / enlarged
        draw_box(right, box, color)
        right.vlines(np.arange(box[0], box[2], step), box[1], box[3], color=color, linewidth=0.4)
        right.hlines(np.arange(box[1], box[3], step), box[0], box[2], color=color, linewidth=0.4)
    names = ", ".join(f"P{k}" for k in levels)
    most = listed({f"P{k}": (side[of_side == k] / 2**k).max().item() for k in range(2, 6)}, ".0f")
    alt = f"Left: the cells of a box grow with its side, on one map and on each level, there to at most {most} cells."
    show(figure, alt=f"{alt} Right: three regions with the grids of {names}.")


def watershed_steps(photograph: np.ndarray, steps: Segmentation) -> None:
    """From gray levels to numbered coins."""
    panels: dict = {
        "the photograph": photograph,
        "one threshold (Otsu)": 1.0 * (photograph > threshold_otsu(photograph)),
        "gradient (Sobel)": steps.gradient / steps.gradient.max(),
        "certain: coin white, ground gray": np.choose(steps.markers, [0.0, 0.5, 1.0]),
        "watershed": steps.flooded * 1.0,
    }
    titles = [*panels, f"{steps.labels.max()} regions"]
    axes = image_grid([*panels.values(), photograph], titles=titles, columns=3)
    plot_label_map(steps.labels, photograph, ax=axes[-1])
    show(axes, alt=f"Coins on a dark ground, from gray levels to numbered regions in colors: {'; '.join(titles)}.")


def circles_on_masks(photograph: np.ndarray, target: Mapping, circles: Sequence[tuple], cut: int) -> None:
    """Masks in color, circles ``(x, y, radius)`` dotted, and the line between training and test."""
    ax = show_image(photograph, width=7, title="masks by the watershed (color), circles by the edges (dotted)")
    draw_objects(ax, target, boxes=False, names=False)
    for x, y, radius in circles:
        ax.add_patch(plt.Circle((x, y), radius, fill=False, edgecolor="white", linewidth=1, linestyle=":", zorder=5))
    ax.axhline(cut, color="white", linewidth=1.5)
    for row, text in ((14, "to learn from"), (cut + 10, "to measure with")):
        ax.text(6, row, text, color="white", fontsize=9)
    alt = f"A photograph with the masks of {len(target['labels'])} coins and {len(circles)} circles; a line"
    show(ax, alt=f"{alt} at row {cut} parts what is for learning from what is for measuring.")


def before_and_after(image: Tensor, panels: Mapping[str, tuple[Mapping, Names]]) -> None:
    """One image with several sets of objects, each with its classes, one below the other."""
    titles = [f"{title}: {len(objects['labels'])}" for title, (objects, _) in panels.items()]
    axes = image_grid([image] * len(panels), titles=titles, columns=1, width=7.5)
    for ax, (objects, classes) in zip(axes, panels.values(), strict=True):
        draw_objects(ax, objects, classes, names="scores" in objects)
    show(axes, alt=f"The same coins {len(panels)} times, with masks and boxes; {', '.join(titles)}.")


def starts_compared(rows: Mapping[str, Sequence[Mapping]]) -> None:
    """Mask AP of coins and nuclei by what the training began with."""
    figure, axes = plt.subplots(1, len(rows), figsize=(8.5, 2.2), layout="constrained")
    values = {name: {row["start"]: 100 * row["mask_ap"] for row in of_task} for name, of_task in rows.items()}
    for ax, (name, of_task) in zip(axes, values.items(), strict=True):
        plot_bars(ax, of_task, BLUE)
        ax.set(title=name, xlabel="mask AP, percent", xlim=(0, 115))
    texts = "; ".join(f"{name}: {listed(of_task, '.1f')}" for name, of_task in values.items())
    show(figure, alt=f"Bars of mask AP by the start of the training. {texts}.")


def rcnn_on_persons(rows: Sequence[Any]) -> None:
    """AP50 of R-CNN on photographs, with trained and with random convolutions, with box regression and without."""
    figure, ax = plt.subplots(figsize=(6.5, 2.4), layout="constrained")
    values = {}
    for row in rows:
        values |= {row.start: 100 * row.ap50, f"{row.start}, boxes as proposed": 100 * row.ap50_without}
    plot_bars(ax, values, ORANGE)
    ax.set(xlabel="AP50 of persons, percent", xlim=(0, 32))
    show(figure, alt=f"Four bars of AP50: {listed(values, '.1f')}.")
