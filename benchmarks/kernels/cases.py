"""What is measured: for each kernel the shapes that matter, plain PyTorch's way, and the fewest bytes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ...kernels import affine_relu, feather_blend, glu_layer_norm, mask_composite

__all__ = ["KERNELS", "Case", "cases"]


@dataclass(frozen=True)
class Case:
    """One kernel at one shape and dtype.

    Attributes:
        kernel: its name.
        shape: for people.
        inputs: makes fresh random inputs.
        kernel_call: the kernel on them.
        eager: the same in plain PyTorch, as a user would write it.
        least_bytes: that any implementation must move: inputs read once, the result written once.
        tolerance: largest difference between the two, relative to the largest value.
        differentiable: whether forward and backward are measured too.
    """

    kernel: str
    shape: str
    inputs: Callable[[], tuple[Any, ...]]
    kernel_call: Callable[..., Tensor]
    eager: Callable[..., Tensor]
    least_bytes: int
    tolerance: float
    differentiable: bool


def cases(kernel: str, dtype: torch.dtype, device: torch.device) -> Iterator[Case]:
    """Yield the cases of a kernel."""
    yield from KERNELS[kernel](dtype, device)


def _tolerance(dtype: torch.dtype) -> float:
    # Eager rounds after every step; the kernel once.
    return 1e-5 if dtype == torch.float32 else 8 * torch.finfo(dtype).eps


def _affine_relu(dtype: torch.dtype, device: torch.device) -> Iterator[Case]:
    # COCO-GAN's patches, many and small; a large map; maps of 16 MiB and more in both memory orders.
    shapes = [
        (64, 256, 8, 8, False, True), (64, 64, 32, 32, True, True), (16, 64, 128, 128, False, False),
        (16, 64, 128, 128, False, True), (16, 64, 64, 64, True, True), (1, 64, 256, 256, False, True),
    ]  # fmt: skip
    for n, c, h, w, upsample, channels_last in shapes:
        memory_format = torch.channels_last if channels_last else torch.contiguous_format

        def inputs(shape: tuple[int, ...] = (n, c, h, w), order: torch.memory_format = memory_format) -> Any:
            x = torch.randn(shape, device=device).to(dtype).contiguous(memory_format=order)
            return x, torch.randn(shape[:2], device=device), torch.randn(shape[:2], device=device)

        def kernel(x: Tensor, scale: Tensor, shift: Tensor, twice: bool = upsample) -> Tensor:
            return affine_relu(x, scale, shift, twice)

        def eager(x: Tensor, scale: Tensor, shift: Tensor, twice: bool = upsample) -> Tensor:
            scale, shift = (t[:, :, None, None].to(x.dtype) for t in (scale, shift))
            y = F.relu(x * scale + shift)
            return F.interpolate(y, scale_factor=2.0) if twice else y

        name = f"{n}x{c}x{h}x{w}{' to x2' if upsample else ''}{' channels-last' if channels_last else ''}"
        least = n * c * h * w * dtype.itemsize * (5 if upsample else 2)
        yield Case("affine_relu", name, inputs, kernel, eager, least, _tolerance(dtype), True)


def _feather_blend(dtype: torch.dtype, device: torch.device) -> Iterator[Case]:
    side, overlap = 64, 32
    ramp = (torch.arange(overlap) + 0.5) / overlap
    window = torch.cat([ramp, torch.ones(side - 2 * overlap), ramp.flip(0)]).to(device)
    for rows, columns in ((8, 64), (32, 128)):
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
        yield Case("feather_blend", name, inputs, kernel, eager, least, _tolerance(dtype), False)


def _glu_layer_norm(dtype: torch.dtype, device: torch.device) -> Iterator[Case]:
    for n, c, side, channels_last in ((8, 64, 128, False), (8, 64, 128, True), (1, 64, 128, True), (8, 256, 16, True)):
        memory_format = torch.channels_last if channels_last else torch.contiguous_format

        def inputs(shape: tuple[int, ...] = (n, 2 * c, side, side), order: torch.memory_format = memory_format) -> Any:
            x = torch.randn(shape, device=device).to(dtype).contiguous(memory_format=order)
            return x, *(torch.randn(shape[1] // 2, device=device).to(dtype) for _ in range(2))

        def eager(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
            values, gate = x.chunk(2, dim=1)
            return F.group_norm(values, 1, weight, bias) * torch.sigmoid(gate)

        name = f"{n}x{2 * c}x{side}x{side}{' channels-last' if channels_last else ''}"
        least = 3 * n * c * side * side * dtype.itemsize
        yield Case("glu_layer_norm", name, inputs, glu_layer_norm, eager, least, _tolerance(dtype), True)


def _mask_composite(dtype: torch.dtype, device: torch.device) -> Iterator[Case]:
    for n, side, channels_last in ((8, 128, False), (64, 128, False), (64, 128, True)):
        memory_format = torch.channels_last if channels_last else torch.contiguous_format

        def inputs(n: int = n, side: int = side, order: torch.memory_format = memory_format) -> Any:
            maps = (torch.randn(n, channels, side, side, device=device) for channels in (3, 3, 1))
            return tuple(t.to(dtype).contiguous(memory_format=order) for t in maps)

        def eager(foreground: Tensor, background: Tensor, mask: Tensor) -> Tensor:
            share = torch.sigmoid(mask)
            return torch.tanh(foreground) * share + torch.tanh(background) * (1 - share)

        name = f"{n}x3x{side}x{side}{' channels-last' if channels_last else ''}"
        least = 10 * n * side * side * dtype.itemsize
        yield Case("mask_composite", name, inputs, mask_composite, eager, least, _tolerance(dtype), True)


KERNELS: dict[str, Callable[[torch.dtype, torch.device], Iterator[Case]]] = {
    "affine_relu": _affine_relu,
    "feather_blend": _feather_blend,
    "glu_layer_norm": _glu_layer_norm,
    "mask_composite": _mask_composite,
}
