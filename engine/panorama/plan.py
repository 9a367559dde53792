"""Plans a render's memory: the largest batch, and the number of tiles composed together, that a budget allows."""

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from zellige.errors import BudgetError

from ..device import show_bytes
from .canvas.canvas import Canvas
from .patches import Block, PatchMaker
from .scene import Region, Scene

__all__ = ["Plan", "block_bytes", "filled", "fixed_bytes", "plan_batch", "plan_render", "too_small"]

_PATCHES_A_CHUNK, _PATCHES_A_BATCH = 1024, 128
# Memory beyond live tensors: thread stacks, pages of the libraries, heap pages between live blocks, reordered weights.
# Peaks were 0.7 to 0.93 times the prediction on a CPU, for widths 32 and 64 in float32 and bfloat16.
_CPU_FACTOR, _CPU_WORKSPACE = 2.0, 24 * 2**20
# ONNX Runtime does not split the batch, and reorders maps for its convolutions. Peaks were 0.8 to 0.95 times the
# prediction.
_GRAPH_FACTOR = 2.5


@dataclass(frozen=True)
class Plan:
    """A batch size, and the predicted peak in bytes of a render with it."""

    batch: int
    predicted_bytes: int


def plan_render(
    maker: PatchMaker, scene: Scene, canvas: Canvas, budget: int, name: str = "the model", whole: Region | None = None
) -> tuple[Plan, int]:
    """The batch size in blocks and the number of tiles composed together, within the budget, for a picture or a region.

    Tiles that are composed together share the half-step patches at their borders; beyond about a thousand patches this
    gains nothing. Raises BudgetError as `plan_batch` does.
    """
    whole = whole or scene.whole
    height, width = canvas.tile
    across = -(-whole.width // width)
    # The second tile has most patches, because an open axis may have none at the half step beyond its end.
    top, left = (tile if side >= 2 * tile else 0 for side, tile in ((whole.height, height), (whole.width, width)))
    tile = Region(whole.top + top, whole.left + left, min(height, whole.height), min(width, whole.width))
    one = len(scene.work(tile))
    area = scene.block[0] * scene.block[1]
    tiles = max(1, min(across, _PATCHES_A_CHUNK // (area * one)))
    enough = block_bytes(maker, scene.block, 16)
    # On a small budget fewer tiles are composed together first, then batches become smaller.
    while tiles > 1 and fixed_bytes(maker, canvas, area * one, tiles) + enough > budget:
        tiles //= 2
    fixed = fixed_bytes(maker, canvas, area * one, tiles)
    least, step = maker.batching
    most = max(least, min(one * tiles, _PATCHES_A_BATCH // area))

    def predict(batch: int) -> int:
        return fixed + block_bytes(maker, scene.block, batch)

    return plan_batch(budget, predict, most, least=least, step=step, name=name), tiles


def plan_batch(
    budget: int,
    predict: Callable[[int], int],
    most: int,
    *,
    least: int = 1,
    step: int = 1,
    name: str = "the model",
) -> Plan:
    """The largest batch, up to `most`, whose predicted bytes stay within the budget.

    Args:
        budget: bytes.
        predict: gives the bytes that a batch takes; a larger batch never takes less.
        most: the largest useful batch.
        least: the smallest possible batch, >= 1, a multiple of `step`.
        step: every batch is a multiple of it.
        name: the model's name, for the error.
    Raises:
        BudgetError: not even the smallest batch fits; the message names the smallest budget that suffices.
    """
    if predict(least) > budget:
        raise too_small(name, predict(least), budget)
    larger = range(least, most + 1, step)
    batch = larger[max(bisect_right(larger, budget, key=predict), 1) - 1] if larger else least
    return Plan(batch, predict(batch))


def too_small(name: str, needed: int, budget: int) -> BudgetError:
    """The error for a budget that is too small for one patch."""
    # The budget is not rounded, because one just below the need would then read the same as the need.
    given = str(budget) if budget % 2**20 else show_bytes(budget)
    return BudgetError(
        f"{name} needs at least {show_bytes(needed)} for one patch; --memory {given} is too small. "
        f"Try --memory {show_bytes(needed)}."
    )


def filled(maker: PatchMaker, count: int) -> int:
    """The batch size that the maker is called with for `count` blocks, rounded up as its `batching` asks."""
    least, step = maker.batching
    return max(least, -(-count // step) * step)


def block_bytes(maker: PatchMaker, block: Block, count: int) -> int:
    """The predicted peak in bytes of making a batch of `count` blocks."""
    factor = _GRAPH_FACTOR if maker.graph else _CPU_FACTOR if maker.device.type == "cpu" else 1.0
    return int(maker.live_bytes(block, count) * factor)


def fixed_bytes(maker: PatchMaker, canvas: Canvas | None, patches: int, tiles: int) -> int:
    """Bytes that a render takes with any batch: patches and pixels of a chunk, the canvas's memory, workspaces."""
    patch = maker.channels * maker.side**2 * maker.dtype.itemsize
    pixels = 2 * tiles * int(np.prod(canvas.tile)) * maker.channels if canvas else 0
    own = canvas.resident_bytes if canvas else 0
    # On CUDA the weights count, twice for a graph; a CPU process has loaded them before the render's peak is measured.
    on_cpu = maker.device.type == "cpu"
    workspace = _CPU_WORKSPACE + 3 * max(maker.weights) if on_cpu else sum(maker.weights) * (1 + maker.graph)
    return patches * max(tiles, 1) * patch + pixels + own + workspace
