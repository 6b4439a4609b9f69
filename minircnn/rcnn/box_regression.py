"""A line through the features tells how to move a proposal onto its object (R-CNN, appendix C)."""

import torch
from sklearn.linear_model import Ridge
from torch import Tensor

from minircnn.boxes import encode_boxes


def fit_box_regressor(features: Tensor, proposals: Tensor, objects: Tensor, ridge: float) -> Tensor:
    """Ridge regression from the features of proposals to the deltas that move them onto their objects (equation 5).

    Args:
        features: ``(N, D)``.
        proposals: ``(N, 4)``, each near its object: far from it, the features cannot tell where it is.
        objects: ``(N, 4)``.
        ridge: lambda. It is large, 1000 in the paper, because near copies of one proposal say little more than one.

    Returns:
        ``(4, D + 1)`` float32: weights of dx, dy, dw, dh, and the bias last. With N = 0 all are 0, which leaves boxes
        as they are.

    Paper vs code: R-CNN's program also whitened the four targets, and shrank the bias along with the weights.
    """
    if not len(features):
        return torch.zeros(4, features.shape[1] + 1)
    line = Ridge(alpha=ridge).fit(features.double().numpy(), encode_boxes(proposals, objects).double().numpy())
    weights, bias = torch.from_numpy(line.coef_), torch.as_tensor(line.intercept_)
    return torch.cat([weights, bias[:, None]], dim=1).float()
