"""The public function fir_resample: validation, registration with torch.library, and the choice of a backend."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..op import plain
from ..op.dispatch import Backend, choose_backend
from ..op.gradients import differentiated
from ..op.layout import empty_map, in_memory_order, is_channels_last, packed
from ..op.validation import FLOATING, refuse
from .reference import fir_resample_reference

_NATIVE_DTYPES = (torch.float32, torch.bfloat16)


def fir_resample(x: Tensor, up: bool, *, backend: Backend | None = None) -> Tensor:
    """Double or halve the sides of a map under the separable filter [1, 3, 3, 1], with zeros outside.

    Along each axis, doubled: y[2h] = (x[h-1] + 3 x[h]) / 4 and y[2h+1] = (3 x[h] + x[h+1]) / 4; halved:
    y[h] = (x[2h-1] + 3 x[2h] + 3 x[2h+1] + x[2h+2]) / 8. Sums are float32, rounded once. All backends add in one order,
    rows before columns, and give the same bits.

    It is differentiable any number of times, because each direction is the other's adjoint but for a factor of 4.

    Args:
        x: [N, C, H, W], any strides, sides even to be halved; float32, float16, bfloat16, or float64 (reference only).
        up: double the sides, else halve them.
        backend: forces "triton", "native" (float32 and bfloat16) or "reference"; None takes the device's best one.

    Returns:
        [N, C, 2H, 2W] or [N, C, H / 2, W / 2], x's dtype, channels-last if x is. NaN stays NaN.

    Raises:
        ShapeError: x has a rank, size or dtype that is not listed above.
        DeviceError: the backend asked for cannot run here.

    Source: StyleGAN2's upsample_2d and downsample_2d (Karras et al. 2020).
    """
    if x.dim() != 4 or x.dtype not in FLOATING:
        refuse("x", x, "[N, C, H, W], float32, float16, bfloat16 or float64")
    if not up and (x.shape[2] % 2 or x.shape[3] % 2):
        refuse("x", x, "[N, C, H, W] with even H and W to be halved")
    if plain.this_thread.active:
        line = x.new_tensor([1.0, 3.0, 3.0, 1.0]) / (4 if up else 8)
        weight = (line[:, None] * line).expand(x.shape[1], 1, 4, 4)
        return (F.conv_transpose2d if up else F.conv2d)(x, weight, stride=2, padding=1, groups=x.shape[1])
    return _resampled(x, up, 1.0, backend)


@torch.library.custom_op("zellige::fir_resample", mutates_args=())
def _fir_resample(x: Tensor, up: bool, scale: float, backend: str | None) -> Tensor:
    backend, y = _backend(x, backend), _result(x, up)
    if backend == "reference":
        return y.copy_(fir_resample_reference(x, up, scale))
    if x.numel() == 0:
        return y
    channels_last = is_channels_last(x)
    x = packed(x, channels_last)
    if backend == "triton":
        from .triton import fir_resample_triton

        fir_resample_triton(x, y, up, scale, channels_last)
    else:
        from .. import _native

        _native.fir_resample(
            in_memory_order(x, channels_last), in_memory_order(y, channels_last), up, scale, channels_last
        )
    return y


@_fir_resample.register_fake
def _(x: Tensor, up: bool, scale: float, backend: str | None) -> Tensor:
    return _result(x, up)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, ctx.up, ctx.scale, ctx.backend = inputs


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    # The adjoint is the op itself in the other direction, so it needs no formula, nor do gradients of gradients.
    return _resampled(gradient, not ctx.up, ctx.scale * (4.0 if ctx.up else 0.25), ctx.backend), None, None, None


_fir_resample.register_autograd(_backward, setup_context=_remember)


def _resampled(x: Tensor, up: bool, scale: float, backend: str | None) -> Tensor:
    if differentiated(x):
        return fir_resample_reference(x, up, scale)
    return _fir_resample(x, up, scale, backend)


def _result(x: Tensor, up: bool) -> Tensor:
    n, c, h, w = x.shape
    return empty_map(x, (n, c, 2 * h, 2 * w) if up else (n, c, h // 2, w // 2))


def _backend(x: Tensor, backend: str | None) -> str:
    # The choice is made here because torch.compile would trace the search for backends in the public function.
    return choose_backend(x.device, backend, x.dtype, native=_NATIVE_DTYPES)
