"""Curves of precision and of losses, proposals, label maps; filters, activations, and sheets of small images.

Shape comments: N images, F filters, C channels, h w size of an image, a map or a filter.
"""

import colorsys
import math
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.patches import Rectangle
from matplotlib.textpath import TextPath
from torch import Tensor

from minircnn import plotting
from minircnn.boxes import box_iou
from minircnn.course.figures.colors import BLUE, GRAY, GREEN, ORANGE, RED, SAND
from minircnn.course.figures.display import Names, show
from minircnn.course.figures.panels import outline, plot_parts
from minircnn.evaluation import Result
from minircnn.plotting import TITLE_SIZE, Image, Objects, as_pixels, class_color, class_name, draw_objects, show_image

CAPTION_SIZE = 8.0  # points
_FRAME = 2.0  # points
_WIDTH = 8.2  # inches of a sheet; with wider ones notebook 03 would be larger than 2 MB


def plot_detections(
    image: Image, objects: Objects, classes: Names | None = None, masks: bool = True, names: bool = True, **at: object
) -> Axes:
    """An image with the objects of a target or the detections of a model: :func:`show_image`, :func:`draw_objects`."""
    return draw_objects(show_image(image, **at), objects, classes, masks=masks, names=names)


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


def plot_losses(history: Sequence[Mapping], window: int = 20, ax: Axes | None = None, title: str = "") -> Axes:
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
    image: Image, boxes: Tensor, objects: Objects | None = None, classes: Names | None = None, ax: Axes | None = None
) -> Axes:
    """Many boxes (P, 4) in thin lines; for each object its true box (dashed) and, in its color, the best proposal.

    The label of a best proposal states its IoU with the object. Crowds are left out: a proposal is for one object.
    """
    ax = show_image(image, ax=ax)
    # The more boxes there are, the fainter each: a thousand of them have to leave the image visible.
    faint = float(np.clip(6 / math.sqrt(max(len(boxes), 1)), 0.12, 0.7))
    patches = [Rectangle((x1, y1), x2 - x1, y2 - y1) for x1, y1, x2, y2 in boxes.tolist()]
    look = {"facecolor": "none", "edgecolor": "white", "linewidth": 0.7, "alpha": faint, "zorder": 3}
    ax.add_collection(PatchCollection(patches, **look))
    if objects is None or len(boxes) == 0:
        return ax
    found = plotting.as_arrays(objects, classes)
    single = ~found.get("iscrowd", np.zeros(len(found["labels"]), dtype=bool)).astype(bool)
    truth, labels = torch.from_numpy(found["boxes"][single]).float(), found["labels"][single].tolist()
    colors = [class_color(label) for label in labels]
    best_iou, best = box_iou(truth, boxes.float()).max(dim=1)  # (G,)
    best_boxes = boxes[best].tolist()
    for drawn, dashed in ((truth.tolist(), True), (best_boxes, False)):
        for box, color in zip(drawn, colors, strict=True):
            plotting.draw_box(ax, box, color, dashed=dashed)
    texts = [f"{class_name(k, classes)}: IoU {iou:.2f}" for k, iou in zip(labels, best_iou.tolist(), strict=True)]
    plotting.draw_labels(ax, texts, best_boxes, colors)
    return ax


def plot_label_map(
    labels: np.ndarray | Tensor, image: Image | None = None, *, opacity: float = 0.6, ax: Axes | None = None
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
    return show_image(colors, ax=ax)


def label_map_colors(labels: np.ndarray) -> np.ndarray:
    """A color (H, W, 3) for every region of a segmentation (H, W), which depends on the region's number alone.

    A region that survives a merge keeps its color. Neighboring numbers, often side by side, get hues far apart.
    """
    numbers, position = np.unique(labels, return_inverse=True)
    saturation, value = (0.45, 0.7, 0.95), (0.95, 0.75, 0.6)
    hues = numbers * 0.6180339887498949 % 1
    colors = [colorsys.hsv_to_rgb(h, saturation[n % 3], value[n // 3 % 3]) for h, n in zip(hues, numbers, strict=True)]
    return np.array(colors).reshape(-1, 3)[position.reshape(labels.shape)]


def mosaic(tiles: np.ndarray, columns: int, gap: tuple[int, int]) -> np.ndarray:
    """Images (N, h, w, 3) of one size as one image, row by row, with white rows and columns between them.

    Tile i begins at row ``i // columns * (h + gap[0])`` and column ``i % columns * (w + gap[1])``.
    """
    count, height, width = tiles.shape[:3]
    down, across = height + gap[0], width + gap[1]
    canvas = np.ones((math.ceil(count / columns) * down - gap[0], columns * across - gap[1], 3))
    for i, tile in enumerate(tiles):
        y, x = i // columns * down, i % columns * across
        canvas[y : y + height, x : x + width] = tile
    return canvas


def plot_filters(weight: Tensor, columns: int = 0, ax: Axes | None = None, title: str | None = None) -> Axes:
    """The filters of a first convolution (F, 3, h, w), red first, as small images, by default in a square.

    A filter holds a weight for each color of each pixel. Gray is weight 0; each filter is scaled on its own, so that
    its largest weight, positive or negative, has full color.
    """
    values = weight.detach().cpu().double().numpy()
    if values.ndim != 4 or values.shape[1] != 3 or 0 in values.shape:
        raise ValueError(f"weight must be (F, 3, h, w), filters that look at colors, not {tuple(weight.shape)}")
    largest = np.abs(values).max(axis=(1, 2, 3), keepdims=True)
    tiles = 0.5 + 0.5 * values / np.where(largest > 0, largest, 1)
    return _show_tiles(tiles.transpose(0, 2, 3, 1), columns, ax, title)


def plot_maps(maps: Tensor, columns: int = 0, ax: Axes | None = None) -> Axes:
    """Activation maps (C, h, w) of one image, behind a ReLU, each from black (0) to light yellow (its largest)."""
    values = maps.detach().cpu().double().numpy()
    if values.ndim != 3 or 0 in values.shape:
        raise ValueError(f"maps must be (C, h, w), those of one image, not {tuple(maps.shape)}")
    if not values.min() >= 0:
        raise ValueError(f"maps hold values from {values.min():.3g}: show what comes out of a ReLU, which is >= 0")
    largest = values.max(axis=(1, 2), keepdims=True)
    shares = values / np.where(largest > 0, largest, 1)
    return _show_tiles(plt.get_cmap("inferno")(shares)[..., :3], columns, ax)


def _show_tiles(tiles: np.ndarray, columns: int, ax: Axes | None, title: str | None = None) -> Axes:
    """(N, h, w, 3) as a mosaic; pixels stay squares with sharp edges."""
    columns = min(columns or math.ceil(math.sqrt(len(tiles))), len(tiles))
    # The same share of a tile whatever its size: sheets of small and of large maps below each other stay in line.
    gap = max(1, round(tiles.shape[2] / 16))
    ax = show_image(mosaic(tiles, columns, (gap, gap)), ax=ax, title=title)
    ax.images[0].set_interpolation("nearest")
    return ax


def contact_sheet(
    images: Sequence[Tensor], labels: Sequence[int | None], captions: Names, columns: int = 8, row_titles: Names = ()
) -> Axes:
    """Many small images of one size, row by row on one pair of axes, which counts in their pixels.

    Each has a frame in the color of its class, gray for 0 (background), or none where its label is None, and a caption
    below it, which may have several lines; a row may have a title at its left.
    """
    tiles = np.stack([as_pixels(image) for image in images])
    (height, breadth), rows = tiles.shape[1:3], math.ceil(len(tiles) / columns)
    gap = max(2, round(0.06 * breadth))
    dots = columns * (breadth + gap) / _WIDTH  # pixels of the images that lie in an inch
    below = gap + math.ceil(1.3 * max(text.count("\n") + 1 for text in captions) * CAPTION_SIZE / 72 * dots)
    canvas = mosaic(tiles, columns, (below, gap))
    canvas = np.pad(canvas, ((gap, below), (gap, gap), (0, 0)), constant_values=1.0)  # the outer frames need room, too
    ax = show_image(canvas, ax=_axes_beside(canvas, row_titles))
    for i, (label, caption) in enumerate(zip(labels, captions, strict=True)):
        x, y = gap + i % columns * (breadth + gap), gap + i // columns * (height + below)
        if label is not None:
            frame = (x - 0.5, y - 0.5, x + breadth + 0.5, y + height + 0.5)
            outline(ax, frame, class_color(label), width=_FRAME, edge=False)
        place = (x + breadth / 2, y + height + 0.5 * gap)
        ax.text(*place, caption, fontsize=CAPTION_SIZE, ha="center", va="top", parse_math=False)
    if row_titles:
        ax.set_yticks([gap + row * (height + below) + height / 2 for row in range(rows)], row_titles)
        ax.tick_params(length=0, labelsize=TITLE_SIZE)
    return ax


def _axes_beside(canvas: np.ndarray, row_titles: Names) -> Axes:
    """Axes that a sheet fills, in a new figure with room for the row titles beside them."""
    # A few per cent wider than the outlines of the letters, and the distance that matplotlib leaves beside ticks.
    long = max((TextPath((0, 0), text, size=TITLE_SIZE).get_extents().width for text in row_titles), default=0.0)
    beside = (1.05 * long + 8) / 72 if long else 0.0  # inches
    figure = plt.figure(figsize=(_WIDTH, (_WIDTH - beside) * canvas.shape[0] / canvas.shape[1]))
    return figure.add_axes((beside / _WIDTH, 0, 1 - beside / _WIDTH, 1))


def shares_of_time(seconds: Mapping[str, float]) -> None:
    """The stages of selective search in a photograph as shares of its time."""
    title = f"one photograph: {sum(seconds.values()):.1f} s on this machine"
    alt = f"One bar, divided into the shares of time of {', '.join(seconds)}."
    _show_shares(seconds, (SAND, RED, ORANGE, BLUE, GRAY), title, 1.6, 3, alt)


def time_bar(seconds: Mapping[str, float]) -> None:
    """The stages of R-CNN for one image as shares of its time."""
    title = f"R-CNN: {sum(seconds.values()):.2f} s an image on this machine"
    alt = f"One bar, divided into the shares of {', '.join(seconds)}."
    _show_shares(seconds, (RED, SAND, BLUE, GREEN, GRAY), title, 1.5, len(seconds), alt)


def _show_shares(values: Mapping[str, float], colors: Names, title: str, height: float, columns: int, alt: str) -> None:
    """One bar of full length, divided as the values are, with their shares in the legend below it."""
    figure, ax = plt.subplots(figsize=(9, height), layout="constrained")
    shares = {name: value / sum(values.values()) for name, value in values.items()}
    names = [f"{name} {100 * share:.0f}%" for name, share in shares.items()]
    plot_parts(ax, {"": [*shares.values()]}, dict(zip(names, colors, strict=True)))
    ax.set(xlim=(0, 1), yticks=[], xticks=[], title=title)
    ax.legend(ncols=columns, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.02), fontsize=9)
    ax.spines[:].set_visible(False)
    show(figure, alt=alt)
