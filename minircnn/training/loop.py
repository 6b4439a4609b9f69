"""The training loop: draw a batch, compute losses, step, and be able to go on after an interruption.

What an iteration does depends on the seed and on the number of the iteration alone: the loop seeds torch anew before
each. So a run that was interrupted and taken up again gives the same losses as one that was not.
"""

import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from minircnn.files import write_atomically
from minircnn.weights import WeightsError, load_into


@dataclass(frozen=True)
class LoopSettings:
    """How long and how fast to learn.

    Attributes:
        iterations: batches to learn from.
        learning_rate: at its highest.
        warmup: share of the iterations in which the learning rate rises from 0. Then it falls to 0 like a cosine.
        weight_decay: of AdamW.
        clip: the longest gradient, over all parameters together; longer ones are shortened to it.
        seed: of everything that is drawn at random.
    """

    iterations: int
    learning_rate: float
    warmup: float = 0.1
    weight_decay: float = 0.01
    clip: float = 5.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuses numbers that mean nothing."""
        if self.iterations < 1 or not 0 <= self.warmup < 1 or not self.learning_rate > 0:
            raise ValueError(
                f"iterations must be at least 1, warmup in [0, 1), learning_rate positive, but this is {self}"
            )

    def rate(self, iteration: int) -> float:
        """The learning rate of an iteration, counted from 0, as a share of the highest."""
        rising = self.warmup * self.iterations
        if iteration < rising:
            return (iteration + 1) / (rising + 1)
        return 0.5 * (1 + math.cos(math.pi * (iteration - rising) / (self.iterations - rising)))


def fit(
    model: nn.Module,
    losses: Callable[[int], dict[str, Tensor]],
    settings: LoopSettings,
    *,
    groups: Sequence[dict[str, Any]] | None = None,
    checkpoint: Path | None = None,
    checkpoint_every: int = 200,
    resume: bool = False,
    about: Mapping[str, Any] | None = None,
    quiet: bool | None = None,
) -> list[dict[str, float]]:
    """Trains a model.

    Args:
        model: is put into training mode and changed.
        losses: gives the losses of iteration i by name, from a batch that it draws with torch's global generator (or
            from i); their sum is made smaller.
        settings: how long and how fast.
        groups: of parameters, each with a factor ``"scale"`` of the learning rate; by default all with 1.
        checkpoint: a file in which the state is kept from time to time, and at the end. None: none is kept.
        checkpoint_every: iterations between two.
        resume: go on where ``checkpoint`` stands, if there is such a file.
        about: what else the run depends on, such as its data: numbers and words by name. It is kept in the checkpoint,
            and a run with another one does not go on from there.
        quiet: no progress bar. None: none where the output is not a terminal.

    Returns:
        The losses of each iteration of this call, as numbers.

    Raises:
        WeightsError: the checkpoint is damaged or of a run with other settings.
        FloatingPointError: a loss or its gradient is not finite. The parameters are as before that iteration.
    """
    groups = groups or [{"params": list(model.parameters()), "scale": 1.0}]
    optimiser = torch.optim.AdamW(
        [{**group, "lr": settings.learning_rate * group["scale"]} for group in groups],
        weight_decay=settings.weight_decay,
    )
    parameters = [p for group in groups for p in group["params"]]
    run = {**asdict(settings), **(about or {})}
    start = _load(checkpoint, model, optimiser, run) if resume and checkpoint and checkpoint.is_file() else 0
    history = []
    model.train()
    with tqdm(total=settings.iterations, initial=start, disable=quiet, unit="batch") as bar:
        for iteration in range(start, settings.iterations):
            torch.manual_seed(settings.seed * 1_000_003 + iteration)
            for group in optimiser.param_groups:
                group["lr"] = settings.learning_rate * group["scale"] * settings.rate(iteration)
            found = losses(iteration)
            total = torch.stack(list(found.values())).sum()
            history.append({name: float(loss.detach()) for name, loss in found.items()})
            optimiser.zero_grad()
            total.backward()
            length = nn.utils.clip_grad_norm_(parameters, settings.clip)
            if not math.isfinite(float(total.detach())) or not math.isfinite(float(length)):
                what = f"{history[-1]}, gradient of length {float(length):.3g}"
                raise FloatingPointError(f"iteration {iteration}: {what}: try a lower learning rate")
            optimiser.step()
            bar.update()
            bar.set_postfix({name: f"{value:.3f}" for name, value in history[-1].items()}, refresh=False)
            if checkpoint and ((iteration + 1) % checkpoint_every == 0 or iteration + 1 == settings.iterations):
                _save(checkpoint, iteration + 1, model, optimiser, run)
    return history


def _save(path: Path, iteration: int, model: nn.Module, optimiser: torch.optim.Optimizer, run: dict[str, Any]) -> None:
    buffer = io.BytesIO()
    state = {"model": model.state_dict(), "optimiser": optimiser.state_dict()}
    torch.save({"iteration": iteration, "settings": run, **state}, buffer)
    write_atomically(path, buffer.getvalue())


def _load(path: Path, model: nn.Module, optimiser: torch.optim.Optimizer, run: dict[str, Any]) -> int:
    """Puts a checkpoint into model and optimiser, if it is of this run; returns the iteration to go on with."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        before, iteration = dict(state["settings"]), int(state["iteration"])
        if before == run:
            optimiser.load_state_dict(state["optimiser"])
            load_into(model, state["model"], path)  # last, and all or nothing: after an error the model is as before
            return iteration
    except Exception as error:  # whatever a damaged file makes torch raise
        raise WeightsError(f"{path}: damaged, or of another model ({error!r:.200}); start without resume") from error
    names = [name for name in before | run if before.get(name) != run.get(name)]
    changed = ", ".join(f"{name} {before.get(name)} → {run.get(name)}" for name in names)
    raise WeightsError(f"{path}: begun with other settings ({changed}); give the same, or start without resume")
