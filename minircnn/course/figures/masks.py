"""Figures of notebook 10: targets of the mask branch, masks of each class and in the image, and measurements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import log
from statistics import mean
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from torch import Tensor

from minircnn.course.figures.boxes import BLUE, ORANGE, outline
from minircnn.course.figures.charts import plot_losses
from minircnn.course.figures.display import show
from minircnn.course.figures.regions import plot_cells
from minircnn.plotting import class_color, draw_box, draw_masks, draw_objects, show_image
from minircnn.pooling import roi_align, to_rois

PURPLE = "#7a4fa3"


def mask_targets(
    image: Tensor, mask: Tensor, proposals: Mapping[str, Tensor], overlaps: Tensor, targets: Tensor
) -> None:
    """Proposals for an object with its mask ``(H, W)``, and below each its target; pale where it is background."""
    figure, axes = plt.subplots(2, len(proposals), figsize=(9, 4.9), layout="constrained")
    for column, (name, box) in enumerate(proposals.items()):
        top, bottom = axes[:, column]
        show_image(image, ax=top, title=f"{name}: IoU {overlaps[column]:.2f}")
        draw_masks(top, mask[None].numpy(), [class_color(3)])
        draw_box(top, box, (0.97, 0.97, 0.97))
        positive = overlaps[column] >= 0.5
        title = "its target, 28 × 28" if positive else "no target: background"
        plot_cells(targets[column], limits=(0, 1), colors="gray", ax=bottom, title=title)
        bottom.images[0].set_alpha(1.0 if positive else 0.25)
    texts = ", ".join(f"{name} {overlap:.2f}" for name, overlap in zip(proposals, overlaps.tolist(), strict=True))
    show(figure, alt=f"A cat and four boxes with their IoU, and the cat's mask as each box sees it: {texts}.")


def detection_stages(image: Tensor, proposals: Tensor, found: Mapping[str, Tensor], classes: Sequence[str]) -> None:
    """Proposals, all detections, and those with a score above 0.5, which get names."""
    figure, axes = plt.subplots(1, 3, figsize=(9, 3.2), layout="constrained")
    sure = {key: value[found["scores"] > 0.5] for key, value in found.items() if key != "masks"}
    counts = len(proposals), len(found["labels"]), len(sure["labels"])
    show_image(image, ax=axes[0], title=f"{counts[0]} proposals")
    for box in proposals:
        outline(axes[0], box, "white", width=0.7, edge=False)
    show_image(image, ax=axes[1], title=f"{counts[1]} detections")
    for box, label in zip(found["boxes"], found["labels"].tolist(), strict=True):
        draw_box(axes[1], box, class_color(label))
    show_image(image, ax=axes[2], title=f"{counts[2]} with a score above 0.5")
    draw_objects(axes[2], sure, classes)
    show(figure, alt=f"An image with {counts[0]} proposals, {counts[1]} detections, and the {counts[2]} best of them.")


def masks_of_classes(
    image: Tensor, boxes: Tensor, masks: Tensor, labels: Sequence[int], classes: Sequence[str]
) -> None:
    """A row for each detection: its pixels and its mask for each class ``(N, K, m, m)``, its own class framed."""
    crops = roi_align(image[None], to_rois([boxes]), 56, 1.0, aligned=True)
    rows = len(labels)
    size = (9, 1.17 * rows + 0.25)
    figure, axes = plt.subplots(rows, len(classes) + 1, figsize=size, layout="constrained", squeeze=False)
    for row, label in enumerate(labels):
        show_image(crops[row].clamp(0, 1), ax=axes[row, 0], title=None if row else "the box")
        for k, name in enumerate(classes):
            ax = axes[row, k + 1]
            plot_cells(masks[row, k], limits=(0, 1), colors="gray", ax=ax, title=None if row else name)
            if k == label:
                for spine in ax.spines.values():
                    spine.set(visible=True, edgecolor=class_color(label), linewidth=3.5)
    names = ", ".join(classes[label] for label in labels)
    show(figure, alt=f"Detections ({names}), each with its masks for all {len(classes)} classes; its own class framed.")


def pasted_mask(image: Tensor, mask: Tensor, box: Tensor, pasted: Tensor, label: int, title: str) -> None:
    """From the branch's cells ``(m, m)`` to the image ``(H, W)``."""
    figure, axes = plt.subplots(1, 4, figsize=(9, 2.6), layout="constrained")
    plot_cells(mask, limits=(0, 1), colors="gray", ax=axes[0], title="28 × 28 probabilities")
    plot_cells(pasted, limits=(0, 1), colors="gray", ax=axes[1], title="pasted over the box")
    plot_cells((pasted > 0.5).float(), limits=(0, 1), colors="gray", ax=axes[2], title="above 0.5")
    show_image(image, ax=axes[3], title=title)
    draw_masks(axes[3], (pasted > 0.5)[None].numpy(), [class_color(label)])
    for ax in axes[1:]:
        draw_box(ax, box, class_color(label))
    show(figure, alt="A mask of 28 × 28 gray cells; pasted over its box; black and white at 0.5; and over the image.")


def pasted_ones(box: Tensor, pasted: Mapping[str, Tensor]) -> None:
    """A mask of ones, pasted over one box ``(4,)`` in several ways: ``(H, W)`` each."""
    figure, axes = plt.subplots(1, len(pasted), figsize=(6.4, 3.5), layout="constrained")
    for ax, (name, values) in zip(axes, pasted.items(), strict=True):
        plot_cells(values, limits=(0, 1), colors="Blues", ax=ax, title=name)
        draw_box(ax, box, (1.0, 0.55, 0.0))
    show(figure, alt=f"A box, and a mask of ones pasted over it: {' and '.join(pasted)}. The second one is larger.")


def mask_losses(losses: Sequence[float]) -> None:
    """The mask loss of each step, and log 2, the loss of a branch that says one half everywhere."""
    ax = plot_losses([{"mask loss": loss} for loss in losses])
    ax.axhline(log(2), color="0.4", linewidth=1, linestyle=":")
    ax.text(len(losses), log(2) + 0.015, "log 2: one half everywhere", ha="right", fontsize=9, color="0.3")
    ax.legend(frameon=False, loc="lower left")
    show(ax, alt=f"The mask loss over {len(losses)} steps: it starts near log 2 and falls, fast first, then slowly.")


def threshold_curve(means: Mapping[float, float]) -> None:
    """Mean IoU of masks against the threshold at which pixels are decided."""
    figure, ax = plt.subplots(figsize=(5.5, 2.7), layout="constrained")
    ax.plot(list(means), list(means.values()), "o-", color=BLUE)
    best = max(means, key=means.get)
    ax.plot(best, means[best], "o", color=ORANGE, markersize=9, label=f"best: {best:g}")
    ax.set(xlabel="threshold on the probability of a pixel", ylabel="mean IoU of masks")
    ax.grid(color="0.92")
    ax.legend(frameon=False)
    show(figure, alt=f"Mean IoU of masks against the threshold: a flat curve that is highest at {best:g}.")


def mask_gallery(
    images: Sequence[Tensor], objects: Sequence[Mapping[str, Any]], classes: Sequence[str], titles: Sequence[str]
) -> None:
    """Images, three in a row, with their objects, masks and names."""
    rows = -(-len(images) // 3)
    figure, axes = plt.subplots(rows, 3, figsize=(9, 3.15 * rows), layout="constrained", squeeze=False)
    for ax, image, one, title in zip(axes.flat, images, objects, titles, strict=True):
        show_image(image, ax=ax, title=title)
        draw_objects(ax, one, classes)
    counts = ", ".join(f"{title} {len(one['labels'])}" for title, one in zip(titles, objects, strict=True))
    show(figure, alt=f"Images with boxes, classes and masks of objects; objects in each: {counts}.")


def worst_cases(
    cases: Mapping[str, Sequence[tuple[float, int, int | None, int]]],
    images: Sequence[Tensor],
    found: Sequence[Mapping[str, Tensor]],
    targets: Sequence[Mapping[str, Any]],
    classes: Sequence[str],
) -> None:
    """The two worst cases of each kind of mistake: what was found, and beside it what is there."""
    figure, grid = plt.subplots(len(cases), 4, figsize=(9, 2.45 * len(cases)), layout="constrained")
    for row, (kind, worst) in enumerate(cases.items()):
        for n, (value, i, detection, k) in enumerate(worst[:2]):
            left, right = grid[row, 2 * n : 2 * n + 2]
            title = kind if detection is None else f"{kind}, {'score' if 'class' in kind else 'IoU'} {value:.2f}"
            show_image(images[i], ax=left, title=title)
            draw_objects(left, found[i] if detection is None else _only(found[i], detection), classes)
            show_image(images[i], ax=right, title=f"ground truth: {classes[targets[i]['labels'][k]]}")
            draw_objects(right, _only(targets[i], k), classes, names=False)
    show(figure, alt=f"Pairs of images, detections left and ground truth right, of mistakes: {', '.join(cases)}.")


def _only(objects: Mapping[str, Any], row: int) -> dict[str, Any]:
    return {key: objects[key][row : row + 1] for key in ("boxes", "labels", "scores", "masks") if key in objects}


def boxes_against_masks(per_class: Mapping[str, tuple[float, float]], pairs: Sequence[Any], quality: Tensor) -> None:
    """AP of boxes and of masks for each class; IoU of masks and boxes of found objects against their size."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.3), width_ratios=(1, 1.15), layout="constrained")
    for k, (box_ap, mask_ap) in enumerate(per_class.values()):
        axes[0].plot([box_ap, mask_ap], [k, k], color="0.75", linewidth=2, zorder=1)
        axes[0].scatter(box_ap, k, s=55, marker="s", color=BLUE, label=None if k else "boxes", zorder=2)
        axes[0].scatter(mask_ap, k, s=60, color=PURPLE, label=None if k else "masks", zorder=2)
    axes[0].set_yticks(range(len(per_class)), per_class)
    axes[0].invert_yaxis()
    axes[0].set(xlabel="AP in percent", title="by class")
    side = np.array([pair.mask.sum().sqrt().item() for pair in pairs])
    colors = [class_color(pair.label) for pair in pairs]
    axes[1].scatter(side, quality, s=14, c=colors, alpha=0.7, linewidths=0)
    edges = np.quantile(side, np.linspace(0, 1, 7))
    of_boxes = np.array([pair.box_iou for pair in pairs])
    for values, color, name in ((of_boxes, BLUE, "boxes, mean"), (quality.numpy(), PURPLE, "masks, mean")):
        bins = [(side >= a) & (side <= b) for a, b in pairwise(edges)]
        axes[1].plot([side[b].mean() for b in bins], [values[b].mean() for b in bins], "o-", color=color, label=name)
    axes[1].set(xlabel="square root of the object's pixels", ylabel="IoU", title="objects found, each a dot")
    axes[1].set_ylim(0.2, 1)
    _finish(axes, ("lower left", "lower right"))
    show(
        figure, alt="Left: AP of boxes and of masks for each class. Right: IoU of found objects, which rises with size."
    )


def ablation_dots(groups: Mapping[str, Sequence[Any]], keys: Mapping[str, str]) -> None:
    """A dot for each seed and a line at the mean, for each group, a panel for each measure."""
    figure, axes = plt.subplots(1, len(keys), figsize=(9, 0.35 * len(groups) + 1), sharey=True, layout="constrained")
    for ax, (key, title) in zip(axes, keys.items(), strict=True):
        for y, (name, rows) in enumerate(groups.items()):
            values = [100 * getattr(row, key) for row in rows]
            color = next((c for part, c in (("Align", BLUE), ("Warp", PURPLE)) if part in name), ORANGE)
            ax.plot([mean(values)] * 2, [y - 0.3, y + 0.3], color="0.25", linewidth=2)
            ax.scatter(values, [y] * len(values), s=42, color=color, alpha=0.8, edgecolors="white", zorder=3)
        ax.set(xlabel="percent", title=title)
    axes[0].set_yticks(range(len(groups)), groups)
    axes[0].set_ylim(len(groups) - 0.5, -0.5)
    _finish(axes)
    show(figure, alt=f"A dot for each seed and a line at the mean: {', '.join(groups)}; {', '.join(keys.values())}.")


def _finish(axes: Sequence[Axes], legends: Sequence[str] = ()) -> None:
    for ax in axes:
        ax.grid(axis="x" if ax.get_ylabel() == "" else "both", color="0.92")
        ax.set_axisbelow(True)
    for ax, place in zip(axes, legends, strict=False):
        ax.legend(frameon=False, loc=place)


def tallest(target: Mapping[str, Any], label: int) -> int:
    """The object of a class whose box is the highest."""
    height = (target["boxes"][:, 3] - target["boxes"][:, 1]) * (target["labels"] == label)
    return int(height.argmax())
