"""Compare our operations with the reference implementations.

A ratio is our time divided by the reference's, both measured in turn in one run: the median, with the middle half of
all pairs beside it. Below 1 ours is faster. Where it is stated, memory is the largest that ours holds at a time divided
by the reference's. selective_search needs OpenCV: pip install -e ".[benchmark]".
"""

import argparse
import json
import platform
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torchvision

from minircnn.course.environment import available_cores
from minircnn.course.record import as_text
from minircnn.files import write_atomically, write_json
from minircnn.plotting import render_png
from minircnn.shipped import PROJECT_FOLDER
from workshop.benchmarks import detectors, evaluation, operations, report, selective_search
from workshop.benchmarks.floor import shares
from workshop.benchmarks.growth import grow
from workshop.benchmarks.start import starts
from workshop.benchmarks.timing import Case, Measurement, measure
from workshop.pages import section_of, with_section

SUITES: dict[str, Callable[[], Sequence[Case]]] = {
    "boxes": operations.box_cases,
    "pooling": operations.pooling_cases,
    "evaluation": evaluation.cases,
    "selective_search": selective_search.cases,
    "detectors": detectors.cases,
    "published": detectors.published_cases,
}
MARKER, PAGES = "benchmark", (PROJECT_FOLDER / "README.md", PROJECT_FOLDER / "docs" / "benchmark.md")
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
    """Print the tables; the exit status is 1 if a result differs from the reference's, or is slower than before."""
    parser = argparse.ArgumentParser(prog="python -m workshop.benchmarks", description=__doc__)
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"of {', '.join(SUITES)}; all if none is named")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the table here")
    parser.add_argument("--repeats", type=int, default=15, help="timed pairs for each row (15)")
    parser.add_argument("--update", action="store_true", help="measure all, renew docs/benchmark.* and the README")
    parser.add_argument("--compare", type=Path, metavar="FILE", help="fail if a ratio is 15 %% worse than in this file")
    options = parser.parse_args(arguments)
    if unknown := set(options.suites) - set(SUITES):
        parser.error(f"there is no suite {sorted(unknown)[0]!r}; there are {', '.join(SUITES)}")
    if options.repeats < 2:
        parser.error("--repeats must be at least 2, so that there is a spread")
    if options.json and (options.json.is_dir() or not options.json.parent.is_dir()):
        parser.error(f"--json {options.json}: name a file in a folder that exists")
    if options.update and options.suites:
        parser.error(f"--update: pages show all suites; leave {', '.join(options.suites)} out")
    try:
        stored = json.loads(options.compare.read_text(encoding="utf-8")) if options.compare else None
        if stored is not None and "measurements" not in stored:
            raise ValueError(f"{options.compare}: holds no measurements; give what --json or --update has written")
        for page in PAGES if options.update else ():
            section_of(page, MARKER)  # refuses a page without markers before any work
    except (OSError, ValueError) as error:
        raise SystemExit(f"Error: {error}") from None
    measurements = run_suites(options.suites or SUITES, options.repeats)
    record = {**machine(), "measurements": [asdict(m) for m in measurements]}
    if options.json:
        write_json(options.json, record)
        print(f"written to {options.json}")
    if options.update:
        update(record)
    if not all(m.agrees for m in measurements):
        raise SystemExit("Some results differ from the reference's: see the column 'agrees'.")
    if stored and (worse := still_slower(stored, record, options)):
        raise SystemExit("\n".join(["Slower than stored, twice in a row:", *worse]))


def machine() -> dict[str, Any]:
    """Of what the numbers are true."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    return {
        **versions,
        "torchvision": torchvision.__version__,
        "cores": available_cores(),
        "machine": platform.machine(),
        "processor": models[0] if models else platform.machine(),
    }


def update(record: dict[str, Any]) -> None:
    """Measure starts, whole steps and growth, too, and renew what comes with the project."""
    record["starts"] = [*starts()]
    print(as_text(report.start(record["starts"])), flush=True)
    record["shares"] = [asdict(one) for one in shares()]
    print(as_text(report.steps(record["shares"])), flush=True)
    record["growth"] = [{**asdict(one), "exponents": one.exponents} for one in grow()]
    print(as_text(report.growth(record["growth"])), flush=True)
    docs = PROJECT_FOLDER / "docs"
    write_json(docs / "benchmark.json", record)
    write_atomically(docs / "benchmark.png", render_png(report.draw(record)))
    for page, parts in zip(PAGES, (report.summary(record), report.details(record)), strict=True):
        write_atomically(page, with_section(page, MARKER, parts).encode())
    print("written to README.md and docs/benchmark.json, .md, .png")


def still_slower(stored: report.Record, record: report.Record, options: argparse.Namespace) -> list[str]:
    """What is slower than stored, and again in a second run of its suites: the first may have met a busy moment."""
    worse = report.slower(stored, record)
    suites = [name for name in options.suites or SUITES if any(case.name in worse for case in SUITES[name]())]
    again = {"measurements": [asdict(m) for m in run_suites(suites, options.repeats)]} if worse else record
    return [text for name, text in report.slower(stored, again).items() if name in worse]


if __name__ == "__main__":
    main()
