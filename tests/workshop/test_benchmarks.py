"""The benchmark's arithmetic, its checks and its table; never how fast anything is."""

import json
import time

import pytest
import torch

from minircnn.course.compare import peak_memory
from workshop.benchmarks import __main__ as command
from workshop.benchmarks import detectors, operations
from workshop.benchmarks.timing import Case, measure

MILLION = 1_000_000


FAKE = Case("sum of three numbers", "Python", lambda: 6, lambda: 6, int.__eq__)


def test_ratio_is_ours_over_theirs_pair_by_pair(monkeypatch):
    """A clock that we set: ours takes 1, 2, 9 and 4 seconds, theirs always 2."""
    ticks = iter([0, 1, 0, 2, 0, 2, 0, 2, 0, 9, 0, 2, 0, 4, 0, 2])
    monkeypatch.setattr(time, "perf_counter", lambda: next(ticks))
    m = measure(FAKE, threads=1, repeats=4)
    assert m.ratio == 1.5  # the median of 0.5, 1, 4.5, 2
    assert (m.low, m.high, m.ours_ms, m.theirs_ms) == (0.875, 2.625, 3000, 2000)
    with pytest.raises(ValueError, match="at least 2"):
        measure(FAKE, 1, repeats=1)


def test_memory_is_the_most_that_is_held_at_a_time_and_in_the_row_where_it_was_asked_for():
    def hold(*counts):
        return lambda: [[torch.zeros(MILLION, dtype=torch.uint8) for _ in range(count)] and None for count in counts]

    assert peak_memory(hold(1, 1, 1)) == pytest.approx(MILLION, rel=0.01)
    assert peak_memory(hold(1, 5)) == pytest.approx(5 * MILLION, rel=0.01)
    assert peak_memory(torch.zeros(MILLION).sum) < 1000, "what is there already does not count"
    sides = hold(4), hold(8)
    rows = [measure(Case("x", "torch", *sides, lambda a, b: True, memory), 1, repeats=2) for memory in (True, False)]
    assert command.table_row(rows[0]).endswith(" yes    0.50 (4 MB)")
    assert command.table_row(rows[1]).endswith(" yes") and rows[1].ours_mb is None


def small_cases():
    """Of each kind one that takes little time; larger inputs are the tests' of the operations themselves."""
    pooling, whole = operations.pooling_cases(), detectors.cases()
    few = [pooling[0], pooling[2], pooling[3], pooling[10], pooling[11], whole[0], whole[2], whole[4]]
    return [*operations.box_cases()[:8], *few]


@pytest.mark.parametrize("case", small_cases(), ids=lambda case: case.name)
def test_cases_agree_with_their_reference_and_notice_a_wrong_answer(case):
    ours, theirs = case.ours(), case.theirs()
    assert case.check(ours, theirs)
    if isinstance(ours, torch.Tensor):
        assert not case.check(ours + 0.01 if ours.is_floating_point() else ours[1:], theirs)
    elif isinstance(ours, tuple):
        assert not case.check((ours[0], 1 - ours[1].abs()), theirs)
    else:
        assert not case.check({name: 1.01 * torch.as_tensor(value) + 1 for name, value in ours.items()}, theirs)


def test_table_and_json(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(command.SUITES, "boxes", lambda: [FAKE])
    monkeypatch.setitem(command.SUITES, "pooling", list)
    file = tmp_path / "a b.json"
    command.main(["boxes", "pooling", "--json", str(file), "--repeats", "3"])
    written, output = json.loads(file.read_text()), capsys.readouterr().out
    rows = written["measurements"]
    assert [row["threads"] for row in rows] == sorted({1, written["cores"]})
    assert all(row["name"] == "sum of three numbers" and row["agrees"] and row["repeats"] == 3 for row in rows)
    assert output.count("sum of three numbers") == len(rows)
    assert "pooling: nothing to compare with" in output
