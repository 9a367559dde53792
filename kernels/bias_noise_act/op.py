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
from .reference import bias_noise_act_backward_reference, bias_noise_act_reference, noise_gradients

_NATIVE_DTYPES = (torch.float32, torch.bfloat16)


def bias_noise_act(
    x: Tensor,
    bias: Tensor,
    noise: Tensor | None = None,
    strength: Tensor | None = None,
    *,
    slope: float = 0.2,
    gain: float = 2**0.5,
    backend: Backend | None = None,
) -> Tensor:
    """Add noise and a bias to every channel, apply leaky ReLU, and multiply by a gain.

    v = x + strength * noise + bias[c]; y = gain * (v if v >= 0 else slope * v), in float32, rounded once. All backends
    add in this order and give the same bits.

    It is differentiable in x, bias, noise and strength any number of times: gradients of gradients, forward mode and
    torch.func go through the reference.

    Args:
        x: [N, C, H, W], any strides; float32, float16, bfloat16, or float64 (reference only).
        bias: [C], float32 or x's dtype.
        noise: [N, 1, H, W], or [1, 1, H, W] for all samples; float32 or x's dtype; or None.
        strength: [] or [1], float32 or x's dtype; None if noise is None.
        slope: factor of negative values.
        gain: factor of all values.
        backend: forces "triton", "native" (float32 and bfloat16) or "reference"; None takes the device's best one.

    Returns:
        [N, C, H, W], x's dtype, channels-last if x is. NaN stays NaN.

    Raises:
        ShapeError: an argument has a rank, size, dtype or device that is not listed above, or noise and strength are
            not given together.
        DeviceError: the backend asked for cannot run here.

    Source: StyleGAN2's layers after their convolutions (Karras et al. 2020).
    """
    if x.dim() != 4 or x.dtype not in FLOATING:
        refuse("x", x, "[N, C, H, W], float32, float16, bfloat16 or float64")
    require("bias", bias, x.shape[1:2], (torch.float32, x.dtype), "x", x)
    if (noise is None) != (strength is None):
        names = ("strength", "noise") if noise is None else ("noise", "strength")
        raise ShapeError(f"{names[0]} is given and {names[1]} is None; give both or neither.")
    n, _, h, w = x.shape
    for name, tensor, shapes in (("noise", noise, ([n, 1, h, w], [1, 1, h, w])), ("strength", strength, ([], [1]))):
        if tensor is not None:
            _require_either(name, tensor, shapes, x)
    if plain.this_thread.active:
        specks = 0 if noise is None or strength is None else (noise * strength).to(x.dtype)
        return F.leaky_relu(x + specks + bias.to(x.dtype)[:, None, None], slope) * gain
    if differentiated(x, bias, noise, strength):
        return bias_noise_act_reference(x, bias, noise, strength, slope, gain)
    return _bias_noise_act(x, bias, noise, strength, slope, gain, backend)


@torch.library.custom_op("zellige::bias_noise_act", mutates_args=())
def _bias_noise_act(
    x: Tensor,
    bias: Tensor,
    noise: Tensor | None,
    strength: Tensor | None,
    slope: float,
    gain: float,
    backend: str | None,
) -> Tensor:
    backend, y = _backend(x, backend), empty_like(x)
    if backend == "reference":
        return y.copy_(bias_noise_act_reference(x, bias, noise, strength, slope, gain))
    if x.numel() == 0:
        return y
    channels_last = is_channels_last(x)
    x, bias, noise = packed(x, channels_last), _flat(bias), None if noise is None else _flat(noise)
    if backend == "triton":
        from .triton import bias_noise_act_triton

        bias_noise_act_triton(x, bias, noise, strength, y, slope, gain, channels_last)
    else:
        from .. import _native

        _native.bias_noise_act(
            in_memory_order(x, channels_last), bias, noise, 0.0 if strength is None else strength.item(), slope, gain,
            in_memory_order(y, channels_last), channels_last,
        )  # fmt: skip
    return y


@_bias_noise_act.register_fake
def _(
    x: Tensor,
    bias: Tensor,
    noise: Tensor | None,
    strength: Tensor | None,
    slope: float,
    gain: float,
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
        biases, specks = _flat(bias), None if noise is None else _flat(noise)
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
    *tensors, ctx.slope, ctx.gain, ctx.backend = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    tensors, needed = ctx.saved_tensors, ctx.needs_input_grad[:4]
    given = 2 if tensors[2] is None else 4  # noise and strength are None together
    found: list[Tensor | None]
    if torch.is_grad_enabled() or differentiated(gradient):  # the gradients are to be differentiated

        def again(x: Tensor, bias: Tensor, noise: Tensor | None = None, strength: Tensor | None = None) -> Tensor:
            return bias_noise_act_reference(x, bias, noise, strength, ctx.slope, ctx.gain)

        found = reference_gradients(again, tensors[:given], needed[:given], gradient)
    else:
        found = [*_bias_noise_act_backward(gradient, *tensors, ctx.slope, ctx.gain, ctx.backend)]
    found += [None] * (4 - given)
    return *(t if need else None for t, need in zip(found, needed, strict=True)), None, None, None


_bias_noise_act.register_autograd(_backward, setup_context=_remember)


def _require_either(name: str, tensor: Tensor, shapes: tuple[list[int], list[int]], x: Tensor) -> None:
    if list(tensor.shape) not in shapes or tensor.dtype not in (torch.float32, x.dtype):
        dtypes = " or ".join(dict.fromkeys(dtype_name(dtype) for dtype in (torch.float32, x.dtype)))
        refuse(name, tensor, f"{shapes[0]} or {shapes[1]}, {dtypes}, for x of shape {list(x.shape)}")
    require_same_device(name, tensor, "x", x)


def _flat(x: Tensor) -> Tensor:
    """Return a bias as float32 [C], and noise as float32 [N or 1, H * W], without gaps."""
    x = x.to(torch.float32).contiguous()
    return x.flatten(1) if x.dim() == 4 else x


def _backend(x: Tensor, backend: str | None) -> str:
    # The choice is made here because torch.compile would trace the search for backends in the public function.
    return choose_backend(x.device, backend, x.dtype, native=_NATIVE_DTYPES)
