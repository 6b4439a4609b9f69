"""What a training begins with, from files of random weights in the layouts of published ones, and of our own."""

import numpy as np
import pytest
import torch
from torchvision.models import ResNet50_Weights, resnet
from torchvision.models.detection import FasterRCNN, MaskRCNN
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor, _validate_trainable_layers

from minircnn.alexnet import ALEXNET_2012, AlexNet
from minircnn.faster_rcnn import PYRAMID_RPN, load_faster_rcnn
from minircnn.files import sha256
from minircnn.published import Published
from minircnn.shipped import FASTER_RCNN_WEIGHTS, RCNN_WEIGHTS, SMALL_WEIGHTS
from minircnn.training import FasterRCNNTrainingSettings, FineTuningSettings, build, read_start, starts
from minircnn.training.recipes import trainable
from minircnn.weights import WeightsError

CLASSES = ("background", "cat", "dog")
LAST = ["roi_heads.box_predictor.bbox_pred", "roi_heads.box_predictor.cls_score"]
LAST_MASK = ["roi_heads.mask_predictor.mask_fcn_logits"]


def small_resnet(block=resnet.Bottleneck):
    """One block a stage, with statistics that matter."""
    torch.manual_seed(0)
    network = resnet.ResNet(block, [1, 1, 1, 1], num_classes=10)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.1, 0.1), torch.nn.init.uniform_(module.running_var, 0.5, 2)
    return network.eval()


def write(folder, model):
    torch.save(model.state_dict(), folder / "x.pth")
    return folder / "x.pth"


def detector(kind, count):
    """Torchvision's detector on a small pyramid, classes counted with the background."""
    return kind(_resnet_fpn_extractor(small_resnet(), 5), count).eval()


@torch.no_grad()
def test_a_residual_network_for_images_is_the_body_of_a_pyramid(tmp_path):
    network, image = small_resnet(), torch.rand(1, 3, 64, 96)
    start = read_start(write(tmp_path, network), "mask_rcnn")
    model, new = build("mask_rcnn", start, CLASSES)
    x = network.layer1(network.maxpool(network.relu(network.bn1(network.conv1(image)))))
    for layer, found in zip(("layer2", "layer3", "layer4"), model.backbone.body(image)[1:], strict=True):
        x = getattr(network, layer)(x)
        torch.testing.assert_close(found, x, atol=1e-4, rtol=1e-4)
    parts = ("backbone.fpn.", "rpn.", "roi_heads.box_head.", "roi_heads.box_predictor.", "roi_heads.mask_")
    assert all(name.startswith(parts) for name in new) and all(any(n.startswith(p) for n in new) for p in parts)
    assert start.rpn is None


@pytest.mark.parametrize(("kind", "name"), [(FasterRCNN, "faster_rcnn"), (MaskRCNN, "mask_rcnn")])
@torch.no_grad()
def test_a_detector_of_torchvision_gives_all_but_its_last_layers(tmp_path, kind, name):
    """Whatever its classes are, which its file does not tell: its RPN and its box head are ours."""
    theirs = detector(kind, 5)
    model, new = build(name, read_start(write(tmp_path, theirs), name), CLASSES, rpn=PYRAMID_RPN)
    assert new == LAST + (LAST_MASK if kind is MaskRCNN else [])
    image = torch.rand(1, 3, 96, 128)
    levels = list(theirs.backbone(image).values())
    wanted = [part for parts in zip(*theirs.rpn.head(levels), strict=True) for part in parts]
    mine = list(model.backbone(image).values())
    found = [part for level in mine for part in model.rpn.head(level)]
    for ours, other in zip(found, wanted, strict=True):
        flat = other.permute(0, 2, 3, 1).reshape(ours.shape)
        torch.testing.assert_close(ours, flat, atol=1e-5, rtol=1e-4)
    regions = torch.rand(5, 256, 7, 7)
    torch.testing.assert_close(model.roi_heads.box_head(regions), theirs.roi_heads.box_head(regions))


def test_the_masks_are_new_behind_a_detector_without_them(tmp_path):
    _, new = build("mask_rcnn", read_start(write(tmp_path, detector(FasterRCNN, 3)), "mask_rcnn"), CLASSES)
    assert new[:2] == LAST and {name.split(".")[1] for name in new[2:]} == {"mask_head", "mask_predictor"}


def test_the_layers_that_learn_are_those_of_torchvisions_recipe(tmp_path):
    model, _ = build("faster_rcnn", read_start(write(tmp_path, detector(FasterRCNN, 3)), "faster_rcnn"), CLASSES)
    trainable(model, FineTuningSettings(), [model.rpn, model.roi_heads])
    found = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    layers = _validate_trainable_layers(True, None, 5, 3)  # what fasterrcnn_resnet50_fpn does of a pre-trained network
    theirs = _resnet_fpn_extractor(small_resnet(), layers)
    frozen = {name.split(".")[1] for name, p in theirs.named_parameters() if not p.requires_grad} - {"bn1"}
    assert frozen == {"conv1", "layer1"} == {n.split(".")[2] for n, p in model.named_parameters() if n not in found}


@pytest.mark.parametrize("frozen", [0, 1, 2])
def test_the_first_convolutions_stay_as_they_were_pre_trained(frozen):
    model, _ = build("faster_rcnn", read_start("toytown", "faster_rcnn"), CLASSES)
    settings = FasterRCNNTrainingSettings(frozen=frozen, backbone_lr_mult=0.1)
    groups = trainable(model, settings, [model.rpn, model.roi_heads])
    fixed = {name.split(".")[1] for name, p in model.named_parameters() if not p.requires_grad}
    assert fixed == {f"conv{n}" for n in range(1, frozen + 1)}
    assert [(group["lr_mult"], len(group["params"])) for group in groups] == [(0.1, 2 * (5 - frozen)), (1.0, 14)]


def test_which_starts_know_photographs(tmp_path):
    """Not our own small networks, and pyramids have settings of their own."""
    convolutions = AlexNet(ALEXNET_2012, 1).backbone.named_parameters()
    arrays = {name: value.detach().half().numpy() for name, value in convolutions}
    np.savez(tmp_path / "conv.npz", mean=np.array([100.0, 110.0, 120.0], np.float32), **arrays)
    torch.save(small_resnet().state_dict(), tmp_path / "resnet.pth")
    known = {"toytown": False, FASTER_RCNN_WEIGHTS: False, tmp_path / "resnet.pth": False, tmp_path / "conv.npz": True}
    assert {start: read_start(start, "faster_rcnn").photographs for start in known} == known


def test_published_files_are_fetched_once_and_compared(tmp_path, monkeypatch):
    """The detectors were trained with eps 0 in their batch normalization; of a file, its checksum tells."""
    assert starts.RESNET50.url == ResNet50_Weights.IMAGENET1K_V1.url and starts.RESNET50.checksum in starts.RESNET50.url
    monkeypatch.setenv("MINIRCNN_CACHE", str(tmp_path / "cache"))
    path = write(tmp_path, detector(FasterRCNN, 91))
    file = Published(path.as_uri(), sha256(path)[:8], "1 MB")
    monkeypatch.setitem(starts.ON_PYRAMIDS, "faster_rcnn", file)
    start = read_start("coco", "faster_rcnn")
    path.unlink()
    assert read_start("coco", "faster_rcnn").classes == start.classes and len(start.classes) == 91
    assert start.network.config.norm_eps == 0 and build("faster_rcnn", start, start.classes)[1] == []
    monkeypatch.setattr(starts, "RESNET50", Published(path.as_uri(), "0" * 8, "98 MB"))
    with pytest.raises(WeightsError, match=r"could not fetch file:.*fetch this file \(98 MB\) on another machine"):
        read_start("imagenet", "mask_rcnn")


def test_a_detector_of_ours_gives_what_fits():
    """Everything to one of its kind with the same classes and anchors; else all but what depends on these."""
    shipped, start = load_faster_rcnn(), read_start(FASTER_RCNN_WEIGHTS, "faster_rcnn")
    model, new = build("faster_rcnn", start, shipped.classes, shipped.rpn.config, shipped.roi_heads.config)
    assert new == [] and all(torch.equal(v, model.state_dict()[n]) for n, v in shipped.state_dict().items())
    start = read_start(FASTER_RCNN_WEIGHTS, "faster_rcnn")
    others = ("background", *shipped.classes[:0:-1])  # as many, in another order
    few = type(shipped.rpn.config)(anchor_sizes=((8.0,),))
    model, new = build("faster_rcnn", start, others, few, shipped.roi_heads.config)
    assert new == [*LAST, "rpn.head.bbox_pred", "rpn.head.cls_logits"]
    assert torch.equal(model.rpn.head.conv[0][0].weight, shipped.rpn.head.conv[0][0].weight)
    model, new = build("fast_rcnn", read_start(FASTER_RCNN_WEIGHTS, "fast_rcnn"), shipped.classes)
    assert new == [] and torch.equal(model.roi_heads.box_head.fc6.weight, shipped.roi_heads.box_head.fc6.weight)


def test_a_network_for_images_gives_backbone_and_box_head():
    model, new = build("faster_rcnn", read_start("toytown", "faster_rcnn"), CLASSES)
    assert new == [*LAST, "rpn.head.bbox_pred", "rpn.head.cls_logits", "rpn.head.conv.0.0"]
    fc7 = read_start(SMALL_WEIGHTS, "rcnn").network.classifier.fc7
    assert torch.equal(model.roi_heads.box_head.fc7.weight, fc7.weight)


@pytest.mark.parametrize(
    ("name", "file", "reason"),
    [
        ("fast_rcnn", "coco", "there is no fast_rcnn trained on COCO; give imagenet, or a file"),
        ("fast_rcnn", "resnet", "fast_rcnn begins with an AlexNet for images"),
        ("rcnn", FASTER_RCNN_WEIGHTS, "rcnn begins with an AlexNet for images"),
        ("faster_rcnn", RCNN_WEIGHTS, "no AlexNet, it holds"),
        ("faster_rcnn", "resnet18", "no ResNet of blocks with three convolutions, such as ResNet-50"),
        ("faster_rcnn", "nowhere.pth", "there is no such file"),
    ],
)
def test_what_a_detector_cannot_begin_with(tmp_path, name, file, reason):
    if str(file).startswith("resnet"):
        block = resnet.BasicBlock if file == "resnet18" else resnet.Bottleneck
        file = write(tmp_path, small_resnet(block))
    with pytest.raises((ValueError, FileNotFoundError), match=reason):
        read_start(file, name)
