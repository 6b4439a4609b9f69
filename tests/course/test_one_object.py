"""The images of one object, how they are reframed, and accuracy."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score

from minircnn.alexnet import SMALL, AlexNet
from minircnn.course.one_object import accuracy, one_object_images, reframe
from minircnn.datasets.toytown import SUBTYPES


def test_one_object_images():
    """That they are the painter's, tests/workshop checks."""
    for split, count in (("train", 2000), ("val", 500)):
        images, subtypes = one_object_images(split)
        assert images.shape == (count, 3, 64, 64) and images.dtype == torch.uint8
        assert len(images.flatten(1).unique(dim=0)) == count
        assert set(subtypes.tolist()) == set(range(len(SUBTYPES)))
        some, their_subtypes = one_object_images(split, 12)
        assert torch.equal(some, images[:12]) and torch.equal(their_subtypes, subtypes[:12])


def reframe_by_hand(image, amount, width, height, right, down, mirror):
    """One image, one pixel at a time; the numbers between -1 and 1 as they were drawn."""
    image = image.double().numpy()
    side = image.shape[1]
    result = np.empty_like(image)
    for row in range(side):
        for column in range(side):
            across, along = (2 * column + 1) / side - 1, (2 * row + 1) / side - 1  # from -1 to 1
            across = across * (1 + amount * width) * mirror + amount * right
            along = along * (1 + amount * height) + amount * down
            x = min(max((across + 1) / 2 * side - 0.5, 0), side - 1)
            y = min(max((along + 1) / 2 * side - 0.5, 0), side - 1)
            left, top = min(int(x), side - 2), min(int(y), side - 2)
            a, b = x - left, y - top
            upper = (1 - a) * image[:, top, left] + a * image[:, top, left + 1]
            lower = (1 - a) * image[:, top + 1, left] + a * image[:, top + 1, left + 1]
            result[:, row, column] = (1 - b) * upper + b * lower
    return result


@pytest.mark.parametrize("amount", [0.2, 0.5])
def test_reframe_equals_a_slow_loop(amount):
    images = torch.rand(8, 3, 9, 9, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(4)
    found = reframe(images, amount)
    torch.manual_seed(4)
    drawn, coin = torch.rand(4, 8) * 2 - 1, torch.rand(8)
    for i, (image, numbers) in enumerate(zip(images, drawn.T.tolist(), strict=True)):
        wanted = reframe_by_hand(image, amount, *numbers, mirror=-1 if coin[i] < 0.5 else 1)
        np.testing.assert_allclose(found[i], wanted, atol=1e-5)


@pytest.mark.parametrize("count", [1, 520])
def test_accuracy_equals_scikit_learns(count):
    """In training mode before, with dropout, and more images than are looked at at once."""
    torch.manual_seed(0)
    network = AlexNet(replace(SMALL, channels=(4, 4, 4, 4, 8), hidden=16), len(SUBTYPES)).train()
    blots = torch.rand(count, 3, 3, 3, generator=torch.Generator().manual_seed(2))
    images = (torch.nn.functional.interpolate(blots, (64, 64)) * 255).to(torch.uint8)
    network.eval()
    with torch.no_grad():
        network.fc8.bias -= network((images[:50] / 255 - 0.45) / 0.25).mean(dim=0)  # so that answers differ
        guess = [int(network((image[None] / 255 - 0.45) / 0.25).argmax()) for image in images]
    network.train()
    truth = [g if i % 3 else (g + 1 + i) % len(SUBTYPES) for i, g in enumerate(guess)]
    found = accuracy(network, images, torch.tensor(truth))
    assert count == 1 or len(set(guess)) > 3
    assert found.subtypes == pytest.approx(accuracy_score(truth, guess))
    names = [[SUBTYPES[index].split("/")[0] for index in indices] for indices in (truth, guess)]
    assert found.classes == pytest.approx(accuracy_score(*names))
    assert count == 1 or found.classes > found.subtypes > 0.5
