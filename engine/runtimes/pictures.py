"""Converts a model's images to the kind that the caller asks for: numpy or CuPy arrays, or tensors."""

from collections.abc import Iterable
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor

from zellige.errors import DeviceError, MissingExtraError, ShapeError, SizeError

from ...kernels.op.levels import bytes_of, values_of
from ..layers.ambient import own_modes
from ..layers.finite import require_finite

__all__ = ["As", "checked_as", "converted", "joined"]

As: TypeAlias = Literal["numpy", "torch", "cupy", "float"]


def checked_as(as_: str, device: torch.device) -> As:
    """Check, before any image is made, that images can be had in a kind; return the kind.

    Raises:
        ShapeError: there is no such kind.
        DeviceError: "cupy" on a CPU.
        MissingExtraError: CuPy is not installed.
    """
    for kind in get_args(As):
        if kind == as_:
            if kind == "cupy":
                _cupy(device)
            return kind
    raise ShapeError(f"as_ is {as_!r}; it must be {', '.join(map(repr, get_args(As)[:-1]))} or {get_args(As)[-1]!r}.")


@own_modes()
def converted(images: Tensor, as_: As, name: str = "the model") -> Any:
    """Convert images to the kind that was asked for.

    Args:
        images: uint8 [N, H, W, 3], or floating [N, 3, H, W] in [-1, 1], on the model's device.
        as_: "numpy" for a uint8 array [N, H, W, 3] in host memory; "torch" for a uint8 tensor [N, H, W, 3] on the
            model's device; "cupy" for a CuPy array that shares that tensor's memory; "float" for a float32 tensor
            [N, 3, H, W] in [-1, 1] on the model's device, as networks take it. A byte v becomes v / 127.5 - 1; a float
            y becomes the byte round((y + 1) * 127.5), half to even, limited to [0, 255].
        name: the model's name, for the error.
    Raises:
        ShapeError: images have another shape or dtype.
        DeviceError: "cupy" on a CPU.
        MissingExtraError: CuPy is not installed.
        ValuesError: a floating image holds a value that is not finite.
    """
    finished = images.dtype == torch.uint8 and images.dim() == 4 and images.shape[3] == 3
    if not finished and not (images.is_floating_point() and images.dim() == 4 and images.shape[1] == 3):
        raise ShapeError(
            f"images must be uint8 [N, H, W, 3] or floating [N, 3, H, W]; got {images.dtype} {list(images.shape)}"
        )
    if not finished:
        require_finite(images, name)
    if as_ == "float":
        found = values_of(images).permute(0, 3, 1, 2) if finished else images.float()
    else:
        found = images if finished else bytes_of(images.float().permute(0, 2, 3, 1)).contiguous()
    if as_ == "numpy":
        return found.cpu().numpy()
    if found.is_inference():  # autograd refuses inference tensors, and the caller may train with these images
        found = found.clone()
    return _cupy(found.device).from_dlpack(found) if as_ == "cupy" else found


def joined(batches: Iterable[tuple[int, Tensor]], count: int, *, lent: bool) -> Tensor:
    """Join all rows of a run into one tensor.

    Args:
        batches: pairs of first row and result, as `Runtime.run` yields them.
        count: number of rows in all, 1 or more.
        lent: whether the rows are overwritten later (`Runtime.lends`); if not, a single batch is not copied.
    Raises:
        SizeError: there are no rows, so that the tensor's shape is unknown.
    """
    whole: Tensor | None = None
    for start, rows in batches:
        if whole is None and len(rows) == count and not lent:
            return rows
        if whole is None:
            whole = torch.empty(count, *rows.shape[1:], dtype=rows.dtype, device=rows.device)
        whole[start : start + len(rows)] = rows
    if whole is None:
        raise SizeError(f"{count} images cannot be generated; ask for 1 or more")
    return whole


def _cupy(device: torch.device) -> Any:
    if device.type != "cuda":
        raise DeviceError(f"CuPy arrays live on CUDA devices, and this model runs on {device}; use as_='numpy'")
    try:
        import cupy
    except ImportError as error:
        raise MissingExtraError("cupy", "as_='cupy'", "cuda") from error
    return cupy
