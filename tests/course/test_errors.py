"""Kinds of errors, and the figures and the clock of notebook 04."""

import numpy as np
import pytest
import torch

from minircnn.course import figures
from minircnn.course.errors import KINDS, Judged, sort_errors
from minircnn.course.stopwatch import Stopwatch
from minircnn.datasets import ToyTown

CLASSES = ("background", "cat", "car")


def boxes(*corners):
    return torch.tensor(corners, dtype=torch.float32).reshape(-1, 4)


def test_errors_are_sorted_best_first_and_an_object_is_found_once():
    targets = [
        {"boxes": boxes([0, 0, 10, 10], [50, 50, 60, 60]), "labels": torch.tensor([1, 2])},
        {"boxes": boxes(), "labels": torch.zeros(0, dtype=torch.int64)},
        {"boxes": boxes(*[[20 * n, 0, 20 * n + 10, 10] for n in range(4)]), "labels": torch.ones(4, dtype=torch.int64)},
    ]
    found = [
        {
            "boxes": boxes([0, 0, 10, 10], [0, 0, 10, 9], [50, 50, 60, 60], [0, 0, 10, 10]),
            "labels": torch.tensor([1, 1, 1, 2]),
            "scores": torch.tensor([0.9, 0.8, 0.7, 0.95]),
        },
        {"boxes": boxes([0, 0, 9, 9]), "labels": torch.tensor([1]), "scores": torch.tensor([0.6])},
        {
            "boxes": boxes([0, 0, 10, 4], [90, 90, 99, 99]),
            "labels": torch.tensor([1, 1]),
            "scores": torch.tensor([0.5, 0.1]),
        },
    ]
    judged = sort_errors(found, targets, 1)
    assert [(one.image, one.row, KINDS.index(one.kind)) for one in judged] == [
        (0, 0, 0),
        (0, 1, 1),
        (0, 2, 2),
        (1, 0, 3),
        (2, 0, 1),  # the last one is not looked at: there are five objects
    ]


def test_clock_measures_each_stage_of_each_image():
    clock = Stopwatch()
    for _ in range(3):
        with clock("one"):
            pass
        with clock("two"):
            pass
    assert {stage: len(laps) for stage, laps in clock.laps.items()} == {"one": 3, "two": 3}
    assert list(clock.medians()) == ["one", "two"]
    assert all(0 <= seconds < 1 for seconds in clock.medians().values())


def test_figures_say_what_they_show(capsys):
    data = ToyTown("val")
    image, target = data[36]
    proposals, label = target["boxes"].repeat(4, 1), target["labels"].repeat(4)
    figures.proposal_labels(image, target, proposals, label, label != 3, 3, "cat")
    figures.loss_curve([1.9, 1.2, 0.8], 1.95)
    figures.scores_before_and_after(torch.linspace(-5, 2, 50), torch.linspace(-6, 1, 50))
    figures.hard_negatives([image] * 4, torch.rand(4), torch.rand(4))
    figures.refined_boxes(data, [(36, target["boxes"][0], target["boxes"][0] + 3, target["boxes"][0] + 4)] * 2)
    figures.time_bar({"search": 0.3, "network": 0.7, "NMS": 0.01, "SVMs": 0.02, "warping": 0.1})
    figures.error_shares(np.full((2, 4), 0.25), CLASSES[1:])
    figures.confident_errors(data, [target] * 37, [Judged(1.5, 36, 0, KINDS[3])] * 4, data.classes)
    figures.four_tasks(image, target, data.classes, "cat")
    figures.corner_of_box(image, target["boxes"][1], target["masks"][1], 3)
    values = {"cat": torch.tensor([0.5, 0.7, 0.9]), "car": torch.tensor([0.4, 0.6, 0.5])}
    figures.shapes_and_sizes(values, values, data.classes)
    printed = capsys.readouterr().out
    for text in ("4 of 4 not used", "equal probabilities, 1.95", "balloon +1.5: background error", "x = 95"):
        assert text in printed


@pytest.mark.parametrize("label", [1, 2])
def test_no_detections_no_errors(label):
    assert sort_errors([], [], label) == []
