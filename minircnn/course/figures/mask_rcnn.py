"""Figures of notebooks 09 and 10: rounding and interpolation, RoIAlign's matrices, and masks."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import log
from statistics import mean
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from torch import Tensor

from minircnn.course.figures.charts import plot_losses
from minircnn.course.figures.colors import BLUE, EXACT, GREEN, ORANGE, PURPLE, WHITE
from minircnn.course.figures.display import Box, Names, Target, show
from minircnn.course.figures.maps import draw_bins, plot_cells, plot_misalignment, plot_row
from minircnn.course.figures.panels import listed, mark_y, name_rows, outline, plot_curves, plot_dots
from minircnn.plotting import class_color, draw_box, draw_masks, draw_objects, image_grid, show_image
from minircnn.pooling import misalignment, roi_align, to_rois

_PURPLE = "#a2329a"
_COLORS = {"RoIPool": ORANGE, "RoIWarp": "#8a5fbf", "RoIAlign": BLUE}
_PROBABILITIES = {"limits": (0, 1), "colors": "gray"}
_WIDTH = 6.2  # inches of a gallery; with wider ones the notebook would be larger than 2 MB


def roundings(image: Tensor, region: Sequence[float], map_size: tuple[int, int], window: Sequence[float]) -> None:
    """A region on an image and on its map: rounded down, as RoIPool takes it, in 2 × 2 bins, and RoIAlign's points."""
    axes = plot_misalignment(image, region, map_size, rounded_down=True, window=window)
    found = misalignment(region, tuple(image.shape[1:]), map_size)
    _draw_pooled_bins(axes[1], found.pooled)
    alt = f"The upper left corner of an image and its feature map. The region ends at cell {found.exact[2]:.2f};"
    ends = f"rounded down at cell {found.rounded_down[2]}; RoIPool takes {found.pooled[2]} cells, in four bins."
    show(axes, alt=f"{alt} {ends} Sixteen sampling points of RoIAlign lie evenly in the region.")


def moved_region(image: Tensor, regions: Sequence[Box], map_size: tuple[int, int], window: Box) -> None:
    """A region at some positions, on the image and on the map, with RoIPool's cells and bins and RoIAlign's points."""
    figure, grid = plt.subplots(2, len(regions), figsize=(9, 4.7), layout="constrained")
    per_cell, takes = image.shape[2] / map_size[1], []
    for region, pair in zip(regions, grid.T, strict=True):
        titles = (f"left edge at pixel {region[0]:g}", f"at cell {region[0] / per_cell:.2f}")
        plot_misalignment(image, region, map_size, window=window, axes=pair, titles=titles)
        pooled = misalignment(region, tuple(image.shape[1:]), map_size).pooled
        _draw_pooled_bins(pair[1], pooled)
        takes.append(f"{pooled[0]} to {pooled[2] - 1}")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    alt = f"A region at {len(regions)} positions with the points of RoIAlign, which move with it. RoIPool takes columns"
    show(figure, alt=f"{alt} {', '.join(takes)}.")


def _draw_pooled_bins(ax: plt.Axes, pooled: Sequence[int], n: int = 2) -> None:
    edges = []
    for first, end in ((pooled[1], pooled[3]), (pooled[0], pooled[2])):
        count = end - first
        edges.append([(first + k * count // n, first - -(k + 1) * count // n) for k in range(n)])
    draw_bins(ax, *edges)


def four_cells(values: Tensor, y: float, x: float) -> None:
    """A point on a map ``(h, w)``, cell k's value at k + ½, and the areas that are its neighbors' weights."""
    top, left = int(y - 0.5), int(x - 0.5)
    figure, (whole, close) = plt.subplots(1, 2, figsize=(9, 3.9), width_ratios=(1.25, 1), layout="constrained")
    look = {"colors": "Greys", "limits": (0, 260)}
    plot_cells(values, numbers=".0f", ax=whole, title="a point, and the four cells around it", **look)
    plot_cells(values, ax=close, title="each cell's weight is the area opposite to it", **look)
    whole.scatter([x], [y], s=45, color=BLUE, edgecolors="white", zorder=7)
    draw_box(whole, (left, top, left + 2, top + 2), EXACT)
    close.set(xlim=(left, left + 2), ylim=(top + 2, top))
    weights = []
    for (row, column), color in zip(((0, 0), (0, 1), (1, 0), (1, 1)), (BLUE, ORANGE, GREEN, _PURPLE), strict=True):
        center = np.array([left + column + 0.5, top + row + 0.5])
        opposite, outwards = (left + 1.5 - column, top + 1.5 - row), (2 * column - 1, 2 * row - 1)
        corner, size = np.minimum((x, y), opposite), np.abs(np.subtract((x, y), opposite))
        weights.append(f"{size.prod():.2f}")
        close.add_patch(plt.Rectangle(corner, *size, facecolor=color, alpha=0.45, zorder=3))
        close.scatter(*center, s=60, color=color, zorder=6)
        text = {"ha": "center", "va": "center", "zorder": 8}
        close.text(*(corner + size / 2), weights[-1], **text)
        value = f"{values[top + row, left + column]:.0f}"
        close.text(*(center + np.multiply(outwards, (0.2, 0.25))), value, fontsize=12, color=color, **text)
    close.scatter([x], [y], s=60, color="black", edgecolors="white", zorder=7)
    show(figure, alt=f"A point cuts the square between four centers into areas; the weights are {', '.join(weights)}.")


def value_between_cells(values: Tensor, place: float, found: float, cells: int = 5) -> None:
    """The corner of a map ``(h, w)`` with a point, and the row through it: cells as steps, interpolation as a line."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.7), width_ratios=(1, 1.5), layout="constrained")
    corner = values[:cells, :cells]
    plot_cells(corner, numbers=".0f", colors="gray", limits=(0, 255), ax=axes[0], title="brightness of the cells")
    draw_box(axes[0], (0, 0, place, place), EXACT)
    axes[0].scatter([place], [place], s=60, color=BLUE, edgecolors="white", zorder=7)
    share, top = place - 0.5 - int(place - 0.5), int(place - 0.5)
    row = ((1 - share) * values[top] + share * values[top + 1])[:cells].numpy()
    axes[1].stairs(row, range(cells + 1), color="0.6", label="cells at this height, as steps")
    axes[1].plot(np.arange(cells) + 0.5, row, "o-", color=BLUE, label="interpolated between their centers")
    axes[1].plot([place], [found], "D", color=ORANGE, markersize=9, label=f"at {place:.2f}: {found:.0f}")
    axes[1].axvline(place, color=ORANGE, linewidth=1, linestyle="--")
    axes[1].set(xlabel="x in cells", ylabel="brightness", xlim=(0, cells), ylim=(0, 255))
    axes[1].legend(frameon=False, loc="lower left")
    alt = "The corner of the map, and its brightness along x"
    show(figure, alt=f"{alt}; interpolated at {place:.2f} it is {found:.0f}.")


def three_matrices(of_rows: Tensor, values: Tensor, of_columns: Tensor, pooled: Tensor, points: tuple) -> None:
    """Wy ``(n, h)``, a map ``(h, w)``, Wx ``(m, w)`` and their product; points (y, x), cell k's value at k."""
    figure, axes = plt.subplots(1, 4, figsize=(9, 4.0), width_ratios=(7, 8, 2, 2), layout="constrained")
    matrices = (
        (of_rows, ".2f", (0, 1), "Wy: rows of bins × rows of cells"),
        (values, ".0f", (0, 260), "F: the map, and the points"),
        (of_columns.T, ".2f", (0, 1), "Wxᵀ"),
        (pooled, ".1f", (0, 100), "result"),
    )
    for ax, (matrix, numbers, limits, title) in zip(axes, matrices, strict=True):
        plot_cells(matrix, numbers=numbers, colors="Greys" if ax in axes[[1, 3]] else "Blues", limits=limits, ax=ax)
        ax.set_title(title, fontsize=9)
        for text in ax.texts:
            text.set_fontsize(8)
    y, x = (axis.flatten() + 0.5 for axis in points)
    axes[1].scatter(*np.meshgrid(x, y), s=14, color=BLUE, zorder=6)
    show(figure, alt=f"Three matrices and their product {[[round(v, 1) for v in row] for row in pooled.tolist()]}.")


def two_gradients(channel: Tensor, box: Tensor, pooled: Tensor, aligned: Tensor, stride: int) -> None:
    """A channel ``(h, w)`` with a box, and the gradients that RoIPool and RoIAlign send to it."""
    panels = [("a channel, and the box", channel), ("gradient of RoIPool", pooled)]
    axes = plot_row(*panels, ("gradient of RoIAlign", aligned), height=2.9, stride=stride)
    for ax in axes:
        draw_box(ax, box, WHITE)
        ax.get_figure().colorbar(ax.images[0], ax=ax, shrink=0.7)
    counts = [int((values > 0).sum()) for values in (pooled, aligned)]
    show(axes, alt=f"The gradient of a region reaches {counts[0]} cells by RoIPool, {counts[1]} by RoIAlign.")


def errors_of_position(errors: Mapping[str, Target]) -> None:
    """For each map the error in pixels, by kind of pooling, over a shift by 0, 1, … pixels."""
    figure, axes = plt.subplots(1, len(errors), figsize=(9, 3.3), sharey=True, layout="constrained")
    texts = []
    for ax, (name, by_kind) in zip(axes, errors.items(), strict=True):
        ax.axhline(0, color="0.7", linewidth=0.8)
        for kind, error in by_kind.items():
            ax.plot(error, ".-", color=_COLORS[kind], markersize=4, linewidth=1.3, label=kind)
        ax.set_title(name, fontsize=10)
        ax.set(xlabel="shift of the square in pixels", xlim=(0, 32), xticks=range(0, 33, 8))
        texts.append(f"{name}: {listed({kind: float(error.abs().max()) for kind, error in by_kind.items()}, '.1f')}")
    axes[0].set_ylabel("error in pixels")
    figure.legend(*axes[0].get_legend_handles_labels(), ncols=3, frameon=False, loc="outside lower center")
    show(figure, alt=f"Error of a square's position over its shift. Largest errors in pixels: {'; '.join(texts)}.")


def overlap_by_side(sides: Tensor, overlap: Mapping[int, Tensor], limits: Sequence[int]) -> None:
    """By stride: the IoU of a region with what RoIPool takes, over the region's side; medians between the limits."""
    figure, axes = plt.subplots(1, len(overlap), figsize=(9, 3.3), sharey=True, layout="constrained")
    texts = []
    for ax, (stride, iou) in zip(axes, overlap.items(), strict=True):
        ax.scatter(sides, iou, s=5, color=ORANGE, alpha=0.35)
        medians = [iou[(sides >= low) & (sides < high)].median().item() for low, high in pairwise(limits)]
        for ends, median in zip(pairwise(limits), medians, strict=True):
            ax.plot(ends, [median] * 2, color="black", linewidth=2.2)
        ax.set(xscale="log", xlabel="side of the region in pixels", ylim=(0, 1))
        ax.set_xticks(limits, map(str, limits))
        ax.minorticks_off()
        ax.set_title(f"stride {stride}; black: medians", fontsize=10)
        texts.append(f"stride {stride} {', '.join(f'{median:.2f}' for median in medians)}")
    axes[0].set_ylabel("IoU of RoIPool's cells\nwith the region")
    sizes = ", ".join(map(str, limits))
    show(figure, alt=f"IoU of RoIPool's cells with regions; medians between sides of {sizes}: {'; '.join(texts)}.")


def moved_objects(shifts: Sequence[int], overlaps: Mapping[str, np.ndarray]) -> None:
    """IoU of objects ``(objects, shifts)`` with themselves after a shift, for boxes and masks."""
    _, ax = plt.subplots(figsize=(7, 3.0), layout="constrained")
    last = {}
    for (name, iou), color in zip(overlaps.items(), (BLUE, _PURPLE), strict=True):
        middle, low, high = np.median(iou, axis=0), *np.percentile(iou, (25, 75), axis=0)
        ax.fill_between(shifts, low, high, color=color, alpha=0.15, linewidth=0)
        ax.plot(shifts, middle, "o-", color=color, label=f"{name}: median, and the middle half")
        last[name] = middle[-1]
    mark_y(ax, 0.75, "correct for AP75")
    ax.set(xlabel="shift to the right and down, in pixels", ylabel="IoU with itself", xticks=shifts, ylim=(0, 1))
    ax.legend(frameon=False, loc="lower left")
    show(ax, alt=f"IoU of objects with themselves after a shift; medians at {shifts[-1]} pixels: {listed(last)}.")


def mask_targets(image: Tensor, mask: Tensor, proposals: Target, overlaps: Tensor, targets: Tensor) -> None:
    """Proposals for an object with its mask ``(H, W)``, and below each its target; pale where it is background."""
    figure, axes = plt.subplots(2, len(proposals), figsize=(6.5, 3.7), layout="constrained")
    for column, (name, box) in enumerate(proposals.items()):
        top, bottom = axes[:, column]
        show_image(image, ax=top, title=f"{name}: IoU {overlaps[column]:.2f}")
        draw_masks(top, mask[None].numpy(), [class_color(3)])
        draw_box(top, box, WHITE)
        positive = overlaps[column] >= 0.5
        title = "its target, 28 × 28" if positive else "no target: background"
        plot_cells(targets[column], ax=bottom, title=title, **_PROBABILITIES)
        bottom.images[0].set_alpha(1.0 if positive else 0.25)
    texts = listed(dict(zip(proposals, overlaps.tolist(), strict=True)))
    show(figure, alt=f"A cat and four boxes with their IoU, and the cat's mask as each box sees it: {texts}.")


def detection_stages(image: Tensor, proposals: Tensor, found: Target, classes: Names) -> None:
    """Proposals, all detections, and those with a score above 0.5, which get names."""
    sure = {key: value[found["scores"] > 0.5] for key, value in found.items() if key != "masks"}
    counts = len(proposals), len(found["labels"]), len(sure["labels"])
    titles = [f"{counts[0]} proposals", f"{counts[1]} detections", f"{counts[2]} with a score above 0.5"]
    axes = image_grid([image] * 3, titles=titles, columns=3, width=_WIDTH)
    for box in proposals:
        outline(axes[0], box, "white", width=0.7, edge=False)
    draw_objects(axes[1], {key: found[key] for key in ("boxes", "labels")}, names=False)
    draw_objects(axes[2], sure, classes)
    show(axes, alt=f"An image with {counts[0]} proposals, {counts[1]} detections, and the {counts[2]} best of them.")


def masks_of_classes(image: Tensor, boxes: Tensor, masks: Tensor, labels: Sequence[int], classes: Names) -> None:
    """A row for each detection: its pixels and its mask for each class ``(N, K, m, m)``, its own class framed."""
    crops = roi_align(image[None], to_rois([boxes]), 56, 1.0, aligned=True)
    rows = len(labels)
    size = (7.2, 0.94 * rows + 0.25)
    figure, axes = plt.subplots(rows, len(classes) + 1, figsize=size, layout="constrained", squeeze=False)
    for row, label in enumerate(labels):
        show_image(crops[row].clamp(0, 1), ax=axes[row, 0], title=None if row else "the box")
        for k, name in enumerate(classes):
            plot_cells(masks[row, k], ax=axes[row, k + 1], title=None if row else name, **_PROBABILITIES)
        axes[row, label + 1].spines[:].set(visible=True, edgecolor=class_color(label), linewidth=3.5)
    names = ", ".join(classes[label] for label in labels)
    show(figure, alt=f"Detections ({names}), each with its masks for all {len(classes)} classes; its own class framed.")


def pasted_mask(image: Tensor, mask: Tensor, box: Tensor, pasted: Tensor, label: int, title: str) -> None:
    """From the branch's cells ``(m, m)`` to the image ``(H, W)``."""
    inside = pasted > 0.5
    maps = {"28 × 28 probabilities": mask, "pasted over the box": pasted, "above 0.5": inside.float()}
    axes = plot_row(*((name, values, _PROBABILITIES) for name, values in maps.items()), (title, image), height=2.6)
    draw_masks(axes[3], inside[None].numpy(), [class_color(label)])
    for ax in axes[1:]:
        draw_box(ax, box, class_color(label))
    alt = "A mask of 28 × 28 gray cells; pasted over its box; black and white at 0.5; and over the image"
    show(axes, alt=f"{alt}: {title}.")


def pasted_ones(box: Tensor, pasted: Target) -> None:
    """A mask of ones, pasted over one box ``(4,)`` in several ways: ``(H, W)`` each."""
    figure, axes = plt.subplots(1, len(pasted), figsize=(6.4, 3.5), layout="constrained")
    for ax, (name, values) in zip(axes, pasted.items(), strict=True):
        plot_cells(values, limits=(0, 1), colors="Blues", ax=ax, title=name)
        draw_box(ax, box, EXACT)
    sizes = listed({name: int((values > 0.5).sum()) for name, values in pasted.items()}, "d")
    show(figure, alt=f"A box, and a mask of ones pasted over it in {len(pasted)} ways; pixels above 0.5: {sizes}.")


def mask_losses(losses: Sequence[float]) -> None:
    """The mask loss of each step, and log 2, the loss of a branch that says one half everywhere."""
    _, ax = plt.subplots(figsize=(5.5, 2.8), layout="constrained")
    plot_losses([{"mask loss": loss} for loss in losses], ax=ax)
    mark_y(ax, log(2), "log 2: one half everywhere")
    ax.legend(frameon=False, loc="lower left")
    show(ax, alt=f"The mask loss over {len(losses)} steps with its running mean, beside log 2, one half everywhere.")


def threshold_curve(means: Mapping[float, float]) -> None:
    """Mean IoU of masks against the threshold at which pixels are decided."""
    figure, ax = plt.subplots(figsize=(5.5, 2.7), layout="constrained")
    labels = {"xlabel": "threshold on the probability of a pixel", "ylabel": "mean IoU of masks"}
    plot_curves(ax, [*means], {"": [*means.values()]}, [BLUE], **labels)
    best = max(means, key=means.get)
    dot = ax.plot(best, means[best], "o", color=ORANGE, markersize=9, label=f"best: {best:g}")
    ax.legend(handles=dot, frameon=False)
    show(figure, alt=f"Mean IoU of masks against the threshold: a curve that is highest at {best:g}.")


def mask_gallery(images: Sequence[Tensor], objects: Sequence[Mapping[str, Any]], classes: Names, titles: Names) -> None:
    """Images, three in a row, with their objects, masks and names."""
    axes = image_grid(images, titles=titles, objects=objects, classes=classes, columns=3, width=_WIDTH)
    counts = ", ".join(f"{title} {len(one['labels'])}" for title, one in zip(titles, objects, strict=True))
    show(axes, alt=f"Images with boxes, classes and masks of objects; objects in each: {counts}.")


def worst_cases(
    cases: Mapping[str, Sequence], images: Sequence, found: Sequence[Target], targets: Sequence[Target], classes: Names
) -> None:
    """The two largest objects missed, the worst of each other mistake: what was found, and beside it what is there."""
    worst = [(kind, *case) for kind, ordered in cases.items() for case in ordered[: 2 if kind == "missed" else 1]]
    figure, grid = plt.subplots(-(-len(worst) // 2), 4, figsize=(_WIDTH, 3.55), layout="constrained")
    titles = []
    for (left, right), (kind, value, i, detection, k) in zip(grid.reshape(-1, 2), worst, strict=False):
        title = kind if detection is None else f"{kind}, {'score' if 'class' in kind else 'IoU'} {value:.2f}"
        titles.append(f"{title}: {classes[targets[i]['labels'][k]]}")
        show_image(images[i], ax=left, title=title)
        draw_objects(left, found[i] if detection is None else _only(found[i], detection), classes)
        show_image(images[i], ax=right, title=f"ground truth: {classes[targets[i]['labels'][k]]}")
        draw_objects(right, _only(targets[i], k), classes, names=False)
    for ax in figure.axes:
        ax.title.set_fontsize(9)
    show(figure, alt=f"Pairs of images, detections left and ground truth right. {'; '.join(titles)}.")


def _only(objects: Mapping[str, Any], row: int) -> dict:
    return {key: objects[key][row : row + 1] for key in ("boxes", "labels", "scores", "masks") if key in objects}


def boxes_against_masks(per_class: Mapping[str, tuple[float, float]], pairs: Sequence[Any], quality: Tensor) -> None:
    """AP of boxes and of masks for each class; IoU of masks and boxes of found objects against their size."""
    figure, axes = plt.subplots(1, 2, figsize=(7.5, 3.1), width_ratios=(1, 1.15), layout="constrained")
    box_ap, mask_ap = zip(*per_class.values(), strict=True)
    rows = range(len(per_class))
    axes[0].hlines(rows, box_ap, mask_ap, color="0.75", linewidth=2, zorder=1)
    axes[0].scatter(box_ap, rows, s=55, marker="s", color=BLUE, label="boxes", zorder=2)
    axes[0].scatter(mask_ap, rows, s=60, color=PURPLE, label="masks", zorder=2)
    name_rows(axes[0], per_class)
    axes[0].set(xlabel="AP in percent", title="by class")
    side = np.array([pair.mask.sum().sqrt().item() for pair in pairs])
    axes[1].scatter(side, quality, s=14, c=[class_color(pair.label) for pair in pairs], alpha=0.7, linewidths=0)
    edges = np.quantile(side, np.linspace(0, 1, 7))
    of_boxes = np.array([pair.box_iou for pair in pairs])
    bins = [(side >= a) & (side <= b) for a, b in pairwise(edges)]
    for values, color, name in ((of_boxes, BLUE, "boxes, mean"), (quality.numpy(), PURPLE, "masks, mean")):
        axes[1].plot([side[b].mean() for b in bins], [values[b].mean() for b in bins], "o-", color=color, label=name)
    axes[1].set(xlabel="square root of the object's pixels", ylabel="IoU", title="objects found, each a dot")
    axes[1].set_ylim(0.2, 1)
    for ax, place in zip(axes, ("lower left", "lower right"), strict=True):
        ax.grid(color="0.92")
        ax.set_axisbelow(True)
        ax.legend(frameon=False, loc=place)
    kinds = ((bins[0], "smallest"), (bins[-1], "largest"))
    ends = " and ".join(f"{quality.numpy()[rows].mean():.2f} for the {name} sixth" for rows, name in kinds)
    texts = ", ".join(f"{name} {box:.0f} and {mask:.0f}" for name, (box, mask) in per_class.items())
    show(figure, alt=f"Left: AP of boxes and of masks: {texts}. Right: IoU of found objects, of masks {ends}.")


def ablation_dots(groups: Mapping[str, Sequence[Any]], keys: Mapping[str, str]) -> None:
    """A dot for each seed and a line at the mean, for each group, a panel for each measure."""
    figure, axes = plt.subplots(1, len(keys), figsize=(9, 0.4 * len(groups) + 1), sharey=True, layout="constrained")
    colors = [PURPLE if "Warp" in name else ORANGE if "Pool" in name else BLUE for name in groups]
    for ax, (key, title) in zip(axes, keys.items(), strict=True):
        values = {name: [100 * getattr(row, key) for row in rows] for name, rows in groups.items()}
        plot_dots(ax, values, colors, xlabel="percent", title=title)
    first, name = next(iter(keys.items()))
    means = listed({group: 100 * mean(getattr(row, first) for row in rows) for group, rows in groups.items()}, ".1f")
    alt = f"A dot for each seed and a line at the mean, for {', '.join(keys.values())}"
    show(figure, alt=f"{alt}; mean {name}: {means}.")


def tallest(target: Mapping[str, Any], label: int) -> int:
    """The object of a class whose box is the highest."""
    height = (target["boxes"][:, 3] - target["boxes"][:, 1]) * (target["labels"] == label)
    return int(height.argmax())
