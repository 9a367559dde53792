"""Convolves constant channels (class codes, coordinates) beside real ones without making the constant maps.

A convolution is a sum over its input channels, conv([v, x]) = conv_v(v 1) + conv_x(x). The first term differs between
pixels only through the part of the kernel that lies beyond the border. Under zero padding an RxR kernel has R x R such
vectors, nine for 3x3: {top, middle, bottom} x {left, middle, right}. One convolution of the constants on an RxR map
makes them all.

With c constants beside C real channels, this saves c / (c + C) of the multiplications (3x for 128 beside 64), and the
writing and reading of the constants' maps. The constants still take K c R^2 multiplications for each of at most R^2
vectors of a sample, whatever the size of the map.

It is exact for zero padding on maps of any size. A map narrower than R has no middle, so the constants are convolved
on a map of that narrow size. One bias for all pixels would be wrong at the border. For replicate, reflect and circular
padding, and unpadded, one vector is right for all pixels, because the constants go on beyond the border. In bfloat16
and float16 both terms are rounded before they are added, which gave up to 2.3 times eager's error; a kernel that adds
the vectors in float32 avoids that.

It loses if c is small beside C, because adding the vectors is a pass over the result. It never loses if the next kernel
takes the vectors as its bias.
"""

import torch
from torch import Tensor, nn

from zellige.errors import ShapeError

from ...kernels.op.layout import is_channels_last
from .convolution import Convolution, bordered, conv2d, read_conv

__all__ = ["ConstantChannelsConv", "constant_channels"]


@torch.no_grad()
def constant_channels(conv: nn.Conv2d, constants: int, *, first: bool = True) -> "ConstantChannelsConv":
    """Rewrite a convolution some of whose input channels are constant over the map.

    Args:
        conv: a convolution over c + C channels with an odd square kernel, padded by half of the kernel in any mode, or
            unpadded; it is not changed.
        constants: c, the number of constant channels.
        first: whether the constant channels come before the real ones.
    Returns:
        A module that takes the real channels [N, C, H, W] and the constants [N, c].
    Raises:
        ShapeError: the layer is no such convolution, or has c channels or fewer.
    """
    trained = read_conv(conv)
    channels = trained.weight.shape[1]
    if not 0 < constants < channels:
        raise ShapeError(f"{constants} of {channels} channels are constant; it must be 1 to {channels - 1}.")
    return ConstantChannelsConv(trained, constants, first)


class ConstantChannelsConv(nn.Module):
    """One convolution of the real channels and one of the constants; `constant_channels` makes it."""

    def __init__(self, trained: Convolution, constants: int, first: bool) -> None:
        super().__init__()
        self.side, self.cells, self.mode = trained.weight.shape[-1], trained.padding, trained.mode
        start, stop = (0, constants) if first else (trained.weight.shape[1] - constants, trained.weight.shape[1])
        weight = trained.weight[:, start:stop]
        self.bordered = self.cells > 0 and self.mode == "zeros"
        padding = self.cells if self.bordered else 0
        if not self.bordered:
            weight = weight.sum((2, 3), keepdim=True)
        # Float32 or wider, because a fused kernel adds the vectors before it rounds.
        wide = torch.promote_types(trained.layer.weight.dtype, torch.float32)
        self.constant = conv2d(weight, trained.bias, padding, trained.layer, wide)
        weight = torch.cat([trained.weight[:, :start], trained.weight[:, stop:]], dim=1)
        self.real = conv2d(weight, None, padding, trained.layer)
        self.eval()

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        """Convolve real channels [N, C, H, W] and constants [N, c] to [N, K, H, W]; unpadded, the border is missing."""
        y: Tensor = self.real(x if self.bordered or not self.cells else bordered(x, self.cells, self.mode))
        if not self.bordered:
            return y + self._vectors(code, 1, 1).to(y.dtype)
        height, width = x.shape[2:]
        # Cast before it is added, because torch's sums of two dtypes take 20 to 50 times as long on a CPU.
        bias = self._vectors(code, min(height, self.side), min(width, self.side)).to(y.dtype)
        layout = torch.channels_last if is_channels_last(y) else torch.contiguous_format
        rows = bias.index_select(3, self._places(width, x.device)).contiguous(memory_format=layout)  # [N, K, R, W]
        if torch.compiler.is_compiling():  # compiled code fuses the gathering, and handles writes into slices badly
            return y + rows.index_select(2, self._places(height, x.device))
        edge = [1] * self.cells
        heights = [*edge, height - 2 * self.cells, *edge] if height >= self.side else [1] * height
        for part, row in zip(y.split(heights, dim=2), rows.split(1, dim=2), strict=True):
            part += row  # one pass over y; adding a whole map of biases takes 2.5 times as long on a CPU
        return y

    def border_bias(self, code: Tensor) -> Tensor:
        """The vectors that constants [N, c] and the bias add to a pixel, [N, K, R, R], one for each place of the pixel.

        They hold for maps of side R or more, in float32, or in float64 for a float64 layer. For 3x3 the places are
        {top, middle, bottom} x {left, middle, right}. All vectors are equal unless the padding is zeros.
        """
        vectors = self._vectors(code, self.side, self.side)
        return vectors if self.bordered else vectors.expand(-1, -1, self.side, self.side)

    def _vectors(self, code: Tensor, height: int, width: int) -> Tensor:
        """The constants convolved on a map of this size; [N, K, 1, 1] if the border makes no difference."""
        code = code.to(self.constant.weight.dtype)[:, :, None, None]
        y: Tensor = self.constant(code.expand(-1, -1, height, width) if self.bordered else code)
        return y

    def _places(self, side: int, device: torch.device) -> Tensor:
        """The row (or column) of the constants' map that sees as much of the border, for each row of a real map."""
        place = torch.arange(side, device=device)
        return place - (place - self.cells).clamp(0, max(side - self.side, 0))
