"""The record of the history, ``data/results/history.json``, as the tables and figures that readers see."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from minircnn.course.figures.history import Row
from minircnn.course.history import GENERATIONS, STAGES
from minircnn.shipped import RESULTS_FOLDER

RESULTS = RESULTS_FOLDER / "history.json"
"""The record that comes with the project."""
NONE = "–"
Record = Mapping[str, Any]


def read_results(path: Path, command: str) -> Any:  # noqa: ANN401 - whatever JSON holds
    """A file of results that a command of the workshop wrote.

    Raises:
        FileNotFoundError: it is not there; the message says what makes it.
        ValueError: it is damaged.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file; make it with `{command}`")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: damaged ({error}); make it anew with `{command}`") from error


def read_record(path: Path = RESULTS) -> dict[str, Any]:
    """The record that ``python -m workshop.history`` wrote; errors are those of :func:`read_results`."""
    record = read_results(path, "python -m workshop.history")
    if not isinstance(record, dict) or not {"detectors", "paper_scale", "training"} <= {*record}:
        raise ValueError(f"{path}: no record of the history; name a file that `python -m workshop.history` wrote")
    return record


# ---------------------------------------------------------------------------------------------------- table
def table(record: Record, stages: bool = True) -> list[list[str]]:
    """All figures, a row each with a cell for each detector, behind a row with their names; times also by stages."""
    own = [record["detectors"][one.key] for one in GENERATIONS]
    rows = [["", *(f"{one['name']} ({one['year']})" for one in own)]]
    for kind, what in (("box", "boxes"), ("mask", "masks")):
        for key in ("ap", "ap50", "ap75"):
            rows.append([f"{key.upper()} of {what}, %", *(_percent(d[kind] and d[kind][key]) for d in own)])
    rows += [
        ["proposals an image", *(f"{d['proposals']:.0f}" for d in own)],
        ["objects that they cover at IoU 0.5, %", *(_percent(d["recall"]) for d in own)],
        ["passes of the convolutions an image", *(f"{d['passes']:.0f}" for d in own)],
        *_times("milliseconds an image", [d["milliseconds"] for d in own], stages, _short),
    ]
    if scale := record["paper_scale"]:
        name = "seconds an image of {} × {}".format(*scale["size"])
        rows += _times(name, [scale["milliseconds"][one.key] for one in GENERATIONS], stages, _seconds)
    learned = [d["learned_from"] for d in own]
    rows.append(["batches learned from", *(f"{one['batches']:,}" for one in learned)])
    seen = [f"{one['images']:,}" if "images" in one else f"{one['crops']:,} crops" for one in learned]
    rows.append(["images in these batches", *seen])
    rows.append(["trainings, one behind the other", *(str(d["trainings"]) for d in own)])
    if record["training"]:
        minutes = [record["training"][one.key] for one in GENERATIONS]
        cells = ("≥ " * ("features" in one) + _short(one["all"]) for one in minutes)
        rows.append(["training, minutes of a core, estimated", *cells])
    rows.append(["learned numbers", *(f"{d['parameters']:,}" for d in own)])
    rows.append(["file of weights, MB", *(f"{d['file_bytes'] / 1e6:.1f}" for d in own)])
    return rows


def _times(name: str, times: Sequence[Mapping[str, float]], stages: bool, cell: Any) -> list[list[str]]:  # noqa: ANN401
    parts = [[f"  {stage}", *(cell(one.get(stage)) for one in times)] for stage in STAGES] if stages else []
    return [[name, *(cell(one["all"]) for one in times)], *parts]


def _percent(value: float | None) -> str:
    return NONE if value is None else f"{100 * value:.1f}"


def _short(value: float | None) -> str:
    return NONE if value is None else f"{value:.0f}" if value >= 9.95 else f"{value:.1f}"


def _seconds(milliseconds: float | None) -> str:
    if milliseconds is None:
        return NONE
    seconds = milliseconds / 1000
    return f"{seconds:.0f}" if seconds >= 9.95 else f"{seconds:.2f}" if seconds >= 0.095 else f"{seconds:.3f}"


def notes(record: Record) -> list[str]:
    """What has to be known to read the table, a sentence or two each."""
    count, every = record["images"], record["images_of_split"]
    limits, found = record["thresholds"], " / ".join(f"{d['detections']:.0f}" for d in record["detectors"].values())
    load, busy = record["machine"].get("load") or 0, ""
    if load >= 0.5:
        busy = f" Other programs kept it busy meanwhile (a load of {load:.1f}), so that all are longer."
    part = f"all {every}" if count == every else f"only the first {count} of the {every}"
    lines = [
        f"Measured on {part} test images of Toy Town, the same for all four, with the same evaluator. Times are "
        "medians on one thread, the four detectors in turn image by image. They are this machine's; what carries "
        "over to others is how they compare." + busy,
        f"R-CNN and Fast R-CNN get up to {record['max_proposals']} proposals of selective search, whose time counts as "
        "theirs. R-CNN's features are warping and convolutions; pooling of regions counts to the heads.",
        f"Thresholds are the same: what is more probable than {limits['score_threshold']:g} counts as a detection, and "
        f"NMS is at an IoU of {limits['nms_threshold']:g}. But R-CNN, whose scores are margins of SVMs, keeps its own, "
        f"{limits['rcnn']['score_threshold']:g} and {limits['rcnn']['nms_threshold']:g}: on validation images it is "
        f"worse with NMS at 0.5. That leaves {found} detections an image. `minircnn evaluate` and the other notebooks "
        "take the thresholds in each detector's file, so that their figures are a little different.",
        "Batches are those that the weights learned from, and an image counts each time it was in one. R-CNN's are of "
        "warped proposals and fine-tune its network; then SVMs and regressions learn once from all proposals of the "
        "training images. Detectors that learned from more may be better for that alone.",
    ]
    if record["training"]:
        lines.append(
            "Trainings were not timed when they ran: the estimate is the processor time of a few iterations times "
            "their number, and selective search in all training images; for R-CNN also a pass over their proposals, "
            "but not the fitting of SVMs and regressions, hence at least (≥). The pre-training of AlexNet, which all "
            "four share, is left out."
        )
    if scale := record["paper_scale"]:
        height, width = scale["size"]
        every, given = scale["proposals"], f"Selective search gives {scale['proposals']:,} proposals"
        if scale["found"] < every:
            given = f"Selective search finds {scale['found']} proposals there, and random boxes make them {every:,}"
        lines.append(
            f"At {height} × {width} pixels the network is the AlexNet of 2012 with random weights, and only times "
            f"count. {given}; R-CNN is timed on {scale['crops']} of them, and the time behind the search is multiplied "
            f"by {every / scale['crops']:g}. The region proposal network makes {scale['own']}; {scale['outlined']} "
            "detections get a mask."
        )
    return lines


def as_text(rows: Sequence[Sequence[str]]) -> str:
    """A table for a terminal: the first column to the left, the others to the right.

    >>> print(as_text([["", "A", "B"], ["AP, %", "1.0", "12.0"]]))
             A     B
    AP, %  1.0  12.0
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    form = "  ".join([f"{{:<{widths[0]}}}", *(f"{{:>{width}}}" for width in widths[1:])])
    return "\n".join(form.format(*row).rstrip() for row in rows)


# ---------------------------------------------------------------------------------------------------- figure
def rows_of(record: Record) -> list[Row]:
    """What the figure of accuracy and time shows."""
    rows = []
    for one in GENERATIONS:
        own, scale = record["detectors"][one.key], record["paper_scale"]
        times = [own["milliseconds"], *([scale["milliseconds"][one.key]] if scale else [])]
        # Stages as the figure calls them, in the order in which they run.
        first = {"proposals": "selective search", "features": "convolutions"}
        if not one.searches:
            first = {"features": "convolutions", "proposals": "region proposal network"}
        names = {**first, **{stage: stage for stage in STAGES[2:]}}
        stages = [{name: part[key] for key, name in names.items() if key in part} for part in times]
        mask, totals = own["mask"] and own["mask"]["ap50"], [part["all"] for part in times]
        rows.append(Row(f"{own['name']}\n{own['year']}", own["box"]["ap50"], mask, stages, totals))
    return rows


def titles_of(record: Record) -> list[str]:
    """Titles of the panels of times."""
    titles = [f"Toy Town, 128 × 128, up to {record['max_proposals']} proposals"]
    if scale := record["paper_scale"]:
        titles.append("{} × {}, up to {:,} proposals".format(*scale["size"], scale["proposals"]))
    return titles
