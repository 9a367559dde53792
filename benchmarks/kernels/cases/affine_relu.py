"""Cases of affine_relu: conditional norms of many small micro patches, and of strips whose condition varies."""

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
    """Yield small patches, maps of 16 MiB and more in both memory orders, and strips with factors of many places."""
    shapes = [
        ((64, 256, 8, 8), "", _PIXEL), ((64, 64, 32, 32), "to x2", _PIXEL),
        ((8, 64, 128, 128), "", _PLANE), ((8, 64, 128, 128), "", _PIXEL),
        ((1, 64, 132, 516), "factors of columns", _PIXEL), ((1, 48, 260, 260), "factors of pixels", _PIXEL),
    ]  # fmt: skip
    for shape, form, order in shapes:
        n, c, _, w = shape
        sizes = {"factors of columns": (n, c, 1, w), "factors of pixels": shape}

        def inputs(
            shape: tuple[int, ...] = shape,
            order: torch.memory_format = order,
            varying: tuple[int, ...] | None = sizes.get(form),
        ) -> Any:
            if varying:
                factors = [random_map(varying, torch.float32, device, order) for _ in range(2)]
            else:
                factors = [torch.randn(shape[:2], device=device) for _ in range(2)]
            return random_map(shape, dtype, device, order), *factors

        def kernel(x: Tensor, scale: Tensor, shift: Tensor, twice: bool = form == "to x2") -> Tensor:
            return affine_relu(x, scale, shift, twice)

        def eager(x: Tensor, scale: Tensor, shift: Tensor, twice: bool = form == "to x2") -> Tensor:
            y = _affine_relu(x, scale, shift)
            return F.interpolate(y, scale_factor=2.0) if twice else y

        size = torch.Size(shape).numel() * dtype.itemsize
        result = size * (4 if form == "to x2" else 1)
        both = 2 * torch.Size(sizes[form]).numel() * 4 if form in sizes else 0  # factors [N, C] are next to nothing
        yield Case(
            "affine_relu", shape_name(shape, order, form), inputs, kernel, eager, size + result + both,
            tolerance_of(dtype), training_bytes=3 * size + 2 * result + 3 * both, by_pixel=order == _PIXEL,
        )  # fmt: skip


def _affine_relu(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    scale, shift = ((t[:, :, None, None] if t.dim() == 2 else t).to(x.dtype) for t in (scale, shift))
    return F.relu(x * scale + shift)
