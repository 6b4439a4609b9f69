"""Figures of notebook 03: parameters and work by layer, what a network sees, crops, and what features are worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from torch import Tensor

from minircnn.course.figures.boxes import BLUE, outline
from minircnn.course.figures.charts import plot_detections
from minircnn.course.figures.display import show
from minircnn.course.figures.networks import plot_filters, plot_maps
from minircnn.plotting import class_color, show_image
from minircnn.pooling import warp_regions

GRAY, RED, SAND = "#8a8a8a", "#c22f2f", "#d9c27a"
MODES = ("warp", "square with context", "square without context")


def costs_by_layer(work: Mapping[str, int], parameters: Mapping[str, int]) -> None:
    """Two bars, divided by layers: convolutions in blue, fully connected layers in orange."""
    shades = [*plt.get_cmap("Blues")(np.linspace(0.35, 0.9, 5)), *plt.get_cmap("Oranges")(np.linspace(0.35, 0.75, 3))]
    figure, ax = plt.subplots(figsize=(9, 2.0), layout="constrained")
    for row, numbers in enumerate((work, parameters)):
        left, total = 0.0, sum(numbers.values())
        for (name, value), color in zip(numbers.items(), shades, strict=True):
            ax.barh(row, value / total, left=left, color=color, edgecolor="white", label=name if row else None)
            left += value / total
    ax.set(xlim=(0, 1), xticks=[], title="Shares of the layers")
    ax.set_yticks([0, 1], ["multiply-adds", "parameters"])
    ax.legend(ncols=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, 0.02), columnspacing=1.2, handlelength=1)
    ax.spines[:].set_visible(False)
    show(
        figure, alt="Nearly all parameters lie in fc6, fc7 and fc8, nearly all multiply-adds in the five convolutions."
    )


def training_curve(losses: Sequence[float], chance: float, window: int = 20) -> None:
    """The loss of each batch, its running mean, and the loss of guessing."""
    figure, ax = plt.subplots(figsize=(6.4, 3.2), layout="constrained")
    smooth = [np.mean(losses[max(0, n - window + 1) : n + 1]) for n in range(len(losses))]
    ax.plot(losses, color=RED, linewidth=0.7, alpha=0.4)
    ax.plot(smooth, color=RED, linewidth=2, label="mean of 20 batches")
    ax.axhline(chance, color="0.4", linestyle="--", linewidth=1, label=f"guessing: {chance:.2f}")
    ax.set(xlim=(0, len(losses)), ylim=(0, 3.6), xlabel="iteration", ylabel="cross-entropy")
    ax.grid(color="0.9")
    ax.legend(frameon=False)
    show(figure, alt=f"The loss over {len(losses)} iterations: it starts near that of guessing and falls.")


def filters_before_and_after(trained: Tensor, random: Tensor) -> None:
    """The filters of a first convolution, ``(F, 3, h, w)``, of a trained and of a random network."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 2.5), layout="constrained")
    figure.get_layout_engine().set(wspace=0.05)
    for ax, weight, title in zip(axes, (trained, random), ("trained", "random, as before training"), strict=True):
        plot_filters(weight, columns=8, ax=ax, title=title)
    show(figure, alt="Filters of conv1. Trained: smooth edges, stripes and blobs, gray and colored. Random: noise.")


def maps_of_layers(image: Tensor, target: Mapping[str, Any], layers: Mapping[str, Tensor], classes: Sequence) -> None:
    """An image, and of each layer the six maps of ``(C, h, w)`` with the largest spread."""
    figure, grid = plt.subplots(6, 2, figsize=(9, 7.5), width_ratios=[1, 6], layout="constrained")
    plot_detections(image, target, classes, ax=grid[0, 1], masks=False, names=False)
    sizes = {name: f"{len(maps)} maps\n{maps.shape[1]} × {maps.shape[2]}" for name, maps in layers.items()}
    for ax, (name, more) in zip(grid[:, 0], ({"image": "128 × 128"} | sizes).items(), strict=True):
        ax.text(0.5, 0.5, f"{name}\n{more}", ha="center", va="center")
        ax.axis("off")
    for ax, maps in zip(grid[1:, 1], layers.values(), strict=True):
        most = maps.std(dim=(1, 2)).argsort(descending=True)[:6]
        plot_maps(maps[most], columns=6, ax=ax)
    show(figure, alt="An image and six maps of each convolution: edges and colors in conv1, coarse spots in conv5.")


def areas_by_layer(layers: Sequence[str], curves: Mapping[str, Mapping[str, Sequence[float]]]) -> None:
    """Area under the ROC curve by layer: a panel for each kind of classifier, a line for each network."""
    figure, axes = plt.subplots(1, len(curves), figsize=(9, 3.2), layout="constrained", sharey=True)
    for ax, (title, networks) in zip(axes, curves.items(), strict=True):
        for (name, curve), color in zip(networks.items(), (RED, GRAY), strict=True):
            ax.plot(layers, curve, marker="o", color=color, label=name)
        ax.set(ylim=(0.5, 1), title=title)
        ax.grid(color="0.9")
    axes[0].set_ylabel("area under the ROC curve")
    axes[1].legend(frameon=False, loc="lower left")
    show(
        figure,
        alt="Area under the ROC curve by layer: single maps, trained and random alike; sums, trained far better.",
    )


def places_of_a_crop(image: Tensor, box: Tensor, x: Tensor, y: Tensor, crop: Tensor) -> None:
    """An image with a box ``(4,)`` and the places at which the pixels of its crop ``(3, S, S)`` look."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.8), layout="constrained", width_ratios=[1.3, 1])
    show_image(image, ax=left, title="the box, and where the crop looks")
    outline(left, box, "white")
    grid_x, grid_y = np.meshgrid(x.numpy(), y.numpy())
    left.plot(grid_x.ravel(), grid_y.ravel(), ".", color="#ffd92f", markersize=3)
    low, high = box[:2] - 0.4 * (box[2:] - box[:2]), box[2:] + 0.4 * (box[2:] - box[:2])
    side = float((high - low).max()) / 2
    (cx, cy) = ((low + high) / 2).tolist()
    left.set(xlim=(cx - side, cx + side), ylim=(cy + side, cy - side))
    show_image(crop, ax=right, title=f"the crop, {crop.shape[1]} × {crop.shape[2]}").images[0].set_interpolation(
        "nearest"
    )
    show(figure, alt="A box around a person with a grid of points that reaches a little beyond it, and the crop.")


def ways_to_a_square(examples: Sequence[tuple], size: int, context: float, fill: tuple[float, ...]) -> None:
    """Objects, ``(image, box (4,), label)`` each, warped in three ways without and with context."""
    figure, grid = plt.subplots(len(examples), 7, figsize=(9, 1.32 * len(examples) + 0.5), layout="constrained")
    ways = ["warp", "square, with\nneighbors", "square, box\nonly"]
    titles = ["the box", *ways, *(f"{way}, margin" for way in ways)]
    for row, (image, box, label) in zip(grid, examples, strict=True):
        show_image(image, ax=row[0])
        outline(row[0], box, class_color(label))
        for column, margin in ((1, 0.0), (4, context)):
            for ax, mode in zip(row[column:], MODES, strict=False):
                show_image(warp_regions(image, box[None], size, margin, mode, fill=fill)[0], ax=ax)
    for ax, title in zip(grid[0], titles, strict=True):
        ax.set_title(title, fontsize=9)
    show(figure, alt="Objects as squares in three ways, without and with context. Warped, persons are stout.")


def scores_of_features(results: Mapping[str, Mapping[str, float]]) -> None:
    """Bars for each feature: a panel for each question."""
    names = list(next(iter(results.values())))
    colors = [RED if n.startswith("trained") else SAND if n.startswith("random") else GRAY for n in names]
    colors = [BLUE if name == "trained live" else color for name, color in zip(names, colors, strict=True)]
    figure, axes = plt.subplots(1, len(results), figsize=(9, 4.2), layout="constrained", sharey=True)
    for ax, (title, scores) in zip(axes, results.items(), strict=True):
        bars = ax.barh(range(len(scores)), scores.values(), color=colors)
        ax.bar_label(bars, fmt="%.2f", padding=3, fontsize=9)
        ax.set(xlim=(0, 1.05), title=title)
        ax.grid(color="0.9", axis="x")
        ax.set_axisbelow(True)
    axes[0].set_yticks(range(len(names)), names)
    axes[0].invert_yaxis()
    show(figure, alt=f"Bars of {', '.join(names)} for two questions: {' and '.join(results)}.")


def few_examples(amounts: Sequence[int], curves: Mapping[str, Sequence[float]]) -> None:
    """Accuracy against the number of examples of each of six classes."""
    figure, ax = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
    for (name, curve), color in zip(curves.items(), (GRAY, SAND, RED), strict=True):
        ax.plot(amounts, curve, marker="o", color=color, label=name)
    ax.axhline(1 / 6, color="0.4", linestyle="--", linewidth=1, label="guessing")
    ax.set(xscale="log", ylim=(0, 1), xlabel="examples of each class", ylabel="accuracy")
    ax.set_xticks(amounts, amounts)
    ax.minorticks_off()
    ax.grid(color="0.9")
    ax.legend(frameon=False, loc="center left", bbox_to_anchor=(1.01, 0.5))
    show(figure, alt=f"Accuracy against the number of examples of each class for {', '.join(curves)}.")
