"""Random squares against slices, loops and NumPy's own turning."""

import numpy as np
import torch

from minircnn.course.coins import RandomSquares, cut_out, turn


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
