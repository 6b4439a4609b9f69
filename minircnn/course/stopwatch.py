"""Where the time goes in a loop over images."""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from time import perf_counter


class Stopwatch:
    """Seconds of the stages of a loop: ``with clock("warping"): …``, once for each image and stage."""

    def __init__(self) -> None:
        self.laps: dict[str, list[float]] = defaultdict(list)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Measure what happens inside of the block."""
        start = perf_counter()
        yield
        self.laps[stage].append(perf_counter() - start)

    def medians(self) -> dict[str, float]:
        """Seconds of each stage for the median image, which a busy moment of the machine does not change."""
        return {stage: median(laps) for stage, laps in self.laps.items()}
