"""Runs convolutions on CPUs with Winograd's minimal filtering: 3x3, also behind nearest x2, and 4x4 of stride 2.

For each tile of the result y = A' [(G g G') * (B' d B)] A (`winograd_conv` has the formulas). The factor of the kernel,
G g G', is computed here, once. Convolutions of stride 2 may be transposed.

Tiles of 2x2 pixels of a 3x3 kernel save 2.25x of the multiplications. After nearest x2 they save 4x (36 become 9), and
the four phases save 2.25x. A 4x4 kernel of stride 2 is four 2x2 kernels, whose tiles of 3x3 cells save 2.25x and those
of 2x2 cells 1.78x. Tiles of one cell save none, but they read the fewest weights, which small maps wait for.

It is exact for zero and replicate padding by one cell, and unpadded, on maps of any size; 4x4 kernels have zero padding
by one cell. A convolution with a code needs maps of at least 2 pixels a side, because the code's vectors have nine
places; the kernel refuses narrower maps. `winograd_conv` tells the size of the rounding errors. The code's vectors
(`constant_channels`) are added before the result is rounded.

Transformed 3x3 kernels take 16/9 of the memory of their weights, and as much as these after nearest x2. 4x4 ones take 4
times the memory in tiles of 3x3 cells, 9/4 in tiles of 2x2, and as much as their weights in tiles of one. It loses with
few outputs, which are made 32 at a time, and on processors without wide vectors. There is no form for GPUs, whose
direct convolutions run on matrix units.

On two Zen 5 cores oneDNN's convolutions of stride 2 took 1.1 to 22 times as long as the best of the three tiles, and
its transposed ones 1.2 to 3.5 times, from 64 to 1536 channels on maps of 4 to 128 pixels a side, at batch 1 and 8, in
float32 and bfloat16. The gain is largest for wide layers on small maps, because oneDNN reorders their weights in every
call.
Source: Winograd 1980; Lavin & Gray 2016.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from zellige.errors import ShapeError

from ...kernels import winograd_conv, winograd_weight
from ..layers.convolutions import JoinedConvTranspose2d
from ..layers.modulated import SpreadConv, StyleConv
from .constant_channels import constant_channels
from .convolution import read_conv, require_plain
from .fold_weight import fold_weight
from .up_conv import doubles

__all__ = [
    "JoinedWinogradConv", "StyledWinogradConv", "WinogradConv", "halves", "strided_winograd", "styled_winograd",
    "take_in_activations", "winograd",
]  # fmt: skip


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


@torch.no_grad()
def strided_winograd(layer: nn.Conv2d | nn.ConvTranspose2d, cells: Literal[1, 2, 3] = 3) -> "WinogradConv":
    """Rewrite a convolution that halves the sides of a map, or a transposed one that doubles them.

    Args:
        layer: 4x4, stride 2, padded by one cell of zeros, in one group; it is not changed.
        cells: a side of a tile; with fewer the weights take less memory and the tiles more multiplications.
    Raises:
        ShapeError: the layer is another one.
    """
    require_plain(layer, nn.Conv2d, nn.ConvTranspose2d)
    if not (doubles(layer) if isinstance(layer, nn.ConvTranspose2d) else halves(layer)):
        raise ShapeError(f"The layer is {layer}; it must be 4x4, of stride 2 and padding 1, in one group.")
    trained = fold_weight(layer)
    matrices = winograd_weight(trained.weight, transposed=isinstance(layer, nn.ConvTranspose2d), cells=cells)
    bias = None if trained.bias is None else trained.bias.detach()
    kind = JoinedWinogradConv if isinstance(layer, JoinedConvTranspose2d) else WinogradConv
    return kind(matrices, trained.out_channels, bias, None, "zeros", 0)


@torch.no_grad()
def styled_winograd(layer: StyleConv | SpreadConv, cells: Literal[1, 2, 4] = 2) -> "StyledWinogradConv":
    """Rewrite a convolution of StyleGAN2, which scales its input by a style; it is not changed.

    Args:
        layer: 3x3, zero-padded by one cell, or transposed of stride 2.
        cells: a side of a tile; 2, 4 if it is not transposed, or 1 if it is.
    """
    matrices = winograd_weight(layer.weight.detach(), transposed=isinstance(layer, SpreadConv), cells=cells)
    return StyledWinogradConv(matrices, layer.out_channels, None, None, "zeros", 0)


def take_in_activations(network: nn.Module) -> None:
    """Let the kernel compute each ReLU that follows it in an `nn.Sequential`, where nothing else can take its result.

    This saves a pass over the map. It is exact, except that the result is rounded once and not twice.

    Args:
        network: in evaluation; it is changed, and the activation leaves the sequence.
    """
    for part in network.modules():
        if type(part) is not nn.Sequential:
            continue
        steps: list[nn.Module] = []
        for step in part:
            before = steps[-1] if steps else None
            slope = _slope(step)
            if isinstance(before, WinogradConv) and before.slope == 1 and slope is not None:
                before.slope = slope
            else:
                steps.append(step)
        if len(steps) < len(part):
            del part[:]
            part.extend(steps)


def _slope(step: nn.Module) -> float | None:
    """By what numbers below 0 are multiplied; None if it is no activation that the kernel computes."""
    if type(step) is nn.ReLU:
        return 0.0
    return step.negative_slope if type(step) is nn.LeakyReLU and 0 <= step.negative_slope < 1 else None


def halves(layer: nn.Conv2d) -> bool:
    """Whether a convolution is one that `strided_winograd` takes."""
    shape = (layer.kernel_size, layer.stride, layer.padding, layer.dilation)
    return shape == ((4, 4), (2, 2), (1, 1), (1, 1)) and layer.groups == 1 and layer.padding_mode == "zeros"


class WinogradConv(nn.Module):
    """The transformed weights, with the bias or the code's vectors to add to the result.

    `winograd` and `strided_winograd` make it.
    """

    matrices: Tensor
    bias: Tensor | None

    def __init__(
        self, matrices: Tensor, outputs: int, bias: Tensor | None, constant: nn.Conv2d | None, mode: str, crop: int
    ) -> None:
        super().__init__()
        self.register_buffer("matrices", matrices)
        self.register_buffer("bias", bias)
        self.outputs, self.constant, self.crop = outputs, constant, crop
        self.slope = 1.0  # of an activation that was taken in
        self.padding: Literal["zeros", "replicate"] = "replicate" if mode == "replicate" else "zeros"
        self.eval()

    def forward(self, x: Tensor, code: Tensor | None = None) -> Tensor:
        """Convolve [N, C, H, W], with codes [N, code] if the layer has one; the result is channels-last."""
        bias = self.bias
        if self.constant is not None:
            assert code is not None
            tile = code.to(self.constant.weight.dtype)[:, :, None, None].expand(-1, -1, 3, 3)
            bias = self.constant(tile)  # [N, K, 3, 3]: a vector for each place
        return winograd_conv(
            x, self.matrices, self.outputs, bias, padding=self.padding, crop=self.crop, slope=self.slope
        )


class StyledWinogradConv(WinogradConv):
    """The same of style times map, with what follows it in StyleGAN2 if it is asked for."""

    def forward(self, x: Tensor, style: Tensor) -> Tensor:  # type: ignore[override]
        """Convolve [N, C, H, W] under styles [N, C]; the result is channels-last."""
        return winograd_conv(x, self.matrices, self.outputs, style=style)

    def finished(
        self, x: Tensor, style: Tensor, bias: Tensor, noise: Tensor, strength: Tensor, **last: Any
    ) -> Tensor:  # fmt: skip
        """Convolve, add the bias and the noise, and activate; further options are those of `winograd_conv`."""
        return winograd_conv(x, self.matrices, self.outputs, bias, style=style, noise=noise, strength=strength, **last)


class JoinedWinogradConv(WinogradConv):
    """The same of maps that are joined along their channels, which are read where they lie if the kernel can."""

    def forward(self, *maps: Tensor) -> Tensor:  # type: ignore[override]
        """Convolve maps [N, C, H, W] of one size; the result is channels-last."""
        return winograd_conv(maps, self.matrices, self.outputs, self.bias, slope=self.slope)
