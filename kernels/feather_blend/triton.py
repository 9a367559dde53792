"""feather_blend as a gather: one program owns a tile of the picture and walks the patches that touch it."""

from collections.abc import Iterator
from itertools import product
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..triton.tuning import size_class, tuned
from ..triton.variants import FLOATS, FP32, Variant

_TILES = [
    triton.Config({"TILE_ROWS": rows, "TILE_COLUMNS": columns}, num_warps=warps)
    for rows, columns, warps in ((8, 64, 4), (4, 64, 4), (4, 64, 8), (16, 64, 8))
]
_SCAN = 128  # patches whose positions are tested at once


def feather_blend_triton(
    patches: Tensor, positions: Tensor, window_rows: Tensor, window_columns: Tensor, picture: Tensor
) -> None:
    """Blend patches into picture [H, W, C], float32 or uint8; arguments are those of op.py, validated."""
    count, channels, patch_rows, patch_columns = patches.shape
    height, width, _ = picture.shape

    def grid(chosen: dict[str, Any]) -> tuple[int]:
        return (triton.cdiv(height, chosen["TILE_ROWS"]) * triton.cdiv(width, chosen["TILE_COLUMNS"]),)

    _feather_blend_kernel[grid](
        patches,
        positions,
        window_rows,
        window_columns,
        picture,
        count,
        height,
        width,
        patch_rows,
        patch_columns,
        *patches.stride(),
        CHANNELS=channels,
        CHANNEL_BLOCK=triton.next_power_of_2(channels),
        BYTES=picture.dtype == torch.uint8,
        SIZE=size_class(picture.numel()),
        SCAN=_SCAN,
        # Without fused multiply-adds the sums are the reference's. No time is lost, because memory is the limit.
        enable_fp_fusion=False,
    )


@tuned(_TILES, "CHANNELS", "SIZE")
@triton.jit
def _feather_blend_kernel(
    patches,
    positions,
    window_rows,
    window_columns,
    picture,
    count,
    height,
    width,
    patch_rows,
    patch_columns,
    stride_patch,
    stride_channel,
    stride_row,
    stride_column,
    CHANNELS: tl.constexpr,
    CHANNEL_BLOCK: tl.constexpr,
    BYTES: tl.constexpr,
    SIZE: tl.constexpr,
    TILE_ROWS: tl.constexpr,
    TILE_COLUMNS: tl.constexpr,
    SCAN: tl.constexpr,
):
    tiles_across = tl.cdiv(width, TILE_COLUMNS)
    tile_top = tl.program_id(0) // tiles_across * TILE_ROWS
    tile_left = tl.program_id(0) % tiles_across * TILE_COLUMNS
    pixel = tl.arange(0, TILE_ROWS * TILE_COLUMNS)
    y = tile_top + pixel // TILE_COLUMNS
    x = tile_left + pixel % TILE_COLUMNS
    channel = tl.arange(0, CHANNEL_BLOCK)
    # -0.0 is the neutral element of the sum (see reference.py). It is a product because tl.full(-0.0) is +0.0 in 3.6.
    sums = tl.zeros((TILE_ROWS * TILE_COLUMNS, CHANNEL_BLOCK), tl.float32) * -1.0
    totals = tl.zeros((TILE_ROWS * TILE_COLUMNS,), tl.float32)

    # A range would fail: under NumPy 2.4 the interpreter of Triton 3.6 cannot count to a runtime number.
    start = 0
    while start < count:
        candidate = start + tl.arange(0, SCAN)
        top = tl.load(positions + 2 * candidate.to(tl.int64), mask=candidate < count, other=height)
        left = tl.load(positions + 2 * candidate.to(tl.int64) + 1, mask=candidate < count, other=width)
        # Positions may be any int64, so they are compared before anything is added to them.
        hit = (top < tl.minimum(tile_top + TILE_ROWS, height)) & (top > tile_top - patch_rows)
        hit = hit & (left < tl.minimum(tile_left + TILE_COLUMNS, width)) & (left > tile_left - patch_columns)
        # Patches are added in index order: n is the smallest index that is still to come, or count.
        n = tl.min(tl.where(hit, candidate, count), axis=0)
        while n < count:
            patch_row = y - tl.load(positions + 2 * n.to(tl.int64)).to(tl.int32)
            patch_column = x - tl.load(positions + 2 * n.to(tl.int64) + 1).to(tl.int32)
            inside = (patch_row >= 0) & (patch_row < patch_rows) & (patch_column >= 0) & (patch_column < patch_columns)
            weight = tl.load(window_rows + patch_row, mask=inside, other=0.0) * tl.load(
                window_columns + patch_column, mask=inside, other=0.0
            )
            offset = patch_row.to(tl.int64) * stride_row + patch_column.to(tl.int64) * stride_column
            value = tl.load(
                patches
                + n.to(tl.int64) * stride_patch
                + offset[:, None]
                + channel.to(tl.int64)[None, :] * stride_channel,
                mask=inside[:, None] & (channel < CHANNELS)[None, :],
                other=0.0,
            ).to(tl.float32)
            # Outside the patch nothing is added, not even 0 * 0, so that a sum of -0.0 keeps its sign.
            sums = tl.where(inside[:, None], sums + weight[:, None] * value, sums)
            totals += weight
            n = tl.min(tl.where(hit & (candidate > n), candidate, count), axis=0)
        start += SCAN

    covered = totals > 0
    mean = tl.where(covered[:, None], tl.div_rn(sums, tl.where(covered, totals, 1.0)[:, None]), 0.0)
    at = picture + (y.to(tl.int64) * width + x)[:, None] * CHANNELS + channel[None, :]
    within = ((y < height) & (x < width))[:, None] & (channel < CHANNELS)[None, :]
    if BYTES:
        # Comparisons with NaN are false, so NaN becomes 0. Adding 1.5 * 2^23 rounds half to even.
        scaled = (mean + 1.0) * 127.5
        limited = tl.where(scaled > 0.0, scaled, 0.0)
        limited = tl.where(limited < 255.0, limited, 255.0)
        tl.store(at, ((limited + 12582912.0) - 12582912.0).to(tl.int32).to(tl.uint8), mask=within)
    else:
        tl.store(at, mean, mask=within)


def variants() -> Iterator[Variant]:
    """Yield the variants to build ahead of time, for three channels: feather_blend_DTYPE[_bytes]."""
    for (dtype, pointer), as_bytes in product(FLOATS.items(), (False, True)):
        types = {"patches": pointer, "positions": "*i64", "window_rows": FP32, "window_columns": FP32}
        types |= {"picture": "*u8" if as_bytes else FP32}
        types |= dict.fromkeys(("count", "height", "width", "patch_rows", "patch_columns"), "i32")
        types |= dict.fromkeys(("stride_patch", "stride_channel", "stride_row", "stride_column"), "i64")
        constants = {"CHANNELS": 3, "CHANNEL_BLOCK": 4, "BYTES": as_bytes, "SCAN": _SCAN} | _TILES[0].kwargs
        name = f"feather_blend_{dtype}{'_bytes' if as_bytes else ''}"
        grid = ((("height", "TILE_ROWS"), ("width", "TILE_COLUMNS")),)
        yield Variant(name, _feather_blend_kernel, types, constants, grid)
