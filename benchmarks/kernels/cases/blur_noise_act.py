"""Cases of blur_noise_act: what follows the up-convolutions of StyleGAN2's 256x256 generator of half width."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ....kernels import blur_noise_act
from .case import ORDERS, Case, random_map, shape_name, tolerance_of

__all__ = ["cases"]

_PLANE, _PIXEL = ORDERS


def cases(dtype: torch.dtype, device: torch.device) -> Iterator[Case]:
    """Yield the layers of 64 and 256 pixels a side, for CPUs, which alone have a kernel; maps by plane are copied."""
    if device.type != "cpu":
        return
    for samples, channels, side, order in (
        (1, 256, 64, _PLANE),
        (1, 256, 64, _PIXEL),
        (2, 64, 256, _PLANE),
        (2, 64, 256, _PIXEL),
    ):
        shape = (samples, channels, side + 1, side + 1)

        def inputs(shape: tuple[int, ...] = shape, order: torch.memory_format = order) -> Any:
            n, c, h, w = shape
            x = random_map(shape, dtype, device, order)
            return x, *(torch.randn(size, device=device) for size in ([c], [n, c], [n, 1, h - 1, w - 1], [1]))

        def call(x: Tensor, bias: Tensor, factor: Tensor, noise: Tensor, strength: Tensor) -> Tensor:
            return blur_noise_act(x, bias, noise, strength, factor=factor)

        def eager(x: Tensor, bias: Tensor, factor: Tensor, noise: Tensor, strength: Tensor) -> Tensor:
            bias, factor, noise, strength = (t.to(x.dtype) for t in (bias, factor, noise, strength))
            taps = torch.tensor([1.0, 3.0, 3.0, 1.0], device=x.device, dtype=x.dtype) / 4
            filters = torch.outer(taps, taps).expand(x.shape[1], 1, 4, 4)
            y = F.conv2d(x, filters, padding=1, groups=x.shape[1]) * factor[:, :, None, None]
            return F.leaky_relu(y + noise * strength + bias[:, None, None], 0.2) * 2**0.5

        size = samples * (channels * (side**2 + (side + 1) ** 2) * dtype.itemsize + 4 * side**2)
        yield Case(
            "blur_noise_act", shape_name(shape, order), inputs, call, eager, size, tolerance_of(dtype),
            by_pixel=order == _PIXEL,
        )  # fmt: skip
