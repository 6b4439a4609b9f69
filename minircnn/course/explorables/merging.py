"""Selective search: neighbors merge step by step, and every region that existed proposes its box."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import traitlets
from torch import Tensor

from minircnn.boxes import box_iou
from minircnn.course.explorables.base import Explorable, as_png, as_text, boxes_of, module
from minircnn.datasets import ToyTown
from minircnn.selective_search import (
    SIMILARITIES,
    MergeTree,
    Pixels,
    Regions,
    hierarchical_grouping,
    segment,
    shrink,
)


class Merging(Explorable):
    """The grouping of an image's first regions, merge by merge.

    Args:
        image: ``(3, h, w)`` in [0, 1].
        objects: ``(G, 4)``, the boxes that proposals should find.
        scale: of the first segmentation; it must give 2 to 256 regions.
        traits: any of the others, by name.
    """

    name, title = "merging", "Selective search"
    alt = (
        "Regions of an image in colors, the pair of neighbors that merges next, and the boxes proposed so far. A curve "
        "shows how the recall of the objects grows with the merges."
    )
    _esm = module("merging")
    step = traitlets.Int(0, min=0).tag(sync=True)  # merges done
    weights = traitlets.List(traitlets.Int(min=0, max=1), [1, 1, 1, 1], 4, 4).tag(sync=True)  # 0: off
    objects = traitlets.List(traitlets.List(traitlets.Float(), minlen=4, maxlen=4), minlen=1).tag(sync=True)
    image_size = traitlets.List(traitlets.Int(min=1), [1, 1], 2, 2).tag(sync=True)  # height and width
    image = traitlets.Unicode().tag(sync=True)
    labels = traitlets.Unicode().tag(sync=True)  # a byte a pixel, in base64
    regions = traitlets.Dict().tag(sync=True)  # what the similarities need to know of the first regions

    def __init__(
        self,
        image: Tensor,
        objects: Sequence[Sequence[float]],
        scale: float = 100,
        **traits: Any,  # noqa: ANN401
    ) -> None:
        if image.dim() != 3 or len(image) != 3:
            raise ValueError(f"image must be (3, h, w), but has shape {tuple(image.shape)}")
        self.first = first = segment(Pixels.of(shrink(image, max(image.shape)), "hsv"), scale)
        if not 2 <= len(first.sizes) <= 256:
            raise ValueError(f"there must be 2 to 256 first regions, but scale {scale} gives {len(first.sizes)}")
        super().__init__(
            image_size=list(image.shape[1:]),
            image=as_png(image),
            labels=as_text(first.labels.astype(np.uint8).tobytes()),
            regions=_handed_over(first),
            objects=objects,
            **traits,
        )

    @classmethod
    def example(cls) -> Merging:
        """A car, a balloon and a house at night."""
        image, target = ToyTown("train")[12]
        return cls(image, target["boxes"].tolist(), scale=40, step=45)

    @traitlets.validate("objects")
    def _of_positive_size(self, proposal: dict[str, Any]) -> list[list[float]]:
        return boxes_of(proposal, self.image_size)

    @traitlets.validate("step")
    def _not_after_the_last(self, proposal: dict[str, Any]) -> int:
        if proposal["value"] >= len(self.first.sizes):
            raise traitlets.TraitError(f"step must be below {len(self.first.sizes)}, but is {proposal['value']}")
        return proposal["value"]

    @traitlets.validate("weights")
    def _not_all_off(self, proposal: dict[str, Any]) -> list[int]:
        if not any(proposal["value"]):
            raise traitlets.TraitError("weights must leave one similarity on")
        return proposal["value"]

    @property
    def tree(self) -> MergeTree:
        """All merges: :func:`minircnn.selective_search.hierarchical_grouping`."""
        used = [name for name, weight in zip(SIMILARITIES, self.weights, strict=True) if weight]
        return hierarchical_grouping(self.first, used)

    @property
    def by_package(self) -> dict[str, Any]:
        """The two nodes of every merge, the boxes so far, and their recall at IoU 0.5."""
        tree = self.tree
        boxes = tree.boxes[: tree.num_first + self.step].double()
        iou = box_iou(torch.tensor(self.objects, dtype=torch.float64), boxes).amax(dim=1)
        return {"children": tree.children, "boxes": boxes, "recall": (iou >= 0.5).double().mean()}


def _handed_over(first: Regions) -> dict[str, Any]:
    histograms = {name: as_text(getattr(first, name).astype("<f4").tobytes()) for name in ("color", "texture")}
    bins = {f"{name}_bins": getattr(first, name).shape[1] for name in ("color", "texture")}
    rows = {name: getattr(first, name).tolist() for name in ("sizes", "boxes", "neighbors")}
    return {**histograms, **bins, **rows}
