"""Cases of affine_relu: conditional norms of many small micro patches."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ....kernels import affine_relu
from .case import Case, random_map, shape_name, tolerance_of

__all__ = ["cases"]

_PLANE, _PIXEL = torch.contiguous_format, torch.channels_last


def cases(dtype: torch.dtype, device: torch.device) -> Iterator[Case]:
    """Yield small patches, and maps of 16 MiB and more in both memory orders."""
    shapes = [
        ((64, 256, 8, 8), False, _PIXEL), ((64, 64, 32, 32), True, _PIXEL),
        ((8, 64, 128, 128), False, _PLANE), ((8, 64, 128, 128), False, _PIXEL),
    ]  # fmt: skip
    for shape, upsample, order in shapes:

        def inputs(shape: tuple[int, ...] = shape, order: torch.memory_format = order) -> Any:
            factors = (torch.randn(shape[:2], device=device) for _ in range(2))
            return random_map(shape, dtype, device, order), *factors

        def kernel(x: Tensor, scale: Tensor, shift: Tensor, twice: bool = upsample) -> Tensor:
            return affine_relu(x, scale, shift, twice)

        def eager(x: Tensor, scale: Tensor, shift: Tensor, twice: bool = upsample) -> Tensor:
            y = _affine_relu(x, scale, shift)
            return F.interpolate(y, scale_factor=2.0) if twice else y

        size = torch.Size(shape).numel() * dtype.itemsize
        result = size * (4 if upsample else 1)
        yield Case(
            "affine_relu", shape_name(shape, order, "to x2" if upsample else ""), inputs, kernel, eager,
            size + result, tolerance_of(dtype), training_bytes=3 * size + 2 * result, by_pixel=order == _PIXEL,
        )  # fmt: skip


def _affine_relu(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    scale, shift = (t[:, :, None, None].to(x.dtype) for t in (scale, shift))
    return F.relu(x * scale + shift)
