"""The published Mask R-CNN learns something else: what learns, and what is written."""

import json
from dataclasses import replace

import pytest
import torch

from minircnn.mask_rcnn import (
    PYRAMID_MASK_HEADS,
    PYRAMID_RPN,
    load_mask_rcnn,
    mask_rcnn_fpn,
)
from minircnn.resnet_fpn import FrozenBatchNorm2d, ResNetFPN, ResNetFPNConfig
from minircnn.training import FineTuningSettings, fine_tune
from tests.mask_rcnn.conftest import ellipses

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
    rpn = replace(PYRAMID_RPN, batch_size_per_image=64, post_nms_top_n=(60, 30))
    heads = replace(
        PYRAMID_MASK_HEADS, batch_size_per_image=32, mask_channels=(8,), mask_pool_size=7, max_detections=10
    )
    return mask_rcnn_fpn(ResNetFPN(TINY, trainable_layers), ["background", "ellipse"], rpn, heads)


@pytest.mark.parametrize("layers", [0, 3, 5])
def test_what_learns(layers):
    model = tiny(layers)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    history = fine_tune(model, scenes(), SETTINGS, quiet=True)
    after = model.state_dict()
    still = {name for name, value in before.items() if torch.equal(value, after[name])}
    learning = [f"backbone.body.layer{n}." for n in (4, 3, 2, 1)] + ["backbone.body.conv1."]
    learning = [*learning[:layers], "backbone.fpn.", "rpn.", "roi_heads."]
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
    assert again.backbone.config == TINY and again.transform == model.transform
    assert again.classes == ("background", "ellipse") and again.roi_heads.config == model.roi_heads.config
    state = again.state_dict()
    for name, value in model.state_dict().items():
        assert torch.allclose(state[name], value, rtol=1e-3, atol=1e-4), name
        assert not name.endswith("running_var") or torch.equal(state[name], value), name
    record = json.loads((tmp_path / "own.json").read_text())
    assert record["data"] == "ellipses" and record["settings"]["learning_rate"] == SETTINGS.learning_rate
    assert not (tmp_path / "own.checkpoint").exists()
