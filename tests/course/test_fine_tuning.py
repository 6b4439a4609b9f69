"""Fine-tuning, run small, against the same steps taken directly; what is counted, against counts by hand."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from minircnn.alexnet import load_alexnet
from minircnn.course import fine_tuning
from minircnn.course.coins import Coins, RandomSquares
from minircnn.course.fine_tuning import (
    COINS,
    NUCLEI,
    STARTS,
    anchor_sizes,
    coins,
    fine_tune,
    measure,
    nuclei,
)
from minircnn.datasets import NucleiDataset
from minircnn.evaluation import evaluate
from minircnn.mask_rcnn import binary_masks, load_mask_rcnn
from minircnn.shipped import RESULTS_FOLDER
from minircnn.training import train_mask_rcnn


def short(task, iterations=3, **changes):
    training = replace(task.training, iterations=iterations, images_per_batch=2)
    return replace(task, training=training, squares=20, **changes)


@pytest.fixture
def cells(tmp_path):
    """Ten images of 64 pixels with two nuclei each, in the layout of BBBC038."""
    y, x = np.mgrid[:64, :64]
    for number in range(10):
        folder, image = tmp_path / f"cell{number}", np.zeros((64, 64), dtype=np.uint8)
        for kind in ("images", "masks"):
            (folder / kind).mkdir(parents=True)
        for place, (middle_x, middle_y) in enumerate(((16 + number, 20), (44, 40 - number))):
            mask = (x - middle_x) ** 2 + (y - middle_y) ** 2 <= (5 + 2 * place) ** 2
            Image.fromarray(mask.astype(np.uint8) * 255).save(folder / "masks" / f"{place}.png")
            image[mask] = 20 + 5 * number
        Image.fromarray(image).save(folder / "images" / f"{folder.name}.png")
    return tmp_path


def test_coins_are_learned_as_said():
    """From squares of the upper half, with its anchors; measured once on the lower half, equally enlarged."""
    task = short(COINS, side=100, enlarged=1.52)
    task = replace(task, training=replace(task.training, scale_jitter=0.0))  # all squares become 152 pixels, 19 · 8
    tuned = coins(task=task, quiet=True)
    upper, lower = Coins("train")[0], Coins("test")[0]
    sizes = anchor_sizes([upper[1]["boxes"]], task.anchor_sizes, 1.52)
    model, history = train_mask_rcnn(
        load_alexnet(),
        RandomSquares([upper], 100, 20, seed=0),
        ["background", "coin"],
        replace(task.training, min_size=152),
        rpn=replace(task.rpn, anchor_sizes=(sizes,)),
        quiet=True,
    )
    assert len(tuned.history) == 3
    assert [step["loss_mask"] for step in tuned.history] == pytest.approx([step["loss_mask"] for step in history])
    for ours, theirs in zip(tuned.model.state_dict().values(), model.state_dict().values(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)
    assert tuned.model.transform.min_size == round(1.52 * 153) and not tuned.model.training
    model.transform = replace(model.transform, min_size=round(1.52 * 153))
    found = [binary_masks(model.detect([lower[0]])[0])]
    results = [evaluate(found, [lower[1]], kind=kind) for kind in ("boxes", "masks")]
    expected = [value for result in results for value in (result.ap, result.ap50, result.ap75)]
    row = tuned.row
    figures = [row.box_ap, row.box_ap50, row.box_ap75, row.mask_ap, row.mask_ap50, row.mask_ap75]
    assert figures == pytest.approx(expected, abs=1e-3)
    assert (row.start, row.iterations, row.backbone_lr_mult, row.objects) == (
        "pretrained",
        3,
        task.training.backbone_lr_mult,
        12,
    )
    assert row.seconds > 0


def test_anchors_stay_on_their_cells():
    """Whatever the size of an image, cell k's anchors lie around pixel 8k + 4, up to a pixel of rounding."""
    model = coins(task=short(COINS, iterations=1, side=60, enlarged=1.0), quiet=True).model
    for height, width in ((191, 479), (153, 384), (188, 480)):
        model.transform = replace(model.transform, min_size=None)
        features, sizes = model.features([torch.zeros(3, height, width)])
        anchors = model.rpn(features, model.batch_size(sizes)).anchors
        middles = (anchors[:, :2] + anchors[:, 2:]) / 2
        rows, columns = features.shape[2:]
        y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        cells = torch.stack([x, y], dim=-1).view(-1, 1, 2).expand(-1, COINS.anchor_sizes, -1).reshape(-1, 2)
        assert (middles - (8 * cells + 4)).abs().max() <= 1


def test_nuclei_are_split_by_image(cells, monkeypatch):
    seen = {}

    def noted(start, train, test, classes, task, *, quiet):
        seen.update(start=start, train=train, test=test, classes=classes, task=task, quiet=quiet)
        return "tuned"

    monkeypatch.setattr(fine_tuning, "fine_tune", noted)
    task = short(NUCLEI)
    assert nuclei(cells, "random", task, quiet=True) == "tuned"
    assert (seen["start"], seen["task"], seen["quiet"]) == ("random", task, True)
    assert seen["classes"] == ["background", "nucleus"]
    whole = NucleiDataset(cells)
    for part, indices in (("test", (4, 9)), ("train", (0, 1, 2, 3, 5, 6, 7, 8))):
        assert len(seen[part]) == len(indices)
        for (image, target), index in zip(seen[part], indices, strict=True):
            assert torch.equal(image, whole[index][0])
            assert torch.equal(target["masks"], whole[index][1]["masks"])


def test_nuclei_are_learned(cells):
    tuned = nuclei(cells, task=short(NUCLEI, side=40, enlarged=2.0), quiet=True)
    assert tuned.model.transform.min_size == 128
    assert list(tuned.model.classes) == ["background", "nucleus"]
    assert tuned.row.objects == 4
    sizes = tuned.model.rpn.config.anchor_sizes[0]
    # All nuclei are 11 or 15 pixels wide and high.
    assert (sizes[0], sizes[-1], len(sizes)) == (22, 30, NUCLEI.anchor_sizes)


def test_starts_differ_in_what_they_have_learned():
    networks = {name: make() for name, make in STARTS.items()}
    assert list(networks) == ["pretrained", "toy town", "random"]
    known, detector = load_alexnet().state_dict(), load_mask_rcnn()
    for name in known:
        assert torch.equal(networks["pretrained"].state_dict()[name], known[name])
    for name, value in detector.backbone.state_dict().items():
        assert torch.equal(networks["toy town"].backbone.state_dict()[name], value)
    for name in ("fc6", "fc7"):
        taken, given = getattr(networks["toy town"].classifier, name), getattr(detector.roi_heads.box_head, name)
        assert torch.equal(taken.weight, given.weight) and torch.equal(taken.bias, given.bias)
    fresh, again = networks["random"], STARTS["random"]()
    assert fresh.config == load_alexnet().config
    for layer in (fresh.backbone.conv1, fresh.backbone.conv5, fresh.classifier.fc6):
        assert layer.weight.std().item() == pytest.approx((2 / layer.weight[0].numel()) ** 0.5, rel=0.05)
        assert not layer.bias.any()
    assert torch.equal(fresh.backbone.conv3.weight, again.backbone.conv3.weight)
    with pytest.raises(ValueError, match="start must be one of pretrained, toy town, random, but is 'imagenet'"):
        fine_tune("imagenet", [], [], ["background", "coin"], COINS)


def squares_of(*sides):
    return torch.tensor([[1.0, 2.0, 1.0 + side, 2.0 + side] for side in sides])


def test_anchor_sizes_by_hand():
    assert anchor_sizes([squares_of(10, 10)], 3) == (10, 10, 10)
    boxes = [squares_of(8), squares_of(), squares_of(32, 64)]
    low, high = (2 ** np.interp(share, [0, 0.5, 1], [3, 5, 6]) for share in (0.05, 0.95))
    expected = [4 * low * (high / low) ** (k / 3) for k in range(4)]
    assert anchor_sizes(boxes, 4, 4.0) == tuple(np.round(expected))
    assert anchor_sizes([torch.tensor([[0.0, 0.0, 4.0, 25.0], [5.0, 5.0, 5.0, 9.0]])], 1) == (10,), "the empty one"
    for nothing in (squares_of(), torch.tensor([[3.0, 3.0, 3.0, 9.0]])):
        with pytest.raises(ValueError, match="boxes hold no object"):
            anchor_sizes([nothing.view(-1, 4)], 3)


class Fake:
    """A detector whose answers are written down."""

    classes = ("background", "coin")

    def __init__(self, *answers):
        self.answers = list(answers)

    def detect(self, images):
        assert len(images) == 1
        return [self.answers.pop(0)]


def objects(*boxes, scores=None):
    masks = torch.zeros(len(boxes), 20, 20)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
        mask[y1:y2, x1:x2] = 1
    found = {"boxes": torch.tensor(boxes).float().view(-1, 4), "labels": torch.ones(len(boxes), dtype=torch.int64)}
    if scores is None:
        return {**found, "masks": masks.bool()}
    return {**found, "scores": torch.tensor(scores), "masks": masks[:, None]}


def test_finds_are_counted_by_hand():
    image = torch.zeros(3, 20, 20)
    truth = objects((0, 0, 8, 8), (10, 10, 18, 18)), objects((2, 2, 6, 6))
    # Right; again the same, wrong; IoU 1/3, wrong; unsure and not counted. In the second image: nothing sure.
    first = objects((0, 0, 8, 8), (0, 0, 8, 7), (10, 14, 18, 22), (10, 10, 18, 18), scores=[0.9, 0.8, 0.7, 0.5])
    second = objects((2, 2, 6, 6), scores=[0.4])
    *figures, total, found, wrong = measure(Fake(first, second), [(image, truth[0]), (image, truth[1])])
    assert (total, found, wrong) == (3, 1, 2)
    # For AP all four count: right, wrong, wrong, right, right; with all IoU 1 where right.
    precision = [1, 3 / 5, 3 / 5]
    points = [precision[0]] * 34 + [precision[1]] * 67
    assert figures[1] == pytest.approx(np.mean(points))
    assert figures[4] == pytest.approx(np.mean(points))


def test_the_record_that_comes_with_the_project_is_of_these_settings():
    record = json.loads((RESULTS_FOLDER / "fine_tuning.json").read_text())
    for name, task, starts in (("coins", COINS, tuple(STARTS)), ("nuclei", NUCLEI, ("pretrained", "random"))):
        settings = record[name]["settings"]
        assert settings["training"]["iterations"] == task.training.iterations
        assert (settings["side"], settings["enlarged"]) == (task.side, task.enlarged)
        by_start = {row["start"]: row for row in record[name]["rows"]}
        assert tuple(by_start) == starts
    # What notebook 12 says of them: coins are learned from any start, and a trained backbone helps nuclei.
    assert all(row["objects"] == 12 and row["found"] >= 11 for row in record["coins"]["rows"])
    assert by_start["pretrained"]["box_ap"] > by_start["random"]["box_ap"] + 0.02
    assert by_start["pretrained"]["mask_ap"] > by_start["random"]["mask_ap"] + 0.02
