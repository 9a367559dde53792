"""Which specialisations of the Triton kernels are built ahead of time."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from inspect import isfunction
from math import prod
from pathlib import Path
from typing import Any

__all__ = [
    "FLOATS",
    "FP32",
    "KERNELS",
    "LAYOUTS",
    "SIZES",
    "TILES",
    "Variant",
    "all_variants",
    "variants_by_name",
    "with_wide",
]

# Each triton.py has a function `variants`.
KERNELS = tuple(sorted(path.parent.name for path in Path(__file__).parents[1].glob("*/triton.py")))

FP32 = "*fp32"
# Names of the dtypes in variants, and their pointers as Triton writes them.
FLOATS = {"float32": FP32, "float16": "*fp16", "bfloat16": "*bf16"}
# Names of the memory orders of maps, and the tiles that `tiles.tile` gives large maps of 64 channels.
LAYOUTS: dict[str, dict[str, int | bool]] = {
    "planes": {"CHANNELS_LAST": False, "PIXELS": 1024, "CHANNELS": 1},
    "channels_last": {"CHANNELS_LAST": True, "PIXELS": 16, "CHANNELS": 64},
}
SIZES = {"channels": "i32", "pixels": "i32"}

# One axis of a grid is a product of quotients, each rounded up. A quotient is a size over divisors, which are constants
# of the kernel. The size is a number, or the name of an argument or of a number that only the launch needs.
Axis = tuple[tuple[str | int, ...], ...]
TILES: tuple[Axis, ...] = ((("samples",), ("channels", "CHANNELS"), ("pixels", "PIXELS")),)


@dataclass(frozen=True)
class Variant:
    """One Triton kernel with its types and constants fixed.

    Attributes:
        name: of the variant, unique: kernel, pass, dtype, layout, and everything else that is fixed.
        function: the kernel, with all its decorators.
        types: of the arguments at run time, as Triton writes them: "*bf16", "i32", "fp32".
        constants: values of the other arguments; constants that only tuning reads may be missing.
        grid: up to three axes, see `Axis`.
        divisible: arguments (pointers by their address) that must be multiples of 16, so that loads are wide.
        warps, stages: launch parameters.
        fp_fusion: whether multiplications and additions may be fused, as at the launch in the same file.
    """

    name: str
    function: Any
    types: Mapping[str, str]
    constants: Mapping[str, int | float | bool | None]
    grid: tuple[Axis, ...]
    divisible: tuple[str, ...] = ()
    warps: int = 4
    stages: int = 3
    fp_fusion: bool = False

    @property
    def jitted(self) -> Any:
        """The kernel as triton.jit made it, without the decorators that tune it."""
        function = self.function
        while not isfunction(function.fn):
            function = function.fn
        return function

    def axes(self) -> list[list[list[str | int]]]:
        """Return the grid with numbers as divisors: axes of pairs (size, divisor)."""
        return [
            [[size, prod(int(self.constants[str(name)] or 0) for name in divisors)] for size, *divisors in axis]
            for axis in self.grid
        ]


def with_wide(variant: Variant, *divisible: str) -> Iterator[Variant]:
    """Yield the variant, and one with wide loads, for calls in which these arguments are multiples of 16."""
    yield variant
    yield replace(variant, name=f"{variant.name}_wide", divisible=divisible)


def all_variants(names: tuple[str, ...] = KERNELS) -> Iterator[tuple[str, Variant]]:
    """Yield (kernel, variant) for every variant of the named kernels."""
    for name in names:
        for variant in import_module(f"zellige.kernels.{name}.triton").variants():
            yield name, variant


@cache
def variants_by_name(kernel: str) -> Mapping[str, Variant]:
    """Return the variants of a kernel by their names."""
    return {variant.name: variant for _, variant in all_variants((kernel,))}
