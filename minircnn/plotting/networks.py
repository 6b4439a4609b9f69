"""What a network has learned and what it sees: filters, activations, sheets of small pictures, losses.

Shape comments: N pictures, F filters, C channels, h w size of a picture, a map or a filter.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.textpath import TextPath
from torch import Tensor

from minircnn.plotting.colours import class_colour
from minircnn.plotting.marks import draw_box
from minircnn.plotting.pictures import NOTEBOOK_WIDTH, TITLE_SIZE, as_pixels, show_image

CAPTION_SIZE = 8.0  # points
_FRAME = 2.0  # points


def mosaic(tiles: np.ndarray, columns: int, gap: tuple[int, int]) -> np.ndarray:
    """Pictures of one size as one picture, row by row, with white between them.

    Args:
        tiles: (N, h, w, 3) in [0, 1].
        columns: Pictures in a row.
        gap: White rows and columns between neighbours.

    Returns:
        (rows · (h + gap[0]) - gap[0], columns · (w + gap[1]) - gap[1], 3). Tile i begins at row
        ``i // columns * (h + gap[0])`` and column ``i % columns * (w + gap[1])``.
    """
    count, height, width = tiles.shape[:3]
    down, across = height + gap[0], width + gap[1]
    rows = _rows(count, columns)
    canvas = np.ones((rows * down - gap[0], columns * across - gap[1], 3))
    for i, tile in enumerate(tiles):
        y, x = i // columns * down, i % columns * across
        canvas[y : y + height, x : x + width] = tile
    return canvas


def plot_filters(
    weight: Tensor, *, columns: int | None = None, ax: Axes | None = None, title: str | None = None
) -> Axes:
    """The filters of a first convolution as small pictures.

    A filter holds a weight for each colour of each pixel. Grey is weight 0; each filter is scaled on its own, so that
    its largest weight, positive or negative, has full colour.

    Args:
        weight: (F, 3, h, w), red first: ``network.trunk.conv1.weight``.
        columns: Filters in a row; by default about as many as rows.
        ax: Where to draw; by default a new figure.
        title: Title.

    Returns:
        The axes.

    Raises:
        ValueError: Another shape, none, weights that are nan or infinite, or less than one column.
    """
    values = weight.detach().cpu().double().numpy()
    if values.ndim != 4 or values.shape[1] != 3 or 0 in values.shape:
        raise ValueError(f"weight must be (F, 3, h, w), filters that look at colours, not {tuple(weight.shape)}")
    largest = np.abs(values).max(axis=(1, 2, 3), keepdims=True)
    if not np.isfinite(largest).all():
        raise ValueError("weight holds nan or infinity: these are no filters")
    tiles = 0.5 + 0.5 * values / np.where(largest > 0, largest, 1)
    return _show_tiles(tiles.transpose(0, 2, 3, 1), columns, ax, title)


def plot_maps(
    maps: Tensor,
    *,
    columns: int | None = None,
    together: bool = False,
    ax: Axes | None = None,
    title: str | None = None,
) -> Axes:
    """Activation maps of one picture side by side, from black (0) to light yellow (the largest value).

    Args:
        maps: (C, h, w), not negative: behind a ReLU.
        columns: Maps in a row; by default about as many as rows.
        together: Whether all maps share one scale. By default each reaches light yellow, unless it is 0 everywhere.
        ax: Where to draw; by default a new figure.
        title: Title.

    Returns:
        The axes.

    Raises:
        ValueError: Another shape, none, negative values, nan or infinity, or less than one column.
    """
    values = maps.detach().cpu().double().numpy()
    if values.ndim != 3 or 0 in values.shape:
        raise ValueError(f"maps must be (C, h, w), those of one picture, not {tuple(maps.shape)}")
    if not np.isfinite(values).all() or values.min() < 0:
        raise ValueError(f"maps hold values from {values.min():.3g}: show what comes out of a ReLU, which is >= 0")
    largest = values.max() if together else values.max(axis=(1, 2), keepdims=True)
    return _show_tiles(plt.get_cmap("inferno")(_ratio(values, largest))[..., :3], columns, ax, title)


def contact_sheet(
    images: Sequence[Tensor] | Tensor,
    *,
    columns: int = 8,
    labels: Sequence[int | None] | None = None,
    captions: Sequence[str] | None = None,
    boxes: Sequence[Sequence[float] | None] | None = None,
    row_titles: Sequence[str] | None = None,
    ax: Axes | None = None,
    title: str | None = None,
    width: float = NOTEBOOK_WIDTH,
) -> Axes:
    """Many small pictures of one size, row by row on one pair of axes.

    Args:
        images: N pictures of one size, see :func:`show_image` for their forms.
        columns: Pictures in a row.
        labels: A class for each: a frame in its colour, grey for 0 (background) and below; None for no frame.
        captions: A text for each, below it; it may have several lines.
        boxes: For each a box in its own pixels, drawn in white, or None.
        row_titles: A text at the left of each row.
        ax: Where to draw; by default a new figure.
        title: Title.
        width: Width of a new figure in inches.

    Returns:
        The axes. The sheet's coordinates are pixels of the pictures.

    Raises:
        ValueError: No pictures, pictures of several sizes, lists of other lengths, or less than one column.
    """
    tiles = [as_pixels(image) for image in images]
    rows = _rows(len(tiles), columns)
    _check_sheet(tiles, rows, labels=labels, captions=captions, boxes=boxes, row_titles=row_titles)
    height, breadth = tiles[0].shape[:2]
    gap = max(2, round(0.06 * breadth))
    dots = columns * (breadth + gap) / width  # pixels of the pictures that lie in an inch
    lines = max((text.count("\n") + 1 for text in captions or ()), default=0)
    below = gap + math.ceil(1.3 * lines * CAPTION_SIZE / 72 * dots)
    canvas = mosaic(np.stack(tiles), columns, (below, gap))
    canvas = np.pad(canvas, ((gap, below), (gap, gap), (0, 0)), constant_values=1.0)  # the outer frames need room, too
    ax = show_image(canvas, ax=ax or _new_axes(canvas, row_titles, title, width), title=title)
    for i in range(len(tiles)):
        x, y = gap + i % columns * (breadth + gap), gap + i // columns * (height + below)
        if boxes is not None and boxes[i] is not None:
            x1, y1, x2, y2 = (float(edge) for edge in boxes[i])
            draw_box(ax, (x + x1, y + y1, x + x2, y + y2), (1.0, 1.0, 1.0))
        if labels is not None and labels[i] is not None:
            frame = {"fill": False, "edgecolor": class_colour(labels[i]), "linewidth": _FRAME, "zorder": 5}
            ax.add_patch(Rectangle((x - 0.5, y - 0.5), breadth + 1, height + 1, **frame))
        if captions is not None:
            ax.text(
                *(x + breadth / 2, y + height + 0.5 * gap),
                captions[i],
                fontsize=CAPTION_SIZE,
                ha="center",
                va="top",
                parse_math=False,
            )
    if row_titles is not None:
        ax.set_yticks([gap + row * (height + below) + height / 2 for row in range(rows)], row_titles)
        ax.tick_params(length=0, labelsize=TITLE_SIZE)
    return ax


def plot_losses(
    history: Sequence[Mapping[str, float]], *, window: int = 20, ax: Axes | None = None, title: str | None = None
) -> Axes:
    """Losses during training: a thin line for each batch, and a thick one for the mean of the last ones.

    Args:
        history: The losses of each iteration by name, as :func:`minircnn.training.fit` returns them.
        window: Over how many batches the thick line takes the mean (at the beginning, over those that there are).
        ax: Where to draw; by default a new figure.
        title: Title.

    Returns:
        The axes.

    Raises:
        ValueError: No iterations, or a window below 1.
    """
    if not history or window < 1:
        raise ValueError(f"history has {len(history)} iterations, window is {window}: both must be at least 1")
    if ax is None:
        _, ax = plt.subplots(figsize=(6.4, 3.2), layout="constrained")
    for i, name in enumerate(history[0]):
        values = np.array([losses[name] for losses in history])
        sums = np.cumsum(np.concatenate([[0.0], values]))
        end = np.arange(1, len(values) + 1)
        start = np.maximum(end - window, 0)
        ax.plot(end, values, color=f"C{i}", linewidth=0.7, alpha=0.4)
        ax.plot(end, (sums[end] - sums[start]) / (end - start), color=f"C{i}", linewidth=2, label=name)
    ax.set(xlim=(0, len(history)), xlabel="iteration", ylabel="loss")
    ax.set_ylim(bottom=0)
    if title:
        ax.set_title(title, fontsize=TITLE_SIZE)
    ax.grid(color="0.9", linewidth=0.8)
    ax.set_axisbelow(True)
    ax.legend(frameon=False)
    return ax


def _new_axes(canvas: np.ndarray, row_titles: Sequence[str] | None, title: str | None, width: float) -> Axes:
    """Axes that a sheet fills, in a new figure with room for the row titles and the title beside them."""
    # A few per cent wider than the outlines of the letters, and the distance that matplotlib leaves beside ticks.
    long = max(
        (TextPath((0, 0), text, size=TITLE_SIZE).get_extents().width for text in row_titles or () if text), default=0
    )
    beside = (1.05 * long + 8) / 72 if long else 0.0  # inches
    above = (1.3 * TITLE_SIZE * (title.count("\n") + 1) + 6) / 72 if title else 0.0
    sheet = (width - beside) * canvas.shape[0] / canvas.shape[1]
    figure = plt.figure(figsize=(width, sheet + above))
    return figure.add_axes((beside / width, 0, 1 - beside / width, 1))  # show_image puts the slack above the picture


def _show_tiles(tiles: np.ndarray, columns: int | None, ax: Axes | None, title: str | None) -> Axes:
    """(N, h, w, 3) as a mosaic; pixels stay squares with sharp edges."""
    columns = math.ceil(math.sqrt(len(tiles))) if columns is None else min(columns, len(tiles))
    # The same share of a tile whatever its size: sheets of small and of large maps below each other stay in line.
    gap = max(1, round(tiles.shape[2] / 16))
    ax = show_image(mosaic(tiles, columns, (gap, gap)), ax=ax, title=title)
    ax.images[0].set_interpolation("nearest")
    return ax


def _rows(count: int, columns: int) -> int:
    """How many rows ``count`` pictures fill."""
    if columns < 1:
        raise ValueError(f"columns is {columns}: there must be at least 1")
    return math.ceil(count / columns)


def _ratio(values: np.ndarray, largest: np.ndarray) -> np.ndarray:
    """Values as shares of the largest one; 0 where that is 0."""
    return values / np.where(largest > 0, largest, 1)


def _check_sheet(tiles: Sequence[np.ndarray], rows: int, **lists: Sequence[object] | None) -> None:
    if not tiles:
        raise ValueError("no pictures to show: images is empty")
    sizes = sorted({tile.shape[:2] for tile in tiles})
    if len(sizes) > 1:
        raise ValueError(f"images of sizes {sizes[0]} and {sizes[1]}: a sheet needs one size (or use image_grid)")
    for name, values in lists.items():
        wanted = rows if name == "row_titles" else len(tiles)
        if values is not None and len(values) != wanted:
            raise ValueError(f"{len(values)} {name} for {wanted} {'rows' if name == 'row_titles' else 'images'}")
