"""The numbers of a training as a table, one row for each iteration, which grows while the training runs."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from minircnn.files import naming, write_atomically

_FIRST_COLUMNS = ("iteration", "learning_rate", "total")


class Log:
    """A CSV file: iteration (counted from 1), learning rate, sum of the losses, each loss, each number of evaluations.

    Every row is in the file as soon as it is written, so that ``tail -F`` shows it. (Not ``-f``: the file is replaced
    by a wider one when the first evaluation gives its numbers their names.) Numbers have nine digits, enough for a
    32-bit float. In rows without an evaluation its columns are empty.

    Args:
        path: of the file. It is not touched before the first row.
        start: iterations that the run has behind it. Later rows, written before an interruption, are dropped, and
            the new ones follow. With 0, the file is replaced.
        evaluated: whether numbers of evaluations are to come.
    """

    def __init__(self, path: Path, start: int = 0, *, evaluated: bool = False) -> None:
        self.path, self._start, self._evaluated = path, start, evaluated
        self._columns: list[str] = []  # as in the file, once it is ours

    def write(
        self,
        iteration: int,
        learning_rate: float,
        losses: Mapping[str, float],
        evaluation: Mapping[str, float] | None = None,
    ) -> None:
        """Adds a row.

        Args:
            iteration: counted from 1.
            learning_rate: of this iteration.
            losses: by name, the same names in each row.
            evaluation: numbers by name; the first time decides about the names.

        Raises:
            ValueError: the file has other columns, or two columns would have one name, or a row cannot be read.
        """
        names = [*_FIRST_COLUMNS, *losses]
        if not self._columns:
            self._begin(names)
        if evaluation and self._columns == names:
            self._rewrite([*names, *evaluation], [row + "," * len(evaluation) for row in self._read()[1]])
        wanted = [*names, *(evaluation or ())]
        if self._columns[: len(names)] != names or not set(wanted) <= set(self._columns):
            raise self._other_columns(self._columns, wanted)
        values = {"learning_rate": learning_rate, "total": sum(losses.values()), **losses, **(evaluation or {})}
        cells = [f"{values[name]:.9g}" if name in values else "" for name in self._columns[1:]]
        with naming(self.path), self.path.open("a", encoding="utf-8", newline="") as file:
            file.write(_line([str(iteration), *cells]) + "\n")

    def _begin(self, names: list[str]) -> None:
        """Makes the file; or takes up that of a run that goes on, with the rows that the run has behind it."""
        header, rows = self._read() if self._start and self.path.is_file() else ([], [])
        fits = header[: len(names)] == names if self._evaluated else header == names
        if header and not fits:
            raise self._other_columns(header, names)
        self._rewrite(header or names, [row for row in rows if self._iteration_of(row) <= self._start])

    def _read(self) -> tuple[list[str], list[str]]:
        """The names of the columns, and the rows. The last row may have been cut short when the run was stopped."""
        if not self.path.is_file():  # a pipe or a device keeps nothing
            return [], []
        lines = self.path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]
        return (next(csv.reader(lines[:1])), lines[1:]) if lines else ([], [])

    def _rewrite(self, columns: list[str], rows: list[str]) -> None:
        twice = {name for name in columns if columns.count(name) > 1}
        if twice:
            raise ValueError(f"{self.path}: two columns named {', '.join(sorted(twice))}; rename a loss or a number")
        write_atomically(self.path, "".join(line + "\n" for line in [_line(columns), *rows]).encode())
        self._columns = columns

    def _iteration_of(self, row: str) -> int:
        try:
            return int(row.split(",", 1)[0])
        except ValueError:
            raise ValueError(
                f"{self.path}: damaged at {row!r:.40}; remove that row, or give the log another name"
            ) from None

    def _other_columns(self, has: list[str], wanted: list[str]) -> ValueError:
        return ValueError(
            f"{self.path}: has the columns {_line(has)}, but this run writes {_line(wanted)}; "
            "give the log another name, or start without resume"
        )


def _line(cells: Sequence[str]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(cells)
    return line.getvalue()
