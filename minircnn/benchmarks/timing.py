"""How two implementations are compared: interleaved, in one run, as a ratio.

The seconds of a machine say little to the owner of another one, and the same machine is slower when it is busy. So
both are called in turn, A B A B …, each pair gives a ratio, and what is reported is the median of these ratios with
the spread of the middle half.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from minircnn.benchmarks.memory import peak_memory


@dataclass(frozen=True)
class Case:
    """One operation of ours beside its reference.

    Attributes:
        name: what is computed, and on how much.
        reference: whose implementation it is compared with.
        ours: computes our result.
        theirs: computes the reference's result.
        check: tells whether the two results agree. A fast wrong answer is not worth a row.
        memory: whether memory is compared, too: only what torch allocates is seen.
    """

    name: str
    reference: str
    ours: Callable[[], object]
    theirs: Callable[[], object]
    check: Callable[[object, object], bool]
    memory: bool = False


@dataclass(frozen=True)
class Measurement:
    """The outcome of one case: our time divided by the reference's, below 1 where ours is faster.

    Where memory was compared, its peak in millions of bytes, on top of what the call was given; results count.
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
    """Runs both sides in turn.

    Args:
        case: what to run.
        threads: how many threads torch (and OpenCV, where it is installed) may use.
        repeats: pairs of calls that are timed, at least 2, after one pair that warms up and is checked.

    Returns:
        The median ratio, its middle half, and the median milliseconds of each side.
    """
    if repeats < 2:
        raise ValueError(f"repeats must be at least 2 for a spread, but is {repeats}")
    with limit_threads(threads):
        agrees = bool(case.check(case.ours(), case.theirs()))
        pairs = [(_seconds(case.ours), _seconds(case.theirs)) for _ in range(repeats)]
        memory = [peak_memory(call) / 1e6 for call in (case.ours, case.theirs)] if case.memory else []
    ratios = [ours / theirs for ours, theirs in pairs]
    low, _, high = statistics.quantiles(ratios, n=4, method="inclusive")
    ours_ms, theirs_ms = (1000 * statistics.median(side) for side in zip(*pairs, strict=True))
    times = (statistics.median(ratios), low, high, ours_ms, theirs_ms)
    return Measurement(case.name, case.reference, threads, *times, repeats, agrees, *memory)


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


@contextmanager
def limit_threads(count: int) -> Iterator[None]:
    """Sets the number of threads of torch (and OpenCV, where it is installed), and sets it back in the end.

    Args:
        count: how many, at least 1. The reference gets as many as we do.
    """
    before = torch.get_num_threads()
    opencv = _opencv()
    opencv_before = opencv.getNumThreads() if opencv else None
    torch.set_num_threads(count)
    if opencv:
        opencv.setNumThreads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        if opencv:
            opencv.setNumThreads(opencv_before)


def _opencv():  # noqa: ANN202
    try:
        import cv2
    except ImportError:
        return None
    return cv2
