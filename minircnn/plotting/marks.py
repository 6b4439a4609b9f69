"""The marks on a picture: boxes, masks, outlines, and labels that find room for themselves.

Positions are in pixels of the picture, (0, 0) being the outer corner of the first pixel. Sizes of lines and of text are
in points, so that they look the same whatever number of pixels the picture has.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.patheffects import Normal, Stroke
from matplotlib.textpath import TextPath

from minircnn.plotting.colours import Colour, text_colour

MASK_OPACITY = 0.45
CROWDED = 12  # with more labels than this, they are written smaller


def picture_size(ax: Axes) -> tuple[int, int]:
    """(height, width) of the picture that the axes show."""
    return int(ax.get_ylim()[0]), int(ax.get_xlim()[1])


def draw_box(ax: Axes, box: Sequence[float], colour: Colour, *, dashed: bool = False) -> None:
    """A box in a colour, with a dark rim that sets it off from a background of the same colour."""
    x1, y1, x2, y2 = (float(value) for value in box)
    small_picture = _font_size(ax, 1) < 8
    line = 1.2 if small_picture else 1.8
    patch = Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=colour, linewidth=line, zorder=4)
    if dashed:
        patch.set_linestyle((0, (4, 2.5)))
    patch.set_path_effects([Stroke(linewidth=line + 1.2, foreground="black", alpha=0.45), Normal()])
    ax.add_patch(patch)


def draw_masks(ax: Axes, masks: np.ndarray, colours: Sequence[Colour]) -> None:
    """Masks (N, H, W) as translucent colour with outlines; the first one lies on top."""
    height, width = picture_size(ax)
    overlay = np.zeros((height, width, 4))  # transparent outside of all masks
    for mask, colour in reversed(list(zip(masks, colours, strict=True))):
        overlay[mask] = (*colour, MASK_OPACITY)
        _draw_outline(ax, mask, colour)
    # "nearest", so that no colour bleeds into the pixels beside a mask.
    ax.imshow(overlay, extent=(0, width, height, 0), interpolation="nearest", zorder=2)


def _draw_outline(ax: Axes, mask: np.ndarray, colour: Colour) -> None:
    """A line around a mask, also along the edge of the picture."""
    rows, columns = np.nonzero(mask)
    if len(rows) == 0:
        return
    # Only the part around the object, with a border of zeros on all sides: contours are slow on whole photographs.
    y1, y2, x1, x2 = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
    part = np.pad(mask[y1:y2, x1:x2].astype(float), 1)
    xs, ys = np.arange(x1 - 1, x2 + 1) + 0.5, np.arange(y1 - 1, y2 + 1) + 0.5  # centres of the pixels
    ax.contour(xs, ys, part, levels=[0.5], colors=[colour], linewidths=1.2, zorder=3)


def draw_labels(ax: Axes, texts: Sequence[str], boxes: Sequence[Sequence[float]], colours: Sequence[Colour]) -> None:
    """A text at each box, on the colour of its class: where it hides no other text, and within the picture.

    Args:
        ax: Axes that show the picture.
        texts: One for each box, the most important first: it chooses its place first, and lies on top.
        boxes: Corners x1, y1, x2, y2.
        colours: One for each box.
    """
    font, (height, width) = _font_size(ax, len(texts)), picture_size(ax)
    window = ax.get_window_extent()
    # The picture keeps its proportions inside the axes, so the tighter side sets how many pixels a point takes.
    point = max(width / window.width, height / window.height) * ax.get_figure().dpi / 72
    pad = 0.2 * font
    taken: list[tuple[float, float, float, float]] = []
    for rank, (text, box, colour) in enumerate(zip(texts, boxes, colours, strict=True)):
        # A few per cent wider than the outlines of the letters, since those are hinted when they are drawn.
        plain = text.replace("$", r"\$")  # a class may be called "$5 note"
        long = 1.05 * TextPath((0, 0), plain, size=font).get_extents().width + 2 * pad if text else 0.0
        fit = min(1.0, width / (long * point)) if long else 1.0
        place = _find_place(box, (1.5 * font * fit * point, long * fit * point), (height, width), taken)
        taken.append(place)
        ax.text(
            place[0] + pad * point,
            (place[1] + place[3]) / 2,
            text,
            fontsize=font * fit,
            color=text_colour(colour),
            va="center",
            parse_math=False,
            bbox={"boxstyle": f"square,pad={pad / font}", "facecolor": colour, "edgecolor": "none", "alpha": 0.9},
            zorder=6 - rank / (len(texts) + 1),
        )


def _find_place(
    box: Sequence[float],
    label_size: tuple[float, float],
    size: tuple[int, int],
    taken: Sequence[tuple[float, float, float, float]],
) -> tuple[float, float, float, float]:
    """A label's place: above its box, in its top, below it or at its right; where it hides least of other labels."""
    (tall, long), (height, width) = label_size, size
    x1, y1, x2, y2 = (float(value) for value in box)
    corners = [(x1, y1 - tall), (x1, y1), (x1, y2), (x2 - long, y1 - tall), (x2, y1), (x2 - long, y2)]
    best, least = None, np.inf
    for left, top in corners:
        moved = max(0.0, -top) + max(0.0, top + tall - height)  # pushed into the picture: it would cover the box's edge
        left, top = max(0.0, min(left, width - long)), max(0.0, min(top, height - tall))
        place = (left, top, left + long, top + tall)
        hidden = sum(_overlap(place, other) for other in taken) + 0.01 * moved
        if hidden < least:
            best, least = place, hidden
    return best


def _overlap(a: Sequence[float], b: Sequence[float]) -> float:
    """Area that two rectangles share."""
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def _font_size(ax: Axes, count: int) -> float:
    """Points for labels, by the width at which the picture is seen and by their number."""
    width = ax.get_window_extent().width / ax.get_figure().dpi  # inches
    return float(np.clip((4.5 + width) * (0.8 if count > CROWDED else 1), 6, 10))
