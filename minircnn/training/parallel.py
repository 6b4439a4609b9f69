"""One training in several processes, each with a part of every batch: ``torchrun --nproc-per-node 2 -m minircnn …``.

torchrun starts the same program several times and tells each process its number. The processes go through the same
code, meet where something is averaged over them, and are ended by torchrun when one of them fails. Without torchrun
there is one process, and everything here does next to nothing.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

T = TypeVar("T")

# How long a process waits for another one. The main process may paint pictures for hours while others wait for it, and
# nobody needs this limit to learn of a failure: torchrun ends all processes when one has failed.
_PATIENCE = timedelta(days=2)
_NUMBERS = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_PORT")  # of torchrun's environment variables


@contextmanager
def processes(device: str | torch.device = "cpu") -> Iterator[torch.device]:
    """Joins the processes that torchrun has started, if it has, and leaves them at the end.

    Args:
        device: where the model is to be: "cpu", or "cuda", of which each process takes a GPU of its own. One process
            takes any.

    Yields:
        The device of this process.

    Raises:
        ValueError: several processes on another device, or more of them than GPUs; or torchrun's variables make no
            sense.
        ConnectionAbortedError: another process has ended.
    """
    device = torch.device(device)
    if not _several():
        yield device
        return
    device = _own_device(device)
    # DistributedDataParallel imports this module, whose functions take the group that there is at that moment as their
    # default and so keep it. A group that outlives its destruction can abort the process at its end (seen with gloo).
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
            f"process {os.environ['RANK']}: another process has ended, perhaps for lack of memory; --resume goes on "
            "from the last checkpoint"
        ) from error
    finally:
        # NCCL says goodbye together: after an error here the others would not answer. The end of the process will do.
        if not (failed and device.type == "cuda"):
            dist.destroy_process_group()


def _several() -> bool:
    """Whether torchrun has started several processes; half of its variables would let each train as if it were alone.

    Raises:
        ValueError: some of the variables are missing, or no such numbers.
    """
    values = {name: os.environ.get(name, "") for name in (*_NUMBERS, "MASTER_ADDR")}
    if values["WORLD_SIZE"] == "1" or not any(values[name] for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK")):
        return False
    wrong = [name for name, value in values.items() if not value or (name in _NUMBERS and not value.isdecimal())]
    if not wrong and int(values["RANK"]) >= int(values["WORLD_SIZE"]):
        wrong = ["RANK"]
    if wrong:
        raise ValueError(
            f"{', '.join(wrong)}: missing or wrong among the environment variables by which torchrun numbers processes "
            f"({', '.join(f'{name}={value}' for name, value in values.items() if value)}); start with torchrun, or "
            "unset them"
        )
    return True


def _own_device(device: torch.device) -> torch.device:
    if device.type == "cpu":
        return device
    if device.type != "cuda":
        raise ValueError(f'several processes train on the device "cpu" or "cuda", not on "{device}"; start only one')
    number, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if number >= gpus:
        raise ValueError(
            f"each process needs a GPU of its own, but there are {gpus} for process {number}; "
            f"start at most {max(gpus, 1)} (torchrun --nproc-per-node), or train on the cpu"
        )
    torch.cuda.set_device(number)
    return torch.device("cuda", number)


def world_size() -> int:
    """The number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this process, counted from 0."""
    return dist.get_rank() if world_size() > 1 else 0


def is_main() -> bool:
    """Whether this is the process that writes files and talks to people."""
    return rank() == 0


def share(items: Sequence[T]) -> list[T]:
    """This process's part of a batch that all processes know: the first has the first part, and so on.

    >>> share([3, 1, 4])  # one process has it all
    [3, 1, 4]

    Args:
        items: the whole batch, the same in all processes.

    Raises:
        ValueError: it does not divide into equal parts.
    """
    each, left = divmod(len(items), world_size())
    if left:
        raise ValueError(
            f"a batch of {len(items)} does not divide into equal parts for {world_size()} processes; "
            f"choose a batch size that is a multiple of {world_size()}, or another number of processes"
        )
    return list(items[rank() * each : (rank() + 1) * each])


@contextmanager
def main_first() -> Iterator[None]:
    """The main process does the work first; then the others do it, and find what it has left in the cache.

    Raises:
        ConnectionAbortedError: in the others, if the work has failed in the main process.
    """
    if not is_main():
        _hear_from_main()
        yield
        return
    done = False
    try:
        yield
        done = True
    finally:
        _tell_others(done, None)


def from_main(work: Callable[[], T]) -> T:
    """Does something in the main process alone.

    Args:
        work: gives what can be pickled.

    Returns:
        What it gives, in all processes.

    Raises:
        ConnectionAbortedError: in the others, if the work has failed in the main process.
    """
    if not is_main():
        return _hear_from_main()
    done, result = False, None
    try:
        result = work()
        done = True
    finally:
        _tell_others(done, result)
    return result


def _tell_others(done: bool, result: object) -> None:
    """Also of a failure, or they would wait for ever."""
    if world_size() > 1:
        dist.broadcast_object_list([done, result])


def _hear_from_main() -> object:
    heard = [False, None]
    dist.broadcast_object_list(heard)
    done, result = heard
    if not done:
        raise ConnectionAbortedError(f"process {rank()}: the main process has failed; its own message says why")
    return result


def wait_for_all() -> None:
    """Goes on when all processes have come here."""
    if world_size() > 1:
        dist.barrier()


class _Losses(nn.Module):
    """The losses as a module that holds the model: what PyTorch needs in order to average gradients."""

    def __init__(self, model: nn.Module, losses: Callable[[int], dict[str, Tensor]]) -> None:
        super().__init__()
        self.model = model
        self.losses = losses

    def forward(self, iteration: int) -> dict[str, Tensor]:
        return self.losses(iteration)


def with_average_gradients(
    model: nn.Module, losses: Callable[[int], dict[str, Tensor]]
) -> Callable[[int], dict[str, Tensor]]:
    """The same losses, but their ``backward`` leaves in every process the mean of all processes' gradients.

    The parameters of the main process go to all others first, and in each iteration its statistics of batch
    normalisation.

    Args:
        model: whose parameters the losses use: in each process all those that need a gradient.
        losses: gives the losses of an iteration.
    """
    if world_size() == 1:
        return losses
    return DistributedDataParallel(_Losses(model, losses))


def over_all_processes(found: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
    """Losses of this process's examples become losses of all processes' examples.

    A loss is the mean over some examples, and the processes may have different numbers of them: the mean of their means
    would give more weight to the examples of a process that has few. ``found.counts``, if there is such a thing, says
    of how many examples each loss is the mean here. A loss that it does not name counts the same in every process.

    Args:
        found: losses by name, the same names in all processes. One of no examples is 0.

    Returns:
        What to call ``backward`` on in this process, so that the mean of all processes' gradients is the gradient of
        the losses' sum over all examples; and each loss over all examples, the same numbers in all processes.
    """
    losses = torch.stack(list(found.values()))  # (L,)
    if world_size() == 1:
        return losses.sum(), dict(zip(found, losses.detach().tolist(), strict=True))
    named = getattr(found, "counts", None) or {}
    counts = torch.tensor([named.get(name, 1) for name in found], dtype=torch.float64, device=losses.device)  # (L,)
    sums = torch.stack([losses.detach() * counts, counts])
    dist.all_reduce(sums)
    means, everybody = sums[0] / sums[1].clamp(min=1), sums[1].clamp(min=1)
    weights = world_size() * counts / everybody  # the mean of the gradients divides by world_size() again
    return (weights.to(losses.dtype) * losses).sum(), dict(zip(found, means.tolist(), strict=True))
