"""Cases of mask_composite: the last step of a generator of foreground, background and mask."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ....kernels import mask_composite
from .case import ORDERS, Case, random_map, shape_name, tolerance_of

__all__ = ["cases"]

_PLANE, _PIXEL = ORDERS


def cases(dtype: torch.dtype, device: torch.device) -> Iterator[Case]:
    """Yield batches of 128x128 images: a few, and maps of 16 MiB and more in both memory orders."""
    side = 128
    for n, order in ((8, _PLANE), (128, _PLANE), (128, _PIXEL)):

        def inputs(n: int = n, order: torch.memory_format = order) -> Any:
            return tuple(random_map((n, channels, side, side), dtype, device, order) for channels in (3, 3, 1))

        def eager(foreground: Tensor, background: Tensor, mask: Tensor) -> Tensor:
            share = torch.sigmoid(mask)
            return torch.tanh(foreground) * share + torch.tanh(background) * (1 - share)

        plane = n * side * side * dtype.itemsize
        yield Case(
            "mask_composite", shape_name((n, 3, side, side), order), inputs, mask_composite, eager, 10 * plane,
            tolerance_of(dtype), training_bytes=(3 * 7 + 2 * 3) * plane, by_pixel=order == _PIXEL,
        )  # fmt: skip
