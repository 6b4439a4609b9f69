"""Curves of precision and of losses, proposals, and the regions of a segmentation."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.patches import Rectangle
from torch import Tensor

from minircnn.boxes import box_iou
from minircnn.plotting import (
    TITLE_SIZE,
    Image,
    Objects,
    as_arrays,
    as_pixels,
    class_color,
    class_name,
    draw_box,
    draw_labels,
    draw_objects,
    show_image,
)

if TYPE_CHECKING:
    from minircnn.evaluation import Result


def plot_detections(
    image: Image,
    objects: Objects,
    classes: Sequence[str] | None = None,
    *,
    ax: Axes | None = None,
    title: str | None = None,
    width: float | None = None,
    **options: bool,
) -> Axes:
    """An image with the objects of a target or the detections of a model: :func:`show_image`, :func:`draw_objects`."""
    return draw_objects(show_image(image, ax=ax, title=title, width=width), objects, classes, **options)


def plot_pr_curves(
    result: Result, iou_threshold: float = 0.5, *, ax: Axes | None = None, title: str | None = None
) -> Axes:
    """Precision against recall, a curve for each class that has objects.

    The thin line is what the detections gave, one after the other; the thick one the best precision at that recall or a
    higher one, whose mean is the average precision.

    Args:
        result: What :func:`minircnn.evaluation.evaluate` returns.
        iou_threshold: One of the evaluated thresholds.
        ax: Where to draw; by default a new figure.
        title: Title; by default it says the threshold.

    Returns:
        The axes.

    Raises:
        ValueError: The threshold was not evaluated.
    """
    curves = result.curves(iou_threshold)
    if ax is None:
        _, ax = plt.subplots(figsize=(6.4, 4.8), layout="constrained")
    for curve in curves:
        color = class_color(curve.label)
        ax.plot(curve.recall, curve.precision, color=color, linewidth=0.8, alpha=0.6)
        name = f"{curve.name}: AP {100 * curve.average_precision:.1f}"
        ax.plot(curve.recall_points, curve.interpolated, color=color, linewidth=2, drawstyle="steps-pre", label=name)
    ax.set(xlim=(0, 1.01), ylim=(0, 1.03), xlabel="recall", ylabel="precision")
    ax.set_title(title if title is not None else f"Precision and recall at IoU {iou_threshold:g} ({result.kind})")
    ax.grid(color="0.9", linewidth=0.8)
    ax.set_axisbelow(True)
    if curves:
        # Beside the curves, where it hides none of them.
        ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    else:
        ax.text(0.5, 0.5, "no class has objects", ha="center", va="center", transform=ax.transAxes)
    return ax


def plot_losses(
    history: Sequence[Mapping[str, float]], *, window: int = 20, ax: Axes | None = None, title: str | None = None
) -> Axes:
    """Losses during training: a thin line for each batch, and a thick one for the mean of the last ones.

    Args:
        history: The losses of each iteration by name, as :func:`minircnn.training.fit` returns them.
        window: Over how many batches the thick line takes the mean (at the beginning, over those that there are).
        ax: Where to draw; by default a new figure.
        title: Title.

    Returns:
        The axes.

    Raises:
        ValueError: No iterations, or a window below 1.
    """
    if not history or window < 1:
        raise ValueError(f"history has {len(history)} iterations, window is {window}: both must be at least 1")
    if ax is None:
        _, ax = plt.subplots(figsize=(6.4, 3.2), layout="constrained")
    for i, name in enumerate(history[0]):
        values = np.array([losses[name] for losses in history])
        sums = np.cumsum(np.concatenate([[0.0], values]))
        end = np.arange(1, len(values) + 1)
        start = np.maximum(end - window, 0)
        ax.plot(end, values, color=f"C{i}", linewidth=0.7, alpha=0.4)
        ax.plot(end, (sums[end] - sums[start]) / (end - start), color=f"C{i}", linewidth=2, label=name)
    ax.set(xlim=(0, len(history)), xlabel="iteration", ylabel="loss")
    ax.set_ylim(bottom=0)
    if title:
        ax.set_title(title, fontsize=TITLE_SIZE)
    ax.grid(color="0.9", linewidth=0.8)
    ax.set_axisbelow(True)
    ax.legend(frameon=False)
    return ax


def plot_proposals(
    image: Image,
    boxes: Tensor,
    objects: Objects | None = None,
    classes: Sequence[str] | None = None,
    *,
    ax: Axes | None = None,
    title: str | None = None,
    width: float | None = None,
) -> Axes:
    """Many boxes in thin lines; for each object its true box (dashed) and, in its color, the proposal that fits best.

    Args:
        image: The image, see :func:`show_image`.
        boxes: (P, 4) proposals.
        objects: A target, with ``boxes`` (G, 4) and ``labels`` (G,). Crowd regions are left out: a proposal is for one
            object, and :func:`minircnn.evaluation.proposal_recall` does not count them either.
        classes: Names by label.
        ax: Where to draw; by default a new figure.
        title: Title.
        width: Width of a new figure in inches.

    Returns:
        The axes. The label of a best proposal states its IoU with the object.
    """
    ax = show_image(image, ax=ax, title=title, width=width)
    boxes = torch.as_tensor(boxes).detach().cpu()
    # The more boxes there are, the fainter each: a thousand of them have to leave the image visible.
    faint = float(np.clip(6 / math.sqrt(max(len(boxes), 1)), 0.12, 0.7))
    patches = [Rectangle((x1, y1), x2 - x1, y2 - y1) for x1, y1, x2, y2 in boxes.tolist()]
    ax.add_collection(
        PatchCollection(patches, facecolor="none", edgecolor="white", linewidth=0.7, alpha=faint, zorder=3)
    )
    if objects is None or len(objects["boxes"]) == 0:
        return ax
    truth, labels = _single_objects(objects, classes)
    colors = [class_color(label) for label in labels]
    for box, color in zip(truth.tolist(), colors, strict=True):
        draw_box(ax, box, color, dashed=True)
    if len(boxes):
        best_iou, best = box_iou(truth, boxes.float()).max(dim=1)  # (G,)
        best_boxes = boxes[best].tolist()
        for box, color in zip(best_boxes, colors, strict=True):
            draw_box(ax, box, color)
        texts = [f"{class_name(k, classes)}: IoU {iou:.2f}" for k, iou in zip(labels, best_iou.tolist(), strict=True)]
        draw_labels(ax, texts, best_boxes, colors)
    return ax


def _single_objects(objects: Objects, classes: Sequence[str] | None) -> tuple[Tensor, list[int]]:
    """Boxes (G, 4) and labels of the objects that are no crowd."""
    found = as_arrays(objects, classes)
    single = ~found.get("iscrowd", np.zeros(len(found["labels"]), dtype=bool)).astype(bool)
    return torch.from_numpy(found["boxes"][single]).float().reshape(-1, 4), found["labels"][single].tolist()


def plot_label_map(
    labels: np.ndarray | Tensor,
    image: np.ndarray | Tensor | None = None,
    *,
    opacity: float = 0.6,
    ax: Axes | None = None,
    title: str | None = None,
) -> Axes:
    """The regions of a segmentation, each in its own color, with dark lines between them.

    Args:
        labels: (H, W) whole numbers ≥ 0, such as felzenszwalb gives them. The same number keeps its color in every
            image.
        image: The segmented image, to be seen through the colors; see :func:`show_image` for its forms.
        opacity: Share of the colors over the image, in [0, 1].
        ax: Where to draw; by default a new figure.
        title: Title.

    Returns:
        The axes.

    Raises:
        ValueError: The map is not (H, W) of whole numbers ≥ 0, or has another size than the image.
    """
    labels = np.asarray(labels)
    if labels.ndim != 2 or not np.issubdtype(labels.dtype, np.integer) or (labels.size and labels.min() < 0):
        raise ValueError(f"labels must be (H, W) whole numbers >= 0, not {labels.dtype} of shape {labels.shape}")
    colors = label_map_colors(labels)  # (H, W, 3)
    if image is not None:
        pixels = as_pixels(image)
        if pixels.shape[:2] != labels.shape:
            raise ValueError(f"labels of size {labels.shape} for an image of size {pixels.shape[:2]}")
        colors = opacity * colors + (1 - opacity) * pixels
    colors[_edges(labels)] *= 0.35
    return show_image(colors, ax=ax, title=title)


def _edges(labels: np.ndarray) -> np.ndarray:
    """(H, W) bool: pixels whose right or lower neighbor belongs to another region."""
    edges = np.zeros(labels.shape, dtype=bool)
    edges[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    edges[:-1] |= labels[:-1] != labels[1:]
    return edges


def label_map_colors(labels: np.ndarray) -> np.ndarray:
    """A color for every region of a segmentation.

    The color depends on the region's number alone: a region that survives a merge keeps its color. Neighboring
    numbers, which often lie side by side in the image, get hues far apart.

    Args:
        labels: (H, W) whole numbers ≥ 0.

    Returns:
        (H, W, 3) float in [0, 1].
    """
    numbers, position = np.unique(labels, return_inverse=True)
    saturations, values = (0.45, 0.7, 0.95), (0.95, 0.75, 0.6)
    table = np.array(
        [
            colorsys.hsv_to_rgb(n * 0.6180339887498949 % 1, saturations[n % 3], values[n // 3 % 3])
            for n in map(int, numbers)
        ]
    ).reshape(-1, 3)
    return table[position.reshape(labels.shape)]  # (H, W, 3)
