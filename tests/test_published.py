"""The detectors with ResNet-50 and a feature pyramid against torchvision's, with the same weights.

Random weights prove the same as published ones: see :func:`minircnn.course.compare.pair`."""

import hashlib
import re
from dataclasses import replace

import pytest
import torch
from torchvision.models import alexnet, mobilenet_v3_small, resnet50, vit_b_16
from torchvision.models._meta import _COCO_CATEGORIES
from torchvision.models.detection import (
    FasterRCNN_ResNet50_FPN_Weights,
    MaskRCNN_ResNet50_FPN_Weights,
    fasterrcnn_mobilenet_v3_large_fpn,
    fasterrcnn_resnet50_fpn,
    fasterrcnn_resnet50_fpn_v2,
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
from minircnn.mask_rcnn import PYRAMID_MASK_HEADS, load_mask_rcnn
from minircnn.published import COCO_CLASSES, load_torchvision_weights, rename_keys
from minircnn.resnet_fpn import FrozenBatchNorm2d
from minircnn.training import FineTuningSettings, fine_tune
from minircnn.transforms import Transform
from minircnn.weights import WeightsError
from tests.tiny import ellipses

CLASSIFIERS = (resnet50, alexnet, mobilenet_v3_small, vit_b_16)
SMALL = Transform(min_size=96, max_size=150, divisor=32)


@pytest.fixture(scope="module")
def photographs(real_data):
    """Of different sizes, with objects; the third has a crowd."""
    folder = real_data / "coco-mini"
    data = CocoDataset(folder / "images", folder / "instances.json")
    crowded = next(i for i in range(len(data)) if data.load_target(i)["iscrowd"].any())
    return [data[index] for index in (0, 5, crowded)]


FEW = ["background", *"abcdef"]


@pytest.fixture(scope="module", params=["mask", "faster"])
def pair(request):
    """A block a stage: with more, double precision takes long. All layers of ResNet-50 have a test of their own."""
    return [model.double() for model in make_pair(request.param, (1, 1, 1, 1), FEW, SMALL, most=20, proposals=120)]


def assert_same_detections(mine, other, pixels, scores):
    assert len(mine["labels"]) and torch.equal(mine["labels"], other["labels"])
    assert torch.allclose(mine["scores"], other["scores"], rtol=0, atol=scores)
    assert torch.allclose(mine["boxes"], other["boxes"], rtol=0, atol=pixels)
    if "masks" in other:
        assert mine["masks"].shape == other["masks"].shape
        # A corner of a box that lies on a whole pixel, up to rounding, may go to either side: such a mask is shifted.
        apart = (mine["masks"] - other["masks"]).abs().flatten(1).amax(dim=1)
        assert (apart < 10 * scores).float().mean() > 0.95


def test_detections_in_double_precision(pair, photographs):
    """A batch of mixed sizes, and a tiny image."""
    images = [image.double() for image, _ in photographs] + [torch.rand(3, 9, 13, dtype=torch.float64)]
    with torch.no_grad():
        found, wanted = pair[0].detect(images), pair[1](images)
    assert [len(one["labels"]) for one in wanted[:3]] == [20, 20, 20]
    for mine, other in zip(found, wanted, strict=True):
        if len(other["labels"]):
            assert_same_detections(mine, other, pixels=1e-4, scores=1e-9)
        assert len(mine["labels"]) == len(other["labels"])


def test_losses_and_gradients_in_double_precision(pair, photographs):
    """Crowds are left out: torchvision does not know them. One image shows nothing."""
    images, targets = [], []
    for image, target in photographs:
        single = ~target["iscrowd"]
        images.append(image.double())
        targets.append({name: target[name][single] for name in ("boxes", "labels", "masks")})
        targets[-1]["labels"] = targets[-1]["labels"] % 6 + 1
    targets[1] = {name: value[:0] for name, value in targets[1].items()}
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
    assert mine.keys() == other.keys() and len(mine) in (4, 5)
    for name, loss in other.items():
        assert loss > 0 and float(mine[name]) == pytest.approx(float(loss), abs=1e-6), name
    renamed = rename_keys(their_gradients)
    assert my_gradients.keys() == renamed.keys()
    for name, gradient in renamed.items():
        assert torch.allclose(my_gradients[name], gradient, rtol=1e-4, atol=1e-5 * float(gradient.abs().max())), name


def test_a_photograph_of_natural_size_in_single_precision(photographs):
    """As people use it: the shorter side enlarged to 800 pixels."""
    mine, theirs = make_pair()
    image, _ = photographs[0]
    with torch.no_grad():
        assert_same_detections(mine.detect([image])[0], theirs([image])[0], pixels=1e-3, scores=1e-5)
        batch = theirs.transform([image])[0].tensors
        same, wanted = mine.features([image])[0], theirs.backbone(batch)
        other = theirs.backbone(batch.contiguous(memory_format=torch.channels_last))
    for name, level in wanted.items():  # what is left is rounding: as much as torchvision differs from itself
        assert (same[name] - level).abs().max() < 3 * (other[name] - level).abs().max()


@pytest.mark.parametrize("kind", ["mask", "faster"])
def test_keys_and_shapes_are_torchvisions(kind):
    """All 307 of Mask R-CNN (295 of Faster R-CNN), but for counters, and backbone where torchvision says backbone."""
    theirs = {"mask": maskrcnn_resnet50_fpn, "faster": fasterrcnn_resnet50_fpn}[kind](
        weights=None, weights_backbone=None
    ).state_dict()
    mine = {"mask": published.maskrcnn_resnet50_fpn, "faster": published.fasterrcnn_resnet50_fpn}[kind]().state_dict()
    assert {name: tuple(value.shape) for name, value in rename_keys(theirs).items()} == {
        name: tuple(value.shape) for name, value in mine.items()
    }
    assert len(mine) == {"mask": 307, "faster": 295}[kind]


def test_names_by_hand():
    names = {
        "rpn.head.conv.weight": "rpn.head.conv.0.0.weight",
        "rpn.head.conv.0.0.weight": "rpn.head.conv.0.0.weight",
        "backbone.fpn.layer_blocks.3.bias": "backbone.fpn.layer_blocks.3.0.bias",
        "roi_heads.mask_head.mask_fcn4.bias": "roi_heads.mask_head.3.0.bias",
        "backbone.body.layer1.0.bn2.running_var": "backbone.body.layer1.0.bn2.running_var",
        "backbone.body.bn1.num_batches_tracked": None,
    }
    found = rename_keys({name: torch.tensor(float(number)) for number, name in enumerate(names)})
    assert list(found) == list(dict.fromkeys(name for name in names.values() if name))


def older(state):
    """Names of the first published files, which torchvision still reads."""
    renamed = {}
    for key, value in state.items():
        key = key.replace("rpn.head.conv.0.0.", "rpn.head.conv.")
        key = re.sub(r"(fpn\.\w+_blocks\.\d)\.0\.", r"\1.", key)
        renamed[re.sub(r"mask_head\.(\d)\.0\.", lambda m: f"mask_head.mask_fcn{int(m[1]) + 1}.", key)] = value
    return renamed


@pytest.fixture
def file(tmp_path):
    """Weights as torchvision publishes them: older names, in a ``.pth`` file."""
    torch.manual_seed(3)
    theirs = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None)
    state = older(theirs.state_dict())
    assert maskrcnn_resnet50_fpn(weights=None, weights_backbone=None).load_state_dict(dict(state)), (
        "torchvision reads it"
    )
    torch.save(state, tmp_path / "older.pth")
    return tmp_path / "older.pth", theirs


def test_older_names_are_read(file):
    path, theirs = file
    model = published.maskrcnn_resnet50_fpn(weights=path)
    wanted = rename_keys(theirs.state_dict())
    assert all(torch.equal(value, wanted[name]) for name, value in model.state_dict().items())
    assert not model.training
    assert {norm.eps for norm in model.modules() if isinstance(norm, FrozenBatchNorm2d)} == {1e-5}


def test_published_weights_are_fetched_once_and_have_their_eps(file, tmp_path, monkeypatch):
    """As torchvision does after loading exactly these weights: they were trained with an eps of 0."""
    path, theirs = file
    checksum = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    monkeypatch.setenv("MINIRCNN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(published, "MASK_RCNN_COCO", published.Published(path.as_uri(), checksum, "170 MB"))
    model = published.maskrcnn_resnet50_fpn(weights="coco")
    path.rename(tmp_path / "moved.pth")  # it is in the cache now
    for again in (
        model,
        published.maskrcnn_resnet50_fpn(weights="coco"),
        published.maskrcnn_resnet50_fpn(weights=tmp_path / "moved.pth"),
    ):
        assert {norm.eps for norm in again.modules() if isinstance(norm, FrozenBatchNorm2d)} == {0.0}
        name = "roi_heads.box_predictor.cls_score.weight"
        assert torch.equal(again.state_dict()[name], theirs.state_dict()[name])


@pytest.mark.parametrize(
    "build, here, theirs",
    [
        ("maskrcnn_resnet50_fpn", published.MASK_RCNN_COCO, MaskRCNN_ResNet50_FPN_Weights.COCO_V1),
        ("fasterrcnn_resnet50_fpn", published.FASTER_RCNN_COCO, FasterRCNN_ResNet50_FPN_Weights.COCO_V1),
    ],
)
def test_offline_one_line_says_what_to_fetch(build, here, theirs, tmp_path, monkeypatch):
    assert here.url == theirs.url and f"-{here.checksum}.pth" in here.url
    assert int(here.size.removesuffix(" MB")) == pytest.approx(theirs.meta["_file_size"], abs=1)
    monkeypatch.setenv("MINIRCNN_CACHE", str(tmp_path))
    monkeypatch.setattr(
        "torch.hub.download_url_to_file", lambda *_, **__: (_ for _ in ()).throw(OSError("no such host"))
    )
    with pytest.raises(WeightsError) as caught:
        getattr(published, build)(weights="coco")
    message = str(caught.value)
    assert here.url in message and str(tmp_path / "downloads" / here.url.rsplit("/")[-1]) in message
    assert "\n" not in message and here.size in message


def test_other_classes_keep_all_but_the_last_layers(file):
    path, theirs = file
    model = published.maskrcnn_resnet50_fpn(["background", "nucleus"], weights=path)
    wanted, fresh = rename_keys(theirs.state_dict()), []
    for name, value in model.state_dict().items():
        if value.shape != wanted[name].shape:
            fresh.append(name)
        else:
            assert torch.equal(value, wanted[name]), name
    last = ("cls_score", "bbox_pred", "mask_fcn_logits")
    assert len(fresh) == 6 and all(any(part in name for part in last) for name in fresh)


def test_other_weights_are_refused_and_nothing_is_changed():
    model = published.maskrcnn_resnet50_fpn()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    broken = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None).state_dict()
    missing = {name: value for name, value in broken.items() if name != "rpn.head.bbox_pred.bias"}
    with pytest.raises(WeightsError, match=r"my file: weights for another network: rpn.head.bbox_pred.bias is missing"):
        load_torchvision_weights(model, missing, "my file")
    broken["rpn.head.cls_logits.bias"][0] = torch.nan
    with pytest.raises(WeightsError, match="holds nan or infinity"):
        load_torchvision_weights(model, broken)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    "build, as_masks, message",
    [
        (maskrcnn_resnet50_fpn, False, r"holds a Mask R-CNN, not a Faster R-CNN; use it as mask_rcnn$"),
        (fasterrcnn_resnet50_fpn, True, r"holds a Faster R-CNN, not a Mask R-CNN; use it as faster_rcnn$"),
        (maskrcnn_resnet50_fpn_v2, True, r"holds one of torchvision's v2 models .*, and not a Mask R-CNN"),
        (fasterrcnn_resnet50_fpn_v2, False, r"holds one of torchvision's v2 models .*, and not a Faster R-CNN"),
        (keypointrcnn_resnet50_fpn, False, r"holds a Keypoint R-CNN, and not a Faster R-CNN"),
        (
            retinanet_resnet50_fpn,
            False,
            r"weights for another network: roi_heads\.box_pred.* is missing",
        ),
        (fasterrcnn_mobilenet_v3_large_fpn, False, r"weights for another network: "),
        *((one, True, "holds an image classifier, such as those for ImageNet, and not a Mask") for one in CLASSIFIERS),
    ],
)
def test_what_else_a_file_may_hold_is_named(build, as_masks, message):
    """By the names of torchvision's tensors; no number is needed."""
    options = {} if build in CLASSIFIERS else {"weights_backbone": None}
    with torch.device("meta"):
        state = build(weights=None, **options).state_dict()
        model = (published.maskrcnn_resnet50_fpn if as_masks else published.fasterrcnn_resnet50_fpn)()
    with pytest.raises(WeightsError, match=rf"^my\.pth: {message}"):
        load_torchvision_weights(model, state, "my.pth")


# ------------------------------------------------------------------------------------- classes and heads of one's own


def tutorial(model, num_classes, hidden_layer):
    """The lines of torchvision's tutorial on fine-tuning, unchanged."""
    in_features = model.roi_heads.box_predictor.cls_score.in_features
    model.roi_heads.box_predictor = FastRCNNPredictor(in_features, num_classes)
    in_features_mask = model.roi_heads.mask_predictor.conv5_mask.in_channels
    model.roi_heads.mask_predictor = MaskRCNNPredictor(in_features_mask, hidden_layer, num_classes)
    return model


@pytest.fixture(scope="module", params=[256, 100])
def fine_tuned(request, tmp_path_factory):
    """A file of two classes, as a training script saves it, and torchvision's model."""
    torch.manual_seed(5)
    theirs = tutorial(maskrcnn_resnet50_fpn(weights=None, weights_backbone=None), 2, request.param).eval()
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_var.fill_(6.0)
    torch.nn.init.normal_(theirs.roi_heads.mask_predictor.mask_fcn_logits.weight, std=1.0)
    path = tmp_path_factory.mktemp("own") / "two.pth"
    state = {f"module.{name}": value for name, value in theirs.state_dict().items()}
    torch.save({"model": state, "epoch": 1}, path)
    return path, theirs


def test_a_file_of_two_classes_is_torchvisions_model(fine_tuned, photographs):
    path, theirs = fine_tuned
    model = published.maskrcnn_resnet50_fpn(["background", "pen"], path, new_layers=False, transform=SMALL)
    assert model.classes == ("background", "pen")
    theirs.transform.min_size, theirs.transform.max_size = (SMALL.min_size,), SMALL.max_size
    image, _ = photographs[0]
    with torch.no_grad():
        assert_same_detections(model.detect([image])[0], theirs([image])[0], pixels=1e-2, scores=1e-4)


@pytest.mark.parametrize("new_layers", [True, False])
@pytest.mark.parametrize("classes, said", [(None, "no"), (["background", "a", "b"], "3"), (COCO_CLASSES, "91")])
def test_last_layers_of_a_file_of_ones_own_are_never_drawn(fine_tuned, classes, said, new_layers):
    message = rf"two\.pth: has 2 classes with the background, but {said} names .*--classes background,NAME$"
    with pytest.raises(WeightsError, match=message):
        published.maskrcnn_resnet50_fpn(classes, fine_tuned[0], new_layers=new_layers)


def test_new_layers_only_where_they_are_asked_for(file):
    with pytest.raises(WeightsError, match="has 91 classes with the background, but 2 names are given"):
        published.maskrcnn_resnet50_fpn(["background", "pen"], file[0], new_layers=False)
    assert published.maskrcnn_resnet50_fpn(num_classes=2, weights=file[0]).classes == ("background", "class 1")


def test_num_classes_as_torchvision_takes_it():
    for build, theirs in (
        (published.maskrcnn_resnet50_fpn, maskrcnn_resnet50_fpn),
        (published.fasterrcnn_resnet50_fpn, fasterrcnn_resnet50_fpn),
    ):
        wanted = rename_keys(theirs(weights=None, weights_backbone=None, num_classes=5).state_dict())
        found = build(num_classes=5).state_dict()
        assert {name: value.shape for name, value in found.items()} == {n: v.shape for n, v in wanted.items()}
    for wrong in ({"num_classes": 3}, {"classes": None, "num_classes": 1}):
        with pytest.raises(ValueError, match=r"num_classes is \d"):
            published.maskrcnn_resnet50_fpn(**{"classes": ["background", "a"], **wrong})


def test_the_tutorials_lines_work_on_our_model(tmp_path):
    """Training, detecting, saving and loading, both in our way and as a state dict."""
    torch.manual_seed(0)
    small = replace(PYRAMID_MASK_HEADS, score_threshold=0.0, max_detections=5)
    model = tutorial(published.maskrcnn_resnet50_fpn(heads=small, transform=SMALL), 2, 48)
    assert model.classes == ("background", "class 1")
    model.classes = ["background", "pedestrian"]
    with pytest.raises(ValueError, match="classes has 3 names, but the box predictor has 2 classes"):
        model.classes = ["background", "pedestrian", "dog"]
    boxes, images = torch.tensor([[5.0, 5.0, 60.0, 40.0]]), [torch.rand(3, 64, 96)]
    target = {"boxes": boxes, "labels": torch.ones(1).long(), "masks": ellipses(boxes, (64, 96))}
    before = {name: value.clone() for name, value in model.state_dict().items()}
    settings = FineTuningSettings(iterations=1, images_per_batch=1, min_size=96)
    fine_tune(model, [(images[0], target)], settings, out=tmp_path / "m.safetensors", quiet=True)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert {
        name for name in before if name.startswith(("roi_heads.box_predictor", "roi_heads.mask_predictor"))
    } <= changed
    torch.save(model.state_dict(), tmp_path / "m.pth")
    (wanted,) = model.detect(images)
    again = published.maskrcnn_resnet50_fpn(model.classes, tmp_path / "m.pth", heads=small, transform=model.transform)
    saved = load_mask_rcnn(tmp_path / "m.safetensors")  # in half precision
    assert saved.classes == again.classes == ("background", "pedestrian")
    assert len(wanted["labels"]) == 5
    for name, value in again.detect(images)[0].items():
        assert torch.equal(value, wanted[name]), name
    half = {name: value.half().float() for name, value in model.named_parameters()}
    assert all(torch.equal(value, half[name]) for name, value in saved.named_parameters())


def test_class_names_are_torchvisions():
    assert COCO_CLASSES[1:] == tuple(_COCO_CATEGORIES[1:]) and COCO_CLASSES[0] == "background"


@pytest.mark.parametrize("kind", ["mask", "faster"])
def test_nothing_to_learn_and_nothing_found(kind):
    model = {"mask": published.maskrcnn_resnet50_fpn, "faster": published.fasterrcnn_resnet50_fpn}[kind](
        ["background", "coin"], transform=SMALL
    )
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0).long(), "masks": torch.zeros(0, 40, 30).bool()}
    losses = model.train()([torch.rand(3, 40, 30)], [nothing])
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values()) and losses["loss_box_reg"] == 0
    model.roi_heads.config = replace(model.roi_heads.config, score_threshold=1.1)
    (found,) = model.eval()([torch.rand(3, 40, 30)])
    assert found["boxes"].shape == (0, 4) and found.get("masks", torch.zeros(0, 1, 40, 30)).shape == (0, 1, 40, 30)


def test_regions_are_taken_from_their_own_level():
    """A gradient reaches every level that regions are taken from, and P6 only through anchors."""
    model = published.maskrcnn_resnet50_fpn(["background", "coin"], transform=Transform(divisor=32))
    features = {
        str(n): torch.rand(1, 256, 512 // s, 512 // s, requires_grad=True) for n, s in enumerate((4, 8, 16, 32))
    }
    features["pool"] = torch.rand(1, 256, 8, 8, requires_grad=True)
    boxes = torch.tensor([[10.0, 10, 40, 40], [10, 10, 140, 140], [10, 10, 300, 300], [0, 0, 512, 512]])
    target = {"boxes": boxes, "labels": torch.ones(4).long(), "masks": ellipses(boxes, (512, 512))}
    sampled = model.roi_heads.sample([boxes], [target])
    sum(model.roi_heads.losses(features, sampled).values()).backward()
    assert all(features[str(n)].grad.abs().sum() > 0 for n in range(4)) and features["pool"].grad is None


def test_only_align_on_a_pyramid():
    with pytest.raises(ValueError, match=r'pooling must be "align", not \'pool\''):
        published.maskrcnn_resnet50_fpn(["background", "coin"], heads=replace(PYRAMID_MASK_HEADS, pooling="pool"))
