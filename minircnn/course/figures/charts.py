"""Curves of precision and of losses, proposals, and the regions of a segmentation."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.patches import Rectangle
from torch import Tensor

from minircnn.boxes import box_iou
from minircnn.evaluation import Result
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


def plot_pr_curves(result: Result, iou_threshold: float = 0.5) -> Axes:
    """Precision against recall at one of the evaluated thresholds, a curve for each class that has objects.

    The thin line is what the detections gave, one after the other; the thick one the best precision at that recall or a
    higher one, whose mean is the average precision.
    """
    _, ax = plt.subplots(figsize=(7.4, 4.8), layout="constrained")
    for curve in result.curves(iou_threshold):
        color = class_color(curve.label)
        ax.plot(curve.recall, curve.precision, color=color, linewidth=0.8, alpha=0.6)
        name = f"{curve.name}: AP {100 * curve.average_precision:.1f}"
        ax.plot(curve.recall_points, curve.interpolated, color=color, linewidth=2, drawstyle="steps-pre", label=name)
    ax.set(xlim=(0, 1.01), ylim=(0, 1.03), xlabel="recall", ylabel="precision")
    ax.set_title(f"Precision and recall at IoU {iou_threshold:g} ({result.kind})")
    ax.grid(color="0.9", linewidth=0.8)
    ax.set_axisbelow(True)
    # Beside the curves, where it hides none of them.
    ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    return ax


def plot_losses(
    history: Sequence[Mapping[str, float]], *, window: int = 20, ax: Axes | None = None, title: str | None = None
) -> Axes:
    """Losses during training by name: a thin line for each batch, and a thick one for the mean of the last ``window``.

    ``history`` has the losses of each iteration, as :func:`minircnn.training.fit` returns them.
    """
    if ax is None:
        _, ax = plt.subplots(figsize=(6.4, 3.2), layout="constrained")
    for i, name in enumerate(history[0]):
        values = np.array([losses[name] for losses in history])
        end = np.arange(1, len(values) + 1)
        means = [values[max(0, last - window) : last].mean() for last in end]
        ax.plot(end, values, color=f"C{i}", linewidth=0.7, alpha=0.4)
        ax.plot(end, means, color=f"C{i}", linewidth=2, label=name)
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
) -> Axes:
    """Many boxes (P, 4) in thin lines; for each object its true box (dashed) and, in its color, the best proposal.

    The label of a best proposal states its IoU with the object. Crowds are left out: a proposal is for one object.
    """
    ax = show_image(image, ax=ax, title=title)
    # The more boxes there are, the fainter each: a thousand of them have to leave the image visible.
    faint = float(np.clip(6 / math.sqrt(max(len(boxes), 1)), 0.12, 0.7))
    patches = [Rectangle((x1, y1), x2 - x1, y2 - y1) for x1, y1, x2, y2 in boxes.tolist()]
    look = {"facecolor": "none", "edgecolor": "white", "linewidth": 0.7, "alpha": faint, "zorder": 3}
    ax.add_collection(PatchCollection(patches, **look))
    if objects is None or len(boxes) == 0:
        return ax
    found = as_arrays(objects, classes)
    single = ~found.get("iscrowd", np.zeros(len(found["labels"]), dtype=bool)).astype(bool)
    truth, labels = torch.from_numpy(found["boxes"][single]).float(), found["labels"][single].tolist()
    colors = [class_color(label) for label in labels]
    best_iou, best = box_iou(truth, boxes.float()).max(dim=1)  # (G,)
    best_boxes = boxes[best].tolist()
    for drawn, dashed in ((truth.tolist(), True), (best_boxes, False)):
        for box, color in zip(drawn, colors, strict=True):
            draw_box(ax, box, color, dashed=dashed)
    texts = [f"{class_name(k, classes)}: IoU {iou:.2f}" for k, iou in zip(labels, best_iou.tolist(), strict=True)]
    draw_labels(ax, texts, best_boxes, colors)
    return ax


def plot_label_map(
    labels: np.ndarray | Tensor,
    image: np.ndarray | Tensor | None = None,
    *,
    opacity: float = 0.6,
    ax: Axes | None = None,
    title: str | None = None,
) -> Axes:
    """The regions of a segmentation (H, W), each in its own color, with dark lines between them.

    The same number keeps its color in every image. An image lets itself be seen through colors of that opacity.
    """
    labels = np.asarray(labels)
    if labels.ndim != 2 or not np.issubdtype(labels.dtype, np.integer) or (labels.size and labels.min() < 0):
        raise ValueError(f"labels must be (H, W) whole numbers >= 0, not {labels.dtype} of shape {labels.shape}")
    colors = label_map_colors(labels)  # (H, W, 3)
    if image is not None:
        colors = opacity * colors + (1 - opacity) * as_pixels(image)
    edges = np.zeros(labels.shape, dtype=bool)  # pixels whose right or lower neighbor belongs to another region
    edges[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    edges[:-1] |= labels[:-1] != labels[1:]
    colors[edges] *= 0.35
    return show_image(colors, ax=ax, title=title)


def label_map_colors(labels: np.ndarray) -> np.ndarray:
    """A color (H, W, 3) for every region of a segmentation (H, W), which depends on the region's number alone.

    So a region that survives a merge keeps its color. Neighboring numbers, which often lie side by side in the image,
    get hues far apart.
    """
    numbers, position = np.unique(labels, return_inverse=True)
    saturations, values = (0.45, 0.7, 0.95), (0.95, 0.75, 0.6)
    colors = [
        colorsys.hsv_to_rgb(n * 0.6180339887498949 % 1, saturations[n % 3], values[n // 3 % 3])
        for n in map(int, numbers)
    ]
    return np.array(colors).reshape(-1, 3)[position.reshape(labels.shape)]
