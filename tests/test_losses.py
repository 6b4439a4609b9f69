"""Losses: a dict of the usual kind, in which every loss has its count."""

import pytest
import torch

from minircnn.losses import Losses


def test_it_is_a_dict_as_torchvisions_detectors_return_it():
    counts = {"a": 3, "b": 5}
    losses = Losses({"a": torch.tensor(1.0), "b": torch.tensor(2.0)}, counts)
    assert isinstance(losses, dict) and sum(losses.values()) == 3
    counts["a"] = 0
    assert losses.counts == {"a": 3, "b": 5}, "its own copy"


@pytest.mark.parametrize("counts", [{}, {"a": 1, "b": 2}, {"b": 1}])
def test_a_count_for_each_loss_and_no_other(counts):
    with pytest.raises(ValueError, match=r"a count for each loss, but \['a'\] have"):
        Losses({"a": torch.tensor(1.0)}, counts)
