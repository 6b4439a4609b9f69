"""The environment check is shown broken machines, and has to say what is wrong and what to do."""

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from minircnn.course import environment
from minircnn.course.environment import (
    GIGABYTE,
    Check,
    check_cores,
    check_data,
    check_disk,
    check_memory,
    check_packages,
    check_python,
    check_torch_pair,
    report,
    summary,
)


def versions(**known):
    """A machine on which just these packages are installed."""

    def installed(name):
        if name not in known:
            raise metadata.PackageNotFoundError(name)
        return known[name]

    return installed


def raising(error):
    def call(*_):
        raise error

    return call


@pytest.mark.parametrize("version", [(3, 9, 18), (3, 14, 0)])
def test_python_out_of_range(version):
    check = check_python(version, ">=3.10,<3.14")
    assert check.state == "problem" and ".venv" in check.remedy
    assert ".".join(map(str, version)) in check.found and "<3.14" in check.found


def test_packages_missing_old_and_right():
    requirements = ["torch>=2.1", "numpy>=1.24,<3", "tqdm", 'jupyterlab>=4; extra == "course"', 'ruff; extra == "test"']
    checks = check_packages(requirements, versions(torch="1.13.1+cpu", numpy="2.4.6", tqdm="4.64.0"))
    assert [(check.name, check.state) for check in checks] == [
        ("torch", "problem"),
        ("numpy", "ok"),
        ("tqdm", "ok"),
        ("jupyterlab", "problem"),
    ]
    assert checks[0].found == "1.13.1+cpu, but the course needs >=2.1"
    assert checks[0].remedy.endswith('pip install "torch>=2.1"')
    assert checks[3].found == "not installed, needs >=4"
    for version in ("2.15.0+cpu", "2.16.0.dev20270101"):
        assert check_packages(["torch>=2.1"], versions(torch=version))[0].state == "ok"


def test_packages_by_default_are_those_of_the_project():
    names = {check.name for check in check_packages()}
    assert {"torch", "torchvision", "scikit-image", "matplotlib", "pycocotools", "jupyterlab"} <= names
    assert not names & {"ruff", "nbval", "opencv-contrib-python-headless", "minircnn"}


def test_project_that_is_not_installed(monkeypatch):
    monkeypatch.setattr(environment, "_requirements", raising(metadata.PackageNotFoundError("minircnn")))
    (check,) = check_packages()
    assert (check.name, check.state) == ("minircnn", "problem")
    assert 'pip install -e ".[course]"' in check.remedy


def test_missing_packaging(monkeypatch):
    for name in ("packaging.requirements", "packaging.specifiers"):
        monkeypatch.setitem(sys.modules, name, None)
    assert check_packages()[0].state == "problem"
    assert "packaging" in check_packages()[0].found
    assert check_python().state == "problem"


@pytest.mark.parametrize(
    ("error", "found", "remedy"),
    [
        (ModuleNotFoundError("No module named 'torch'"), "No module named 'torch'", ".[course]"),
        (RuntimeError("operator torchvision::nms does not exist"), "do not fit each other", "--force-reinstall"),
        (OSError("libcudart.so.13: cannot open\nmore"), "libcudart.so.13: cannot open", "--force-reinstall"),
    ],
)
def test_torch_and_torchvision_that_do_not_fit(error, found, remedy):
    check = check_torch_pair(raising(error))
    assert check.state == "problem"
    assert found in check.found
    assert remedy in check.remedy
    assert "\n" not in check.found


def test_data_missing_changed_and_complete(tmp_path):
    missing, no_list = check_data(tmp_path / "toytown"), check_data(tmp_path)
    assert missing.state == no_list.state == "problem"
    assert "no folder" in missing.found and "git checkout" in missing.remedy and "SHA256SUMS" in no_list.found
    changed = check_data(tmp_path, lambda _: ["train/000001.jpg: its content has changed", "val/000002.jpg: missing"])
    assert (changed.state, changed.found) == ("problem", "train/000001.jpg: its content has changed (and 1 more)")
    assert check_data(tmp_path, lambda _: []).state == "ok"
    unread = check_data(tmp_path, raising(ModuleNotFoundError("No module named 'numpy'")))
    assert (unread.state, unread.found) == ("problem", "not checked: No module named 'numpy'")


def test_one_changed_byte_of_the_data_is_found(tmp_path):
    import hashlib

    (tmp_path / "image.jpg").write_bytes(b"pixels")
    digest = hashlib.sha256(b"pixels").hexdigest()
    (tmp_path / "SHA256SUMS").write_text(f"{digest}  image.jpg\n", encoding="utf-8")
    assert check_data(tmp_path).state == "ok"
    (tmp_path / "image.jpg").write_bytes(b"pixelz")
    check = check_data(tmp_path)
    assert check.state == "problem"
    assert "image.jpg" in check.found


@pytest.mark.parametrize(
    ("check", "state"),
    [
        (check_cores(1), "warning"),
        (check_cores(2), "ok"),
        (check_memory(GIGABYTE), "warning"),
        (check_memory(4 * GIGABYTE), "ok"),
        (check_disk(Path(), GIGABYTE // 2), "warning"),
        (check_disk(Path(), 2 * GIGABYTE), "ok"),
        (check_python((3, 13, 11), ">=3.10,<3.14"), "ok"),
    ],
)
def test_small_machines_are_a_remark_only(check, state):
    assert check.state == state
    assert bool(check.remedy) == (state != "ok")


def test_report_shows_each_remedy_below_its_problem():
    checks = [Check("Python", "ok", "3.12.1"), Check("torch", "problem", "not installed", "install it")]
    assert report(checks).splitlines() == [
        "✓ Python  3.12.1",
        "✗ torch   not installed",
        "          → install it",
        "",
        "1 problem: follow the arrows, then restart the kernel and run this again.",
    ]
    ok, warning, problem = (Check("x", state, "y") for state in ("ok", "warning", "problem"))
    assert summary([ok, ok]) == "Ready: everything that the course needs is here."
    assert summary([ok, warning, warning]).startswith("Ready, with 2 remarks")
    assert summary([warning, problem, problem]).startswith("2 problems")


def test_everything_is_checked(tmp_path):
    names = [check.name for check in environment.check_environment(tmp_path)]
    assert names[0] == "Python"
    assert names[-5:] == ["torch with torchvision", "Toy Town", "processor cores", "free memory", "free disk space"]


def test_module_needs_nothing_but_python():
    """Without any installed package (-S: no site-packages) it still says what is missing."""
    code = "from minircnn.course.environment import *; print(report(check_environment()))"
    run = subprocess.run(
        [sys.executable, "-S", "-c", code],
        capture_output=True,
        text=True,
        encoding="utf-8",
        cwd=environment.PROJECT_FOLDER,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        check=True,
    )
    assert "packaging" in run.stdout
    assert "problems: follow the arrows" in run.stdout
