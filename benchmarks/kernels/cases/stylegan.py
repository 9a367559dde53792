"""StyleGAN2's layers around its convolutions, at the sizes of its 256x256 generator."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ....kernels import bias_noise_act, fir_resample
from .case import ORDERS, Case, random_map, shape_name, tolerance_of

__all__ = ["bias_noise_act_cases", "fir_resample_cases"]

_PLANE, _PIXEL = ORDERS


def bias_noise_act_cases(dtype: torch.dtype, device: torch.device) -> Iterator[Case]:
    """The layer of 64x64 features at batch 1, and maps of 16 MiB and more in both memory orders."""
    for shape, order in (((1, 512, 64, 64), _PLANE), ((2, 64, 256, 256), _PLANE), ((2, 64, 256, 256), _PIXEL)):

        def inputs(shape: tuple[int, ...] = shape, order: torch.memory_format = order) -> Any:
            n, c, h, w = shape
            bias, noise, strength = (torch.randn(size, device=device) for size in ([c], [n, 1, h, w], [1]))
            return random_map(shape, dtype, device, order), bias, noise, strength

        def eager(x: Tensor, bias: Tensor, noise: Tensor, strength: Tensor) -> Tensor:
            bias, noise, strength = (t.to(x.dtype) for t in (bias, noise, strength))
            return F.leaky_relu(x + noise * strength + bias[:, None, None], 0.2) * 2**0.5

        size = torch.Size(shape).numel() * dtype.itemsize
        noise_size = shape[0] * shape[2] * shape[3] * 4
        # Backward needs the signs alone, which take a bit each; they are not counted.
        yield Case(
            "bias_noise_act", shape_name(shape, order), inputs, bias_noise_act, eager, 2 * size + noise_size,
            tolerance_of(dtype), training_bytes=4 * size + 3 * noise_size, by_pixel=order == _PIXEL,
        )  # fmt: skip


def fir_resample_cases(dtype: torch.dtype, device: torch.device) -> Iterator[Case]:
    """The skip of RGB images, and features of 16 MiB and more up by pixel and down by plane."""
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
    """The filter as a convolution of every channel by itself, which is what upfirdn2d is without its extension."""

    def __init__(self, channels: int, up: bool) -> None:
        super().__init__()
        self.channels, self.up = channels, up
        line = torch.tensor([1.0, 3.0, 3.0, 1.0]) / (4 if up else 8)
        self.register_buffer("weight", (line[:, None] * line).expand(channels, 1, 4, 4).contiguous())

    def forward(self, x: Tensor) -> Tensor:
        function = F.conv_transpose2d if self.up else F.conv2d
        return function(x, self.get_buffer("weight").to(x.dtype), stride=2, padding=1, groups=self.channels)
