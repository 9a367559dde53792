"""The inputs of a runtime: several tensors with one row for each image."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy.typing as npt
import torch
from torch import Tensor

from zellige.errors import ShapeError

__all__ = ["Network", "Rows", "as_rows", "repeated"]

Network: TypeAlias = Callable[..., Tensor]
Rows: TypeAlias = npt.NDArray[Any] | Tensor


def as_rows(inputs: Sequence[Rows]) -> tuple[tuple[Tensor, ...], int]:
    """Turn inputs into contiguous tensors, without a copy if they are contiguous; return them and the number of rows.

    Raises:
        ShapeError: there are no inputs, or they differ in their number of rows.
    """
    tensors = tuple(_tensor(rows).detach().contiguous() for rows in inputs)
    counts = {len(tensor) if tensor.dim() else None for tensor in tensors}
    if len(counts) != 1 or None in counts:
        shapes = ", ".join(str(list(tensor.shape)) for tensor in tensors) or "none"
        raise ShapeError(f"a runtime takes one input or more, all [N, ...] with one N; got {shapes}")
    return tensors, len(tensors[0])


def repeated(example: Sequence[Rows], count: int) -> tuple[Tensor, ...]:
    """Repeat the rows of an example until there are `count` of them.

    Raises:
        ShapeError: the example has no row.
    """
    tensors, rows = as_rows(example)
    if not rows:
        raise ShapeError("an example without rows shows no shapes; give one row or more")
    return tuple(tensor[torch.arange(count, device="cpu") % rows] for tensor in tensors)


def _tensor(rows: Rows) -> Tensor:
    if isinstance(rows, Tensor):
        return rows
    # Not as_tensor, which would move the array to the default device of the host program.
    return torch.from_numpy(rows if rows.flags.writeable else rows.copy())  # torch warns of sharing read-only arrays
