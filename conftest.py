"""How nbval compares notebooks here: numbers within a tolerance where a cell has a tag for it, and time as declared.

nbval compares text letter by letter. A cell with the tag ``nbval-within-5%`` (or another number) has its numbers
compared within that share of the larger one, and its words exactly.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

import nbformat
import pytest

WITHIN = re.compile(r"nbval-within-(\d+(?:\.\d+)?)%")
NUMBER = re.compile(r"(?<![\w.])[-+−]?\d+(?:,\d{3})*(?:\.\d+)?(?:e[-+]?\d+)?", re.I)


class Within(str):
    """Text that equals another if their words are the same and their numbers differ by a share of the larger one."""

    share = 0.0

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, str):
            return NotImplemented
        words, numbers = zip(*(_split(text) for text in (self, other)), strict=True)
        return words[0] == words[1] and all(
            abs(a - b) <= self.share * max(abs(a), abs(b)) for a, b in zip(*numbers, strict=True)
        )

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = str.__hash__


def _split(text: str) -> tuple[list[str], list[float]]:
    """Words with # for each number, and the numbers; spaces do not count, for columns grow with their numbers."""
    numbers = [float(found.replace(",", "").replace("−", "-")) for found in NUMBER.findall(text)]
    return NUMBER.sub("#", text).split(), numbers


def pytest_itemcollected(item: pytest.Item) -> None:
    """Let nbval compare the outputs of a cell with such a tag by :class:`Within`."""
    cell = getattr(item, "cell", None)
    tags = cell.metadata.get("tags", []) if cell is not None else []
    found = next(filter(None, map(WITHIN.fullmatch, tags)), None)
    if found:
        kind, exact = type("Within", (Within,), {"share": float(found[1]) / 100}), item.sanitize
        item.sanitize = lambda text: kind(exact(text)) if isinstance(text, str) else text


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
