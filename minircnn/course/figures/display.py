"""A figure as the output of a notebook cell, with a text for those who cannot see it."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from minircnn.plotting import render_png

LIGHT = 60_000  # bytes; a lighter image is not worth touching
# Two images look alike while in 99 of 100 blocks of 4×4 pixels the mean color, which is what the eye takes for the
# color of a place, differs by no more than this, of 255. (Dithering spreads its error within such a block.)
ALIKE = 8.0


def show(figure: Axes | Figure | Iterable[Axes], alt: str) -> None:
    """Show a figure in the notebook, once, and close it.

    The cell's output holds the image, with the alt text in its metadata, and the alt text again as the plain-text
    form. nbconvert's classic template writes the one in the metadata into its pages for screen readers (``jupyter
    nbconvert --to html --template classic``); its default template, lab, does not, and says of every image that it
    has no description. nbval compares the plain text and not the image, so state in it the facts that the image
    shows. Outside of a notebook the alt text is printed.

    Args:
        figure: A figure, axes of it, or several axes of one figure, as :func:`image_grid` returns them.
        alt: What can be seen, in a sentence or two.

    Raises:
        ValueError: The alt text is empty.
    """
    if not isinstance(alt, str) or not alt.strip():
        raise ValueError("alt is empty: say in a sentence what the image shows")
    owner = _figure_of(figure)
    png = compress_png(render_png(owner))
    plt.close(owner)
    publish({"image/png": png, "text/plain": alt}, {"image/png": {"alt": alt}})


def publish(data: dict[str, Any], metadata: dict[str, Any]) -> None:
    """Hand an image to the running notebook; print its text where there is none."""
    try:
        from IPython import get_ipython
        from IPython.display import publish_display_data
    except ImportError:  # the course extra is not installed: a script uses minircnn as a library
        print(data["text/plain"])
        return
    if get_ipython() is None:
        print(data["text/plain"])
    else:
        publish_display_data(data, metadata)


def compress_png(png: bytes) -> bytes:
    """The same image in 256 colors, if that is smaller and looks alike; else as it was.

    A stored notebook has to stay below 2 MB, and a photograph in 256 colors takes about a third of its full size.

    Args:
        png: A PNG file.

    Returns:
        A PNG file of the same size in pixels, not longer than the given one.
    """
    if len(png) <= LIGHT:
        return png
    with Image.open(io.BytesIO(png)) as file:
        full = file.convert("RGB")
    few = _to_256_colors(full)
    if _difference(full, few.convert("RGB")) > ALIKE:
        return png
    buffer = io.BytesIO()
    few.save(buffer, format="png", compress_level=9)
    return min(png, buffer.getvalue(), key=len)


def _to_256_colors(image: Image.Image) -> Image.Image:
    """With a palette of its own, dithered. Pillow dithers only with a palette that it is given, hence in two steps."""
    # Every ninth pixel knows the colors well enough, in a tenth of the time.
    sample = image.resize((max(1, image.width // 3), max(1, image.height // 3)), Image.Resampling.NEAREST)
    colors = sample.quantize(255, method=Image.Quantize.MAXCOVERAGE).getpalette()[: 255 * 3]
    palette = Image.new("P", (1, 1))
    palette.putpalette([*colors, 255, 255, 255])  # the paper has to stay white
    return image.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)


def _difference(a: Image.Image, b: Image.Image) -> float:
    """By how much blocks of 4×4 pixels differ in their worst channel, of 255, all but one of a hundred blocks."""
    first, second = (np.asarray(image.reduce(4), dtype=np.float32) for image in (a, b))
    return float(np.percentile(np.abs(first - second).max(axis=-1), 99))


def _figure_of(figure: Axes | Figure | Iterable[Axes]) -> Figure:
    """The figure itself, or the one that axes belong to."""
    if isinstance(figure, Figure):
        return figure
    if isinstance(figure, Axes):
        return figure.get_figure()
    owners = {id(axes.get_figure()): axes.get_figure() for axes in np.asarray(figure, dtype=object).ravel()}
    if len(owners) != 1:
        raise ValueError(f"the axes belong to {len(owners)} figures: show each figure by itself")
    return next(iter(owners.values()))
