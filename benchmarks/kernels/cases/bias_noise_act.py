"""Cases of bias_noise_act: StyleGAN2's layers behind its convolutions, at the sizes of its 256x256 generator."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ....kernels import bias_noise_act
from .case import ORDERS, Case, random_map, shape_name, tolerance_of

__all__ = ["cases"]

_PLANE, _PIXEL = ORDERS


def cases(dtype: torch.dtype, device: torch.device) -> Iterator[Case]:
    """Yield the layer of 64x64 features at batch 1, and maps of 16 MiB and more in both memory orders."""
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
        # Backward needs only the signs, which take a bit each and are not counted.
        yield Case(
            "bias_noise_act", shape_name(shape, order), inputs, bias_noise_act, eager, 2 * size + noise_size,
            tolerance_of(dtype), training_bytes=4 * size + 3 * noise_size, by_pixel=order == _PIXEL,
        )  # fmt: skip
