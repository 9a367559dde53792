"""Plans a render's memory: the largest batch, and the number of tiles composed together, that a budget allows."""

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from zellige.errors import BudgetError

from ..device import show_bytes
from .canvas.canvas import Canvas
from .patches import Block, PatchMaker
from .scene import Region, Scene
from .workers import AHEAD

__all__ = ["Plan", "Taken", "block_bytes", "fixed_bytes", "plan_batch", "plan_render", "too_small"]

_PATCHES_A_CHUNK, _PATCHES_A_BATCH = 1024, 128
_CHUNKS_A_WORKER = 4  # at least, because all wait for the last one
# Memory beyond live tensors: thread stacks, pages of the libraries, heap pages between live blocks, reordered weights.
# Peaks were 0.5 to 0.85 times the prediction on a CPU, for budgets of 32 MiB and more in float32 and bfloat16.
_CPU_FACTOR, _CPU_WORKSPACE = 2.0, 16 * 2**20
# ONNX Runtime does not split the batch, and reorders maps for its convolutions. Peaks were 0.8 to 0.95 times the
# prediction.
_GRAPH_FACTOR = 2.5


@dataclass(frozen=True)
class Plan:
    """A batch size, and the predicted peak in bytes of a render with it."""

    batch: int
    predicted_bytes: int


class Taken(NamedTuple):
    """What a picture that is resumed was begun with: its block, blocks in a batch, and tiles composed together."""

    block: Block
    batch: int
    tiles: int


def plan_render(
    maker: PatchMaker,
    scene: Scene,
    canvas: Canvas,
    budget: int,
    name: str = "the model",
    whole: Region | None = None,
    taken: Taken | None = None,
    workers: int = 0,
) -> tuple[Plan, int, Scene]:
    """The batch in blocks, the number of tiles composed together, and the scene with blocks that fit the budget.

    The scene's blocks become smaller only if not one of them fits; no pixel changes by that. Tiles that are composed
    together share the half-step patches at their borders; beyond about a thousand patches this gains nothing.

    Args:
        maker, scene: the picture.
        canvas: its file.
        budget: bytes.
        name: the model's name, for errors.
        whole: the file's part of the picture; None for all of it.
        taken: the numbers of a picture that is resumed, which are kept if they fit.
        workers: processes among which the budget is divided; 0 if this process makes the patches.
    Raises:
        BudgetError: as of `plan_batch`.
    """
    if taken is not None:
        scene = replace(scene, block=taken.block)
    while True:
        try:
            return *_plan(maker, scene, canvas, budget, name, whole or scene.whole, taken, workers), scene
        except BudgetError:
            down, across = scene.block
            if maker.only or down == across == 1:
                raise
        smaller = (down, (across + 1) // 2) if across >= down else ((down + 1) // 2, across)
        scene = replace(scene, block=smaller)


def _plan(
    maker: PatchMaker, scene: Scene, canvas: Canvas, budget: int, name: str, whole: Region, taken: Taken | None,
    workers: int,
) -> tuple[Plan, int]:  # fmt: skip
    height, width = canvas.tile
    across = -(-whole.width // width)
    # The second tile has most patches, because an open axis may have none at the half step beyond its end.
    top, left = (tile if side >= 2 * tile else 0 for side, tile in ((whole.height, height), (whole.width, width)))
    tile = Region(whole.top + top, whole.left + left, min(height, whole.height), min(width, whole.width))
    one = len(scene.work(tile))
    area = scene.block[0] * scene.block[1]

    def blocks(batch: int) -> int:
        return max(workers, 1) * block_bytes(maker, scene.block, scene.cells, batch)

    def fixed_of(tiles: int) -> int:
        return fixed_bytes(maker, canvas, area * one, tiles, workers)

    if taken is not None and taken.block == scene.block:
        needed = fixed_of(taken.tiles) + blocks(taken.batch)
        if needed <= budget:
            return Plan(taken.batch, needed), taken.tiles
    # Strips share nothing with their neighbours, so tiles are composed together only to be whole strips.
    together = scene.block[1] * scene.patch // width if scene.cells else _PATCHES_A_CHUNK // (area * one)
    if workers > 1 and not scene.cells and maker.device.type == "cpu" and not maker.graph:
        # Enough chunks for all workers. Elsewhere other chunks would be other batches, with other last bits.
        together = min(together, across * -(-whole.height // height) // (_CHUNKS_A_WORKER * workers))
    tiles = max(1, min(across, together))
    enough = blocks(max(1, 16 // area))
    # On a small budget fewer tiles are composed together first, then batches become smaller.
    while tiles > 1 and fixed_of(tiles) + enough > budget:
        tiles //= 2
    fixed = fixed_of(tiles)
    most = max(1, min(one * tiles, _PATCHES_A_BATCH // area))

    def predict(batch: int) -> int:
        return fixed + blocks(batch)

    return plan_batch(budget, predict, most, name, workers), tiles


def plan_batch(
    budget: int, predict: Callable[[int], int], most: int, name: str = "the model", workers: int = 0
) -> Plan:
    """The largest batch, up to `most`, whose predicted bytes stay within the budget.

    Args:
        budget: bytes.
        predict: gives the bytes that a batch takes; a larger batch never takes less.
        most: the largest useful batch.
        name: the model's name, for the error.
        workers: the number of worker processes, for the error.
    Raises:
        BudgetError: not even one block fits; the message names the smallest budget that suffices.
    """
    if predict(1) > budget:
        raise too_small(name, predict(1), budget, workers)
    batches = range(1, max(most, 1) + 1)
    batch = batches[max(bisect_right(batches, budget, key=predict), 1) - 1]
    return Plan(batch, predict(batch))


def too_small(name: str, needed: int, budget: int, workers: int = 0) -> BudgetError:
    """The error for a budget that is too small for one patch."""
    # The budget is not rounded, because one just below the need would then read the same as the need.
    given = str(budget) if budget % 2**20 else show_bytes(budget)
    each, or_fewer = (f" in each of {workers} workers", " or fewer workers") if workers > 1 else ("", "")
    return BudgetError(
        f"{name} needs at least {show_bytes(needed)} for one patch{each}; --memory {given} is too small. "
        f"Try --memory {show_bytes(needed)}{or_fewer}."
    )


def block_bytes(maker: PatchMaker, block: Block, cells: tuple[int, ...], count: int) -> int:
    """The predicted peak in bytes of making a batch of blocks; arguments are those of `PatchMaker.live_bytes`."""
    factor = _GRAPH_FACTOR if maker.graph else _CPU_FACTOR if maker.device.type == "cpu" else 1.0
    return int(maker.live_bytes(block, cells, count) * factor)


def fixed_bytes(maker: PatchMaker, canvas: Canvas | None, patches: int, tiles: int, workers: int = 0) -> int:
    """Bytes that a render takes with any batch: patches and pixels of a chunk, the canvas's memory, workspaces.

    With workers each has patches, pixels and a workspace, and the chunks in shared memory come on top.
    """
    patch = maker.channels * maker.side**2 * maker.dtype.itemsize
    pixels = 2 * tiles * int(np.prod(canvas.tile)) * maker.channels if canvas else 0
    own = canvas.resident_bytes if canvas else 0
    # On CUDA the weights count, twice for a graph; a CPU process has loaded them before the render's peak is measured.
    on_cpu = maker.device.type == "cpu"
    workspace = _CPU_WORKSPACE + 3 * max(maker.weights) if on_cpu else sum(maker.weights) * (1 + maker.graph)
    each = patches * max(tiles, 1) * patch + pixels + workspace
    shared = workers * AHEAD * pixels // 2 + _CPU_WORKSPACE if workers and on_cpu else 0
    return max(workers, 1) * each + shared + own
