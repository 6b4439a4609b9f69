"""The masks of the coins against circles; random squares against slices, loops and NumPy's own turning."""

import numpy as np
import pytest
import skimage.data
import torch
from scipy import ndimage

from minircnn.course.coins import PARTS, RandomSquares, coins_of, cut_out, segment_coins, turn

# Middle (x, y) of the coins, read off the image by eye, row by row; good to some pixels.
BY_EYE = [
    *((45, 55), (100, 57), (155, 51), (216, 51), (276, 53), (335, 44)),
    *((46, 125), (103, 127), (154, 128), (206, 124), (271, 119), (337, 125)),
    *((45, 198), (102, 196), (155, 198), (213, 193), (274, 194), (347, 187)),
    *((46, 260), (114, 266), (172, 262), (245, 264), (301, 264), (358, 268)),
]


@pytest.fixture(scope="module")
def masks():
    return coins_of()[1]["masks"].numpy()  # (24, 303, 384)


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


def test_parts_have_whole_coins_and_none_in_common(masks):
    whole, photograph = coins_of()[1], skimage.data.coins()
    for part, expected in (("all", 24), ("train", 12), ("test", 12)):
        (top, bottom), (image, target) = PARTS[part], coins_of(part)
        assert tuple(image.shape[1:]) == (bottom - top, 384)
        assert np.array_equal((image * 255).round().byte().numpy(), np.stack([photograph[top:bottom]] * 3))
        assert len(target["boxes"]) == expected
        inside = (whole["boxes"][:, 1] >= top) & (whole["boxes"][:, 3] <= bottom)
        assert torch.equal(target["masks"], whole["masks"][inside, top:bottom])
        assert torch.equal(target["masks"].sum((1, 2)), whole["masks"].sum((1, 2))[inside]), "whole coins: none is cut"
        moved = whole["boxes"][inside] - torch.tensor([0, top, 0, top])
        assert torch.equal(target["boxes"], moved)
        assert set(target["labels"].tolist()) == {1}
        for box, mask in zip(target["boxes"].tolist(), target["masks"], strict=True):
            rows, columns = np.nonzero(mask.numpy())
            assert box == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert PARTS["train"][1] <= PARTS["test"][0]
    assert not masks[:, [PARTS["train"][1] - 1, PARTS["test"][0]]].any(), "the cut meets no coin"


def sample(height, width, *corners, crowd=()):
    """A image in which every pixel is different, and objects that are blocks: x1, y1, x2, y2."""
    image = torch.arange(3 * height * width).view(3, height, width).float() / (3 * height * width)
    masks = torch.zeros(len(corners), height, width, dtype=torch.bool)
    for mask, (x1, y1, x2, y2) in zip(masks, corners, strict=True):
        mask[y1:y2, x1:x2] = True
    return image, {
        "boxes": torch.tensor(corners).float().view(-1, 4),
        "labels": torch.arange(len(corners)) + 1,
        "image_id": 7,
        "iscrowd": torch.tensor([index in crowd for index in range(len(corners))], dtype=torch.bool),
        "area": masks.sum(dim=(1, 2)).float(),
        "masks": masks,
    }


def test_cut_out_by_hand():
    # Whole; a quarter of it inside; 3 of 4 columns inside; outside; outside, and touching the part's edge.
    blocks = (4, 4, 6, 6), (1, 1, 5, 5), (7, 5, 11, 6), (11, 7, 12, 8), (0, 3, 3, 9)
    image, target = sample(10, 12, *blocks)
    part, found = cut_out(image, target, (3, 3, 8, 10), least=0.3)
    assert torch.equal(part, image[:, 3:8, 3:10])
    assert found["boxes"].tolist() == [[1, 1, 3, 3], [0, 0, 2, 2], [4, 2, 7, 3]]
    assert found["labels"].tolist() == [1, 2, 3]
    assert found["area"].tolist() == [4, 4, 3]
    assert found["iscrowd"].tolist() == [False, True, False], "of the second a quarter is left"
    assert torch.equal(found["masks"], target["masks"][:3, 3:8, 3:10])
    assert found["image_id"] == 7
    assert target["boxes"].tolist() == [list(block) for block in blocks], "what was given is as it was"
    assert cut_out(image, target, (3, 3, 8, 10), least=0.25)[1]["iscrowd"].tolist() == [False] * 3


def test_crowds_stay_crowds_and_there_may_be_no_object():
    image, target = sample(10, 12, (1, 1, 5, 5), (6, 6, 8, 8), crowd=[0])
    assert cut_out(image, target, (0, 0, 10, 12))[1]["iscrowd"].tolist() == [True, False]
    _, found = part = cut_out(*sample(10, 12, (0, 0, 2, 2)), (5, 5, 9, 10))
    assert (found["boxes"].shape, found["masks"].shape, found["labels"].dtype) == ((0, 4), (0, 4, 5), torch.int64)
    _, turned = turn(*part, 1)
    assert (turned["boxes"].shape, turned["masks"].shape) == ((0, 4), (0, 5, 4))


def all_forms(image, side):
    """Every square of an image in all eight positions, by the bytes of its pixels."""
    forms = {}
    for top in range(image.shape[1] - side + 1):
        for left in range(image.shape[2] - side + 1):
            square = image[:, top : top + side, left : left + side].numpy()
            for quarters in range(4):
                turned = np.rot90(square, quarters, axes=(1, 2))
                forms[turned.tobytes()] = (top, left, quarters, False)
                forms[turned[:, :, ::-1].tobytes()] = (top, left, quarters, True)
    return forms


def test_squares_are_of_the_images_and_of_every_kind():
    samples = [sample(6, 9, (1, 1, 4, 4)), sample(7, 5, (0, 0, 5, 7))]
    squares = RandomSquares(samples, 4, 600, seed=3)
    assert len(squares) == 600
    for which, (source, objects) in enumerate(samples):
        forms, seen = all_forms(source, 4), set()
        for index in range(which, 600, 2):  # the images take turns
            image, target = squares[index]
            form = top, left, quarters, mirrored = forms[image.numpy().tobytes()]
            seen.add(form)
            expected = np.rot90(objects["masks"][0, top : top + 4, left : left + 4].numpy(), quarters)
            expected = expected[:, ::-1] if mirrored else expected
            assert len(target["masks"]) == int(expected.any())
            if expected.any():
                assert np.array_equal(target["masks"][0].numpy(), expected)
                rows, columns = np.nonzero(expected)
                assert target["boxes"].tolist() == [[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]]
            assert target["image_id"] == index + 1
        tops, lefts, *kinds = zip(*seen, strict=True)
        assert {*zip(*kinds, strict=True)} == {(q, m) for q in range(4) for m in (False, True)}
        assert ({*tops}, {*lefts}) == ({*range(source.shape[1] - 3)}, {*range(source.shape[2] - 3)})


def test_an_index_always_gives_the_same_and_small_images_are_taken_whole():
    samples = [sample(20, 20, (2, 2, 9, 9))]
    first, again, other = (RandomSquares(samples, 8, 30, seed=seed) for seed in (1, 1, 2))
    torch.manual_seed(5)
    there = [first[index][0] for index in range(30)]
    torch.manual_seed(6)
    assert all(torch.equal(again[index][0], there[index]) for index in reversed(range(30)))
    assert sum(torch.equal(other[index][0], there[index]) for index in range(30)) < 5
    image, target = RandomSquares([sample(6, 9, (1, 1, 4, 4))], 100, 5)[3]
    assert image.shape == (3, 6, 6) and target["masks"].shape[1:] == (6, 6)
