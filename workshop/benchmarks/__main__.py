"""Compare our operations with the reference implementations.

A ratio is our time divided by the reference's, both measured in turn in one run: the median, with the middle half of
all pairs beside it. Below 1 ours is faster. Where it is stated, memory is the largest that ours holds at a time divided
by the reference's. selective_search needs OpenCV: pip install -e ".[benchmark]".
"""

import argparse
import platform
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
import torchvision

from minircnn.course.environment import available_cores
from minircnn.files import write_json
from workshop.benchmarks import detectors, evaluation, operations, selective_search
from workshop.benchmarks.timing import Case, Measurement, measure

SUITES: dict[str, Callable[[], Sequence[Case]]] = {
    "boxes": operations.box_cases,
    "pooling": operations.pooling_cases,
    "evaluation": evaluation.cases,
    "selective_search": selective_search.cases,
    "detectors": detectors.cases,
    "published": detectors.published_cases,
}
HEADER = (
    f"{'operation':<46} {'against':<12} {'threads':>7} {'ratio':>6}  {'middle half':<13} {'agrees':<6} {'memory':<6}"
)


def run_suites(names: Iterable[str], repeats: int) -> list[Measurement]:
    """Measure suites one after the other, with one thread and with all, and print each row as soon as it is there."""
    print(HEADER, flush=True)
    measurements = []
    for name in names:
        cases = SUITES[name]()
        if not cases:
            print(f"{name}: nothing to compare with: its reference is not installed (pip install -e '.[benchmark]')")
        for case in cases:
            for threads in sorted({1, available_cores()}):
                measurements.append(measure(case, threads, repeats))
                print(table_row(measurements[-1]), flush=True)
    return measurements


def table_row(m: Measurement) -> str:
    """One line of the table under :data:`HEADER`."""
    spread = f"{m.low:.2f} – {m.high:.2f}"
    agrees = "yes" if m.agrees else "NO"
    memory = f"{m.ours_mb / m.theirs_mb:.2f} ({m.ours_mb:.0f} MB)" if m.ours_mb else ""
    row = f"{m.name:<46} {m.reference:<12} {m.threads:>7} {m.ratio:>6.2f}  {spread:<13} {agrees:<6} {memory}"
    return row.rstrip()


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table; the exit status is 1 if a result differs from the reference's."""
    parser = argparse.ArgumentParser(prog="python -m workshop.benchmarks", description=__doc__)
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"of {', '.join(SUITES)}; all if none is named")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the table here")
    parser.add_argument("--repeats", type=int, default=15, help="timed pairs for each row (15)")
    options = parser.parse_args(arguments)
    if unknown := set(options.suites) - set(SUITES):
        parser.error(f"there is no suite {sorted(unknown)[0]!r}; there are {', '.join(SUITES)}")
    if options.repeats < 2:
        parser.error("--repeats must be at least 2, so that there is a spread")
    if options.json and (options.json.is_dir() or not options.json.parent.is_dir()):
        parser.error(f"--json {options.json}: name a file in a folder that exists")
    measurements = run_suites(options.suites or SUITES, options.repeats)
    if options.json:
        versions = {"python": platform.python_version(), "torch": torch.__version__}
        versions |= {"torchvision": torchvision.__version__, "cores": available_cores(), "machine": platform.machine()}
        write_json(options.json, {**versions, "measurements": [asdict(m) for m in measurements]})
        print(f"written to {options.json}")
    if not all(m.agrees for m in measurements):
        raise SystemExit("Some results differ from the reference's: see the column 'agrees'.")


if __name__ == "__main__":
    main()
