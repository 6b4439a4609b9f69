"""Results that take long to compute, kept on disk under a name made of everything that they depend on.

That is the image, the boxes, the weights and the code: what is stale has another name.
"""

import hashlib
import io
import json
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

from minircnn.files import write_atomically
from minircnn.weights import cache_folder, read_torch

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
    """A folder of results, by default ``results`` in the user's cache folder; made when the first one is stored.

    Where results cannot be kept (no home directory, no right to write, a full disk), they are computed each time, and a
    warning says so.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        self._folder = folder

    @property
    def folder(self) -> Path:
        """Where results are kept; for errors see :func:`minircnn.weights.cache_folder`."""
        return Path(self._folder) if self._folder is not None else cache_folder() / "results"

    def get(self, kind: str, parts: tuple[Part, ...], compute: Callable[[], Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """A stored result, or else one that is computed and stored; a damaged file is computed anew.

        Args:
            kind: what it is, such as "proposals"; a folder of that name holds the results.
            parts: everything that the result depends on.
            compute: gives tensors by name.
        """
        name = fingerprint(kind, *parts)
        path = Path(kind, name[:2], f"{name}.pt")
        with suppress(Exception):  # whatever a damaged file makes torch raise
            return read_torch(self.folder / path)
        result = {key: value.detach().cpu().contiguous().clone() for key, value in compute().items()}
        buffer = io.BytesIO()
        torch.save(result, buffer)
        try:
            write_atomically(self.folder / path, buffer.getvalue())
        except OSError as error:  # of a folder that there is not, or of this file
            reason = f"{self.folder}: {error.strerror}" if error.filename else error
            text = f"going on without a cache, so that results are computed again next time: {reason}"
            warnings.warn(text, stacklevel=1)
        return result
