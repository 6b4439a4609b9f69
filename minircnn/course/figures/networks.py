"""What a network has learned and what it sees: filters, activations, sheets of small images.

Shape comments: N images, F filters, C channels, h w size of an image, a map or a filter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.textpath import TextPath
from torch import Tensor

from minircnn.course.figures.panels import outline
from minircnn.plotting import TITLE_SIZE, as_pixels, class_color, show_image

CAPTION_SIZE = 8.0  # points
_FRAME = 2.0  # points
_WIDTH = 8.2  # inches of a sheet; with wider ones notebook 03 would be larger than 2 MB


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


def plot_filters(
    weight: Tensor, *, columns: int | None = None, ax: Axes | None = None, title: str | None = None
) -> Axes:
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


def plot_maps(maps: Tensor, *, columns: int | None = None, ax: Axes | None = None, title: str | None = None) -> Axes:
    """Activation maps (C, h, w) of one image, behind a ReLU, each from black (0) to light yellow (its largest)."""
    values = maps.detach().cpu().double().numpy()
    if values.ndim != 3 or 0 in values.shape:
        raise ValueError(f"maps must be (C, h, w), those of one image, not {tuple(maps.shape)}")
    if not values.min() >= 0:
        raise ValueError(f"maps hold values from {values.min():.3g}: show what comes out of a ReLU, which is >= 0")
    largest = values.max(axis=(1, 2), keepdims=True)
    shares = values / np.where(largest > 0, largest, 1)
    return _show_tiles(plt.get_cmap("inferno")(shares)[..., :3], columns, ax, title)


def _show_tiles(tiles: np.ndarray, columns: int | None, ax: Axes | None, title: str | None) -> Axes:
    """(N, h, w, 3) as a mosaic; pixels stay squares with sharp edges."""
    columns = min(columns or math.ceil(math.sqrt(len(tiles))), len(tiles))
    # The same share of a tile whatever its size: sheets of small and of large maps below each other stay in line.
    gap = max(1, round(tiles.shape[2] / 16))
    ax = show_image(mosaic(tiles, columns, (gap, gap)), ax=ax, title=title)
    ax.images[0].set_interpolation("nearest")
    return ax


def contact_sheet(
    images: Sequence[Tensor] | Tensor,
    *,
    columns: int = 8,
    labels: Sequence[int | None],
    captions: Sequence[str],
    row_titles: Sequence[str] = (),
) -> Axes:
    """Many small images of one size, row by row on one pair of axes, which counts in their pixels.

    Each has a frame in the color of its class, gray for 0 (background), or none where its label is None, and a caption
    below it, which may have several lines; a row may have a title at its left.
    """
    tiles = np.stack([as_pixels(image) for image in images])
    (height, breadth), rows = tiles.shape[1:3], math.ceil(len(tiles) / columns)
    gap = max(2, round(0.06 * breadth))
    dots = columns * (breadth + gap) / _WIDTH  # pixels of the images that lie in an inch
    lines = max(text.count("\n") + 1 for text in captions)
    below = gap + math.ceil(1.3 * lines * CAPTION_SIZE / 72 * dots)
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


def _axes_beside(canvas: np.ndarray, row_titles: Sequence[str]) -> Axes:
    """Axes that a sheet fills, in a new figure with room for the row titles beside them."""
    # A few per cent wider than the outlines of the letters, and the distance that matplotlib leaves beside ticks.
    long = max((TextPath((0, 0), text, size=TITLE_SIZE).get_extents().width for text in row_titles), default=0.0)
    beside = (1.05 * long + 8) / 72 if long else 0.0  # inches
    figure = plt.figure(figsize=(_WIDTH, (_WIDTH - beside) * canvas.shape[0] / canvas.shape[1]))
    return figure.add_axes((beside / _WIDTH, 0, 1 - beside / _WIDTH, 1))
