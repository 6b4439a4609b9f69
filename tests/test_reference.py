"""The shipped detectors compute what they computed before: losses of fixed batches, detections on fixed scenes.

And average precision on the whole test split, which takes minutes: ``make nightly`` runs it.
"""

import json

import pytest
import torch

from tests import reference

RECORD = json.loads(reference.FILE.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def found():
    return reference.detections()


@pytest.mark.parametrize("detector", RECORD["detections"])
def test_detections_on_fixed_scenes_are_the_same(found, detector):
    before, now = RECORD["detections"][detector], found[detector]
    assert len(before) > 2 * reference.SCENES
    # Processors round differently, so a score may cross the limit, and of two equal boxes the other may be kept.
    missing = [row for row in before if not any(same(row, other) for other in now)]
    added = [row for row in now if not any(same(row, other) for other in before)]
    assert len(missing) <= 1 and len(added) <= 1


def same(row, other):
    """Scene and label; score to a thousandth, box to a hundredth of a pixel, mask to three pixels."""
    (scene, label, score, *sides), (scene2, label2, score2, *sides2) = row, other
    differences = torch.tensor(sides).sub(torch.tensor(sides2)).abs()
    close = bool((differences[:4] < 0.01).all() and (differences[4:] <= 3).all())
    return scene == scene2 and label == label2 and abs(score - score2) < 1e-3 and close


def test_losses_of_fixed_batches_are_the_same():
    now = reference.losses()
    assert now.keys() == RECORD["losses"].keys()
    for detector, before in RECORD["losses"].items():
        assert len(before) == reference.BATCHES
        for losses, expected in zip(now[detector], before, strict=True):
            assert losses == pytest.approx(expected, rel=1e-3)


@pytest.mark.nightly
def test_average_precision_on_the_whole_test_split_is_the_same():
    now = reference.averages()
    assert now.keys() == RECORD["averages"].keys()
    for name, before in RECORD["averages"].items():
        assert now[name] == pytest.approx(before, abs=0.002), name
