"""Kinds of errors of a detector (Hoiem, Chodpathumwan and Dai 2012, "Diagnosing error in object detectors")."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from minircnn.boxes import box_iou

KINDS = ("true positive", "localization error", "class confusion", "background error")


@dataclass(frozen=True, order=True)
class Judged:
    """A detection, and which of the :data:`KINDS` it is; the order is that of scores."""

    score: float
    image: int
    row: int  # in the detections of its image
    kind: str


def sort_errors(
    detections: Sequence[Mapping[str, Tensor]], targets: Sequence[Mapping[str, Tensor]], label: int
) -> list[Judged]:
    """Sort the best detections of a class, as many as it has objects, best first.

    A localization error has an IoU of 0.1 to 0.5 with an object of its class, or is a duplicate; a class confusion has
    0.1 with an object of another class only; the rest is background.
    """
    wanted = sum(int((target["labels"] == label).sum()) for target in targets)
    ranked = sorted(
        (
            (float(score), image, row)
            for image, found in enumerate(detections)
            for row, (score, k) in enumerate(zip(found["scores"], found["labels"], strict=True))
            if k == label
        ),
        reverse=True,
    )
    taken: set[tuple[int, int]] = set()
    return [
        Judged(score, image, row, _kind(detections[image]["boxes"][row], targets[image], label, image, taken))
        for score, image, row in ranked[:wanted]
    ]


def _kind(box: Tensor, target: Mapping[str, Tensor], label: int, image: int, taken: set[tuple[int, int]]) -> str:
    if not len(target["labels"]):
        return KINDS[3]
    overlap = box_iou(box[None], target["boxes"])[0]  # (G,)
    of_class = overlap.masked_fill(target["labels"] != label, 0)
    best = int(of_class.argmax())
    if of_class[best] >= 0.5 and (image, best) not in taken:
        taken.add((image, best))
        return KINDS[0]
    if of_class[best] >= 0.1:
        return KINDS[1]
    return KINDS[2] if overlap.max() >= 0.1 else KINDS[3]
