"""Results that take long to compute, kept on disk under a name made of everything that they depend on.

A cache that is asked "have you features of image 7?" answers with last week's after the network has changed. This one
is asked for the result of *this* image, *these* boxes, *these* weights and *this* code: whatever changes, the name
changes with it, and what is stale is simply never found.
"""

import hashlib
import json
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from minircnn.files import write_atomically
from minircnn.weights import cache_folder

Part = Tensor | str | int | float | None


def fingerprint(*parts: Part) -> str:
    """A name of 32 digits for values: equal values have equal names, others do not.

    >>> fingerprint("fc7", 1) == fingerprint("fc7", 1), fingerprint("fc7", 1) == fingerprint("fc71")
    (True, False)
    """
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, Tensor):
            value = part.detach().cpu()
            digest.update(f"{value.dtype} {tuple(value.shape)} ".encode())
            digest.update(value.reshape(-1).view(torch.uint8).numpy())
        else:
            digest.update(json.dumps(part).encode())
        digest.update(b"\0")
    return digest.hexdigest()[:32]


def module_fingerprint(module: torch.nn.Module) -> str:
    """A name for a network's weights and settings, as its ``repr`` and its state dict tell them."""
    state = module.state_dict()
    return fingerprint(repr(module), *(part for name in sorted(state) for part in (name, state[name])))


@lru_cache
def code_fingerprint(*modules: ModuleType, packages: tuple[str, ...] = ("torch", "numpy")) -> str:
    """A name for the code of modules (of packages: all their files) and for the versions of installed packages."""
    files = []
    for module in modules:
        file = Path(module.__file__)
        files += sorted(file.parent.rglob("*.py")) if file.name == "__init__.py" else [file]
    versions = [f"{name} {metadata.version(name)}" for name in packages]
    return fingerprint(*versions, *(file.read_text(encoding="utf-8") for file in files))


class Cache:
    """A folder of results.

    Where results cannot be read or kept (no home directory, no right to write, a full disk), they are computed each
    time, and a warning says so once, in the process that the cache was made in.

    Args:
        folder: where; made when the first result is stored. None: ``results`` in the user's cache folder.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        self._folder, self._quiet = folder, False

    def __getstate__(self) -> dict[str, Any]:
        """To another process it goes as a quiet one: what keeps it from keeping results is said here, once for all."""
        self._write(".probe", bytes(4096))
        with suppress(OSError):
            (self.folder / ".probe").unlink(missing_ok=True)
        return {"_folder": self._folder, "_quiet": True}

    @property
    def folder(self) -> Path:
        """Where results are kept; for errors see :func:`minircnn.weights.cache_folder`."""
        return Path(self._folder) if self._folder is not None else cache_folder() / "results"

    def get(self, kind: str, parts: tuple[Part, ...], compute: Callable[[], Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """A stored result, or else one that is computed and stored.

        Args:
            kind: what it is, such as "proposals"; a folder of that name holds the results.
            parts: everything that the result depends on.
            compute: gives tensors by name.

        Returns:
            The tensors. A damaged file is computed anew.
        """
        name = fingerprint(kind, *parts)
        inside = f"{kind}/{name[:2]}/{name}.safetensors"
        with suppress(OSError, SafetensorError):
            return _read(self.folder / inside)
        result = {key: value.detach().cpu().contiguous() for key, value in compute().items()}
        content = safetensors.torch.save(result, metadata={"fingerprint": _fingerprint_of(result)})
        self._write(inside, content)
        return result

    def _write(self, inside: str, content: bytes) -> None:
        try:
            write_atomically(self.folder / inside, content)
        except OSError as error:
            reason = f"{self.folder}: {error.strerror}" if error.filename else str(error)
            if not self._quiet:
                _warn(f"going on without a cache, so that results are computed again next time: {reason}")


@lru_cache
def _warn(message: str) -> None:
    """Once for each message."""
    warnings.warn(message, stacklevel=1)


def _fingerprint_of(result: Mapping[str, Tensor]) -> str:
    return fingerprint(*(part for name in sorted(result) for part in (name, result[name])))


def _read(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, if they are those that were written."""
    content = path.read_bytes()
    result = safetensors.torch.load(content)
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    stated = header.get("__metadata__", {}).get("fingerprint")
    if stated != _fingerprint_of(result):
        raise SafetensorError(f"{path}: other numbers than were written")
    return result
