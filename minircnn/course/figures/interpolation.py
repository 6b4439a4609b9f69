"""Figures of notebook 09: a region rounded, the value between cells, RoIAlign's matrices, what a position is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
from torch import Tensor

from minircnn.course.figures.alignment import plot_misalignment
from minircnn.course.figures.colors import BLUE, EXACT, GREEN, ORANGE, WHITE
from minircnn.course.figures.display import show
from minircnn.course.figures.panels import draw_level, listed
from minircnn.course.figures.regions import draw_bins, plot_cells, plot_row
from minircnn.plotting import draw_box
from minircnn.pooling import misalignment

_PURPLE = "#a2329a"
_COLORS = {"RoIPool": ORANGE, "RoIWarp": "#8a5fbf", "RoIAlign": BLUE}


def roundings(image: Tensor, region: Sequence[float], map_size: tuple[int, int], window: Sequence[float]) -> None:
    """A region on an image and on its map: rounded down, as RoIPool takes it, in 2 × 2 bins, and RoIAlign's points."""
    axes = plot_misalignment(image, region, map_size, rounded_down=True, window=window)
    found = misalignment(region, tuple(image.shape[1:]), map_size)
    _draw_pooled_bins(axes[1], found.pooled)
    alt = f"The upper left corner of an image and its feature map. The region ends at cell {found.exact[2]:.2f};"
    ends = f"rounded down at cell {found.rounded_down[2]}; RoIPool takes {found.pooled[2]} cells, in four bins."
    show(axes, alt=f"{alt} {ends} Sixteen sampling points of RoIAlign lie evenly in the region.")


def moved_region(
    image: Tensor, regions: Sequence[Sequence[float]], map_size: tuple[int, int], window: Sequence
) -> None:
    """A region at some positions, on the image and on the map, with RoIPool's cells and bins and RoIAlign's points."""
    figure, grid = plt.subplots(2, len(regions), figsize=(9, 4.7), layout="constrained")
    per_cell, takes = image.shape[2] / map_size[1], []
    for region, pair in zip(regions, grid.T, strict=True):
        titles = (f"left edge at pixel {region[0]:g}", f"at cell {region[0] / per_cell:.2f}")
        plot_misalignment(image, region, map_size, window=window, axes=pair, titles=titles)
        pooled = misalignment(region, tuple(image.shape[1:]), map_size).pooled
        _draw_pooled_bins(pair[1], pooled)
        takes.append(f"{pooled[0]} to {pooled[2] - 1}")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    alt = f"A region at {len(regions)} positions with the points of RoIAlign, which move with it. RoIPool takes columns"
    show(figure, alt=f"{alt} {', '.join(takes)}.")


def _draw_pooled_bins(ax: plt.Axes, pooled: Sequence[int], n: int = 2) -> None:
    edges = []
    for first, end in ((pooled[1], pooled[3]), (pooled[0], pooled[2])):
        count = end - first
        edges.append([(first + k * count // n, first - -(k + 1) * count // n) for k in range(n)])
    draw_bins(ax, *edges)


def four_cells(values: Tensor, y: float, x: float) -> None:
    """A point on a map ``(h, w)``, cell k's value at k + ½, and the areas that are its neighbors' weights."""
    top, left = int(y - 0.5), int(x - 0.5)
    figure, (whole, close) = plt.subplots(1, 2, figsize=(9, 3.9), width_ratios=(1.25, 1), layout="constrained")
    look = {"colors": "Greys", "limits": (0, 260)}
    plot_cells(values, numbers=".0f", ax=whole, title="a point, and the four cells around it", **look)
    plot_cells(values, ax=close, title="each cell's weight is the area opposite to it", **look)
    whole.scatter([x], [y], s=45, color=BLUE, edgecolors="white", zorder=7)
    draw_box(whole, (left, top, left + 2, top + 2), EXACT)
    close.set(xlim=(left, left + 2), ylim=(top + 2, top))
    weights = []
    for (row, column), color in zip(((0, 0), (0, 1), (1, 0), (1, 1)), (BLUE, ORANGE, GREEN, _PURPLE), strict=True):
        center = np.array([left + column + 0.5, top + row + 0.5])
        opposite, outwards = (left + 1.5 - column, top + 1.5 - row), (2 * column - 1, 2 * row - 1)
        corner, size = np.minimum((x, y), opposite), np.abs(np.subtract((x, y), opposite))
        weights.append(f"{size.prod():.2f}")
        close.add_patch(plt.Rectangle(corner, *size, facecolor=color, alpha=0.45, zorder=3))
        close.scatter(*center, s=60, color=color, zorder=6)
        text = {"ha": "center", "va": "center", "zorder": 8}
        close.text(*(corner + size / 2), weights[-1], **text)
        value = f"{values[top + row, left + column]:.0f}"
        close.text(*(center + np.multiply(outwards, (0.2, 0.25))), value, fontsize=12, color=color, **text)
    close.scatter([x], [y], s=60, color="black", edgecolors="white", zorder=7)
    show(figure, alt=f"A point cuts the square between four centers into areas; the weights are {', '.join(weights)}.")


def value_between_cells(values: Tensor, place: float, found: float, cells: int = 5) -> None:
    """The corner of a map ``(h, w)`` with a point, and the row through it: cells as steps, interpolation as a line."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.7), width_ratios=(1, 1.5), layout="constrained")
    corner = values[:cells, :cells]
    plot_cells(corner, numbers=".0f", colors="gray", limits=(0, 255), ax=axes[0], title="brightness of the cells")
    draw_box(axes[0], (0, 0, place, place), EXACT)
    axes[0].scatter([place], [place], s=60, color=BLUE, edgecolors="white", zorder=7)
    share, top = place - 0.5 - int(place - 0.5), int(place - 0.5)
    row = ((1 - share) * values[top] + share * values[top + 1])[:cells].numpy()
    axes[1].stairs(row, range(cells + 1), color="0.6", label="cells at this height, as steps")
    axes[1].plot(np.arange(cells) + 0.5, row, "o-", color=BLUE, label="interpolated between their centers")
    axes[1].plot([place], [found], "D", color=ORANGE, markersize=9, label=f"at {place:.2f}: {found:.0f}")
    axes[1].axvline(place, color=ORANGE, linewidth=1, linestyle="--")
    axes[1].set(xlabel="x in cells", ylabel="brightness", xlim=(0, cells), ylim=(0, 255))
    axes[1].legend(frameon=False, loc="lower left")
    alt = "The corner of the map, and its brightness along x"
    show(figure, alt=f"{alt}; interpolated at {place:.2f} it is {found:.0f}.")


def three_matrices(of_rows: Tensor, values: Tensor, of_columns: Tensor, pooled: Tensor, points: tuple) -> None:
    """Wy ``(n, h)``, a map ``(h, w)``, Wx ``(m, w)`` and their product; points (y, x), cell k's value at k."""
    figure, axes = plt.subplots(1, 4, figsize=(9, 4.0), width_ratios=(7, 8, 2, 2), layout="constrained")
    matrices = (
        (of_rows, ".2f", (0, 1), "Wy: rows of bins × rows of cells"),
        (values, ".0f", (0, 260), "F: the map, and the points"),
        (of_columns.T, ".2f", (0, 1), "Wxᵀ"),
        (pooled, ".1f", (0, 100), "result"),
    )
    for ax, (matrix, numbers, limits, title) in zip(axes, matrices, strict=True):
        plot_cells(matrix, numbers=numbers, colors="Greys" if ax in axes[[1, 3]] else "Blues", limits=limits, ax=ax)
        ax.set_title(title, fontsize=9)
        for text in ax.texts:
            text.set_fontsize(8)
    y, x = (axis.flatten() + 0.5 for axis in points)
    axes[1].scatter(*np.meshgrid(x, y), s=14, color=BLUE, zorder=6)
    show(figure, alt=f"Three matrices and their product {[[round(v, 1) for v in row] for row in pooled.tolist()]}.")


def two_gradients(channel: Tensor, box: Tensor, pooled: Tensor, aligned: Tensor, stride: int) -> None:
    """A channel ``(h, w)`` with a box, and the gradients that RoIPool and RoIAlign send to it."""
    panels = [("a channel, and the box", channel), ("gradient of RoIPool", pooled)]
    axes = plot_row(*panels, ("gradient of RoIAlign", aligned), height=2.9, stride=stride)
    for ax in axes:
        draw_box(ax, box, WHITE)
        ax.get_figure().colorbar(ax.images[0], ax=ax, shrink=0.7)
    counts = [int((values > 0).sum()) for values in (pooled, aligned)]
    show(axes, alt=f"The gradient of a region reaches {counts[0]} cells by RoIPool, {counts[1]} by RoIAlign.")


def errors_of_position(errors: Mapping[str, Mapping[str, Tensor]]) -> None:
    """For each map the error in pixels, by kind of pooling, over a shift by 0, 1, … pixels."""
    figure, axes = plt.subplots(1, len(errors), figsize=(9, 3.3), sharey=True, layout="constrained")
    texts = []
    for ax, (name, by_kind) in zip(axes, errors.items(), strict=True):
        ax.axhline(0, color="0.7", linewidth=0.8)
        for kind, error in by_kind.items():
            ax.plot(error, ".-", color=_COLORS[kind], markersize=4, linewidth=1.3, label=kind)
        ax.set_title(name, fontsize=10)
        ax.set(xlabel="shift of the square in pixels", xlim=(0, 32), xticks=range(0, 33, 8))
        texts.append(f"{name}: {listed({kind: float(error.abs().max()) for kind, error in by_kind.items()}, '.1f')}")
    axes[0].set_ylabel("error in pixels")
    figure.legend(*axes[0].get_legend_handles_labels(), ncols=3, frameon=False, loc="outside lower center")
    show(figure, alt=f"Error of a square's position over its shift. Largest errors in pixels: {'; '.join(texts)}.")


def overlap_by_side(sides: Tensor, overlap: Mapping[int, Tensor], limits: Sequence[int]) -> None:
    """By stride: the IoU of a region with what RoIPool takes, over the region's side; medians between the limits."""
    figure, axes = plt.subplots(1, len(overlap), figsize=(9, 3.3), sharey=True, layout="constrained")
    texts = []
    for ax, (stride, iou) in zip(axes, overlap.items(), strict=True):
        ax.scatter(sides, iou, s=5, color=ORANGE, alpha=0.35)
        medians = [iou[(sides >= low) & (sides < high)].median().item() for low, high in pairwise(limits)]
        for ends, median in zip(pairwise(limits), medians, strict=True):
            ax.plot(ends, [median] * 2, color="black", linewidth=2.2)
        ax.set(xscale="log", xlabel="side of the region in pixels", ylim=(0, 1))
        ax.set_xticks(limits, map(str, limits))
        ax.minorticks_off()
        ax.set_title(f"stride {stride}; black: medians", fontsize=10)
        texts.append(f"stride {stride} {', '.join(f'{median:.2f}' for median in medians)}")
    axes[0].set_ylabel("IoU of RoIPool's cells\nwith the region")
    sizes = ", ".join(map(str, limits))
    show(figure, alt=f"IoU of RoIPool's cells with regions; medians between sides of {sizes}: {'; '.join(texts)}.")


def moved_objects(shifts: Sequence[int], overlaps: Mapping[str, np.ndarray]) -> None:
    """IoU of objects ``(objects, shifts)`` with themselves after a shift, for boxes and masks."""
    _, ax = plt.subplots(figsize=(7, 3.0), layout="constrained")
    last = {}
    for (name, iou), color in zip(overlaps.items(), (BLUE, _PURPLE), strict=True):
        middle, low, high = np.median(iou, axis=0), *np.percentile(iou, (25, 75), axis=0)
        ax.fill_between(shifts, low, high, color=color, alpha=0.15, linewidth=0)
        ax.plot(shifts, middle, "o-", color=color, label=f"{name}: median, and the middle half")
        last[name] = middle[-1]
    draw_level(ax, 0.75, "correct for AP75")
    ax.set(xlabel="shift to the right and down, in pixels", ylabel="IoU with itself", xticks=shifts, ylim=(0, 1))
    ax.legend(frameon=False, loc="lower left")
    show(ax, alt=f"IoU of objects with themselves after a shift; medians at {shifts[-1]} pixels: {listed(last)}.")
