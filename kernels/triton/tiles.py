"""Tiles of maps [N, C, H, W], pixels by channels: their shape, their launch, and where their values lie in memory.

Memory runs along the pixels of a plane, or along the channels of a pixel (channels-last), and so does the long side of
a tile. The first axis of the grid counts the tiles of all samples and channels, because the others end at 65535.
"""

from collections.abc import Callable
from typing import Any

import triton
import triton.language as tl

__all__ = ["corner", "grid_of_tiles", "map_offsets", "place", "tile"]

_WIDEST = 128  # channels of a channels-last tile: 256 bytes or more, so that memory is read in whole lines


def tile(channels_last: bool, pixels: int, channels: int, values: int = 1024) -> tuple[int, int]:
    """Return the pixels and channels of a tile of `values` values: one runs along memory, the other fills small maps.

    Args:
        channels_last: whether memory runs along channels.
        pixels: of the map.
        channels: of the map.
        values: of the tile, a power of two; a smaller map takes a smaller tile.
    """
    if channels_last:
        across = min(triton.next_power_of_2(channels), _WIDEST)
        return min(triton.next_power_of_2(pixels), values // across), across
    across = min(triton.next_power_of_2(pixels), values)
    return across, min(triton.next_power_of_2(channels), values // across)


def grid_of_tiles(samples: int, channels: int, pixels: int) -> Callable[[dict[str, Any]], tuple[int]]:
    """Return the launch of a program for each tile of PIXELS by CHANNELS, in the order in which `place` takes them."""

    def grid(chosen: dict[str, Any]) -> tuple[int]:
        return (samples * triton.cdiv(channels, chosen["CHANNELS"]) * triton.cdiv(pixels, chosen["PIXELS"]),)

    return grid


@triton.jit
def place(channels, pixels, CHANNELS: tl.constexpr, PIXELS: tl.constexpr):
    """Return sample (int64), first channel and first pixel of this program."""
    tiles = tl.cdiv(pixels, PIXELS)
    groups = tl.cdiv(channels, CHANNELS)
    row = tl.program_id(0) // tiles
    return (row // groups).to(tl.int64), row % groups * CHANNELS, tl.program_id(0) % tiles * PIXELS


@triton.jit
def map_offsets(sample, pixel, channel, channels, pixels, CHANNELS_LAST: tl.constexpr):
    """Return offsets [pixel, channel] in a packed map of `channels` channels and `pixels` pixels; `sample` is int64."""
    if CHANNELS_LAST:
        return (sample * pixels + pixel)[:, None] * channels + channel[None, :]
    return pixel[:, None] + (sample * channels + channel)[None, :] * pixels


@triton.jit
def corner(pixel, columns):
    """Return the index (int64), in the doubled map, of the first of the four pixels that a pixel becomes."""
    return ((pixel // columns).to(tl.int64) * columns + pixel) * 2
