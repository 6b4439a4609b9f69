"""Kinds of errors of a detector (Hoiem, Chodpathumwan and Dai 2012, "Diagnosing error in object detectors")."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from minircnn.boxes import box_iou

Objects = Sequence[Mapping[str, Tensor]]  # detections or targets
KINDS = ("true positive", "localization error", "class confusion", "background error")


@dataclass(frozen=True, order=True)
class Judged:
    """A detection, and which of the :data:`KINDS` it is; the order is that of scores."""

    score: float
    image: int
    row: int  # in the detections of its image
    kind: str


def error_kind(overlap: Tensor, labels: Tensor, k: int, taken: Tensor) -> str:
    """The kind of a detection of class k from its IoU ``(G,)`` with objects; ``taken`` are those found already."""
    if not len(overlap):
        return KINDS[3]
    of_class = overlap.masked_fill(labels != k, 0)
    best = int(of_class.argmax())
    if of_class[best] >= 0.5 and not taken[best]:
        return KINDS[0]
    if of_class[best] >= 0.1:
        return KINDS[1]
    return KINDS[2] if overlap.max() >= 0.1 else KINDS[3]


def sort_errors(detections: Objects, targets: Objects, label: int, kind_of: Callable = error_kind) -> list[Judged]:
    """Sort the best detections of a class, as many as it has objects, best first, by a rule as :func:`error_kind`."""
    wanted = sum(int((target["labels"] == label).sum()) for target in targets)
    ranked = []
    for image, found in enumerate(detections):
        rows = (found["labels"] == label).nonzero().flatten().tolist()
        ranked += [(float(found["scores"][row]), image, row) for row in rows]
    taken = [torch.zeros(len(target["labels"]), dtype=torch.bool) for target in targets]
    judged = []
    for score, image, row in sorted(ranked, reverse=True)[:wanted]:
        target = targets[image]
        overlap = box_iou(detections[image]["boxes"][row][None], target["boxes"])[0]  # (G,)
        kind = kind_of(overlap, target["labels"], label, taken[image])
        if kind == KINDS[0]:
            taken[image][overlap.masked_fill(target["labels"] != label, 0).argmax()] = True
        judged.append(Judged(score, image, row, kind))
    return judged
