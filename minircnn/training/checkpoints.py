"""What a training leaves in files: its state, from which an interrupted run goes on, and a log of its losses."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Subset

from minircnn.cache import fingerprint
from minircnn.files import naming, sha256, write_atomically
from minircnn.targets import Sample
from minircnn.weights import WeightsError, load_into, read_torch


def describe_data(
    samples: Sequence[Sample], classes: Sequence[str], proposals: Sequence[Tensor] = ()
) -> dict[str, Any]:
    """What a run learns from, by name. No image is read where a data set has ``annotation_sources`` or ``load_target``.

    A :class:`KeptSamples` is what it keeps.
    """
    given = getattr(samples, "samples", samples)
    whole, indices = (given.dataset, given.indices) if isinstance(given, Subset) else (given, None)
    annotations = []
    load = getattr(whole, "load_target", lambda index: whole[index][1])
    for index in range(len(samples)) if indices is None else indices:
        if hasattr(whole, "annotation_sources"):
            sources = whole.annotation_sources(index)
            values = [sha256(source) if isinstance(source, Path) else source for source in sources]
        else:
            values = [part for name, value in sorted(load(index).items()) for part in (name, value)]
        annotations.append(fingerprint(*(value if isinstance(value, Tensor) else repr(value) for value in values)))
    about = {"images": len(samples), "classes": tuple(classes), "annotations": fingerprint(*annotations)}
    return {**about, "proposals": fingerprint(*proposals)} if len(proposals) else about


class Checkpoint:
    """A file for the state of one run.

    ``run`` is what the run depends on, by name: one with another does not go on from the file. ``parts`` are what has a
    state: the model, the optimizer, and the scaler of the gradients. ``totals`` are the losses of each iteration,
    ``history`` is what is known of it by name.
    """

    def __init__(self, path: Path, run: dict[str, Any], **parts: Any) -> None:  # noqa: ANN401
        self.path, self.run, self.parts = path, run, parts
        self.totals, self.history = [], []

    def save(self, iteration: int) -> None:
        """Replace the file, in one step, by the state after so many iterations."""
        state = {name: part.state_dict() for name, part in self.parts.items()}
        buffer = io.BytesIO()
        so_far = {"iteration": iteration, "totals": self.totals, "history": self.history}
        torch.save({**state, **so_far, "settings": self.run}, buffer)
        write_atomically(self.path, buffer.getvalue())

    def load(self) -> int:
        """Put the file's state into the parts, if it is of this run, and return the iteration to go on with.

        Raises:
            WeightsError: the file is damaged, or is of another run. The model is as before.
        """
        try:
            state = read_torch(self.path)
            before = dict(state["settings"])
            if before == self.run:
                self.parts["scaler"].load_state_dict(state["scaler"])
                self.parts["optimizer"].load_state_dict(state["optimizer"])
                load_into(self.parts["model"], state["model"], self.path)  # last, and all or nothing
                self.totals += state["totals"]
                self.history += state["history"]
                return state["iteration"]
        except Exception as error:  # whatever a damaged file makes torch raise
            what = f"damaged, or of another model ({error!r:.200})"
            raise WeightsError(f"{self.path}: {what}; start without resume") from error
        names = [name for name in before | self.run if before.get(name) != self.run.get(name)]
        changed = ", ".join(f"{name} {before.get(name)!s:.200} → {self.run.get(name)!s:.200}" for name in names[:5])
        remedy = "give the same, or start without resume"
        raise WeightsError(f"{self.path}: begun with other settings ({changed}); {remedy}")


class Log:
    """A CSV file of a training, one row for each iteration: ``tail -F`` shows each as soon as it is written.

    Numbers have nine digits, enough for a 32-bit float; what a row lacks is empty. The file is not touched before the
    first row. After ``start`` iterations of a resumed run, rows of later ones are dropped and the new ones follow; with
    0 the file is replaced.
    """

    def __init__(self, path: Path, start: int = 0) -> None:
        self.path, self._start = path, start
        self._columns, self._rows = [], []

    def write(self, row: Mapping[str, float], evaluation: Mapping[str, float]) -> None:
        """Add a row: first the columns that all rows have, then the numbers of an evaluation, or none.

        Raises:
            ValueError: the file that a resumed run goes on with has other columns.
        """
        first = not self._columns
        if first:
            self._columns, self._rows = self._resumed(list(row))
        new = evaluation.keys() - set(self._columns)
        self._columns += [name for name in evaluation if name in new]
        self._rows.append({name: f"{value:.9g}" for name, value in {**row, **evaluation}.items()})
        text = io.StringIO()
        writer = csv.DictWriter(text, self._columns, extrasaction="ignore", lineterminator="\n")
        if first or new:
            writer.writeheader()
            writer.writerows(self._rows)
            write_atomically(self.path, text.getvalue().encode())
        else:
            writer.writerow(self._rows[-1])
            with naming(self.path), self.path.open("a", encoding="utf-8", newline="") as file:
                file.write(text.getvalue())

    def _resumed(self, names: list[str]) -> tuple[list[str], list[dict[str, str]]]:
        """Columns and rows of a file that is gone on with. Its last row may have been cut short: it does not count."""
        if not (self._start and self.path.is_file()):
            return names, []
        with self.path.open(encoding="utf-8", errors="replace", newline="") as file:
            reader = csv.DictReader(file, restval="")
            header, kept = list(reader.fieldnames or names), []
            for row in reader:
                if row[header[0]].isdecimal() and len(kept) < int(row[header[0]]) <= self._start:
                    kept.append(row)
        if header[: len(names)] != names:
            raise ValueError(
                f"{self.path}: has the columns {','.join(header)}, but this run writes {','.join(names)}; give the log "
                "another name, or start without resume"
            )
        return header, kept
