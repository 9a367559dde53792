"""COCO-GAN's patches: many and small, normalised, doubled, and blended into one picture."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ....kernels import affine_relu, feather_blend, phase_epilogue
from .case import Case, random_map, shape_name, tolerance_of

__all__ = ["affine_relu_cases", "feather_blend_cases", "phase_epilogue_cases"]

_PLANE, _PIXEL = torch.contiguous_format, torch.channels_last


def affine_relu_cases(dtype: torch.dtype, device: torch.device) -> Iterator[Case]:
    """Small patches, and maps of 16 MiB and more in both memory orders."""
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


def phase_epilogue_cases(dtype: torch.dtype, device: torch.device) -> Iterator[Case]:
    """The phases of COCO-GAN's up-convolutions and of OneGAN's last one, for both activations."""
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
            if order == _PIXEL:  # keeps the memory order, as the kernel does
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


def feather_blend_cases(dtype: torch.dtype, device: torch.device) -> Iterator[Case]:
    """Half-overlapping patches of a panorama: a strip of it, and 16 MiB and more of it."""
    side, overlap = 64, 32
    ramp = (torch.arange(overlap) + 0.5) / overlap
    window = torch.cat([ramp, torch.ones(side - 2 * overlap), ramp.flip(0)]).to(device)
    for rows, columns in ((8, 64), (32, 64)):
        size = (side + (rows - 1) * overlap, side + (columns - 1) * overlap)
        places = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).to(device) * overlap

        def inputs(count: int = rows * columns, places: Tensor = places) -> Any:
            return (torch.rand(count, 3, side, side, device=device) * 2 - 1).to(dtype), places

        def kernel(patches: Tensor, places: Tensor, size: tuple[int, int] = size) -> Tensor:
            return feather_blend(patches, places, window, window, size, output="float")

        def eager(patches: Tensor, places: Tensor, size: tuple[int, int] = size) -> Tensor:
            # The lattice is regular, so that plain PyTorch has an operation for it: fold.
            weights = (window[:, None] * window).flatten()
            columns = (patches.float().flatten(2) * weights).flatten(1).T[None]
            sums = F.fold(columns, size, side, stride=overlap)
            total = F.fold(weights[None, :, None].expand(1, -1, len(patches)), size, side, stride=overlap)
            return (sums / total)[0].permute(1, 2, 0)

        least = rows * columns * 3 * side**2 * dtype.itemsize + size[0] * size[1] * 3 * 4
        name = f"{rows * columns} patches of {side} into {size[1]}x{size[0]}"
        yield Case("feather_blend", name, inputs, kernel, eager, least, tolerance_of(dtype))


def _affine_relu(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    scale, shift = (t[:, :, None, None].to(x.dtype) for t in (scale, shift))
    return F.relu(x * scale + shift)
