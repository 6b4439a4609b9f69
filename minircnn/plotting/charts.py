"""Curves and maps: precision against recall, and the regions of a segmentation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from torch import Tensor

from minircnn.plotting.colours import class_colour, label_map_colours
from minircnn.plotting.pictures import as_pixels, show_image

if TYPE_CHECKING:
    from minircnn.evaluation import Result


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
        colour = class_colour(curve.label)
        ax.plot(curve.recall, curve.precision, color=colour, linewidth=0.8, alpha=0.6)
        name = f"{curve.name}: AP {100 * curve.average_precision:.1f}"
        ax.plot(curve.recall_points, curve.interpolated, color=colour, linewidth=2, drawstyle="steps-pre", label=name)
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


def plot_label_map(
    labels: np.ndarray | Tensor,
    image: np.ndarray | Tensor | None = None,
    *,
    opacity: float = 0.6,
    ax: Axes | None = None,
    title: str | None = None,
) -> Axes:
    """The regions of a segmentation, each in its own colour, with dark lines between them.

    Args:
        labels: (H, W) whole numbers ≥ 0, such as felzenszwalb gives them. The same number keeps its colour in every
            picture.
        image: The segmented picture, to be seen through the colours; see :func:`show_image` for its forms.
        opacity: Share of the colours over the picture, in [0, 1].
        ax: Where to draw; by default a new figure.
        title: Title.

    Returns:
        The axes.

    Raises:
        ValueError: The map is not (H, W) of whole numbers ≥ 0, or has another size than the picture.
    """
    labels = np.asarray(labels)
    if labels.ndim != 2 or not np.issubdtype(labels.dtype, np.integer) or (labels.size and labels.min() < 0):
        raise ValueError(f"labels must be (H, W) whole numbers >= 0, not {labels.dtype} of shape {labels.shape}")
    colours = label_map_colours(labels)  # (H, W, 3)
    if image is not None:
        pixels = as_pixels(image)
        if pixels.shape[:2] != labels.shape:
            raise ValueError(f"labels of size {labels.shape} for a picture of size {pixels.shape[:2]}")
        colours = opacity * colours + (1 - opacity) * pixels
    colours[_edges(labels)] *= 0.35
    return show_image(colours, ax=ax, title=title)


def _edges(labels: np.ndarray) -> np.ndarray:
    """(H, W) bool: pixels whose right or lower neighbour belongs to another region."""
    edges = np.zeros(labels.shape, dtype=bool)
    edges[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    edges[:-1] |= labels[:-1] != labels[1:]
    return edges
