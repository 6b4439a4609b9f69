"""Truncated layers against numpy's singular values and scikit-learn's decomposition."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import TruncatedSVD
from torch import nn

from minircnn.fast_rcnn import truncate


@pytest.fixture
def layer():
    torch.manual_seed(0)
    return nn.Linear(30, 20)


@pytest.mark.parametrize("rank", [1, 5, 19, 20])
def test_no_layers_of_this_rank_come_nearer(layer, rank):
    """Eckart and Young: the squared error is the sum of the squared singular values that are left out."""
    first, second = truncate(layer, rank)
    product = (second.weight @ first.weight).detach().numpy()
    singular = np.linalg.svd(layer.weight.detach().numpy(), compute_uv=False)
    error = ((product - layer.weight.detach().numpy()) ** 2).sum()
    assert error == pytest.approx((singular[rank:] ** 2).sum(), rel=1e-4, abs=1e-9)
    assert np.linalg.matrix_rank(product, tol=1e-5) == rank


def test_equals_scikit_learns(layer):
    weight = layer.weight.detach().numpy()
    reference = TruncatedSVD(4, algorithm="arpack").fit(weight)
    first, second = truncate(layer, 4)
    expected = reference.transform(weight) @ reference.components_
    assert np.allclose((second.weight @ first.weight).detach().numpy(), expected, atol=1e-5)


def test_at_full_rank_it_is_the_same_function(layer):
    x = torch.randn(7, 30)
    assert torch.allclose(truncate(layer, 20)(x), layer(x), atol=1e-5)


def test_a_layer_without_bias():
    layer = nn.Linear(8, 6, bias=False)
    x = torch.randn(3, 8)
    assert torch.allclose(truncate(layer, 6)(x), layer(x), atol=1e-5)


@pytest.mark.parametrize("rank", [0, -1, 21])
def test_ranks_that_do_not_fit_are_refused(layer, rank):
    with pytest.raises(ValueError, match="rank must be from 1 to 20"):
        truncate(layer, rank)
