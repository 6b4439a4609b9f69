"""What happens to pictures and boxes before a network sees them, against pixels that are looked up."""

import pytest
import torch
import torchvision.transforms.v2.functional as reference
from torchvision.tv_tensors import BoundingBoxes

from minircnn.transforms import mirror, mirror_boxes, pad_batch


def test_padding_keeps_the_pictures_and_adds_zeros():
    images = [torch.rand(3, 4, 7) + 1, torch.rand(3, 6, 2) + 1, torch.rand(3, 6, 7) + 1]
    batch = pad_batch(images)
    assert batch.shape == (3, 3, 6, 7)
    for padded, image in zip(batch, images, strict=True):
        height, width = image.shape[1:]
        assert torch.equal(padded[:, :height, :width], image)
        assert padded.count_nonzero() == image.numel()


def test_one_picture_and_none():
    image = torch.rand(3, 5, 4)
    assert torch.equal(pad_batch([image])[0], image)
    with pytest.raises(ValueError, match="at least one picture"):
        pad_batch([])


def test_mirrored_boxes_equal_torchvisions():
    boxes = torch.tensor([[0.0, 1.0, 5.0, 9.0], [2.5, 0.0, 2.5, 4.0], [-3.0, 0.0, 30.0, 4.0]])
    expected = reference.horizontal_flip(BoundingBoxes(boxes, format="XYXY", canvas_size=(10, 20)))
    assert torch.equal(mirror_boxes(boxes, 20), expected.as_subclass(torch.Tensor))
    assert torch.equal(mirror_boxes(mirror_boxes(boxes, 20), 20), boxes)
    assert mirror_boxes(torch.zeros(0, 4), 20).shape == (0, 4)


def test_the_mirrored_box_shows_the_mirrored_object():
    image, mask = torch.zeros(3, 8, 11), torch.zeros(1, 8, 11, dtype=torch.bool)
    image[:, 2:5, 1:4], mask[:, 2:5, 1:4] = 1, True
    target = {"boxes": torch.tensor([[1.0, 2.0, 4.0, 5.0]]), "masks": mask, "labels": torch.tensor([3]), "image_id": 7}
    before = image.clone(), target["boxes"].clone(), mask.clone()
    mirrored, changed = mirror(image, target)
    x1, y1, x2, y2 = changed["boxes"][0].int().tolist()
    assert mirrored[:, y1:y2, x1:x2].all() and mirrored.sum() == image.sum()
    assert changed["masks"][:, y1:y2, x1:x2].all() and changed["masks"].sum() == mask.sum()
    assert changed["labels"] is target["labels"] and changed["image_id"] == 7
    assert all(map(torch.equal, (image, target["boxes"], target["masks"]), before))
    assert "masks" not in mirror(image, {"boxes": target["boxes"]})[1]
