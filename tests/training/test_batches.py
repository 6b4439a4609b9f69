"""Batches of augmented images, against the same changes made by hand."""

import threading

import pytest
import torch

from minircnn.training import Augmentation, draw_batch, loop
from minircnn.training.batches import DrawnAhead, color_jitter, images_of


@pytest.fixture
def samples():
    """Four images of one size, each with an object that is brighter than all around it."""
    made = []
    for number in range(4):
        image, x, y = torch.full((3, 40, 60), 0.1), 5 + 8 * number, 4 + 5 * number
        image[:, y : y + 12, x : x + 16] = 0.8
        target = {"boxes": torch.tensor([[x, y, x + 16.0, y + 12]]), "labels": torch.tensor([number + 1])}
        made.append((image, {**target, "masks": image[:1] > 0.5}))
    return made


def draw(samples, iteration=0, **options):
    proposals = [target["boxes"] + 1 for _, target in samples]
    return draw_batch(iteration, samples, proposals, **{"images_per_batch": 4, "seed": 0, **options})


@pytest.mark.parametrize(("count", "batch"), [(6, 3), (7, 3), (4, 4), (3, 1)])
def test_every_image_has_its_turn_before_one_comes_again(count, batch):
    torch.manual_seed(1)
    state = torch.get_rng_state()
    batches = [images_of(iteration, count, batch, seed=3) for iteration in range(5 * count)]
    assert torch.equal(torch.get_rng_state(), state), "nothing is drawn of the global generator"
    assert {len(images) for images in batches} == {batch}
    drawn = [image for images in batches for image in images]
    epochs = [tuple(drawn[start : start + count]) for start in range(0, len(drawn), count)]
    assert len(epochs) == 5 * batch
    assert all(sorted(epoch) == list(range(count)) for epoch in epochs)
    assert len(set(epochs)) > 1, "each epoch has an order of its own"
    assert batches != [images_of(iteration, count, batch, seed=4) for iteration in range(5 * count)]


def test_half_of_the_images_are_flipped_with_all_that_belongs_to_them(samples):
    flipped = []
    for iteration in range(60):
        batch = draw(samples, iteration)
        order = images_of(iteration, 4, 4, seed=0)
        for index, image, target, found in zip(order, batch.images, batch.targets, batch.proposals, strict=True):
            given, wanted = samples[index]
            flipped.append(not torch.equal(image, given))
            boxes, proposals, masks = wanted["boxes"], wanted["boxes"] + 1, wanted["masks"]
            if flipped[-1]:
                given, masks = given[:, :, list(range(59, -1, -1))], masks[:, :, list(range(59, -1, -1))]
                boxes, proposals = (
                    torch.stack([60 - b[:, 2], b[:, 1], 60 - b[:, 0], b[:, 3]], 1) for b in (boxes, proposals)
                )
            assert torch.equal(image, given) and torch.equal(target["masks"], masks)
            assert torch.equal(target["boxes"], boxes) and torch.equal(found, proposals)
            assert torch.equal(target["labels"], wanted["labels"])
    assert 90 < sum(flipped) < 150
    assert all(15 < sum(flipped[place::4]) < 45 for place in range(4))
    for hflip in (0, 1):
        batch = draw(samples, augmentation=Augmentation(hflip=hflip))
        for index, image in zip(images_of(0, 4, 4, seed=0), batch.images, strict=True):
            assert torch.equal(image, samples[index][0].flip(2) if hflip else samples[index][0])


def test_each_image_has_colors_of_its_own(samples):
    batch = draw(samples, augmentation=Augmentation(hflip=0, color_jitter=0.5))
    for place, (index, image) in enumerate(zip(images_of(0, 4, 4, seed=0), batch.images, strict=True)):
        generator = torch.Generator().manual_seed(place)  # of seed 0 and iteration 0
        torch.rand((), generator=generator)  # whether it is flipped
        assert torch.equal(image, color_jitter(samples[index][0], 0.5, generator))


def test_all_images_of_a_batch_grow_or_shrink_alike_and_batches_differ(samples):
    jitter = Augmentation(scale_jitter=0.5)
    scales = [draw(samples, iteration, augmentation=jitter).scale for iteration in range(30)]
    assert len(set(scales)) == 30
    assert all(1 / 1.5 <= scale <= 1.5 for scale in scales) and min(scales) < 0.8 and max(scales) > 1.2
    assert draw(samples, 3, augmentation=jitter).scale == scales[3], "of seed and iteration alone"
    assert draw(samples).scale == 1


def test_processes_that_share_a_batch_draw_what_one_draws(samples, monkeypatch):
    augmentation = Augmentation(color_jitter=0.3, scale_jitter=0.2)
    alone, together = draw(samples, 5, augmentation=augmentation), []
    monkeypatch.setattr(loop, "world_size", lambda: 2)
    for number in range(2):
        monkeypatch.setattr(loop, "rank", lambda number=number: number)
        part = draw(samples, 5, augmentation=augmentation)
        assert len(part.images) == 2 and part.scale == alone.scale
        together += zip(part.images, part.proposals, strict=True)
    for image, proposals, (its_image, its_proposals) in zip(alone.images, alone.proposals, together, strict=True):
        assert torch.equal(image, its_image) and torch.equal(proposals, its_proposals)


def test_what_is_refused(samples):
    batch = draw_batch(0, samples, images_per_batch=2, seed=0)
    assert [boxes.shape for boxes in batch.proposals] == [(0, 4), (0, 4)]
    with pytest.raises(ValueError, match="4 images but proposals for 1: give one tensor each"):
        draw_batch(0, samples, [torch.zeros(0, 4)], images_per_batch=2, seed=0)
    for count in (0, 5):
        with pytest.raises(ValueError, match=f"images_per_batch is {count}, but there are 4 images"):
            draw_batch(0, samples, images_per_batch=count, seed=0)


def test_batches_drawn_ahead_are_the_same_and_errors_come_in_their_turn():
    """In a thread: the next one while the last is in use, none beyond the end, and any other that is asked for."""
    drawn, begun = [], {number: threading.Event() for number in range(4)}

    def draw(iteration):
        drawn.append((iteration, threading.current_thread() is threading.main_thread()))
        begun[iteration].set()
        if iteration == 2:
            raise ValueError("samples[7]: no image")
        return iteration * 10

    ahead = DrawnAhead(draw, 4)
    assert ahead(0) == 0 and begun[1].wait(5)
    assert ahead(1) == 10 and begun[2].wait(5)
    with pytest.raises(ValueError, match=r"samples\[7\]: no image"):
        ahead(2)
    assert ahead(0) == 0 and ahead(3) == 30
    ahead.pool.shutdown()
    assert [number for number, _ in drawn] == [0, 1, 2, 0, 1, 3] and not any(main for _, main in drawn)
