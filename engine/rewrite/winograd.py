"""3x3 convolutions by Winograd's minimal filtering, also of a map that nearest x2 has doubled, on CPUs.

For each 2x2 pixels of the result y = A' [(G g G') * (B' d B)] A (`winograd_conv` has the formulas). The kernel's side
G g G' is computed here, once.

Saves 2.25x of the multiplications, and 4x of those behind nearest x2, where the four phases save 2.25x: 36 become 9.

Exact for zero and replicate padding by one cell, and unpadded, on maps of any size; under a code, whose vectors have
nine places, on maps of 2 pixels a side or more, and the kernel refuses narrower ones. `winograd_conv` says how large
its errors are. Vectors by place (`constant_channels`) are added before the result is rounded.

Loses where there are few outputs, as they are made 32 at a time, and where the processor has no wide vectors. There is
no form for GPUs, whose direct convolutions run on matrix units. Source: Winograd 1980; Lavin & Gray 2016.
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
    """Rewrite a 3x3 convolution, with the doubling and cutting of the map in front of it.

    Args:
        conv: 3x3, padded by one cell of zeros or by repeating the border, or not at all; it is not changed.
        upsample: the map is doubled in front of it, nearest.
        spare: cells of the doubled map that are cut off every side in front of an unpadded convolution.
        code: length of a code, the same at every pixel, that comes before the real channels.
    Returns:
        A module that takes the map [N, C, H, W] and, if there is one, the code [N, code].
    Raises:
        ShapeError: the layer is no such convolution.
    """
    trained = read_conv(conv, sides=(3,))
    if trained.padding and trained.mode not in ("zeros", "replicate"):
        raise ShapeError(f"The convolution's padding is {trained.mode}; it must be zeros, replicate or none.")
    if spare and trained.padding:
        raise ShapeError(f"{spare} spare cells go with an unpadded convolution; this one is padded by {trained.mode}.")
    if code and not (trained.padding and trained.mode == "zeros"):
        raise ShapeError("A code's vectors by place are for a convolution padded by zeros; this one is not.")
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
    """The transformed weights, and the bias or the vectors that are added to the result; made by `winograd`."""

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
        """Convolve [N, C, H, W], under codes [N, code] where the layer has one, channels-last."""
        bias = self.bias
        if self.constant is not None:
            assert code is not None
            tile = code.to(self.constant.weight.dtype)[:, :, None, None].expand(-1, -1, 3, 3)
            bias = self.constant(tile)  # [N, K, 3, 3]: vectors by place
        return winograd_conv(x, self.matrices, self.outputs, bias, padding=self.padding, crop=self.crop)
