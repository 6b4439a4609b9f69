"""Cells, bins and marks as they are drawn, against the numbers that were given."""

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgb
from matplotlib.patches import FancyBboxPatch

from minircnn.course import figures as plotting
from minircnn.course.figures.regions import bin_color


def values(height=3, width=5):
    return torch.arange(float(height * width)).view(height, width)


def drawn(ax):
    """(height, width, 3) the colors in the middle of each cell of a map with a stride of 1, as they are rendered."""
    figure = ax.get_figure()
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3] / 255
    height, width = int(ax.get_ylim()[0]), int(ax.get_xlim()[1])
    middles = [[ax.transData.transform((x + 0.5, y + 0.5)) for x in range(width)] for y in range(height)]
    return np.array([[pixels[len(pixels) - 1 - int(y), int(x)] for x, y in row] for row in middles])


def outlines(ax):
    """x1, y1, x2, y2 and edge color of each bin, in the order of drawing."""
    boxes = [patch for patch in ax.patches if isinstance(patch, FancyBboxPatch)]
    return [
        ([p.get_x(), p.get_y(), p.get_x() + p.get_width(), p.get_y() + p.get_height()], p.get_edgecolor()[:3])
        for p in boxes
    ]


def test_each_cell_has_the_color_of_its_value():
    ax = plotting.plot_cells(values(), colors="viridis")
    expected = plt.get_cmap("viridis")(values().numpy() / 14)[..., :3]
    np.testing.assert_allclose(drawn(ax), expected, atol=0.005)
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


def test_a_line_at_every_edge_of_a_cell():
    ax = plotting.show_image(torch.zeros(3, 24, 40))
    plotting.draw_grid(ax, 8, color="red", opacity=0.5)
    (lines,) = ax.collections
    down = [[[x, 0], [x, 24]] for x in range(0, 41, 8)]
    across = [[[0, y], [40, y]] for y in range(0, 25, 8)]
    assert [segment.tolist() for segment in lines.get_segments()] == down + across
    assert lines.get_alpha() == 0.5
    np.testing.assert_allclose(lines.get_colors()[0][:3], to_rgb("red"))
    assert (ax.get_xlim(), ax.get_ylim()) == ((0, 40), (24, 0))


@pytest.mark.parametrize("stride", [1, 8])
def test_an_outline_lies_just_inside_of_its_bin(stride):
    ax = plotting.plot_cells(values(7, 8), stride=stride)
    rows, columns = [(1, 4), (3, 6)], [(2, 5), (4, 7)]
    plotting.draw_bins(ax, rows, columns, stride=stride)
    found = outlines(ax)
    assert len(found) == 4
    bins = [(left, top, right, bottom) for top, bottom in rows for left, right in columns]
    for (box, _), edges in zip(found, bins, strict=True):
        inside = np.array([1, 1, -1, -1]) * (np.array(box) / stride - edges)
        assert (inside > 0).all() and (inside < 0.25).all(), (box, edges)
    assert (ax.get_xlim(), ax.get_ylim()) == ((0, 8 * stride), (7 * stride, 0))


def test_neighboring_bins_differ_in_color_and_in_distance_from_their_edge():
    ax = plotting.plot_cells(values(9, 9))
    edges = [(0, 3), (3, 6), (6, 9)]
    plotting.draw_bins(ax, edges, edges)
    found = np.array(outlines(ax), dtype=object).reshape(3, 3, 2)
    for i in range(3):
        for j in range(3):
            box, color = found[i, j]
            np.testing.assert_allclose(color, bin_color(i, j))
            for di, dj in ((0, 1), (1, 0), (1, 1), (1, -1)):
                if i + di < 3 and 0 <= j + dj < 3:
                    assert not np.allclose(color, found[i + di, j + dj][1])
            if j < 2:
                assert box[1] != found[i, j + 1][0][1], "their upper lines would run into each other"


def test_rings_around_the_middle_of_cells():
    ax = plotting.plot_cells(values(), stride=8)
    plotting.mark_cells(ax, [(0, 4), (2, 1)], stride=8, color="cyan")
    (rings,) = ax.collections
    np.testing.assert_allclose(rings.get_offsets(), np.array([[4.5, 0.5], [1.5, 2.5]]) * 8)
    assert not len(rings.get_facecolors()), "the value must stay visible"
    np.testing.assert_allclose(rings.get_edgecolors()[0][:3], to_rgb("cyan"))
    assert (ax.get_xlim(), ax.get_ylim()) == ((0, 40), (24, 0))
