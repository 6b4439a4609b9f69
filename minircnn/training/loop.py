"""The training loop, in one process or several: draw a batch, compute losses, step, and go on after an interruption.

What an iteration does depends on the seed, the iteration and the process alone, since the loop seeds torch before each.
So a run that was interrupted and resumed gives the same losses as one that was not.

``torchrun --nproc-per-node 2 -m minircnn …`` starts several processes, each with a part of every batch. This is
DistributedDataParallel: each averages its losses over its own images, and gradients are averaged over the processes.
"""

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from minircnn.training.checkpoints import Checkpoint, Log
from minircnn.weights import WeightsError

T = TypeVar("T")
Losses = Callable[[int], dict[str, Tensor]]  # of an iteration, by name
_OVERFLOWS = 20  # steps in a row that mixed precision may skip; while it finds its scale it skips a few
_GradScaler = getattr(torch.amp, "GradScaler", torch.cuda.amp.GradScaler)  # the second until PyTorch 2.2
# How long a process waits for another, which may compute proposals for hours. After a failure torchrun ends them all.
_PATIENCE = timedelta(days=2)


@dataclass(frozen=True)
class LoopSettings:
    """How long and how fast to learn."""

    iterations: int  # batches to learn from
    learning_rate: float  # at its highest
    warmup: float = 0.1  # share of the iterations in which the learning rate rises from 0
    weight_decay: float = 0.01  # of AdamW
    clip: float = 5.0  # gradients are clipped to this norm, over all parameters together
    seed: int = 0  # of everything that is drawn at random
    # The learning rate falls to 0 ("cosine") or, after three quarters, to a tenth ("step"; Fast R-CNN, section 2.3).
    schedule: str = "cosine"
    mixed_precision: bool = False  # losses in 16 bits where that is safe, which an NVIDIA GPU computes faster

    def __post_init__(self) -> None:
        if self.iterations < 1 or not 0 <= self.warmup < 1 or not self.learning_rate > 0:
            rule = "iterations must be at least 1, warmup in [0, 1), learning_rate positive"
            raise ValueError(f"{rule}, but this is {self}")
        if self.schedule not in ("cosine", "step"):
            raise ValueError(f'schedule must be "cosine" or "step", not {self.schedule!r}')

    def rate(self, iteration: int) -> float:
        """The learning rate of an iteration, counted from 0, as a share of the highest."""
        rising = self.warmup * self.iterations
        if iteration < rising:
            return (iteration + 1) / (rising + 1)
        if self.schedule == "step":
            return 0.1 if iteration >= 0.75 * self.iterations else 1.0
        return 0.5 * (1 + math.cos(math.pi * (iteration - rising) / (self.iterations - rising)))


def fit(
    model: nn.Module,
    losses: Losses,
    settings: LoopSettings,
    *,
    groups: Sequence[dict[str, Any]] | None = None,
    checkpoint: Path | None = None,
    checkpoint_every: int = 200,
    resume: bool = False,
    replaces: Path | None = None,
    about: Mapping[str, Any] | None = None,
    log: Path | None = None,
    evaluate: Callable[[Any], dict[str, float]] | None = None,
    evaluate_every: int | None = None,
    watch: Callable[[nn.Module, list[dict[str, float]]], None] | None = None,
    quiet: bool | None = None,
) -> list[dict[str, float]]:
    """Train a model with AdamW.

    Args:
        model: is changed, and in training mode afterwards.
        losses: gives the losses of iteration i by name; their sum is minimized. It draws with torch's global generator,
            or from i. Each process calls it, for images of its own.
        settings: how long and how fast.
        groups: of parameters, each with a factor ``"lr_mult"`` of the learning rate; by default all with 1.
        checkpoint: a file for the state of the run, written every ``checkpoint_every`` iterations and at the end.
        checkpoint_every: see there.
        resume: go on where ``checkpoint`` stands, if there is such a file.
        replaces: the file that the caller will write. One that is there is kept if the run did not help.
        about: what else the run depends on, such as its data, by name. A checkpoint of another run is refused.
        log: a CSV file; see :class:`minircnn.training.Log`.
        evaluate: gives numbers by name for the model in evaluation mode; of several processes the main one calls it.
        evaluate_every: iterations between two evaluations; the last is at the end. None: no other.
        watch: is given the model and the losses of all iterations so far, with the numbers of evaluations, after each
            iteration; of several processes the main one calls it.
        quiet: no progress bar. None: none where the output is not a terminal.

    Returns:
        The losses of each iteration of this call, averaged over the processes, with the numbers of an evaluation.

    Raises:
        ValueError: settings that this model's device does not have, two numbers of one name, or a log of another run.
        WeightsError: the checkpoint is damaged or of another run, or what would be replaced is kept.
        FloatingPointError: a loss or its gradient is not finite. The parameters are as before that iteration.
    """
    if checkpoint_every < 1 or (evaluate_every is not None and evaluate_every < 1):
        raise ValueError(f"must be at least 1: checkpoint_every {checkpoint_every}, evaluate_every {evaluate_every}")
    step = _Step(model, losses, settings, groups or [{"params": list(model.parameters()), "lr_mult": 1.0}])
    run = {**asdict(settings), **(about or {})}
    parts = {"model": model, "optimizer": step.optimizer, "scaler": step.scaler}
    state = Checkpoint(checkpoint, run, **parts) if checkpoint else None
    start = state.load() if state and resume and checkpoint.is_file() else 0
    replaced = replaces is not None and replaces.exists()  # asked now: later another process may have written it
    totals, history = (state.totals, state.history) if state else ([], [])
    table, shown = Log(log, start) if log else None, {}
    bar = tqdm(total=settings.iterations, initial=start, disable=quiet if is_main() else True, unit="batch")
    model.train()
    with bar:
        for iteration in range(start, settings.iterations):
            rate, found = step(iteration)
            done, last, numbers = iteration + 1, iteration + 1 == settings.iterations, {}
            if evaluate and is_main() and (last or (evaluate_every and done % evaluate_every == 0)):
                numbers = _evaluated(model, evaluate, found)
            history.append({**found, **numbers})
            totals.append(sum(found.values()))
            bar.update()
            shown |= {name: f"{value:.3f}" for name, value in history[-1].items()}
            bar.set_postfix(shown, refresh=False)
            if table and is_main():  # before the checkpoint, so that the log has all that a checkpoint has behind it
                row = {"iteration": done, "learning_rate": rate, "total": totals[-1], **found}
                table.write(row, numbers)
            if watch and is_main():
                watch(model, history)
            if state and is_main() and (last or done % checkpoint_every == 0):
                state.save(done)
    wait_for_all()  # nobody leaves, and perhaps removes the checkpoint, while the main process still writes it
    if replaced:
        _check_better(totals, replaces)
    return history[start:]


def _check_better(totals: list[float], path: Path) -> None:
    few = max(len(totals) // 10, 1)
    first, last = (sum(part) / few for part in (totals[:few], totals[-few:]))
    if not last < first:
        raise WeightsError(
            f"{path}: kept, because the new training ended no better than it began (loss {first:.4g} over the first "
            f"{few} iterations, {last:.4g} over the last); try a lower learning rate or more iterations. To have what "
            "it learned all the same, move the file away and resume"
        )


class _Step:
    """One iteration: losses, backward pass, clipped gradients, AdamW; the scaler does nothing in 32 bits."""

    def __init__(
        self, model: nn.Module, losses: Losses, settings: LoopSettings, groups: Sequence[dict[str, Any]]
    ) -> None:
        self.settings, self.overflows = settings, 0
        groups = [{**group, "lr": settings.learning_rate * group["lr_mult"]} for group in groups]
        self.optimizer = torch.optim.AdamW(groups, weight_decay=settings.weight_decay)
        self.parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.precision, self.scaler = _precision(settings.mixed_precision, self.parameters[0].device)
        self.losses = losses if world_size() == 1 else DistributedDataParallel(_Module(model, losses))

    def __call__(self, iteration: int) -> tuple[float, dict[str, float]]:
        """The learning rate, and the losses before the step."""
        settings = self.settings
        torch.manual_seed(settings.seed * 1_000_003 + iteration + rank() * 1_000_000_007)
        rate = settings.learning_rate * settings.rate(iteration)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["lr_mult"]
        with self.precision:
            own = self.losses(iteration)
        found = averages(own)
        self.optimizer.zero_grad()
        self.scaler.scale(sum(own.values())).backward()
        self.scaler.unscale_(self.optimizer)
        norm = float(nn.utils.clip_grad_norm_(self.parameters, settings.clip))
        self.overflows = 0 if math.isfinite(norm) else self.overflows + 1
        if not math.isfinite(sum(found.values())) or self.overflows >= (_OVERFLOWS if settings.mixed_precision else 1):
            what = f"{found}, gradient of norm {norm:.3g}"
            raise FloatingPointError(f"iteration {iteration}: {what}: try a lower learning rate")
        self.scaler.step(self.optimizer)  # without mixed precision: optimizer.step()
        self.scaler.update()
        return rate, found


class _Module(nn.Module):
    """The losses as a module that holds the model, as DistributedDataParallel needs them."""

    def __init__(self, model: nn.Module, losses: Losses) -> None:
        super().__init__()
        self.model, self.forward = model, losses


def _precision(mixed: bool, device: torch.device) -> tuple[AbstractContextManager, "torch.amp.GradScaler"]:
    """Where losses are computed, and what keeps gradients in the range of 16 bits; both do nothing unless ``mixed``."""
    if mixed and device.type != "cuda":
        remedy = "move it to cuda, or leave it out"
        raise ValueError(f"mixed_precision needs an NVIDIA GPU, but the model is on {device}; {remedy}")
    return torch.autocast("cuda", torch.float16) if mixed else nullcontext(), _GradScaler(enabled=mixed)


def _evaluated(
    model: nn.Module, evaluate: Callable[[Any], dict[str, float]], losses: dict[str, float]
) -> dict[str, float]:
    model.eval()
    try:
        with torch.no_grad():
            numbers = {name: float(value) for name, value in evaluate(model).items()}
    finally:
        model.train()
    if twice := losses.keys() & numbers.keys():
        raise ValueError(f"evaluate gives a number of the name of a loss: {', '.join(twice)}; rename one")
    return numbers


@contextmanager
def processes(device: str | torch.device = "cpu") -> Iterator[torch.device]:
    """Join the processes that torchrun has started, if it has, and leave them at the end.

    ``device`` is where the model is to be: "cpu", or "cuda", of which each process takes, and is given, a GPU of its
    own. One process takes any.

    Raises:
        ValueError: several processes on another device, or more of them than GPUs.
        ConnectionAbortedError: another process has ended.
    """
    device = torch.device(device)
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield device
        return
    device = _own_device(device)
    # DistributedDataParallel imports this; imported after the group is there, it would keep the group alive beyond its
    # destruction, which can abort the process at its end (seen with gloo).
    from torch.distributed.nn import functional  # noqa: F401

    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_PATIENCE)
    failed = True
    try:
        yield device
        failed = False
    except RuntimeError as error:
        if "gloo" not in str(error) and not isinstance(error, dist.DistBackendError):
            raise
        raise ConnectionAbortedError(
            f"process {os.environ['RANK']}: another process has ended; its own message says why, unless it was killed, "
            "perhaps for lack of memory; --resume goes on from the last checkpoint"
        ) from error
    finally:
        # NCCL closes the group together: after an error here the others would not answer. The end of the process will.
        if not (failed and device.type == "cuda"):
            dist.destroy_process_group()


def _own_device(device: torch.device) -> torch.device:
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f'several processes train on the device "cpu" or "cuda", not on "{device}"; start only one')
    if device.type == "cuda":
        number, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if number >= gpus:
            what = f"each process needs a GPU of its own, but there are {gpus} for process {number}"
            remedy = f"start at most {max(gpus, 1)} (torchrun --nproc-per-node), or train on the cpu"
            raise ValueError(f"{what}; {remedy}")
        device = torch.device("cuda", number)
        torch.cuda.set_device(device)
    return device


def world_size() -> int:
    """The number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this process, counted from 0."""
    return dist.get_rank() if world_size() > 1 else 0


def is_main() -> bool:
    """Whether this is the process that writes files, evaluates and talks to people."""
    return rank() == 0


def share(items: Sequence[T]) -> list[T]:
    """This process's part of a batch that all processes know, which must divide into equal parts, in their order.

    >>> share([3, 1, 4])  # one process has it all
    [3, 1, 4]
    """
    each, left = divmod(len(items), world_size())
    if left:
        remedy = f"choose a batch size that is a multiple of {world_size()}, or another number of processes"
        what = f"a batch of {len(items)} does not divide into equal parts for {world_size()} processes"
        raise ValueError(f"{what}; {remedy}")
    return list(items[rank() * each : (rank() + 1) * each])


def averages(losses: dict[str, Tensor]) -> dict[str, float]:
    """Each loss averaged over the processes, the same numbers in all of them."""
    means = torch.stack(list(losses.values())).detach()  # (L,)
    if world_size() > 1:
        means = means.double() / world_size()
        dist.all_reduce(means)
    return dict(zip(losses, means.tolist(), strict=True))


def wait_for_all() -> None:
    """Go on when all processes have come here."""
    if world_size() > 1:
        dist.barrier()


@contextmanager
def main_first() -> Iterator[None]:
    """The main process does the work first; then the others do it, and find what it has left in the cache."""
    if not is_main():
        wait_for_all()
    yield
    if is_main():
        wait_for_all()
