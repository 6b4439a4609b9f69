"""Pictures with what was found in them: boxes, labels, scores, masks, proposals.

Shape comments: N objects or detections, P proposals, G ground-truth objects, H W picture size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.patches import Rectangle
from torch import Tensor

from minircnn.boxes import box_iou
from minircnn.plotting.colours import class_colour
from minircnn.plotting.marks import draw_box, draw_labels, draw_masks, picture_size
from minircnn.targets import check_classes

Picture = np.ndarray | Tensor
Objects = Mapping[str, Any]

TITLE_SIZE = 10.0  # points
NOTEBOOK_WIDTH = 9.0  # inches; about the width of a notebook's text at 100 dots an inch


def as_pixels(image: Picture) -> np.ndarray:
    """Any usual form of a picture as (H, W, 3) floats in [0, 1], always a copy.

    Args:
        image: Tensor (3, H, W), (1, H, W) or (H, W) in [0, 1]; or array (H, W, 3) or (H, W), floats in [0, 1] or uint8.

    Raises:
        ValueError: Another shape, or values outside of [0, 1], as a normalised picture has them.
    """
    pixels = image.detach().cpu().numpy() if isinstance(image, Tensor) else np.asarray(image)
    if isinstance(image, Tensor) and pixels.ndim == 3:
        pixels = pixels.transpose(1, 2, 0)  # (H, W, 3 or 1)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or 0 in pixels.shape:
        raise ValueError(
            f"a picture of shape {tuple(image.shape)}: give a tensor (3, H, W) or an array (H, W, 3), not empty"
        )
    pixels = pixels / 255.0 if pixels.dtype == np.uint8 else pixels.astype(np.float64)
    low, high = pixels.min(), pixels.max()
    if not (low >= -1e-3 and high <= 1 + 1e-3):
        raise ValueError(
            f"picture values from {low:.3g} to {high:.3g}: they must lie in [0, 1] (undo normalisation first)"
        )
    return np.broadcast_to(pixels.clip(0, 1), (*pixels.shape[:2], 3)).copy()


def show_image(image: Picture, ax: Axes | None = None, title: str | None = None, *, width: float | None = None) -> Axes:
    """A picture without axis ticks; x runs from 0 to W, y from 0 (top) to H.

    Args:
        image: Tensor (3, H, W) in [0, 1], or array (H, W, 3) or (H, W), floats in [0, 1] or uint8.
        ax: Where to draw; by default a new figure of the picture's proportions.
        title: Title.
        width: Width of a new figure in inches; by default 6, less for tall pictures.

    Returns:
        The axes.

    Raises:
        ValueError: No picture (see the message).
    """
    pixels = as_pixels(image)
    height, breadth = pixels.shape[:2]
    if ax is None:
        width = width or 6.0 * min(1, breadth / height)
        figure_height = width * height / breadth + _title_height([title] if title else None, TITLE_SIZE)
        _, ax = plt.subplots(figsize=(width, figure_height), layout="constrained")
        ax.get_figure().get_layout_engine().set(w_pad=0.02, h_pad=0.02)
    ax.imshow(pixels, extent=(0, breadth, height, 0))
    ax.set(xlim=(0, breadth), ylim=(height, 0), xticks=[], yticks=[])
    ax.set_anchor("S")  # slack in the layout goes above the picture, to its title
    ax.set_autoscale_on(False)
    for spine in ax.spines.values():
        spine.set_visible(False)
    if title:
        ax.set_title(title, fontsize=TITLE_SIZE)
    return ax


def plot_detections(
    image: Picture,
    objects: Objects,
    classes: Sequence[str] | None = None,
    *,
    ax: Axes | None = None,
    title: str | None = None,
    boxes: bool = True,
    masks: bool = True,
    names: bool = True,
    width: float | None = None,
) -> Axes:
    """A picture with the objects of a target or the detections of a model.

    Args:
        image: The picture, see :func:`show_image`.
        objects: A target or detections: ``boxes`` (N, 4) and ``labels`` (N,), and where they are there ``scores`` (N,),
            ``masks`` (N, H, W) and ``iscrowd`` (N,).
        classes: Names by label; a label without a name is written as a number.
        ax: Where to draw; by default a new figure.
        title: Title.
        boxes: Whether to draw the boxes.
        masks: Whether to draw the masks, if there are any.
        names: Whether to write classes and scores.
        width: Width of a new figure in inches.

    Returns:
        The axes.

    Raises:
        ValueError: No picture, or numbers of boxes, labels, … that do not fit together.
    """
    ax = show_image(image, ax=ax, title=title, width=width)
    return draw_objects(ax, objects, classes, boxes=boxes, masks=masks, names=names)


def draw_objects(
    ax: Axes,
    objects: Objects,
    classes: Sequence[str] | None = None,
    *,
    boxes: bool = True,
    masks: bool = True,
    names: bool = True,
) -> Axes:
    """Objects on axes that already show their picture; see :func:`plot_detections` for the arguments.

    The first object of the list lies on top, since detections stand best first. A crowd has a dashed box.
    """
    found = _as_arrays(objects, classes)
    colours = [class_colour(label) for label in found["labels"]]
    crowds = found.get("iscrowd", np.zeros(len(colours), dtype=bool))
    if masks and "masks" in found:
        if found["masks"].shape[1:] != picture_size(ax):
            raise ValueError(f"masks of size {found['masks'].shape[1:]} for a picture of size {picture_size(ax)}")
        draw_masks(ax, found["masks"], colours)
    if boxes:
        for row in reversed(range(len(colours))):
            draw_box(ax, found["boxes"][row], colours[row], dashed=bool(crowds[row]))
    if names:
        texts = [_name(label, classes) for label in found["labels"].tolist()]
        texts = [f"{text} (crowd)" if crowd else text for text, crowd in zip(texts, crowds, strict=True)]
        if "scores" in found:
            texts = [f"{text} {score:.2f}" for text, score in zip(texts, found["scores"], strict=True)]
        draw_labels(ax, texts, found["boxes"], colours)
    return ax


def image_grid(
    images: Sequence[Picture],
    *,
    titles: Sequence[str] | None = None,
    objects: Sequence[Objects] | None = None,
    classes: Sequence[str] | None = None,
    columns: int | None = None,
    width: float = NOTEBOOK_WIDTH,
    **options: bool,
) -> np.ndarray:
    """Pictures side by side, with their objects if given.

    Args:
        images: The pictures; they may differ in size.
        titles: A title for each.
        objects: A target or detections for each.
        classes: Names by label.
        columns: Pictures in a row; by default about as many as rows, at most six.
        width: Width of the figure in inches.
        **options: ``boxes``, ``masks`` and ``names`` of :func:`draw_objects`.

    Returns:
        (N,) array of the axes, in the order of the pictures.

    Raises:
        ValueError: No pictures, or lists of other lengths.
    """
    if len(images) == 0:
        raise ValueError("no pictures to show: images is empty")
    for name, values in (("titles", titles), ("objects", objects)):
        if values is not None and len(values) != len(images):
            raise ValueError(f"{len(values)} {name} for {len(images)} images: give one for each")
    columns = min(columns or min(6, math.ceil(math.sqrt(len(images)))), len(images))
    rows = math.ceil(len(images) / columns)
    pixels = [as_pixels(image) for image in images]
    shapes = [picture.shape[0] / picture.shape[1] for picture in pixels]
    tallest = [max(shapes[row * columns : (row + 1) * columns]) for row in range(rows)]  # each row as tall as it needs
    font = max(6, min(TITLE_SIZE, 40 / columns))
    figure, grid = plt.subplots(
        rows,
        columns,
        figsize=(width, sum(tallest) * width / columns + rows * _title_height(titles, font)),
        gridspec_kw={"height_ratios": tallest},
        layout="constrained",
        squeeze=False,
    )
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.01)
    axes = grid.ravel()
    for unused in axes[len(images) :]:
        unused.remove()
    for i, picture in enumerate(pixels):
        show_image(picture, ax=axes[i])
        if titles:
            axes[i].set_title(titles[i], fontsize=font)
        if objects is not None:
            draw_objects(axes[i], objects[i], classes, **options)
    return axes[: len(images)]


def plot_proposals(
    image: Picture,
    boxes: Tensor,
    objects: Objects | None = None,
    classes: Sequence[str] | None = None,
    *,
    ax: Axes | None = None,
    title: str | None = None,
    width: float | None = None,
) -> Axes:
    """Many boxes in thin lines; for each object its true box (dashed) and, in its colour, the proposal that fits best.

    Args:
        image: The picture, see :func:`show_image`.
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
    # The more boxes there are, the fainter each: a thousand of them have to leave the picture visible.
    faint = float(np.clip(6 / math.sqrt(max(len(boxes), 1)), 0.12, 0.7))
    patches = [Rectangle((x1, y1), x2 - x1, y2 - y1) for x1, y1, x2, y2 in boxes.tolist()]
    ax.add_collection(
        PatchCollection(patches, facecolor="none", edgecolor="white", linewidth=0.7, alpha=faint, zorder=3)
    )
    if objects is None or len(objects["boxes"]) == 0:
        return ax
    truth, labels = _single_objects(objects, classes)
    colours = [class_colour(label) for label in labels]
    for box, colour in zip(truth.tolist(), colours, strict=True):
        draw_box(ax, box, colour, dashed=True)
    if len(boxes):
        best_iou, best = box_iou(truth, boxes.float()).max(dim=1)  # (G,)
        best_boxes = boxes[best].tolist()
        for box, colour in zip(best_boxes, colours, strict=True):
            draw_box(ax, box, colour)
        texts = [f"{_name(k, classes)}: IoU {iou:.2f}" for k, iou in zip(labels, best_iou.tolist(), strict=True)]
        draw_labels(ax, texts, best_boxes, colours)
    return ax


def _single_objects(objects: Objects, classes: Sequence[str] | None) -> tuple[Tensor, list[int]]:
    """Boxes (G, 4) and labels of the objects that are no crowd."""
    found = _as_arrays(objects, classes)
    single = ~found.get("iscrowd", np.zeros(len(found["labels"]), dtype=bool)).astype(bool)
    return torch.from_numpy(found["boxes"][single]).float().reshape(-1, 4), found["labels"][single].tolist()


def _title_height(titles: Sequence[str] | None, font: float) -> float:
    """Inches that the titles above a row of pictures take, with the distance that matplotlib leaves below them."""
    lines = max((title.count("\n") + 1 for title in titles or () if title), default=0)
    return (1.3 * font * lines + 6) / 72 if lines else 0.0


def _as_arrays(objects: Objects, classes: Sequence[str] | None) -> dict[str, np.ndarray]:
    """The drawable entries as numpy arrays, all of one length, checked against what would be drawn wrongly."""
    if classes is not None:
        check_classes(classes)
    keys = [key for key in ("boxes", "labels", "scores", "masks", "iscrowd") if objects.get(key) is not None]
    found = {
        key: objects[key].detach().cpu().numpy() if isinstance(objects[key], Tensor) else np.asarray(objects[key])
        for key in keys
    }
    if "boxes" not in found or "labels" not in found:
        raise ValueError(f"objects need 'boxes' and 'labels'; these have {sorted(map(str, objects))}")
    if "masks" in found and found["masks"].dtype != bool:
        raise ValueError(f"masks must be bool, but are {found['masks'].dtype}; compare probabilities with 0.5 first")
    lengths = {key: len(value) for key, value in found.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"objects of different numbers: {lengths}")
    return found


def _name(label: int, classes: Sequence[str] | None) -> str:
    """The name of a label, or its number where it has none."""
    return classes[label] if classes is not None and 0 <= label < len(classes) else f"class {label}"
