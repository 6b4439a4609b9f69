"""Fine-tuning, run small, against the same steps taken directly; what is counted, against counts by hand."""

import json
from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from PIL import Image

from minircnn.alexnet import load_alexnet
from minircnn.course.coins import RandomSquares, coins_of
from minircnn.course.fine_tuning import measure
from minircnn.datasets import NucleiDataset
from minircnn.evaluation import evaluate
from minircnn.mask_rcnn import binary_masks, load_mask_rcnn
from minircnn.shipped import RESULTS_FOLDER
from minircnn.training import train_mask_rcnn
from workshop import fine_tuning
from workshop.fine_tuning import COINS, NUCLEI, STARTS, anchor_sizes, coins, fine_tune, nuclei


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
    task = short(COINS, iterations=2, side=80, enlarged=1.1)
    task = replace(task, training=replace(task.training, scale_jitter=0.0))  # all squares become 88 pixels, 11 · 8
    tuned, steps, row = coins(task=task, quiet=True)
    upper, lower = coins_of("train"), coins_of("test")
    sizes = anchor_sizes([upper[1]["boxes"]], task.anchor_sizes, 1.1)
    squares, settings = RandomSquares([upper], 80, 20, seed=0), replace(task.training, min_size=88)
    rpn = replace(task.rpn, anchor_sizes=(sizes,))
    model, history = train_mask_rcnn(load_alexnet(), squares, ["background", "coin"], settings, rpn=rpn, quiet=True)
    assert [step["loss_mask"] for step in steps] == pytest.approx([step["loss_mask"] for step in history])
    torch.testing.assert_close(tuned.state_dict(), model.state_dict(), rtol=1e-5, atol=1e-6)
    assert tuned.transform.min_size == round(1.1 * 153) and not tuned.training
    model.transform = replace(model.transform, min_size=round(1.1 * 153))
    found = [binary_masks(model.detect([lower[0]])[0])]
    results = [evaluate(found, [lower[1]], kind=kind) for kind in ("boxes", "masks")]
    expected = [value for result in results for value in (result.ap, result.ap50, result.ap75)]
    start, iterations, multiplier, *figures, objects, _, _, seconds = row.values()
    assert (start, iterations, multiplier, objects) == ("pretrained", 2, task.training.backbone_lr_mult, 12)
    assert figures == pytest.approx(expected, abs=1e-3) and seconds > 0


def test_nuclei_are_split_by_image_and_learned(cells, monkeypatch):
    noted = Mock(side_effect=fine_tune)
    monkeypatch.setattr(fine_tuning, "fine_tune", noted)
    task = short(NUCLEI, iterations=1, side=40, enlarged=2.0)
    tuned, _, row = nuclei(cells, "random", task, quiet=True)
    start, train, test, *others = noted.call_args.args
    assert (start, others) == ("random", [["background", "nucleus"], task])
    whole = NucleiDataset(cells)
    for part, indices in ((test, (4, 9)), (train, (0, 1, 2, 3, 5, 6, 7, 8))):
        for (image, target), index in zip(part, indices, strict=True):
            assert torch.equal(image, whole[index][0])
            assert torch.equal(target["masks"], whole[index][1]["masks"])
    assert tuned.transform.min_size == 128 and row["objects"] == 4
    sizes = tuned.rpn.config.anchor_sizes[0]
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
    for layer in (fresh.backbone.conv1, fresh.backbone.conv5, fresh.classifier.fc6):
        assert layer.weight.std().item() == pytest.approx((2 / layer.weight[0].numel()) ** 0.5, rel=0.05)
        assert not layer.bias.any()
    assert torch.equal(fresh.backbone.conv3.weight, again.backbone.conv3.weight)


def test_anchor_sizes_by_hand():
    sides = torch.tensor([8.0, 32.0, 64.0])
    boxes = torch.stack([sides.new_ones(3), sides.new_ones(3), sides + 1, sides + 1], dim=1)
    low, high = (2 ** np.interp(share, [0, 0.5, 1], [3, 5, 6]) for share in (0.05, 0.95))
    expected = [4 * low * (high / low) ** (k / 3) for k in range(4)]
    assert anchor_sizes([boxes[:1], boxes[:0], boxes[1:]], 4, 4.0) == tuple(np.round(expected))
    empty = torch.tensor([[5.0, 5.0, 5.0, 9.0]])
    assert anchor_sizes([torch.tensor([[0.0, 0.0, 4.0, 25.0]]), empty], 1) == (10,)


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
    detector = Mock(classes=("background", "coin"), detect=Mock(side_effect=[[first], [second]]))
    *figures, total, found, wrong = measure(detector, [(image, truth[0]), (image, truth[1])])
    assert (total, found, wrong) == (3, 1, 2)
    # For AP all four count: right, wrong, wrong, right, right; with all IoU 1 where right.
    assert figures[1] == figures[4] == pytest.approx((34 * 1 + 67 * 3 / 5) / 101)


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
