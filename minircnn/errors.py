"""What a detector gets wrong, and what each kind of error costs.

Average precision is one number; two detectors with the same one may fail in different ways. Bolya, Foley, Hays and
Hoffman 2020, "TIDE: A General Toolbox for Identifying Object Detection Errors", arXiv 2008.08115, sort the errors, and
say for each kind what AP50 would be if there were none of it (section 2.2).

Shape letters: D detections and G objects of an image.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minircnn.evaluation import Table, class_names, read_tables
from minircnn.metrics import RECALLS_COCO, UNMATCHED, average_at_points, match_coco, overlaps, precision_recall

KINDS = {
    "localization": "right class, IoU from 0.1 to 0.5",
    "class": "another class, IoU of at least 0.5",
    "both": "another class, IoU from 0.1 to 0.5",
    "duplicate": "an object that a better detection has found",
    "background": "no object, IoU below 0.1",
    "missed": "an object that no detection above explains",
}
FOUND, TOUCHED = 0.5, 0.1  # IoU from which a detection finds an object, and from which it is about one at all (2.2)
MOST_DETECTIONS = 100  # of an image and class, as COCO counts


@dataclass(frozen=True)
class Error:
    """One false positive, or one object that was missed."""

    kind: str  # one of KINDS
    image: int  # position in the lists
    label: int  # that the detection has; of a missed object its own
    score: float  # of the detection; 0 of a missed object
    detection: int | None  # row in the detections of the image; None: it was missed
    object: int | None  # row in the target that it is about; None: about none


@dataclass(frozen=True)
class ErrorReport:
    """The errors of a detector on a data set."""

    ap50: float  # as it is, in [0, 1]
    errors: list[Error]  # false positives, the most confident first; then missed objects
    ap50_without: dict[str, float] = field(default_factory=dict)  # if there were no errors of this kind

    @property
    def counts(self) -> dict[str, int]:
        """How many errors there are of each kind."""
        return {kind: sum(error.kind == kind for error in self.errors) for kind in KINDS}

    def __str__(self) -> str:
        """A table: a line for each kind."""
        rows = [f"{'error':<14}{'count':>7}{'AP50 without':>14}   (AP50 {100 * self.ap50:.1f} %)"]
        for kind, count in self.counts.items():
            rows.append(f"{kind:<14}{count:>7}{100 * self.ap50_without[kind]:>12.1f} %   {KINDS[kind]}")
        return "\n".join(rows)


def find_errors(
    detections: Sequence[Mapping[str, Any]],
    targets: Sequence[Mapping[str, Any]],
    *,
    kind: str = "boxes",
    classes: Sequence[str] | None = None,
) -> ErrorReport:
    """Sort the errors of a detector, and measure what each kind costs.

    Arguments and errors raised are those of :func:`minircnn.evaluation.evaluate`, whose AP50 is the report's. To mend a
    localization or class error makes the detection right, if nothing else has found its object, and of several such
    detections the most confident one. The others go, as do all detections of the remaining kinds. A missed object is
    mended by not counting it.
    """
    found, wanted = read_tables(detections, targets, kind)
    labels = class_names(classes, found, wanted)
    judged = [part for image in range(len(targets)) for part in _judge(found, wanted, image)]
    about = {row: (kind, g) for row, kind, g in judged if row is not None}
    d = np.array(sorted(about, key=lambda row: (-found.score[row], row)), dtype=int)  # best first
    right = np.array([about[row][0] == "found" for row in d], dtype=bool)
    errors = [_error(found, wanted, row, *about[row]) for row in d[~right]]
    errors += [_error(found, wanted, None, "missed", g) for row, _, g in judged if row is None]
    objects = np.bincount(wanted.label[~wanted.crowd], minlength=max(labels, default=0) + 1)
    report = ErrorReport(_ap50(found.label[d], right, objects, labels), errors)
    taken = {g for kind, g in about.values() if kind == "found"}
    for name in KINDS:
        now, correct, count, stays = found.label[d].copy(), right.copy(), objects.copy(), np.ones(len(d), dtype=bool)
        mended = set(taken)
        for place, row in enumerate(d):
            if about[row][0] == name:
                g = about[row][1]
                correct[place] = stays[place] = name in ("localization", "class") and g not in mended
                now[place] = wanted.label[g] if correct[place] else now[place]
                mended.add(g)
        if name == "missed":
            np.subtract.at(count, [error.label for error in errors if error.kind == name], 1)
        report.ap50_without[name] = _ap50(now[stays], correct[stays], count, labels)
    return report


def _judge(found: Table, wanted: Table, image: int) -> Iterator[tuple[int | None, str, int | None]]:
    """What each detection of an image is about: row, kind of error or "found", row of the object; then what is missed.

    A detection that found a crowd region counts for nothing, and is left out.
    """
    d, g = (np.flatnonzero(table.image == image) for table in (found, wanted))
    d = d[np.argsort(-found.score[d], kind="stable")]
    same = found.label[d][:, None] == wanted.label[g]  # (D, G)
    crowd, by = wanted.crowd[g], np.full(len(d), UNMATCHED)
    iou, within = overlaps(found.regions[d], wanted.regions[g], crowd), np.zeros(len(d), dtype=bool)
    for label in np.unique(found.label[d]):
        rows = np.flatnonzero(found.label[d] == label)[:MOST_DETECTIONS]
        columns = np.flatnonzero(wanted.label[g] == label)
        within[rows] = True
        if len(columns):
            match = match_coco(iou[rows][:, columns], np.array([FOUND]), crowd[None, columns], crowd[columns])[0, 0]
            by[rows] = np.where(match == UNMATCHED, UNMATCHED, columns[match])
    iou, explained = np.where(crowd, 0.0, iou), set(by)
    for place in np.flatnonzero(within):
        kind, column = ("found", by[place]) if by[place] != UNMATCHED else _kind(iou[place], same[place])
        if kind in ("localization", "class"):
            explained.add(column)
        if kind != "found" or not crowd[column]:
            yield int(d[place]), kind, None if column is None else int(g[column])
    for column in np.flatnonzero(~crowd):
        if column not in explained:
            yield None, "missed", int(g[column])


def _kind(iou: np.ndarray, same: np.ndarray) -> tuple[str, int | None]:
    """The kind of error of a false positive, and the column of its object, in the order of the authors' code."""
    if not len(iou):
        return "background", None
    right, other = (np.where(of, iou, 0.0) for of in (same, ~same))
    if TOUCHED <= right.max() < FOUND:
        return "localization", int(right.argmax())
    if other.max() >= FOUND:
        return "class", int(other.argmax())
    if right.max() >= FOUND:  # of one that is free it would be a find
        return "duplicate", int(right.argmax())
    return ("both", int(other.argmax())) if other.max() >= TOUCHED else ("background", None)


def _error(found: Table, wanted: Table, row: int | None, kind: str, g: int | None) -> Error:
    table, place = (wanted, g) if row is None else (found, row)
    image = int(table.image[place])
    of_image = (int(np.searchsorted(one.image, image)) for one in (found, wanted))
    rows = (None if at is None else int(at) - first for at, first in zip((row, g), of_image, strict=True))
    return Error(kind, image, int(table.label[place]), float(found.score[row]) if row is not None else 0.0, *rows)


def _ap50(label: np.ndarray, right: np.ndarray, objects: np.ndarray, labels: Mapping[int, str]) -> float:
    """The mean over the classes that have objects, from all detections ``(N,)``, best first."""
    values = []
    for one in labels:
        if objects[one]:
            tp = right[label == one]
            values.append(average_at_points(*precision_recall(tp, ~tp, objects[one]), RECALLS_COCO))
    return float(np.mean(values)) if values else float("nan")
