"""Files that a command reads and writes: whatever would cost the user a file is refused before any work.

Every command states both once, to :func:`check_outputs`.
"""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from minircnn.cli.options import RefusedError

# What is taken for an image in a folder. A file that is named may end as it likes.
SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".gif", ".bmp", ".webp", ".avif", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm"),
)
_OF_DATA_SETS = (*SUFFIXES, ".xml", ".txt", ".mat")
_LARGEST_RECORD = 10_000_000  # bytes; the JSON files that we write are far smaller


@dataclass(frozen=True)
class Output:
    """A file to be written.

    Attributes:
        option: that leads to it, such as ``--out``.
        path: where it goes.
        named: the user named this file, or it is the command's documented place. Another one, such as the JSON beside
            weights, replaces only what this program has written.
    """

    option: str
    path: Path
    named: bool = True


def of_weights(out: Path) -> list[Output]:
    """What a training writes: the weights, the JSON beside them, and on its way the state to go on from."""
    beside = Output("--out", out.with_suffix(".json"), named=False)
    return [Output("--out", out), beside, Output("--out", out.with_suffix(".checkpoint"))]


def with_json(weights: Path | None) -> list[Path]:
    """What is read with a file of weights: itself and, where we have written it, the JSON beside it."""
    if weights and weights.suffix == ".safetensors":
        return [weights, weights.with_suffix(".json")]
    return [weights] if weights else []


def check_outputs(outputs: Sequence[Output], inputs: Iterable[Path] = ()) -> None:
    """Refuse outputs that cannot be written, or that would be written over something.

    Files are compared as the file system does: links, other names of a file and, where they are one, upper and lower
    case lead to the same one. Devices and pipes lose nothing.

    Args:
        outputs: All files that will be written.
        inputs: All files that will be read; of a folder, the images and annotations somewhere in it.

    Raises:
        RefusedError: An output is a folder, lies in a folder that is not there, may not be written, is an input, the
            same file as another output or as what is printed into; or it is there, was not named, and is not ours.
    """
    inputs = list(inputs)
    taken = {_identity(path): f"{path}, which is read" for path in inputs if path.is_file()}
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # not every stream is a file
            status = os.fstat(stream.fileno())
            if stat.S_ISREG(status.st_mode):
                taken[status.st_dev, status.st_ino] = "what is printed"
    of_data = None
    for output in outputs:
        path = output.path
        _check_place(output)
        if path.exists() and not path.is_file():
            continue  # a device or a pipe
        if path.exists() and Path(os.path.realpath(path)).suffix.lower() in _OF_DATA_SETS and not _is_ours(path):
            of_data = of_data or {_identity(file): f"{file}, which is read" for file in _inside(inputs)}
        if lost := taken.get(_identity(path)) or (of_data or {}).get(_identity(path)):
            raise RefusedError(f"{output.option} {path}: would be written over {lost}; name another place")
        taken[_identity(path)] = f"what {output.option} writes"
        if path.exists() and not output.named and not _is_ours(path):
            raise RefusedError(
                f"{output.option}: {path} is there, was not written by this program, and would be lost; move it, or "
                "name another place"
            )


def check_folder(option: str, path: Path) -> None:
    """Refuse a folder that is none, or that could not be made or written into."""
    if path.exists() and not path.is_dir():
        raise RefusedError(f"{option} {path}: this is a file; name a folder")
    _check_writable(option, path, path if path.is_dir() else path.parent)


def _check_place(output: Output) -> None:
    option, path = output.option, output.path
    if path.is_dir():
        raise RefusedError(
            f"{option} {path}: this is a folder; name a file in it"
            if output.named
            else f"{option}: {path} would be written, but this is a folder; name another place"
        )
    if path.exists() and not os.access(path, os.W_OK):
        raise RefusedError(f"{option} {path}: this file may not be written; name another one")
    folder = Path(os.path.realpath(path) if path.is_symlink() else path).parent
    if (path.is_file() or not path.exists()) and (output.named or folder.is_dir()):  # others' folders are made
        _check_writable(option, path, folder)


def _check_writable(option: str, path: Path, folder: Path) -> None:
    if not folder.is_dir():
        raise RefusedError(f"{option} {path}: the folder {folder} does not exist; make it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise RefusedError(f"{option} {path}: the folder {folder} may not be written into; name another one")


def _identity(path: Path) -> tuple[int, int] | str:
    """The same for all names of one file, also of one that is still to be made."""
    try:
        status = path.stat()
        return status.st_dev, status.st_ino
    except FileNotFoundError:
        return os.path.realpath(path).casefold()


def _inside(inputs: Iterable[Path]) -> Iterator[Path]:
    """The images and annotations in folders, and in folders in them; each folder once, whatever links lead to it."""
    seen: set[str] = set()
    for top in inputs:
        for folder, folders, names in os.walk(top, followlinks=True):
            folders[:] = [name for name in folders if os.path.realpath(Path(folder, name)) not in seen]
            seen.update(os.path.realpath(Path(folder, name)) for name in folders)
            yield from (Path(folder, name) for name in names if Path(name).suffix.lower() in _OF_DATA_SETS)


def _is_ours(path: Path) -> bool:
    """Whether this program has written a file: each kind that it gives a name of its own says so."""
    with suppress(OSError, ValueError, RecursionError):
        with path.open("rb") as file:
            beginning = file.read(2000)
        if path.suffix == ".json" and path.stat().st_size < _LARGEST_RECORD:
            record = json.loads(path.read_bytes())
            return isinstance(record, dict) and ("sha256" in record or "minircnn" in str(record.get("command")))
        texts = (b"tEXtSoftware\0minircnn", b"tEXtminircnn\0", b'<meta name="generator" content="minircnn')
        return any(text in beginning for text in texts)
    return False
