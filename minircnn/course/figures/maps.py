"""Feature maps: their cells, a region's bins, and the cells and points that RoIPool and RoIAlign take for it.

A map is drawn in the pixels of its image: cell (row i, column j) covers the square from (j, i) to (j + 1, i + 1),
times the stride, so that a box in pixels, drawn with the same axes, lies where pooling sees it.

Shape comments: h w size of the map, n m rows and columns of a region's grid of bins.
"""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.patches import FancyBboxPatch
from torch import Tensor

from minircnn.course.figures.colors import EXACT, POOLED, ROUNDED_DOWN
from minircnn.course.figures.panels import outline
from minircnn.plotting import TITLE_SIZE, Image, as_pixels, class_color, draw_box, show_image, text_color
from minircnn.pooling import Misalignment, misalignment

Edges = Sequence[tuple[float, float]]

_BIN_COLORS = (2, 1, 4, 5)  # labels of class_color: neighboring bins differ, also across a corner
_INSETS = (0.07, 0.17)  # of a cell
_HIGHEST = 4.8  # inches of a figure
_LINE = 2.2  # points; leaves of the dark rim enough to be seen
_FEW = 40  # cells along an axis up to which each edge gets a tick


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
            ax.add_patch(FancyBboxPatch(corner, *size, boxstyle=f"round,pad=0,rounding_size={0.12 * stride}", **look))


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
    cells = F.adaptive_avg_pool2d(torch.from_numpy(as_pixels(image).mean(axis=2))[None, None], feature_size)[0, 0]
    stride = (width / feature_size[1], height / feature_size[0])  # x, y
    own_figure = axes is None
    if own_figure:
        tall = min(_HIGHEST, (9 / 2 - 0.4) * (bottom - top) / (right - left) + 1.0)
        _, axes = plt.subplots(1, 2, figsize=(9, tall), layout="constrained")
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
    off = max(abs(pixels) for pixels in found.shift)
    wide, taken = found.exact[2] - found.exact[0], found.pooled[2] - found.pooled[0]
    edges = f"RoIPool's cells miss the region's edges by up to {off:.1f} pixels"
    return edges, f"{wide:.2f} cells wide; RoIPool takes {taken}, RoIAlign samples inside"


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
