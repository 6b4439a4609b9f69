"""Weights of networks on disk: a safetensors file, and beside it a JSON file that says what they are.

safetensors holds numbers and nothing else: reading it never runs code, as unpickling would. The JSON holds the settings
that the weights were trained with, what they reached, and a checksum.
"""

import hashlib
import json
import os
import pickle
import types
import typing
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import asdict
from http.client import HTTPException
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

import minircnn
from minircnn.files import write_atomically

Config = TypeVar("Config")

WEIGHTS_FOLDER = Path(minircnn.__file__).resolve().parent.parent / "data" / "weights"
"""Where the weights lie that come with a clone of the project."""


class WeightsError(ValueError):
    """Weights that cannot be used as they are; the message names the file, and a remedy."""


def cache_folder() -> Path:
    """Where downloads and what takes long to compute are kept: ``MINIRCNN_CACHE``, or a folder of the user's.

    Everything in it can be deleted at any time, and is then fetched or computed again.
    """
    chosen = os.environ.get("MINIRCNN_CACHE")
    return Path(chosen) if chosen else Path.home() / ".cache" / "minircnn"


def save_weights(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Writes ``path`` and the JSON beside it.

    Args:
        path: where to; ends in ``.safetensors``.
        tensors: by name, stored in the precision that they have. :func:`halve` makes the file half as large.
        about: what can be written as JSON; ``"sha256"`` is added.
    """
    if path.suffix != ".safetensors":
        raise ValueError(f"{path}: weights are written as .safetensors; give the file that ending")
    content = safetensors.torch.save({name: value.detach().cpu().contiguous() for name, value in tensors.items()})
    record = json.dumps({**about, "sha256": hashlib.sha256(content).hexdigest()}, indent=1) + "\n"
    write_atomically(path, content)
    write_atomically(path.with_suffix(".json"), record.encode())


def halve(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Floats in 16 bits, which moves a weight by less than a thousandth of itself.

    Statistics of batches stay as they are: a variance may be so small that 16 bits would make it 0.
    """
    return {
        name: value.half() if value.is_floating_point() and not name.endswith("running_var") else value
        for name, value in tensors.items()
    }


def load_weights(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Reads what :func:`save_weights` wrote.

    Returns:
        The tensors, floats in single precision, and the content of the JSON file.

    Raises:
        FileNotFoundError: one of the two files is missing.
        WeightsError: one of them is damaged, or they do not belong together.
    """
    path = Path(path)
    tensors = read_tensors(path)
    record_path = path.with_suffix(".json")
    if not record_path.is_file():
        raise FileNotFoundError(f"{record_path}: not found; it belongs to {path.name} and says how to use it")
    try:
        about = json.loads(record_path.read_text(encoding="utf-8"))
        expected = about["sha256"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise WeightsError(f"{record_path}: damaged ({error!r}); train or fetch the weights again") from error
    if sha256(path) != expected:
        raise WeightsError(f"{path}: not the file that {record_path.name} describes; train or fetch both again")
    return tensors, about


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a weights file, floats in single precision. No code in the file is ever run.

    Args:
        path: ``.safetensors``, ``.npz`` (NumPy) or ``.pth`` / ``.pt`` (a PyTorch state dict).

    Raises:
        FileNotFoundError: no such file.
        WeightsError: another ending, or the file is damaged or holds something else than tensors by name.
    """
    path = Path(path)
    readers = {".safetensors": _read_safetensors, ".npz": _read_npz, ".pth": _read_pth, ".pt": _read_pth}
    if path.suffix not in readers:
        raise WeightsError(f"{path}: weights end in .safetensors, .npz, .pth or .pt")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file of weights; check the path")
    try:
        tensors = readers[path.suffix](path)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path}: damaged, or holds more than tensors, which is not read, because it could run code; save a state "
            "dict: torch.save(model.state_dict(), file)"
        ) from error
    except Exception as error:  # damaged files make the readers raise KeyError, IndexError, zlib.error and many more
        raise WeightsError(f"{path}: damaged, or no weights ({_first_line(error)}); fetch it again") from error
    if not isinstance(tensors, Mapping) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in tensors.items()
    ):
        raise WeightsError(f"{path}: no tensors by name; save a state dict: torch.save(model.state_dict(), file)")
    return {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    return safetensors.torch.load(path.read_bytes())


def _read_npz(path: Path) -> dict[str, Tensor]:
    # Opened here: NumPy leaves a file open that it cannot read.
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def _read_pth(path: Path) -> Any:  # noqa: ANN401 - whatever was saved
    check_zip(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def check_zip(path: Path) -> None:
    """Compares the checksums of a file that ``torch.save`` wrote, a zip file; ``torch.load`` does not look at them.

    Raises:
        ValueError: a part of it has another checksum. Of the format before zip files, which has none, nothing is said.
        BadZipFile: it is damaged otherwise.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if damaged := archive.testzip():
                raise ValueError(f"{damaged} in it has another checksum")


def load_into(module: torch.nn.Module, tensors: Mapping[str, Tensor], source: str | Path, only: str = "") -> None:
    """Gives a module its weights by name, all of them or none.

    Args:
        module: changed in place.
        tensors: by the module's own names.
        source: where they come from, for messages.
        only: load and demand only the names that begin so, such as ``"trunk."``; others keep what they have.

    Raises:
        WeightsError: names are missing or unknown, or a shape or kind of number is another: the weights are for another
            network. Or a number is nan or infinite.
    """
    given = {name: value for name, value in tensors.items() if name.startswith(only)}
    _check_fit({n: v for n, v in module.state_dict().items() if n.startswith(only)}, given, source)
    for name, value in given.items():
        if not value.isfinite().all():
            raise WeightsError(f"{source}: {name} holds nan or infinity; train or fetch the weights again")
    module.load_state_dict(given, strict=False)


def _check_fit(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor], source: str | Path) -> None:
    """Refuses weights for another network than one with such tensors."""
    problems = [f"{name} is missing" for name in wanted.keys() - given.keys()]
    problems += [f"{name} is not in the network" for name in given.keys() - wanted.keys()]
    problems += [
        f"{name} has shape {tuple(given[name].shape)}, the network needs {tuple(wanted[name].shape)}"
        for name in wanted.keys() & given.keys()
        if given[name].shape != wanted[name].shape
    ]
    problems += [
        f"{name} holds {given[name].dtype}, the network needs {wanted[name].dtype}"
        for name in wanted.keys() & given.keys()
        if given[name].is_floating_point() != wanted[name].is_floating_point()
    ]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise WeightsError(f"{source}: weights for another network: {'; '.join(sorted(problems)[:3])}{more}")


def save_detector(
    path: Path, kind: str, model: torch.nn.Module, configs: Mapping[str, Any], about: Mapping[str, Any]
) -> None:
    """Writes a detector, in half precision, for :func:`load_detector`.

    Args:
        path: the ``.safetensors`` file; the ``.json`` is written beside it.
        kind: what the JSON is to call it.
        model: the detector, with its ``classes``.
        configs: dataclasses by name: all that it takes to build the detector again.
        about: noted in the JSON file, too.
    """
    record = {"detector": kind, "classes": list(model.classes)}
    record |= {name: asdict(config) for name, config in configs.items()}
    save_weights(path, halve(model.state_dict()), {**record, **about})


def load_detector(
    path: str | Path, kind: str, title: str, build: Callable[[dict[str, Any]], torch.nn.Module]
) -> torch.nn.Module:
    """A detector from a file of weights, built as the JSON file beside it says.

    Args:
        path: the ``.safetensors`` file.
        kind: what the JSON must call it.
        title: what people call it.
        build: makes it, with any weights, out of the content of the JSON.

    Returns:
        The detector, in evaluation mode.

    Raises:
        FileNotFoundError: one of the two files is missing.
        WeightsError: a file is damaged, or describes something else.
    """
    tensors, about = load_weights(path)
    if about.get("detector") != kind:
        holds = about.get("detector", about.get("what", "something else"))
        raise WeightsError(f"{path}: holds {holds}, not {title}")
    return built_as_described(path, tensors, title, lambda: build(about))


def built_as_described(
    path: str | Path, tensors: Mapping[str, Tensor], title: str, build: Callable[[], torch.nn.Module]
) -> torch.nn.Module:
    """A model with these weights.

    Args:
        path: the file, for messages.
        tensors: its content.
        title: what people call such a model.
        build: makes it, with any weights, as the JSON beside the file says.

    Returns:
        The model, in evaluation mode.

    Raises:
        WeightsError: the JSON describes none, or one for other weights.
    """
    try:
        with torch.device("meta"), warnings.catch_warnings():  # tensors that have shapes and take no memory
            warnings.filterwarnings("ignore", "Initializing zero-element tensors")
            shapes = build().state_dict()
        _check_fit(shapes, tensors, path)  # a JSON may describe a network that no memory holds
        model = build()
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, WeightsError):
            raise
        raise WeightsError(f"{path}: its JSON does not describe {title} ({error!r:.200})") from error
    load_into(model, tensors, path)
    return model.eval()


def config_of(kind: type[Config], values: Mapping[str, Any]) -> Config:
    """A configuration, a dataclass, from what JSON holds of it: its lists become the tuples that they were.

    Raises:
        KeyError: there is no such setting.
        TypeError: a setting has another type than the dataclass states; or a number is not finite.

    >>> from minircnn.transforms import Transform
    >>> config_of(Transform, {"mean": [0.5, 0.5, 0.5], "divisor": 32}).mean
    (0.5, 0.5, 0.5)
    """
    hints, found = typing.get_type_hints(kind), {}
    for name, value in dict(values).items():
        found[name] = _as_tuple(value)
        if not _fits(found[name], hints[name]):
            raise TypeError(f"{name} is {value!r:.60}")
    return kind(**found)


def _as_tuple(value: Any) -> Any:  # noqa: ANN401 - whatever JSON holds
    return tuple(map(_as_tuple, value)) if isinstance(value, list) else value


def _fits(value: Any, hint: Any) -> bool:  # noqa: ANN401 - whatever JSON holds
    """Whether a value has a type: a number, a text, a truth value, None, a tuple of such, or one of several."""
    parts = typing.get_args(hint)
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return any(_fits(value, part) for part in parts)
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, tuple):
            return False
        parts = parts[:1] * len(value) if parts[-1] is Ellipsis else parts
        return len(value) == len(parts) and all(map(_fits, value, parts))
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15
    if hint is int:  # sizes and counts
        return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31
    return isinstance(value, hint)


def download(url: str, sha256_prefix: str, size: str) -> Path:
    """Fetches a file of weights once, with a progress bar, and keeps it in :func:`cache_folder`.

    Args:
        url: where it is published.
        sha256_prefix: how the file's checksum begins. What does not match is not kept.
        size: how large it is, for the message.

    Returns:
        Where it lies now.

    Raises:
        WeightsError: it could not be fetched (no network?), or is not what was published. Nothing is left behind.
    """
    target = cache_folder() / "downloads" / url.rsplit("/", 1)[-1]
    if target.is_file() and sha256(target).startswith(sha256_prefix):
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(target), hash_prefix=sha256_prefix)
    except (OSError, HTTPException, RuntimeError, ValueError) as error:
        raise WeightsError(
            f"could not fetch {url} ({_first_line(error)}). Without a network: fetch this file ({size}) on another "
            f"machine and put it at {target}, or give its path"
        ) from error
    return target


def sha256(path: Path) -> str:
    """The checksum of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0].rstrip(": ")[:200]
