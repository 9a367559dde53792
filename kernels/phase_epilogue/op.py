"""The public function phase_epilogue: validation, registration with torch.library, and the choice of a backend."""

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from zellige.errors import ShapeError

from ..affine_relu import affine_relu
from ..glu_layer_norm import glu_layer_norm
from ..op import plain
from ..op.dispatch import Backend, choose_backend
from ..op.gradients import differentiated, no_derivative, refuse_derivative
from ..op.layout import empty_map, in_memory_order, is_channels_last, packed
from ..op.validation import FLOATING, refuse, require
from .reference import phase_epilogue_reference

_NATIVE_DTYPES = (torch.float32, torch.bfloat16)
_HALVES = {"glu_layer_norm": 2, "affine_relu": 1}  # channels that make one channel of the result


def phase_epilogue(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    activation: Literal["glu_layer_norm", "affine_relu"] = "glu_layer_norm",
    eps: float = 1e-5,
    *,
    backend: Backend | None = None,
) -> Tensor:
    """Put the four phases of an up-convolution together, and activate them in the same pass.

    Nearest x2 before a 3x3 convolution equals four 2x2 convolutions on the small map, whose results are the phases of
    the large one: u[2h + i, 2w + j] = x[p, h, w] with p = 2i + j, where i is the row phase, j the column phase, and
    phase p has the channels p K to (p + 1) K - 1. The result is affine_relu(u, weight, bias) with K = C, or
    glu_layer_norm(u, weight, bias, eps) with K = 2C, whose statistics run over all four phases. Each is as exact as the
    function of its name. u itself is never stored.

    It is for inference only: it has no derivative.

    No network uses it yet. It waits for the decoders of key patches, whose 4x4 transposed convolutions of stride 2 are
    four 2x2 ones in front of a folded batch norm and a ReLU. OneGAN's up-convolutions are faster with `winograd_conv`
    on CPUs; on GPUs nobody has measured them.

    Args:
        x: [N, 4K, H, W], phase by phase, any strides; float32, float16, bfloat16, or float64 (reference only).
        weight, bias: float32 or x's dtype. [C] for "glu_layer_norm"; [N, C], scale and shift, for "affine_relu".
        activation: "glu_layer_norm" or "affine_relu".
        eps: above 0, added to the variance; "affine_relu" has none and ignores it.
        backend: forces "triton", "native" (float32 and bfloat16) or "reference"; None takes the device's best one.

    Returns:
        [N, C, 2H, 2W], x's dtype, channels-last if x is. NaN spreads as in the activation.

    Raises:
        ShapeError: an argument has a rank, size, dtype or device that is not listed above, eps is not above 0, or the
            activation is not one of the two.
        DeviceError: the backend asked for cannot run here.

    Source: this project; the four phases are sub-pixel convolution (Shi et al. 2016).
    """
    if activation not in _HALVES:
        raise ShapeError(f"activation is {activation!r}; it must be one of {', '.join(map(repr, _HALVES))}.")
    multiple = 4 * _HALVES[activation]
    if x.dim() != 4 or x.shape[1] % multiple or x.dtype not in FLOATING:
        refuse("x", x, f"[N, {multiple}C, H, W] for {activation}, float32, float16, bfloat16 or float64")
    samples, channels = x.shape[0], x.shape[1] // multiple
    for name, tensor in (("weight", weight), ("bias", bias)):
        shape = (channels,) if activation == "glu_layer_norm" else (samples, channels)
        require(name, tensor, shape, (torch.float32, x.dtype), "x", x)
    if not 0 < eps < math.inf:
        raise ShapeError(f"eps is {eps}; it must be a finite number above 0.")
    if plain.this_thread.active:
        whole = F.pixel_shuffle(x.unflatten(1, (4, -1)).transpose(1, 2).flatten(1, 2), 2)
        by_map = activation == "glu_layer_norm"
        return glu_layer_norm(whole, weight, bias, eps) if by_map else affine_relu(whole, weight, bias)
    if differentiated(x, weight, bias):
        refuse_derivative("phase_epilogue")
    return _phase_epilogue(x, weight, bias, activation, eps, backend)


@torch.library.custom_op("zellige::phase_epilogue", mutates_args=())
def _phase_epilogue(
    x: Tensor, weight: Tensor, bias: Tensor, activation: str, eps: float, backend: str | None
) -> Tensor:
    # The choice is made here because torch.compile would trace the search for backends in the public function.
    backend = choose_backend(x.device, backend, x.dtype, native=_NATIVE_DTYPES)
    y = _result(x, activation)
    if x.numel() == 0:
        return y
    if backend == "reference":
        return y.copy_(phase_epilogue_reference(x, weight, bias, activation, eps))
    channels_last, gated = is_channels_last(x), activation == "glu_layer_norm"
    x = packed(x, channels_last)
    weight, bias = (t.to(torch.float32).contiguous() for t in (weight, bias))
    if backend == "triton":
        from .triton import phase_epilogue_triton

        phase_epilogue_triton(x, weight, bias, y, gated, eps, channels_last)
    else:
        from .. import _native

        maps = (
            in_memory_order(x, channels_last),
            weight.detach().flatten(),
            bias.detach().flatten(),
            in_memory_order(y, channels_last),
        )
        _native.phase_epilogue(*maps, gated, eps, channels_last)
    return y


@_phase_epilogue.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor, activation: str, eps: float, backend: str | None) -> Tensor:
    return _result(x, activation)


_phase_epilogue.register_autograd(no_derivative("phase_epilogue"))


def _result(x: Tensor, activation: str) -> Tensor:
    n, channels, h, w = x.shape
    return empty_map(x, (n, channels // (4 * _HALVES[activation]), 2 * h, 2 * w))
