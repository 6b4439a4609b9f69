"""Figures of notebooks 05 and 06: one feature map for all proposals, RoIPool, and Fast R-CNN."""

from collections.abc import Callable, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import Tensor

from minircnn.boxes import box_iou
from minircnn.course.figures.charts import plot_proposals
from minircnn.course.figures.colors import BLUE, EXACT, GRAY, GREEN, LIGHT_BLUE, ORANGE, POOLED, RED, WHITE, YELLOW
from minircnn.course.figures.display import Names, Target, show
from minircnn.course.figures.maps import Edges, draw_bins, draw_grid, mark_maxima, plot_cells, plot_row
from minircnn.course.figures.panels import draw_diagram, listed, name_rows, outline, plot_bars, plot_parts, zoom
from minircnn.plotting import class_color, draw_box, draw_objects, image_grid, show_image


def proposals_and_cover(image: Tensor, proposals: Tensor, cover: Tensor) -> None:
    """An image with its proposals ``(P, 4)``, and in how many of them each pixel lies, ``(H, W)``."""
    axes = plot_row((f"{len(proposals)} proposals", image), ("in how many of them each pixel lies", cover), height=4.2)
    plot_proposals(image, proposals, ax=axes[0])
    axes[1].get_figure().colorbar(axes[1].images[0], ax=axes[1], shrink=0.85)
    alt = f"A scene with {len(proposals)} overlapping proposals, and a heat map that counts them: a pixel lies in"
    show(axes, alt=f"{alt} {cover.min():.0f} to {cover.max():.0f}.")


def box_on_feature_map(image: Tensor, box: Tensor, features: Tensor, channel: int, stride: int) -> None:
    """A box ``(4,)`` on the image, on the mean of the channels ``(C, h, w)``, and on one of them."""
    mean = (f"conv5: mean of {len(features)} channels", features.mean(dim=0))
    one = (f"conv5: channel {channel}", features[channel])
    axes = plot_row(("the image, with the cells", image), mean, one, height=3.4, stride=stride)
    draw_grid(axes[0], stride)
    for ax in axes:
        draw_box(ax, box, WHITE)
    alt = f"A car in a box, and the box on its feature map: on the mean of {len(features)} channels and on channel"
    show(axes, alt=f"{alt} {channel}.")


def crop_and_map(crop: Tensor, of_crop: Tensor, of_image: Tensor) -> None:
    """A crop, its own feature map ``(C, h, w)``, the same cells of the whole image's, and where these two differ."""
    means, differ = [of_crop.mean(dim=0), of_image.mean(dim=0)], (of_crop - of_image).abs().amax(dim=0)
    same = {"limits": (0.0, max(float(values.max()) for values in means))}
    maps = [("feature map of the crop", means[0], same), ("crop of the feature map", means[1], same)]
    maps += [("largest difference", differ, {"colors": "magma"})]
    axes = plot_row(("crop of the image", crop), *maps, height=2.7)
    edge = torch.ones(differ.shape, dtype=torch.bool)
    edge[1:-1, 1:-1] = False
    alt = "The feature map of a crop, the crop of a feature map, and their largest difference in each cell: on average"
    show(axes, alt=f"{alt} {differ[edge].mean():.2f} along the edges and {differ[~edge].mean():.2f} inside.")


def region_in_bins(values: Tensor, region: Tensor, rows: Edges, columns: Edges, pooled: Tensor, stride: int) -> None:
    """One channel ``(h, w)`` with a region, its bins and their maxima, and what RoIPool gives ``(n, n)``."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 4.0), width_ratios=(2.2, 1), layout="constrained")
    look = {"numbers": ".0f", "colors": "Greys", "limits": (0, 260)}
    title = "dashed: the region; colored: its bins; ringed: their maxima"
    plot_cells(values, stride=stride, ax=axes[0], title=title, **look)
    draw_bins(axes[0], rows, columns, stride=stride)
    draw_box(axes[0], region, EXACT, dashed=True)
    mark_maxima(axes[0], values, rows, columns, stride=stride)
    plot_cells(pooled, ax=axes[1], title="what RoIPool gives", **look)
    alt = f"A map of numbers with a dashed region and its {len(rows) * len(columns)} bins, with rings around their"
    show(figure, alt=f"{alt} maxima. The result is {pooled.int().tolist()}.")


def bins_on_image(image: Tensor, box: Tensor, channel: Tensor, rows: Edges, columns: Edges, stride: int) -> None:
    """A box on an image with the whole cells that RoIPool takes, and their bins on one channel ``(h, w)``."""
    (top, bottom), (left, right) = ((edges[0][0], edges[-1][1]) for edges in (rows, columns))
    cells = torch.tensor([[left, top, right, bottom]])
    look = {"numbers": ".0f", "colors": "Greys", "limits": (0, 25 * float(channel.max()))}
    bins = ("the bins (values times 10), maxima ringed", 10 * channel, look)
    axes = plot_row(("dashed: the box; solid: the cells that are taken", image), bins, height=3.2)
    draw_grid(axes[0], stride)
    draw_box(axes[0], stride * cells[0], POOLED)
    draw_box(axes[0], box, WHITE, dashed=True)
    zoom(axes[0], stride * cells, stride)
    draw_bins(axes[1], rows, columns)
    draw_box(axes[1], box / stride, EXACT, dashed=True)
    mark_maxima(axes[1], channel, rows, columns)
    zoom(axes[1], cells, 1)
    alt = f"A car with its box and the box of whole cells: columns {left} to {right - 1}, rows {top} to {bottom - 1}."
    show(axes, alt=f"{alt} Beside it {len(rows) * len(columns)} bins on the map, with a ring around each maximum.")


def gradients_of_pooling(channel: Tensor, box: Tensor, of_one: Tensor, of_all: Tensor, stride: int, name: str) -> None:
    """One channel ``(h, w)``, the gradient that a region sends to it, and that of all proposals."""
    panels = [("a channel, and the box", channel), (f"gradient of {name}", of_one)]
    axes = plot_row(*panels, ("gradient of all proposals", of_all), height=3.3, stride=stride)
    for ax in axes:
        ax.get_figure().colorbar(ax.images[0], ax=ax, shrink=0.7)
        draw_box(ax, box, WHITE)
    count, reached = int((of_one > 0).sum()), int((of_all > 0).sum())
    show(axes, alt=f"A box sends a gradient to {count} cells of a channel; all proposals together to {reached}.")


def passes_against_one(times: Mapping[str, Mapping[str, float]]) -> None:
    """Bars of what features cost, for each size: seconds of the stages by name, as a share of one pass."""
    figure, axes = plt.subplots(1, len(times), figsize=(9, 2.9), sharey=True, layout="constrained")
    for ax, (name, stage) in zip(axes, times.items(), strict=True):
        crops, pool, dense = (stage[key] / stage["image"] for key in ("crops", "RoIPool", "fc6 and fc7"))
        lengths = [crops, crops + dense, 1, 1 + pool, 1 + pool + dense]
        drawn = ax.barh(range(5), lengths, color=[ORANGE, "#f0b27a", BLUE, BLUE, LIGHT_BLUE])
        ax.bar_label(drawn, [f"{length:.0f}" if length > 3 else f"{length:.1f}" for length in lengths], padding=3)
        ax.set(xscale="log", xlim=(0.5, 6 * max(lengths)), xlabel="time; 1 is one pass over the image", title=name)
        name_rows(ax, ("crops", "… + fc6, fc7", "one pass", "… + RoIPool", "… + fc6, fc7"))
    alt = "Bars on a logarithmic scale: time of the convolutions and further layers, on all crops and in one pass, for"
    show(figure, alt=f"{alt} {' and '.join(times)}.")  # no numbers: they are those of the machine


def two_proposals_one_region(image: Tensor, pair: Tensor, cells: Sequence[int], stride: int) -> None:
    """Two proposals ``(2, 4)`` that are rounded to the same cells: x1, y1 and x2, y2 of the first and the last one."""
    taken = stride * (torch.tensor([cells]) + torch.tensor([0, 0, 1, 1]))
    titles = ["two proposals", "closer, with the cells", "what RoIPool takes of both"]
    axes = image_grid([image] * 3, titles=titles, columns=3)
    for ax in axes[:2]:
        draw_box(ax, pair[0], EXACT)
        draw_box(ax, pair[1], WHITE, dashed=True)
    draw_box(axes[2], taken[0], POOLED)
    for ax in axes[1:]:
        draw_grid(ax, stride)
        zoom(ax, taken, stride, square=True)
    show(axes, alt=f"Two proposals and the one box of whole cells that both become: {taken[0].tolist()} in pixels.")


def classified_by_size(right: Target, side: Tensor, limit: float) -> None:
    """Bars: percent of objects classified correctly by each kind of features, by the objects' size in pixels."""
    groups = {"all": side > 0, f"under {limit:g} px": side < limit, f"{limit:g} px and more": side >= limit}
    _, ax = plt.subplots(figsize=(7.5, 3.0), layout="constrained")
    texts = []
    for number, (name, color) in enumerate(zip(right, (ORANGE, BLUE, LIGHT_BLUE), strict=True)):
        heights = [100 * right[name][rows].double().mean().item() for rows in groups.values()]
        drawn = ax.bar(np.arange(3) + 0.27 * (number - 1), heights, 0.25, color=color, label=name)
        ax.bar_label(drawn, fmt="%.0f", fontsize=9)
        texts.append(f"{name}: {listed(dict(zip(groups, heights, strict=True)), '.0f')}")
    ax.set_xticks(range(3), groups)
    ax.set(ylim=(0, 112), ylabel="classified correctly, %")
    ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    show(ax, alt=f"Bars of percent of objects classified correctly, by features. {'; '.join(texts)}.")


def three_trainings() -> None:
    """What R-CNN trains one after the other, and Fast R-CNN at once."""
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(9, 3.9), height_ratios=(1.35, 1), layout="constrained")
    blocks = [
        (0.05, 1.0, 1.5, "images and\nproposals", GRAY),
        (2.1, 1.0, 1.8, "1  fine-tune\nthe network", BLUE),
        (4.5, 1.0, 2.1, "features on disk\n(fc7 and pool5)", GRAY),
        (7.3, 1.55, 2.5, "2  support vector machines", ORANGE),
        (7.3, 0.45, 2.5, "3  box regressions", GREEN),
    ]
    arrows = [((1.6, 1), (2.05, 1)), ((3.95, 1), (4.45, 1)), ((6.65, 1.1), (7.25, 1.5)), ((6.65, 0.9), (7.25, 0.5))]
    draw_diagram(top, "R-CNN: three trainings, one after the other", (10, 2.1), blocks, arrows)
    blocks = [
        (0.05, 0.7, 1.5, "images and\nproposals", GRAY),
        (2.1, 0.7, 3.4, "convolutions, RoIPool, fc6, fc7", BLUE),
        (5.55, 0.7, 1.1, "classes", ORANGE),
        (6.7, 0.7, 1.1, "boxes", GREEN),
        (8.4, 0.7, 1.4, "one loss", GRAY),
    ]
    draw_diagram(bottom, "Fast R-CNN: one", (10, 1.6), blocks, [((1.6, 0.7), (2.05, 0.7)), ((7.85, 0.7), (8.35, 0.7))])
    back = {"arrowstyle": "-|>", "color": RED, "linewidth": 1.4, "connectionstyle": "arc3,rad=0.12"}
    bottom.annotate("", xy=(3.8, 1.1), xytext=(9.1, 1.1), arrowprops=back)
    bottom.text(6.45, 1.49, "gradient", color=RED, fontsize=9, ha="center", va="center")
    alt = "R-CNN: images and proposals lead to a network, its features lie on a disk, and from there two further"
    alt = f"{alt} trainings begin. Fast R-CNN: convolutions, RoIPool, fc6, fc7, classes and boxes are one model with"
    show(figure, alt=f"{alt} one loss, whose gradient goes all the way back.")


def sampled_rois(image: Tensor, target: dict, every: Sequence[Tensor], drawn: Sequence[Tensor], classes: Names) -> None:
    """An image with its objects; all proposals; and those that were drawn. ``every`` and ``drawn``: boxes, labels."""
    kinds = (("all proposals", *every), ("sampled", *drawn))
    texts = [f"{name}: {int((labels > 0).sum())} of {len(labels)} foreground" for name, _, labels in kinds]
    pale = 0.5 + 0.5 * image
    axes = image_grid([image, pale, pale], titles=[f"{len(target['labels'])} objects", *texts], columns=3)
    draw_objects(axes[0], target, classes)
    for ax, (_, boxes, labels) in zip(axes[1:], kinds, strict=True):
        for box in boxes[labels == 0]:
            outline(ax, box, "0.45", width=0.5, edge=False)
        for box, label in zip(boxes[labels > 0], labels[labels > 0].tolist(), strict=True):
            outline(ax, box, class_color(label), width=1.6, edge=False)
    show(axes, alt=f"An image with its objects. {'; '.join(texts)}, in the color of their class, the rest gray.")


def target_histograms(deltas: Tensor) -> None:
    """How the four regression targets ``(N, 4)`` are distributed."""
    figure, axes = plt.subplots(1, 4, figsize=(9, 2.3), sharex=True, sharey=True, layout="constrained")
    spreads = dict(zip(("dx", "dy", "dw", "dh"), deltas.std(dim=0).tolist(), strict=True))
    for ax, (name, spread), values in zip(axes, spreads.items(), deltas.T, strict=True):
        ax.hist(values.clamp(-0.8, 0.8), bins=np.linspace(-0.8, 0.8, 41), color=BLUE)
        ax.axvspan(-spread, spread, color=ORANGE, alpha=0.2)
        ax.set(title=f"{name}, deviation {spread:.2f}", yticks=[])
    axes[0].set_ylabel("proposals")
    show(figure, alt=f"Histograms of dx, dy, dw, dh of foreground proposals; standard deviations {listed(spreads)}.")


def loss_curves(losses: Mapping[str, Callable[[Tensor], Tensor]]) -> None:
    """Losses of one error, and their gradients, by autograd."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
    for (name, function), color, style in zip(losses.items(), (ORANGE, GREEN, BLUE), ("-", "--", "-"), strict=True):
        x = torch.linspace(-4, 4, 801, requires_grad=True)
        y = function(x)
        (slope,) = torch.autograd.grad(y.sum(), x)
        axes[0].plot(x.detach(), y.detach(), style, color=color, linewidth=2, label=name)
        axes[1].plot(x.detach(), slope, style, color=color, linewidth=2)
    axes[0].set(title="loss", xlabel="error", ylim=(0, 5))
    axes[1].set(title="gradient", xlabel="error", ylim=(-4.2, 4.2))
    axes[0].legend(frameon=False, loc="upper center")
    for ax in axes:
        ax.grid(color="0.9", linewidth=0.8)
    show(figure, alt=f"Left the losses {', '.join(losses)} against the error from -4 to 4, right their gradients.")


def gradient_table(gradients: Tensor, labels: Tensor, classes: Names) -> None:
    """The size of the gradient ``(R, K, 4)`` at each box delta of each region."""
    figure, ax = plt.subplots(figsize=(8.5, 4.2), layout="constrained")
    image = ax.imshow(gradients.abs().flatten(1), cmap="Blues", aspect="auto")
    ax.set_yticks(range(len(labels)), [classes[label] for label in labels], fontsize=8)
    ax.set_xticks(np.arange(len(classes)) * 4 + 1.5, [f"{name}\nx y w h" for name in classes], fontsize=9)
    for k in range(1, len(classes)):
        ax.axvline(4 * k - 0.5, color="0.6", linewidth=0.8)
    ax.set(ylabel="true class of the region", title=f"size of the gradient at each of the {4 * len(classes)} deltas")
    ax.tick_params(length=0)
    figure.colorbar(image, ax=ax, shrink=0.8)
    reached = gradients.abs().sum(dim=2) > 0  # (R, K)
    own = torch.arange(len(classes)) == labels[:, None]
    alt = f"A table with a row for each of {len(labels)} regions and four columns for each class. There are gradients"
    where = f"for {int((reached & own).sum())} regions at their own class, for {int((reached & ~own).sum())} elsewhere"
    show(figure, alt=f"{alt} {where}; {int((labels == 0).sum())} regions are background.")


def one_region(image: Tensor, proposal: Tensor, truth: Tensor, refined: Tensor, scores: Tensor, classes: Names) -> None:
    """A proposal ``(4,)``, the object, the box of each class ``(K, 4)``, and the probability of each ``(K,)``."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.7), width_ratios=(1, 1.2), layout="constrained")
    show_image(image, ax=axes[0], title="yellow: proposal; dashed: ground truth;\nother colors: the box of each class")
    for k in range(1, len(classes)):
        outline(axes[0], refined[k], class_color(k), width=1)
    likely = int(scores.argmax())
    outline(axes[0], proposal, YELLOW)
    outline(axes[0], truth, "white", style="--")
    outline(axes[0], refined[likely], class_color(likely), width=3)
    zoom(axes[0], truth[None], 22)
    values = dict(zip(classes, scores.tolist(), strict=True))
    plot_bars(axes[1], values, [class_color(k) for k in range(len(classes))], ".2f")
    axes[1].set(xlim=(0, 1.12), title="probability of each class")
    before, after = box_iou(torch.stack([proposal, refined[likely]]), truth[None])[:, 0].tolist()
    alt = f"A proposal of IoU {before:.2f} with its object, and the boxes that six classes make of it; that of"
    show(figure, alt=f"{alt} {classes[likely]}, thick, has {after:.2f}. Bars of probabilities: {listed(values)}.")


def stage_bars(rows: Mapping[str, Mapping[str, float]], unit: str) -> None:
    """Milliseconds by stage, a bar for each detector."""
    figure, ax = plt.subplots(figsize=(9, 0.9 + 0.6 * len(rows)), layout="constrained")
    stages = {"proposals": RED, "features": BLUE, "heads": ORANGE, "selection": GRAY}
    plot_parts(ax, {name: [row[stage] for stage in stages] for name, row in rows.items()}, stages)
    for y, row in enumerate(rows.values()):
        total = sum(row[stage] for stage in stages)
        ax.text(total, y, f" {total:,.0f} ms", va="center", fontsize=9)
    ax.set_xlabel(unit)
    ax.margins(x=0.12)
    figure.legend(ncols=4, frameon=False, loc="outside upper center", fontsize=9)
    ax.spines[["top", "right"]].set_visible(False)
    show(figure, alt=f"Bars of milliseconds for {' and '.join(rows)}, divided into {', '.join(stages)}.")
