"""Warped regions against a loop over pixels, torchvision, torch's own resizing, and values worked by hand."""

import math

import pytest
import torch
import torch.nn.functional as F
import torchvision
from hypothesis import given
from hypothesis import strategies as st

from minircnn.pooling import WARP_MODES, warp_regions

FILL = (0.25, 0.5, 0.75)


def picture(height, width, seed=0):
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def bilinear_by_hand(image, x, y):
    """Between the centres of the four nearest pixels; beyond the outermost centres their values hold."""
    height, width = len(image[0]), len(image[0][0])
    column, row = min(max(x - 0.5, 0), width - 1), min(max(y - 0.5, 0), height - 1)
    left, top = int(column), int(row)
    right, bottom = min(left + 1, width - 1), min(top + 1, height - 1)
    a, b = column - left, row - top
    return [
        (1 - b) * ((1 - a) * plane[top][left] + a * plane[top][right])
        + b * ((1 - a) * plane[bottom][left] + a * plane[bottom][right])
        for plane in image
    ]


def warp_by_hand(image, box, size, context, mode):
    """One region, one pixel of it at a time, in plain arithmetic: (3, size, size).

    A pixel whose centre lies on the very edge of what is shown is nan: rounding decides on which side.
    """
    image = image.tolist()
    height, width = len(image[0]), len(image[0][0])
    x1, y1, x2, y2 = box
    shown_width, shown_height = x2 - x1, y2 - y1
    if mode != "warp":
        shown_width = shown_height = max(shown_width, shown_height)
    # Pixels of the picture for each pixel of the result.
    step_x, step_y = shown_width / (size - 2 * context), shown_height / (size - 2 * context)
    result = torch.empty(3, size, size, dtype=torch.float64)
    for row in range(size):
        for column in range(size):
            x = (x1 + x2) / 2 + (column + 0.5 - size / 2) * step_x
            y = (y1 + y2) / 2 + (row + 0.5 - size / 2) * step_y
            inwards = [x, width - x, y, height - y]  # from the edges of what is shown
            if mode == "square without context":
                inwards += [x - x1 + context * step_x, x2 + context * step_x - x]
                inwards += [y - y1 + context * step_y, y2 + context * step_y - y]
            if abs(min(inwards)) < 1e-9:
                colour = [math.nan] * 3
            else:
                colour = bilinear_by_hand(image, x, y) if min(inwards) > 0 else FILL
            result[:, row, column] = torch.tensor(colour, dtype=torch.float64)
    return result


def assert_equal_but_for_edges(found, wanted, name=""):
    decided = ~wanted.isnan()
    torch.testing.assert_close(found[decided], wanted[decided], atol=1e-9, rtol=0, msg=lambda text: f"{name}: {text}")


BOXES = {
    "inside": [3.2, 4.1, 12.7, 9.6],
    "whole picture": [0.0, 0.0, 17.0, 13.0],
    "one pixel": [5.0, 6.0, 6.0, 7.0],
    "within one pixel": [5.3, 6.2, 5.4, 6.6],
    "partly outside": [-4.3, 7.2, 6.1, 20.9],
    "larger than the picture": [-9.1, -5.2, 30.3, 21.4],
    "wholly outside": [40.0, 50.0, 61.0, 58.0],
    "left of it": [-20.0, 2.0, -10.0, 8.0],
    "a line": [4.3, 2.0, 4.3, 11.5],
    "a point": [4.3, 2.1, 4.3, 2.1],
    "high": [6.1, 1.2, 8.4, 12.3],
}


@pytest.mark.parametrize("mode", WARP_MODES)
@pytest.mark.parametrize("size, context", [(9, 0), (9, 2), (10, 3), (10, 1.5), (1, 0)])
def test_equals_a_slow_loop(mode, size, context):
    image = picture(13, 17)
    boxes = torch.tensor(list(BOXES.values()), dtype=torch.float64)
    found = warp_regions(image, boxes, size, context, mode, fill=FILL)
    assert found.shape == (len(boxes), 3, size, size) and found.dtype == torch.float64
    for name, box, region in zip(BOXES, boxes.tolist(), found, strict=True):
        wanted = warp_by_hand(image, box, size, context, mode)
        assert_equal_but_for_edges(region, wanted, name)


@given(st.integers(0, 10_000), st.sampled_from(WARP_MODES), st.sampled_from([0, 1, 2.25]))
def test_equals_a_slow_loop_for_any_box(seed, mode, context):
    random = torch.Generator().manual_seed(seed)
    height, width = torch.randint(1, 20, (2,), generator=random).tolist()
    image = picture(height, width, seed)
    corner = torch.rand(3, 2, generator=random, dtype=torch.float64) * 30 - 10
    boxes = torch.cat([corner, corner + torch.rand(3, 2, generator=random, dtype=torch.float64) * 25], dim=1)
    found = warp_regions(image, boxes, 6, context, mode, fill=FILL)
    for box, region in zip(boxes.tolist(), found, strict=True):
        assert_equal_but_for_edges(region, warp_by_hand(image, box, 6, context, mode))


@pytest.mark.parametrize("size", [1, 7, 32])
def test_equals_roi_align_with_one_sample_a_bin(size):
    """Half a pixel from the edge and more: there the two handle the outside alike."""
    image, random = picture(40, 60).float(), torch.Generator().manual_seed(1)
    corner = 0.5 + torch.rand(50, 2, generator=random) * torch.tensor([30.0, 20.0])
    boxes = torch.cat([corner, corner + 0.1 + torch.rand(50, 2, generator=random) * 18], dim=1)
    wanted = torchvision.ops.roi_align(image[None], [boxes], size, 1.0, sampling_ratio=1, aligned=True)
    torch.testing.assert_close(warp_regions(image, boxes, size, context=0), wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("height, width", [(40, 60), (7, 300), (1, 1), (32, 32)])
@pytest.mark.parametrize("size", [5, 32, 100])
def test_the_whole_picture_is_resized_as_torch_does(height, width, size):
    image = picture(height, width)
    wanted = F.interpolate(image[None], (size, size), mode="bilinear", align_corners=False, antialias=False)
    whole = torch.tensor([[0.0, 0.0, width, height]])
    torch.testing.assert_close(warp_regions(image, whole, size, context=0), wanted, atol=1e-9, rtol=0)


# -------------------------------------------------------------------------------------------------------------- by hand


def test_16_pixels_of_context_at_227():
    """A box of 195 pixels fills the 227 - 2 · 16 in the middle, one for one: around it stand its 16 neighbours."""
    image = picture(300, 300).float()
    box = torch.tensor([[40.0, 50.0, 235.0, 245.0]])
    (region,) = warp_regions(image, box, size=227)  # 16 pixels, as said nowhere else
    torch.testing.assert_close(region, image[:, 34:261, 24:251], atol=1e-4, rtol=0)
    (other,) = warp_regions(image, box, size=227, mode="square with context")
    torch.testing.assert_close(other, region)


def test_context_grows_with_the_box():
    """A box of 390 pixels is halved, so that 16 pixels of the result are 32 of the picture; high and wide apart."""
    columns = torch.arange(600.0).expand(3, 400, 600)
    rows = torch.arange(400.0)[:, None].expand(3, 400, 600)
    box = torch.tensor([[100.0, 100.0, 490.0, 295.0]])
    across, down = (warp_regions(image, box, size=227)[0, 0] for image in (columns, rows))
    # Result pixel 0 shows the picture's 68 to 70 across, that is columns 68 and 69; and row 84.
    assert across[100, :3].tolist() == pytest.approx([68.5, 70.5, 72.5], abs=1e-3)
    assert down[:3, 100].tolist() == pytest.approx([84.0, 85.0, 86.0], abs=1e-3)
    assert across[100, 16].item() == pytest.approx(100.5, abs=1e-3), "the box begins behind the margin"
    assert down[16, 100].item() == pytest.approx(100.0, abs=1e-3)


def test_three_ways_to_make_a_square_of_a_wide_box():
    """A box 4 wide and 2 high, of a picture that counts its rows."""
    image = torch.arange(8.0)[:, None].expand(3, 8, 8) / 8
    box = torch.tensor([[2.0, 3.0, 6.0, 5.0]])
    seen = {mode: warp_regions(image, box, 4, 0, mode, fill=(-1, -1, -1))[0, 0] * 8 for mode in WARP_MODES}
    assert seen["warp"][:, 0].tolist() == pytest.approx([2.75, 3.25, 3.75, 4.25])
    assert seen["square with context"][:, 0].tolist() == pytest.approx([2, 3, 4, 5])
    assert seen["square without context"][:, 0].tolist() == pytest.approx([-8, 3, 4, -8])


@pytest.mark.parametrize("mode", WARP_MODES)
def test_a_point_shows_its_colour(mode):
    image, point = picture(13, 17), torch.tensor([[4.25, 2.5, 4.25, 2.5]], dtype=torch.float64)
    colour = 0.25 * image[:, 2, 3] + 0.75 * image[:, 2, 4]
    torch.testing.assert_close(warp_regions(image, point, 5, 1, mode, FILL)[0], colour[:, None, None].expand(3, 5, 5))


def test_fill_keeps_the_order_of_its_channels():
    region = warp_regions(torch.ones(3, 4, 4), torch.tensor([[2.0, 0.0, 6.0, 4.0]]), 4, 0, fill=FILL)[0]
    assert region[:, 0].tolist() == [[1, 1, value, value] for value in FILL]
    outside = warp_regions(torch.ones(3, 4, 4), torch.tensor([[9.0, 9.0, 12.0, 12.0]]), 2, 0)
    assert outside.tolist() == torch.zeros(1, 3, 2, 2).tolist()


def test_a_mirrored_picture_gives_mirrored_regions():
    image = picture(20, 31)
    boxes = torch.tensor([[3.0, 4.0, 12.0, 15.0], [-3.0, 10.0, 8.0, 25.0]], dtype=torch.float64)
    turned = torch.stack([31 - boxes[:, 2], boxes[:, 1], 31 - boxes[:, 0], boxes[:, 3]], dim=1)
    for mode in WARP_MODES:
        there, back = (
            warp_regions(image, boxes, 12, 2, mode, FILL),
            warp_regions(image.flip(2), turned, 12, 2, mode, FILL),
        )
        torch.testing.assert_close(back, there.flip(3))


# ------------------------------------------------------------------------------------------------------------ the rest


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_type_is_the_pictures(dtype):
    image = picture(8, 8).to(dtype)
    for boxes in (torch.tensor([[1, 1, 5, 6]]), torch.tensor([[1.0, 1.0, 5.0, 6.0]]), torch.zeros(0, 4)):
        found = warp_regions(image, boxes, 6, 1)
        assert found.dtype == dtype and found.shape == (len(boxes), 3, 6, 6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("size", [(1, 1), (255, 255), (480, 640), (3, 5000)], ids=str)
def test_half_precision_is_single_precision_rounded(dtype, size):
    """Places are not halves: grid_sample on the CPU crashed with those of 480 × 640 pixels."""
    image = picture(*size).to(dtype)
    boxes = torch.tensor([[0, 0, size[1], size[0]], [size[1] / 3, 0, size[1], size[0] / 2]])
    found = warp_regions(image, boxes, 64, 4)
    assert found.dtype == dtype
    assert torch.equal(found, warp_regions(image.float(), boxes, 64, 4).to(dtype))
    assert warp_regions(image, boxes.to(dtype), 64, 4).isfinite().all()


def test_all_at_once_equal_one_at_a_time_and_inputs_stay():
    image, boxes = picture(13, 17), torch.tensor(list(BOXES.values()), dtype=torch.float64)
    before = image.clone(), boxes.clone()
    for mode in WARP_MODES:
        found = warp_regions(image, boxes, 8, 1, mode)
        single = torch.cat([warp_regions(image, box[None], 8, 1, mode) for box in boxes])
        assert torch.equal(found, single)
    assert torch.equal(image, before[0]) and torch.equal(boxes, before[1])


@pytest.mark.parametrize("mode", WARP_MODES)
def test_gradient_flows_through_the_picture(mode):
    image = picture(6, 7).requires_grad_()
    boxes = torch.tensor([[1.2, 0.7, 5.3, 4.9], [-2.0, 1.0, 4.0, 9.0], [20.0, 20.0, 25.0, 25.0]], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: warp_regions(x, boxes, 5, 1, mode, FILL), (image,))
    (found,) = torch.autograd.grad(warp_regions(image, boxes[2:], 5, 1, mode).sum(), image)
    assert found.abs().sum() == 0, "what lies outside asks for nothing"


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"image": torch.zeros(1, 8, 8)},
            r"image must be a float tensor \(3, H, W\), but is torch\.float32 of \(1, 8, 8\)",
        ),
        ({"image": torch.zeros(1, 3, 8, 8)}, r"image must be .* of \(1, 3, 8, 8\)"),
        ({"image": torch.zeros(3, 0, 8)}, r"image must be .* of \(3, 0, 8\)"),
        ({"image": torch.zeros(3, 8, 8, dtype=torch.uint8)}, r"image must be a float tensor .* is torch\.uint8"),
        ({"boxes": torch.zeros(4)}, r"boxes must have shape \(R, 4\), x1 y1 x2 y2, but have shape \(4,\)"),
        ({"boxes": torch.zeros(2, 5)}, r"boxes must have shape .* \(2, 5\)"),
        ({"boxes": torch.tensor([[0.0, 0, 1, 1], [0, 0, math.nan, 1]])}, "box 1 holds nan or infinity"),
        ({"boxes": torch.tensor([[0.0, 0, math.inf, 1], [0, 0, math.nan, 1]])}, "box 0 holds nan or infinity"),
        ({"size": 0, "context": 0}, r"size must be at least 1 and context in \[0, size / 2\), but are 0 and 0"),
        ({"context": 4}, r"context in \[0, size / 2\), but are 8 and 4"),
        ({"context": -1}, "but are 8 and -1"),
        ({"context": math.nan}, "but are 8 and nan"),
        ({"mode": "crop"}, "mode must be one of 'warp', 'square with context', 'square without context', not 'crop'"),
        ({"fill": (0.5,)}, "fill must be a color of 3 numbers, but has 1"),
    ],
)
def test_what_does_not_fit_is_named(changes, message):
    good = {"image": torch.zeros(3, 8, 8), "boxes": torch.tensor([[0.0, 0, 1, 1]]), "size": 8, "context": 1}
    assert warp_regions(**good).shape == (1, 3, 8, 8)
    with pytest.raises(ValueError, match=message):
        warp_regions(**(good | changes))
