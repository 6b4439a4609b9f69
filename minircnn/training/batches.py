"""Batches of pictures with their objects: whose turn it is, and which of them are mirrored."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from minircnn.targets import check_target
from minircnn.training.parallel import share
from minircnn.transforms import check_image, color_jitter, hflip, hflip_boxes, random_scale

Samples = Sequence[tuple[Tensor, dict[str, Any]]]


@dataclass(frozen=True)
class Batch:
    """This process's part of a batch; the lists have an entry for each picture.

    Attributes:
        images: ``(3, H, W)`` in [0, 1].
        targets: objects.
        proposals: ``(P, 4)``; empty where none were given.
        scale: factor of the size at which the detector sees them.
    """

    images: list[Tensor] = field(default_factory=list)
    targets: list[dict[str, Any]] = field(default_factory=list)
    proposals: list[Tensor] = field(default_factory=list)
    scale: float = 1.0


@dataclass(frozen=True)
class Augmentation:
    """How images are changed at random in training.

    Attributes:
        hflip: probability of a horizontal flip, in [0, 1]. The papers' only augmentation.
        color_jitter: see :func:`minircnn.transforms.color_jitter`.
        scale_jitter: see :func:`minircnn.transforms.random_scale`. All images of a batch grow or shrink alike, or the
            padding would depend on which of them a process has.
    """

    hflip: float = 0.5
    color_jitter: float = 0.0
    scale_jitter: float = 0.0


def draw_batch(
    iteration: int,
    samples: Samples,
    proposals: Sequence[Tensor] | None,
    *,
    pictures: int,
    seed: int,
    augmentation: Augmentation | None = None,
    device: torch.device | str = "cpu",
) -> Batch:
    """The batch of an iteration: every picture has its turn before one comes again.

    What is drawn depends on the seed, the iteration and the place in the batch alone. So several processes, which share
    the batch, draw what one would draw, and a run that is taken up again goes on as if nothing had happened.

    Args:
        iteration: counted from 0.
        samples: ``(image, target)`` pairs.
        proposals: for each of them, or None.
        pictures: in the batch of all processes.
        seed: of everything that is drawn.
        augmentation: how pictures are changed, with their objects and proposals; by default some are mirrored.
        device: where the pictures go.

    Raises:
        ValueError: more images than there are, another number of proposals, or an image or a target is wrong.
    """
    if proposals is not None and len(samples) != len(proposals):
        raise ValueError(f"there are {len(samples)} pictures but proposals for {len(proposals)}: give one tensor each")
    if not 1 <= pictures <= len(samples):
        raise ValueError(f"images_per_batch is {pictures}, but there are {len(samples)} pictures")
    augmentation, of_batch = augmentation or Augmentation(), torch.Generator().manual_seed(seed * 1_000_003 + iteration)
    batch = Batch(scale=random_scale(augmentation.scale_jitter, of_batch))
    for place, index in share(list(enumerate(pictures_of(iteration, len(samples), pictures, seed)))):
        generator = torch.Generator().manual_seed((seed * 1_000_003 + iteration) * 1_009 + place)
        image, target = samples[index]
        check_image(image, f"the image of samples[{index}]")
        # Before anything is mirrored: a mirrored fraction of the image would look like pixels.
        target = check_target(target, f"samples[{index}]", size=tuple(image.shape[-2:]))
        found = image.new_zeros(0, 4) if proposals is None else proposals[index]
        image, target, found = _vary(image, target, found, augmentation, generator)
        batch.images.append(image.to(device))
        batch.targets.append(target)
        batch.proposals.append(found)
    return batch


def _vary(
    image: Tensor, target: dict[str, Any], proposals: Tensor, augmentation: Augmentation, generator: torch.Generator
) -> tuple[Tensor, dict[str, Any], Tensor]:
    """A picture, its objects and its proposals, mirrored together or not, in some light."""
    if torch.rand((), generator=generator) < augmentation.hflip:
        proposals = hflip_boxes(proposals, image.shape[-1])
        image, target = hflip(image, target)
    if augmentation.color_jitter:
        image = color_jitter(image, augmentation.color_jitter, generator)
    return image, target, proposals


def pictures_of(iteration: int, count: int, batch: int, seed: int) -> list[int]:
    """Which pictures a batch takes: a new random order of all of them each time all had their turn.

    >>> sorted(pictures_of(0, 6, 3, seed=0) + pictures_of(1, 6, 3, seed=0))
    [0, 1, 2, 3, 4, 5]
    """
    places = range(iteration * batch, (iteration + 1) * batch)
    orders = {
        epoch: torch.randperm(count, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch)).tolist()
        for epoch in {place // count for place in places}
    }
    return [orders[place // count][place % count] for place in places]
