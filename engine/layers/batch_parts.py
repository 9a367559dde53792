"""Batches in parts: on a CPU the maps of a wide layer go through in turns that stay in its caches."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from ...kernels.op import plain

__all__ = ["WIDEST_CPU_MAP", "is_written", "joined", "part_sizes", "parts_of"]

# Bytes of a layer's widest map. More spill from the caches, and the C heap gives pages back and takes them again.
WIDEST_CPU_MAP = 3 * 2**20


def is_written() -> bool:
    """Whether the network is being written out as a graph, in which the batch may have any size."""
    return plain.this_thread.active or torch.compiler.is_compiling() or torch.compiler.is_exporting()


def part_sizes(x: Tensor, widest: int, training: bool, least: int = 1, step: int = 1) -> list[int]:
    """The parts, nearly equal, in which to run a batch.

    Args:
        x: the batch, [N, ...].
        widest: bytes that one sample's widest map takes.
        training: then, as on other devices and in a graph that is written out, the batch is one part.
        least: samples of a part, a multiple of `step` or below it.
        step: all parts but the last are multiples of it; none is smaller.
    """
    count = x.shape[0]  # not its len, which would fix the batch of a graph
    if training or is_written() or x.device.type != "cpu":
        return [count]
    most = max(WIDEST_CPU_MAP // widest, least)
    parts = max(min(-(-count // most), count // max(least, step)), 1)
    bounds = [-(-count // step) * k // parts * step for k in range(parts)] + [count]
    return [stop - start for start, stop in pairwise(bounds)]


def parts_of(sizes: Sequence[int], *batches: Tensor) -> list[tuple[Tensor, ...]]:
    """Several batches in parts of the same sizes, side by side."""
    if len(sizes) == 1:  # also in a graph, where a size has no number
        return [batches]
    return list(zip(*(batch.split(list(sizes)) for batch in batches), strict=True))


def joined(parts: Sequence[Tensor]) -> Tensor:
    """One batch again; a single part is it already."""
    return torch.cat(list(parts)) if len(parts) > 1 else parts[0]
