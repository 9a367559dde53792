"""Cases of wave_field: the dense places of a COCO-GAN over a block of micro patches."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ....kernels import wave_field
from .case import Case, tolerance_of

__all__ = ["cases"]

_NOISES, _TABLE = 16, (256, 1024)


def cases(dtype: torch.dtype, device: torch.device) -> Iterator[Case]:
    """Yield blocks whose latents move along columns alone, and along rows too, with 8 rows for each of the stem's."""
    table = torch.randn(*_TABLE, _NOISES, device=device)  # a constant of the network, so no input
    for size, waves, coarse, every in (((68, 260), 112, 1, 1), ((132, 260), 80, 20, 8)):

        def inputs(size: tuple[int, int] = size, waves: int = waves, coarse: int = coarse) -> Any:
            down = torch.randn(1, size[0], 2 * waves, device=device)
            across = torch.randn(1, coarse, size[1], 2 * waves + _NOISES, device=device)
            cells = (
                (int(torch.randint(side, ())) + torch.arange(count, device=device))[None] % side
                for count, side in zip(size, _TABLE, strict=True)
            )
            return down, across, *cells

        def kernel(down: Tensor, across: Tensor, rows: Tensor, columns: Tensor, every: int = every) -> Tensor:
            return wave_field(down, across, table, rows, columns, dtype, every=every, first=every)

        def eager(down: Tensor, across: Tensor, rows: Tensor, columns: Tensor, every: int = every) -> Tensor:
            wide = down.dtype if down.dtype == torch.float64 else dtype
            return _wave_field(down, across, table.to(down.dtype), rows, columns, wide, every)

        cells, width = math.prod(size), 2 * waves + _NOISES
        result = cells * (waves + _NOISES) * dtype.itemsize
        factors = 4 * (size[0] * 2 * waves + coarse * size[1] * width)
        read = factors + 4 * cells * _NOISES + 8 * sum(size)
        name = f"{waves} waves at {size[0]}x{size[1]}" + (f", {coarse} rows of factors" if coarse > 1 else "")
        yield Case(
            "wave_field", name, inputs, kernel, eager, read + result, tolerance_of(dtype),
            training_bytes=2 * read + factors + 2 * result,
        )  # fmt: skip


def _wave_field(
    down: Tensor, across: Tensor, table: Tensor, rows: Tensor, columns: Tensor, dtype: torch.dtype, every: int
) -> Tensor:
    """Interpolate the factors, then multiply in the dtype of the result, as a network in halves does."""
    waves, noises = down.shape[2] // 2, table.shape[2]
    if across.shape[1] > 1:
        shares = ((torch.arange(every, device=down.device) + 0.5) / every).to(down.dtype)[:, None, None]
        before, after = across[:, :-1, None], across[:, 1:, None]
        between = before + (after - before) * shares
        across = between.flatten(1, 2)[:, every - every // 2 :][:, : rows.shape[1]]
    a, b, c = (t.to(dtype) for t in across.split([waves, waves, noises], 3))
    cos, sin = (t.to(dtype) for t in down[:, :, None].chunk(2, 3))
    specks = table[rows[:, :, None], columns[:, None]].to(dtype)
    return torch.cat([torch.addcmul(cos * a, sin, b), specks * c], 3).permute(0, 3, 1, 2)
