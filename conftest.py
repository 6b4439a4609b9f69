"""Holds the minutes that each notebook declares against the minutes that it takes."""

import re
from collections import defaultdict
from pathlib import Path

import nbformat
import pytest

_seconds: dict[Path, float] = defaultdict(float)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Adds up the cells of each notebook that nbval runs, in whichever process."""
    file = Path(report.nodeid.split("::")[0])
    if file.suffix == ".ipynb":
        _seconds[file] += report.duration


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Prints the table of minutes."""
    for file, seconds in sorted(_seconds.items()):
        terminalreporter.line(f"{file.name}: {seconds / 60:.1f} minutes, declared {_declared(config.rootpath / file)}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A notebook that takes much longer than it says fails the run."""
    # Half as much again for a machine that is busy, and one minute for starting the kernel.
    late = [f for f, s in _seconds.items() if s / 60 > 1.5 * _declared(session.config.rootpath / f) + 1]
    if late and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _declared(file: Path) -> int:
    opening = nbformat.read(file, as_version=4).cells[0].source
    found = re.search(r"\*\*Runs in:\*\* about (\d+) minute", opening)
    return int(found[1]) if found else 0
