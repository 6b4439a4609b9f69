"""Figures of notebook 08: one network of two halves, an image on its way through it, gradients, losses, ablations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch
from torch import Tensor

from minircnn.course.figures.boxes import outline
from minircnn.course.figures.charts import plot_losses, plot_proposals
from minircnn.course.figures.display import show
from minircnn.course.figures.regions import draw_grid, plot_cells
from minircnn.plotting import class_color, draw_objects, show_image

BLUE, ORANGE, GREEN, GRAY, RED = "#1f6fb4", "#d9730d", "#2a7a64", "#8a8a8a", "#c22f2f"
_PALE = {BLUE: "#cfe0f3", ORANGE: "#f6d9bd", GREEN: "#cfe6dc", GRAY: "#eeeeee", RED: "#f3cfcf"}
_SHAPES = ("wide", "square", "tall")


def two_detectors() -> None:
    """Fast R-CNN with proposals out of the pixels, and Faster R-CNN with proposals out of the feature map."""
    figure, axes = plt.subplots(2, 1, figsize=(9, 4.2), layout="constrained")
    kinds = (("Fast R-CNN: proposals from pixels", False), ("Faster R-CNN: proposals from the feature map", True))
    for ax, (title, learned) in zip(axes, kinds, strict=True):
        ax.set(xlim=(0, 10.2), ylim=(0, 2))
        ax.set_title(title, fontsize=11, loc="left")
        ax.axis("off")
        high, low = 1.5, 0.4
        for x, width, text, color in (
            (0.05, 0.95, "image", GRAY),
            (1.55, 1.4, "backbone", BLUE),
            (3.5, 1.3, "feature map", GRAY),
            (6.2, 2.2, "RoIPool, fc6, fc7,\ntwo siblings", ORANGE),
            (8.95, 1.2, "detections", GRAY),
        ):
            _block(ax, x, high, width, text, color)
        name, x, color = ("RPN", 3.45, GREEN) if learned else ("selective search", 1.4, RED)
        _block(ax, x, low, 1.6 if not learned else 1.4, name, color)
        _block(ax, 5.35, low, 1.2, "proposals", GRAY)
        arrows = [((1.0, high), (1.5, high)), ((2.97, high), (3.45, high)), ((4.82, high), (6.15, high))]
        arrows += [((8.42, high), (8.9, high)), ((4.87 if learned else 3.03, low), (5.3, low))]
        arrows += [((6.1, low + 0.36), (6.7, high - 0.36))]
        arrows += [((4.15, high - 0.36), (4.15, low + 0.36)) if learned else ((0.55, high - 0.36), (1.35, low + 0.05))]
        for start, end in arrows:
            ax.annotate("", xy=end, xytext=start, arrowprops={"arrowstyle": "-|>", "color": "0.35", "linewidth": 1.4})
    show(
        figure,
        alt="Two diagrams. Fast R-CNN: selective search makes proposals out of the image. Faster R-CNN: the region "
        "proposal network makes them out of the backbone's feature map. All else is the same.",
    )


def _block(ax: Axes, x: float, y: float, width: float, text: str, color: str) -> None:
    style = {"boxstyle": "round,pad=0.02", "facecolor": _PALE[color], "edgecolor": color}
    ax.add_patch(FancyBboxPatch((x, y - 0.32), width, 0.64, **style))
    ax.text(x + width / 2, y, text, ha="center", va="center", fontsize=9.5)


def losses_and_layers(norms: Mapping[str, Sequence[float]], layers: Sequence[str]) -> None:
    """For each loss the layers that it gives a gradient; ``norms`` are 0 where there is none."""
    table = np.array(list(norms.values())) > 0
    figure, ax = plt.subplots(figsize=(9, 2.6), layout="constrained")
    ax.imshow(table, cmap="Greens", vmin=0, vmax=1.6, aspect="auto")
    for (row, column), reached in np.ndenumerate(table):
        text, color = ("gradient", "black") if reached else ("none", "0.55")
        ax.text(column, row, text, ha="center", va="center", fontsize=9.5, color=color)
    ax.set_xticks(range(len(layers)), layers)
    ax.set_yticks(range(len(norms)), norms)
    ax.tick_params(length=0, labeltop=True, labelbottom=False)
    for line in np.arange(0.5, len(layers) - 1):
        ax.axvline(line, color="white", linewidth=2)
    for line in np.arange(0.5, len(norms) - 1):
        ax.axhline(line, color="white", linewidth=2)
    texts = (
        f"{name} reaches {', '.join(layer for layer, value in zip(layers, row, strict=True) if value)}"
        for name, row in zip(norms, table, strict=True)
    )
    show(figure, alt=f"A table of losses and layers: {'; '.join(texts)}.")


def score_maps(image: Tensor, objects: Mapping[str, Tensor], logits: Tensor, sizes: Sequence[float]) -> None:
    """Objectness of each anchor of each cell, ``(h, w, A)`` logits, a map for each kind of anchor."""
    probability, columns = logits.sigmoid(), len(sizes)
    figure, axes = plt.subplots(3, columns, figsize=(9, 7.1), layout="constrained")
    for number, ax in enumerate(axes.flat):
        title = f"{_SHAPES[number // columns]}, {sizes[number % columns]:.0f}² pixels"
        plot_cells(
            probability[..., number],
            stride=image.shape[-1] / len(logits),
            limits=(0, 1),
            colors="magma",
            ax=ax,
            title=title,
        )
        for box, label in zip(objects["boxes"], objects["labels"].tolist(), strict=True):
            outline(ax, box, class_color(label), width=1.5, edge=False)
    show(
        figure,
        alt="Objectness of twelve kinds of anchors in each cell, in three rows for wide, square and tall ones and four "
        "columns for their sizes, with the ground truth. Each object lights up in few of the maps.",
    )


def anchors_to_proposals(
    image: Tensor, objects: Mapping[str, Tensor], anchors: Tensor, refined: Tensor, proposals: Tensor
) -> None:
    """The best anchor of each object ``(G, 4)``, the same refined, and all proposals ``(P, 4)``."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 4.6), layout="constrained")
    show_image(image, ax=axes[0], title="dashed: anchors; full lines: refined")
    for anchor, box, label in zip(anchors, refined, objects["labels"].tolist(), strict=True):
        outline(axes[0], anchor, class_color(label), style="--", width=1.5)
        outline(axes[0], box, class_color(label))
    plot_proposals(image, proposals, ax=axes[1], title=f"the {len(proposals)} proposals")
    show(
        figure,
        alt=f"Left: for each object its most probable anchor, dashed, and the same refined. Right: {len(proposals)} "
        "proposals, most of them around the objects and their parts.",
    )


def pooled_proposal(image: Tensor, features: Tensor, box: Tensor, pooled: Tensor) -> None:
    """A proposal ``(4,)``, the whole cells that RoIPool takes for it from ``(C, h, w)``, and its ``(C, n, n)`` bins."""
    stride = image.shape[-1] / features.shape[-1]
    x1, y1, x2, y2 = _cells(box / stride, features.shape[-2:])
    inside = torch.zeros(features.shape[-2:], dtype=torch.bool)
    inside[y1:y2, x1:x2] = True
    channel = int((features[:, inside].mean(dim=1) - features[:, ~inside].mean(dim=1)).argmax())
    figure, axes = plt.subplots(1, 3, figsize=(9, 3.2), layout="constrained")
    show_image(image, ax=axes[0], title="dashed: a proposal; cyan: its cells")
    plot_cells(features[channel], stride=stride, ax=axes[1], title=f"channel {channel} of the feature map")
    for ax in axes[:2]:
        draw_grid(ax, stride, opacity=0.25)
        outline(ax, stride * torch.tensor([x1, y1, x2, y2]), "cyan")
        outline(ax, box, "white", style="--", width=1.5)
    plot_cells(pooled[channel], ax=axes[2], title=f"after RoIPool: {pooled.shape[1]} × {pooled.shape[2]} bins")
    show(
        figure,
        alt=f"A proposal and the whole cells around it: columns {x1} to {x2 - 1}, rows {y1} to {y2 - 1}; one channel "
        "of the feature map, which is large there; and the bins that RoIPool makes of it.",
    )


def _cells(box: Tensor, size: Sequence[int]) -> list[int]:
    """First and behind the last column and row that RoIPool takes for a box in cells."""
    low, high = (box[:2] + 0.5).floor().int(), (box[2:] + 0.5).floor().int() + 1
    limit = torch.tensor([size[1], size[0]])
    return [*low.tolist(), *torch.minimum(high, limit).tolist()]


def class_table(probabilities: Tensor, classes: Sequence[str]) -> None:
    """Class probabilities ``(P, K)``: a column for each proposal, the one with the highest objectness first."""
    figure, ax = plt.subplots(figsize=(9, 2.5), layout="constrained")
    picture = ax.imshow(probabilities.T, cmap="magma", vmin=0, vmax=1, aspect="auto")
    ax.set_yticks(range(len(classes)), classes)
    ax.set(xlabel="proposals by objectness, the highest first")
    ax.tick_params(length=0)
    figure.colorbar(picture, ax=ax, label="probability", pad=0.01)
    found = [classes[label] for label in sorted(set(probabilities.argmax(dim=1).tolist()))]
    show(
        figure, alt=f"Class probabilities of {len(probabilities)} proposals. The most probable are: {', '.join(found)}."
    )


def three_steps(image: Tensor, candidates: Mapping, after: Mapping, classes: Sequence[str]) -> None:
    """Boxes above 0.1 before NMS and after it, and detections above 0.5; dicts of boxes, labels, scores."""
    figure, axes = plt.subplots(1, 3, figsize=(9, 3.2), layout="constrained")
    counts = []
    for ax, found, name in zip(axes, (candidates, after), ("above 0.1", "after NMS"), strict=False):
        rows = found["scores"] > 0.1
        counts.append(int(rows.sum()))
        show_image(image, ax=ax, title=f"{name}: {counts[-1]} boxes")
        for box, label in zip(found["boxes"][rows], found["labels"][rows].tolist(), strict=True):
            outline(ax, box, class_color(label), width=1.1, edge=False)
    sure = {name: value[after["scores"] > 0.5] for name, value in after.items()}
    draw_objects(show_image(image, ax=axes[2], title=f"above 0.5: {len(sure['boxes'])} detections"), sure, classes)
    show(
        figure,
        alt=f"{counts[0]} boxes with a probability above 0.1, many of them on the same objects; {counts[1]} after "
        f"non-maximum suppression; and the {len(sure['boxes'])} above 0.5 with their classes.",
    )


def four_losses(history: Sequence[Mapping[str, float]]) -> None:
    """Losses of the RPN and of the heads, in two panels."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    for ax, names, title in ((axes[0], ("objectness", "rpn_box"), "RPN"), (axes[1], ("classifier", "box"), "heads")):
        plot_losses([{name: step[name] for name in names} for step in history], window=50, ax=ax, title=title)
    show(
        figure,
        alt="Losses by batch. RPN: objectness falls steeply in the first hundred batches and slowly afterwards. "
        "Heads: the classifier's loss falls, the box loss rises over the first hundred batches.",
    )


def seeds_and_means(groups: Mapping[str, Sequence[Any]]) -> None:
    """A dot for each seed and a line at their mean, for AP, AP50 and the recall of proposals; rows have attributes."""
    columns = {"ap": "AP", "ap50": "AP50", "recall": "recall of proposals"}
    figure, axes = plt.subplots(1, 3, figsize=(9, 1.0 + 0.42 * len(groups)), sharey=True, layout="constrained")
    for ax, (key, name) in zip(axes, columns.items(), strict=True):
        for y, rows in enumerate(groups.values()):
            values = [100 * getattr(row, key) for row in rows]
            ax.plot([np.mean(values)] * 2, [y - 0.28, y + 0.28], color="0.25", linewidth=2)
            ax.scatter(values, [y] * len(values), s=42, color=BLUE, alpha=0.75, edgecolors="white", zorder=3)
        ax.set(xlabel=f"{name}, %")
        ax.grid(axis="x", color="0.92")
        ax.set_axisbelow(True)
    axes[0].set_yticks(range(len(groups)), groups)
    axes[0].set_ylim(len(groups) - 0.5, -0.5)
    texts = (f"{name} {100 * np.mean([row.ap for row in rows]):.1f}" for name, rows in groups.items())
    show(figure, alt=f"A dot for each seed and a line at their mean; mean AP: {', '.join(texts)}.")


def false_positives(
    images: Sequence[Tensor],
    targets: Sequence[Mapping],
    detections: Sequence[Mapping],
    errors: Sequence[Any],
    classes: Sequence[str],
) -> None:
    """The most confident false positives, eight at most, with the ground truth dashed."""
    figure, axes = plt.subplots(2, 4, figsize=(9, 5.2), layout="constrained")
    for ax, error in zip(axes.flat, errors, strict=False):
        found, target = detections[error.image], targets[error.image]
        show_image(images[error.image], ax=ax, title=f"{classes[error.label]} {error.score:.2f}: {error.kind}")
        for box, label in zip(target["boxes"], target["labels"].tolist(), strict=True):
            outline(ax, box, class_color(label), style="--", width=1.3)
        outline(ax, found["boxes"][error.detection], class_color(error.label))
    kinds = ", ".join(f"{classes[error.label]}: {error.kind}" for error in errors[: axes.size])
    show(figure, alt=f"The most confident false positives, full lines, and the ground truth, dashed: {kinds}.")
