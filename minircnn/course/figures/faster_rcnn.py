"""Figures of notebooks 07 and 08: anchors, proposals step by step, and Faster R-CNN, an image on its way through it."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import Tensor

from minircnn.boxes import box_iou
from minircnn.course.figures.charts import plot_losses, plot_proposals
from minircnn.course.figures.colors import BLUE, GRAY, GREEN, LIME, ORANGE, RED, WHITE
from minircnn.course.figures.display import Curves, Names, Target, show
from minircnn.course.figures.maps import draw_grid, plot_row, plot_score_maps, strongest_channel
from minircnn.course.figures.mask_rcnn import ablation_dots
from minircnn.course.figures.panels import dash_truth, draw_diagram, listed, outline, plot_curves, plot_dots, plot_parts
from minircnn.plotting import class_color, draw_box, draw_objects, image_grid, show_image
from minircnn.pooling import misalignment

NAMES = ("wide", "square", "tall")
COLORS = (class_color(2), class_color(3), class_color(1))
_PURPLE = "#7a3db8"


def objectness_of_cells(image: Tensor, boxes: Tensor, mean: Tensor, read_out: Tensor, stride: int = 8) -> None:
    """An image, the mean of its feature map ``(h, w)``, and what a linear classifier reads from it."""
    maps = [("mean of the channels", mean), ("linear classifier: object here?", read_out, {"limits": (0, 1)})]
    axes = plot_row(("{} × {} cells".format(*mean.shape), image), *maps, height=3.3, stride=stride)
    draw_grid(axes[0], stride, opacity=0.25)
    for ax in axes[1:]:
        for box in boxes:
            draw_box(ax, box, WHITE, dashed=True)
    alt = f"An image with {len(boxes)} objects; the mean of its feature map; and the probability that a linear"
    show(axes, alt=f"{alt} classifier reads from it, above one half in {int((read_out > 0.5).sum())} cells.")


def object_shapes(shapes: Tensor, labels: Tensor, classes: Names, ours: Tensor, chosen: Tensor) -> None:
    """Widths and heights ``(N, 2)`` of objects, the median of each class, and those of two sets of anchors."""
    _, ax = plt.subplots(figsize=(7.6, 5), layout="constrained")
    ax.hexbin(*shapes.T.numpy(), gridsize=28, xscale="log", yscale="log", cmap="Greys", mincnt=1, linewidths=0, vmax=25)
    look = {"edgecolors": "white", "linewidths": 1.2, "zorder": 4}
    for boxes, marker, color, name in ((ours, "D", "black", "our anchors"), (chosen, "X", _PURPLE, "k-means")):
        sides = (boxes[:, 2:] - boxes[:, :2]).T
        ax.scatter(*sides, s=95, marker=marker, color=color, label=f"{len(boxes)}: {name}", **look)
    medians = []
    for label, name in enumerate(classes[1:], start=1):
        x, y = shapes[labels == label].median(dim=0).values.tolist()
        ax.scatter(x, y, s=150, color=class_color(label), label=f"median {name}", **look)
        medians.append(f"{name} {x:.0f} × {y:.0f}")
    for slope, x, text in ((0.5, 26, "1 : 2"), (1, 13, "1 : 1"), (2, 9.7, "2 : 1")):
        ax.axline((10, 10 * slope), (20, 20 * slope), color="0.6", linewidth=1, zorder=1)
        ax.text(x, x * slope * 1.05, text, color="0.3", rotation=45, rotation_mode="anchor")
    ticks = [10, 20, 50, 100, 200]
    ax.set(xlim=(9, 200), ylim=(9, 200), aspect="equal", xlabel="width in pixels", ylabel="height in pixels")
    ax.set_xticks(ticks, ticks)
    ax.set_yticks(ticks, ticks)
    ax.minorticks_off()
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    alt = f"Width against height of {len(shapes)} objects in gray, of our {len(ours)} anchors and of {len(chosen)} by"
    show(ax, alt=f"{alt} k-means, and the median of each class, in pixels: {', '.join(medians)}.")


def anchors_on_image(image: Tensor, anchors: Tensor, cells: Sequence[tuple[int, int]]) -> None:
    """The centers of all cells, and the anchors ``(h, w, A, 4)`` of some, in the colors of three aspect ratios."""
    titles = ["centers of all cells", *(f"anchors of cell {cell}" for cell in cells)]
    axes = image_grid([image] * len(titles), titles=titles, columns=len(titles))
    centers = ((anchors[:, :, 0, :2] + anchors[:, :, 0, 2:]) / 2).reshape(-1, 2)
    axes[0].scatter(*centers.T, s=4, color="white")
    size = image.shape[-1]
    for ax, (row, column) in zip(axes[1:], cells, strict=True):
        of_cell = anchors[row, column]
        for n, box in enumerate(of_cell):
            outline(ax, box, COLORS[n * 3 // len(of_cell)], width=1.6, edge=False)
        low, high = min(0, of_cell.min().item() - 5), max(size, of_cell.max().item() + 5)
        ax.set(xlim=(low, high), ylim=(high, low))
        outline(ax, [0, 0, size, size], "0.3", width=0.8, edge=False)
    texts = ", ".join(f"{name} {color}" for name, color in zip(NAMES, ("blue", "yellow", "red"), strict=True))
    alt = f"The centers of {len(centers)} cells, and {anchors.shape[2]} boxes around each of the cells"
    show(axes, alt=f"{alt} {', '.join(map(str, cells))}: {texts}.")


def objectness_by_anchor(image: Tensor, boxes: Tensor, probability: Tensor, sizes: Sequence[float]) -> None:
    """The objectness ``(A, h, w)`` of each of the anchors: a row for an aspect ratio, a column for a size."""
    figure, axes = plt.subplots(3, 1 + len(sizes), figsize=(9, 5.7), layout="constrained")
    plot_score_maps(axes[:, 1:], boxes, probability, sizes, stride=8)
    show_image(image, ax=axes[1, 0])
    for ax in axes[::2, 0]:
        ax.axis("off")
    axes[2, 0].text(0.5, 1, "black: 0\nlight yellow: 1", ha="center", va="top", fontsize=9)
    alt = f"{len(probability)} maps of objectness, three aspect ratios by {len(sizes)} sizes"
    show(figure, alt=f"{alt}, with the boxes of {len(boxes)} objects.")


def preferred_ratios(shares: Tensor, classes: Names) -> None:
    """For each class the shares ``(K, 3)``, in percent, of wide, square and tall anchors with the highest score."""
    _, ax = plt.subplots(figsize=(8, 2.9), layout="constrained")
    plot_parts(ax, dict(zip(classes[1:], shares.tolist(), strict=True)), dict(zip(NAMES, COLORS, strict=True)))
    for bars, values in zip(ax.containers, shares.T, strict=True):
        ax.bar_label(bars, [f"{v:.0f}" if v >= 6 else "" for v in values], label_type="center")
    ax.set(xlim=(0, 100), xlabel="% of the objects", title="anchor with the highest score at the center of the object")
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    best = ", ".join(f"{name} {NAMES[int(row.argmax())]}" for name, row in zip(classes[1:], shares, strict=True))
    show(ax, alt=f"Bars of shares; most often the anchor with the highest score is, for class {best}.")


def proposal_stages(image: Tensor, target: Mapping, classes: Names, stages: Target, few: int = 15) -> None:
    """After each step the best ``few`` boxes, and for each object the box that fits best among all that are left."""
    titles = [f"{name}: {len(boxes)} boxes" for name, boxes in stages.items()]
    axes = image_grid([0.7 * image] * len(stages), titles=titles, columns=len(stages))
    for ax, boxes in zip(axes, stages.values(), strict=True):
        best = boxes[box_iou(target["boxes"], boxes).argmax(dim=1)]
        plot_proposals(0.7 * image, torch.cat([boxes[:few], best]), target, classes, ax=ax)
    alt = f"The best {few} boxes after each step; each object dashed, and in its color the box that fits it best of"
    show(axes, alt=f"{alt} all that are left. Boxes: {', '.join(titles)}.")


def nms_tradeoff(thresholds: Sequence[float], recalls: Mapping[float, Sequence[float]], count: int) -> None:
    """Recall of so many proposals against the threshold of NMS, a line for each IoU that counts."""
    _, ax = plt.subplots(figsize=(6.4, 3.2), layout="constrained")
    curves = {f"IoU {iou} or better": values for iou, values in recalls.items()}
    labels = {"xlabel": "threshold of NMS", "ylabel": f"recall of {count} proposals"}
    plot_curves(ax, thresholds, curves, (BLUE, ORANGE), ylim=(0, 1.03), **labels)
    ax.legend(frameon=False, loc="lower center")
    best = {name: thresholds[values.index(max(values))] for name, values in curves.items()}
    show(ax, alt=f"Recall of {count} proposals against the threshold of NMS; highest at {listed(best, 'g')}.")


def anchor_labels(image: Tensor, boxes: Tensor, anchors: Tensor, label: Tensor, weak: Tensor, few: int = 25) -> None:
    """All positive anchors, dashed the weak ones, positive only as the best of an object; some of the others."""
    generator = torch.Generator().manual_seed(0)
    kinds = {"positive": (1, LIME), "ignored": (-1, ORANGE), "negative": (0, "0.8")}
    of_kinds = {name: (label == value).nonzero().flatten() for name, (value, _) in kinds.items()}
    counts = {name: f"all {len(k)}" if name == "positive" else f"{few} of {len(k):,}" for name, k in of_kinds.items()}
    titles = [f"{name}: {count}" for name, count in counts.items()]
    axes = image_grid([0.6 * image] * 3, titles=titles, columns=3)
    for ax, (name, (value, color)) in zip(axes, kinds.items(), strict=True):
        rows = of_kinds[name]
        shown = rows if value == 1 else rows[torch.randperm(len(rows), generator=generator)[:few]]
        for n in shown.tolist():
            outline(ax, anchors[n], color, "--" if weak[n] else "-", 1.6 if value == 1 else 0.8, edge=False)
        for box in boxes:
            outline(ax, box, "white", width=1.8, edge=False)
    show(axes, alt=f"Three times the image, ground truth white, with anchors: {'; '.join(titles)}.")


def recall_against_search(counts: Sequence[int], curves: Mapping[float, Curves]) -> None:
    """Recall against the number of proposals, a panel for each IoU, a line for each way to propose."""
    figure, axes = plt.subplots(1, len(curves), figsize=(9, 3.9), layout="constrained", sharey=True)
    for ax, (iou, lines) in zip(axes, curves.items(), strict=True):
        labels = {"xlabel": "proposals an image", "title": f"IoU {iou} or better"}
        plot_curves(ax, counts, lines, (RED, BLUE, "#123c66", "0.55"), xscale="log", ylim=(0, 1.02), **labels)
        ax.lines[2].set(marker="s", linestyle="--")
    axes[0].set_ylabel("recall")
    figure.legend(*axes[0].get_legend_handles_labels(), ncols=4, frameon=False, loc="outside lower center")
    texts = [f"at IoU {iou} {listed({k: v[-1] for k, v in lines.items()})}" for iou, lines in curves.items()]
    show(figure, alt=f"Recall against the number of proposals. With {counts[-1]}: {'; '.join(texts)}.")


def time_bars(times: Mapping[str, float]) -> None:
    """Milliseconds of a detector with selective search, and of one with an RPN, stacked."""
    parts = {"backbone": "0.8", "selective search": RED, "RPN": BLUE, "heads": "0.6"}
    rows = {"with selective search": "RPN", "with an RPN": "selective search"}  # each leaves the other one out
    figure, ax = plt.subplots(figsize=(9, 2.1), layout="constrained")
    plot_parts(ax, {row: [times[p] if p != other else 0.0 for p in parts] for row, other in rows.items()}, parts)
    ax.set_xlabel("ms an image")
    figure.legend(ncols=4, frameon=False, loc="outside upper center")
    show(ax, alt=f"Two bars of time, one {' and one '.join(rows)}, divided into {', '.join(parts)}.")


def recall_by_anchors(learned: Mapping[str, Mapping[float, Sequence[float]]]) -> None:
    """Recall with some sets of anchors: a line at the mean, a dot for each seed, a panel for each IoU."""
    ious = list(next(iter(learned.values())))
    figure, axes = plt.subplots(1, len(ious), figsize=(9, 2.6), sharey=True, layout="constrained")
    texts = []
    for ax, iou in zip(axes, ious, strict=True):
        values = {name: [100 * value for value in recalls[iou]] for name, recalls in learned.items()}
        plot_dots(ax, values, BLUE, xlim=(0, 100), xlabel="recall of 100 proposals, %", title=f"IoU {iou} or better")
        texts.append(f"at IoU {iou} {listed({name: sum(seeds) / len(seeds) for name, seeds in values.items()}, '.0f')}")
    show(figure, alt=f"A dot of recall for each seed and a line at their mean: {'; '.join(texts)} percent.")


def two_detectors() -> None:
    """Fast R-CNN with proposals out of the pixels, and Faster R-CNN with proposals out of the feature map."""
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(9, 4.2), layout="constrained")
    blocks = [
        (0.05, 1.5, 0.95, "image", GRAY),
        (1.55, 1.5, 1.4, "backbone", BLUE),
        (3.5, 1.5, 1.3, "feature map", GRAY),
        (6.2, 1.5, 2.2, "RoIPool, fc6, fc7,\ntwo siblings", ORANGE),
        (8.95, 1.5, 1.2, "detections", GRAY),
        (5.35, 0.4, 1.2, "proposals", GRAY),
    ]
    arrows = [((1.0, 1.5), (1.5, 1.5)), ((2.97, 1.5), (3.45, 1.5)), ((4.82, 1.5), (6.15, 1.5))]
    arrows += [((8.42, 1.5), (8.9, 1.5)), ((6.1, 0.78), (6.7, 1.12))]
    search, rpn = (1.4, 0.4, 1.6, "selective search", RED), (3.45, 0.4, 1.4, "RPN", GREEN)
    from_pixels = [((0.55, 1.12), (1.35, 0.45)), ((3.03, 0.4), (5.3, 0.4))]
    from_map = [((4.15, 1.12), (4.15, 0.78)), ((4.87, 0.4), (5.3, 0.4))]
    draw_diagram(top, "Fast R-CNN: proposals from pixels", (10.2, 2), [*blocks, search], arrows + from_pixels)
    draw_diagram(bottom, "Faster R-CNN: proposals from the feature map", (10.2, 2), [*blocks, rpn], arrows + from_map)
    alt = "Two diagrams. Fast R-CNN: selective search makes proposals out of the image. Faster R-CNN: the region"
    show(figure, alt=f"{alt} proposal network makes them out of the backbone's feature map. All else is the same.")


def losses_and_layers(norms: Curves, layers: Names) -> None:
    """For each loss the layers that it gives a gradient; ``norms`` are 0 where there is none."""
    table = np.array(list(norms.values())) > 0
    figure, ax = plt.subplots(figsize=(9, 2.6), layout="constrained")
    ax.pcolormesh(table, cmap="Greens", vmin=0, vmax=1.6, edgecolors="white", linewidth=2)
    for (row, column), reached in np.ndenumerate(table):
        text, color = ("gradient", "black") if reached else ("none", "0.55")
        ax.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=9.5, color=color)
    ax.set_xticks(np.arange(len(layers)) + 0.5, layers)
    ax.set_yticks(np.arange(len(norms)) + 0.5, norms)
    ax.tick_params(length=0, labeltop=True, labelbottom=False)
    ax.invert_yaxis()
    ax.spines[:].set_visible(False)
    reached = [[layer for layer, value in zip(layers, row, strict=True) if value] for row in table]
    texts = (f"{name} reaches {', '.join(own)}" for name, own in zip(norms, reached, strict=True))
    show(figure, alt=f"A table of losses and layers: {'; '.join(texts)}.")


def score_maps(image: Tensor, objects: Target, logits: Tensor, sizes: Sequence[float]) -> None:
    """Objectness of each anchor of each cell, ``(h, w, A)`` logits, a map for each kind of anchor."""
    figure, axes = plt.subplots(3, len(sizes), figsize=(9, 7.1), layout="constrained")
    scores, stride = logits.sigmoid().permute(2, 0, 1), image.shape[-1] / len(logits)
    plot_score_maps(axes, objects["boxes"], scores, sizes, stride)
    alt = f"Objectness of {len(scores)} kinds of anchors in each cell, in three rows for wide, square and tall ones and"
    show(figure, alt=f"{alt} {len(sizes)} columns for their sizes, with the ground truth.")


def anchors_to_proposals(image: Tensor, objects: Target, anchors: Tensor, refined: Tensor, proposals: Tensor) -> None:
    """The best anchor of each object ``(G, 4)``, the same refined, and all proposals ``(P, 4)``."""
    titles = ["dashed: anchors; full lines: refined", f"the {len(proposals)} proposals"]
    axes = image_grid([image] * 2, titles=titles)
    for anchor, box, label in zip(anchors, refined, objects["labels"].tolist(), strict=True):
        outline(axes[0], anchor, class_color(label), style="--", width=1.5)
        outline(axes[0], box, class_color(label))
    plot_proposals(image, proposals, ax=axes[1])
    alt = "Left: for each object its most probable anchor, dashed, and the same refined. Right:"
    show(axes, alt=f"{alt} the {len(proposals)} proposals.")


def pooled_proposal(image: Tensor, features: Tensor, box: Tensor, pooled: Tensor) -> None:
    """A proposal ``(4,)``, the whole cells that RoIPool takes for it from ``(C, h, w)``, and its ``(C, n, n)`` bins."""
    stride = image.shape[-1] / features.shape[-1]
    x1, y1, x2, y2 = misalignment(box.tolist(), tuple(image.shape[1:]), tuple(features.shape[1:])).pooled
    x2, y2 = min(x2, features.shape[2]), min(y2, features.shape[1])  # RoIPool takes none beyond the map
    cells = stride * torch.tensor([x1, y1, x2, y2])
    channel = strongest_channel(features, cells, stride)
    one = (f"channel {channel} of the feature map", features[channel])
    bins = (f"after RoIPool: {pooled.shape[1]} × {pooled.shape[2]} bins", pooled[channel], {"stride": 1})
    axes = plot_row(("dashed: a proposal; cyan: its cells", image), one, bins, height=3.2, stride=stride)
    for ax in axes[:2]:
        draw_grid(ax, stride, opacity=0.25)
        outline(ax, cells, "cyan")
        outline(ax, box, "white", style="--", width=1.5)
    alt = f"A proposal and the whole cells around it: columns {x1} to {x2 - 1}, rows {y1} to {y2 - 1}; channel"
    alt = f"{alt} {channel} of the feature map, the one that is larger there by most"
    show(axes, alt=f"{alt}; and its bins after RoIPool.")


def class_table(probabilities: Tensor, classes: Names) -> None:
    """Class probabilities ``(P, K)``: a column for each proposal, the one with the highest objectness first."""
    figure, ax = plt.subplots(figsize=(9, 2.5), layout="constrained")
    picture = ax.imshow(probabilities.T, cmap="magma", vmin=0, vmax=1, aspect="auto")
    ax.set_yticks(range(len(classes)), classes)
    ax.set(xlabel="proposals by objectness, the highest first")
    ax.tick_params(length=0)
    figure.colorbar(picture, ax=ax, label="probability", pad=0.01)
    found = ", ".join(classes[label] for label in sorted(set(probabilities.argmax(dim=1).tolist())))
    show(figure, alt=f"Class probabilities of {len(probabilities)} proposals. The most probable are: {found}.")


def three_steps(image: Tensor, candidates: Mapping, after: Mapping, classes: Names) -> None:
    """Boxes above 0.1 before NMS and after it, and detections above 0.5; dicts of boxes, labels, scores."""
    limits = ((candidates, 0.1), (after, 0.1), (after, 0.5))
    steps = [{name: value[found["scores"] > least] for name, value in found.items()} for found, least in limits]
    counts = [len(step["boxes"]) for step in steps]
    titles = [f"above 0.1: {counts[0]} boxes", f"after NMS: {counts[1]} boxes", f"above 0.5: {counts[2]} detections"]
    axes = image_grid([image] * 3, titles=titles, columns=3)
    for ax, step in zip(axes[:2], steps, strict=False):
        for box, label in zip(step["boxes"], step["labels"].tolist(), strict=True):
            outline(ax, box, class_color(label), width=1.1, edge=False)
    draw_objects(axes[2], steps[2], classes)
    alt = f"{counts[0]} boxes with a probability above 0.1; {counts[1]} after non-maximum suppression"
    show(axes, alt=f"{alt}; and the {counts[2]} above 0.5 with their classes.")


def four_losses(history: Sequence[Mapping[str, float]]) -> None:
    """Losses of the RPN and of the heads, in two panels."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    for ax, names, title in ((axes[0], ("objectness", "rpn_box"), "RPN"), (axes[1], ("classifier", "box"), "heads")):
        plot_losses([{name: step[name] for name in names} for step in history], window=50, ax=ax, title=title)
    alt = f"Losses over {len(history)} batches. Left the RPN's objectness and box loss, right those of the heads"
    show(figure, alt=f"{alt}, classifier and box, each with its running mean.")


def seeds_and_means(groups: Mapping[str, Sequence[Any]]) -> None:
    """A dot for each seed and a line at their mean, for AP, AP50 and the recall of proposals; rows have attributes."""
    ablation_dots(groups, {"ap": "AP", "ap50": "AP50", "recall": "recall of proposals"})


def false_positives(
    images: Sequence, targets: Sequence[Target], detections: Sequence[Target], errors: Sequence, classes: Names
) -> None:
    """The most confident false positives, eight at most, with the ground truth dashed."""
    errors = errors[:8]
    titles = [f"{classes[error.label]} {error.score:.2f}: {error.kind}" for error in errors]
    axes = image_grid([images[error.image] for error in errors], titles=titles, columns=4)
    for ax, error in zip(axes, errors, strict=True):
        dash_truth(ax, targets[error.image])
        outline(ax, detections[error.image]["boxes"][error.detection], class_color(error.label))
    kinds = ", ".join(f"{classes[error.label]}: {error.kind}" for error in errors)
    show(axes, alt=f"The most confident false positives, full lines, and the ground truth, dashed: {kinds}.")
