"""Runs 3x3 convolutions on CPUs with Winograd's minimal filtering, also on a map that nearest x2 has doubled.

For each 2x2 pixels of the result y = A' [(G g G') * (B' d B)] A (`winograd_conv` has the formulas). The factor of the
kernel, G g G', is computed here, once.

This saves 2.25x of the multiplications. After nearest x2 it saves 4x (36 become 9), and the four phases save 2.25x.

It is exact for zero and replicate padding by one cell, and unpadded, on maps of any size. A convolution with a code
needs maps of at least 2 pixels a side, because the code's vectors have nine places; the kernel refuses narrower maps.
`winograd_conv` tells the size of the rounding errors. The code's vectors (`constant_channels`) are added before the
result is rounded.

It loses with few outputs, which are made 32 at a time, and on processors without wide vectors. There is no form for
GPUs, whose direct convolutions run on matrix units. Source: Winograd 1980; Lavin & Gray 2016.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from zellige.errors import ShapeError

from ...kernels import winograd_conv, winograd_weight
from .constant_channels import constant_channels
from .convolution import read_conv

__all__ = ["WinogradConv", "winograd"]


@torch.no_grad()
def winograd(conv: nn.Conv2d, *, upsample: bool = False, spare: int = 0, code: int = 0) -> "WinogradConv":
    """Rewrite a 3x3 convolution together with the doubling and cutting of the map before it.

    Args:
        conv: a 3x3 convolution, padded with one cell of zeros or of the repeated border, or unpadded; it is not
            changed.
        upsample: whether nearest x2 doubles the map before the convolution.
        spare: cells that are cut off every side of the doubled map before an unpadded convolution.
        code: length of a code, the same at every pixel, whose channels come before the real ones; 0 for none.
    Returns:
        A module that takes the map [N, C, H, W] and, if the layer has one, the code [N, code].
    Raises:
        ShapeError: the layer is no such convolution.
    """
    trained = read_conv(conv, sides=(3,))
    if trained.padding and trained.mode not in ("zeros", "replicate"):
        raise ShapeError(f"The convolution's padding is {trained.mode}; it must be zeros, replicate or none.")
    if spare and trained.padding:
        raise ShapeError(f"{spare} spare cells go with an unpadded convolution; this one is padded by {trained.mode}.")
    if code and not (trained.padding and trained.mode == "zeros"):
        raise ShapeError("A code needs a convolution that is padded with zeros; this one is not.")
    constant = constant_channels(conv, code) if code else None
    layer, bias = (trained.layer, trained.layer.bias) if constant is None else (constant.real, None)
    return WinogradConv(
        winograd_weight(layer.weight, upsample=upsample),
        layer.out_channels,
        None if bias is None else bias.detach(),
        None if constant is None else constant.constant,
        trained.mode,
        0 if trained.padding else 1 + spare,
    )


class WinogradConv(nn.Module):
    """The transformed weights, with the bias or the code's vectors to add to the result; `winograd` makes it."""

    matrices: Tensor
    bias: Tensor | None

    def __init__(
        self, matrices: Tensor, outputs: int, bias: Tensor | None, constant: nn.Conv2d | None, mode: str, crop: int
    ) -> None:
        super().__init__()
        self.register_buffer("matrices", matrices)
        self.register_buffer("bias", bias)
        self.outputs, self.constant, self.crop = outputs, constant, crop
        self.padding: Literal["zeros", "replicate"] = "replicate" if mode == "replicate" else "zeros"
        self.eval()

    def forward(self, x: Tensor, code: Tensor | None = None) -> Tensor:
        """Convolve [N, C, H, W], with codes [N, code] if the layer has one; the result is channels-last."""
        bias = self.bias
        if self.constant is not None:
            assert code is not None
            tile = code.to(self.constant.weight.dtype)[:, :, None, None].expand(-1, -1, 3, 3)
            bias = self.constant(tile)  # [N, K, 3, 3]: a vector for each place
        return winograd_conv(x, self.matrices, self.outputs, bias, padding=self.padding, crop=self.crop)
