"""Layer norms of whole maps, plain and gated."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...kernels import glu_layer_norm

__all__ = ["GluLayerNorm", "MapNorm"]


class MapNorm(nn.Module):
    """Layer norm of a map: y = (x - mean) / sqrt(var + eps) * weight + bias.

    Args:
        channels: C.
        side: S.
        by_pixel: whether mean and var are taken over the channels of each pixel, or over all of [C, S, S].
        by_element: whether weight and bias are [C, S, S], or [C].
        eps: added to the variance.
    """

    def __init__(
        self, channels: int, side: int, *, by_pixel: bool = False, by_element: bool = False, eps: float = 1e-5
    ) -> None:
        super().__init__()
        self.by_pixel, self.by_element = by_pixel, by_element
        shape = (channels, side, side) if self.by_element else (channels,)
        self.weight, self.bias = nn.Parameter(torch.ones(shape)), nn.Parameter(torch.zeros(shape))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [N, C, S, S]."""
        if self.by_pixel:
            by_pixel = x.permute(0, 2, 3, 1)  # dense if x is channels-last
            return F.layer_norm(by_pixel, self.weight.shape, self.weight, self.bias, self.eps).permute(0, 3, 1, 2)
        if self.by_element:
            return F.group_norm(x, 1, None, None, self.eps) * self.weight + self.bias
        return F.group_norm(x, 1, self.weight, self.bias, self.eps)


class GluLayerNorm(MapNorm):
    """GLU-LNorm: layer norm of the first half of the channels, times the sigmoid of the second half.

    The second half is not normalised; FineGAN normalises both. The default (statistics over whole samples, one scale
    and shift for each channel) runs in one kernel.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Gate [N, 2C, S, S] to [N, C, S, S]."""
        if not (self.by_pixel or self.by_element):
            return glu_layer_norm(x, self.weight, self.bias, self.eps)
        values, gate = x.chunk(2, dim=1)
        return (super().forward(values) * gate.sigmoid()).to(x.dtype)
