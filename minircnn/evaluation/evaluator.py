"""Average precision over a data set: the function that the rest of the course calls."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from minircnn.evaluation.curves import area_under_curve, first_reaching, interpolate, precision_recall
from minircnn.evaluation.outcome import Outcome, judge
from minircnn.evaluation.protocols import Protocol, rules_of
from minircnn.evaluation.result import ClassResult, Ranking, Result
from minircnn.evaluation.tables import Table, read_tables
from minircnn.targets import check_classes


def evaluate(
    detections: Sequence[Mapping[str, Any]],
    targets: Sequence[Mapping[str, Any]],
    *,
    kind: str = "boxes",
    protocol: str = "coco",
    classes: Sequence[str] | None = None,
    iou_thresholds: Sequence[float] | None = None,
) -> Result:
    """Average precision of detections over a whole data set.

    Args:
        detections: one dict for each image: ``"labels"`` ``(N,)``, ``"scores"`` ``(N,)`` and ``"boxes"`` ``(N, 4)``
            or ``"masks"``, bool ``(N, H, W)`` or a list of run-length encodings as pycocotools makes them.
        targets: one dict for each image, in the same order: ``"labels"`` and ``"boxes"`` or ``"masks"``, if there are
            any, ``"iscrowd"`` bool (regions that hold many objects), ``"area"`` (as the annotation states it; else the
            area of the box or mask) and ``"difficult"`` bool (PASCAL VOC).
        kind: compare "boxes" or "masks".
        protocol: "coco" (Lin et al. 2014), "voc2007" (11 points) or "voc2010" (area), Everingham et al. 2010.
        classes: names of the classes for the table, ``classes[0]`` the background, as our data sets have them. By
            default the labels found are numbered. A class without objects does not count in the mean.
        iou_thresholds: instead of the protocol's own (.50:.05:.95 for COCO, .5 for VOC).

    Returns:
        A :class:`Result`: the summary numbers, the table of the classes and the curves.

    Raises:
        ValueError: if the lists differ in length, a score is nan, a box is none …; the message names the image's index.

    Paper vs code, where we follow pycocotools and its papers do not say:

    * an IoU *equal* to the threshold is enough; of equally overlapped objects the last in the list is taken;
    * the size of an object is the area in its annotation (of the mask, even when boxes are compared), that of a
      detection the area of its own box or mask; both ends of a range belong to it, so 32² is small and medium;
    * a detection that found nothing and lies outside the range of sizes is ignored, not wrong;
    * one that found an ignored object (crowd, other size) is ignored too; a crowd may be found many times, others once,
      and the overlap with a crowd is intersection / area of the detection;
    * ``difficult`` and ``ignore`` flags are not looked at by COCO's protocol, only ``iscrowd`` is;
    * equal scores keep the order of the images and of each list (pycocotools sorts the images by id first);
    * without any detection AP and recall are 0; without any object they are ``nan`` (pycocotools: -1).

    And where we do not: pycocotools takes an object whose annotation id is 0 for unmatched. We do not use ids.

    >>> import torch
    >>> box = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    >>> truth = {"boxes": box, "labels": torch.tensor([1])}
    >>> found = {"boxes": box + 1, "labels": torch.tensor([1]), "scores": torch.tensor([0.9])}
    >>> result = evaluate([found], [truth])  # IoU 81 / 119 = 0.68: right at .50, .55, .60 and .65
    >>> round(result.ap, 4), result.ap50, result.ap75
    (0.4, 1.0, 0.0)
    """
    rules = rules_of(protocol, iou_thresholds)
    found, wanted = read_tables(detections, targets, kind)
    names = _class_names(classes, found, wanted)
    outcomes = [judge(found, wanted, label, rules) for label in names]
    arrays = _measure(outcomes, rules)
    return Result(
        kind=kind,
        protocol=protocol,
        names=names,
        iou_thresholds=rules.iou_thresholds,
        recall_points=rules.recall_points,
        **_summarise(arrays, rules),
        per_class={
            label: _class_row(label, names[label], k, outcomes[k], arrays, rules) for k, label in enumerate(names)
        },
        precision=arrays.precision,
        recall=arrays.recall,
        scores=arrays.scores,
        average_precision=arrays.average[:, :, 0, -1],
        rankings={
            label: Ranking(outcome.scores, outcome.right[0], outcome.wrong[0], int(outcome.num_objects[0]))
            for label, outcome in zip(names, outcomes, strict=True)
        },
    )


def _class_names(classes: Sequence[str] | None, found: Table, wanted: Table) -> dict[int, str]:
    """Label to name for every class, ascending."""
    labels = np.union1d(found.label, wanted.label)
    if classes is None:
        return {int(label): f"class {label}" for label in labels}
    check_classes(classes)
    if len(labels) and labels[-1] >= len(classes):
        raise ValueError(f"label {labels[-1]} has no name: classes has {len(classes)} entries, background included")
    return dict(enumerate(classes[1:], start=1))


@dataclass(frozen=True, eq=False)
class _Arrays:
    """What was measured, for T thresholds, R recall points, K classes, A ranges of size, M limits; nan: no objects."""

    average: np.ndarray  # (T, K, A, M)
    precision: np.ndarray  # (T, R, K, A, M)
    recall: np.ndarray  # (T, K, A, M)
    scores: np.ndarray  # (T, R, K, A, M)


def _measure(outcomes: Sequence[Outcome], rules: Protocol) -> _Arrays:
    """Draws the curve of every class, size and limit, and reads it where the protocol says."""
    num_classes, num_recalls = len(outcomes), len(rules.recall_points)
    shape = (len(rules.iou_thresholds), num_classes, len(rules.area_ranges), len(rules.limits))
    points = (shape[0], num_recalls, *shape[1:])
    arrays = _Arrays(*(np.full(size, np.nan) for size in (shape, points, shape, points)))
    for k, outcome in enumerate(outcomes):
        for a, m in product(np.flatnonzero(outcome.num_objects), range(len(rules.limits))):
            within = outcome.rank < rules.limits[m]
            right, wrong = outcome.right[a][:, within], outcome.wrong[a][:, within]  # (T, D)
            precision, recall = precision_recall(right, wrong, outcome.num_objects[a])  # (T, D)
            scores = np.append(outcome.scores[within], 0.0)  # (D + 1,): 0 for a recall that is never reached
            arrays.recall[:, k, a, m] = recall.max(axis=1, initial=0.0)
            for t in range(len(recall)):
                read = interpolate(precision[t], recall[t], rules.recall_points)  # (R,)
                arrays.precision[t, :, k, a, m] = read
                arrays.scores[t, :, k, a, m] = scores[first_reaching(recall[t], rules.recall_points)]
                average = area_under_curve(precision[t], recall[t]) if rules.takes_area else read.mean()
                arrays.average[t, k, a, m] = average
    return arrays


def _summarise(arrays: _Arrays, rules: Protocol) -> dict[str, float]:
    """The twelve numbers, by the names of :class:`Result`."""
    average, recall = arrays.average, arrays.recall  # (T, K, A, M)
    summary = {
        "ap": _mean(average[:, :, 0, -1]),
        "ap50": _mean(_at(average[:, :, 0, -1], 0.5, rules)),
        "ap75": _mean(_at(average[:, :, 0, -1], 0.75, rules)),
    }
    of_coco = len(rules.area_ranges) == 4
    for a, size in enumerate(("small", "medium", "large"), start=1):
        summary[f"ap_{size}"] = _mean(average[:, :, a, -1]) if of_coco else np.nan
        summary[f"ar_{size}"] = _mean(recall[:, :, a, -1]) if of_coco else np.nan
    for m, limit in enumerate((1, 10, 100)):
        summary[f"ar_{limit}"] = _mean(recall[:, :, 0, m]) if of_coco else np.nan
    return summary


def _class_row(label: int, name: str, k: int, outcome: Outcome, arrays: _Arrays, rules: Protocol) -> ClassResult:
    average = arrays.average[:, k, 0, -1]  # (T,)
    return ClassResult(
        label=label,
        name=name,
        objects=int(outcome.num_objects[0]),
        detections=len(outcome.scores),
        ap=_mean(average),
        ap50=_mean(_at(average, 0.5, rules)),
        ap75=_mean(_at(average, 0.75, rules)),
        recall=_mean(arrays.recall[:, k, 0, -1]),
    )


def _at(values: np.ndarray, threshold: float, rules: Protocol) -> np.ndarray:
    """The rows of one IoU threshold: one row, or none if it was not evaluated."""
    return values[np.isclose(rules.iou_thresholds, threshold)]


def _mean(values: np.ndarray) -> float:
    """The mean of what is defined, nan if nothing is."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else float("nan")
