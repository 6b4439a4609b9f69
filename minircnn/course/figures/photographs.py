"""Figures of notebook 12: photographs with what is found in them, a pyramid and its levels, two thresholds' floods."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from skimage.filters import threshold_otsu
from torch import Tensor

from minircnn.course.coins import Segmentation
from minircnn.course.figures.charts import plot_label_map
from minircnn.course.figures.colors import BLUE, GRAY, GREEN, ORANGE, PURPLE, RED
from minircnn.course.figures.display import show
from minircnn.course.figures.panels import listed, plot_bars
from minircnn.plotting import draw_box, draw_objects, image_grid, show_image

LEVELS = {"P2": BLUE, "P3": GREEN, "P4": ORANGE, "P5": RED, "P6": PURPLE}


def found_in_photographs(photographs: Mapping[str, Tensor], found: Sequence[Mapping], classes: Sequence[str]) -> None:
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
    most = listed({f"P{k}": (side[of_side == k] / 2**k).max().item() for k in range(2, 6)}, ".0f")
    alt = f"Left: the cells of a box grow with its side, on one map and on each level, there to at most {most} cells."
    show(figure, alt=f"{alt} Right: three regions with the grids of {names}.")


def watershed_steps(photograph: np.ndarray, steps: Segmentation) -> None:
    """From gray levels to numbered coins."""
    panels: dict[str, Any] = {
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
        circle = plt.Circle((x, y), radius, fill=False, edgecolor="white", linewidth=1, linestyle=":", zorder=5)
        ax.add_patch(circle)
    ax.axhline(cut, color="white", linewidth=1.5)
    for row, text in ((14, "to learn from"), (cut + 10, "to measure with")):
        ax.text(6, row, text, color="white", fontsize=9)
    alt = (
        f"A photograph with the masks of {len(target['labels'])} coins and {len(circles)} circles; a line at row {cut}"
    )
    show(ax, alt=f"{alt} parts what is for learning from what is for measuring.")


def before_and_after(image: Tensor, panels: Mapping[str, tuple[Mapping, Sequence[str]]]) -> None:
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
