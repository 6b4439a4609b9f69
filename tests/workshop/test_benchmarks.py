"""The benchmark's arithmetic, its checks and its table; never how fast anything is."""

import json
import re
import subprocess
import sys
import time
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from minircnn.course.compare import peak_memory
from minircnn.faster_rcnn import load_faster_rcnn
from minircnn.files import write_json
from workshop.benchmarks import __main__ as command
from workshop.benchmarks import detectors, floor, growth, operations, report, start
from workshop.benchmarks.floor import Share
from workshop.benchmarks.growth import Growth, slope
from workshop.benchmarks.timing import Case, Measurement, measure
from workshop.pages import section, section_of

MILLION, ROOT = 1_000_000, Path(__file__).parents[2]


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


def measured(name, ratio, threads=1):
    m = Measurement(name, "torchvision", threads, ratio, ratio - 0.1, ratio + 0.1, 2.0, 1.0, 15, True)
    return asdict(m)


def a_record(*measurements):
    share = Share("Fast R-CNN, an image", 1, 10.0, 8.0, 25.0, 10.0, {"layers": 80.0, "pooling": 15.0, "sampling": 5.0})
    grown = Growth("nms", "boxes", 2, [1, 10, 100], [1.0, 100.0, 10_000.0], [1.0, 10.0, 100.0])
    more = {"shares": [asdict(share)], "growth": [{**asdict(grown), "exponents": grown.exponents}]}
    more["starts"] = [["minircnn --help", 0.25, 0.1]]
    versions = {"python": "3.x", "torch": "2.x", "torchvision": "0.x", "cores": 2, "processor": "a processor"}
    return {**versions, "measurements": list(measurements), **more}


def test_pages_say_what_was_measured():
    record = a_record(measured("nms, 2000 boxes", 0.5), measured("nms, 2000 boxes", 0.75, 2), measured("match, 3", 2.0))
    record["measurements"].append(measured("encode_boxes, 3", 0.9))
    table, made = report.summary(record)
    assert "| nms, 2000 boxes | 0.50 | 0.75 |" in table and "match, 3" in table and "encode_boxes" not in table
    assert "2 cores of a processor with Python 3.x, PyTorch 2.x, torchvision 0.x" in made
    text = "\n".join(report.details(record))
    assert "| match, 3 | 2.00 (1.90 – 2.10) |  |  | torchvision |" in re.sub(r"\| (?=\|)", "|  ", text)
    assert "| minircnn --help | 0.25 | 0.1 |" in text
    assert "| Fast R-CNN, an image | 10.0 | 8.0 | 25 | 10 | pooling 15, sampling 5 |" in text
    assert "| nms | 1 – 100 boxes | 2 | 2 | 1 | 10 | 100 |" in text
    figure = report.draw(record)
    assert [bar.get_width() for bar in figure.axes[1].patches] == [80, 20]


def test_slower_is_15_percent_worse_than_stored_twice(monkeypatch, tmp_path, capsys):
    stored = a_record(measured("a", 1.0), measured("b", 1.0), measured("gone", 1.0))
    found = a_record(measured("a", 1.14), measured("b", 1.16), measured("new", 9.0))
    assert report.slower(stored, found) == {"b": "b, 1 threads: 1.16, stored is 1.00"}
    write_json(tmp_path / "stored.json", stored)
    runs = []

    def run(names, repeats, then=(2.0, 2.0)):
        runs.append(list(names))
        return [Measurement(**measured("b", then[len(runs) - 1]))]

    monkeypatch.setattr(command, "SUITES", {"boxes": lambda: [replace(FAKE, name="b")], "pooling": list})
    monkeypatch.setattr(command, "run_suites", run)
    with pytest.raises(SystemExit, match=r"Slower than stored, twice in a row:\nb, 1 threads: 2\.00, stored is 1\.00"):
        command.main(["--compare", str(tmp_path / "stored.json")])
    assert runs == [["boxes", "pooling"], ["boxes"]]
    runs.clear()
    monkeypatch.setattr(command, "run_suites", partial(run, then=(2.0, 1.0)))
    command.main(["--compare", str(tmp_path / "stored.json")])
    assert len(runs) == 2
    with pytest.raises(SystemExit, match=r"Error: .*none\.json"):
        command.main(["--compare", str(tmp_path / "none.json")])
    write_json(tmp_path / "other.json", {"a": 1})
    with pytest.raises(SystemExit, match=r"Error: .*other\.json: holds no measurements; give what"):
        command.main(["--compare", str(tmp_path / "other.json")])


def test_starts_are_ratios_to_the_reference_of_their_round(monkeypatch):
    with pytest.raises(subprocess.CalledProcessError):
        start.seconds([sys.executable, "-c", "raise SystemExit(3)"])
    took = iter([9, 9, 9, 9, 2, 1, 2, 3, 4, 4, 1, 1, 1, 3, 1, 1])  # the first round warms up
    monkeypatch.setattr(start, "seconds", lambda program: next(took))
    names = ("minircnn detect IMAGE", "import minircnn.mask_rcnn", "minircnn --help")
    assert list(start.starts(repeats=3)) == list(zip(names, (1, 1, 1), (3, 1, 1), strict=True))


def test_growth_counts_from_the_middle_on_and_each_operation_runs():
    assert slope([10, 100, 1000], [50, 100, 10_000]) == 2
    assert slope([1, 2, 4], [0, 0, 0]) == 0
    found = {name: prepare(counts[0])() for name, _, _, counts, prepare in growth.operations()}
    assert len(found["nms, none goes"]) == 100 > len(found["batched_nms, a group for 100 boxes"])


class Computed(TorchDispatchMode):
    """The operations of layers that torch was asked for, with the gradients that were wanted of a convolution."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        if name in ("convolution", "convolution_backward", "addmm", "mm"):
            self.names.append((name, *args[-1]) if name == "convolution_backward" else name)
        return function(*args, **(kwargs or {}))


def test_floor_computes_each_layer_once_and_nothing_that_needs_no_gradient():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.Flatten(), nn.Linear(5 * 16, 2))
    model[0].requires_grad_(False)
    images, forward = torch.rand(2, 3, 8, 8), ["convolution", "convolution", "addmm"]
    # A frozen layer has no gradient, and the first of the others none of its input.
    backward = ["convolution", "convolution", ("convolution_backward", False, True, True), "addmm", "mm", "mm"]
    for learns, wanted in ((False, forward), (True, backward)):
        layers = floor.floor(lambda: model(images).sum().backward(), learns)
        with Computed() as found:
            found.names = []
            layers()
        assert found.names == wanted


def test_profile_shares_add_up_and_name_the_stages():
    model = load_faster_rcnn().eval()
    python, stages = floor.profiled(partial(model.detect, [torch.rand(3, 64, 64)]))
    assert 0 < python < 100
    assert sum(stages.values()) == pytest.approx(100)
    assert {"layers", "proposals", "pooling", "detections", "the rest"} <= set(stages) and "sampling" not in stages


def test_pages_of_the_project_show_the_stored_record():
    """After make benchmark ARGS=--update; the figure is drawn of the same record."""
    record = json.loads((ROOT / "docs" / "benchmark.json").read_text(encoding="utf-8"))
    for page, part in ((ROOT / "README.md", report.summary), (ROOT / "docs" / "benchmark.md", report.details)):
        wanted = section("benchmark", part(record))
        assert section_of(page, "benchmark") == wanted, f"{page.name}: edited by hand? make benchmark ARGS=--update"
    names = {case.name for suite in ("boxes", "pooling", "detectors") for case in command.SUITES[suite]()}
    assert names <= {m["name"] for m in record["measurements"]}, "operations were added or renamed"
