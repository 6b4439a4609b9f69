"""Regions on a feature map: its cells, a region's bins, and the cells that were chosen.

A map is drawn in the pixels of its image: cell (row i, column j) covers the square from (j, i) to (j + 1, i + 1),
times the stride. So a box in pixels, drawn with the same axes, lies where pooling sees it.

Shape comments: h w size of the map, n m rows and columns of a region's grid of bins.
"""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.patches import FancyBboxPatch
from torch import Tensor

from minircnn.plotting import TITLE_SIZE, Color, class_color, text_color

Edges = Sequence[tuple[float, float]]

_BIN_COLORS = (2, 1, 4, 5)  # labels of class_color: neighboring bins differ, also across a corner
_INSETS = (0.07, 0.17)  # of a cell


def plot_cells(
    values: Tensor,
    *,
    stride: float = 1,
    numbers: str | None = None,
    limits: tuple[float, float] | None = None,
    colors: str = "inferno",
    ax: Axes | None = None,
    title: str | None = None,
) -> Axes:
    """One channel of a feature map, each cell a square of its color.

    Args:
        values: (h, w), finite.
        stride: Pixels of the image per cell.
        numbers: How to write a cell's value into it, such as ``".0f"``; None writes nothing.
        limits: The values of the first and of the last color; by default the least value, or 0 if that is less, and
            the largest.
        colors: Name of a matplotlib color map.
        ax: Where to draw; by default a new figure.
        title: Title.

    Returns:
        The axes: x from 0 to w · stride, y from 0 (top) to h · stride.

    Raises:
        ValueError: Another shape, no cell, or a value that is nan or infinite.
    """
    cells = values.detach().cpu().double().numpy()
    if cells.ndim != 2 or 0 in cells.shape or not np.isfinite(cells).all():
        raise ValueError(f"values must be (h, w), one channel of finite numbers, but are {tuple(values.shape)}")
    height, width = cells.shape
    if ax is None:
        _, ax = plt.subplots(figsize=(4.5 * min(1, width / height), 4.5 * min(1, height / width)), layout="constrained")
    low, high = limits or (min(0.0, float(cells.min())), float(cells.max()))
    image = ax.imshow(
        cells,
        extent=(0, width * stride, height * stride, 0),
        cmap=colors,
        vmin=low,
        vmax=high,
        interpolation="nearest",
    )
    ax.set(xlim=(0, width * stride), ylim=(height * stride, 0), xticks=[], yticks=[])
    ax.set_anchor("S")  # as show_image does: an image and its map side by side stand on one line
    ax.set_autoscale_on(False)
    for spine in ax.spines.values():
        spine.set_visible(False)
    if numbers is not None:
        for (row, column), value in np.ndenumerate(cells):
            shade = text_color(image.cmap(image.norm(value))[:3])
            x, y = (column + 0.5) * stride, (row + 0.5) * stride
            ax.text(x, y, format(value, numbers), ha="center", va="center", color=shade, clip_on=True, zorder=5)
    if title:
        ax.set_title(title, fontsize=TITLE_SIZE)
    return ax


def draw_grid(ax: Axes, stride: float, color: str = "white", opacity: float = 0.4) -> None:
    """The edges of a map's cells over whatever the axes show, a line every ``stride`` pixels.

    Args:
        ax: Axes that show an image or a map.
        stride: Pixels per cell.
        color: Of the lines.
        opacity: Of the lines, from 0 to 1.
    """
    right, bottom = ax.get_xlim()[1], ax.get_ylim()[0]
    down = [[(x, 0), (x, bottom)] for x in np.arange(0, right + 1e-6, stride)]
    across = [[(0, y), (right, y)] for y in np.arange(0, bottom + 1e-6, stride)]
    lines = LineCollection([*down, *across], colors=color, linewidths=0.6, alpha=opacity, zorder=3)
    ax.add_collection(lines, autolim=False)


def draw_bins(ax: Axes, rows: Edges, columns: Edges, *, stride: float = 1) -> None:
    """The bins of a region, each with an outline a little inside of its edges.

    Bins may share cells. Neighbors have other colors and lie at other distances from their edges, so that in a shared
    cell both outlines can be seen.

    Args:
        ax: Axes that show the map, see :func:`plot_cells`.
        rows: For each of the n rows of bins the cell where it starts and the cell before which it ends.
        columns: The same for the m columns.
        stride: Pixels of the image per cell.
    """
    for i, (top, bottom) in enumerate(rows):
        for j, (left, right) in enumerate(columns):
            if bottom <= top or right <= left:
                continue  # an empty bin, outside of the map
            inset = _INSETS[(i + j) % 2]
            corner = ((left + inset) * stride, (top + inset) * stride)
            size = ((right - left - 2 * inset) * stride, (bottom - top - 2 * inset) * stride)
            color = bin_color(i, j)
            style = f"round,pad=0,rounding_size={0.12 * stride}"
            ax.add_patch(
                FancyBboxPatch(
                    corner, *size, boxstyle=style, facecolor=(*color, 0.12), edgecolor=color, linewidth=2, zorder=4
                )
            )


def bin_color(row: int, column: int) -> Color:
    """The color of a bin in :func:`draw_bins`; it returns after two rows, and after two columns."""
    return class_color(_BIN_COLORS[2 * (row % 2) + column % 2])


def mark_cells(ax: Axes, cells: Sequence[tuple[int, int]], *, stride: float = 1, color: str = "black") -> None:
    """A ring around the middle of some cells: those whose value was taken.

    Args:
        ax: Axes that show the map, see :func:`plot_cells`.
        cells: (row, column) of each.
        stride: Pixels of the image per cell.
        color: Of the rings.
    """
    if cells:
        y, x = (np.array(cells, dtype=float) + 0.5).T * stride
        ax.scatter(x, y, s=380, facecolors="none", edgecolors=color, linewidths=2, zorder=6)
