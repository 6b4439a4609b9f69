"""Where a region, RoIPool's cells and RoIAlign's points are drawn, against numbers worked by hand."""

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from matplotlib.collections import PathCollection

from minircnn.course import figures as plotting

# An image of 40 by 60 pixels (height, width) on a map of 5 by 12 cells: 5 pixels a cell across, 8 down.
SIZE, CELLS = (40, 60), (5, 12)
REGION = (11.0, 9.0, 38.0, 29.0)  # cells 2.2, 1.125, 7.6, 3.625: RoIPool rounds to 2, 1, 8, 4 and takes the last ones
POOLED = [2, 1, 9, 5]  # in cells, half open
STRIDE = np.array([5, 8, 5, 8])


def square(size=SIZE):
    return torch.rand(3, *size, generator=torch.Generator().manual_seed(0))


def drawn_boxes(ax):
    """x1, y1, x2, y2 of each rectangle, by its label."""
    return {patch.get_label(): patch.get_bbox().extents.tolist() for patch in ax.patches}


def points(ax):
    (dots,) = (c for c in ax.collections if isinstance(c, PathCollection))
    return np.asarray(dots.get_offsets())


def test_a_region_on_an_image_and_on_its_map():
    """Rows and columns have strides of their own."""
    image = square()
    first, second = plotting.plot_misalignment(image, REGION, CELLS)
    assert drawn_boxes(first)["region"] == pytest.approx(REGION)
    assert drawn_boxes(second)["region"] == pytest.approx(REGION / STRIDE)
    assert drawn_boxes(second)["RoIPool: whole cells"] == POOLED
    assert drawn_boxes(first)["RoIPool: whole cells"] == pytest.approx(POOLED * STRIDE)
    brightness = image.double().mean(dim=0).view(5, 8, 12, 5).mean(dim=(1, 3))
    np.testing.assert_allclose(second.images[0].get_array(), brightness, atol=1e-6)
    np.testing.assert_allclose(first.images[0].get_array(), image.permute(1, 2, 0), atol=1e-6)


@pytest.mark.parametrize(("bins", "ratio"), [(2, 2), (3, 1)])
def test_points_are_spread_evenly_over_the_region(bins, ratio):
    first, second = plotting.plot_misalignment(square(), REGION, CELLS, output_size=bins, sampling_ratio=ratio)
    steps = (np.arange(bins * ratio) + 0.5) / (bins * ratio)
    expected = {(round(11 + 27 * a, 6), round(9 + 20 * b, 6)) for a in steps for b in steps}
    assert {(round(x, 6), round(y, 6)) for x, y in points(first).tolist()} == expected
    np.testing.assert_allclose(points(second) * [5, 8], points(first))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"features": torch.zeros(12, 5)}, "features must be"),
        *[({"window": w}, "window must be") for w in ((10, 0, 10, 20), (0, 0, 61, 40), (0, -1, 60, 40))],
        ({"region": (5, 5, 5, 9)}, "region must be"),
    ],
)
def test_what_cannot_be_drawn_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        plotting.plot_misalignment(square(), **{"region": REGION, "feature_size": CELLS, **arguments})
    assert not plt.get_fignums(), "refused before a figure is opened"
