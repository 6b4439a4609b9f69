"""How much memory a call needs at its most, as far as torch allocates it."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from torch.profiler import ProfilerActivity, profile


def peak_memory(call: Callable[[], object]) -> int:
    """The largest number of bytes that a call holds at a time, on top of what there was before.

    Args:
        call: does the work. What it returns counts: it is held until the call is over.
    """
    with _without_chatter(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        call()
    held = most = 0
    for event in recorded.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()  # negative where memory is given back
            most = max(most, held)
    return most


@contextmanager
def _without_chatter() -> Iterator[None]:
    """The profiler writes to the terminal, past Python, that there is no GPU."""
    sys.stderr.flush()
    terminal = os.dup(2)
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)
