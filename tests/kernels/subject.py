"""A kernel as the shared claims see it: how to call it, with what, and what the result must be."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

import torch
from hypothesis import strategies as st
from torch import Tensor

from .judge import (
    LAYOUTS,
    ROW_LAYOUTS,
    assert_as_exact_as_eager,
    assert_nearest,
    assert_nearest_bytes,
    scattered,
)

Size = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A kernel in one of its forms: doubled sides or not, with noise or without.

    Attributes:
        name: of the form, as it stands in the tests' names.
        call: the public function, of the tensors and `backend`.
        textbook: the definition, of the tensors; distances where the result is indices.
        shapes: of the tensors, from a size.
        typed: how many tensors, from the first on, have the dtype of the maps; the others are float32.
        finish: makes what the function takes of normal random values.
        refit: makes sizes agree again after a layout has changed those of maps.
        sizes: odd ones: single values, more than a tile of the GPU kernel, one beside a tile.
        deep: the same for channels-last maps.
        shared: sizes that the threads of the C++ kernel share.
        long: from a number and an order of memory to a size with so many values along memory.
        empty: sizes without values.
        any_size: what hypothesis draws.
        result: shape of the result, from a size.
        small: for claims that do not depend on sizes; no number in it is 1.
        full: for claims on a device.
        native: dtypes of the C++ kernel, if there is one.
        triton: whether there is a Triton kernel.
        best: the backend that runs on CPUs unless another is named; None where it has no name.
        equal: backends that give the reference's bits.
        one_order: whether no memory order changes a bit.
        gradients: how many of the tensors, from the first on, have one.
        layouts: names of what the first tensor may lie like.
        by_pixel: whether the result is channels-last whatever the first tensor is.
        infinities: whether what eager makes of them is asked for.
        units: see `judge.assert_as_exact_as_eager`; for what rounds more often than eager.
        kind: whether the result is values, bytes or indices.
    """

    name: str
    call: Callable[..., Tensor]
    textbook: Callable[..., Tensor]
    shapes: Callable[..., list[Size]]
    typed: int = 1
    finish: Callable[[list[Tensor]], list[Tensor]] = lambda tensors: tensors
    refit: Callable[[list[Tensor]], list[Tensor]] = lambda tensors: tensors
    sizes: Sequence[Size]
    deep: Sequence[Size] = ()
    shared: Sequence[Size] = ()
    long: Callable[[int, bool], Size]
    empty: Sequence[Size]
    any_size: st.SearchStrategy[Size]
    result: Callable[..., Size]
    small: Size
    full: Size
    native: tuple[torch.dtype, ...] = (torch.float32, torch.bfloat16)
    triton: bool = True
    best: str | None = "native"
    equal: tuple[str, ...] = ()
    one_order: bool = True
    gradients: int = 0
    layouts: Sequence[str] = tuple(LAYOUTS)
    by_pixel: bool = False
    infinities: bool = True
    units: float = 0.5
    kind: str = "values"

    def make(self, size: Size, dtype: torch.dtype = torch.float32, seed: int = 0) -> list[Tensor]:
        """Draw tensors; the float32 ones hold values of the dtype, so that eager may round them to it."""
        random = torch.Generator().manual_seed(seed)
        wide = torch.promote_types(dtype, torch.float32)
        drawn = [torch.randn(shape, generator=random).to(dtype) for shape in self.shapes(*size)]
        return self.finish([t if k < self.typed else t.to(wide) for k, t in enumerate(drawn)])

    def lay(self, tensors: list[Tensor], layout: str) -> list[Tensor]:
        """Give the first tensor and those of its rank a layout, and gaps to all others."""
        rank = tensors[0].dim()
        change = (LAYOUTS if rank == 4 else ROW_LAYOUTS)[layout]
        tensors = self.refit([change(t) if t.dim() == rank else t for t in tensors])
        return [t if t.dim() == rank or layout == "contiguous" else scattered(t, Random(3)) for t in tensors]

    def leaves(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Detach the tensors, and let those that have a gradient require it; their memory stays."""
        return [t.detach().requires_grad_(k < self.gradients) for k, t in enumerate(tensors)]

    def exact(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return the definition's result in float64."""
        return self.textbook(*doubles(tensors))

    def judge(self, actual: Tensor, tensors: Sequence[Tensor]) -> None:
        """Hold a result against the definition."""
        tensors = [t.detach().contiguous() for t in tensors]
        if self.kind == "indices":
            assert_nearest(actual, self.textbook(*tensors))
        elif self.kind == "bytes":
            exact = self.exact(tensors)
            assert_nearest_bytes(actual, exact.permute(0, 2, 3, 1) if exact.dim() == 4 else exact)
        else:
            assert_as_exact_as_eager(actual, self.textbook(*tensors), self.exact(tensors), self.units)

    def backends(self, dtype: torch.dtype = torch.float32) -> list[str | None]:
        """List what runs on a CPU in a dtype: names, and None where the best backend has no name."""
        names: list[str | None] = ["reference"]
        if dtype in self.native:
            names.append("native")
        if self.best is None:
            names.append(None)
        if self.triton:
            names.append("triton")
        return names


def doubles(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The tensors in float64, but for integers."""
    return [t.double() if t.is_floating_point() else t for t in tensors]
