"""Weights of networks on disk: a safetensors file, which holds no code, and a JSON file that says what they are.

The JSON holds the configuration that a model is built from, what it was trained with, and a checksum.
"""

import argparse
import hashlib
import importlib
import json
import os
import pickle
import typing
import warnings
import zipfile
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, is_dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import safetensors.torch
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from minircnn.files import first_line, printable, sha256, write_atomically
from minircnn.shipped import DETECTORS

Config = TypeVar("Config")
_INSIDE = ("model", "state_dict", "model_state_dict")  # what training scripts call the weights among other things


class WeightsError(ValueError):
    """Weights that cannot be used as they are; the message names the file, and a remedy, in one line."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))  # names of tensors and classes come from files


def save(model: torch.nn.Module, path: Path, about: Mapping[str, Any] | None = None) -> None:
    """Write a detector for :func:`load`: its weights in half precision, and the JSON file beside them.

    The JSON holds the detector's ``configs``, which say how to build it again, and what ``about`` holds. What is none
    of the four detectors is a TypeError.
    """
    kinds, own = {cls: name for name, (cls, _) in DETECTORS.items()}, type(model).__name__
    kind = kinds.get(own)
    if kind is None:
        raise TypeError(f"model must be one of {', '.join(kinds)}, but is {own}: save its state_dict()")
    configs = {name: asdict(config) if is_dataclass(config) else config for name, config in model.configs.items()}
    save_weights(path, halve(model), {"detector": kind, "classes": list(model.classes), **configs, **(about or {})})


def load(path: str | Path, kind: str | None = None) -> Any:  # noqa: ANN401 - a detector of any kind
    """The detector that :func:`save` wrote to a ``.safetensors`` file, in evaluation mode.

    ``kind`` is which of :data:`minircnn.shipped.DETECTORS` it must be; None: any. For errors see :func:`load_weights`.
    """
    tensors, about = load_weights(path)
    found = str(about.get("detector", about.get("what", "something else")))  # a JSON may hold anything
    _, wanted = DETECTORS[kind] if kind else ("", "a detector")
    if found not in DETECTORS or kind not in (None, found):
        raise WeightsError(f"{path}: holds {found:.80}, not {wanted}")
    name, title = DETECTORS[found]
    detector = getattr(importlib.import_module(f"minircnn.{found}"), name)

    def build() -> torch.nn.Module:
        names = about["classes"]
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise TypeError(f"classes must be a list of names, but is {names!r:.80}")
        return detector.build(names, about)

    return built_as_described(path, tensors, title, build)


def built_as_described(
    path: str | Path, tensors: Mapping[str, Tensor], title: str, build: Callable[[], torch.nn.Module]
) -> torch.nn.Module:
    """The model that ``build`` makes as the JSON beside a file says, with the file's weights, in evaluation mode."""
    try:
        # On the meta device tensors have shapes and take no memory.
        with torch.device("meta"), _WithoutDraws(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Initializing zero-element tensors")
            shapes = build().state_dict()
        check_fit(shapes, tensors, path)  # a JSON may describe a network that no memory holds
        model = build()
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, WeightsError):
            raise
        raise WeightsError(f"{path}: its JSON does not describe {title} ({error!r:.200})") from error
    load_into(model, tensors, path)
    return model.eval()


class _WithoutDraws(TorchFunctionMode):
    """Draws nothing: for a normal distribution on the meta device PyTorch loads its compiler, which takes seconds."""

    def __torch_function__(self, func: Callable, _: Any, args: tuple = (), kwargs: dict | None = None) -> Any:  # noqa: ANN401
        kwargs = kwargs or {}
        return (args or [kwargs["tensor"]])[0] if func.__name__ == "normal_" else func(*args, **kwargs)


def config_of(kind: type[Config], values: Mapping[str, Any]) -> Config:
    """A configuration, a dataclass, from what JSON holds of it: its lists become the tuples that they were.

    A field that is unknown is a KeyError; one of another type, or a number that is not finite, a TypeError.

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
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, tuple):
            return False
        parts = parts[:1] * len(value) if parts[-1] is Ellipsis else parts
        return len(value) == len(parts) and all(map(_fits, value, parts))
    if parts:
        return any(_fits(value, part) for part in parts)
    if hint in (int, float) and isinstance(value, int | float):
        limits = (0, 2**20) if hint is int else (-1e15, 1e15)  # whole numbers are sizes and counts
        return isinstance(value, (int, hint)) and not isinstance(value, bool) and limits[0] <= value <= limits[1]
    return isinstance(value, hint)


def save_weights(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write tensors, in the precision that they have, to ``path``, and ``about`` with a checksum to a JSON beside it.

    A number that is nan or infinite, perhaps since it was halved, is a WeightsError, and what was there before stays.
    """
    if path.suffix != ".safetensors":
        raise ValueError(f"{path}: weights are written as .safetensors; give the file that ending")
    _check_finite(tensors, f"{path}: not written", "; what was there stays; try a lower learning rate")
    content = safetensors.torch.save({name: value.detach().cpu().contiguous() for name, value in tensors.items()})
    record = json.dumps({**about, "sha256": hashlib.sha256(content).hexdigest()}, indent=1) + "\n"
    write_atomically(path, content)
    write_atomically(path.with_suffix(".json"), record.encode())


def halve(module: torch.nn.Module) -> dict[str, Tensor]:
    """A state dict with parameters in 16 bits, which moves a weight by less than a thousandth of itself.

    Buffers stay as they are: a variance of batch normalization may be so small that 16 bits would make it 0.
    """
    learned = {name for name, _ in module.named_parameters()}
    return {name: value.half() if name in learned else value for name, value in module.state_dict().items()}


def load_weights(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors that :func:`save_weights` wrote, floats in single precision, and the content of the JSON file.

    Raises:
        FileNotFoundError: one of the two files is missing.
        WeightsError: one of them is damaged, or they do not belong together.
    """
    path = Path(path)
    tensors = read_tensors(path)
    if path.suffix != ".safetensors":
        raise WeightsError(f"{path}: only .safetensors files of this project's own trainings are read here")
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

    The file is ``.safetensors``, ``.npz`` (NumPy) or ``.pth`` / ``.pt``: a PyTorch state dict, also as the "model",
    "state_dict" or "model_state_dict" of what a training script saved, from several GPUs also with ``module.`` before
    each name, which is left out. One that is not there is a FileNotFoundError, all else a WeightsError.
    """
    path = Path(path)
    readers = {".npz": _read_npz, ".pth": read_torch, ".pt": read_torch}
    readers[".safetensors"] = lambda path: safetensors.torch.load(path.read_bytes())
    if path.suffix not in readers:
        raise WeightsError(f"{path}: weights end in .safetensors, .npz, .pth or .pt")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file of weights; check the path")
    advice = "save a state dict: torch.save(model.state_dict(), file)"
    try:
        tensors = readers[path.suffix](path)
    except pickle.UnpicklingError as error:
        what = "damaged, or holds more than tensors, which is not read, because it could run code"
        raise WeightsError(f"{path}: {what}; {advice}") from error
    except Exception as error:  # damaged files make the readers raise KeyError, IndexError, zlib.error and many more
        raise WeightsError(f"{path}: damaged, or no weights ({first_line(error)}); fetch it again") from error
    if isinstance(tensors, Mapping):
        tensors = next((tensors[key] for key in _INSIDE if isinstance(tensors.get(key), Mapping)), tensors)
    for name, value in tensors.items() if isinstance(tensors, Mapping) else [(None, tensors)]:
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise WeightsError(f"{path}: no tensors by name; {advice}")
        dense = value.layout is torch.strided and not (value.is_quantized or value.is_nested)
        if not dense or value.device.type != "cpu" or value.nbytes > value.untyped_storage().nbytes():
            raise WeightsError(f"{path}: {name} is sparse, quantized, nested or without numbers of its own; {advice}")
    start = len("module.") * all(name.startswith("module.") for name in tensors)
    return {name[start:]: value.float() if value.is_floating_point() else value for name, value in tensors.items()}


def _read_npz(path: Path) -> dict[str, Tensor]:
    _check_zip(path)
    # Opened here: NumPy leaves a file open that it cannot read.
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def read_torch(path: Path) -> Any:  # noqa: ANN401 - whatever was saved
    """What ``torch.save`` wrote: tensors, numbers, texts and containers of them. No code in the file is ever run.

    Something else is an UnpicklingError; damaged files make torch raise whatever it likes.
    """
    _check_zip(path)
    # torchvision's training scripts save their options, which hold no code, beside the model. (From PyTorch 2.5 on.)
    allow = getattr(torch.serialization, "safe_globals", lambda _: nullcontext())
    with allow([argparse.Namespace]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about sparse tensors, which read_tensors refuses
        return torch.load(path, map_location="cpu", weights_only=True)


def _check_zip(path: Path) -> None:
    """Compare the checksums inside a zip file, which ``torch.save`` writes and ``torch.load`` does not look at."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            size, promised = path.stat().st_size, sum(part.file_size for part in archive.infolist())
            if promised > 4 * size + 2**26:  # memory goes to weights, not to what a file promises
                raise ValueError(f"it claims {promised:,} bytes of numbers, but the file has {size:,}")
            if damaged := archive.testzip():
                raise ValueError(f"{damaged} in it has another checksum")


def load_into(module: torch.nn.Module, tensors: Mapping[str, Tensor], source: str | Path, only: str = "") -> None:
    """Give a module its weights by name, all of them or none; what does not fit is a WeightsError.

    ``source`` is for messages. ``only``: load and demand only the names that begin so, such as ``"backbone."``.
    """
    given = {name: value for name, value in tensors.items() if name.startswith(only)}
    check_fit({n: v for n, v in module.state_dict().items() if n.startswith(only)}, given, source)
    _check_finite(given, source, "; train or fetch the weights again")
    module.load_state_dict(given, strict=False)


def _check_finite(tensors: Mapping[str, Tensor], source: str | Path, remedy: str) -> None:
    for name, value in tensors.items():
        if not value.isfinite().all():
            raise WeightsError(f"{source}: {name} holds nan or infinity{remedy}")


def check_fit(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor], source: str | Path) -> None:
    """Refuse weights for another network than one with such tensors."""
    problems = [f"{name} is missing" for name in wanted.keys() - given.keys()]
    problems += [f"{name} is not in the network" for name in given.keys() - wanted.keys()]
    for name in wanted.keys() & given.keys():
        ours, theirs = wanted[name], given[name]
        if ours.shape != theirs.shape:
            problems.append(f"{name} has shape {tuple(theirs.shape)}, the network needs {tuple(ours.shape)}")
        if ours.is_floating_point() != theirs.is_floating_point():
            problems.append(f"{name} holds {theirs.dtype}, the network needs {ours.dtype}")
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise WeightsError(f"{source}: weights for another network: {'; '.join(sorted(problems)[:3])}{more}")


def cache_folder() -> Path:
    """Where downloads and results are kept: ``MINIRCNN_CACHE``, or a folder of the user's. It may be deleted any time.

    A FileNotFoundError says that this user has no home directory.
    """
    chosen = os.environ.get("MINIRCNN_CACHE")
    try:
        return Path(chosen) if chosen else Path.home() / ".cache" / "minircnn"
    except RuntimeError as error:
        raise FileNotFoundError(f"no home directory ({error}); name a folder in MINIRCNN_CACHE") from error


def download(url: str, sha256_prefix: str, size: str) -> Path:
    """Fetch a file of weights once, with a progress bar, and keep it in :func:`cache_folder`.

    A file whose checksum begins otherwise is not kept; that, or no network, is a WeightsError that names the ``size``.
    """
    target = cache_folder() / "downloads" / url.rsplit("/", 1)[-1]
    if target.is_file() and sha256(target).startswith(sha256_prefix):
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(target), hash_prefix=sha256_prefix)
    except (OSError, HTTPException, RuntimeError, ValueError) as error:
        remedy = f"fetch this file ({size}) on another machine and put it at {target}, or give its path"
        raise WeightsError(f"could not fetch {url} ({first_line(error)}). Without a network: {remedy}") from error
    return target
