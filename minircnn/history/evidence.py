"""What was measured about each claim of the story, as a sentence with numbers: ``s1`` to ``s17``.

The numbers come from the record of the history, and from those experiments in ``data/results`` that train detectors
which differ in one thing. Averages and shares are in percent. Where both were measured, the first number is Toy Town's,
the second that of the papers' size.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import Any

from minircnn.experiments import RESULTS_FOLDER
from minircnn.history.detectors import GENERATIONS

Results = Mapping[str, Mapping[str, Any]]
"""By the names of the files in ``data/results``; the record of the history is ``"history"``."""

EXPERIMENTS = ("rcnn_ablation", "fast_rcnn_ablation", "faster_rcnn_ablation", "mask_rcnn_ablation")
NAMES = {one.key: one.name for one in GENERATIONS}
FULL = {"layer": "fc7", "fine_tuned": True}  # R-CNN as it is, in its ablation


def gather(record: Mapping[str, Any], folder: Path = RESULTS_FOLDER) -> dict[str, Any]:
    """A record of the history, and the experiments' results beside it.

    Raises:
        FileNotFoundError: the results of an experiment are missing; the message says what makes them.
        ValueError: they are damaged.
    """
    results: dict[str, Any] = {"history": record}
    for name in EXPERIMENTS:
        path = folder / f"{name}.json"
        if not path.is_file():
            raise FileNotFoundError(f"{path}: not there; make it with `python -m minircnn.experiments.{name}`")
        try:
            results[name] = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(
                f"{path}: damaged ({error}); make it anew with `python -m minircnn.experiments.{name}`"
            ) from error
    return results


def of(results: Results, key: str) -> Mapping[str, Any]:
    """What was measured of a detector."""
    return results["history"]["detectors"][key]


def milliseconds(results: Results, key: str, stage: str = "all", paper: bool = False) -> float:
    """A detector's time for a picture, in all or of a stage, on Toy Town or at the papers' size."""
    record = results["history"]
    times = record["paper_scale"]["milliseconds"][key] if paper else record["detectors"][key]["milliseconds"]
    return times[stage]


def averaged(results: Results, name: str, figure: str, **wanted: Any) -> float:  # noqa: ANN401 - of any type
    """The mean of a figure over those rows of an experiment that are as wanted; nan if there are none."""
    values = [row[figure] for row in results[name]["rows"] if all(row[key] == value for key, value in wanted.items())]
    return mean(values) if values else float("nan")


def percent(value: float) -> str:
    """A share as a number in percent, without the sign.

    >>> percent(0.4637)
    '46.4'
    """
    return f"{100 * value:.1f}"


def has_scale(results: Results) -> bool:
    """Whether the record holds times at the papers' size."""
    return results["history"]["paper_scale"] is not None


def lost_by_rounding(results: Results, stride: int, figure: str) -> float:
    """The share of a figure that goes if RoIPool takes RoIAlign's place."""
    wanted = {"stride": stride, "mask_kind": "sigmoid"}
    pool, align = (averaged(results, "mask_rcnn_ablation", figure, pooling=way, **wanted) for way in ("pool", "align"))
    return 1 - pool / align


def s1(r: Results) -> str:
    """How much there is to see in a scene."""
    s = r["history"]["scenes"]
    return (
        f"{s['objects']:.1f} objects a scene; {percent(s['several'])} % of the scenes hold several, "
        f"{percent(s['kinds'])} % several kinds, {percent(s['crowded'])} % some that overlap"
    )


def s2(r: Results) -> str:
    """What pre-trained features are worth."""
    t = r["history"]["transfer"]
    return (
        f"true boxes of {t['pictures']} scenes named rightly by a linear classifier: {percent(t['learned'])} % on "
        f"features of a network that never saw a scene, {percent(t['hand_made'])} on hand-made, "
        f"{percent(t['random'])} on random ones"
    )


def s3(r: Results) -> str:
    """What selective search covers."""
    d = of(r, "rcnn")
    return f"{d['proposals']:.0f} proposals a picture cover {percent(d['recall'])} % of the objects at IoU 0.5"


def s4(r: Results) -> str:
    """How many squares, and what the SVMs make of them."""
    d = of(r, "rcnn")
    return f"{d['passes']:.0f} squares a picture, one for each proposal; AP50 {percent(d['box']['ap50'])}"


def s5(r: Results) -> str:
    """What moving boxes brings."""
    d, a = of(r, "rcnn"), "rcnn_ablation"
    before, after = (averaged(r, a, "ap75", **FULL, box_regression=moved) for moved in (False, True))
    return (
        f"AP75 {percent(d['unmoved']['ap75'])} with the proposals' boxes, {percent(d['box']['ap75'])} with moved ones "
        f"(ablation: {percent(before)} and {percent(after)})"
    )


def _slower(r: Results, key: str, stage: str = "all", other: str = "rcnn") -> str:
    """How many times as long the other takes, on Toy Town and at the papers' size."""
    times = [milliseconds(r, other, stage) / milliseconds(r, key, stage)]
    if has_scale(r):
        times.append(milliseconds(r, other, stage, True) / milliseconds(r, key, stage, True))
    return " and ".join(f"{value:.0f}" if value >= 10 else f"{value:.1f}" for value in times)


def _where(r: Results) -> str:
    return "on Toy Town and at the papers' size" if has_scale(r) else "on Toy Town"


def _share(r: Results, key: str, stage: str) -> str:
    shares = [milliseconds(r, key, stage) / milliseconds(r, key)]
    if has_scale(r):
        shares.append(milliseconds(r, key, stage, True) / milliseconds(r, key, paper=True))
    return " and ".join(f"{100 * value:.0f} %" for value in shares)


def s6(r: Results) -> str:
    """How much slower, and where the time goes."""
    seconds = f", {milliseconds(r, 'rcnn', paper=True) / 1000:.0f} s a picture there" if has_scale(r) else ""
    return (
        f"{of(r, 'rcnn')['passes']:.0f} passes a picture; it takes {_slower(r, 'faster_rcnn')} times as long as Faster "
        f"R-CNN {_where(r)}{seconds}; warping and convolutions are {_share(r, 'rcnn', 'features')} of it"
    )


def s7(r: Results) -> str:
    """How many trainings, and how long."""
    counts = ", ".join(f"{NAMES[key]} {of(r, key)['trainings']}" for key in NAMES)
    if not (training := r["history"]["training"]):
        return f"trainings, one behind the other: {counts}"
    minutes = [f"{training[key]['all']:.0f}" for key in NAMES]
    return f"trainings, one behind the other: {counts}; estimated minutes of a core: ≥ {', '.join(minutes)}"


def s8(r: Results) -> str:
    """How much less work the convolutions have."""
    return (
        f"{of(r, 'rcnn')['passes']:.0f} passes become {of(r, 'fast_rcnn')['passes']:.0f}; features take "
        f"{_slower(r, 'fast_rcnn', 'features')} times less {_where(r)}"
    )


def trained(r: Results, figure: str, training: str, classifier: str) -> float:
    """A figure of Fast R-CNN with box regression, trained "joint" or in "stages", with "softmax" or "SVM"."""
    wanted = {"training": training, "classifier": classifier, "box_regression": True}
    return averaged(r, "fast_rcnn_ablation", figure, **wanted)


def s9(r: Results) -> str:
    """Learned together, or one after the other."""
    joint, stages, svm = (
        percent(trained(r, "ap", *way)) for way in (("joint", "softmax"), ("stages", "softmax"), ("joint", "SVM"))
    )
    return f"AP {joint} together, {stages} one after the other; {svm} with SVMs in place of the softmax"


def s10(r: Results) -> str:
    """The share of the search."""
    note = (
        " (there the fully connected layers, too, run on one core)"
        if has_scale(r)
        and milliseconds(r, "fast_rcnn", "proposals", True) < milliseconds(r, "fast_rcnn", "heads", True)
        else ""
    )
    return f"selective search is {_share(r, 'fast_rcnn', 'proposals')} of Fast R-CNN's time {_where(r)}{note}"


def joint_and_in_turns(r: Results) -> tuple[float, float]:
    """AP of Faster R-CNN trained at once, and in turns with as many batches."""
    name = "faster_rcnn_ablation"
    full = {"scales": 3, "ratios": 3, "iterations": r[name]["settings"]["iterations"]}
    return averaged(r, name, "ap", training="joint", **full), averaged(r, name, "ap", training="turns", **full)


def s11(r: Results) -> str:
    """What proposals cost and cover, and joint training."""
    d, (joint, turns) = of(r, "faster_rcnn"), joint_and_in_turns(r)
    return (
        f"proposals take {_slower(r, 'faster_rcnn', 'proposals', 'fast_rcnn')} times less than selective search "
        f"{_where(r)}; {d['proposals']:.0f} of them cover {percent(d['recall'])} % of the objects; "
        f"AP {percent(joint)} trained at once, {percent(turns)} in turns with as many batches"
    )


def with_anchors(r: Results, figure: str, scales: int, ratios: int) -> float:
    """A figure of Faster R-CNN, trained at once, with so many sizes and shapes of anchors."""
    wanted = {"training": "joint", "scales": scales, "ratios": ratios}
    return averaged(r, "faster_rcnn_ablation", figure, **wanted)


def s12(r: Results) -> str:
    """Recall with fewer kinds of anchors."""
    kinds = (("1 × 1", 1, 1), ("1 × 3", 1, 3), ("3 × 1", 3, 1), ("3 × 3", 3, 3))
    parts = [f"{name} {percent(with_anchors(r, 'recall', *kind))}" for name, *kind in kinds]
    return f"objects covered, in percent, with anchors of sizes × shapes: {', '.join(parts)}"


def s13(r: Results) -> str:
    """What the heads make of the proposals."""
    d = of(r, "faster_rcnn")
    return (
        f"from {d['proposals']:.0f} boxes AP {percent(d['unmoved']['ap'])} where they are, "
        f"{percent(d['box']['ap'])} after the second move; AP50 {percent(d['box']['ap50'])}"
    )


def s14(r: Results) -> str:
    """What the mask branch adds and costs."""
    faster, mask = of(r, "faster_rcnn"), of(r, "mask_rcnn")
    more = mask["parameters"] - faster["parameters"]
    return (
        f"{more:,} more numbers, {_share(r, 'mask_rcnn', 'masks')} of the time {_where(r)}; "
        f"mask AP50 {percent(mask['mask']['ap50'])}"
    )


def s15(r: Results) -> str:
    """What rounding costs boxes and masks."""
    parts = [
        f"boxes {percent(lost_by_rounding(r, s, 'box_ap'))} %, masks {percent(lost_by_rounding(r, s, 'mask_ap'))} % "
        f"at stride {s}"
        for s in (16, 8)
    ]
    return f"share of AP that RoIPool loses against RoIAlign: {'; '.join(parts)}"


def s16(r: Results) -> str:
    """The example, in cells."""
    a = r["history"]["alignment"]
    return (
        f"15 · 25 / 128 = {a['exact']:.2f} cells; rounded down {a['rounded_down']:.0f}; RoIPool takes "
        f"{a['pooled']:.0f}, for code rounds to the nearest and counts the last cell in; RoIAlign ends at "
        f"{a['aligned']:.2f}"
    )


def s17(r: Results) -> str:
    """How good the masks are."""
    m = of(r, "mask_rcnn")["mask"]
    return f"masks with class and score: AP {percent(m['ap'])}, AP50 {percent(m['ap50'])}, AP75 {percent(m['ap75'])}"
