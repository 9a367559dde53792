"""Runs convolutions whose kernel covers the whole map, and transposed ones of a single pixel, as matrix products.

A 4x4 kernel on a 4x4 map, unpadded, takes each number of the map once for each output: y = W x + b, where x is the map
as one vector. Its transposed counterpart makes a 4x4 map of one pixel: each number of the map is a row of W.

It saves no multiplications. oneDNN, however, reorders the weights of such a layer in every call. On two Zen 5 cores, as
the best of 20 calls in channels-last, the convolution took so many times as long as the product:

| layer | bfloat16, batch 1 | bfloat16, batch 8 | float32, batch 1 | float32, batch 8 |
|---|---|---|---|---|
| 256 to 512 channels, 4x4, transposed | 2.5 | 4.0 | 0.5 | 1.3 |
| 512 to 256 channels, 4x4 | 8.6 | 9.1 | 0.9 | 1.5 |

It loses in float32 on one or two images of these widths. The product runs for 16 rows at least, because an image then
has the same bits in any batch. Maps of other sides go through the convolution.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zellige.errors import ShapeError

from ...kernels.op.layout import is_channels_last
from ..layers.batch_invariance import BatchInvariantLinear
from .convolution import require_plain
from .fold_weight import fold_weight

__all__ = ["WholeMap", "covers", "whole_map"]

_LEAST = 4  # cells a side of a kernel; smaller ones are those of larger maps


@torch.no_grad()
def whole_map(layer: nn.Conv2d | nn.ConvTranspose2d) -> "WholeMap":
    """Rewrite a convolution that may cover its whole map, or a transposed one that may have a single pixel.

    Args:
        layer: unpadded, of stride 1, in one group, with a kernel of 4 cells a side or more; it is not changed.
    Raises:
        ShapeError: the layer is another one.
    """
    require_plain(layer, nn.Conv2d, nn.ConvTranspose2d)
    if not covers(layer):
        raise ShapeError(f"The layer is {layer}; it must be unpadded, of stride 1, in one group and at least 4x4.")
    return WholeMap(fold_weight(layer))


def covers(layer: nn.Conv2d | nn.ConvTranspose2d) -> bool:
    """Whether a layer is one that `whole_map` takes."""
    plain = layer.stride == layer.dilation == (1, 1) and layer.padding == (0, 0) and layer.groups == 1
    return plain and layer.output_padding == (0, 0) and min(layer.kernel_size) >= _LEAST


class WholeMap(nn.Module):
    """The matrix, and the convolution for maps of other sides; `whole_map` makes it.

    Attributes:
        matrix: of pixels and their channels, [K, R R C], or [R R K, C] of a transposed layer.
        bias: [K], or one for each row of the matrix of a transposed layer; or None.
    """

    matrix: Tensor
    bias: Tensor | None

    def __init__(self, layer: nn.Conv2d | nn.ConvTranspose2d) -> None:
        super().__init__()
        self.transposed = isinstance(layer, nn.ConvTranspose2d)
        self.last = is_channels_last(layer.weight)
        self.side, self.outputs = layer.kernel_size, layer.out_channels
        bias = None if layer.bias is None else layer.bias.detach()
        if self.transposed:
            matrix = layer.weight.permute(2, 3, 1, 0).flatten(0, 2)
            bias = None if bias is None else bias.repeat(self.side[0] * self.side[1])
        else:
            matrix = layer.weight.permute(0, 2, 3, 1).flatten(1)
        self.register_buffer("matrix", matrix.detach().contiguous())
        self.register_buffer("bias", bias)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Maps [N, C, R, R] to [N, K, 1, 1], or [N, C, 1, 1] to [N, K, R, R]; the result is in x's memory format.

        A single pixel lies in both formats, so its result has the format of the trained weights.
        """
        last = is_channels_last(x) or (self.last and x.shape[2:] == (1, 1))
        layout = torch.channels_last if last else torch.contiguous_format
        if x.shape[2:] != ((1, 1) if self.transposed else self.side):
            convolve: Any = F.conv_transpose2d if self.transposed else F.conv2d
            y: Tensor = convolve(x, self._weight(), None if self.bias is None else self.bias[: self.outputs])
            return y.contiguous(memory_format=layout)
        rows = self._times(x.permute(0, 2, 3, 1).flatten(1))
        maps = rows.unflatten(1, (*self.side, self.outputs)) if self.transposed else rows[:, None, None]
        return maps.permute(0, 3, 1, 2).contiguous(memory_format=layout)

    def _times(self, x: Tensor) -> Tensor:
        """Rows times the matrix; a row has the same bits in any batch."""
        return BatchInvariantLinear.multiply(x, self.matrix, self.bias)

    def _weight(self) -> Tensor:
        """The matrix as the weight of the convolution."""
        if self.transposed:
            return self.matrix.view(*self.side, self.outputs, -1).permute(3, 2, 0, 1)
        return self.matrix.view(self.outputs, *self.side, -1).permute(0, 3, 1, 2)
