"""A test of the tests: bugs are planted in a copy of the package, one at a time, and each must turn a test red.

A mutant that survives shows what no test looks at. Then a test is missing, and to be written where it belongs.
"""

import sys
from collections import Counter
from typing import NamedTuple

import pytest

from tests.mutation.planted import TABLE
from tests.mutation.project import Project

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere processes that loaded PyTorch cannot fork")


class Mutant(NamedTuple):
    name: str
    file: str
    right: list[str]
    wrong: list[str]
    test: str


def read(table):
    """The mutants of a table like that of planted.py."""
    mutants, file, test = [], "", ""
    for line in table.strip().splitlines():
        indent, text = len(line) - len(line.lstrip()), line.strip()
        if indent == 0:
            file = text
        elif indent == 2:
            test = text
        elif indent == 4:
            mutants.append(Mutant(text, file, [], [], test))
        else:
            {"-": mutants[-1].right, "+": mutants[-1].wrong}[text[0]].append(line[8:])
    return mutants


MUTANTS = read(TABLE)


def plant(project, mutant):
    """What the tests say with a bug, which is removed again."""
    file = project.folder / "minircnn" / mutant.file
    right, wrong = "\n".join(mutant.right), "\n".join(mutant.wrong)
    source = file.read_bytes()
    text = source.decode("utf-8").replace("\r\n", "\n")
    assert text.count(right) == 1, f"{mutant.file} must hold {right!r} once: adapt planted.py"
    file.write_bytes(text.replace(right, wrong).encode())
    try:
        return run(project, [mutant.test])
    finally:
        file.write_bytes(source)


def run(project, tests):
    """What driver.run_tests says of these tests, of which names are given in tests/."""
    result = project.run(f"tests/{test}" for test in tests)
    assert result, f"pytest did not come to an end:\n{project.output()}"
    return result


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    project = Project(tmp_path_factory.mktemp("mutation").resolve())
    yield project
    project.close()


@pytest.mark.nightly
def test_without_a_bug_all_are_green(project):
    """Here, too. In the project itself every run of the tests says so."""
    result = run(project, sorted({mutant.test for mutant in MUTANTS}))
    assert result["failures"] == {} and result["status"] == pytest.ExitCode.OK


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_bug_is_noticed(project, mutant):
    result = plant(project, mutant)
    assert result["status"] == pytest.ExitCode.TESTS_FAILED, f"survived: {mutant}"
    assert set(result["failures"].values()) == {"assertion"}, "red, but for another reason than a wrong value"


def test_what_proves_nothing_is_noticed(project):
    """A line that was rewritten, a change that changes nothing, and a file that is no Python any more."""
    one = MUTANTS[0]
    assert max(Counter(mutant.name for mutant in MUTANTS).values()) == 1
    with pytest.raises(AssertionError, match="must hold 'a line that was rewritten' once"):
        plant(project, one._replace(right=["a line that was rewritten"]))
    assert plant(project, one._replace(wrong=one.right))["status"] == pytest.ExitCode.OK
    result = plant(project, one._replace(wrong=["return ("]))
    assert result["status"] != pytest.ExitCode.TESTS_FAILED
    assert "assertion" not in result["failures"].values()
