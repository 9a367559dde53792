"""Cases of winograd_conv: 3x3 convolutions of a 128x128 generator, and 4x4 ones of stride 2."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ....kernels import winograd_conv, winograd_weight
from .case import ORDERS, Case, random_map, shape_name, tolerance_of

__all__ = ["cases"]

_PLANE, _PIXEL = ORDERS


@dataclass(frozen=True)
class _Form:
    """What is convolved.

    Attributes:
        note: in a shape's name.
        kernel: a side of the kernel.
        scale: a side of the result over that of the map.
        made: pixels a side that a tile makes.
        products: multiplications of a tile for an input and an output.
        options: of winograd_weight.
    """

    note: str
    kernel: int
    scale: float
    made: int
    products: int
    options: dict[str, Any]

    @property
    def transposed(self) -> bool:
        return "transposed" in self.options

    def operations(self, side: int) -> int:
        """Multiplications and additions of the tiles of one map, for an input and an output."""
        # A transposed kernel's tiles begin one pixel before the result.
        result = int(side * self.scale) + (2 if self.transposed else 0)
        return 2 * self.products * (-(-result // self.made)) ** 2


_SAME = _Form("", 3, 1, 2, 16, {})
_UPSAMPLED = _Form(" x2", 3, 2, 2, 9, {"upsample": True})
# Tiles of 3 cells: sums of 4 groups of inputs, or for 4 groups of outputs, which are 6 pixels a side.
_HALVED = _Form(" /2", 4, 0.5, 3, 64, {})
_DOUBLED = _Form(" transposed", 4, 2, 6, 64, {"transposed": True})
_SHAPES = (
    (64, 128, 128, _SAME),
    (32, 64, 128, _SAME),
    (64, 128, 64, _UPSAMPLED),
    (256, 256, 16, _UPSAMPLED),
    (128, 256, 64, _HALVED),
    (384, 64, 64, _DOUBLED),
)


def cases(dtype: torch.dtype, device: torch.device) -> Iterator[Case]:
    """Yield 3x3 convolutions, alone and behind nearest x2, and 4x4 ones of stride 2, at batch 1 and 8; for CPUs.

    Operations are those of the tiles, 2.25 times fewer than the direct sum's, or 4 times behind x2. So a peer that sums
    directly can reach 44 or 25 % of this limit, and 47 % with the 4x4 kernels, whose last tiles reach over the border.
    Other runtimes know only maps by plane, which the kernel copies into channels-last, the order of its result. Weights
    are constants, and may stay in a cache.
    """
    if device.type != "cpu":
        return
    for order in (_PIXEL, _PLANE):
        for n, (channels, outputs, side, form) in product((1, 8), _SHAPES):
            sizes = (channels, outputs) if form.transposed else (outputs, channels)
            products = form.kernel**2 / (4 if form.transposed else 1)
            weight = (torch.randn(*sizes, form.kernel, form.kernel) / (products * channels) ** 0.5).to(dtype)
            matrices = winograd_weight(weight, **form.options)

            def inputs(shape: tuple[int, ...] = (n, channels, side, side), order: torch.memory_format = order) -> Any:
                return (random_map(shape, dtype, device, order),)

            def kernel(x: Tensor, matrices: Tensor = matrices, outputs: int = outputs) -> Tensor:
                return winograd_conv(x, matrices, outputs)

            values = n * (side**2 * channels + int(side * form.scale) ** 2 * outputs)
            yield Case(
                "winograd_conv", shape_name((n, channels, side, side), order, f"to {outputs}{form.note}"), inputs,
                kernel, _Convolution(weight.contiguous(memory_format=order), form), values * dtype.itemsize,
                tolerance_of(dtype), operations=n * form.operations(side) * channels * outputs,
                by_pixel=order == _PIXEL,
            )  # fmt: skip


class _Convolution(nn.Module):
    """The convolution as a direct sum, with its weights as constants."""

    weight: Tensor

    def __init__(self, weight: Tensor, form: _Form) -> None:
        super().__init__()
        self.form = form
        self.register_buffer("weight", weight)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.to(x.dtype)
        if self.form is _DOUBLED:
            return F.conv_transpose2d(x, weight, stride=2, padding=1)
        x = F.interpolate(x, scale_factor=2.0) if self.form is _UPSAMPLED else x
        return F.conv2d(x, weight, stride=2 if self.form is _HALVED else 1, padding=1)
