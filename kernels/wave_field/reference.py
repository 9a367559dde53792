"""wave_field in plain PyTorch: the definition of right."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ..op.rows import between, places


def wave_field_reference(
    down: Tensor,
    across: Tensor,
    noise: Tensor,
    rows: Tensor,
    columns: Tensor,
    dtype: torch.dtype,
    every: int,
    first: int,
) -> Tensor:
    """Compute the result in float32, for float64 arguments in float64; arguments are those of op.py, validated."""
    waves, noises = down.shape[2] // 2, noise.shape[2]
    cos, sin = down[:, :, None].chunk(2, 3)  # [N, S, 1, K]
    a, b, c = between(across, 1, rows.shape[1], every, first).split([waves, waves, noises], 3)
    specks = noise[rows[:, :, None], columns[:, None]]  # [N, S, T, L]
    return torch.cat([cos * a + sin * b, specks * c], 3).to(dtype).permute(0, 3, 1, 2)


def wave_field_backward_reference(
    gradient: Tensor,
    down: Tensor,
    across: Tensor,
    noise: Tensor,
    rows: Tensor,
    columns: Tensor,
    every: int,
    first: int,
    needed: Sequence[bool],
) -> list[Tensor]:
    """Return the gradients of those of down, across and noise that are needed, without autograd."""
    waves, noises = down.shape[2] // 2, noise.shape[2]
    of_waves, of_noises = gradient.to(down.dtype).permute(0, 2, 3, 1).split([waves, noises], 3)  # [N, S, T, K | L]
    a, b, c = between(across, 1, rows.shape[1], every, first).split([waves, waves, noises], 3)
    cells, found = (rows[:, :, None], columns[:, None]), []
    if needed[0]:
        found.append(torch.cat([(of_waves * a).sum(2), (of_waves * b).sum(2)], 2))
    if needed[1]:
        cos, sin = down[:, :, None].chunk(2, 3)
        slopes = (of_waves * cos, of_waves * sin, of_noises * noise[cells])
        found.append(torch.cat([_to_rows(t, across.shape[1], every, first) for t in slopes], 3))
    if needed[2]:
        # In float64, because torch adds float32 numbers to cells in the order in which its threads come.
        table = noise.new_zeros(noise.shape, dtype=torch.float64)
        found.append(table.index_put(cells, (of_noises * c).double(), accumulate=True).to(noise.dtype))
    return found


def _to_rows(slopes: Tensor, coarse: int, every: int, first: int) -> Tensor:
    """Gradients [N, R, T, K | L] of factors, from those of the map's rows, [N, S, T, K | L]."""
    if coarse == 1:
        return slopes.sum(1, keepdim=True)
    count, start = slopes.shape[1], 2 * first + 1 - every
    row, into = start // (2 * every), start % (2 * every) // 2
    groups = -(-(into + count) // every)  # of rows between the same two rows of factors; all but the outer are full

    def summed(values: Tensor) -> Tensor:
        padded = F.pad(values, (0, 0, 0, 0, into, groups * every - into - count))
        return padded.unflatten(1, (groups, every)).sum(2)

    onto_next = slopes * places(slopes, count, every, first)[1][:, None, None]
    before, after = summed(slopes - onto_next), summed(onto_next)
    rest = coarse - row - groups  # 0 if the last row is the last of the factors itself
    return F.pad(before, (0, 0, 0, 0, row, rest)) + F.pad(after, (0, 0, 0, 0, row + 1, rest - 1))
