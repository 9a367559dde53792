"""bias_noise_act in tiles of pixels by channels, shaped so that loads run along memory in both layouts."""

from collections.abc import Iterator
from itertools import product

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..triton.tiles import grid_of_tiles, map_offsets, place, tile
from ..triton.tuning import size_class, tuned_tiles
from ..triton.variants import FLOATS, FP32, LAYOUTS, SIZES, TILES, Variant, with_wide

_STEPS = 16  # tiles that a program of the backward pass walks, at right angles to the order of memory


def bias_noise_act_triton(
    x: Tensor,
    bias: Tensor,
    noise: Tensor | None,
    strength: Tensor | None,
    factor: Tensor | None,
    y: Tensor,
    slope: float,
    gain: float,
    clamp: float,
    channels_last: bool,
) -> None:
    """Compute y from a packed map; bias [C], noise [N or 1, H * W] and factor [N, C] are contiguous and float32."""
    n, channels, rows, columns = x.shape
    _forward[grid_of_tiles(n, channels, rows * columns)](
        x, bias, noise, strength, factor, y, slope, gain, clamp, channels, rows * columns, _noise_stride(noise),
        NOISE=noise is not None, FACTOR=factor is not None, CHANNELS_LAST=channels_last, SIZE=size_class(x.numel()),
        # Without fused multiply-adds the bits are the reference's. No time is lost, because memory is the limit.
        enable_fp_fusion=False,
    )  # fmt: skip


def bias_noise_act_backward_triton(
    gradient: Tensor,
    x: Tensor,
    bias: Tensor,
    noise: Tensor | None,
    strength: Tensor | None,
    slope: float,
    gain: float,
    channels_last: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of x and bias, and the sum of x's over channels [N, H, W]; sums run in a fixed order."""
    n, channels, rows, columns = x.shape
    pixel_block, channel_block = tile(channels_last, rows * columns, channels)
    pixel_steps, channel_steps = (_STEPS, 1) if channels_last else (1, _STEPS)
    tiles = triton.cdiv(rows * columns, pixel_block * pixel_steps)
    groups = triton.cdiv(channels, channel_block * channel_steps)
    dx = torch.empty_like(x)
    dbias = torch.empty(tiles * n, channels, dtype=torch.float32, device=x.device)
    shape = (groups if noise is not None else 0, n, rows, columns)
    over_channels = torch.empty(shape, dtype=torch.float32, device=x.device)
    _backward[(tiles * groups * n,)](
        gradient, x, bias, noise, strength, dx, dbias, over_channels, slope, gain, channels, rows * columns,
        n, _noise_stride(noise),
        NOISE=noise is not None, CHANNELS_LAST=channels_last, PIXELS=pixel_block, CHANNELS=channel_block, STEPS=_STEPS,
        # The sign of a value must be the one that the forward pass saw.
        enable_fp_fusion=False,
    )  # fmt: skip
    return dx, dbias.sum(0), over_channels.sum(0)


def _noise_stride(noise: Tensor | None) -> int:
    """Return the distance in values from one sample's noise to the next: 0 if all samples share it."""
    return 0 if noise is None or noise.shape[0] == 1 else noise.shape[1]


@triton.jit
def _before_act(value, sample, pixel, pixels, noise, strength, noise_stride, b, NOISE: tl.constexpr):
    if NOISE:
        speck = tl.load(noise + sample * noise_stride + pixel, mask=pixel < pixels, other=0.0)
        value = value + (tl.load(strength).to(tl.float32) * speck)[:, None]
    return value + b[None, :]


@tuned_tiles("NOISE", "FACTOR")
@triton.jit
def _forward(
    x,
    bias,
    noise,
    strength,
    factor,
    y,
    slope,
    gain,
    clamp,
    channels,
    pixels,
    noise_stride,
    NOISE: tl.constexpr,
    FACTOR: tl.constexpr,
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
    b = tl.load(bias + channel, mask=channel < channels, other=0.0)
    at = map_offsets(sample, pixel, channel, channels, pixels, CHANNELS_LAST)
    value = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    if FACTOR:
        value = tl.load(factor + sample * channels + channel, mask=channel < channels, other=0.0)[None, :] * value
    value = _before_act(value, sample, pixel, pixels, noise, strength, noise_stride, b, NOISE)
    value = gain * tl.where(value >= 0.0, value, slope * value)
    # Comparisons leave NaN as it is, which maximum and minimum would not.
    value = tl.where(value > clamp, clamp, value)
    value = tl.where(value < -clamp, -clamp, value)
    tl.store(y + at, value.to(y.dtype.element_ty), mask=inside)


@triton.jit
def _backward(
    gradient,
    x,
    bias,
    noise,
    strength,
    dx,
    dbias,
    over_channels,
    slope,
    gain,
    channels,
    pixels,
    samples,
    noise_stride,
    NOISE: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
    STEPS: tl.constexpr,
):
    # If the map is channels-last, a program keeps its channels and walks pixels; else it keeps pixels, walks channels.
    PIXEL_STEPS: tl.constexpr = STEPS if CHANNELS_LAST else 1
    CHANNEL_STEPS: tl.constexpr = 1 if CHANNELS_LAST else STEPS
    sample, first_channel, first_pixel = place(channels, pixels, CHANNELS * CHANNEL_STEPS, PIXELS * PIXEL_STEPS)
    split, splits = first_pixel // (PIXELS * PIXEL_STEPS), tl.cdiv(pixels, PIXELS * PIXEL_STEPS)
    group = (first_channel // (CHANNELS * CHANNEL_STEPS)).to(tl.int64)
    bias_row = dbias + (sample * splits + split) * channels
    noise_row = over_channels + (group * samples + sample) * pixels
    total = tl.zeros((PIXELS, CHANNELS), tl.float32)
    pixel = first_pixel + tl.arange(0, PIXELS)
    channel = first_channel + tl.arange(0, CHANNELS)
    for step in range(STEPS):
        if CHANNELS_LAST:
            pixel = first_pixel + step * PIXELS + tl.arange(0, PIXELS)
        else:
            channel = first_channel + step * CHANNELS + tl.arange(0, CHANNELS)
        inside = (pixel < pixels)[:, None] & (channel < channels)[None, :]
        b = tl.load(bias + channel, mask=channel < channels, other=0.0)
        at = map_offsets(sample, pixel, channel, channels, pixels, CHANNELS_LAST)
        value = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
        value = _before_act(value, sample, pixel, pixels, noise, strength, noise_stride, b, NOISE)
        change = gain * tl.load(gradient + at, mask=inside, other=0.0).to(tl.float32)
        change = tl.where(value >= 0.0, change, slope * change)
        tl.store(dx + at, change.to(dx.dtype.element_ty), mask=inside)
        # Outside the map the gradient is 0, but an infinite slope or gain would make it NaN.
        change = tl.where(inside, change, 0.0)
        total += change
        if CHANNELS_LAST:
            if NOISE:
                tl.store(noise_row + pixel, tl.sum(change, axis=1), mask=pixel < pixels)
        else:
            tl.store(bias_row + channel, tl.sum(change, axis=0), mask=channel < channels)
    if CHANNELS_LAST:
        tl.store(bias_row + channel, tl.sum(total, axis=0), mask=channel < channels)
    else:
        if NOISE:
            tl.store(noise_row + pixel, tl.sum(total, axis=1), mask=pixel < pixels)


def variants() -> Iterator[Variant]:
    """Yield the variants to build ahead of time: bias_noise_act[_backward]_DTYPE_LAYOUT[_noise][_factor][_wide].

    The backward pass has no factor, because op.py multiplies by it.
    """
    choices = product(FLOATS.items(), LAYOUTS.items(), (False, True), (False, True))
    for (dtype, pointer), (layout, tile_of), noise, factor in choices:
        name = f"{dtype}_{layout}{'_noise' if noise else ''}{'_factor' if factor else ''}"
        shared = {"bias": FP32, "slope": "fp32", "gain": "fp32", "noise_stride": "i32", **SIZES}
        constants: dict[str, int | bool | None] = {"NOISE": noise, **tile_of}
        if noise:
            shared |= {"noise": FP32, "strength": pointer}
        else:
            constants |= {"noise": None, "strength": None}
        along = [*(("bias", "channels") if layout == "channels_last" else ("pixels",))]
        along += ["noise", "noise_stride"] if noise else []
        types = {"x": pointer, "y": pointer, "clamp": "fp32", **shared} | ({"factor": FP32} if factor else {})
        fixed = constants | {"FACTOR": factor} | ({} if factor else {"factor": None})
        rows = ["factor"] if factor and layout == "channels_last" else []
        forward = Variant(f"bias_noise_act_{name}", _forward, types, fixed, TILES)
        yield from with_wide(forward, "x", "y", *along, *rows)
        if factor:
            continue
        maps = {"gradient": pointer, "x": pointer, "dx": pointer}
        types = {**maps, "dbias": FP32, "over_channels": FP32, "samples": "i32", **shared}
        walked = "pixels" if layout == "channels_last" else "channels"
        tiles = ((size, size.upper(), *(("STEPS",) if size == walked else ())) for size in ("channels", "pixels"))
        backward = Variant(
            f"bias_noise_act_backward_{name}", _backward, types, constants | {"STEPS": _STEPS},
            ((("samples",), *tiles),),
        )  # fmt: skip
        yield from with_wide(backward, *maps, *along)
