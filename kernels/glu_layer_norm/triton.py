"""glu_layer_norm in three launches: partial statistics, one small one that combines them, and the pass over the map."""

from collections.abc import Iterator
from itertools import product

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..triton.tiles import grid_of_tiles, map_offsets, place, tile
from ..triton.tuning import size_class, tuned_tiles
from ..triton.variants import FLOATS, FP32, LAYOUTS, SIZES, TILES, Variant, with_wide

_PART = 4096  # values whose statistics one program takes: small enough for one large sample to occupy the device
_PARTS = 1024  # parts whose statistics are combined at once
_STEPS = 8  # tiles of one set of channels that a program of the backward pass adds up


def glu_layer_norm_triton(x: Tensor, weight: Tensor, bias: Tensor, y: Tensor, eps: float, channels_last: bool) -> None:
    """Compute y from packed maps; weight and bias are contiguous float32."""
    n, channels, rows, columns = y.shape
    pixels = rows * columns
    normal = statistics_triton(x, *((pixels, channels) if channels_last else (1, channels * pixels)), eps)
    _forward[grid_of_tiles(n, channels, pixels)](
        x, weight, bias, normal, channels, pixels, y, CHANNELS_LAST=channels_last, SIZE=size_class(y.numel()),
        enable_fp_fusion=False,  # the C++ kernel and the reference round twice too
    )  # fmt: skip


def glu_layer_norm_backward_triton(
    gradient: Tensor, x: Tensor, weight: Tensor, bias: Tensor, eps: float, channels_last: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of x, weight and bias from packed maps; the last two are float32 sums in a fixed order."""
    n, channels, rows, columns = gradient.shape
    pixels = rows * columns
    normal = statistics_triton(x, *((pixels, channels) if channels_last else (1, channels * pixels)), eps)
    pixel_block, channel_block = tile(channels_last, pixels, channels)
    splits, channel_blocks = triton.cdiv(pixels, _STEPS * pixel_block), triton.cdiv(channels, channel_block)
    sums = torch.empty(2, splits, n, channels, dtype=torch.float32, device=x.device)
    _backward_sums[(n * channel_blocks * splits,)](
        gradient, x, normal, sums[0], sums[1], n, channels, pixels,
        CHANNELS_LAST=channels_last, PIXELS=pixel_block, CHANNELS=channel_block, STEPS=_STEPS, enable_fp_fusion=False,
    )  # fmt: skip
    with_normal, alone = sums.sum(1)
    # `means` are two means over the sample: the gradient times the normalised value, and the gradient alone.
    means = torch.stack([(t * weight).sum(1) for t in (with_normal, alone)], 1) / (channels * pixels)
    dx = torch.empty_like(x)
    _backward[grid_of_tiles(n, channels, pixels)](
        gradient, x, weight, bias, normal, means, dx, channels, pixels,
        CHANNELS_LAST=channels_last, SIZE=size_class(dx.numel()), enable_fp_fusion=False,
    )  # fmt: skip
    return dx, with_normal.sum(0), alone.sum(0)


def statistics_triton(x: Tensor, runs: int, length: int, eps: float) -> Tensor:
    """Return [N, 3]: centre, inverse and shift of every sample, for (value - centre) * inverse - shift.

    Args:
        x: packed map; a sample is `runs` times `length` values that count, each followed by `length` that do not.
        runs: see x.
        length: see x.
        eps: added to the variance.
    """
    samples = x.shape[0]
    across = min(triton.next_power_of_2(length), _PART if runs <= 4 else 128)
    down = min(triton.next_power_of_2(runs), _PART // across)
    parts = triton.cdiv(runs, down) * triton.cdiv(length, across)
    moments = torch.empty(4, samples, parts, dtype=torch.float32, device=x.device)
    normal = torch.empty(samples, 3, dtype=torch.float32, device=x.device)
    grid = (samples * parts,)
    _moments[grid](x, samples, runs, length, moments, RUNS=down, LENGTH=across, enable_fp_fusion=False)
    block = min(triton.next_power_of_2(parts), _PARTS)
    _combine[(samples,)](moments, samples, parts, eps, normal, BLOCK=block, enable_fp_fusion=False)
    return normal


@triton.jit
def normalised(value, normal, sample):
    """Return the distance of a value from the mean, in deviations."""
    centre = tl.load(normal + sample * 3)
    inverse = tl.load(normal + sample * 3 + 1)
    shift = tl.load(normal + sample * 3 + 2)
    return (value.to(tl.float32) - centre) * inverse - shift


@triton.jit
def _moments(x, samples, runs, length, moments, RUNS: tl.constexpr, LENGTH: tl.constexpr):
    # One part is held in registers. Its moments are count, mean, the mean's rounding error, and the squares around it.
    length_blocks = tl.cdiv(length, LENGTH)
    parts = tl.cdiv(runs, RUNS) * length_blocks
    stride = tl.cast(samples, tl.int64) * parts
    program = tl.program_id(0)
    sample = (program // parts).to(tl.int64)
    part = (program % parts).to(tl.int64)
    first_run = part // length_blocks * RUNS
    first = part % length_blocks * LENGTH
    run = first_run + tl.arange(0, RUNS)
    at = first + tl.arange(0, LENGTH)
    inside = (run < runs)[:, None] & (at < length)[None, :]
    offset = (sample * runs + run)[:, None] * (2 * length) + at[None, :]
    value = tl.load(x + offset, mask=inside, other=0.0).to(tl.float32)
    count = (tl.minimum(runs - first_run, RUNS) * tl.minimum(length - first, LENGTH)).to(tl.float32)
    mean = tl.sum(tl.sum(value, axis=1), axis=0) / count
    value = tl.where(inside, value - mean, 0.0)
    rest = tl.sum(tl.sum(value, axis=1), axis=0) / count
    value = tl.where(inside, value - rest, 0.0)
    squares = tl.sum(tl.sum(value * value, axis=1), axis=0)
    tl.store(moments + program, count)
    tl.store(moments + stride + program, mean)
    tl.store(moments + 2 * stride + program, rest)
    tl.store(moments + 3 * stride + program, squares)


@triton.jit
def _combine(moments, samples, parts, eps, normal, BLOCK: tl.constexpr):
    # float32 could not hold the mean beside a small deviation; float64 costs nothing for so few values.
    sample = tl.program_id(0)
    stride = tl.cast(samples, tl.int64) * parts
    moments += sample.to(tl.int64) * parts
    counts = tl.zeros((BLOCK,), tl.float64)
    totals = tl.zeros((BLOCK,), tl.float64)
    begin = 0
    while begin < parts:
        part = begin + tl.arange(0, BLOCK)
        count = tl.load(moments + part, mask=part < parts, other=0.0).to(tl.float64)
        mean = tl.load(moments + stride + part, mask=part < parts, other=0.0).to(tl.float64)
        mean += tl.load(moments + 2 * stride + part, mask=part < parts, other=0.0).to(tl.float64)
        counts += count
        totals += count * mean
        begin += BLOCK
    count_of_all = tl.sum(counts, axis=0)
    mean_of_all = tl.sum(totals, axis=0) / count_of_all
    totals = tl.zeros((BLOCK,), tl.float64)
    begin = 0
    while begin < parts:
        part = begin + tl.arange(0, BLOCK)
        count = tl.load(moments + part, mask=part < parts, other=0.0).to(tl.float64)
        mean = tl.load(moments + stride + part, mask=part < parts, other=0.0).to(tl.float64)
        mean += tl.load(moments + 2 * stride + part, mask=part < parts, other=0.0).to(tl.float64)
        squares = tl.load(moments + 3 * stride + part, mask=part < parts, other=0.0).to(tl.float64)
        apart = mean - mean_of_all
        totals += squares + count * apart * apart
        begin += BLOCK
    inverse = 1.0 / tl.sqrt(tl.sum(totals, axis=0) / count_of_all + eps)
    centre = mean_of_all.to(tl.float32)
    tl.store(normal + sample * 3, centre)
    tl.store(normal + sample * 3 + 1, inverse.to(tl.float32))
    tl.store(normal + sample * 3 + 2, ((mean_of_all - centre.to(tl.float64)) * inverse).to(tl.float32))


@tuned_tiles()
@triton.jit
def _forward(
    x,
    weight,
    bias,
    normal,
    channels,
    pixels,
    y,
    CHANNELS_LAST: tl.constexpr,
    SIZE: tl.constexpr,
    VALUES: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    sample, channel, pixel = place(channels, pixels, CHANNELS, PIXELS)
    pixel += tl.arange(0, PIXELS)
    channel += tl.arange(0, CHANNELS)
    inside = (pixel < pixels)[:, None] & (channel < channels)[None, :]
    a = tl.load(weight + channel, mask=channel < channels, other=0.0)
    b = tl.load(bias + channel, mask=channel < channels, other=0.0)
    left = map_offsets(sample, pixel, channel, 2 * channels, pixels, CHANNELS_LAST)
    right = map_offsets(sample, pixel, channel + channels, 2 * channels, pixels, CHANNELS_LAST)
    value = normalised(tl.load(x + left, mask=inside, other=0.0), normal, sample) * a[None, :] + b[None, :]
    value *= tl.sigmoid(tl.load(x + right, mask=inside, other=0.0).to(tl.float32))
    at = map_offsets(sample, pixel, channel, channels, pixels, CHANNELS_LAST)
    tl.store(y + at, value.to(y.dtype.element_ty), mask=inside)


@triton.jit
def _backward_sums(
    gradient,
    x,
    normal,
    with_normal,
    alone,
    samples,
    channels,
    pixels,
    CHANNELS_LAST: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
    STEPS: tl.constexpr,
):
    # Two sums over a program's pixels: the gradient behind the gate times the normalised value, and the gradient alone.
    sample, channel, begin = place(channels, pixels, CHANNELS, PIXELS * STEPS)
    channel += tl.arange(0, CHANNELS)
    products = tl.zeros((PIXELS, CHANNELS), tl.float32)
    slopes = tl.zeros((PIXELS, CHANNELS), tl.float32)
    for step in range(STEPS):
        pixel = begin + step * PIXELS + tl.arange(0, PIXELS)
        inside = (pixel < pixels)[:, None] & (channel < channels)[None, :]
        left = map_offsets(sample, pixel, channel, 2 * channels, pixels, CHANNELS_LAST)
        right = map_offsets(sample, pixel, channel + channels, 2 * channels, pixels, CHANNELS_LAST)
        at = map_offsets(sample, pixel, channel, channels, pixels, CHANNELS_LAST)
        slope = tl.load(gradient + at, mask=inside, other=0.0).to(tl.float32)
        slope *= tl.sigmoid(tl.load(x + right, mask=inside, other=0.0).to(tl.float32))
        value = normalised(tl.load(x + left, mask=inside, other=0.0), normal, sample)
        # Outside the map the slope is 0, but a value that is not finite would turn it into NaN.
        products += tl.where(inside, slope * value, 0.0)
        slopes += slope
    at = ((begin // (PIXELS * STEPS)).to(tl.int64) * samples + sample) * channels + channel
    tl.store(with_normal + at, tl.sum(products, axis=0), mask=channel < channels)
    tl.store(alone + at, tl.sum(slopes, axis=0), mask=channel < channels)


@tuned_tiles()
@triton.jit
def _backward(
    gradient,
    x,
    weight,
    bias,
    normal,
    means,
    dx,
    channels,
    pixels,
    CHANNELS_LAST: tl.constexpr,
    SIZE: tl.constexpr,
    VALUES: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    sample, channel, pixel = place(channels, pixels, CHANNELS, PIXELS)
    pixel += tl.arange(0, PIXELS)
    channel += tl.arange(0, CHANNELS)
    inside = (pixel < pixels)[:, None] & (channel < channels)[None, :]
    a = tl.load(weight + channel, mask=channel < channels, other=0.0)
    b = tl.load(bias + channel, mask=channel < channels, other=0.0)
    left = map_offsets(sample, pixel, channel, 2 * channels, pixels, CHANNELS_LAST)
    right = map_offsets(sample, pixel, channel + channels, 2 * channels, pixels, CHANNELS_LAST)
    at = map_offsets(sample, pixel, channel, channels, pixels, CHANNELS_LAST)
    slope = tl.load(gradient + at, mask=inside, other=0.0).to(tl.float32)
    gate = tl.sigmoid(tl.load(x + right, mask=inside, other=0.0).to(tl.float32))
    value = normalised(tl.load(x + left, mask=inside, other=0.0), normal, sample)
    dright = slope * (value * a[None, :] + b[None, :]) * gate * (1.0 - gate)
    product = tl.load(means + sample * 2)
    mean = tl.load(means + sample * 2 + 1)
    dleft = (slope * gate * a[None, :] - mean - value * product) * tl.load(normal + sample * 3 + 1)
    tl.store(dx + left, dleft.to(dx.dtype.element_ty), mask=inside)
    tl.store(dx + right, dright.to(dx.dtype.element_ty), mask=inside)


def variants() -> Iterator[Variant]:
    """Yield the variants to build ahead of time.

    They are glu_layer_norm_combine, and glu_layer_norm_PASS_DTYPE_LAYOUT[_wide] with the passes moments, forward,
    backward_sums and backward.
    """
    moments = {"moments": FP32, "samples": "i32"}
    combine = moments | {"normal": FP32, "parts": "i32", "eps": "fp32"}
    yield Variant("glu_layer_norm_combine", _combine, combine, {"BLOCK": _PARTS}, ((("samples",),),))
    for (dtype, pointer), (layout, tile_of) in product(FLOATS.items(), LAYOUTS.items()):
        name = f"{dtype}_{layout}"
        by_pixel = layout == "channels_last"
        # A part is 128 channels at 32 pixels, or 4096 values of a plane, as in statistics_triton.
        part = {"RUNS": _PART // 128 if by_pixel else 1, "LENGTH": 128 if by_pixel else _PART}
        types = moments | {"x": pointer, "runs": "i32", "length": "i32"}
        grid = ((("samples",), ("runs", "RUNS"), ("length", "LENGTH")),)
        yield from with_wide(Variant(f"glu_layer_norm_moments_{name}", _moments, types, part, grid), "x", "length")
        factors = {"weight": FP32, "bias": FP32}
        along = ("weight", "bias", "channels") if by_pixel else ("pixels",)
        types = {"x": pointer, **factors, "normal": FP32, "y": pointer, **SIZES}
        forward = Variant(f"glu_layer_norm_forward_{name}", _forward, types, tile_of, TILES)
        yield from with_wide(forward, "x", "y", *along)
        types = {"gradient": pointer, "x": pointer, "normal": FP32, "with_normal": FP32, "alone": FP32}
        types |= SIZES | {"samples": "i32"}
        splits = ((("samples",), ("channels", "CHANNELS"), ("pixels", "PIXELS", "STEPS")),)
        sums = Variant(
            f"glu_layer_norm_backward_sums_{name}", _backward_sums, types, tile_of | {"STEPS": _STEPS}, splits
        )
        yield from with_wide(sums, "gradient", "x", *along[-1:])
        types = {"gradient": pointer, "x": pointer, **factors, "normal": FP32, "means": FP32, "dx": pointer, **SIZES}
        backward = Variant(f"glu_layer_norm_backward_{name}", _backward, types, tile_of, TILES)
        yield from with_wide(backward, "gradient", "x", "dx", *along)
