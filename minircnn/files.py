"""Files that are written whole or not at all; their checksums; what went wrong with them, in a line."""

import hashlib
import json
import os
import re
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that it is there complete or not at all, even if the program is stopped in between.

    Missing folders are made. A file of that name is replaced in one step, by the last of several programs that write
    it. A link stays one: what it points to is replaced. A device or a pipe is written into. Errors name ``path``.
    """
    with naming(path):
        if path.exists() and not path.is_file():
            path.write_bytes(content)
            return
        target = Path(os.path.realpath(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        # A name that no other program has, and short: that of the file may be as long as the file system takes.
        temporary = target.with_name(f".{uuid.uuid4().hex}.part")
        try:
            temporary.write_bytes(content)
            _replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Errors of the operating system name this file: that of a full disk names none, others a temporary one."""
    try:
        yield
    except OSError as error:
        raise type(error)(error.errno, error.strerror or str(error), str(path)) from error


def _replace(temporary: Path, path: Path) -> None:
    """Rename; wait a little where Windows refuses because another program has the file open."""
    for seconds in (0.01, 0.05, 0.2, 0.5):
        try:
            temporary.replace(path)
            return
        except PermissionError:
            time.sleep(seconds)
    temporary.replace(path)


def write_json(path: Path, content: Mapping[str, Any] | list[Any]) -> None:
    """Write a file whole or not at all; what is not a number, such as the AP of a class without objects, as null."""
    plain = json.loads(json.dumps(content), parse_constant=lambda name: None if name == "NaN" else float(name))
    write_atomically(path, f"{json.dumps(plain, indent=1, allow_nan=False)}\n".encode())


def sha256(path: Path) -> str:
    """The checksum of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def lacks_memory(error: BaseException) -> bool:
    """Whether an error of Python, NumPy or PyTorch says that there is no memory left, on the CPU or a GPU.

    >>> lacks_memory(MemoryError()), lacks_memory(RuntimeError("CUDA out of memory.")), lacks_memory(RuntimeError("x"))
    (True, True, False)
    """
    told = isinstance(error, RuntimeError) and re.search(r"(allocate|enough|out of) memory|bad_alloc", str(error))
    return isinstance(error, MemoryError) or bool(told)


def first_line(error: Exception) -> str:
    """What an error says, and what kind it is, in one short line."""
    return f"{type(error).__name__}: {error}".splitlines()[0].rstrip(": ")[:200]


def printable(text: object, keep: str = "") -> str:
    """Text that does nothing to a terminal: a question mark for what cannot be printed, but for letters to ``keep``."""
    return "".join(letter if letter.isprintable() or letter in keep else "?" for letter in str(text))
