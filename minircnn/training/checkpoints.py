"""The state of an unfinished run in a file, from which it goes on as if it had not been interrupted."""

import io
from pathlib import Path
from typing import Any

import torch
from torch import nn

from minircnn.files import write_atomically
from minircnn.weights import WeightsError, load_into, read_torch


class Checkpoint:
    """A file for the state of one run.

    Args:
        path: of the file.
        model: what learns.
        optimiser: its optimiser, which remembers the gradients of iterations before.
        scaler: of the gradients, with what it has learned about them; empty without mixed precision.
        run: what the run depends on: numbers and words by name. A run with another one does not go on from the file.
    """

    def __init__(
        self,
        path: Path,
        model: nn.Module,
        optimiser: torch.optim.Optimizer,
        scaler: "torch.amp.GradScaler",  # in quotes: its name only since PyTorch 2.3
        run: dict[str, Any],
    ) -> None:
        self.path, self.run = path, run
        self._model, self._optimiser, self._scaler = model, optimiser, scaler

    def save(self, iteration: int) -> None:
        """Replaces the file, in one step, by the state after so many iterations."""
        state = {
            "model": self._model.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "scaler": self._scaler.state_dict(),
        }
        buffer = io.BytesIO()
        torch.save({"iteration": iteration, "settings": self.run, **state}, buffer)
        write_atomically(self.path, buffer.getvalue())

    def load(self) -> int:
        """Puts the file's state into model, optimiser and scaler, if it is of this run.

        Returns:
            The iteration to go on with, counted from 0.

        Raises:
            WeightsError: the file is damaged, or of another run. The model is as before.
        """
        path = self.path
        try:
            state = read_torch(path)
            before, iteration = dict(state["settings"]), int(state["iteration"])
            if before == self.run:
                self._scaler.load_state_dict(state["scaler"])
                self._optimiser.load_state_dict(state["optimiser"])
                load_into(self._model, state["model"], path)  # last, and all or nothing
                return iteration
        except Exception as error:  # whatever a damaged file makes torch raise
            raise WeightsError(
                f"{path}: damaged, or of another model ({error!r:.200}); start without resume"
            ) from error
        names = [name for name in before | self.run if before.get(name) != self.run.get(name)]
        changed = ", ".join(f"{name} {before.get(name)} → {self.run.get(name)}" for name in names)
        raise WeightsError(f"{path}: begun with other settings ({changed}); give the same, or start without resume")
