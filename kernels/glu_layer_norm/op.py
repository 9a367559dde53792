"""The public function glu_layer_norm: validation, registration with torch.library, and the choice of a backend."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from zellige.errors import ShapeError

from ..op import plain
from ..op.dispatch import Backend, choose_backend
from ..op.gradients import differentiated, reference_gradients
from ..op.layout import empty_like, empty_map, in_memory_order, is_channels_last, packed
from ..op.validation import FLOATING, refuse, require
from .reference import glu_layer_norm_backward_reference, glu_layer_norm_reference

_NATIVE_DTYPES = (torch.float32, torch.bfloat16)


def glu_layer_norm(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5, *, backend: Backend | None = None
) -> Tensor:
    """Normalise the first half of the channels over each whole sample, and gate it with the second half.

    y = ((l - mean) / sqrt(var + eps) * weight + bias) * sigmoid(r), where l and r are the halves of x over the
    channels, and mean and (biased) var are those of l over [C, H, W], one pair for each sample. Statistics and
    arithmetic are float32 or wider, rounded once. A mean a thousand times the deviation costs no precision. The C++
    kernel's sigmoid is within 2 units in the last place for float32. For bfloat16 it is within 1.1e-4 before rounding,
    which adds 2e-3.

    It is differentiable any number of times: gradients of gradients, forward mode and torch.func go through the
    reference.

    Args:
        x: [N, 2C, H, W], any strides; float32, float16, bfloat16, or float64 (reference only).
        weight, bias: [C], float32 or x's dtype.
        eps: above 0, added to the variance.
        backend: forces "triton", "native" (float32 and bfloat16) or "reference"; None takes the device's best one.

    Returns:
        [N, C, H, W], x's dtype, channels-last where x is. A sample with a NaN or an infinity in l is NaN throughout.

    Raises:
        ShapeError: an argument has a rank, size, dtype or device that is not listed above, or eps is not above 0.
        DeviceError: the backend asked for cannot run here.

    Source: the blocks of OneGAN (Yadav et al. 2020): group norm with one group, times a sigmoid gate.
    """
    if x.dim() != 4 or x.shape[1] % 2 or x.dtype not in FLOATING:
        refuse("x", x, "[N, 2C, H, W], float32, float16, bfloat16 or float64")
    for name, tensor in (("weight", weight), ("bias", bias)):
        require(name, tensor, (x.shape[1] // 2,), (torch.float32, x.dtype), "x", x)
    if not 0 < eps < math.inf:
        raise ShapeError(f"eps is {eps}; it must be a finite number above 0.")
    if plain.this_thread.active:
        values, gate = x.chunk(2, dim=1)
        return F.group_norm(values, 1, weight.to(x.dtype), bias.to(x.dtype), eps) * gate.sigmoid()
    if differentiated(x, weight, bias):
        return glu_layer_norm_reference(x, weight, bias, eps)
    return _glu_layer_norm(x, weight, bias, eps, backend)


@torch.library.custom_op("zellige::glu_layer_norm", mutates_args=())
def _glu_layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float, backend: str | None) -> Tensor:
    backend = _backend(x, backend)
    y = _result(x)
    if x.numel() == 0:
        return y
    if backend == "reference":
        return y.copy_(glu_layer_norm_reference(x, weight, bias, eps))
    channels_last = is_channels_last(x)
    x = packed(x, channels_last)
    weight, bias = (t.to(torch.float32).contiguous() for t in (weight, bias))
    if backend == "triton":
        from .triton import glu_layer_norm_triton

        glu_layer_norm_triton(x, weight, bias, y, eps, channels_last)
    else:
        from .. import _native

        maps = in_memory_order(x, channels_last), weight.detach(), bias.detach(), in_memory_order(y, channels_last)
        _native.glu_layer_norm(*maps, eps, channels_last)
    return y


@_glu_layer_norm.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor, eps: float, backend: str | None) -> Tensor:
    return _result(x)


@torch.library.custom_op("zellige::glu_layer_norm_backward", mutates_args=())
def _glu_layer_norm_backward(
    gradient: Tensor, x: Tensor, weight: Tensor, bias: Tensor, eps: float, backend: str | None
) -> tuple[Tensor, Tensor, Tensor]:
    backend = _backend(x, backend)
    if backend == "reference" or x.numel() == 0:
        dx, dweight, dbias = glu_layer_norm_backward_reference(gradient, x, weight, bias, eps)
        return empty_like(x).copy_(dx), dweight.to(weight.dtype), dbias.to(bias.dtype)
    order = is_channels_last(x)
    gradient, x = packed(gradient, order), packed(x, order)
    a, b = (t.to(torch.float32).contiguous() for t in (weight, bias))
    if backend == "triton":
        from .triton import glu_layer_norm_backward_triton

        dx, dweight, dbias = glu_layer_norm_backward_triton(gradient, x, a, b, eps, order)
    else:
        from .. import _native

        dx, dweight, dbias = empty_like(x), torch.empty_like(a), torch.empty_like(b)
        maps = in_memory_order(gradient, order), in_memory_order(x, order), a.detach(), b.detach()
        _native.glu_layer_norm_backward(*maps, in_memory_order(dx, order), dweight, dbias, eps, order)
    return dx, dweight.to(weight.dtype), dbias.to(bias.dtype)


@_glu_layer_norm_backward.register_fake
def _(
    gradient: Tensor, x: Tensor, weight: Tensor, bias: Tensor, eps: float, backend: str | None
) -> tuple[Tensor, Tensor, Tensor]:
    return empty_like(x), weight.new_empty(weight.shape), bias.new_empty(bias.shape)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.eps, ctx.backend = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    tensors, needed = ctx.saved_tensors, ctx.needs_input_grad[:3]
    if torch.is_grad_enabled() or differentiated(gradient):  # the gradients are to be differentiated
        found = reference_gradients(
            lambda x, weight, bias: glu_layer_norm_reference(x, weight, bias, ctx.eps), tensors, needed, gradient
        )
    else:
        found = list(_glu_layer_norm_backward(gradient, *tensors, ctx.eps, ctx.backend))
    return *(t if need else None for t, need in zip(found, needed, strict=True)), None, None


_glu_layer_norm.register_autograd(_backward, setup_context=_remember)


def _result(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return empty_map(x, (n, c // 2, h, w))


def _backend(x: Tensor, backend: str | None) -> str:
    # The choice is made here because torch.compile would trace the search for backends in the public function.
    return choose_backend(x.device, backend, x.dtype, native=_NATIVE_DTYPES)
