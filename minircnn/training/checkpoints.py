"""What a training leaves in files: its state, from which an interrupted run goes on, and a log of its losses."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Subset

from minircnn import cache
from minircnn.cache import fingerprint
from minircnn.files import naming, sha256, write_atomically
from minircnn.weights import WeightsError, load_into, read_torch


def describe_data(
    samples: Sequence[tuple[Tensor, dict[str, Any]]], classes: Sequence[str], proposals: Sequence[Tensor] = ()
) -> dict[str, Any]:
    """What a run learns from, by name, so that it does not go on with something else. No image is read for this.

    A data set with ``annotation_sources`` tells by these what it knows.
    """
    annotations = [fingerprint(*_annotation(samples, index)) for index in range(len(samples))]
    about = {"images": len(samples), "classes": tuple(classes), "annotations": fingerprint(*annotations)}
    return {**about, "proposals": fingerprint(*proposals)} if len(proposals) else about


def _annotation(samples: Any, index: int) -> list[cache.Part]:  # noqa: ANN401 - any sequence of pairs
    if isinstance(samples, Subset):
        return _annotation(samples.dataset, samples.indices[index])
    if hasattr(samples, "annotation_sources"):
        sources = samples.annotation_sources(index)
        return [sha256(source) if isinstance(source, Path) else source for source in sources]
    target = samples.load_target(index) if hasattr(samples, "load_target") else samples[index][1]
    return list(_parts({name: target[name] for name in sorted(target)}))


def _parts(state: Any) -> Iterator[cache.Part]:  # noqa: ANN401 - whatever a checkpoint holds
    """The tensors in nested containers, and all else as text: what their fingerprint is made of."""
    if isinstance(state, Mapping | list | tuple):
        yield f"{len(state)} in {'a mapping' if isinstance(state, Mapping) else 'a sequence'}"
        for part in (one for pair in state.items() for one in pair) if isinstance(state, Mapping) else state:
            yield from _parts(part)
    else:
        yield state if isinstance(state, Tensor) else repr(state)


class Checkpoint:
    """A file for the state of one run, with a fingerprint of itself: what was written is read, or nothing.

    Args:
        path: of the file.
        run: what the run depends on, by name. A run with another one does not go on from the file.
        parts: what has a state: model, optimizer, and the scaler of the gradients.

    Attributes:
        totals: the sum of the losses of each iteration so far.
    """

    def __init__(self, path: Path, run: dict[str, Any], **parts: Any) -> None:  # noqa: ANN401
        self.path, self.run, self.parts = path, run, parts
        self.totals: list[float] = []

    def save(self, iteration: int) -> None:
        """Replace the file, in one step, by the state after so many iterations."""
        state = {"iteration": iteration, "settings": self.run, "totals": self.totals}
        state |= {name: part.state_dict() for name, part in self.parts.items()}
        buffer = io.BytesIO()
        torch.save({**state, "fingerprint": fingerprint(*_parts(state))}, buffer)
        write_atomically(self.path, buffer.getvalue())

    def load(self) -> int:
        """Put the file's state into the parts, if it is of this run, and return the iteration to go on with.

        Raises:
            WeightsError: the file is damaged or was changed, or is of another run. The model is as before.
        """
        path = self.path
        try:
            state = read_torch(path)
            before, stated = dict(state["settings"]), state.pop("fingerprint", None)
            if before == self.run:
                if fingerprint(*_parts(state)) != stated:
                    raise ValueError("not as it was written")
                self.parts["scaler"].load_state_dict(state["scaler"])
                self.parts["optimizer"].load_state_dict(state["optimizer"])
                load_into(self.parts["model"], state["model"], path)  # last, and all or nothing
                self.totals = state["totals"]
                return state["iteration"]
        except Exception as error:  # whatever a damaged file makes torch raise
            raise WeightsError(
                f"{path}: damaged, or of another model ({error!r:.200}); start without resume"
            ) from error
        names = [name for name in before | self.run if before.get(name) != self.run.get(name)]
        texts = (f"{name!s:.80} {before.get(name)!s:.200} → {self.run.get(name)!s:.200}" for name in names[:5])
        changed = ", ".join([*texts, *([f"{len(names) - 5} more"] if len(names) > 5 else [])])
        raise WeightsError(f"{path}: begun with other settings ({changed}); give the same, or start without resume")


class Log:
    """A CSV file of a training, one row for each iteration: ``tail -F`` shows each as soon as it is written.

    Numbers have nine digits, enough for a 32-bit float. What a row lacks, such as the numbers of an evaluation, is
    empty.

    Args:
        path: of the file. It is not touched before the first row.
        start: iterations that a resumed run has behind it: rows of later ones are dropped, and the new ones follow.
            With 0 the file is replaced.
    """

    def __init__(self, path: Path, start: int = 0) -> None:
        self.path, self._start = path, start
        self._columns: list[str] = []  # as in the file, once it is ours

    def write(self, row: Mapping[str, float], losses: Mapping[str, float], evaluation: Mapping[str, float]) -> None:
        """Add a row: the first columns with ``"iteration"``, counted from 1; losses; numbers of an evaluation, or none.

        Raises:
            ValueError: the file that a resumed run goes on with has other columns, or is damaged.
        """
        cells = {name: f"{value:.9g}" for name, value in {**row, **losses, **evaluation}.items()}
        ours = bool(self._columns)
        before, rows = (self._columns, []) if ours else self._resumed([*row, *losses])
        columns = list(dict.fromkeys([*before, *evaluation]))
        if ours and columns == before:
            with naming(self.path), self.path.open("a", encoding="utf-8", newline="") as file:
                csv.DictWriter(file, columns, lineterminator="\n").writerow(cells)
            return
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows([*(self._read()[1] if ours else rows), cells])
        write_atomically(self.path, text.getvalue().encode())
        self._columns = columns

    def _read(self) -> tuple[list[str], list[dict[str, str]]]:
        if not self.path.is_file():  # a pipe or a device keeps nothing
            return [], []
        with self.path.open(encoding="utf-8", errors="replace", newline="") as file:
            reader = csv.DictReader(file, restval="")
            return list(reader.fieldnames or []), list(reader)

    def _resumed(self, names: list[str]) -> tuple[list[str], list[dict[str, str]]]:
        """Columns and rows of a file that is gone on with. Its last row may have been cut short: it does not count."""
        header, rows = self._read() if self._start else ([], [])
        kept, advice = [], "give the log another name, or start without resume"
        if header and header[: len(names)] != names:
            has, wanted = ",".join(header), ",".join(names)
            raise ValueError(f"{self.path}: has the columns {has}, but this run writes {wanted}; {advice}")
        for row in rows:
            if not row["iteration"].isdecimal():
                raise ValueError(f"{self.path}: damaged at {','.join(row.values())!r:.40}; {advice}")
            if len(kept) < int(row["iteration"]) <= self._start:
                kept.append(row)
        return header or names, kept
