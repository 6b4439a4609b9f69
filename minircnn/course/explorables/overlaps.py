"""Overlaps: detections of one class in an image, what NMS leaves of them, and their average precision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import traitlets
from torch import Tensor

from minircnn.boxes import box_iou, nms
from minircnn.course.explorables.base import Explorable, as_png, boxes_of, module
from minircnn.datasets import ToyTown
from minircnn.evaluation import Result, evaluate

Rows = traitlets.List(traitlets.Float(), minlen=4, maxlen=4)
MOST = 100  # detections of an image that COCO counts


class Overlaps(Explorable):
    """Detections of one class in an image: their IoU with the objects, NMS, and the precision-recall curve.

    Args:
        image: ``(3, h, w)`` in [0, 1].
        truths: the objects, ``(G, 4)``, at least one.
        boxes: the detections, ``(D, 4)``, at least one.
        scores: theirs, ``(D,)``, in [0, 1].
        traits: any of the others, by name.

    >>> figure = Overlaps(torch.rand(3, 40, 40), [[0, 0, 20, 20]], [[0, 0, 20, 15], [1, 0, 21, 15]], [0.9, 0.8])
    >>> figure.kept.tolist(), figure.result.ap
    ([0], 1.0)
    >>> figure.iou_threshold = 0.8
    >>> figure.result.ap
    0.0
    """

    name, title = "overlaps", "Overlap, NMS and average precision"
    alt = (
        "Seven detections of three cats. NMS at 0.5 suppresses two duplicates; of the five boxes that remain three are "
        "true positives. The precision-recall curve has an area, the average precision, of 0.92."
    )
    _esm = module("overlaps")
    truths = traitlets.List(Rows, minlen=1).tag(sync=True)  # x1, y1, x2, y2 in pixels
    boxes = traitlets.List(Rows, minlen=1, maxlen=MOST).tag(sync=True)
    scores = traitlets.List(traitlets.Float(min=0, max=1)).tag(sync=True)
    nms_threshold = traitlets.Float(0.5, min=0, max=1).tag(sync=True)
    iou_threshold = traitlets.Float(0.5, min=0.01, max=1).tag(sync=True)  # that a true positive needs
    counted = traitlets.Int(MOST, min=0).tag(sync=True)  # detections, best score first, that take part
    selected = traitlets.Int(0, min=0).tag(sync=True)  # index of a detection
    image_size = traitlets.List(traitlets.Int(min=1), [1, 1], 2, 2).tag(sync=True)  # height and width
    image = traitlets.Unicode().tag(sync=True)

    def __init__(
        self,
        image: Tensor,
        truths: Sequence[Sequence[float]],
        boxes: Sequence[Sequence[float]],
        scores: Sequence[float],
        **traits: Any,  # noqa: ANN401
    ) -> None:
        if image.dim() != 3 or len(image) != 3:
            raise ValueError(f"image must be (3, h, w), but has shape {tuple(image.shape)}")
        given = {"truths": truths, "boxes": boxes, "scores": scores, "counted": len(boxes), **traits}
        super().__init__(image=as_png(image), image_size=list(image.shape[1:]), **given)

    @classmethod
    def example(cls) -> Overlaps:
        """Three cats, two of them close together, and a traffic cone that passes for a fourth."""
        image, target = ToyTown("train")[141]
        boxes = [
            *([38, 55, 80, 105], [1, 38, 39, 106], [70, 60, 104, 99], [44, 60, 88, 107]),
            *([12, 22, 39, 78], [4, 47, 42, 110], [18, 30, 50, 70]),
        ]
        return cls(image, target["boxes"].tolist(), boxes, [0.95, 0.9, 0.82, 0.78, 0.7, 0.55, 0.4], selected=3)

    @traitlets.validate("truths", "boxes")
    def _of_positive_size(self, proposal: dict[str, Any]) -> list[list[float]]:
        rows = boxes_of(proposal, self.image_size)
        if proposal["trait"].name == "boxes":
            self._agree(len(rows), len(self.scores))
        return rows

    @traitlets.validate("scores")
    def _one_for_each_box(self, proposal: dict[str, Any]) -> list[float]:
        self._agree(len(self.boxes), len(proposal["value"]))
        return proposal["value"]

    @traitlets.observe("boxes")
    def _select_one_that_is_there(self, _: object) -> None:
        self.selected = min(self.selected, len(self.boxes) - 1)

    @traitlets.validate("selected")
    def _of_a_box(self, proposal: dict[str, Any]) -> int:
        if proposal["value"] >= len(self.boxes):
            raise traitlets.TraitError(f"selected must be one of {len(self.boxes)} boxes, but is {proposal['value']}")
        return proposal["value"]

    @staticmethod
    def _agree(boxes: int, scores: int) -> None:
        if boxes != scores:
            raise traitlets.TraitError(
                f"there must be a score for each box, but there are {boxes} boxes and {scores} scores; "
                "set both within hold_trait_notifications()"
            )

    @property
    def iou(self) -> Tensor:
        """Of every detection with every object, ``(D, G)``."""
        return box_iou(*(torch.tensor(rows, dtype=torch.float64) for rows in (self.boxes, self.truths)))

    @property
    def kept(self) -> Tensor:
        """Which of the counted detections NMS leaves, best first."""
        boxes, scores = (torch.tensor(rows, dtype=torch.float64) for rows in (self.boxes, self.scores))
        best = scores.argsort(descending=True, stable=True)[: self.counted]
        return best[nms(boxes[best], scores[best], self.nms_threshold)]

    @property
    def result(self) -> Result:
        """What :func:`minircnn.evaluation.evaluate` says of those, at ``iou_threshold``."""
        boxes, scores, truths = (
            torch.tensor(rows, dtype=torch.float64) for rows in (self.boxes, self.scores, self.truths)
        )
        kept = self.kept
        found = {"boxes": boxes[kept], "scores": scores[kept], "labels": torch.ones_like(kept)}
        target = {"boxes": truths, "labels": torch.ones(len(truths), dtype=torch.int64)}
        return evaluate([found], [target], iou_thresholds=[self.iou_threshold])

    @property
    def by_package(self) -> dict[str, Any]:
        """IoUs, what NMS keeps, the curve and its average."""
        result = self.result
        curve = result.curve(1, self.iou_threshold)
        return {
            "iou": self.iou,
            "kept": self.kept,
            "true_positive": result.rankings[1].tp[0, 0],
            "precision": curve.precision,
            "recall": curve.recall,
            "average_precision": curve.average_precision,
        }
