"""One training in several processes, each with a part of every batch: ``torchrun --nproc-per-node 2 -m minircnn …``.

This is DistributedDataParallel in its ordinary sense: each process averages its losses over its own images, and the
gradients are averaged over the processes. Without torchrun there is one process, and everything here does next to
nothing.
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

# How long a process waits for another one. The main process may compute proposals for hours while others wait for it,
# and nobody needs this limit to learn of a failure: torchrun ends all processes when one has failed.
_PATIENCE = timedelta(days=2)


@contextmanager
def processes(device: str | torch.device = "cpu") -> Iterator[torch.device]:
    """Join the processes that torchrun has started, if it has, and leave them at the end.

    Args:
        device: where the model is to be: "cpu", or "cuda", of which each process takes a GPU of its own. One process
            takes any.

    Yields:
        The device of this process.

    Raises:
        ValueError: several processes on another device, or more of them than GPUs.
        ConnectionAbortedError: another process has ended.
    """
    device = torch.device(device)
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield device
        return
    device = _own_device(device)
    # DistributedDataParallel imports this module, whose functions keep the group that there is at that moment; a group
    # that outlives its destruction can abort the process at its end (seen with gloo).
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
    """Whether this is the process that writes files, evaluates and talks to people."""
    return rank() == 0


def share(items: Sequence[T]) -> list[T]:
    """This process's part of a batch that all processes know: the first has the first part, and so on.

    >>> share([3, 1, 4])  # one process has it all
    [3, 1, 4]

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


class _LossesOf(nn.Module):
    """The losses as a module that holds the model, as DistributedDataParallel needs them."""

    def __init__(self, model: nn.Module, losses: Callable[[int], dict[str, Tensor]]) -> None:
        super().__init__()
        self.model, self.losses = model, losses

    def forward(self, iteration: int) -> dict[str, Tensor]:
        return self.losses(iteration)


def with_average_gradients(
    model: nn.Module, losses: Callable[[int], dict[str, Tensor]]
) -> Callable[[int], dict[str, Tensor]]:
    """The same losses, but their ``backward`` leaves in every process the mean of all processes' gradients.

    All processes begin with the parameters of the main one.
    """
    return losses if world_size() == 1 else DistributedDataParallel(_LossesOf(model, losses))


def averages(losses: dict[str, Tensor]) -> dict[str, float]:
    """Each loss averaged over the processes, the same numbers in all of them."""
    means = torch.stack(list(losses.values())).detach()  # (L,)
    if world_size() > 1:
        means = means.double() / world_size()
        dist.all_reduce(means)
    return dict(zip(losses, means.tolist(), strict=True))
