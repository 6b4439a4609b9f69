"""What all tests of the command line need: a cache of their own, small detectors, a data set to give them."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import joblib
import pytest
import torch
from typer.testing import CliRunner

from minircnn.alexnet import SMALL, AlexNet, save_alexnet
from minircnn.cli import app
from minircnn.datasets import ToyTown
from minircnn.fast_rcnn import fast_rcnn_alexnet, load_fast_rcnn
from minircnn.faster_rcnn import RPNConfig, faster_rcnn_alexnet, load_faster_rcnn
from minircnn.mask_rcnn import MaskRoIConfig, load_mask_rcnn, mask_rcnn_alexnet
from minircnn.rcnn import RCNN, load_rcnn
from minircnn.selective_search import selective_search
from minircnn.shipped import TOYTOWN_FOLDER
from minircnn.weights import save
from tests.tiny import TINY

LOAD = {"rcnn": load_rcnn, "fast_rcnn": load_fast_rcnn, "faster_rcnn": load_faster_rcnn, "mask_rcnn": load_mask_rcnn}
ON_PROPOSALS = ("rcnn", "fast_rcnn")
FEW = 30  # proposals, so that the tests are quick
COUNT = 10  # images of the user's data set: eight to learn from, two for testing
IMAGE = TOYTOWN_FOLDER / "test" / "000001.jpg"


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def own_cache(cache, monkeypatch):
    """The user's cache is left alone; one test may find what another has put into theirs. Threads start quickly."""
    monkeypatch.setenv("MINIRCNN_CACHE", str(cache))
    with joblib.parallel_backend("threading"):
        yield


@pytest.fixture
def call():
    """Runs a command as the shell would; errors that are no part of the design come through as they are."""

    def run(*arguments):
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """The file of each detector, with random weights: no good, but sure of itself, and its boxes are refined."""
    folder, classes = tmp_path_factory.mktemp("detectors"), ToyTown("train").classes
    files = {name: folder / f"{name}.safetensors" for name in LOAD}
    rpn = RPNConfig(anchor_sizes=((20.0, 50.0),), pre_nms_top_n=(300, 300), post_nms_top_n=(80, 60))
    heads = MaskRoIConfig(pool_size=3, mask_channels=(8,))
    fast = sure(lambda network: fast_rcnn_alexnet(network, classes))
    faster = sure(lambda network: faster_rcnn_alexnet(network, classes, rpn))
    mask = sure(lambda network: mask_rcnn_alexnet(network, classes, rpn, heads))
    for model, path in zip((random_rcnn(), fast, faster, mask), files.values(), strict=True):
        save(model, path, {})
    return files


def sure(build):
    """A detector whose layers of outputs have large random weights."""
    torch.manual_seed(1)
    model = build(AlexNet(TINY, 5))
    heads = model.roi_heads
    layers = {heads.box_predictor["cls_score"]: 4, heads.box_predictor["bbox_pred"]: 2}
    if hasattr(model, "rpn"):
        layers[model.rpn.head.cls_logits] = 3
    if hasattr(heads, "mask_predictor"):
        layers[heads.mask_predictor.mask_fcn_logits] = 4
    for layer, std in layers.items():
        torch.nn.init.normal_(layer.weight, std=std)
    return model


def random_rcnn():
    """An R-CNN that finds something nearly everywhere: random machines say yes to half of all proposals."""
    torch.manual_seed(0)
    model = RCNN(AlexNet(TINY, 5).eval(), ToyTown("train").classes)
    model.network.half().float()  # as the file will hold it
    model.svm.copy_(torch.randn(model.svm.shape)), model.box.copy_(torch.randn(model.box.shape) * 0.02)
    return model


_FOUND = {}  # proposals by image


def regions(image):
    """All proposals of selective search in an image, which is searched once for all tests."""
    key = image.numpy().tobytes()
    if key not in _FOUND:
        _FOUND[key] = selective_search(image)
    return _FOUND[key]


def directly(name, file, image, threshold=None, proposals=FEW):
    """What a detector finds without the command line; masks are probabilities."""
    model = LOAD[name](file)
    if threshold is not None:
        part = getattr(model, "roi_heads", model)
        part.config = replace(part.config, score_threshold=threshold)
    given = [[regions(image)[:proposals]]] if name in ON_PROPOSALS else []
    return model.detect([image], *given)[0]


@pytest.fixture(scope="session")
def network(tmp_path_factory):
    """A file with a network to begin with."""
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("network") / "small.safetensors"
    save_alexnet(AlexNet(SMALL, 18), path, {})
    return path


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Some scenes of Toy Town as anybody's data set: ``images/*.jpg`` and ``instances.json``."""
    folder = tmp_path_factory.mktemp("own")
    content = json.loads((TOYTOWN_FOLDER / "instances_train.json").read_text())
    content["images"] = content["images"][:COUNT]
    ids = {image["id"] for image in content["images"]}
    content["annotations"] = [one for one in content["annotations"] if one["image_id"] in ids]
    (folder / "images").mkdir()
    for image in content["images"]:
        name = Path(image["file_name"]).name
        shutil.copy(TOYTOWN_FOLDER / image["file_name"], folder / "images" / name)
        image["file_name"] = name
    (folder / "instances.json").write_text(json.dumps(content))
    return folder


def own(folder, annotations="instances.json"):
    """The options that name it."""
    return "--data", "coco", "--root", folder / "images", "--annotations", folder / annotations


def changed(folder, name, change):
    """A second annotation file, beside the first."""
    content = json.loads((folder / "instances.json").read_text())
    change(content)
    (folder / name).write_text(json.dumps(content))
    return own(folder, name)
