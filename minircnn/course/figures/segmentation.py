"""Figures of notebook 02: regions, their histograms and similarities, how they merge, and the proposals that result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import Tensor

from minircnn.boxes import box_iou
from minircnn.course.figures.charts import plot_label_map
from minircnn.course.figures.colors import BLUE, GRAY, ORANGE, RED, SAND, YELLOW
from minircnn.course.figures.display import show
from minircnn.course.figures.panels import listed, outline, plot_curves, plot_shares
from minircnn.plotting import class_color, draw_labels, image_grid, show_image
from minircnn.selective_search import MergeTree


def segmentations(image: np.ndarray, maps: Mapping[str, np.ndarray], what: str) -> None:
    """An image ``(H, W, 3)`` and its regions, given as label maps by their title."""
    titles = [f"{name}: {labels.max() + 1} regions" for name, labels in maps.items()]
    columns = 2 if len(maps) < 4 else 3
    axes = image_grid([image] * (1 + len(maps)), titles=["the image", *titles], columns=columns, width=6.2)
    for ax, labels in zip(axes[1:], maps.values(), strict=True):
        plot_label_map(labels, ax=ax).images[-1].set_interpolation("nearest")
    show(axes, alt=f"{what} {', '.join(titles)}.")


def tiny_regions(image: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> None:
    """A few pixels ``(H, W, 3)``, with the number and name of each region."""
    ax = show_image(image, width=3.6)
    ax.images[0].set_interpolation("nearest")
    for number, name in enumerate(names):
        rows, columns = np.nonzero(labels == number)
        y, x = rows.min() + 0.5, (columns.min() + columns.max() + 1) / 2
        ax.text(x, y, f"{number}: {name}", color="white", ha="center", va="center", fontsize=11)
    counts = np.bincount(labels.ravel())
    texts = ", ".join(f"{name} of {count} pixels" for name, count in zip(names, counts, strict=True))
    show(ax, alt=f"An image of 6 × 8 pixels with three regions: {texts}.")


def color_histograms(histograms: Mapping[str, Tensor]) -> None:
    """Histograms ``(75,)`` of regions below each other, the three channels in their colors."""
    figure, axes = plt.subplots(len(histograms), 1, figsize=(8, 3.6), layout="constrained", sharex=True, sharey=True)
    for ax, (name, values) in zip(axes, histograms.items(), strict=True):
        ax.bar(np.arange(75) + 0.5, values, width=1, color=np.repeat([RED, "#2f9e44", BLUE], 25))
        ax.set(ylabel=name, xlim=(0, 75), ylim=(0, 0.4), yticks=[0, 0.3])
        for edge in (25, 50):
            ax.axvline(edge, color="0.6", linewidth=0.8)
    axes[-1].set_xticks([12.5, 37.5, 62.5], ["25 bins of red", "25 bins of green", "25 bins of blue"])
    largest = listed({name: float(values.max()) for name, values in histograms.items()})
    show(figure, alt=f"Histograms of three regions, each in the three channels, with the highest bar: {largest}.")


def striped_patches(patches: Mapping[str, np.ndarray], shared: Mapping[str, float]) -> None:
    """Patches ``(H, W)`` of gray values, with the share of their texture histogram that the first one has, too."""
    titles = [f"{name}\n{shared[name]:.2f} with {next(iter(patches))}" for name in patches]
    axes = image_grid([*patches.values()], titles=titles, columns=len(patches), width=7)
    show(axes, alt=f"Patches of soft stripes. Texture similarity with the first: {listed(shared)}.")


def compared_regions(image: np.ndarray, labels: np.ndarray, spots: Mapping[str, tuple], values: Mapping) -> None:
    """Regions around some pixels, outlined, and the similarities of pairs: ``{pair: {kind: value}}``."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained", width_ratios=[1.15, 1.3])
    numbers = {name: labels[y, x] for name, (x, y, *_) in spots.items()}
    shown = np.isin(labels, list(numbers.values()))[..., None]
    show_image(np.where(shown, image, 0.3 * image), ax=left)
    left.set(xlim=(0, 240), ylim=(365, 155))  # the part with the regions
    edges = [np.arange(side) + 0.5 for side in labels.shape[::-1]]
    for name, (x, y, word_x, word_y) in spots.items():
        left.contour(*edges, labels == numbers[name], levels=[0.5], colors="white", linewidths=1.2)
        arrow = {"arrowstyle": "-", "color": "white", "shrinkA": 2, "shrinkB": 0}
        style = {"color": "white", "ha": "center", "va": "center", "arrowprops": arrow}
        left.annotate(name, xy=(x, y), xytext=(word_x, word_y), **style)
    for n, ((pair, kinds), color) in enumerate(zip(values.items(), (ORANGE, GRAY), strict=True)):
        places, total = np.arange(len(kinds)) + 0.4 * n - 0.2, f"{sum(kinds.values()):.2f}"
        bars = right.bar(places, kinds.values(), 0.4, label=f"{pair}: {total} in all", color=color)
        right.bar_label(bars, fmt="%.2f", fontsize=8)
    right.set_xticks(np.arange(len(kinds)), kinds)
    right.set(ylim=(0, 1.35), yticks=[0, 0.5, 1])
    right.legend(frameon=False, loc="upper center", fontsize=9)
    sums = listed({pair: sum(kinds.values()) for pair, kinds in values.items()})
    show(figure, alt=f"Outlined regions of a portrait: {', '.join(spots)}. Bars of similarities; their sums: {sums}.")


def climbing(tree: MergeTree, image: np.ndarray, line: Sequence[int], steps: Sequence[int], truth: Tensor) -> None:
    """What a region has become after so many steps up the tree, with its box and that of the object ``(4,)``."""
    overlaps = box_iou(truth[None], tree.boxes[list(line)])[0].tolist()
    titles = [f"{step} merges: IoU {overlaps[step]:.2f}" for step in steps]
    nodes = [line[step] for step in steps]
    regions = [tree.labels_after(max(0, node - tree.num_first + 1)).numpy()[..., None] == node for node in nodes]
    images = [np.where(region, image, 0.3 * image) for region in regions]
    axes = image_grid(images, titles=titles, columns=len(steps))
    for ax, node in zip(axes, nodes, strict=True):
        outline(ax, truth, "white", style="--", width=1.2)
        outline(ax, tree.boxes[node], YELLOW, width=1.5)
    show(axes, alt=f"A region grows, with its box, and the ground truth dashed: {'; '.join(titles)}.")


def best_proposals(images: Mapping[str, Tensor], proposals: Mapping[str, Tensor], objects: Mapping) -> None:
    """Four photographs with their objects, dashed, and the best proposal of each; ``objects`` are boxes by name."""
    figure = plt.figure(figsize=(7.3, 5.9), layout="constrained")
    shapes = [image.shape[2] / image.shape[1] for image in images.values()]  # width by height
    pairs = shapes[:2], shapes[2:]
    rows = figure.subfigures(2, 1, height_ratios=[1 / sum(pair) for pair in pairs])
    axes = [ax for row, pair in zip(rows, pairs, strict=True) for ax in row.subplots(1, 2, width_ratios=pair)]
    found = []
    for ax, (name, image) in zip(axes, images.items(), strict=True):
        truth = torch.tensor(list(objects[name].values())).float()
        iou, best = box_iou(truth, proposals[name]).max(dim=1)
        colors = [class_color(k) for k in range(1, len(truth) + 1)]
        show_image(image, ax=ax, title=f"{name}: the best of {len(proposals[name])} proposals")
        for box, row, color in zip(truth, best.tolist(), colors, strict=True):
            outline(ax, box, color, style="--", width=1.5)
            outline(ax, proposals[name][row], color, width=2.5)
        texts = [f"{thing} {overlap:.2f}" for thing, overlap in zip(objects[name], iou.tolist(), strict=True)]
        draw_labels(ax, texts, proposals[name][best].tolist(), colors)
        found += texts
    show(figure, alt=f"Objects of four photographs, dashed, and the proposal of largest IoU: {', '.join(found)}.")


def recall_curves(counts: Sequence[int], recall: Mapping[float, Mapping[str, Sequence[float]]]) -> None:
    """Recall against the number of proposals: a panel for each IoU threshold, a line for each kind of proposals."""
    figure, axes = plt.subplots(1, len(recall), figsize=(9, 3.6), layout="constrained", sharey=True)
    for ax, (threshold, curves) in zip(axes, recall.items(), strict=True):
        labels = {"xlabel": "proposals per image", "title": f"IoU threshold {threshold}"}
        plot_curves(ax, counts, curves, (RED, BLUE, GRAY), xscale="log", ylim=(0, 1.02), **labels)
    axes[0].set_ylabel("recall")
    axes[1].legend(frameon=False, loc="upper left")
    texts = [f"at IoU {iou} {listed({k: v[-1] for k, v in curves.items()})}" for iou, curves in recall.items()]
    show(figure, alt=f"Recall against the number of proposals. With {counts[-1]} proposals: {'; '.join(texts)}.")


def shares_of_time(seconds: Mapping[str, float]) -> None:
    """One bar, divided by stages."""
    figure, ax = plt.subplots(figsize=(9, 1.6), layout="constrained")
    title = f"one photograph: {sum(seconds.values()):.1f} s on this machine"
    plot_shares(ax, seconds, (SAND, RED, ORANGE, BLUE, GRAY), title, 3)
    show(figure, alt=f"One bar, divided into the shares of time of {', '.join(seconds)}.")
