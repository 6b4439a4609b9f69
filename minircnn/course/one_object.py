"""Images of one object, with which notebook 03 trains and measures a classifier.

``data/one_object/images.jpg`` holds them as tiles; ``python -m workshop.one_object`` has painted them.
"""

import json
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from minircnn.alexnet import AlexNet
from minircnn.datasets.images import read_image
from minircnn.datasets.toytown import CLASSES, SUBTYPES
from minircnn.shipped import ONE_OBJECT_FOLDER

SIDE = 64
"""Height and width of an image in pixels."""


@dataclass(frozen=True)
class Accuracy:
    """Shares of images that were classified correctly, in [0, 1]."""

    subtypes: float
    classes: float


def one_object_images(split: str, count: int | None = None) -> tuple[Tensor, Tensor]:
    """The first images, or all (2000 and 500), of one object each, centered and well framed.

    Half of the photographs behind those of "val" are never seen in "train". Returns (N, 3, 64, 64) uint8 images and
    (N,) int64 sub-types, indices into :data:`minircnn.datasets.toytown.SUBTYPES`.
    """
    about = json.loads((ONE_OBJECT_FOLDER / "about.json").read_text(encoding="utf-8"))[split]
    subtypes = torch.tensor(about["subtypes"])
    sheet = (read_image(ONE_OBJECT_FOLDER / about["file"]) * 255).round().to(torch.uint8)
    tiles = sheet.unfold(1, SIDE, SIDE).unfold(2, SIDE, SIDE)  # (3, rows, columns, 64, 64)
    return tiles.flatten(1, 2).transpose(0, 1)[:count].contiguous(), subtypes[:count]


def reframe(images: Tensor, amount: float = 0.2) -> Tensor:
    """Flip each image (B, 3, S, S) or not, shift it, and stretch or shrink it in each direction on its own.

    A proposal never frames its object as the painter did, and R-CNN warps every proposal to a square. ``amount`` is the
    largest change of a side, and twice the largest shift, as a share of the image. Outside is the color of the edge.
    """
    random = torch.rand(4, len(images), device=images.device) * 2 - 1
    flip = torch.where(torch.rand(len(images), device=images.device) < 0.5, -1.0, 1.0)
    theta = torch.zeros(len(images), 2, 3, device=images.device)
    theta[:, 0, 0] = (1 + amount * random[0]) * flip
    theta[:, 1, 1] = 1 + amount * random[1]
    theta[:, :, 2] = amount * random[2:].T
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


@torch.no_grad()
def accuracy(network: AlexNet, images: Tensor, subtypes: Tensor) -> Accuracy:
    """Measure how often a network of 21 outputs predicts the sub-type, and the class, of (N, 3, S, S) uint8 images."""
    device = network.fc8.weight.device
    network.eval()
    scores = [network(network.normalize(part.to(device).float() / 255)).cpu() for part in images.split(500)]
    predicted = torch.cat(scores).argmax(dim=1)  # (N,)
    class_of = torch.tensor([CLASSES.index(name.split("/")[0]) for name in SUBTYPES])  # (21,)
    right = predicted == subtypes, class_of[predicted] == class_of[subtypes]
    return Accuracy(*(found.double().mean().item() for found in right))
