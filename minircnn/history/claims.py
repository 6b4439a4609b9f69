"""The seventeen claims of the story, in its order, each with what was measured about it, and whether that bears it out.

A claim is a sentence; its evidence is a sentence with numbers; and ``holds`` says whether the numbers are as the claim
has them.
"""

from collections.abc import Callable
from dataclasses import dataclass

from minircnn.history import evidence
from minircnn.history.evidence import Results, averaged, lost_by_rounding, milliseconds, of


@dataclass(frozen=True)
class Claim:
    """One step of the story.

    Attributes:
        id: S1 to S17.
        text: what is claimed.
        notebooks: where it is shown.
        evidence: what was measured about it, as a short text; averages and shares in percent.
        holds: whether that bears the claim out on Toy Town.
        at_scale: whether it does at the papers' size; None where that says nothing about it.
    """

    id: str
    text: str
    notebooks: tuple[str, ...]
    evidence: Callable[[Results], str]
    holds: Callable[[Results], bool]
    at_scale: Callable[[Results], bool] | None = None

    def verdict(self, results: Results) -> str:
        """Either "yes", or "no", or "in part": on Toy Town but not at the papers' size, or the other way round."""
        answers = {self.holds(results)}
        if self.at_scale and evidence.has_scale(results):
            answers.add(self.at_scale(results))
        return "in part" if len(answers) == 2 else "yes" if answers == {True} else "no"


def _rcnn_is_slow(r: Results, paper: bool = False) -> bool:
    times = {key: milliseconds(r, key, paper=paper) for key in evidence.NAMES}
    features = milliseconds(r, "rcnn", "features", paper)
    passes = r["history"]["paper_scale"]["proposals"] if paper else of(r, "rcnn")["passes"]
    return max(times, key=times.get) == "rcnn" and features > times["rcnn"] / 2 and passes > 100


def _one_pass_is_cheaper(r: Results, paper: bool = False) -> bool:
    rcnn, fast = (milliseconds(r, key, "features", paper) for key in ("rcnn", "fast_rcnn"))
    return rcnn > 5 * fast and of(r, "fast_rcnn")["passes"] == 1 < of(r, "rcnn")["passes"]


def _search_is_what_is_left(r: Results, paper: bool = False) -> bool:
    return milliseconds(r, "fast_rcnn", "proposals", paper) > milliseconds(r, "fast_rcnn", paper=paper) / 2


def _joint_is_better(r: Results) -> bool:
    joint, stages = (evidence.trained(r, "ap", way, "softmax") for way in ("joint", "stages"))
    return joint > stages and abs(joint - evidence.trained(r, "ap", "joint", "SVM")) < 0.02


def _proposals_are_nearly_free(r: Results, paper: bool = False) -> bool:
    search, own = (milliseconds(r, key, "proposals", paper) for key in ("fast_rcnn", "faster_rcnn"))
    return own < search / 5 and own < milliseconds(r, "faster_rcnn", paper=paper) / 2


def _faster_is_better(r: Results) -> bool:
    faster, (joint, turns) = of(r, "faster_rcnn"), evidence.joint_and_in_turns(r)
    fewer = faster["proposals"] < of(r, "fast_rcnn")["proposals"] and faster["recall"] > 0.9
    return _proposals_are_nearly_free(r) and fewer and joint > turns


def _masks_are_hurt_more(r: Results) -> bool:
    return all(lost_by_rounding(r, s, "mask_ap") > lost_by_rounding(r, s, "box_ap") > 0 for s in (16, 8))


def _align_does_not_round(r: Results) -> bool:
    a = r["history"]["alignment"]
    exact = abs(a["aligned"] - a["exact"]) < 1e-3 and a["exact"] == 15 * 25 / 128
    return exact and a["rounded_down"] == 2 and a["pooled"] == round(a["pooled"])


def _at_scale(holds: Callable[[Results, bool], bool]) -> Callable[[Results], bool]:
    """The same question about the papers' size."""
    return lambda results: holds(results, True)


CLAIMS = (
    Claim(
        "S1",
        "Naming a picture is for one object in good view; scenes hold several that overlap, and each has to be found.",
        ("00",),
        evidence.s1,
        lambda r: min(r["history"]["scenes"][key] for key in ("several", "kinds", "crowded")) > 0.5,
    ),
    Claim(
        "S2",
        "Features learned for naming pictures serve detection as well, better than hand-made or random ones.",
        ("03",),
        evidence.s2,
        lambda r: (
            r["history"]["transfer"]["learned"]
            > max(r["history"]["transfer"]["hand_made"], r["history"]["transfer"]["random"])
        ),
    ),
    Claim(
        "S3",
        "Selective search groups pixels by colour, texture, size and fill, at all scales: few boxes, most objects.",
        ("02",),
        evidence.s3,
        lambda r: of(r, "rcnn")["recall"] > 0.9 and of(r, "rcnn")["proposals"] <= 2000,
    ),
    Claim(
        "S4",
        "R-CNN warps every proposal to one square, passes it through AlexNet, and SVMs say what it is.",
        ("03", "04"),
        evidence.s4,
        lambda r: of(r, "rcnn")["passes"] == of(r, "rcnn")["proposals"] and of(r, "rcnn")["box"]["ap50"] > 0.5,
    ),
    Claim(
        "S5",
        "A linear regression moves each box closer to its object.",
        ("04",),
        evidence.s5,
        lambda r: (
            of(r, "rcnn")["box"]["ap75"] > of(r, "rcnn")["unmoved"]["ap75"]
            and averaged(r, "rcnn_ablation", "ap75", **evidence.FULL, box_regression=True)
            > averaged(r, "rcnn_ablation", "ap75", **evidence.FULL, box_regression=False)
        ),
    ),
    Claim(
        "S6",
        "R-CNN is slow: a pass of the network for every proposal.",
        ("04", "05"),
        evidence.s6,
        _rcnn_is_slow,
        _at_scale(_rcnn_is_slow),
    ),
    Claim(
        "S7",
        "R-CNN is laborious to train: network, SVMs and regressions are three models.",
        ("04", "06", "11"),
        evidence.s7,
        lambda r: (
            of(r, "rcnn")["trainings"] == 3 and all(of(r, k)["trainings"] == 1 for k in evidence.NAMES if k != "rcnn")
        ),
    ),
    Claim(
        "S8",
        "RoIPool cuts regions out of one feature map: one pass for the picture, in place of one for each proposal.",
        ("05",),
        evidence.s8,
        _one_pass_is_cheaper,
        _at_scale(_one_pass_is_cheaper),
    ),
    Claim(
        "S9",
        "Fast R-CNN is one model: a softmax in place of SVMs, a linear layer for boxes beside it, learned together.",
        ("06",),
        evidence.s9,
        _joint_is_better,
    ),
    Claim(
        "S10",
        "What is left to wait for in Fast R-CNN is the search for proposals.",
        ("06",),
        evidence.s10,
        _search_is_what_is_left,
        _at_scale(_search_is_what_is_left),
    ),
    Claim(
        "S11",
        "Faster R-CNN proposes from the features that are there anyway, nearly for free, and learns it all at once.",
        ("07", "08"),
        evidence.s11,
        _faster_is_better,
        _at_scale(_proposals_are_nearly_free),
    ),
    Claim(
        "S12",
        "At each place a few anchors of common sizes and shapes are scored and moved; one kind would not do.",
        ("07",),
        evidence.s12,
        lambda r: evidence.with_anchors(r, "recall", 3, 3) > evidence.with_anchors(r, "recall", 1, 1),
    ),
    Claim(
        "S13",
        "The best proposals go through Fast R-CNN, for a class and a tighter box.",
        ("08",),
        evidence.s13,
        lambda r: of(r, "faster_rcnn")["box"]["ap"] > of(r, "faster_rcnn")["unmoved"]["ap"],
    ),
    Claim(
        "S14",
        "Mask R-CNN adds a small branch of convolutions, which says beside class and box which pixels are the object.",
        ("10",),
        evidence.s14,
        lambda r: (
            0
            < of(r, "mask_rcnn")["parameters"] - of(r, "faster_rcnn")["parameters"]
            < of(r, "faster_rcnn")["parameters"] / 2
            and of(r, "mask_rcnn")["mask"]["ap50"] > 0.5
        ),
    ),
    Claim(
        "S15",
        "RoIPool's regions are a little off. That costs boxes accuracy, and masks more.",
        ("09", "10"),
        evidence.s15,
        _masks_are_hurt_more,
    ),
    Claim(
        "S16",
        "15 pixels of 128 are 2.93 of 25 cells. Rounding makes 2 of them; RoIAlign interpolates, and rounds nothing.",
        ("09",),
        evidence.s16,
        _align_does_not_round,
    ),
    Claim(
        "S17",
        "Masks with classes and boxes make a segmentation of every object.",
        ("10", "12"),
        evidence.s17,
        lambda r: of(r, "mask_rcnn")["mask"]["ap"] > 0.3 and of(r, "mask_rcnn")["mask"]["ap50"] > 0.6,
    ),
)
