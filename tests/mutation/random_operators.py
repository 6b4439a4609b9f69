"""Random mutants: an operator or a small number of the core is another one, and the tests of its module must notice.

    python -m tests.mutation.random_operators [--count 60] [--seed 0] [--allowed N] [--only MODULE …]

prints each mutant, and how many the tests killed. It takes most of an hour and runs at night (``make mutants``). A
mutant that survives is either another way to write the same program, or shows what no test looks at: then a test is
missing. Which mutants are drawn does not depend on where code stands, only on how it reads.
"""

import argparse
import ast
import hashlib
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mutation.project import ROOT, Project

# With each module go those that belong to it.
CORE = dict.fromkeys(("boxes", "targets", "transforms", "pooling", "alexnet", "resnet_fpn"), ())
CORE |= dict.fromkeys(("selective_search", "rcnn", "fast_rcnn", "faster_rcnn", "mask_rcnn"), ())
CORE |= {"pooling": ("kernels",), "mask_rcnn": ("published",)}
SHARED_TESTS = ["tests/test_paper_values.py", "tests/test_kernels.py"]
SWAPPED = {ast.Lt: ast.LtE, ast.Gt: ast.GtE, ast.Eq: ast.NotEq, ast.Add: ast.Sub, ast.Mult: ast.Div, ast.And: ast.Or}
SWAPPED |= {other: one for one, other in SWAPPED.items()}
NAMES = {"min": "max", "minimum": "maximum", "amin": "amax"}
NAMES |= {other: one for one, other in NAMES.items()}
NO_BEHAVIOUR = ("annotation", "returns", "decorator_list")


def places(parent: ast.AST, above: ast.AST) -> Iterator[tuple[ast.AST, ast.AST, str, int | None, object]]:
    """Every possible change below a node: the line or so to show, and the node, field, place in it and new value."""
    for field, value in ast.iter_fields(parent):
        if field in NO_BEHAVIOUR:
            continue
        for place, item in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if isinstance(item, ast.Raise | ast.Assert | ast.JoinedStr) or "__all__" in _assigned(item):
                continue
            shown = item if isinstance(item, ast.stmt) else above
            if (new := _changed(item, parent, field)) is not None:
                yield shown, parent, field, place, new
            if isinstance(item, ast.AST):
                yield from places(item, shown)


def _assigned(item: object) -> list[str]:
    return [getattr(target, "id", "") for target in item.targets] if isinstance(item, ast.Assign) else []


def _changed(item: object, parent: ast.AST, field: str) -> object:
    if type(item) in SWAPPED:
        return SWAPPED[type(item)]()
    if isinstance(item, ast.UnaryOp) and isinstance(item.op, ast.Not):
        return item.operand
    if isinstance(item, str) and (field in ("id", "attr") or isinstance(parent, ast.keyword)):
        return NAMES.get(item)
    if isinstance(item, ast.Constant) and isinstance(item.value, bool):
        return ast.Constant(not item.value)
    if isinstance(item, ast.Constant) and type(item.value) is int and item.value <= 10:
        return ast.Constant(item.value + 1)
    return None


def exchange(parent: ast.AST, field: str, place: int | None, new: object) -> object:
    """Puts a value in a place, and returns the one that was there."""
    old = getattr(parent, field)
    if place is None:
        setattr(parent, field, new)
        return old
    old[place], old = new, old[place]
    return old


def mutants(file: Path) -> Iterator[tuple[str, int]]:
    """Every mutant of a file: the statement before and after, and its number."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for number, (shown, *where, new) in enumerate(list(places(tree, tree))):
        before = ast.unparse(shown)
        old = exchange(*where, new)
        lines = zip(before.splitlines(), ast.unparse(shown).splitlines(), strict=False)
        exchange(*where, old)
        yield "  ->  ".join(line.strip() for line in next(pair for pair in lines if pair[0] != pair[1])), number


def program(file: Path, number: int) -> str:
    """The text of a mutant."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    exchange(*list(places(tree, tree))[number][1:])
    return ast.unparse(ast.fix_missing_locations(tree))


def files_and_tests(name: str) -> tuple[list[Path], list[str]]:
    """The files of a module, and the tests that belong to it, relative to the project."""
    parts = (name, *CORE[name])
    return [Path(f"minircnn/{part}.py") for part in parts], [f"tests/test_{part}.py" for part in parts]


def run_module(project: Project, name: str, count: int, seed: int) -> Iterator[tuple[str, str]]:
    """Draws mutants of a module and yields each with what became of it."""
    files, tests = files_and_tests(name)
    tests = [*map(str, files), *tests, *SHARED_TESTS]
    start = time.perf_counter()
    result = project.run(tests)
    if not result or result["status"] != pytest.ExitCode.OK:
        sys.exit(f"{name}: its tests fail without a bug\n{project.output()}")
    print(f"{name}: {time.perf_counter() - start:.0f} s without a bug", flush=True)
    drawn = [(file, *mutant) for file in files for mutant in mutants(ROOT / file)]
    drawn.sort(key=lambda mutant: hashlib.sha256(f"{seed} {mutant[1]}".encode()).digest())
    for file, change, number in drawn[:count]:
        source = (project.folder / file).read_bytes()
        (project.folder / file).write_text(program(ROOT / file, number), encoding="utf-8")
        result = project.run(tests)
        (project.folder / file).write_bytes(source)
        fate = "killed" if not result or result["status"] != pytest.ExitCode.OK else "SURVIVED"
        by = ", ".join(result["failures"]) if result else "no end"
        print(f"{fate:8} {name}: {change}   [{by}]", flush=True)
        yield fate, change


def main() -> None:
    """Exits with 1 if more survive than are allowed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=60, help="mutants, spread evenly over the modules")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--allowed", type=int, default=6, help="survivors: about a tenth are the same program")
    parser.add_argument("--only", nargs="+", choices=CORE, default=list(CORE), metavar="MODULE")
    options = parser.parse_args()
    fates = Counter()
    with tempfile.TemporaryDirectory() as folder:
        project = Project(Path(folder).resolve())
        for place, name in enumerate(options.only):
            count = (options.count + place) // len(options.only)  # the last ones may have one more
            own = Counter(fate for fate, _ in run_module(project, name, count, options.seed))
            print(f"{name}: {own['killed']} of {own.total()} killed", flush=True)
            fates += own
        project.close()
    print(f"{fates['killed']} of {fates.total()} killed, {fates['SURVIVED']} survived ({options.allowed} allowed)")
    sys.exit(fates["SURVIVED"] > options.allowed)


if __name__ == "__main__":
    main()
