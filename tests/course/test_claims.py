"""Every claim holds for numbers as they should be, and fails for numbers that contradict it."""

import re
from pathlib import Path

import pytest

from minircnn.course.claims import CLAIMS, gather

BY_ID = {claim.id: claim for claim in CLAIMS}
NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


POOLED = {"stride": 8, "pooling": "pool"}
# What would contradict each claim, one number at a time: where it stands, and in which rows of an experiment.
AGAINST = [
    ("S1", "history.scenes.several", 0.3),
    ("S1", "history.scenes.kinds", 0.3),
    ("S1", "history.scenes.crowded", 0.3),
    ("S2", "history.transfer.hand_made", 0.95),
    ("S2", "history.transfer.random", 0.92),
    ("S3", "history.detectors.rcnn.recall", 0.8),
    ("S3", "history.detectors.rcnn.proposals", 5000),
    ("S4", "history.detectors.rcnn.passes", 200.0),
    ("S4", "history.detectors.rcnn.box.ap50", 0.4),
    ("S5", "history.detectors.rcnn.unmoved.ap75", 0.6),
    ("S5", "rcnn_ablation.rows.ap75", 0.2, {"box_regression": True}),
    ("S6", "history.detectors.rcnn.passes", 1.0),
    ("S6", "history.detectors.mask_rcnn.milliseconds.all", 10_000),
    ("S6", "history.detectors.rcnn.milliseconds.features", 100),
    ("S7", "history.detectors.rcnn.trainings", 1),
    ("S7", "history.detectors.mask_rcnn.trainings", 2),
    ("S8", "history.detectors.fast_rcnn.milliseconds.features", 100),
    ("S8", "history.detectors.fast_rcnn.passes", 2),
    ("S8", "history.detectors.rcnn.passes", 1),
    ("S9", "fast_rcnn_ablation.rows.ap", 0.5, {"training": "stages"}),
    ("S9", "fast_rcnn_ablation.rows.ap", 0.5, {"classifier": "SVM"}),
    ("S9", "fast_rcnn_ablation.rows.ap", 0.35, {"classifier": "SVM"}),
    ("S10", "history.detectors.fast_rcnn.milliseconds.all", 300),
    ("S11", "history.detectors.faster_rcnn.milliseconds.proposals", 30),
    ("S11", "history.detectors.faster_rcnn.milliseconds.all", 9),
    ("S11", "history.detectors.faster_rcnn.recall", 0.85),
    ("S11", "history.detectors.faster_rcnn.proposals", 400),
    ("S11", "faster_rcnn_ablation.rows.ap", 0.5, {"training": "turns", "iterations": 1000}),
    ("S11", "faster_rcnn_ablation.rows.ap", 0.32, {"training": "turns", "iterations": 2000}),
    ("S12", "faster_rcnn_ablation.rows.recall", 0.99, {"scales": 1, "ratios": 1}),
    ("S13", "history.detectors.faster_rcnn.unmoved.ap", 0.6),
    ("S14", "history.detectors.mask_rcnn.parameters", 4_000_000),
    ("S14", "history.detectors.mask_rcnn.parameters", 2_000_000),
    ("S14", "history.detectors.mask_rcnn.mask.ap50", 0.4),
    ("S15", "mask_rcnn_ablation.rows.mask_ap", 0.29, POOLED),
    ("S15", "mask_rcnn_ablation.rows.mask_ap", 0.2, {"stride": 16, "pooling": "pool"}),
    ("S15", "mask_rcnn_ablation.rows.box_ap", 0.1, POOLED),
    ("S15", "mask_rcnn_ablation.rows.box_ap", 0.5, POOLED),
    ("S16", "history.alignment.aligned", 3.0),
    ("S16", "history.alignment.pooled", 2.9),
    ("S16", "history.alignment.rounded_down", 3.0),
    ("S16", "history.alignment.exact", 3.0),
    ("S17", "history.detectors.mask_rcnn.mask.ap", 0.2),
    ("S17", "history.detectors.mask_rcnn.mask.ap50", 0.5),
]
# The same at the papers' size, where that says something.
AGAINST_AT_SCALE = [
    ("S6", "history.paper_scale.milliseconds.rcnn.features", 20_000),
    ("S6", "history.paper_scale.milliseconds.fast_rcnn.all", 90_000),
    ("S8", "history.paper_scale.milliseconds.fast_rcnn.features", 30_000),
    ("S11", "history.paper_scale.milliseconds.faster_rcnn.proposals", 300),
    ("S11", "history.paper_scale.milliseconds.faster_rcnn.all", 50),
]


# A number that would bear out what a claim says beyond its rule, and is not so.
FOR_ALL_OF_IT = [
    ("S12", "faster_rcnn_ablation.rows.ap", 0.29, {"scales": 1, "ratios": 1}),
    ("S15", "mask_rcnn_ablation.rows.mask_ap", 0.08, {"stride": 16, "pooling": "pool"}),
    ("S16", "history.alignment.pooled", 2.0),
]


def contradict(results, path, value, wanted=()):
    """Change a number, or that of those rows of an experiment that are as wanted."""
    *way, last = path.split(".")
    place = results
    for key in way:
        place = place[key]
    for row in place if isinstance(place, list) else [place]:
        if all(row[key] == kind for key, kind in dict(wanted).items()):
            row[last] = value


def test_all_claims_of_the_story_are_there_and_name_notebooks_that_exist():
    assert [claim.id for claim in CLAIMS] == [f"S{number}" for number in range(1, 18)]
    assert {*BY_ID} == {number for number, *_ in AGAINST}
    assert all(re.fullmatch(r"[A-Z0-9].{30,119}\.", claim.text) for claim in CLAIMS)
    numbers = {path.name[:2] for path in NOTEBOOKS.glob("*.ipynb")}
    assert {number for claim in CLAIMS for number in claim.notebooks} <= numbers


def test_with_such_numbers_all_hold(results):
    verdicts = {claim.id: claim.verdict(results) for claim in CLAIMS}
    # With 2000 proposals on one core the fully connected layers take longer than selective search; one kind of anchors
    # does nearly as well; in points boxes lose more at stride 16; and the published code rounds to 4.
    assert {verdicts.pop(name) for name in ("S10", "S12", "S15", "S16")} == {"in part"}
    assert set(verdicts.values()) == {"yes"}


@pytest.mark.parametrize("case", FOR_ALL_OF_IT, ids=lambda case: case[0])
def test_a_claim_that_holds_in_part_could_hold_as_a_whole(case, results):
    claim = BY_ID[case[0]]
    assert claim.verdict(results) == "in part" and claim.holds(results)
    contradict(results, *case[1:])
    assert claim.verdict(results) == "yes"


@pytest.mark.parametrize("case", AGAINST + AGAINST_AT_SCALE, ids=lambda case: f"{case[0]} {case[1]} {case[2]}")
def test_each_number_can_contradict_its_claim(case, results):
    claim, at_scale = BY_ID[case[0]], case in AGAINST_AT_SCALE
    assert claim.holds(results)
    contradict(results, *case[1:])
    assert claim.holds(results) == at_scale
    if at_scale:
        assert claim.verdict(results) == "in part"
    results["history"]["paper_scale"] = None
    assert (claim.verdict(results) == "no") != at_scale


def test_evidence_by_hand(results):
    """Numbers of the record of conftest.py, and of data/results, worked by hand."""
    said = {claim.id: claim.evidence(results) for claim in CLAIMS}
    assert said["S1"].startswith("3.2 objects a scene; 90.5 % of the scenes hold several, 86.5 % several kinds, 78.5 %")
    assert said["S4"] == "286 squares an image, one for each proposal; AP50 78.0"
    assert said["S6"] == (  # 441 / 20 and 66,010 / 685 ms; 300 / 441 and 60,000 / 66,010
        "286 passes an image; it takes 22 and 96 times as long as Faster R-CNN on Toy Town and at the papers' size, "
        "66 s an image there; warping and convolutions are 68 % and 91 % of it"
    )
    assert said["S7"].endswith("Mask R-CNN 1; estimated minutes of a core: ≥ 20, 32, 50, 75")
    assert said["S8"].startswith("286 passes become 1; features take 30 and 240 times less")
    assert said["S10"] == (  # 120 / 146; 1000 and 2500 / 3760
        "selective search's share of Fast R-CNN's time: 82 % on Toy Town, most of it; 27 % at the papers' size, not "
        "most of it: the heads, fully connected layers on the same core, take 66 %"
    )
    assert said["S11"].startswith("proposals take 24 and 33 times less than selective search")
    assert "31.6 trained at once, 19.7 in turns with as many batches, 27.3 with twice as many" in said["S11"]
    assert said["S12"] == (
        "with anchors of sizes × shapes 1 × 1, 1 × 3, 3 × 1, 3 × 3: objects covered, in percent, 87.2, 91.1, 92.1, "
        "92.1; AP of the detector 30.4, 31.9, 31.0, 31.6, 1.2 points from one kind to nine"
    )
    assert said["S14"].startswith("201,479 more numbers, 31 % and 47 % of the time")  # 9.5 / 30.5, 600 / 1285
    assert "boxes 7.3 points (26.8 %), masks 5.4 (30.9 %) at stride 16; boxes 7.7 points (17.0 %), " in said["S15"]
    assert said["S16"] == (
        "15 · 25 / 128 = 2.93 cells; rounded down, as the story has it, 2; to the nearest, as the paper, 3; by "
        "RoIPool's published code, which counts the last cell in, 4; RoIAlign ends at 2.93"
    )


def test_evidence_without_the_papers_size_and_trainings(results):
    results["history"]["paper_scale"] = results["history"]["training"] = None
    for claim in CLAIMS:
        text = claim.evidence(results)
        assert "papers' size" not in text and "minutes" not in text and "nan" not in text, claim.id
        assert claim.verdict(results) == ("in part" if claim.id in ("S12", "S15", "S16") else "yes")
    assert "takes 22 times as long as Faster R-CNN on Toy Town;" in BY_ID["S6"].evidence(results)


def test_ablations_that_are_missing_or_damaged(record, tmp_path):
    for error, message in (
        (FileNotFoundError, "there is no such file; make it"),
        (ValueError, "damaged .* make it anew"),
    ):
        with pytest.raises(error, match=rf"rcnn_ablation.json: {message} with `python -m workshop.abl"):
            gather(record, tmp_path)
        (tmp_path / "rcnn_ablation.json").write_text("{")
