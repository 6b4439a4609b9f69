"""Figures of notebook 12: photographs with what is found in them, a pyramid and its levels, two thresholds' floods."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from skimage.filters import threshold_otsu
from torch import Tensor

from minircnn.course.figures.charts import plot_label_map
from minircnn.course.figures.display import show
from minircnn.plotting import draw_box, draw_objects, image_grid, show_image

if TYPE_CHECKING:
    from minircnn.course.coins import Segmentation

BLUE, GREEN, ORANGE, RED, PURPLE, GRAY = "#1f6fb4", "#2a7a64", "#d9730d", "#c22f2f", "#7a4fa3", "#8a8a8a"
LEVELS = {"P2": BLUE, "P3": GREEN, "P4": ORANGE, "P5": RED, "P6": PURPLE}


def found_in_photographs(photographs: Mapping[str, Tensor], found: Sequence[Mapping], classes: Sequence[str]) -> None:
    """Photographs by name, three in a row, each with the detections in it."""
    counts = [f"{name}: {len(one['labels'])} found" for name, one in zip(photographs, found, strict=True)]
    axes = image_grid([*photographs.values()], titles=counts, objects=found, classes=classes, columns=3, width=11)
    labels = [", ".join(classes[label] for label in one["labels"].tolist()) or "nothing" for one in found]
    texts = "; ".join(f"{name}: {label}" for name, label in zip(photographs, labels, strict=True))
    show(axes, alt=f"Photographs with masks, boxes and classes of what the detector finds: {texts}.")


def pyramid_maps(image: Tensor, levels: Sequence[Tensor]) -> None:
    """An image and the mean of the absolute values of each level ``(1, C, h, w)``."""
    figure, axes = plt.subplots(1, 6, figsize=(10, 2.1), layout="constrained")
    show_image(image, ax=axes[0], title="image")
    for ax, (name, color), level in zip(axes[1:], LEVELS.items(), levels, strict=True):
        ax.imshow(level[0].abs().mean(dim=0), cmap="viridis")
        ax.set_title(f"{name}, {level.shape[2]} × {level.shape[3]}", color=color)
        ax.set_axis_off()
    show(figure, alt="A photograph and five feature maps of it, each with half as many cells a side as the one before.")


def cells_of_levels(image: Tensor, boxes: Tensor, level_of: Callable[[Tensor], Tensor], enlarged: float) -> None:
    """How many cells a box covers by its size; and boxes ``(R, 4)`` on an image, with the cells of their levels."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.6), layout="constrained")
    side = torch.arange(8, 1000).float()
    of_side = level_of(torch.stack([0 * side, 0 * side, side, side], dim=1))
    for k, (name, color) in zip(range(2, 6), LEVELS.items(), strict=False):
        here = side[of_side == k]
        left.plot(here, here / 2**k, color=color, linewidth=3, label=name)
    left.plot(side, side / 8, color=GRAY, linestyle=":", label="one map of stride 8")
    left.set(
        xscale="log", xlabel="side of a box in pixels", ylabel="cells a side", title="From a pyramid", ylim=(0, 60)
    )
    left.set_xticks([10, 30, 100, 300, 1000], ["10", "30", "100", "300", "1000"])
    left.legend(frameon=False)
    levels = level_of(enlarged * boxes).tolist()
    show_image(image, ax=right, title="Regions, and the cells of their levels")
    for box, k in zip(boxes.tolist(), levels, strict=True):
        color, step = [*LEVELS.values()][k - 2], 2**k / enlarged
        draw_box(right, box, color)
        right.vlines(np.arange(box[0], box[2], step), box[1], box[3], color=color, linewidth=0.4)
        right.hlines(np.arange(box[1], box[3], step), box[0], box[2], color=color, linewidth=0.4)
    names = ", ".join(f"P{k}" for k in levels)
    show(
        figure,
        alt="Left: at each level the cells of a box grow with its side, and halve where the next level begins; on one "
        f"map they would grow on. Right: three regions with the grids of {names}.",
    )


def watershed_steps(photograph: np.ndarray, steps: Segmentation) -> None:
    """From gray levels to numbered coins."""
    figure, axes = plt.subplots(2, 3, figsize=(9.5, 5.4), layout="constrained")
    panels: dict[str, Any] = {
        "the photograph": photograph,
        "one threshold (Otsu)": photograph > threshold_otsu(photograph),
        "gradient (Sobel)": steps.gradient / steps.gradient.max(),
        "certain: coin white, ground gray": np.choose(steps.markers, [0.0, 0.5, 1.0]),
        "watershed": steps.flooded * 1.0,
    }
    for ax, (title, panel) in zip(axes.flat, panels.items(), strict=False):
        show_image(panel, ax=ax, title=title)
    plot_label_map(steps.labels, photograph, ax=axes[1, 2], title=f"{steps.labels.max()} regions")
    show(
        figure,
        alt="Six panels: coins on a dark ground that is brighter at the top left; a threshold that takes this ground "
        "for coin; bright rings where the gray is steep; what is certain; whole discs; numbered regions in colors.",
    )


def circles_on_masks(photograph: np.ndarray, target: Mapping, circles: Sequence[tuple], cut: int) -> None:
    """Masks in color, circles ``(x, y, radius)`` dotted, and the line between training and test."""
    ax = show_image(photograph, width=7, title="masks by the watershed (color), circles by the edges (dotted)")
    draw_objects(ax, target, boxes=False, names=False)
    for x, y, radius in circles:
        circle = plt.Circle((x, y), radius, fill=False, edgecolor="white", linewidth=1, linestyle=":", zorder=5)
        ax.add_patch(circle)
    ax.axhline(cut, color="white", linewidth=1.5)
    for row, text in ((14, "to learn from"), (cut + 10, "to measure with")):
        ax.text(6, row, text, color="white", fontsize=9)
    show(ax, alt="Coins in four rows, each with its mask and a circle close to its edge; a line parts upper and lower.")


def before_and_after(image: Tensor, panels: Mapping[str, tuple[Mapping, Sequence[str]]]) -> None:
    """One image with several sets of objects, each with its classes, one below the other."""
    figure, axes = plt.subplots(len(panels), 1, figsize=(7.5, 3.2 * len(panels)), layout="constrained")
    for ax, (title, (objects, classes)) in zip(axes, panels.items(), strict=True):
        show_image(image, ax=ax, title=f"{title}: {len(objects['labels'])}")
        draw_objects(ax, objects, classes, names="scores" in objects)
    show(figure, alt=f"The same coins {len(panels)} times, with masks and boxes: {', '.join(panels)}.")


def starts_compared(rows: Mapping[str, Sequence[Mapping]]) -> None:
    """Mask AP of coins and nuclei by what the training began with."""
    figure, axes = plt.subplots(1, len(rows), figsize=(8.5, 2.2), layout="constrained")
    for ax, (name, of_task) in zip(axes, rows.items(), strict=True):
        _bars(ax, [row["start"] for row in of_task], [100 * row["mask_ap"] for row in of_task], BLUE)
        ax.set(title=name, xlabel="mask AP, percent", xlim=(0, 115))
    texts = [f"{name} from {row['start']} {100 * row['mask_ap']:.1f}" for name in rows for row in rows[name]]
    show(figure, alt=f"Bars of mask AP by the start of the training: {', '.join(texts)}.")


def rcnn_on_persons(rows: Sequence[Any]) -> None:
    """AP50 of R-CNN on photographs, with trained and with random convolutions, with box regression and without."""
    figure, ax = plt.subplots(figsize=(6.5, 2.4), layout="constrained")
    names = [f"{row.start}{text}" for row in rows for text in ("", ", boxes as proposed")]
    values = [100 * value for row in rows for value in (row.ap50, row.ap50_without)]
    _bars(ax, names, values, ORANGE)
    ax.set(xlabel="AP50 of persons, percent", xlim=(0, 32))
    texts = ", ".join(f"{name} {value:.1f}" for name, value in zip(names, values, strict=True))
    show(figure, alt=f"Four bars of AP50: {texts}.")


def _bars(ax: Axes, names: Sequence[str], values: Sequence[float], color: str) -> None:
    ax.barh(range(len(names)), values, color=color)
    for row, value in enumerate(values):
        ax.text(value + 0.5, row, f"{value:.1f}", va="center", fontsize=9)
    ax.set_yticks(range(len(names)), names)
    ax.invert_yaxis()
