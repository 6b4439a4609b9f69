"""Figures of notebook 06: trainings, sampled regions, targets, losses and their gradients, one region, stages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch
from torch import Tensor

from minircnn.course.figures.boxes import BLUE, ORANGE, YELLOW, outline
from minircnn.course.figures.display import show
from minircnn.plotting import class_color, draw_objects, show_image

_STAGES = {"proposals": "#c22f2f", "features": BLUE, "heads": ORANGE, "selection": "#8a8a8a"}
_PALE, _PALE_BLUE, _PALE_ORANGE, _PALE_GREEN = "#eeeeee", "#cfe0f3", "#f6d9bd", "#cfe6dc"


def three_trainings() -> None:
    """What R-CNN trains one after the other, and Fast R-CNN at once."""
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(9, 3.9), height_ratios=(1.35, 1), layout="constrained")
    for ax, height, title in (
        (top, 2.1, "R-CNN: three trainings, one after the other"),
        (bottom, 1.6, "Fast R-CNN: one"),
    ):
        ax.set(xlim=(0, 10), ylim=(0, height))
        ax.set_title(title, fontsize=10, loc="left")
        ax.axis("off")
    _step(top, 0.05, 1.0, 1.5, "images and\nproposals", _PALE)
    _step(top, 2.1, 1.0, 1.8, "1  fine-tune\nthe network", _PALE_BLUE)
    _step(top, 4.5, 1.0, 2.1, "features on disk\n(fc7 and pool5)", _PALE)
    _step(top, 7.3, 1.55, 2.5, "2  support vector machines", _PALE_ORANGE)
    _step(top, 7.3, 0.45, 2.5, "3  box regressions", _PALE_GREEN)
    for start, end in (((1.6, 1), (2.05, 1)), ((3.95, 1), (4.45, 1))):
        _arrow(top, start, end)
    for start, end in (((6.65, 1.1), (7.25, 1.5)), ((6.65, 0.9), (7.25, 0.5))):
        _arrow(top, start, end)
    _step(bottom, 0.05, 0.7, 1.5, "images and\nproposals", _PALE)
    _step(bottom, 2.1, 0.7, 3.4, "convolutions, RoIPool, fc6, fc7", _PALE_BLUE)
    _step(bottom, 5.55, 0.7, 1.1, "classes", _PALE_ORANGE)
    _step(bottom, 6.7, 0.7, 1.1, "boxes", _PALE_GREEN)
    _step(bottom, 8.4, 0.7, 1.4, "one loss", _PALE)
    _arrow(bottom, (1.6, 0.7), (2.05, 0.7))
    _arrow(bottom, (7.85, 0.7), (8.35, 0.7))
    _arrow(bottom, (9.1, 1.1), (3.8, 1.1), "#c22f2f", "arc3,rad=0.12")
    bottom.text(6.45, 1.49, "gradient", color="#c22f2f", fontsize=9, ha="center", va="center")
    show(
        figure,
        alt="R-CNN: images and proposals lead to a network, its features lie on a disk, and from there two further "
        "trainings begin. Fast R-CNN: convolutions, RoIPool, fc6, fc7, classes and boxes are one model with one loss, "
        "whose gradient goes all the way back.",
    )


def _step(ax: Axes, x: float, y: float, width: float, text: str, color: str) -> None:
    style = "round,pad=0.02"
    ax.add_patch(FancyBboxPatch((x, y - 0.36), width, 0.72, boxstyle=style, facecolor=color, edgecolor="0.4"))
    ax.text(x + width / 2, y, text, ha="center", va="center", fontsize=9)


def _arrow(ax: Axes, start: tuple, end: tuple, color: str = "0.35", shape: str = "arc3") -> None:
    style = {"arrowstyle": "-|>", "color": color, "linewidth": 1.4, "connectionstyle": shape}
    ax.annotate("", xy=end, xytext=start, arrowprops=style)


def sampled_rois(
    image: Tensor, target: dict[str, Any], every: Sequence[Tensor], drawn: Sequence[Tensor], classes: Sequence[str]
) -> None:
    """An image with its objects; all proposals; and those that were drawn. ``every`` and ``drawn``: boxes, labels."""
    figure, axes = plt.subplots(1, 3, figsize=(10, 3.7), layout="constrained")
    show_image(image, ax=axes[0], title=f"{len(target['labels'])} objects")
    draw_objects(axes[0], target, classes)
    texts = []
    for ax, (boxes, labels), name in ((axes[1], every, "all proposals"), (axes[2], drawn, "sampled")):
        texts.append(f"{name}: {int((labels > 0).sum())} of {len(labels)} foreground")
        show_image(0.5 + 0.5 * image, ax=ax, title=texts[-1])
        for box in boxes[labels == 0]:
            outline(ax, box, "0.45", width=0.5, edge=False)
        for box, label in zip(boxes[labels > 0], labels[labels > 0].tolist(), strict=True):
            outline(ax, box, class_color(label), width=1.6, edge=False)
    show(figure, alt=f"An image with its objects. {'; '.join(texts)}, in the color of their class, the rest gray.")


def target_histograms(deltas: Tensor) -> None:
    """How the four regression targets ``(N, 4)`` are distributed."""
    figure, axes = plt.subplots(1, 4, figsize=(10, 2.5), sharex=True, sharey=True, layout="constrained")
    spreads = deltas.std(dim=0).tolist()
    for ax, name, values, spread in zip(axes, ("dx", "dy", "dw", "dh"), deltas.T, spreads, strict=True):
        ax.hist(values.clamp(-0.8, 0.8), bins=np.linspace(-0.8, 0.8, 41), color=BLUE)
        ax.axvspan(-spread, spread, color=ORANGE, alpha=0.2)
        ax.set(title=f"{name}, deviation {spread:.2f}", yticks=[])
    axes[0].set_ylabel("proposals")
    texts = ", ".join(f"{spread:.2f}" for spread in spreads)
    show(figure, alt=f"Histograms of dx, dy, dw, dh of foreground proposals, all around 0: deviations {texts}.")


def loss_curves(losses: Mapping[str, Callable[[Tensor], Tensor]]) -> None:
    """Losses of one error, and their gradients, by autograd."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
    for (name, function), color, style in zip(losses.items(), (ORANGE, "#2a7a64", BLUE), ("-", "--", "-"), strict=True):
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
    show(
        figure,
        alt="Left: a parabola, a wedge, and smooth L1, which is the parabola near 0 and parallel to the wedge further "
        "out. Right: their gradients: a straight line, a step, and a line that is cut off at 1 and -1.",
    )


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
    show(
        figure,
        alt=f"A table with a row for each of {len(labels)} regions and four columns for each class. Only the four "
        "deltas of a region's own class have a gradient; the rows of background regions are white.",
    )


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
    (left, top), (right, bottom) = truth[:2].tolist(), truth[2:].tolist()
    axes[0].set(xlim=(left - 22, right + 22), ylim=(bottom + 22, top - 22))
    bars = axes[1].barh(range(len(classes)), scores, color=[class_color(k) for k in range(len(classes))])
    axes[1].bar_label(bars, fmt="%.2f", padding=3, fontsize=9)
    axes[1].set_yticks(range(len(classes)), classes)
    axes[1].set(xlim=(0, 1.12), title="probability of each class")
    axes[1].invert_yaxis()
    name = classes[likely]
    show(
        figure,
        alt=f"A proposal that misses a part of its object, and the boxes that six classes make of it; that of {name}, "
        f"drawn thick, fits best. Beside it bars: {name} is by far the most probable class.",
    )


def stage_bars(rows: Mapping[str, Mapping[str, float]], unit: str) -> None:
    """Milliseconds by stage, a bar for each detector."""
    figure, ax = plt.subplots(figsize=(9, 0.9 + 0.6 * len(rows)), layout="constrained")
    for y, row in enumerate(rows.values()):
        left = 0.0
        for stage, color in _STAGES.items():
            ax.barh(y, row[stage], left=left, color=color, edgecolor="white", label=stage if y == 0 else None)
            left += row[stage]
        ax.text(left, y, f" {left:,.0f} ms", va="center", fontsize=9)
    ax.set_yticks(range(len(rows)), rows)
    ax.set_xlabel(unit)
    ax.margins(x=0.12)
    ax.invert_yaxis()
    figure.legend(ncols=4, frameon=False, loc="outside upper center", fontsize=9)
    ax.spines[["top", "right"]].set_visible(False)
    show(figure, alt=f"Bars of stacked stages for {' and '.join(rows)}. Fast R-CNN's is much shorter than R-CNN's.")
