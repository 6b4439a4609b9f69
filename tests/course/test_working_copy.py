"""The learner's copy: complete, without outputs, never overwritten; and the command that opens it."""

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from minircnn.cli import app
from minircnn.course import working_copy
from minircnn.course.working_copy import NOTEBOOKS, make_working_copy


def test_is_complete_without_outputs_and_else_the_same(tmp_path):
    made, moved = make_working_copy(tmp_path / "my_course")
    assert moved is None
    assert [path.name for path in made] == [
        *sorted(path.name for path in NOTEBOOKS.glob("*.ipynb")),
        *sorted(path.name for path in NOTEBOOKS.glob("*.md")),
    ]
    for path in made[:13]:
        copy, original = (json.loads((folder / path.name).read_text("utf-8")) for folder in (path.parent, NOTEBOOKS))
        for cell in original["cells"]:
            if cell["cell_type"] == "code":
                cell |= {"outputs": [], "execution_count": None}
        assert copy == original


def test_nothing_is_overwritten_and_renewing_moves_the_old_one_aside(tmp_path):
    make_working_copy(tmp_path)
    work, page = tmp_path / "05_roi_pool.ipynb", tmp_path / "glossary.md"
    work.write_text("my work", "utf-8")
    page.write_text("my notes", "utf-8")
    assert make_working_copy(tmp_path) == ([], None)
    assert (work.read_text("utf-8"), page.read_text("utf-8")) == ("my work", "my notes")
    for count, number in enumerate(("05", "5"), start=1):
        work.write_text(f"work {count}", "utf-8")
        made, moved = make_working_copy(tmp_path, renew=number)
        assert made == [work]
        assert moved == tmp_path / f"05_roi_pool.old{count}.ipynb"
        assert moved.read_text("utf-8") == f"work {count}"
        assert json.loads(work.read_text("utf-8"))["cells"]
    work.unlink()
    assert make_working_copy(tmp_path, renew="05") == ([work], None)


@pytest.mark.parametrize("number", ["13", "x", "5.0", "²"])
def test_refuses_a_number_that_no_notebook_has(tmp_path, number):
    with pytest.raises(ValueError, match=f"^renew {number}: there is no such notebook; give a number from 00 to 12$"):
        make_working_copy(tmp_path / "new", renew=number)
    assert not (tmp_path / "new").exists()


def test_the_command_opens_the_copy_and_passes_options_on(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(working_copy, "WORKING_COPY", tmp_path / "my_course")
    monkeypatch.setattr(make_working_copy, "__defaults__", (tmp_path / "my_course", None, NOTEBOOKS))
    monkeypatch.setattr(
        subprocess, "run", lambda command, **_: seen.append(command) or subprocess.CompletedProcess(command, 0)
    )
    result = CliRunner().invoke(app, ["course", "--jupyter", "--no-browser --port 9999"])
    assert result.exit_code == 0, result.output
    place = [f"--ServerApp.root_dir={tmp_path}", "--LabApp.default_url=/lab/tree/my_course/00_start_here.ipynb"]
    assert seen == [[sys.executable, "-m", "jupyterlab", *place, "--no-browser", "--port", "9999"]]
    assert "16 new files" in result.output
    result = CliRunner().invoke(app, ["course", "--renew", "5"])
    assert seen[1][-1].endswith("/05_roi_pool.ipynb")
    assert "your old notebook is now" in result.output
    result = CliRunner().invoke(app, ["course", "--renew", "77"])
    assert (result.exit_code, len(seen)) == (2, 2)
    assert result.stderr.startswith("Error: --renew 77: there is no such notebook")
