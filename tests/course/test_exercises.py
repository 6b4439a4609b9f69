"""Each exercise: its solution, out of the notebook's fold, is right, and wrong answers are told what is wrong.

``wrong_answers/`` holds a file for each notebook: the name of an exercise, then indented lines ``text of the solution
=> what stands there in the wrong answer !! a part of the message``; ``\\n`` is a new line.
"""

import contextlib
import inspect
import io
import re
from pathlib import Path

import matplotlib as mpl
import pytest

from minircnn.course.check import boxes_and_metrics
from tests.course.exercises import NOTEBOOKS, cells_of, exercises_of, setup_of

FOLDER = Path(__file__).parent / "wrong_answers"
ANYTIME = {
    "raises": ("raise RuntimeError('no idea')", "RuntimeError: no idea"),
    "returns text": ("return 'nothing'", "str"),
    "stub": ("", "not written yet"),
}


def wrong_answers(path):
    """``{exercise: [(old, new, message)]}`` of a file."""
    table = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith(" "):
            rows = table.setdefault(line.strip(), [])
        else:
            change, message = line.strip().split("  !!")
            old, new = change.split("  =>")
            rows.append(tuple(text.strip().replace("\\n", "\n") for text in (old, new, message)))
    return table


def judged(check, name, answer):
    """What a notebook's check prints, and the function that it returns."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        returned = getattr(check, name)(answer)
    lines = printed.getvalue().splitlines()
    assert len(lines) == 1, lines
    return lines[0], returned


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem, scope="module")
def notebook(request):
    mpl.use("Agg")
    return request.param


def names_after(notebook, stop=None):
    """The names that a notebook's setup and the solutions before an exercise have defined."""
    names = {"__name__": "notebook"}
    exec(compile(setup_of(notebook), str(notebook), "exec"), names)
    for name, solution in exercises_of(notebook).items():
        if name == stop:
            break
        exec(compile(solution, name, "exec"), names)
    return names


def test_solutions_are_right_and_wrong_answers_get_a_message_of_their_own(notebook):
    table, exercises = wrong_answers(FOLDER / f"{notebook.stem}.txt"), exercises_of(notebook)
    assert set(table) == set(exercises)
    for name, solution in exercises.items():
        names, messages = names_after(notebook, name), {}

        def answer(source, name=name, names=names):
            own = dict(names)
            exec(compile(source, name, "exec"), own)
            return own[name]

        right = answer(solution)
        line, returned = judged(names["check"], name, right)
        assert line.startswith(f"{name} is right: "), line
        assert returned is right
        assert len(line) < 160
        wrong = []
        for old, new, message in table[name]:
            assert old in solution, f"{name}: its solution does not hold {old!r}"
            line, returned = judged(names["check"], name, answer(solution.replace(old, new)))
            if not line.startswith(f"{name}, not yet: ") or message not in line:
                wrong.append(f"{old!r} => {new!r}: {line}")
            else:
                assert returned is getattr(names["check"], name).reference
                messages[line] = new
        assert not wrong, "\n".join(wrong)
        assert len(messages) >= 5, f"{name}: {len(messages)} different messages"
        head = next(line for line in solution.splitlines() if line.startswith(("def ", "class ")))
        for body, message in ANYTIME.values():
            if head.startswith("class ") and body:
                body = f"def __init__(self, *args):\n        {body}"
            line, returned = judged(names["check"], name, answer(f'{head}\n    """A docstring."""\n    {body}\n'))
            assert message in line, line
            assert returned is getattr(names["check"], name).reference


def test_a_solution_takes_what_its_stub_and_its_reference_take(notebook):
    """The notebook must run alike on the learner's function and on the package's, defaults included."""
    stubs = "\n".join(cell.source for cell in cells_of(notebook) if cell.cell_type == "code")
    names = names_after(notebook)
    for name, solution in exercises_of(notebook).items():
        head = re.search(rf"^(def|class) {name}\b.*?:$", solution, re.M | re.S)[0]
        assert head in stubs, f"{name}: its stub begins otherwise"
        reference = inspect.signature(getattr(names["check"], name).reference).parameters
        for option, own in inspect.signature(names[name]).parameters.items():
            if option in reference and own.default is not own.empty:
                assert own.default == reference[option].default, f"{name}: {option}"


def test_a_function_that_was_overwritten_prints_instead_of_a_traceback():
    line, returned = judged(boxes_and_metrics, "nms", [1, 2])
    assert "no function any more but a list" in line
    assert returned is boxes_and_metrics.nms.reference
