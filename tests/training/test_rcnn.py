"""The three trainings in a row, on a handful of pictures, and an interrupted run beside an unbroken one."""

import json
from dataclasses import replace

import pytest
import torch

from minircnn.alexnet import SMALL, AlexNet
from minircnn.cache import Cache
from minircnn.datasets import ToyTown
from minircnn.rcnn import RCNNConfig, load_rcnn
from minircnn.selective_search import stored_proposals
from minircnn.training import RCNNTrainingSettings, train_rcnn
from minircnn.weights import WeightsError, load_weights

SETTINGS = RCNNTrainingSettings(iterations=6, max_proposals=40)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("rcnn")


@pytest.fixture(scope="module")
def data(folder):
    """The first pictures of Toy Town, which show every class, and their proposals."""
    train = ToyTown("train", masks=False)
    samples = [train[i] for i in range(8)]
    assert len(torch.cat([target["labels"] for _, target in samples]).unique()) == 6
    return samples, stored_proposals(samples, cache=Cache(folder)), train.classes


def run(data, out, resume=False):
    samples, proposals, classes = data
    torch.manual_seed(0)
    network = AlexNet(SMALL, 18)
    lines = []
    model = train_rcnn(
        network,
        samples,
        proposals,
        classes,
        SETTINGS,
        out=out,
        resume=resume,
        report=lines.append,
        about={"command": "c"},
    )
    return model, lines


def test_saves_what_it_returns_and_says_what_it_did(data, folder):
    model, lines = run(data, folder / "a.safetensors")
    loaded = load_rcnn(folder / "a.safetensors")
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    about = json.loads((folder / "a.json").read_text())
    assert about["settings"]["iterations"] == 6 and about["command"] == "c"
    assert not (folder / "a.checkpoint").exists()
    assert [line[:6] for line in lines if line[0] in "123"] == ["1 of 3", "2 of 3", "3 of 3"]
    counts = [int(line.split(":")[1].split()[0]) for line in lines if "hard negatives" in line]
    labels = torch.cat([target["labels"] for _, target in data[0]])
    assert counts == labels.bincount(minlength=7)[1:].tolist()


def test_only_the_first_proposals_count(data, folder):
    samples, proposals, classes = data
    torch.manual_seed(0)
    cut = [found[:40] for found in proposals]
    assert max(map(len, proposals)) > 40
    a, _ = run(data, folder / "whole.safetensors")
    b, _ = run((samples, cut, classes), folder / "cut.safetensors")
    assert torch.equal(a.svm, b.svm) and torch.equal(a.box, b.box)


def test_an_interrupted_run_goes_on_to_the_same_detector(data, folder, monkeypatch):
    from minircnn.rcnn import finetuning
    from minircnn.training import loop

    whole, _ = run(data, folder / "whole.safetensors")
    draw, count = finetuning.ProposalPool.draw, []

    def interrupted(self, *args):
        count.append(1)
        if len(count) == 5:
            raise KeyboardInterrupt
        return draw(self, *args)

    # A checkpoint after each iteration, so that the interruption is after one.
    monkeypatch.setattr(loop.fit, "__kwdefaults__", {**loop.fit.__kwdefaults__, "checkpoint_every": 1})
    with monkeypatch.context() as patch:
        patch.setattr(finetuning.ProposalPool, "draw", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(data, folder / "broken.safetensors")
    assert not (folder / "broken.safetensors").exists() and (folder / "broken.checkpoint").exists()
    resumed, _ = run(data, folder / "broken.safetensors", resume=True)
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


def test_an_unfinished_run_from_another_network_is_not_taken_up(data, folder, monkeypatch):
    from minircnn.rcnn import finetuning

    def interrupted(*_):
        raise KeyboardInterrupt

    out = folder / "other.safetensors"
    state = {"iteration": 1, "settings": {"network": "another"}, "model": {}, "optimiser": {}}
    torch.save(state, out.with_suffix(".checkpoint"))
    with monkeypatch.context() as patch:
        patch.setattr(finetuning.ProposalPool, "draw", interrupted)
        with pytest.raises(WeightsError, match="network another"):
            run(data, out, resume=True)


def test_the_seed_decides_and_nothing_that_was_drawn_before(data):
    samples, proposals, classes = data
    weights = []
    for drawn_before, seed in ((1, 0), (2, 0), (2, 5)):
        torch.manual_seed(0)
        network = AlexNet(SMALL, 18)
        torch.manual_seed(drawn_before)
        settings = RCNNTrainingSettings(iterations=1, max_proposals=20, seed=seed)
        model = train_rcnn(network, samples, proposals, classes, settings, report=lambda _: None)
        weights.append(model.network.fc8.weight.clone())
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_without_fine_tuning_the_network_stays_as_it_was(data):
    samples, proposals, classes = data
    torch.manual_seed(0)
    network = AlexNet(SMALL, 18)
    before = network.half().float().backbone.conv3.weight.clone()
    settings = RCNNTrainingSettings(iterations=0, max_proposals=30)
    model = train_rcnn(network, samples, proposals, classes, settings, report=lambda _: None)
    assert torch.equal(model.network.backbone.conv3.weight, before)
    assert model.network.fc8.out_features == 18
    assert model.svm.any() and model.box.any()


@pytest.mark.parametrize("iterations", [0, 2])
def test_on_pool5_only_the_convolutions_are_kept(data, folder, iterations):
    """They are those that fine-tuning, through all layers, has left; the file detects what the model does."""
    samples, proposals, classes = data
    torch.manual_seed(0)
    network, out = AlexNet(SMALL, 18), folder / "pool5.safetensors"
    before = network.backbone.conv5.weight.detach().clone()
    model = train_rcnn(
        *(network, samples, proposals, classes, RCNNTrainingSettings(iterations, max_proposals=30)),
        config=RCNNConfig(svm_layer="pool5"),
        out=out,
        report=lambda _: None,
    )
    assert model.network.config == replace(SMALL, hidden=0)
    assert torch.equal(before.half().float(), model.network.backbone.conv5.weight) == (iterations == 0)
    assert model.svm.shape == (6, 128 * 6 * 6 + 1)
    assert not any("fc6" in name or "fc7" in name for name in load_weights(out)[0])
    loaded = load_rcnn(out)
    (a,), (b,) = (m.detect([samples[0][0]], [proposals[0][:30]]) for m in (model, loaded))
    assert len(a["scores"]) and all(torch.equal(a[name], b[name]) for name in a)


def test_where_box_regression_reads_fc7_it_stays(data):
    samples, proposals, classes = data
    settings, config = RCNNTrainingSettings(0, max_proposals=10), RCNNConfig(svm_layer="pool5", box_layer="fc7")
    model = train_rcnn(AlexNet(SMALL, 18), samples, proposals, classes, settings, config=config, report=lambda _: None)
    assert model.network.config == SMALL and model.box.any()
