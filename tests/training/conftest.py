"""A small model, noisy losses and a run of them that nothing interrupts, for tests of the loop and of checkpoints."""

import pytest
import torch
from torch import nn

from minircnn.training import LoopSettings, fit

SETTINGS = LoopSettings(24, 0.02, seed=2)


def network():
    """With dropout, which draws, and batch normalization, whose statistics are no parameters."""
    torch.manual_seed(11)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 1))


def problem(count=200, inputs=4):
    """A line, and noise around it."""
    random = torch.Generator().manual_seed(3)
    x = torch.randn(count, inputs, generator=random)
    y = x @ torch.tensor([1.0, -2.0, 0.5, 3.0]) + 0.7 + torch.randn(count, generator=random)
    return x, y


def noisy(model):
    """Batches drawn at random, losses of very different size, so that some gradients are clipped and others are not."""
    x, y = problem()

    def losses(iteration):
        rows = torch.randint(0, len(x), (16,))
        error = (model(x[rows])[:, 0] - y[rows]) * 10.0 ** (iteration % 3 - 1)
        return {"squares": error.square().mean(), "absolute, of all": error.abs().mean()}

    return losses


def interrupted(losses, at):
    """The same losses, but the user presses Ctrl-C in iteration `at`."""

    def or_stop(iteration):
        if iteration == at:
            raise KeyboardInterrupt
        return losses(iteration)

    return or_stop


@pytest.fixture(scope="module")
def unbroken():
    model = network()
    return fit(model, noisy(model), SETTINGS, quiet=True), model.state_dict()


def assert_same_state(found, wanted):
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
