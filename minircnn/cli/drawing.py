"""Pictures with what was found in them, as PNG files. How pictures are drawn is said in minircnn/plotting."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from minircnn.files import printable

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure
    from torch import Tensor

LONGEST_SIDE = 1000  # pixels; a larger picture is shrunk before it is drawn
GRID_SIDE = 450  # the same for each picture of a grid
WIDEST, TALLEST = 8.0, 2.5  # width / height and height / width; beyond it a white margin makes room for labels
CELL_WIDTH = 3.0  # inches at least for each picture of a grid
LONGEST_NAME = 32  # letters, which fit above a picture of a grid


@dataclass(frozen=True)
class Drawing:
    """A picture that is ready to be drawn.

    Attributes:
        path: its file.
        pixels: ``(h, w, 3)`` uint8.
        found: detections, ``boxes`` and ``masks`` in pixels of this.
    """

    path: Path
    pixels: np.ndarray
    found: dict[str, Tensor]


def make_drawing(path: Path, image: Tensor, found: dict[str, Tensor], longest_side: int) -> Drawing:
    """Shrinks a large picture together with what was found, and gives a very slim one a margin at the right or below.

    Args:
        path: its file.
        image: ``(3, H, W)`` in [0, 1].
        found: detections in pixels of ``image``; masks ``(N, H, W)`` bool, or run-length encoded.
        longest_side: of the shrunk picture, in pixels.
    """
    import numpy as np
    import torch
    from torch.nn.functional import pad

    from minircnn.datasets.coco import decode_masks
    from minircnn.selective_search import shrink
    from minircnn.transforms import resize_masks

    height, width = image.shape[1:]
    pixels = (255 * shrink(image, longest_side)).round().astype(np.uint8)  # (h, w, 3)
    h, w = pixels.shape[:2]
    found = {**found, "boxes": found["boxes"] * found["boxes"].new_tensor([w / width, h / height] * 2)}
    below, right = max(0, math.ceil(w / WIDEST) - h), max(0, math.ceil(h / TALLEST) - w)
    pixels = np.pad(pixels, ((0, below), (0, right), (0, 0)), constant_values=255)
    if "masks" in found:
        shrunk = torch.zeros(len(found["masks"]), h, w, dtype=torch.bool)
        for own, mask in zip(shrunk, found["masks"], strict=True):  # of a large image only one lies in memory at a time
            mask = mask[None] if isinstance(mask, torch.Tensor) else decode_masks([mask], (height, width))
            own[:] = resize_masks(mask, (h, w))[0]
        found["masks"] = pad(shrunk, (0, right, 0, below))
    return Drawing(path, pixels, found)


def draw_one(drawing: Drawing, classes: Sequence[str]) -> bytes:
    """A PNG of about the picture's own size, at least 600 and at most 1000 pixels long."""
    from minircnn.plotting import plot_detections

    height, width = drawing.pixels.shape[:2]
    inches = min(max(max(height, width) / 100, 6.0), 10.0) * min(1.0, width / height)
    title = None if len(drawing.found["boxes"]) else "nothing found"
    with _quiet_matplotlib():
        return _finish(plot_detections(drawing.pixels, drawing.found, classes, title=title, width=inches).get_figure())


def draw_grid(drawings: Sequence[Drawing], classes: Sequence[str]) -> bytes:
    """A PNG of all pictures side by side, each below its name."""
    from minircnn.plotting import image_grid

    columns = min(6, math.ceil(math.sqrt(len(drawings))))
    with _quiet_matplotlib():
        axes = image_grid(
            [drawing.pixels for drawing in drawings],
            titles=titles_of(drawings),
            objects=[drawing.found for drawing in drawings],
            classes=classes,
            columns=columns,
            width=max(9.0, CELL_WIDTH * columns),
        )
        return _finish(axes[0].get_figure())


def titles_of(drawings: Sequence[Drawing]) -> list[str]:
    """The names of the files, with the folder where a name comes twice; what is too long loses its beginning."""
    names = [drawing.path.name for drawing in drawings]
    titles = []
    for drawing, name in zip(drawings, names, strict=True):
        title = printable(name if names.count(name) == 1 else drawing.path)
        title = title if len(title) <= LONGEST_NAME else f"…{title[1 - LONGEST_NAME :]}"
        title = title.replace("$", r"\$")  # otherwise matplotlib takes it for a formula
        titles.append(title if len(drawing.found["boxes"]) else f"{title}\nnothing found")
    return titles


def _finish(figure: Figure) -> bytes:
    import matplotlib.pyplot as plt

    from minircnn.plotting import render_png

    try:
        return render_png(figure)
    finally:
        plt.close(figure)


@contextmanager
def _quiet_matplotlib() -> Iterator[None]:
    """No windows, and no words about letters that its font does not have: they become empty boxes."""
    import matplotlib

    matplotlib.use("Agg")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")
        yield
