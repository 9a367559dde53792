"""One kernel at one shape and dtype, and what the cases of all kernels share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

__all__ = ["ORDERS", "Case", "random_map", "shape_name", "tolerance_of"]

# Maps by plane and by pixel.
ORDERS = (torch.contiguous_format, torch.channels_last)


@dataclass(frozen=True)
class Case:
    """One kernel at one shape and dtype.

    Attributes:
        kernel: its name.
        shape: for people; one of a kind among a kernel's cases.
        inputs: makes fresh random inputs.
        kernel_call: the kernel on them.
        eager: the same in plain PyTorch, as a user would write it.
        least_bytes: that any implementation must move: inputs read once, the result written once.
        tolerance: largest error, relative to the largest value.
        training_bytes: that forward and backward must move at least, or 0 where there is no backward.
        operations: multiplications and additions of the forward pass, where they may be the limit; else 0. Backward
            takes twice as many: each matrix product has two derivatives of its size.
        by_pixel: whether the inputs are channels-last maps.
        peers: further ways to the same result, by name.
        graph: what is exported for other runtimes, where that is not `eager`.
        seen: what of a result is compared, given the inputs; None means the result itself.
    """

    kernel: str
    shape: str
    inputs: Callable[[], tuple[Any, ...]]
    kernel_call: Callable[..., Tensor]
    eager: Callable[..., Tensor]
    least_bytes: int
    tolerance: float
    training_bytes: int = 0
    operations: int = 0
    by_pixel: bool = False
    peers: Mapping[str, Callable[..., Tensor]] = field(default_factory=dict)
    graph: Callable[..., Tensor] | None = None
    seen: Callable[..., Tensor] | None = None


def tolerance_of(dtype: torch.dtype) -> float:
    """What rounding may cost: eager rounds after every step, the kernel once."""
    return 1e-5 if dtype == torch.float32 else 8 * torch.finfo(dtype).eps


def random_map(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, order: torch.memory_format) -> Tensor:
    """Draw a normal map in a memory order."""
    return torch.randn(shape, device=device).to(dtype).contiguous(memory_format=order)


def shape_name(shape: tuple[int, ...], order: torch.memory_format, note: str = "") -> str:
    """Name a shape, such as "16x64x128x128 to x2 channels-last"."""
    end = " channels-last" if order == torch.channels_last else ""
    return "x".join(map(str, shape)) + (f" {note}" if note else "") + end
