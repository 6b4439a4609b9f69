"""The program as a whole: ``python -m minircnn`` in a process of its own, Ctrl-C, its help, and its errors."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import BrokenExecutor

import pytest
import torch
import typer
from typer.testing import CliRunner

from minircnn.cli.common import OneLineErrors, RefusedError, ready_device
from minircnn.files import write_json
from minircnn.shipped import TOYTOWN_FOLDER

PROGRAM = [sys.executable, "-m", "minircnn"]


def environment(**changes):
    return {**os.environ, "PYTHONUTF8": "1", "OMP_NUM_THREADS": "1", **changes}


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")
def test_ctrl_c_is_one_line_and_names_may_have_letters_that_the_output_cannot_take(tmp_path):
    """As a terminal sends it: to the program and to the processes that it has started."""
    out = tmp_path / "日本 ü.safetensors"
    out.with_suffix(".checkpoint").touch()
    arguments = ("train", "rcnn", "--from-scratch", "--images", "2", "--max-proposals", "10", "--out", str(out))
    with subprocess.Popen(
        [*PROGRAM, *arguments, "--iterations", "100000"],
        env=environment(PYTHONUNBUFFERED="1", PYTHONIOENCODING="cp1252"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        # A shell that runs the tests in the background makes its children deaf to Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        try:
            first = process.stdout.readline()
            while (line := process.stdout.readline()) and not line.startswith(b"1 of 3"):
                pass
            os.killpg(process.pid, signal.SIGINT)
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()  # if it does not stop: the test has to
    assert b"\\u65e5\\u672c \xfc.checkpoint: the state of an unfinished run will be replaced" in first
    assert errors.splitlines() == [b"Stopped. With --resume the same command goes on from there."]
    assert process.returncode == 130
    assert not list(tmp_path.glob("*.safetensors"))


OWN = ("--data", "coco", "--root", ".", "--annotations")
NEW = ("--out", "x.safetensors")
NONE = "x.jpg may not be written into"
WEIGHTS = {"train": "--network", "evaluate": "--weights", "detect": "--weights"}
EARLY = [
    *[([*words.split(), "--help"], 0, "Usage: ") for words in ("", "train", "evaluate", "detect", "data", "demo")],
    *[([words], 2, "Usage: ") for words in ("train", "evaluate", "detect", "data")],
    *[([*words.split(), "nonsense"], 2, "No such command") for words in ("", "data")],
    *[([words, "nonsense"], 2, "is not one of 'rcnn', 'fast_rcnn', 'faster_rcnn'") for words in ("train", "evaluate")],
    *[([*words.split(), "--nonsense"], 2, "No such option") for words in ("train rcnn", "evaluate rcnn", "detect x")],
    (["demo", "--out", "x.jpg/x"], 2, NONE),
    (["data", "check", "nonsense"], 2, "there is no 'nonsense'"),
    (["data", "check", "voc", "--root", "none"], 1, "there is no such folder"),
    (["data", "check", "toytown", "--out", "x.jpg"], 2, "let the name end in .png"),
    (["data", "check", "toytown", "--split", "trian"], 2, "this command takes only train or val or test of Toy Town"),
    (["data", "check", "coco"], 2, "--root: coco needs one"),
    (["evaluate", "rcnn", "--split", "train"], 2, "--split train: this command takes only val or test of Toy Town"),
    (["evaluate", "rcnn", "--errors", "x.jpg"], 2, "let the name end in .png"),
    (["detect", "rcnn", "x.jpg", "--threshold", "nan"], 2, "--threshold nan: this is no number"),
    (["train", "rcnn", "--learning-rate", "nan"], 2, "nan is no positive number"),
    (["train", "mask_rcnn", *OWN[:2]], 2, "--root: coco needs one: the folder of the "),
    (["train", "mask_rcnn", *OWN[:4]], 2, "--annotations: coco needs the JSON file"),
    (["train", "mask_rcnn", "--split", "val"], 2, "--split val: this command takes only train of Toy Town"),
    (["train", "rcnn", "--classes", "person"], 2, "--out FILE: say where to write; "),
    (["detect", "rcnn"], 2, "rcnn: name images, or folders of them"),
    (["detect", "none.jpg"], 1, "none.jpg: skipped: there is no such file"),
    (["detect", "x.jpg", "--out", "x.jpg/x"], 2, NONE),
    (["detect", "x.jpg", "--threshold", "1.5"], 2, "this is no probability"),
    (["detect", "x.jpg", "--max-proposals", "5"], 2, "mask_rcnn has no such option"),
    (["train", "rcnn", "--min-size", "9"], 2, "rcnn has no such option"),
    *[
        ([*command, *arguments], status, message)
        for command in (["train", "rcnn", *NEW], ["evaluate", "mask_rcnn"], ["detect", "x.jpg"])
        for arguments, status, message in [
            ([WEIGHTS[command[0]], "none.pth"], 1, "there is no such file"),
            *[(["--json", "x.jpg/x.json"], 2, NONE)] * (command[0] != "train"),
            *[(["--data", "nonsense"], 2, "there is no 'nonsense'")] * (command[0] != "detect"),
            *[([*OWN, "none.json"], 1, "there is no such annotation file")] * (command[0] != "detect"),
            *[(["--split", "nonsense"], 2, "--split nonsense")] * (command[0] != "detect"),
        ]
    ],
    *[
        (["train", "mask_rcnn", *NEW, *arguments], 2, message)
        for arguments, message in [
            (["--out", "x.jpg/x.safetensors"], NONE),
            (["--out", "x.pth"], "give the file that ending"),
            (["--csv", "x.jpg/x.csv"], NONE),
            (["--seed", "99999999999999999999"], "Invalid value for "),
            (["--learning-rate", "-1"], "is no positive number"),
            (["--min-size", "100000"], "Invalid value for "),
            (["--schedule", "nonsense"], "Invalid value for "),
            (["--mixed-precision"], "needs an NVIDIA GPU"),
        ]
    ],
]
ANSWERS = """
import json, sys
from typer.testing import CliRunner
from minircnn.cli import app
answers, heavy = [], {"torch", "sklearn", "skimage", "matplotlib"}
for arguments in json.load(sys.stdin):
    before = {*sys.modules}
    result = CliRunner().invoke(app, arguments)
    answers.append([result.exit_code, result.output, sorted(heavy & {*sys.modules} - before)])
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """What one process that has imported nothing else says to all of them, and what it imported for it."""
    folder = tmp_path_factory.mktemp("early")
    shutil.copy(TOYTOWN_FOLDER / "test" / "000001.jpg", folder / "x.jpg")
    asked = json.dumps([arguments for arguments, _, _ in EARLY])
    options = {"cwd": folder, "env": environment(), "capture_output": True, "text": True}
    process = subprocess.run([sys.executable, "-c", ANSWERS], input=asked, **options)
    assert process.returncode == 0, process.stderr
    assert [path.name for path in folder.iterdir()] == ["x.jpg"]
    return json.loads(process.stdout)


@pytest.mark.parametrize("index", range(len(EARLY)), ids=[" ".join(arguments) for arguments, _, _ in EARLY])
def test_neither_help_nor_a_refusal_waits_for_large_packages(answers, index):
    _, status, message = EARLY[index]
    exit_code, output, imported = answers[index]
    assert exit_code == status and message in " ".join(output.split())
    assert "Traceback" not in output and imported == []


def failing_with(error, command="train"):
    """A program whose commands fail."""

    def fail():
        raise error

    program = typer.Typer(cls=OneLineErrors, pretty_exceptions_enable=False)
    for name in ("train", "detect"):
        program.command(name)(fail)
    return CliRunner().invoke(program, [command])


NO_MEMORY = "there is not enough memory for this; smaller images and batches need less"


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (RefusedError("x: y"), 2, "Error: x: y"),
        *[(kind("x: y"), 1, "Error: x: y") for kind in (ValueError, FileNotFoundError, FloatingPointError)],
        (OSError(errno.ENOSPC, "No space", "x"), 1, "Error: x: No space"),
        (MemoryError(), 1, f"Error: {NO_MEMORY}"),
        (torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."), 1, f"Error: {NO_MEMORY}"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to …"), 1, f"Error: {NO_MEMORY}"),
        (BrokenExecutor(), 1, "Error: a worker process was ended, perhaps for lack of memory; try it again"),
        (KeyboardInterrupt(), 130, "Stopped. With --resume the same command goes on from there."),
        (BrokenPipeError(errno.EPIPE, "x"), 1, ""),  # ``minircnn … | head`` ends quietly
    ],
)
def test_errors_that_are_expected_are_one_line(error, status, message):
    """Only a training can be resumed. Faults of the program keep their traceback."""
    result = failing_with(error)
    assert (result.exit_code, result.stdout, result.stderr) == (status, "", message and f"{message}\n")
    assert failing_with(KeyboardInterrupt(), "detect").stderr == "Stopped.\n"
    bug = RuntimeError("bug")
    assert failing_with(bug).exception is bug


@pytest.mark.parametrize("name", ["cuda:77", "meta", "toaster", "", "mps"])
@pytest.mark.skipif(sys.platform == "darwin", reason="mps may be there")
def test_device_that_is_not_there(name):
    with pytest.raises(RefusedError, match=rf"^--device {name}: not on this machine \(.*\); try --device cpu$"):
        ready_device(name)


def test_json_is_valid_also_without_numbers(tmp_path):
    write_json(tmp_path / "x.json", {"a": [1.5, float("nan"), {"b": float("nan")}], "c": (True, None, "ü"), "d": 0})
    text = (tmp_path / "x.json").read_text(encoding="utf-8")
    assert "NaN" not in text
    assert json.loads(text) == {"a": [1.5, None, {"b": None}], "c": [True, None, "ü"], "d": 0}
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "y.json", {"a": float("inf")})
    assert not (tmp_path / "y.json").exists()
