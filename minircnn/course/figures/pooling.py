"""Figures of notebook 05: proposals that share pixels, one feature map for all, bins, gradients, and what is lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import Tensor

from minircnn.course.figures.charts import plot_proposals
from minircnn.course.figures.colors import BLUE, EXACT, LIGHT_BLUE, ORANGE, POOLED, WHITE
from minircnn.course.figures.display import show
from minircnn.course.figures.panels import listed, name_rows, zoom
from minircnn.course.figures.regions import Edges, draw_bins, draw_grid, mark_maxima, plot_cells, plot_row
from minircnn.plotting import draw_box, image_grid


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


def classified_by_size(right: Mapping[str, Tensor], side: Tensor, limit: float) -> None:
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
