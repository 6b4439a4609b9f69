"""The log of a training: its columns and numbers, that it can be followed, and that an interruption leaves no trace."""

import csv

import numpy as np
import pytest
import torch
from torch import nn

from minircnn.training import Log, LoopSettings, fit
from minircnn.training.checkpoints import Checkpoint

SETTINGS = LoopSettings(24, 0.02, seed=2)


def train(log, at=None, evaluations=True, watch=lambda iteration: None, settings=SETTINGS, **options):
    """A run with two losses; the user presses Ctrl-C in iteration `at`. Its number `AP` is measured every 7."""
    torch.manual_seed(11)
    model = nn.Linear(4, 1)

    def losses(iteration):
        watch(iteration)
        if iteration == at:
            raise KeyboardInterrupt
        x = torch.randn(16, 4)
        error = model(x)[:, 0] - x.sum(dim=1)
        return {"squares": error.square().mean(), "absolute, of all": error.abs().mean()}

    if evaluations:
        options = {"evaluate": lambda: {"AP": model.weight.mean(), "AP ä": 1 / 3}, "evaluate_every": 7, **options}
    return fit(model, losses, settings, log=log, quiet=True, **options)


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
    path = tmp_path_factory.mktemp("log") / "unbroken.csv"
    train(path)
    return path.read_bytes()


# ----------------------------------------------------------------------------------------------------- what is in it


def test_a_row_for_each_iteration(tmp_path):
    path = tmp_path / "new folder" / "log.csv"
    history = train(path, settings=LoopSettings(24, 0.02, seed=2, warmup=0.25, schedule="step", milestones=(0.5,)))
    header, *rows = table(path)
    assert header == ["iteration", "learning_rate", "total", "squares", "absolute, of all", "AP", "AP ä"]
    assert [row[0] for row in rows] == [str(i + 1) for i in range(24)]
    rates = [0.02 * (i + 1) / 7 for i in range(6)] + [0.02] * 6 + [0.002] * 12
    assert [float(row[1]) for row in rows] == pytest.approx(rates, rel=1e-8)
    for row, losses in zip(rows, history, strict=True):
        assert float(row[2]) == pytest.approx(losses["squares"] + losses["absolute, of all"], rel=1e-8)
        assert np.float32(row[3]) == losses["squares"] and np.float32(row[4]) == losses["absolute, of all"], "all bits"
    assert [i + 1 for i, row in enumerate(rows) if row[5:] != ["", ""]] == [7, 14, 21, 24]
    for i in (6, 13, 20, 23):
        assert np.float32(rows[i][5]) == history[i]["AP"] and rows[i][6] == "0.333333333"


def test_without_evaluations_there_are_no_columns_for_them(tmp_path):
    train(tmp_path / "log.csv", evaluations=False)
    assert {len(row) for row in table(tmp_path / "log.csv")} == {5}


def test_lines_end_in_the_same_way_everywhere(unbroken):
    assert unbroken.count(b"\n") == 25 and unbroken.endswith(b"\n") and b"\r" not in unbroken


def test_every_row_is_in_the_file_at_once(tmp_path):
    path, seen = tmp_path / "log.csv", []

    def watch(iteration):
        seen.append(len(table(path)) if path.exists() else 0)

    train(path, watch=watch)
    assert seen == [0, *range(2, 25)]


def test_a_fresh_run_replaces_an_old_file(tmp_path, unbroken):
    path = tmp_path / "log.csv"
    path.write_text("something else\n1\n2\n")
    train(path)
    assert path.read_bytes() == unbroken
    train(path, evaluations=False, settings=LoopSettings(3, 0.1))
    assert len(table(path)) == 4


def test_numbers_that_an_evaluation_lacks_are_empty(tmp_path):
    """A class may be in some pictures only."""
    log = Log(tmp_path / "log.csv", evaluated=True)
    log.write(1, 0.1, {"a": 2}, {"AP": 0.5, "AP of a cat": float("nan")})
    log.write(2, 0.1, {"a": 2}, {"AP": 0.5})
    log.write(3, 0.1, {"a": 2}, {"AP of a cat": 0.25, "AP": 1})
    assert [row[3:] for row in table(log.path)[1:]] == [["2", "0.5", "nan"], ["2", "0.5", ""], ["2", "1", "0.25"]]


# ------------------------------------------------------------------------------------------------------ interruption


@pytest.mark.parametrize(
    "at, every",
    [
        (13, 5),
        (6, 5),  # before the first evaluation
        (8, 5),  # after it, but the checkpoint is from before it
        (7, 7),  # both in one iteration, and nothing is lost
        (9, 9),
        (23, 1),
        (3, 5),  # before the first checkpoint
    ],
)
def test_an_interrupted_and_resumed_run_leaves_the_log_of_an_unbroken_one(tmp_path, unbroken, at, every):
    path = tmp_path / "log.csv"
    interrupted(path, at, checkpoint_every=every)
    assert len(table(path)) == at + 1 and path.read_bytes() != unbroken
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


def test_twice_interrupted(tmp_path, unbroken):
    path = tmp_path / "log.csv"
    interrupted(path, 8, checkpoint_every=5)
    interrupted(path, 19, checkpoint_every=5, resume=True)
    resumed(path)
    assert path.read_bytes() == unbroken


@pytest.mark.parametrize("cut", range(1, 60))
def test_a_row_that_was_cut_short_is_dropped(tmp_path, unbroken, cut):
    """What is left of row 12 may look like row 1."""
    path = tmp_path / "log.csv"
    interrupted(path, 12, checkpoint_every=10)
    path.write_bytes(path.read_bytes()[:-cut])
    resumed(path)
    assert path.read_bytes() == unbroken


def test_a_log_that_was_removed_goes_on_with_the_rest(tmp_path, unbroken):
    path = tmp_path / "log.csv"
    interrupted(path, 12, checkpoint_every=10)
    path.unlink()
    resumed(path)
    lines = unbroken.split(b"\n")
    assert path.read_bytes().split(b"\n") == lines[:1] + lines[11:]


@pytest.mark.parametrize("content", ["", "iteration,lear"])
def test_a_log_without_a_header_is_begun(tmp_path, content):
    path = tmp_path / "log.csv"
    interrupted(path, 12, checkpoint_every=10)
    path.write_text(content)
    resumed(path)
    assert [row[0] for row in table(path)] == ["iteration", *map(str, range(11, 25))]


# -------------------------------------------------------------------------------------------------------- other files


def refused(path, message, **options):
    before = path.read_bytes()
    with pytest.raises(ValueError, match=rf"log\.csv: {message}"):
        resumed(path, **options)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "header",
    [
        "iteration,learning_rate,total,squares",
        'iteration,learning_rate,total,"absolute, of all",squares',
        "a,b",
        'step,learning_rate,total,squares,"absolute, of all",AP,AP ä',
    ],
)
def test_other_columns_are_named_and_the_file_stays(tmp_path, header):
    path = tmp_path / "log.csv"
    interrupted(path, 12, checkpoint_every=10)
    path.write_text(f"{header}\n1,2,3,4,5\n2,3,4,5,6\n", encoding="utf-8")
    refused(path, f"has the columns {header}, but this run writes iteration,.*; give the log another name, or start")


def test_columns_of_evaluations_are_not_taken_for_losses(tmp_path):
    path = tmp_path / "log.csv"
    interrupted(path, 12, checkpoint_every=10)
    refused(path, "has the columns .*,AP,AP ä, but this run writes .*; give the log another name", evaluations=False)


def test_other_numbers_are_named(tmp_path):
    path = tmp_path / "log.csv"
    interrupted(path, 12, checkpoint_every=10)
    with pytest.raises(ValueError, match=r"log\.csv: has the columns .*AP,AP ä, but this run writes .*,recall; give"):
        resumed(path, evaluate=lambda: {"recall": 1.0})


def test_a_damaged_row_is_named(tmp_path):
    path = tmp_path / "log.csv"
    interrupted(path, 12, checkpoint_every=10)
    path.write_bytes(path.read_bytes().replace(b"\n5,", b"\n\0\xff5,"))
    refused(path, r"damaged at '\\x00.5,.*; remove that row, or give the log another name")


@pytest.mark.parametrize("losses, evaluation", [({"total": 1}, {}), ({"a": 1}, {"a": 2}), ({"a": 1}, {"iteration": 2})])
def test_two_columns_of_one_name_are_refused(tmp_path, losses, evaluation):
    with pytest.raises(ValueError, match=r"log\.csv: two columns named (total|a|iteration); rename a loss or a number"):
        Log(tmp_path / "log.csv", evaluated=True).write(1, 0.1, losses, evaluation)
