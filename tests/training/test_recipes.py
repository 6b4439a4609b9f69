"""The trainings of the four detectors: what learns, what is written, broken and unbroken runs."""

import copy
import json
from dataclasses import replace

import pytest
import torch

from minircnn.alexnet import AlexNet
from minircnn.datasets import ToyTown
from minircnn.fast_rcnn import RoIConfig, fast_rcnn_alexnet
from minircnn.faster_rcnn import PYRAMID_RPN, RPNConfig, alexnet_transform, faster_rcnn_alexnet
from minircnn.mask_rcnn import PYRAMID_MASK_HEADS, MaskRoIConfig, mask_rcnn_alexnet, mask_rcnn_fpn
from minircnn.rcnn import RCNNConfig
from minircnn.resnet_fpn import FrozenBatchNorm2d, ResNetFPN, ResNetFPNConfig
from minircnn.training import Augmentation, draw_batch, loop, recipes
from minircnn.weights import WeightsError, load, load_weights
from tests.tiny import TINY, boxes_in, ellipses
from tests.training.conftest import interrupted

SIZES = {"pre_nms_top_n": (200, 100), "post_nms_top_n": (40, 20)}
RPN = RPNConfig(anchor_sizes=((20.0, 60.0),), batch_size_per_image=32, **SIZES)
MASK_HEADS = MaskRoIConfig(pool_size=3, mask_pool_size=7, mask_channels=(8, 8))
SETTINGS = recipes.MaskRCNNTrainingSettings(iterations=6, learning_rate=0.002, min_size=128)
FAST = recipes.FastRCNNTrainingSettings(iterations=6, learning_rate=0.002, min_size=128)
BOX_LOSSES = {"loss_classifier", "loss_box_reg"}
LOSSES = {
    "fast_rcnn": BOX_LOSSES,
    "faster_rcnn": BOX_LOSSES | {"loss_objectness", "loss_rpn_box_reg"},
    "mask_rcnn": BOX_LOSSES | {"loss_objectness", "loss_rpn_box_reg", "loss_mask"},
}


@pytest.fixture(scope="module")
def data():
    """The first images of Toy Town, proposals near their objects and anywhere, and the names of the classes."""
    train = ToyTown("train")
    samples, proposals = [train[index] for index in range(8)], []
    for index, (_, target) in enumerate(samples):
        anywhere = boxes_in((100, 9, 60, 30, 120, 9, 40, 80)[index], 128, 128, seed=index)
        proposals.append(torch.cat([target["boxes"] + torch.tensor([2.0, -1.0, 3.0, 1.0]), anywhere]))
    return samples, proposals, train.classes


def network(seed=0):
    torch.manual_seed(seed)
    return AlexNet(TINY, 5)


def run(kind, data, settings=None, start=None, heads=None, **options):
    """A training, always from the same network."""
    (samples, proposals, classes), start = data, start or network()
    options = {"quiet": True, **options}
    if kind == "fast_rcnn":
        return recipes.train_fast_rcnn(start, samples, proposals, classes, settings or FAST, config=heads, **options)
    train, usual = (recipes.train_faster_rcnn, None) if kind == "faster_rcnn" else (recipes.train_mask_rcnn, MASK_HEADS)
    options = {"rpn": RPN, "heads": heads or usual, **options}
    return train(start, samples, classes, settings or SETTINGS, **options)


def untrained(kind, classes, seed=0):
    start = network()
    torch.manual_seed(seed)
    build, *configs = {
        "fast_rcnn": (fast_rcnn_alexnet,),
        "faster_rcnn": (faster_rcnn_alexnet, RPN),
        "mask_rcnn": (mask_rcnn_alexnet, RPN, MASK_HEADS),
    }[kind]
    model = build(start, classes, *configs)
    model.transform = replace(model.transform, min_size=128)
    return model.train()


def differing(before, after):
    """The names of the tensors that are not the same."""
    return {name for name in before if not torch.equal(before[name], after[name])}


@pytest.fixture(scope="module", params=LOSSES)
def whole(request, data, tmp_path_factory):
    """A training of each detector that nothing interrupts: the kind, its options, the file, the model, the losses."""
    kind, out = request.param, tmp_path_factory.mktemp(request.param) / "whole.safetensors"
    heads = MASK_HEADS if kind == "mask_rcnn" else RoIConfig(pool_size=3)
    options = {"heads": replace(heads, score_threshold=0.01), "about": {"a": "b"}}
    return kind, options, out, *run(kind, data, out=out, log=out.with_suffix(".csv"), **options)


def test_all_learns_but_conv1_and_the_file_holds_half_precision(whole, data):
    kind, _, file, model, history = whole
    before = untrained(kind, data[2]).state_dict()
    assert differing(before, model.state_dict()) == {name for name in before if "conv1." not in name}
    assert not model.training and [set(row) for row in history] == [LOSSES[kind]] * 6
    loaded, halved = load(file), copy.deepcopy(model).half().float()
    assert not differing(halved.state_dict(), loaded.state_dict())
    assert differing(model.state_dict(), loaded.state_dict()), "the returned detector itself is not rounded"
    assert (loaded.roi_heads.config, loaded.transform) == (model.roi_heads.config, model.transform)
    assert loaded.classes == tuple(data[2])


@pytest.mark.parametrize("kind", LOSSES)
def test_losses_are_those_of_the_model_for_the_drawn_batch(kind, data, tmp_path, monkeypatch):
    """Images, boxes and masks changed together, and shown at the size that the batch has drawn; of first proposals."""
    monkeypatch.chdir(tmp_path)
    samples, proposals, classes = data
    settings = {"iterations": 1, "min_size": 128, "color_jitter": 0.2, "scale_jitter": 0.25, "seed": 5}
    fast = kind == "fast_rcnn"
    settings = (recipes.FastRCNNTrainingSettings if fast else recipes.MaskRCNNTrainingSettings)(
        **settings, **({"max_proposals": 25} if fast else {})
    )
    seen, options = [], {"evaluate": lambda model: {"AP": seen.append(model) or 0.5}, "evaluate_every": 1}
    trained, history = run(kind, data, settings, **options)
    assert trained.transform.min_size == 128
    model = untrained(kind, classes, seed=5)
    augmentation = Augmentation(color_jitter=0.2, scale_jitter=0.25)
    first = [found[:25] for found in proposals]
    batch = draw_batch(0, samples, first, images_per_batch=4, seed=5, augmentation=augmentation)
    model.transform = replace(model.transform, min_size=int(128 * batch.scale))
    assert model.transform.min_size != 128
    torch.manual_seed(5 * 1_000_003)
    expected = model.losses(batch.images, *[batch.proposals] * fast, batch.targets)
    wanted = {name: value.item() for name, value in expected.items()} | {"AP": 0.5}
    assert history[0] == pytest.approx(wanted, rel=1e-6) and seen == [trained]
    assert not list(tmp_path.iterdir()), "without a file nothing is written"


def test_the_backbone_learns_at_its_own_rate(data):
    """The first step of Adam is as long as the learning rate, in every direction that has a gradient."""
    before = untrained("fast_rcnn", data[2]).state_dict()
    settings = replace(FAST, iterations=1, learning_rate=0.001, backbone_lr_mult=0.3)
    after = run("fast_rcnn", data, settings)[0].state_dict()
    rate = 0.001 / 1.1  # the warm-up is a tenth of one iteration
    for names, wanted in (
        ([f"backbone.conv{layer}.weight" for layer in (2, 3, 4, 5)], 0.3 * rate),
        ([f"roi_heads.box_head.fc{layer}.weight" for layer in (6, 7)], rate),
    ):
        for name in names:
            steps = (after[name] - before[name]).abs()
            assert steps[steps > 0.5 * wanted].median().item() == pytest.approx(wanted, rel=0.02)
            assert steps.max() < 1.05 * wanted


def test_the_seed_decides_and_nothing_that_was_drawn_before(data):
    found = []
    for drawn_before, seed in ((1, 0), (2, 0), (2, 5)):
        start = network()
        torch.manual_seed(drawn_before)
        found.append(run("faster_rcnn", data, replace(SETTINGS, iterations=2, seed=seed), start))
    (model, history), (again, same), (_, other) = found
    assert history == same and not differing(model.state_dict(), again.state_dict())
    assert all(a != b for a, b in zip(history, other, strict=True))


@pytest.fixture
def broken(data, tmp_path, monkeypatch):
    """Interrupts a run in its fourth iteration, and gives the file that it was to write."""
    monkeypatch.setattr(loop.fit, "__kwdefaults__", {**loop.fit.__kwdefaults__, "checkpoint_every": 1})

    def interrupt(train, *arguments, **options):
        out, fit = tmp_path / "broken.safetensors", recipes.fit
        with monkeypatch.context() as patch:
            patch.setattr(recipes, "fit", lambda model, losses, *a, **kw: fit(model, interrupted(losses, 3), *a, **kw))
            with pytest.raises(KeyboardInterrupt):
                train(*arguments, out=out, **options)
        assert out.with_suffix(".checkpoint").exists() and not out.exists()
        return out

    return interrupt


def test_an_interrupted_run_goes_on_to_the_same_file(whole, data, broken):
    kind, options, file, model, history = whole
    log = file.with_name("broken.csv")
    out = broken(run, kind, data, log=log, **options)
    resumed, rest = run(kind, data, out=out, resume=True, log=log, **options)
    assert rest == history[3:] and not differing(model.state_dict(), resumed.state_dict())
    assert file.with_suffix(".csv").read_bytes() == log.read_bytes()
    for ending in (".safetensors", ".json"):
        assert file.with_suffix(ending).read_bytes() == out.with_suffix(ending).read_bytes()
    assert not list(file.parent.glob("*.checkpoint")) and not out.with_suffix(".checkpoint").exists()
    about = json.loads(file.with_suffix(".json").read_text())
    assert (about["a"], about["settings"]) == ("b", vars(FAST if kind == "fast_rcnn" else SETTINGS))


def test_another_run_is_not_taken_up(data, broken):
    out = broken(run, "mask_rcnn", data)
    for change, message in (
        ({"settings": replace(SETTINGS, backbone_lr_mult=0.4)}, "backbone_lr_mult 0.5 → 0.4"),
        ({"start": network(seed=1)}, r"settings \(network [0-9a-f]{32} → [0-9a-f]{32}\)"),
        ({"heads": replace(MASK_HEADS, pooling="pool")}, "RoIHeads MaskRoIConfig"),
        ({"rpn": replace(RPN, anchor_sizes=((20.0, 50.0),))}, "RPN RPNConfig"),
        ({"data": (data[0][:7], None, data[2])}, "images 8 → 7"),
    ):
        with pytest.raises(WeightsError, match=message):
            run("mask_rcnn", **{"data": data, "out": out, "resume": True, **change})
    assert len(run("mask_rcnn", data, out=out)[1]) == 6, "without resume it begins at the beginning"


def test_alternating_training(data, monkeypatch):
    """What each of the four steps changes, and that all end in one detector; proposals are as many as in training."""
    seen, fit = [], recipes.fit

    def record(model, *arguments, **options):
        before = copy.deepcopy(model.state_dict())
        history = fit(model, *arguments, **options)
        seen.append((before, copy.deepcopy(model.state_dict()), set(history[0]), len(history)))
        return history

    monkeypatch.setattr(recipes, "fit", record)
    start = network()
    original = copy.deepcopy(start.state_dict())
    settings = recipes.FasterRCNNTrainingSettings(iterations=12, min_size=128)
    model, history = recipes.train_alternating(start, data[0], data[2], settings, rpn=RPN, quiet=True)
    assert not differing(original, start.state_dict()), "what is given is not changed"
    rpn = {"loss_objectness", "loss_rpn_box_reg"}
    assert [names for _, _, names, _ in seen] == [rpn, BOX_LOSSES] * 2
    assert [count for *_, count in seen] == [3] * 4 == [len(step) for step in history]
    changed = [differing(before, after) for before, after, *_ in seen]
    parts = [{name.split(".")[0] for name in names} for names in changed]
    assert parts == [{"backbone", "rpn"}, {"backbone", "roi_heads"}, {"rpn"}, {"roi_heads"}]
    assert not any("conv1." in name for names in changed for name in names)
    assert not differing(seen[0][0], seen[1][0]), "both begin with the same weights"
    for part, (_, after, *_) in zip(("backbone", "rpn", "roi_heads"), seen[1:], strict=True):
        assert not {name for name in differing(model.state_dict(), after) if name.startswith(part)}
    assert not model.training and model.detect([data[0][0][0]])[0]["boxes"].isfinite().all()
    found = recipes.proposals_of(model, data[0][:3])
    assert [boxes.shape for boxes in found] == [(RPN.post_nms_top_n[0], 4)] * 3
    model.train()
    assert torch.equal(found[1], model.propose([data[0][1][0]])[0]["boxes"])


FINE = recipes.FineTuningSettings(iterations=3, images_per_batch=2, min_size=96, seed=5)


def scenes(count=4):
    """Images of noise with an ellipse of another color, sizes all different."""
    generator, samples = torch.Generator().manual_seed(0), []
    for number in range(count):
        image = 0.3 * torch.rand(3, 90 + 7 * number, 120 - 5 * number, generator=generator)
        boxes = torch.tensor([[20.0 + number, 15, 70, 60 + number]])
        masks = ellipses(boxes, image.shape[1:])
        image[0, masks[0]] += 0.6
        samples.append((image, {"boxes": boxes, "labels": torch.ones(1).long(), "masks": masks}))
    return samples


def pyramid(trainable_layers=3):
    torch.manual_seed(0)
    rpn = replace(PYRAMID_RPN, batch_size_per_image=64, post_nms_top_n=(60, 30))
    few = {"batch_size_per_image": 32, "mask_channels": (8,), "mask_pool_size": 7, "max_detections": 10}
    heads = replace(PYRAMID_MASK_HEADS, **few)
    backbone = ResNetFPN(ResNetFPNConfig(blocks=(1, 1, 1, 1), width=8, channels=16), trainable_layers)
    return mask_rcnn_fpn(backbone, ["background", "ellipse"], rpn, heads)


@pytest.mark.parametrize("layers", [0, 3, 5])
def test_what_learns_in_fine_tuning(layers):
    model = pyramid(layers)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    history = recipes.fine_tune(model, scenes(), FINE, quiet=True)
    learning = [f"backbone.body.layer{n}." for n in (4, 3, 2, 1)] + ["backbone.body.conv1."]
    learning = [*learning[:layers], "backbone.fpn.", "rpn.", "roi_heads."]
    statistics = ("bn1.", "bn2.", "bn3.", "downsample.1.")
    assert differing(before, model.state_dict()) == {
        name for name in before if name.startswith(tuple(learning)) and not any(part in name for part in statistics)
    }
    assert len(history) == 3 and set(history[0]) == LOSSES["mask_rcnn"] and not model.training
    assert model.transform.min_size == 96 and model.transform.max_size == 1333


def test_what_is_written_is_read_again(tmp_path):
    """Also variances that half precision would turn into 0."""
    model = pyramid()
    next(m for m in model.modules() if isinstance(m, FrozenBatchNorm2d)).running_var.fill_(1e-9)
    recipes.fine_tune(model, scenes(), FINE, out=tmp_path / "own.safetensors", about={"data": "ellipses"}, quiet=True)
    again = load(tmp_path / "own.safetensors")
    assert again.backbone.config == model.backbone.config and again.transform == model.transform
    assert again.classes == ("background", "ellipse") and again.roi_heads.config == model.roi_heads.config
    state = again.state_dict()
    for name, value in model.state_dict().items():
        assert torch.allclose(state[name], value, rtol=1e-3, atol=1e-4), name
        assert not name.endswith("running_var") or torch.equal(state[name], value), name
    record = json.loads((tmp_path / "own.json").read_text())
    assert record["data"] == "ellipses" and record["settings"]["learning_rate"] == FINE.learning_rate


@pytest.fixture(scope="module")
def four(data):
    """Images, their proposals, and the names of the classes."""
    return data[0][:4], data[1][:4], data[2]


def run_rcnn(four, iterations=4, max_proposals=30, seed=0, start=0, **options):
    settings = recipes.RCNNTrainingSettings(iterations, max_proposals=max_proposals, seed=seed)
    return recipes.train_rcnn(network(start), *four, settings, **{"report": lambda _: None, **options})


@pytest.fixture(scope="module")
def rcnn(four, tmp_path_factory):
    """One that nothing interrupts, its file, and what was reported."""
    out, lines = tmp_path_factory.mktemp("rcnn") / "whole.safetensors", []
    return run_rcnn(four, out=out, about={"command": "c"}, report=lines.append), out, lines


def test_rcnn_saves_what_it_returns_and_says_what_it_did(rcnn, four):
    model, out, lines = rcnn
    assert not differing(model.state_dict(), load(out).state_dict())
    about = json.loads(out.with_suffix(".json").read_text())
    assert about["settings"]["iterations"] == 4 and about["command"] == "c"
    assert [line[:6] for line in lines if line[0] in "123"] == ["1 of 3", "2 of 3", "3 of 3"]
    counts = [int(line.split(":")[1].split()[0]) for line in lines if "hard negatives" in line]
    labels = torch.cat([target["labels"] for _, target in four[0]])
    assert counts == labels.bincount(minlength=7)[1:].tolist()
    one, other = run_rcnn(four, 1).state_dict(), run_rcnn(four, 1, seed=5).state_dict()
    cut = run_rcnn((four[0], [found[:30] for found in four[1]], four[2]), 1).state_dict()
    assert max(map(len, four[1])) > 30 and not differing(one, cut), "only the first proposals count"
    assert differing(one, other)


def test_an_interrupted_fine_tuning_of_rcnn_goes_on_to_the_same_detector(rcnn, four, broken):
    out = broken(run_rcnn, four)
    with pytest.raises(WeightsError, match=r"network [0-9a-f]{32} → "):
        run_rcnn(four, start=1, out=out, resume=True)
    resumed = run_rcnn(four, out=out, resume=True)
    assert not differing(rcnn[0].state_dict(), resumed.state_dict())
    assert not out.with_suffix(".checkpoint").exists()


@pytest.mark.parametrize("iterations", [0, 1])
def test_on_pool5_only_the_convolutions_are_kept(four, tmp_path, iterations):
    """They are those that fine-tuning, through all layers, has left; the file detects what the model does."""
    out, before = tmp_path / "pool5.safetensors", network().backbone.conv5.weight.half().float()
    model = run_rcnn(four, iterations, config=RCNNConfig(svm_layer="pool5"), out=out)
    assert model.network.config == replace(TINY, hidden=0)
    assert torch.equal(before, model.network.backbone.conv5.weight) == (iterations == 0)
    assert model.svm.shape == (6, 6 * 3 * 3 + 1) and model.svm.any() and model.box.any()
    assert not any("fc6" in name or "fc7" in name for name in load_weights(out)[0])
    (a,), (b,) = (m.detect([four[0][0][0]], [four[1][0][:30]]) for m in (model, load(out)))
    assert len(a["scores"]) and all(torch.equal(a[name], b[name]) for name in a)
    both = run_rcnn(four, 0, 10, config=RCNNConfig(svm_layer="pool5", box_layer="fc7"))
    assert both.network.config == TINY and both.network.fc8.out_features == 5 and both.box.any()


def test_new_layers_behind_convolutions_alone():
    """The same features up to a factor, which brings their mean square to 1; the given network is as it was."""
    given, images = network(), [torch.rand(3, 64, 80), torch.rand(3, 90, 70)]
    given.backbone.conv5.weight.data *= 7
    before = copy.deepcopy(given.state_dict())
    fresh = recipes.with_new_head(given, images, hidden=16)
    transform = replace(alexnet_transform(given), min_size=224)
    with torch.no_grad():
        small = [transform.batch([image])[0] for image in images]
        plain, scaled = (torch.cat([one.backbone(image).flatten() for image in small]) for one in (given, fresh))
    assert scaled.square().mean().item() == pytest.approx(1, rel=1e-4)
    assert torch.allclose(plain / plain.square().mean().sqrt(), scaled, atol=1e-5)
    assert fresh.classifier.fc7.weight.shape == (16, 16) and not differing(before, given.state_dict())
