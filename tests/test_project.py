"""The project as a whole: one list of dependencies, imports in the order of history, readable files, stable names.

The workshop may import everything, and nothing in the package or the notebooks imports the workshop.
"""

import ast
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import minircnn
from tests import interface

if sys.version_info >= (3, 11):
    import tomllib
else:  # pytest brings it on Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "minircnn"
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

# Each imports only from those above it: first what all detectors share, then the detectors as history had them, and
# last what no detector may import.
HISTORY = [
    *["shipped", "files", "weights", "cache"],
    *["kernels", "boxes", "targets", "pooling", "transforms"],
    *["alexnet", "resnet_fpn", "selective_search"],
    *["rcnn", "fast_rcnn", "faster_rcnn", "mask_rcnn", "published"],
    *["datasets", "metrics", "evaluation", "errors", "training", "plotting", "course"],
    *["cli", "__main__"],
]


def imported_modules(source, package):
    """The minircnn modules that a source file imports, anywhere in it, relative imports resolved."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name.split(".")[1] for name in names if name.startswith("minircnn."))


SOURCES = sorted(PACKAGE.rglob("*.py"))
WORKSHOP = sorted((ROOT / "workshop").rglob("*.py"))


def test_import_order_is_the_history():
    for path in SOURCES:
        source, (module, *_) = path.read_text(encoding="utf-8"), path.relative_to(PACKAGE).parts
        module = module.removesuffix(".py")
        if module == "__init__":
            continue
        assert module in HISTORY, f"{module} has no place in the history yet: add it to HISTORY above"
        package = list(path.relative_to(ROOT).parts[:-1])
        later = set(HISTORY[HISTORY.index(module) + 1 :])
        assert not later & set(imported_modules(source, package)), f"{path} imports what comes later"
    ways = "from minircnn.a import x\nimport minircnn.b as p\nfrom . import c\ndef f():\n    from .d import e"
    assert sorted(imported_modules(ways, ["minircnn"])) == ["a", "b", "c", "d"]


IMPORTS = """
import sys
import minircnn
loaded = [{*sys.modules}]
import minircnn.faster_rcnn
loaded.append({*sys.modules})
from minircnn.mask_rcnn import load_mask_rcnn
load_mask_rcnn()
assert "sympy" not in sys.modules, "PyTorch's compiler, which takes seconds, is loaded by operations on the meta device"
from minircnn import *
assert {*minircnn.__all__} <= {*dir(minircnn)} and {*minircnn.__all__} <= {*globals()}
packages = "torch", "numpy", "sklearn", "skimage", "scipy", "matplotlib", "typer"
print(*[[name for name in packages if name in modules] for modules in loaded])
print(MaskRCNN.__module__, roi_align.__module__, load.__module__, hasattr(minircnn, "nonsense"))
"""


def test_public_names_are_loaded_when_they_are_used():
    """Importing the package takes nothing else; that of a detector takes only PyTorch, loading its weights no more."""
    found = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True, check=True).stdout
    assert found == "[] ['torch', 'numpy']\nminircnn.mask_rcnn minircnn.pooling minircnn.weights False\n"
    block = next(node for node in ast.parse((PACKAGE / "__init__.py").read_text()).body if isinstance(node, ast.If))
    typed = {alias.name: node.module for node in block.body for alias in node.names}
    assert {name: f"minircnn.{module}" for module, names in minircnn._PLACES.items() for name in names} == typed
    assert {*typed} == {*minircnn.__all__}, "type checkers are told of the same names"


def test_nothing_that_a_reader_opens_needs_the_workshop():
    for path in [*SOURCES, *(ROOT / "notebooks").glob("*.ipynb")]:
        assert not re.search(r"(from|import) +workshop\b", path.read_text(encoding="utf-8")), path


def test_files_stay_readable():
    """At most 500 lines a file and 45 a function, docstrings included in the first and not in the second."""
    too_long = []
    for path in [*SOURCES, *WORKSHOP]:
        source = path.read_text(encoding="utf-8")
        if source.count("\n") > 500:
            too_long.append(f"{path.name}: {source.count(chr(10))} lines")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                lines = body[-1].end_lineno - body[0].lineno + 1 if body else 0
                if lines > 45:
                    too_long.append(f"{path.name}: {node.name} has {lines} lines")
    assert not too_long


def package_name(requirement):
    return re.match(r"[A-Za-z0-9_.-]+", requirement)[0].lower().replace("_", "-")


def test_conda_adds_nothing_to_the_one_list():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    *conda, pip = environment["dependencies"]
    assert conda == [f"python{PYPROJECT['requires-python']}", "pip"]
    (constraints, install) = pip["pip"]
    assert constraints == "-c constraints.txt"
    extras = re.fullmatch(r"-e \.\[(.*)\]", install)[1].split(",")
    assert set(extras) <= set(PYPROJECT["optional-dependencies"])
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert makefile.count(f'-e ".[{",".join(extras)}]"') == 2, "make and conda install the same extras"


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
def test_make_runs_what_there_is():
    """And so do the workflows, which go through make: of a module that was renamed they would tell in the night."""
    targets = re.search(r"^\.PHONY: (.*)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)[1].split()
    said = subprocess.run(["make", "--dry-run", *targets], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    modules = set(re.findall(r"python -m ([a-z_.]+)", said))
    assert {"workshop.benchmarks", "workshop.history", "workshop.notebooks", "minircnn", "pytest"} <= modules
    assert all(importlib.util.find_spec(module) for module in modules), modules
    written = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / ".github" / "workflows").glob("*.yml"))
    assert set(re.findall(r"\bmake ([a-z-]+)", written)) <= set(targets)
    assert all(importlib.util.find_spec(module) for module in re.findall(r"-m (workshop[a-z_.]*)", written))


def test_dependencies_are_ranges_of_which_one_version_is_tested():
    assert all(re.fullmatch(r"[a-z-]+>=[0-9.]+", requirement) for requirement in PYPROJECT["dependencies"])
    requirements = [*PYPROJECT["dependencies"], *(r for e in PYPROJECT["optional-dependencies"].values() for r in e)]
    wanted = {package_name(r) for r in requirements} - {"minircnn"}
    pins = [line for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if "==" in line]
    assert wanted <= {package_name(pin) for pin in pins}
    pattern = r"[A-Za-z0-9_.-]+==[0-9][0-9A-Za-z.]*( ; python_version (<|>=) \"3\.1[0-9]\")?"
    assert all(re.fullmatch(pattern, pin) for pin in pins)
    assert any(pin.startswith("torch==2.15.") for pin in pins)
    assert any(pin.startswith("torchvision==0.29.") for pin in pins)


# What notebooks and README import, the commands and their options: tests/interface.py writes it.
RECORD = json.loads(interface.FILE.read_text(encoding="utf-8"))


def test_names_that_users_import_stay():
    for name in RECORD["names"]:
        module, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(module), attribute) or importlib.import_module(name)


def test_commands_and_their_options_stay_and_the_record_is_complete():
    """Whoever adds a name to a notebook, or an option to a command, adds it here: python -m tests.interface."""
    assert set(interface.imported_names()) <= set(RECORD["names"])
    assert interface.commands() == RECORD["commands"]
