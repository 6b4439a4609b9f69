"""A learner works through a notebook: all answers are written into a copy, and the notebook runs on them."""

import json

import nbformat
from nbclient import NotebookClient

from minircnn.course.working_copy import make_working_copy
from tests.course.exercises import CHECK, FOLDER, exercises_of

NAME = "01_boxes_and_metrics.ipynb"
COUNTING = '''
calls = {}


def counted(function):
    """The same function, which counts its calls."""

    def wrapper(*args, **options):
        calls[function.__name__] += 1
        return function(*args, **options)

    calls[function.__name__] = 0
    return wrapper
'''


def text_of(cell):
    return "".join(output.get("text", "") for output in cell.outputs)


def test_the_notebook_runs_on_the_learners_functions(tmp_path):
    make_working_copy(tmp_path)
    copy, stored = (nbformat.read(folder / NAME, as_version=4) for folder in (tmp_path, FOLDER))
    solutions = exercises_of(FOLDER / NAME)
    code = [cell for cell in copy.cells if cell.cell_type == "code"]
    for cell in code:
        if found := CHECK.search(cell.source):
            name = found[1]
            cell.source = f"{solutions[name]}\n{name} = counted({name})\n{found[0]}\ncalls['{name}'] = 0"
    code[0].source += COUNTING
    copy.cells.append(nbformat.v4.new_code_cell("import json\nprint(json.dumps(calls))"))
    NotebookClient(copy, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(FOLDER)}}).execute()
    calls = json.loads(text_of(copy.cells[-1]))
    assert set(calls) == set(solutions)
    assert min(calls.values()) > 0, calls  # used after their checks
    for cell, before in zip(code, (c for c in stored.cells if c.cell_type == "code"), strict=True):
        if found := CHECK.search(before.source):
            assert text_of(cell).startswith(f"{found[1]} is right: ")
        else:
            assert text_of(cell) == text_of(before)
