"""Training in two processes: gradients and losses are the averages of what each process has alone.

:func:`in_each_process` is what the two run; what they find, they leave in files.
"""

import contextlib
import multiprocessing
import os
import signal
import socket
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from minircnn.datasets import ToyTown
from minircnn.training import Augmentation, LoopSettings, MaskRCNNTrainingSettings, draw_batch, fit, loop
from minircnn.training.loop import is_main, main_first, processes, rank, share, world_size
from tests.training import test_recipes

SETTINGS = LoopSettings(8, 0.02, seed=2, clip=2.0)
ONE_BATCH = MaskRCNNTrainingSettings(iterations=1, min_size=128, seed=4)


def network():
    torch.manual_seed(11 + rank())  # the processes begin with different weights, and those of the main one count
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 2))
    model[0].bias.requires_grad = False
    return model


def losses_of(model, number, interrupt=None, infinite=None):
    """The second loss learns from some of the examples: the processes have different numbers of them."""

    def losses(iteration):
        if iteration == interrupt:
            raise KeyboardInterrupt
        random = torch.Generator().manual_seed(iteration)
        x, some = torch.randn(6, 4, generator=random), torch.rand(6, generator=random) < 0.5
        x, some = (values[3 * number : 3 * number + 3] for values in (x, some))
        error = (model(x) - x[:, :2]).square()
        found = {"all": error[:, 0].mean(), "some": error[some, 1].sum() / some.sum().clamp(min=1)}
        return {**found, "all": found["all"] + torch.inf} if (iteration, number) == infinite else found

    return losses


def train(interrupt=None, **options):
    model = network()
    history = fit(model, losses_of(model, rank(), interrupt), SETTINGS, quiet=True, **options)
    return {"history": history, "state": model.state_dict()}


def averaged_by_hand():
    """Each process's gradient alone, the mean of both, a step; without the loop, in this process."""
    model, history = network(), []
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, weight_decay=SETTINGS.weight_decay)
    for iteration in range(SETTINGS.iterations):
        gradients, losses = [], []
        for number in range(2):
            torch.manual_seed(2 * 1_000_003 + iteration + number * 1_000_000_007)
            found = losses_of(model, number)(iteration)
            gradients.append(torch.autograd.grad(sum(found.values()), parameters))
            losses.append({name: value.item() for name, value in found.items()})
        for parameter, *both in zip(parameters, *gradients, strict=True):
            parameter.grad = sum(both) / 2
        nn.utils.clip_grad_norm_(parameters, SETTINGS.clip)
        optimizer.param_groups[0]["lr"] = SETTINGS.learning_rate * SETTINGS.rate(iteration)
        optimizer.step()
        history.append({name: (losses[0][name] + losses[1][name]) / 2 for name in losses[0]})
    return {"history": history, "state": model.state_dict()}


def interrupted_and_resumed(folder):
    options = {"checkpoint": folder / "run.checkpoint", "checkpoint_every": 2, "log": folder / "run.csv"}
    with contextlib.suppress(KeyboardInterrupt):
        train(interrupt=5, **options)
    return train(resume=True, **options)


def toy_town():
    data = ToyTown("train")
    return [data[index] for index in range(8)], data.classes


def in_each_process(folder):
    with processes("cpu") as device:
        found = {"where": [str(device), rank(), world_size(), is_main()], "share": [share([]), share("abcd")]}
        try:
            share(range(7))
        except ValueError as error:
            found["odd"] = str(error)
        own, options = folder / f"own-{rank()}.checkpoint", {"evaluate": lambda _: {"two": 2.0}, "evaluate_every": 3}
        found["whole"] = train(checkpoint=own, log=own.with_suffix(".csv"), **options)
        found["resumed"] = interrupted_and_resumed(folder)
        try:
            fit(model := network(), losses_of(model, rank(), infinite=(3, 1)), SETTINGS, quiet=True)
        except FloatingPointError as error:
            found["infinite"] = str(error)
        samples, classes = toy_town()
        found["detector"] = test_recipes.run("mask_rcnn", (samples, None, classes), ONE_BATCH)[1][0]
        with main_first():
            found["cached"] = (folder / "cached").exists()
            if is_main():
                time.sleep(0.5)
                (folder / "cached").touch()
    found["after"] = torch.distributed.is_initialized()
    found["threads"] = [path.read_text() for path in Path("/proc/self/task").glob("*/comm")]
    torch.save(found, folder / f"found-{os.environ['RANK']}.pt")


def in_each_then_one_is_killed(folder):
    with processes():
        losses = losses_of(model := network(), rank())

        def or_be_killed(iteration):
            if (iteration, rank()) == (3, 1):
                os.kill(os.getpid(), signal.SIGKILL)
            return losses(iteration)

        fit(model, or_be_killed, SETTINGS, quiet=True)


def as_process(name, folder, number, port):
    """One of two processes, with the variables that torchrun sets; what it raises, it leaves in a file."""
    os.environ.update({**TORCHRUN, "RANK": str(number), "LOCAL_RANK": str(number), "MASTER_PORT": str(port)})
    torch.set_num_threads(1)
    try:
        globals()[name](folder)
    except BaseException as error:
        apart = "still one of a group" if torch.distributed.is_initialized() else "alone"
        (folder / f"error-{number}").write_text(f"{type(error).__name__}: {error}: {apart}")
        raise


def launch(function, folder):
    """A function of this file in two processes: how they ended, and what they raised."""
    with socket.create_server(("localhost", 0)) as server:
        port = server.getsockname()[1]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])  # imported once for all processes
    running = [context.Process(target=as_process, args=(function.__name__, folder, n, port)) for n in range(2)]
    try:
        for process in running:
            process.start()
        for process in running:
            process.join(timeout=180)
    finally:
        for process in running:
            process.kill()
    said = [path.read_text() if path.exists() else "" for path in (folder / "error-0", folder / "error-1")]
    return [process.exitcode for process in running], said


TORCHRUN = {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}
needs_torchrun = pytest.mark.skipif(
    sys.platform == "win32" or not torch.distributed.is_available(), reason="several processes need Linux or macOS"
)
pytestmark = needs_torchrun


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("two")


@pytest.fixture(scope="module")
def two(folder):
    """What each of the two processes has found."""
    status, said = launch(in_each_process, folder)
    assert status == [0, 0], said
    return [torch.load(folder / f"found-{number}.pt", weights_only=True) for number in range(2)]


def test_gradients_are_averaged_over_the_processes(two):
    wanted = averaged_by_hand()
    for found in two:
        for row, expected in zip(found["whole"]["history"], wanted["history"], strict=True):
            assert {name: row[name] for name in expected} == pytest.approx(expected, abs=1e-6)
        torch.testing.assert_close(found["whole"]["state"], wanted["state"], atol=1e-6, rtol=0)
    torch.testing.assert_close(two[0]["whole"]["state"], two[1]["whole"]["state"], atol=0, rtol=0)


def test_losses_of_a_detector_are_those_of_both_halves_of_the_batch(two, monkeypatch):
    """Each half of the first batch alone in this process, with its own draws; then their mean."""
    samples, classes = toy_town()
    model, losses = test_recipes.untrained("mask_rcnn", classes, ONE_BATCH.seed), []
    augmentation = Augmentation(color_jitter=ONE_BATCH.color_jitter, scale_jitter=ONE_BATCH.scale_jitter)
    monkeypatch.setattr(loop, "world_size", lambda: 2)
    for number in range(2):
        monkeypatch.setattr(loop, "rank", lambda number=number: number)
        batch = draw_batch(0, samples, None, images_per_batch=4, seed=4, augmentation=augmentation)
        model.transform = replace(model.transform, min_size=int(128 * batch.scale))
        torch.manual_seed(4 * 1_000_003 + number * 1_000_000_007)
        losses.append({name: value.item() for name, value in model.losses(batch.images, batch.targets).items()})
    means = {name: (losses[0][name] + losses[1][name]) / 2 for name in losses[0]}
    assert [found["detector"] for found in two] == [pytest.approx(means, rel=1e-5)] * 2


def test_each_process_knows_its_number_and_its_part(two):
    assert [found["where"] for found in two] == [["cpu", 0, 2, True], ["cpu", 1, 2, False]]
    assert [found["share"] for found in two] == [[[], ["a", "b"]], [[], ["c", "d"]]]
    assert [found["cached"] for found in two] == [False, True], "the main process goes first"
    for found in two:
        assert found["odd"].startswith("a batch of 7 does not divide into equal parts for 2 processes; choose a batch")
        assert found["infinite"].startswith("iteration 3: {'all': inf, 'some': ")
        assert not found["after"], "they have parted"
        assert not [name for name in found["threads"] if "gloo_run" in name], "such threads can abort a process"


def test_the_main_process_alone_evaluates_and_writes(two, folder):
    evaluated = [[i for i, row in enumerate(found["whole"]["history"], 1) if "two" in row] for found in two]
    assert evaluated == [[3, 6, 8], []]
    written = sorted(path.name for path in folder.iterdir() if path.suffix in (".csv", ".checkpoint"))
    assert written == ["own-0.checkpoint", "own-0.csv", "run.checkpoint", "run.csv"]
    log = (folder / "own-0.csv").read_text().splitlines()[1:]
    averages = [row["all"] for row in two[1]["whole"]["history"]]
    assert [float(line.split(",")[3]) for line in log] == pytest.approx(averages, rel=1e-8)


def test_a_run_of_two_is_resumed_and_its_checkpoint_serves_one_process_too(two, folder):
    for found in two:
        rest = [{name: row[name] for name in ("all", "some")} for row in found["whole"]["history"][4:]]
        assert found["resumed"]["history"] == rest
        torch.testing.assert_close(found["resumed"]["state"], found["whole"]["state"], atol=0, rtol=0)
    alone = train(checkpoint=folder / "run.checkpoint", resume=True)
    assert alone["history"] == []
    torch.testing.assert_close(alone["state"], two[0]["whole"]["state"], atol=0, rtol=0)


def test_a_process_whose_companion_was_killed_says_so(tmp_path):
    status, said = launch(in_each_then_one_is_killed, tmp_path)
    assert status == [1, -signal.SIGKILL]
    assert said[0].startswith("ConnectionAbortedError: process 0: another process has ended; ")
    assert said[0].endswith(": alone")


def test_alone_there_is_nothing_to_share(monkeypatch):
    """As torchrun starts a single process."""
    monkeypatch.setenv("WORLD_SIZE", "1")
    with processes("meta") as device, main_first():
        assert device == torch.device("meta") and not torch.distributed.is_initialized()
        assert (rank(), world_size(), is_main(), share((3, 1, 2))) == (0, 1, True, [3, 1, 2])


@pytest.mark.parametrize(
    ("device", "missing", "message"),
    [
        ("mps", None, 'the device "cpu" or "cuda", not on "mps"; start only one'),
        ("cuda", None, "a GPU of its own, but there are 1 for process 1; start at most 1"),
        ("cpu", "MASTER_ADDR", "environment variable MASTER_ADDR expected"),
    ],
)
def test_what_several_processes_need(monkeypatch, device, missing, message):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for name, value in TORCHRUN.items():
        monkeypatch.delenv(name, raising=False) if name == missing else monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=message):
        processes(device).__enter__()
