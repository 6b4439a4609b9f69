"""Figures of notebook 05: proposals that share pixels, one feature map for all, bins, gradients, and what is lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

from minircnn.course.figures.boxes import BLUE, ORANGE
from minircnn.course.figures.charts import plot_proposals
from minircnn.course.figures.display import show
from minircnn.course.figures.regions import draw_bins, draw_grid, mark_cells, plot_cells
from minircnn.plotting import Color, draw_box, show_image

EXACT: Color = (1.0, 0.6, 0.0)  # edges as they are
TAKEN: Color = (0.0, 0.85, 1.0)  # edges rounded to cells
WHITE: Color = (0.97, 0.97, 0.97)
Edges = Sequence[tuple[int, int]]


def _row(count: int, height: float, **options: object) -> tuple[plt.Figure, np.ndarray]:
    return plt.subplots(1, count, figsize=(9, height), layout="constrained", **options)


def proposals_and_cover(image: Tensor, proposals: Tensor, cover: Tensor) -> None:
    """An image with its proposals ``(P, 4)``, and in how many of them each pixel lies, ``(H, W)``."""
    figure, axes = _row(2, 4.2)
    plot_proposals(image, proposals, ax=axes[0], title=f"{len(proposals)} proposals")
    plot_cells(cover, ax=axes[1], title="in how many of them each pixel lies")
    figure.colorbar(axes[1].images[0], ax=axes[1], shrink=0.85)
    show(
        figure,
        alt=f"A street scene with {len(proposals)} overlapping proposals, and a heat map that counts them: a pixel "
        f"lies in {cover.min():.0f} to {cover.max():.0f}, in most of them on the objects.",
    )


def box_on_feature_map(image: Tensor, box: Tensor, features: Tensor, channel: int, stride: int) -> None:
    """A box ``(4,)`` on the image, on the mean of the channels ``(C, h, w)``, and on one of them."""
    figure, axes = _row(3, 3.4)
    show_image(image, ax=axes[0], title="the image, with the cells")
    draw_grid(axes[0], stride)
    plot_cells(features.mean(dim=0), stride=stride, ax=axes[1], title=f"conv5: mean of {len(features)} channels")
    plot_cells(features[channel], stride=stride, ax=axes[2], title=f"conv5: channel {channel}")
    for ax in axes:
        draw_box(ax, box, WHITE)
    show(figure, alt=f"A car in a box; its feature map with the same box: channel {channel} is brightest in the box.")


def crop_and_map(crop: Tensor, of_crop: Tensor, of_image: Tensor) -> None:
    """A crop, its own feature map ``(C, h, w)``, the same cells of the whole image's, and where these two differ."""
    figure, axes = _row(4, 2.7)
    means, differ = [of_crop.mean(dim=0), of_image.mean(dim=0)], (of_crop - of_image).abs().amax(dim=0)
    limits = (0.0, max(float(values.max()) for values in means))
    show_image(crop, ax=axes[0], title="crop of the image")
    plot_cells(means[0], limits=limits, ax=axes[1], title="feature map of the crop")
    plot_cells(means[1], limits=limits, ax=axes[2], title="crop of the feature map")
    plot_cells(differ, colors="magma", ax=axes[3], title="largest difference")
    show(
        figure, alt="The feature map of a crop and the crop of a feature map look alike; they differ most at the edges."
    )


def region_in_bins(values: Tensor, region: Tensor, rows: Edges, columns: Edges, pooled: Tensor, stride: int) -> None:
    """One channel ``(h, w)`` with a region, its bins and their maxima, and what RoIPool gives ``(n, n)``."""
    figure, axes = _row(2, 4.0, width_ratios=(2.2, 1))
    plot_cells(values, stride=stride, numbers=".0f", colors="Greys", limits=(0, 260), ax=axes[0])
    axes[0].set_title("dashed: the region; colored: its bins; ringed: their maxima", fontsize=10)
    draw_bins(axes[0], rows, columns, stride=stride)
    draw_box(axes[0], region, EXACT, dashed=True)
    mark_cells(axes[0], maxima(values, rows, columns), stride=stride)
    plot_cells(pooled, numbers=".0f", colors="Greys", limits=(0, 260), ax=axes[1], title="what RoIPool gives")
    show(
        figure,
        alt=f"A map of numbers with a dashed region and its four bins, which share a row and a column; their maxima "
        f"are ringed. The result is {pooled.int().tolist()}.",
    )


def maxima(values: Tensor, rows: Edges, columns: Edges) -> list[tuple[int, int]]:
    """Row and column of the largest value of each bin of one channel, each once."""
    found = set()
    for top, bottom in rows:
        for left, right in columns:
            if top < bottom and left < right:
                place = int(values[top:bottom, left:right].argmax())
                found.add((top + place // (right - left), left + place % (right - left)))
    return sorted(found)


def bins_on_image(image: Tensor, box: Tensor, channel: Tensor, rows: Edges, columns: Edges, stride: int) -> None:
    """A box on an image with the whole cells that RoIPool takes, and their bins on one channel ``(h, w)``."""
    (top, bottom), (left, right) = ((edges[0][0], edges[-1][1]) for edges in (rows, columns))
    figure, axes = _row(2, 3.2)
    show_image(image, ax=axes[0], title="dashed: the box; solid: the cells that are taken")
    draw_grid(axes[0], stride)
    draw_box(axes[0], [edge * stride for edge in (left, top, right, bottom)], TAKEN)
    draw_box(axes[0], box, WHITE, dashed=True)
    axes[0].set(xlim=((left - 1) * stride, (right + 1) * stride), ylim=((bottom + 1) * stride, (top - 1) * stride))
    plot_cells(10 * channel, numbers=".0f", colors="Greys", limits=(0, 25 * float(channel.max())), ax=axes[1])
    axes[1].set_title("the bins (values times 10), maxima ringed", fontsize=10)
    draw_bins(axes[1], rows, columns)
    draw_box(axes[1], box / stride, EXACT, dashed=True)
    mark_cells(axes[1], maxima(channel, rows, columns))
    axes[1].set(xlim=(left - 1, right + 1), ylim=(bottom + 1, top - 1))
    show(
        figure,
        alt=f"A car with its box and the box of whole cells, which reaches further right and down: columns {left} to "
        f"{right - 1}, rows {top} to {bottom - 1}. Beside it nine bins on the map, with a ring around each maximum.",
    )


def gradients_of_pooling(channel: Tensor, box: Tensor, of_one: Tensor, of_all: Tensor, stride: int, name: str) -> None:
    """One channel ``(h, w)``, the gradient that a region sends to it, and that of all proposals."""
    figure, axes = _row(3, 3.3)
    titles = ("a channel, and the box", f"gradient of {name}", "gradient of all proposals")
    for ax, values, title in zip(axes, (channel, of_one, of_all), titles, strict=True):
        plot_cells(values, stride=stride, ax=ax, title=title)
        figure.colorbar(ax.images[0], ax=ax, shrink=0.7)
        draw_box(ax, box, WHITE)
    count, reached = int((of_one > 0).sum()), int((of_all > 0).sum())
    show(figure, alt=f"A box sends a gradient to {count} cells of a channel; all proposals together to {reached}.")


def passes_against_one(times: Mapping[str, Mapping[str, float]]) -> None:
    """Bars of what features cost, for each size: seconds of the stages by name, as a share of one pass."""
    bars = ("crops", "… + fc6, fc7", "one pass", "… + RoIPool", "… + fc6, fc7")
    figure, axes = _row(len(times), 2.9, sharey=True)
    for ax, (name, stage) in zip(axes, times.items(), strict=True):
        crops, image, pool, dense = (
            stage[key] / stage["image"] for key in ("crops", "image", "RoIPool", "fc6 and fc7")
        )
        lengths = [crops, crops + dense, image, image + pool, image + pool + dense]
        drawn = ax.barh(range(5), lengths, color=[ORANGE, "#f0b27a", BLUE, BLUE, "#7fb2dd"])
        ax.bar_label(drawn, [f"{length:.0f}" if length > 3 else f"{length:.1f}" for length in lengths], padding=3)
        ax.set(xscale="log", xlim=(0.5, 6 * max(lengths)), xlabel="time; 1 is one pass over the image", title=name)
    axes[0].set_yticks(range(5), bars)
    axes[0].invert_yaxis()
    show(figure, alt="Bars on a logarithmic scale: the convolutions on all crops take many times as long as one pass.")


def two_proposals_one_region(image: Tensor, pair: Tensor, cells: Sequence[int], stride: int) -> None:
    """Two proposals ``(2, 4)`` that are rounded to the same cells: x1, y1 and x2, y2 of the first and the last one."""
    x1, y1, x2, y2 = (stride * edge for edge in (cells[0], cells[1], cells[2] + 1, cells[3] + 1))
    figure, axes = _row(3, 3.4)
    titles = ("two proposals", "closer, with the cells", "what RoIPool takes of both")
    for ax, title in zip(axes, titles, strict=True):
        show_image(image, ax=ax, title=title)
    for ax in axes[:2]:
        draw_box(ax, pair[0], EXACT)
        draw_box(ax, pair[1], WHITE, dashed=True)
    draw_box(axes[2], (x1, y1, x2, y2), TAKEN)
    half = max(x2 - x1, y2 - y1) / 2 + stride
    for ax in axes[1:]:
        draw_grid(ax, stride)
        middle = (x1 + x2) / 2, (y1 + y2) / 2
        ax.set(xlim=(middle[0] - half, middle[0] + half), ylim=(middle[1] + half, middle[1] - half))
    show(figure, alt="Two proposals of different place and size, and the one box of whole cells that both become.")


def classified_by_size(right: Mapping[str, Tensor], side: Tensor, limit: float) -> None:
    """Bars: percent of objects classified correctly by each kind of features, by the objects' size in pixels."""
    groups = {"all": side > 0, f"under {limit:g} px": side < limit, f"{limit:g} px and more": side >= limit}
    _, ax = plt.subplots(figsize=(7.5, 3.0), layout="constrained")
    for number, (name, color) in enumerate(zip(right, (ORANGE, BLUE, "#7fb2dd"), strict=True)):
        heights = [100 * right[name][rows].double().mean().item() for rows in groups.values()]
        drawn = ax.bar(np.arange(3) + 0.27 * (number - 1), heights, 0.25, color=color, label=name)
        ax.bar_label(drawn, fmt="%.0f", fontsize=9)
    ax.set_xticks(range(3), groups)
    ax.set(ylim=(0, 112), ylabel="classified correctly, %")
    _legend_beside(ax)
    show(
        ax, alt=f"Bars of objects classified correctly, all, small and larger ones, by features of {', '.join(right)}."
    )


def _legend_beside(ax: Axes) -> None:
    ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))


def strongest_channel(features: Tensor, box: Tensor, stride: int) -> int:
    """The channel of ``(C, h, w)`` whose mean inside a box exceeds that outside by most."""
    x1, y1, x2, y2 = (box / stride).round().int().tolist()
    inside = torch.zeros(features.shape[1:], dtype=torch.bool)
    inside[y1:y2, x1:x2] = True
    return int((features[:, inside].mean(dim=1) - features[:, ~inside].mean(dim=1)).argmax())
