"""The class of a case, a kernel at one shape and dtype, and functions that the cases of all kernels share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

__all__ = ["ORDERS", "Case", "random_map", "shape_name", "tolerance_of"]

# The memory orders of maps: by plane and by pixel.
ORDERS = (torch.contiguous_format, torch.channels_last)


@dataclass(frozen=True)
class Case:
    """One kernel at one shape and dtype.

    Attributes:
        kernel: name of the kernel.
        shape: name of the shape for people, unique among a kernel's cases.
        inputs: makes fresh random inputs.
        kernel_call: calls the kernel on them.
        eager: computes the same in plain PyTorch, as a user would write it.
        least_bytes: bytes that any implementation must move: inputs read once, the result written once.
        tolerance: largest error, relative to the largest value.
        training_bytes: bytes that forward and backward must move at least, or 0 if there is no backward pass.
        operations: multiplications and additions of the forward pass, if they may be the limit; else 0. Backward
            takes twice as many, because each matrix product has two derivatives of its size.
        by_pixel: whether the inputs are channels-last maps.
        peers: further ways to the same result, by name.
        graph: the function that is exported for other runtimes, if it is not `eager`.
        seen: makes the tensor to compare from a result and the inputs; None compares the result itself.
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
    """Return the error that rounding may cause: eager rounds after every step, the kernel once."""
    return 1e-5 if dtype == torch.float32 else 8 * torch.finfo(dtype).eps


def random_map(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, order: torch.memory_format) -> Tensor:
    """Draw a normal map in a memory order."""
    return torch.randn(shape, device=device).to(dtype).contiguous(memory_format=order)


def shape_name(shape: tuple[int, ...], order: torch.memory_format, note: str = "") -> str:
    """Name a shape, such as "16x64x128x128 to x2 channels-last"."""
    end = " channels-last" if order == torch.channels_last else ""
    return "x".join(map(str, shape)) + (f" {note}" if note else "") + end
