"""Losses by name, each the mean over so many examples."""

from collections.abc import Mapping

from torch import Tensor


class Losses(dict[str, Tensor]):
    """What a detector returns in training: a dict from names to losses, as torchvision's detectors return it.

    Attributes:
        counts: of how many examples (RoIs, anchors) each loss is the mean. Who trains with several processes, each on
            some of the pictures, needs it to form the mean over all of them.

    >>> import torch
    >>> losses = Losses({"loss_classifier": torch.tensor(0.5)}, counts={"loss_classifier": 128})
    >>> sum(losses.values()), losses.counts["loss_classifier"]
    (tensor(0.5000), 128)
    """

    def __init__(self, losses: Mapping[str, Tensor], counts: Mapping[str, int]) -> None:
        if set(losses) != set(counts):
            raise ValueError(f"there must be a count for each loss, but {sorted(losses)} have {sorted(counts)}")
        super().__init__(losses)
        self.counts = dict(counts)
