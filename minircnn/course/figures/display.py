"""A figure as the output of a notebook cell, with a text for those who cannot see it."""

import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from PIL import Image
from torch import Tensor

from minircnn.plotting import render_png

# What figures are given
Names, Curves = Sequence[str], Mapping[str, Sequence[float]]
Target, Box = Mapping[str, Tensor], Tensor | Sequence[float]

DPI = 150
SHOWN_DPI = 100  # by which the page makes it as wide as its text; the rest are finer dots on a dense screen
SMOOTH = 3.0  # an image enlarged less, on a screen of SHOWN_DPI, has no visible squares as pixels, nor on a denser one
HEAVY = 100_000  # bytes of a PNG; a stored notebook has to stay below 2 MB


def show(figure: Axes | Figure | Iterable[Axes], alt: str) -> None:
    """Show a figure, or the one that some axes belong to, in the notebook, once, and close it.

    The cell's output holds the image in full color, with the alt text in its metadata, which nbconvert's classic
    template hands on to screen readers (its template lab, JupyterLab and GitHub do not), and the alt text again as the
    plain-text form, which nbval compares: state in it the facts that the image shows. Elsewhere it is printed.
    """
    if not isinstance(alt, str) or not alt.strip():
        raise ValueError("alt is empty: say in a sentence what the image shows")
    owners = {axes if isinstance(axes, Figure) else axes.get_figure() for axes in np.ravel(np.asarray(figure, object))}
    if len(owners) != 1:
        raise ValueError(f"the axes belong to {len(owners)} figures: show each figure by itself")
    (owner,) = owners
    owner.draw_without_rendering()  # so that the layout is known
    images = owner.findobj(AxesImage)
    for image in images:
        if image.get_interpolation() == "auto" and image.get_window_extent().width < SMOOTH * image.get_size()[1]:
            image.set_interpolation("hanning")
    kind, data = encode(render_png(owner, DPI), photographs=bool(images))
    width = round(SHOWN_DPI * owner.get_figwidth())
    plt.close(owner)
    publish({kind: data, "text/plain": alt}, {kind: {"alt": alt, "width": width}})


def encode(png: bytes, photographs: bool) -> tuple[str, bytes]:
    """The kind of file for a figure, and the file: JPEG where there are images in it, a PNG is heavy and JPEG is not.

    Lines and letters on white stay PNG, whose edges are exact. In this JPEG each pixel keeps a color of its own, so
    letters stay sharp in it, too.
    """
    files = {}
    with Image.open(io.BytesIO(png)) as file:
        pixels = file.convert("RGB")
    for kind, options in (("png", {}), ("jpeg", {"quality": 85, "subsampling": 0, "progressive": True})):
        buffer = io.BytesIO()
        pixels.save(buffer, format=kind, optimize=True, **options)
        files[kind] = buffer.getvalue()
    heavy = len(files["png"]) > max(HEAVY, 1.1 * len(files["jpeg"]))
    best = "jpeg" if photographs and heavy else "png"
    return f"image/{best}", files[best]


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
