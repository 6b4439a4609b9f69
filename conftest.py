"""Holds the minutes that each notebook declares against the minutes that it takes, and says so if they are too few."""

from __future__ import annotations

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


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """A notebook that takes much longer than it promises its readers fails the run."""
    if any(_is_late(session.config.rootpath / file, seconds) for file, seconds in _seconds.items()):
        session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The table of minutes."""
    for file, seconds in sorted(_seconds.items()):
        path = config.rootpath / file
        line = f"{file.name}: {seconds / 60:.1f} minutes, declared {declared_minutes(path)}"
        if _is_late(path, seconds):
            terminalreporter.line(f"FAILED {line}: make it faster, or declare more in its first cell", red=True)
        else:
            terminalreporter.line(line)


def declared_minutes(notebook: Path) -> int:
    """The number in the line ``**Runs in:** about N minutes on two CPU cores`` of the opening cell; 0 if it lacks."""
    opening = nbformat.read(notebook, as_version=4).cells[0].source
    found = re.search(r"\*\*Runs in:\*\* about (\d+) minutes? on two CPU cores", opening)
    return int(found[1]) if found else 0


def _is_late(notebook: Path, seconds: float) -> bool:
    # Twice as long on a machine that is busy, and a minute for starting the kernel and importing torch.
    return seconds / 60 > 2 * declared_minutes(notebook) + 1
