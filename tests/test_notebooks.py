"""The rules that keep the notebooks true, checked on their stored form. nbval runs them and compares their outputs."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

FOLDER = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("[0-9][0-9]_*.ipynb"))
MACHINE_PATH = re.compile(r"(?<![\w.])/(home|root|tmp|Users|work|var|opt)/\w|\b[A-Z]:\\\\?\w")


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]


def tags_of(cell):
    return cell.metadata.get("tags", [])


def lines_in_sight(cell):
    return [] if "hide-input" in tags_of(cell) else [line for line in cell.source.splitlines() if line.strip()]


def outputs_of(notebook):
    return [output for cell in code_cells(notebook) for output in cell.outputs]


def test_nbval_compares_numbers_within_the_tolerance_of_a_tag_and_words_exactly(tmp_path):
    """``stored output, what the cell prints, tag: whether nbval is content``, each a cell."""
    cases = [
        ("AP50 77.7 of 1,200 boxes", "AP50 79.1 of 1,205 boxes", "nbval-within-5%", True),
        ("AP50 77.7", "AP50 83.9", "nbval-within-5%", False),
        ("AP50 77.7", "AP50 77.8", None, False),
        ("AP50 77.7", "AP75 77.7", "nbval-within-5%", False),
        ("change -0.50", "change 0.50", "nbval-within-20%", False),
        ("box  9.9 px", "box 10.1 px", "nbval-within-2.5%", True),
        ("77.7", "77.7 78.1", "nbval-within-5%", False),
    ]
    cells = []
    for stored, printed, tag, _ in cases:
        cell = nbformat.v4.new_code_cell(f"print({printed!r})", execution_count=1)
        cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text=stored + "\n")]
        cell.metadata.tags = [tag] if tag else []
        cells.append(cell)
    file = tmp_path / "example.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), file)
    command = [sys.executable, "-m", "pytest", "-p", "conftest", "-p", "no:cacheprovider", "--nbval", "-rA", str(file)]
    command += ["--nbval-current-env", "--rootdir", str(tmp_path)]
    env = {**os.environ, "PYTHONPATH": str(FOLDER.parent)}
    text = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, check=False).stdout
    found = {int(number): result == "PASSED" for result, number in re.findall(r"(PASSED|FAILED) .*Cell (\d+)", text)}
    assert found == {n: content for n, (*_, content) in enumerate(cases)}, text


def test_numbered_without_gaps():
    assert [int(path.name[:2]) for path in NOTEBOOKS] == list(range(13))


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem, scope="module")
def path(request):
    return request.param


@pytest.fixture(scope="module")
def notebook(path):
    return nbformat.read(path, as_version=4)


def test_opens_with_a_title_and_its_minutes(notebook):
    """Five minutes at most; the conftest.py of the project holds the number against the time that it takes."""
    assert notebook.cells[0].cell_type == "markdown"
    assert notebook.cells[0].source.startswith("# ")
    minutes = re.search(r"\*\*Runs in:\*\* about (\d+) minutes? on two CPU cores", notebook.cells[0].source)
    assert minutes, "the first cell lacks '**Runs in:** about N minutes on two CPU cores'"
    assert 1 <= int(minutes[1]) <= 5


def test_is_stored_as_executed_from_top_to_bottom(notebook):
    counts = [cell.execution_count for cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1))


def test_no_errors_warnings_or_machine_paths_in_the_outputs(notebook):
    for output in outputs_of(notebook):
        assert output.output_type != "error"
        assert output.get("name") != "stderr", output.text[:300]
        data = output.get("data", {})
        text = output.get("text", "") + "".join(data[kind] for kind in data if kind.startswith("text/"))
        assert not MACHINE_PATH.search(text), text[:300]


def test_nearly_all_outputs_are_compared(notebook):
    printing = [cell for cell in code_cells(notebook) if cell.outputs]
    ignored = [c for c in printing if "nbval-ignore-output" in tags_of(c) or "NBVAL_IGNORE_OUTPUT" in c.source]
    assert len(ignored) <= 0.15 * len(printing), [cell.source[:60] for cell in ignored]
    assert not [c for c in code_cells(notebook) if "NBVAL_SKIP" in c.source or "nbval-skip" in tags_of(c)]


def test_every_image_has_alt_text(notebook):
    kinds = "image/png", "image/jpeg"
    images = [(o, kind) for o in outputs_of(notebook) for kind in kinds if kind in o.get("data", {})]
    assert images, "a notebook without an image"
    for image, kind in images:
        alt = image.metadata.get(kind, {}).get("alt", "")
        assert len(alt) > 20, f"an image with the alt text {alt!r}"


def test_is_small_asks_for_the_plain_kernel_and_stands_in_the_readme(path, notebook):
    assert path.stat().st_size < 2_000_000
    assert notebook.metadata.kernelspec.name == "python3"
    assert f"notebooks/{path.name}" in (FOLDER.parent / "README.md").read_text(encoding="utf-8")


# ------------------------------------------------------------------------------ the form: what a learner meets

WAY = re.compile(r"^\| Way \| (.*) \|$", re.M)
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)(?:#[^)]*)?\)")
BOUND = re.compile(r"\bTrue\b|\bFalse\b|\bat least\b|\bat most\b|[≥≤]")


@pytest.fixture(scope="module")
def formed(path, notebook):
    return path, notebook.cells


def section(cells, title):
    """The markdown below a heading, up to the next heading of its level."""
    text = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    assert found, f"there is no section '## {title}'"
    return found[1]


def test_opening_names_question_aims_papers_files_and_neighbors(formed):
    path, cells = formed
    opening, number = cells[0].source, int(path.name[:2])
    assert re.match(rf"# {number:02} · \S", opening)
    assert "**The question.**" in opening
    aims = opening.split("After this notebook you can")[1].split("| | |")[0]
    assert len(re.findall(r"^\* ", aims, re.M)) == 3
    for row in ("Papers", "You need", "Time", "Files", "Way"):
        assert f"| {row} |" in opening
    links = LINK.findall(WAY.search(opening)[1])
    near = [p.name for p in NOTEBOOKS if abs(int(p.name[:2]) - number) == 1]
    assert {*near, "README.md", "glossary.md"} == set(links)
    setup = next(cell for cell in cells if cell.cell_type == "code")
    assert "hide-input" in setup.metadata.get("tags", [])
    assert setup.metadata["jupyter"]["source_hidden"]
    first = next(n for n, cell in enumerate(cells) if n and cell.cell_type == "markdown")
    assert [cell for cell in cells[:first] if cell.cell_type == "code"] == [setup], "code before the first idea"


def test_closing_has_a_table_three_questions_and_what_remains(formed):
    _, cells = formed
    learned = section(cells, "What you have learned")
    assert "| concept | standard term | paper | in the package |" in learned
    assert len(re.findall(r"<details>", learned.split("**Test yourself.**")[1])) == 3
    section(cells, "What remains")
    # Each name in the table is defined in the file beside it.
    for names, file in re.findall(r"\| ([^|]*?) in \[[^]]*\]\(\.\./([^)]*)\) \|", learned):
        source = (FOLDER.parent / file).read_text(encoding="utf-8")
        for name in re.findall(r"`(\w+)`", names):
            assert re.search(rf"(def|class) {name}\b|^{name}\b.* = ", source, re.M), f"{file} has no {name}"


def test_no_cell_in_sight_is_longer_than_a_screen_or_holds_a_bound(formed):
    _, cells = formed
    code = [cell for cell in cells if cell.cell_type == "code"]
    assert max(len(lines_in_sight(cell)) for cell in code) <= 25
    assert not [cell.source for cell in code if re.search(r"def \w+_solution|at_least\(|at_most\(", cell.source)]
    printed = [line for cell in code for out in cell.outputs for line in out.get("text", "").splitlines() if line]
    bounds = [line for line in printed if BOUND.search(line)]
    assert len(bounds) <= 0.08 * len(printed), bounds


def test_links_resolve(formed):
    path, cells = formed
    for cell in cells:
        for link in LINK.findall(cell.source) if cell.cell_type == "markdown" else ():
            assert (path.parent / link).exists(), link


def test_exercises_have_a_heading_two_hints_and_a_solution(formed):
    path, cells = formed
    text = "\n".join(cell.source for cell in cells)
    exercises = len(re.findall(r"^    # Your code$", text, re.M))
    headings = re.findall(r"^### Exercise (\d+)\.(\d+) · .+ \(★{1,3}, \d+ minutes(?:; optional)?\)$", text, re.M)
    assert [tuple(map(int, numbers)) for numbers in headings] == [(int(path.name[:2]), n + 1) for n in range(exercises)]
    for fold in ("Hint 1", "Hint 2", "Solution"):
        assert text.count(f"<details><summary>{fold}</summary>") == exercises


def test_what_is_imported_is_used_in_a_cell_or_in_a_solution(formed):
    _, cells = formed
    imported, rest = set(), []
    for cell in cells:
        tree = ast.parse(cell.source) if cell.cell_type == "code" else ast.Module([], [])
        imports = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
        imported |= {name.asname or name.name.split(".")[0] for node in imports for name in node.names}
        lines = {number for node in imports for number in range(node.lineno, node.end_lineno + 1)}
        rest += [line for number, line in enumerate(cell.source.splitlines(), 1) if number not in lines]
    words = set(re.findall(r"\w+", "\n".join(rest)))
    assert not imported - words


# ------------------------------------------------------------------------------ the pages beside them


def opening_of(path):
    """Title, minutes to run, and hours to work through, as the opening cell has them."""
    text = nbformat.read(path, as_version=4).cells[0].source
    title = re.match(r"# \d\d · (.+)", text)[1]
    minutes = re.search(r"\*\*Runs in:\*\* about (\d+) minute", text)[1]
    hours = re.search(r"To work through, with the exercises?: (.+?) \|", text)[1]
    return title, minutes, hours


def test_course_map_agrees_with_the_notebooks():
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[(\d\d) ([^]]+)\]\((\S+)\) \|.*\| (\d+) \| ([^|]+) \|$", page, re.M)
    assert [(number, file) for number, _, file, _, _ in rows] == [(p.name[:2], p.name) for p in NOTEBOOKS]
    assert [(title, minutes, hours) for _, title, _, minutes, hours in rows] == list(map(opening_of, NOTEBOOKS))


@pytest.mark.parametrize("name", ["README.md", "glossary.md", "teachers.md"])
def test_links_of_the_pages_resolve(name):
    for link in LINK.findall((FOLDER / name).read_text(encoding="utf-8")):
        assert (FOLDER / link).exists(), link


def test_glossary_is_in_order_and_says_where_a_term_is_used():
    """Each term occurs in the prose of the notebook that is said to introduce it."""
    page = (FOLDER / "glossary.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \| ([^|]+) \|", page, re.M)[2:]
    terms = [term for term, _, _ in rows]
    assert terms == sorted(terms, key=str.lower)
    assert len(terms) >= 45
    for term, _, where in rows:
        words = re.sub(r" \(.*\)|, .*", "", term).lower()
        for file in LINK.findall(where):
            cells = nbformat.read(FOLDER / file, as_version=4).cells
            text = " ".join(" ".join(cell.source.lower().split()) for cell in cells)
            assert words in text.replace("\n# ", " "), f"{term}: not in {file}"


def test_course_map_names_the_notebooks_with_figures_to_take_hold_of():
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    named = re.search(r"\*\*Figures to take hold of\*\* \(in ([^)]+)\)", page)[1]
    having = [path.name[:2] for path in NOTEBOOKS if "minircnn.course.explorables" in path.read_text(encoding="utf-8")]
    assert re.findall(r"\d\d", named) == having


def test_figures_are_compared_before_a_cell_changes_them():
    """A browser answers only when the cell is done: compared after a change, the figure's old results would differ."""
    compared = []
    for path in NOTEBOOKS:
        for cell in code_cells(nbformat.read(path, as_version=4)):
            if (call := re.search(r"^(\w+)\.compare\(\)", cell.source, re.MULTILINE)) and call[1] != "compare":
                assert not re.search(rf"\b{call[1]}\.\w+( =|.* in )", cell.source[: call.start()]), cell.source
                compared.append(path.name[:2])
    assert compared == ["01", "02", "07", "09", "10"]
