"""Cases of winograd_conv: 3x3 convolutions of a 128x128 generator."""

from collections.abc import Iterator
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ....kernels import winograd_conv, winograd_weight
from .case import ORDERS, Case, random_map, shape_name, tolerance_of

__all__ = ["cases"]

_PLANE, _PIXEL = ORDERS


def cases(dtype: torch.dtype, device: torch.device) -> Iterator[Case]:
    """Yield convolutions of the 128x128 generator, alone and behind nearest x2, at batch 1 and 8; for CPUs.

    Operations are those of the tiles, 2.25 times fewer than the direct sum's, or 4 times behind x2. So a peer that sums
    directly can reach 44 or 25 % of this limit. Other runtimes know only maps by plane, which the kernel copies into
    channels-last, the order of its result. Weights are constants, and may stay in a cache.
    """
    if device.type != "cpu":
        return
    shapes = [(64, 128, 128, False), (32, 64, 128, False), (64, 128, 64, True), (256, 256, 16, True)]
    for order in (_PIXEL, _PLANE):
        for n, (channels, outputs, side, upsample) in product((1, 8), shapes):
            weight = (torch.randn(outputs, channels, 3, 3) / (9 * channels) ** 0.5).to(dtype)
            matrices = winograd_weight(weight, upsample=upsample)

            def inputs(shape: tuple[int, ...] = (n, channels, side, side), order: torch.memory_format = order) -> Any:
                return (random_map(shape, dtype, device, order),)

            def kernel(x: Tensor, matrices: Tensor = matrices, outputs: int = outputs) -> Tensor:
                return winograd_conv(x, matrices, outputs)

            pixels = n * side * side
            result = (4 if upsample else 1) * pixels * outputs
            note = f"to {outputs}{' x2' if upsample else ''}"
            yield Case(
                "winograd_conv", shape_name((n, channels, side, side), order, note), inputs, kernel,
                _Convolution(weight.contiguous(memory_format=order), upsample),
                (pixels * channels + result) * dtype.itemsize, tolerance_of(dtype),
                # With x2 a pixel of x takes 9 products, else 4 pixels take 16.
                operations=2 * (9 if upsample else 4) * pixels * channels * outputs, by_pixel=order == _PIXEL,
            )  # fmt: skip


class _Convolution(nn.Module):
    """The convolution as a direct sum, with its weights as constants."""

    weight: Tensor

    def __init__(self, weight: Tensor, upsample: bool) -> None:
        super().__init__()
        self.upsample = upsample
        self.register_buffer("weight", weight)

    def forward(self, x: Tensor) -> Tensor:
        x = F.interpolate(x, scale_factor=2.0) if self.upsample else x
        return F.conv2d(x, self.weight.to(x.dtype), padding=1)
