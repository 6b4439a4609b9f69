"""The environment check is shown broken machines, and has to say what is wrong and what to do."""

import os
import subprocess
import sys
from importlib import metadata
from unittest.mock import Mock

from minircnn.course import environment
from minircnn.course.environment import Check, check_data, check_packages, check_python, check_torch_pair, report
from minircnn.datasets import toytown
from minircnn.files import sha256


def versions(**known):
    """A machine on which just these packages are installed."""
    return lambda name: known[name] if name in known else raising(metadata.PackageNotFoundError(name))()


def raising(error):
    return Mock(side_effect=error)


def test_python_and_packages():
    for version, state in (((3, 9, 18), "problem"), ((3, 13, 11), "ok"), ((3, 14, 0), "problem")):
        check = check_python(version, ">=3.10,<3.14")
        assert check.state == state and (".venv" in check.remedy) == (state == "problem")
        assert ".".join(map(str, version)) in check.found and "<3.14" in check.found
    requirements = ["torch>=2.1", "numpy>=1.24,<3", "tqdm", 'jupyterlab>=4; extra == "course"', 'ruff; extra == "test"']
    checks = check_packages(requirements, versions(torch="1.13.1+cpu", numpy="2.4.6", tqdm="4.64.0"))
    names, states = ["torch", "numpy", "tqdm", "jupyterlab"], ["problem", "ok", "ok", "problem"]
    assert ([check.name for check in checks], [check.state for check in checks]) == (names, states)
    assert checks[0].found == "1.13.1+cpu, but the course needs >=2.1"
    assert checks[0].remedy.endswith('pip install "torch>=2.1"')
    assert checks[3].found == "not installed, needs >=4"
    for version in ("2.15.0+cpu", "2.16.0.dev20270101"):
        assert check_packages(["torch>=2.1"], versions(torch=version))[0].state == "ok"


def test_a_project_that_is_not_installed(monkeypatch):
    monkeypatch.setattr(metadata, "requires", raising(metadata.PackageNotFoundError("minircnn")))
    (check,) = check_packages()
    assert (check.name, check.state) == ("minircnn", "problem") and 'pip install -e ".[course]"' in check.remedy


def test_torch_and_torchvision_that_do_not_fit():
    for error, found, remedy in (
        (ModuleNotFoundError("No module named 'torch'"), "No module named 'torch'", ".[course]"),
        (OSError("libcudart: cannot open\nmore"), "do not fit each other: libcudart: cannot open", "--force"),
    ):
        check = check_torch_pair(raising(error))
        assert check.state == "problem" and check.found.endswith(found) and remedy in check.remedy


def test_data_missing_changed_and_complete(tmp_path, monkeypatch):
    missing, no_list = check_data(tmp_path / "toytown"), check_data(tmp_path)
    assert missing.state == no_list.state == "problem"
    assert "no folder" in missing.found and "git checkout" in missing.remedy and "SHA256SUMS" in no_list.found
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(b"pixels")
    lines = [f"{sha256(tmp_path / name)}  {name}\n" for name in ("a.jpg", "b.jpg")]
    (tmp_path / "SHA256SUMS").write_text("".join(lines), encoding="utf-8")
    assert check_data(tmp_path).state == "ok"
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(b"pixelz")
    changed = check_data(tmp_path)
    assert changed.state == "problem" and "a.jpg" in changed.found and "(and 1 more)" in changed.found
    monkeypatch.setattr(toytown, "check_checksums", raising(ModuleNotFoundError("No module named 'numpy'")))
    unread = check_data(tmp_path)
    assert (unread.state, unread.found) == ("problem", "not checked: No module named 'numpy'")


def test_report_shows_each_remedy_below_its_problem():
    checks = [Check("Python", "ok", "3.12.1"), Check("torch", "problem", "not installed", "install it")]
    assert report(checks).splitlines() == [
        "✓ Python  3.12.1",
        "✗ torch   not installed",
        "          → install it",
        "",
        "1 problem: follow the arrows, then restart the kernel and run this again.",
    ]
    for states, last in ((["ok"], "Ready: everything that the course"), (["warning"] * 2, "Ready, with 2 remarks")):
        assert report([Check("x", state, "y") for state in states]).splitlines()[-1].startswith(last)


def test_everything_is_checked(tmp_path):
    first, *packages = [check.name for check in environment.check_environment(tmp_path)]
    assert first == "Python"
    assert packages[-5:] == ["torch with torchvision", "Toy Town", "processor cores", "free memory", "free disk space"]
    assert {"torch", "torchvision", "scikit-image", "matplotlib", "pycocotools", "jupyterlab"} <= {*packages}
    assert not {*packages} & {"ruff", "nbval", "opencv-contrib-python-headless", "minircnn"}


def test_module_needs_nothing_but_python():
    """Without any installed package (-S: no site-packages) it still says what is missing."""
    code = "from minircnn.course.environment import *; print(report(check_environment()))"
    environ = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    folder, command = environment.PROJECT_FOLDER, [sys.executable, "-S", "-c", code]
    printed = subprocess.run(command, capture_output=True, encoding="utf-8", cwd=folder, env=environ, check=True).stdout
    assert "packaging" in printed
    assert "problems: follow the arrows" in printed
