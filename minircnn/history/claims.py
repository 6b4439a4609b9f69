"""The story's claims, each with what was measured about it, and whether that bears it out.

A claim is a sentence; its evidence is a sentence with numbers; and ``holds`` says whether the numbers are as the claim
has them. Numbers come from the record of the history, and from those experiments in ``data/results`` that train
detectors which differ in one thing.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from minircnn.experiments import RESULTS_FOLDER

Results = Mapping[str, Mapping[str, Any]]
"""By the names of the files in ``data/results``; the record of the history is ``"history"``."""

EXPERIMENTS = ("rcnn_ablation", "fast_rcnn_ablation", "faster_rcnn_ablation", "mask_rcnn_ablation")


@dataclass(frozen=True)
class Claim:
    """One step of the story.

    Attributes:
        id: S1 to S17.
        text: what is claimed.
        notebooks: where it is shown.
        evidence: what was measured about it, as a short text; averages and shares in percent.
        holds: whether that bears the claim out on Toy Town.
        at_scale: whether it does at the papers' size; None where that says nothing about it.
    """

    id: str
    text: str
    notebooks: tuple[str, ...]
    evidence: Callable[[Results], str]
    holds: Callable[[Results], bool]
    at_scale: Callable[[Results], bool] | None = None

    def verdict(self, results: Results) -> str:
        """Either "yes", or "no", or "in part": on Toy Town but not at the papers' size, or the other way round."""
        answers = {self.holds(results)}
        if self.at_scale and has_scale(results):
            answers.add(self.at_scale(results))
        return "in part" if len(answers) == 2 else "yes" if answers == {True} else "no"


def gather(record: Mapping[str, Any], folder: Path = RESULTS_FOLDER) -> dict[str, Any]:
    """A record of the history, and the experiments' results beside it.

    Raises:
        FileNotFoundError: the results of an experiment are missing; the message says what makes them.
        ValueError: they are damaged.
    """
    results: dict[str, Any] = {"history": record}
    for name in EXPERIMENTS:
        path = folder / f"{name}.json"
        if not path.is_file():
            raise FileNotFoundError(f"{path}: not there; make it with `python -m minircnn.experiments.{name}`")
        try:
            results[name] = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(
                f"{path}: damaged ({error}); make it anew with `python -m minircnn.experiments.{name}`"
            ) from error
    return results


def of(results: Results, key: str) -> Mapping[str, Any]:
    """What was measured of a detector."""
    return results["history"]["detectors"][key]


def milliseconds(results: Results, key: str, stage: str = "all", paper: bool = False) -> float:
    """A detector's time for a picture, in all or of a stage, on Toy Town or at the papers' size."""
    record = results["history"]
    times = record["paper_scale"]["milliseconds"][key] if paper else record["detectors"][key]["milliseconds"]
    return times[stage]


def averaged(results: Results, name: str, figure: str, **wanted: Any) -> float:  # noqa: ANN401 - of any type
    """The mean of a figure over those rows of an experiment that are as wanted; nan if there are none."""
    values = [row[figure] for row in results[name]["rows"] if all(row[key] == value for key, value in wanted.items())]
    return mean(values) if values else float("nan")


def percent(value: float) -> str:
    """A share as a number in percent, without the sign.

    >>> percent(0.4637)
    '46.4'
    """
    return f"{100 * value:.1f}"


def has_scale(results: Results) -> bool:
    """Whether the record holds times at the papers' size."""
    return results["history"]["paper_scale"] is not None


def lost_by_rounding(results: Results, stride: int, figure: str) -> float:
    """The share of a figure that goes if RoIPool takes RoIAlign's place."""
    wanted = {"stride": stride, "mask_kind": "sigmoid"}
    pool, align = (averaged(results, "mask_rcnn_ablation", figure, pooling=way, **wanted) for way in ("pool", "align"))
    return 1 - pool / align
