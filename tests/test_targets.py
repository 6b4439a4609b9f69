"""Targets in whatever type people have them mean the same; wrong ones are refused by name, wherever they come in."""

import copy

import numpy as np
import pytest
import torch
from torchvision.tv_tensors import BoundingBoxes

from minircnn.alexnet import AlexNet
from minircnn.evaluation import evaluate, mean_best_overlap, proposal_recall
from minircnn.fast_rcnn import FastRCNN
from minircnn.mask_rcnn import mask_rcnn_alexnet
from minircnn.rcnn import RCNN, RCNNConfig
from minircnn.targets import CheckedSamples, check_classes, check_target, in_crowd, single_objects
from minircnn.training import FasterRCNNTrainingSettings, draw_batch, train_faster_rcnn
from tests.tiny import TINY

H, W = 48, 64
CLASSES = ("background", "cat", "dog")
BOXES = [[4.0, 6, 30, 40], [30, 10, 60, 44], [2, 2, 20, 20]]


def target(**change):
    """Three objects, the second a crowd; a change of None leaves a key out."""
    masks = torch.zeros(3, H, W, dtype=torch.bool)
    for mask, (x1, y1, x2, y2) in zip(masks, BOXES, strict=True):
        mask[int(y1) : int(y2), int(x1) : int(x2)] = True
    plain = {
        "boxes": torch.tensor(BOXES),
        "labels": torch.tensor([1, 2, 2]),
        "masks": masks,
        "iscrowd": torch.tensor([False, True, False]),
        "image_id": 7,
    }
    return {key: value for key, value in {**plain, **change}.items() if value is not None}


def check(one):
    return check_target(one, "targets[4]", num_classes=len(CLASSES), size=(H, W))


MASKS, CROWD = target()["masks"], torch.tensor([False, True, False])
SAME = {
    "iscrowd int64": {"iscrowd": CROWD.long()},
    "labels int32": {"labels": torch.tensor([1, 2, 2], dtype=torch.int32)},
    "boxes int64": {"boxes": torch.tensor(BOXES).long()},
    "boxes float64": {"boxes": torch.tensor(BOXES).double()},
    "masks 0 and 1": {"masks": MASKS.byte()},
    "masks 0 and 255": {"masks": MASKS.byte() * 255},
    "masks numpy": {"masks": MASKS.numpy()},
    "masks uint16": {"masks": MASKS.numpy().astype(np.uint16)},
    "torchvision's boxes": {"boxes": BoundingBoxes(BOXES, format="XYXY", canvas_size=(H, W))},
    "boxes of a graph": {"boxes": torch.tensor(BOXES, requires_grad=True) * 1},
}
NOTHING = {"boxes": torch.zeros(0), "labels": torch.zeros(0), "masks": torch.zeros(0), "iscrowd": torch.zeros(0)}


@pytest.mark.parametrize("change", SAME.values(), ids=SAME)
def test_other_types_mean_the_same(change):
    read, expected = check(target(**change)), target()
    for name in ("labels", "masks", "iscrowd"):
        assert read[name].dtype == expected[name].dtype
        assert torch.equal(read[name], expected[name])
    assert read["boxes"].dtype in (torch.float32, torch.float64)
    assert read["boxes"].tolist() == BOXES and not read["boxes"].requires_grad and type(read["boxes"]) is torch.Tensor
    assert read["image_id"] == 7


def test_no_object_in_whatever_shape():
    read, shapes = check(NOTHING), {"boxes": (0, 4), "labels": (0,), "masks": (0, H, W), "iscrowd": (0,)}
    assert {name: tuple(value.shape) for name, value in read.items()} == shapes
    assert read["labels"].dtype == torch.int64 and read["masks"].dtype == read["iscrowd"].dtype == torch.bool


def boxes_with(row, *box):
    return {"boxes": torch.tensor([*BOXES[:row], box, *BOXES[row + 1 :]])}


WRONG = {
    "label 0": ({"labels": torch.tensor([1, 0, 2])}, r"labels\[1\] is 0, but 0 is the background"),
    "label beyond": ({"labels": torch.tensor([1, 2, 3])}, r"labels\[2\] is 3, but there are 3 classes .* up to 2"),
    "fewer labels": ({"labels": torch.tensor([1, 2])}, "boxes for 3 objects, but labels for 2"),
    "no labels": ({"labels": None}, "must be a dict with boxes and labels, but has boxes, masks"),
    "inverted": (boxes_with(2, 30, 4, 10, 9), r"boxes\[2\] .*x1 < x2"),
    "nan": (boxes_with(0, 1, torch.nan, 10, 10), r"boxes\[0\] .*finite"),
    "outside": (boxes_with(1, 64, 0, 70, 10), r"boxes\[1\] .* outside of the image of 64×48 pixels"),
    "fractions": ({"boxes": torch.tensor(BOXES) / W}, r"boxes\[0\] .* fractions of the image\?"),
    "center and size": ({"boxes": BoundingBoxes(BOXES, format="CXCYWH", canvas_size=(H, W))}, "are CXCYWH: give x1"),
    "sparse boxes": ({"boxes": torch.tensor(BOXES).to_sparse()}, "boxes must be an ordinary tensor .*sparse_coo"),
    "one box": ({"boxes": torch.tensor(BOXES[0])}, r"boxes must have shape \(G, 4\), not \(4,\)"),
    "small masks": ({"masks": torch.zeros(3, 24, 32, dtype=torch.bool)}, "masks are 32×24 pixels, .* 64×48"),
    "masks with a channel": ({"masks": MASKS[:, None]}, r"\(G, H, W\), not \(3, 1, 48, 64\)"),
    "masks of numbers": ({"masks": torch.stack([MASKS[0] * 1, MASKS[1] * 2, MASKS[2] * 3])}, r"masks\[1\] is \[0, 2\]"),
    "probabilities": ({"masks": torch.cat([MASKS[:2] * 1.0, MASKS[2:] * 0.5])}, r"masks\[2\] is \[0.0, 0.5\].*thresh"),
    "crowds of 2": ({"iscrowd": torch.tensor([0, 2, 0])}, r"iscrowd\[1\] is 2: it must be 0 or 1"),
}


@pytest.mark.parametrize(("change", "message"), WRONG.values(), ids=WRONG)
def test_wrong_targets_are_refused_by_name(change, message):
    with pytest.raises(ValueError, match=r"^targets\[4\].*" + message):
        check(target(**change))


def test_boxes_may_stick_out_and_be_a_pixel():
    """Objects that an image cuts are annotated whole in some data sets, and the first pixel is no fraction."""
    for boxes in ([[-20.0, -5, 3, 300], [0, 0, 1, 1], [63.5, 47.5, 65, 49]], [[0.0, 0, 1, 1]]):
        one = {"boxes": torch.tensor(boxes), "labels": torch.ones(len(boxes), dtype=torch.int64)}
        assert check(one)["boxes"].tolist() == boxes
    # In evaluation a box may have no area, as for pycocotools: nothing can match it.
    assert check_target(target(**boxes_with(1, 5, 5, 5, 9)), "targets[0]")["boxes"][1].tolist() == [5, 5, 5, 9]


def test_classes_begin_with_the_background():
    for build in (check_classes, lambda c: mask_rcnn_alexnet(AlexNet(TINY, 2), c or "x"), lambda c: RCNN(None, c)):
        for classes in ((), ("cat", "dog", "background")):
            with pytest.raises(ValueError, match=r'classes\[0\] must be "background"'):
                build(classes)


@pytest.mark.parametrize("kind", [torch.int64, torch.uint8, torch.int32, torch.float32])
def test_crowds_of_any_type_are_left_out_also_without_a_check(kind):
    """The heads and the RPN can be called alone, as notebooks do."""
    one = target(iscrowd=CROWD.to(kind))
    assert single_objects(one)["labels"].tolist() == [1, 2]
    assert single_objects(one)["boxes"].tolist() == [BOXES[0], BOXES[2]]
    boxes = torch.tensor([[31.0, 11, 59, 43], [0, 0, 10, 10]])
    assert in_crowd(boxes, one).tolist() == [True, False]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return mask_rcnn_alexnet(AlexNet(TINY, 2), CLASSES).train()


IMAGE = torch.rand(3, H, W, generator=torch.Generator().manual_seed(1))
PROPOSALS = torch.tensor([*BOXES, [3.0, 5, 31, 38], [20, 20, 40, 40], [50, 2, 62, 12]])


def rcnn_losses(one):
    """What R-CNN's three trainings are given; the SVMs and box regressors that come out."""
    torch.manual_seed(0)
    model = RCNN(AlexNet(TINY, 2), CLASSES, RCNNConfig())
    samples, proposals = [(IMAGE, target(iscrowd=None)), (IMAGE, one)], [PROPOSALS, PROPOSALS]
    losses = {}
    model.finetune(samples, proposals, lambda network, losses_of, groups: losses.update(losses_of(0)))
    model.fit_svms(samples, proposals)
    model.fit_box_regressors(samples, proposals)
    return {**losses, "svm": model.svm.sum(), "box": model.box.sum()}


def batch_of(one):
    batch = draw_batch(0, [(IMAGE, target()), (IMAGE, one)], None, images_per_batch=2, seed=0)
    read = sorted(batch.targets, key=lambda t: len(t["labels"]))[-1]
    return {name: read[name].float().sum() for name in ("boxes", "labels", "masks", "iscrowd")}


WAYS_IN = {
    "MaskRCNN.losses": lambda model, one: model.losses([IMAGE, IMAGE], [target(), one]),
    "FastRCNN.losses": lambda model, one: FastRCNN(
        model.backbone, model.roi_heads, model.classes, model.transform
    ).losses([IMAGE] * 2, [PROPOSALS] * 2, [target(), one]),
    "RCNN": lambda model, one: rcnn_losses(one),
    "draw_batch": lambda model, one: batch_of(one),
    "evaluate": lambda model, one: {"ap": torch.tensor(evaluate([{**target(), "scores": torch.ones(3)}], [one]).ap)},
    "proposal_recall": lambda model, one: {"recall": proposal_recall([PROPOSALS[:1]], [one], 0.5, [1])},
    "mean_best_overlap": lambda model, one: {
        "overlap": mean_best_overlap([PROPOSALS[:1]], [one], [1], average="classes")
    },
}


@pytest.mark.parametrize("way", WAYS_IN.values(), ids=WAYS_IN)
def test_every_way_in_reads_other_types_alike(model, way):
    answers, changed = [], ("iscrowd int64", "masks 0 and 255", "labels int32", "boxes float64")
    for one in (target(**{name: value for kind in changed for name, value in SAME[kind].items()}), target()):
        torch.manual_seed(3)
        answers.append({name: float(value.detach()) for name, value in way(copy.deepcopy(model), one).items()})
    assert answers[0] == pytest.approx(answers[1], rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("way", WAYS_IN.values(), ids=WAYS_IN)
@pytest.mark.parametrize(
    "change", [{"labels": torch.tensor([0, 1, 2])}, boxes_with(1, 9, 9, 2, 2)], ids=["label", "box"]
)
def test_every_way_in_refuses_what_is_wrong(model, way, change):
    with pytest.raises(ValueError, match=r"(targets|samples)\[\d\] \(image_id 7\): (labels\[0\]|boxes\[1\]) is"):
        way(model, target(**change))


def test_what_is_read_is_checked_when_it_is_asked_for():
    """And before a mirrored image hides fractions."""
    samples = CheckedSamples([(IMAGE, target()), (IMAGE, target(boxes=torch.tensor(BOXES) / W))], 3)
    assert len(samples) == 2 and samples[0][1]["labels"].tolist() == [1, 2, 2]
    with pytest.raises(ValueError, match=r"samples\[1\] \(image_id 7\): boxes\[0\] .* fractions"):
        list(samples)
    for iteration in range(4):  # mirrored or not
        with pytest.raises(ValueError, match=r"samples\[0\] \(image_id 7\): boxes\[0\] .* fractions"):
            draw_batch(iteration, samples.samples[1:], None, images_per_batch=1, seed=0)


@pytest.mark.parametrize(
    ("objects", "message"),
    [
        ({**NOTHING, "masks": None}, "no object in its 3 images"),
        ({"iscrowd": torch.ones(3, dtype=torch.uint8)}, r"only crowds \(9\) in its 3 images"),
    ],
)
def test_a_training_without_objects_is_refused(objects, message):
    samples = [(IMAGE, target(**objects))] * 3
    settings = FasterRCNNTrainingSettings(iterations=1, images_per_batch=1)
    with pytest.raises(ValueError, match=f"samples: {message}, nothing to learn from"):
        train_faster_rcnn(AlexNet(TINY, 2), samples, CLASSES, settings, quiet=True)
