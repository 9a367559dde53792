"""fir_resample in plain PyTorch: the definition of right."""

import torch
from torch import Tensor


def fir_resample_reference(x: Tensor, up: bool, scale: float = 1.0) -> Tensor:
    """Compute `scale` times the result, in float32 or for float64 maps in float64; arguments are validated."""
    along = _doubled if up else _halved
    value = x.to(torch.promote_types(x.dtype, torch.float32))
    return (scale * along(along(value, 2), 3)).to(x.dtype)


def _doubled(x: Tensor, axis: int) -> Tensor:
    padded, size = _padded(x, axis), x.shape[axis]
    before, after = padded.narrow(axis, 0, size), padded.narrow(axis, 2, size)
    return torch.stack((0.25 * before + 0.75 * x, 0.75 * x + 0.25 * after), axis + 1).flatten(axis, axis + 1)


def _halved(x: Tensor, axis: int) -> Tensor:
    pairs = _padded(x, axis).unflatten(axis, (x.shape[axis] // 2 + 1, 2))
    first, second = pairs.select(axis + 1, 0), pairs.select(axis + 1, 1)
    size = x.shape[axis] // 2
    ends = first.narrow(axis, 0, size), second.narrow(axis, 1, size)
    return (
        0.125 * ends[0] + 0.375 * second.narrow(axis, 0, size) + 0.375 * first.narrow(axis, 1, size) + 0.125 * ends[1]
    )


def _padded(x: Tensor, axis: int) -> Tensor:
    zero = x.new_zeros([1 if k == axis else size for k, size in enumerate(x.shape)])
    return torch.cat((zero, x, zero), axis)
