"""Is everything there that the course needs? In plain words, and with a remedy for what is not.

Notebook 00 asks this before anything else. The module itself therefore needs nothing but Python: where a package is
missing, it has to say so, and not to fail for the same reason. Every check takes what it looks at as an argument, so
that tests can show it a broken machine.
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

INSTALL = 'python -m pip install -e ".[course]"'
INSTALL_HINT = f"in the project's folder run: {INSTALL} (or start the course with: make course)"
GIGABYTE = 1024**3


@dataclass(frozen=True)
class Check:
    """The outcome of one check.

    Attributes:
        name: What was looked at.
        state: "ok"; "warning": the course works, but not as well as it could; "problem": some notebooks will fail.
        found: What was found.
        remedy: What to do about it; empty where all is well.
    """

    name: str
    state: str
    found: str
    remedy: str = ""


def check_environment(data_folder: Path | None = None) -> list[Check]:
    """All checks, in the order in which their problems should be solved.

    Args:
        data_folder: Folder of Toy Town; by default the one in the clone that this package is installed from.
    """
    folder = data_folder or TOYTOWN_FOLDER
    return [
        check_python(),
        *check_packages(),
        check_torch_pair(),
        check_data(folder),
        check_cores(),
        check_memory(),
        check_disk(PROJECT_FOLDER),
    ]


def report(checks: Sequence[Check]) -> str:
    """The checks as a table, each problem with its remedy below it, and a last line that sums up."""
    signs = {"ok": "✓", "warning": "!", "problem": "✗"}
    width = max((len(check.name) for check in checks), default=0)
    lines = []
    for check in checks:
        lines.append(f"{signs[check.state]} {check.name:<{width}}  {check.found}")
        if check.remedy:
            lines.append(f"  {'':<{width}}  → {check.remedy}")
    return "\n".join([*lines, "", summary(checks)])


def summary(checks: Sequence[Check]) -> str:
    """One line: how many checks found something, and what that means."""
    problems = sum(check.state == "problem" for check in checks)
    warnings = sum(check.state == "warning" for check in checks)
    if problems:
        return (
            f"{problems} problem{'s' * (problems > 1)}: follow the arrows, then restart the kernel and run this again."
        )
    if warnings:
        return (
            f"Ready, with {warnings} remark{'s' * (warnings > 1)}: the course works, see the arrows for what to expect."
        )
    return "Ready: everything that the course needs is here."


def check_python(version: tuple[int, ...] | None = None, required: str | None = None) -> Check:
    """Whether this Python is one that the project supports.

    Args:
        version: (major, minor, micro); by default this one's.
        required: Such as ">=3.10,<3.14"; by default what the installed project states.
    """
    version = version or tuple(sys.version_info[:3])
    found = ".".join(map(str, version))
    try:
        from packaging.specifiers import SpecifierSet

        required = required or metadata.metadata("minircnn")["Requires-Python"]
    except (ImportError, metadata.PackageNotFoundError):
        return Check("Python", "problem", f"{found}; the range cannot be read", INSTALL_HINT)
    if SpecifierSet(required).contains(found):
        return Check("Python", "ok", f"{found} (needs {required})")
    return Check(
        "Python",
        "problem",
        f"{found}, but the project needs {required}",
        "install a Python of that range, delete the folder .venv, and start again with: make course",
    )


def check_packages(
    requirements: Sequence[str] | None = None, installed: Callable[[str], str] = metadata.version
) -> list[Check]:
    """Whether each package that the course needs is installed, in a version of the stated range.

    Args:
        requirements: As in pyproject.toml, such as ``["torch>=2.1"]``; by default those of the installed project and of
            its extra "course".
        installed: Gives the version of a package or raises ``PackageNotFoundError``.

    Returns:
        One check for each package.
    """
    try:
        from packaging.requirements import Requirement

        wanted = [Requirement(text) for text in (_requirements() if requirements is None else requirements)]
    except metadata.PackageNotFoundError:  # before ImportError, of which it is a kind
        return [Check("minircnn", "problem", "not installed for this Python", INSTALL_HINT)]
    except ImportError:
        return [Check("packages", "problem", "the package 'packaging' is missing", INSTALL_HINT)]
    needed = [r for r in wanted if r.marker is None or r.marker.evaluate({"extra": "course"})]
    return [_check_package(r.name, r.specifier, installed) for r in needed]


def check_torch_pair(load: Callable[[], None] | None = None) -> Check:
    """Whether torch and torchvision work together: their compiled parts have to be made for each other.

    Args:
        load: Raises if they do not; by default it imports both and calls one of torchvision's compiled operations.
    """
    name = "torch with torchvision"
    try:
        (load or _call_torchvision)()
    except ImportError as error:
        return Check(name, "problem", f"cannot be imported: {_first_line(error)}", INSTALL_HINT)
    except (RuntimeError, OSError, AttributeError) as error:
        return Check(
            name,
            "problem",
            f"do not fit each other: {_first_line(error)}",
            "install both anew and together: python -m pip install --force-reinstall torch torchvision",
        )
    return Check(name, "ok", "both load, and torchvision's compiled operations answer")


def check_data(folder: Path, verify: Callable[[Path], list[str]] | None = None) -> Check:
    """Whether Toy Town is there, complete and unchanged.

    Args:
        folder: Its folder.
        verify: Gives a line for each file that is missing or changed; by default it compares the checksums.
    """
    remedy = "in the project's folder: git checkout -- data/toytown (and delete what does not belong there)"
    if not folder.is_dir():
        return Check("Toy Town", "problem", f"there is no folder {folder}", remedy)
    try:
        if verify is None:
            from minircnn.datasets.toytown import check_checksums as verify
        faults = verify(folder)
    except ImportError as error:
        return Check("Toy Town", "problem", f"not checked: {_first_line(error)}", INSTALL_HINT)
    except FileNotFoundError as error:
        return Check("Toy Town", "problem", _first_line(error), remedy)
    if not faults:
        return Check("Toy Town", "ok", "all files are there, with the right checksums")
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return Check("Toy Town", "problem", faults[0] + more, remedy)


def check_cores(cores: int | None = None) -> Check:
    """Whether there are the two cores that the stated minutes of the notebooks assume."""
    cores = available_cores() if cores is None else cores
    if cores >= 2:
        return Check("processor cores", "ok", f"{cores}")
    return Check(
        "processor cores", "warning", f"{cores}", "nothing to do: notebooks take up to twice the stated minutes"
    )


def available_cores() -> int:
    """The cores that this process may use, which in a container can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_memory(available: int | None = None) -> Check:
    """Whether about 3 GB of memory are free.

    Args:
        available: In bytes; by default asked of the system, through psutil, which Jupyter brings along.
    """
    if available is None:
        try:
            import psutil
        except ImportError:
            return Check("free memory", "ok", "not known")
        available = psutil.virtual_memory().available
    found = f"{available / GIGABYTE:.1f} GB"
    if available >= 3 * GIGABYTE:
        return Check("free memory", "ok", found)
    return Check(
        "free memory",
        "warning",
        f"{found}, 3 GB are comfortable",
        "close other programs, and shut down notebooks that you have finished (menu Kernel)",
    )


def check_disk(folder: Path, free: int | None = None) -> Check:
    """Whether the disk has room for a gigabyte of weights and results; ``free`` in bytes, by default asked."""
    free = shutil.disk_usage(folder).free if free is None else free
    found = f"{free / GIGABYTE:.1f} GB"
    if free >= GIGABYTE:
        return Check("free disk space", "ok", found)
    return Check("free disk space", "warning", f"{found}, 1 GB is comfortable", "delete what you no longer need")


def _requirements() -> list[str]:
    """What the installed project needs, extras included, as written in pyproject.toml when it was installed."""
    return metadata.requires("minircnn") or []


def _check_package(name: str, accepted: object, installed: Callable[[str], str]) -> Check:
    """One package against its range (a ``packaging.specifiers.SpecifierSet``)."""
    remedy = f'in the project\'s folder run: python -m pip install "{name}{accepted}"'
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

    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]])
    kept = torchvision.ops.nms(boxes, torch.tensor([0.9, 0.8]), 0.5)
    if kept.tolist() != [0]:
        raise RuntimeError(f"torchvision.ops.nms kept {kept.tolist()} instead of [0]")


def _first_line(error: Exception) -> str:
    """What an error says, in one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
