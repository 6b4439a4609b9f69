"""Figures of notebook 04: labels of proposals, hard negatives, refined boxes, shares of time, ablation, errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.lines import Line2D
from torch import Tensor

from minircnn.boxes import box_iou
from minircnn.course.errors import KINDS
from minircnn.course.figures.boxes import BLUE, GREEN, ORANGE, RED, YELLOW, outline
from minircnn.course.figures.display import show
from minircnn.plotting import class_color, image_grid, show_image

if TYPE_CHECKING:
    from minircnn.course.errors import Judged
    from minircnn.datasets.images import ImageDataset

_STAGES = (RED, "#d9c27a", BLUE, "#2a7a64", "#8a8a8a")
_KINDS = ("#2a7a64", "#e0b428", "#a2329a", "#8a8a8a")
_MOST = 8  # boxes in one panel; more cannot be told apart


def proposal_labels(
    image: Tensor, target: Mapping[str, Tensor], proposals: Tensor, labels: Tensor, negative: Tensor, k: int, name: str
) -> None:
    """What proposals are for fine-tuning, ``labels`` ``(P,)``, and for the SVM of class k, ``negative`` ``(P,)``."""
    objects, positive = target["boxes"][target["labels"] == k], labels > 0
    panels = (
        (f"fine-tuning: {_some(positive)} with a class", proposals[positive], labels[positive].tolist()),
        (f"SVM for {name}s: {_some(~negative)} not used", proposals[~negative], None),
        (f"SVM for {name}s: {_some(negative)} negatives", proposals[negative], None),
    )
    figure, axes = plt.subplots(1, 3, figsize=(9, 3.4), layout="constrained")
    for ax, (title, boxes, classes) in zip(axes, panels, strict=True):
        show_image(image, ax=ax, title=title)
        rows = torch.linspace(0, len(boxes) - 1, min(_MOST, len(boxes))).long().tolist()
        for row in rows:
            outline(ax, boxes[row], class_color(classes[row]) if classes else "white", width=1.2)
        if classes is None:
            for box in objects:
                outline(ax, box, class_color(k), style="--", width=2.5)
    alt = "; ".join(title for title, _, _ in panels)
    show(figure, alt=f"Proposals of one image. {alt}. The {name} itself is dashed.")


def _some(rows: Tensor) -> str:
    return f"{min(_MOST, int(rows.sum()))} of {int(rows.sum())}"


def loss_curve(losses: Sequence[float], chance: float) -> None:
    """The loss of each batch of fine-tuning, and that of a network that gives all classes one probability."""
    figure, ax = plt.subplots(figsize=(6, 2.7), layout="constrained")
    ax.plot(range(1, len(losses) + 1), losses, color=BLUE)
    ax.axhline(chance, color="0.5", linestyle="--", linewidth=1)
    ax.text(len(losses), chance + 0.05, f"equal probabilities: {chance:.2f}", ha="right", color="0.35")
    ax.set(xlabel="batches of 128 warped proposals", ylabel="cross-entropy", ylim=(0, chance + 0.45))
    show(figure, alt=f"The cross-entropy starts near {chance:.2f} and falls within {len(losses)} batches.")


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
    show(
        figure,
        alt="Scores of negatives before and after mining; afterwards fewer are above -1.",
    )


def hard_negatives(crops: Sequence[Tensor], before: Tensor, after: Tensor) -> None:
    """Warped crops with their scores before and after mining."""
    titles = [f"{first:+.2f} → {second:+.2f}" for first, second in zip(before, after, strict=True)]
    axes = image_grid(crops, titles=titles, columns=4)
    show(axes, alt=f"{len(crops)} warped proposals that the first SVM took for cats, each with its two scores.")


def refined_boxes(data: ImageDataset, examples: Sequence[tuple[int, Tensor, Tensor, Tensor]]) -> None:
    """For each example (image, proposal, refined, object): the part of the image that holds the three boxes."""
    figure, axes = plt.subplots(1, len(examples), figsize=(9, 3.3), layout="constrained")
    texts = []
    for ax, (image, *boxes) in zip(axes, examples, strict=True):
        old, new = box_iou(torch.stack(boxes[:2]), boxes[2][None])[:, 0].tolist()
        texts.append(f"IoU {old:.2f} → {new:.2f}")
        show_image(data[image][0], ax=ax, title=texts[-1])
        for box, color, style in zip((boxes[2], *boxes[:2]), (GREEN, "white", YELLOW), ("--", "-", "-"), strict=True):
            outline(ax, box, color, style=style, width=2.5)
        low, high = torch.stack(boxes)[:, :2].amin(dim=0), torch.stack(boxes)[:, 2:].amax(dim=0)
        (x, y), half = ((low + high) / 2).tolist(), 0.62 * (high - low).max().item()
        ax.set(xlim=(x - half, x + half), ylim=(y + half, y - half))
    kinds = (("ground truth", GREEN, "--"), ("proposal", "white", "-"), ("refined", YELLOW, "-"))
    lines = [Line2D([], [], color=color, linestyle=style, linewidth=2.5, label=name) for name, color, style in kinds]
    figure.legend(handles=lines, loc="outside lower center", ncols=3, facecolor="0.55", labelcolor="white")
    show(figure, alt=f"Proposals and what regression makes of them, with the ground truth: {'; '.join(texts)}.")


def time_bar(seconds: Mapping[str, float]) -> None:
    """The stages of one image as shares of its time."""
    total, left = sum(seconds.values()), 0.0
    figure, ax = plt.subplots(figsize=(9, 1.5), layout="constrained")
    for (stage, value), color in zip(seconds.items(), _STAGES, strict=True):
        ax.barh(0, value / total, left=left, color=color, label=f"{stage} {100 * value / total:.0f}%")
        left += value / total
    ax.set(xlim=(0, 1), yticks=[], xticks=[], title=f"R-CNN: {total:.2f} s an image on this machine")
    ax.legend(ncols=len(seconds), frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.02), fontsize=9)
    ax.spines[:].set_visible(False)
    show(figure, alt=f"One bar, divided into the shares of {', '.join(seconds)}.")


def ablation_bars(rows: Sequence[object]) -> None:
    """AP50 and AP75 of SVMs on each layer, before and after fine-tuning, and with box regression."""
    figure, ax = plt.subplots(figsize=(8, 3.2), layout="constrained")
    places = np.array([0, 1, 2, 3.5, 4.5, 5.5, 6.5])
    for shift, key, color in ((-0.2, "ap50", BLUE), (0.2, "ap75", ORANGE)):
        bars = ax.bar(places + shift, [100 * getattr(row, key) for row in rows], 0.38, color=color, label=key.upper())
        ax.bar_label(bars, fmt="%.0f", fontsize=9)
    ax.set_xticks(places, [f"{row.layer}{' + boxes' if row.box_regression else ''}" for row in rows])
    ax.text(1, -0.2, "as pre-trained", ha="center", transform=ax.get_xaxis_transform())
    ax.text(5, -0.2, "fine-tuned", ha="center", transform=ax.get_xaxis_transform())
    ax.set(ylabel="percent", ylim=(0, 100))
    ax.legend(frameon=False, loc="upper left", ncols=2)
    texts = ", ".join(f"{row.layer} {100 * row.ap50:.0f}" for row in rows)
    show(figure, alt=f"AP50 and AP75: three layers as pre-trained, then fine-tuned, at last with boxes; AP50 {texts}.")


def error_shares(shares: np.ndarray, names: Sequence[str]) -> None:
    """For each class (a row) the shares of true positives and of the three kinds of errors (columns)."""
    figure, ax = plt.subplots(figsize=(8, 2.9), layout="constrained")
    left = np.zeros(len(shares))
    for column, (kind, color) in enumerate(zip(KINDS, _KINDS, strict=True)):
        ax.barh(range(len(shares)), shares[:, column], left=left, color=color, label=kind)
        left += shares[:, column]
    ax.set(yticks=range(len(shares)), yticklabels=names, xlim=(0, 1), xlabel="share of the best detections")
    ax.invert_yaxis()
    figure.legend(ncols=4, frameon=False, loc="outside lower center")
    mean = ", ".join(f"{kind} {100 * share:.0f}%" for kind, share in zip(KINDS, shares.mean(axis=0), strict=True))
    show(figure, alt=f"A bar for each class, divided by kind of error; on average: {mean}.")


def confident_errors(
    data: ImageDataset, detections: Sequence[Mapping[str, Tensor]], errors: Sequence[Judged], classes: Sequence[str]
) -> None:
    """The most confident errors (full lines) with all objects of their images (dashed)."""
    figure, grid = plt.subplots(2, -(-len(errors) // 2), figsize=(9, 5.4), layout="constrained")
    titles = []
    for ax, error in zip(grid.flat, errors, strict=True):
        image, target = data[error.image]
        label = int(detections[error.image]["labels"][error.row])
        titles.append(f"{classes[label]} {error.score:+.1f}: {error.kind}")
        show_image(image, ax=ax)
        ax.set_title(titles[-1].replace(": ", "\n"), fontsize=10)
        for box, k in zip(target["boxes"], target["labels"].tolist(), strict=True):
            outline(ax, box, class_color(k), style="--", width=1.5)
        outline(ax, detections[error.image]["boxes"][error.row], class_color(label), width=2.5)
    show(figure, alt=f"The most confident errors with the objects of their images, dashed: {'; '.join(titles)}.")
