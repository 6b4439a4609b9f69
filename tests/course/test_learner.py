"""A learner works through a notebook: all answers are written into a copy, and the notebook runs on them."""

import json
import re

import nbformat
import pytest
from nbclient import NotebookClient

from conftest import WITHIN, Within
from minircnn.course.working_copy import make_working_copy
from tests.course.exercises import CHECK, FOLDER, NOTEBOOKS, exercises_of

# One of them in every run; all of them take as long again as the notebooks.
ALL = [pytest.param(p.name, marks=[] if p.name[:2] == "01" else pytest.mark.nightly, id=p.stem) for p in NOTEBOOKS]
COUNTING = '''
learner_calls = {}


def counted(function):
    """The same function, which counts its calls."""

    def wrapper(*args, **options):
        learner_calls[function.__name__] += 1
        return function(*args, **options)

    learner_calls[function.__name__] = 0
    return wrapper
'''


def text_of(cell):
    return "".join(output.get("text", "") for output in cell.outputs)


def same_text(cell, before):
    """Whether a cell prints what is stored, within the tolerance of its tag."""
    tags = before.metadata.get("tags", [])
    found = next(filter(None, map(WITHIN.fullmatch, tags)), None)
    kind = type("Within", (Within,), {"share": float(found[1]) / 100 if found else 0.0})
    return "nbval-ignore-output" in tags or kind(text_of(cell)) == text_of(before)


@pytest.mark.parametrize("name", ALL)
def test_the_notebook_runs_on_the_learners_functions(tmp_path, name):
    make_working_copy(tmp_path)
    copy, stored = (nbformat.read(folder / name, as_version=4) for folder in (tmp_path, FOLDER))
    solutions = exercises_of(FOLDER / name)
    code = [cell for cell in copy.cells if cell.cell_type == "code"]
    for cell in code:
        if found := CHECK.search(cell.source):
            exercise = found[1]
            count = "" if f"class {exercise}" in solutions[exercise] else f"{exercise} = counted({exercise})"
            reset = f"learner_calls.update({exercise}=0)" if count else ""
            stub = re.search(rf"^(def|class) {exercise}\b.*?(?=\n+{exercise} = )", cell.source, re.M | re.S)[0]
            cell.source = f"{cell.source.replace(stub, f'{solutions[exercise]}{count}')}\n{reset}"
    code[0].source += COUNTING
    copy.cells.append(nbformat.v4.new_code_cell("import json\nprint(json.dumps(learner_calls))"))
    NotebookClient(copy, timeout=900, kernel_name="python3", resources={"metadata": {"path": str(FOLDER)}}).execute()
    calls = json.loads(text_of(copy.cells[-1]))
    assert {n for n in solutions if f"class {n}" not in solutions[n]} == set(calls)
    text = "\n".join(cell.source for cell in stored.cells)
    optional = len(re.findall(r"^### Exercise .*; optional\)$", text, re.M))
    assert sum(count == 0 for count in calls.values()) <= optional, calls  # used after their checks
    for cell, before in zip(code, (c for c in stored.cells if c.cell_type == "code"), strict=True):
        if found := CHECK.search(before.source):
            assert text_of(cell).startswith(f"{found[1]} is right: ")
        else:
            assert same_text(cell, before), f"{before.source}\n{text_of(cell)}"
