"""Collects the cases, measures them, prints the table and writes it as JSON."""

import platform
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

import torch
import torchvision

from minircnn.benchmarks import NAMES
from minircnn.benchmarks.timing import Case, Measurement, measure
from minircnn.course.environment import available_cores
from minircnn.files import write_json

SUITES: dict[str, Callable[[], Sequence[Case]]] = {
    name: import_module(f"minircnn.benchmarks.{name}").cases for name in NAMES
}


HEADER = (
    f"{'operation':<46} {'against':<12} {'threads':>7} {'ratio':>6}  {'middle half':<13} {'agrees':<6} {'memory':<6}"
)


def run_suites(names: Iterable[str], repeats: int, report: Callable[[str], None]) -> list[Measurement]:
    """Measures suites one after the other, with one thread and with all.

    Args:
        names: keys of :data:`SUITES`.
        repeats: pairs of calls for each case.
        report: is called with each line of the table as soon as it is there.

    Returns:
        All measurements.

    Raises:
        ValueError: there is no suite of that name.
    """
    report(HEADER)
    measurements = []
    for name in names:
        if name not in SUITES:
            raise ValueError(f"there is no suite {name!r}; there are {', '.join(SUITES)}")
        cases = SUITES[name]()
        if not cases:
            report(f"{name}: nothing to compare with: its reference is not installed (pip install -e '.[benchmark]')")
        for case in cases:
            for threads in sorted({1, available_cores()}):
                measurements.append(measure(case, threads, repeats))
                report(table_row(measurements[-1]))
    return measurements


def table_row(m: Measurement) -> str:
    """One line of the table under :data:`HEADER`."""
    spread = f"{m.low:.2f} – {m.high:.2f}"
    agrees = "yes" if m.agrees else "NO"
    memory = f"{m.ours_mb / m.theirs_mb:.2f} ({m.ours_mb:.0f} MB)" if m.ours_mb else ""
    row = f"{m.name:<46} {m.reference:<12} {m.threads:>7} {m.ratio:>6.2f}  {spread:<13} {agrees:<6} {memory}"
    return row.rstrip()


def write_measurements(measurements: Iterable[Measurement], file: Path) -> None:
    """Writes the measurements and the versions that they were taken with; all of the file or nothing."""
    content = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "cores": available_cores(),
        "machine": platform.machine(),
        "measurements": [asdict(m) for m in measurements],
    }
    write_json(file, content)
