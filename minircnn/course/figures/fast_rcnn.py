"""Figures of notebook 06: trainings, sampled regions, targets, losses and their gradients, one region, stages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import Tensor

from minircnn.boxes import box_iou
from minircnn.course.figures.colors import BLUE, GRAY, GREEN, ORANGE, RED, YELLOW
from minircnn.course.figures.display import show
from minircnn.course.figures.panels import draw_diagram, listed, outline, plot_bars, plot_stacked, zoom
from minircnn.plotting import class_color, draw_objects, image_grid, show_image


def three_trainings() -> None:
    """What R-CNN trains one after the other, and Fast R-CNN at once."""
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(9, 3.9), height_ratios=(1.35, 1), layout="constrained")
    blocks = [
        (0.05, 1.0, 1.5, "images and\nproposals", GRAY),
        (2.1, 1.0, 1.8, "1  fine-tune\nthe network", BLUE),
        (4.5, 1.0, 2.1, "features on disk\n(fc7 and pool5)", GRAY),
        (7.3, 1.55, 2.5, "2  support vector machines", ORANGE),
        (7.3, 0.45, 2.5, "3  box regressions", GREEN),
    ]
    arrows = [((1.6, 1), (2.05, 1)), ((3.95, 1), (4.45, 1)), ((6.65, 1.1), (7.25, 1.5)), ((6.65, 0.9), (7.25, 0.5))]
    draw_diagram(top, "R-CNN: three trainings, one after the other", (10, 2.1), blocks, arrows)
    blocks = [
        (0.05, 0.7, 1.5, "images and\nproposals", GRAY),
        (2.1, 0.7, 3.4, "convolutions, RoIPool, fc6, fc7", BLUE),
        (5.55, 0.7, 1.1, "classes", ORANGE),
        (6.7, 0.7, 1.1, "boxes", GREEN),
        (8.4, 0.7, 1.4, "one loss", GRAY),
    ]
    draw_diagram(bottom, "Fast R-CNN: one", (10, 1.6), blocks, [((1.6, 0.7), (2.05, 0.7)), ((7.85, 0.7), (8.35, 0.7))])
    back = {"arrowstyle": "-|>", "color": RED, "linewidth": 1.4, "connectionstyle": "arc3,rad=0.12"}
    bottom.annotate("", xy=(3.8, 1.1), xytext=(9.1, 1.1), arrowprops=back)
    bottom.text(6.45, 1.49, "gradient", color=RED, fontsize=9, ha="center", va="center")
    show(
        figure,
        alt="R-CNN: images and proposals lead to a network, its features lie on a disk, and from there two further "
        "trainings begin. Fast R-CNN: convolutions, RoIPool, fc6, fc7, classes and boxes are one model with one loss, "
        "whose gradient goes all the way back.",
    )


def sampled_rois(
    image: Tensor, target: dict[str, Any], every: Sequence[Tensor], drawn: Sequence[Tensor], classes: Sequence[str]
) -> None:
    """An image with its objects; all proposals; and those that were drawn. ``every`` and ``drawn``: boxes, labels."""
    kinds = (("all proposals", *every), ("sampled", *drawn))
    texts = [f"{name}: {int((labels > 0).sum())} of {len(labels)} foreground" for name, _, labels in kinds]
    pale = 0.5 + 0.5 * image
    axes = image_grid([image, pale, pale], titles=[f"{len(target['labels'])} objects", *texts], columns=3)
    draw_objects(axes[0], target, classes)
    for ax, (_, boxes, labels) in zip(axes[1:], kinds, strict=True):
        for box in boxes[labels == 0]:
            outline(ax, box, "0.45", width=0.5, edge=False)
        for box, label in zip(boxes[labels > 0], labels[labels > 0].tolist(), strict=True):
            outline(ax, box, class_color(label), width=1.6, edge=False)
    show(axes, alt=f"An image with its objects. {'; '.join(texts)}, in the color of their class, the rest gray.")


def target_histograms(deltas: Tensor) -> None:
    """How the four regression targets ``(N, 4)`` are distributed."""
    figure, axes = plt.subplots(1, 4, figsize=(9, 2.3), sharex=True, sharey=True, layout="constrained")
    spreads = dict(zip(("dx", "dy", "dw", "dh"), deltas.std(dim=0).tolist(), strict=True))
    for ax, (name, spread), values in zip(axes, spreads.items(), deltas.T, strict=True):
        ax.hist(values.clamp(-0.8, 0.8), bins=np.linspace(-0.8, 0.8, 41), color=BLUE)
        ax.axvspan(-spread, spread, color=ORANGE, alpha=0.2)
        ax.set(title=f"{name}, deviation {spread:.2f}", yticks=[])
    axes[0].set_ylabel("proposals")
    show(figure, alt=f"Histograms of dx, dy, dw, dh of foreground proposals; standard deviations {listed(spreads)}.")


def loss_curves(losses: Mapping[str, Callable[[Tensor], Tensor]]) -> None:
    """Losses of one error, and their gradients, by autograd."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
    for (name, function), color, style in zip(losses.items(), (ORANGE, GREEN, BLUE), ("-", "--", "-"), strict=True):
        x = torch.linspace(-4, 4, 801, requires_grad=True)
        y = function(x)
        (slope,) = torch.autograd.grad(y.sum(), x)
        axes[0].plot(x.detach(), y.detach(), style, color=color, linewidth=2, label=name)
        axes[1].plot(x.detach(), slope, style, color=color, linewidth=2)
    axes[0].set(title="loss", xlabel="error", ylim=(0, 5))
    axes[1].set(title="gradient", xlabel="error", ylim=(-4.2, 4.2))
    axes[0].legend(frameon=False, loc="upper center")
    for ax in axes:
        ax.grid(color="0.9", linewidth=0.8)
    show(figure, alt=f"Left the losses {', '.join(losses)} against the error from -4 to 4, right their gradients.")


def gradient_table(gradients: Tensor, labels: Tensor, classes: Sequence[str]) -> None:
    """The size of the gradient ``(R, K, 4)`` at each box delta of each region."""
    figure, ax = plt.subplots(figsize=(8.5, 4.2), layout="constrained")
    image = ax.imshow(gradients.abs().flatten(1), cmap="Blues", aspect="auto")
    ax.set_yticks(range(len(labels)), [classes[label] for label in labels], fontsize=8)
    ax.set_xticks(np.arange(len(classes)) * 4 + 1.5, [f"{name}\nx y w h" for name in classes], fontsize=9)
    for k in range(1, len(classes)):
        ax.axvline(4 * k - 0.5, color="0.6", linewidth=0.8)
    ax.set(ylabel="true class of the region", title=f"size of the gradient at each of the {4 * len(classes)} deltas")
    ax.tick_params(length=0)
    figure.colorbar(image, ax=ax, shrink=0.8)
    reached = gradients.abs().sum(dim=2) > 0  # (R, K)
    own = torch.arange(len(classes)) == labels[:, None]
    alt = f"A table with a row for each of {len(labels)} regions and four columns for each class. There are gradients"
    where = f"for {int((reached & own).sum())} regions at their own class, for {int((reached & ~own).sum())} elsewhere"
    show(figure, alt=f"{alt} {where}; {int((labels == 0).sum())} regions are background.")


def one_region(
    image: Tensor, proposal: Tensor, truth: Tensor, refined: Tensor, scores: Tensor, classes: Sequence[str]
) -> None:
    """A proposal ``(4,)``, the object, the box of each class ``(K, 4)``, and the probability of each ``(K,)``."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.7), width_ratios=(1, 1.2), layout="constrained")
    show_image(image, ax=axes[0], title="yellow: proposal; dashed: ground truth;\nother colors: the box of each class")
    for k in range(1, len(classes)):
        outline(axes[0], refined[k], class_color(k), width=1)
    likely = int(scores.argmax())
    outline(axes[0], proposal, YELLOW)
    outline(axes[0], truth, "white", style="--")
    outline(axes[0], refined[likely], class_color(likely), width=3)
    zoom(axes[0], truth[None], 22)
    values = dict(zip(classes, scores.tolist(), strict=True))
    plot_bars(axes[1], values, [class_color(k) for k in range(len(classes))], ".2f")
    axes[1].set(xlim=(0, 1.12), title="probability of each class")
    before, after = box_iou(torch.stack([proposal, refined[likely]]), truth[None])[:, 0].tolist()
    alt = f"A proposal of IoU {before:.2f} with its object, and the boxes that six classes make of it; that of"
    show(figure, alt=f"{alt} {classes[likely]}, thick, has {after:.2f}. Bars of probabilities: {listed(values)}.")


def stage_bars(rows: Mapping[str, Mapping[str, float]], unit: str) -> None:
    """Milliseconds by stage, a bar for each detector."""
    figure, ax = plt.subplots(figsize=(9, 0.9 + 0.6 * len(rows)), layout="constrained")
    stages = {"proposals": RED, "features": BLUE, "heads": ORANGE, "selection": GRAY}
    plot_stacked(ax, {name: [row[stage] for stage in stages] for name, row in rows.items()}, stages)
    for y, row in enumerate(rows.values()):
        total = sum(row[stage] for stage in stages)
        ax.text(total, y, f" {total:,.0f} ms", va="center", fontsize=9)
    ax.set_xlabel(unit)
    ax.margins(x=0.12)
    figure.legend(ncols=4, frameon=False, loc="outside upper center", fontsize=9)
    ax.spines[["top", "right"]].set_visible(False)
    show(figure, alt=f"Bars of milliseconds for {' and '.join(rows)}, divided into {', '.join(stages)}.")
