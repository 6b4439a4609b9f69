"""How two implementations are compared: interleaved, in one run, as a ratio.

The seconds of one machine say little to the owner of another, and a busy machine is slower. So both are called in turn,
A B A B …, each pair gives a ratio, and the report is the median of these ratios with the spread of the middle half.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from minircnn.course import compare

LONGEST, FEWEST = 30, 5  # seconds for the pairs of a row, after so many at least


@dataclass(frozen=True)
class Case:
    """One operation of ours beside its reference."""

    name: str  # what is computed, and on how much
    reference: str  # whose implementation it is compared with
    ours: Callable[[], object]  # computes our result
    theirs: Callable[[], object]  # computes the reference's result
    check: Callable[[object, object], bool]  # whether the two results agree. A fast wrong answer is not worth a row
    memory: bool = False  # whether memory is compared, too: only what torch allocates is seen


@dataclass(frozen=True)
class Measurement:
    """The outcome of one case: our time divided by the reference's, below 1 where ours is faster.

    ``low`` and ``high`` bound the middle half of the ratios. Where memory was compared, its peak is in millions of
    bytes, on top of what the call was given; results count.
    """

    name: str
    reference: str
    threads: int
    ratio: float
    low: float
    high: float
    ours_ms: float
    theirs_ms: float
    repeats: int
    agrees: bool
    ours_mb: float | None = None
    theirs_mb: float | None = None


def measure(case: Case, threads: int, repeats: int = 15) -> Measurement:
    """Run both sides in turn.

    Args:
        case: what to run.
        threads: how many torch (and OpenCV, where it is installed) may use.
        repeats: pairs of calls that are timed, at least 2, after one pair that warms up and is checked; fewer, but
            five, where they take longer than half a minute.

    Raises:
        ValueError: too few repeats.
    """
    if repeats < 2:
        raise ValueError(f"repeats must be at least 2 for a spread, but is {repeats}")
    with limit_threads(threads):
        agrees = bool(case.check(case.ours(), case.theirs()))
        pairs, end = [], time.monotonic() + LONGEST
        while len(pairs) < repeats and (len(pairs) < FEWEST or time.monotonic() < end):
            pairs.append((seconds(case.ours), seconds(case.theirs)))
        memory = [compare.peak_memory(call) / 1e6 for call in (case.ours, case.theirs)] if case.memory else []
    ratios = [ours / theirs for ours, theirs in pairs]
    low, middle, high = quartiles(ratios)
    ours_ms, theirs_ms = (1000 * statistics.median(side) for side in zip(*pairs, strict=True))
    return Measurement(
        case.name, case.reference, threads, middle, low, high, ours_ms, theirs_ms, len(pairs), agrees, *memory
    )


def quartiles(ratios: list[float]) -> list[float]:
    """The lower end of the middle half, the median, and the upper end."""
    return statistics.quantiles(ratios, n=4, method="inclusive")


def seconds(call: Callable[[], object]) -> float:
    """How long one call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


@contextmanager
def limit_threads(count: int) -> Iterator[None]:
    """Set the number of threads of torch and, where it is installed, OpenCV; set it back in the end."""
    opencv = None
    with suppress(ImportError):
        import cv2 as opencv
    before = opencv.getNumThreads() if opencv else 0
    with compare.limit_threads(count):
        if opencv:
            opencv.setNumThreads(count)
        try:
            yield
        finally:
            if opencv:
                opencv.setNumThreads(before)
