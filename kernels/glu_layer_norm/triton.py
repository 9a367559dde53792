"""glu_layer_norm in three launches: partial statistics, one small one that combines them, and the pass over the map."""

import torch
import triton
import triton.language as tl
from torch import Tensor

_PART = 4096  # values that a program of the statistics holds at once: a sample of any size occupies the whole device
_STEPS = 8  # tiles of one set of channels that a program of the backward pass adds up


def glu_layer_norm_triton(x: Tensor, weight: Tensor, bias: Tensor, y: Tensor, eps: float, channels_last: bool) -> None:
    """Compute y from packed maps; weight and bias are contiguous float32."""
    n, channels, rows, columns = y.shape
    pixels = rows * columns
    normal = statistics_triton(x, *((pixels, channels) if channels_last else (1, channels * pixels)), eps)
    pixel_block, channel_block = tile(channels_last, pixels, channels)
    pixel_blocks, channel_blocks = triton.cdiv(pixels, pixel_block), triton.cdiv(channels, channel_block)
    _forward[(n * channel_blocks * pixel_blocks,)](
        x, weight, bias, normal, y, channels, pixels, channel_blocks, pixel_blocks,
        CHANNELS_LAST=channels_last, PIXELS=pixel_block, CHANNELS=channel_block,
    )  # fmt: skip


def glu_layer_norm_backward_triton(
    gradient: Tensor, x: Tensor, weight: Tensor, bias: Tensor, eps: float, channels_last: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias from packed maps, the latter two as float32 sums in a fixed order."""
    n, channels, rows, columns = gradient.shape
    pixels = rows * columns
    normal = statistics_triton(x, *((pixels, channels) if channels_last else (1, channels * pixels)), eps)
    pixel_block, channel_block = tile(channels_last, pixels, channels)
    splits, channel_blocks = triton.cdiv(pixels, _STEPS * pixel_block), triton.cdiv(channels, channel_block)
    sums = torch.empty(2, splits, n, channels, dtype=torch.float32, device=x.device)
    _backward_sums[(n * channel_blocks * splits,)](
        gradient, x, normal, sums[0], sums[1], n, channels, pixels, channel_blocks, splits,
        CHANNELS_LAST=channels_last, PIXELS=pixel_block, CHANNELS=channel_block, STEPS=_STEPS,
    )  # fmt: skip
    with_normal, alone = sums.sum(1)
    # Means over the sample of the gradient of the normalised values, with and without them as a factor.
    means = torch.stack([(t * weight).sum(1) for t in (with_normal, alone)], 1) / (channels * pixels)
    dx = torch.empty_like(x)
    pixel_blocks = triton.cdiv(pixels, pixel_block)
    _backward[(n * channel_blocks * pixel_blocks,)](
        gradient, x, weight, bias, normal, means, dx, channels, pixels, channel_blocks, pixel_blocks,
        CHANNELS_LAST=channels_last, PIXELS=pixel_block, CHANNELS=channel_block,
    )  # fmt: skip
    return dx, with_normal.sum(0), alone.sum(0)


def statistics_triton(x: Tensor, runs: int, length: int, eps: float) -> Tensor:
    """Return [N, 3]: what (value - centre) * inverse - shift needs to normalise each sample.

    Args:
        x: packed map, of whose samples each is `runs` times `length` values that count and as many that do not.
        runs: see x.
        length: see x.
        eps: added to the variance.
    """
    samples = x.shape[0]
    across = min(triton.next_power_of_2(length), _PART if runs <= 4 else 128)
    down = min(triton.next_power_of_2(runs), _PART // across)
    run_blocks, length_blocks = triton.cdiv(runs, down), triton.cdiv(length, across)
    parts = run_blocks * length_blocks
    moments = torch.empty(4, samples, parts, dtype=torch.float32, device=x.device)
    normal = torch.empty(samples, 3, dtype=torch.float32, device=x.device)
    stride = samples * parts
    _moments[(stride,)](x, moments, stride, runs, length, parts, length_blocks, RUNS=down, LENGTH=across)
    block = min(triton.next_power_of_2(parts), 1024)
    _combine[(samples,)](moments, normal, stride, parts, eps, BLOCK=block)
    return normal


def tile(channels_last: bool, pixels: int, channels: int) -> tuple[int, int]:
    """Pixels and channels of a tile of about 1024 values: memory runs along one, the other fills up small maps."""
    if channels_last:
        across = min(triton.next_power_of_2(channels), 128)
        return min(triton.next_power_of_2(pixels), 1024 // across), across
    across = min(triton.next_power_of_2(pixels), 1024)
    return across, min(triton.next_power_of_2(channels), 1024 // across)


@triton.jit
def map_offsets(sample, pixel, channel, channels, pixels, CHANNELS_LAST: tl.constexpr):
    """Offsets [pixel, channel] in a packed map of that many channels and pixels."""
    if CHANNELS_LAST:
        return (sample * pixels + pixel)[:, None] * channels + channel[None, :]
    return pixel[:, None] + (sample * channels + channel)[None, :] * pixels


@triton.jit
def place(channel_blocks, pixel_blocks, PIXELS: tl.constexpr, CHANNELS: tl.constexpr):
    """Sample, pixels and channels of this program. One axis of the grid counts all: the others end at 65535."""
    program = tl.program_id(0)
    sample = (program // (channel_blocks * pixel_blocks)).to(tl.int64)
    channel = program // pixel_blocks % channel_blocks * CHANNELS + tl.arange(0, CHANNELS)
    pixel = (program % pixel_blocks).to(tl.int64) * PIXELS + tl.arange(0, PIXELS)
    return sample, pixel, channel


@triton.jit
def normalised(value, normal, sample):
    """Distance from the mean in deviations."""
    centre = tl.load(normal + sample * 3)
    inverse = tl.load(normal + sample * 3 + 1)
    shift = tl.load(normal + sample * 3 + 2)
    return (value.to(tl.float32) - centre) * inverse - shift


@triton.jit
def _moments(x, moments, stride, runs, length, parts, length_blocks, RUNS: tl.constexpr, LENGTH: tl.constexpr):
    # Count, mean, what rounding took from the mean, and the squares around it, of one part held in registers.
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
def _combine(moments, normal, stride, parts, eps, BLOCK: tl.constexpr):
    # In float64, which costs nothing for so few values: float32 could not hold the mean beside a small deviation.
    sample = tl.program_id(0)
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


@triton.jit
def _forward(
    x,
    weight,
    bias,
    normal,
    y,
    channels,
    pixels,
    channel_blocks,
    pixel_blocks,
    CHANNELS_LAST: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    sample, pixel, channel = place(channel_blocks, pixel_blocks, PIXELS, CHANNELS)
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
    channel_blocks,
    splits,
    CHANNELS_LAST: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
    STEPS: tl.constexpr,
):
    # Sums over the split's pixels of the gradient behind the gate, with and without the normalised value as a factor.
    sample, pixel, channel = place(channel_blocks, splits, PIXELS, CHANNELS)
    split = (tl.program_id(0) % splits).to(tl.int64)
    products = tl.zeros((PIXELS, CHANNELS), tl.float32)
    slopes = tl.zeros((PIXELS, CHANNELS), tl.float32)
    for step in range(STEPS):
        pixel = (split * STEPS + step) * PIXELS + tl.arange(0, PIXELS)
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
    at = (split * samples + sample) * channels + channel
    tl.store(with_normal + at, tl.sum(products, axis=0), mask=channel < channels)
    tl.store(alone + at, tl.sum(slopes, axis=0), mask=channel < channels)


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
    channel_blocks,
    pixel_blocks,
    CHANNELS_LAST: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    sample, pixel, channel = place(channel_blocks, pixel_blocks, PIXELS, CHANNELS)
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
