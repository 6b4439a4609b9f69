"""What the course draws against what was given: regions, cells, bins, filters, maps, losses, bars."""

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from matplotlib.collections import PathCollection
from matplotlib.colors import to_hex
from matplotlib.patches import FancyBboxPatch

from minircnn.course import figures as plotting
from minircnn.course.figures import panels
from minircnn.course.figures.charts import mosaic
from minircnn.course.figures.history import STAGE_COLORS, Row, plot_history
from tests.test_plotting import square, texts

# An image of 40 by 60 pixels (height, width) on a map of 5 by 12 cells: 5 pixels a cell across, 8 down.
SIZE, CELLS = (40, 60), (5, 12)
REGION = (11.0, 9.0, 38.0, 29.0)  # cells 2.2, 1.125, 7.6, 3.625: RoIPool rounds to 2, 1, 8, 4 and takes the last ones
POOLED = [2, 1, 9, 5]  # in cells, half open
STRIDE = np.array([5, 8, 5, 8])


def drawn_boxes(ax):
    """x1, y1, x2, y2 of each rectangle, by its label."""
    return {patch.get_label(): patch.get_bbox().extents.tolist() for patch in ax.patches}


def points(ax):
    (dots,) = (c for c in ax.collections if isinstance(c, PathCollection))
    return np.asarray(dots.get_offsets())


def test_a_region_on_an_image_and_on_its_map():
    """Rows and columns have strides of their own."""
    image = square(*SIZE)
    first, second = plotting.plot_misalignment(image, REGION, CELLS)
    assert drawn_boxes(first)["region"] == pytest.approx(REGION)
    assert drawn_boxes(second)["region"] == pytest.approx(REGION / STRIDE)
    assert drawn_boxes(second)["RoIPool: whole cells"] == POOLED
    assert drawn_boxes(first)["RoIPool: whole cells"] == pytest.approx(POOLED * STRIDE)
    brightness = image.double().mean(dim=0).view(5, 8, 12, 5).mean(dim=(1, 3))
    np.testing.assert_allclose(second.images[0].get_array(), brightness, atol=1e-6)
    np.testing.assert_allclose(first.images[0].get_array(), image.permute(1, 2, 0), atol=1e-6)


def test_points_are_spread_evenly_over_the_region():
    first, second = plotting.plot_misalignment(square(*SIZE), REGION, CELLS)
    steps = (np.arange(4) + 0.5) / 4
    expected = {(round(11 + 27 * a, 6), round(9 + 20 * b, 6)) for a in steps for b in steps}
    assert {(round(x, 6), round(y, 6)) for x, y in points(first).tolist()} == expected
    np.testing.assert_allclose(points(second) * [5, 8], points(first))


def test_a_region_that_cannot_be_drawn_is_refused():
    with pytest.raises(ValueError, match="region must be"):
        plotting.plot_misalignment(square(*SIZE), (5, 5, 5, 9), CELLS)
    assert not plt.get_fignums(), "refused before a figure is opened"


def values(height=3, width=5):
    return torch.arange(float(height * width)).view(height, width)


def outlines(ax):
    """x1, y1, x2, y2 of each bin, in the order of drawing."""
    return [patch.get_bbox().extents for patch in ax.patches if isinstance(patch, FancyBboxPatch)]


def test_each_cell_has_the_color_of_its_value():
    np.testing.assert_array_equal(plotting.plot_cells(values()).images[0].get_array(), values())
    assert plotting.plot_cells(values() + 5).images[0].get_clim() == (0, 19), "0 stays at the dark end"
    assert plotting.plot_cells(values() - 5).images[0].get_clim() == (-5, 9)
    assert plotting.plot_cells(values(), limits=(-1.0, 30.0)).images[0].get_clim() == (-1, 30)
    for wrong in (torch.zeros(1, 3, 3), torch.zeros(0, 3), torch.tensor([[0.0, torch.nan]])):
        with pytest.raises(ValueError, match=r"values must be \(h, w\)"):
            plotting.plot_cells(wrong)


def test_a_map_and_its_numbers_lie_on_the_pixels_of_its_image():
    ax = plotting.plot_cells(values() / 2, stride=8, numbers=".1f", colors="Greys", title="a map")
    assert (ax.get_xlim(), ax.get_ylim(), ax.images[0].get_extent()) == ((0, 40), (24, 0), [0, 40, 24, 0])
    assert ax.get_title() == "a map" and not len(ax.get_xticks()) and not len(ax.get_yticks())
    assert [text.get_text() for text in ax.texts] == [f"{n / 2:.1f}" for n in range(15)]
    assert [text.get_position() for text in ax.texts] == [(4 + 8 * (n % 5), 4 + 8 * (n // 5)) for n in range(15)]
    assert ax.texts[0].get_color() == "black"  # on white
    assert ax.texts[-1].get_color() == "white"  # on black
    assert all(text.get_clip_on() for text in ax.texts), "or they would stand beside a map of which a part is shown"


@pytest.mark.parametrize("stride", [1, 8])
def test_an_outline_lies_just_inside_of_its_bin(stride):
    ax = plotting.plot_cells(values(7, 8), stride=stride)
    rows, columns = [(1, 4), (3, 6)], [(2, 5), (4, 7)]
    plotting.draw_bins(ax, rows, columns, stride=stride)
    found = outlines(ax)
    assert len(found) == 4
    bins = [(left, top, right, bottom) for top, bottom in rows for left, right in columns]
    for box, edges in zip(found, bins, strict=True):
        inside = np.array([1, 1, -1, -1]) * (box / stride - edges)
        assert (inside > 0).all() and (inside < 0.25).all(), (box, edges)
    assert (ax.get_xlim(), ax.get_ylim()) == ((0, 8 * stride), (7 * stride, 0))


def shown(ax):
    """(H, W, 3) as the axes hold it."""
    return np.asarray(ax.images[0].get_array())


@pytest.mark.parametrize(("count", "columns", "gap"), [(1, 4, (5, 2)), (5, 3, (5, 2)), (6, 3, (0, 0)), (7, 1, (1, 1))])
def test_mosaic_holds_every_tile_and_white_elsewhere(count, columns, gap):
    tiles = np.random.default_rng(0).uniform(0, 0.9, (count, 4, 6, 3))
    canvas = mosaic(tiles, columns, gap)
    rows = -(-count // columns)
    expected = np.ones((rows * 4 + (rows - 1) * gap[0], columns * 6 + (columns - 1) * gap[1], 3))
    for i, tile in enumerate(tiles):
        y, x = i // columns * (4 + gap[0]), i % columns * (6 + gap[1])
        expected[y : y + 4, x : x + 6] = tile
    assert np.array_equal(canvas, expected)


def test_gray_is_no_weight_and_the_largest_has_full_color():
    weight = torch.zeros(3, 3, 2, 2)
    weight[0, 0, 0, 0] = 4.0  # red
    weight[0, 2, 1, 1] = -1.0  # a little of the opposite of blue
    weight[1, 1, 0, 1] = -0.001  # scaled on its own: full magenta
    ax = plotting.plot_filters(weight, columns=3, title="conv1")
    drawn = shown(ax)
    assert drawn.shape == (2, 3 * 2 + 2, 3)  # a pixel between two
    np.testing.assert_allclose(drawn[0, 0], [1, 0.5, 0.5])
    np.testing.assert_allclose(drawn[1, 1], [0.5, 0.5, 0.375])
    np.testing.assert_allclose(drawn[0, 4], [0.5, 0, 0.5])
    np.testing.assert_allclose(drawn[:, 6:], 0.5)  # a filter without weights
    assert (drawn[:, [2, 5]] == 1).all()
    assert ax.images[0].get_interpolation() == "nearest" and ax.get_title() == "conv1"
    assert weight[0, 0, 0, 0] == 4
    assert shown(plotting.plot_filters(torch.nn.Conv2d(3, 32, 7).weight)).shape == (47, 47, 3)  # 6 in a row


@pytest.mark.parametrize(
    ("draw", "given", "message"),
    [
        (plotting.plot_filters, torch.zeros(8, 1, 3, 3), r"\(F, 3, h, w\).*\(8, 1, 3, 3\)"),
        (plotting.plot_maps, torch.zeros(1, 3, 4, 4), r"\(C, h, w\), those of one image, not \(1, 3, 4, 4\)"),
        (plotting.plot_maps, torch.tensor([[[-0.5, 1.0]]]), r"from -0\.5: show what comes out of a ReLU"),
    ],
)
def test_what_cannot_be_drawn_is_refused(draw, given, message):
    with pytest.raises(ValueError, match=message):
        draw(given)


def brightness(drawn):
    return drawn @ [0.2126, 0.7152, 0.0722]


def test_maps_are_brighter_where_they_are_larger_each_on_a_scale_of_its_own():
    ramp = brightness(shown(plotting.plot_maps(torch.arange(16.0).view(1, 4, 4))))
    assert (np.diff(ramp.ravel()) > 0).all() and ramp[0, 0] < 0.01 and ramp[3, 3] > 0.9
    maps = torch.zeros(3, 4, 4)
    maps[0, 1, 1], maps[1, 2, 2] = 1.0, 4.0
    drawn = shown(plotting.plot_maps(maps, columns=3))
    np.testing.assert_allclose(drawn[1, 1], drawn[2, 7])
    assert (brightness(drawn[:, 10:]) < 0.01).all()  # nothing there: black, not nan


def test_a_sheet_has_a_caption_below_each_image_and_a_frame_in_the_color_of_its_class():
    ax = plotting.contact_sheet(torch.rand(3, 3, 20, 30), columns=2, labels=[1, None, 2], captions=["a", "b", "c"])
    assert texts(ax) == ["a", "b", "c"]
    edges = [patch.get_edgecolor()[:3] for patch in ax.patches]
    np.testing.assert_allclose(edges, [plotting.class_color(1), plotting.class_color(2)])
    frames = [patch.get_bbox().extents for patch in ax.patches]
    assert frames[1][1] > frames[0][3] and frames[0][0] == frames[1][0], "the third image begins a row"


def test_figures_offer_what_notebooks_draw_with_and_no_helper():
    offered = set(dir(plotting))
    assert offered == set(plotting.__all__) and all(callable(getattr(plotting, name)) for name in offered)
    assert {"show", "show_image", "mask_gallery", "plot_losses"} <= offered
    assert not offered & {"np", "Tensor", "outline", "zoom", "plot_bars", "misalignment"}


def test_bars_and_dots_stand_in_rows_from_the_top_with_their_numbers():
    _, (left, right) = plt.subplots(1, 2)
    panels.plot_bars(left, {"a": 2.0, "b": 1.0}, "red")
    panels.plot_dots(right, {"a": [1.0, 3.0], "b": [2.0]}, "red")
    assert texts(left) == ["2.0", "1.0"] and left.get_ylim() == right.get_ylim() == (1.5, -0.5)
    assert [label.get_text() for label in left.get_yticklabels()] == ["a", "b"]
    assert [line.get_xdata()[0] for line in right.lines] == [2.0, 2.0]
    assert [dots.get_offsets().tolist() for dots in right.collections] == [[[1.0, 0.0], [3.0, 0.0]], [[2.0, 1.0]]]


def test_losses_and_their_running_mean():
    rng = np.random.default_rng(0)
    history = [{"class": float(a), "box": float(b)} for a, b in rng.uniform(0, 3, (30, 2))]
    ax = plotting.plot_losses(history, window=7, title="Training")
    assert len(ax.lines) == 4
    for name, raw, thick in zip(("class", "box"), ax.lines[::2], ax.lines[1::2], strict=True):
        values = [losses[name] for losses in history]
        np.testing.assert_allclose(raw.get_xydata(), list(zip(range(1, 31), values, strict=True)))
        slow = [np.mean(values[max(0, end - 7) : end]) for end in range(1, 31)]
        np.testing.assert_allclose(thick.get_ydata(), slow)
    assert ax.get_ylim()[0] == 0


def bars(ax):
    """(row, color, left, right) of every bar, from the top."""
    for patch in ax.patches:
        (left, top), (right, bottom) = patch.get_bbox().get_points().tolist()
        yield (top + bottom) / 2, to_hex(patch.get_facecolor()), left, right


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
