"""What the figures of the history show, read back from the axes."""

import pytest
from matplotlib.colors import to_hex

from minircnn.course.figures.history import STAGE_COLORS, Row, plot_history


def bars(ax):
    """(row, color, left, right) of every bar, from the top."""
    for patch in ax.patches:
        (left, top), (right, bottom) = patch.get_bbox().get_points().tolist()
        yield (top + bottom) / 2, to_hex(patch.get_facecolor()), left, right


def texts(ax):
    return [text.get_text() for text in ax.texts]


ROWS = [
    Row("A", 0.5, None, [{"selective search": 750.0, "heads": 240.0}], [1000.0]),
    Row("B", 0.75, 0.25, [{"convolutions": 10.0, "selection": 1.5, "masks": 8.5}], [20.0]),
]


def test_bars_of_accuracy_and_of_time():
    """20 of 1000 ms are 2 percent. 750 and 240 fill a bar at 750 / 990; numbers are percent of the total."""
    figure = plot_history(ROWS, ["T"])
    ax, times = figure.axes
    rows = list(bars(ax))
    assert [(left, right) for _, _, left, right in rows] == [(0, 50), (0, 75), (0, 25)]
    assert texts(ax) == ["50", "75 boxes", "25 masks"]
    assert rows[2][1] == STAGE_COLORS["masks"] != rows[1][1]
    assert times.get_xscale() == "linear" and times.get_xlim()[0] == 0
    first, search, heads, second, convolutions, selection, masks = bars(times)
    assert first[1:] == ("#4d4d4d", 0, 100) and second[1:] == ("#4d4d4d", 0, pytest.approx(2))
    assert search[1:] == (STAGE_COLORS["selective search"], 0, pytest.approx(100 * 750 / 990))
    assert heads[1:] == (STAGE_COLORS["heads"], pytest.approx(100 * 750 / 990), pytest.approx(100))
    assert convolutions[1:] == (STAGE_COLORS["convolutions"], 0, pytest.approx(50))
    assert selection[1:] == (STAGE_COLORS["selection"], pytest.approx(50), pytest.approx(57.5))
    assert masks[1:] == (STAGE_COLORS["masks"], pytest.approx(57.5), pytest.approx(100))
    assert first[0] < 0 < search[0] == heads[0] < 0.5 < second[0] < 1 < masks[0], "the time above its stages"
    assert texts(times) == ["1 s", "75", "24", "20 ms", "50", "42"], "7.5 percent have no room for a number"
