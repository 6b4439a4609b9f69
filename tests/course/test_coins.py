"""The masks of the coins against circles and what is known about coins."""

import numpy as np
import pytest
import skimage.data
import torch
from scipy import ndimage

from minircnn.course.coins import PARTS, Coins, segment_coins

# Middle (x, y) of the coins, read off the image by eye, row by row; good to some pixels.
BY_EYE = [
    *((45, 55), (100, 57), (155, 51), (216, 51), (276, 53), (335, 44)),
    *((46, 125), (103, 127), (154, 128), (206, 124), (271, 119), (337, 125)),
    *((45, 198), (102, 196), (155, 198), (213, 193), (274, 194), (347, 187)),
    *((46, 260), (114, 266), (172, 262), (245, 264), (301, 264), (358, 268)),
]


@pytest.fixture(scope="module")
def masks():
    return Coins()[0][1]["masks"].numpy()  # (24, 303, 384)


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


def test_masks_are_24_round_coins_in_reading_order_that_do_not_touch(masks):
    assert 24 == len(masks) == len(BY_EYE)
    y, x = np.mgrid[: masks.shape[1], : masks.shape[2]]
    for mask, (eye_x, eye_y) in zip(masks, BY_EYE, strict=True):
        middle_y, middle_x = ndimage.center_of_mass(mask)
        assert np.hypot(middle_x - eye_x, middle_y - eye_y) < 3
        assert ndimage.label(mask)[1] == 1, "one piece, connected by the sides of pixels"
        assert ndimage.label(~mask)[1] == 1, "without holes"
        assert 1000 < mask.sum() < 3200
        # Not more, since these coins were struck by hand and are no circles.
        assert iou((x - middle_x) ** 2 + (y - middle_y) ** 2 <= mask.sum() / np.pi, mask) > 0.88
        assert not mask[[0, -1]].any() and not mask[:, [0, -1]].any(), "no coin is cut by the edge of the image"
    grown = np.stack([ndimage.binary_dilation(mask, np.ones((3, 3))) for mask in masks])
    assert grown.sum(axis=0).max() == 1, "two pixels or more lie between any two"


def test_a_drawn_image_by_hand():
    """Two discs on a ground that gets brighter to the right; the one that stands a little lower is in the same row."""
    y, x = np.mgrid[:80, :160]
    ground = 10 + x // 4
    left, right = ((x - cx) ** 2 + (y - cy) ** 2 <= 15**2 for cx, cy in ((40, 45), (120, 35)))
    image = np.where(left | right, 200, ground).astype(np.uint8)
    image[45, 40] = 90  # a dark speck inside does not make a hole
    labels = segment_coins(image).labels
    assert labels.max() == 2
    assert iou(labels == 1, left) > 0.97
    assert iou(labels == 2, right) > 0.97


def test_parts_have_whole_coins_none_in_common_and_the_contract_of_data_sets(masks):
    whole, photograph = Coins()[0][1], skimage.data.coins()
    for part, expected in (("all", 24), ("train", 12), ("test", 12)):
        (top, bottom), data = PARTS[part], Coins(part)
        assert (len(data), len(list(data)), data.classes) == (1, 1, ("background", "coin"))
        image, target = data[0]
        assert tuple(image.shape[1:]) == (bottom - top, 384)
        assert np.array_equal((image * 255).round().byte().numpy(), np.stack([photograph[top:bottom]] * 3))
        assert len(target["boxes"]) == expected
        inside = (whole["boxes"][:, 1] >= top) & (whole["boxes"][:, 3] <= bottom)
        assert torch.equal(target["area"], whole["area"][inside]), "whole coins: none is cut"
        moved = whole["boxes"][inside] - torch.tensor([0, top, 0, top])
        assert torch.equal(target["boxes"], moved)
        assert target["image_id"] == 1 and set(target["labels"].tolist()) == {1} and not target["iscrowd"].any()
        for box, mask, area in zip(target["boxes"].tolist(), target["masks"], target["area"].tolist(), strict=True):
            rows, columns = np.nonzero(mask.numpy())
            assert box == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] and area == len(rows)
    assert PARTS["train"][1] <= PARTS["test"][0]
    assert not masks[:, [PARTS["train"][1] - 1, PARTS["test"][0]]].any(), "the cut meets no coin"
    target["masks"].zero_(), image.zero_()
    assert data[0][1]["masks"].any() and data[0][0].max() > 0, "each reading gives its own tensors"
    with pytest.raises(ValueError, match="there is no 'tets'; choose from"):
        Coins("tets")
