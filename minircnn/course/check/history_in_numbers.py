"""The exercises of notebook 11: times and shares of the record, the cost of rounding, what a claim is worth."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from statistics import fmean
from typing import Any

from minircnn.course.check.judge import Ask, NotYet, exercise, refuse_type
from minircnn.course.claims import CLAIMS, SAME, Claim, gather
from minircnn.course.record import Record, read_record

OFTEN_TOLD = (
    Claim(
        "T1",
        "Each generation is more accurate than the one before, because its method is better.",
        ("08", "11"),
        lambda m: (
            "AP50 "
            + ", ".join(f"{100 * one['box']['ap50']:.1f}" for one in m.record["detectors"].values())
            + "; batches learned from "
            + ", ".join(f"{one['learned_from']['batches']:,}" for one in m.record["detectors"].values())
            + "; one training each"
        ),
        lambda m: len({one["learned_from"].get("images") for one in m.record["detectors"].values()}) == 1,
    ),
    Claim(
        "T2",
        "Boxes forgive RoIPool's rounding: only masks need RoIAlign.",
        ("05", "10"),
        lambda m: (
            "box AP that RoIPool loses against RoIAlign: "
            + ", ".join(f"{100 * m.rounding(s, 'box_ap', share=False):.1f} points at stride {s}" for s in (16, 8))
        ),
        lambda m: max(m.rounding(stride, "box_ap", share=False) for stride in (16, 8)) < SAME,
    ),
)
"""Claims that are not the story's, but are often told with it."""

VERDICTS = ("yes", "in part", "no")
_DECIDES = {
    "S10": "at the papers' size the heads take longer than the search",
    "S12": "the proposals' recall grows, the detector's AP hardly does",
    "S15": "masks lose the larger share, but at stride 16 boxes lose more points",
    "S16": "RoIAlign rounds nothing, but the published RoIPool makes 4 of 2.93, and not 2",
    "T1": "they learned from different numbers of images, once each, so the method is not all that differs",
    "T2": "that is far more than seeds differ",
}


@lru_cache(maxsize=1)
def results() -> dict[str, Any]:
    """The record of the history and the ablations' results, as they come with the project."""
    return gather(read_record())


def _both(record: Record, key: str, stage: str = "all") -> tuple[float, float]:
    """Milliseconds on Toy Town and at the papers' size."""
    scale = record["paper_scale"]["milliseconds"]
    return record["detectors"][key]["milliseconds"][stage], scale[key][stage]


def _speed_up(record: Record, slow: str, fast: str, stage: str = "all") -> tuple[float, float]:
    """How many times as long one detector takes as another, at both sizes."""
    first, second = (_both(record, key, stage) for key in (slow, fast))
    return first[0] / second[0], first[1] / second[1]


@exercise(_speed_up)
def speed_up(ask: Ask) -> str:
    """How many times as long one detector takes as another."""
    record = read_record()
    for slow, fast, stage in (("fast_rcnn", "faster_rcnn", "proposals"), ("rcnn", "faster_rcnn", "all")):
        wanted, one, other = (
            _speed_up(record, slow, fast, stage),
            _both(record, slow, stage),
            _both(record, fast, stage),
        )
        slips = {
            "it divides the wrong way round: the time of slow / the time of fast": (1 / wanted[0], 1 / wanted[1]),
            "Toy Town's comes first, then the papers' size": wanted[::-1],
            "both are Toy Town's; the other times are in record['paper_scale']['milliseconds']": (wanted[0],) * 2,
            "both are of the papers' size; Toy Town's are in record['detectors']": (wanted[1],) * 2,
            "it subtracts the times; divide them": (one[0] - other[0], one[1] - other[1]),
            "it takes the whole time; stage says which": _speed_up(record, slow, fast),
        }
        ask.compare(record, slow, fast, stage, wanted=wanted, slips=slips, case=f"for {slow}, {fast}, {stage}")
    ask.compare(record, "rcnn", "mask_rcnn", wanted=_speed_up(record, "rcnn", "mask_rcnn"), case="without a stage")
    return "the ratios of the record, at both sizes"


def _limit_without(record: Record, key: str, stage: str) -> tuple[float, float]:
    """How many times as fast a detector would be if a stage took no time, at both sizes (Amdahl's law)."""
    whole, part = _both(record, key), _both(record, key, stage)
    return whole[0] / (whole[0] - part[0]), whole[1] / (whole[1] - part[1])


@exercise(_limit_without)
def limit_without(ask: Ask) -> str:
    """The speed-up if a stage took no time."""
    record = read_record()
    for key, stage in (("fast_rcnn", "proposals"), ("mask_rcnn", "masks")):
        whole, part, wanted = _both(record, key), _both(record, key, stage), _limit_without(record, key, stage)
        others = [_both(record, key, name) for name in record["detectors"][key]["milliseconds"]]
        sums = [sum(times) - whole[n] - part[n] for n, times in enumerate(zip(*others, strict=True))]
        slips = {
            "that is the stage's share of the time": (part[0] / whole[0], part[1] / whole[1]),
            "that is the share that is left; how many times as fast is it?": (1 / wanted[0], 1 / wanted[1]),
            "it divides by the time of the stage; divide by what is left": (whole[0] / part[0], whole[1] / part[1]),
            "those are milliseconds; divide the whole time by them": (whole[0] - part[0], whole[1] - part[1]),
            "Toy Town's comes first, then the papers' size": wanted[::-1],
            "both are Toy Town's": (wanted[0],) * 2,
            "it adds up stages; subtract the stage from 'all', the median of whole images": (
                whole[0] / sums[0],
                whole[1] / sums[1],
            ),
        }
        ask.compare(record, key, stage, wanted=wanted, slips=slips, case=f"for {key} without {stage}")
    return "Amdahl's law, at both sizes"


Rows = Sequence[Mapping[str, Any]]


def _cost_of_rounding(rows: Rows, stride: int, figure: str) -> tuple[float, float]:
    """What RoIPool loses against RoIAlign: points, and percent of RoIAlign's."""
    return _loss(*(_mean(rows, figure, stride=stride, pooling=way, mask_kind="sigmoid") for way in ("pool", "align")))


def _mean(rows: Rows, figure: str, **wanted: object) -> float:
    return fmean(row[figure] for row in rows if all(row[key] == value for key, value in wanted.items()))


def _loss(pool: float, align: float) -> tuple[float, float]:
    return 100 * (align - pool), 100 * (align - pool) / align


def seeds_differ(rows: Rows) -> float:
    """The largest difference in AP, in points, between detectors that differ in their seed only."""
    groups: dict[tuple, list[float]] = {}
    for row in rows:
        for figure in ("box_ap", "mask_ap"):
            groups.setdefault((figure, row["stride"], row["pooling"], row["mask_kind"]), []).append(100 * row[figure])
    return max(max(values) - min(values) for values in groups.values())


@exercise(_cost_of_rounding)
def cost_of_rounding(ask: Ask) -> str:
    """What RoIPool loses against RoIAlign."""
    rows = results()["mask_rcnn_ablation"]["rows"]
    for stride, figure in ((8, "mask_ap"), (16, "box_ap"), (16, "mask_ap"), (8, "box_ap")):
        points, percent = wanted = _cost_of_rounding(rows, stride, figure)

        def lost(pool: str = "pool", figure: str = figure, **others: object) -> tuple[float, float]:
            return _loss(*(_mean(rows, figure, pooling=way, **others) for way in (pool, "align")))

        slips = {
            "the sign: take RoIPool's AP from RoIAlign's": (-points, -percent),
            "points come first, then percent": (percent, points),
            "AP is in [0, 1]; multiply both by 100": (points / 100, percent / 100),
            "AP is in [0, 1]; points are 100 times the difference": (points / 100, percent),
            "the share is of RoIAlign's AP, which is lost, and not of RoIPool's": (
                points,
                percent / (1 - percent / 100),
            ),
            "rows with softmax masks are among them; choose mask_kind 'sigmoid'": lost(stride=stride),
            "those are RoIWarp's; choose pooling 'pool'": lost("warp", stride=stride, mask_kind="sigmoid"),
            "it does not look at stride": lost(mask_kind="sigmoid"),
            "it takes one seed; take the mean over three": lost(stride=stride, mask_kind="sigmoid", seed=0),
            "it adds up three seeds; take their mean": (3 * points, percent),
        }
        slips = {text: wrong for text, wrong in slips.items() if wrong != wanted}
        ask.compare(rows, stride, figure, wanted=wanted, slips=slips, case=f"for {figure} at stride {stride}")
    return "means over three seeds, for boxes and masks at both strides"


def _verdicts() -> dict[str, str]:
    """What the numbers say to each claim."""
    return {claim.id: claim.verdict(results()) for claim in (*CLAIMS, *OFTEN_TOLD)}


@exercise(_verdicts)
def verdicts(ask: Ask) -> str:
    """Whether each claim is shown, and which number decides."""
    wanted, given = _verdicts(), ask()
    refuse_type(given, wanted)
    right = sum(given[name] == verdict for name, verdict in wanted.items())
    for claim in (*CLAIMS, *OFTEN_TOLD):
        answer = given[claim.id]
        if answer not in VERDICTS:
            raise NotYet(f"{claim.id}: {answer!r} is no verdict; choose from {', '.join(map(repr, VERDICTS))}")
        if answer != wanted[claim.id]:
            numbers = claim.evidence(results())
            why = f"; {_DECIDES[claim.id]}" if claim.id in _DECIDES else ""
            raise NotYet(f"{right} of {len(wanted)} agree. {claim.id} is not {answer!r}: {numbers}{why}")
    return f"as the numbers have it, {len(wanted)} claims"


_TIME = ("detectors", "faster_rcnn", "milliseconds", "proposals")


def _refuted(record: Record) -> dict[str, Any]:
    """A copy of the record whose region proposal network is as slow as selective search."""
    changed = copy.deepcopy(record)
    changed["detectors"]["faster_rcnn"]["milliseconds"]["proposals"] = _both(record, "fast_rcnn", "proposals")[0]
    return changed


def _changes(before: Any, after: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:  # noqa: ANN401
    """The places in which two records differ."""
    if isinstance(before, Mapping) and isinstance(after, Mapping) and before.keys() == after.keys():
        for key in before:
            yield from _changes(before[key], after[key], (*path, key))
    elif before != after:
        yield path


@exercise(_refuted)
def refuted(ask: Ask) -> str:
    """A record that contradicts S11."""
    record = read_record()
    changed = ask(record)
    refuse_type(changed, record)
    places = list(_changes(record, changed))
    if not places:
        raise NotYet("nothing is changed, so the claim holds as before")
    if _TIME not in places:
        raise NotYet(f"it changes {' > '.join(places[0])}; change the time of Faster R-CNN's proposals")
    if len(places) > 1:
        raise NotYet(f"it changes {len(places)} numbers; the time of Faster R-CNN's proposals alone is enough")
    search, own = _both(record, "fast_rcnn", "proposals")[0], _both(changed, "faster_rcnn", "proposals")[0]
    if not isinstance(own, (int, float)) or own <= 0:
        raise NotYet(f"a time is a number above 0 and not {own!r}")
    if 5 * own <= search:
        raise NotYet(f"{own:.3g} ms: the search takes {search / own:.0f} times as long; S11 falls below 5 times")
    claim = next(claim for claim in CLAIMS if claim.id == "S11")
    if claim.holds({**results(), "history": changed}):
        raise NotYet("S11 still holds")
    return f"with proposals of {own:.0f} ms beside a search of {search:.0f} ms, S11 falls"
