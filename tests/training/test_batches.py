"""Batches of pictures that look a little different each time, against the same changes made by hand."""

import pytest
import torch

from minircnn.training import Augmentation, draw_batch
from minircnn.training.batches import pictures_of
from minircnn.transforms import color_jitter


@pytest.fixture
def samples():
    """Four pictures of one size, each with an object that is brighter than all around it."""
    made = []
    for number in range(4):
        image = torch.full((3, 40, 60), 0.1)
        x, y = 5 + 8 * number, 4 + 5 * number
        image[:, y : y + 12, x : x + 16] = 0.8
        boxes = torch.tensor([[x, y, x + 16, y + 12]], dtype=torch.float32)
        made.append((image, {"boxes": boxes, "labels": torch.tensor([number + 1])}))
    return made


def draw(samples, iteration=0, **options):
    proposals = [target["boxes"] + 1 for _, target in samples]
    return draw_batch(iteration, samples, proposals, **{"pictures": 4, "seed": 0, **options})


def test_all_pictures_of_a_batch_grow_or_shrink_alike_and_batches_differ(samples):
    """So that no process pads its part of the batch in another way."""
    scales = [draw(samples, iteration, augmentation=Augmentation(scale_jitter=0.5)).scale for iteration in range(30)]
    assert len(set(scales)) == 30
    assert all(1 / 1.5 <= scale <= 1.5 for scale in scales) and min(scales) < 0.8 and max(scales) > 1.2
    assert draw(samples, 3, augmentation=Augmentation(scale_jitter=0.5)).scale == scales[3], (
        "of seed and iteration alone"
    )
    assert draw(samples).scale == 1


def test_each_picture_has_a_light_of_its_own(samples):
    batch = draw(samples, augmentation=Augmentation(hflip=0, color_jitter=0.5))
    order = pictures_of(0, 4, 4, seed=0)
    for place, (index, image) in enumerate(zip(order, batch.images, strict=True)):
        generator = torch.Generator().manual_seed(place)  # of seed 0 and iteration 0
        torch.rand((), generator=generator)  # whether it is mirrored
        assert torch.equal(image, color_jitter(samples[index][0], 0.5, generator))


def test_without_variety_pictures_are_mirrored_and_nothing_else(samples):
    for variety, mirrored in ((Augmentation(hflip=0), False), (Augmentation(hflip=1), True)):
        batch = draw(samples, augmentation=variety)
        for index, image in zip(pictures_of(0, 4, 4, seed=0), batch.images, strict=True):
            assert torch.equal(image, samples[index][0].flip(2) if mirrored else samples[index][0])


def test_boxes_and_proposals_stay_on_their_objects(samples):
    for iteration in range(10):
        batch = draw(samples, iteration, augmentation=Augmentation(color_jitter=0.3))
        for image, target, proposals in zip(batch.images, batch.targets, batch.proposals, strict=True):
            x1, y1, x2, y2 = map(int, target["boxes"][0].tolist())
            assert image[:, y1:y2, x1:x2].min() > image[:, :, :x1].max()
            bright = image[0] > (image[0].min() + image[0].max()) / 2
            assert bright.sum() == (x2 - x1) * (y2 - y1)
            # A proposal was a pixel further down and further right; in the mirrored picture it is further left.
            assert (proposals[0] - target["boxes"][0]).abs().tolist() == [1, 1, 1, 1]
            assert proposals[0, 1] - target["boxes"][0, 1] == 1


def test_without_proposals_there_are_none(samples):
    batch = draw_batch(0, samples, None, pictures=2, seed=0)
    assert [boxes.shape for boxes in batch.proposals] == [(0, 4), (0, 4)]
    with pytest.raises(ValueError, match="4 pictures but proposals for 1"):
        draw_batch(0, samples, [torch.zeros(0, 4)], pictures=2, seed=0)
    with pytest.raises(ValueError, match="images_per_batch is 5, but there are 4 pictures"):
        draw_batch(0, samples, None, pictures=5, seed=0)
