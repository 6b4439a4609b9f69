"""How good is a detector? Average precision for boxes and masks, by COCO's and PASCAL VOC's rules.

:func:`evaluate` reads straight down: the lists of images become two tables over the whole data set, detections are
matched with objects image by image, ranked over all images together, and the curve of each class is read where the
protocol says. What is measured at each step stands in :mod:`minircnn.metrics`.

Shape letters: D detections, G objects, T IoU thresholds, R recall points, K classes (without the background), A ranges
of area, M limits on the number of detections.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import torch
from pycocotools import mask as rle
from torch import Tensor

from minircnn.datasets.masks import encode_masks as encode_masks
from minircnn.datasets.masks import runs_problem
from minircnn.files import printable
from minircnn.metrics import (
    PROTOCOLS,
    UNMATCHED,
    Protocol,
    area_under_curve,
    interpolate,
    match_coco,
    match_voc,
    overlaps,
    precision_recall,
    read_curve,
)
from minircnn.metrics import average_at_points as average_at_points
from minircnn.metrics import mean_best_overlap as mean_best_overlap
from minircnn.metrics import proposal_recall as proposal_recall
from minircnn.targets import check_classes, check_target

_NOT_COMPARED = {"boxes": "masks", "masks": "boxes"}


def evaluate(
    detections: Sequence[Mapping[str, Any]],
    targets: Sequence[Mapping[str, Any]],
    *,
    kind: str = "boxes",
    protocol: str = "coco",
    classes: Sequence[str] | None = None,
    iou_thresholds: Sequence[float] | None = None,
) -> "Result":
    """Average precision of detections over a whole data set.

    Args:
        detections: one dict for each image: ``"labels"`` ``(N,)``, ``"scores"`` ``(N,)`` and ``"boxes"`` ``(N, 4)``
            or ``"masks"``, bool ``(N, H, W)`` or a list of run-length encodings as pycocotools makes them.
        targets: one dict for each image, in the same order: ``"labels"``, ``"boxes"`` or ``"masks"`` and, where known,
            ``"iscrowd"`` bool (regions that hold many objects), ``"area"`` (as the annotation states it; else that of
            the box or mask) and ``"difficult"`` bool (PASCAL VOC).
        kind: compare "boxes" or "masks".
        protocol: "coco" (Lin et al. 2014), "voc2007" (11 points) or "voc2010" (area), Everingham et al. 2010.
        classes: names for the table, ``classes[0]`` the background; None: numbers of the labels that are found.
        iou_thresholds: instead of the protocol's own (.50:.05:.95 for COCO, .5 for VOC).

    What is wrong is a ValueError that names the image's index. A class without objects does not count in the mean.

    Paper vs code, where we follow pycocotools and its papers do not say:

    * an IoU *equal* to the threshold is enough; of equally overlapped objects the last in the list is taken;
    * the size of an object is the area in its annotation (of the mask, even when boxes are compared), that of a
      detection the area of its own box or mask; both ends of a range belong to it, so 32² is small and medium;
    * a detection that found nothing and lies outside the range of sizes is ignored, not a false positive;
    * one that found an ignored object (crowd, other size) is ignored too; a crowd may be found many times, others once,
      and the overlap with a crowd is intersection / area of the detection;
    * ``difficult`` and ``ignore`` flags are not looked at by COCO's protocol, only ``iscrowd`` is;
    * equal scores keep the order of the images and of each list (pycocotools sorts the images by id first);
    * without any detection AP and recall are 0; without any object they are ``nan`` (pycocotools: -1).

    And where we do not: pycocotools takes an object whose annotation id is 0 for unmatched.

    >>> import torch
    >>> box = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    >>> truth = {"boxes": box, "labels": torch.tensor([1])}
    >>> found = {"boxes": box + 1, "labels": torch.tensor([1]), "scores": torch.tensor([0.9])}
    >>> result = evaluate([found], [truth])  # IoU 81 / 119 = 0.68: enough for .50, .55, .60 and .65
    >>> round(result.ap, 4), result.ap50, result.ap75
    (0.4, 1.0, 0.0)
    """
    rules = _rules(protocol, iou_thresholds)
    found, wanted = read_tables(detections, targets, kind)
    names = class_names(classes, found, wanted)
    rankings = {label: _rank(found, wanted, label, rules) for label in names}
    curves = _read_curves(list(rankings.values()), rules)
    rows = {}
    for k, (label, ranking) in enumerate(rankings.items()):
        ap, recall = curves["average_precision"][:, k, 0, -1], curves["recall"][:, k, 0, -1]  # (T,)
        averages = (_mean(ap, rules), _mean(ap, rules, 0.5), _mean(ap, rules, 0.75), _mean(recall, rules))
        rows[label] = ClassResult(label, names[label], int(ranking.num_objects[0]), len(ranking.scores), *averages)
    return Result(
        kind=kind,
        protocol=protocol,
        iou_thresholds=rules.iou_thresholds,
        recall_points=rules.recall_points,
        rankings=rankings,
        per_class=rows,
        **_summarize(curves, rules),
        **curves,
    )


def _rules(protocol: str, iou_thresholds: Sequence[float] | None) -> Protocol:
    """The protocol of that name, perhaps with other IoU thresholds."""
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol must be one of {tuple(PROTOCOLS)}, but is {protocol!r}")
    if iou_thresholds is None:
        return PROTOCOLS[protocol]
    thresholds = np.asarray(iou_thresholds, dtype=np.float64)
    if thresholds.ndim != 1 or not len(thresholds) or not ((thresholds > 0) & (thresholds <= 1)).all():
        raise ValueError(f"iou_thresholds must be numbers in (0, 1], but are {iou_thresholds}")
    return replace(PROTOCOLS[protocol], iou_thresholds=thresholds)


def class_names(classes: Sequence[str] | None, found: "Table", wanted: "Table") -> dict[int, str]:
    """Label to name for every class, ascending."""
    labels = np.union1d(found.label, wanted.label)
    if classes is None:
        return {int(label): f"class {label}" for label in labels}
    check_classes(classes)
    if len(labels) and labels[-1] >= len(classes):
        raise ValueError(f"label {labels[-1]} has no name: classes has {len(classes)} entries, background included")
    return dict(enumerate(classes[1:], start=1))


@dataclass(frozen=True)
class Table:
    """All objects of a data set, or all detections: the image is a column, since *all* images are ranked together."""

    image: np.ndarray  # (N,) position of the image in the lists
    label: np.ndarray  # (N,) int64, at least 1
    regions: np.ndarray  # (N, 4) float64 boxes, or (N,) run-length encoded masks
    area: np.ndarray  # (N,) float64, square pixels
    score: np.ndarray  # (N,) float64; zeros for objects
    crowd: np.ndarray  # (N,) bool, regions that stand for many objects
    difficult: np.ndarray  # (N,) bool, objects that PASCAL VOC leaves out of the count


def read_tables(
    detections: Sequence[Mapping[str, Any]], targets: Sequence[Mapping[str, Any]], kind: str
) -> tuple[Table, Table]:
    """Check the input, and put its images under one another: ``(detections, objects)``."""
    if kind not in _NOT_COMPARED:
        raise ValueError(f"kind must be one of {tuple(_NOT_COMPARED)}, but is {kind!r}")
    if len(detections) != len(targets):
        both = f"{len(detections)} and {len(targets)}"
        raise ValueError(f"detections and targets must have one entry for each image, in order, but there are {both}")
    found, wanted = [], []
    for index, (detection, target) in enumerate(zip(detections, targets, strict=True)):
        found.append(_read_image(index, detection, kind, f"detections[{index}]", ("scores",)))
        wanted.append(_read_image(index, target, kind, f"targets[{index}]"))
        if kind == "masks":
            sizes = {tuple(mask["size"]) for mask in (*found[-1].regions, *wanted[-1].regions)}
            if len(sizes) > 1:
                raise ValueError(f"image {index}: masks of different (height, width): {sorted(sizes)}")
    nothing = _read_image(0, {kind: [], "labels": []}, kind, "")
    columns = (zip(*(vars(image).values() for image in [nothing, *side]), strict=True) for side in (found, wanted))
    return tuple(Table(*map(np.concatenate, side)) for side in columns)


def _read_image(index: int, entry: Mapping[str, Any], kind: str, where: str, needs: Sequence[str] = ()) -> Table:
    """The rows of one image; the message of an error begins with ``where``."""
    if isinstance(entry, Mapping):  # what is not compared is not looked at: masks may be large
        entry = {key: value for key, value in entry.items() if key != _NOT_COMPARED[kind]}
    entry = check_target(entry, where, needs=(kind, "labels", *needs))
    label = entry["labels"].cpu().numpy()
    if kind == "boxes":
        regions = entry["boxes"].cpu().double().numpy()  # of float64 numbers ties stay ties
        area = (regions[:, 2:] - regions[:, :2]).prod(axis=1)
    else:
        regions = _run_lengths(entry["masks"], where)
        # One by one: pycocotools (2.0.11) counts the masks of a list in 8 bits, and fails at 256 of them.
        area = np.array([rle.area(mask) for mask in regions], dtype=np.float64)
    if len(regions) != len(label):
        raise ValueError(f"{where} has {len(regions)} {kind} but {len(label)} labels")
    columns = {"area": area, "scores": np.zeros(len(label)), "iscrowd": label < 0, "difficult": label < 0}
    for key in columns.keys() & entry.keys():
        value = entry[key]
        columns[key] = np.asarray(value.detach().cpu().double() if isinstance(value, Tensor) else value, np.float64)
        if columns[key].shape != label.shape:
            raise ValueError(f"{where} has {len(label)} labels but {key} of shape {columns[key].shape}")
        if not np.isfinite(columns[key]).all() and (key == "area" or np.isnan(columns[key]).any()):
            raise ValueError(f"{where}: {key} must be finite numbers, but are {columns[key].tolist()}")
    flags = (columns[key].astype(bool) for key in ("iscrowd", "difficult"))
    return Table(np.full(len(label), index), label, regions, columns["area"], columns["scores"], *flags)


def _run_lengths(masks: Tensor | Sequence[Mapping[str, Any]], where: str) -> np.ndarray:
    """Masks as COCO's compressed run lengths; its files hold them also as text, or as plain lists of numbers."""
    encoded = np.empty(len(masks), dtype=object)
    for row, mask in enumerate(encode_masks(masks) if isinstance(masks, Tensor) else masks):
        if problem := runs_problem(mask):
            raise ValueError(f"{where}: mask {row}: {problem}; encode it again")
        encoded[row] = rle.frPyObjects(mask, *mask["size"]) if isinstance(mask["counts"], list) else mask
    return encoded


def coco_results(
    detections: Sequence[Mapping[str, Any]], image_ids: Sequence[int], category_ids: Sequence[int]
) -> list[dict[str, Any]]:
    """Detections as COCO's format of results has them, which ``loadRes`` of pycocotools reads from JSON.

    They are one dict for each image, as :func:`evaluate` takes them; ``category_ids[label - 1]`` belongs to a label.

    >>> boxes, labels, scores = torch.tensor([[1.0, 2.0, 4.0, 8.0]]), torch.tensor([1]), torch.tensor([0.5])
    >>> coco_results([{"boxes": boxes, "labels": labels, "scores": scores}], [139], [18])
    [{'image_id': 139, 'category_id': 18, 'bbox': [1.0, 2.0, 3.0, 6.0], 'score': 0.5}]
    """
    results = []
    for found, image_id in zip(detections, image_ids, strict=True):
        corner, opposite = found["boxes"].double().split(2, dim=1)
        boxes, masks = torch.cat([corner, opposite - corner], dim=1).tolist(), found.get("masks")
        masks = encode_masks(masks) if isinstance(masks, Tensor) else masks
        for row, (label, score) in enumerate(zip(found["labels"].tolist(), found["scores"].tolist(), strict=True)):
            one = {"image_id": image_id, "category_id": category_ids[label - 1], "bbox": boxes[row], "score": score}
            if masks is not None:
                counts = masks[row]["counts"]
                text = counts.decode() if isinstance(counts, bytes) else counts
                one["segmentation"] = {"size": list(masks[row]["size"]), "counts": text}
            results.append(one)
    return results


@dataclass(frozen=True, eq=False)
class Ranking:
    """The detections of one class over the whole data set, best first; what is no true or false positive is ignored."""

    scores: np.ndarray  # (D,) descending
    rank: np.ndarray  # (D,) place among the detections of this class in the same image, from 0
    tp: np.ndarray  # (A, T, D) bool, true positives: found an object that counts
    fp: np.ndarray  # (A, T, D) bool, false positives: found nothing, or a duplicate
    num_objects: np.ndarray  # (A,) how many objects count


def _rank(found: Table, wanted: Table, label: int, rules: Protocol) -> Ranking:
    """Decide, image by image, which detections of one class are true positives, then rank those of all images."""
    d = np.flatnonzero(found.label == label)
    d = d[np.lexsort((-found.score[d], found.image[d]))]  # (D,) by image, and in it best first
    rank = np.arange(len(d)) - np.searchsorted(found.image[d], found.image[d])
    d, rank = d[rank < rules.limits[-1]], rank[rank < rules.limits[-1]]
    g = np.flatnonzero(wanted.label == label)  # (G,) by image
    ignored = (wanted.crowd | (wanted.difficult & rules.of_voc))[g]
    ignored = ignored | _outside(wanted.area[g], rules)  # (A, G)

    found_by = _match_all(found, wanted, d, g, ignored, rules)  # (A, T, D), positions in g
    matched = found_by != UNMATCHED
    # A detection shares the fate of the object that it found; one that found nothing is judged by its own size.
    padded = np.pad(ignored, ((0, 0), (0, 1)))  # so that UNMATCHED, -1, has a column to point to
    fate = padded[np.arange(len(ignored))[:, None, None], found_by]  # (A, T, D)
    dropped = np.where(matched, fate, _outside(found.area[d], rules)[:, None])

    order = np.argsort(-found.score[d], kind="stable")  # of equal scores the earlier image comes first
    return Ranking(
        scores=found.score[d][order],
        rank=rank[order],
        tp=(matched & ~dropped)[..., order],
        fp=(~matched & ~dropped)[..., order],
        num_objects=(~ignored).sum(axis=1),
    )


def _match_all(
    found: Table, wanted: Table, d: np.ndarray, g: np.ndarray, ignored: np.ndarray, rules: Protocol
) -> np.ndarray:
    """Run the protocol's matching in every image that holds objects of the class: ``(A, T, D)`` positions in g."""
    match = match_voc if rules.of_voc else match_coco
    found_by = np.full((len(ignored), len(rules.iou_thresholds), len(d)), UNMATCHED)
    for image in np.unique(wanted.image[g]):
        first, last = np.searchsorted(found.image[d], [image, image + 1])
        objects = np.flatnonzero(wanted.image[g] == image)
        crowd = wanted.crowd[g[objects]] & (not rules.of_voc)
        iou = overlaps(found.regions[d[first:last]], wanted.regions[g[objects]], crowd)
        local = match(iou, rules.iou_thresholds, ignored[:, objects], crowd)
        found_by[..., first:last] = np.where(local == UNMATCHED, UNMATCHED, local + objects[0])
    return found_by


def _outside(area: np.ndarray, rules: Protocol) -> np.ndarray:
    """Which regions do not belong to each range: ``(N,)`` to ``(A, N)`` bool. 32² is both small and medium."""
    low, high = np.array(rules.area_ranges).T[..., None]  # each (A, 1)
    return (area < low) | (area > high)


def _read_curves(rankings: Sequence[Ranking], rules: Protocol) -> dict[str, np.ndarray]:
    """The curve of every class, size and limit, read where the protocol says: arrays of :class:`Result` by name."""
    shape = (len(rules.iou_thresholds), len(rankings), len(rules.area_ranges), len(rules.limits))  # (T, K, A, M)
    points = (shape[0], len(rules.recall_points), *shape[1:])  # (T, R, K, A, M)
    average, recalls, precisions, scores = (np.full(size, np.nan) for size in (shape, shape, points, points))
    for k, ranking in enumerate(rankings):
        for a, m in product(np.flatnonzero(ranking.num_objects), range(len(rules.limits))):
            within = ranking.rank < rules.limits[m]
            tp, fp = ranking.tp[a][:, within], ranking.fp[a][:, within]  # (T, D)
            precision, recall = precision_recall(tp, fp, ranking.num_objects[a])  # (T, D)
            recalls[:, k, a, m] = recall.max(axis=1, initial=0.0)
            for t in range(shape[0]):
                read = read_curve(interpolate(precision[t]), recall[t], rules.recall_points)  # (R,)
                precisions[t, :, k, a, m] = read
                scores[t, :, k, a, m] = read_curve(ranking.scores[within], recall[t], rules.recall_points)
                average[t, k, a, m] = area_under_curve(precision[t], recall[t]) if rules.takes_area else read.mean()
    return {"average_precision": average, "recall": recalls, "precision": precisions, "scores": scores}


def _summarize(curves: Mapping[str, np.ndarray], rules: Protocol) -> dict[str, float]:
    """The twelve numbers, by the names of :class:`Result`; the last nine are COCO's."""
    ap, recall = curves["average_precision"], curves["recall"]  # (T, K, A, M)
    summary = {name: _mean(ap[..., 0, -1], rules, at) for name, at in (("ap", None), ("ap50", 0.5), ("ap75", 0.75))}
    for a, size in enumerate(("small", "medium", "large"), start=1):
        summary[f"ap_{size}"] = np.nan if rules.of_voc else _mean(ap[:, :, a, -1], rules)
        summary[f"ar_{size}"] = np.nan if rules.of_voc else _mean(recall[:, :, a, -1], rules)
    for m, limit in enumerate((1, 10, 100)):
        summary[f"ar_{limit}"] = np.nan if rules.of_voc else _mean(recall[:, :, 0, m], rules)
    return summary


def _mean(values: np.ndarray, rules: Protocol, at: float | None = None) -> float:
    """The mean of what is defined in ``(T, …)``, or of this at one IoU threshold; nan if nothing is."""
    values = values if at is None else values[np.isclose(rules.iou_thresholds, at)]
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else float("nan")


@dataclass(frozen=True)
class Curve:
    """The precision-recall curve of one class at one IoU threshold."""

    label: int
    name: str
    iou_threshold: float  # how much a detection must overlap an object to have found it
    average_precision: float  # the protocol's average of this curve, in [0, 1]; nan without objects
    recall: np.ndarray  # (D,) after each detection that counts, best first, in [0, 1]
    precision: np.ndarray  # (D,) at the same places
    scores: np.ndarray  # (D,) of those detections
    recall_points: np.ndarray  # (R,) where the protocol reads the curve (for VOC2010, which takes the area, COCO's 101)
    interpolated: np.ndarray  # (R,) the best precision at each of these recalls or any higher one


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

    All averages lie in [0, 1]; ``nan``, pycocotools' -1, says that there is nothing to average: no object of that size,
    or a number that the protocol does not define. The arrays have axes for K classes, A area ranges (for COCO all,
    small, medium, large; for VOC all) and M limits of detections in an image (for COCO 1, 10, 100; for VOC none).
    """

    kind: str  # "boxes" or "masks"
    protocol: str  # "coco", "voc2007" or "voc2010"
    iou_thresholds: np.ndarray  # (T,)
    recall_points: np.ndarray  # (R,)
    ap: float  # mean over IoU thresholds and classes. For COCO this is AP@[.50:.05:.95], for VOC AP at 0.5
    ap50: float  # at one IoU threshold
    ap75: float
    ap_small: float  # of objects of an area up to 32² square pixels
    ap_medium: float  # 32² to 96²
    ap_large: float  # from 96²
    ar_1: float  # recall that the best detection of each image and class reaches, a mean as ap
    ar_10: float
    ar_100: float
    ar_small: float  # with 100 detections, by the size of the object
    ar_medium: float
    ar_large: float
    per_class: dict[int, ClassResult]  # by label, ascending
    rankings: dict[int, Ranking]  # by label: what curve() makes its curves from
    average_precision: np.ndarray  # (T, K, A, M)
    recall: np.ndarray  # (T, K, A, M) reached at the end of the list
    precision: np.ndarray  # (T, R, K, A, M) interpolated
    scores: np.ndarray  # (T, R, K, A, M) where each recall point is reached; 0 where it is not

    def curve(self, label: int, iou_threshold: float = 0.5) -> Curve:
        """The precision-recall curve of one class at an IoU threshold; if it was not evaluated, a ValueError."""
        if label not in self.per_class:
            raise ValueError(f"label {label} was not evaluated; there are {sorted(self.per_class)}")
        near = np.flatnonzero(np.isclose(self.iou_thresholds, iou_threshold))
        if not len(near):
            known = [round(float(t), 4) for t in self.iou_thresholds]
            raise ValueError(f"iou_threshold {iou_threshold} was not evaluated; there are {known}")
        t, k, ranking = int(near[0]), list(self.per_class).index(label), self.rankings[label]
        tp, fp = ranking.tp[0, t], ranking.fp[0, t]  # (D,)
        precision, recall = precision_recall(tp[tp | fp], fp[tp | fp], max(ranking.num_objects[0], 1))
        return Curve(
            label=label,
            name=self.per_class[label].name,
            iou_threshold=float(self.iou_thresholds[t]),
            average_precision=float(self.average_precision[t, k, 0, -1]),
            recall=recall,
            precision=precision,
            scores=ranking.scores[tp | fp],
            recall_points=self.recall_points,
            interpolated=read_curve(interpolate(precision), recall, self.recall_points),
        )

    def curves(self, iou_threshold: float = 0.5) -> list[Curve]:
        """The curves of all classes that have objects, at one IoU threshold."""
        return [self.curve(label, iou_threshold) for label, row in self.per_class.items() if row.objects > 0]

    def summary(self) -> dict[str, float]:
        """The twelve numbers in the order of pycocotools' ``stats``."""
        names = [name for name in vars(self) if name.startswith(("ap", "ar_"))]
        return {name: getattr(self, name) for name in names}

    def table(self) -> str:
        """The classes, one a line, and their mean; "–" where there is nothing to average. Figures in percent."""
        rows = list(self.per_class.values())
        objects, detections = (sum(getattr(row, name) for row in rows) for name in ("objects", "detections"))
        recall = float(np.mean([row.recall for row in rows if row.objects] or [np.nan]))
        rows.append(ClassResult(0, "mean", objects, detections, self.ap, self.ap50, self.ap75, recall))
        width = max(len(printable(row.name)) for row in rows)
        lines = [f"{'class':<{width}}  objects  detections     AP   AP50   AP75  recall"]
        for row in rows:
            percent = ["–" if np.isnan(v) else f"{100 * v:.1f}" for v in (row.ap, row.ap50, row.ap75, row.recall)]
            figures = f"{percent[0]:>5}  {percent[1]:>5}  {percent[2]:>5}  {percent[3]:>6}"
            lines.append(f"{printable(row.name):<{width}}  {row.objects:>7}  {row.detections:>10}  {figures}")
        return "\n".join(lines)

    def __str__(self) -> str:
        defined = {name: value for name, value in self.summary().items() if not np.isnan(value)}
        summary = "   ".join(f"{name} {100 * value:.1f}" for name, value in defined.items())
        return f"{self.protocol} protocol, {self.kind}, in percent\n{summary}\n\n{self.table()}"

    def __repr__(self) -> str:
        return f"Result(protocol={self.protocol!r}, kind={self.kind!r}, ap={self.ap:.4f}, ap50={self.ap50:.4f})"
