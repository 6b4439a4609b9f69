"""Cells, bins and marks as they are drawn, against the numbers that were given."""

import numpy as np
import pytest
import torch
from matplotlib.patches import FancyBboxPatch

from minircnn.course import figures as plotting


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
