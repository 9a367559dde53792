"""The public function mask_composite: validation, registration with torch.library, and the choice of a backend."""

from typing import Any, Literal

import torch
from torch import Tensor

from zellige.errors import ShapeError

from ..op import plain
from ..op.dispatch import Backend, choose_backend
from ..op.gradients import differentiated, reference_gradients
from ..op.layout import empty_like, in_memory_order, is_channels_last, packed
from ..op.levels import bytes_of
from ..op.validation import FLOATING, refuse, require
from .reference import mask_composite_backward_reference, mask_composite_reference

_NATIVE_DTYPES = (torch.float32, torch.bfloat16)
_OUTPUTS = ("float", "uint8")


def mask_composite(
    foreground: Tensor,
    background: Tensor,
    mask: Tensor,
    *,
    logits: bool = True,
    output: Literal["float", "uint8"] = "float",
    backend: Backend | None = None,
) -> Tensor:
    """Lay a foreground over a background under a mask, from the raw outputs of a generator's heads.

    y = tanh(f) s + tanh(b) (1 - s) with s = sigmoid(m) for every pixel, or y = f m + b (1 - m) on finished images; in
    float32, rounded once. A byte is round((y + 1) * 127.5), half to even, limited to [0, 255]. From logits the "native"
    backend computes bfloat16 images, but not bytes, within 1e-4 before it rounds.

    With output="float" it is differentiable any number of times: gradients of gradients, forward mode and torch.func
    go through the reference. Bytes require no gradient, even if the arguments do.

    Args:
        foreground, background: f and b, [N, C, H, W], 1 to 4 channels, any strides; float32, float16, bfloat16, or
            float64 (reference only).
        mask: m, [N, 1, H, W], foreground's dtype, any strides.
        logits: True for raw outputs of heads, False for finished images and a mask from 0 to 1.
        output: "float" for y, "uint8" for bytes.
        backend: forces "triton", "native" (float32 and bfloat16) or "reference"; None takes the device's best one.

    Returns:
        [N, C, H, W], foreground's dtype, channels-last if foreground is; or bytes [N, H, W, C], contiguous. NaN stays
        NaN, and becomes byte 0.

    Raises:
        ShapeError: an argument has a rank, size, dtype or device that is not listed above.
        DeviceError: the backend asked for cannot run here.

    Source: the last step of OneGAN's generator, fused by this project.
    """
    if foreground.dim() != 4 or foreground.dtype not in FLOATING or not 1 <= foreground.shape[1] <= 4:
        refuse("foreground", foreground, "[N, C, H, W] with 1 to 4 channels, float32, float16, bfloat16 or float64")
    n, _, h, w = foreground.shape
    for name, tensor, shape in (("background", background, foreground.shape), ("mask", mask, (n, 1, h, w))):
        require(name, tensor, shape, (foreground.dtype,), "foreground", foreground)
    if output not in _OUTPUTS:
        raise ShapeError(f"output is {output!r}; it must be 'float' or 'uint8'.")
    if plain.this_thread.active:
        if logits:
            foreground, background, mask = foreground.tanh(), background.tanh(), mask.sigmoid()
        # The mask is spread out because OpenCV 5.0 cannot transpose a product with a factor of a single channel.
        y = background + (foreground - background) * mask.expand_as(foreground)
        return y if output == "float" else bytes_of(y.float().permute(0, 2, 3, 1)).contiguous()
    if differentiated(foreground, background, mask):
        return mask_composite_reference(foreground, background, mask, logits, output)
    return _mask_composite(foreground, background, mask, logits, output, backend)


@torch.library.custom_op("zellige::mask_composite", mutates_args=())
def _mask_composite(
    foreground: Tensor, background: Tensor, mask: Tensor, logits: bool, output: str, backend: str | None
) -> Tensor:
    backend, y = _backend(foreground, backend), _result(foreground, output)
    if backend == "reference" or y.numel() == 0:
        return y.copy_(mask_composite_reference(foreground, background, mask, logits, output))
    order = is_channels_last(foreground)
    foreground, background, mask = packed(foreground, order), packed(background, order), mask.contiguous()
    if backend == "triton":
        from .triton import mask_composite_triton

        mask_composite_triton(foreground, background, mask, y, logits, order)
    else:
        from .. import _native

        into = y if output == "uint8" else in_memory_order(y, order)
        front, back = in_memory_order(foreground, order), in_memory_order(background, order)
        _native.mask_composite(front, back, mask.detach(), into, logits, order)
    return y


@_mask_composite.register_fake
def _(foreground: Tensor, background: Tensor, mask: Tensor, logits: bool, output: str, backend: str | None) -> Tensor:
    return _result(foreground, output)


@torch.library.custom_op("zellige::mask_composite_backward", mutates_args=())
def _mask_composite_backward(
    gradient: Tensor, foreground: Tensor, background: Tensor, mask: Tensor, logits: bool, backend: str | None
) -> tuple[Tensor, Tensor, Tensor]:
    backend = _backend(foreground, backend)
    found = empty_like(foreground), empty_like(foreground), mask.new_empty(mask.shape)
    if backend == "reference" or foreground.numel() == 0:
        exact = mask_composite_backward_reference(gradient, foreground, background, mask, logits)
        for into, values in zip(found, exact, strict=True):
            into.copy_(values)
        return found
    order = is_channels_last(foreground)
    gradient, foreground, background = (packed(t, order) for t in (gradient, foreground, background))
    mask, (d_foreground, d_background, d_mask) = mask.contiguous(), found
    if backend == "triton":
        from .triton import mask_composite_backward_triton

        mask_composite_backward_triton(
            gradient, foreground, background, mask, d_foreground, d_background, d_mask, logits, order
        )
    else:
        from .. import _native

        front, back = in_memory_order(foreground, order), in_memory_order(background, order)
        results = in_memory_order(d_foreground, order), in_memory_order(d_background, order), d_mask
        _native.mask_composite_backward(
            in_memory_order(gradient, order), front, back, mask.detach(), *results, logits, order
        )
    return found


@_mask_composite_backward.register_fake
def _(
    gradient: Tensor, foreground: Tensor, background: Tensor, mask: Tensor, logits: bool, backend: str | None
) -> tuple[Tensor, Tensor, Tensor]:
    return empty_like(foreground), empty_like(foreground), mask.new_empty(mask.shape)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.logits, _, ctx.backend = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    tensors, needed = ctx.saved_tensors, ctx.needs_input_grad[:3]
    if torch.is_grad_enabled() or differentiated(gradient):  # the gradients are to be differentiated
        found = reference_gradients(
            lambda f, b, m: mask_composite_reference(f, b, m, ctx.logits), tensors, needed, gradient
        )
    else:
        found = list(_mask_composite_backward(gradient, *tensors, ctx.logits, ctx.backend))
    return *(t if need else None for t, need in zip(found, needed, strict=True)), None, None, None


_mask_composite.register_autograd(_backward, setup_context=_remember)


def _result(foreground: Tensor, output: str) -> Tensor:
    n, c, h, w = foreground.shape
    return empty_like(foreground) if output == "float" else foreground.new_empty((n, h, w, c), dtype=torch.uint8)


def _backend(foreground: Tensor, backend: str | None) -> str:
    # The choice is made here because torch.compile would trace the search for backends in the public function.
    return choose_backend(foreground.device, backend, foreground.dtype, native=_NATIVE_DTYPES)
