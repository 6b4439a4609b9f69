"""Mask R-CNN's training: what learns, what is written, a broken run."""

import copy
import json
from dataclasses import replace

import pytest
import torch

from minircnn.alexnet import AlexNet
from minircnn.datasets import ToyTown
from minircnn.faster_rcnn import RPNConfig
from minircnn.mask_rcnn import MaskRoIConfig, load_mask_rcnn, mask_rcnn_alexnet
from minircnn.training import MaskRCNNTrainingSettings, draw_batch, joint, loop, train_mask_rcnn
from minircnn.weights import WeightsError
from tests.fast_rcnn.conftest import TINY

RPN = RPNConfig(
    anchor_sizes=((20.0, 60.0),), batch_size_per_image=32, pre_nms_top_n=(200, 100), post_nms_top_n=(40, 20)
)
HEADS = MaskRoIConfig(pool_size=3, mask_pool_size=7, mask_channels=(8, 8))
SETTINGS = MaskRCNNTrainingSettings(iterations=6, learning_rate=0.002, min_size=128)


@pytest.fixture(scope="module")
def data():
    train = ToyTown("train")
    return [train[index] for index in range(8)], train.classes


def network():
    torch.manual_seed(0)
    return AlexNet(TINY, 5)


def run(data, settings=SETTINGS, heads=HEADS, **options):
    return train_mask_rcnn(network(), *data, settings, rpn=RPN, heads=heads, quiet=True, **options)


def test_all_learns_but_conv1(data):
    torch.manual_seed(SETTINGS.seed)
    before = copy.deepcopy(mask_rcnn_alexnet(network(), data[1], RPN, HEADS).state_dict())
    model, history = run(data)
    after = model.state_dict()
    still = {name for name in before if torch.equal(before[name], after[name])}
    assert still == {name for name in before if "conv1" in name}
    assert not model.training and all("loss_mask" in row for row in history) and len(history) == 6


def test_masks_are_learned(data):
    settings = MaskRCNNTrainingSettings(
        iterations=150,
        images_per_batch=2,
        learning_rate=0.01,
        backbone_lr_mult=1.0,
        min_size=128,
        color_jitter=0,
        scale_jitter=0,
    )
    _, history = run((data[0][:2], data[1]), settings, replace(HEADS, mask_channels=(16,)))
    values = torch.tensor([row["loss_mask"] for row in history])
    assert values[-10:].mean() < 0.8 * values[:10].mean()


def test_masks_are_mirrored_and_scaled_with_their_pictures(data):
    """The losses of the first batch are those of the model for pictures, boxes and masks changed together."""
    settings = MaskRCNNTrainingSettings(iterations=1, color_jitter=0, scale_jitter=0.25, min_size=128)
    _, history = run(data, settings)
    torch.manual_seed(0)
    start = network()
    torch.manual_seed(0)
    model = mask_rcnn_alexnet(start, data[1], RPN, HEADS).train()
    model.transform = replace(model.transform, min_size=128)
    batch = draw_batch(0, data[0], None, pictures=4, seed=0, augmentation=joint.Augmentation(scale_jitter=0.25))
    flips = sum(int(not any(torch.equal(image, given) for given, _ in data[0])) for image in batch.images)
    assert 0 < flips < 4 and batch.scale != 1
    for image, target in zip(batch.images, batch.targets, strict=True):
        (given,) = (t for i, t in data[0] if t["image_id"] == target["image_id"])
        mirrored = not any(torch.equal(image, i) for i, _ in data[0])
        assert torch.equal(target["masks"], given["masks"].flip(-1) if mirrored else given["masks"])
    model.transform = replace(model.transform, min_size=int(128 * batch.scale))
    torch.manual_seed(0)  # as the loop does in its first iteration, with seed 0
    expected = model.losses(batch.images, batch.targets)
    assert history[0] == pytest.approx({name: value.item() for name, value in expected.items()}, rel=1e-6)


def test_an_interrupted_run_goes_on_to_the_same_file(data, tmp_path, monkeypatch):
    monkeypatch.setattr(loop.fit, "__kwdefaults__", {**loop.fit.__kwdefaults__, "checkpoint_every": 1})
    _, history = run(data, out=tmp_path / "whole.safetensors", about={"command": "c"})
    calls = []

    def stop(*arguments, **options):
        calls.append(arguments)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return draw_batch(*arguments, **options)

    monkeypatch.setattr(joint, "draw_batch", stop)
    with pytest.raises(KeyboardInterrupt):
        run(data, out=tmp_path / "broken.safetensors", about={"command": "c"})
    monkeypatch.undo()
    with pytest.raises(WeightsError, match="heads"):
        run(data, heads=replace(HEADS, pooling="pool"), out=tmp_path / "broken.safetensors", resume=True)
    _, rest = run(data, out=tmp_path / "broken.safetensors", about={"command": "c"}, resume=True)
    assert rest == history[3:]
    for ending in ("safetensors", "json"):
        assert (tmp_path / f"whole.{ending}").read_bytes() == (tmp_path / f"broken.{ending}").read_bytes()
    about = json.loads((tmp_path / "whole.json").read_text())
    assert (about["command"], about["settings"]) == ("c", vars(SETTINGS))
    loaded = load_mask_rcnn(tmp_path / "whole.safetensors")
    assert (loaded.rpn.config, loaded.roi_heads.config, loaded.transform.min_size) == (RPN, HEADS, 128)
