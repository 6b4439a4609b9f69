"""Samples that are kept and parts that are cut out, against slices and loops."""

import pytest
import torch
import torch.nn.functional as F

from minircnn.datasets import ToyTown, images
from minircnn.datasets.masks import decode_masks, encode_masks, shrink_masks
from minircnn.training import Augmentation, KeptSamples, draw_batch
from minircnn.training.batches import cut_out, random_part
from minircnn.transforms import Transform, resize


class Counted(list):
    """A list that knows how often something was asked for."""

    asked = 0

    def __getitem__(self, index):
        self.asked += 1
        return super().__getitem__(index)


def sample(height, width, *corners, masks=True, crowd=()):
    """An image in which every pixel is different, and objects that are blocks: x1, y1, x2, y2."""
    image = torch.arange(3 * height * width).view(3, height, width).float() / (3 * height * width)
    target = {
        "boxes": torch.tensor(corners).float().view(-1, 4),
        "labels": torch.arange(len(corners)) + 1,
        "image_id": 7,
        "iscrowd": torch.tensor([index in crowd for index in range(len(corners))], dtype=torch.bool),
    }
    if masks:
        target["masks"] = torch.zeros(len(corners), height, width, dtype=torch.bool)
        for mask, (x1, y1, x2, y2) in zip(target["masks"], corners, strict=True):
            mask[y1:y2, x1:x2] = True
    return image, target


def test_kept_samples_are_those_that_were_given_and_read_once():
    given = Counted(ToyTown("val")[index] for index in range(3))
    kept = KeptSamples(given, num_classes=7)
    for _ in range(2):
        for index, (image, target) in enumerate(list.__iter__(given)):
            found, of_it = kept[index]
            assert torch.equal(found, image)
            assert found.dtype == torch.float32 and of_it["image_id"] == target["image_id"]
            for name in ("boxes", "labels", "masks", "iscrowd"):
                assert torch.equal(of_it[name], target[name]), name
            found.zero_(), of_it["masks"].zero_(), of_it.clear()  # the next reader sees nothing of that
    assert given.asked == 3
    assert len(kept) == len(list(kept)) == 3


def test_what_does_not_fit_is_read_again_and_what_bytes_do_not_hold_stays():
    image, target = sample(10, 12, (1, 1, 5, 5))
    given = Counted([(torch.round(image * 255) / 255, target)] * 2)
    kept = KeptSamples(given, num_classes=2, room=500)  # bytes; one image has 360
    assert [kept[index][0].shape for index in (0, 1, 0, 1, 1)] == [(3, 10, 12)] * 5
    assert given.asked == 4, "the second image each time"
    resized = KeptSamples([(image, target)], num_classes=2)
    assert torch.equal(resized[0][0], image) and not torch.equal((image * 255).round() / 255, image)


def test_what_is_wrong_is_refused_with_its_place():
    image, target = sample(10, 12, (1, 1, 5, 5))
    with pytest.raises(ValueError, match=r"samples\[1\].*labels\[0\] is 1, but there are 1 classes"):
        KeptSamples([(image, target)] * 2, num_classes=1)[1]
    with pytest.raises(ValueError, match=r"the image of samples\[0\] must hold values in \[0, 1\]"):
        KeptSamples([(image * 255, target)], num_classes=2)[0]


def test_boxes_are_clipped_and_those_of_which_little_is_left_are_crowds():
    # Whole; a quarter of it inside; 3 of 4 columns inside; outside; outside, and touching the part's edge.
    blocks = (4, 4, 6, 6), (1, 1, 5, 5), (7, 5, 11, 6), (11, 7, 12, 8), (0, 3, 3, 9)
    results = []
    for masks in (True, False):
        image, target = sample(10, 12, *blocks, masks=masks)
        part, found = cut_out(image, target, (3, 3, 8, 10), least=0.3)
        assert torch.equal(part, image[:, 3:8, 3:10])
        assert found["boxes"].tolist() == [[1, 1, 3, 3], [0, 0, 2, 2], [4, 2, 7, 3]]
        assert found["labels"].tolist() == [1, 2, 3] and found["area"].tolist() == [4, 4, 3]
        assert found["iscrowd"].tolist() == [False, True, False], "of the second a quarter is left"
        assert target["boxes"].tolist() == [list(block) for block in blocks], "what was given is as it was"
        assert cut_out(image, target, (3, 3, 8, 10), least=0.25)[1]["iscrowd"].tolist() == [False] * 3
        results.append(found)
    assert torch.equal(results[0]["masks"], sample(10, 12, *blocks)[1]["masks"][:3, 3:8, 3:10])
    assert cut_out(*sample(10, 12, (1, 1, 5, 5), masks=False, crowd=[0]), (0, 0, 9, 9))[1]["iscrowd"].tolist() == [True]
    none = cut_out(*sample(10, 12, (0, 0, 2, 2), masks=False), (5, 5, 9, 10))[1]
    assert (none["boxes"].shape, none["labels"].dtype, none["image_id"]) == ((0, 4), torch.int64, 7)


def test_every_part_of_an_image_is_drawn():
    generator = torch.Generator().manual_seed(0)
    drawn = {random_part((5, 4), 3, generator) for _ in range(200)}
    assert drawn == {(top, left, top + 3, left + 3) for top in range(3) for left in range(2)}
    assert random_part((5, 4), 9, generator) == (0, 0, 5, 4)


@pytest.mark.parametrize("size", [(200, 300), (300, 200), (60, 300), (90, 90)])
def test_parts_of_images_are_seen_as_large_as_they_are_in_the_whole(size):
    """Whatever the image: an object has the size in the part that it would have in the image, proposals too."""
    transform, augmentation = Transform(min_size=120, max_size=400), Augmentation(hflip=0.0, crop_size=100)
    box = torch.tensor([[20.0, 20.0, 50.0, 44.0]])
    samples = [(torch.rand(3, *size), {"boxes": box, "labels": torch.tensor([1])})]
    high, wide = (new / old for new, old in zip(transform.new_size(size), size, strict=True))
    seen, areas = augmentation.seen(transform), []
    for iteration in range(12):
        options = {"images_per_batch": 1, "seed": 0, "augmentation": augmentation, "transform": transform}
        batch = draw_batch(iteration, samples, [box + 1], **options)
        (image,), (target,), (proposals,) = batch.images, batch.targets, batch.proposals
        new = seen.new_size(tuple(image.shape[1:]))
        assert max(new) <= 100
        assert new[0] / image.shape[1] == pytest.approx(high, rel=0.03)
        assert new[1] / image.shape[2] == pytest.approx(wide, rel=0.03)
        inside = (proposals >= 0).all() and (proposals[:, 2] <= image.shape[2]).all()
        assert inside and (proposals[:, 3] <= image.shape[1]).all()
        areas += [(b[2] - b[0]) * (b[3] - b[1]) for b in target["boxes"].tolist()]
    assert max(areas) == 30 * 24 and min(areas) > 0


@pytest.mark.parametrize("masks", [True, False])
def test_images_much_larger_than_the_backbone_sees_them_are_kept_smaller(masks):
    """As the transform would resize them, with their objects; those less than twice as large stay as they are."""
    image, target = sample(200, 300, (20, 40, 90, 100), (150, 0, 300, 30), masks=masks)
    image = (image * 255).round() / 255
    kept = KeptSamples([(image, target)], num_classes=3, largest=Transform(min_size=100))
    found, of_it = kept[0]
    assert found.shape == (3, 100, 150)
    assert (found - F.interpolate(image[None], (100, 150), mode="bilinear")[0]).abs().max() <= 0.5 / 255 + 1e-6
    assert torch.equal(of_it["boxes"], target["boxes"] / 2) and torch.equal(of_it["labels"], target["labels"])
    if masks:
        assert torch.equal(of_it["masks"], target["masks"][:, ::2, ::2])
    whole = KeptSamples([(image, target)], num_classes=3, largest=Transform(min_size=101))[0]
    assert torch.equal(whole[0], image) and torch.equal(whole[1]["boxes"], target["boxes"])


def test_masks_of_a_data_set_of_files_never_lie_in_memory_as_pixels(monkeypatch):
    """Of an image that is kept smaller; only the small ones are decoded."""
    data = ToyTown("val")
    kept, wanted = KeptSamples(data, num_classes=7, largest=Transform(min_size=32)), data.load_target(0)["masks"]
    monkeypatch.setattr(images, "decode_masks", lambda *_: pytest.fail("decoded by the data set"))
    assert torch.equal(kept[0][1]["masks"], wanted[:, ::4, ::4])


def test_masks_shrink_as_pixels_do():
    masks = torch.rand(5, 61, 47, generator=torch.Generator().manual_seed(0)) < 0.4
    for new in ((30, 23), (7, 47), (61, 5), (60, 46)):
        found = decode_masks(shrink_masks(encode_masks(masks), (61, 47), new), new)
        assert torch.equal(found, resize(masks, new))
