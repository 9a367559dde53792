"""Convolutions of generators, each in one layer with the step before it (padding, doubling, a code).

Because both are one layer, a rewrite can replace them together. Each layer has the weights of an nn.Conv2d under the
same names, and its forms in `engine.rewrite` take the same arguments.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["CodedConv", "JoinedConvTranspose2d", "PaddedConv", "Padding", "UpConv", "trim"]

Padding = Literal["zeros", "replicate", "none"]


class PaddedConv(nn.Conv2d):
    """3x3 convolution, padded with zeros or the repeated border; without padding it takes a cell off every side."""

    def __init__(self, inputs: int, outputs: int, padding: Padding, *, bias: bool = True) -> None:
        super().__init__(inputs, outputs, 3, padding=1 if padding == "zeros" else 0, bias=bias)
        self.replicate = padding == "replicate"

    def forward(self, x: Tensor) -> Tensor:
        """Convolve [N, C, H, W] to [N, C', H, W], or [N, C', H - 2, W - 2] unpadded."""
        if self.replicate:
            # Autocast would widen the map to float32 here, which takes a quarter of a training step's time on a CPU.
            with torch.autocast(x.device.type, enabled=False):
                x = F.pad(x, (1, 1, 1, 1), mode="replicate")
        return super().forward(x)


class UpConv(PaddedConv):
    """Doubles the sides of a map, cuts `spare` cells off every side, then convolves it."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        padding: Padding,
        *,
        bias: bool = True,
        mode: Literal["nearest", "bilinear"] = "nearest",
        spare: int = 0,
    ) -> None:
        super().__init__(inputs, outputs, padding, bias=bias)
        self.mode, self.spare = mode, spare

    def forward(self, x: Tensor) -> Tensor:
        """Convolve [N, C, H, W] to [N, C', 2H - 2 spare, 2W - 2 spare]; unpadded, each side is 2 shorter."""
        return super().forward(trim(F.interpolate(x, scale_factor=2.0, mode=self.mode), self.spare))


class JoinedConvTranspose2d(nn.ConvTranspose2d):
    """A transposed convolution of one map or more, which are joined along their channels.

    Args:
        parts: channels of each map.
        outputs: channels of the result.
        kernel, stride, padding, output_padding, bias: as of nn.ConvTranspose2d, the same along both axes.
    """

    def __init__(
        self, parts: Sequence[int], outputs: int, kernel: int, stride: int, padding: int, output_padding: int = 0, *,
        bias: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(sum(parts), outputs, kernel, stride, padding, output_padding, bias=bias)
        self.parts = tuple(parts)

    def forward(self, *maps: Tensor) -> Tensor:  # type: ignore[override]
        """Convolve maps [N, C, H, W] of one size."""
        return super().forward(torch.cat(maps, dim=1) if len(maps) > 1 else maps[0])


class CodedConv(PaddedConv):
    """A convolution whose first input channels are a code, the same at every pixel, and the others a map."""

    def __init__(self, code: int, inputs: int, outputs: int, *, bias: bool = True) -> None:
        super().__init__(code + inputs, outputs, "zeros", bias=bias)
        self.code = code

    def forward(self, x: Tensor, code: Tensor) -> Tensor:  # type: ignore[override]
        """Convolve [N, C, H, W] under codes [N, code] to [N, C', H, W]."""
        tiles = code.to(x.dtype)[:, :, None, None].expand(-1, -1, *x.shape[2:])
        # A concatenation is channels-last only if all of its parts are.
        parts = [t.contiguous(memory_format=torch.channels_last) for t in (tiles, x)]
        return super().forward(torch.cat(parts, dim=1))


def trim(x: Tensor, cells: int) -> Tensor:
    """Cut `cells` rows and columns off every side of a map."""
    return x[:, :, cells : x.shape[2] - cells, cells : x.shape[3] - cells] if cells else x
