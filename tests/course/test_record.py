"""The tables by hand, and what is no record."""

import pytest

from minircnn.course.history import GENERATIONS
from minircnn.course.record import RESULTS, notes, read_record, rows_of, table, titles_of
from minircnn.files import sha256, write_json


def test_cells_by_hand(record):
    names, *rows = table(record)
    assert names == ["", "R-CNN (2014)", "Fast R-CNN (2015)", "Faster R-CNN (2016)", "Mask R-CNN (2017)"]
    cells = {name: " ".join(row) for name, *row in rows}
    assert cells["AP50 of boxes, %"] == "78.0 79.0 85.0 87.0"
    assert cells["AP of masks, %"] == "– – – 51.0"
    assert cells["proposals an image"] == "286 286 60 100"
    assert cells["milliseconds an image"] == "441 146 20 30"
    assert cells["seconds an image of 600 × 800"] == "66 3.76 0.69 1.28"
    assert cells["batches learned from"] == "2,000 20,000 20,000 15,000"
    assert cells["images in these batches"] == "256,000 crops 80,000 80,000 60,000"
    assert cells["training, minutes of a core, estimated"] == "≥ 20 32 50 75"
    assert cells["learned numbers"] == "1,976,261 1,871,299 2,026,623 2,228,102"
    assert cells["file of weights, MB"] == "4.2 4.2 4.2 4.2"


def test_what_was_not_measured_is_not_there(record):
    record["paper_scale"] = record["training"] = None
    names = [row[0] for row in table(record)]
    assert not any("600" in name or "minutes" in name for name in names)
    assert len(notes(record)) == 4
    assert [len(row.times) for row in rows_of(record)] == [1] * 4 and len(titles_of(record)) == 1


def test_notes_say_what_is_partial_multiplied_and_filled_up(record):
    first, _, thresholds, batches, trainings, last = notes(record)
    assert "busy" not in first
    assert first.startswith("Measured on all 200 test images of Toy Town")
    assert thresholds.startswith("Thresholds are the same: what is more probable than 0.003 counts as a detection, and")
    assert "at an IoU of 0.5. But R-CNN, whose scores are margins of SVMs, keeps its own, -1.5 and 0.3:" in thresholds
    assert "That leaves 12 / 12 / 12 / 12 detections an image." in thresholds
    assert "an image counts each time it was in one" in batches
    assert trainings.startswith("Trainings were not timed when they ran")
    assert "Selective search finds 1631 proposals there, and random boxes make them 2,000;" in last
    assert "R-CNN is timed on 100 of them, and the time behind the search is multiplied by 20." in last
    assert "makes 300; 88 detections get a mask." in last
    record["images"], record["paper_scale"]["found"] = 20, 2000
    assert notes(record)[0].startswith("Measured on only the first 20 of the 200 test images of Toy Town")
    assert "Selective search gives 2,000 proposals;" in notes(record)[-1]
    record["machine"]["load"] = 1.23
    assert notes(record)[0].endswith("Other programs kept it busy meanwhile (a load of 1.2), so that all are longer.")


def test_what_the_figure_shows(record):
    first, second, third, fourth = rows_of(record)
    assert first.name == "R-CNN\n2014" and (first.box, first.mask) == (0.78, None)
    assert (fourth.box, fourth.mask) == (0.87, 0.82)
    assert [*second.times[0]] == ["selective search", "convolutions", "heads", "selection"]
    assert [*second.times[0].values()] == [120, 10, 12, 4]
    assert [*third.times[0]] == ["convolutions", "region proposal network", "heads", "selection"]
    assert [*third.times[0].values()] == [10, 5, 4, 1]
    assert fourth.times[1]["masks"] == 600 and fourth.totals == [30.5, 1285]
    assert titles_of(record) == ["Toy Town, 128 × 128, up to 300 proposals", "600 × 800, up to 2,000 proposals"]


def test_what_is_written_is_read_and_what_is_no_record(record, tmp_path):
    path = tmp_path / "x.json"
    record["detectors"]["rcnn"]["recall"] = float("nan")
    write_json(path, record)
    record["detectors"]["rcnn"]["recall"] = None
    assert read_record(path) == record
    with pytest.raises(FileNotFoundError, match=r"none.json: there is no such file; make it with `python -m workshop"):
        read_record(tmp_path / "none.json")
    for text, reason in (("{", "damaged"), ("[1]", "no record of the history"), ("{}", "no record of the history")):
        path.write_text(text)
        with pytest.raises(ValueError, match=rf"x.json: .*{reason}"):
            read_record(path)


def test_the_shipped_record_belongs_to_the_shipped_weights():
    """After new weights: make history ARGS=--update."""
    record = read_record(RESULTS)
    assert record["command"] == "python -m workshop.history --update"
    for one in GENERATIONS:
        own = record["detectors"][one.key]
        assert own["sha256"] == sha256(one.weights), f"{one.name} was trained anew"
        assert own["learned_from"] == one.learned_from, one.name
