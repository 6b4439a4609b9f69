"""What an evaluation says: a few numbers, a table of the classes, and the curves behind them."""

from dataclasses import dataclass

import numpy as np

from minircnn.evaluation.curves import interpolate, precision_recall
from minircnn.files import printable


@dataclass(frozen=True)
class Ranking:
    """All detections of one class, best first, and what became of them at each IoU threshold.

    Attributes:
        scores: ``(D,)``.
        right: ``(T, D)`` bool: found an object that counts.
        wrong: ``(T, D)`` bool: found nothing, or a duplicate. Neither right nor wrong means ignored.
        num_objects: how many objects there were to find.
    """

    scores: np.ndarray
    right: np.ndarray
    wrong: np.ndarray
    num_objects: int


@dataclass(frozen=True)
class Curve:
    """The precision-recall curve of one class at one IoU threshold.

    Attributes:
        label: the class.
        name: its name.
        iou_threshold: how much a detection must overlap an object to have found it.
        average_precision: the protocol's average of this curve, in [0, 1]; ``nan`` without objects.
        recall: ``(D,)`` after each detection that counts, best first, in [0, 1].
        precision: ``(D,)`` at the same places.
        scores: ``(D,)`` of those detections.
        recall_points: ``(R,)`` the recalls at which the protocol reads the curve (for VOC2010, which takes the area,
            the 101 of COCO).
        interpolated: ``(R,)`` the best precision at each of these recalls or any higher one.
    """

    label: int
    name: str
    iou_threshold: float
    average_precision: float
    recall: np.ndarray
    precision: np.ndarray
    scores: np.ndarray
    recall_points: np.ndarray
    interpolated: np.ndarray


@dataclass(frozen=True)
class ClassResult:
    """One row of the table of classes. Averages are in [0, 1], and ``nan`` without objects."""

    label: int
    name: str
    objects: int
    detections: int
    ap: float
    ap50: float
    ap75: float
    recall: float


@dataclass(frozen=True, eq=False, repr=False)
class Result:
    """Average precision and recall of a data set.

    All averages lie in [0, 1]; ``nan`` says that there is nothing to average: no object of that size, or a number that
    the protocol does not define (PASCAL VOC knows no sizes). pycocotools writes -1 there, which is easily averaged by
    mistake.

    Attributes:
        kind: "boxes" or "masks".
        protocol: "coco", "voc2007" or "voc2010".
        names: label to name, for each class, ascending.
        iou_thresholds: ``(T,)``.
        ap: mean over the IoU thresholds and classes. For COCO this is AP@[.50:.05:.95], for VOC AP at 0.5.
        ap50, ap75: at one IoU threshold.
        ap_small, ap_medium, ap_large: objects of area up to 32², 32² to 96², from 96² square pixels.
        ar_1, ar_10, ar_100: recall that the best 1, 10, 100 detections of each image and class reach, as a mean over
            IoU thresholds and classes.
        ar_small, ar_medium, ar_large: with 100 detections, by the size of the object.
        per_class: label to :class:`ClassResult`.
        precision: ``(T, R, K, A, M)`` interpolated; R recall points, K classes, A area ranges (all, small, medium,
            large for COCO; all for VOC), M limits of detections (1, 10, 100 for COCO; none for VOC).
        recall: ``(T, K, A, M)`` reached at the end of the list.
        scores: ``(T, R, K, A, M)`` at which each recall point is reached; 0 where it is not.
        rankings: label to :class:`Ranking`, from which :meth:`curve` makes its curves.
        average_precision: ``(T, K)`` of all sizes, with the highest limit of detections.
    """

    kind: str
    protocol: str
    names: dict[int, str]
    iou_thresholds: np.ndarray
    recall_points: np.ndarray
    ap: float
    ap50: float
    ap75: float
    ap_small: float
    ap_medium: float
    ap_large: float
    ar_1: float
    ar_10: float
    ar_100: float
    ar_small: float
    ar_medium: float
    ar_large: float
    per_class: dict[int, ClassResult]
    precision: np.ndarray
    recall: np.ndarray
    scores: np.ndarray
    rankings: dict[int, Ranking]
    average_precision: np.ndarray

    def curve(self, label: int, iou_threshold: float = 0.5) -> Curve:
        """The precision-recall curve of one class at one of the evaluated IoU thresholds.

        Raises:
            ValueError: if that class or threshold was not evaluated.
        """
        if label not in self.names:
            raise ValueError(f"label {label} was not evaluated; there are {sorted(self.names)}")
        near = np.flatnonzero(np.isclose(self.iou_thresholds, iou_threshold))
        if not len(near):
            known = [round(float(t), 4) for t in self.iou_thresholds]
            raise ValueError(f"iou_threshold {iou_threshold} was not evaluated; there are {known}")
        t, k, ranking = int(near[0]), list(self.names).index(label), self.rankings[label]
        counted = ranking.right[t] | ranking.wrong[t]
        precision, recall = precision_recall(
            ranking.right[t, counted], ranking.wrong[t, counted], max(ranking.num_objects, 1)
        )
        return Curve(
            label=label,
            name=self.names[label],
            iou_threshold=float(self.iou_thresholds[t]),
            average_precision=float(self.average_precision[t, k]),
            recall=recall,
            precision=precision,
            scores=ranking.scores[counted],
            recall_points=self.recall_points,
            interpolated=interpolate(precision, recall, self.recall_points),
        )

    def curves(self, iou_threshold: float = 0.5) -> list[Curve]:
        """The curves of all classes that have objects, at one IoU threshold."""
        return [self.curve(label, iou_threshold) for label, row in self.per_class.items() if row.objects > 0]

    def summary(self) -> dict[str, float]:
        """The twelve numbers in the order of pycocotools' ``stats``."""
        names = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
        names += ("ar_1", "ar_10", "ar_100", "ar_small", "ar_medium", "ar_large")
        return {name: getattr(self, name) for name in names}

    def table(self) -> str:
        """The classes, one a line, and their mean; "–" where there is nothing to average. Figures in percent."""
        names = {label: printable(name) for label, name in self.names.items()}
        width = max(len(name) for name in [*names.values(), "mean"])
        lines = [f"{'class':<{width}}  objects  detections     AP   AP50   AP75  recall"]
        for row in self.per_class.values():
            numbers = _percent(row.ap, row.ap50, row.ap75, row.recall)
            lines.append(f"{names[row.label]:<{width}}  {row.objects:>7}  {row.detections:>10}  {numbers}")
        objects = sum(row.objects for row in self.per_class.values())
        detections = sum(row.detections for row in self.per_class.values())
        recall = float(np.mean([row.recall for row in self.per_class.values() if row.objects] or [np.nan]))
        numbers = _percent(self.ap, self.ap50, self.ap75, recall)
        lines.append(f"{'mean':<{width}}  {objects:>7}  {detections:>10}  {numbers}")
        return "\n".join(lines)

    def __str__(self) -> str:
        defined = {name: value for name, value in self.summary().items() if not np.isnan(value)}
        summary = "   ".join(f"{name} {100 * value:.1f}" for name, value in defined.items())
        return f"{self.protocol} protocol, {self.kind}, in percent\n{summary}\n\n{self.table()}"

    def __repr__(self) -> str:
        return f"Result(protocol={self.protocol!r}, kind={self.kind!r}, ap={self.ap:.4f}, ap50={self.ap50:.4f})"


def _percent(*values: float) -> str:
    """One decimal, in columns as wide as their titles in :meth:`Result.table`."""
    columns = [f"{'–' if np.isnan(value) else f'{100 * value:.1f}':>5}" for value in values]
    return "  ".join(columns[:-1]) + f"  {columns[-1]:>6}"
