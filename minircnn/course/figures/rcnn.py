"""Figures of notebooks 03 and 04: what a network sees and what its features are worth, and R-CNN."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.lines import Line2D
from torch import Tensor

from minircnn.boxes import box_iou
from minircnn.course.errors import KINDS, Judged
from minircnn.course.figures.charts import plot_detections, plot_filters, plot_losses, plot_maps
from minircnn.course.figures.colors import BLUE, GRAY, GREEN, LIME, ORANGE, RED, SAND, YELLOW
from minircnn.course.figures.display import Curves, Names, Target, show
from minircnn.course.figures.panels import dash_truth, listed, mark_y, outline, plot_bars, plot_curves, plot_parts, zoom
from minircnn.datasets.images import ImageDataset
from minircnn.plotting import class_color, image_grid, show_image
from minircnn.pooling import warp_regions

MODES = ("warp", "square with context", "square without context")
_MOST = 8  # boxes in one panel; more cannot be told apart


def costs_by_layer(work: Mapping[str, int], parameters: Mapping[str, int]) -> None:
    """Two bars, divided by layers: convolutions in blue, fully connected layers in orange."""
    shades = [*plt.get_cmap("Blues")(np.linspace(0.35, 0.9, 5)), *plt.get_cmap("Oranges")(np.linspace(0.35, 0.75, 3))]
    figure, ax = plt.subplots(figsize=(9, 2.0), layout="constrained")
    kinds = {"parameters": parameters, "multiply-adds": work}
    shares = {kind: np.array([*numbers.values()]) / sum(numbers.values()) for kind, numbers in kinds.items()}
    plot_parts(ax, shares, dict(zip(work, shades, strict=True)))
    ax.set(xlim=(0, 1), xticks=[], title="Shares of the layers")
    ax.legend(ncols=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, 0.02), columnspacing=1.2, handlelength=1)
    ax.spines[:].set_visible(False)
    texts = " and ".join(f"{100 * share[:5].sum():.0f}% of the {kind}" for kind, share in shares.items())
    show(figure, alt=f"Two bars, divided by layers: the five convolutions have {texts}, fc6, fc7 and fc8 the rest.")


def training_curve(losses: Sequence[float], chance: float) -> None:
    """The loss of each batch, its running mean, and the loss of guessing."""
    ax = plot_losses([{"mean of 20 batches": loss} for loss in losses])
    mark_y(ax, chance, f"guessing: {chance:.2f}")
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


def maps_of_layers(image: Tensor, target: Mapping[str, Any], layers: Target, classes: Sequence) -> None:
    """An image, and of each layer the six maps of ``(C, h, w)`` with the largest spread."""
    figure, grid = plt.subplots(6, 2, figsize=(9, 7.5), width_ratios=[1, 6], layout="constrained")
    plot_detections(image, target, classes, ax=grid[0, 1], masks=False, names=False)
    sizes = {name: f"{len(maps)} maps\n{maps.shape[1]} × {maps.shape[2]}" for name, maps in layers.items()}
    for ax, (name, more) in zip(grid[:, 0], ({"image": "128 × 128"} | sizes).items(), strict=True):
        ax.text(0.5, 0.5, f"{name}\n{more}", ha="center", va="center")
        ax.axis("off")
    for ax, maps in zip(grid[1:, 1], layers.values(), strict=True):
        plot_maps(maps[maps.std(dim=(1, 2)).argsort(descending=True)[:6]], columns=6, ax=ax)
    texts = ", ".join(f"{name} {maps.shape[1]} × {maps.shape[2]}" for name, maps in layers.items())
    show(figure, alt=f"An image and six activation maps of each convolution, which get coarser: {texts} cells.")


def areas_by_layer(layers: Names, curves: Mapping[str, Curves]) -> None:
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


def few_examples(amounts: Sequence[int], curves: Curves) -> None:
    """Accuracy against the number of examples of each of six classes."""
    figure, ax = plt.subplots(figsize=(7.4, 3.4), layout="constrained")
    labels = {"xlabel": "examples of each class", "ylabel": "accuracy"}
    plot_curves(ax, amounts, curves, (GRAY, SAND, RED), xscale="log", ylim=(0, 1), **labels)
    mark_y(ax, 1 / 6, "guessing")
    ax.legend(frameon=False, loc="center left", bbox_to_anchor=(1.01, 0.5))
    show(figure, alt=f"Accuracy against the number of examples of each class for {', '.join(curves)}.")


def proposal_labels(
    image: Tensor, target: Target, proposals: Tensor, labels: Tensor, negative: Tensor, k: int, name: str
) -> None:
    """What proposals are for fine-tuning, ``labels`` ``(P,)``, and for the SVM of class k, ``negative`` ``(P,)``."""
    panels = (("fine-tuning", "with a class", labels > 0), (f"SVM for {name}s", "not used", ~negative))
    panels += ((f"SVM for {name}s", "negatives", negative),)
    titles = [f"{who}: {min(_MOST, int(of.sum()))} of {int(of.sum())} {what}" for who, what, of in panels]
    axes = image_grid([image] * 3, titles=titles, columns=3)
    for ax, (_, _, of_kind) in zip(axes, panels, strict=True):
        boxes, classes = proposals[of_kind], labels[of_kind].tolist()
        for row in torch.linspace(0, len(boxes) - 1, min(_MOST, len(boxes))).long().tolist():
            outline(ax, boxes[row], class_color(classes[row]) if ax is axes[0] else "white", width=1.2)
    for ax in axes[1:]:
        for box in target["boxes"][target["labels"] == k]:
            outline(ax, box, class_color(k), style="--", width=2.5)
    show(axes, alt=f"Proposals of one image. {'; '.join(titles)}. The {name} itself is dashed.")


def loss_curve(losses: Sequence[float], chance: float) -> None:
    """The loss of each batch of fine-tuning, and that of a network that gives all classes one probability."""
    figure, ax = plt.subplots(figsize=(6, 2.7), layout="constrained")
    ax.plot(range(1, len(losses) + 1), losses, color=BLUE)
    mark_y(ax, chance, f"equal probabilities: {chance:.2f}")
    ax.set(xlabel="batches of 128 warped proposals", ylabel="cross-entropy", ylim=(0, chance + 0.45))
    show(figure, alt=f"The cross-entropy of {len(losses)} batches, beside that of equal probabilities, {chance:.2f}.")


def scores_before_and_after(before: Tensor, after: Tensor) -> None:
    """Histograms of the decision scores of negatives, with two SVMs."""
    figure, ax = plt.subplots(figsize=(7, 3), layout="constrained")
    bins = np.linspace(min(before.min(), after.min()).item(), max(before.max(), after.max()).item(), 60)
    ax.hist(before.numpy(), bins, color=ORANGE, alpha=0.6, label="first SVM")
    ax.hist(after.numpy(), bins, histtype="step", color="black", linewidth=1.5, label="after mining")
    ax.axvline(-1, color="0.4", linestyle="--", linewidth=1)
    ax.set(yscale="log", ylim=(0.7, 5000), xlabel="decision score of a negative", ylabel="negatives")
    ax.text(-0.95, 3000, "hard from here on", va="top", color="0.35")
    ax.legend(frameon=False, loc="upper left", ncols=2)
    hard = " and ".join(f"{int((scores > -1).sum())} {when}" for scores, when in ((before, "before"), (after, "after")))
    show(figure, alt=f"Histograms of the scores of {len(before)} negatives; above -1 are {hard} mining.")


def hard_negatives(crops: Sequence[Tensor], before: Tensor, after: Tensor) -> None:
    """Warped crops with their scores before and after mining."""
    titles = [f"{first:+.2f} → {second:+.2f}" for first, second in zip(before, after, strict=True)]
    axes = image_grid(crops, titles=titles, columns=4)
    show(axes, alt=f"{len(crops)} warped proposals that the first SVM took for cats, each with its two scores.")


def refined_boxes(data: ImageDataset, examples: Sequence[tuple[int, Tensor, Tensor, Tensor]]) -> None:
    """For each example (image, proposal, refined, object): the part of the image that holds the three boxes."""
    images, threes = zip(*((data[number][0], torch.stack(boxes)) for number, *boxes in examples), strict=True)
    overlaps = [box_iou(boxes[:2], boxes[2:])[:, 0].tolist() for boxes in threes]
    titles = [f"IoU {old:.2f} → {new:.2f}" for old, new in overlaps]
    axes = image_grid(images, titles=titles, columns=len(examples))
    kinds = (("proposal", "white", "-"), ("refined", YELLOW, "-"), ("ground truth", LIME, "--"))
    for ax, boxes in zip(axes, threes, strict=True):
        for box, (_, color, style) in zip(boxes, kinds, strict=True):
            outline(ax, box, color, style=style, width=2.5)
        zoom(ax, boxes, 8, square=True)
    lines = [Line2D([], [], color=color, linestyle=style, linewidth=2.5, label=name) for name, color, style in kinds]
    look = {"facecolor": "0.55", "labelcolor": "white"}
    axes[0].get_figure().legend(handles=lines, loc="outside lower center", ncols=3, **look)
    show(axes, alt=f"Proposals and what regression makes of them, with the ground truth: {'; '.join(titles)}.")


def ablation_bars(rows: Sequence[object]) -> None:
    """AP50 and AP75 of SVMs on each layer, before and after fine-tuning, and with box regression."""
    figure, ax = plt.subplots(figsize=(8, 3.2), layout="constrained")
    places = np.array([0, 1, 2, 3.5, 4.5, 5.5, 6.5])
    for shift, key, color in ((-0.2, "ap50", BLUE), (0.2, "ap75", ORANGE)):
        bars = ax.bar(places + shift, [100 * getattr(row, key) for row in rows], 0.38, color=color, label=key.upper())
        ax.bar_label(bars, fmt="%.0f", fontsize=9)
    ax.set_xticks(places, [f"{row.layer}{' + boxes' if row.box_regression else ''}" for row in rows])
    for place, name in ((1, "as pre-trained"), (5, "fine-tuned")):
        ax.text(place, -0.2, name, ha="center", transform=ax.get_xaxis_transform())
    ax.set(ylabel="percent", ylim=(0, 100))
    ax.legend(frameon=False, loc="upper left", ncols=2)
    texts = ", ".join(f"{row.layer} {100 * row.ap50:.0f}" for row in rows)
    show(figure, alt=f"AP50 and AP75: three layers as pre-trained, then fine-tuned, at last with boxes; AP50 {texts}.")


def error_shares(shares: np.ndarray, names: Names) -> None:
    """For each class (a row) the shares of true positives and of the three kinds of errors (columns)."""
    figure, ax = plt.subplots(figsize=(8, 2.9), layout="constrained")
    colors = dict(zip(KINDS, (GREEN, "#e0b428", "#a2329a", GRAY), strict=True))
    plot_parts(ax, dict(zip(names, shares, strict=True)), colors)
    ax.set(xlim=(0, 1), xlabel="share of the best detections")
    figure.legend(ncols=4, frameon=False, loc="outside lower center")
    mean = ", ".join(f"{kind} {100 * share:.0f}%" for kind, share in zip(KINDS, shares.mean(axis=0), strict=True))
    show(figure, alt=f"A bar for each class, divided by kind of error; on average: {mean}.")


def confident_errors(data: ImageDataset, found: Sequence[Target], errors: Sequence[Judged], classes: Names) -> None:
    """The most confident errors (full lines) with all objects of their images (dashed)."""
    labels = [int(found[error.image]["labels"][error.row]) for error in errors]
    texts = [f"{classes[k]} {error.score:+.1f}: {error.kind}" for k, error in zip(labels, errors, strict=True)]
    images, targets = zip(*(data[error.image] for error in errors), strict=True)
    titles = [text.replace(": ", "\n") for text in texts]
    axes = image_grid(images, titles=titles, columns=-(-len(errors) // 2))
    for ax, target, error, label in zip(axes, targets, errors, labels, strict=True):
        dash_truth(ax, target)
        outline(ax, found[error.image]["boxes"][error.row], class_color(label), width=2.5)
    show(axes, alt=f"The most confident errors with the objects of their images, dashed: {'; '.join(texts)}.")
