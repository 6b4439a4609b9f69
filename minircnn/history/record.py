"""The whole history as one record: everything that was measured, as JSON holds it."""

import json
import platform
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from minircnn.datasets import ToyTown
from minircnn.experiments import RESULTS_FOLDER
from minircnn.history.detectors import GENERATIONS, load_all
from minircnn.history.measure import MAX_PROPOSALS, alignment_example, figures_of, scenes, trace_all
from minircnn.history.scale import PaperScale, measure_at_scale
from minircnn.history.stages import search
from minircnn.history.training import training_costs
from minircnn.history.transfer import naming_accuracy

RESULTS = RESULTS_FOLDER / "history.json"
"""The record that comes with the project."""

_TIMED_TRAINING_PICTURES = 16
_LEAST_TRANSFER_PICTURES = 60

Named = Callable[[Iterable[Any], str], Iterable[Any]]
"""Shows progress: is given things and what is done with them, and hands the things on."""


class RecordError(ValueError):
    """A file that holds no record of the history; the message names it, and a remedy."""


def silent(things: Iterable[Any], what: str) -> Iterable[Any]:
    """No progress bar."""
    return things


def make_record(
    pictures: int | None = None,
    *,
    scale: PaperScale | None = None,
    training: bool = True,
    command: str = "minircnn history",
    progress: Named = silent,
) -> dict[str, Any]:
    """Measures everything.

    Args:
        pictures: the first so many of Toy Town's test split; None for all.
        scale: what is timed at the papers' size; None leaves that out.
        training: whether some iterations of each training are timed.
        command: noted in the record.
        progress: shows how far it is.

    Returns:
        What JSON can hold. Averages and shares are in [0, 1], times in milliseconds, or minutes for trainings.
        ``paper_scale`` and ``training`` are None if they were left out.

    Raises:
        ValueError: there are not so many pictures.
        FileNotFoundError: weights are missing.
    """
    test = ToyTown("test")
    count = len(test) if pictures is None else pictures
    if not 1 <= count <= len(test):
        raise ValueError(f"pictures must be from 1 to {len(test)}, the size of the test split, but is {pictures}")
    models = load_all()
    samples = [test[index] for index in range(count)]
    targets = [target for _, target in samples]
    traces = trace_all(models, samples, progress=lambda numbers: progress(numbers, "four detectors"))
    figures = {
        one.key: asdict(figures_of(one, models[one.key], traces[one.key], targets, test.classes))
        for one in progress(GENERATIONS, "accuracy")
    }
    return {
        "command": command,
        "split": "test",
        "pictures": count,
        "pictures_of_split": len(test),
        "max_proposals": MAX_PROPOSALS,
        "machine": {
            "threads": 1,
            "machine": platform.machine(),
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
        "scenes": scenes(targets),
        "alignment": alignment_example(),
        "transfer": _transfer(count),
        "detectors": figures,
        "training": _training(figures, progress) if training else None,
        "paper_scale": scale and measure_at_scale(scale, progress=lambda numbers: progress(numbers, "papers' size")),
    }


def _transfer(count: int) -> dict[str, Any]:
    """On as many test pictures as all else, or at least some; half as many again to learn from."""
    train, test = ToyTown("train", masks=False), ToyTown("test", masks=False)
    count = max(_LEAST_TRANSFER_PICTURES, count)
    learn = 3 * count // 2
    samples = ([train[index] for index in range(learn)], [test[index] for index in range(count)])
    return {"training_pictures": learn, "pictures": count, **naming_accuracy(*samples, test.classes)}


def _training(figures: Mapping[str, Mapping[str, Any]], progress: Named) -> dict[str, dict[str, float]]:
    train = ToyTown("train")
    samples = [train[index] for index in range(_TIMED_TRAINING_PICTURES)]
    proposals = [search(image, MAX_PROPOSALS).boxes for image, _ in samples]
    milliseconds = {key: own["milliseconds"] for key, own in figures.items()}
    costs: dict[str, dict[str, float]] = {}
    for one in progress(GENERATIONS, "trainings"):
        costs |= training_costs(
            *(samples, proposals, train.classes),
            milliseconds=milliseconds,
            pictures=len(train),
            generations=[one],
        )
    return costs


def read_record(path: Path = RESULTS) -> dict[str, Any]:
    """Reads what ``minircnn history`` wrote.

    Raises:
        FileNotFoundError: it is not there.
        RecordError: it is damaged, or something else.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file; make it with `minircnn history --out FOLDER`")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RecordError(f"{path}: damaged ({error}); measure again with `minircnn history`") from error
    keys = ("pictures", "pictures_of_split", "scenes", "alignment", "transfer", "detectors", "training", "paper_scale")
    missing = [key for key in keys if not isinstance(record, dict) or key not in record]
    missing = missing or [one.key for one in GENERATIONS if one.key not in record["detectors"]]
    if missing:
        raise RecordError(
            f"{path}: no record of the history ({missing[0]!r} is missing); name a file that `minircnn history` wrote"
        )
    return record
