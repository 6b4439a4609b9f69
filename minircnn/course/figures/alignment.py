"""A region as RoIPool and as RoIAlign see it, on the image and on its feature map.

Cell (row i, column j) of the map covers the square from (j, i) to (j + 1, i + 1) in cells; in the image it is as many
pixels wide as the image has pixels for each cell, which need not be a whole number.
"""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from minircnn.course.figures.colors import EXACT, POOLED
from minircnn.course.figures.regions import plot_cells
from minircnn.plotting import NOTEBOOK_WIDTH, TITLE_SIZE, Color, Image, as_pixels, draw_box, show_image
from minircnn.pooling import Misalignment, misalignment

ROUNDED_DOWN: Color = (1.0, 0.35, 0.85)

_HIGHEST = 4.8  # inches of a figure
_LINE = 2.2  # points; leaves of the dark rim enough to be seen
_FEW = 40  # cells along an axis up to which each edge gets a tick


def plot_misalignment(
    image: Image,
    region: Sequence[float],
    feature_size: tuple[int, int],
    *,
    rounded_down: bool = False,
    window: Sequence[float] | None = None,
    axes: Sequence[Axes] | None = None,
    titles: tuple[str, str] | None = None,
) -> np.ndarray:
    """A region, the whole cells that RoIPool takes for it, and the points where RoIAlign samples: ``(2,)`` axes.

    Left the image with the edges of the map's cells; ticks count pixels. Right its mean brightness in each cell of the
    map, of size ``(height, width)``; ticks count cells. The numbers are those of :func:`misalignment`. ``window`` is
    the part in pixels that is shown. Without axes there is a new figure with a legend.
    """
    height, width = as_pixels(image).shape[:2]
    found = misalignment(region, (height, width), feature_size)
    left, top, right, bottom = window or (0, 0, width, height)
    gray = torch.from_numpy(as_pixels(image).mean(axis=2))
    cells = F.adaptive_avg_pool2d(gray[None, None], feature_size)[0, 0]
    stride = (width / feature_size[1], height / feature_size[0])  # x, y
    own_figure = axes is None
    if own_figure:
        tall = min(_HIGHEST, (NOTEBOOK_WIDTH / 2 - 0.4) * (bottom - top) / (right - left) + 1.0)
        _, axes = plt.subplots(1, 2, figsize=(NOTEBOOK_WIDTH, tall), layout="constrained")
    titles = titles or _titles(found)
    show_image(image, ax=axes[0], title=titles[0])
    plot_cells(cells, colors="gray", ax=axes[1], title=titles[1])
    for ax, unit, cell in ((axes[0], "pixels", stride), (axes[1], "cells", (1.0, 1.0))):
        _draw_edges(ax, cell, feature_size)
        _draw_region(ax, found, cell, rounded_down)
        x, y = cell[0] / stride[0], cell[1] / stride[1]  # a pixel of the image in the units of these axes
        ax.set(xlim=(left * x, right * x), ylim=(bottom * y, top * y))
        _count(ax, unit)
    if own_figure:
        handles, labels = axes[0].get_legend_handles_labels()
        axes[0].get_figure().legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    return axes


def _titles(found: Misalignment) -> tuple[str, str]:
    """How far the edges are off, in pixels, and how many cells wide what is pooled is."""
    off = max(abs(pixels) for pixels in found.shift)
    wide, taken = found.exact[2] - found.exact[0], found.pooled[2] - found.pooled[0]
    return (
        f"RoIPool's cells miss the region's edges by up to {off:.1f} pixels",
        f"{wide:.2f} cells wide; RoIPool takes {taken}, RoIAlign samples inside",
    )


def _draw_edges(ax: Axes, cell: tuple[float, float], feature_size: tuple[int, int]) -> None:
    """Thin lines along the edges of all cells; ``cell`` is the size of one, x and y, in the units of the axes."""
    height, width = feature_size
    x, y = np.arange(width + 1) * cell[0], np.arange(height + 1) * cell[1]
    lines = [[(a, 0), (a, y[-1])] for a in x] + [[(0, b), (x[-1], b)] for b in y]
    for color, line, opacity in (("black", 1.4, 0.25), ("white", 0.6, 0.7)):  # seen on a bright sky and on a dark map
        ax.add_collection(LineCollection(lines, colors=color, linewidths=line, alpha=opacity, zorder=3), autolim=False)


def _draw_region(ax: Axes, found: Misalignment, cell: tuple[float, float], rounded_down: bool) -> None:
    """The region, what RoIPool takes and the points, each with its label for the legend."""
    boxes = [("RoIPool: whole cells", found.pooled, POOLED, False), ("region", found.exact, EXACT, False)]
    if rounded_down:
        boxes.insert(1, ("rounded down", found.rounded_down, ROUNDED_DOWN, True))
    for label, box, color, dashed in boxes:
        draw_box(ax, np.multiply(box, (*cell, *cell)), color, dashed=dashed)
        ax.patches[-1].set(label=label, linewidth=_LINE)
    x, y = (found.points[..., axis].flatten().numpy() * cell[axis] for axis in (0, 1))
    look = {"color": "white", "edgecolors": "black", "linewidths": 0.9, "zorder": 6}
    ax.scatter(x, y, s=26, label="RoIAlign: sampling points", **look)


def _count(ax: Axes, unit: str) -> None:
    """Ticks along the left and the lower edge: whole cells, each if they are few, or round numbers of pixels."""
    shown = max(abs(np.subtract(*ax.get_xlim())), abs(np.subtract(*ax.get_ylim())))
    if unit == "cells":
        step = 1 if shown <= 10 else 5 if shown <= _FEW else 10
    else:
        step = next((s for s in (5, 10, 20, 50, 100, 200) if shown / s <= 9), 500)
    for set_ticks, limits in ((ax.set_xticks, ax.get_xlim()), (ax.set_yticks, sorted(ax.get_ylim()))):
        set_ticks(np.arange(np.ceil(limits[0] / step) * step, limits[1] + 1e-9, step))
    ax.tick_params(labelsize=TITLE_SIZE - 2, length=3)
    ax.set_xlabel(unit, fontsize=TITLE_SIZE - 1)
