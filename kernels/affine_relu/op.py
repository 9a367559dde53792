"""The public function affine_relu: validation, registration with torch.library, and the choice of a backend."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..op import plain
from ..op.dispatch import Backend, choose_backend
from ..op.gradients import differentiated, reference_gradients
from ..op.layout import empty_like, empty_map, in_memory_order, is_channels_last, packed
from ..op.validation import FLOATING, refuse, require
from .reference import affine_relu_backward_reference, affine_relu_reference

_NATIVE_DTYPES = (torch.float32, torch.bfloat16)


def affine_relu(
    x: Tensor, scale: Tensor, shift: Tensor, upsample: bool = False, *, backend: Backend | None = None
) -> Tensor:
    """Scale and shift every channel of every sample, apply ReLU, and double the sides if asked to.

    y[n, c] = max(x[n, c] * scale[n, c] + shift[n, c], 0), in float32, rounded once. With `upsample` each value is
    stored as a square of 2x2. This is conditional batch norm in inference, folded into one scale and one shift.

    It is differentiable any number of times: gradients of gradients, forward mode and torch.func go through the
    reference.

    Args:
        x: [N, C, H, W], any strides; float32, float16, bfloat16, or float64 (reference only).
        scale, shift: [N, C], float32 or x's dtype.
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
    for name, tensor in (("scale", scale), ("shift", shift)):
        require(name, tensor, x.shape[:2], (torch.float32, x.dtype), "x", x)
    if plain.this_thread.active:
        scale, shift = (t.to(x.dtype)[:, :, None, None] for t in (scale, shift))
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
    scale, shift = (t.to(torch.float32).contiguous() for t in (scale, shift))
    if x.numel() == 0:
        return y
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
    if backend == "reference" or x.numel() == 0:
        dx, dscale, dshift = affine_relu_backward_reference(gradient, x, scale, shift, upsample)
        return empty_like(x).copy_(dx), dscale.to(scale.dtype), dshift.to(shift.dtype)
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
    return empty_like(x), scale.new_empty(scale.shape), shift.new_empty(shift.shape)


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


def _result(x: Tensor, upsample: bool) -> Tensor:
    n, c, h, w = x.shape
    factor = 2 if upsample else 1
    return empty_map(x, (n, c, factor * h, factor * w))


def _backend(x: Tensor, backend: str | None) -> str:
    # The choice is made here because torch.compile would trace the search for backends in the public function.
    return choose_backend(x.device, backend, x.dtype, native=_NATIVE_DTYPES)
