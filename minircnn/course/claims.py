"""The seventeen claims of the story in its order: what was measured about each, and whether that bears it out.

The numbers come from the record of the history and from those ablations in ``data/results`` that train detectors which
differ in one thing. Averages and shares are in percent. Where a time was measured at both sizes, the first number is
Toy Town's, the second that of the papers' size.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from types import SimpleNamespace
from typing import Any

from minircnn.course.history import GENERATIONS
from minircnn.course.record import read_results
from minircnn.shipped import RESULTS_FOLDER

Results = Mapping[str, Mapping[str, Any]]
"""By the names of the files in ``data/results``; the record of the history is ``"history"``."""

SAME = 0.02  # APs that differ by less are the same: of two trainings that differ in nothing but their seed some do
ABLATIONS = ("rcnn_ablation", "fast_rcnn_ablation", "faster_rcnn_ablation", "mask_rcnn_ablation")


def gather(record: Mapping[str, Any], folder: Path = RESULTS_FOLDER) -> dict[str, Any]:
    """A record of the history, and the ablations' results beside it; for errors see :func:`read_results`."""
    commands = {name: f"python -m workshop.ablations {name.removesuffix('_ablation')}" for name in ABLATIONS}
    files = {name: read_results(folder / f"{name}.json", command) for name, command in commands.items()}
    return {"history": record, **files}


class Measured:
    """The results, with what the claims ask of them; times are Toy Town's, or with ``paper`` those of that size."""

    def __init__(self, results: Results, paper: bool = False) -> None:
        self.results, self.paper, self.record = results, paper, results["history"]
        self.detectors = {one.key: SimpleNamespace(**self.record["detectors"][one.key]) for one in GENERATIONS}
        self.rcnn, self.fast, self.faster, self.mask = self.detectors.values()
        own = (SimpleNamespace(**self.record[name]) for name in ("scenes", "transfer", "alignment"))
        self.scenes, self.transfer, self.alignment = own

    @property
    def both(self) -> list["Measured"]:
        """With Toy Town's times and, where they were measured, with those of the papers' size."""
        return [Measured(self.results, paper) for paper in (False, True)[: 2 if self.record["paper_scale"] else 1]]

    @property
    def where(self) -> str:
        """Which sizes the numbers of :meth:`slower` and :meth:`share` belong to."""
        return "on Toy Town and at the papers' size" if self.record["paper_scale"] else "on Toy Town"

    def ms(self, key: str, stage: str = "all") -> float:
        """A detector's milliseconds for an image, in all or of a stage."""
        at_scale = self.paper and self.record["paper_scale"]["milliseconds"][key]
        return (at_scale or self.detectors[key].milliseconds)[stage]

    def slower(self, key: str, stage: str = "all", other: str = "rcnn") -> str:
        """How many times as long the other takes."""
        ratios = [one.ms(other, stage) / one.ms(key, stage) for one in self.both]
        return " and ".join(f"{value:.0f}" if value >= 10 else f"{value:.1f}" for value in ratios)

    def share(self, key: str, stage: str) -> str:
        """The share of a detector's time that a stage takes."""
        return " and ".join(f"{100 * one.ms(key, stage) / one.ms(key):.0f} %" for one in self.both)

    def mean(self, ablation: str, figure: str, **wanted: Any) -> float:  # noqa: ANN401 - of any type
        """The mean of a figure over the rows of an ablation that are as wanted; nan if there are none."""
        rows = self.results[f"{ablation}_ablation"]["rows"]
        values = [row[figure] for row in rows if all(row[key] == value for key, value in wanted.items())]
        return mean(values) if values else float("nan")

    def regressed(self, moved: bool) -> float:
        """AP75 of R-CNN in its ablation, with box regression or without."""
        return self.mean("rcnn", "ap75", layer="fc7", fine_tuned=True, box_regression=moved)

    def trained(self, training: str, classifier: str = "softmax") -> float:
        """AP of Fast R-CNN with box regression, trained "joint" or in "stages", with "softmax" or "SVM"."""
        return self.mean("fast_rcnn", "ap", training=training, classifier=classifier, box_regression=True)

    def learned(self, training: str, times: int = 1) -> float:
        """AP of Faster R-CNN trained "joint", or in "turns" with so many times as many batches."""
        iterations = times * self.results["faster_rcnn_ablation"]["settings"]["iterations"]
        return self.mean("faster_rcnn", "ap", training=training, scales=3, ratios=3, iterations=iterations)

    def anchors(self, figure: str, scales: int, ratios: int) -> float:
        """Faster R-CNN's AP, or the recall of its proposals, with so many sizes and shapes of anchors."""
        return self.mean("faster_rcnn", figure, training="joint", scales=scales, ratios=ratios)

    @property
    def gain_by_anchors(self) -> float:
        """AP of Faster R-CNN that nine kinds of anchors gain over one."""
        return self.anchors("ap", 3, 3) - self.anchors("ap", 1, 1)

    def rounding(self, stride: int, figure: str, share: bool = True) -> float:
        """What goes of a figure if RoIPool takes RoIAlign's place: which share of it, or how much."""
        wanted = {"stride": stride, "mask_kind": "sigmoid"}
        pool, align = (self.mean("mask_rcnn", figure, pooling=way, **wanted) for way in ("pool", "align"))
        return (align - pool) / align if share else align - pool


@dataclass(frozen=True)
class Claim:
    """One step of the story."""

    id: str  # S1 to S17
    text: str  # what is claimed
    notebooks: tuple[str, ...]  # where it is shown
    says: Callable[[Measured], str]  # what was measured about it, as a sentence with numbers
    rule: Callable[[Measured], bool]  # whether these numbers are as the claim has them
    # Whether that is asked of the times at the papers' size as well; or another rule for these
    timed: bool | Callable[[Measured], bool] = False
    # What the claim says beyond its rule; None: nothing
    also: Callable[[Measured], bool] | None = None

    def evidence(self, results: Results) -> str:
        """What was measured about it."""
        return self.says(Measured(results))

    def holds(self, results: Results) -> bool:
        """Whether that bears the claim out on Toy Town."""
        return self.rule(Measured(results))

    def verdict(self, results: Results) -> str:
        """Either "yes", or "no", or "in part": at one size and not at the other, or a part of what is claimed."""
        answers = {self.holds(results)}
        if self.timed and results["history"]["paper_scale"]:
            answers.add((self.timed if callable(self.timed) else self.rule)(Measured(results, paper=True)))
        if self.also:
            answers.add(self.also(Measured(results)))
        return "in part" if len(answers) == 2 else "yes" if answers == {True} else "no"


def percent(*values: float) -> str:
    """Shares as numbers in percent, without the sign.

    >>> percent(0.4637, 1)
    '46.4, 100.0'
    """
    return ", ".join(f"{100 * value:.1f}" for value in values)


def _trainings(m: Measured) -> str:
    counts = ", ".join(f"{one.name} {one.trainings}" for one in m.detectors.values())
    if not m.record["training"]:
        return f"trainings, one behind the other: {counts}"
    minutes = ", ".join(f"{m.record['training'][key]['all']:.0f}" for key in m.detectors)
    return f"trainings, one behind the other: {counts}; estimated minutes of a core: ≥ {minutes}"


def _rcnn_is_slow(m: Measured) -> bool:
    passes = m.record["paper_scale"]["proposals"] if m.paper else m.rcnn.passes
    return max(m.detectors, key=m.ms) == "rcnn" and m.ms("rcnn", "features") > m.ms("rcnn") / 2 and passes > 100


def _proposals_are_nearly_free(m: Measured) -> bool:
    own = m.ms("faster_rcnn", "proposals")
    return own < m.ms("fast_rcnn", "proposals") / 5 and own < m.ms("faster_rcnn") / 2


def _few_proposals_cover_more(m: Measured) -> bool:
    at_once = m.learned("joint") > max(m.learned("turns"), m.learned("turns", 2))
    return m.faster.proposals < m.fast.proposals and m.faster.recall > 0.9 and at_once


def _search_is_most(m: Measured) -> bool:
    return m.ms("fast_rcnn", "proposals") > m.ms("fast_rcnn") / 2


def _search_at_each_size(m: Measured) -> str:
    parts = []
    for one in m.both:
        search, heads = (one.ms("fast_rcnn", stage) / one.ms("fast_rcnn") for stage in ("proposals", "heads"))
        size = "at the papers' size" if one.paper else "on Toy Town"
        parts.append(f"{100 * search:.0f} % {size}, {'most' if _search_is_most(one) else 'not most'} of it")
        if heads > search:
            parts[-1] += f": the heads, fully connected layers on the same core, take {100 * heads:.0f} %"
    return f"selective search's share of Fast R-CNN's time: {'; '.join(parts)}"


def _kinds_of_anchors(m: Measured) -> str:
    kinds = ((1, 1), (1, 3), (3, 1), (3, 3))  # sizes and shapes
    recall, ap = (percent(*(m.anchors(figure, *kind) for kind in kinds)) for figure in ("recall", "ap"))
    text = f"with anchors of sizes × shapes {', '.join(f'{s} × {r}' for s, r in kinds)}: objects covered, in percent, "
    return f"{text}{recall}; AP of the detector {ap}, {percent(m.gain_by_anchors)} points from one kind to nine"


def _losses(m: Measured) -> str:
    lost = (
        f"boxes {percent(m.rounding(stride, 'box_ap', share=False))} points "
        f"({percent(m.rounding(stride, 'box_ap'))} %), masks "
        f"{percent(m.rounding(stride, 'mask_ap', share=False))} ({percent(m.rounding(stride, 'mask_ap'))} %) "
        f"at stride {stride}"
        for stride in (16, 8)
    )
    return f"AP that RoIPool loses against RoIAlign: {'; '.join(lost)}"


def _masks_lose_more(m: Measured, share: bool) -> bool:
    losses = ([m.rounding(stride, figure, share) for figure in ("mask_ap", "box_ap")] for stride in (16, 8))
    return all(masks > boxes > 0 for masks, boxes in losses)


def _align_does_not_round(m: Measured) -> bool:
    a = m.alignment
    exact = abs(a.aligned - a.exact) < 1e-3 and a.exact == 15 * 25 / 128
    return exact and a.rounded_down == 2 and a.pooled == round(a.pooled)


CLAIMS = (
    Claim(
        "S1",
        "Naming an image is for one object in good view; scenes hold several that overlap, and each has to be found.",
        ("00",),
        lambda m: (
            f"{m.scenes.objects:.1f} objects a scene; {percent(m.scenes.several)} % of the scenes hold several, "
            f"{percent(m.scenes.kinds)} % several kinds, {percent(m.scenes.crowded)} % some that overlap"
        ),
        lambda m: min(m.scenes.several, m.scenes.kinds, m.scenes.crowded) > 0.5,
    ),
    Claim(
        "S2",
        "Features learned for naming images serve detection as well, better than hand-made or random ones.",
        ("03",),
        lambda m: (
            f"true boxes of {m.transfer.images} scenes named rightly by a linear classifier: "
            f"{percent(m.transfer.learned)} % on features of a network that never saw a scene, "
            f"{percent(m.transfer.hand_made)} on hand-made, {percent(m.transfer.random)} on random ones"
        ),
        lambda m: m.transfer.learned > max(m.transfer.hand_made, m.transfer.random),
    ),
    Claim(
        "S3",
        "Selective search groups pixels by color, texture, size and fill, at all scales: few boxes, most objects.",
        ("02",),
        lambda m: (
            f"{m.rcnn.proposals:.0f} proposals an image cover {percent(m.rcnn.recall)} % of the objects at IoU 0.5"
        ),
        lambda m: m.rcnn.recall > 0.9 and m.rcnn.proposals <= 2000,
    ),
    Claim(
        "S4",
        "R-CNN warps every proposal to one square, passes it through AlexNet, and SVMs say what it is.",
        ("03", "04"),
        lambda m: f"{m.rcnn.passes:.0f} squares an image, one for each proposal; AP50 {percent(m.rcnn.box['ap50'])}",
        lambda m: m.rcnn.passes == m.rcnn.proposals and m.rcnn.box["ap50"] > 0.5,
    ),
    Claim(
        "S5",
        "A linear regression moves each box closer to its object.",
        ("04",),
        lambda m: (
            f"AP75 {percent(m.rcnn.unmoved['ap75'])} with the proposals' boxes, {percent(m.rcnn.box['ap75'])} with "
            f"moved ones (ablation: {percent(m.regressed(False))} and {percent(m.regressed(True))})"
        ),
        lambda m: m.rcnn.box["ap75"] > m.rcnn.unmoved["ap75"] and m.regressed(True) > m.regressed(False),
    ),
    Claim(
        "S6",
        "R-CNN is slow: a pass of the network for every proposal.",
        ("04", "05"),
        lambda m: (
            f"{m.rcnn.passes:.0f} passes an image; it takes {m.slower('faster_rcnn')} times as long as "
            f"Faster R-CNN {m.where}"
            + "".join(f", {one.ms('rcnn') / 1000:.0f} s an image there" for one in m.both[1:])
            + f"; warping and convolutions are {m.share('rcnn', 'features')} of it"
        ),
        _rcnn_is_slow,
        timed=True,
    ),
    Claim(
        "S7",
        "R-CNN is laborious to train: network, SVMs and regressions are three models.",
        ("04", "06", "11"),
        _trainings,
        lambda m: [one.trainings for one in m.detectors.values()] == [3, 1, 1, 1],
    ),
    Claim(
        "S8",
        "RoIPool cuts regions out of one feature map: one pass for the image, in place of one for each proposal.",
        ("05",),
        lambda m: (
            f"{m.rcnn.passes:.0f} passes become {m.fast.passes:.0f}; features take "
            f"{m.slower('fast_rcnn', 'features')} times less {m.where}"
        ),
        lambda m: m.ms("rcnn", "features") > 5 * m.ms("fast_rcnn", "features") and m.fast.passes == 1 < m.rcnn.passes,
        timed=True,
    ),
    Claim(
        "S9",
        "Fast R-CNN is one model: a softmax in place of SVMs, a linear layer for boxes beside it, learned together.",
        ("06",),
        lambda m: (
            f"AP {percent(m.trained('joint'))} together, {percent(m.trained('stages'))} one after the other; "
            f"{percent(m.trained('joint', 'SVM'))} with SVMs in place of the softmax"
        ),
        lambda m: (
            m.trained("joint") > m.trained("stages") and abs(m.trained("joint") - m.trained("joint", "SVM")) < SAME
        ),
    ),
    Claim(
        "S10",
        "What is left to wait for in Fast R-CNN is the search for proposals.",
        ("06",),
        _search_at_each_size,
        _search_is_most,
        timed=True,
    ),
    Claim(
        "S11",
        "Faster R-CNN proposes from the features that are there anyway, nearly for free, and learns it all at once.",
        ("07", "08"),
        lambda m: (
            f"proposals take {m.slower('faster_rcnn', 'proposals', 'fast_rcnn')} times less than selective search "
            f"{m.where}; {m.faster.proposals:.0f} of them cover {percent(m.faster.recall)} % of the objects; AP "
            f"{percent(m.learned('joint'))} trained at once, {percent(m.learned('turns'))} in turns with as many "
            f"batches, {percent(m.learned('turns', 2))} with twice as many, of which each half of the detector learns "
            "from as many as at once"
        ),
        lambda m: _proposals_are_nearly_free(m) and _few_proposals_cover_more(m),
        timed=_proposals_are_nearly_free,
    ),
    Claim(
        "S12",
        "At each place a few anchors of common sizes and shapes are scored and moved; one kind would not do.",
        ("07",),
        _kinds_of_anchors,
        lambda m: m.anchors("recall", 3, 3) > m.anchors("recall", 1, 1),
        also=lambda m: m.gain_by_anchors >= SAME,
    ),
    Claim(
        "S13",
        "The best proposals go through Fast R-CNN, for a class and a tighter box.",
        ("08",),
        lambda m: (
            f"from {m.faster.proposals:.0f} boxes AP {percent(m.faster.unmoved['ap'])} where they are, "
            f"{percent(m.faster.box['ap'])} after the second move; AP50 {percent(m.faster.box['ap50'])}"
        ),
        lambda m: m.faster.box["ap"] > m.faster.unmoved["ap"],
    ),
    Claim(
        "S14",
        "Mask R-CNN adds a small branch of convolutions, which says beside class and box which pixels are the object.",
        ("10",),
        lambda m: (
            f"{m.mask.parameters - m.faster.parameters:,} more numbers, {m.share('mask_rcnn', 'masks')} of the time "
            f"{m.where}; mask AP50 {percent(m.mask.mask['ap50'])}"
        ),
        lambda m: 1 < m.mask.parameters / m.faster.parameters < 1.5 and m.mask.mask["ap50"] > 0.5,
    ),
    Claim(
        "S15",
        "RoIPool's regions are a little off. That costs boxes accuracy, and masks more.",
        ("09", "10"),
        _losses,
        lambda m: _masks_lose_more(m, share=True),
        also=lambda m: _masks_lose_more(m, share=False),
    ),
    Claim(
        "S16",
        "15 pixels of 128 are 2.93 of 25 cells. Rounding makes 2 of them; RoIAlign interpolates, and rounds nothing.",
        ("09",),
        lambda m: (
            f"15 · 25 / 128 = {m.alignment.exact:.2f} cells; rounded down, as the story has it, "
            f"{m.alignment.rounded_down:.0f}; to the nearest, as the paper, {m.alignment.exact:.0f}; by RoIPool's "
            f"published code, which counts the last cell in, {m.alignment.pooled:.0f}; RoIAlign ends at "
            f"{m.alignment.aligned:.2f}"
        ),
        _align_does_not_round,
        also=lambda m: m.alignment.pooled == m.alignment.rounded_down,
    ),
    Claim(
        "S17",
        "Masks with classes and boxes make a segmentation of every object.",
        ("10", "12"),
        lambda m: (
            "masks with class and score: "
            + ", ".join(f"{name} {percent(m.mask.mask[name.lower()])}" for name in ("AP", "AP50", "AP75"))
        ),
        lambda m: m.mask.mask["ap"] > 0.3 and m.mask.mask["ap50"] > 0.6,
    ),
)
