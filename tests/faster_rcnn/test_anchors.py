"""Anchors against torchvision's generator and values worked by hand."""

import pytest
import torch
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList

from minircnn.faster_rcnn import base_anchors, grid_anchors

SETS = [
    ((128, 256, 512), (0.5, 1.0, 2.0)),
    ((20, 38, 72), (0.5, 1, 2)),
    ((16,), (1.0,)),
    ((33.3, 7), (0.3, 3.0, 0.9, 1)),
]


@pytest.mark.parametrize(("sizes", "aspect_ratios"), SETS)
def test_base_anchors_equal_torchvisions(sizes, aspect_ratios):
    assert torch.equal(base_anchors(sizes, aspect_ratios), AnchorGenerator((sizes,), (aspect_ratios,)).cell_anchors[0])


@pytest.mark.parametrize(("sizes", "aspect_ratios"), SETS)
@pytest.mark.parametrize(
    ("image", "grid"),
    [((128, 128), (16, 16)), ((130, 203), (16, 25)), ((600, 800), (37, 50)), ((7, 5), (7, 5)), ((9, 30), (1, 4))],
)
def test_grid_anchors_equal_torchvisions(sizes, aspect_ratios, image, grid):
    """Also where the picture is no multiple of the stride."""
    stride = (image[0] // grid[0], image[1] // grid[1])
    pictures = ImageList(torch.zeros(2, 3, *image), [image, image])
    expected = AnchorGenerator((sizes,), (aspect_ratios,))(pictures, [torch.zeros(2, 4, *grid)])
    assert torch.equal(grid_anchors(grid, stride, sizes, aspect_ratios), expected[0])


def test_shifted_anchors_lie_around_the_middle_of_their_cells():
    anchors = grid_anchors((2, 3), (8, 10), [12], [1.0], offset=0.5)
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2
    assert centres.tolist() == [[5, 4], [15, 4], [25, 4], [5, 12], [15, 12], [25, 12]]


def test_ratios_are_heights_over_widths_and_areas_stay():
    anchors = base_anchors([100], [0.25, 1.0, 4.0])
    widths, heights = anchors[:, 2] - anchors[:, 0], anchors[:, 3] - anchors[:, 1]
    assert (heights / widths).tolist() == [0.25, 1, 4]
    assert (heights * widths).tolist() == [10_000] * 3


@pytest.mark.parametrize(("sizes", "aspect_ratios"), [([], [1.0]), ([16], []), ([0], [1.0]), ([16], [-1.0])])
def test_what_makes_no_anchor_is_refused(sizes, aspect_ratios):
    with pytest.raises(ValueError, match="must be positive numbers, at least one each"):
        base_anchors(sizes, aspect_ratios)
