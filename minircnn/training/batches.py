"""Images with their objects and proposals, as a training reads them: checked and kept, cut, augmented, in batches.

Shape comments: G objects and P proposals of an image.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from minircnn.boxes import clip_boxes
from minircnn.datasets.folders import boxes_around
from minircnn.datasets.masks import decode_masks, encode_masks, shrink_masks
from minircnn.targets import Sample, check_target, single_objects
from minircnn.training.loop import share
from minircnn.transforms import Size, Transform, check_image, hflip, hflip_boxes, resize, resize_boxes

Samples = Sequence[Sample]
LEAST = 0.3  # share of an object that a part must show; of less one cannot tell what it is


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

    ``draw`` gives the batch of an iteration, and depends on nothing else, not even on torch's global generator.
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


class KeptSamples:
    """A data set of which each image is read and checked once, and kept as long as there is room.

    Reading an image and a hundred files of masks may take longer than learning from it. Images are kept as bytes, a
    quarter of their floats, and masks as run lengths; both come back as they were. Of images much larger than the
    backbone sees them, the smaller ones are kept: a hundred masks of 12 megapixels would take 1.2 GB in each batch.

    ``num_classes`` is for :func:`minircnn.targets.check_target`; images beyond the ``room``, in bytes, are read
    whenever they are asked for; ``largest`` resizes images to the largest size at which a backbone will see them, at
    which those with sides at least twice as long are kept.
    """

    def __init__(
        self, samples: Sequence[Sample], num_classes: int, room: int = 2 << 30, largest: Transform | None = None
    ) -> None:
        self.samples, self.num_classes, self.room, self.largest = samples, num_classes, room, largest
        self._kept: dict[int, tuple[Tensor, dict[str, Any]]] = {}

    def __len__(self) -> int:
        return len(self.samples)

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Sample:
        """An image and its target, both new; what is wrong with them is refused as ``samples[index]``."""
        image, target = self._kept[index] if index in self._kept else self._read(index)
        if "masks" in target:
            target = {**target, "masks": decode_masks(target["masks"], tuple(image.shape[1:]))}
        return image if image.is_floating_point() else image.float() / 255, dict(target)

    def _read(self, index: int) -> Sample:
        """An image, in bytes if they hold it, and its target with masks as run lengths; kept if there is room."""
        if hasattr(self.samples, "load_target"):
            image, target = self.samples.load_image(index), self.samples.load_target(index, encoded=True)
        else:
            image, target = self.samples[index]
        check_image(image, f"the image of samples[{index}]")
        size, masks = tuple(image.shape[1:]), target.get("masks")
        others = {name: value for name, value in target.items() if name != "masks" or isinstance(masks, Tensor)}
        target = check_target(others, f"samples[{index}]", num_classes=self.num_classes, size=size)
        if masks is not None:
            target["masks"] = masks if isinstance(masks, list) else encode_masks(target["masks"])
        new = self.largest.new_size(size) if self.largest else size
        if 2 * max(new) <= max(size):
            image, target = resize(image, new), _shrink(target, size, new)
        small = (image * 255).round().clamp(0, 255).byte()
        if new != size or (image.dtype == torch.float32 and torch.equal(small.float() / 255, image)):
            image = small
            needed = image.nbytes + sum(len(runs["counts"]) for runs in target.get("masks", ()))
            if needed <= self.room:
                self._kept[index], self.room = (image, target), self.room - needed
        return image, target


def _shrink(target: dict[str, Any], old: Size, new: Size) -> dict[str, Any]:
    """:func:`minircnn.transforms.resize_target` for masks as run lengths, of which one lies in memory at a time."""
    shrunk = {**target, "boxes": resize_boxes(target["boxes"], old, new)}
    if "masks" in target:
        shrunk["masks"] = shrink_masks(target["masks"], old, new)
    return shrunk


def random_part(size: Size, side: int, generator: torch.Generator) -> tuple[int, int, int, int]:
    """A part of an image, at most so many pixels high and wide: first row and column, and those behind the last."""
    height, width = (min(length, side) for length in size)
    top = int(torch.randint(size[0] - height + 1, (), generator=generator))
    left = int(torch.randint(size[1] - width + 1, (), generator=generator))
    return top, left, top + height, left + width


def cut_out(
    image: Tensor, target: dict[str, Any], part: tuple[int, int, int, int], least: float = LEAST
) -> tuple[Tensor, dict[str, Any]]:
    """Cut a part out of an image ``(3, H, W)``, with what it shows of the objects of its target.

    ``part`` is the first row and column, and those behind the last. What is left of an object with a smaller share than
    ``least`` of its pixels (without masks: of its box) counts as a crowd: neither an object nor background.

    Returns a view of the image and a new target. Objects without a pixel in the part are gone; boxes are clipped, or
    with masks, as areas, those of the remaining pixels.
    """
    top, left, bottom, right = part
    count, found = len(target["boxes"]), dict(target)
    if "masks" in target:
        found["masks"] = target["masks"][:, top:bottom, left:right]  # (G, h, w)
        before, after = (_counts(masks) for masks in (target["masks"], found["masks"]))  # (G,)
        found["boxes"] = boxes_around(found["masks"])
    else:
        boxes = target["boxes"] - target["boxes"].new_tensor([left, top, left, top])
        limit = boxes.new_tensor([right - left, bottom - top]).repeat(2)
        found["boxes"] = boxes.clamp(min=0).minimum(limit)
        before, after = ((b[:, 2:] - b[:, :2]).prod(dim=1) for b in (boxes, found["boxes"]))  # (G,)
    crowd = target.get("iscrowd", torch.zeros(count, dtype=torch.bool)).bool()
    found |= {"iscrowd": crowd | (after < least * before), "area": after.float()}
    seen = after > 0
    of_objects = {name: v[seen] for name, v in found.items() if isinstance(v, Tensor) and v.dim() and len(v) == count}
    return image[:, top:bottom, left:right], {**found, **of_objects}


def _counts(masks: Tensor) -> Tensor:
    """How many pixels each mask ``(G, H, W)`` bool has. NumPy counts them thirty times as fast as PyTorch adds them."""
    return torch.tensor([np.count_nonzero(mask) for mask in masks.numpy()], dtype=torch.int64)


def check_any_object(targets: Iterable[Mapping[str, Any]], name: str) -> None:
    """Refuse a data set, of this name, that shows no object, or crowds alone, with a ValueError.

    Reading ends with the first image that shows an object.
    """
    images, crowds = 0, 0
    for target in targets:
        known = {key: target[key] for key in ("labels", "iscrowd", "image_id") if key in target}
        read = check_target(known, name, needs=("labels",))
        if len(single_objects(read)["labels"]):
            return
        images, crowds = images + 1, crowds + len(read["labels"])
    only = f"only crowds ({crowds})" if crowds else "no object"
    raise ValueError(f"{name}: {only} in its {images} images, nothing to learn from; look at annotations and classes")
