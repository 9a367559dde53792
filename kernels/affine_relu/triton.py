"""affine_relu in tiles of pixels by channels, shaped so that loads run along memory in both layouts."""

from collections.abc import Iterator
from itertools import product

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..ahead import POINTERS, Variant

_SPLIT = 4096  # pixels of one channel that a program of the backward pass adds up, and sums are added afterwards


def affine_relu_triton(x: Tensor, scale: Tensor, shift: Tensor, y: Tensor, upsample: bool, channels_last: bool) -> None:
    """Compute y from packed maps; scale and shift are contiguous float32."""
    n, channels, rows, columns = x.shape
    pixel_block, channel_block = _tile(channels_last)
    grid = (triton.cdiv(rows * columns, pixel_block), triton.cdiv(channels, channel_block), n)
    _forward[grid](
        x, scale, shift, y, channels, rows * columns, columns,
        CHANNELS_LAST=channels_last, UPSAMPLE=upsample, PIXELS=pixel_block, CHANNELS=channel_block,
        enable_fp_fusion=False,  # the C++ kernel and the reference round twice too
    )  # fmt: skip


def affine_relu_backward_triton(
    gradient: Tensor, x: Tensor, scale: Tensor, shift: Tensor, upsample: bool, channels_last: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, scale and shift from packed maps, the latter two as float32 sums in a fixed order."""
    n, channels, rows, columns = x.shape
    pixel_block, channel_block = _tile(channels_last)
    splits = triton.cdiv(rows * columns, _SPLIT)
    dx = torch.empty_like(x)
    sums = torch.empty(2, splits, n, channels, dtype=torch.float32, device=x.device)
    _backward[(splits, triton.cdiv(channels, channel_block), n)](
        gradient, x, scale, shift, dx, sums[0], sums[1], channels, rows * columns, columns, n,
        CHANNELS_LAST=channels_last, UPSAMPLE=upsample, PIXELS=pixel_block, CHANNELS=channel_block,
        STEPS=_SPLIT // pixel_block, enable_fp_fusion=False,
    )  # fmt: skip
    return dx, sums[0].sum(0), sums[1].sum(0)


def _tile(channels_last: bool) -> tuple[int, int]:
    """Pixels and channels of a tile: memory runs along the larger one."""
    return (16, 64) if channels_last else (1024, 1)


@triton.jit
def _offsets(sample, pixel, channel, channels, pixels, CHANNELS_LAST: tl.constexpr):
    if CHANNELS_LAST:
        return (sample * pixels + pixel)[:, None] * channels + channel[None, :]
    return pixel[:, None] + (sample * channels + channel)[None, :] * pixels


@triton.jit
def _forward(
    x,
    scale,
    shift,
    y,
    channels,
    pixels,
    columns,
    CHANNELS_LAST: tl.constexpr,
    UPSAMPLE: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    sample = tl.program_id(2).to(tl.int64)
    pixel = tl.program_id(0).to(tl.int64) * PIXELS + tl.arange(0, PIXELS)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    inside = (pixel < pixels)[:, None] & (channel < channels)[None, :]
    a = tl.load(scale + sample * channels + channel, mask=channel < channels, other=0.0)
    b = tl.load(shift + sample * channels + channel, mask=channel < channels, other=0.0)
    at = _offsets(sample, pixel, channel, channels, pixels, CHANNELS_LAST)
    value = tl.load(x + at, mask=inside, other=0.0).to(tl.float32) * a[None, :] + b[None, :]
    # A comparison with NaN is false: NaN stays.
    value = tl.where(value < 0.0, 0.0, value).to(y.dtype.element_ty)
    if UPSAMPLE:
        corner = (pixel // columns) * 4 * columns + (pixel % columns) * 2
        for k in tl.static_range(4):
            square = corner + (k // 2) * 2 * columns + k % 2
            tl.store(y + _offsets(sample, square, channel, channels, 4 * pixels, CHANNELS_LAST), value, mask=inside)
    else:
        tl.store(y + at, value, mask=inside)


@triton.jit
def _backward(
    gradient,
    x,
    scale,
    shift,
    dx,
    dscale,
    dshift,
    channels,
    pixels,
    columns,
    samples,
    CHANNELS_LAST: tl.constexpr,
    UPSAMPLE: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
    STEPS: tl.constexpr,
):
    sample = tl.program_id(2).to(tl.int64)
    split = tl.program_id(0).to(tl.int64)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    of_sample = sample * channels + channel
    a = tl.load(scale + of_sample, mask=channel < channels, other=0.0)
    b = tl.load(shift + of_sample, mask=channel < channels, other=0.0)
    with_x = tl.zeros((PIXELS, CHANNELS), tl.float32)
    alone = tl.zeros((PIXELS, CHANNELS), tl.float32)
    for step in range(STEPS):
        pixel = (split * STEPS + step) * PIXELS + tl.arange(0, PIXELS)
        inside = (pixel < pixels)[:, None] & (channel < channels)[None, :]
        at = _offsets(sample, pixel, channel, channels, pixels, CHANNELS_LAST)
        value = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
        if UPSAMPLE:
            corner = (pixel // columns) * 4 * columns + (pixel % columns) * 2
            slope = tl.zeros((PIXELS, CHANNELS), tl.float32)
            for k in tl.static_range(4):
                square = corner + (k // 2) * 2 * columns + k % 2
                there = _offsets(sample, square, channel, channels, 4 * pixels, CHANNELS_LAST)
                slope += tl.load(gradient + there, mask=inside, other=0.0).to(tl.float32)
        else:
            slope = tl.load(gradient + at, mask=inside, other=0.0).to(tl.float32)
        slope = tl.where(value * a[None, :] + b[None, :] > 0.0, slope, 0.0)
        tl.store(dx + at, (slope * a[None, :]).to(dx.dtype.element_ty), mask=inside)
        with_x += slope * value
        alone += slope
    at = split * samples * channels + of_sample
    tl.store(dscale + at, tl.sum(with_x, axis=0), mask=channel < channels)
    tl.store(dshift + at, tl.sum(alone, axis=0), mask=channel < channels)


def variants() -> Iterator[Variant]:
    """What is built ahead of time."""
    floats = (torch.float32, torch.float16, torch.bfloat16)
    for dtype, channels_last, upsample in product(floats, (False, True), (False, True)):
        pixel_block, channel_block = _tile(channels_last)
        layout = "channels_last" if channels_last else "planes"
        name = f"{str(dtype).removeprefix('torch.')}_{layout}{'_x2' if upsample else ''}"
        sizes = {"channels": "i32", "pixels": "i32", "columns": "i32"}
        constants = {
            "CHANNELS_LAST": channels_last, "UPSAMPLE": upsample, "PIXELS": pixel_block, "CHANNELS": channel_block,
        }  # fmt: skip
        factors = {"scale": "*fp32", "shift": "*fp32"}
        types = {"x": POINTERS[dtype], **factors, "y": POINTERS[dtype], **sizes}
        grid = (("pixels", pixel_block), ("channels", channel_block), ("samples", 1))
        wide = ("x", "y", "scale", "shift", "channels") if channels_last else ("x", "y", "pixels")
        yield Variant(f"affine_relu_{name}", _forward, types, constants, grid)
        yield Variant(f"affine_relu_{name}_wide", _forward, types, constants, grid, wide)
        maps = {"gradient": POINTERS[dtype], "x": POINTERS[dtype]}
        types = {**maps, **factors, "dx": POINTERS[dtype], "dscale": "*fp32", "dshift": "*fp32", **sizes}
        yield Variant(
            f"affine_relu_backward_{name}", _backward, types | {"samples": "i32"},
            constants | {"STEPS": _SPLIT // pixel_block},
            (("pixels", _SPLIT), ("channels", channel_block), ("samples", 1)),
        )  # fmt: skip
