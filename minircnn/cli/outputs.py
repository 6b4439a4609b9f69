"""Files that a command writes: whatever would cost the user a file is refused before any work.

Every command states what it writes and what it reads once, to :func:`check_outputs`.
"""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from minircnn.cli.common import RefusedError

# What is taken for an image in a folder. A file that is named may end as it likes.
SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".gif", ".bmp", ".webp", ".avif", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm"),
)
_LARGEST_RECORD = 100_000_000  # bytes; the JSON files that we write are smaller
_KEYS = ({"sha256"}, {"detector", "weights"}, {"data", "problems"})  # of the JSON files that we write
_MARKS = (
    *(b"tEXtSoftware\0minircnn", b"tEXtminircnn\0"),  # in each PNG
    *(b'<meta name="generator" content="minircnn', b"iteration,learning_rate,total,"),  # page of the demo; log
    b'[\n {\n  "image_id": ',  # results in COCO's format
)


def of_weights(out: Path) -> list[tuple[str, Path]]:
    """What a training writes: the weights, the JSON beside them, and on its way the state to go on from."""
    return [("--out", out.with_suffix(ending)) for ending in (out.suffix, ".json", ".checkpoint")]


def files_beside(out: Path) -> dict[str, Path]:
    """What a training that is measured on its way writes beside its weights."""
    names = {"best": "best.safetensors", "record": "best.json", "curve": "curve.png", "predictions": "predictions.png"}
    return {what: out.with_name(f"{out.stem}_{name}") for what, name in names.items()}


def with_json(weights: Path | None) -> list[Path]:
    """What is read with a file of weights: itself and, where we have written it, the JSON beside it."""
    if weights and weights.suffix == ".safetensors":
        return [weights, weights.with_suffix(".json")]
    return [weights] if weights else []


def check_outputs(outputs: Iterable[tuple[str, Path | None]], inputs: Iterable[Path] = ()) -> None:
    """Refuse outputs that cannot be written, or that would be written over something.

    Files are compared as the file system does: links, other names of a file and, where they are one, upper and lower
    case lead to the same one. Devices and pipes lose nothing. Folders that are missing will be made.

    Args:
        outputs: The option that leads to each file that will be written, and the file; None for none.
        inputs: The files that will be read.

    Raises:
        RefusedError: An output is a folder, may not be written, is an input, the same file as another output or as what
            is printed into; or it is there, and this program has not written it.
    """
    taken = {_identity(path): f"{path}, which is read" for path in inputs if path.is_file()}
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # not every stream is a file
            status = os.fstat(stream.fileno())
            if stat.S_ISREG(status.st_mode):
                taken[status.st_dev, status.st_ino] = "what is printed"
    for option, path in outputs:
        if path is None or (path.exists() and not path.is_file() and not path.is_dir()):
            continue  # a device or a pipe
        _check_place(option, path)
        if lost := taken.get(_identity(path)):
            raise RefusedError(f"{option} {path}: would be written over {lost}; name another place")
        taken[_identity(path)] = f"what {option} writes"
        if path.exists() and not _is_ours(path):
            raise RefusedError(
                f"{option}: {path} is there, was not written by this program, and would be lost; move it, or name "
                "another place"
            )


def check_folder(option: str, path: Path, or_else: str = "") -> None:
    """Refuse a file, or a name that only a file would have, in place of a folder."""
    if path.is_dir():
        return
    if path.exists() or path.suffix.lower() in (*SUFFIXES, ".html", ".htm"):
        raise RefusedError(f"{option} {path}: this is the name of a file; name a folder{or_else}")


def _check_place(option: str, path: Path) -> None:
    if path.is_dir():
        raise RefusedError(f"{option} {path}: this is a folder; name a file in it, or another place")
    place = next(place for place in (path, *Path(os.path.realpath(path)).parents) if place.exists())
    if not os.access(place, os.W_OK) or not (place.is_dir() or place == path):
        raise RefusedError(f"{option} {path}: {place} may not be written into; name another place")


def _identity(path: Path) -> tuple[int, int] | str:
    """The same for all names of one file, also of one that is still to be made."""
    try:
        status = path.stat()
        return status.st_dev, status.st_ino
    except FileNotFoundError:
        return os.path.realpath(path).casefold()


def _is_ours(path: Path) -> bool:
    """Whether this program has written a file, as each kind of its files says; with an empty one nothing is lost."""
    if path.suffix == ".checkpoint":
        return True
    with suppress(OSError, ValueError, RecursionError):
        path = path.with_suffix(".json") if path.suffix == ".safetensors" else path  # which says what weights they are
        with path.open("rb") as file:
            beginning = file.read(2000)
        if beginning.startswith(b"{") and path.stat().st_size < _LARGEST_RECORD:
            record = json.loads(path.read_bytes())
            return any(keys <= record.keys() for keys in _KEYS)
        return not beginning or any(mark in beginning for mark in _MARKS)
    return False
