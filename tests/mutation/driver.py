"""Runs tests of a folder again and again, each time in a process of its own that has not yet imported minircnn.

    python tests/mutation/driver.py FOLDER

reads lines of JSON, each a list of tests, and answers each with a line of JSON: what :func:`run_tests` writes, or null
if it did not get so far. Importing PyTorch and others takes most of the time of a small test, and is done once: the
process forks for each line. On systems other than Linux that is not safe with such libraries.
"""

import gc
import importlib
import json
import os
import signal
import sys
from pathlib import Path

import pytest

SLOW = ("torchvision.transforms.v2", "torchvision.models.detection", "sklearn.svm", "nbformat", "hypothesis")
SLOW += ("torch._dynamo", "scipy.ndimage", "skimage.segmentation", "matplotlib.pyplot", "typer.testing")
PATIENCE = 300  # seconds for the tests of one line; a mutant may loop for ever


class Listener:
    """What went wrong in a run of pytest: the names of tests, and of the exceptions that ended them."""

    def __init__(self) -> None:
        self.failures: dict[str, str] = {}

    def pytest_exception_interact(self, call: pytest.CallInfo, report: pytest.TestReport) -> None:
        """An exception, in a test or while tests are collected."""
        asserted = call.excinfo.errisinstance((AssertionError, pytest.fail.Exception))  # the second: of pytest.raises
        self.failures[report.nodeid] = "assertion" if asserted else call.excinfo.exconly()


def run_tests(tests: list[str], answer: Path) -> None:
    """Runs tests of the current folder and writes a file of JSON.

    In it ``status`` is pytest's exit status, ``failures`` says why each test failed: "assertion", or else the
    exception, and ``package`` where minircnn was imported from.
    """
    listener = Listener()
    # Nothing but what the tests need, for each line starts pytest anew.
    options = ["-q", "-x", "-p", "no:cacheprovider", "-p", "no:unraisableexception", "--rootdir", "."]
    options += ["-o", "addopts=--doctest-modules --import-mode=importlib"]
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # hypothesis, a plugin, is there before pytest
    status = pytest.main([*options, *tests], plugins=[listener])
    package = getattr(sys.modules.get("minircnn"), "__file__", "")
    answer.write_text(json.dumps({"status": int(status), "failures": listener.failures, "package": package}))


def fork(tests: list[str], answer: Path) -> None:
    """Calls :func:`run_tests` in a copy of this process."""
    if child := os.fork():
        os.waitpid(child, 0)
        return
    signal.alarm(PATIENCE)  # ends the child; without its answer the test that waits for it fails
    output = os.open("output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1), os.dup2(output, 2)
    try:
        run_tests(tests, answer)
    finally:
        os._exit(0)  # without the parent's clean-up


def main() -> None:
    """Answers lines."""
    os.chdir(sys.argv[1])
    answer = Path("answer.json").absolute()
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    for name in SLOW:
        importlib.import_module(name)
    gc.freeze()  # what is there now is no garbage, so that no child need look through it
    for line in sys.stdin:
        answer.unlink(missing_ok=True)
        fork(json.loads(line), answer)
        print(answer.read_text() if answer.exists() else "null", flush=True)
    os._exit(0)  # without what libraries that were never used say in the end


if __name__ == "__main__":
    main()
