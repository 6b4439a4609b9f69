"""Pasted masks against torchvision's, pixel by pixel, against a loop, and where nothing can be pasted."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as rle
from torchvision.models.detection.roi_heads import paste_masks_in_image

from minircnn.course.compare import peak_memory
from minircnn.mask_rcnn import binary_masks, encode_pasted, paste_masks, project_masks_on_boxes
from tests.mask_rcnn.conftest import ellipses


def random_boxes(count, height, width, seed):
    """Most of them reach out of the picture, but none lies outside: that torchvision cannot take. Some are flat."""
    generator = torch.Generator().manual_seed(seed)
    start = (torch.rand(count, 2, generator=generator) * 1.2 - 0.3) * torch.tensor([width, height])
    size = torch.rand(count, 2, generator=generator) ** 2 * 1.2 * torch.tensor([width, height])
    return torch.cat([start, (start + size).clamp(min=2)], dim=1)


@given(st.integers(0, 10**6), st.sampled_from([1, 5, 28]))
def test_equal_to_torchvisions_pixel_by_pixel(seed, side):
    height, width = 20 + seed % 37, 20 + seed % 53
    boxes = random_boxes(12, height, width, seed)
    masks = torch.rand(12, side, side, generator=torch.Generator().manual_seed(seed))
    expected = paste_masks_in_image(masks[:, None], boxes, (height, width))
    assert torch.equal(paste_masks(masks, boxes, (height, width), aligned=False), expected)


def test_aligned_by_a_loop_over_pixels():
    masks = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(0))
    boxes = torch.tensor([[2.3, 1.7, 9.4, 12.2], [-4.0, -3.0, 5.5, 30.0], [10.0, 3.0, 10.5, 3.2]])
    found = paste_masks(masks, boxes, (15, 12))
    for mask, (x1, y1, x2, y2), picture in zip(masks.tolist(), boxes.tolist(), found[:, 0], strict=True):
        for row in range(15):
            for column in range(12):
                v, u = (row + 0.5 - y1) / (y2 - y1) * 4 - 0.5, (column + 0.5 - x1) / (x2 - x1) * 4 - 0.5
                value = sum(
                    max(1 - abs(v - i), 0) * max(1 - abs(u - j), 0) * mask[i][j] for i in range(4) for j in range(4)
                )
                assert picture[row, column].item() == pytest.approx(value, abs=1e-5)


@pytest.mark.parametrize("size", [(40, 60), (128, 100)])
def test_what_was_cropped_comes_back(size):
    """Law: of objects larger than the grid nearly every pixel is the same after cropping and pasting, if aligned."""
    boxes = torch.tensor([[3.0, 5.0, 35.0, 37.0], [10.5, 2.25, 55.0, 36.75]])
    masks = ellipses(boxes, size)

    def again(aligned):
        cropped = project_masks_on_boxes(masks, boxes, torch.arange(2), 28, aligned)
        pasted = binary_masks({"masks": paste_masks(cropped, boxes, size, aligned)})["masks"]
        return ((pasted & masks).sum(dim=(1, 2)) / (pasted | masks).sum(dim=(1, 2))).min()

    assert again(aligned=True) > 0.97 > again(aligned=False)


@pytest.mark.parametrize("aligned", [False, True])
def test_outside_flat_and_none(aligned):
    masks = torch.ones(4, 5, 5)
    boxes = torch.tensor([[-50.0, 0, -30, 20], [0, 40, 20, 90], [5, 5, 5, 5], [9, 9, 4, 2]])
    pasted = paste_masks(masks, boxes, (30, 30), aligned)
    assert pasted.shape == (4, 1, 30, 30) and not pasted[:2].any() and pasted.isfinite().all()
    assert paste_masks(torch.zeros(0, 5, 5), torch.zeros(0, 4), (30, 30), aligned).shape == (0, 1, 30, 30)


@given(st.integers(0, 10**6), st.sampled_from([1, 5, 28]), st.booleans(), st.sampled_from([0.0, 0.5, 0.9]))
def test_encoded_one_by_one_equals_pasted_and_encoded_together(seed, side, aligned, threshold):
    """By pycocotools' runs, also of masks that are outside, flat or empty."""
    size = 1 + seed % 37, 1 + seed % 53
    outside = torch.tensor([[-50.0, 0, -30, 20], [0, 90, 20, 99], [5, 5, 5, 5], [9, 9, 4, 2]])
    boxes = torch.cat([random_boxes(8, *size, seed), outside])
    masks = torch.rand(12, side, side, generator=torch.Generator().manual_seed(seed))
    pasted = binary_masks({"masks": paste_masks(masks, boxes, size, aligned)}, threshold)["masks"]
    expected = rle.encode(np.asfortranarray(pasted.permute(1, 2, 0).numpy().astype(np.uint8)))
    assert encode_pasted(masks, boxes, size, aligned, threshold) == expected
    assert encode_pasted(masks[:0], boxes[:0], size, aligned) == []


def test_encoded_masks_take_the_memory_of_one():
    masks, boxes = torch.rand(20, 28, 28), torch.tensor([[100.0, 50, 700, 350]]).expand(20, 4)
    one = peak_memory(lambda: paste_masks(masks[:1], boxes[:1], (400, 800)))
    assert peak_memory(lambda: encode_pasted(masks, boxes, (400, 800))) < 2 * one
    assert peak_memory(lambda: paste_masks(masks, boxes, (400, 800))) > 10 * one


def test_bad_shapes_are_refused():
    with pytest.raises(ValueError, match=r"masks must be \(N, m, m\) for 2 boxes, but are \(1, 5, 5\)"):
        paste_masks(torch.zeros(1, 5, 5), torch.zeros(2, 4), (30, 30))
    with pytest.raises(ValueError, match="but are"):
        paste_masks(torch.zeros(1, 1, 5, 5), torch.zeros(1, 4), (30, 30))
