"""The published Mask R-CNN learns something else: what learns, what is written, and two processes."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from minircnn.datasets import CocoDataset
from minircnn.mask_rcnn import (
    PYRAMID_MASK_HEADS,
    PYRAMID_RPN,
    load_mask_rcnn,
    mask_rcnn_fpn,
    maskrcnn_resnet50_fpn,
)
from minircnn.resnet_fpn import FrozenBatchNorm2d, ResNetFPN, ResNetFPNConfig
from minircnn.training import FineTuningSettings, draw_batch, fine_tune, processes, rank
from tests.mask_rcnn.conftest import ellipses
from tests.training import test_parallel
from tests.training.test_parallel import launch, needs_torchrun

TINY = ResNetFPNConfig(blocks=(1, 1, 1, 1), width=8, channels=16)
SETTINGS = FineTuningSettings(iterations=3, images_per_batch=2, min_size=96, seed=5)


def scenes(count=4):
    """Pictures of noise with an ellipse of another colour, sizes all different."""
    generator, samples = torch.Generator().manual_seed(0), []
    for number in range(count):
        image = 0.3 * torch.rand(3, 90 + 7 * number, 120 - 5 * number, generator=generator)
        boxes = torch.tensor([[20.0 + number, 15, 70, 60 + number]])
        masks = ellipses(boxes, image.shape[1:])
        image[0, masks[0]] += 0.6
        samples.append((image, {"boxes": boxes, "labels": torch.ones(1).long(), "masks": masks}))
    return samples


def tiny(trainable_layers=3):
    torch.manual_seed(0)
    rpn = replace(PYRAMID_RPN, anchors_per_image=64, after_nms=(60, 30))
    heads = replace(PYRAMID_MASK_HEADS, rois_per_image=32, mask_channels=(8,), mask_pool_size=7, max_detections=10)
    return mask_rcnn_fpn(ResNetFPN(TINY, trainable_layers), ["background", "ellipse"], rpn, heads)


@pytest.mark.parametrize("layers", [0, 3, 5])
def test_what_learns(layers):
    model = tiny(layers)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    history = fine_tune(model, scenes(), SETTINGS, quiet=True)
    after = model.state_dict()
    still = {name for name, value in before.items() if torch.equal(value, after[name])}
    learning = [f"trunk.body.layer{n}." for n in (4, 3, 2, 1)] + ["trunk.body.conv1."]
    learning = [*learning[:layers], "trunk.fpn.", "rpn.", "roi_heads."]
    statistics = ("bn1.", "bn2.", "bn3.", "downsample.1.")
    for name in before:
        fixed = any(part in name for part in statistics) or not name.startswith(tuple(learning))
        assert (name in still) == fixed, name
    assert len(history) == 3 and {"loss_mask", "loss_objectness"} < history[0].keys() and not model.training
    assert model.transform.min_size == 96 and model.transform.max_size == 1333


def test_it_learns():
    settings = FineTuningSettings(
        iterations=60, learning_rate=3e-3, min_size=96, backbone_lr_mult=1.0, color_jitter=0, scale_jitter=0
    )
    history = fine_tune(tiny(5), scenes(), settings, quiet=True)
    first, last = (torch.tensor([sum(row.values()) for row in rows]).mean() for rows in (history[:5], history[-5:]))
    assert last < 0.75 * first


def test_what_is_written_is_read_again(tmp_path):
    """Also variances that half precision would turn into 0."""
    model = tiny()
    next(m for m in model.modules() if isinstance(m, FrozenBatchNorm2d)).running_var.fill_(1e-9)
    fine_tune(model, scenes(), SETTINGS, out=tmp_path / "own.safetensors", about={"data": "ellipses"}, quiet=True)
    again = load_mask_rcnn(tmp_path / "own.safetensors")
    assert again.trunk.config == TINY and again.transform == model.transform
    assert again.classes == ("background", "ellipse") and again.roi_heads.config == model.roi_heads.config
    state = again.state_dict()
    for name, value in model.state_dict().items():
        assert torch.allclose(state[name], value, rtol=1e-3, atol=1e-4), name
        assert not name.endswith("running_var") or torch.equal(state[name], value), name
    record = json.loads((tmp_path / "own.json").read_text())
    assert record["data"] == "ellipses" and record["settings"]["learning_rate"] == SETTINGS.learning_rate
    assert not (tmp_path / "own.checkpoint").exists()


# ------------------------------------------------------------------------------------------------------ two processes


def of_one_size(folder):
    """Four photographs of 480 × 640 pixels: in a batch of mixed sizes, padding would depend on who has which."""
    data = CocoDataset(folder / "images", folder / "instances.json")
    indices = [index for index in range(len(data)) if data.image_size(index) == (480, 640)][:4]
    return [data[index] for index in indices], data.classes


def learn(folder):
    samples, classes = of_one_size(folder / "coco-mini")
    torch.manual_seed(rank())  # the main process's weights count
    model = maskrcnn_resnet50_fpn(classes)
    for module in model.modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.running_var.fill_(6.0)  # without statistics that tame it, a random network explodes
    history = fine_tune(model, samples, SETTINGS, quiet=True)
    counts = [len(draw_batch(i, samples, None, pictures=2, seed=SETTINGS.seed).images) for i in range(3)]
    return {"history": history, "counts": counts}


def in_each_process(folder):
    with processes():
        torch.save(learn(Path(os.environ["MINIRCNN_DATA"])), folder / f"found-{os.environ['RANK']}.pt")


@needs_torchrun
def test_two_processes_have_the_losses_of_one(real_data, tmp_path, monkeypatch):
    """The model of ResNet-50, each process with one of the two photographs of every batch."""
    monkeypatch.setattr(test_parallel, "__file__", __file__)  # the functions of which file `launch` runs
    root = Path(__file__).resolve().parents[2]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")]))
    output, status = launch(tmp_path, in_each_process)
    assert status == 0, output
    two = [torch.load(tmp_path / f"found-{number}.pt", weights_only=True) for number in range(2)]
    one = learn(real_data)
    assert [found["counts"] for found in two] == [[1, 1, 1]] * 2 and one["counts"] == [2, 2, 2]
    assert two[0]["history"] == two[1]["history"]
    for row, wanted in zip(two[0]["history"], one["history"], strict=True):
        assert row == pytest.approx(wanted, rel=1e-4)
    assert one["history"][0] != one["history"][2]
