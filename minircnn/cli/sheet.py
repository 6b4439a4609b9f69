"""A contact sheet: pictures of a data set with their objects, side by side in one PNG."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from minircnn.cli.drawing import GRID_SIDE, LONGEST_NAME, Drawing, make_drawing
from minircnn.files import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import Tensor

MOST_COLUMNS = 4
CELL = 3.5  # inches; narrower pictures have no room for the names of their objects
MOST_NAMES = 20  # of more objects in a picture the names would hide the objects


def draw_sheet(data: Any, indices: Sequence[int]) -> bytes:  # noqa: ANN401 - one of our data sets
    """A PNG of some pictures with boxes, masks and names; crowds and difficult objects have a dashed box.

    Where a picture shows very many objects, or a data set has one class only, the title counts them instead of names
    beside each.

    Args:
        data: A data set such as :class:`~minircnn.datasets.CocoDataset`.
        indices: Of the pictures, at least one.
    """
    import matplotlib

    matplotlib.use("Agg")  # no windows
    import matplotlib.pyplot as plt

    from minircnn.plotting import draw_objects, image_grid, render_png

    # Shrunk one by one: whole photographs with many masks would fill the memory.
    drawings = [_shrunk(data, index) for index in indices]
    columns = min(MOST_COLUMNS, math.ceil(math.sqrt(len(drawings))))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # letters that the font lacks become boxes
        titles = [_title(drawing, data.classes) for drawing in drawings]
        axes = image_grid(
            [drawing.pixels for drawing in drawings], titles=titles, columns=columns, width=max(9.0, CELL * columns)
        )
        figure = axes[0].get_figure()
        try:
            figure.canvas.draw()  # once, so that labels know how large the pictures have become
            for ax, drawing in zip(axes, drawings, strict=True):
                draw_objects(ax, drawing.found, data.classes, names=False)
                _draw_names(ax, drawing.found, data.classes)
            return render_png(figure)
        finally:
            plt.close(figure)


def _shrunk(data: Any, index: int) -> Drawing:  # noqa: ANN401
    return make_drawing(data.image_path(index), data.load_image(index), data.load_target(index), GRID_SIDE)


def _draw_names(ax: Axes, found: dict[str, Tensor], classes: Sequence[str]) -> None:
    """The class of each object, and whether it is a crowd or difficult, unless there would be no end of names."""
    from minircnn.plotting import class_color, draw_labels

    labels = found["labels"].tolist()
    if len(classes) == 2 or len(labels) > MOST_NAMES:
        return
    marks = [(" (difficult)", found.get("difficult")), (" (crowd)", found["iscrowd"])]
    texts = []
    for row, label in enumerate(labels):
        of_row = [mark for mark, flags in marks if flags is not None and flags[row]]
        texts.append(classes[label] + (of_row[0] if of_row else ""))
    draw_labels(ax, texts, found["boxes"].tolist(), [class_color(label) for label in labels])


def _title(drawing: Drawing, classes: Sequence[str]) -> str:
    """The name of the file, and below it how many objects there are; what is too long loses its beginning."""
    name = printable(drawing.path.name)
    name = name if len(name) <= LONGEST_NAME else f"…{name[1 - LONGEST_NAME :]}"
    count = len(drawing.found["labels"])
    what = f"{classes[1]}: {count}" if len(classes) == 2 else f"{count or 'no'} object{'s' * (count != 1)}"
    return f"{name}\n{what}".replace("$", r"\$")  # otherwise matplotlib takes it for a formula
