"""The benchmark's arithmetic and its table; never how fast anything is."""

import json
import time

import pytest
import torch
from typer.testing import CliRunner

from minircnn.benchmarks import boxes, detectors, pooling, run, selective_search, timing
from minircnn.benchmarks.memory import peak_memory
from minircnn.benchmarks.timing import Case, measure
from minircnn.cli import app


def fake_case(agrees=True):
    return Case("sum of three numbers", "Python", lambda: 6, lambda: 6, lambda ours, theirs: agrees and ours == theirs)


def test_ratio_is_ours_over_theirs_pair_by_pair(monkeypatch):
    """A clock that we set: ours takes 1, 2, 9 and 4 seconds, theirs always 2."""
    ticks = iter([0, 1, 0, 2, 0, 2, 0, 2, 0, 9, 0, 2, 0, 4, 0, 2])
    monkeypatch.setattr(time, "perf_counter", lambda: next(ticks))
    m = measure(fake_case(), threads=1, repeats=4)
    assert m.ratio == 1.5  # the median of 0.5, 1, 4.5, 2
    assert (m.low, m.high) == (0.875, 2.625)
    assert (m.ours_ms, m.theirs_ms) == (3000, 2000)


def test_calls_are_interleaved_and_warmed_up():
    calls = []
    measure(Case("", "", lambda: calls.append("a"), lambda: calls.append("b"), lambda a, b: True), 1, repeats=3)
    assert calls == ["a", "b"] * 4


def test_threads_are_set_and_set_back():
    before, seen = torch.get_num_threads(), []
    note = lambda: seen.append(torch.get_num_threads())  # noqa: E731
    measure(Case("", "", note, note, lambda a, b: True), threads=before + 1, repeats=2)
    assert set(seen) == {before + 1}
    assert torch.get_num_threads() == before
    with pytest.raises(ZeroDivisionError), timing.limit_threads(before + 1):
        1 / 0  # noqa: B018
    assert torch.get_num_threads() == before


MILLION = 1_000_000


def test_memory_is_the_most_that_is_held_at_a_time(capfd):
    def one_after_the_other():
        for _ in range(5):
            torch.zeros(MILLION, dtype=torch.uint8)

    def all_at_once():
        return [torch.zeros(MILLION, dtype=torch.uint8) for _ in range(5)]

    assert peak_memory(one_after_the_other) == pytest.approx(MILLION, rel=0.01)
    assert peak_memory(all_at_once) == pytest.approx(5 * MILLION, rel=0.01)
    assert peak_memory(lambda: None) == 0
    given = torch.zeros(MILLION)
    assert peak_memory(given.sum) < 1000, "what is there already does not count"
    assert capfd.readouterr() == ("", "")


def test_memory_is_in_the_row_where_it_was_asked_for():
    def case(memory):
        return Case(
            "x", "torch", lambda: torch.zeros(MILLION), lambda: torch.zeros(2 * MILLION), lambda a, b: True, memory
        )

    with_memory, without = (measure(case(memory), 1, repeats=2) for memory in (True, False))
    assert (with_memory.ours_mb, with_memory.theirs_mb) == pytest.approx((4, 8), rel=0.01)
    assert run.table_row(with_memory).endswith(" yes    0.50 (4 MB)")
    assert (without.ours_mb, without.theirs_mb) == (None, None)
    assert run.table_row(without).endswith(" yes")


def test_too_few_repeats():
    with pytest.raises(ValueError, match="at least 2"):
        measure(fake_case(), 1, repeats=1)


@pytest.mark.parametrize("case", [*boxes.cases(), *pooling.cases(), *detectors.cases()], ids=lambda case: case.name)
def test_cases_agree_with_their_reference(case):
    assert case.check(case.ours(), case.theirs())


def test_box_checks_notice_a_wrong_answer():
    by_name = {case.name.split(",")[0]: case for case in boxes.cases()}
    assert not by_name["nms"].check(by_name["nms"].ours()[1:], by_name["nms"].theirs())
    iou = by_name["box_iou"]
    assert not iou.check(iou.ours() + 1e-3, iou.theirs())
    warp = pooling.cases()[0]
    assert not warp.check(warp.ours().flip(3), warp.theirs())
    matched = by_name["match"]
    gt_index, label = matched.ours()
    assert not matched.check((gt_index, 1 - label.abs()), matched.theirs())


def test_proposals_have_to_cover_three_quarters_of_the_reference():
    boxes = torch.tensor([[20.0 * i, 0.0, 20.0 * i + 10, 10.0] for i in range(8)])
    near = boxes + torch.tensor([1.0, 0.0, 1.0, 0.0])  # IoU 9 / 11
    assert selective_search.cover_most(near, boxes)
    assert selective_search.cover_most(torch.cat([near, near + 500]), boxes), "more boxes than the reference may be"
    assert selective_search.cover_most(near[:6], boxes)
    assert not selective_search.cover_most(near[:5], boxes)
    assert not selective_search.cover_most(boxes + 5, boxes)
    assert not selective_search.cover_most(boxes[:0], boxes)


class TestCommand:
    def invoke(self, *arguments):
        return CliRunner().invoke(app, ["benchmark", *arguments])

    def test_table_and_json(self, monkeypatch, tmp_path):
        monkeypatch.setattr(run, "SUITES", {"boxes": lambda: [fake_case()]})
        file = tmp_path / "a b.json"
        result = self.invoke("boxes", "--json", str(file), "--repeats", "3")
        assert result.exit_code == 0, result.output
        written = json.loads(file.read_text())
        rows = written["measurements"]
        assert [row["threads"] for row in rows] == sorted({1, written["cores"]})
        assert all(row["name"] == "sum of three numbers" and row["agrees"] and row["repeats"] == 3 for row in rows)
        assert result.output.count("sum of three numbers") == len(rows)
        assert list(tmp_path.iterdir()) == [file], "no temporary file is left"

    def test_disagreement_is_an_error(self, monkeypatch):
        monkeypatch.setattr(run, "SUITES", {"boxes": lambda: [fake_case(agrees=False)]})
        result = self.invoke("boxes", "--repeats", "2")
        assert result.exit_code == 1
        assert " NO" in result.output

    def test_a_suite_without_its_reference_says_so(self, monkeypatch):
        monkeypatch.setattr(run, "SUITES", {"boxes": list})
        result = self.invoke("boxes")
        assert result.exit_code == 0
        assert "boxes: nothing to compare with" in result.output

    def test_unknown_suite_and_folder_are_named(self, tmp_path):
        assert "there is no suite 'cats'; there are boxes" in " ".join(self.invoke("cats").output.split())
        result = self.invoke("boxes", "--json", str(tmp_path / "none" / "x.json"))
        assert result.exit_code == 2
        assert "does not exist" in " ".join(result.output.split())
        result = self.invoke("boxes", "--json", str(tmp_path))
        assert result.exit_code == 2
        assert "this is a folder" in " ".join(result.output.split())


def test_version():
    from minircnn import __version__

    assert CliRunner().invoke(app, ["--version"]).output.strip() == f"minircnn {__version__}"
