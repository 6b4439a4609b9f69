"""Ridge regression against its normal equations, and on motions that are known."""

import numpy as np
import torch

from minircnn.boxes import decode_boxes, encode_boxes
from minircnn.rcnn import fit_box_regressor


def examples(count, size, seed=0):
    random = torch.Generator().manual_seed(seed)
    features = torch.randn(count, size, generator=random)
    corner = torch.rand(count, 2, generator=random) * 50
    proposals = torch.cat([corner, corner + 10 + torch.rand(count, 2, generator=random) * 30], dim=1)
    return features, proposals


def test_equals_the_normal_equations():
    features, proposals = examples(80, 5)
    objects = proposals + torch.randn(80, 4, generator=torch.Generator().manual_seed(1))
    line = fit_box_regressor(features, proposals, objects, ridge=7.0)
    x, y = features.double().numpy(), encode_boxes(proposals, objects).double().numpy()
    centred = x - x.mean(0)
    weights = np.linalg.solve(centred.T @ centred + 7.0 * np.eye(5), centred.T @ (y - y.mean(0)))  # (5, 4)
    np.testing.assert_allclose(line[:, :-1], weights.T, atol=1e-5)
    np.testing.assert_allclose(line[:, -1], y.mean(0) - x.mean(0) @ weights, atol=1e-5)


def test_finds_the_way_that_features_tell():
    features, proposals = examples(400, 6)
    way = 0.1 * torch.randn(4, 6, generator=torch.Generator().manual_seed(2))
    objects = decode_boxes(proposals, features @ way.T + torch.tensor([0.1, 0.0, -0.1, 0.2]))
    line = fit_box_regressor(features, proposals, objects, ridge=1e-6)
    torch.testing.assert_close(line[:, :-1], way, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(line[:, -1], torch.tensor([0.1, 0.0, -0.1, 0.2]), atol=1e-3, rtol=0)


def test_a_large_lambda_leaves_the_mean_motion_only():
    features, proposals = examples(50, 4)
    line = fit_box_regressor(features, proposals, proposals + 2, ridge=1e9)
    assert line[:, :-1].abs().max() < 1e-6
    torch.testing.assert_close(line[:, -1], encode_boxes(proposals, proposals + 2).mean(0), atol=1e-5, rtol=0)


def test_nothing_to_learn_from_moves_nothing():
    line = fit_box_regressor(torch.zeros(0, 4), torch.zeros(0, 4), torch.zeros(0, 4), ridge=1000.0)
    assert line.shape == (4, 5) and not line.any()
