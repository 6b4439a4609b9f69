"""What a target says about its picture: the objects in it, and where there are crowds.

A target is a dict with ``boxes`` (G, 4), ``labels`` (G,) int64 and, where they are needed or known, ``masks`` (G, H, W)
bool and ``iscrowd`` (G,) bool.
"""

from typing import Any

import torch
from torch import Tensor

Sample = tuple[Tensor, dict[str, Any]]  # a picture (3, H, W) and its target


def single_objects(target: dict[str, Any]) -> dict[str, Tensor]:
    """The boxes, labels and masks of a target without crowd regions, which are no single object."""
    single = ~target["iscrowd"] if "iscrowd" in target else torch.ones(len(target["labels"]), dtype=torch.bool)
    return {name: target[name][single] for name in ("boxes", "labels", "masks") if name in target}


def in_crowd(boxes: Tensor, target: dict[str, Any]) -> Tensor:
    """Which boxes lie with more than half of their area in a crowd region: (P, 4) to (P,) bool.

    They show objects that nobody has drawn one by one, so they are neither positives nor background.
    """
    if "iscrowd" not in target or not target["iscrowd"].any():
        return torch.zeros(len(boxes), dtype=torch.bool)
    crowds = target["boxes"][target["iscrowd"]]
    low = torch.maximum(boxes[:, None, :2], crowds[:, :2])  # (P, crowds, 2)
    high = torch.minimum(boxes[:, None, 2:], crowds[:, 2:])
    shared = (high - low).clamp(min=0).prod(dim=-1)
    area = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(dim=-1)
    return (shared > 0.5 * area[:, None]).any(dim=1)
