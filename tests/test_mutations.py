"""A test of the tests: bugs are planted in a copy of the package, one at a time, and each must turn a test red.

A mutant that survives shows what no test looks at. Then a test is missing, and to be written where it belongs.
"""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.mutation.driver import FORKS
from tests.mutation.planted import MUTANTS

ROOT = Path(__file__).parent.parent
# Half a second each where processes fork, some seconds elsewhere; one system that plants them all is enough.
PLANTED = MUTANTS if FORKS else MUTANTS[::4]


class Project:
    """A copy of the project, and a process that runs tests of it."""

    def __init__(self, folder):
        self.folder = folder
        for name in ("minircnn", "tests"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", folder)
        # What this very run of pytest, or of coverage, tells its own processes must not reach the other one.
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV"))}
        self.process = subprocess.Popen(
            [sys.executable, str(folder / "tests" / "mutation" / "driver.py"), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**environment, "OMP_NUM_THREADS": "1"},
        )

    def run(self, tests):
        """What driver.run_tests says of these tests, of which names are given in tests/."""
        self.process.stdin.write(json.dumps([f"tests/{test}" for test in tests]) + "\n")
        self.process.stdin.flush()
        result = json.loads(self.process.stdout.readline())
        output = (self.folder / "output.txt").read_text(encoding="utf-8", errors="replace")
        assert result, f"pytest did not come to an end:\n{output}"
        assert Path(result["package"]) == self.folder / "minircnn" / "__init__.py", "another copy was tested"
        return result

    def plant(self, mutant):
        """What the tests say with a bug, which is removed again."""
        file = self.folder / "minircnn" / mutant.file
        source = file.read_bytes()
        text = source.decode("utf-8").replace("\r\n", "\n")
        assert text.count(mutant.right) == 1, f"{mutant.file} must hold {mutant.right!r} once: adapt planted.py"
        file.write_bytes(text.replace(mutant.right, mutant.wrong).encode())
        try:
            return self.run(mutant.tests)
        finally:
            file.write_bytes(source)

    def close(self):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(60)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    project = Project(tmp_path_factory.mktemp("mutation").resolve())
    yield project
    project.close()


def test_without_a_bug_all_are_green(project):
    tests = sorted({test for mutant in PLANTED for test in mutant.tests})
    result = project.run(tests)
    assert result["failures"] == {} and result["status"] == pytest.ExitCode.OK


@pytest.mark.parametrize("mutant", PLANTED, ids=lambda mutant: mutant.name)
def test_a_bug_is_noticed(project, mutant):
    result = project.plant(mutant)
    assert result["status"] == pytest.ExitCode.TESTS_FAILED, f"survived: {mutant}"
    assert set(result["failures"].values()) == {"assertion"}, "red, but for another reason than a wrong value"


def test_names_are_different():
    assert max(Counter(mutant.name for mutant in MUTANTS).values()) == 1


def test_a_bug_that_cannot_be_planted_is_an_error(project):
    gone = MUTANTS[0]._replace(right="a line that was rewritten")
    with pytest.raises(AssertionError, match="must hold 'a line that was rewritten' once"):
        project.plant(gone)


def test_a_survivor_is_noticed(project):
    """A change that changes nothing."""
    harmless = MUTANTS[0]._replace(wrong=MUTANTS[0].right)
    assert project.plant(harmless)["status"] == pytest.ExitCode.OK


def test_a_file_that_is_no_python_is_no_proof(project):
    result = project.plant(MUTANTS[0]._replace(wrong="return ("))
    assert result["status"] != pytest.ExitCode.TESTS_FAILED
    assert "assertion" not in result["failures"].values()
