"""Anchors: which boxes of a grid are positive, negative or ignored, and how far the best is from its object."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import traitlets
from torch import Tensor

from minircnn.boxes import IGNORED, NEGATIVE, POSITIVE, box_iou, encode_boxes
from minircnn.course.explorables.base import Explorable, as_png, boxes_of, module
from minircnn.datasets import ToyTown
from minircnn.faster_rcnn import RPN, RPNConfig, grid_anchors

REACHED = 0.5  # the IoU from which on an object counts as reached by an anchor


class Anchors(Explorable):
    """The anchors of an image's cells, their labels in the training of an RPN, and the best anchor of each object.

    Args:
        image: ``(3, h, w)`` in [0, 1].
        objects: ``(G, 4)``, one or two.
        traits: any of the others, by name.

    >>> figure = Anchors(torch.rand(3, 64, 64), [[16, 16, 48, 48]], stride=16, sizes=[32], aspect_ratios=[1.0])
    >>> round(figure.best_iou.item(), 2)  # the anchors around the object's center are half a stride away
    0.39
    >>> figure.stride = 32
    >>> figure.unreached
    1
    """

    name, title = "anchors", "Anchors"
    alt = (
        "Anchors of 16, 32 and 64 pixels in three aspect ratios, 16 pixels apart, over a palm and a slim poplar. The "
        "best anchor overlaps the palm by 0.73 and the poplar by only 0.36; four arrows lead from it to the poplar."
    )
    _esm = module("anchors")
    objects = traitlets.List(traitlets.List(traitlets.Float(), minlen=4, maxlen=4), minlen=1, maxlen=2).tag(sync=True)
    selected = traitlets.Int(0, min=0).tag(sync=True)  # index of an object
    stride = traitlets.Int(16, min=2).tag(sync=True)  # pixels from cell to cell
    sizes = traitlets.List(traitlets.Float(min=4), [16, 32, 64], minlen=1, maxlen=6).tag(sync=True)  # pixels
    aspect_ratios = traitlets.List(traitlets.Float(min=0.1, max=10), [0.5, 1, 2], minlen=1, maxlen=6).tag(sync=True)
    offset = traitlets.Float(0.5, min=0, max=1).tag(sync=True)  # of an anchor's center in its cell, in strides
    positive = traitlets.Float(0.7, min=0, max=1).tag(sync=True)  # the IoU from which on an anchor is positive
    negative = traitlets.Float(0.3, min=0, max=1).tag(sync=True)  # the IoU below which it is negative
    shown = traitlets.Enum(("positive", "ignored", "best"), "positive").tag(sync=True)  # which are drawn as boxes
    image_size = traitlets.List(traitlets.Int(min=1), [1, 1], 2, 2).tag(sync=True)  # height and width
    image = traitlets.Unicode().tag(sync=True)

    def __init__(self, image: Tensor, objects: Sequence[Sequence[float]], **traits: Any) -> None:  # noqa: ANN401
        if image.dim() != 3 or len(image) != 3:
            raise ValueError(f"image must be (3, h, w), but has shape {tuple(image.shape)}")
        super().__init__(image=as_png(image), image_size=list(image.shape[1:]), objects=objects, **traits)

    @classmethod
    def example(cls) -> Anchors:
        """A slim poplar, which no anchor reaches, and a palm."""
        image, target = ToyTown("train")[123]
        return cls(image, target["boxes"].tolist())

    @traitlets.validate("objects")
    def _of_positive_size(self, proposal: dict[str, Any]) -> list[list[float]]:
        return boxes_of(proposal, self.image_size)

    @traitlets.observe("objects")
    def _select_one_that_is_there(self, _: object) -> None:
        self.selected = min(self.selected, len(self.objects) - 1)

    @traitlets.validate("selected")
    def _of_an_object(self, proposal: dict[str, Any]) -> int:
        if proposal["value"] >= len(self.objects):
            raise traitlets.TraitError(f"selected must be one of {len(self.objects)} objects, not {proposal['value']}")
        return proposal["value"]

    @traitlets.validate("positive", "negative")
    def _in_order(self, proposal: dict[str, Any]) -> float:
        values = {"positive": self.positive, "negative": self.negative, proposal["trait"].name: proposal["value"]}
        if values["negative"] > values["positive"]:
            raise traitlets.TraitError(f"negative must not be above positive, but they are {values}")
        return proposal["value"]

    @property
    def anchors(self) -> Tensor:
        """The anchors of all cells, ``(N, 4)`` float64."""
        height, width = (max(side // self.stride, 1) for side in self.image_size)
        stride = (self.stride, self.stride)
        return grid_anchors((height, width), stride, self.sizes, self.aspect_ratios, self.offset).double()

    @property
    def label(self) -> Tensor:
        """What the RPN makes of each: 1 positive, 0 negative, -1 ignored, ``(N,)``."""
        config = RPNConfig(foreground_iou=self.positive, background_iou=self.negative)
        return RPN(1, config).label_anchors(self.anchors, {"boxes": self._objects})[1]

    @property
    def best(self) -> Tensor:
        """Which anchor each object overlaps most, of equals the first, ``(G,)``."""
        iou = box_iou(self._objects, self.anchors)
        return (iou == iou.amax(dim=1, keepdim=True)).int().argmax(dim=1)

    @property
    def best_iou(self) -> Tensor:
        """How much, ``(G,)``."""
        return box_iou(self._objects, self.anchors).amax(dim=1)

    @property
    def deltas(self) -> Tensor:
        """The regression targets of those anchors, ``(G, 4)``."""
        return encode_boxes(self.anchors[self.best], self._objects)

    @property
    def unreached(self) -> int:
        """How many objects no anchor overlaps by a half."""
        return int((self.best_iou < REACHED).sum())

    @property
    def _objects(self) -> Tensor:
        return torch.tensor(self.objects, dtype=torch.float64)

    @property
    def by_package(self) -> dict[str, Any]:
        """Which anchors are positive, how many are not, and the best of each object."""
        label = self.label
        return {
            "positives": (label == POSITIVE).nonzero().flatten(),
            "counts": [(label == kind).sum() for kind in (POSITIVE, IGNORED, NEGATIVE)],
            "best": self.best,
            "best_iou": self.best_iou,
            "deltas": self.deltas,
            "unreached": self.unreached,
        }
