"""The only conversions between images in [-1, 1] and their bytes."""

import torch
from torch import Tensor

__all__ = ["bytes_of", "values_of"]


def bytes_of(values: Tensor) -> Tensor:
    """Round values in [-1, 1] to bytes.

    b = (v + 1) * 127.5, in the dtype of the values, rounded half to even and limited to [0, 255].

    Args:
        values: any shape; float32 or wider, because narrower dtypes do not tell all bytes apart.
    Returns:
        uint8 of the same shape. NaN becomes 0.
    """
    return ((values + 1) * 127.5).round().clamp(0, 255).nan_to_num(nan=0.0).to(torch.uint8)


def values_of(levels: Tensor) -> Tensor:
    """Map bytes to values in [-1, 1].

    v = b / 127.5 - 1 in float32; `bytes_of` gives every byte back.

    Args:
        levels: any shape, uint8, or numbers from 0 to 255 in another dtype.
    Returns:
        float32 of the same shape.
    """
    return levels.float().div(127.5).sub(1)
