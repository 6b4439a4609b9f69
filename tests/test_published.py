"""The detectors with ResNet-50 and a feature pyramid against torchvision's, with the same weights.

Random weights prove the same as published ones: see :func:`minircnn.course.compare.pair`."""

import hashlib
import re
from dataclasses import replace
from unittest.mock import Mock

import pytest
import torch
from torchvision.models import resnet50
from torchvision.models._meta import _COCO_CATEGORIES
from torchvision.models.detection import (
    FasterRCNN_ResNet50_FPN_Weights,
    MaskRCNN_ResNet50_FPN_Weights,
    fasterrcnn_resnet50_fpn,
    keypointrcnn_resnet50_fpn,
    maskrcnn_resnet50_fpn,
    maskrcnn_resnet50_fpn_v2,
    retinanet_resnet50_fpn,
)
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNPredictor

from minircnn import published
from minircnn.course.compare import pair as make_pair
from minircnn.datasets import CocoDataset
from minircnn.faster_rcnn import PYRAMID_RPN
from minircnn.mask_rcnn import PYRAMID_MASK_HEADS, load_mask_rcnn
from minircnn.published import COCO_CLASSES, load_torchvision_weights, rename_keys
from minircnn.resnet_fpn import FrozenBatchNorm2d
from minircnn.training import FineTuningSettings, fine_tune
from minircnn.transforms import Transform
from minircnn.weights import WeightsError
from tests.tiny import assert_same_detections, ellipses

SMALL = Transform(min_size=64, max_size=100, divisor=32)
FEW_PROPOSALS = replace(PYRAMID_RPN, post_nms_top_n=(50, 50))
FEW_ROIS = replace(PYRAMID_MASK_HEADS, max_detections=5, batch_size_per_image=16)
HERE = {"mask": published.maskrcnn_resnet50_fpn, "faster": published.fasterrcnn_resnet50_fpn}
THERE = {"mask": maskrcnn_resnet50_fpn, "faster": fasterrcnn_resnet50_fpn}


@pytest.fixture(scope="module")
def photographs(real_data):
    """Of different sizes, with objects; the second has a crowd."""
    folder = real_data / "coco-mini"
    data = CocoDataset(folder / "images", folder / "instances.json")
    crowded = next(i for i in range(len(data)) if data.load_target(i)["iscrowd"].any())
    return [data[index] for index in (0, crowded)]


FEW = ["background", *"abcdef"]


@pytest.fixture(scope="module", params=["mask", "faster"])
def pair(request):
    """A block a stage: with more, double precision takes long. All layers of ResNet-50 have a test of their own."""
    return [model.double() for model in make_pair(request.param, (1, 1, 1, 1), FEW, SMALL, most=6, proposals=40)]


def test_detections_in_double_precision(pair, photographs):
    """A batch of mixed sizes, and a tiny image."""
    images = [image.double() for image, _ in photographs] + [torch.rand(3, 9, 13, dtype=torch.float64)]
    with torch.no_grad():
        found, wanted = pair[0].detect(images), pair[1](images)
    assert [len(one["labels"]) for one in wanted[:2]] == [6, 6]
    for mine, other in zip(found, wanted, strict=True):
        if len(other["labels"]):
            assert_same_detections(mine, other, pixels=1e-4, scores=1e-9)
        assert len(mine["labels"]) == len(other["labels"])


@pytest.mark.parametrize("pair", ["mask"], indirect=True)  # which has all of Faster R-CNN's
def test_losses_and_gradients_in_double_precision(pair, photographs):
    """Crowds are left out: torchvision does not know them. The last image shows nothing."""
    images, targets = [], []
    for image, target in photographs:
        single = ~target["iscrowd"]
        images.append(image.double())
        targets.append({name: target[name][single] for name in ("boxes", "labels", "masks")})
        targets[-1]["labels"] = targets[-1]["labels"] % 6 + 1
    images.append(images[0])
    targets.append({name: value[:0] for name, value in targets[0].items()})
    found = []
    for model in pair:
        model.train()
        if hasattr(model.transform, "eval"):
            model.transform.eval()  # in training it draws one of its sizes, which disturbs the sequence of draws
        torch.manual_seed(1)
        losses = model(images, [dict(target) for target in targets])
        model.zero_grad()
        sum(losses.values()).backward()
        gradients = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
        found.append(({name: loss.detach() for name, loss in losses.items()}, gradients))
        model.eval()
    (mine, my_gradients), (other, their_gradients) = found
    assert mine.keys() == other.keys() and len(mine) == 5
    for name, loss in other.items():
        assert loss > 0 and float(mine[name]) == pytest.approx(float(loss), abs=1e-6), name
    renamed = rename_keys(their_gradients)
    assert my_gradients.keys() == renamed.keys()
    for name, gradient in renamed.items():
        assert torch.allclose(my_gradients[name], gradient, rtol=1e-4, atol=1e-5 * float(gradient.abs().max())), name


def test_all_layers_in_single_precision(photographs):
    """As people use it, but for the size of the image."""
    mine, theirs = make_pair(transform=Transform(min_size=160, max_size=266, divisor=32), most=20, proposals=200)
    image = photographs[0][0][:, :150, :200]
    with torch.no_grad():
        assert_same_detections(mine.detect([image])[0], theirs([image])[0], pixels=1e-3, scores=1e-5)
        batch = theirs.transform([image])[0].tensors
        same, wanted = mine.features([image])[0], theirs.backbone(batch)
        other = theirs.backbone(batch.contiguous(memory_format=torch.channels_last))
    for name, level in wanted.items():  # what is left is rounding: as much as torchvision differs from itself
        assert (same[name] - level).abs().max() < 3 * (other[name] - level).abs().max()


@pytest.mark.parametrize("num_classes", [91, 5])
@pytest.mark.parametrize("kind, count", [("mask", 307), ("faster", 295)])
def test_keys_and_shapes_are_torchvisions(kind, count, num_classes):
    """All of them, but for counters."""
    with torch.device("meta"):
        theirs = THERE[kind](weights=None, weights_backbone=None, num_classes=num_classes).state_dict()
        mine = HERE[kind](num_classes=num_classes).state_dict()
    for state in (theirs, older(theirs)):
        assert {name: value.shape for name, value in rename_keys(state).items()} == {
            name: value.shape for name, value in mine.items()
        }
    assert len(mine) == count


def test_names_and_numbers_of_classes():
    assert COCO_CLASSES[1:] == tuple(_COCO_CATEGORIES[1:]) and COCO_CLASSES[0] == "background"
    for wrong in ({"num_classes": 3}, {"classes": None, "num_classes": 1}):
        with pytest.raises(ValueError, match=r"num_classes is \d"):
            published.maskrcnn_resnet50_fpn(**{"classes": ["background", "a"], **wrong})
    with pytest.raises(ValueError, match=r'pooling must be "align", not \'pool\''):
        published.maskrcnn_resnet50_fpn(["background", "coin"], heads=replace(PYRAMID_MASK_HEADS, pooling="pool"))


def older(state):
    """Names of the first published files, which torchvision still reads."""
    renamed = {}
    for key, value in state.items():
        key = key.replace("rpn.head.conv.0.0.", "rpn.head.conv.")
        key = re.sub(r"(fpn\.\w+_blocks\.\d)\.0\.", r"\1.", key)
        renamed[re.sub(r"mask_head\.(\d)\.0\.", lambda m: f"mask_head.mask_fcn{int(m[1]) + 1}.", key)] = value
    return renamed


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """Weights as torchvision publishes them, older names in a ``.pth`` file, and by our names."""
    torch.manual_seed(3)
    theirs = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None)
    state = older(theirs.state_dict())
    assert theirs.load_state_dict(dict(state)), "torchvision reads it"
    path = tmp_path_factory.mktemp("published") / "older.pth"
    torch.save(state, path)
    yield path, rename_keys(theirs.state_dict())
    path.unlink()  # 170 MB


def eps_of(model):
    (eps,) = {norm.eps for norm in model.modules() if isinstance(norm, FrozenBatchNorm2d)}
    return eps


def test_published_weights_are_fetched_once_and_have_their_eps(file, tmp_path, monkeypatch):
    """As torchvision does after loading exactly these weights: they were trained with an eps of 0."""
    path, wanted = file
    model = published.maskrcnn_resnet50_fpn(weights=path)
    assert all(torch.equal(value, wanted[name]) for name, value in model.state_dict().items())
    assert not model.training and eps_of(model) == 1e-5
    checksum = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    monkeypatch.setenv("MINIRCNN_CACHE", str(tmp_path))
    for url in (path, path.parent / "not there" / path.name):
        monkeypatch.setattr(published, "MASK_RCNN_COCO", published.Published(url.as_uri(), checksum, "170 MB"))
        again = published.maskrcnn_resnet50_fpn(weights="coco")
        assert eps_of(again) == 0
        assert all(torch.equal(value, wanted[name]) for name, value in again.state_dict().items())


@pytest.mark.parametrize(
    "kind, here, theirs",
    [
        ("mask", published.MASK_RCNN_COCO, MaskRCNN_ResNet50_FPN_Weights.COCO_V1),
        ("faster", published.FASTER_RCNN_COCO, FasterRCNN_ResNet50_FPN_Weights.COCO_V1),
    ],
)
def test_offline_one_line_says_what_to_fetch(kind, here, theirs, tmp_path, monkeypatch):
    assert here.url == theirs.url and f"-{here.checksum}.pth" in here.url
    assert int(here.size.removesuffix(" MB")) == pytest.approx(theirs.meta["_file_size"], abs=1)
    monkeypatch.setenv("MINIRCNN_CACHE", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", Mock(side_effect=OSError("no such host")))
    with pytest.raises(WeightsError) as caught:
        HERE[kind](weights="coco")
    message = str(caught.value)
    assert here.url in message and str(tmp_path / "downloads" / here.url.rsplit("/")[-1]) in message
    assert "\n" not in message and here.size in message


def test_new_layers_only_where_they_are_asked_for(file):
    path, wanted = file
    with pytest.raises(WeightsError, match="has 91 classes with the background, but 2 names are given"):
        published.maskrcnn_resnet50_fpn(["background", "pen"], path, new_layers=False)
    model, fresh = published.maskrcnn_resnet50_fpn(num_classes=2, weights=path), []
    assert model.classes == ("background", "class 1")
    for name, value in model.state_dict().items():
        if value.shape != wanted[name].shape:
            fresh.append(name)
        else:
            assert torch.equal(value, wanted[name]), name
    last = ("cls_score", "bbox_pred", "mask_fcn_logits")
    assert len(fresh) == 6 and all(any(part in name for part in last) for name in fresh)


def test_other_weights_are_refused_and_nothing_is_changed(file):
    model = published.maskrcnn_resnet50_fpn()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    missing = {name: value for name, value in file[1].items() if name != "rpn.head.bbox_pred.bias"}
    with pytest.raises(WeightsError, match=r"my file: weights for another network: rpn.head.bbox_pred.bias is missing"):
        load_torchvision_weights(model, missing, "my file")
    broken = {**file[1], "rpn.head.cls_logits.bias": torch.full((3,), torch.nan)}
    with pytest.raises(WeightsError, match="holds nan or infinity"):
        load_torchvision_weights(model, broken)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    "build, kind, message",
    [
        (maskrcnn_resnet50_fpn, "faster", r"holds a Mask R-CNN, not a Faster R-CNN; use it as mask_rcnn$"),
        (fasterrcnn_resnet50_fpn, "mask", r"holds a Faster R-CNN, not a Mask R-CNN; use it as faster_rcnn$"),
        (maskrcnn_resnet50_fpn_v2, "mask", r"holds one of torchvision's v2 models .*, and not a Mask R-CNN"),
        (keypointrcnn_resnet50_fpn, "faster", r"holds a Keypoint R-CNN, and not a Faster R-CNN"),
        (retinanet_resnet50_fpn, "faster", r"weights for another network: roi_heads\.box_pred.* is missing"),
        (resnet50, "mask", "holds an image classifier, such as those for ImageNet, and not a Mask"),
    ],
)
def test_what_else_a_file_may_hold_is_named(build, kind, message):
    """By the names of torchvision's tensors; no number is needed."""
    with torch.device("meta"):
        state = build(weights=None, **({} if build is resnet50 else {"weights_backbone": None})).state_dict()
        model = HERE[kind]()
    with pytest.raises(WeightsError, match=rf"^my\.pth: {message}"):
        load_torchvision_weights(model, state, "my.pth")


def tutorial(model, num_classes, hidden_layer):
    """The lines of torchvision's tutorial on fine-tuning, unchanged."""
    in_features = model.roi_heads.box_predictor.cls_score.in_features
    model.roi_heads.box_predictor = FastRCNNPredictor(in_features, num_classes)
    in_features_mask = model.roi_heads.mask_predictor.conv5_mask.in_channels
    model.roi_heads.mask_predictor = MaskRCNNPredictor(in_features_mask, hidden_layer, num_classes)
    return model


def test_a_file_of_two_classes_is_torchvisions_model(photographs, tmp_path):
    """As a training script saves it, with a mask predictor of another width; its last layers are never drawn."""
    torch.manual_seed(5)
    theirs = tutorial(maskrcnn_resnet50_fpn(weights=None, weights_backbone=None), 2, 100).eval()
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_var.fill_(6.0)
    torch.nn.init.normal_(theirs.roi_heads.mask_predictor.mask_fcn_logits.weight, std=1.0)
    path = tmp_path / "two.pth"
    state = {f"module.{name}": value for name, value in theirs.state_dict().items()}
    torch.save({"model": state, "epoch": 1}, path)
    few = {"rpn": FEW_PROPOSALS, "heads": FEW_ROIS, "transform": SMALL}
    model = published.maskrcnn_resnet50_fpn(["background", "pen"], path, new_layers=False, **few)
    assert model.classes == ("background", "pen")
    theirs.transform.min_size, theirs.transform.max_size = (SMALL.min_size,), SMALL.max_size
    theirs.rpn._post_nms_top_n, theirs.roi_heads.detections_per_img = {"training": 50, "testing": 50}, 5
    image, _ = photographs[0]
    with torch.no_grad():
        assert_same_detections(model.detect([image])[0], theirs([image])[0], pixels=1e-2, scores=1e-4)
    for classes, said in ((None, "no"), (["background", "a", "b"], "3"), (COCO_CLASSES, "91")):
        message = rf"two\.pth: has 2 classes with the background, but {said} names .*--classes background,NAME$"
        with pytest.raises(WeightsError, match=message):
            published.maskrcnn_resnet50_fpn(classes, path)


def test_the_tutorials_lines_work_on_our_model(tmp_path):
    """Training, detecting, saving and loading, both in our way and as a state dict."""
    torch.manual_seed(0)
    small = {"rpn": FEW_PROPOSALS, "heads": replace(FEW_ROIS, score_threshold=0.0)}
    model = tutorial(published.maskrcnn_resnet50_fpn(**small, transform=SMALL), 2, 48)
    assert model.classes == ("background", "class 1")
    model.classes = ["background", "pedestrian"]
    with pytest.raises(ValueError, match="classes has 3 names, but the box predictor has 2 classes"):
        model.classes = ["background", "pedestrian", "dog"]
    boxes, images = torch.tensor([[5.0, 5.0, 60.0, 40.0]]), [torch.rand(3, 64, 96)]
    target = {"boxes": boxes, "labels": torch.ones(1).long(), "masks": ellipses(boxes, (64, 96))}
    before = {name: value.clone() for name, value in model.state_dict().items()}
    settings = FineTuningSettings(iterations=1, images_per_batch=1, min_size=64)
    fine_tune(model, [(images[0], target)], settings, out=tmp_path / "m.safetensors", quiet=True)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    predictors = ("roi_heads.box_predictor", "roi_heads.mask_predictor")
    assert {name for name in before if name.startswith(predictors)} <= changed
    torch.save(model.state_dict(), tmp_path / "m.pth")
    (wanted,) = model.detect(images)
    again = published.maskrcnn_resnet50_fpn(model.classes, tmp_path / "m.pth", transform=model.transform, **small)
    saved = load_mask_rcnn(tmp_path / "m.safetensors")  # in half precision
    assert saved.classes == again.classes == ("background", "pedestrian")
    assert len(wanted["labels"]) == 5
    for name, value in again.detect(images)[0].items():
        assert torch.equal(value, wanted[name]), name
    half = {name: value.half().float() for name, value in model.named_parameters()}
    assert all(torch.equal(value, half[name]) for name, value in saved.named_parameters())


def test_regions_are_taken_from_their_own_level():
    """A gradient reaches every level that regions are taken from, and P6 only through anchors."""
    model = published.maskrcnn_resnet50_fpn(["background", "coin"], transform=Transform(divisor=32))
    names = ("0", "1", "2", "3", "pool")
    features = {name: torch.rand(1, 256, 2 ** (7 - n), 2 ** (7 - n)).requires_grad_() for n, name in enumerate(names)}
    boxes = torch.tensor([[10.0, 10, 40, 40], [10, 10, 140, 140], [10, 10, 300, 300], [0, 0, 512, 512]])
    target = {"boxes": boxes, "labels": torch.ones(4).long(), "masks": ellipses(boxes, (512, 512))}
    sampled = model.roi_heads.sample([boxes], [target])
    sum(model.roi_heads.losses(features, sampled).values()).backward()
    assert all(features[name].grad.abs().sum() > 0 for name in names[:4]) and features["pool"].grad is None
