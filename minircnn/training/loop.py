"""The training loop: draw a batch, compute losses, step, and be able to go on after an interruption.

What an iteration does depends on the seed and on the number of the iteration alone: the loop seeds torch anew before
each. So a run that was interrupted and taken up again gives the same losses as one that was not.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from minircnn.training.checkpoints import Checkpoint
from minircnn.training.log import Log
from minircnn.training.parallel import averages, is_main, rank, wait_for_all, with_average_gradients
from minircnn.weights import WeightsError

_OVERFLOWS = 20  # steps in a row that mixed precision may skip; while it finds its scale it skips a few

_GradScaler = getattr(torch.amp, "GradScaler", torch.cuda.amp.GradScaler)  # the second until PyTorch 2.2


@dataclass(frozen=True)
class LoopSettings:
    """How long and how fast to learn.

    Attributes:
        iterations: batches to learn from.
        learning_rate: at its highest.
        warmup: share of the iterations in which the learning rate rises from 0.
        weight_decay: of AdamW.
        clip: the longest gradient, over all parameters together; longer ones are shortened to it.
        seed: of everything that is drawn at random.
        schedule: how the learning rate falls after the warm-up: "cosine", to 0 in the end, or "step", at the
            milestones. Fast R-CNN (section 2.3) takes 30k iterations at 0.001 and then 10k at 0.0001: a step at 0.75.
        milestones: shares of the iterations after each of which the "step" schedule divides the rate by 10.
        mixed_precision: compute the losses in 16 bits where that does no harm, which an NVIDIA GPU does faster.
    """

    iterations: int
    learning_rate: float
    warmup: float = 0.1
    weight_decay: float = 0.01
    clip: float = 5.0
    seed: int = 0
    schedule: str = "cosine"
    milestones: tuple[float, ...] = (0.75,)
    mixed_precision: bool = False

    def __post_init__(self) -> None:
        """Refuses numbers that mean nothing."""
        if self.iterations < 1 or not 0 <= self.warmup < 1 or not self.learning_rate > 0:
            raise ValueError(
                f"iterations must be at least 1, warmup in [0, 1), learning_rate positive, but this is {self}"
            )
        if self.schedule not in ("cosine", "step"):
            raise ValueError(f'schedule must be "cosine" or "step", not {self.schedule!r}')
        ascending = list(self.milestones) == sorted(set(self.milestones))
        if not ascending or not all(0 < share < 1 for share in self.milestones):
            raise ValueError(
                f"milestones must be shares of the iterations in (0, 1), each larger than the one before, "
                f"such as (0.5, 0.75), not {self.milestones}"
            )

    def rate(self, iteration: int) -> float:
        """The learning rate of an iteration, counted from 0, as a share of the highest."""
        rising = self.warmup * self.iterations
        if iteration < rising:
            return (iteration + 1) / (rising + 1)
        if self.schedule == "step":
            return 0.1 ** sum(iteration >= round(share * self.iterations) for share in self.milestones)
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
    replaces: Path | None = None,
    about: Mapping[str, Any] | None = None,
    log: Path | None = None,
    evaluate: Callable[[], dict[str, float]] | None = None,
    evaluate_every: int | None = None,
    quiet: bool | None = None,
) -> list[dict[str, float]]:
    """Trains a model, alone or in each of several processes (see :mod:`minircnn.training.parallel`).

    Under several processes ``losses`` is called in each of them, on images of its own, and the gradients are averaged,
    as DistributedDataParallel does. torch's global generator is seeded by seed, iteration and process.

    Args:
        model: is put into training mode and changed.
        losses: gives the losses of iteration i by name, from a batch that it draws with torch's global generator (or
            from i); their sum is made smaller.
        settings: how long and how fast.
        groups: of parameters, each with a factor ``"scale"`` of the learning rate; by default all with 1.
        checkpoint: a file in which the state is kept from time to time, and at the end. None: none is kept.
        checkpoint_every: iterations between two.
        resume: go on where ``checkpoint`` stands, if there is such a file.
        replaces: a file that the caller is going to replace by what was learned. If it is there, it is worth more than
            a training that ended no better than it began: whose sum of losses, as a mean over the last tenth of the
            iterations (at least one), is not below that over the first tenth.
        about: what else the run depends on, such as its data: numbers and words by name. It is kept in the checkpoint,
            and a run with another one does not go on from there.
        log: a CSV file that gets a row for each iteration; see :class:`minircnn.training.log.Log`.
        evaluate: measures the model, which is in evaluation mode then, without gradients, and gives numbers by name.
            Of several processes the main one calls it.
        evaluate_every: iterations between two evaluations; the last is at the end. None: no other.
        quiet: no progress bar. None: none where the output is not a terminal.

    Returns:
        The losses of each iteration of this call, averaged over the processes, and in the main process the numbers of
        an evaluation after it.

    Raises:
        ValueError: settings that this model's device does not have, two numbers of one name, or a log of another run.
        WeightsError: the checkpoint is damaged or of a run with other settings; or what would be replaced is to stay.
        FloatingPointError: a loss or its gradient is not finite. The parameters are as before that iteration.
    """
    if checkpoint_every < 1 or (evaluate_every is not None and evaluate_every < 1):
        raise ValueError(f"must be at least 1: checkpoint_every {checkpoint_every}, evaluate_every {evaluate_every}")
    optimiser = _optimiser(model, groups, settings)
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    precision, scaler = _precision(settings.mixed_precision, parameters[0].device)
    run = {**asdict(settings), **(about or {})}
    state = Checkpoint(checkpoint, model, optimiser, scaler, run) if checkpoint else None
    replaced = replaces is not None and replaces.exists()  # asked now: in the end another process may have written it
    start = state.load() if state and resume and checkpoint.is_file() else 0
    losses = with_average_gradients(model, losses)
    record = _Record(
        model=model,
        evaluate=evaluate,
        evaluate_every=evaluate_every or settings.iterations,
        log=Log(log, start, evaluated=evaluate is not None) if log else None,
        checkpoint=state,
        checkpoint_every=checkpoint_every,
        totals=state.totals if state else [],
        bar=tqdm(total=settings.iterations, initial=start, disable=quiet if is_main() else True, unit="batch"),
    )
    overflows, patience = 0, _OVERFLOWS if settings.mixed_precision else 1
    model.train()
    with record.bar:
        for iteration in range(start, settings.iterations):
            torch.manual_seed(seed_of(settings.seed, iteration))
            rate = settings.learning_rate * settings.rate(iteration)
            for group in optimiser.param_groups:
                group["lr"] = rate * group["scale"]
            with precision:
                found = averages(own := losses(iteration))
            optimiser.zero_grad()
            scaler.scale(sum(own.values())).backward()
            scaler.unscale_(optimiser)
            length = float(nn.utils.clip_grad_norm_(parameters, settings.clip))
            overflows = 0 if math.isfinite(length) else overflows + 1
            if not math.isfinite(sum(found.values())) or overflows >= patience:
                what = f"{found}, gradient of length {length:.3g}"
                raise FloatingPointError(f"iteration {iteration}: {what}: try a lower learning rate")
            scaler.step(optimiser)  # without mixed precision: optimiser.step()
            scaler.update()
            record.add(iteration + 1, rate, found)
    wait_for_all()  # nobody leaves, and perhaps removes the checkpoint, while the main process still writes it
    if replaced:
        _check_better(record.totals, replaces)
    return record.history


def seed_of(seed: int, iteration: int) -> int:
    """The seed of torch's global generator in an iteration in this process."""
    return seed * 1_000_003 + iteration + rank() * 1_000_000_007


def _check_better(totals: list[float], path: Path) -> None:
    few = max(len(totals) // 10, 1)
    first, last = (sum(part) / few for part in (totals[:few], totals[-few:]))
    if not last < first:
        raise WeightsError(
            f"{path}: kept, because the new training ended no better than it began (loss {first:.4g} over the first "
            f"{few} iterations, {last:.4g} over the last); try a lower learning rate or more iterations. To have what "
            "it learned all the same, move the file away and resume"
        )


def _optimiser(
    model: nn.Module, groups: Sequence[dict[str, Any]] | None, settings: LoopSettings
) -> torch.optim.Optimizer:
    groups = groups or [{"params": list(model.parameters()), "scale": 1.0}]
    return torch.optim.AdamW(
        [{**group, "lr": settings.learning_rate * group["scale"]} for group in groups],
        weight_decay=settings.weight_decay,
    )


def _precision(mixed: bool, device: torch.device) -> tuple[AbstractContextManager, "torch.amp.GradScaler"]:
    """In what to compute losses, and what keeps gradients in the range of 16 bits; both do nothing unless ``mixed``."""
    if mixed and device.type != "cuda":
        raise ValueError(
            f"mixed_precision needs an NVIDIA GPU, but the model is on {device}; move it to cuda, or leave it out"
        )
    precision = torch.autocast("cuda", torch.float16) if mixed else nullcontext()
    return precision, _GradScaler(enabled=mixed)


@dataclass
class _Record:
    """What a run tells of itself, and leaves in files, after each iteration."""

    model: nn.Module
    evaluate: Callable[[], dict[str, float]] | None
    evaluate_every: int
    log: Log | None
    checkpoint: Checkpoint | None
    checkpoint_every: int
    totals: list[float]
    bar: tqdm

    def __post_init__(self) -> None:
        """Nothing is told yet."""
        self.history: list[dict[str, float]] = []
        self._shown: dict[str, float] = {}

    def add(self, iteration: int, rate: float, losses: dict[str, float]) -> None:
        """After so many iterations, the last with this learning rate and these losses."""
        numbers = {}
        if self.evaluate and is_main() and self._due(iteration, self.evaluate_every):
            numbers = self._evaluation()
            if twice := losses.keys() & numbers.keys():
                raise ValueError(f"evaluate gives a number of the name of a loss: {', '.join(twice)}; rename one")
        self.history.append({**losses, **numbers})
        self.totals.append(sum(losses.values()))
        self._shown.update(self.history[-1])
        self.bar.update()
        self.bar.set_postfix({name: f"{value:.3f}" for name, value in self._shown.items()}, refresh=False)
        if not is_main():
            return
        if self.log:  # before the checkpoint: what the checkpoint has behind it is in the log
            self.log.write(iteration, rate, losses, numbers)
        if self.checkpoint and self._due(iteration, self.checkpoint_every):
            self.checkpoint.save(iteration)

    def _due(self, iteration: int, every: int) -> bool:
        return iteration % every == 0 or iteration == self.bar.total

    def _evaluation(self) -> dict[str, float]:
        self.model.eval()
        try:
            with torch.no_grad():
                return {name: float(value) for name, value in self.evaluate().items()}
        finally:
            self.model.train()
