"""The program as a whole: ``python -m minircnn`` in a process of its own, its help, its errors, and Ctrl-C."""

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys

import pytest
import torch
import typer
from typer.testing import CliRunner

from minircnn.cli.options import OneLineErrors, RefusedError, as_command, ready_device
from minircnn.files import write_json
from minircnn.shipped import TOYTOWN_FOLDER

PROGRAM = [sys.executable, "-m", "minircnn"]


def environment(**changes):
    return {**os.environ, "PYTHONUTF8": "1", "OMP_NUM_THREADS": "1", **changes}


def run(folder, *arguments, **changes):
    return subprocess.run(
        [*PROGRAM, *map(str, arguments)], cwd=folder, env=environment(**changes), capture_output=True, check=False
    )


def test_names_may_have_letters_that_the_output_cannot_take(tmp_path):
    """A pipe on Windows has the letters of one part of the world, and names come from all of it."""
    shutil.copy(TOYTOWN_FOLDER / "test" / "000001.jpg", tmp_path / "日本 ü.jpg")
    (tmp_path / "日.jpg").write_bytes(b"no image")
    result = run(tmp_path, "detect", "faster_rcnn", ".", "--out", "x.png", PYTHONIOENCODING="cp1252")
    assert result.returncode == 1
    *found, last = result.stdout.splitlines()
    assert found
    assert all(re.fullmatch(rb"\\u65e5\\u672c \xfc\.jpg: \w+ \d\.\d\d at( [0-9.]+){4}", line) for line in found)
    assert last == b"written to x.png"
    assert result.stderr.startswith(b"\\u65e5.jpg: skipped: the image cannot be decoded")
    assert len(result.stderr.splitlines()) == 1
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")
def test_ctrl_c_is_one_line(tmp_path):
    """As a terminal sends it: to the program and to the processes that it has started."""
    arguments = ("train", "rcnn", "--from-scratch", "--images", "4", "--max-proposals", "10")
    with subprocess.Popen(
        [*PROGRAM, *arguments, "--iterations", "100000", "--out", "x.safetensors"],
        cwd=tmp_path,
        env=environment(PYTHONUNBUFFERED="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell that runs the tests in the background makes its children deaf to Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        try:
            while (line := process.stdout.readline()) and not line.startswith("1 of 3"):
                pass
            os.killpg(process.pid, signal.SIGINT)
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()  # if it does not stop: the test has to
    assert process.returncode == 130
    assert errors == "Stopped. With --resume the same command goes on from there.\n"
    assert not list(tmp_path.glob("*.safetensors"))


OWN = ("--data", "coco", "--root", ".", "--annotations")
NEW = ("--out", "x.safetensors")
NONE = "the folder none does not exist"
EARLY = [
    *[([*words.split(), "--help"], 0, "Usage: ") for words in ("", "train", "evaluate", "detect", "data", "demo")],
    *[([words], 2, "Usage: ") for words in ("train", "evaluate", "detect", "data")],
    *[([*words.split(), "nonsense"], 2, "No such command") for words in ("", "data")],
    *[([words, "nonsense"], 2, "is not one of 'rcnn', 'fast_rcnn', 'faster_rcnn'") for words in ("train", "evaluate")],
    *[([*words.split(), "--nonsense"], 2, "No such option") for words in ("train rcnn", "evaluate rcnn", "detect x")],
    (["demo", "--out", "none/x"], 2, NONE),
    (["data", "check", "nonsense"], 1, "there is no 'nonsense'"),
    (["data", "check", "coco", *OWN[2:], "none.json"], 1, "there is no such annotation file"),
    (["data", "check", "voc", "--root", "none"], 1, "there is no such folder"),
    (["data", "check", "toytown", "--out", "x.jpg"], 2, "let the name end in .png"),
    (["data", "fetch", "nonsense"], 2, "there is no 'nonsense' to fetch"),
    (["detect", "rcnn"], 2, "rcnn: name images, or folders of them"),
    (["detect", "none.jpg"], 1, "none.jpg: skipped: there is no such file"),
    (["detect", "x.jpg", "--out", "none/x"], 2, NONE),
    (["detect", "x.jpg", "--threshold", "1.5"], 2, "this is no probability"),
    (["detect", "x.jpg", "--max-proposals", "5"], 2, "mask_rcnn has no such option"),
    (["train", "rcnn", "--features", "fc9"], 2, "Invalid value for "),
    (["train", "rcnn", "--min-size", "9"], 2, "rcnn has no such option"),
    *[
        ([*command, *arguments], status, message)
        for command in (["train", "rcnn", *NEW], ["evaluate", "mask_rcnn"], ["detect", "x.jpg"])
        for arguments, status, message in [
            (["--weights", "none.pth"], 1, "there is no such file"),
            (["--weights", "x.jpg"], 1, "weights end in .safetensors, .npz, .pth or .pt"),
            *[(["--json", "none/x.json"], 2, NONE)] * (command[0] != "train"),
            *[(["--data", "nonsense"], 2, "there is no 'nonsense'")] * (command[0] != "detect"),
            *[([*OWN, "none.json"], 1, "there is no such annotation file")] * (command[0] != "detect"),
            *[(["--split", "nonsense"], 2, "--split nonsense")] * (command[0] != "detect"),
        ]
    ],
    *[
        (["train", "mask_rcnn", *NEW, *arguments], 2, message)
        for arguments, message in [
            (["--out", "none/x.safetensors"], NONE),
            (["--out", "x.pth"], "give the file that ending"),
            (["--csv", "none/x.csv"], NONE),
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
    process = subprocess.run(
        [sys.executable, "-c", ANSWERS], input=asked, cwd=folder, env=environment(), capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr
    assert [path.name for path in folder.iterdir()] == ["x.jpg"]
    return json.loads(process.stdout)


@pytest.mark.parametrize("index", range(len(EARLY)), ids=[" ".join(arguments) for arguments, _, _ in EARLY])
def test_neither_help_nor_a_refusal_waits_for_large_packages(answers, index):
    _, status, message = EARLY[index]
    exit_code, output, imported = answers[index]
    assert exit_code == status and message in " ".join(output.split())
    assert "Traceback" not in output and imported == []


# ------------------------------------------------------------------------------------------------------------ errors


def failing_with(error, arguments=("train",)):
    """A program whose commands fail."""
    program = typer.Typer(cls=OneLineErrors, pretty_exceptions_enable=False)

    @program.command()
    def train():
        raise error

    @program.command()
    def detect():
        raise error

    return CliRunner().invoke(program, list(arguments))


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (RefusedError("x: y"), 2),
        (ValueError("x: y"), 1),
        (FileNotFoundError("x: y"), 1),
        (PermissionError("x: y"), 1),
        (FloatingPointError("x: y"), 1),
    ],
)
def test_errors_that_are_expected_are_one_line(error, status):
    result = failing_with(error)
    assert (result.exit_code, result.stdout, result.stderr) == (status, "", "Error: x: y\n")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."),  # of Linux
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),  # of other systems
    ],
)
def test_a_lack_of_memory_is_one_line(error):
    result = failing_with(error)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "Error: there is not enough memory for this; smaller images and batches need less\n"


def test_a_worker_that_was_killed_is_one_line(tmp_path):
    """Selective search in processes of joblib, one of which ends as the kernel ends it for lack of memory."""
    code = (
        "import os, signal, sys, torch\n"
        "from minircnn.cli import app\nimport minircnn.selective_search as stored\n"
        "stored._search = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "app(['train', 'rcnn', '--from-scratch', '--images', '4', '--iterations', '0', '--out', 'x.safetensors'])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment(), capture_output=True, text=True
    )
    assert result.returncode == 1
    assert result.stderr == "Error: a worker process was ended, perhaps for lack of memory; try it again\n"


@pytest.mark.parametrize("error", [TypeError("bug"), RuntimeError("bug"), KeyError("bug"), AssertionError("bug")])
def test_faults_of_the_program_keep_their_traceback(error):
    assert failing_with(error).exception is error


def test_interrupts_say_how_to_go_on_where_that_is_possible():
    result = failing_with(KeyboardInterrupt())
    assert (result.exit_code, result.stderr) == (130, "Stopped. With --resume the same command goes on from there.\n")
    result = failing_with(KeyboardInterrupt(), ["detect"])
    assert (result.exit_code, result.stderr) == (130, "Stopped.\n")


def test_output_that_nobody_reads_any_more_is_no_error_of_ours():
    """``minircnn … | head`` ends quietly."""
    result = failing_with(BrokenPipeError(errno.EPIPE, "x"))
    assert (result.exit_code, result.stderr) == (1, "")


# ----------------------------------------------------------------------------------------------------------- options


def test_device_that_is_there():
    assert str(ready_device("cpu")) == "cpu"


@pytest.mark.parametrize("name", ["cuda:77", "meta", "toaster", "", "cpu:x", "mps"])
@pytest.mark.skipif(sys.platform == "darwin", reason="mps may be there")
def test_device_that_is_not_there(name):
    with pytest.raises(RefusedError, match=rf"^--device {name}: not on this machine \(.*\); try --device cpu$"):
        ready_device(name)


def test_the_name_of_an_option_has_hyphens():
    assert as_command("train x", {"max_proposals": 3}) == "minircnn train x --max-proposals 3"


def test_json_is_valid_also_without_numbers(tmp_path):
    write_json(tmp_path / "x.json", {"a": [1.5, float("nan"), {"b": float("nan")}], "c": (True, None, "ü"), "d": 0})
    text = (tmp_path / "x.json").read_text(encoding="utf-8")
    assert "NaN" not in text
    assert json.loads(text) == {"a": [1.5, None, {"b": None}], "c": [True, None, "ü"], "d": 0}
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "y.json", {"a": float("inf")})
    assert not (tmp_path / "y.json").exists()
