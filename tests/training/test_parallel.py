"""Training in two processes that torchrun starts, beside one process with the same batches.

The functions whose names begin with ``in_each_`` are what the processes run; what they find, they leave in files.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from minircnn.training import (
    LoopSettings,
    fit,
    from_main,
    is_main,
    main_first,
    parallel,
    processes,
    rank,
    share,
    world_size,
)

SETTINGS = LoopSettings(20, 0.02, seed=2)
BATCH = 6


class Counted(dict):
    """Losses that say of how many examples each is the mean."""

    def __init__(self, losses, counts):
        super().__init__(losses)
        self.counts = counts


def network():
    torch.manual_seed(11 + rank())  # the processes begin with different weights, and those of the main one count
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    model[0].bias.requires_grad = False
    return model


def example(iteration, number):
    """Drawn with a generator of its own. About a third of the examples are positive."""
    random = torch.Generator().manual_seed(1000 * iteration + number)
    return torch.randn(4, generator=random), torch.rand(1, generator=random).item() < 0.35


def losses_of(model, counted=True, seen=None, **failures):
    """The first output learns from all examples, the second from positive ones only."""

    def losses(iteration):
        if iteration in failures.get("interrupt", ()):
            raise KeyboardInterrupt
        batch = torch.randperm(100)[:BATCH].tolist()  # of torch's global generator: the same in all processes
        x, positive = zip(*(example(iteration, number) for number in share(batch)), strict=True)
        x, positive = torch.stack(x), torch.tensor(positive)
        error = (model(x) - x[:, :2]).square()
        counts = {"all": len(x), "positive": int(positive.sum())}
        if seen is not None:
            seen.append(counts["positive"])
        means = {"all": error[:, 0].mean(), "positive": error[positive, 1].sum() / max(counts["positive"], 1)}
        if (iteration, rank()) == failures.get("infinite"):
            means["all"] = means["all"] + torch.inf
        return Counted(means, counts) if counted else means

    return losses


def train(model, counted=True, seen=None, interrupt=(), **options):
    options = {"evaluate": lambda: {"weight": model[0].weight.mean()}, "evaluate_every": 7, "quiet": True, **options}
    history = fit(model, losses_of(model, counted, seen, interrupt=interrupt), SETTINGS, **options)
    return {"history": history, "state": model.state_dict()}


# ------------------------------------------------------------------------------------------------------ two processes


def in_each_process(folder):
    """Trains in several ways; each process leaves what it has found in a file of its own."""
    with processes("cpu") as device:
        found = {"device": str(device), "rank": rank(), "world_size": world_size(), "main": is_main()}
        found["share"] = [share([]), share("abcd")]
        try:
            share(range(7))
        except ValueError as error:
            found["odd"] = str(error)
        own = {"checkpoint": folder / f"own-{rank()}.checkpoint", "log": folder / f"own-{rank()}.csv"}
        found["unbroken"] = train(network(), seen=found.setdefault("positive", []), **own)
        found["resumed"] = interrupted_and_resumed(folder)
        found["plain"] = plain_average()
        found["infinite"] = failure(
            lambda: fit((model := network()), losses_of(model, infinite=(3, 1)), SETTINGS, quiet=True)
        )
        found["evaluation"] = failure(lambda: train(network(), evaluate=lambda: 1 / 0))
        found["first"] = failure(broken_main_first)
        found["order"] = order(folder)
        found["from main"] = from_main(lambda: [rank(), "told"])
        found["together at last"] = train(network())["history"][-1]
    found["threads"] = [path.read_text() for path in Path("/proc/self/task").glob("*/comm")]
    torch.save(found, folder / f"found-{os.environ['RANK']}.pt")


def failure(work):
    """What it raises, in words; after it the processes must still be able to work together."""
    try:
        work()
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def interrupted_and_resumed(folder):
    options = {"checkpoint": folder / "shared.checkpoint", "checkpoint_every": 5, "log": folder / "shared.csv"}
    with contextlib.suppress(KeyboardInterrupt):
        train(network(), interrupt=(13,), **options)
    return train(network(), resume=True, **options)


def plain_average():
    """Losses without counts: 2 w in the main process, 4 w in the other."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 3.0)
    gradients = []

    class Watched(torch.optim.AdamW):
        def step(self, closure=None):
            gradients.append(model.weight.grad.item())
            return super().step(closure)

    original, torch.optim.AdamW = torch.optim.AdamW, Watched
    settings = LoopSettings(1, 0.1)
    try:
        history = fit(model, lambda _: {"w": 2 * (rank() + 1) * model.weight.sum()}, settings, quiet=True)
        again = fit(model, lambda _: {"w": 2 * (rank() + 1) * model.weight.sum()}, settings, quiet=True)
    finally:
        torch.optim.AdamW = original
    return [history, gradients, len(again)]


def broken_main_first():
    with main_first():
        if is_main():
            raise OSError("no space left")


def order(folder):
    """What each process finds in the cache when its turn comes."""
    with main_first():
        before = (folder / "cached").exists()
        if is_main():
            time.sleep(0.5)
            (folder / "cached").write_text("done")
    return before


def launch(folder, function, interrupt_when=None):
    """Runs a function of this file in two processes; a user may press Ctrl-C when a file has come into being."""
    script = folder / "script.py"
    script.write_text(
        "import pathlib, runpy, sys\nrunpy.run_path(sys.argv[1])[sys.argv[2]](pathlib.Path(sys.argv[3]))\n"
    )
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    process = subprocess.Popen(
        [sys.executable, *command, str(script), __file__, function.__name__, str(folder)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # what Ctrl-C reaches in a terminal: torchrun and its processes
    )
    try:
        while interrupt_when and not interrupt_when.exists() and process.poll() is None:
            time.sleep(0.05)
        if interrupt_when:
            os.killpg(process.pid, signal.SIGINT)
        return process.communicate(timeout=180)[0], process.returncode
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


needs_torchrun = pytest.mark.skipif(
    sys.platform == "win32" or not torch.distributed.is_available(), reason="PyTorch's torchrun needs Linux or macOS"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("two")


@pytest.fixture(scope="module")
def two(folder):
    """What each of the two processes has found."""
    output, status = launch(folder, in_each_process)
    assert status == 0, output
    return [torch.load(folder / f"found-{number}.pt", weights_only=True) for number in range(2)]


@pytest.fixture(scope="module")
def one():
    """The same batches in this process alone."""
    return train(network())


def assert_close(found, wanted):
    assert len(found["history"]) <= len(wanted["history"])
    for row, expected in zip(reversed(found["history"]), reversed(wanted["history"]), strict=False):
        assert row == pytest.approx(expected, abs=1e-5)
    torch.testing.assert_close(found["state"], wanted["state"], atol=1e-5, rtol=0)


@needs_torchrun
def test_each_process_knows_its_number_and_its_part(two):
    assert [(f["rank"], f["world_size"], f["main"], f["device"]) for f in two] == [
        (0, 2, True, "cpu"),
        (1, 2, False, "cpu"),
    ]
    assert [f["share"] for f in two] == [[[], ["a", "b"]], [[], ["c", "d"]]]
    assert {f["odd"] for f in two} == {
        "a batch of 7 does not divide into equal parts for 2 processes; choose a batch size that is a multiple of 2, "
        "or another number of processes"
    }


@needs_torchrun
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="only Linux lists a process's threads as files")
def test_nothing_of_the_group_is_left_at_the_end(two):
    """Threads that still work when Python has ended can make the process abort."""
    for found in two:
        assert found["threads"] and not [name for name in found["threads"] if "gloo_run" in name]


@needs_torchrun
def test_two_processes_learn_what_one_learns(two, one):
    counts = list(zip(*(f["positive"] for f in two), strict=True))
    assert sum(a != b for a, b in counts) > 5, "unequal numbers of positive examples"
    assert any(0 in (a, b) and a != b for a, b in counts) and (0, 0) in counts
    for found in two:
        assert len(found["unbroken"]["history"]) == 20
        assert_close(found["unbroken"], one)
    assert two[0]["unbroken"]["history"] == two[1]["unbroken"]["history"]
    torch.testing.assert_close(two[0]["unbroken"]["state"], two[1]["unbroken"]["state"], atol=0, rtol=0)
    assert [i + 1 for i, row in enumerate(two[1]["unbroken"]["history"]) if "weight" in row] == [7, 14, 20]


def test_the_numbers_of_examples_matter(one):
    """Otherwise the test above would not see whether they are taken into account."""
    positive = []
    train(network(), seen=positive)
    assert len(set(positive)) > 2 and 0 in positive


@needs_torchrun
def test_a_run_of_two_is_resumed(two):
    for found in two:
        assert found["resumed"]["history"] == found["unbroken"]["history"][10:]
        torch.testing.assert_close(found["resumed"]["state"], found["unbroken"]["state"], atol=0, rtol=0)


@needs_torchrun
def test_the_main_process_alone_writes(two, folder):
    assert {path.name for path in folder.iterdir() if path.suffix in (".csv", ".checkpoint")} == {
        *("own-0.csv", "own-0.checkpoint", "shared.csv", "shared.checkpoint")
    }
    log = (folder / "own-0.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in log] == ["iteration", *map(str, range(1, 21))]
    assert [float(line.split(",")[3]) for line in log[1:]] == pytest.approx(
        [row["all"] for row in two[1]["unbroken"]["history"]], rel=1e-8
    )
    assert (folder / "shared.csv").read_text().splitlines() == log
    state = torch.load(folder / "own-0.checkpoint", weights_only=True)
    assert list(state["model"]) == list(network().state_dict()), "the names of a model alone"


@needs_torchrun
def test_a_run_of_two_goes_on_in_one_process(two, folder, one, tmp_path):
    """The checkpoint does not ask how many processes there are."""
    checkpoint = tmp_path / "shared.checkpoint"
    checkpoint.write_bytes((folder / "shared.checkpoint").read_bytes())
    found = train(network(), checkpoint=checkpoint, resume=True)
    assert found["history"] == []
    assert_close(found, one)


@needs_torchrun
def test_losses_without_counts_are_averaged(two):
    for found in two:
        history, gradients, again = found["plain"]
        assert history == [{"w": 9.0}] and again == 1  # (2 * 3 + 4 * 3) / 2
        assert gradients == [3.0, 3.0]  # (2 + 4) / 2


@needs_torchrun
def test_all_processes_see_that_a_loss_is_not_finite(two):
    for found in two:
        assert found["infinite"].startswith("FloatingPointError: iteration 3: {'all': inf, 'positive': ")


@needs_torchrun
def test_a_failure_of_the_main_process_reaches_the_others(two):
    told = "ConnectionAbortedError: process 1: the main process has failed; its own message says why"
    assert [f["evaluation"] for f in two] == ["ZeroDivisionError: division by zero", told]
    assert [f["first"] for f in two] == ["OSError: no space left", told]
    assert two[0]["together at last"] == two[1]["together at last"] == two[0]["unbroken"]["history"][-1]


@needs_torchrun
def test_the_main_process_is_first_and_tells(two):
    assert [f["order"] for f in two] == [False, True]
    assert [f["from main"] for f in two] == [[0, "told"]] * 2


# ------------------------------------------------------------------------------------------------------------ endings


def in_each_then_one_fails(folder):
    with processes():
        model = network()
        losses = losses_of(model)

        def or_fail(iteration):
            if (iteration, rank()) == (3, 1):
                raise FileNotFoundError("picture 17 is missing")
            return losses(iteration)

        fit(model, or_fail, SETTINGS, quiet=True)


@needs_torchrun
def test_an_error_in_one_process_ends_all(tmp_path):
    output, status = launch(tmp_path, in_each_then_one_fails)
    assert status == 1 and "FileNotFoundError: picture 17 is missing" in output


def in_each_for_ever(folder):
    with processes():
        model = network()
        losses = losses_of(model)

        def slow(iteration):
            if iteration == 3 and rank() == 1:
                (folder / "running").touch()
            time.sleep(0.05 * rank())  # so that the main process waits for the other one
            return losses(iteration)

        fit(model, slow, LoopSettings(100_000, 0.001), checkpoint=folder / "run.checkpoint", checkpoint_every=2)


@needs_torchrun
def test_ctrl_c_ends_all(tmp_path):
    output, status = launch(tmp_path, in_each_for_ever, interrupt_when=tmp_path / "running")
    assert status != 0 and "KeyboardInterrupt" in output
    assert torch.load(tmp_path / "run.checkpoint", weights_only=True)["iteration"] >= 2


# ------------------------------------------------------------------------------------------------------- one process


def test_alone_there_is_nothing_to_share(monkeypatch):
    for environment in ({}, {"WORLD_SIZE": "1", "RANK": "0"}):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        with processes("meta") as device:
            assert device == torch.device("meta")
            assert (rank(), world_size(), is_main()) == (0, 1, True)
            assert not torch.distributed.is_initialized()
            assert share([]) == [] and share((3, 1, 2)) == [3, 1, 2]
            with main_first():
                pass
            assert from_main(lambda: 7) == 7
            with pytest.raises(OSError, match="no space left"):
                broken_main_first()


@pytest.mark.parametrize(
    "count, processes_, wanted", [(6, 3, [[0, 1], [2, 3], [4, 5]]), (2, 2, [[0], [1]]), (4, 1, [[0, 1, 2, 3]])]
)
def test_shares_are_equal_and_in_order(monkeypatch, count, processes_, wanted):
    monkeypatch.setattr(parallel, "world_size", lambda: processes_)
    found = []
    for number in range(processes_):
        monkeypatch.setattr(parallel, "rank", lambda number=number: number)
        found.append(share(range(count)))
    assert found == wanted


@pytest.mark.parametrize("count, processes_", [(1, 2), (7, 3), (128, 3)])
def test_a_batch_that_does_not_divide_is_refused(monkeypatch, count, processes_):
    monkeypatch.setattr(parallel, "world_size", lambda: processes_)
    message = f"a batch of {count} does not divide .* {processes_} processes; .* a multiple of {processes_}, or another"
    with pytest.raises(ValueError, match=message):
        share([0] * count)


TORCHRUN = {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        *[({name: ""}, name) for name in TORCHRUN],
        (dict.fromkeys(("WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"), ""), "WORLD_SIZE, LOCAL_RANK"),
        (dict.fromkeys(("WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT"), ""), "WORLD_SIZE, RANK"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE"),
        ({"RANK": "2"}, "RANK"),
        ({"RANK": "-1"}, "RANK"),
    ],
)
def test_half_of_torchruns_variables_are_refused(monkeypatch, changes, wrong):
    """With some of them each process would train as if it were alone, and all would write the same files."""
    for name, value in {**TORCHRUN, **changes}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=f"^{wrong}.*: missing or wrong .*; start with torchrun, or unset them$"):
        processes().__enter__()


def in_each_then_one_is_killed(folder):
    with processes():
        losses = losses_of(model := network())

        def or_be_killed(iteration):
            if (iteration, rank()) == (3, 1):
                os.kill(os.getpid(), signal.SIGKILL)
            return losses(iteration)

        fit(model, or_be_killed, SETTINGS, quiet=True)


@needs_torchrun
def test_a_process_that_was_killed_is_named_by_the_others(tmp_path):
    """Without torchrun, which may end the other process before that has said anything."""
    with socket.create_server(("localhost", 0)) as server:
        port = server.getsockname()[1]
    command = [sys.executable, "-c", "import runpy, sys; runpy.run_path(sys.argv[1])[sys.argv[2]](None)"]
    running = [
        subprocess.Popen(
            [*command, __file__, in_each_then_one_is_killed.__name__],
            env={**os.environ, **TORCHRUN, "RANK": number, "LOCAL_RANK": number, "MASTER_PORT": str(port)},
            stderr=subprocess.PIPE if number == "0" else None,
            text=True,
        )
        for number in "01"
    ]
    try:
        _, said = running[0].communicate(timeout=180)
        assert running[1].wait(timeout=180) == -signal.SIGKILL
    finally:
        for process in running:
            process.kill()
    assert running[0].returncode == 1
    assert "ConnectionAbortedError: process 0: another process has ended, perhaps for lack of" in said


def test_several_processes_on_another_device_are_refused(monkeypatch):
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match='the device "cpu" or "cuda", not on "mps"; start only one'):
        processes("mps").__enter__()
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match="a GPU of its own, but there are 1 for process 1; start at most 1"):
        processes("cuda").__enter__()


def test_the_processes_part_also_after_an_error(monkeypatch):
    """Here a group of one process."""
    start, alone = torch.distributed.init_process_group, {"rank": 0, "world_size": 1}
    monkeypatch.setattr(
        torch.distributed,
        "init_process_group",
        lambda backend, timeout: start(backend, store=torch.distributed.HashStore(), **alone),
    )
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(OSError, match="no space"), processes():
        assert torch.distributed.is_initialized()
        raise OSError("no space")
    assert not torch.distributed.is_initialized()
    with processes():
        assert torch.distributed.is_initialized()
    assert not torch.distributed.is_initialized()
