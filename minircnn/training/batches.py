"""Batches of images with their objects and proposals, augmented."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from minircnn.boxes import clip_boxes
from minircnn.targets import Sample, check_target
from minircnn.training.loop import share
from minircnn.training.samples import cut_out, random_part
from minircnn.transforms import Transform, check_image, hflip, hflip_boxes

Samples = Sequence[Sample]


@dataclass(frozen=True)
class Augmentation:
    """How images are changed at random in training: with the probability ``hflip`` of a flip, the papers' only change.

    For the others see :func:`color_jitter` and :func:`random_scale`: a batch grows or shrinks as one.
    Of images larger than ``crop_size``, in pixels as the backbone sees them, a batch holds random parts.
    """

    hflip: float = 0.5
    color_jitter: float = 0.0
    scale_jitter: float = 0.0
    crop_size: int | None = None

    def seen(self, transform: Transform) -> Transform:
        """The transform for the parts that are left: what is cut out comes to the size that it has in the image."""
        side = self.crop_size
        return replace(transform, min_size=min(side, transform.min_size), max_size=side) if side else transform


@dataclass(frozen=True)
class Batch:
    """This process's part of a batch, with an entry for each image in every list.

    ``scale`` is a factor of the size at which the detector sees the images.
    """

    images: list[Tensor] = field(default_factory=list)  # (3, H, W) in [0, 1]
    targets: list[dict[str, Any]] = field(default_factory=list)
    proposals: list[Tensor] = field(default_factory=list)  # (P, 4)
    scale: float = 1.0


def draw_batch(
    iteration: int,
    samples: Samples,
    proposals: Sequence[Tensor] | None = None,
    *,
    images_per_batch: int,
    seed: int,
    augmentation: Augmentation | None = None,
    transform: Transform | None = None,
    device: torch.device | str = "cpu",
) -> Batch:
    """Draw the batch of an iteration, or this process's part of it; every image has its turn before one comes again.

    What is drawn depends on the seed, the iteration (counted from 0) and the place in the batch alone. Objects and
    proposals are changed with their image; by default half of the images are flipped. ``transform``, the detector's,
    says how large the backbone sees an image; it is needed for a ``crop_size``.

    Raises:
        ValueError: more images than there are, another number of proposals, or an image or a target is wrong.
    """
    if proposals is not None and len(samples) != len(proposals):
        raise ValueError(f"there are {len(samples)} images but proposals for {len(proposals)}: give one tensor each")
    if not 1 <= images_per_batch <= len(samples):
        raise ValueError(f"images_per_batch is {images_per_batch}, but there are {len(samples)} images")
    augmentation, of_batch = augmentation or Augmentation(), torch.Generator().manual_seed(seed * 1_000_003 + iteration)
    batch = Batch(scale=random_scale(augmentation.scale_jitter, of_batch))
    for place, index in share(list(enumerate(images_of(iteration, len(samples), images_per_batch, seed)))):
        generator = torch.Generator().manual_seed((seed * 1_000_003 + iteration) * 1_009 + place)
        image, target = samples[index]
        check_image(image, f"the image of samples[{index}]")
        # Before anything is flipped: a flipped fraction of the image would look like pixels.
        target = check_target(target, f"samples[{index}]", size=tuple(image.shape[-2:]))
        boxes = image.new_zeros(0, 4) if proposals is None else proposals[index]
        if augmentation.crop_size:
            size = tuple(image.shape[-2:])
            side = round(augmentation.crop_size * size[0] / transform.new_size(size)[0])
            part = random_part(size, max(side, 1), generator)
            image, target = cut_out(image, target, part)
            boxes = clip_boxes(boxes - boxes.new_tensor([part[1], part[0]]).repeat(2), tuple(image.shape[-2:]))
            boxes = boxes[(boxes[:, 2:] > boxes[:, :2]).all(dim=1)]
        if torch.rand((), generator=generator) < augmentation.hflip:
            boxes = hflip_boxes(boxes, image.shape[-1])
            image, target = hflip(image, target)
        if augmentation.color_jitter:
            image = color_jitter(image, augmentation.color_jitter, generator)
        batch.images.append(image.to(device))
        batch.targets.append(target)
        batch.proposals.append(boxes)
    return batch


class DrawnAhead:
    """Draw each batch in a thread, the next one while the last is learned from: reading then takes no time of its own.

    Args:
        draw: gives the batch of an iteration, and depends on nothing else, not even on torch's global generator.
        iterations: how many there are.
    """

    def __init__(self, draw: Callable[[int], Batch], iterations: int) -> None:
        self.draw, self.iterations, self.pool = draw, iterations, ThreadPoolExecutor(1)
        self.next: tuple[int, Future[Batch]] | None = None

    def __call__(self, iteration: int) -> Batch:
        """The batch of an iteration; an error in drawing it is raised here, and not before."""
        if self.next is None or self.next[0] != iteration:
            self.next = iteration, self.pool.submit(self.draw, iteration)
        batch = self.next[1].result()
        following = iteration + 1
        self.next = (following, self.pool.submit(self.draw, following)) if following < self.iterations else None
        return batch


def images_of(iteration: int, count: int, batch: int, seed: int) -> list[int]:
    """The images of a batch: a new random order of all of them each time all had their turn.

    >>> sorted(images_of(0, 6, 3, seed=0) + images_of(1, 6, 3, seed=0))
    [0, 1, 2, 3, 4, 5]
    """
    places = range(iteration * batch, (iteration + 1) * batch)
    orders = {
        epoch: torch.randperm(count, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch)).tolist()
        for epoch in {place // count for place in places}
    }
    return [orders[place // count][place % count] for place in places]


def color_jitter(image: Tensor, amount: float, generator: torch.Generator) -> Tensor:
    """Vary contrast, brightness and tint of an image ``(3, H, W)`` in [0, 1], which stays in that range.

    Contrast and brightness change by up to ``amount``, in [0, 1], more or less; tint by half of it.
    """
    contrast, brightness, *tint = (amount * (2 * torch.rand(5, generator=generator) - 1)).tolist()
    gain = 1 + brightness + 0.5 * image.new_tensor(tint).view(3, 1, 1)
    return (((image - 0.5) * (1 + contrast) + 0.5) * gain).clamp(0, 1)


def random_scale(amount: float, generator: torch.Generator) -> float:
    """Draw a factor from ``1 / (1 + amount)`` to ``1 + amount``; to shrink is as likely as to grow."""
    return (1 + amount) ** (2 * torch.rand((), generator=generator).item() - 1)
