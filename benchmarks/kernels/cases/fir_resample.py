"""Cases of fir_resample: StyleGAN2's up- and down-sampling, at the sizes of its 256x256 generator."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ....kernels import fir_resample
from .case import ORDERS, Case, random_map, shape_name, tolerance_of

__all__ = ["cases"]

_PLANE, _PIXEL = ORDERS


def cases(dtype: torch.dtype, device: torch.device) -> Iterator[Case]:
    """Yield the skip of RGB images, and features of 16 MiB and more: up by pixel and down by plane."""
    shapes = [
        ((4, 3, 128, 128), True, _PLANE), ((1, 128, 128, 128), True, _PIXEL), ((2, 64, 256, 256), False, _PLANE),
    ]  # fmt: skip
    for shape, up, order in shapes:

        def inputs(shape: tuple[int, ...] = shape, order: torch.memory_format = order) -> Any:
            return (random_map(shape, dtype, device, order),)

        def kernel(x: Tensor, up: bool = up) -> Tensor:
            return fir_resample(x, up)

        size = torch.Size(shape).numel() * dtype.itemsize
        result = 4 * size if up else size // 4
        yield Case(
            "fir_resample", shape_name(shape, order, "up" if up else "down"), inputs, kernel,
            _Convolution(shape[1], up).to(device), size + result, tolerance_of(dtype),
            training_bytes=2 * (size + result), by_pixel=order == _PIXEL,
        )  # fmt: skip


class _Convolution(nn.Module):
    """The filter as a convolution of every channel by itself, as in upfirdn2d without its extension."""

    def __init__(self, channels: int, up: bool) -> None:
        super().__init__()
        self.channels, self.up = channels, up
        line = torch.tensor([1.0, 3.0, 3.0, 1.0]) / (4 if up else 8)
        self.register_buffer("weight", (line[:, None] * line).expand(channels, 1, 4, 4).contiguous())

    def forward(self, x: Tensor) -> Tensor:
        function = F.conv_transpose2d if self.up else F.conv2d
        return function(x, self.get_buffer("weight").to(x.dtype), stride=2, padding=1, groups=self.channels)
