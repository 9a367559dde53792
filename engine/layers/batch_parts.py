"""Splits batches into parts on a CPU, so that the maps of a wide layer stay in the CPU's caches."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from ...kernels.op import plain

__all__ = [
    "WIDEST_CPU_MAP", "WIDEST_CPU_PIECE", "bands", "is_written", "joined", "on_cpu", "part_sizes", "parts_of",
    "piece_block",
]  # fmt: skip

# Bytes of a layer's widest map in one part. Larger maps spill from the caches, and the C heap then returns their pages
# to the system and takes them again.
WIDEST_CPU_MAP = 3 * 2**20
# Bytes of the map that a layer makes of a piece of one sample; two of them are alive at once. Pieces overlap, and each
# takes a fixed time. On one core `planet` took 7 % more time with 2 MiB; with 3 MiB it took 6 MiB more memory.
WIDEST_CPU_PIECE = 9 * 2**18
_BAND = 2**18  # bytes


def is_written() -> bool:
    """Whether the network is being exported or compiled; then no decision may depend on the size of the batch."""
    return plain.this_thread.active or torch.compiler.is_compiling() or torch.compiler.is_exporting()


def part_sizes(x: Tensor, widest: int, training: bool, least: int = 1, step: int = 1) -> list[int]:
    """The sizes of the nearly equal parts in which to run a batch.

    The batch is one part in training, on other devices than a CPU, and while the network is exported or compiled.

    Args:
        x: the batch, [N, ...].
        widest: bytes of one sample's widest map.
        training: whether the network is in training.
        least: the smallest part in samples; a multiple of `step`, or less than it.
        step: every part but the last is a multiple of it; no part is smaller.
    """
    count = x.shape[0]  # len(x) would fix the batch size of an exported graph
    if not on_cpu(x, training):
        return [count]
    most = max(WIDEST_CPU_MAP // widest, least)
    parts = max(min(-(-count // most), count // max(least, step)), 1)
    bounds = [-(-count // step) * k // parts * step for k in range(parts)] + [count]
    return [stop - start for start, stop in pairwise(bounds)]


def piece_block(made: int, block: tuple[int, int], least: int) -> tuple[int, int]:
    """The size of the nearly equal pieces in which to run a single sample, if these may be cut out of it.

    Args:
        made: bytes of the map that is made of the sample.
        block: number of smallest pieces, such as patches, down and across.
        least: the fewest of these along a side of a piece that is cut.
    Returns:
        number of smallest pieces in each piece, down and across.
    """
    parts, (down, across) = [1, 1], block
    while made * down * across > WIDEST_CPU_PIECE * block[0] * block[1] and max(down, across) > least:
        parts[across >= down] += 1
        down, across = (-(-side // count) for side, count in zip(block, parts, strict=True))
    return down, across


def bands(x: Tensor, training: bool) -> list[tuple[int, int]]:
    """The bands of rows, first and behind the last, in which to change a map [N, C, H, W] with a temporary of its size.

    They have up to 256 KiB. A batch is one band, because the rows of several samples do not lie together in memory.
    """
    rows = x.shape[2]
    if not on_cpu(x, training) or x.shape[0] != 1:
        return [(0, rows)]
    step = max(_BAND // (x[:, :, :1].numel() * x.element_size()), 1)
    return [(first, min(first + step, rows)) for first in range(0, rows, step)]


def on_cpu(x: Tensor, training: bool) -> bool:
    """Whether a network may run in parts: on a CPU, but not in training and while it is exported or compiled."""
    return not training and not is_written() and x.device.type == "cpu"


def parts_of(sizes: Sequence[int], *batches: Tensor) -> list[tuple[Tensor, ...]]:
    """Split several batches into parts of the same sizes; item k has part k of every batch."""
    if len(sizes) == 1:  # in an exported graph too, because the batch size is a symbol there
        return [batches]
    return list(zip(*(batch.split(list(sizes)) for batch in batches), strict=True))


def joined(parts: Sequence[Tensor]) -> Tensor:
    """Join parts into one batch; a single part is returned without a copy."""
    return torch.cat(list(parts)) if len(parts) > 1 else parts[0]
