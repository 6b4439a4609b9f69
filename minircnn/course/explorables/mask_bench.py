"""The mask bench: a mask is cut out by a box into a grid of cells, and pasted back into the image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import traitlets
from pycocotools import mask as rle
from torch import Tensor

from minircnn.course.explorables.base import Explorable, as_png, as_text, boxes_of, module
from minircnn.datasets import ToyTown
from minircnn.mask_rcnn import paste_masks, project_masks_on_boxes

SCENE, CAT = 483, 0  # a cat on four legs, with its tail up
WINDOW = (slice(12, 88), slice(30, 106))  # rows and columns around it: a pixel should be large enough to see
PROPOSAL = (5, 13, 64, 62)


class MaskBench(Explorable):
    """The mask of an object as the target of the mask branch in a box, and what is left of it when it is pasted back.

    Args:
        image: ``(3, h, w)`` in [0, 1].
        mask: the true mask, ``(h, w)`` bool, not empty.
        box: x1, y1, x2, y2 in pixels; the smallest one around the mask, if it is not given.
        traits: any of the others, by name.

    >>> mask = torch.zeros(40, 40, dtype=torch.bool)
    >>> mask[10:30, 10:20] = True
    >>> bench = MaskBench(torch.rand(3, 40, 40), mask, m=10)
    >>> bench.iou
    1.0
    >>> bench.box = (10, 10, 20, 20)  # it cuts the lower half off
    >>> bench.iou, bench.iou_in_box
    (0.5, 1.0)
    """

    name, title = "mask_bench", "Mask there and back"
    alt = (
        "A cat and a box that cuts off its tail. The part of the cat's mask in the box becomes a target of 14 by 14 "
        "cells, which is pasted back into the image: the tail is lost, and so are the tips of ears and paws."
    )
    _esm = module("mask_bench")
    box = traitlets.List(traitlets.Float(), [0.0, 0.0, 1.0, 1.0], 4, 4).tag(sync=True)  # x1, y1, x2, y2 in pixels
    m = traitlets.Int(14, min=5, max=56).tag(sync=True)  # cells a side
    threshold = traitlets.Float(0.5, min=0, max=1).tag(sync=True)  # a pixel above it belongs to the pasted mask
    aligned = traitlets.Bool(True).tag(sync=True)  # whether pixel k is centered at k + 1/2
    image_size = traitlets.List(traitlets.Int(min=1), [1, 1], 2, 2).tag(sync=True)  # height and width
    image = traitlets.Unicode().tag(sync=True)
    mask = traitlets.Unicode().tag(sync=True)  # a byte a pixel, 0 or 1, in base64

    def __init__(self, image: Tensor, mask: Tensor, box: Sequence[float] | None = None, **traits: Any) -> None:  # noqa: ANN401
        if image.dim() != 3 or len(image) != 3:
            raise ValueError(f"image must be (3, h, w), but has shape {tuple(image.shape)}")
        if mask.dtype != torch.bool or mask.shape != image.shape[1:] or not mask.any():
            raise ValueError(f"mask must be {tuple(image.shape[1:])} bool with a pixel in it, not {tuple(mask.shape)}")
        self._truth = mask
        if box is None:
            rows, columns = (mask.any(dim=axis).nonzero().flatten().tolist() for axis in (1, 0))
            box = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
        stage = {"image": as_png(image), "image_size": list(mask.shape), "mask": as_text(mask.numpy().tobytes())}
        super().__init__(box=box, **stage, **traits)

    @classmethod
    def example(cls) -> MaskBench:
        """A cat with thin legs, and a proposal that cuts off its tail."""
        image, target = ToyTown("train", masks=True)[SCENE]
        return cls(image[(slice(None), *WINDOW)].contiguous(), target["masks"][CAT][WINDOW].contiguous(), PROPOSAL)

    @traitlets.validate("box")
    def _in_the_image(self, proposal: dict[str, Any]) -> list[float]:
        return boxes_of({**proposal, "value": [proposal["value"]]}, self.image_size)[0]

    @property
    def target(self) -> Tensor:
        """The shares of the cells: ``(m, m)`` float64."""
        box = torch.tensor([self.box], dtype=torch.float64)
        return project_masks_on_boxes(self._truth[None], box, torch.tensor([0]), self.m, self.aligned)[0]

    @property
    def pasted(self) -> Tensor:
        """The target in the image, ``(h, w)`` bool; less than a billionth above the threshold is rounding."""
        box = torch.tensor([self.box], dtype=torch.float64)
        values = paste_masks(self.target[None], box, tuple(self.image_size), self.aligned)[0, 0]
        return (1e9 * values).round() > round(1e9 * self.threshold)

    @property
    def iou(self) -> float:
        """Of the pasted mask with the true one."""
        return _iou(self.pasted, self._truth)

    @property
    def iou_in_box(self) -> float:
        """The same for those pixels alone whose center lies in the box."""
        x1, y1, x2, y2 = self.box
        (height, width), inside = self.image_size, torch.zeros_like(self._truth)
        y, x = torch.arange(height) + 0.5, torch.arange(width) + 0.5
        inside[:] = ((y >= y1) & (y <= y2))[:, None] & ((x >= x1) & (x <= x2))
        return _iou(self.pasted & inside, self._truth & inside)

    @property
    def by_package(self) -> dict[str, Any]:
        """The target, and how the pasted mask agrees with the true one."""
        pasted, truth = self.pasted, self._truth
        return {
            "target": self.target,
            "shared": (pasted & truth).sum(),
            "lost": (truth & ~pasted).sum(),
            "gained": (pasted & ~truth).sum(),
            "iou": self.iou,
            "iou_in_box": self.iou_in_box,
        }


def _iou(mask: Tensor, truth: Tensor) -> float:
    """COCO's, which is 0 for two empty masks."""
    encoded = [rle.encode(np.asfortranarray(one.numpy().astype(np.uint8))) for one in (mask, truth)]
    return float(rle.iou([encoded[0]], [encoded[1]], [0])[0, 0])
