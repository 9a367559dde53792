"""bias_noise_act in tiles of pixels by channels, shaped so that loads run along memory in both layouts."""

import torch
import triton
import triton.language as tl
from torch import Tensor

_STEPS = 16  # tiles that a program of the backward pass walks, across the direction in which memory runs


def bias_noise_act_triton(
    x: Tensor,
    bias: Tensor,
    noise: Tensor | None,
    strength: Tensor | None,
    y: Tensor,
    slope: float,
    gain: float,
    channels_last: bool,
) -> None:
    """Compute y from a packed map; bias [C] and noise [N or 1, H * W] are contiguous float32."""
    n, channels, rows, columns = x.shape
    pixel_block, channel_block = _tile(channels_last)
    tiles, groups = triton.cdiv(rows * columns, pixel_block), triton.cdiv(channels, channel_block)
    _forward[(tiles * groups * n,)](
        x, bias, noise, strength, y, slope, gain, channels, rows * columns, tiles, groups, _noise_stride(noise),
        NOISE=noise is not None, CHANNELS_LAST=channels_last, PIXELS=pixel_block, CHANNELS=channel_block,
        # Without fused multiply-adds the bits are the reference's; the kernel waits for memory anyway.
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
    """Gradients of x and bias, and the first one's sum over channels [N, H, W]; sums in float32, in a fixed order."""
    n, channels, rows, columns = x.shape
    pixel_block, channel_block = _tile(channels_last)
    # By pixel a program walks pixels under its channels, by plane it walks channels under its pixels.
    pixel_steps, channel_steps = (_STEPS, 1) if channels_last else (1, _STEPS)
    tiles = triton.cdiv(rows * columns, pixel_block * pixel_steps)
    groups = triton.cdiv(channels, channel_block * channel_steps)
    dx = torch.empty_like(x)
    dbias = torch.empty(tiles * n, channels, dtype=torch.float32, device=x.device)
    over_channels = torch.empty(groups if noise is not None else 0, n, rows, columns, device=x.device)
    _backward[(tiles * groups * n,)](
        gradient, x, bias, noise, strength, dx, dbias, over_channels, slope, gain, channels, rows * columns,
        tiles, groups, n, _noise_stride(noise),
        NOISE=noise is not None, CHANNELS_LAST=channels_last, PIXELS=pixel_block, CHANNELS=channel_block, STEPS=_STEPS,
        # The sign of a value must be the one that the forward pass saw.
        enable_fp_fusion=False,
    )  # fmt: skip
    return dx, dbias.sum(0), over_channels.sum(0)


def _tile(channels_last: bool) -> tuple[int, int]:
    """Pixels and channels of a tile: memory runs along the larger one."""
    return (16, 64) if channels_last else (1024, 1)


def _noise_stride(noise: Tensor | None) -> int:
    """Values between the noise of one sample and the next: none where all samples share it."""
    return 0 if noise is None or noise.shape[0] == 1 else noise.shape[1]


@triton.jit
def _place(program, tiles, groups):
    """Tile of pixels, group of channels and sample of a program, in one dimension: the others end at 65535."""
    return program % tiles, program // tiles % groups, (program // tiles // groups).to(tl.int64)


@triton.jit
def _offsets(sample, pixel, channel, channels, pixels, CHANNELS_LAST: tl.constexpr):
    if CHANNELS_LAST:
        return (sample * pixels + pixel)[:, None] * channels + channel[None, :]
    return pixel[:, None] + (sample * channels + channel)[None, :] * pixels


@triton.jit
def _before_act(value, sample, pixel, pixels, noise, strength, noise_stride, b, NOISE: tl.constexpr):
    if NOISE:
        speck = tl.load(noise + sample * noise_stride + pixel, mask=pixel < pixels, other=0.0)
        value = value + (tl.load(strength).to(tl.float32) * speck)[:, None]
    return value + b[None, :]


@triton.jit
def _forward(
    x,
    bias,
    noise,
    strength,
    y,
    slope,
    gain,
    channels,
    pixels,
    tiles,
    groups,
    noise_stride,
    NOISE: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    tile, group, sample = _place(tl.program_id(0), tiles, groups)
    pixel = tile.to(tl.int64) * PIXELS + tl.arange(0, PIXELS)
    channel = group * CHANNELS + tl.arange(0, CHANNELS)
    inside = (pixel < pixels)[:, None] & (channel < channels)[None, :]
    b = tl.load(bias + channel, mask=channel < channels, other=0.0)
    at = _offsets(sample, pixel, channel, channels, pixels, CHANNELS_LAST)
    value = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    value = _before_act(value, sample, pixel, pixels, noise, strength, noise_stride, b, NOISE)
    value = gain * tl.where(value >= 0.0, value, slope * value)
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
    tiles,
    groups,
    samples,
    noise_stride,
    NOISE: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
    STEPS: tl.constexpr,
):
    tile, group, sample = _place(tl.program_id(0), tiles, groups)
    bias_row = dbias + (sample * tiles + tile) * channels
    noise_row = over_channels + (group.to(tl.int64) * samples + sample) * pixels
    total = tl.zeros((PIXELS, CHANNELS), tl.float32)
    pixel = tile.to(tl.int64) * PIXELS + tl.arange(0, PIXELS)
    channel = group * CHANNELS + tl.arange(0, CHANNELS)
    for step in range(STEPS):
        if CHANNELS_LAST:
            pixel = (tile.to(tl.int64) * STEPS + step) * PIXELS + tl.arange(0, PIXELS)
        else:
            channel = (group * STEPS + step) * CHANNELS + tl.arange(0, CHANNELS)
        inside = (pixel < pixels)[:, None] & (channel < channels)[None, :]
        b = tl.load(bias + channel, mask=channel < channels, other=0.0)
        at = _offsets(sample, pixel, channel, channels, pixels, CHANNELS_LAST)
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
