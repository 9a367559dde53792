"""The sentences with which kernels refuse arguments that they cannot compute with."""

from collections.abc import Sequence
from typing import NoReturn

import torch
from torch import Tensor

from zellige.errors import ShapeError

__all__ = ["FLOATING", "dtype_name", "refuse", "require", "require_same_device"]

FLOATING = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def dtype_name(dtype: torch.dtype) -> str:
    """Return the name of a dtype as people write it, such as "float32"."""
    return str(dtype).removeprefix("torch.")


def refuse(name: str, tensor: Tensor, allowed: str) -> NoReturn:
    """Raise the ShapeError that names an argument, its shape and dtype, and those that it may have."""
    raise ShapeError(f"{name} is {list(tensor.shape)} {dtype_name(tensor.dtype)}; it must be {allowed}.")


def require(
    name: str, tensor: Tensor, shape: Sequence[int], dtypes: Sequence[torch.dtype], like: str, other: Tensor
) -> None:
    """Refuse a tensor unless it has the shape, one of the dtypes, and the device of another argument.

    Args:
        name: of the argument.
        tensor: the argument.
        shape: the shape that it must have.
        dtypes: the dtypes that it may have.
        like: name of the argument that the shape follows from.
        other: the argument that the shape follows from.

    Raises:
        ShapeError: the argument has another shape or dtype, or is on another device.
    """
    if tuple(tensor.shape) != tuple(shape) or tensor.dtype not in dtypes:
        names = " or ".join(dict.fromkeys(dtype_name(dtype) for dtype in dtypes))
        refuse(name, tensor, f"{list(shape)} {names} for {like} of shape {list(other.shape)}")
    require_same_device(name, tensor, like, other)


def require_same_device(name: str, tensor: Tensor, like: str, other: Tensor) -> None:
    """Refuse a tensor that is on another device than another argument."""
    if tensor.device != other.device:
        verb = "are" if like.endswith("s") else "is"
        raise ShapeError(f"{name} is on {tensor.device} but {like} {verb} on {other.device}; move it there.")
