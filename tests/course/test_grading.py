"""Grading learners' copies: one that is solved, in part, or hangs, dies, was damaged; each a row and not the end."""

import csv
import io
import json
import shutil

import pytest
from typer.testing import CliRunner

from minircnn.cli import app
from minircnn.course import grading
from minircnn.course.working_copy import make_working_copy
from tests.course.exercises import FOLDER, exercises_of

NAME = "01_boxes_and_metrics.ipynb"


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clean")
    make_working_copy(folder)
    return folder


def answer(notebook, answers, extra=()):
    """Write answers, by exercise, into a copy; ``extra`` cells come before the first exercise."""
    content = json.loads(notebook.read_text("utf-8"))
    for cell in content["cells"]:
        for name, text in answers.items():
            if f"{name} = check.{name}({name})" in "".join(cell["source"]):
                cell["source"] = f"{text}\n\n{name} = check.{name}({name})"
    new = [{"cell_type": "code", "metadata": {}, "source": text, "outputs": []} for text in extra]
    content["cells"][2:2] = new
    notebook.write_text(json.dumps(content), "utf-8")


def test_rows_of_a_class(clean, tmp_path):
    solutions = exercises_of(FOLDER / NAME)
    for learner in ("ada", "bob", "cleo", "dan"):
        (tmp_path / learner).mkdir()
        shutil.copy(clean / NAME, tmp_path / learner / NAME)
    answer(tmp_path / "ada" / NAME, solutions)
    bad = {
        "box_iou": "def box_iou(a, b):\n    while True:\n        pass",
        "generalized_iou": "def generalized_iou(a, b):\n    import os\n    os._exit(3)",
        "encode_boxes": "def encode_boxes(src, dst:",
        "decode_boxes": solutions["decode_boxes"].replace("torch.exp", ""),
        "nms": "print('=nonsense')\n" + solutions["nms"].replace("box_iou(", "my_iou("),
    }
    helper = "from minircnn.boxes import box_iou as my_iou"
    answer(tmp_path / "bob" / NAME, bad, extra=[helper, "1 / 0"])
    (tmp_path / "cleo" / NAME).write_text("no notebook", "utf-8")
    answer(tmp_path / "dan" / NAME, {"nms": solutions["nms"]}, extra=["import os; os._exit(1)"])
    rows = {(row.learner, row.exercise): row for row in grading.grade(tmp_path, seconds=5)}
    assert len(rows) == 4 * len(solutions)
    results = {learner: [rows[learner, name].result for name in solutions] for learner in ("ada", "bob", "cleo", "dan")}
    assert results["ada"] == ["right"] * len(solutions)
    late, died = "took more than 5 s", "ended the process (status 3)"
    assert results["bob"][:5] == [late, died, "not yet", "not yet", "right"]
    assert rows["bob", "encode_boxes"].said.startswith("SyntaxError")
    assert "multiplied by the delta" in rows["bob", "decode_boxes"].said
    assert results["bob"][5:] == ["not written"] * (len(solutions) - 5)
    assert results["cleo"] == ["missing"] * len(solutions)
    assert results["dan"].count("right") == 1
    assert rows["dan", "nms"].result == "right"


def test_the_command_writes_a_table(clean, tmp_path):
    (tmp_path / "eve").mkdir()
    shutil.copy(clean / NAME, tmp_path / "eve" / NAME)
    answer(tmp_path / "eve" / NAME, {"box_iou": "def box_iou(a, b):\n    raise ValueError('=1+1')"})
    out = tmp_path / "table.csv"
    result = CliRunner().invoke(app, ["course", "grade", str(tmp_path / "eve"), "--out", str(out)])
    assert result.exit_code == 0, result.output
    count = len(exercises_of(FOLDER / NAME))
    assert f"eve: 0 of {count} exercises right" in result.output
    table = list(csv.DictReader(io.StringIO(out.read_text(encoding="utf-8"))))
    assert len(table) == count
    assert {key: table[0][key] for key in ("learner", "notebook", "exercise", "result")} == {
        "learner": "eve",
        "notebook": "01",
        "exercise": "box_iou",
        "result": "not yet",
    }
    assert "it raises ValueError: =1+1" in table[0]["said"]
    result = CliRunner().invoke(app, ["course", "grade", str(tmp_path / "nobody")])
    assert (result.exit_code, result.stderr) == (2, f"Error: {tmp_path / 'nobody'}: there is no such folder\n")
    (tmp_path / "empty").mkdir()
    result = CliRunner().invoke(app, ["course", "grade", str(tmp_path / "empty")])
    assert "neither this folder nor one in it holds a notebook" in result.stderr
