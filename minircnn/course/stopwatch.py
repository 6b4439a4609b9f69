"""Where the time goes in a loop over images."""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from time import perf_counter


class Stopwatch:
    """Seconds of the stages of a loop: ``with clock("warping"): …``; a stage inside of another has its time alone."""

    def __init__(self) -> None:
        self.laps: dict[str, list[float]] = defaultdict(list)
        self._inside = 0.0  # seconds of the stages inside of the one that runs

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Measure what happens inside of the block."""
        outside, self._inside, start = self._inside, 0.0, perf_counter()
        try:
            yield
        finally:
            seconds = perf_counter() - start
            self.laps[stage].append(seconds - self._inside)
            self._inside = outside + seconds

    def medians(self) -> dict[str, float]:
        """Seconds of each stage for the median image, which a busy moment of the machine does not change."""
        return {stage: median(laps) for stage, laps in self.laps.items()}

    def totals(self) -> dict[str, float]:
        """Seconds of each stage, all times together."""
        return {stage: sum(laps) for stage, laps in self.laps.items()}
