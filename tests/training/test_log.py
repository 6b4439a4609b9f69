"""The log of a training: its columns and numbers, that it can be followed, and that an interruption leaves no trace."""

import csv
from dataclasses import replace

import numpy as np
import pytest

from minircnn.training import Log, fit
from minircnn.training.checkpoints import Checkpoint
from tests.training import conftest
from tests.training.conftest import SETTINGS, network, noisy


def train(log, at=None, evaluations=True, settings=SETTINGS, **options):
    """A run that the user stops in iteration `at`. Its number `AP` is measured every 7."""
    model = network()
    if evaluations:
        options = {"evaluate": lambda m: {"AP": m[0].weight.mean(), "AP ä": 1 / 3}, "evaluate_every": 7, **options}
    return fit(model, conftest.interrupted(noisy(model), at), settings, log=log, quiet=True, **options)


def interrupted(log, at, **options):
    with pytest.raises(KeyboardInterrupt):
        train(log, at, checkpoint=log.with_suffix(".checkpoint"), **options)


def resumed(log, **options):
    return train(log, checkpoint=log.with_suffix(".checkpoint"), resume=True, **options)


def table(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """Over an older file, which is replaced."""
    path = tmp_path_factory.mktemp("log") / "unbroken.csv"
    path.write_text("something else\n1\n2\n")
    train(path)
    return path.read_bytes()


def test_a_row_for_each_iteration(tmp_path):
    path, settings = tmp_path / "new folder" / "log.csv", replace(SETTINGS, warmup=0.25, schedule="step")
    history = train(path, settings=settings)
    header, *rows = table(path)
    assert header == ["iteration", "learning_rate", "total", "squares", "absolute, of all", "AP", "AP ä"]
    assert [row[0] for row in rows] == [str(i + 1) for i in range(24)]
    rates = [0.02 * (i + 1) / 7 for i in range(6)] + [0.02] * 12 + [0.002] * 6
    assert [float(row[1]) for row in rows] == pytest.approx(rates, rel=1e-8)
    for row, losses in zip(rows, history, strict=True):
        assert float(row[2]) == pytest.approx(losses["squares"] + losses["absolute, of all"], rel=1e-8)
        assert np.float32(row[3]) == losses["squares"] and np.float32(row[4]) == losses["absolute, of all"], "all bits"
    assert [i + 1 for i, row in enumerate(rows) if row[5:] != ["", ""]] == [7, 14, 21, 24]
    for i in (6, 13, 20, 23):
        assert np.float32(rows[i][5]) == history[i]["AP"] and rows[i][6] == "0.333333333"
    content = path.read_bytes()
    assert content.count(b"\n") == 25 and content.endswith(b"\n") and b"\r" not in content, "as on every system"


def test_numbers_that_an_evaluation_lacks_are_empty(tmp_path):
    """A class may be in some images only."""
    log = Log(tmp_path / "log.csv")
    evaluations = {"AP": 0.5, "AP of a cat": float("nan")}, {"AP": 0.5}, {"AP of a cat": 0.25, "AP of a dog": 1}
    for done, evaluation in enumerate(evaluations, 1):
        log.write({"iteration": done, "a": 2}, evaluation)
        assert len(table(log.path)) == 1 + done, "every row is in the file at once"
    header, *rows = table(log.path)
    assert header == ["iteration", "a", "AP", "AP of a cat", "AP of a dog"]
    assert rows == [["1", "2", "0.5", "nan", ""], ["2", "2", "0.5", "", ""], ["3", "2", "", "0.25", "1"]]


@pytest.mark.parametrize(
    "at, every",
    [
        (13, 5),
        (6, 5),  # before the first evaluation
        (8, 5),  # after it, but the checkpoint is from before it
        (7, 7),  # both in one iteration, and nothing is lost
        (3, 5),  # before the first checkpoint
    ],
)
def test_an_interrupted_and_resumed_run_leaves_the_log_of_an_unbroken_one(tmp_path, unbroken, at, every):
    path = tmp_path / "log.csv"
    interrupted(path, at, checkpoint_every=every)
    assert len(table(path)) == at + 1
    interrupted(path, at + 8, checkpoint_every=every, resume=True)
    resumed(path, checkpoint_every=every)
    assert path.read_bytes() == unbroken
    resumed(path, checkpoint_every=every)
    assert path.read_bytes() == unbroken, "there is nothing left to do"


def test_what_a_checkpoint_has_behind_it_is_in_the_log(tmp_path, monkeypatch):
    """A process may be killed at any moment, also between the two."""
    path, save, seen = tmp_path / "log.csv", Checkpoint.save, []

    def watched(self, iteration):
        seen.append((iteration, table(path)[-1][0]))
        save(self, iteration)

    monkeypatch.setattr(Checkpoint, "save", watched)
    train(path, checkpoint=tmp_path / "run.checkpoint", checkpoint_every=10)
    assert seen == [(10, "10"), (20, "20"), (24, "24")]


@pytest.mark.parametrize("cut", [1, 7, 58, None, 10**6])
def test_a_row_that_was_cut_short_is_dropped(tmp_path, unbroken, cut):
    """What is left of row 12 may look like row 1. A log that was removed, or is empty, goes on with the rest."""
    path, lines = tmp_path / "log.csv", unbroken.split(b"\n")
    interrupted(path, 12, checkpoint_every=10)
    path.unlink() if cut is None else path.write_bytes(path.read_bytes()[:-cut])
    resumed(path)
    assert path.read_bytes().split(b"\n") == (lines if cut and cut < 100 else lines[:1] + lines[11:])


@pytest.mark.parametrize("header", ["iteration,learning_rate,total,squares", "step,learning_rate,total,squares,AP"])
def test_what_is_not_this_runs_log_is_named_and_stays(tmp_path, header):
    path = tmp_path / "log.csv"
    interrupted(path, 12, checkpoint_every=10)
    path.write_text(f"{header}\n1,2,3,4\n")
    with pytest.raises(ValueError, match=rf"log\.csv: has the columns {header}, but this run writes .*; give the log"):
        resumed(path)
    assert path.read_text() == f"{header}\n1,2,3,4\n"
