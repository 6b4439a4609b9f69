"""Figures of notebook 01: boxes on pixels, boxes that move, suppression round by round, averages of a curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from torch import Tensor

from minircnn.boxes import box_iou
from minircnn.course.figures.colors import BLUE, LIME, ORANGE, PINK, YELLOW
from minircnn.course.figures.display import show
from minircnn.course.figures.panels import listed, outline, zoom
from minircnn.datasets.images import ImageDataset
from minircnn.metrics import RECALLS_COCO, RECALLS_VOC2007, area_under_curve, average_at_points, interpolate
from minircnn.plotting import draw_labels, image_grid, show_image

_MARGIN = 5  # pixels of the image around the boxes that matter


def boxes_on_grid(a: Tensor, b: Tensor) -> None:
    """Two boxes ``(4,)`` with small whole numbers, on the lines of a grid of pixels."""
    figure, ax = plt.subplots(figsize=(5, 3.6), layout="constrained")
    for box, color, name in ((a, BLUE, "a"), (b, ORANGE, "b")):
        outline(ax, box, color, fill=0.25, edge=False)
        center = (box[:2] + box[2:]) / 2 + (box[:2] - box[2:]) * torch.tensor([0.4, 0.33]) * (1 if name == "a" else -1)
        ax.text(*center.tolist(), name, color=color, fontsize=14, ha="center", va="center")
    right, bottom = (torch.maximum(a, b)[2:] + 1).int().tolist()
    ax.set(xlim=(0, right), ylim=(bottom, 0), aspect="equal", xticks=range(right + 1), yticks=range(bottom + 1))
    ax.set_title("Edges lie on the lines of the grid")
    ax.grid(color="0.8")
    show(figure, alt=f"A grid of pixels with box a from {_corners(a)}, and box b from {_corners(b)}.")


def moved_boxes(image: Tensor, box: Tensor, moved: Tensor) -> None:
    """A box, dashed, and copies of it ``(N, 4)`` that were moved, with the IoU of each."""
    overlaps = box_iou(box[None], moved)[0].tolist()
    figure, axes = plt.subplots(1, len(moved), figsize=(2.3 * len(moved), 2.6), layout="constrained")
    for ax, copy, overlap in zip(axes, moved, overlaps, strict=True):
        show_image(image, ax=ax, title=f"IoU {overlap:.2f}")
        zoom(ax, torch.cat([box[None], moved]), _MARGIN)
        outline(ax, box, "white", style="--", width=1.5)
        outline(ax, copy, YELLOW)
    texts = ", ".join(f"{overlap:.2f}" for overlap in overlaps)
    show(figure, alt=f"The same object with its ground truth, dashed, and with a box that was moved: IoU {texts}.")


def refined_box(image: Tensor, proposal: Tensor, deltas: Tensor, refined: Tensor) -> None:
    """A proposal ``(4,)``, and where its deltas ``(4,)`` bring it."""
    title = "  ".join(f"{name} {value:+.2f}" for name, value in zip(("dx", "dy", "dw", "dh"), deltas, strict=True))
    ax = show_image(image, title=title, width=4.5)
    outline(ax, proposal, YELLOW, style="--")
    outline(ax, refined, "white")
    start, end = ((box[:2] + box[2:]) / 2 for box in (proposal, refined))
    arrow = {"arrowstyle": "->", "color": YELLOW, "linewidth": 2}
    ax.annotate("", xy=end.tolist(), xytext=start.tolist(), arrowprops=arrow)
    overlap = box_iou(proposal[None], refined[None]).item()
    show(ax, alt=f"A proposal, dashed, and the box that its deltas make of it, of IoU {overlap:.2f} with it: {title}.")


def suppression_rounds(image: Tensor, boxes: Tensor, scores: Tensor, kept: Tensor, threshold: float) -> None:
    """Non-maximum suppression round by round: in each a box is kept, and its rivals are dropped."""
    rounds, left, overlap = [], set(range(len(boxes))), box_iou(boxes, boxes)
    for best in kept.tolist():
        losers = sorted(i for i in left - {best} if overlap[best, i] > threshold)
        left -= {best, *losers}
        rounds.append((best, losers, sorted(left)))
    tags = [f"{i}: {score:.2f}" for i, score in enumerate(scores.tolist())]
    columns = min(len(rounds) + 2, 3)
    rows = -(-(len(rounds) + 2) // columns)
    figure, grid = plt.subplots(rows, columns, figsize=(3.3 * columns, 3 * rows), layout="constrained", squeeze=False)
    panels = list(grid.ravel())
    colors = [f"C{i}" for i in range(len(boxes))]
    _tagged(panels[0], image, boxes, range(len(boxes)), colors, tags, f"before: {len(boxes)} boxes")
    for ax, (best, losers, still) in zip(panels[1:], rounds, strict=False):
        _tagged(ax, image, boxes, losers, [PINK] * len(losers), tags, style=":")
        for i in still:
            outline(ax, boxes[i], "white", width=1)
        _tagged(ax, None, boxes, [best], [LIME], tags, f"keep {best}, drop {losers or 'none'}")
    kept = kept.tolist()
    _tagged(panels[len(rounds) + 1], image, boxes, kept, [LIME] * len(kept), tags, f"after: {len(kept)} boxes")
    for unused in panels[len(rounds) + 2 :]:
        unused.remove()
    texts = "; ".join(f"{best} drops {losers or 'none'}" for best, losers, _ in rounds)
    show(figure, alt=f"Of {len(boxes)} boxes {len(kept)} remain: each round keeps the best box left, green: {texts}.")


def judged_detections(image: Tensor, boxes: Tensor, scores: Tensor, tp: Tensor, objects: Tensor) -> None:
    """Detections of one class, true positives green, false ones red; ground truth dashed."""
    tags = [f"{score:.2f}" for score in scores.tolist()]
    colors = [LIME if right else PINK for right in tp.tolist()]
    _, ax = plt.subplots(figsize=(5.5, 4.6), layout="constrained")
    title = "true positives green, false positives red"
    _tagged(ax, image, torch.cat([boxes, objects]), range(len(boxes)), colors, tags, title)
    for box in objects:
        outline(ax, box, "white", style="--", width=1.2)
    texts = ", ".join(f"{tag} {'true' if right else 'false'}" for tag, right in zip(tags, tp.tolist(), strict=True))
    show(ax, alt=f"{len(boxes)} detections of {len(objects)} objects, by score: {texts} positive.")


def three_averages(precision: Tensor, recall: Tensor) -> None:
    """One curve of precision against recall, and what the rules of VOC 2007, VOC 2010 and COCO make of it."""
    precision, recall = precision.numpy(), recall.numpy()
    rules = {"VOC 2007: 11 points": RECALLS_VOC2007, "VOC 2010: area": None, "COCO: 101 points": RECALLS_COCO}
    figure, axes = plt.subplots(1, 3, figsize=(9, 3), layout="constrained", sharey=True)
    steps_x, steps_y = np.repeat([0, *recall], 2)[1:-1], np.repeat(interpolate(precision), 2)
    averages = []
    for ax, (name, points) in zip(axes, rules.items(), strict=True):
        ax.plot(steps_x, steps_y, color=BLUE, linewidth=2, label="interpolated")
        ax.plot(recall, precision, "o", color=ORANGE, label="after each detection")
        if points is None:
            ax.fill_between(steps_x, steps_y, color=BLUE, alpha=0.25)
            averages.append(area_under_curve(precision, recall))
        else:
            heights = [max(precision[recall >= point], default=0.0) for point in points]
            ax.vlines(points, 0, heights, color=BLUE, alpha=0.5, linewidth=3 if len(points) == 11 else 1)
            averages.append(average_at_points(precision, recall, points))
        ax.set(title=f"{name}\nAP = {averages[-1]:.3f}", xlim=(-0.03, 1.03), ylim=(0, 1.08), xlabel="recall")
    axes[0].set_ylabel("precision")
    axes[0].legend(loc="lower left", framealpha=1)
    texts = listed(dict(zip(rules, averages, strict=True)), ".3f")
    show(figure, alt=f"The same curve averaged in three ways: {texts}.")


def moved_mask(image: Tensor, box: Tensor, mask: Tensor, moved_box: Tensor, moved: Tensor, overlaps: Mapping) -> None:
    """A box and a mask ``(H, W)``, and both moved; ``overlaps`` are the IoU of each."""
    colors = torch.stack([mask & ~moved, mask & moved, moved & ~mask]).float()  # (3, H, W): red, green, blue
    titles = [f"boxes: IoU {overlaps['boxes']:.2f}", f"masks: IoU {overlaps['masks']:.2f} (green: shared)"]
    axes = image_grid([image, 0.45 * image + 0.55 * colors], titles=titles, columns=2, width=7)
    outline(axes[0], box, "white", style="--")
    outline(axes[0], moved_box, YELLOW)
    show(axes, alt=f"A box and a mask, and both moved by some pixels; IoU of {listed(overlaps)}.")


def neighbors(data: ImageDataset) -> int:
    """The image that shows best two objects of one class of which one stands a little in front of the other."""
    found = {}
    for index in range(len(data)):
        target = data.load_target(index)
        if len(target["labels"]) == 2 and target["labels"][0] == target["labels"][1]:
            boxes = target["boxes"]
            if 0.22 < box_iou(boxes[:1], boxes[1:]).item() < 0.35:
                found[index] = target["area"].min().item()
    return max(found, key=found.get)


def largest_inside(data: ImageDataset, label: int, margin: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """An image, and the box ``(4,)`` and mask ``(H, W)`` of its largest object of a class that touches no border."""
    best, found = 0.0, None
    for index in range(len(data)):
        target = data.load_target(index)
        height, width = target["masks"].shape[1:]
        for n, (x1, y1, x2, y2) in enumerate(target["boxes"].tolist()):
            inside = min(x1, y1) > margin and x2 < width - margin and y2 < height - margin
            if target["labels"][n] == label and inside and target["area"][n] > best:
                best, found = target["area"][n].item(), (index, target["boxes"][n], target["masks"][n])
    return data.load_image(found[0]), *found[1:]


def _tagged(
    ax: Axes,
    image: Tensor | None,
    boxes: Tensor,
    numbers: Sequence[int],
    colors: Sequence[str],
    tags: Sequence[str],
    title: str = "",
    **options: str,
) -> None:
    """The part of an image that holds all boxes, and some of them, each with its tag in its color."""
    if image is not None:
        zoom(show_image(image, ax=ax), boxes, _MARGIN)
    if title:
        ax.set_title(title)
    for i, color in zip(numbers, colors, strict=True):
        outline(ax, boxes[i], color, **options)
    draw_labels(ax, [tags[i] for i in numbers], boxes[list(numbers)].tolist(), [to_rgb(color) for color in colors])


def _corners(box: Tensor) -> str:
    x1, y1, x2, y2 = box.tolist()
    return f"({x1:g}, {y1:g}) to ({x2:g}, {y2:g})"
