"""The pool of proposals against loops, and that every crop meets its own name."""

import pytest
import torch
import torchvision
from torch import nn

from minircnn.alexnet import SMALL, AlexNet
from minircnn.rcnn import RCNN, FineTuningSettings, ProposalPool
from minircnn.targets import in_crowd, single_objects

COLOURS = torch.tensor([[0.5, 0.5, 0.5], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])


def test_the_pool_equals_a_loop(picture, random_boxes):
    samples = [picture([1, 2, 3, 1, 2]), picture([]), picture([3])]
    proposals = [random_boxes(200, seed) for seed in range(3)]
    pool = ProposalPool(samples, proposals, positive_iou=0.5)
    row = 0
    for index, (_, target) in enumerate(samples):
        for box in [*proposals[index], *target["boxes"]]:
            best, name = 0.0, 0
            for other, label in zip(target["boxes"], target["labels"], strict=True):
                iou = float(torchvision.ops.box_iou(box[None], other[None]))
                if iou > best:
                    best, name = iou, int(label)
            assert pool.image[row] == index
            assert pool.boxes[row].tolist() == box.tolist()
            assert pool.labels[row] == (name if best >= 0.5 else 0)
            row += 1
    assert row == len(pool.labels)


def test_draws_as_many_of_each_kind_as_asked_and_all_of_a_kind_alike(picture, random_boxes):
    samples = [picture([1, 2]), picture([3])]
    pool = ProposalPool(samples, [random_boxes(30, seed) for seed in range(2)], 0.5)
    torch.manual_seed(0)
    drawn = pool.draw(4000, 8000)
    labels = pool.labels[drawn]
    assert (labels > 0).sum() == 4000 and (labels == 0).sum() == 8000
    assert (drawn.diff() >= 0).all()
    for kind in (pool.labels > 0, pool.labels == 0):
        counts = drawn.bincount(minlength=len(pool.labels))[kind]
        expected = counts.float().mean()
        assert (counts - expected).abs().max() < 5 * expected.sqrt()


def test_nothing_to_learn_is_an_error(picture, random_boxes):
    with pytest.raises(ValueError, match="0 show an object"):
        ProposalPool([picture([])], [random_boxes(5, 0)], 0.5)


def test_crowds_are_neither_objects_nor_background(picture):
    image, target = picture([1, 2])
    target["iscrowd"] = torch.tensor([False, True])
    assert single_objects(target)["labels"].tolist() == [1]
    boxes = torch.tensor(
        [[20.0, 0.0, 40.0, 20.0], [30.0, 0.0, 50.0, 20.0], [31.0, 0.0, 51.0, 20.0], [25.0, 5.0, 26.0, 6.0]]
    )
    assert in_crowd(boxes, target).tolist() == [True, False, False, True]  # whole, exactly half, less, a small one
    pool = ProposalPool([(image, target)], [boxes], 0.5)
    assert pool.labels.tolist() == [0, 0, 1]
    assert not in_crowd(boxes, picture([1])[1]).any()


class ByColour(nn.Module):
    """In place of a network: names a crop by the colour in its middle, quite sure of itself."""

    def __init__(self):
        super().__init__()
        self.config, self.backbone, self.classifier = SMALL, nn.Sequential(), nn.Sequential()
        self.fc8 = nn.Linear(3, 4)
        self.mean_color, self.feature_sizes = (0.45, 0.45, 0.45), {"pool5": 3, "fc6": 3, "fc7": 3}

    def normalize(self, images):
        return images

    def forward(self, crops):
        middle = crops[:, :, 32, 32]
        return -100 * torch.cdist(middle, COLOURS)


def test_every_crop_meets_its_own_name(picture):
    samples = [picture([1, 2, 3, 3, 2, 1]), picture([2]), picture([3, 3, 1])]
    # Half a pixel inside of each object, and grey places, so that the colour in the middle is never in doubt.
    proposals = [torch.cat([t["boxes"] + 1, torch.tensor([[5.0, 45.0, 15.0, 55.0]])]) for _, t in samples]
    model = RCNN(ByColour(), ["background", "a", "b", "c"])
    found = []

    def optimise(network, losses, groups):
        assert network is model.network and [group["scale"] for group in groups] == [0.1, 1.0]
        torch.manual_seed(0)
        found.extend(float(losses(i)["classification"]) for i in range(4))

    model.finetune(samples, proposals, optimise, FineTuningSettings(batch=40, positives=20))
    assert max(found) < 1e-3
    assert not model.network.training


def test_replaces_the_last_layer_and_gives_every_parameter_to_one_group(picture, random_boxes):
    model = RCNN(AlexNet(SMALL, 18), ["background", "a", "b", "c"])
    seen = {}

    def optimise(network, losses, groups):
        seen["ids"] = [id(p) for group in groups for p in group["params"]]
        return losses(0)

    samples = [picture([1, 2, 3])]
    losses = model.finetune(samples, [random_boxes(50, 1)], optimise)
    assert model.network.fc8.out_features == 4
    assert sorted(seen["ids"]) == sorted(id(p) for p in model.network.parameters())
    assert float(losses["classification"].detach()) == pytest.approx(1.386, abs=0.2)  # log 4: it knows nothing yet
