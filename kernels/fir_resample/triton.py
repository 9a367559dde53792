"""fir_resample in tiles of pixels by channels, shaped so that loads run along memory in both layouts."""

import triton
import triton.language as tl
from torch import Tensor


def fir_resample_triton(x: Tensor, y: Tensor, up: bool, scale: float, channels_last: bool) -> None:
    """Compute `scale` times y from a packed map."""
    n, channels, rows, columns = x.shape
    # A pixel of the smaller map is a square of 2x2 of the larger one.
    small_rows, small_columns = (rows, columns) if up else (rows // 2, columns // 2)
    pixel_block, channel_block = (16, 64) if channels_last else (512, 1)  # memory runs along the larger one
    tiles, groups = triton.cdiv(small_rows * small_columns, pixel_block), triton.cdiv(channels, channel_block)
    kernel = _double if up else _halve
    kernel[(tiles * groups * n,)](
        x, y, scale, channels, small_rows, small_columns, tiles, groups,
        CHANNELS_LAST=channels_last, PIXELS=pixel_block, CHANNELS=channel_block,
        # Without fused multiply-adds the bits are the reference's; the kernel waits for memory anyway.
        enable_fp_fusion=False,
    )  # fmt: skip


@triton.jit
def _place(program, tiles, groups, PIXELS: tl.constexpr, CHANNELS: tl.constexpr):
    """Pixels, channels and sample of a program, in one dimension of the grid: the others end at 65535."""
    pixel = (program % tiles).to(tl.int64) * PIXELS + tl.arange(0, PIXELS)
    channel = (program // tiles % groups) * CHANNELS + tl.arange(0, CHANNELS)
    return pixel, channel, (program // tiles // groups).to(tl.int64)


@triton.jit
def _offsets(sample, row, column, channel, channels, rows, columns, CHANNELS_LAST: tl.constexpr):
    pixel = row * columns + column
    if CHANNELS_LAST:
        return (sample * rows * columns + pixel)[:, None] * channels + channel[None, :]
    return pixel[:, None] + (sample * channels + channel)[None, :] * rows * columns


@triton.jit
def _load(x, sample, row, column, channel, channels, rows, columns, CHANNELS_LAST: tl.constexpr):
    """Values as float32, zero outside of the map."""
    inside = (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
    at = _offsets(sample, row, column, channel, channels, rows, columns, CHANNELS_LAST)
    return tl.load(x + at, mask=inside[:, None] & (channel < channels)[None, :], other=0.0).to(tl.float32)


@triton.jit
def _double_rows(x, sample, row, column, channel, channels, rows, columns, CHANNELS_LAST: tl.constexpr):
    """The two rows of the result at a column of x."""
    above = _load(x, sample, row - 1, column, channel, channels, rows, columns, CHANNELS_LAST)
    here = _load(x, sample, row, column, channel, channels, rows, columns, CHANNELS_LAST)
    below = _load(x, sample, row + 1, column, channel, channels, rows, columns, CHANNELS_LAST)
    return 0.25 * above + 0.75 * here, 0.75 * here + 0.25 * below


@triton.jit
def _double(
    x,
    y,
    scale,
    channels,
    rows,
    columns,
    tiles,
    groups,
    CHANNELS_LAST: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    pixel, channel, sample = _place(tl.program_id(0), tiles, groups, PIXELS, CHANNELS)
    row, column = pixel // columns, pixel % columns
    inside = (row < rows)[:, None] & (channel < channels)[None, :]
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
    """The row of the result at a column of x."""
    a = _load(x, sample, 2 * row - 1, column, channel, channels, rows, columns, CHANNELS_LAST)
    b = _load(x, sample, 2 * row, column, channel, channels, rows, columns, CHANNELS_LAST)
    c = _load(x, sample, 2 * row + 1, column, channel, channels, rows, columns, CHANNELS_LAST)
    d = _load(x, sample, 2 * row + 2, column, channel, channels, rows, columns, CHANNELS_LAST)
    return 0.125 * a + 0.375 * b + 0.375 * c + 0.125 * d


@triton.jit
def _halve(
    x,
    y,
    scale,
    channels,
    rows,
    columns,
    tiles,
    groups,
    CHANNELS_LAST: tl.constexpr,
    PIXELS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    pixel, channel, sample = _place(tl.program_id(0), tiles, groups, PIXELS, CHANNELS)
    row, column = pixel // columns, pixel % columns
    inside = (row < rows)[:, None] & (channel < channels)[None, :]
    a = _halve_rows(x, sample, row, 2 * column - 1, channel, channels, 2 * rows, 2 * columns, CHANNELS_LAST)
    b = _halve_rows(x, sample, row, 2 * column, channel, channels, 2 * rows, 2 * columns, CHANNELS_LAST)
    c = _halve_rows(x, sample, row, 2 * column + 1, channel, channels, 2 * rows, 2 * columns, CHANNELS_LAST)
    d = _halve_rows(x, sample, row, 2 * column + 2, channel, channels, 2 * rows, 2 * columns, CHANNELS_LAST)
    value = scale * (0.125 * a + 0.375 * b + 0.375 * c + 0.125 * d)
    at = _offsets(sample, row, column, channel, channels, rows, columns, CHANNELS_LAST)
    tl.store(y + at, value.to(y.dtype.element_ty), mask=inside)
