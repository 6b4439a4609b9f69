"""Figures of notebook 08: one network of two halves, an image on its way through it, gradients, losses, ablations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import Tensor

from minircnn.course.figures.charts import plot_losses, plot_proposals
from minircnn.course.figures.colors import BLUE, GRAY, GREEN, ORANGE, RED
from minircnn.course.figures.display import show
from minircnn.course.figures.masks import ablation_dots
from minircnn.course.figures.panels import draw_diagram, outline, outline_truth
from minircnn.course.figures.regions import draw_grid, plot_row, plot_score_maps, strongest_channel
from minircnn.plotting import class_color, draw_objects, image_grid
from minircnn.pooling import misalignment


def two_detectors() -> None:
    """Fast R-CNN with proposals out of the pixels, and Faster R-CNN with proposals out of the feature map."""
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(9, 4.2), layout="constrained")
    blocks = [
        (0.05, 1.5, 0.95, "image", GRAY),
        (1.55, 1.5, 1.4, "backbone", BLUE),
        (3.5, 1.5, 1.3, "feature map", GRAY),
        (6.2, 1.5, 2.2, "RoIPool, fc6, fc7,\ntwo siblings", ORANGE),
        (8.95, 1.5, 1.2, "detections", GRAY),
        (5.35, 0.4, 1.2, "proposals", GRAY),
    ]
    arrows = [((1.0, 1.5), (1.5, 1.5)), ((2.97, 1.5), (3.45, 1.5)), ((4.82, 1.5), (6.15, 1.5))]
    arrows += [((8.42, 1.5), (8.9, 1.5)), ((6.1, 0.78), (6.7, 1.12))]
    search, rpn = (1.4, 0.4, 1.6, "selective search", RED), (3.45, 0.4, 1.4, "RPN", GREEN)
    from_pixels = [((0.55, 1.12), (1.35, 0.45)), ((3.03, 0.4), (5.3, 0.4))]
    from_map = [((4.15, 1.12), (4.15, 0.78)), ((4.87, 0.4), (5.3, 0.4))]
    draw_diagram(top, "Fast R-CNN: proposals from pixels", (10.2, 2), [*blocks, search], arrows + from_pixels)
    draw_diagram(bottom, "Faster R-CNN: proposals from the feature map", (10.2, 2), [*blocks, rpn], arrows + from_map)
    show(
        figure,
        alt="Two diagrams. Fast R-CNN: selective search makes proposals out of the image. Faster R-CNN: the region "
        "proposal network makes them out of the backbone's feature map. All else is the same.",
    )


def losses_and_layers(norms: Mapping[str, Sequence[float]], layers: Sequence[str]) -> None:
    """For each loss the layers that it gives a gradient; ``norms`` are 0 where there is none."""
    table = np.array(list(norms.values())) > 0
    figure, ax = plt.subplots(figsize=(9, 2.6), layout="constrained")
    ax.pcolormesh(table, cmap="Greens", vmin=0, vmax=1.6, edgecolors="white", linewidth=2)
    for (row, column), reached in np.ndenumerate(table):
        text, color = ("gradient", "black") if reached else ("none", "0.55")
        ax.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=9.5, color=color)
    ax.set_xticks(np.arange(len(layers)) + 0.5, layers)
    ax.set_yticks(np.arange(len(norms)) + 0.5, norms)
    ax.tick_params(length=0, labeltop=True, labelbottom=False)
    ax.invert_yaxis()
    ax.spines[:].set_visible(False)
    texts = (
        f"{name} reaches {', '.join(layer for layer, value in zip(layers, row, strict=True) if value)}"
        for name, row in zip(norms, table, strict=True)
    )
    show(figure, alt=f"A table of losses and layers: {'; '.join(texts)}.")


def score_maps(image: Tensor, objects: Mapping[str, Tensor], logits: Tensor, sizes: Sequence[float]) -> None:
    """Objectness of each anchor of each cell, ``(h, w, A)`` logits, a map for each kind of anchor."""
    figure, axes = plt.subplots(3, len(sizes), figsize=(9, 7.1), layout="constrained")
    scores, stride = logits.sigmoid().permute(2, 0, 1), image.shape[-1] / len(logits)
    plot_score_maps(axes, objects["boxes"], scores, sizes, stride)
    alt = f"Objectness of {len(scores)} kinds of anchors in each cell, in three rows for wide, square and tall ones and"
    show(figure, alt=f"{alt} {len(sizes)} columns for their sizes, with the ground truth.")


def anchors_to_proposals(
    image: Tensor, objects: Mapping[str, Tensor], anchors: Tensor, refined: Tensor, proposals: Tensor
) -> None:
    """The best anchor of each object ``(G, 4)``, the same refined, and all proposals ``(P, 4)``."""
    titles = ["dashed: anchors; full lines: refined", f"the {len(proposals)} proposals"]
    axes = image_grid([image] * 2, titles=titles)
    for anchor, box, label in zip(anchors, refined, objects["labels"].tolist(), strict=True):
        outline(axes[0], anchor, class_color(label), style="--", width=1.5)
        outline(axes[0], box, class_color(label))
    plot_proposals(image, proposals, ax=axes[1])
    alt = "Left: for each object its most probable anchor, dashed, and the same refined. Right:"
    show(axes, alt=f"{alt} the {len(proposals)} proposals.")


def pooled_proposal(image: Tensor, features: Tensor, box: Tensor, pooled: Tensor) -> None:
    """A proposal ``(4,)``, the whole cells that RoIPool takes for it from ``(C, h, w)``, and its ``(C, n, n)`` bins."""
    stride = image.shape[-1] / features.shape[-1]
    x1, y1, x2, y2 = misalignment(box.tolist(), tuple(image.shape[1:]), tuple(features.shape[1:])).pooled
    x2, y2 = min(x2, features.shape[2]), min(y2, features.shape[1])  # RoIPool takes none beyond the map
    cells = stride * torch.tensor([x1, y1, x2, y2])
    channel = strongest_channel(features, cells, stride)
    one = (f"channel {channel} of the feature map", features[channel])
    bins = (f"after RoIPool: {pooled.shape[1]} × {pooled.shape[2]} bins", pooled[channel], {"stride": 1})
    axes = plot_row(("dashed: a proposal; cyan: its cells", image), one, bins, height=3.2, stride=stride)
    for ax in axes[:2]:
        draw_grid(ax, stride, opacity=0.25)
        outline(ax, cells, "cyan")
        outline(ax, box, "white", style="--", width=1.5)
    alt = (
        f"A proposal and the whole cells around it: columns {x1} to {x2 - 1}, rows {y1} to {y2 - 1}; channel {channel}"
    )
    show(axes, alt=f"{alt} of the feature map, the one that is larger there by most; and its bins after RoIPool.")


def class_table(probabilities: Tensor, classes: Sequence[str]) -> None:
    """Class probabilities ``(P, K)``: a column for each proposal, the one with the highest objectness first."""
    figure, ax = plt.subplots(figsize=(9, 2.5), layout="constrained")
    picture = ax.imshow(probabilities.T, cmap="magma", vmin=0, vmax=1, aspect="auto")
    ax.set_yticks(range(len(classes)), classes)
    ax.set(xlabel="proposals by objectness, the highest first")
    ax.tick_params(length=0)
    figure.colorbar(picture, ax=ax, label="probability", pad=0.01)
    found = ", ".join(classes[label] for label in sorted(set(probabilities.argmax(dim=1).tolist())))
    show(figure, alt=f"Class probabilities of {len(probabilities)} proposals. The most probable are: {found}.")


def three_steps(image: Tensor, candidates: Mapping, after: Mapping, classes: Sequence[str]) -> None:
    """Boxes above 0.1 before NMS and after it, and detections above 0.5; dicts of boxes, labels, scores."""
    steps = [
        {name: value[found["scores"] > least] for name, value in found.items()}
        for found, least in ((candidates, 0.1), (after, 0.1), (after, 0.5))
    ]
    counts = [len(step["boxes"]) for step in steps]
    titles = [f"above 0.1: {counts[0]} boxes", f"after NMS: {counts[1]} boxes", f"above 0.5: {counts[2]} detections"]
    axes = image_grid([image] * 3, titles=titles, columns=3)
    for ax, step in zip(axes[:2], steps, strict=False):
        for box, label in zip(step["boxes"], step["labels"].tolist(), strict=True):
            outline(ax, box, class_color(label), width=1.1, edge=False)
    draw_objects(axes[2], steps[2], classes)
    alt = f"{counts[0]} boxes with a probability above 0.1; {counts[1]} after non-maximum suppression"
    show(axes, alt=f"{alt}; and the {counts[2]} above 0.5 with their classes.")


def four_losses(history: Sequence[Mapping[str, float]]) -> None:
    """Losses of the RPN and of the heads, in two panels."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    for ax, names, title in ((axes[0], ("objectness", "rpn_box"), "RPN"), (axes[1], ("classifier", "box"), "heads")):
        plot_losses([{name: step[name] for name in names} for step in history], window=50, ax=ax, title=title)
    alt = f"Losses over {len(history)} batches. Left the RPN's objectness and box loss, right those of the heads"
    show(figure, alt=f"{alt}, classifier and box, each with its running mean.")


def seeds_and_means(groups: Mapping[str, Sequence[Any]]) -> None:
    """A dot for each seed and a line at their mean, for AP, AP50 and the recall of proposals; rows have attributes."""
    ablation_dots(groups, {"ap": "AP", "ap50": "AP50", "recall": "recall of proposals"})


def false_positives(
    images: Sequence[Tensor],
    targets: Sequence[Mapping],
    detections: Sequence[Mapping],
    errors: Sequence[Any],
    classes: Sequence[str],
) -> None:
    """The most confident false positives, eight at most, with the ground truth dashed."""
    errors = errors[:8]
    titles = [f"{classes[error.label]} {error.score:.2f}: {error.kind}" for error in errors]
    axes = image_grid([images[error.image] for error in errors], titles=titles, columns=4)
    for ax, error in zip(axes, errors, strict=True):
        outline_truth(ax, targets[error.image])
        outline(ax, detections[error.image]["boxes"][error.detection], class_color(error.label))
    kinds = ", ".join(f"{classes[error.label]}: {error.kind}" for error in errors)
    show(axes, alt=f"The most confident false positives, full lines, and the ground truth, dashed: {kinds}.")
