"""Small pictures in which colour is the class, for R-CNN's tests."""

import pytest
import torch

COLOURS = torch.tensor([[0.5, 0.5, 0.5], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])


def _picture(labels, side=60):
    """Uniform squares of 20 pixels, a colour for each class, on grey."""
    image = COLOURS[0][:, None, None].expand(3, side, side).clone()
    boxes = []
    for i, label in enumerate(labels):
        x, y = 20 * (i % 3), 20 * (i // 3)
        image[:, y : y + 20, x : x + 20] = COLOURS[label][:, None, None]
        boxes.append([x, y, x + 20, y + 20])
    return image, {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor(labels, dtype=torch.int64),
    }


def _random_boxes(count, seed, side=60):
    random = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=random) * (side - 10)
    return torch.cat([corner, (corner + 5 + torch.rand(count, 2, generator=random) * 25).clamp(max=side)], dim=1)


@pytest.fixture(scope="session")
def picture():
    """A function from labels to ``(image, target)``."""
    return _picture


@pytest.fixture(scope="session")
def random_boxes():
    """A function from a number and a seed to boxes inside of a picture."""
    return _random_boxes
