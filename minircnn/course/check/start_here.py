"""The exercise of notebook 00: the box around a mask."""

import torch
import torchvision
from torch import Tensor

from minircnn.course.check.judge import Ask, exercise


def _box_of(mask: Tensor) -> Tensor:
    x1, y1, x2, y2 = torchvision.ops.masks_to_boxes(mask[None])[0]
    x2, y2 = x2 + 1, y2 + 1  # the last pixel belongs to it
    return torch.stack([x1, y1, x2, y2])


@exercise(_box_of)
def box_of(ask: Ask) -> str:
    """The half-open box around a mask."""
    slips = """
        x2 + 1, y2 + 1 => x2, y2 !! x2 and y2 are the last pixels, but a half-open box ends after them: add 1
        y2 + 1 => y2 !! x2 is right, y2 is still the last row: add 1 to both
        x2 + 1 => x2 !! y2 is right, x2 is still the last column: add 1 to both
        [x1, y1 => [x1 + 1, y1 + 1 !! the whole box is moved by 1: x1 and y1 are the first pixels
        x2 + 1, y2 + 1 => x2 + 2, y2 + 2 !! x2 and y2 are too large: add 1, not 2
        [x1, y1, x2, y2] => [y1, x1, y2, x2] !! x and y are exchanged: the first axis of a mask counts rows, which is y
        x2, y2] => x2 - x1, y2 - y1] !! it returns width and height; wanted are the corners x1, y1, x2, y2
    """
    cases = []
    for seed in range(30):
        generator = torch.Generator().manual_seed(seed)
        mask = torch.zeros(30, 40, dtype=torch.bool)
        x, y = (int(torch.randint(3, 15, (), generator=generator)) for _ in range(2))
        mask[y : y + 9, x : x + 20] = torch.rand(9, 20, generator=generator) < 0.4
        mask[y + 4, x] = mask[y, x + 3] = mask[y + 3, x + 19] = mask[y + 8, x + 6] = True
        cases.append((mask,))
    ask.cases(cases, slips, "for the box of a mask of 9 × 20 pixels")
    return "equal to torchvision's masks_to_boxes plus the last pixel, for 30 masks"
