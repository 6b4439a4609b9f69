"""A figure as the output of a notebook cell, with a text for those who cannot see it."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from PIL import Image

from minircnn.plotting import render_png

DPI = 150
SHOWN_DPI = 100  # by which the page makes it as wide as its text; the rest are finer dots on a dense screen
SMOOTH = 3.0  # an image enlarged less, on a screen of SHOWN_DPI, has no visible squares as pixels, nor on a denser one
HEAVY = 100_000  # bytes. A stored notebook has to stay below 2 MB


def show(figure: Axes | Figure | Iterable[Axes], alt: str) -> None:
    """Show a figure, or the one that some axes belong to, in the notebook, once, and close it.

    The cell's output holds the image in full color, with the alt text in its metadata, and the alt text again as the
    plain-text form, which nbval compares, as it does not compare images: state in it the facts that the image shows.
    nbconvert 7 writes the text of the metadata into pages of its classic template, for screen readers (``jupyter
    nbconvert --to html --template classic``). Its default template, lab, has no place for it and says of every image
    that it has no description; so do JupyterLab and GitHub not use it. Outside of a notebook the text is printed.
    """
    if not isinstance(alt, str) or not alt.strip():
        raise ValueError("alt is empty: say in a sentence what the image shows")
    owners = {axes if isinstance(axes, Figure) else axes.get_figure() for axes in np.ravel(np.asarray(figure, object))}
    if len(owners) != 1:
        raise ValueError(f"the axes belong to {len(owners)} figures: show each figure by itself")
    (owner,) = owners
    owner.draw_without_rendering()  # so that the layout is known
    for image in owner.findobj(AxesImage):
        if image.get_interpolation() == "auto" and image.get_window_extent().width < SMOOTH * image.get_size()[1]:
            image.set_interpolation("hanning")
    kind, data = encode(render_png(owner, DPI))
    width = round(SHOWN_DPI * owner.get_figwidth())
    plt.close(owner)
    publish({kind: data, "text/plain": alt}, {kind: {"alt": alt, "width": width}})


def encode(png: bytes) -> tuple[str, bytes]:
    """The kind of file that suits an image, and the file: JPEG where a PNG is heavy and far larger, as photographs are.

    A drawing stays PNG, whose edges are exact; in JPEG each pixel keeps a color of its own, so letters stay sharp.
    """
    if len(png) <= HEAVY:
        return "image/png", png
    buffer = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").save(
        buffer, format="jpeg", quality=85, subsampling=0, optimize=True, progressive=True
    )
    jpeg = buffer.getvalue()
    return ("image/jpeg", jpeg) if len(jpeg) < 0.8 * len(png) else ("image/png", png)


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
