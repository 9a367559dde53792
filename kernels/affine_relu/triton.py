"""affine_relu in tiles of pixels by channels, shaped so that loads run along memory in both layouts."""

from collections.abc import Iterator
from itertools import product

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..triton.tiles import corner, grid_of_tiles, map_offsets, place, tile
from ..triton.tuning import size_class, tuned_tiles
from ..triton.variants import FLOATS, FP32, LAYOUTS, SIZES, TILES, Variant, with_wide


def affine_relu_triton(x: Tensor, scale: Tensor, shift: Tensor, y: Tensor, upsample: bool, channels_last: bool) -> None:
    """Compute y from packed maps; scale and shift are float32, [N, C] or in the order of a map's memory."""
    n, channels, rows, columns = x.shape
    axes = 0 if scale.dim() == 2 else 1 if scale.shape[1 if channels_last else 2] == 1 else 2
    _forward[grid_of_tiles(n, channels, rows * columns)](
        x, scale, shift, channels, rows * columns, columns, y,
        CHANNELS_LAST=channels_last, UPSAMPLE=upsample, AXES=axes, SIZE=size_class(x.numel()),
        enable_fp_fusion=False,  # the C++ kernel and the reference round twice too
    )  # fmt: skip


def affine_relu_backward_triton(
    gradient: Tensor, x: Tensor, scale: Tensor, shift: Tensor, upsample: bool, channels_last: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of x, scale and shift from packed maps; the last two are float32 sums in a fixed order."""
    n, channels, rows, columns = x.shape
    pixel_block, channel_block = tile(channels_last, rows * columns, channels)
    steps = _steps(channels_last)
    splits = triton.cdiv(rows * columns, pixel_block * steps)
    dx = torch.empty_like(x)
    sums = torch.empty(2, splits, n, channels, dtype=torch.float32, device=x.device)
    _backward[(n * triton.cdiv(channels, channel_block) * splits,)](
        gradient, x, scale, shift, dx, sums[0], sums[1], channels, rows * columns, columns, n,
        CHANNELS_LAST=channels_last, UPSAMPLE=upsample, PIXELS=pixel_block, CHANNELS=channel_block, STEPS=steps,
        enable_fp_fusion=False,  # the sign of a value must be the one that the forward pass saw
    )  # fmt: skip
    return dx, sums[0].sum(0), sums[1].sum(0)


def _steps(channels_last: bool) -> int:
    """Return how many tiles of one set of channels a program of the backward pass adds up."""
    return 16 if channels_last else 4


@tuned_tiles("UPSAMPLE", "AXES")
@triton.jit
def _forward(
    x,
    scale,
    shift,
    channels,
    pixels,
    columns,
    y,
    CHANNELS_LAST: tl.constexpr,
    UPSAMPLE: tl.constexpr,
    AXES: tl.constexpr,  # of the map, along which factors vary: none, the width, or both
    SIZE: tl.constexpr,
    VALUES: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    sample, channel, pixel = place(channels, pixels, CHANNELS, PIXELS)
    pixel += tl.arange(0, PIXELS)
    channel += tl.arange(0, CHANNELS)
    inside = (pixel < pixels)[:, None] & (channel < channels)[None, :]
    at = map_offsets(sample, pixel, channel, channels, pixels, CHANNELS_LAST)
    if AXES == 0:
        of = sample * channels + channel
        a = tl.load(scale + of, mask=channel < channels, other=0.0)[None, :]
        b = tl.load(shift + of, mask=channel < channels, other=0.0)[None, :]
    else:
        of = map_offsets(sample, pixel % columns, channel, channels, columns, CHANNELS_LAST) if AXES == 1 else at
        a = tl.load(scale + of, mask=inside, other=0.0)
        b = tl.load(shift + of, mask=inside, other=0.0)
    value = tl.load(x + at, mask=inside, other=0.0).to(tl.float32) * a + b
    # A comparison with NaN is false, so NaN stays.
    value = tl.where(value < 0.0, 0.0, value).to(y.dtype.element_ty)
    if UPSAMPLE:
        first = corner(pixel, columns)
        for k in tl.static_range(4):
            square = first + (k // 2) * 2 * columns + k % 2
            tl.store(
                y + map_offsets(sample, square, channel, channels, 4 * tl.cast(pixels, tl.int64), CHANNELS_LAST),
                value,
                mask=inside,
            )
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
    sample, channel, begin = place(channels, pixels, CHANNELS, PIXELS * STEPS)
    channel += tl.arange(0, CHANNELS)
    of_sample = sample * channels + channel
    a = tl.load(scale + of_sample, mask=channel < channels, other=0.0)
    b = tl.load(shift + of_sample, mask=channel < channels, other=0.0)
    with_x = tl.zeros((PIXELS, CHANNELS), tl.float32)
    alone = tl.zeros((PIXELS, CHANNELS), tl.float32)
    for step in range(STEPS):
        pixel = begin + step * PIXELS + tl.arange(0, PIXELS)
        inside = (pixel < pixels)[:, None] & (channel < channels)[None, :]
        at = map_offsets(sample, pixel, channel, channels, pixels, CHANNELS_LAST)
        value = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
        if UPSAMPLE:
            first = corner(pixel, columns)
            slope = tl.zeros((PIXELS, CHANNELS), tl.float32)
            for k in tl.static_range(4):
                square = first + (k // 2) * 2 * columns + k % 2
                there = map_offsets(sample, square, channel, channels, 4 * tl.cast(pixels, tl.int64), CHANNELS_LAST)
                slope += tl.load(gradient + there, mask=inside, other=0.0).to(tl.float32)
        else:
            slope = tl.load(gradient + at, mask=inside, other=0.0).to(tl.float32)
        slope = tl.where(value * a[None, :] + b[None, :] > 0.0, slope, 0.0)
        tl.store(dx + at, (slope * a[None, :]).to(dx.dtype.element_ty), mask=inside)
        with_x += slope * value
        alone += slope
    at = (begin // (PIXELS * STEPS)).to(tl.int64) * samples * channels + of_sample
    tl.store(dscale + at, tl.sum(with_x, axis=0), mask=channel < channels)
    tl.store(dshift + at, tl.sum(alone, axis=0), mask=channel < channels)


def variants() -> Iterator[Variant]:
    """Yield the variants to build ahead of time: affine_relu[_backward]_DTYPE_LAYOUT[_x2|_width|_map][_wide].

    Factors that vary, along the width or over the map, have no backward kernel. No network doubles maps behind them.
    """
    forms = {"": (False, 0), "_x2": (True, 0), "_width": (False, 1), "_map": (False, 2)}
    for (dtype, pointer), (layout, tile_of), form in product(FLOATS.items(), LAYOUTS.items(), forms):
        name, (upsample, axes) = f"{dtype}_{layout}{form}", forms[form]
        factors, sizes = {"scale": FP32, "shift": FP32}, SIZES | {"columns": "i32"}
        constants = tile_of | {"UPSAMPLE": upsample}
        along = ("scale", "shift", "channels") if layout == "channels_last" else ("pixels",)
        if axes and layout == "planes":
            along = ("scale", "shift", "pixels", *(("columns",) if axes == 1 else ()))
        types = {"x": pointer, **factors, "y": pointer, **sizes}
        forward = Variant(f"affine_relu_{name}", _forward, types, constants | {"AXES": axes}, TILES)
        yield from with_wide(forward, "x", "y", *along)
        if axes:
            continue
        maps = {"gradient": pointer, "x": pointer, "dx": pointer}
        types = maps | factors | {"dscale": FP32, "dshift": FP32, "samples": "i32"} | sizes
        constants = constants | {"STEPS": _steps(layout == "channels_last")}
        grid = ((("samples",), ("channels", "CHANNELS"), ("pixels", "PIXELS", "STEPS")),)
        yield from with_wide(Variant(f"affine_relu_backward_{name}", _backward, types, constants, grid), *maps, *along)
