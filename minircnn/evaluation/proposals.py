"""How good are proposals before anybody has said what is in them?

A detector can only find what its proposals cover. Two numbers tell how much that is, at every budget of proposals:
the share of objects that some proposal overlaps well enough (recall), and how well the best proposal fits on average
(Uijlings et al. 2013, section 5: average best overlap, ABO, and its mean over the classes, MABO).
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from minircnn.boxes import box_iou
from minircnn.targets import check_target, single_objects


def proposal_recall(
    proposals: Sequence[Tensor],
    targets: Sequence[Mapping[str, Tensor]],
    iou_threshold: float,
    counts: Sequence[int],
) -> Tensor:
    """The share of the objects of a data set that the first n proposals of their image cover.

    Args:
        proposals: one ``(P, 4)`` tensor for each image, best first. P may differ and may be 0.
        targets: the targets of the same images; ``"boxes"`` ``(G, 4)`` and, where there is one, ``"iscrowd"`` ``(G,)``.
            Crowd regions are left out: no single box can be right for them.
        iou_threshold: a proposal covers an object if their IoU is at least this; in (0, 1].
        counts: budgets n, at least 1. An image with fewer proposals than n is asked for all that it has.

    Returns:
        ``(len(counts),)`` float64 in [0, 1], ``nan`` if no image holds an object. All objects of the data set
        count the same, whichever image they are in.

    Raises:
        ValueError: if the two lists differ in length, or something in them does not fit.

    >>> truth = {"boxes": torch.tensor([[0.0, 0.0, 10.0, 10.0], [20.0, 0.0, 30.0, 10.0]])}
    >>> boxes = torch.tensor([[0.0, 0.0, 10.0, 9.0], [0.0, 0.0, 5.0, 5.0], [21.0, 0.0, 31.0, 10.0]])
    >>> proposal_recall([boxes], [truth], iou_threshold=0.5, counts=[1, 2, 3])
    tensor([0.5000, 0.5000, 1.0000], dtype=torch.float64)
    """
    if not 0 < iou_threshold <= 1:
        raise ValueError(f"iou_threshold must lie in (0, 1], but is {iou_threshold}")
    overlaps, _ = _best_overlaps(proposals, targets, counts)
    return (overlaps >= iou_threshold).double().mean(dim=1)


def mean_best_overlap(
    proposals: Sequence[Tensor],
    targets: Sequence[Mapping[str, Tensor]],
    counts: Sequence[int],
    average: str = "objects",
) -> Tensor:
    """How well the best of the first n proposals fits an object, on average (Uijlings et al. 2013, section 5).

    Args:
        proposals: as in :func:`proposal_recall`.
        targets: as in :func:`proposal_recall`, and ``"labels"`` ``(G,)`` if ``average`` is "classes".
        counts: as in :func:`proposal_recall`.
        average: "objects": the mean over all objects, which frequent classes dominate. "classes": first over the
            objects of each class (the paper's ABO), then over the classes (the paper's MABO).

    Returns:
        ``(len(counts),)`` float64 in [0, 1], ``nan`` if no image holds an object.

    Raises:
        ValueError: if the two lists differ in length, or something in them does not fit.

    >>> truth = {"boxes": torch.tensor([[0.0, 0.0, 10.0, 10.0]])}
    >>> mean_best_overlap([torch.tensor([[0.0, 0.0, 10.0, 5.0], [0.0, 0.0, 10.0, 9.0]])], [truth], counts=[1, 2])
    tensor([0.5000, 0.9000], dtype=torch.float64)
    """
    if average not in ("objects", "classes"):
        raise ValueError(f'average must be "objects" or "classes", but is {average!r}')
    needs = ("boxes", "labels") if average == "classes" else ("boxes",)
    overlaps, labels = _best_overlaps(proposals, targets, counts, needs)
    if average == "objects" or not len(labels):
        return overlaps.mean(dim=1)
    of_classes = [overlaps[:, labels == label].mean(dim=1) for label in labels.unique()]
    return torch.stack(of_classes).mean(dim=0)


def _best_overlaps(
    proposals: Sequence[Tensor],
    targets: Sequence[Mapping[str, Tensor]],
    counts: Sequence[int],
    needs: Sequence[str] = ("boxes",),
) -> tuple[Tensor, Tensor]:
    """For each budget and object the best IoU, ``(len(counts), objects)`` float64, and the objects' labels."""
    if len(proposals) != len(targets):
        raise ValueError(
            f"proposals and targets must have one entry for each image, in the same order, "
            f"but there are {len(proposals)} and {len(targets)}"
        )
    if not len(counts) or min(counts) < 1:
        raise ValueError(f"counts must be numbers of proposals, each at least 1, but are {list(counts)}")
    overlaps = [torch.zeros(len(counts), 0, dtype=torch.float64)]
    labels = [torch.zeros(0, dtype=torch.int64)]
    for index, (boxes, target) in enumerate(zip(proposals, targets, strict=True)):
        if boxes.dim() != 2 or boxes.shape[1] != 4:
            raise ValueError(f"proposals[{index}] must have shape (P, 4), but has shape {tuple(boxes.shape)}")
        boxes_alone = {name: value for name, value in target.items() if name != "masks"}  # which may be run lengths
        objects = single_objects(check_target(boxes_alone, f"targets[{index}]", needs=needs))
        overlaps.append(_best_of_first(boxes.detach().cpu(), objects["boxes"].detach().cpu(), counts))
        if "labels" in needs:
            labels.append(objects["labels"].cpu())
    return torch.cat(overlaps, dim=1), torch.cat(labels)


def _best_of_first(boxes: Tensor, objects: Tensor, counts: Sequence[int]) -> Tensor:
    """The best IoU that each object of one image reaches among the first n boxes: ``(len(counts), G)``."""
    if not len(boxes):
        return torch.zeros(len(counts), len(objects), dtype=torch.float64)
    # 0 / 0, a box without area on an object without area, is no overlap.
    iou = box_iou(boxes.double(), objects.double()).nan_to_num(0.0)  # (P, G)
    best = iou.cummax(dim=0).values  # (P, G): row n - 1 holds the best of the first n
    return best[torch.tensor(counts).clamp(max=len(boxes)) - 1]  # (len(counts), G)
