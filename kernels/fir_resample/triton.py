"""fir_resample in tiles of pixels by channels, shaped so that loads run along memory in both layouts."""

from collections.abc import Iterator
from itertools import product

import triton
import triton.language as tl
from torch import Tensor

from ..triton.tiles import grid_of_tiles, map_offsets, place
from ..triton.tuning import size_class, tuned_tiles
from ..triton.variants import FLOATS, LAYOUTS, SIZES, TILES, Variant, with_wide


def fir_resample_triton(x: Tensor, y: Tensor, up: bool, scale: float, channels_last: bool) -> None:
    """Compute `scale` times y from a packed map."""
    n, channels, rows, columns = x.shape
    # A pixel of the smaller map stands for a square of 2x2 pixels of the larger one.
    small_rows, small_columns = (rows, columns) if up else (rows // 2, columns // 2)
    pixels = small_rows * small_columns
    kernel = _double if up else _halve
    kernel[grid_of_tiles(n, channels, pixels)](
        x, y, scale, channels, pixels, small_columns,
        CHANNELS_LAST=channels_last, SIZE=size_class(n * channels * pixels),
        # Without fused multiply-adds the bits are the reference's. No time is lost, because memory is the limit.
        enable_fp_fusion=False,
    )  # fmt: skip


@triton.jit
def _offsets(sample, row, column, channel, channels, rows, columns, CHANNELS_LAST: tl.constexpr):
    return map_offsets(sample, row * columns + column, channel, channels, rows * columns, CHANNELS_LAST)


@triton.jit
def _load(x, sample, row, column, channel, channels, rows, columns, CHANNELS_LAST: tl.constexpr):
    """Load values as float32, zero outside of the map."""
    inside = (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
    at = _offsets(sample, row, column, channel, channels, rows, columns, CHANNELS_LAST)
    return tl.load(x + at, mask=inside[:, None] & (channel < channels)[None, :], other=0.0).to(tl.float32)


@triton.jit
def _double_rows(x, sample, row, column, channel, channels, rows, columns, CHANNELS_LAST: tl.constexpr):
    """Return the two rows of the result at a column of x."""
    above = _load(x, sample, row - 1, column, channel, channels, rows, columns, CHANNELS_LAST)
    here = _load(x, sample, row, column, channel, channels, rows, columns, CHANNELS_LAST)
    below = _load(x, sample, row + 1, column, channel, channels, rows, columns, CHANNELS_LAST)
    return 0.25 * above + 0.75 * here, 0.75 * here + 0.25 * below


@tuned_tiles()
@triton.jit
def _double(
    x,
    y,
    scale,
    channels,
    pixels,
    columns,
    CHANNELS_LAST: tl.constexpr,
    SIZE: tl.constexpr,
    VALUES: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    sample, channel, pixel = place(channels, pixels, CHANNELS, PIXELS)
    pixel += tl.arange(0, PIXELS)
    channel += tl.arange(0, CHANNELS)
    # Rows are int64, because either map may have more pixels than int32 counts.
    rows, row, column = tl.cast(pixels // columns, tl.int64), (pixel // columns).to(tl.int64), pixel % columns
    inside = (pixel < pixels)[:, None] & (channel < channels)[None, :]
    top_left, low_left = _double_rows(x, sample, row, column - 1, channel, channels, rows, columns, CHANNELS_LAST)
    top, low = _double_rows(x, sample, row, column, channel, channels, rows, columns, CHANNELS_LAST)
    top_right, low_right = _double_rows(x, sample, row, column + 1, channel, channels, rows, columns, CHANNELS_LAST)
    for k in tl.static_range(4):
        if k == 0:
            value = 0.25 * top_left + 0.75 * top
        elif k == 1:
            value = 0.75 * top + 0.25 * top_right
        elif k == 2:
            value = 0.25 * low_left + 0.75 * low
        else:
            value = 0.75 * low + 0.25 * low_right
        at = _offsets(
            sample, 2 * row + k // 2, 2 * column + k % 2, channel, channels, 2 * rows, 2 * columns, CHANNELS_LAST
        )
        tl.store(y + at, (scale * value).to(y.dtype.element_ty), mask=inside)


@triton.jit
def _halve_rows(x, sample, row, column, channel, channels, rows, columns, CHANNELS_LAST: tl.constexpr):
    """Return the row of the result at a column of x."""
    a = _load(x, sample, 2 * row - 1, column, channel, channels, rows, columns, CHANNELS_LAST)
    b = _load(x, sample, 2 * row, column, channel, channels, rows, columns, CHANNELS_LAST)
    c = _load(x, sample, 2 * row + 1, column, channel, channels, rows, columns, CHANNELS_LAST)
    d = _load(x, sample, 2 * row + 2, column, channel, channels, rows, columns, CHANNELS_LAST)
    return 0.125 * a + 0.375 * b + 0.375 * c + 0.125 * d


@tuned_tiles()
@triton.jit
def _halve(
    x,
    y,
    scale,
    channels,
    pixels,
    columns,
    CHANNELS_LAST: tl.constexpr,
    SIZE: tl.constexpr,
    VALUES: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    sample, channel, pixel = place(channels, pixels, CHANNELS, PIXELS)
    pixel += tl.arange(0, PIXELS)
    channel += tl.arange(0, CHANNELS)
    # Rows are int64, because either map may have more pixels than int32 counts.
    rows, row, column = tl.cast(pixels // columns, tl.int64), (pixel // columns).to(tl.int64), pixel % columns
    inside = (pixel < pixels)[:, None] & (channel < channels)[None, :]
    a = _halve_rows(x, sample, row, 2 * column - 1, channel, channels, 2 * rows, 2 * columns, CHANNELS_LAST)
    b = _halve_rows(x, sample, row, 2 * column, channel, channels, 2 * rows, 2 * columns, CHANNELS_LAST)
    c = _halve_rows(x, sample, row, 2 * column + 1, channel, channels, 2 * rows, 2 * columns, CHANNELS_LAST)
    d = _halve_rows(x, sample, row, 2 * column + 2, channel, channels, 2 * rows, 2 * columns, CHANNELS_LAST)
    value = scale * (0.125 * a + 0.375 * b + 0.375 * c + 0.125 * d)
    at = _offsets(sample, row, column, channel, channels, rows, columns, CHANNELS_LAST)
    tl.store(y + at, value.to(y.dtype.element_ty), mask=inside)


def variants() -> Iterator[Variant]:
    """Yield the variants to build ahead of time: fir_resample_PASS_DTYPE_LAYOUT[_wide], passes double and halve.

    Sizes are those of the smaller map. Only channels make loads wide, because planes are not read along whole lines.
    """
    passes = {"double": _double, "halve": _halve}
    for (step, function), (dtype, pointer), (layout, tile_of) in product(
        passes.items(), FLOATS.items(), LAYOUTS.items()
    ):
        types = {"x": pointer, "y": pointer, "scale": "fp32", **SIZES, "columns": "i32"}
        variant = Variant(f"fir_resample_{step}_{dtype}_{layout}", function, types, tile_of, TILES)
        if layout == "channels_last":
            yield from with_wide(variant, "x", "y", "channels")
        else:
            yield variant
