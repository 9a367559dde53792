"""phase_epilogue in one pass over tiles of pixels by channels; glu_layer_norm's statistics come first."""

from collections.abc import Iterator
from itertools import product

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..glu_layer_norm.triton import normalised, statistics_triton
from ..triton.tiles import corner, grid_of_tiles, map_offsets, place
from ..triton.tuning import size_class, tuned_tiles
from ..triton.variants import FLOATS, FP32, LAYOUTS, SIZES, TILES, Variant, with_wide


def phase_epilogue_triton(
    x: Tensor, weight: Tensor, bias: Tensor, y: Tensor, gated: bool, eps: float, channels_last: bool
) -> None:
    """Compute y from packed maps; weight and bias are contiguous float32."""
    n, channels = y.shape[:2]
    pixels, columns = x.shape[2] * x.shape[3], x.shape[3]
    if gated:
        # The four phases are four runs of a sample, or four runs of channels at each pixel.
        normal = statistics_triton(x, *((4 * pixels, channels) if channels_last else (4, channels * pixels)), eps)
    else:
        normal = torch.empty(0, dtype=torch.float32, device=x.device)
    _forward[grid_of_tiles(n, channels, pixels)](
        x, weight, bias, normal, channels, pixels, columns, y,
        GATED=gated, CHANNELS_LAST=channels_last, SIZE=size_class(y.numel()),
        enable_fp_fusion=False,  # the activations alone round twice too
    )  # fmt: skip


@tuned_tiles("GATED")
@triton.jit
def _forward(
    x,
    weight,
    bias,
    normal,
    channels,
    pixels,
    columns,
    y,
    GATED: tl.constexpr,
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
    if GATED:
        factor = channel.to(tl.int64)
        of_phase = 2 * channels
    else:
        factor = sample * channels + channel
        of_phase = channels
    a = tl.load(weight + factor, mask=channel < channels, other=0.0)
    b = tl.load(bias + factor, mask=channel < channels, other=0.0)
    square = corner(pixel, columns)
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
            # A comparison with NaN is false, so NaN stays.
            value = tl.where(value < 0.0, 0.0, value)
        there = square + (phase // 2) * 2 * columns + phase % 2
        at = map_offsets(sample, there, channel, channels, 4 * tl.cast(pixels, tl.int64), CHANNELS_LAST)
        tl.store(y + at, value.to(y.dtype.element_ty), mask=inside)


def variants() -> Iterator[Variant]:
    """Yield the variants to build: phase_epilogue_ACTIVATION_DTYPE_LAYOUT[_wide]; statistics are glu_layer_norm's."""
    activations = {"glu_layer_norm": True, "affine_relu": False}
    for (activation, gated), (dtype, pointer), (layout, tile_of) in product(
        activations.items(), FLOATS.items(), LAYOUTS.items()
    ):
        types = {"x": pointer, "weight": FP32, "bias": FP32, "normal": FP32, "y": pointer, **SIZES, "columns": "i32"}
        along = ("weight", "bias", "channels") if layout == "channels_last" else ("pixels",)
        name = f"phase_epilogue_{activation}_{dtype}_{layout}"
        yield from with_wide(Variant(name, _forward, types, tile_of | {"GATED": gated}, TILES), "x", "y", *along)
