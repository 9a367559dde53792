"""phase_epilogue in one pass over tiles of pixels by channels, behind the statistics where the activation has some."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..glu_layer_norm.triton import map_offsets, normalised, place, statistics_triton, tile


def phase_epilogue_triton(
    x: Tensor, weight: Tensor, bias: Tensor, y: Tensor, gated: bool, eps: float, channels_last: bool
) -> None:
    """Compute y from packed maps; weight and bias are contiguous float32."""
    n, channels = y.shape[:2]
    pixels, columns = x.shape[2] * x.shape[3], x.shape[3]
    if gated:
        # The four phases are as many runs, or as many rows of channels at each pixel.
        normal = statistics_triton(x, *((4 * pixels, channels) if channels_last else (4, channels * pixels)), eps)
    else:
        normal = torch.empty(0, dtype=torch.float32, device=x.device)
    pixel_block, channel_block = tile(channels_last, pixels, channels)
    pixel_blocks, channel_blocks = triton.cdiv(pixels, pixel_block), triton.cdiv(channels, channel_block)
    _forward[(n * channel_blocks * pixel_blocks,)](
        x, weight, bias, normal, y, channels, pixels, columns, channel_blocks, pixel_blocks,
        GATED=gated, CHANNELS_LAST=channels_last, PIXELS=pixel_block, CHANNELS=channel_block,
    )  # fmt: skip


@triton.jit
def _forward(
    x,
    weight,
    bias,
    normal,
    y,
    channels,
    pixels,
    columns,
    channel_blocks,
    pixel_blocks,
    GATED: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    sample, pixel, channel = place(channel_blocks, pixel_blocks, PIXELS, CHANNELS)
    inside = (pixel < pixels)[:, None] & (channel < channels)[None, :]
    if GATED:
        factor = channel.to(tl.int64)
        of_phase = 2 * channels
    else:
        factor = sample * channels + channel
        of_phase = channels
    a = tl.load(weight + factor, mask=channel < channels, other=0.0)
    b = tl.load(bias + factor, mask=channel < channels, other=0.0)
    corner = (pixel // columns) * 4 * columns + (pixel % columns) * 2
    for phase in tl.static_range(4):
        first = channel + phase * of_phase
        left = map_offsets(sample, pixel, first, 4 * of_phase, pixels, CHANNELS_LAST)
        value = tl.load(x + left, mask=inside, other=0.0).to(tl.float32)
        if GATED:
            gate = map_offsets(
                sample, pixel, channel + phase * of_phase + channels, 4 * of_phase, pixels, CHANNELS_LAST
            )
            value = normalised(value, normal, sample) * a[None, :] + b[None, :]
            value *= tl.sigmoid(tl.load(x + gate, mask=inside, other=0.0).to(tl.float32))
        else:
            value = value * a[None, :] + b[None, :]
            # A comparison with NaN is false: NaN stays.
            value = tl.where(value < 0.0, 0.0, value)
        square = corner + (phase // 2) * 2 * columns + phase % 2
        at = map_offsets(sample, square, channel, channels, 4 * pixels, CHANNELS_LAST)
        tl.store(y + at, value.to(y.dtype.element_ty), mask=inside)
