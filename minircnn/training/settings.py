"""Settings that follow from the data: at what size to look at images, which anchors, how many proposals, how long.

Defaults of this project suit Toy Town, defaults of papers COCO's photographs on a GPU. Objects of another size need
other anchors and another image size, or they are never proposed.

Shape comments: G objects of an image, N objects of a data set.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from minircnn.alexnet import AlexNet
from minircnn.boxes import box_iou
from minircnn.fast_rcnn import RoIConfig
from minircnn.faster_rcnn import (
    FINEST_STRIDE,
    PYRAMID_HEADS,
    PYRAMID_RPN,
    TOY_TOWN_HEADS,
    TOY_TOWN_RPN,
    RPNConfig,
    grid_anchors,
)
from minircnn.mask_rcnn import PYRAMID_MASK_HEADS, TOY_TOWN_MASK_HEADS, TOY_TOWN_MASK_RPN
from minircnn.resnet_fpn import ResNetFPN
from minircnn.targets import single_objects
from minircnn.training.recipes import JointTrainingSettings
from minircnn.transforms import Size, Transform, resize_boxes

CELLS = 5  # of the feature map that an object of middle size is to span: pooling sees little of smaller ones
SMALLEST, LARGEST = 192, 1333  # sides of images in pixels as the backbone sees them: what Toy Town has, and COCO's
CROP = 384  # pixels as the backbone sees them: of larger images a training batch holds random parts
STEP = 1.7  # from one anchor size to the next, at most: halfway between them IoU is still 1 / 1.7
TIMES = 60  # that each image is learned from, as in the training on Toy Town
FEWEST, MOST = 2000, 90_000  # iterations: some minutes of a processor, and those of the papers
FEWEST_OF_PHOTOGRAPHS = 2800  # for a backbone that knows them and learns slowly, from one image at a time
LEVELS = 5  # of a feature pyramid
SHORT, FAST = 3000, 3e-3  # a training of fewer iterations takes this learning rate
LOW_RECALL = 0.8  # of the best possible one: less means that objects are too small or too odd for these anchors


@dataclass(frozen=True)
class Measured:
    """What a data set shows, for :func:`settings_for`; crowds aside."""

    sizes: list[Size]  # (height, width) of each image
    boxes: list[Tensor]  # (G, 4) of each image, in its own pixels

    @property
    def most_objects(self) -> int:
        """In one image."""
        return max(map(len, self.boxes), default=0)


@dataclass(frozen=True)
class DataSettings:
    """What to train with; sizes are in pixels of the image as the backbone sees it."""

    min_size: int  # of the shorter side
    max_size: int  # of the longer one, at most
    crop_size: int | None  # side of the part of an image that a batch holds; None: all of it
    anchor_sizes: tuple[float, ...]  # square roots of areas; of a pyramid one for each level
    aspect_ratios: tuple[float, ...]  # height / width
    proposals: int  # of an image, in detection
    max_detections: int  # of an image
    iterations: int
    images_per_batch: int
    reasons: tuple[str, ...]  # what was chosen and why, a line each
    pyramid: bool = False
    photographs: bool = False  # whether the backbone was pre-trained on them, and not on Toy Town

    def training(
        self,
        kind: type[JointTrainingSettings],
        trained: bool = False,
        **given: Any,  # noqa: ANN401 - each has its own type
    ) -> JointTrainingSettings:
        """The settings of a training; short ones take larger steps, unless they begin with a ``trained`` detector.

        A backbone that knows photographs keeps what it knows: it learns slowly, conv1 and conv2 not at all. What is
        ``given`` counts before what was chosen.
        """
        chosen = ("iterations", "images_per_batch", "min_size", "max_size", "crop_size")
        chosen = {name: getattr(self, name) for name in chosen}
        if self.photographs:
            chosen |= {"backbone_lr_mult": 0.1, "frozen": 2}
        short = given.get("iterations", self.iterations) < SHORT
        fast = short and not (trained or self.pyramid or self.photographs)
        return kind(**{**chosen, "learning_rate": FAST if fast else kind.learning_rate, **given})

    def heads(self, network: AlexNet | ResNetFPN, masks: bool = False) -> RoIConfig:
        """The configuration of the RoI heads behind a backbone."""
        if self.pyramid:
            return replace(PYRAMID_MASK_HEADS if masks else PYRAMID_HEADS, max_detections=self.max_detections)
        usual = TOY_TOWN_MASK_HEADS if masks else TOY_TOWN_HEADS
        usual = replace(usual, batch_size_per_image=128) if self.photographs else usual
        return replace(usual, pool_size=network.config.pool5_size, max_detections=self.max_detections)

    def rpn(self, masks: bool = False) -> RPNConfig:
        """The RPN's configuration."""
        if self.pyramid:
            levels = tuple((size,) for size in self.anchor_sizes)
            return replace(PYRAMID_RPN, anchor_sizes=levels, aspect_ratios=self.aspect_ratios)
        usual, before, after = TOY_TOWN_MASK_RPN if masks else TOY_TOWN_RPN, 4 * self.proposals, 200
        if self.photographs:  # of one large image in a batch: the paper's numbers (section 3.1.3), but fewer proposals
            usual = replace(usual, batch_size_per_image=256, nms_threshold=(0.7, 0.7))
            before, after = max(before, 4000), 500
        return replace(
            usual,
            anchor_sizes=(self.anchor_sizes,),
            aspect_ratios=self.aspect_ratios,
            pre_nms_top_n=(1000, before),
            post_nms_top_n=(after, self.proposals),
        )


def measure(data: Any, progress: Callable[[Iterable[int]], Iterable[int]] = iter) -> Measured:  # noqa: ANN401
    """Sizes and boxes of a data set, of ours without decoding an image, or of any ``(image, target)`` pairs."""
    sizes, boxes = [], []
    for index in progress(range(len(data))):
        if hasattr(data, "load_target"):
            size, target = data.image_size(index), data.load_target(index, encoded=True)
        else:
            image, target = data[index]
            size = image.shape[-2:]
        where = {name: target[name] for name in ("boxes", "labels", "iscrowd") if name in target}
        boxes.append(single_objects(where)["boxes"].float())
        sizes.append((int(size[0]), int(size[1])))
    return Measured(sizes, boxes)


def settings_for(
    data: Any,  # noqa: ANN401 - a data set, or what :func:`measure` found in it
    *,
    stride: int = 8,
    images_per_batch: int | None = None,
    min_size: int | None = None,
    max_size: int | None = None,
    anchor_sizes: Sequence[float] | None = None,
    aspect_ratios: Sequence[float] | None = None,
    pyramid: bool = False,
    trained: RPNConfig | None = None,
    photographs: bool = False,
) -> DataSettings:
    """Settings for Faster and Mask R-CNN from the images that they are to learn from, ``(image, target)`` pairs.

    What is given is not chosen: ``images_per_batch`` of the training, ``min_size`` and ``max_size`` of the transform,
    ``anchor_sizes`` and ``aspect_ratios``, or else the anchors of a ``trained`` RPN that the training begins with.
    ``stride`` is that of the backbone's feature map in pixels; each level of a ``pyramid`` has anchors of one size,
    twice that of the level before. A backbone pre-trained on ``photographs``, not on Toy Town, learns from batches of
    one whole image, which shows large objects, too, and as many pixels as a batch of Toy Town.

    Raises:
        ValueError: no image shows an object that is no crowd, or a pyramid's levels and anchor_sizes do not pair up.
    """
    found = data if isinstance(data, Measured) else measure(data)
    shorter = np.array([min(size) for size in found.sizes])
    boxes = [of_image[(of_image[:, 2:] > of_image[:, :2]).all(dim=1)] for of_image in found.boxes]
    shapes = torch.cat(boxes) if boxes else torch.zeros(0, 4)
    if not len(shapes):
        raise ValueError(f"data: no object in its {len(found.sizes)} images, nothing to learn from")
    shapes = (shapes[:, 2:] - shapes[:, :2]).double().numpy()  # (N, 2) width, height
    sides, ratios = np.sqrt(shapes.prod(axis=1)), shapes[:, 1] / shapes[:, 0]
    counts = [len(of_image) for of_image in boxes]
    share = float(np.median(sides / np.repeat(shorter, counts)))  # of the shorter side of its image
    longest = float(np.quantile([max(size) / min(size) for size in found.sizes], 0.95))
    why = {"image size": _why(min_size), "anchors": _why(anchor_sizes)}
    if trained and anchor_sizes is None:
        why["anchors"] = ", those of the start;"
        anchor_sizes = [size for level in trained.anchor_sizes for size in level]
        aspect_ratios = aspect_ratios or trained.aspect_ratios
    if min_size is None:
        min_size = max(32 * round(min(CELLS * stride / share, LARGEST / longest) / 32), SMALLEST)
    max_size = max_size or 32 * math.ceil(min_size * longest / 32)
    transform = Transform(min_size=min_size, max_size=max_size)
    scales = [transform.new_size(size)[0] / size[0] for size in found.sizes]
    seen = sides * np.repeat(scales, counts)  # (N,) as the backbone sees them
    small, large = np.quantile(seen, (0.05, 0.95))
    anchor_sizes = tuple(anchor_sizes or _anchor_sizes(small, large, pyramid))
    if pyramid and len(anchor_sizes) != LEVELS:
        given = _listed(anchor_sizes)
        raise ValueError(f"anchor_sizes: a pyramid has {LEVELS} levels with one each, but is given {given}")
    aspect_ratios = tuple(aspect_ratios or ()) or _distinct(np.quantile(ratios, (1 / 6, 1 / 2, 5 / 6)).round(2), 1.15)
    proposals = int(np.clip(100 * math.ceil(found.most_objects / 10), 300, 1000))
    detections = max(50 * math.ceil(found.most_objects * 1.5 / 50), 100)
    crop = None if photographs or max_size <= CROP else CROP
    images_per_batch = images_per_batch or (1 if photographs else 2 if pyramid else 4)
    iterations = _iterations(len(found.sizes), images_per_batch, min_size if photographs else SMALLEST, photographs)
    small, large, cells = round(small), round(large), share * min_size / stride
    reasons = (
        f"image size: shorter side {min_size}, longer at most {max_size} pixels{why['image size']} half of the objects "
        f"are smaller than {100 * share:.0f} % of it, {cells:.1f} cells of the feature map",
        f"anchors: {_listed(anchor_sizes)} pixels in aspect ratios {_listed(aspect_ratios)}{why['anchors']} nine of "
        f"ten objects measure {small} to {large} pixels at that size",
        f"{proposals} proposals and {detections} detections an image, because there are up to {found.most_objects} "
        "objects in one",
    )
    sizes = (min_size, max_size, crop, anchor_sizes, aspect_ratios)
    return DataSettings(*sizes, proposals, detections, iterations, images_per_batch, reasons, pyramid, photographs)


def _iterations(images: int, images_per_batch: int, min_size: int, photographs: bool) -> int:
    """So many that each image is learned from as often as on Toy Town; larger ones less often, by their pixels."""
    fewest = FEWEST_OF_PHOTOGRAPHS if photographs else FEWEST
    return int(np.clip(TIMES * (SMALLEST / min_size) ** 2 * images // images_per_batch, fewest, MOST))


def _anchor_sizes(small: float, large: float, pyramid: bool) -> tuple[float, ...]:
    """From small objects to large ones, in steps that leave none of them far from the next; of a pyramid doubling."""
    if pyramid:
        finest = 2.0 ** int(np.clip(round(math.log2(max(small, 1))), 3, 5))
        return tuple(finest * 2**level for level in range(LEVELS))
    steps = min(math.ceil(math.log(max(large / small, 1)) / math.log(STEP)) + 1, 7)
    return _distinct(np.geomspace(small, large, steps).round(), 1.1)


def _why(given: Any) -> str:  # noqa: ANN401
    return ", because" if given is None else ", as given;"


def anchor_recall(found: Measured, settings: DataSettings, stride: int = 8, iou: float = 0.5) -> float:
    """The share of objects that some anchor of the grid overlaps by this much: what no training can make better.

    With box regression a proposal can become better than its anchor; an object that no anchor overlaps by half is
    hardly ever proposed.
    """
    levels = [(stride, settings.anchor_sizes)]
    if settings.pyramid:
        levels = [(FINEST_STRIDE * 2**level, [own]) for level, own in enumerate(settings.anchor_sizes)]
    transform, covered, count = Transform(min_size=settings.min_size, max_size=settings.max_size), 0, 0
    for size, boxes in zip(found.sizes, found.boxes, strict=True):
        if len(boxes):
            new = transform.new_size(size)
            anchors = [
                grid_anchors((-(-new[0] // step), -(-new[1] // step)), (step, step), own, settings.aspect_ratios, 0.5)
                for step, own in levels
            ]
            overlap = box_iou(resize_boxes(boxes, size, new), torch.cat(anchors)).amax(dim=1)
            covered, count = covered + int((overlap >= iou).sum()), count + len(boxes)
    return covered / max(count, 1)


def _distinct(values: np.ndarray, factor: float) -> tuple[float, ...]:
    """Ascending values without those that are less than so many times the one before."""
    kept: list[float] = []
    for value in sorted(map(float, values)):
        if not kept or value >= factor * kept[-1]:
            kept.append(value)
    return tuple(kept)


def _listed(values: Iterable[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)
