"""The fully connected layer that looks at a pooled region, computed as the convolution that it is."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RegionLinear(nn.Linear):
    """A fully connected layer on maps of fixed size.

    Each of its neurons has a weight for every channel of every cell: that is a filter as large as the map, which fits
    in one place only. The result is the same; but a processor's convolutions are often faster than its products of
    matrices, and a map need not be copied into a row first.

    >>> import torch
    >>> maps, layer = torch.rand(5, 4, 3, 3), RegionLinear(4 * 3 * 3, 10)
    >>> torch.allclose(layer(maps), nn.functional.linear(maps.flatten(1), layer.weight, layer.bias), atol=1e-6)
    True
    """

    _kept: tuple[object, Tensor] | None = None  # filters in the order of channels_last, and which weights they are of

    def forward(self, maps: Tensor) -> Tensor:
        """``(R, C, n, m)``, or rows ``(R, C · n · m)``, to ``(R, D)``."""
        if maps.dim() == 2 or maps.is_cuda:  # on a GPU products are fast, and not every filter is as large in 16 bits
            return super().forward(maps.flatten(1))
        return F.conv2d(maps, self._filters(maps), self.bias).flatten(1)

    def _filters(self, maps: Tensor) -> Tensor:
        """The weights as filters ``(D, C, n, m)``.

        Where no gradient is asked for, they are kept in the order in which RoIPool's maps lie in memory: to bring them
        there for each picture takes its time. They are made anew when the weights have changed.
        """
        filters = self.weight.view(self.out_features, *maps.shape[1:])
        if torch.is_grad_enabled() or self.weight.is_inference() or maps.is_contiguous():
            return filters
        version = (self.weight.data_ptr(), self.weight._version, filters.shape)
        if self._kept is None or self._kept[0] != version:
            self._kept = (version, filters.contiguous(memory_format=torch.channels_last))
        return self._kept[1]

    @classmethod
    def of(cls, layer: nn.Linear) -> "RegionLinear":
        """The same layer, with the same tensors."""
        region = cls(layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta")
        region.weight, region.bias = layer.weight, layer.bias
        return region
