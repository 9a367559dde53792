"""Which specialisations of the Triton kernels are built ahead of time."""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch

__all__ = ["KERNELS", "POINTERS", "Variant", "all_variants"]

# Each of these folders has a function `variants` in its triton.py.
KERNELS = ("affine_relu", "feather_blend")
POINTERS = {torch.float32: "*fp32", torch.float16: "*fp16", torch.bfloat16: "*bf16", torch.uint8: "*u8"}


@dataclass(frozen=True)
class Variant:
    """One Triton kernel with its types and constants fixed.

    Attributes:
        name: of the variant, unique: kernel, pass, dtype, layout.
        function: the kernel, decorated with triton.jit.
        types: of its arguments at run time, in order, as Triton writes them: "*bf16", "i32", "fp32".
        constants: values of its other arguments.
        grid: up to three pairs (size, divisor): ceil(size / divisor) programs along that axis, where size is the
            name of an argument, or of a number that only the launch needs.
        divisible: arguments (pointers by their address) that must be multiples of 16, so that loads are wide.
        warps, stages: launch parameters.
    """

    name: str
    function: Any
    types: dict[str, str]
    constants: dict[str, int | bool]
    grid: tuple[tuple[str, int], ...]
    divisible: tuple[str, ...] = ()
    warps: int = 4
    stages: int = 3


def all_variants(names: tuple[str, ...] = KERNELS) -> Iterator[tuple[str, Variant]]:
    """Yield (kernel, variant) for every variant of the named kernels."""
    for name in names:
        for variant in import_module(f"zellige.kernels.{name}.triton").variants():
            yield name, variant
