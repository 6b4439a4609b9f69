"""Regions on a feature map: its cells, a region's bins, and the cells that were chosen.

A map is drawn in the pixels of its image: cell (row i, column j) covers the square from (j, i) to (j + 1, i + 1),
times the stride. So a box in pixels, drawn with the same axes, lies where pooling sees it.

Shape comments: h w size of the map, n m rows and columns of a region's grid of bins.
"""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.patches import FancyBboxPatch
from torch import Tensor

from minircnn.course.figures.panels import outline
from minircnn.plotting import TITLE_SIZE, class_color, show_image, text_color

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
    """One channel of a feature map, (h, w) finite numbers, each cell a square of its color.

    ``numbers`` is how to write a cell's value into it, such as ``".0f"``; ``limits`` are the values of the first and of
    the last color, by default the least value, or 0 if that is less, and the largest. x runs from 0 to w · stride.
    """
    cells = values.detach().cpu().double().numpy()
    if cells.ndim != 2 or 0 in cells.shape or not np.isfinite(cells).all():
        raise ValueError(f"values must be (h, w), one channel of finite numbers, but are {tuple(values.shape)}")
    height, width = cells.shape
    if ax is None:
        _, ax = plt.subplots(figsize=(4.5 * min(1, width / height), 4.5 * min(1, height / width)), layout="constrained")
    low, high = limits or (min(0.0, float(cells.min())), float(cells.max()))
    extent = (0, width * stride, height * stride, 0)
    image = ax.imshow(cells, extent=extent, cmap=colors, vmin=low, vmax=high, interpolation="nearest")
    ax.set(xlim=(0, width * stride), ylim=(height * stride, 0), xticks=[], yticks=[])
    ax.set_anchor("S")  # as show_image does: an image and its map side by side stand on one line
    ax.set_autoscale_on(False)
    ax.spines[:].set_visible(False)
    if title:
        ax.set_title(title, fontsize=TITLE_SIZE)
    if numbers is not None:
        for (row, column), value in np.ndenumerate(cells):
            shade = text_color(image.cmap(image.norm(value))[:3])
            x, y = (column + 0.5) * stride, (row + 0.5) * stride
            ax.text(x, y, format(value, numbers), ha="center", va="center", color=shade, clip_on=True, zorder=5)
    return ax


def plot_row(*panels: tuple, height: float, stride: float = 1) -> np.ndarray:
    """Images ``(3, H, W)`` and maps ``(h, w)`` side by side: their axes, of a new figure.

    A panel is a title, what is shown and, for a map that needs them, a dict of options of :func:`plot_cells`.
    """
    _, axes = plt.subplots(1, len(panels), figsize=(9, height), layout="constrained")
    for ax, (title, panel, *options) in zip(axes, panels, strict=True):
        if panel.ndim == 3:
            show_image(panel, ax=ax, title=title)
        else:
            plot_cells(panel, ax=ax, title=title, **{"stride": stride, **(options[0] if options else {})})
    return axes


def strongest_channel(features: Tensor, box: Tensor, stride: float) -> int:
    """The channel of ``(C, h, w)`` whose mean inside a box exceeds that outside by most."""
    x1, y1, x2, y2 = (box / stride).round().int().tolist()
    inside = torch.zeros(features.shape[1:], dtype=torch.bool)
    inside[y1:y2, x1:x2] = True
    return int((features[:, inside].mean(dim=1) - features[:, ~inside].mean(dim=1)).argmax())


def draw_grid(ax: Axes, stride: float, opacity: float = 0.4) -> None:
    """The edges of a map's cells over whatever the axes show, a line every ``stride`` pixels."""
    right, bottom = ax.get_xlim()[1], ax.get_ylim()[0]
    down = [[(x, 0), (x, bottom)] for x in np.arange(0, right + 1e-6, stride)]
    across = [[(0, y), (right, y)] for y in np.arange(0, bottom + 1e-6, stride)]
    lines = LineCollection([*down, *across], colors="white", linewidths=0.6, alpha=opacity, zorder=3)
    ax.add_collection(lines, autolim=False)


def draw_bins(ax: Axes, rows: Edges, columns: Edges, *, stride: float = 1) -> None:
    """The bins of a region, each with an outline a little inside of its edges.

    Bins may share cells. Neighbors have other colors and lie at other distances from their edges, so that in a shared
    cell both outlines can be seen. ``rows`` has for each of the n rows of bins the cell where it starts and the cell
    before which it ends, ``columns`` the same for the m columns.
    """
    for i, (top, bottom) in enumerate(rows):
        for j, (left, right) in enumerate(columns):
            if bottom <= top or right <= left:
                continue  # an empty bin, outside of the map
            inset, color = _INSETS[(i + j) % 2], class_color(_BIN_COLORS[2 * (i % 2) + j % 2])
            corner = ((left + inset) * stride, (top + inset) * stride)
            size = ((right - left - 2 * inset) * stride, (bottom - top - 2 * inset) * stride)
            look = {"facecolor": (*color, 0.12), "edgecolor": color, "linewidth": 2, "zorder": 4}
            style = f"round,pad=0,rounding_size={0.12 * stride}"
            ax.add_patch(FancyBboxPatch(corner, *size, boxstyle=style, **look))


def mark_maxima(ax: Axes, values: Tensor, rows: Edges, columns: Edges, *, stride: float = 1) -> None:
    """A ring in the cell of the largest value of each bin of one channel ``(h, w)``."""
    for top, bottom in rows:
        for left, right in columns:
            if top < bottom and left < right:
                row, column = divmod(int(values[top:bottom, left:right].argmax()), right - left)
                place = ((left + column + 0.5) * stride, (top + row + 0.5) * stride)
                ax.scatter(*place, s=380, facecolors="none", edgecolors="black", linewidths=2, zorder=6)


def plot_score_maps(axes: np.ndarray, boxes: Tensor, scores: Tensor, sizes: Sequence[float], stride: float) -> None:
    """Scores ``(A, h, w)`` of anchors, on axes with a row for each of three aspect ratios, a column for each size."""
    names = [f"{shape}, {size:.0f} px" for shape in ("wide", "square", "tall") for size in sizes]
    for ax, name, values in zip(axes.flat, names, scores, strict=True):
        plot_cells(values, stride=stride, limits=(0, 1), ax=ax, title=name)
        for box in boxes:
            outline(ax, box, "white", width=0.8, edge=False)
