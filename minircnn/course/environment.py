"""Is everything there that the course needs? In plain words, and with a remedy for what is not.

Notebook 00 asks this before anything else. The module itself therefore needs nothing but Python: where a package is
missing, it has to say so, and not to fail for the same reason.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from minircnn.shipped import PROJECT_FOLDER, TOYTOWN_FOLDER

_RUN = "in the project's folder run: "
INSTALL_HINT = _RUN + 'python -m pip install -e ".[course]" (or start the course with: make course)'


@dataclass(frozen=True)
class Check:
    """The outcome of one check: what was looked at and found, and what to do about it, empty where all is well.

    ``state`` is "ok"; "warning": the course works, but not as well as it could; "problem": some notebooks will fail.
    """

    name: str
    state: str
    found: str
    remedy: str = ""


def check_environment(data_folder: Path = TOYTOWN_FOLDER) -> list[Check]:
    """All checks, in the order in which their problems should be solved."""
    checks = [check_python(), *check_packages(), check_torch_pair(), check_data(data_folder), check_cores()]
    return [*checks, *check_room()]


def report(checks: Sequence[Check]) -> str:
    """The checks as a table, each problem with its remedy below it, and a last line that sums up."""
    signs = {"ok": "✓", "warning": "!", "problem": "✗"}
    width = max((len(check.name) for check in checks), default=0)
    lines = []
    for check in checks:
        lines.append(f"{signs[check.state]} {check.name:<{width}}  {check.found}")
        if check.remedy:
            lines.append(f"  {'':<{width}}  → {check.remedy}")
    problems, warnings = (sum(check.state == state for check in checks) for state in ("problem", "warning"))
    last = "Ready: everything that the course needs is here."
    if problems:
        what = f"{problems} problem{'s' * (problems > 1)}"
        last = f"{what}: follow the arrows, then restart the kernel and run this again."
    elif warnings:
        what = f"{warnings} remark{'s' * (warnings > 1)}"
        last = f"Ready, with {what}: the course works, see the arrows for what to expect."
    return "\n".join([*lines, "", last])


def check_python(version: tuple[int, ...] = tuple(sys.version_info[:3]), required: str | None = None) -> Check:
    """Whether this Python is one that the project supports; the installed project states which are."""
    found = ".".join(map(str, version))
    try:
        from packaging.specifiers import SpecifierSet

        required = required or metadata.metadata("minircnn")["Requires-Python"]
    except (ImportError, metadata.PackageNotFoundError):
        return Check("Python", "problem", f"{found}; the range cannot be read", INSTALL_HINT)
    if SpecifierSet(required).contains(found):
        return Check("Python", "ok", f"{found} (needs {required})")
    remedy = "install a Python of that range, delete the folder .venv, and start again with: make course"
    return Check("Python", "problem", f"{found}, but the project needs {required}", remedy)


def check_packages(
    requirements: Sequence[str] | None = None, installed: Callable[[str], str] = metadata.version
) -> list[Check]:
    """Whether what the installed project and its extra "course" require is there, in a version of the stated range."""
    try:
        from packaging.requirements import Requirement

        wanted = [Requirement(text) for text in requirements or metadata.requires("minircnn") or []]
    except metadata.PackageNotFoundError:  # before ImportError, of which it is a kind
        return [Check("minircnn", "problem", "not installed for this Python", INSTALL_HINT)]
    except ImportError:
        return [Check("packages", "problem", "the package 'packaging' is missing", INSTALL_HINT)]
    needed = [r for r in wanted if r.marker is None or r.marker.evaluate({"extra": "course"})]
    return [_check_package(r.name, r.specifier, installed) for r in needed]


def _check_package(name: str, accepted: object, installed: Callable[[str], str]) -> Check:
    remedy = f'{_RUN}python -m pip install "{name}{accepted}"'
    try:
        version = installed(name)
    except metadata.PackageNotFoundError:
        return Check(name, "problem", f"not installed, needs {accepted or 'any version'}", remedy)
    if accepted.contains(version, prereleases=True):
        return Check(name, "ok", f"{version} (needs {accepted})" if accepted else version)
    return Check(name, "problem", f"{version}, but the course needs {accepted}", remedy)


def _call_torchvision() -> None:
    """One of torchvision's compiled operations, on two boxes of which the second repeats the first."""
    import torch
    import torchvision

    kept = torchvision.ops.nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]] * 2), torch.tensor([0.9, 0.8]), 0.5)
    if kept.tolist() != [0]:
        raise RuntimeError(f"torchvision.ops.nms kept {kept.tolist()} instead of [0]")


def check_torch_pair(load: Callable[[], None] = _call_torchvision) -> Check:
    """Whether torch and torchvision work together: their compiled parts have to be made for each other."""
    name = "torch with torchvision"
    try:
        load()
    except ImportError as error:
        return Check(name, "problem", f"cannot be imported: {_first_line(error)}", INSTALL_HINT)
    except (RuntimeError, OSError, AttributeError) as error:
        remedy = "install both anew and together: python -m pip install --force-reinstall torch torchvision"
        return Check(name, "problem", f"do not fit each other: {_first_line(error)}", remedy)
    return Check(name, "ok", "both load, and torchvision's compiled operations answer")


def check_data(folder: Path) -> Check:
    """Whether Toy Town is there, complete and unchanged."""
    remedy = "in the project's folder: git checkout -- data/toytown (and delete what does not belong there)"
    if not folder.is_dir():
        return Check("Toy Town", "problem", f"there is no folder {folder}", remedy)
    try:
        from minircnn.datasets.toytown import check_checksums

        faults = check_checksums(folder)
    except ImportError as error:
        return Check("Toy Town", "problem", f"not checked: {_first_line(error)}", INSTALL_HINT)
    except FileNotFoundError as error:
        return Check("Toy Town", "problem", _first_line(error), remedy)
    if not faults:
        return Check("Toy Town", "ok", "all files are there, with the right checksums")
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return Check("Toy Town", "problem", faults[0] + more, remedy)


def available_cores() -> int:
    """The cores that this process may use, which in a container can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_cores() -> Check:
    """Whether there are the two cores that the stated minutes of the notebooks assume."""
    cores, remedy = available_cores(), "nothing to do: notebooks take up to twice the stated minutes"
    return Check("processor cores", *(("ok", f"{cores}") if cores >= 2 else ("warning", f"{cores}", remedy)))


def check_room() -> list[Check]:
    """Whether 3 GB of memory are free, asked through psutil, which Jupyter brings along, and one on the disk."""
    disk = _check_size("free disk space", shutil.disk_usage(PROJECT_FOLDER).free, 1, "delete what you no longer need")
    try:
        import psutil
    except ImportError:
        return [Check("free memory", "ok", "not known"), disk]
    remedy = "close other programs, and shut down notebooks that you have finished (menu Kernel)"
    return [_check_size("free memory", psutil.virtual_memory().available, 3, remedy), disk]


def _check_size(name: str, size: int, gigabytes: int, remedy: str) -> Check:
    found = f"{size / 1024**3:.1f} GB"
    if size >= gigabytes * 1024**3:
        return Check(name, "ok", found)
    return Check(name, "warning", f"{found}, {gigabytes} GB {'are' if gigabytes > 1 else 'is'} comfortable", remedy)


def _first_line(error: Exception) -> str:
    """What an error says, in one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
