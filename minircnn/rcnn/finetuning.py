"""The first of R-CNN's three trainings: the network learns to name warped proposals (R-CNN, 2.3 and appendix B).

Until now it has seen pictures of one well-framed object. Proposals are something else: stretched to a square, framed
badly, and mostly of nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from minircnn.boxes import box_iou
from minircnn.matching import match
from minircnn.targets import Sample, in_crowd, single_objects


@dataclass(frozen=True)
class FineTuningSettings:
    """What a batch is made of.

    Attributes:
        batch: proposals in a batch, drawn from all pictures of the data set.
        positives: how many of them show an object; the rest is background. In nature it is one of dozens.
        positive_iou: how much a proposal must overlap an object to carry its name. Paper vs code: much looser than for
            the SVM, for which only the objects themselves are positives (appendix B: a network needs many examples).
    """

    batch: int = 128
    positives: int = 32
    positive_iou: float = 0.5


class ProposalPool:
    """All proposals of a data set, and the objects themselves, sorted into positives and background.

    Attributes:
        picture: (N,) int64, the index of the picture that each box belongs to.
        boxes: (N, 4).
        labels: (N,) int64, the class of a positive, 0 for background.
    """

    def __init__(self, samples: Sequence[Sample], proposals: Sequence[Tensor], positive_iou: float) -> None:
        pictures, boxes, labels = [], [], []
        for index, found in enumerate(proposals):
            _, target = samples[index]
            objects = single_objects(target)
            candidates = torch.cat([found, objects["boxes"].to(found)])  # (P + G, 4)
            gt_index, label = match(box_iou(objects["boxes"].to(found), candidates), positive_iou, positive_iou)
            label = torch.where(label == 1, _take(objects["labels"], gt_index), 0)
            counts = ~in_crowd(candidates, target)
            boxes.append(candidates[counts])
            labels.append(label[counts])
            pictures.append(torch.full((int(counts.sum()),), index))
        self.picture, self.boxes, self.labels = torch.cat(pictures), torch.cat(boxes), torch.cat(labels)
        self._positive, self._background = torch.where(self.labels > 0)[0], torch.where(self.labels == 0)[0]
        if not len(self._positive) or not len(self._background):
            raise ValueError(
                f"fine-tuning needs objects and background, but of {len(self.labels)} boxes {len(self._positive)} show "
                "an object: look at the annotations and the proposals"
            )

    def draw(self, positives: int, background: int) -> Tensor:
        """Numbers of boxes, drawn with torch's global generator, all of equal chance within each kind, sorted."""
        kinds = ((self._positive, positives), (self._background, background))
        return torch.cat([kind[torch.randint(len(kind), (count,))] for kind, count in kinds]).sort().values


def _take(values: Tensor, index: Tensor) -> Tensor:
    """``values[index]``, or zeros where there are no values."""
    return values[index] if len(values) else torch.zeros_like(index)
