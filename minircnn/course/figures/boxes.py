"""Figures of notebooks 00 to 02: tasks and data, boxes and metrics, and how regions become proposals."""

from collections.abc import Mapping, Sequence
from itertools import zip_longest

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from torch import Tensor

from minircnn.boxes import box_iou
from minircnn.course.figures.charts import plot_label_map
from minircnn.course.figures.colors import BLUE, GRAY, LIME, ORANGE, PINK, RED, YELLOW
from minircnn.course.figures.display import Curves, Names, Target, show
from minircnn.course.figures.panels import listed, outline, plot_curves, zoom
from minircnn.datasets.images import ImageDataset
from minircnn.metrics import RECALLS_COCO, RECALLS_VOC2007, area_under_curve, average_at_points, interpolate
from minircnn.plotting import class_color, draw_labels, draw_objects, image_grid, show_image
from minircnn.selective_search import MergeTree

_MARGIN = 5  # pixels of the image around the boxes that matter


def four_tasks(image: Tensor, target: Target, classes: Names, name: str) -> None:
    """One image with what classification, detection, semantic and instance segmentation say about it."""
    of_class = torch.zeros(image.shape[1:], dtype=torch.int64)  # 0 is "no object"
    of_object = of_class.clone()
    labels = target["labels"].tolist()
    for number, (mask, label) in enumerate(zip(target["masks"], labels, strict=True), start=1):
        of_class[mask], of_object[mask] = label, number
    colors = [class_color(0)]
    for label in labels:  # a second object of a class gets a lighter color
        color = class_color(label)
        colors.append(tuple(0.4 * part + 0.6 for part in color) if color in colors else color)
    semantic = _painted(image, of_class, [class_color(label) for label in range(len(classes))])
    instances = torch.where(of_object > 0, _painted(image, of_object, colors), image)
    titles = [
        f"Classification: “{name}”, perhaps",
        "Detection: classes and boxes",
        "Semantic segmentation: pixels by class",
        "Instance segmentation: pixels by object",
    ]
    axes = image_grid([image, image, semantic, instances], titles=titles, columns=2, width=7)
    for ax in axes[1::2]:
        draw_objects(ax, target, classes, masks=False)
    names = ", ".join(classes[label] for label in labels)
    alt = f"The same scene four times: with a single class; with {len(labels)} boxes ({names}); with every pixel in the"
    show(axes, alt=f"{alt} color of its class; with the boxes and every object in a color of its own.")


def _painted(image: Tensor, numbers: Tensor, colors: Sequence[Sequence[float]]) -> Tensor:
    """Every pixel tinted with the color of its number ``(H, W)``, and white lines where the number changes."""
    tinted = 0.3 * image + 0.7 * torch.tensor(colors)[numbers].permute(2, 0, 1)
    changes = torch.zeros(numbers.shape, dtype=torch.bool)
    changes[:, 1:] |= numbers[:, 1:] != numbers[:, :-1]
    changes[1:] |= numbers[1:] != numbers[:-1]
    return torch.where(changes, 1.0, tinted)


def corner_of_box(image: Tensor, box: Tensor, mask: Tensor, label: int) -> None:
    """An object with its box, and the lower right corner of the box so large that pixels can be counted."""
    x2, y2 = box[2:].int().tolist()
    figure, (whole, close) = plt.subplots(1, 2, figsize=(8, 4.4), layout="constrained")
    show_image(image, ax=whole, title="an object and its box …")
    draw_objects(whole, {"boxes": box[None], "labels": torch.tensor([label])}, names=False)
    outline(whole, [x2 - 11, y2 - 11, x2 + 3, y2 + 3], "white", width=1.5, edge=False)
    show_image(image, ax=close, title="… and the white square, enlarged")
    tint = torch.zeros(*mask.shape, 4)
    tint[mask] = torch.tensor([*class_color(label), 0.75])
    height, width = mask.shape
    close.imshow(tint.numpy(), extent=(0, width, height, 0), interpolation="nearest")
    close.hlines(range(height + 1), 0, width, color="white", linewidth=0.6)  # edges of the pixels
    close.vlines(range(width + 1), 0, height, color="white", linewidth=0.6)
    outline(close, box, "black", width=3, edge=False)
    close.set(xlim=(x2 - 11, x2 + 3), ylim=(y2 + 3, y2 - 11))
    close.set(xticks=[x2 - 10, x2 - 1, x2], yticks=[y2 - 10, y2 - 1, y2])
    last = mask.nonzero().amax(dim=0).tolist()
    alt = f"The lower right corner of a box, enlarged: it ends at x = {x2} and y = {y2}; the last column and row of the"
    show(figure, alt=f"{alt} mask have the numbers {last[1]} and {last[0]}.")


def shapes_and_sizes(ratios: Target, sizes: Target, classes: Names) -> None:
    """Height : width of the boxes of each class, and the square root of their areas."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
    order = sorted(ratios, key=lambda name: -ratios[name].median())
    parts = left.violinplot([ratios[name].log2().numpy() for name in order], showmedians=True)
    for body, name in zip(parts["bodies"], order, strict=True):
        body.set(facecolor=class_color(classes.index(name)), alpha=0.8)
    for key in ("cmedians", "cmins", "cmaxes", "cbars"):
        parts[key].set(color="0.3", linewidth=1)
    left.set_xticks(range(1, len(order) + 1), order)
    left.set_yticks([-2, -1, 0, 1, 2], ["1:4", "1:2", "1:1", "2:1", "4:1"])
    left.set(title="Aspect ratios", ylabel="height : width")
    left.axhline(0, color="0.7", linewidth=1)
    colors = [class_color(classes.index(name)) for name in sizes]
    values = [of_class.numpy() for of_class in sizes.values()]
    right.hist(values, bins=range(0, 105, 8), stacked=True, color=colors, label=list(sizes))
    right.set(title="Sizes", xlabel="√(width · height) in pixels", ylabel="objects")
    right.legend(frameon=False)
    every = torch.cat(list(sizes.values()))
    alt = f"Left: aspect ratios by class, from the tallest, {order[0]}, to the widest, {order[-1]}. Right: the sizes of"
    show(figure, alt=f"{alt} the objects, from {every.min():.0f} to {every.max():.0f} pixels.")


def boxes_on_grid(a: Tensor, b: Tensor) -> None:
    """Two boxes ``(4,)`` with small whole numbers, on the lines of a grid of pixels."""
    figure, ax = plt.subplots(figsize=(5, 3.6), layout="constrained")
    for box, color, name in ((a, BLUE, "a"), (b, ORANGE, "b")):
        outline(ax, box, color, edge=False).set_facecolor((*to_rgb(color), 0.25))
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
    titles = [f"keep {best}, drop {losers or 'none'}" for best, losers, _ in rounds]
    titles = [f"before: {len(boxes)} boxes", *titles, f"after: {len(kept)} boxes"]
    for ax, title in zip_longest(grid.flat, titles):
        if title:
            zoom(show_image(image, ax=ax), boxes, _MARGIN)
            ax.set_title(title)
        else:
            ax.remove()
    _tagged(grid.flat[0], boxes, range(len(boxes)), [f"C{i}" for i in range(len(boxes))], tags)
    for ax, (best, losers, still) in zip(grid.flat[1:], rounds, strict=False):
        _tagged(ax, boxes, losers, [PINK] * len(losers), tags, ":")
        for i in still:
            outline(ax, boxes[i], "white", width=1)
        _tagged(ax, boxes, [best], [LIME], tags)
    _tagged(grid.flat[len(rounds) + 1], boxes, kept.tolist(), [LIME] * len(kept), tags)
    texts = "; ".join(f"{best} drops {losers or 'none'}" for best, losers, _ in rounds)
    show(figure, alt=f"Of {len(boxes)} boxes {len(kept)} remain: each round keeps the best box left, green: {texts}.")


def judged_detections(image: Tensor, boxes: Tensor, scores: Tensor, tp: Tensor, objects: Tensor) -> None:
    """Detections of one class, true positives green, false ones red; ground truth dashed."""
    tags = [f"{score:.2f}" for score in scores.tolist()]
    colors = [LIME if right else PINK for right in tp.tolist()]
    _, ax = plt.subplots(figsize=(5.5, 4.6), layout="constrained")
    zoom(show_image(image, ax=ax), torch.cat([boxes, objects]), _MARGIN)
    ax.set_title("true positives green, false positives red")
    _tagged(ax, boxes, range(len(boxes)), colors, tags)
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


def _tagged(ax: Axes, boxes: Tensor, numbers: Sequence[int], colors: Names, tags: Names, style: str = "-") -> None:
    """Some of the boxes, each with its tag in its color."""
    for i, color in zip(numbers, colors, strict=True):
        outline(ax, boxes[i], color, style)
    draw_labels(ax, [tags[i] for i in numbers], boxes[list(numbers)].tolist(), [to_rgb(color) for color in colors])


def _corners(box: Tensor) -> str:
    x1, y1, x2, y2 = box.tolist()
    return f"({x1:g}, {y1:g}) to ({x2:g}, {y2:g})"


def segmentations(image: np.ndarray, maps: Mapping[str, np.ndarray], what: str) -> None:
    """An image ``(H, W, 3)`` and its regions, given as label maps by their title."""
    titles = [f"{name}: {labels.max() + 1} regions" for name, labels in maps.items()]
    columns = 2 if len(maps) < 4 else 3
    axes = image_grid([image] * (1 + len(maps)), titles=["the image", *titles], columns=columns, width=6.2)
    for ax, labels in zip(axes[1:], maps.values(), strict=True):
        plot_label_map(labels, ax=ax).images[-1].set_interpolation("nearest")
    show(axes, alt=f"{what} {', '.join(titles)}.")


def tiny_regions(image: np.ndarray, labels: np.ndarray, names: Names) -> None:
    """A few pixels ``(H, W, 3)``, with the number and name of each region."""
    ax = show_image(image, width=3.6)
    ax.images[0].set_interpolation("nearest")
    for number, name in enumerate(names):
        rows, columns = np.nonzero(labels == number)
        y, x = rows.min() + 0.5, (columns.min() + columns.max() + 1) / 2
        ax.text(x, y, f"{number}: {name}", color="white", ha="center", va="center", fontsize=11)
    counts = np.bincount(labels.ravel())
    texts = ", ".join(f"{name} of {count} pixels" for name, count in zip(names, counts, strict=True))
    show(ax, alt=f"An image of 6 × 8 pixels with three regions: {texts}.")


def color_histograms(histograms: Target) -> None:
    """Histograms ``(75,)`` of regions below each other, the three channels in their colors."""
    figure, axes = plt.subplots(len(histograms), 1, figsize=(8, 3.6), layout="constrained", sharex=True, sharey=True)
    for ax, (name, values) in zip(axes, histograms.items(), strict=True):
        ax.bar(np.arange(75) + 0.5, values, width=1, color=np.repeat([RED, "#2f9e44", BLUE], 25))
        ax.set(ylabel=name, xlim=(0, 75), ylim=(0, 0.4), yticks=[0, 0.3])
        for edge in (25, 50):
            ax.axvline(edge, color="0.6", linewidth=0.8)
    axes[-1].set_xticks([12.5, 37.5, 62.5], ["25 bins of red", "25 bins of green", "25 bins of blue"])
    largest = listed({name: float(values.max()) for name, values in histograms.items()})
    show(figure, alt=f"Histograms of three regions, each in the three channels, with the highest bar: {largest}.")


def striped_patches(patches: Mapping[str, np.ndarray], shared: Mapping[str, float]) -> None:
    """Patches ``(H, W)`` of gray values, with the share of their texture histogram that the first one has, too."""
    titles = [f"{name}\n{shared[name]:.2f} with {next(iter(patches))}" for name in patches]
    axes = image_grid([*patches.values()], titles=titles, columns=len(patches), width=7)
    show(axes, alt=f"Patches of soft stripes. Texture similarity with the first: {listed(shared)}.")


def compared_regions(image: np.ndarray, labels: np.ndarray, spots: Mapping[str, tuple], values: Mapping) -> None:
    """Regions around some pixels, outlined, and the similarities of pairs: ``{pair: {kind: value}}``."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained", width_ratios=[1.15, 1.3])
    numbers = {name: labels[y, x] for name, (x, y, *_) in spots.items()}
    show_image(np.where(np.isin(labels, list(numbers.values()))[..., None], image, 0.3 * image), ax=left)
    left.set(xlim=(0, 240), ylim=(365, 155))  # the part with the regions
    edges = [np.arange(side) + 0.5 for side in labels.shape[::-1]]
    for name, (x, y, word_x, word_y) in spots.items():
        left.contour(*edges, labels == numbers[name], levels=[0.5], colors="white", linewidths=1.2)
        arrow = {"arrowstyle": "-", "color": "white", "shrinkA": 2, "shrinkB": 0}
        style = {"color": "white", "ha": "center", "va": "center", "arrowprops": arrow}
        left.annotate(name, xy=(x, y), xytext=(word_x, word_y), **style)
    for n, ((pair, kinds), color) in enumerate(zip(values.items(), (ORANGE, GRAY), strict=True)):
        places, total = np.arange(len(kinds)) + 0.4 * n - 0.2, f"{sum(kinds.values()):.2f}"
        bars = right.bar(places, kinds.values(), 0.4, label=f"{pair}: {total} in all", color=color)
        right.bar_label(bars, fmt="%.2f", fontsize=8)
    right.set_xticks(np.arange(len(kinds)), kinds)
    right.set(ylim=(0, 1.35), yticks=[0, 0.5, 1])
    right.legend(frameon=False, loc="upper center", fontsize=9)
    sums = listed({pair: sum(kinds.values()) for pair, kinds in values.items()})
    show(figure, alt=f"Outlined regions of a portrait: {', '.join(spots)}. Bars of similarities; their sums: {sums}.")


def climbing(tree: MergeTree, image: np.ndarray, line: Sequence[int], steps: Sequence[int], truth: Tensor) -> None:
    """What a region has become after so many steps up the tree, with its box and that of the object ``(4,)``."""
    overlaps = box_iou(truth[None], tree.boxes[list(line)])[0].tolist()
    titles = [f"{step} merges: IoU {overlaps[step]:.2f}" for step in steps]
    nodes = [line[step] for step in steps]
    regions = [tree.labels_after(max(0, node - tree.num_first + 1)).numpy()[..., None] == node for node in nodes]
    axes = image_grid([np.where(region, image, 0.3 * image) for region in regions], titles=titles, columns=len(steps))
    for ax, node in zip(axes, nodes, strict=True):
        outline(ax, truth, "white", style="--", width=1.2)
        outline(ax, tree.boxes[node], YELLOW, width=1.5)
    show(axes, alt=f"A region grows, with its box, and the ground truth dashed: {'; '.join(titles)}.")


def best_proposals(images: Target, proposals: Target, objects: Mapping) -> None:
    """Four photographs with their objects, dashed, and the best proposal of each; ``objects`` are boxes by name."""
    figure = plt.figure(figsize=(7.3, 5.9), layout="constrained")
    shapes = [image.shape[2] / image.shape[1] for image in images.values()]  # width by height
    pairs = shapes[:2], shapes[2:]
    rows = figure.subfigures(2, 1, height_ratios=[1 / sum(pair) for pair in pairs])
    axes = [ax for row, pair in zip(rows, pairs, strict=True) for ax in row.subplots(1, 2, width_ratios=pair)]
    found = []
    for ax, (name, image) in zip(axes, images.items(), strict=True):
        truth = torch.tensor(list(objects[name].values())).float()
        iou, best = box_iou(truth, proposals[name]).max(dim=1)
        colors = [class_color(k) for k in range(1, len(truth) + 1)]
        show_image(image, ax=ax, title=f"{name}: the best of {len(proposals[name])} proposals")
        for box, row, color in zip(truth, best.tolist(), colors, strict=True):
            outline(ax, box, color, style="--", width=1.5)
            outline(ax, proposals[name][row], color, width=2.5)
        texts = [f"{thing} {overlap:.2f}" for thing, overlap in zip(objects[name], iou.tolist(), strict=True)]
        draw_labels(ax, texts, proposals[name][best].tolist(), colors)
        found += texts
    show(figure, alt=f"Objects of four photographs, dashed, and the proposal of largest IoU: {', '.join(found)}.")


def recall_curves(counts: Sequence[int], recall: Mapping[float, Curves]) -> None:
    """Recall against the number of proposals: a panel for each IoU threshold, a line for each kind of proposals."""
    figure, axes = plt.subplots(1, len(recall), figsize=(9, 3.6), layout="constrained", sharey=True)
    for ax, (threshold, curves) in zip(axes, recall.items(), strict=True):
        labels = {"xlabel": "proposals per image", "title": f"IoU threshold {threshold}"}
        plot_curves(ax, counts, curves, (RED, BLUE, GRAY), xscale="log", ylim=(0, 1.02), **labels)
    axes[0].set_ylabel("recall")
    axes[1].legend(frameon=False, loc="upper left")
    texts = [f"at IoU {iou} {listed({k: v[-1] for k, v in curves.items()})}" for iou, curves in recall.items()]
    show(figure, alt=f"Recall against the number of proposals. With {counts[-1]} proposals: {'; '.join(texts)}.")
