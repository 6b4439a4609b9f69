"""How nbval compares notebooks here: numbers within a tolerance where a cell has a tag for it, and time as declared.

nbval compares text letter by letter. A cell with the tag ``nbval-within-5%`` (or another number) has its numbers
compared within that share of the larger one, and its words exactly.
"""

from __future__ import annotations

import re
import time
from collections import defaultdict
from pathlib import Path

import nbformat
import pytest
import torch

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


# How long the fixed piece of work below takes on the machine on which minutes are declared, with nothing else running.
WORK_SECONDS = 0.2
EVERY = 25  # cells; how busy the machine is changes during a run

_seconds: dict[Path, float] = defaultdict(float)
_work: dict[Path, list[float]] = defaultdict(list)


def work() -> float:
    """Seconds that a fixed piece of work takes, here and now: convolutions, as most of the notebooks' time."""
    image, kernels = torch.ones(1, 64, 96, 96), torch.ones(64, 64, 3, 3)
    start = time.perf_counter()
    for _ in range(40):
        torch.nn.functional.conv2d(image, kernels, padding=1)
    return time.perf_counter() - start


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Time the work now and then while a notebook runs, for the process that reports."""
    if hasattr(item, "cell") and item.cell_num % EVERY == 0:
        item.user_properties.append(("work", work()))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Add up the cells of each notebook that nbval runs, in whichever process."""
    file = Path(report.nodeid.split("::")[0])
    if file.suffix == ".ipynb":
        _seconds[file] += report.duration
        if report.when == "teardown":
            seconds = [value for name, value in report.user_properties if name == "work"]
            _work[file] += seconds
            _seconds[file] -= sum(seconds)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """A notebook that takes longer than it promises its readers fails the run."""
    if any(_is_late(file, session.config.rootpath) for file in _seconds):
        session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The table of minutes, as they would be on the machine that the declared ones are for."""
    for file in sorted(_seconds):
        line = f"{file.name}: {_minutes(file):.1f} minutes, declared {declared_minutes(config.rootpath / file)}"
        line += f" (here {_seconds[file] / 60:.1f}: the fixed piece of work took {_slowness(file):.1f} times as long)"
        if _is_late(file, config.rootpath):
            terminalreporter.line(f"FAILED {line}: make it faster, or declare more in its first cell", red=True)
        else:
            terminalreporter.line(line)


def declared_minutes(notebook: Path) -> int:
    """The number in the line ``**Runs in:** about N minutes on two CPU cores`` of the opening cell; 0 if it lacks."""
    opening = nbformat.read(notebook, as_version=4).cells[0].source
    found = re.search(r"\*\*Runs in:\*\* about (\d+) minutes? on two CPU cores", opening)
    return int(found[1]) if found else 0


def _slowness(file: Path) -> float:
    return sum(_work[file]) / len(_work[file]) / WORK_SECONDS if _work[file] else 1.0


def _minutes(file: Path) -> float:
    return _seconds[file] / 60 / _slowness(file)


def _is_late(file: Path, root: Path) -> bool:
    # A fifth more for chance, and half a minute for starting the kernel and importing torch.
    return _minutes(file) > 1.2 * declared_minutes(root / file) + 0.5
