"""Images with what was found in them: boxes, labels, scores and masks, in one color for each class.

Functions that draw return matplotlib axes, so that you can add to them. Pixel (0, 0) covers the square from (0, 0) to
(1, 1): a box is drawn along the edges of the pixels that it holds. Inputs and matplotlib's settings are not changed,
but for the backend by :func:`draw_png`.

Shape comments: N objects or detections, H W image size.
"""

from __future__ import annotations

import colorsys
import io
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import Normal, Stroke
from matplotlib.textpath import TextPath
from torch import Tensor
from torch.nn.functional import pad

from minircnn.datasets.masks import decode_masks
from minircnn.files import printable
from minircnn.selective_search import shrink
from minircnn.targets import check_classes
from minircnn.transforms import resize

Color = tuple[float, float, float]
Image = np.ndarray | Tensor
Objects = Mapping[str, Any]

TITLE_SIZE = 10.0  # points
NOTEBOOK_WIDTH = 9.0  # inches; about the width of a notebook's text at 100 dots an inch
MASK_OPACITY = 0.45
DPI = 100
GRID_SIDE = 450  # pixels of the longer side of each image of a grid in a file
WIDEST, TALLEST = 8.0, 2.5  # width / height and height / width; beyond it a white margin makes room for labels
CELL_WIDTH = 3.0  # inches at least for each image of a grid
LONGEST_NAME = 32  # letters, which fit above an image of a grid

# The first six belong to Toy Town: the least difference between two of them (CIEDE2000) is as large as we could make it
# under normal sight and under simulated protanopia, deuteranopia and tritanopia (Machado et al. 2009, full severity)
# together, on white paper and on photographs. Each of the others is as far as possible from all before it.
_PALETTE = [
    *("d21414", "5a8bff", "e0b428", "2a7a64", "a2329a", "00ddbe"),  # person, car, cat, tree, house, balloon
    *("ffaabf", "6a5500", "95ea00", "40d4ff", "405580", "ff802a", "ff55ff", "559500", "d4d4ff"),
    *("9580aa", "ff2a80", "956a55", "2a8095", "d4d4aa", "4015ff", "aa0040", "006a00", "95956a"),
]
_GOLDEN = 0.6180339887498949  # multiples of it, modulo 1, never come close to each other soon


def class_color(label: int) -> Color:
    """Color of a class, (red, green, blue) in [0, 1], the same in all figures; the background (0) is gray.

    >>> class_color(0)
    (0.55, 0.55, 0.55)
    """
    label = int(label)
    if label <= 0:
        return (0.55, 0.55, 0.55)
    if label <= len(_PALETTE):
        return to_rgb(f"#{_PALETTE[label - 1]}")
    step = label - len(_PALETTE)
    return colorsys.hsv_to_rgb(step * _GOLDEN % 1, (0.55, 0.8, 1.0)[step % 3], (0.95, 0.75)[step % 2])


def text_color(background: Color) -> str:
    """Black or white, whichever has the higher contrast on a background (WCAG 2.1; always above the 4.5 it asks for).

    >>> text_color((1.0, 1.0, 0.0)), text_color((0.0, 0.0, 0.6))
    ('black', 'white')
    """
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in background]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "black" if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) else "white"


def as_pixels(image: Image) -> np.ndarray:
    """Any usual form of an image as (H, W, 3) floats in [0, 1], always a copy; of what is none, a ValueError.

    It may be a tensor (3, H, W), (1, H, W) or (H, W) in [0, 1], or an array (H, W, 3) or (H, W), floats in [0, 1] or
    uint8.
    """
    pixels = image.detach().cpu().numpy() if isinstance(image, Tensor) else np.asarray(image)
    if isinstance(image, Tensor) and pixels.ndim == 3:
        pixels = pixels.transpose(1, 2, 0)  # (H, W, 3 or 1)
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or 0 in pixels.shape:
        raise ValueError(f"an image of shape {tuple(image.shape)}: give a tensor (3, H, W) or an array (H, W, 3)")
    pixels = pixels / 255.0 if pixels.dtype == np.uint8 else pixels.astype(np.float64)
    low, high = pixels.min(), pixels.max()
    if not (low >= -1e-3 and high <= 1 + 1e-3):
        rule = "they must lie in [0, 1] (undo normalization first)"
        raise ValueError(f"image values from {low:.3g} to {high:.3g}: {rule}")
    return np.broadcast_to(pixels.clip(0, 1), (*pixels.shape[:2], 3)).copy()


def show_image(image: Image, ax: Axes | None = None, title: str | None = None, *, width: float | None = None) -> Axes:
    """An image, in any form that :func:`as_pixels` takes; x runs from 0 to W, y from 0 (top) to H.

    Without axes to draw on it gets a new figure of its proportions, ``width`` inches wide: by default 6, less for tall
    images.
    """
    pixels = as_pixels(image)
    height, breadth = pixels.shape[:2]
    if ax is None:
        return image_grid([image], titles=title and [title], width=width or 6.0 * min(1, breadth / height))[0]
    ax.imshow(pixels, extent=(0, breadth, height, 0))
    ax.set(xlim=(0, breadth), ylim=(height, 0), xticks=[], yticks=[])
    ax.set_anchor("S")  # slack in the layout goes above the image, to its title
    ax.set_autoscale_on(False)
    ax.spines[:].set_visible(False)
    if title:
        ax.set_title(title, fontsize=TITLE_SIZE)
    return ax


def image_grid(
    images: Sequence[Image],
    *,
    titles: Sequence[str] | None = None,
    objects: Sequence[Objects] | None = None,
    classes: Sequence[str] | None = None,
    columns: int | None = None,
    width: float = NOTEBOOK_WIDTH,
    **options: bool,
) -> np.ndarray:
    """Images side by side, which may differ in size, each with its title and objects if given: (N,) array of the axes.

    ``columns`` is how many there are in a row, by default about as many as rows, at most six; ``width`` is that of the
    figure in inches; ``options`` are those of :func:`draw_objects`. Lists of other lengths are a ValueError.
    """
    if len(images) == 0:
        raise ValueError("no images to show: images is empty")
    for name, values in (("titles", titles), ("objects", objects)):
        if values is not None and len(values) != len(images):
            raise ValueError(f"{len(values)} {name} for {len(images)} images: give one for each")
    columns = min(columns or min(6, math.ceil(math.sqrt(len(images)))), len(images))
    rows = math.ceil(len(images) / columns)
    pixels = [as_pixels(image) for image in images]
    shapes = [image.shape[0] / image.shape[1] for image in pixels]
    tallest = [max(shapes[row * columns : (row + 1) * columns]) for row in range(rows)]  # each row as tall as it needs
    font = max(6, min(TITLE_SIZE, 40 / columns))
    lines = max((title.count("\n") + 1 for title in titles or () if title), default=0)
    title_height = (1.3 * font * lines + 6 * (lines > 0)) / 72  # inches, with the distance that matplotlib leaves below
    size = (width, sum(tallest) * width / columns + rows * title_height)
    figure = plt.figure(figsize=size, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, gridspec_kw={"height_ratios": tallest})
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.01)
    axes = grid.ravel()
    for unused in axes[len(images) :]:
        unused.remove()
    for i, image in enumerate(pixels):
        show_image(image, ax=axes[i])
        if titles:
            axes[i].set_title(titles[i], fontsize=font)
        if objects is not None:
            draw_objects(axes[i], objects[i], classes, **options)
    return axes[: len(images)]


def draw_objects(
    ax: Axes,
    objects: Objects,
    classes: Sequence[str] | None = None,
    *,
    boxes: bool = True,
    masks: bool = True,
    names: bool = True,
) -> Axes:
    """Draw objects, or their boxes, masks or names alone, on axes that already show their image.

    The first object of the list lies on top, since detections stand best first. A crowd has a dashed box. ``objects``
    are a target or detections: ``boxes`` (N, 4), ``labels`` (N,) and, where they are there, ``scores`` (N,), ``masks``
    (N, H, W) bool and ``iscrowd`` (N,). What does not fit together, or to the image, is a ValueError.
    """
    found = as_arrays(objects, classes)
    colors = [class_color(label) for label in found["labels"]]
    crowds = found.get("iscrowd", np.zeros(len(colors), dtype=bool))
    if masks and "masks" in found:
        draw_masks(ax, found["masks"], colors)
    if boxes:
        for row in reversed(range(len(colors))):
            draw_box(ax, found["boxes"][row], colors[row], dashed=bool(crowds[row]))
    if names:
        texts = [class_name(label, classes) for label in found["labels"].tolist()]
        texts = [f"{text} (crowd)" if crowd else text for text, crowd in zip(texts, crowds, strict=True)]
        if "scores" in found:
            texts = [f"{text} {score:.2f}" for text, score in zip(texts, found["scores"], strict=True)]
        draw_labels(ax, texts, found["boxes"], colors)
    return ax


def class_name(label: int, classes: Sequence[str] | None) -> str:
    """Name of a label, or its number where it has none."""
    return classes[label] if classes is not None and 0 <= label < len(classes) else f"class {label}"


def as_arrays(objects: Objects, classes: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """The entries of a target or of detections that can be drawn, as arrays of one length; else a ValueError."""
    if classes is not None:
        check_classes(classes)
    keys = [key for key in ("boxes", "labels", "scores", "masks", "iscrowd") if objects.get(key) is not None]
    found = {key: torch.as_tensor(objects[key]).detach().cpu().numpy() for key in keys}
    if "boxes" not in found or "labels" not in found:
        raise ValueError(f"objects need 'boxes' and 'labels'; these have {sorted(map(str, objects))}")
    if "masks" in found and found["masks"].dtype != bool:
        raise ValueError(f"masks must be bool, but are {found['masks'].dtype}; compare probabilities with 0.5 first")
    lengths = {key: len(value) for key, value in found.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"objects of different numbers: {lengths}")
    return found


def draw_box(ax: Axes, box: Sequence[float], color: Color, *, dashed: bool = False) -> None:
    """Draw a box in a color, with a dark rim that sets it off from a background of the same color."""
    x1, y1, x2, y2 = (float(value) for value in box)
    line = 1.2 if _font_size(ax, 1) < 8 else 1.8  # small images have small letters and thin lines
    patch = Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=color, linewidth=line, zorder=4)
    if dashed:
        patch.set_linestyle((0, (4, 2.5)))
    patch.set_path_effects([Stroke(linewidth=line + 1.2, foreground="black", alpha=0.45), Normal()])
    ax.add_patch(patch)


def draw_masks(ax: Axes, masks: np.ndarray, colors: Sequence[Color]) -> None:
    """Draw masks (N, H, W) bool as translucent color with outlines; the first one lies on top."""
    height, width = _image_size(ax)
    if masks.shape[1:] != (height, width):
        raise ValueError(f"masks of size {masks.shape[1:]} for an image of size {(height, width)}")
    overlay = np.zeros((height, width, 4))  # transparent outside of all masks
    for mask, color in reversed(list(zip(masks, colors, strict=True))):
        overlay[mask] = (*color, MASK_OPACITY)
        if not mask.any():
            continue
        # Only the part around the object, with a border of zeros on all sides: contours of whole photographs are slow.
        rows, columns = np.nonzero(mask)
        y1, y2, x1, x2 = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
        part = np.pad(mask[y1:y2, x1:x2].astype(float), 1)
        xs, ys = np.arange(x1 - 1, x2 + 1) + 0.5, np.arange(y1 - 1, y2 + 1) + 0.5  # centers of the pixels
        ax.contour(xs, ys, part, levels=[0.5], colors=[color], linewidths=1.2, zorder=3)
    # "nearest", so that no color bleeds into the pixels beside a mask.
    ax.imshow(overlay, extent=(0, width, height, 0), interpolation="nearest", zorder=2)


def draw_labels(ax: Axes, texts: Sequence[str], boxes: Sequence[Sequence[float]], colors: Sequence[Color]) -> None:
    """Write a text at each box, on its color: within the image, and where it hides least of other texts.

    The first of the texts is the most important: it chooses its place first, and lies on top.
    """
    font, (height, width) = _font_size(ax, len(texts)), _image_size(ax)
    window = ax.get_window_extent()
    # The image keeps its proportions inside the axes, so the tighter side sets how many pixels a point takes.
    point = max(width / window.width, height / window.height) * ax.get_figure().dpi / 72
    pad = 0.2 * font
    taken = np.zeros((0, 4))
    for rank, (text, box, color) in enumerate(zip(texts, boxes, colors, strict=True)):
        # A few per cent wider than the outlines of the letters, since those are hinted when they are drawn.
        plain = text.replace("$", r"\$")  # a class may be called "$5 note"
        long = 1.05 * TextPath((0, 0), plain, size=font).get_extents().width + 2 * pad if text else 0.0
        fit = min(1.0, width / (long * point)) if long else 1.0
        long, tall = long * fit * point, 1.5 * font * fit * point
        place = place_label((long, tall), box, taken, (height, width))
        taken = np.concatenate([taken, place[None]])
        style = {"boxstyle": f"square,pad={pad / font}", "facecolor": color, "edgecolor": "none", "alpha": 0.9}
        x, y = place[0] + pad * point, (place[1] + place[3]) / 2
        words = ax.text(x, y, text, fontsize=font * fit, color=text_color(color), va="center", bbox=style)
        words.set(parse_math=False, zorder=6 - rank / (len(texts) + 1))


def place_label(size: Sequence[float], box: Sequence[float], taken: np.ndarray, image: Sequence[float]) -> np.ndarray:
    """Where a label ``(width, height)`` of a box hides least of those that have a place: its own, ``(4,)``.

    ``taken`` ``(N, 4)`` are their places, ``image`` is ``(height, width)``; a place lies within it as far as it fits.
    """
    (long, tall), (height, width), (x1, y1, x2, y2) = size, image, (float(value) for value in box)
    # Above the box, in its top, below it or at its right.
    wanted = [(x1, y1 - tall), (x1, y1), (x1, y2), (x2 - long, y1 - tall), (x2, y1), (x2 - long, y2)]
    corner = np.clip(wanted, 0, np.maximum((width - long, height - tall), 0))  # (6, 2), pushed into the image
    places = np.concatenate([corner, corner + np.array([long, tall])], axis=1)  # (6, 4)
    shared = np.minimum(places[:, None, 2:], taken[:, 2:]) - np.maximum(places[:, None, :2], taken[:, :2])
    hidden = shared.clip(min=0).prod(axis=-1).sum(axis=1)  # (6,) square pixels of other texts
    # One that is pushed up or down covers the edge of its box.
    return places[np.argmin(hidden + 0.01 * np.abs(corner - wanted)[:, 1])]


def _image_size(ax: Axes) -> tuple[int, int]:
    """(height, width) of the image that the axes show."""
    return int(ax.get_ylim()[0]), int(ax.get_xlim()[1])


def _font_size(ax: Axes, count: int) -> float:
    """Points for labels, by the width in inches at which the image is seen; more than twelve labels are smaller."""
    width = ax.get_window_extent().width / ax.get_figure().dpi
    return float(np.clip((4.5 + width) * (0.8 if count > 12 else 1), 6, 10))


# --------------------------------------------------------------------------------------------------------------- files


def render_png(figure: Figure, dpi: int = DPI) -> bytes:
    """A figure as PNG of its own size, on white, whatever the reader's matplotlib settings are; it names its maker."""
    buffer = io.BytesIO()
    # rc_context restores the settings: "tight" would make the size of the image depend on the length of its texts.
    with plt.rc_context({"savefig.bbox": None}):
        figure.savefig(buffer, format="png", dpi=dpi, facecolor="white", metadata={"Software": "minircnn"})
    return buffer.getvalue()


@dataclass(frozen=True)
class Drawing:
    """An image that is ready to be drawn: ``pixels`` (h, w, 3) uint8, and detections or a target in these pixels."""

    pixels: np.ndarray
    found: dict[str, Any]


def make_drawing(image: Tensor, found: Objects, longest_side: int) -> Drawing:
    """Shrink a large image (3, H, W) in [0, 1] together with what was found; a very slim one gets a margin.

    ``found`` are detections or a target in its pixels, with masks (N, H, W) bool or run-length encoded;
    ``longest_side`` is that of the shrunk image, in pixels.
    """
    height, width = image.shape[1:]
    pixels = (255 * shrink(image, longest_side)).round().astype(np.uint8)  # (h, w, 3)
    h, w = pixels.shape[:2]
    found = {**found, "boxes": found["boxes"] * found["boxes"].new_tensor([w / width, h / height] * 2)}
    below, right = max(0, math.ceil(w / WIDEST) - h), max(0, math.ceil(h / TALLEST) - w)
    pixels = np.pad(pixels, ((0, below), (0, right), (0, 0)), constant_values=255)
    if "masks" in found:
        shrunk = torch.zeros(len(found["masks"]), h, w, dtype=torch.bool)
        for own, mask in zip(shrunk, found["masks"], strict=True):  # of a large image only one lies in memory at a time
            mask = mask[None] if isinstance(mask, Tensor) else decode_masks([mask], (height, width))
            own[:] = resize(mask.bool(), (h, w))[0]
        found["masks"] = pad(shrunk, (0, right, 0, below))
    return Drawing(pixels, found)


def draw_png(
    drawings: Sequence[Drawing], classes: Sequence[str], titles: Sequence[str] | None, dpi: int = DPI, **options: float
) -> bytes:
    """A PNG of an :func:`image_grid`, drawn without a window; of titles that are too long the beginning is left out."""
    matplotlib.use("Agg")
    columns = options.pop("columns", min(6, math.ceil(math.sqrt(len(drawings)))))
    options = {"columns": columns, "width": max(9.0, CELL_WIDTH * columns), **options}
    titles, objects = titles and [_title(title) for title in titles], [drawing.found for drawing in drawings]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # letters that the font lacks become boxes
        pixels = [drawing.pixels for drawing in drawings]
        figure = image_grid(pixels, titles=titles, objects=objects, classes=classes, **options)[0].get_figure()
        png = render_png(figure, dpi)
    plt.close(figure)
    return png


def _title(text: str) -> str:
    first, newline, rest = text.partition("\n")
    first = printable(first)
    first = first if len(first) <= LONGEST_NAME else f"…{first[1 - LONGEST_NAME :]}"
    return f"{first}{newline}{rest}".replace("$", r"\$")  # otherwise matplotlib takes it for a formula
