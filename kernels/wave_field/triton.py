"""wave_field in tiles of cells by features: a feature is a wave or a noise."""

from collections.abc import Iterator
from itertools import product

import triton
import triton.language as tl
from torch import Tensor

from ..triton.tiles import grid_of_tiles, map_offsets, place
from ..triton.tuning import size_class, tuned_tiles
from ..triton.variants import FLOATS, FP32, LAYOUTS, SIZES, TILES, Variant, with_wide


def wave_field_triton(
    down: Tensor, across: Tensor, noise: Tensor, rows: Tensor, columns: Tensor, y: Tensor, every: int, first: int
) -> None:
    """Compute y [N, S, T, K + L] from packed arguments; they are those of op.py, validated."""
    n, s, t, channels = y.shape
    coarse = across.shape[1]
    _forward[grid_of_tiles(n, channels, s * t)](
        down, across, noise, rows, columns, channels, s * t, t, down.shape[2] // 2, coarse, *noise.shape[:2],
        2 * every, 2 * first + 1 - every, y, CHANNELS_LAST=True, MOVING=coarse > 1, SIZE=size_class(y.numel()),
        enable_fp_fusion=False,  # the C++ kernel and the reference round each product too
    )  # fmt: skip


@triton.jit
def _factor(across, at, next_row, share, inside, MOVING: tl.constexpr):
    """Load factors; of a row of the map that lies between two of theirs, on the straight line between both."""
    here = tl.load(across + at, mask=inside, other=0.0)
    if MOVING:
        between = (share > 0.0)[:, None]
        following = tl.load(across + at + next_row, mask=inside & between, other=0.0)
        here = tl.where(between, here + (following - here) * share[:, None], here)
    return here


@tuned_tiles("MOVING")
@triton.jit
def _forward(
    down,
    across,
    noise,
    at_rows,
    at_columns,
    channels,
    pixels,
    columns,
    waves,
    coarse,
    table_rows,
    table_columns,
    period,
    start,
    y,
    CHANNELS_LAST: tl.constexpr,
    MOVING: tl.constexpr,
    SIZE: tl.constexpr,
    VALUES: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    sample, channel, pixel = place(channels, pixels, CHANNELS, PIXELS)
    pixel += tl.arange(0, PIXELS)
    channel += tl.arange(0, CHANNELS)
    known, feature = pixel < pixels, channel[None, :]
    is_wave = known[:, None] & (channel < waves)[None, :]
    is_noise = known[:, None] & ((channel >= waves) & (channel < channels))[None, :]
    row, column = pixel // columns, pixel % columns
    of_map = sample * (pixels // columns) + row

    # Places among the rows of factors are counted in parts of a row, `period` a row.
    before, share = tl.zeros((PIXELS,), tl.int32), tl.zeros((PIXELS,), tl.float32)
    if MOVING:
        before = (start + 2 * row) // period
        share = tl.div_rn(((start + 2 * row) % period).to(tl.float32), tl.cast(period, tl.float32))
    factors = channels + waves  # A, B and c
    next_row = columns.to(tl.int64) * factors
    at = ((sample * coarse + before) * columns + column)[:, None] * factors + feature
    a = _factor(across, at, next_row, share, is_wave, MOVING)
    b_or_c = _factor(across, at + waves, next_row, share, is_wave | is_noise, MOVING)

    at = of_map[:, None] * 2 * waves + feature
    cos = tl.load(down + at, mask=is_wave, other=0.0)
    sin = tl.load(down + at + waves, mask=is_wave, other=0.0)
    cell_row = tl.load(at_rows + of_map, mask=known, other=0)
    cell_column = tl.load(at_columns + sample * columns + column, mask=known, other=0)
    in_table = (cell_row >= 0) & (cell_row < table_rows) & (cell_column >= 0) & (cell_column < table_columns)
    at = (cell_row * table_columns + cell_column)[:, None] * (channels - waves) + feature - waves
    specks = tl.load(noise + at, mask=is_noise & in_table[:, None], other=float("nan"))

    value = tl.where(is_wave, cos * a + sin * b_or_c, specks * b_or_c).to(y.dtype.element_ty)
    tl.store(y + map_offsets(sample, pixel, channel, channels, pixels, CHANNELS_LAST), value, mask=is_wave | is_noise)


def variants() -> Iterator[Variant]:
    """Yield the variants to build ahead of time: wave_field_DTYPE[_moving][_wide]."""
    tensors = {"down": FP32, "across": FP32, "noise": FP32, "at_rows": "*i64", "at_columns": "*i64"}
    sizes = SIZES | dict.fromkeys(
        ("columns", "waves", "coarse", "table_rows", "table_columns", "period", "start"), "i32"
    )
    for (dtype, pointer), moving in product(FLOATS.items(), (False, True)):
        name = f"wave_field_{dtype}{'_moving' if moving else ''}"
        constants = LAYOUTS["channels_last"] | {"MOVING": moving}
        variant = Variant(name, _forward, tensors | sizes | {"y": pointer}, constants, TILES)
        yield from with_wide(variant, "down", "across", "noise", "y", "channels", "waves")
