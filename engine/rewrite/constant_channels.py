"""A convolution of constant channels (class codes, coordinates) beside real ones, without the constant maps.

A convolution is a sum over its input channels, conv([v, x]) = conv_v(v 1) + conv_x(x), and the first term depends on a
pixel only by how much of the kernel is beyond the border. For an RxR kernel under zero padding these are R x R vectors,
nine for 3x3: top, middle, bottom by left, middle, right. One convolution of the constants on an RxR map has them all.

Saves c / (c + C) of the multiplications, c constants beside C real channels: 3x for 128 beside 64, and writing and
reading their maps. What is left of them is K c R^2 (R^2 taps at most) a sample, whatever the size of the map.

Exact for zero padding, on maps of any size: on one narrower than R the middle is missing, and the convolution of the
constants runs on that narrow map. One bias for all pixels would be wrong at the border. Under replicate, reflect and
circular padding and unpadded it is right, as beyond the border the constants are the same: then there is one vector.
In bfloat16 and float16 both terms are rounded before they are added: up to 2.3 times eager's error was seen. A kernel
that adds the vectors in float32 does not have it.

Loses where c is small beside C, as adding the vectors is a pass over the result, unless the next kernel takes them as
its bias.
"""

import torch
from torch import Tensor, nn

from zellige.errors import ShapeError

from ...kernels.op.layout import is_channels_last
from .convolution import Convolution, bordered, conv2d, read_conv

__all__ = ["ConstantChannelsConv", "constant_channels"]


@torch.no_grad()
def constant_channels(conv: nn.Conv2d, constants: int, *, first: bool = True) -> "ConstantChannelsConv":
    """Rewrite a convolution of which some input channels are constant over the map.

    Args:
        conv: of an odd square kernel over c + C channels, padded by half of it in any mode or not at all; it is not
            changed.
        constants: c, how many channels are constant.
        first: whether they come before the real channels, or after them.
    Returns:
        A module that takes the real channels [N, C, H, W] and the constants [N, c].
    Raises:
        ShapeError: the layer is no such convolution, or has not more than c channels.
    """
    trained = read_conv(conv)
    channels = trained.weight.shape[1]
    if not 0 < constants < channels:
        raise ShapeError(f"{constants} of {channels} channels are constant; it must be 1 to {channels - 1}.")
    return ConstantChannelsConv(trained, constants, first)


class ConstantChannelsConv(nn.Module):
    """Two convolutions, of the real channels and of the constants; made by `constant_channels`."""

    def __init__(self, trained: Convolution, constants: int, first: bool) -> None:
        super().__init__()
        self.side, self.cells, self.mode = trained.weight.shape[-1], trained.padding, trained.mode
        start, stop = (0, constants) if first else (trained.weight.shape[1] - constants, trained.weight.shape[1])
        weight = trained.weight[:, start:stop]
        self.bordered = self.cells > 0 and self.mode == "zeros"
        padding = self.cells if self.bordered else 0
        if not self.bordered:
            weight = weight.sum((2, 3), keepdim=True)
        # Float32 or wider, as a fused kernel adds the vectors before it rounds.
        wide = torch.promote_types(trained.layer.weight.dtype, torch.float32)
        self.constant = conv2d(weight, trained.bias, padding, trained.layer, wide)
        weight = torch.cat([trained.weight[:, :start], trained.weight[:, stop:]], dim=1)
        self.real = conv2d(weight, None, padding, trained.layer)
        self.eval()

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        """Convolve real channels [N, C, H, W] and constants [N, c] to [N, K, H, W], or without its border unpadded."""
        y: Tensor = self.real(x if self.bordered or not self.cells else bordered(x, self.cells, self.mode))
        if not self.bordered:
            return y + self._vectors(code, 1, 1).to(y.dtype)
        height, width = x.shape[2:]
        # Not added in float32: torch's sums of two dtypes take 20 to 50 times as long on a CPU.
        bias = self._vectors(code, min(height, self.side), min(width, self.side)).to(y.dtype)
        layout = torch.channels_last if is_channels_last(y) else torch.contiguous_format
        rows = bias.index_select(3, self._places(width, x.device)).contiguous(memory_format=layout)  # [N, K, R, W]
        if torch.compiler.is_compiling():  # a graph fuses the gathering, and has no good form for writing into slices
            return y + rows.index_select(2, self._places(height, x.device))
        edge = [1] * self.cells
        heights = [*edge, height - 2 * self.cells, *edge] if height >= self.side else [1] * height
        for part, row in zip(y.split(heights, dim=2), rows.split(1, dim=2), strict=True):
            part += row  # one pass over y, where adding a whole map of biases takes 2.5 times as long on a CPU
        return y

    def border_bias(self, code: Tensor) -> Tensor:
        """What constants [N, c] and the bias add to a pixel, [N, K, R, R] by its place on a map of side R or more.

        Float32, or float64 for such a layer. For 3x3: top, middle, bottom by left, middle, right. All are equal unless
        the padding is zeros.
        """
        vectors = self._vectors(code, self.side, self.side)
        return vectors if self.bordered else vectors.expand(-1, -1, self.side, self.side)

    def _vectors(self, code: Tensor, height: int, width: int) -> Tensor:
        """The constants convolved on a map of their own, or [N, K, 1, 1] where the border makes no difference."""
        code = code.to(self.constant.weight.dtype)[:, :, None, None]
        y: Tensor = self.constant(code.expand(-1, -1, height, width) if self.bordered else code)
        return y

    def _places(self, side: int, device: torch.device) -> Tensor:
        """For each row or column of a map the one of the constants' map that sees as much of the border."""
        place = torch.arange(side, device=device)
        return place - (place - self.cells).clamp(0, max(side - self.side, 0))
