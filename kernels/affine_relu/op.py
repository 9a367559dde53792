"""The public function affine_relu: validation, registration with torch.library, and the choice of a backend."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..op import plain
from ..op.dispatch import Backend, choose_backend
from ..op.gradients import differentiated, reference_gradients
from ..op.layout import empty_like, empty_map, in_memory_order, is_channels_last, packed
from ..op.validation import FLOATING, dtype_name, refuse, require, require_same_device
from .reference import affine_relu_backward_reference, affine_relu_reference, over_map

_NATIVE_DTYPES = (torch.float32, torch.bfloat16)


def affine_relu(
    x: Tensor, scale: Tensor, shift: Tensor, upsample: bool = False, *, backend: Backend | None = None
) -> Tensor:
    """Scale and shift every channel of every sample, apply ReLU, and double the sides if asked to.

    y[n, c] = max(x[n, c] * scale[n, c] + shift[n, c], 0), in float32, rounded once. With `upsample` each value is
    stored as a square of 2x2. This is conditional batch norm in inference, folded into one scale and one shift.
    Under a condition that varies over the map they are maps too, repeated along a side of 1:
    y = max(x * scale + shift, 0). All backends give the same bits.

    It is differentiable any number of times: gradients of gradients, forward mode, torch.func, and the gradients of
    factors that vary go through the reference.

    Args:
        x: [N, C, H, W], any strides; float32, float16, bfloat16, or float64 (reference only).
        scale, shift: [N, C], or [N, C, 1, W], [N, C, H, 1] or [N, C, H, W] if they vary along the width, the height
            or both; of one shape, any strides, float32 or x's dtype. If they are float32 and lie in x's memory order,
            nothing is copied.
        upsample: double the sides by repeating values.
        backend: forces "triton", "native" (float32 and bfloat16) or "reference"; None takes the device's best one.

    Returns:
        [N, C, H, W] or [N, C, 2H, 2W], x's dtype, channels-last if x is. NaN stays NaN.

    Raises:
        ShapeError: an argument has a rank, size, dtype or device that is not listed above.
        DeviceError: the backend asked for cannot run here.

    Source: COCO-GAN's conditional batch norm (Lin et al. 2019; de Vries et al. 2017), folded by this project.
    """
    if x.dim() != 4 or x.dtype not in FLOATING:
        refuse("x", x, "[N, C, H, W], float32, float16, bfloat16 or float64")
    _require_factors(scale, x)
    require("shift", shift, scale.shape, (torch.float32, x.dtype), "scale", scale)
    if scale.dim() == 4 and scale.shape[2:] == (1, 1):
        scale, shift = scale.flatten(1), shift.flatten(1)
    if plain.this_thread.active:
        scale, shift = (over_map(t.to(x.dtype)) for t in (scale, shift))
        y = F.relu(x * scale + shift)
        return F.interpolate(y, scale_factor=2.0, mode="nearest") if upsample else y
    if differentiated(x, scale, shift):
        return affine_relu_reference(x, scale, shift, upsample)
    return _affine_relu(x, scale, shift, upsample, backend)


@torch.library.custom_op("zellige::affine_relu", mutates_args=())
def _affine_relu(x: Tensor, scale: Tensor, shift: Tensor, upsample: bool, backend: str | None) -> Tensor:
    backend = _backend(x, backend)
    if backend == "reference":
        y = _result(x, upsample)
        return y.copy_(affine_relu_reference(x, scale, shift, upsample))
    channels_last = is_channels_last(x)
    x, y = packed(x, channels_last), _result(x, upsample)
    if x.numel() == 0:
        return y
    if backend == "triton" and scale.dim() == 4 and scale.shape[2] > 1:  # that kernel has no form for heights alone
        scale, shift = (t.expand(-1, -1, -1, x.shape[3]) for t in (scale, shift))
    scale, shift = (_prepared(t, channels_last) for t in (scale, shift))
    if backend == "triton":
        from .triton import affine_relu_triton

        affine_relu_triton(x, scale, shift, y, upsample, channels_last)
    else:
        from .. import _native

        _native.affine_relu(
            in_memory_order(x, channels_last), scale, shift, in_memory_order(y, channels_last), upsample, channels_last
        )
    return y


@_affine_relu.register_fake
def _(x: Tensor, scale: Tensor, shift: Tensor, upsample: bool, backend: str | None) -> Tensor:
    return _result(x, upsample)


@torch.library.custom_op("zellige::affine_relu_backward", mutates_args=())
def _affine_relu_backward(
    gradient: Tensor, x: Tensor, scale: Tensor, shift: Tensor, upsample: bool, backend: str | None
) -> tuple[Tensor, Tensor, Tensor]:
    backend = _backend(x, backend)
    if backend == "reference" or x.numel() == 0 or scale.dim() == 4:
        found = affine_relu_backward_reference(gradient, x, scale, shift, upsample)
        into = empty_like(x), _gradient_of(scale), _gradient_of(shift)
        dx, dscale, dshift = (to.copy_(t) for to, t in zip(into, found, strict=True))
        return dx, dscale, dshift
    order = is_channels_last(x)
    gradient, x = packed(gradient, order), packed(x, order)
    a, b = (t.to(torch.float32).contiguous() for t in (scale, shift))
    if backend == "triton":
        from .triton import affine_relu_backward_triton

        dx, dscale, dshift = affine_relu_backward_triton(gradient, x, a, b, upsample, order)
    else:
        from .. import _native

        dx, dscale, dshift = empty_like(x), torch.empty_like(a), torch.empty_like(b)
        maps = in_memory_order(gradient, order), in_memory_order(x, order), a.detach(), b.detach()
        _native.affine_relu_backward(*maps, in_memory_order(dx, order), dscale, dshift, upsample, order)
    return dx, dscale.to(scale.dtype), dshift.to(shift.dtype)


@_affine_relu_backward.register_fake
def _(
    gradient: Tensor, x: Tensor, scale: Tensor, shift: Tensor, upsample: bool, backend: str | None
) -> tuple[Tensor, Tensor, Tensor]:
    return empty_like(x), _gradient_of(scale), _gradient_of(shift)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.upsample, ctx.backend = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    tensors, needed = ctx.saved_tensors, ctx.needs_input_grad[:3]
    if torch.is_grad_enabled() or differentiated(gradient):  # the gradients are to be differentiated
        found = reference_gradients(
            lambda x, scale, shift: affine_relu_reference(x, scale, shift, ctx.upsample), tensors, needed, gradient
        )
    else:
        found = list(_affine_relu_backward(gradient, *tensors, ctx.upsample, ctx.backend))
    return *(t if need else None for t, need in zip(found, needed, strict=True)), None, None


_affine_relu.register_autograd(_backward, setup_context=_remember)


def _require_factors(scale: Tensor, x: Tensor) -> None:
    n, c, h, w = x.shape
    fits = scale.dim() == 2 or (scale.dim() == 4 and scale.shape[2] in (1, h) and scale.shape[3] in (1, w))
    if not fits or scale.shape[:2] != (n, c) or scale.dtype not in (torch.float32, x.dtype):
        height, width = ("1" if side == 1 else f"1 or {side}" for side in (h, w))
        dtypes = " or ".join(dict.fromkeys(map(dtype_name, (torch.float32, x.dtype))))
        shapes = f"[{n}, {c}] or [{n}, {c}, {height}, {width}]"
        refuse("scale", scale, f"{shapes}, {dtypes}, for x of shape {list(x.shape)}")
    require_same_device("scale", scale, "x", x)


def _prepared(factors: Tensor, channels_last: bool) -> Tensor:
    """Return factors as float32, in the order of a map's memory if they vary over it."""
    factors = factors.to(torch.float32)
    if factors.dim() == 2:
        return factors.contiguous()
    return in_memory_order(packed(factors, channels_last), channels_last)


def _gradient_of(factors: Tensor) -> Tensor:
    return empty_like(factors) if factors.dim() == 4 else factors.new_empty(factors.shape)


def _result(x: Tensor, upsample: bool) -> Tensor:
    n, c, h, w = x.shape
    factor = 2 if upsample else 1
    return empty_map(x, (n, c, factor * h, factor * w))


def _backend(x: Tensor, backend: str | None) -> str:
    # The choice is made here because torch.compile would trace the search for backends in the public function.
    return choose_backend(x.device, backend, x.dtype, native=_NATIVE_DTYPES)
