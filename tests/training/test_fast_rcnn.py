"""Fast R-CNN's one training: batches drawn by hand, broken and unbroken runs."""

import copy
import csv
import json

import pytest
import torch

from minircnn.alexnet import AlexNet
from minircnn.datasets import ToyTown
from minircnn.fast_rcnn import RoIConfig, fast_rcnn_alexnet, load_fast_rcnn
from minircnn.training import LoopSettings, loop
from minircnn.training.batches import pictures_of
from minircnn.training.fast_rcnn import FastRCNNTrainingSettings, joint_losses, train_fast_rcnn
from minircnn.transforms import Transform
from minircnn.weights import WeightsError
from tests.fast_rcnn.conftest import TINY, boxes_in

SIDE = 128
SETTINGS = FastRCNNTrainingSettings(iterations=6, images_per_batch=4, learning_rate=0.002)


def town():
    """The first pictures of Toy Town, proposals near their objects and anywhere, and the names of the classes."""
    train = ToyTown("train", masks=False)
    samples, proposals = [train[index] for index in range(8)], []
    for index, (_, target) in enumerate(samples):
        anywhere = boxes_in((100, 9, 60, 30, 120, 9, 40, 80)[index], SIDE, SIDE, seed=index)
        near = target["boxes"] + torch.tensor([2.0, -1.0, 3.0, 1.0])
        proposals.append(torch.cat([near, anywhere]))
    return samples, proposals, train.classes


@pytest.fixture(scope="module")
def data():
    samples, proposals, classes = town()
    assert len(torch.cat([target["labels"] for _, target in samples]).unique()) == len(classes) - 1
    return samples, proposals, classes


def network(seed=0):
    torch.manual_seed(seed)
    return AlexNet(TINY, 5)


def run(data, settings=SETTINGS, **options):
    """A training, always from the same network."""
    samples, proposals, classes = data
    return train_fast_rcnn(network(), samples, proposals, classes, settings, quiet=True, **options)


def assert_same(model, other):
    torch.testing.assert_close(model.state_dict(), other.state_dict(), atol=0, rtol=0)


# ------------------------------------------------------------------------------------------------------------ batches


@pytest.mark.parametrize(("count", "batch"), [(6, 3), (7, 3), (5, 4), (4, 4), (3, 1)])
def test_every_picture_has_its_turn_before_one_comes_again(count, batch):
    batches = [pictures_of(iteration, count, batch, seed=3) for iteration in range(5 * count)]
    assert {len(pictures) for pictures in batches} == {batch}
    drawn = [picture for pictures in batches for picture in pictures]
    epochs = [tuple(drawn[start : start + count]) for start in range(0, len(drawn), count)]
    assert len(epochs) == 5 * batch
    assert all(sorted(epoch) == list(range(count)) for epoch in epochs)
    assert len(set(epochs)) > 1, "each epoch has an order of its own"


def test_the_order_depends_on_the_seed_and_on_nothing_drawn_before():
    def order(seed):
        return [pictures_of(iteration, 30, 4, seed) for iteration in range(15)]

    torch.manual_seed(1)
    first, state = order(0), torch.get_rng_state()
    torch.rand(7)
    assert order(0) == first != order(1)
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state), "nothing is drawn of the global generator"


class Recorder(torch.nn.Linear):
    """A model that keeps what it is to learn from."""

    def __init__(self):
        super().__init__(1, 1)
        self.seen, self.transform = [], Transform()

    def losses(self, images, proposals, targets):
        self.seen += zip(images, proposals, targets, strict=True)
        return {}


def plain_losses(model, samples, proposals, seed):
    """Pictures are mirrored, but otherwise stay as they are."""
    settings = FastRCNNTrainingSettings(images_per_batch=4, color_jitter=0, scale_jitter=0, seed=seed)
    return joint_losses(model, samples, proposals, settings)


def mirrored_by_hand(boxes):
    return torch.stack([torch.stack([SIDE - box[2], box[1], SIDE - box[0], box[3]]) for box in boxes])


def test_half_of_the_pictures_are_mirrored_with_all_that_belongs_to_them(data):
    samples, proposals, _ = data
    before = copy.deepcopy((samples, proposals))
    model, mirrored = Recorder(), []
    losses = plain_losses(model, samples, proposals, 0)
    for iteration in range(60):
        losses(iteration)
    order = [index for iteration in range(60) for index in pictures_of(iteration, len(samples), 4, seed=0)]
    for index, (image, found, target) in zip(order, model.seen, strict=True):
        (original, wanted), boxes = samples[index], proposals[index]
        mirrored.append(not torch.equal(image, original))
        if mirrored[-1]:
            assert torch.equal(image, original[:, :, list(range(SIDE - 1, -1, -1))])
            assert torch.equal(found, mirrored_by_hand(boxes))
            assert torch.equal(target["boxes"], mirrored_by_hand(wanted["boxes"]))
        else:
            assert torch.equal(found, boxes) and torch.equal(target["boxes"], wanted["boxes"])
        assert torch.equal(target["labels"], wanted["labels"])
    assert 90 < sum(mirrored) < 150
    for place in range(4):
        assert 15 < sum(mirrored[place::4]) < 45
    for (image, target), found, (old_image, old_target), old_found in zip(samples, proposals, *before, strict=True):
        assert torch.equal(image, old_image) and torch.equal(target["boxes"], old_target["boxes"])
        assert torch.equal(found, old_found)


def test_losses_are_those_of_the_model_for_the_batch_made_by_hand(data):
    samples, proposals, classes = data
    model, seed, iteration = fast_rcnn_alexnet(network(), classes), 5, 2
    images, boxes, targets, mirrored = [], [], [], []
    for place, index in enumerate(pictures_of(iteration, len(samples), 4, seed)):
        generator = torch.Generator().manual_seed((seed * 1_000_003 + iteration) * 1_009 + place)
        (image, target), found = samples[index], proposals[index]
        mirrored.append(float(torch.rand((), generator=generator)) < 0.5)
        if mirrored[-1]:
            image, found = image[:, :, list(range(SIDE - 1, -1, -1))], mirrored_by_hand(found)
            target = {"boxes": mirrored_by_hand(target["boxes"]), "labels": target["labels"]}
        images.append(image)
        boxes.append(found)
        targets.append(target)
    assert len(set(mirrored)) == 2, "some are mirrored and some are not"
    torch.manual_seed(99)
    expected = model.losses(images, boxes, targets)
    torch.manual_seed(99)
    found = plain_losses(model, samples, proposals, seed)(iteration)
    assert {name: value.item() for name, value in found.items()} == {n: v.item() for n, v in expected.items()}


# ----------------------------------------------------------------------------------------------------------- learning


def test_losses_fall(data):
    samples, proposals, classes = data
    few = (samples[:4], proposals[:4], classes)
    settings = FastRCNNTrainingSettings(iterations=60, images_per_batch=2, learning_rate=0.01, backbone_lr_mult=1)
    _, history = run(few, settings)
    assert [set(row) for row in history] == [{"loss_classifier", "loss_box_reg"}] * 60
    for name in ("loss_classifier", "loss_box_reg"):
        values = torch.tensor([row[name] for row in history])
        assert values[-10:].mean() < 0.8 * values[:10].mean(), name


def test_all_learns_but_conv1(data):
    _, _, classes = data
    before = network().state_dict()
    model, _ = run(data)
    after = model.state_dict()
    assert not model.training
    assert torch.equal(after["backbone.conv1.weight"], before["backbone.conv1.weight"])
    assert torch.equal(after["backbone.conv1.bias"], before["backbone.conv1.bias"])
    for layer in ("conv2", "conv3", "conv4", "conv5"):
        for kind in ("weight", "bias"):
            assert not torch.equal(after[f"backbone.{layer}.{kind}"], before[f"backbone.{layer}.{kind}"]), layer
    for layer in ("fc6", "fc7"):
        for kind in ("weight", "bias"):
            pair = after[f"roi_heads.box_head.{layer}.{kind}"], before[f"classifier.{layer}.{kind}"]
            assert not torch.equal(*pair), layer
    torch.manual_seed(SETTINGS.seed)
    siblings = fast_rcnn_alexnet(network(), classes).roi_heads.box_predictor.state_dict()
    for name, value in siblings.items():
        assert not torch.equal(after[f"roi_heads.box_predictor.{name}"], value), name


@pytest.mark.parametrize("scale", [0.3, 0.05])
def test_the_convolutions_learn_at_their_own_rate(data, scale):
    """The first step of Adam is as long as the learning rate, in every direction that has a gradient."""
    before = network().state_dict()
    settings = FastRCNNTrainingSettings(iterations=1, images_per_batch=4, learning_rate=0.001, backbone_lr_mult=scale)
    after = run(data, settings)[0].state_dict()
    rate = 0.001 / 1.1  # the warm-up is a tenth of one iteration
    for names, wanted in (
        (("backbone.conv{}.weight", "backbone.conv{}.weight", (2, 3, 4, 5)), scale * rate),
        (("roi_heads.box_head.fc{}.weight", "classifier.fc{}.weight", (6, 7)), rate),
    ):
        new, old, layers = names
        for layer in layers:
            steps = (after[new.format(layer)] - before[old.format(layer)]).abs()
            assert steps[steps > 0.5 * wanted].median().item() == pytest.approx(wanted, rel=0.02)
            assert steps.max() < 1.05 * wanted


def test_only_the_first_proposals_count(data):
    samples, proposals, classes = data
    settings = FastRCNNTrainingSettings(iterations=3, max_proposals=25)
    cut, history = run((samples, [found[:25] for found in proposals], classes), settings)
    whole, same = run(data, settings)
    assert same == history
    assert_same(whole, cut)
    assert run(data, FastRCNNTrainingSettings(iterations=3, max_proposals=90))[1] != history


def test_the_seed_decides_and_nothing_that_was_drawn_before(data):
    samples, proposals, classes = data
    found = []
    for drawn_before, seed in ((1, 0), (2, 0), (2, 5)):
        start = network()
        torch.manual_seed(drawn_before)
        settings = FastRCNNTrainingSettings(iterations=3, seed=seed)
        found.append(train_fast_rcnn(start, samples, proposals, classes, settings, quiet=True))
    (model, history), (again, same), (_, other) = found
    assert history == same
    assert_same(model, again)
    assert all(a != b for a, b in zip(history, other, strict=True))


# -------------------------------------------------------------------------------------------------------------- files


def test_the_file_holds_half_precision(data, tmp_path):
    """The returned detector itself is not rounded."""
    samples, proposals, classes = data
    config = RoIConfig(pool_size=3, batch_size_per_image=32, score_threshold=0.1)
    model, _ = run(data, config=config, out=tmp_path / "x.safetensors", about={"command": "c"})
    loaded = load_fast_rcnn(tmp_path / "x.safetensors")
    assert (loaded.classes, loaded.roi_heads.config) == (tuple(classes), config)
    halved = copy.deepcopy(model).half().float()
    assert_same(loaded, halved)
    for (image, _), boxes in zip(samples, proposals, strict=True):
        (found,), (wanted,) = loaded.detect([image], [boxes]), halved.detect([image], [boxes])
        assert len(found["scores"])
        torch.testing.assert_close(found, wanted, atol=0, rtol=0)
    about = json.loads((tmp_path / "x.json").read_text())
    assert (about["command"], about["settings"]) == ("c", vars(SETTINGS))
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["x.json", "x.safetensors"], "the state of an unfinished run is gone"


def test_without_a_file_nothing_is_written(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(data, FastRCNNTrainingSettings(iterations=1))
    assert not list(tmp_path.iterdir())


class Breaking(list):
    """Pictures of which the n-th that is asked for does not come: the user has pressed Ctrl-C."""

    def __init__(self, samples, n):
        super().__init__(samples)
        self.left = n

    def __getitem__(self, index):
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt
        return super().__getitem__(index)


@pytest.fixture
def checkpoint_each_time(monkeypatch):
    monkeypatch.setattr(loop.fit, "__kwdefaults__", {**loop.fit.__kwdefaults__, "checkpoint_every": 1})


def interrupt(data, out, **options):
    """Stops a run within its fifth batch of four images; each was asked for once before, for its target."""
    samples, proposals, classes = data
    with pytest.raises(KeyboardInterrupt):
        run((Breaking(samples, len(samples) + 18), proposals, classes), out=out, **options)
    assert out.with_suffix(".checkpoint").exists() and not out.exists()


def test_an_interrupted_run_goes_on_to_the_same_file(data, tmp_path, checkpoint_each_time):
    whole, history = run(data, out=tmp_path / "whole.safetensors", log=tmp_path / "whole.csv")
    broken = tmp_path / "broken.safetensors"
    interrupt(data, broken, log=tmp_path / "broken.csv")
    resumed, rest = run(data, out=broken, resume=True, log=tmp_path / "broken.csv")
    assert len(rest) == 2 and rest == history[4:]
    assert_same(resumed, whole)
    for name in ("{}.safetensors", "{}.json", "{}.csv"):
        pair = [(tmp_path / name.format(which)).read_bytes() for which in ("broken", "whole")]
        assert pair[0] == pair[1], name
    assert not list(tmp_path.glob("*.checkpoint"))


def test_without_resume_it_begins_at_the_beginning(data, tmp_path, checkpoint_each_time):
    interrupt(data, tmp_path / "x.safetensors")
    assert len(run(data, out=tmp_path / "x.safetensors")[1]) == SETTINGS.iterations


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backbone_lr_mult": 0.4}, "backbone_lr_mult 0.5 → 0.4"),
        ({"images_per_batch": 2}, "images_per_batch 4 → 2"),
        ({"max_proposals": 20}, "max_proposals 300 → 20"),
    ],
)
def test_an_unfinished_run_with_other_settings_is_not_taken_up(data, tmp_path, checkpoint_each_time, change, message):
    interrupt(data, tmp_path / "x.safetensors")
    settings = FastRCNNTrainingSettings(**{**vars(SETTINGS), **change})
    with pytest.raises(WeightsError, match=message):
        run(data, settings, out=tmp_path / "x.safetensors", resume=True)


def test_an_unfinished_run_from_other_weights_or_pictures_is_not_taken_up(data, tmp_path, checkpoint_each_time):
    samples, proposals, classes = data
    out = tmp_path / "x.safetensors"
    interrupt(data, out)
    options = {"settings": SETTINGS, "out": out, "resume": True, "quiet": True}
    with pytest.raises(WeightsError, match=r"settings \(network [0-9a-f]{32} → [0-9a-f]{32}\)"):
        train_fast_rcnn(network(seed=1), samples, proposals, classes, **options)
    with pytest.raises(WeightsError, match="pictures 8 → 7"):
        train_fast_rcnn(network(), samples[:7], proposals[:7], classes, **options)


@pytest.mark.parametrize("schedule", ["cosine", "step"])
def test_the_log_has_losses_rates_and_what_was_measured(data, tmp_path, schedule):
    settings = FastRCNNTrainingSettings(**{**vars(SETTINGS), "schedule": schedule})
    seen = []

    def evaluate(model):
        """Two numbers that tell which weights it saw."""
        assert not model.training and not torch.is_grad_enabled()
        seen.append(model.roi_heads.box_predictor["cls_score"].weight.sum().item())
        return {"sum": seen[-1], "calls": len(seen)}

    log = tmp_path / "x.csv"
    model, history = run(data, settings, log=log, evaluate=evaluate, evaluate_every=4)
    assert seen[-1] == model.roi_heads.box_predictor["cls_score"].weight.sum().item()
    assert seen[0] != seen[1]
    measured = {i: {"sum": row["sum"], "calls": row["calls"]} for i, row in enumerate(history, 1) if "sum" in row}
    assert measured == {4: {"sum": seen[0], "calls": 1}, 6: {"sum": seen[1], "calls": 2}}
    with log.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["iteration"] for row in rows] == ["1", "2", "3", "4", "5", "6"]
    for name in ("loss_classifier", "loss_box_reg"):
        assert [float(row[name]) for row in rows] == pytest.approx([row[name] for row in history], rel=1e-7)
    assert [(row["sum"] and float(row["sum"]), row["calls"]) for row in rows] == [
        *[("", "")] * 3,
        (pytest.approx(seen[0], rel=1e-7), "1"),
        ("", ""),
        (pytest.approx(seen[1], rel=1e-7), "2"),
    ]
    rates = LoopSettings(6, 0.002, schedule=schedule)
    assert [float(row["learning_rate"]) for row in rows] == pytest.approx([0.002 * rates.rate(i) for i in range(6)])
    unmeasured = run(data, settings)[1]
    assert [{name: row[name] for name in unmeasured[0]} for row in history] == unmeasured, "measuring changes nothing"


# ------------------------------------------------------------------------------------------------------------- errors


def test_what_is_refused(data, tmp_path):
    samples, proposals, classes = data
    with pytest.raises(ValueError, match="there are 8 pictures but proposals for 7: give one tensor each"):
        run((samples, proposals[:7], classes), out=tmp_path / "x.safetensors")
    for count in (0, 9):
        settings = FastRCNNTrainingSettings(iterations=1, images_per_batch=count)
        with pytest.raises(ValueError, match=f"images_per_batch is {count}, but there are 8 pictures"):
            run(data, settings, out=tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match='schedule must be "cosine" or "step"'):
        FastRCNNTrainingSettings(schedule="linear")
    with pytest.raises(ValueError, match="iterations must be at least 1"):
        FastRCNNTrainingSettings(iterations=0)
    with pytest.raises(ValueError, match="mixed_precision needs an NVIDIA GPU"):
        run(data, FastRCNNTrainingSettings(mixed_precision=True), out=tmp_path / "x.safetensors")
    assert not list(tmp_path.iterdir())
