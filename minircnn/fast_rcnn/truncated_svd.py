"""Fully connected layers that detect faster, at some loss: truncated singular value decomposition.

Girshick 2015, "Fast R-CNN", section 3.1. In detection there are thousands of regions but one picture, so that half of
Fast R-CNN's time goes into fc6 and fc7.
"""

import copy

import torch
from torch import nn

from minircnn.fast_rcnn.detector import FastRCNN


def truncate(layer: nn.Linear, rank: int) -> nn.Sequential:
    """Two thin layers in place of a thick one: W ≈ U Σ Vᵀ with the ``rank`` largest singular values (equation 5).

    The first layer is Σ Vᵀ, without a bias, the second is U, with the bias of the original: u · v multiplications
    become rank · (u + v).

    Args:
        layer: of v inputs and u outputs.
        rank: from 1 to min(u, v), at which nothing is lost.

    Returns:
        No other layers of this form come nearer to the original, in the sum of squared weights.

    >>> truncate(nn.Linear(100, 50), rank=10)
    Sequential(
      (0): Linear(in_features=100, out_features=10, bias=False)
      (1): Linear(in_features=10, out_features=50, bias=True)
    )
    """
    outputs, inputs = layer.weight.shape
    if not 1 <= rank <= min(outputs, inputs):
        raise ValueError(f"rank must be from 1 to {min(outputs, inputs)} for this layer, but is {rank}")
    u, sigma, vt = torch.linalg.svd(layer.weight.detach().double(), full_matrices=False)
    kind = type(layer)  # what looks at maps still does
    first = kind(inputs, rank, bias=False, device=layer.weight.device, dtype=layer.weight.dtype)
    second = nn.Linear(rank, outputs, bias=layer.bias is not None, device=layer.weight.device, dtype=layer.weight.dtype)
    with torch.no_grad():
        first.weight.copy_(sigma[:rank, None] * vt[:rank])
        second.weight.copy_(u[:, :rank])
        if layer.bias is not None:
            second.bias.copy_(layer.bias)
    return nn.Sequential(first, second)


def compress(model: FastRCNN, fc6: int, fc7: int) -> FastRCNN:
    """A copy of a detector whose fully connected layers are truncated to these ranks; the paper took 1024 and 256.

    Raises:
        ValueError: a rank does not fit its layer, or the layers have been truncated before.
    """
    compressed = copy.deepcopy(model)
    head = compressed.roi_heads.box_head
    for name, rank in (("fc6", fc6), ("fc7", fc7)):
        layer = getattr(head, name)
        if not isinstance(layer, nn.Linear):
            raise ValueError(f"{name} is no linear layer any more: compress the original detector")
        setattr(head, name, truncate(layer, rank))
    return compressed
