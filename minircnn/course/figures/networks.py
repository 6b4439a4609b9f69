"""What a network has learned and what it sees: filters, activations, sheets of small images.

Shape comments: N images, F filters, C channels, h w size of an image, a map or a filter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.textpath import TextPath
from torch import Tensor

from minircnn.plotting import NOTEBOOK_WIDTH, TITLE_SIZE, as_pixels, class_color, draw_box, show_image

CAPTION_SIZE = 8.0  # points
_FRAME = 2.0  # points


def mosaic(tiles: np.ndarray, columns: int, gap: tuple[int, int]) -> np.ndarray:
    """Images of one size as one image, row by row, with white between them.

    Args:
        tiles: (N, h, w, 3) in [0, 1].
        columns: Images in a row.
        gap: White rows and columns between neighbors.

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
    """The filters of a first convolution as small images.

    A filter holds a weight for each color of each pixel. Gray is weight 0; each filter is scaled on its own, so that
    its largest weight, positive or negative, has full color.

    Args:
        weight: (F, 3, h, w), red first: ``network.backbone.conv1.weight``.
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
        raise ValueError(f"weight must be (F, 3, h, w), filters that look at colors, not {tuple(weight.shape)}")
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
    """Activation maps of one image side by side, from black (0) to light yellow (the largest value).

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
        raise ValueError(f"maps must be (C, h, w), those of one image, not {tuple(maps.shape)}")
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
    """Many small images of one size, row by row on one pair of axes.

    Args:
        images: N images of one size, see :func:`show_image` for their forms.
        columns: Images in a row.
        labels: A class for each: a frame in its color, gray for 0 (background) and below; None for no frame.
        captions: A text for each, below it; it may have several lines.
        boxes: For each a box in its own pixels, drawn in white, or None.
        row_titles: A text at the left of each row.
        ax: Where to draw; by default a new figure.
        title: Title.
        width: Width of a new figure in inches.

    Returns:
        The axes. The sheet's coordinates are pixels of the images.

    Raises:
        ValueError: No images, images of several sizes, lists of other lengths, or less than one column.
    """
    tiles = [as_pixels(image) for image in images]
    rows = _rows(len(tiles), columns)
    _check_sheet(tiles, rows, labels=labels, captions=captions, boxes=boxes, row_titles=row_titles)
    height, breadth = tiles[0].shape[:2]
    gap = max(2, round(0.06 * breadth))
    dots = columns * (breadth + gap) / width  # pixels of the images that lie in an inch
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
            frame = {"fill": False, "edgecolor": class_color(labels[i]), "linewidth": _FRAME, "zorder": 5}
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
    return figure.add_axes((beside / width, 0, 1 - beside / width, 1))  # show_image puts the slack above the image


def _show_tiles(tiles: np.ndarray, columns: int | None, ax: Axes | None, title: str | None) -> Axes:
    """(N, h, w, 3) as a mosaic; pixels stay squares with sharp edges."""
    columns = math.ceil(math.sqrt(len(tiles))) if columns is None else min(columns, len(tiles))
    # The same share of a tile whatever its size: sheets of small and of large maps below each other stay in line.
    gap = max(1, round(tiles.shape[2] / 16))
    ax = show_image(mosaic(tiles, columns, (gap, gap)), ax=ax, title=title)
    ax.images[0].set_interpolation("nearest")
    return ax


def _rows(count: int, columns: int) -> int:
    """How many rows ``count`` images fill."""
    if columns < 1:
        raise ValueError(f"columns is {columns}: there must be at least 1")
    return math.ceil(count / columns)


def _ratio(values: np.ndarray, largest: np.ndarray) -> np.ndarray:
    """Values as shares of the largest one; 0 where that is 0."""
    return values / np.where(largest > 0, largest, 1)


def _check_sheet(tiles: Sequence[np.ndarray], rows: int, **lists: Sequence[object] | None) -> None:
    if not tiles:
        raise ValueError("no images to show: images is empty")
    sizes = sorted({tile.shape[:2] for tile in tiles})
    if len(sizes) > 1:
        raise ValueError(f"images of sizes {sizes[0]} and {sizes[1]}: a sheet needs one size (or use image_grid)")
    for name, values in lists.items():
        wanted = rows if name == "row_titles" else len(tiles)
        if values is not None and len(values) != wanted:
            raise ValueError(f"{len(values)} {name} for {wanted} {'rows' if name == 'row_titles' else 'images'}")
