"""The record as tables, for a terminal and for a README."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from minircnn.files import write_atomically
from minircnn.history.claims import CLAIMS, Claim
from minircnn.history.detectors import GENERATIONS
from minircnn.history.evidence import Results, percent
from minircnn.history.stages import STAGES

START, END = "<!-- history -->", "<!-- /history -->"
"""What the part of a README that is written by the program stands between."""

NONE = "–"
Detector = Mapping[str, Any]


def table(record: Mapping[str, Any], stages: bool = True) -> list[list[str]]:
    """All figures, a row each with a cell for each detector, behind a row with the detectors' names.

    Args:
        record: see :func:`minircnn.history.make_record`.
        stages: whether times come stage by stage, too.
    """
    own = [record["detectors"][one.key] for one in GENERATIONS]
    rows = [["", *(f"{one['name']} ({one['year']})" for one in own)]]

    def add(name: str, cell: Callable[[Detector], str]) -> None:
        rows.append([name, *map(cell, own)])

    for kind, what in (("box", "boxes"), ("mask", "masks")):
        for key, name in (("ap", "AP"), ("ap50", "AP50"), ("ap75", "AP75")):
            add(f"{name} of {what}, %", lambda d, kind=kind, key=key: _percent(d[kind] and d[kind][key]))
    add("proposals a picture", lambda d: f"{d['proposals']:.0f}")
    add("objects that they cover at IoU 0.5, %", lambda d: _percent(d["recall"]))
    add("passes of the convolutions a picture", lambda d: f"{d['passes']:.0f}")
    add("milliseconds a picture", lambda d: _short(d["milliseconds"]["all"]))
    if stages:
        for stage in STAGES:
            add(f"  {stage}", lambda d, stage=stage: _short(d["milliseconds"].get(stage)))
    rows += _paper_rows(record, stages)
    add("trainings, one behind the other", lambda d: str(d["trainings"]))
    if record["training"]:
        rows.append(
            ["training, minutes of a core, estimated", *(_minutes(record["training"], one.key) for one in GENERATIONS)]
        )
    add("learned numbers", lambda d: f"{d['parameters']:,}")
    add("file of weights, MB", lambda d: f"{d['file_bytes'] / 1e6:.1f}")
    return rows


def _paper_rows(record: Mapping[str, Any], stages: bool) -> list[list[str]]:
    """Seconds at the papers' size, if they were measured."""
    if not (scale := record["paper_scale"]):
        return []
    height, width = scale["size"]
    times = [scale["milliseconds"][one.key] for one in GENERATIONS]
    rows = [[f"seconds a picture of {height} × {width}", *(_seconds(one["all"]) for one in times)]]
    if stages:
        rows += [[f"  {stage}", *(_seconds(one.get(stage)) for one in times)] for stage in STAGES]
    return rows


def notes(record: Mapping[str, Any]) -> list[str]:
    """What has to be known to read the table, a sentence or two each."""
    count, every = record["pictures"], record["pictures_of_split"]
    part = f"all {every}" if count == every else f"only the first {count} of the {every}"
    lines = [
        f"Measured on {part} test pictures of Toy Town, the same for all four, with the same evaluator. Times are "
        "medians on one thread, the four detectors in turn picture by picture. They are this machine's; what carries "
        "over to others is how they compare.",
        f"R-CNN and Fast R-CNN get up to {record['max_proposals']} proposals of selective search, whose time counts as "
        "theirs. R-CNN's features are warping and convolutions; pooling of regions counts to the heads.",
    ]
    if record["training"]:
        lines.append(
            "Trainings were not timed when they ran: the estimate is the processor time of a few iterations times "
            "their number, and selective search in all training pictures; for R-CNN also a pass over their proposals, "
            "but not the fitting of SVMs and regressions, hence at least (≥). The pre-training of AlexNet, which all "
            "four share, is left out."
        )
    if scale := record["paper_scale"]:
        height, width = scale["size"]
        crops, every = scale["crops"], scale["proposals"]
        given = (
            f"Selective search finds {scale['found']} proposals there, and random boxes make them {every:,}"
            if scale["found"] < every
            else f"Selective search gives {every:,} proposals"
        )
        lines.append(
            f"At {height} × {width} pixels the network is the AlexNet of 2012 with random weights, and only times "
            f"count. {given}; R-CNN is timed on {crops} of them, and the time behind the search is multiplied by "
            f"{every / crops:g}. The region proposal network makes {scale['own']}; {scale['outlined']} detections get "
            "a mask."
        )
    return lines


def claims_table(results: Results, claims: Sequence[Claim] = CLAIMS) -> list[list[str]]:
    """The claims, a row each: number, sentence, notebooks, what was measured, and whether it holds."""
    rows = [["", "claim", "notebooks", "measured", "holds"]]
    for one in claims:
        rows.append([one.id, one.text, ", ".join(one.notebooks), one.evidence(results), one.verdict(results)])
    return rows


def failing(results: Results, claims: Sequence[Claim] = CLAIMS) -> list[str]:
    """The numbers of the claims that the figures do not bear out, not even in part."""
    return [one.id for one in claims if one.verdict(results) == "no"]


def as_text(rows: Sequence[Sequence[str]]) -> str:
    """A table for a terminal: the first column to the left, the others to the right.

    >>> print(as_text([["", "A", "B"], ["AP, %", "1.0", "12.0"]]))
             A     B
    AP, %  1.0  12.0
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [first.ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(others, widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def claims_as_text(results: Results) -> str:
    """The claims for a terminal, two lines each."""
    lines = []
    for number, text, notebooks, measured, verdict in claims_table(results)[1:]:
        sign = {"yes": "✓", "in part": "~", "no": "✗"}[verdict]
        lines += [f"{sign} {number:<3} {text} [{notebooks}]", f"      {measured}"]
    return "\n".join(lines)


def as_markdown(rows: Sequence[Sequence[str]], right: bool = True) -> str:
    r"""A table for Markdown.

    Args:
        rows: the first is the head.
        right: whether all columns but the first are for numbers, which stand at the right.

    >>> print(as_markdown([["", "A"], ["a | b", "1"]]))
    | | A |
    | --- | --: |
    | a \| b | 1 |
    """
    head, *others = [[cell.strip().replace("|", "\\|") for cell in row] for row in rows]
    marks = ["---", *["--:" if right else "---"] * (len(head) - 1)]
    return "\n".join(
        "|" + "|".join(f" {cell} " if cell else " " for cell in row) + "|" for row in [head, marks, *others]
    )


def section(results: Results) -> str:
    """What the README says, from one marker to the other, markers included."""
    record = results["history"]
    rows, claims = table(record, stages=False), claims_table(results)
    few = [[number, text, measured, notebooks, verdict] for number, text, notebooks, measured, verdict in claims]
    parts = [
        START,
        "![Bars for the four detectors: average precision of boxes and masks, and the time for a picture by stages]"
        "(docs/history.png)",
        as_markdown(rows),
        "\n".join(f"- {note}" for note in notes(record)),
        "![One scene as the four detectors see it: above their proposals, below what they find in it]"
        "(docs/history_pictures.png)",
        "One scene, chosen because much overlaps in it. How good the detectors are, the table says, not this picture. "
        "Shown is what an SVM says yes to, or what has a probability above one half.",
        f"<details>\n<summary>The story's {len(few) - 1} claims, and what was measured about each</summary>",
        as_markdown(few, right=False),
        "</details>",
        END,
    ]
    return "\n\n".join(parts)


def insert(text: str, new: str, name: str) -> str:
    """A text with another section between its markers.

    Args:
        text: of the whole file.
        new: of the section, markers included.
        name: of the file, for messages.

    Raises:
        ValueError: the markers are not there, each once and in order.
    """
    if text.count(START) != 1 or text.count(END) != 1 or text.index(START) > text.index(END):
        raise ValueError(f"{name}: one line {START} and below it one line {END} are needed, between which tables go")
    before, _, rest = text.partition(START)
    return before + new + rest.partition(END)[2]


def update_readme(path: Path, results: Results) -> None:
    """Writes the section into a README, all of it or nothing.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it has no markers.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file; name a README")
    write_atomically(path, insert(path.read_text(encoding="utf-8"), section(results), str(path)).encode())


def _percent(value: float | None) -> str:
    return NONE if value is None else percent(value)


def _short(value: float | None) -> str:
    """Two digits or more."""
    if value is None:
        return NONE
    return f"{value:.0f}" if value >= 9.95 else f"{value:.1f}"


def _seconds(milliseconds: float | None) -> str:
    if milliseconds is None:
        return NONE
    seconds = milliseconds / 1000
    return f"{seconds:.0f}" if seconds >= 9.95 else f"{seconds:.2f}" if seconds >= 0.095 else f"{seconds:.3f}"


def _minutes(training: Mapping[str, Mapping[str, float]], key: str) -> str:
    sign = "≥ " if "features" in training[key] else ""
    return sign + _short(training[key]["all"])
