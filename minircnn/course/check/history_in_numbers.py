"""The exercises of notebook 11: times and shares of the record, the cost of rounding, what a claim is worth."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from statistics import fmean
from typing import Any

from minircnn.course.check.judge import Ask, NotYet, exercise, refuse_type
from minircnn.course.claims import CLAIMS, SAME, Claim, gather, percent
from minircnn.course.record import Record, read_record

OFTEN_TOLD = (
    Claim(
        "T1",
        "Each generation is more accurate than the one before, because its method is better.",
        ("08", "11"),
        lambda m: (
            f"AP50 {percent(*(one.box['ap50'] for one in m.detectors.values()))}; batches learned from "
            + ", ".join(f"{one.learned_from['batches']:,}" for one in m.detectors.values())
            + "; one training each"
        ),
        lambda m: len({one.learned_from.get("images") for one in m.detectors.values()}) == 1,
    ),
    Claim(
        "T2",
        "Boxes forgive RoIPool's rounding: only masks need RoIAlign.",
        ("05", "10"),
        lambda m: (
            "box AP that RoIPool loses against RoIAlign: "
            + ", ".join(f"{percent(m.rounding(s, 'box_ap', share=False))} points at stride {s}" for s in (16, 8))
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


def _times(record: Record, key: str) -> list[Mapping[str, float]]:
    """Milliseconds by stage on Toy Town and at the papers' size."""
    return [record["detectors"][key]["milliseconds"], record["paper_scale"]["milliseconds"][key]]


def _speed_up(record: Record, slow: str, fast: str, stage: str = "all") -> tuple[float, ...]:
    pairs = zip(_times(record, slow), _times(record, fast), strict=True)
    ratios = tuple(one[stage] / other[stage] for one, other in pairs)
    return ratios


@exercise(_speed_up)
def speed_up(ask: Ask) -> str:
    """How many times as long one detector takes as another."""
    slips = """
        one[stage] / other[stage] => other[stage] / one[stage] !! it divides the wrong way round: slow / fast
        return ratios => return ratios[::-1] !! Toy Town's comes first, then the papers' size
        return ratios => return ratios[:1] * 2 !! both are Toy Town's; record['paper_scale'] has the other times
        return ratios => return ratios[1:] * 2 !! both are of the papers' size; Toy Town's are in record['detectors']
        one[stage] / other => one[stage] - other !! it subtracts the times; divide them
        [stage] => ["all"] !! it takes the whole time; stage says which
    """
    ways = ("fast_rcnn", "faster_rcnn", "proposals"), ("rcnn", "faster_rcnn", "all"), ("rcnn", "mask_rcnn")
    ask.cases([(read_record(), *way) for way in ways], slips, "for {1} and {2}")
    return "the ratios of the record, at both sizes"


def _limit_without(record: Record, key: str, stage: str) -> tuple[float, ...]:
    limits = tuple(times["all"] / (times["all"] - times[stage]) for times in _times(record, key))
    return limits


@exercise(_limit_without)
def limit_without(ask: Ask) -> str:
    """How many times as fast a detector would be if a stage took no time (Amdahl's law)."""
    slips = """
        times["all"] / (times["all"] - times[stage]) => times[stage] / times["all"] !! that is the stage's share of time
        times["all"] / (times["all"] - times[stage]) => 1 - times[stage] / times["all"]
            !! that is the share that is left; how many times as fast is it?
        (times["all"] - times[stage]) => times[stage] !! it divides by the time of the stage; divide by what is left
        times["all"] / => !! those are milliseconds; divide the whole time by them
        return limits => return limits[::-1] !! Toy Town's comes first, then the papers' size
        return limits => return limits[:1] * 2 !! both are Toy Town's
        (times["all"] - times[stage]) => sum(t for name, t in times.items() if name not in ("all", stage))
            !! it adds up stages; subtract the stage from 'all', the median of whole images
    """
    ways = ("fast_rcnn", "proposals"), ("mask_rcnn", "masks")
    ask.cases([(read_record(), *way) for way in ways], slips, "for {1} without {2}")
    return "Amdahl's law, at both sizes"


Rows = Sequence[Mapping[str, Any]]


def _cost_of_rounding(rows: Rows, stride: int, figure: str) -> tuple[float, float]:
    pool, align = (_mean(rows, figure, pooling=way, stride=stride, mask_kind="sigmoid") for way in ("pool", "align"))
    points = 100 * (align - pool)
    return points, points / align


def _mean(rows: Rows, figure: str, **wanted: object) -> float:
    return fmean(row[figure] for row in rows if wanted.items() <= row.items())


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
    slips = """
        align - pool => pool - align !! the sign: take RoIPool's AP from RoIAlign's
        return points, points / align => return points / align, points !! points come first, then percent
        points, points / align => points / 100, points / align / 100 !! AP is in [0, 1]; multiply both by 100
        / align => / pool !! the share is of RoIAlign's AP, which is lost, and not of RoIPool's
        , mask_kind="sigmoid" => !! rows with softmax masks are among them; choose mask_kind 'sigmoid'
        "pool", => "warp", !! those are RoIWarp's; choose pooling 'pool'
        stride=stride, => !! it does not look at stride
    """
    rows = results()["mask_rcnn_ablation"]["rows"]
    cases = [(rows, stride, figure) for stride in (8, 16) for figure in ("mask_ap", "box_ap")]
    ask.cases(cases, slips, "for {2} at stride {1}")
    return "means over three seeds, for boxes and masks at both strides"


def _verdicts() -> dict[str, str]:
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
    fast, faster = (_times(changed, key)[0] for key in ("fast_rcnn", "faster_rcnn"))
    faster["proposals"] = fast["proposals"]
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
    search, own = (_times(changed, key)[0]["proposals"] for key in ("fast_rcnn", "faster_rcnn"))
    if not isinstance(own, (int, float)) or own <= 0:
        raise NotYet(f"a time is a number above 0 and not {own!r}")
    if 5 * own <= search:
        raise NotYet(f"{own:.3g} ms: the search takes {search / own:.0f} times as long; S11 falls below 5 times")
    claim = next(claim for claim in CLAIMS if claim.id == "S11")
    if claim.holds({**results(), "history": changed}):
        raise NotYet("S11 still holds")
    return f"with proposals of {own:.0f} ms beside a search of {search:.0f} ms, S11 falls"
