"""The public function bias_noise_act: validation, registration with torch.library, and the choice of a backend."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from zellige.errors import ShapeError

from ..op import plain
from ..op.dispatch import Backend, choose_backend
from ..op.gradients import differentiated, reference_gradients
from ..op.layout import empty_like, in_memory_order, is_channels_last, packed
from ..op.validation import FLOATING, dtype_name, refuse, require, require_same_device
from .reference import (
    bias_noise_act_backward_reference,
    bias_noise_act_reference,
    noise_gradients,
    outside,
    scaled,
)

_NATIVE_DTYPES = (torch.float32, torch.bfloat16)


def bias_noise_act(
    x: Tensor,
    bias: Tensor,
    noise: Tensor | None = None,
    strength: Tensor | None = None,
    *,
    factor: Tensor | None = None,
    slope: float = 0.2,
    gain: float = 2**0.5,
    clamp: float | None = None,
    backend: Backend | None = None,
) -> Tensor:
    """Scale every channel, add noise and a bias to it, apply leaky ReLU, multiply by a gain and clamp.

    v = factor[n,c] * x + strength * noise + bias[c]; y = gain * (v if v >= 0 else slope * v), limited to [-clamp,
    clamp]; in float32, rounded once. All backends compute in this order and give the same bits.

    It is differentiable in x, bias, noise, strength and factor any number of times: gradients of gradients, forward
    mode and torch.func go through the reference. With a factor or a clamp, gradients make passes of their own for them.
    No gradient goes through values that the clamp changed.

    Args:
        x: [N, C, H, W], any strides; float32, float16, bfloat16, or float64 (reference only).
        bias: [C], float32 or x's dtype.
        noise: [N, 1, H, W], or [1, 1, H, W] for all samples; float32 or x's dtype; or None.
        strength: [] or [1], float32 or x's dtype; None if noise is None.
        factor: [N, C], float32 or x's dtype, such as the factors of demodulation; None for 1.
        slope: factor of negative values.
        gain: factor of all values.
        clamp: bound of the result, above 0; None for none.
        backend: forces "triton", "native" (float32 and bfloat16) or "reference"; None takes the device's best one.

    Returns:
        [N, C, H, W], x's dtype, channels-last if x is. NaN stays NaN.

    Raises:
        ShapeError: an argument has a rank, size, dtype, device or value that is not listed above, or noise and strength
            are not given together.
        DeviceError: the backend asked for cannot run here.

    Source: StyleGAN2's layers after their convolutions (Karras et al. 2020).
    """
    if x.dim() != 4 or x.dtype not in FLOATING:
        refuse("x", x, "[N, C, H, W], float32, float16, bfloat16 or float64")
    require("bias", bias, x.shape[1:2], (torch.float32, x.dtype), "x", x)
    require_layer(x, noise, strength, factor, clamp)
    if plain.this_thread.active:
        specks = 0 if noise is None or strength is None else (noise * strength).to(x.dtype)
        value = x if factor is None else x * factor.to(x.dtype)[:, :, None, None]
        y = F.leaky_relu(value + specks + bias.to(x.dtype)[:, None, None], slope) * gain
        return y if clamp is None else y.clamp(-clamp, clamp)
    if differentiated(x, bias, noise, strength, factor):
        return bias_noise_act_reference(x, bias, noise, strength, factor, slope, gain, clamp)
    return _bias_noise_act(x, bias, noise, strength, factor, slope, gain, clamp, backend)


def require_layer(
    x: Tensor, noise: Tensor | None, strength: Tensor | None, factor: Tensor | None, clamp: float | None
) -> None:
    """Refuse what does not fit a map x; all arguments are those of `bias_noise_act`."""
    if (noise is None) != (strength is None):
        names = ("strength", "noise") if noise is None else ("noise", "strength")
        raise ShapeError(f"{names[0]} is given and {names[1]} is None; give both or neither.")
    n, _, h, w = x.shape
    for name, tensor, shapes in (("noise", noise, ([n, 1, h, w], [1, 1, h, w])), ("strength", strength, ([], [1]))):
        if tensor is not None:
            _require_either(name, tensor, shapes, x)
    if factor is not None:
        require("factor", factor, x.shape[:2], (torch.float32, x.dtype), "x", x)
    if clamp is not None and not clamp > 0:
        raise ShapeError(f"clamp is {clamp}; it must be a number above 0, or None.")


@torch.library.custom_op("zellige::bias_noise_act", mutates_args=())
def _bias_noise_act(
    x: Tensor,
    bias: Tensor,
    noise: Tensor | None,
    strength: Tensor | None,
    factor: Tensor | None,
    slope: float,
    gain: float,
    clamp: float | None,
    backend: str | None,
) -> Tensor:
    backend, y = _backend(x, backend), empty_like(x)
    if backend == "reference":
        return y.copy_(bias_noise_act_reference(x, bias, noise, strength, factor, slope, gain, clamp))
    if x.numel() == 0:
        return y
    channels_last = is_channels_last(x)
    x, bias, noise = packed(x, channels_last), flat(bias), None if noise is None else flat(noise)
    factor = None if factor is None else flat(factor)
    bound = torch.inf if clamp is None else clamp
    if backend == "triton":
        from .triton import bias_noise_act_triton

        bias_noise_act_triton(x, bias, noise, strength, factor, y, slope, gain, bound, channels_last)
    else:
        from .. import _native

        _native.bias_noise_act(
            in_memory_order(x, channels_last), bias, noise, 0.0 if strength is None else strength.item(), factor,
            slope, gain, bound, in_memory_order(y, channels_last), channels_last,
        )  # fmt: skip
    return y


@_bias_noise_act.register_fake
def _(
    x: Tensor,
    bias: Tensor,
    noise: Tensor | None,
    strength: Tensor | None,
    factor: Tensor | None,
    slope: float,
    gain: float,
    clamp: float | None,
    backend: str | None,
) -> Tensor:
    return empty_like(x)


@torch.library.custom_op("zellige::bias_noise_act_backward", mutates_args=())
def _bias_noise_act_backward(
    gradient: Tensor,
    x: Tensor,
    bias: Tensor,
    noise: Tensor | None,
    strength: Tensor | None,
    slope: float,
    gain: float,
    backend: str | None,
) -> list[Tensor]:
    backend, over_channels = _backend(x, backend), None
    if backend == "reference" or x.numel() == 0:
        wide = (gradient, x, bias, noise, strength)
        dx, dbias, over_channels = bias_noise_act_backward_reference(*wide, slope, gain)
        dx = empty_like(x).copy_(dx)
    else:
        order = is_channels_last(x)
        gradient, x = packed(gradient, order), packed(x, order)
        biases, specks = flat(bias), None if noise is None else flat(noise)
        if backend == "triton":
            from .triton import bias_noise_act_backward_triton

            dx, dbias, over_channels = bias_noise_act_backward_triton(
                gradient, x, biases, specks, strength, slope, gain, order
            )
        else:
            from .. import _native

            dx, dbias = empty_like(x), torch.empty_like(biases)
            if noise is not None:
                over_channels = biases.new_empty((x.shape[0], *x.shape[2:]))
            _native.bias_noise_act_backward(
                in_memory_order(gradient, order), in_memory_order(x, order), biases, specks,
                0.0 if strength is None else strength.item(), slope, gain, in_memory_order(dx, order), dbias,
                over_channels, order,
            )  # fmt: skip
    found = [dx, dbias.to(bias.dtype)]
    if noise is not None and strength is not None and over_channels is not None:
        dnoise, dstrength = noise_gradients(over_channels, noise, strength)
        found += [dnoise.to(noise.dtype), dstrength.to(strength.dtype)]
    return found


@_bias_noise_act_backward.register_fake
def _(
    gradient: Tensor,
    x: Tensor,
    bias: Tensor,
    noise: Tensor | None,
    strength: Tensor | None,
    slope: float,
    gain: float,
    backend: str | None,
) -> list[Tensor]:
    others = (t for t in (bias, noise, strength) if t is not None)
    return [empty_like(x), *(t.new_empty(t.shape) for t in others)]


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.slope, ctx.gain, ctx.clamp, ctx.backend = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    tensors, needed = ctx.saved_tensors, ctx.needs_input_grad[:5]
    found: list[Tensor | None] = [None] * 5
    given = [k for k, t in enumerate(tensors) if t is not None]
    if torch.is_grad_enabled() or differentiated(gradient):  # the gradients are to be differentiated

        def again(*inputs: Tensor) -> Tensor:
            five = dict(zip(given, inputs, strict=True))
            x, bias, noise, strength, factor = (five.get(k) for k in range(5))
            assert x is not None and bias is not None
            return bias_noise_act_reference(x, bias, noise, strength, factor, ctx.slope, ctx.gain, ctx.clamp)

        gradients = reference_gradients(again, [tensors[k] for k in given], [needed[k] for k in given], gradient)
        for k, t in zip(given, gradients, strict=True):
            found[k] = t
    else:
        *four, factor = tensors
        found[:4] = _gradients(gradient, four, factor, ctx)
        wide = found[0]
        if factor is not None and wide is not None:
            found[4] = (wide * tensors[0].to(wide.dtype)).sum((2, 3)).to(factor.dtype)
            found[0] = scaled(wide, factor).to(tensors[0].dtype)
    return *(t if need else None for t, need in zip(found, needed, strict=True)), None, None, None, None


def _gradients(gradient: Tensor, tensors: list[Any], factor: Tensor | None, ctx: Any) -> list[Tensor | None]:
    """The gradients of x times the factor, bias, noise and strength; with a factor the first is not rounded yet."""
    x, *others = tensors
    if factor is None and ctx.clamp is None:
        return _four(_bias_noise_act_backward(gradient, x, *others, ctx.slope, ctx.gain, ctx.backend))
    wide = x.to(torch.promote_types(x.dtype, torch.float32)) if factor is None else scaled(x, factor)
    gradient = gradient.to(wide.dtype)
    bias, noise, strength = (None if t is None else t.to(wide.dtype) for t in others)
    assert bias is not None
    if ctx.clamp is not None:
        y = bias_noise_act_reference(wide, bias, noise, strength, None, ctx.slope, ctx.gain, None)
        gradient = gradient.masked_fill(outside(y, ctx.clamp), 0.0)
    dx, *rest = _bias_noise_act_backward(gradient, wide, bias, noise, strength, ctx.slope, ctx.gain, ctx.backend)
    rest = [t.to(given.dtype) for t, given in zip(rest, others, strict=False)]  # noise and strength may be missing
    return _four([dx if factor is not None else dx.to(x.dtype), *rest])


def _four(gradients: list[Tensor]) -> list[Tensor | None]:
    return [*gradients, *[None] * (4 - len(gradients))]


_bias_noise_act.register_autograd(_backward, setup_context=_remember)


def _require_either(name: str, tensor: Tensor, shapes: tuple[list[int], list[int]], x: Tensor) -> None:
    if list(tensor.shape) not in shapes or tensor.dtype not in (torch.float32, x.dtype):
        dtypes = " or ".join(dict.fromkeys(dtype_name(dtype) for dtype in (torch.float32, x.dtype)))
        refuse(name, tensor, f"{shapes[0]} or {shapes[1]}, {dtypes}, for x of shape {list(x.shape)}")
    require_same_device(name, tensor, "x", x)


def flat(x: Tensor) -> Tensor:
    """Return biases and factors as float32, and noise as float32 [N or 1, H * W], without gaps."""
    x = x.detach().to(torch.float32).contiguous()
    return x.flatten(1) if x.dim() == 4 else x


def _backend(x: Tensor, backend: str | None) -> str:
    # The choice is made here because torch.compile would trace the search for backends in the public function.
    return choose_backend(x.device, backend, x.dtype, native=_NATIVE_DTYPES)
