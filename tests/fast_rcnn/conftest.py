"""Small networks, pictures and proposals that the tests of Fast R-CNN share."""

import pytest
import torch

from minircnn.alexnet import AlexNet, AlexNetConfig
from minircnn.fast_rcnn import fast_rcnn_alexnet

CLASSES = ("background", "cat", "dog", "bird")
TINY = AlexNetConfig(
    channels=(4, 6, 8, 8, 6),
    groups=(1, 1, 1, 1, 1),
    kernel=7,
    stride=2,
    padding=2,
    pool2_padding=1,
    response_norm=False,
    pool5="grid",
    pool5_size=3,
    hidden=16,
    input_size=64,
    blue_first=False,
)


def boxes_in(count, height, width, seed):
    """Proposals of at least four pixels, some of which reach out of the picture."""
    generator = torch.Generator().manual_seed(seed)
    start = torch.rand(count, 2, generator=generator) * torch.tensor([width, height]) - 4
    return torch.cat([start, start + 4 + torch.rand(count, 2, generator=generator) * 40], dim=1)


def target_of(proposals, count, seed):
    """Objects near some of the proposals, so that there are positives."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(proposals), generator=generator)[:count]
    boxes = proposals[chosen] + torch.rand(len(chosen), 4, generator=generator) * 2
    return {"boxes": boxes, "labels": torch.randint(1, len(CLASSES), (len(chosen),), generator=generator)}


@pytest.fixture
def model():
    """A tiny Fast R-CNN with random weights, whose answers differ from class to class."""
    torch.manual_seed(0)
    model = fast_rcnn_alexnet(AlexNet(TINY, 5), CLASSES)
    for parameter in model.roi_heads.box_predictor.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model


@pytest.fixture
def pictures():
    """Three pictures of one size, their proposals, and their targets, the last one without objects."""
    images = [torch.rand(3, 72, 88, generator=torch.Generator().manual_seed(i)) for i in range(3)]
    proposals = [boxes_in(count, 72, 88, seed) for seed, count in enumerate((60, 90, 20))]
    targets = [
        target_of(found, count, seed) for seed, (found, count) in enumerate(zip(proposals, (3, 1, 0), strict=True))
    ]
    return images, proposals, targets
