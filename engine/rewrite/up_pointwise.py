"""Nearest x2 and a 1x1 convolution in the other order.

A 1x1 convolution treats every pixel alike, and so it does the four equal ones: conv(up(x)) = up(conv(x)).

Saves 4x of the multiplications: 4 K C H W become K C H W. Exact to the bit where the library's sums do not depend on
the size of the map. Loses where K is above C and memory is the limit: the map that is repeated has K channels then and
not C; what is written last is the same.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .convolution import read_conv

__all__ = ["UpPointwise", "up_pointwise"]


@torch.no_grad()
def up_pointwise(conv: nn.Conv2d) -> "UpPointwise":
    """Rewrite the 1x1 convolution that follows nearest x2 to go before it.

    Args:
        conv: 1x1, unpadded; it is not changed.
    Returns:
        A module from [N, C, H, W] to [N, K, 2H, 2W].
    Raises:
        ShapeError: the layer is no such convolution.
    """
    return UpPointwise(read_conv(conv, sides=(1,)).layer)


class UpPointwise(nn.Module):
    """1x1 convolution, then nearest x2; made by `up_pointwise`."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Maps [N, C, H, W] to [N, K, 2H, 2W]."""
        return F.interpolate(self.conv(x), scale_factor=2.0, mode="nearest")
