"""What happens to images and boxes before a network sees them, against torchvision and values worked by hand."""

import copy

import numpy as np
import pytest
import torch
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from minircnn.training import Augmentation, draw_batch
from minircnn.training.batches import color_jitter
from minircnn.transforms import (
    Transform,
    hflip,
    resize_boxes,
    resize_target,
)

SIZES = [(72, 88), (40, 133), (200, 61), (97, 97)]


def scene(height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(3, height, width, generator=generator)
    start = torch.rand(4, 2, generator=generator) * torch.tensor([width, height]) / 2
    boxes = torch.cat([start, start + 5 + torch.rand(4, 2, generator=generator) * 20], dim=1)
    masks = torch.rand(4, height, width, generator=generator) < 0.5
    return image, {"boxes": boxes, "masks": masks, "labels": torch.tensor([1, 2, 3, 1])}


def test_the_flipped_box_shows_the_flipped_object():
    image, mask = torch.zeros(3, 8, 11), torch.zeros(1, 8, 11, dtype=torch.bool)
    image[:, 2:5, 1:4], mask[:, 2:5, 1:4] = 1, True
    target = {"boxes": torch.tensor([[1.0, 2.0, 4.0, 5.0]]), "masks": mask, "labels": torch.tensor([3]), "image_id": 7}
    before = image.clone(), target["boxes"].clone(), mask.clone()
    flipped, changed = hflip(image, target)
    x1, y1, x2, y2 = changed["boxes"][0].int().tolist()
    assert flipped[:, y1:y2, x1:x2].all() and flipped.sum() == image.sum()
    assert changed["masks"][:, y1:y2, x1:x2].all() and changed["masks"].sum() == mask.sum()
    assert changed["labels"] is target["labels"] and changed["image_id"] == 7
    assert all(map(torch.equal, (image, target["boxes"], target["masks"]), before))
    assert "masks" not in hflip(image, {"boxes": target["boxes"]})[1]


@pytest.mark.parametrize(("shortest", "longest", "divisor"), [(64, 100, 32), (150, 1000, 1), (97, 97, 16)])
def test_equals_torchvisions_transform(shortest, longest, divisor):
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
    reference_transform = GeneralizedRCNNTransform(shortest, longest, mean, std, size_divisible=divisor).train()
    ours = Transform(mean, std, min_size=shortest, max_size=longest, divisor=divisor)
    images, targets = zip(*(scene(*size, seed=seed) for seed, size in enumerate(SIZES)), strict=True)
    before = copy.deepcopy((images, targets))
    expected, expected_targets = reference_transform(list(images), list(targets))
    batch, sizes = ours.batch(images)
    assert sizes == expected.image_sizes
    assert torch.allclose(batch, expected.tensors, atol=1e-6)
    for image, target, wanted in zip(images, targets, expected_targets, strict=True):
        found = resize_target(target, tuple(image.shape[1:]), ours.new_size(tuple(image.shape[1:])))
        assert torch.allclose(found["boxes"], wanted["boxes"], atol=1e-6, rtol=1e-6)
        assert found["masks"].dtype == torch.bool and torch.equal(found["masks"], wanted["masks"].bool())
        assert found["labels"] is target["labels"]
    torch.testing.assert_close((images, targets), before, rtol=0, atol=0)  # nothing that is given changes
    for size, new in zip(SIZES, sizes, strict=True):  # and back, as torchvision's postprocess does
        boxes = scene(*new)[1]["boxes"]
        back = reference_transform.eval().postprocess([{"boxes": boxes}], [new], [size])[0]["boxes"]
        assert torch.allclose(resize_boxes(boxes, new, size), back, atol=1e-5)


def test_blue_first_and_a_size_at_least():
    """Without sizes of its own, an image keeps its; zeros are added to the right and below."""
    image = torch.zeros(3, 2, 2)
    image[0] = 1  # red
    batch, sizes = Transform((0.0,) * 3, (1.0, 1.0, 2.0), blue_first=True, divisor=3).batch([image, image[:, :1]], 5)
    assert batch.shape == (2, 3, 5, 5) and sizes == [(2, 2), (1, 2)]
    assert batch[0, :, 0, 0].tolist() == [0, 0, 0.5] and batch.count_nonzero() == 6
    with pytest.raises(ValueError, match="at least one image"):
        Transform().batch([])


@pytest.mark.parametrize(
    ("sides", "size", "new"),
    [
        ((600, 1000), (375, 500), (600, 800)),
        ((600, 1000), (300, 900), (333, 1000)),
        ((10, 20), (1, 400), (1, 20)),  # a sliver keeps a pixel
        ((10, 20), (1, 1), (10, 10)),
    ],
)
def test_sizes_by_hand(sides, size, new):
    assert Transform(min_size=sides[0], max_size=sides[1]).new_size(size) == new


def test_without_a_largest_side_it_is_four_times_the_shorter_one():
    """So of ordinary images nothing changes, and slim ones are as torchvision makes them with that max_size."""
    reference_transform = GeneralizedRCNNTransform(192, 768, [0.5] * 3, [0.5] * 3, size_divisible=1).eval()
    transform = Transform((0.5,) * 3, (0.5,) * 3, min_size=192)
    for size in ((30, 30), (90, 160), (400, 101), (25, 101), (7, 1000), (2000, 9)):
        images = [torch.rand(3, *size)]
        expected, _ = reference_transform(images)
        batch, sizes = transform.batch(images)
        assert sizes == expected.image_sizes and torch.allclose(batch, expected.tensors, atol=1e-6)
        if 1 <= size[1] / size[0] <= 4:
            assert sizes == [(192, 192 * size[1] // size[0])]
    batch, sizes = Transform(min_size=192, divisor=8).batch([torch.rand(3, 1, 20000), torch.rand(3, 20000, 1)])
    assert batch.shape == (2, 3, 768, 768) and sizes == [(1, 767), (767, 1)]  # the largest of each side


NO_IMAGES = {
    "gray": (torch.zeros(1, 4, 4), r"be a float tensor \(3, H, W\) in \[0, 1\], but is torch.float32 of \(1, 4, 4\)"),
    "bytes": (torch.zeros(3, 4, 4, dtype=torch.uint8), "be a float tensor .* torch.uint8"),
    "numpy": (np.zeros((3, 4, 4)), "be a float tensor .* is ndarray"),
    "above 10": (torch.full((3, 4, 4), 10.5), r"hold values in \[0, 1\], but holds 10\.5: divide bytes by 255"),
    "up to 255": (torch.full((3, 4, 4), 255.0), r"hold values in \[0, 1\], but holds 255: divide bytes by 255"),
    "nan": (torch.full((3, 4, 4), torch.nan), r"hold values in \[0, 1\], but holds nan"),
}


@pytest.mark.parametrize(("image", "message"), NO_IMAGES.values(), ids=NO_IMAGES)
def test_what_is_no_image_is_refused(image, message):
    with pytest.raises(ValueError, match="^image 1 must " + message):
        Transform().batch([torch.zeros(3, 4, 4), image])
    target = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    with pytest.raises(ValueError, match=r"^the image of samples\[0\] must " + message):
        draw_batch(0, [(image, target)], None, images_per_batch=1, seed=0, augmentation=Augmentation(color_jitter=0.1))


def test_color_jitter_by_hand():
    """The five draws are contrast, brightness and a tint for each color."""
    image = torch.rand(3, 5, 7)
    before, generator = image.clone(), torch.Generator().manual_seed(3)
    contrast, brightness, *tint = (0.4 * (2 * torch.rand(5, generator=torch.Generator().manual_seed(3)) - 1)).tolist()
    found = color_jitter(image, 0.4, generator)
    for channel in range(3):
        expected = ((image[channel] - 0.5) * (1 + contrast) + 0.5) * (1 + brightness + tint[channel] / 2)
        assert torch.allclose(found[channel], expected.clip(0, 1), atol=1e-6)
    looks = [color_jitter(image, 1.0, generator) for _ in range(20)]
    assert all(look.min() >= 0 and look.max() <= 1 for look in looks)
    assert len({look.sum().item() for look in looks}) == 20
    assert torch.equal(image, before)
    assert torch.allclose(color_jitter(image, 0.0, generator), image, atol=1e-6)
