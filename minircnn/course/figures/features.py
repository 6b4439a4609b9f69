"""Figures of notebook 03: parameters and work by layer, what a network sees, crops, and what features are worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import Tensor

from minircnn.course.figures.charts import plot_detections, plot_losses
from minircnn.course.figures.colors import BLUE, GRAY, RED, SAND, YELLOW
from minircnn.course.figures.display import show
from minircnn.course.figures.networks import plot_filters, plot_maps
from minircnn.course.figures.panels import draw_level, listed, outline, plot_bars, plot_curves, plot_stacked, zoom
from minircnn.plotting import class_color, show_image
from minircnn.pooling import warp_regions

MODES = ("warp", "square with context", "square without context")


def costs_by_layer(work: Mapping[str, int], parameters: Mapping[str, int]) -> None:
    """Two bars, divided by layers: convolutions in blue, fully connected layers in orange."""
    shades = [*plt.get_cmap("Blues")(np.linspace(0.35, 0.9, 5)), *plt.get_cmap("Oranges")(np.linspace(0.35, 0.75, 3))]
    figure, ax = plt.subplots(figsize=(9, 2.0), layout="constrained")
    kinds = {"parameters": parameters, "multiply-adds": work}
    shares = {kind: np.array([*numbers.values()]) / sum(numbers.values()) for kind, numbers in kinds.items()}
    plot_stacked(ax, shares, dict(zip(work, shades, strict=True)))
    ax.set(xlim=(0, 1), xticks=[], title="Shares of the layers")
    ax.legend(ncols=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, 0.02), columnspacing=1.2, handlelength=1)
    ax.spines[:].set_visible(False)
    texts = " and ".join(f"{100 * share[:5].sum():.0f}% of the {kind}" for kind, share in shares.items())
    show(figure, alt=f"Two bars, divided by layers: the five convolutions have {texts}, fc6, fc7 and fc8 the rest.")


def training_curve(losses: Sequence[float], chance: float) -> None:
    """The loss of each batch, its running mean, and the loss of guessing."""
    ax = plot_losses([{"mean of 20 batches": loss} for loss in losses])
    draw_level(ax, chance, f"guessing: {chance:.2f}")
    ax.set(ylim=(0, 3.6), ylabel="cross-entropy")
    ax.legend(frameon=False)
    show(ax, alt=f"The loss over {len(losses)} iterations and its running mean, beside that of guessing, {chance:.2f}.")


def filters_before_and_after(trained: Tensor, random: Tensor) -> None:
    """The filters of a first convolution, ``(F, 3, h, w)``, of a trained and of a random network."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 2.5), layout="constrained")
    figure.get_layout_engine().set(wspace=0.05)
    for ax, weight, title in zip(axes, (trained, random), ("trained", "random, as before training"), strict=True):
        plot_filters(weight, columns=8, ax=ax, title=title)
    show(figure, alt=f"The {len(trained)} filters of conv1 as small images, after training and before, when random.")


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
    texts = ", ".join(f"{name} {maps.shape[1]} × {maps.shape[2]}" for name, maps in layers.items())
    show(figure, alt=f"An image and six activation maps of each convolution, which get coarser: {texts} cells.")


def areas_by_layer(layers: Sequence[str], curves: Mapping[str, Mapping[str, Sequence[float]]]) -> None:
    """Area under the ROC curve by layer: a panel for each kind of classifier, a line for each network."""
    figure, axes = plt.subplots(1, len(curves), figsize=(9, 3.2), layout="constrained", sharey=True)
    for ax, (title, networks) in zip(axes, curves.items(), strict=True):
        plot_curves(ax, layers, networks, (RED, GRAY), ylim=(0.5, 1), title=title)
    axes[0].set_ylabel("area under the ROC curve")
    axes[1].legend(frameon=False, loc="lower left")
    ends = [f"{title}, {listed({k: v[-1] for k, v in networks.items()})}" for title, networks in curves.items()]
    show(figure, alt=f"Area under the ROC curve by layer. At {layers[-1]}: {'; '.join(ends)}.")


def places_of_a_crop(image: Tensor, box: Tensor, x: Tensor, y: Tensor, crop: Tensor) -> None:
    """An image with a box ``(4,)`` and the places at which the pixels of its crop ``(3, S, S)`` look."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.8), layout="constrained", width_ratios=[1.3, 1])
    show_image(image, ax=left, title="the box, and where the crop looks")
    outline(left, box, "white")
    left.plot(*np.meshgrid(x.numpy(), y.numpy()), ".", color=YELLOW, markersize=3)
    margin = 0.4 * (box[2:] - box[:2])
    zoom(left, torch.cat([box[:2] - margin, box[2:] + margin])[None], 0, square=True)
    size = f"{crop.shape[1]} × {crop.shape[2]}"
    show_image(crop, ax=right, title=f"the crop, {size}").images[0].set_interpolation("nearest")
    beyond = (box[0] - x.min()).item()
    alt = f"A box around a person with a grid of {size} points that reaches {beyond:.1f} pixels beyond its left edge"
    show(figure, alt=f"{alt}, and the crop of as many pixels.")


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
    modes = "stretched to a square, in a square with what lies around them, and alone in a square"
    show(figure, alt=f"{len(examples)} objects in boxes: {modes}; each without and with a margin.")


def scores_of_features(results: Mapping[str, Mapping[str, float]]) -> None:
    """Bars for each feature: a panel for each question."""
    colors = {"trained live": BLUE, "trained": RED, "random": SAND}
    figure, axes = plt.subplots(1, len(results), figsize=(9, 4.2), layout="constrained", sharey=True)
    for ax, (title, scores) in zip(axes, results.items(), strict=True):
        plot_bars(ax, scores, [colors.get(name, colors.get(name.split()[0], GRAY)) for name in scores], ".2f")
        ax.set(xlim=(0, 1.05), title=title)
        ax.grid(color="0.9", axis="x")
        ax.set_axisbelow(True)
    show(figure, alt=f"Bars of {', '.join(scores)} for two questions: {' and '.join(results)}.")


def few_examples(amounts: Sequence[int], curves: Mapping[str, Sequence[float]]) -> None:
    """Accuracy against the number of examples of each of six classes."""
    figure, ax = plt.subplots(figsize=(7.4, 3.4), layout="constrained")
    labels = {"xlabel": "examples of each class", "ylabel": "accuracy"}
    plot_curves(ax, amounts, curves, (GRAY, SAND, RED), xscale="log", ylim=(0, 1), **labels)
    draw_level(ax, 1 / 6, "guessing")
    ax.legend(frameon=False, loc="center left", bbox_to_anchor=(1.01, 0.5))
    show(figure, alt=f"Accuracy against the number of examples of each class for {', '.join(curves)}.")
