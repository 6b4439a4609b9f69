"""Merging: how selective search makes regions of regions, and which objects the boxes around them cover so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import traitlets
from torch import Tensor

from minircnn.boxes import box_iou
from minircnn.course.explorables.base import Explorable, as_png, as_text, boxes_of, module
from minircnn.datasets import ToyTown
from minircnn.metrics import proposal_recall
from minircnn.selective_search import SIMILARITIES, MergeTree, Pixels, Strategy, hierarchical_grouping, segment, shrink

COVERED = 0.5  # the IoU from which on a box covers an object
MOST = 256  # first regions, whose numbers fit into a byte
MOST_OBJECTS = 5  # that a figure has colors for


class Merging(Explorable):
    """Selective search, merge by merge: the regions that are left, the boxes so far, and the recall of the objects.

    All is computed in double precision, here and in the figure, so that both merge in the same order to the last pair.

    Args:
        image: ``(3, h, w)`` in [0, 1], no larger than the strategy's ``max_side``.
        objects: ``(G, 4)``, from one to five.
        strategy: where the first regions come from, and which similarities are added up at first.
        traits: any of the others, by name.

    >>> image = torch.zeros(3, 40, 40)
    >>> image[:, :, 10:20], image[:, :, 20:] = 0.4, 1.0
    >>> figure = Merging(image, [[0, 0, 20, 40]], Strategy("rgb", 100, min_size=200))
    >>> len(figure.sizes), figure.recall.item()
    (3, 1.0)
    """

    name, title = "merging", "Selective search: merging"
    alt = (
        "A scene with two balloons and a person in 87 small regions, of which 50 merges have left 37. The boxes so far "
        "cover the person and one balloon: recall is two thirds. The other balloon is still in pieces."
    )
    _esm = module("merging")
    step = traitlets.Int(0, min=0).tag(sync=True)  # merges that are done
    similarities = traitlets.List(traitlets.Enum(SIMILARITIES), list(SIMILARITIES), minlen=1).tag(sync=True)
    objects = traitlets.List(traitlets.List(traitlets.Float(), minlen=4, maxlen=4), minlen=1, maxlen=MOST_OBJECTS).tag(
        sync=True
    )  # x1, y1, x2, y2 in pixels
    labels = traitlets.Unicode().tag(sync=True)  # the first region of each pixel: a byte a pixel, in base64
    sizes = traitlets.List(traitlets.Int(min=1)).tag(sync=True)  # of the first regions, in pixels
    boxes = traitlets.List(traitlets.List(traitlets.Float())).tag(sync=True)  # around them
    neighbors = traitlets.List(traitlets.List(traitlets.Int())).tag(sync=True)  # the pairs of them that touch
    histograms = traitlets.Unicode().tag(sync=True)  # of color, then of texture: rows of floats, in base64
    color_bins = traitlets.Int().tag(sync=True)  # how many of a row are of color
    image_size = traitlets.List(traitlets.Int(min=1), [1, 1], 2, 2).tag(sync=True)  # height and width
    image = traitlets.Unicode().tag(sync=True)

    def __init__(
        self,
        image: Tensor,
        objects: Sequence[Sequence[float]],
        strategy: Strategy = Strategy(),  # noqa: B008 (it is frozen)
        **traits: Any,  # noqa: ANN401
    ) -> None:
        if image.dim() != 3 or len(image) != 3:
            raise ValueError(f"image must be (3, h, w), but has shape {tuple(image.shape)}")
        if max(image.shape) > strategy.max_side:
            raise ValueError(f"image must have at most {strategy.max_side} pixels a side, not {tuple(image.shape[1:])}")
        pixels = Pixels.of(shrink(image, strategy.max_side), strategy.color_space)
        regions = segment(pixels, strategy.scale, strategy.min_size)
        if len(regions.sizes) > MOST:
            raise ValueError(
                f"strategy must have a larger scale or min_size: {len(regions.sizes)} regions, over {MOST}"
            )
        histograms = np.concatenate([regions.color, regions.texture], axis=1).astype("<f4")
        double = {name: getattr(regions, name).astype(np.float64) for name in ("sizes", "boxes", "color", "texture")}
        self._regions = replace(regions, **double)
        given = {
            "image": as_png(image),
            "image_size": list(image.shape[1:]),
            "labels": as_text(regions.labels.astype(np.uint8).tobytes()),
            "sizes": regions.sizes.astype(int).tolist(),
            "boxes": regions.boxes.tolist(),
            "neighbors": regions.neighbors.tolist(),
            "histograms": as_text(histograms.tobytes()),
            "color_bins": regions.color.shape[1],
            "similarities": list(strategy.similarities),
        }
        super().__init__(**{**given, "objects": objects, **traits})

    @classmethod
    def example(cls) -> Merging:
        """Two balloons with stripes and a person in three colors: none of them is one region at first."""
        image, target = ToyTown("train")[102]
        return cls(image, target["boxes"].tolist(), Strategy("lab", 50), step=50)

    @traitlets.validate("objects")
    def _of_positive_size(self, proposal: dict[str, Any]) -> list[list[float]]:
        return boxes_of(proposal, self.image_size)

    @traitlets.validate("step")
    def _that_there_is(self, proposal: dict[str, Any]) -> int:
        if proposal["value"] >= len(self.sizes):
            raise traitlets.TraitError(f"step must be at most {len(self.sizes) - 1}, not {proposal['value']}")
        return proposal["value"]

    @property
    def tree(self) -> MergeTree:
        """All merges: :func:`minircnn.selective_search.hierarchical_grouping`."""
        return hierarchical_grouping(self._regions, self.similarities)

    @property
    def proposals(self) -> Tensor:
        """The boxes of all regions that have existed up to this step, ``(n + step, 4)``."""
        return self.tree.boxes[: len(self.sizes) + self.step].double()

    @property
    def best_iou(self) -> Tensor:
        """How much the best of them overlaps each object, ``(G,)``."""
        return box_iou(torch.tensor(self.objects, dtype=torch.float64), self.proposals).amax(dim=1)

    @property
    def recall(self) -> Tensor:
        """The share of the objects that one of them covers."""
        target = {"boxes": torch.tensor(self.objects, dtype=torch.float64)}
        proposals = self.proposals
        return proposal_recall([proposals], [target], COVERED, [len(proposals)])[0]

    @property
    def by_package(self) -> dict[str, Any]:
        """The pairs in their order, how similar they are, and what the boxes cover."""
        tree = self.tree
        return {
            "merges": tree.children,
            "similarity": tree.similarity,
            "best_iou": self.best_iou,
            "recall": self.recall,
        }
