"""Figures of notebook 07: shapes of objects and anchors, labels of anchors, proposals step by step, recall, time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import torch
from torch import Tensor

from minircnn.boxes import box_iou
from minircnn.course.figures.boxes import BLUE, GREEN, ORANGE, RED, outline
from minircnn.course.figures.charts import plot_proposals
from minircnn.course.figures.display import show
from minircnn.course.figures.regions import draw_grid, plot_cells
from minircnn.plotting import class_color, draw_box, show_image

NAMES = ("wide", "square", "tall")
COLORS = (class_color(2), class_color(3), class_color(1))
_WHITE = (0.97, 0.97, 0.97)
_PURPLE = "#7a3db8"


def objectness_of_cells(image: Tensor, boxes: Tensor, mean: Tensor, read_out: Tensor, stride: int = 8) -> None:
    """An image, the mean of its feature map ``(h, w)``, and what a linear classifier reads from it."""
    figure, axes = plt.subplots(1, 3, figsize=(9, 3.3), layout="constrained")
    show_image(image, ax=axes[0], title="{} × {} cells".format(*mean.shape))
    draw_grid(axes[0], stride, opacity=0.25)
    plot_cells(mean, stride=stride, ax=axes[1], title="mean of the channels")
    plot_cells(read_out, stride=stride, limits=(0, 1), ax=axes[2], title="linear classifier: object here?")
    for ax in axes[1:]:
        for box in boxes:
            draw_box(ax, box, _WHITE, dashed=True)
    show(
        figure,
        alt=f"An image with {len(boxes)} objects; the mean of its feature map, a little larger in the objects; "
        "and the probability that a linear classifier reads from it, large in the objects and small elsewhere.",
    )


def object_shapes(shapes: Tensor, labels: Tensor, classes: Sequence[str], ours: Tensor, chosen: Tensor) -> None:
    """Widths and heights ``(N, 2)`` of objects, the median of each class, and those of two sets of anchors."""
    _, ax = plt.subplots(figsize=(7.6, 5), layout="constrained")
    ax.hexbin(*shapes.T.numpy(), gridsize=28, xscale="log", yscale="log", cmap="Greys", mincnt=1, linewidths=0, vmax=25)
    look = {"edgecolors": "white", "linewidths": 1.2, "zorder": 4}
    for boxes, marker, color, name in ((ours, "D", "black", "our anchors"), (chosen, "X", _PURPLE, "k-means")):
        ax.scatter(
            *(boxes[:, 2:] - boxes[:, :2]).T, s=95, marker=marker, color=color, label=f"{len(boxes)}: {name}", **look
        )
    for label, name in enumerate(classes[1:], start=1):
        x, y = shapes[labels == label].median(dim=0).values.tolist()
        ax.scatter(x, y, s=150, color=class_color(label), label=f"median {name}", **look)
    for slope, x, text in ((0.5, 26, "1 : 2"), (1, 13, "1 : 1"), (2, 9.7, "2 : 1")):
        ax.axline((10, 10 * slope), (20, 20 * slope), color="0.6", linewidth=1, zorder=1)
        ax.text(x, x * slope * 1.05, text, color="0.3", rotation=45, rotation_mode="anchor")
    ticks = [10, 20, 50, 100, 200]
    ax.set(xlim=(9, 200), ylim=(9, 200), aspect="equal", xlabel="width in pixels", ylabel="height in pixels")
    ax.set_xticks(ticks, ticks)
    ax.set_yticks(ticks, ticks)
    ax.minorticks_off()
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    show(
        ax,
        alt="Width against height of all training objects in gray. Our anchors lie on three straight lines, two of "
        "them outside of the cloud; those of k-means lie in it. The median person is tall, the median car wide.",
    )


def anchors_on_image(image: Tensor, anchors: Tensor, cells: Sequence[tuple[int, int]], stride: int = 8) -> None:
    """The centers of all cells, and the anchors ``(h, w, A, 4)`` of some, in the colors of three aspect ratios."""
    figure, axes = plt.subplots(1, 1 + len(cells), figsize=(3 + 3 * len(cells), 3.3), layout="constrained")
    titles = ["centers of all cells", *(f"anchors of cell {cell}" for cell in cells)]
    for ax, title in zip(axes, titles, strict=True):
        show_image(image, ax=ax, title=title)
    centers = ((anchors[:, :, 0, :2] + anchors[:, :, 0, 2:]) / 2).reshape(-1, 2)
    axes[0].scatter(*centers.T, s=4, color="white")
    size = image.shape[-1]
    for ax, (row, column) in zip(axes[1:], cells, strict=True):
        of_cell = anchors[row, column]
        for n, box in enumerate(of_cell):
            outline(ax, box, COLORS[n * 3 // len(of_cell)], width=1.6, edge=False)
        low, high = min(0, of_cell.min().item() - 5), max(size, of_cell.max().item() + 5)
        ax.set(xlim=(low, high), ylim=(high, low))
        outline(ax, torch.tensor([0.0, 0.0, size, size]), "0.3", width=0.8, edge=False)
    texts = ", ".join(f"{name} {color}" for name, color in zip(NAMES, ("blue", "yellow", "red"), strict=True))
    show(
        figure,
        alt=f"The centers of {len(centers)} cells, and {anchors.shape[2]} boxes around each of the cells "
        f"{', '.join(map(str, cells))}: {texts}.",
    )


def objectness_by_anchor(image: Tensor, boxes: Tensor, probability: Tensor, sizes: Sequence[float]) -> None:
    """The objectness ``(A, h, w)`` of each of the anchors: a row for an aspect ratio, a column for a size."""
    figure, axes = plt.subplots(3, 1 + len(sizes), figsize=(9, 5.7), layout="constrained")
    for n, name in enumerate(NAMES):
        for column, size in enumerate(sizes):
            ax = axes[n, column + 1]
            values = probability[n * len(sizes) + column]
            plot_cells(values, stride=8, limits=(0, 1), ax=ax, title=f"{name}, {size:.0f}")
            for box in boxes:
                outline(ax, box, "white", width=0.7, edge=False)
        axes[n, 0].axis("off")
    show_image(image, ax=axes[1, 0])
    axes[2, 0].text(0.5, 1, "black: 0\nlight yellow: 1", ha="center", va="top", fontsize=9)
    show(
        figure,
        alt=f"{len(probability)} maps of objectness, three aspect ratios by {len(sizes)} sizes. Each is dark but "
        "for a few spots, most of them in objects of about that size and shape.",
    )


def preferred_ratios(shares: Tensor, classes: Sequence[str]) -> None:
    """For each class the shares ``(K, 3)``, in percent, of wide, square and tall anchors with the highest score."""
    _, ax = plt.subplots(figsize=(8, 2.9), layout="constrained")
    left = torch.zeros(len(shares))
    for name, color, values in zip(NAMES, COLORS, shares.T, strict=True):
        bars = ax.barh(classes[1:], values, left=left, color=color, label=name)
        ax.bar_label(bars, [f"{v:.0f}" if v >= 6 else "" for v in values], label_type="center")
        left = left + values
    ax.invert_yaxis()
    ax.set(xlim=(0, 100), xlabel="% of the objects", title="anchor with the highest score at the center of the object")
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    best = ", ".join(f"{name} {NAMES[int(row.argmax())]}" for name, row in zip(classes[1:], shares, strict=True))
    show(ax, alt=f"Bars of shares; most often the anchor with the highest score is, for class {best}.")


def proposal_stages(
    image: Tensor, target: Mapping, classes: Sequence[str], stages: Mapping[str, Tensor], few: int = 15
) -> None:
    """After each step the best ``few`` boxes, and for each object the box that fits best among all that are left."""
    figure, axes = plt.subplots(1, len(stages), figsize=(3.5 * len(stages), 3.9), layout="constrained")
    for ax, (name, boxes) in zip(axes, stages.items(), strict=True):
        best = boxes[box_iou(target["boxes"], boxes).argmax(dim=1)]
        plot_proposals(
            image * 0.7, torch.cat([boxes[:few], best]), target, classes, ax=ax, title=f"{name}: {len(boxes)} boxes"
        )
    texts = ", ".join(f"{name} {len(boxes)}" for name, boxes in stages.items())
    show(
        figure,
        alt=f"The best {few} boxes after each step; each object dashed, and in its color the box that fits it best of "
        f"all that are left. Boxes: {texts}.",
    )


def nms_tradeoff(thresholds: Sequence[float], recalls: Mapping[float, Sequence[float]], count: int) -> None:
    """Recall of so many proposals against the threshold of NMS, a line for each IoU that counts."""
    _, ax = plt.subplots(figsize=(6.4, 3.2), layout="constrained")
    for (iou, values), color in zip(recalls.items(), (BLUE, ORANGE), strict=True):
        ax.plot(thresholds, values, marker="o", color=color, label=f"IoU {iou} or better")
    ax.set(ylim=(0, 1.03), xlabel="threshold of NMS", ylabel=f"recall of {count} proposals")
    ax.grid(color="0.9")
    ax.legend(frameon=False, loc="lower center")
    show(
        ax,
        alt="Recall against the threshold of NMS: at IoU 0.5 it is highest in the middle and falls toward 0.9; at "
        "IoU 0.7 it is low up to 0.5 and highest between 0.7 and 0.8.",
    )


def anchor_labels(
    image: Tensor, boxes: Tensor, anchors: Tensor, label: Tensor, low_quality: Tensor, few: int = 25
) -> None:
    """All positive anchors, those that are positive only as the best of an object dashed; some of the others."""
    figure, axes = plt.subplots(1, 3, figsize=(9, 3.4), layout="constrained")
    generator = torch.Generator().manual_seed(0)
    for ax, name, value, color in zip(
        axes, ("positive", "ignored", "negative"), (1, -1, 0), (GREEN, ORANGE, "0.8"), strict=True
    ):
        of_kind = (label == value).nonzero().flatten()
        shown = of_kind if value == 1 else of_kind[torch.randperm(len(of_kind), generator=generator)[:few]]
        which = f"all {len(of_kind)}" if value == 1 else f"{few} of {len(of_kind):,}"
        show_image(image * 0.6, ax=ax, title=f"{name}: {which}")
        for n in shown.tolist():
            outline(ax, anchors[n], color, "--" if low_quality[n] else "-", 1.6 if value == 1 else 0.8, edge=False)
        for box in boxes:
            outline(ax, box, "white", width=1.8, edge=False)
    show(
        figure,
        alt="Three times the image, ground truth white: all positive anchors lie closely around objects, ignored "
        "ones roughly, negative ones anywhere.",
    )


def recall_against_search(counts: Sequence[int], curves: Mapping[float, Mapping[str, Sequence[float]]]) -> None:
    """Recall against the number of proposals, a panel for each IoU, a line for each way to propose."""
    looks = [(RED, "o", "-"), (BLUE, "o", "-"), ("#123c66", "s", "--"), ("0.55", "o", "-")]
    figure, axes = plt.subplots(1, len(curves), figsize=(9, 3.9), layout="constrained", sharey=True)
    for ax, (iou, lines) in zip(axes, curves.items(), strict=True):
        for (name, values), (color, marker, style) in zip(lines.items(), looks, strict=True):
            ax.plot(counts, values, color=color, marker=marker, linestyle=style, markersize=4.5, label=name)
        ax.set(xscale="log", ylim=(0, 1.02), xlabel="proposals an image", title=f"IoU {iou} or better")
        ax.set_xticks(counts, ["" if count == 200 else count for count in counts])
        ax.minorticks_off()
        ax.grid(color="0.9")
    axes[0].set_ylabel("recall")
    figure.legend(*axes[0].get_legend_handles_labels(), ncols=4, frameon=False, loc="outside lower center")
    show(
        figure,
        alt="Recall against the number of proposals. At IoU 0.5 the detector's RPN lies far above selective search "
        "up to a hundred proposals. At IoU 0.7 it stays above with NMS at 0.7; with NMS at 0.5 it is overtaken. "
        "The RPN on frozen feature maps is good at 0.5 and poor at 0.7.",
    )


def time_bars(times: Mapping[str, float]) -> None:
    """Milliseconds of a detector with selective search, and of one with an RPN, stacked."""
    colors = {"selective search": RED, "RPN": BLUE, "backbone": "0.8", "heads": "0.6"}
    figure, ax = plt.subplots(figsize=(9, 2.1), layout="constrained")
    for y, proposer in enumerate(("selective search", "RPN")):
        left = 0.0
        for name in ("backbone", proposer, "heads"):
            ax.barh(y, times[name], left=left, color=colors[name], edgecolor="white")
            left += times[name]
    for name, color in colors.items():
        ax.barh(0, 0, color=color, label=name)
    ax.set_yticks([0, 1], ["with selective search", "with an RPN"])
    ax.invert_yaxis()
    ax.set_xlabel("ms an image")
    figure.legend(ncols=4, frameon=False, loc="outside upper center")
    show(
        ax,
        alt="Two bars of time: selective search is most of the first; in the second, far shorter, the RPN is a part.",
    )


def recall_by_anchors(learned: Mapping[str, Mapping[float, Sequence[float]]]) -> None:
    """Recall with some sets of anchors: a bar for the mean, a dot for each seed, a panel for each IoU."""
    ious = list(next(iter(learned.values())))
    figure, axes = plt.subplots(1, len(ious), figsize=(9, 2.6), sharey=True, layout="constrained")
    for ax, iou in zip(axes, ious, strict=True):
        for y, recalls in enumerate(learned.values()):
            values = [100 * value for value in recalls[iou]]
            ax.barh(y, sum(values) / len(values), color=BLUE, alpha=0.35)
            ax.scatter(values, [y] * len(values), color=BLUE, s=28, zorder=3)
        ax.set(xlim=(0, 100), xlabel="recall of 100 proposals, %", title=f"IoU {iou} or better")
        ax.grid(axis="x", color="0.92")
        ax.set_axisbelow(True)
    axes[0].set_yticks(range(len(learned)), learned)
    axes[0].invert_yaxis()
    show(
        figure,
        alt=f"Bars of recall with a dot for each seed: {', '.join(learned)}. A single anchor is worst at both IoUs.",
    )
