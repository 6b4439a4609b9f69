"""Filters, maps, sheets and losses as they are drawn, against the numbers that were given."""

from functools import partial

import numpy as np
import pytest
import torch

from minircnn.course import figures as plotting
from minircnn.course.figures.networks import mosaic


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
    square = shown(ax)
    assert square.shape == (2, 3 * 2 + 2, 3)  # a pixel between two
    np.testing.assert_allclose(square[0, 0], [1, 0.5, 0.5])
    np.testing.assert_allclose(square[1, 1], [0.5, 0.5, 0.375])
    np.testing.assert_allclose(square[0, 4], [0.5, 0, 0.5])
    np.testing.assert_allclose(square[:, 6:], 0.5)  # a filter without weights
    assert (square[:, [2, 5]] == 1).all()
    assert ax.images[0].get_interpolation() == "nearest" and ax.get_title() == "conv1"
    assert weight[0, 0, 0, 0] == 4
    assert shown(plotting.plot_filters(torch.nn.Conv2d(3, 32, 7).weight)).shape == (47, 47, 3)  # 6 in a row


@pytest.mark.parametrize(
    ("draw", "given", "message"),
    [
        (plotting.plot_filters, torch.zeros(8, 1, 3, 3), r"\(F, 3, h, w\).*\(8, 1, 3, 3\)"),
        (plotting.plot_filters, torch.full((2, 3, 2, 2), torch.nan), "nan or infinity"),
        (plotting.plot_maps, torch.zeros(1, 3, 4, 4), r"\(C, h, w\), those of one image, not \(1, 3, 4, 4\)"),
        (plotting.plot_maps, torch.tensor([[[-0.5, 1.0]]]), r"from -0\.5: show what comes out of a ReLU"),
        (plotting.contact_sheet, [], "images is empty"),
        (plotting.contact_sheet, [torch.zeros(3, 4, 4), torch.zeros(3, 4, 5)], r"sizes \(4, 4\) and \(4, 5\)"),
        (partial(plotting.contact_sheet, row_titles=["a"] * 3), torch.zeros(2, 3, 4, 4), "3 row_titles for 1 rows"),
    ],
)
def test_what_cannot_be_drawn_is_refused(draw, given, message):
    with pytest.raises(ValueError, match=message):
        draw(given)


def brightness(square):
    return square @ [0.2126, 0.7152, 0.0722]


def test_maps_are_brighter_where_they_are_larger_on_scales_of_their_own_or_on_one():
    ramp = brightness(shown(plotting.plot_maps(torch.arange(16.0).view(1, 4, 4))))
    assert (np.diff(ramp.ravel()) > 0).all() and ramp[0, 0] < 0.01 and ramp[3, 3] > 0.9
    maps = torch.zeros(3, 4, 4)
    maps[0, 1, 1], maps[1, 2, 2] = 1.0, 4.0
    own = shown(plotting.plot_maps(maps, columns=3))
    one = shown(plotting.plot_maps(maps, columns=3, together=True))
    quarter = shown(plotting.plot_maps(torch.tensor([[[1.0, 4.0]]])))[0, 0]
    np.testing.assert_allclose(own[1, 1], own[2, 7])
    np.testing.assert_allclose(one[2, 7], own[2, 7])
    np.testing.assert_allclose(one[1, 1], quarter)
    for square in (own, one):
        assert (brightness(square[:, 10:]) < 0.01).all()  # nothing there: black, not nan


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
