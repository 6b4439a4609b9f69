"""Files of weights, read and written, and given to a network by name: all of them or none."""

import argparse
import hashlib
import json
import pickle
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from minircnn.files import first_line, printable, sha256, write_atomically

_INSIDE = ("model", "state_dict", "model_state_dict")  # what training scripts call the weights among other things
_MOST_PARTS = 1_000_000  # of a file of torch.save; a list may stand in itself, or ten times in each of thirty others


class WeightsError(ValueError):
    """Weights that cannot be used as they are; the message names the file, and a remedy, in one line."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))  # names of tensors and classes come from files


def save_weights(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Writes ``path`` and the JSON beside it.

    Args:
        path: where to; ends in ``.safetensors``.
        tensors: by name, stored in the precision that they have. :func:`halve` makes the file half as large.
        about: what can be written as JSON; ``"sha256"`` is added.

    Raises:
        ValueError: another ending.
        WeightsError: a number is nan or infinite, perhaps since it was halved. What was there before stays.
    """
    if path.suffix != ".safetensors":
        raise ValueError(f"{path}: weights are written as .safetensors; give the file that ending")
    _check_finite(tensors, f"{path}: not written", "; what was there stays; try a lower learning rate")
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

    Args:
        path: ``.safetensors``, ``.npz`` (NumPy) or ``.pth`` / ``.pt``: a PyTorch state dict, also as the "model",
            "state_dict" or "model_state_dict" of what a training script saved. Where all names begin with ``module.``,
            as those of a DataParallel model do, this is left out.

    Raises:
        FileNotFoundError: no such file.
        WeightsError: another ending, or the file is damaged or holds something else than tensors by name.
    """
    path = Path(path)
    readers = {".safetensors": _read_safetensors, ".npz": _read_npz, ".pth": read_torch, ".pt": read_torch}
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
        raise WeightsError(f"{path}: damaged, or no weights ({first_line(error)}); fetch it again") from error
    if isinstance(tensors, Mapping):
        tensors = next((tensors[key] for key in _INSIDE if isinstance(tensors.get(key), Mapping)), tensors)
    if not isinstance(tensors, Mapping) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in tensors.items()
    ):
        raise WeightsError(f"{path}: no tensors by name; save a state dict: torch.save(model.state_dict(), file)")
    prefix = "module." if all(name.startswith("module.") for name in tensors) else ""
    return {
        name.removeprefix(prefix): value.float() if value.is_floating_point() else value
        for name, value in tensors.items()
    }


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    return safetensors.torch.load(path.read_bytes())


def _read_npz(path: Path) -> dict[str, Tensor]:
    check_zip(path)
    # Opened here: NumPy leaves a file open that it cannot read.
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def read_torch(path: Path) -> Any:  # noqa: ANN401 - whatever was saved
    """What ``torch.save`` wrote: tensors, numbers, texts and containers of them. No code in the file is ever run.

    Raises:
        UnpicklingError: it holds something else.
        ValueError: a tensor is not dense numbers that lie in the file, such as a sparse or an expanded one.
        Exception: whatever else a damaged file makes torch raise.
    """
    check_zip(path)
    # torchvision's training scripts save their options, which hold no code, beside the model. (From PyTorch 2.5 on.)
    allow = getattr(torch.serialization, "safe_globals", lambda _: nullcontext())
    with allow([argparse.Namespace]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about sparse tensors, which are refused below
        content = torch.load(path, map_location="cpu", weights_only=True)
    size = 0
    for count, part in enumerate(_parts_of(content)):
        if count > _MOST_PARTS:
            raise ValueError(f"it claims more than {_MOST_PARTS:,} values and containers")
        if isinstance(part, Tensor):
            dense = part.layout is torch.strided and not (part.is_quantized or part.is_nested)
            if not dense or part.device.type != "cpu":
                raise ValueError("a tensor in it is sparse, quantized, nested or without numbers")
            size += part.numel() * part.element_size()
    _check_size(path, size)
    return content


def _parts_of(content: Any) -> Iterator[Any]:  # noqa: ANN401 - whatever was saved
    """All that is in nested containers; what stands in two places comes twice."""
    yield content
    if isinstance(content, Mapping | list | tuple):
        for part in content.values() if isinstance(content, Mapping) else content:
            yield from _parts_of(part)


def check_zip(path: Path) -> None:
    """Compares the checksums of a file that ``torch.save`` wrote, a zip file; ``torch.load`` does not look at them.

    Raises:
        ValueError: a part of it has another checksum, or it unpacks to far more than it is. Of the format before zip
            files, which has no checksums, nothing is said.
        BadZipFile: it is damaged otherwise.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            _check_size(path, sum(part.file_size for part in archive.infolist()))
            if damaged := archive.testzip():
                raise ValueError(f"{damaged} in it has another checksum")


def _check_size(path: Path, size: int) -> None:
    """Refuses a file that claims many more bytes than it has: memory goes to weights, not to what a file promises."""
    if size > 4 * path.stat().st_size + 2**26:
        raise ValueError(f"it claims {size:,} bytes of numbers, but the file has {path.stat().st_size:,}")


def load_into(module: torch.nn.Module, tensors: Mapping[str, Tensor], source: str | Path, only: str = "") -> None:
    """Gives a module its weights by name, all of them or none.

    Args:
        module: changed in place.
        tensors: by the module's own names.
        source: where they come from, for messages.
        only: load and demand only the names that begin so, such as ``"backbone."``; others keep what they have.

    Raises:
        WeightsError: names are missing or unknown, or a shape or kind of number is another: the weights are for another
            network. Or a number is nan or infinite.
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
