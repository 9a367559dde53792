"""mask_composite in tiles that store along memory: pixels of all planes, or values of interleaved pixels."""

from collections.abc import Iterator
from itertools import product

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..triton.tiles import place
from ..triton.tuning import STREAMING, size_class, tuned
from ..triton.variants import FLOATS, Variant, with_wide


def mask_composite_triton(
    foreground: Tensor, background: Tensor, mask: Tensor, y: Tensor, logits: bool, channels_last: bool
) -> None:
    """Compute y from packed maps and a contiguous mask; its dtype says whether it is a map or bytes [N, H, W, C]."""
    n, channels, rows, columns = foreground.shape
    by_value = channels_last or y.dtype == torch.uint8
    kernel = _values if by_value else _planes
    length = rows * columns * (channels if by_value else 1)
    kernel[lambda chosen: (n * triton.cdiv(length, chosen["VALUES"]),)](
        foreground, background, mask, length, y, CHANNELS=channels, LOGITS=logits, CHANNELS_LAST=channels_last,
        BYTES=y.dtype == torch.uint8, SIZE=size_class(y.numel()),
        # Without fused multiply-adds finished images have the reference's bits. No time is lost: memory is the limit.
        enable_fp_fusion=False,
    )  # fmt: skip


def mask_composite_backward_triton(
    gradient: Tensor,
    foreground: Tensor,
    background: Tensor,
    mask: Tensor,
    d_foreground: Tensor,
    d_background: Tensor,
    d_mask: Tensor,
    logits: bool,
    channels_last: bool,
) -> None:
    """Compute the gradients of foreground, background and mask; maps are packed, mask and d_mask contiguous."""
    n, channels, rows, columns = foreground.shape
    _backward[lambda chosen: (n * triton.cdiv(rows * columns, chosen["VALUES"]),)](
        gradient, foreground, background, mask, d_foreground, d_background, d_mask, rows * columns,
        CHANNELS=channels, LOGITS=logits, CHANNELS_LAST=channels_last, SIZE=size_class(gradient.numel()),
        enable_fp_fusion=False,
    )  # fmt: skip


@triton.jit
def _tanh(x):
    # Near 0 the quotient would lose digits; a polynomial in x^2 is used (minimax up to 0.625, relative error 4e-9).
    square = x * x
    p = -0.005717045161873102 * square + 0.02065058797597885
    p = p * square - 0.05374349653720856
    p = p * square + 0.13331490755081177
    p = p * square - 0.3333328366279602
    size = tl.abs(x)
    far = 1.0 - 2.0 / (tl.exp(2.0 * size) + 1.0)
    # Comparisons with NaN are false, so NaN goes through the polynomial and stays NaN.
    return tl.where(size >= 0.625, tl.where(x < 0.0, -far, far), x + x * (p * square))


@triton.jit
def _shares(mask, LOGITS: tl.constexpr):
    if LOGITS:
        # sigmoid(m) and sigmoid(-m) are computed both, because 1 - sigmoid(m) would lose digits.
        e = tl.exp(-tl.abs(mask))
        large = 1.0 / (1.0 + e)
        small = e * large
        return tl.where(mask < 0.0, small, large), tl.where(mask < 0.0, large, small)
    return mask, 1.0 - mask


@triton.jit
def _images(foreground, background, at, inside, LOGITS: tl.constexpr):
    front = tl.load(foreground + at, mask=inside, other=0.0).to(tl.float32)
    back = tl.load(background + at, mask=inside, other=0.0).to(tl.float32)
    if LOGITS:
        return _tanh(front), _tanh(back)
    return front, back


@tuned(STREAMING, "LOGITS", "CHANNELS_LAST", "SIZE")
@triton.jit
def _planes(
    foreground,
    background,
    mask,
    pixels,
    y,
    CHANNELS: tl.constexpr,
    LOGITS: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    BYTES: tl.constexpr,
    SIZE: tl.constexpr,
    VALUES: tl.constexpr,
):
    sample, _, pixel = place(1, pixels, 1, VALUES)
    pixel += tl.arange(0, VALUES)
    inside = pixel < pixels
    m = tl.load(mask + sample * pixels + pixel, mask=inside, other=0.0).to(tl.float32)
    share, rest = _shares(m, LOGITS)
    for channel in tl.static_range(CHANNELS):
        at = (sample * CHANNELS + channel) * pixels + pixel
        front, back = _images(foreground, background, at, inside, LOGITS)
        tl.store(y + at, (front * share + back * rest).to(y.dtype.element_ty), mask=inside)


@tuned(STREAMING, "LOGITS", "CHANNELS_LAST", "SIZE")
@triton.jit
def _values(
    foreground,
    background,
    mask,
    values,
    y,
    CHANNELS: tl.constexpr,
    LOGITS: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    BYTES: tl.constexpr,
    SIZE: tl.constexpr,
    VALUES: tl.constexpr,
):
    sample, _, value = place(1, values, 1, VALUES)
    value += tl.arange(0, VALUES)
    inside = value < values
    pixels = values // CHANNELS
    pixel = value // CHANNELS
    start = sample * values
    m = tl.load(mask + sample * pixels + pixel, mask=inside, other=0.0).to(tl.float32)
    share, rest = _shares(m, LOGITS)
    at = start + value if CHANNELS_LAST else start + value % CHANNELS * pixels + pixel
    front, back = _images(foreground, background, at, inside, LOGITS)
    result = front * share + back * rest
    if BYTES:
        # Comparisons with NaN are false, so NaN becomes 0. Adding 1.5 * 2^23 rounds half to even.
        scaled = (result + 1.0) * 127.5
        limited = tl.where(scaled > 0.0, scaled, 0.0)
        limited = tl.where(limited < 255.0, limited, 255.0)
        tl.store(y + start + value, ((limited + 12582912.0) - 12582912.0).to(tl.int32).to(tl.uint8), mask=inside)
    else:
        tl.store(y + start + value, result.to(y.dtype.element_ty), mask=inside)


@tuned(STREAMING, "LOGITS", "CHANNELS_LAST", "SIZE")
@triton.jit
def _backward(
    gradient,
    foreground,
    background,
    mask,
    d_foreground,
    d_background,
    d_mask,
    pixels,
    CHANNELS: tl.constexpr,
    LOGITS: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    SIZE: tl.constexpr,
    VALUES: tl.constexpr,
):
    sample, _, pixel = place(1, pixels, 1, VALUES)
    pixel += tl.arange(0, VALUES)
    inside = pixel < pixels
    m = tl.load(mask + sample * pixels + pixel, mask=inside, other=0.0).to(tl.float32)
    share, rest = _shares(m, LOGITS)
    total = tl.zeros((VALUES,), tl.float32)
    for channel in tl.static_range(CHANNELS):
        if CHANNELS_LAST:
            at = (sample * pixels + pixel) * CHANNELS + channel
        else:
            at = (sample * CHANNELS + channel) * pixels + pixel
        front, back = _images(foreground, background, at, inside, LOGITS)
        slope = tl.load(gradient + at, mask=inside, other=0.0).to(tl.float32)
        total += slope * (front - back)
        to_front = slope * share
        to_back = slope * rest
        if LOGITS:
            to_front *= 1.0 - front * front
            to_back *= 1.0 - back * back
        tl.store(d_foreground + at, to_front.to(d_foreground.dtype.element_ty), mask=inside)
        tl.store(d_background + at, to_back.to(d_background.dtype.element_ty), mask=inside)
    if LOGITS:
        total *= share * rest
    tl.store(d_mask + sample * pixels + pixel, total.to(d_mask.dtype.element_ty), mask=inside)


def variants() -> Iterator[Variant]:
    """Yield the variants to build, for 3 channels: mask_composite[_backward]_DTYPE_LAYOUT[_bytes][_logits][_wide]."""
    grid = ((("samples",), ("pixels", "VALUES")),)
    grid_of_values = ((("samples",), ("values", "VALUES")),)
    for (dtype, pointer), channels_last, logits in product(FLOATS.items(), (False, True), (False, True)):
        name = f"{dtype}_{'channels_last' if channels_last else 'planes'}"
        suffix = "_logits" if logits else ""
        images = dict.fromkeys(("foreground", "background", "mask"), pointer)
        constants = {"CHANNELS": 3, "LOGITS": logits, "CHANNELS_LAST": channels_last, "VALUES": 1024}
        for as_bytes in (False, True):
            by_value = channels_last or as_bytes
            size = "values" if by_value else "pixels"
            variant = Variant(
                f"mask_composite_{name}{'_bytes' if as_bytes else ''}{suffix}", _values if by_value else _planes,
                images | {"y": "*u8" if as_bytes else pointer, size: "i32"}, constants | {"BYTES": as_bytes},
                grid_of_values if by_value else grid,
            )  # fmt: skip
            yield from with_wide(variant, *images, "y", size)
        slopes = dict.fromkeys(("gradient", "d_foreground", "d_background", "d_mask"), pointer)
        types = images | slopes | {"pixels": "i32"}
        backward = Variant(f"mask_composite_backward_{name}{suffix}", _backward, types, constants, grid)
        yield from with_wide(backward, *images, *slopes, "pixels")
