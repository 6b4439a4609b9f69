"""The comparison of trained and random convolutions: what is run, and what is made of its figures."""

import json
from pathlib import Path

import pytest

from minircnn.experiments import rcnn_2014


def measured(ap50):
    """What ``minircnn evaluate rcnn --json`` writes, with figures that tell where they belong."""
    return {
        "pictures": 40,
        "with_box_regression": {"ap": ap50 / 4, "ap50": ap50, "classes": [{"objects": 100}, {"objects": 9}]},
        "without_box_regression": {"ap": 0.0, "ap50": ap50 - 0.01, "classes": []},
        "proposal_recall": {"iou": 0.5, "recall": 0.67},
    }


def option(command, name):
    return command[command.index(name) + 1]


@pytest.fixture
def commands():
    return []


@pytest.fixture
def run(commands):
    def run(command):
        commands.append(command)
        if command[0] == "evaluate":
            trained = "trained" in option(command, "--weights")
            figures = measured(0.25 if trained else 0.05)
            Path(option(command, "--json")).write_text(json.dumps(figures))

    return run


def test_both_are_trained_and_measured_alike(run, commands, tmp_path, capsys):
    out = tmp_path / "x.json"
    rcnn_2014.main(
        ["--root", "p", "--annotations", "a.json", "--network", "n.npz", "--max-proposals", "7", "--out", str(out)], run
    )
    assert [command[:2] for command in commands] == [["train", "rcnn"], ["evaluate", "rcnn"]] * 2
    for command in commands:
        assert [option(command, name) for name in ("--data", "--root", "--annotations", "--classes")] == [
            *("coco", "p", "a.json", "person")
        ]
        assert option(command, "--max-proposals") == "7"
    trainings = commands[::2]
    assert [option(command, "--weights") for command in trainings] == ["n.npz", "n.npz"]
    assert ["--from-scratch" in command for command in trainings] == [False, True]
    for training, measuring in zip(trainings, commands[1::2], strict=True):
        assert option(measuring, "--weights") == option(training, "--out")
        assert not Path(option(training, "--out")).parent.exists(), "what was trained is thrown away"
    record = json.loads(out.read_text())
    assert record["class"] == "person" and record["max_proposals"] == 7
    assert [(row["start"], row["ap50"], row["ap50_without"]) for row in record["rows"]] == [
        ("trained", 0.25, 0.24),
        ("random", 0.05, pytest.approx(0.04)),
    ]
    assert {row["objects"] for row in record["rows"]} == {109}
    assert "trained   AP50 25.0  without box regression 24.0" in capsys.readouterr().out


def test_a_failure_ends_it_and_nothing_is_written(tmp_path):
    def fail(command):
        raise RuntimeError(command[0])

    with pytest.raises(RuntimeError, match="train"):
        rcnn_2014.main(["--root", "p", "--annotations", "a", "--network", "n", "--out", str(tmp_path / "x.json")], fail)
    assert not list(tmp_path.iterdir())


def test_the_record_is_one_of_this_program():
    """Trained convolutions beat random ones, by what the record in data/results says."""
    record = json.loads(rcnn_2014.RESULTS.read_text())
    trained, random = (rcnn_2014.Row(**row) for row in record["rows"])
    assert (trained.start, random.start) == ("trained", "random")
    assert trained.ap50 > 2 * random.ap50 > 0 and trained.ap50 > trained.ap50_without
    assert trained.objects == random.objects > 0 and trained.recall == random.recall
