"""Cases of phase_epilogue: the phases of up-convolutions, interleaved and activated."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ....kernels import phase_epilogue
from .case import Case, random_map, shape_name, tolerance_of

__all__ = ["cases"]

_PLANE, _PIXEL = torch.contiguous_format, torch.channels_last


def cases(dtype: torch.dtype, device: torch.device) -> Iterator[Case]:
    """Yield the phases of COCO-GAN's up-convolutions and of OneGAN's last one, for both activations."""
    shapes = [
        ("affine_relu", (64, 256, 16, 16), _PIXEL), ("affine_relu", (8, 256, 64, 64), _PLANE),
        ("glu_layer_norm", (8, 512, 64, 64), _PIXEL), ("glu_layer_norm", (8, 512, 64, 64), _PLANE),
    ]  # fmt: skip
    for activation, shape, order in shapes:

        def inputs(gated: bool = activation == "glu_layer_norm", shape: Any = shape, order: Any = order) -> Any:
            sizes = (shape[1] // 8,) if gated else (shape[0], shape[1] // 4)
            return random_map(shape, dtype, device, order), *(torch.randn(sizes, device=device) for _ in range(2))

        def kernel(x: Tensor, weight: Tensor, bias: Tensor, activation: Any = activation) -> Tensor:
            return phase_epilogue(x, weight, bias, activation)

        def eager(x: Tensor, weight: Tensor, bias: Tensor, activation: str = activation, order: Any = order) -> Tensor:
            n, channels, h, w = x.shape
            if order == _PIXEL:  # eager keeps the memory order, as the kernel does
                phases = x.permute(0, 2, 3, 1).reshape(n, h, w, 2, 2, channels // 4).transpose(2, 3)
                whole = phases.reshape(n, 2 * h, 2 * w, channels // 4).permute(0, 3, 1, 2)
            else:
                phases = x.reshape(n, 2, 2, channels // 4, h, w).permute(0, 3, 4, 1, 5, 2)
                whole = phases.reshape(n, channels // 4, 2 * h, 2 * w)
            if activation == "affine_relu":
                return _affine_relu(whole, weight, bias)
            values, gate = whole.chunk(2, dim=1)
            return F.group_norm(values, 1, weight.to(x.dtype), bias.to(x.dtype)) * torch.sigmoid(gate)

        size = torch.Size(shape).numel() * dtype.itemsize
        yield Case(
            "phase_epilogue", shape_name(shape, order, activation), inputs, kernel, eager,
            size + (size // 2 if activation == "glu_layer_norm" else size), tolerance_of(dtype),
            by_pixel=order == _PIXEL,
        )  # fmt: skip


def _affine_relu(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    scale, shift = (t[:, :, None, None].to(x.dtype) for t in (scale, shift))
    return F.relu(x * scale + shift)
