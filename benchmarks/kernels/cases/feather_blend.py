"""Cases of feather_blend: overlapping patches of a panorama, blended into one picture."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ....kernels import feather_blend
from .case import Case, tolerance_of

__all__ = ["cases"]


def cases(dtype: torch.dtype, device: torch.device) -> Iterator[Case]:
    """Yield half-overlapping patches of a panorama: a strip, and 16 MiB and more."""
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
            # The lattice is regular, so plain PyTorch has an operation for it: fold.
            weights = (window[:, None] * window).flatten()
            columns = (patches.float().flatten(2) * weights).flatten(1).T[None]
            sums = F.fold(columns, size, side, stride=overlap)
            total = F.fold(weights[None, :, None].expand(1, -1, len(patches)), size, side, stride=overlap)
            return (sums / total)[0].permute(1, 2, 0)

        least = rows * columns * 3 * side**2 * dtype.itemsize + size[0] * size[1] * 3 * 4
        name = f"{rows * columns} patches of {side} into {size[1]}x{size[0]}"
        yield Case("feather_blend", name, inputs, kernel, eager, least, tolerance_of(dtype))
