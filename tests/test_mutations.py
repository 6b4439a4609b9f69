"""A test of the tests: bugs are planted in a copy of the package, one at a time, and each must turn a test red.

A mutant that survives shows what no test looks at. Then a test is missing, and to be written where it belongs.
"""

from collections import Counter

import pytest

from tests.mutation.driver import FORKS
from tests.mutation.planted import MUTANTS
from tests.mutation.project import Project

# Half a second each where processes fork, some seconds elsewhere; one system that plants them all is enough.
PLANTED = MUTANTS if FORKS else MUTANTS[::4]


def plant(project, mutant):
    """What the tests say with a bug, which is removed again."""
    file = project.folder / "minircnn" / mutant.file
    source = file.read_bytes()
    text = source.decode("utf-8").replace("\r\n", "\n")
    assert text.count(mutant.right) == 1, f"{mutant.file} must hold {mutant.right!r} once: adapt planted.py"
    file.write_bytes(text.replace(mutant.right, mutant.wrong).encode())
    try:
        return run(project, mutant.tests)
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
    tests = sorted({test for mutant in PLANTED for test in mutant.tests})
    result = run(project, tests)
    assert result["failures"] == {} and result["status"] == pytest.ExitCode.OK


@pytest.mark.parametrize("mutant", PLANTED, ids=lambda mutant: mutant.name)
def test_a_bug_is_noticed(project, mutant):
    result = plant(project, mutant)
    assert result["status"] == pytest.ExitCode.TESTS_FAILED, f"survived: {mutant}"
    assert set(result["failures"].values()) == {"assertion"}, "red, but for another reason than a wrong value"


def test_names_are_different():
    assert max(Counter(mutant.name for mutant in MUTANTS).values()) == 1


def test_a_bug_that_cannot_be_planted_is_an_error(project):
    gone = MUTANTS[0]._replace(right="a line that was rewritten")
    with pytest.raises(AssertionError, match="must hold 'a line that was rewritten' once"):
        plant(project, gone)


def test_a_survivor_is_noticed(project):
    """A change that changes nothing."""
    harmless = MUTANTS[0]._replace(wrong=MUTANTS[0].right)
    assert plant(project, harmless)["status"] == pytest.ExitCode.OK


def test_a_file_that_is_no_python_is_no_proof(project):
    result = plant(project, MUTANTS[0]._replace(wrong="return ("))
    assert result["status"] != pytest.ExitCode.TESTS_FAILED
    assert "assertion" not in result["failures"].values()
