"""What all tests of the command line need: a cache of their own, small detectors, pictures to give them."""

import pytest
import torch
from typer.testing import CliRunner

from minircnn.alexnet import SMALL, AlexNet
from minircnn.cli import app
from minircnn.datasets import ToyTown
from minircnn.fast_rcnn import fast_rcnn_alexnet
from minircnn.rcnn import RCNN
from minircnn.weights import save
from tests.fast_rcnn.conftest import TINY

FEW = 6  # training pictures; the first ones that show all classes


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def own_cache(cache, monkeypatch):
    """The user's cache is left alone; one test may find what another has put into theirs."""
    monkeypatch.setenv("MINIRCNN_CACHE", str(cache))


@pytest.fixture(scope="session")
def detector(tmp_path_factory):
    """An R-CNN on random features: no good, but it finds something nearly everywhere."""
    torch.manual_seed(0)
    data = ToyTown("train", masks=False)
    samples = [data[i] for i in range(FEW)]
    proposals = [near_and_far(target["boxes"]) for _, target in samples]
    model = RCNN(AlexNet(SMALL, 18).eval(), data.classes)
    model.network.half().float()  # as the file will hold it
    model.fit_svms(samples, proposals)
    model.fit_box_regressors(samples, proposals)
    # The machines hardly tell such features apart. So that they find something, their margins are spread, and their
    # biases move until each says yes to one proposal in four.
    features = torch.cat([model.features(s[0], p, ["fc7"])["fc7"] for s, p in zip(samples, proposals, strict=True)])
    model.svm /= model.scores(features)[:, 1:].std(dim=0)[:, None]
    model.svm[:, -1] -= model.scores(features)[:, 1:].quantile(0.75, dim=0)
    path = tmp_path_factory.mktemp("detector") / "tiny.safetensors"
    save(model, path, {})
    return path


@pytest.fixture(scope="session")
def fast_detector(tmp_path_factory):
    """A Fast R-CNN with random weights: no good, but sure of itself, and it moves its boxes."""
    torch.manual_seed(1)
    model = fast_rcnn_alexnet(AlexNet(TINY, 5), ToyTown("train").classes)
    torch.nn.init.normal_(model.roi_heads.box_predictor["cls_score"].weight, std=4)
    torch.nn.init.normal_(model.roi_heads.box_predictor["bbox_pred"].weight, std=2)
    path = tmp_path_factory.mktemp("detector") / "fast.safetensors"
    save(model, path, {})
    return path


def near_and_far(boxes, count=20):
    """Proposals near each box, and some anywhere in a picture of 128 pixels."""
    shifts = torch.tensor([[2.0, -1.0, 1.0, 2.0], [0.0, 1.0, 2.0, 0.0], [1.0, 1.0, -1.0, 2.0]])
    near = (boxes[:, None] + shifts).flatten(0, 1)
    corner = torch.rand(count, 2) * 90
    return torch.cat([near, torch.cat([corner, corner + 8 + torch.rand(count, 2) * 30], dim=1)])


def lines_of(name, found, classes):
    """What ``minircnn detect`` prints about the detections of a picture."""
    rows = zip(found["labels"].tolist(), found["scores"].tolist(), found["boxes"].tolist(), strict=True)
    return [
        f"{name}: {classes[label]} {score:.2f} at {x1:.1f} {y1:.1f} {x2:.1f} {y2:.1f}"
        for label, score, (x1, y1, x2, y2) in rows
    ]


@pytest.fixture
def call():
    """Runs a command as the shell would; errors that are no part of the design come through as they are."""

    def run(*arguments):
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run
