"""The public function blur_noise_act: validation, registration with torch.library, and the choice of a backend."""

import torch
from torch import Tensor

from ..bias_noise_act.op import flat, require_layer
from ..op.dispatch import Backend, choose_backend
from ..op.gradients import differentiated, no_derivative, refuse_derivative
from ..op.layout import in_memory_order, packed
from ..op.validation import FLOATING, refuse, require
from .reference import blur_noise_act_reference

_NATIVE_DTYPES = (torch.float32, torch.bfloat16)


def blur_noise_act(
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
    """Filter a map that a transposed convolution of stride 2 made, then compute `bias_noise_act` of it.

    Along each axis b[h] = (x[h-1] + 3 x[h] + 3 x[h+1] + x[h+2]) / 4, with zeros outside. Then v = factor[n,c] * b +
    strength * noise + bias[c]; y = gain * (v if v >= 0 else slope * v), limited to [-clamp, clamp]. Sums are float32,
    rounded once. All backends add in one order, rows before columns, and give the same bits.

    It is for inference only: it has no derivative. It is for CPUs: GPUs run the reference.

    Args:
        x: [N, C, H + 1, W + 1], any strides, sides at least 2; float32, bfloat16, or float16 and float64 (reference
            only).
        bias: [C], float32 or x's dtype.
        noise: [N, 1, H, W], or [1, 1, H, W] for all samples; float32 or x's dtype; or None.
        strength: [] or [1], float32 or x's dtype; None if noise is None.
        factor: [N, C], float32 or x's dtype, such as the factors of demodulation; None for 1.
        slope: factor of negative values.
        gain: factor of all values.
        clamp: bound of the result, above 0; None for none.
        backend: forces "native" (float32 and bfloat16) or "reference"; None takes the best one.

    Returns:
        [N, C, H, W], x's dtype, always channels-last. NaN stays NaN, and reaches the 16 pixels that read it.

    Raises:
        ShapeError: an argument has a rank, size, dtype, device or value that is not listed above, or noise and strength
            are not given together.
        DeviceError: the backend asked for cannot run here.

    Source: StyleGAN2's layers behind their up-convolutions (Karras et al. 2020).
    """
    if x.dim() != 4 or x.dtype not in FLOATING or min(x.shape[2:]) < 2:
        refuse("x", x, "[N, C, H + 1, W + 1], sides at least 2, float32, float16, bfloat16 or float64")
    n, c, h, w = x.shape
    require("bias", bias, (c,), (torch.float32, x.dtype), "x", x)
    require_layer(x.new_empty(()).expand(n, c, h - 1, w - 1), noise, strength, factor, clamp)
    if differentiated(x, bias, noise, strength, factor):
        refuse_derivative("blur_noise_act")
    return _blur_noise_act(x, bias, noise, strength, factor, slope, gain, clamp, backend)


@torch.library.custom_op("zellige::blur_noise_act", mutates_args=())
def _blur_noise_act(
    x: Tensor, bias: Tensor, noise: Tensor | None, strength: Tensor | None, factor: Tensor | None, slope: float,
    gain: float, clamp: float | None, backend: str | None,
) -> Tensor:  # fmt: skip
    # The choice is made here because torch.compile would trace the search for backends in the public function.
    backend, y = choose_backend(x.device, backend, x.dtype, native=_NATIVE_DTYPES, triton=()), _result(x)
    if backend == "reference":
        return y.copy_(blur_noise_act_reference(x, bias, noise, strength, factor, slope, gain, clamp))
    if x.numel() == 0:
        return y
    from .. import _native

    _native.blur_noise_act(
        in_memory_order(packed(x, True), True), flat(bias), None if noise is None else flat(noise),
        0.0 if strength is None else strength.item(), None if factor is None else flat(factor), slope, gain,
        torch.inf if clamp is None else clamp, in_memory_order(y, True),
    )  # fmt: skip
    return y


@_blur_noise_act.register_fake
def _(
    x: Tensor, bias: Tensor, noise: Tensor | None, strength: Tensor | None, factor: Tensor | None, slope: float,
    gain: float, clamp: float | None, backend: str | None,
) -> Tensor:  # fmt: skip
    return _result(x)


_blur_noise_act.register_autograd(no_derivative("blur_noise_act"))


def _result(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    shape = (n, c, h - 1, w - 1)
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
