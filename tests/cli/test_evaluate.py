"""``minircnn evaluate`` against evaluate() called directly, and a recall counted object by object."""

import json
import math
import re
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest
import torch
from torchvision.ops import box_iou

from minircnn.cli.evaluate import timed_detections
from minircnn.datasets import ToyTown
from minircnn.evaluation import evaluate
from minircnn.fast_rcnn import load_fast_rcnn
from minircnn.rcnn import load_rcnn
from minircnn.selective_search import selective_search
from minircnn.shipped import DETECTOR_WEIGHTS
from minircnn.weights import save

COUNT, PROPOSALS = 5, 40


@dataclass(frozen=True)
class Kind:
    """A detector: how its command and how it is called, its file, and what reads it."""

    command: str
    name: str
    file: Path
    load: Callable


@pytest.fixture(scope="module", params=["rcnn", "fast_rcnn"])
def kind(request, detector, fast_detector):
    if request.param == "rcnn":
        return Kind("rcnn", "R-CNN", detector, load_rcnn)
    return Kind("fast_rcnn", "Fast R-CNN", fast_detector, load_fast_rcnn)


@pytest.fixture(scope="module", params=["test", "val"])
def pictures(request):
    """A split, pictures of it, and their proposals."""
    data = ToyTown(request.param)
    samples = [data[index] for index in range(COUNT)]
    return request.param, samples, [selective_search(image)[:PROPOSALS] for image, _ in samples]


@pytest.fixture(scope="module")
def direct(pictures, kind):
    """What comes out without the command line: the split, results without and with regression, and the recall."""
    (split, samples, proposals), model = pictures, kind.load(kind.file)
    results, classes = [], ToyTown(split).classes
    for regress in (False, True):
        found = [model.detect([s[0]], [p], regress=regress)[0] for s, p in zip(samples, proposals, strict=True)]
        results.append(evaluate(found, [target for _, target in samples], classes=classes))
    covered = [
        any(float(box_iou(object_[None], p[None])) >= 0.5 for p in boxes)
        for (_, target), boxes in zip(samples, proposals, strict=True)
        for object_ in target["boxes"]
    ]
    return split, *results, sum(covered) / len(covered)


def without_nan(values):
    return {name: None if isinstance(v, float) and math.isnan(v) else v for name, v in values.items()}


def test_numbers_are_those_of_evaluate(call, kind, direct, tmp_path, monkeypatch):
    monkeypatch.setenv("MINIRCNN_CACHE", str(tmp_path / "fresh"))  # what is found there is not timed
    split, unmoved, moved, recall = direct
    assert moved.ap != unmoved.ap and moved.ap50 > 0, "otherwise this test says little"
    start = time.perf_counter()
    result = call(
        *("evaluate", kind.command, "--weights", kind.file, "--split", split, "--pictures", COUNT),
        *("--max-proposals", PROPOSALS, "--json", tmp_path / "x.json"),
    )
    took = time.perf_counter() - start
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"{kind.name} on 5 pictures, Toy Town's {split} split: {moved}\n\n")
    for name, numbers in (("without box regression ", unmoved), ("with box regression    ", moved)):
        values = f"AP {100 * numbers.ap:.1f} %   AP50 {100 * numbers.ap50:.1f} %   AP75 {100 * numbers.ap75:.1f} %"
        assert f"\n{name} {values}\n" in result.stdout
    assert f"\nrecall of the first 40 proposals at IoU 0.5: {100 * recall:.1f} %\n" in result.stdout

    written = json.loads((tmp_path / "x.json").read_text())
    for name, numbers in (("without_box_regression", unmoved), ("with_box_regression", moved)):
        classes = written[name].pop("classes")
        assert written[name] == without_nan(numbers.summary())
        assert classes == [without_nan(asdict(row)) for row in numbers.per_class.values()]
    assert None in written["with_box_regression"].values(), "no object is large, which JSON has to say with null"
    assert written["proposal_recall"] == {"iou": 0.5, "recall": pytest.approx(recall)}
    assert (written["pictures"], written["max_proposals"], written["device"]) == (COUNT, PROPOSALS, "cpu")
    assert (written["detector"], written["data"]) == (kind.command, f"Toy Town, {split}")
    seconds = written["seconds_a_picture"]
    assert 0 < seconds["network_and_rest"] * COUNT < took
    assert 0 < seconds["proposals"] * COUNT < took


def test_proposals_are_timed_only_when_they_are_computed(call, detector, tmp_path, monkeypatch):
    monkeypatch.setenv("MINIRCNN_CACHE", str(tmp_path / "fresh"))

    def run(count):
        file = tmp_path / "x.json"
        result = call(
            "evaluate", "rcnn", "--weights", detector, "--pictures", count, "--max-proposals", 5, "--json", file
        )
        (line,) = (line for line in result.stdout.splitlines() if line.startswith("seconds a picture"))
        return line, json.loads(file.read_text())

    line, first = run(2)
    assert re.fullmatch(r"seconds a picture: proposals \d+\.\d{3}; network and the rest \d+\.\d{3}", line)
    line, again = run(2)
    assert line.startswith("seconds a picture: proposals from the cache, not timed; network")
    assert first["seconds_a_picture"]["proposals"] > 0
    assert again["seconds_a_picture"]["proposals"] is None
    assert again["with_box_regression"] == first["with_box_regression"]
    line, more = run(3)
    assert re.search(r"proposals \d+\.\d{3} \(2 of 3 from the cache, not timed\); network", line)
    assert more["seconds_a_picture"]["proposals"] > 0


def test_by_default_it_is_the_test_split_with_300_proposals(call, kind, tmp_path, monkeypatch):
    monkeypatch.setitem(DETECTOR_WEIGHTS, kind.command, kind.file)
    assert call("evaluate", kind.command, "--pictures", 1, "--json", tmp_path / "x.json").exit_code == 0
    written = json.loads((tmp_path / "x.json").read_text())
    assert written["weights"] == str(kind.file)
    assert (written["data"], written["max_proposals"]) == ("Toy Town, test", 300)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--pictures", "201"], "Error: --pictures 201: Toy Town's test split has only 200"),
        (["--json", "none/x.json"], "the folder none does not exist; make it first"),
        (["--device", "cuda:77"], "Error: --device cuda:77: not on this machine"),
        # That a detector knows the pictures that it learned from says nothing.
        (["--split", "train"], "--split train: of Toy Town only val and test are to measure with"),
        (["--pictures", "0"], "pictures"),
    ],
)
def test_what_is_refused(call, kind, arguments, message):
    result = call("evaluate", kind.command, "--weights", kind.file, *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr


def renamed(kind, names, path):
    """The same detector, for which its classes are called something else."""
    model = kind.load(kind.file)
    if kind.command == "rcnn":
        model.classes = tuple(names)
        save(model, path, {})
    else:
        model.classes = names
        save(model, path, {})
    return path


def test_detector_of_other_classes_is_refused(call, kind, tmp_path):
    names = ["background", "cat", "car", "person", "tree", "house", "zebra"]
    other = renamed(kind, names, tmp_path / "other.safetensors")
    result = call("evaluate", kind.command, "--weights", other, "--pictures", 1)
    assert (result.exit_code, result.stdout) == (2, "")
    assert (
        "it knows cat, car, person, tree, house, zebra, but these pictures show person, car, cat, tree, house, "
        "balloon; name those that both have with --classes person,car,cat,tree,house"
    ) in result.stderr


def test_labels_are_numbers_of_names(call, kind, tmp_path):
    """A detector for which tree and house have exchanged labels sees what is called house as trees."""
    names = list(ToyTown("test").classes)
    tree, house = names.index("tree"), names.index("house")
    exchanged = [*names]
    exchanged[tree], exchanged[house] = "house", "tree"
    other = renamed(kind, exchanged, tmp_path / "other.safetensors")
    options = ("--pictures", COUNT, "--max-proposals", PROPOSALS, "--json", tmp_path / "x.json")
    assert call("evaluate", kind.command, "--weights", other, *options).exit_code == 0
    rows = json.loads((tmp_path / "x.json").read_text())["without_box_regression"]["classes"]
    data, model, found = ToyTown("test"), kind.load(kind.file), []
    for index in range(COUNT):
        image = data.load_image(index)
        (one,) = model.detect([image], [selective_search(image)[:PROPOSALS]], regress=False)
        table = torch.arange(len(names))
        table[tree], table[house] = house, tree
        found.append({**one, "labels": table[one["labels"]]})
    wanted = evaluate(found, [data.load_target(index) for index in range(COUNT)], classes=names)
    assert [(row["name"], row["detections"], row["ap"]) for row in rows] == [
        (row.name, row.detections, without_nan({"ap": row.ap})["ap"]) for row in wanted.per_class.values()
    ]


def test_weights_that_are_not_there(call, kind, tmp_path, monkeypatch):
    monkeypatch.setitem(DETECTOR_WEIGHTS, kind.command, tmp_path / "none.safetensors")
    result = call("evaluate", kind.command)
    assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)
    assert f"none.safetensors: not there; train it with `minircnn train {kind.command}`" in result.stderr


@pytest.mark.parametrize("command", ["rcnn", "fast_rcnn"])
def test_weights_of_the_other_detector_are_refused(call, detector, fast_detector, command):
    other = fast_detector if command == "rcnn" else detector
    result = call("evaluate", command, "--weights", other, "--pictures", 1)
    assert (result.exit_code, result.stdout, len(result.stderr.splitlines())) == (1, "", 1)
    assert str(other) in result.stderr


def test_time_is_that_of_looking_at_a_picture_not_of_reading_it(monkeypatch):
    """A clock that we set: each picture takes five seconds to read, the first two to look at, the second four."""
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])

    class Slow:
        def __len__(self):
            return 2

        def __getitem__(self, index):
            clock[0] += 5
            return torch.full((3, 2, 2), float(index)), {}

    def detect(image, boxes):
        clock[0] += 2 + 2 * float(image[0, 0, 0])
        return {"scores": image[0, 0] + boxes[0, :2]}

    found, seconds = timed_detections(detect, Slow(), [torch.zeros(1, 4), torch.ones(1, 4)], "")
    assert [entry["scores"].tolist() for entry in found] == [[0, 0], [2, 2]]
    assert seconds == 3
