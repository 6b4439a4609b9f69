"""What the figures of several notebooks share: boxes in lines, curves, bars, and dots with their mean.

Nothing here is meant for a notebook itself, so `figures` does not hold it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import FancyBboxPatch, Rectangle
from matplotlib.patheffects import withStroke
from torch import Tensor

from minircnn.course.figures.colors import PALE
from minircnn.course.figures.display import Box, Curves, Names, Target
from minircnn.plotting import Color, class_color


def outline(ax: Axes, box: Box, color: str | Color, style: str = "-", width: float = 2, edge: bool = True) -> Rectangle:
    """One box ``(4,)`` on axes, with a thin dark edge that keeps it visible on bright images."""
    x1, y1, x2, y2 = (float(value) for value in box)
    patch = Rectangle((x1, y1), x2 - x1, y2 - y1, facecolor=(*to_rgb(color), 0.0), edgecolor=color)
    patch.set(linestyle=style, linewidth=width)
    if edge:
        patch.set_path_effects([withStroke(linewidth=width + 1.5, foreground="black", alpha=0.6)])
    return ax.add_patch(patch)


def dash_truth(ax: Axes, target: Target) -> None:
    """The boxes of a target, dashed, in the colors of their classes."""
    for box, label in zip(target["boxes"], target["labels"].tolist(), strict=True):
        outline(ax, box, class_color(label), style="--", width=1.4)


def zoom(ax: Axes, boxes: Tensor, margin: float, square: bool = False) -> None:
    """Show only what lies around all of the boxes ``(N, 4)``: their hull, or a square around it."""
    low, high = boxes[:, :2].amin(dim=0) - margin, boxes[:, 2:].amax(dim=0) + margin
    if square:
        half = torch.full((2,), float((high - low).max()) / 2)
        low, high = (low + high) / 2 - half, (low + high) / 2 + half
    ax.set(xlim=(low[0].item(), high[0].item()), ylim=(high[1].item(), low[1].item()))


def plot_curves(ax: Axes, x: Sequence[float], curves: Curves, colors: Names, **options: object) -> None:
    """A line with a dot at each x for every curve; with ``xscale="log"`` the ticks are at x."""
    for (name, values), color in zip(curves.items(), colors, strict=False):
        ax.plot(x, values, "o-", markersize=4.5, color=color, label=name)
    ax.grid(color="0.9")
    ax.set_axisbelow(True)
    ax.set(**options)
    if options.get("xscale") == "log":
        ax.set_xticks(x, x)
        ax.minorticks_off()
        kept = x[-1]
        for value, label in zip(x[-2::-1], ax.get_xticklabels()[-2::-1], strict=True):
            label.set_visible(kept >= 1.6 * value)  # else it would touch the next one
            kept = value if label.get_visible() else kept


def plot_bars(ax: Axes, values: Mapping[str, float], color: str | Sequence[Any], form: str = ".1f") -> None:
    """A horizontal bar for each name, from the top, with its number at the end."""
    drawn = ax.barh(range(len(values)), [*values.values()], color=color)
    ax.bar_label(drawn, [format(value, form) for value in values.values()], padding=3, fontsize=9)
    name_rows(ax, values)


def plot_parts(ax: Axes, rows: Curves, parts: Mapping[str, Any]) -> None:
    """A horizontal bar for each row, from the top, divided into parts, each in its color."""
    left = np.zeros(len(rows))
    for (part, color), values in zip(parts.items(), np.array([*rows.values()]).T, strict=True):
        ax.barh(range(len(rows)), values, left=left, color=color, edgecolor="white", linewidth=0.5, label=part)
        left += values
    name_rows(ax, rows)


def plot_dots(ax: Axes, groups: Curves, colors: str | Names, **options: object) -> None:
    """A row for each group, from the top: a dot for each of its values, and a line at their mean."""
    colors = [colors] * len(groups) if isinstance(colors, str) else colors
    for y, (values, color) in enumerate(zip(groups.values(), colors, strict=True)):
        ax.plot([np.mean(values)] * 2, [y - 0.28, y + 0.28], color="0.25", linewidth=2)
        ax.scatter(values, [y] * len(values), s=42, color=color, alpha=0.75, edgecolors="white", zorder=3)
    ax.grid(axis="x", color="0.92")
    ax.set_axisbelow(True)
    ax.set(**options)
    name_rows(ax, groups)


def name_rows(ax: Axes, names: Names | Mapping[str, Any]) -> None:
    """Names beside rows at the heights 0, 1, 2, … from the top."""
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.5)


def draw_diagram(ax: Axes, title: str, size: tuple, blocks: Sequence[tuple], arrows: Sequence[tuple]) -> None:
    """Blocks, of left edge, middle height, width, text and color, and arrows from a point to a point."""
    ax.set(xlim=(0, size[0]), ylim=(0, size[1]))
    ax.set_title(title, fontsize=10.5, loc="left")
    ax.axis("off")
    for x, y, width, text, color in blocks:
        style = {"boxstyle": "round,pad=0.02", "facecolor": PALE[color], "edgecolor": color}
        ax.add_patch(FancyBboxPatch((x, y - 0.34), width, 0.68, **style))
        ax.text(x + width / 2, y, text, ha="center", va="center", fontsize=9.5)
    for start, end in arrows:
        ax.annotate("", xy=end, xytext=start, arrowprops={"arrowstyle": "-|>", "color": "0.35", "linewidth": 1.4})


def mark_y(ax: Axes, y: float, text: str) -> None:
    """A dashed line across the axes at y, named at its right end."""
    ax.axhline(y, color="0.5", linestyle="--", linewidth=1)
    look = {"xycoords": ax.get_yaxis_transform(), "textcoords": "offset points", "fontsize": 9, "color": "0.35"}
    ax.annotate(text, (0.99, y), xytext=(0, 2), ha="right", va="bottom", **look)


def listed(values: Mapping[str, float], form: str = ".2f") -> str:
    """Names and numbers as a part of a sentence.

    >>> listed({"pool5": 46.1, "fc6": 51.0}, ".0f")
    'pool5 46, fc6 51'
    """
    return ", ".join(f"{name} {value:{form}}" for name, value in values.items())
