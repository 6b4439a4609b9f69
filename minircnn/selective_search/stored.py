"""Proposals of many pictures, found once and kept on disk."""

from collections.abc import Sequence
from typing import Any

from joblib import Parallel, delayed
from joblib.externals.loky import get_reusable_executor
from torch import Tensor

from minircnn import boxes, kernels, selective_search
from minircnn.cache import Cache, code_fingerprint
from minircnn.selective_search.proposals import FAST, Strategy


def stored_proposals(
    samples: Sequence[tuple[Tensor, Any]],
    *,
    cache: Cache | None = None,
    strategies: Sequence[Strategy] = FAST,
    max_proposals: int | None = None,
    workers: int = 1,
) -> list[Tensor]:
    """:func:`selective_search` of every picture of a data set, or what it gave the last time.

    Args:
        samples: ``(image, target)`` pairs, such as a data set yields; the targets are not looked at.
        cache: where proposals are kept. A picture, a strategy, code or a version of scikit-image that is another finds
            no old proposals.
        strategies: as in :func:`selective_search`.
        max_proposals: the first so many of each picture; None for all.
        workers: processes that search side by side; -1 for one on each core.

    Returns:
        A ``(P, 4)`` tensor for each picture, best first.
    """
    cache = cache or Cache()
    packages = ("numpy", "scipy", "scikit-image", "torch")
    code = code_fingerprint(selective_search, boxes, kernels, packages=packages)
    # One picture is sent to one worker, and only when it is its turn: a whole data set would take longer to send.
    found = Parallel(n_jobs=workers)(
        delayed(_search)(samples[i][0], cache, code, tuple(strategies)) for i in range(len(samples))
    )
    if workers != 1:  # idle workers would stay for minutes, and each would answer Ctrl-C with a traceback of its own
        get_reusable_executor().shutdown(wait=True)
    return [proposals[:max_proposals] for proposals in found]


def _search(image: Tensor, cache: Cache, code: str, strategies: tuple[Strategy, ...]) -> Tensor:
    def compute() -> dict[str, Tensor]:
        return {"boxes": selective_search.selective_search(image, strategies=strategies)}

    return cache.get("proposals", (code, repr(strategies), image), compute)["boxes"]
