"""The largest batch, and the number of tiles composed at once, that a memory budget allows."""

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
# Beyond live tensors: thread stacks, pages of the libraries, heap pages between live blocks, reordered weights.
# Measured on CPU for widths 32 and 64 in float32 and bfloat16: peak = 0.7 to 0.93 times the prediction.
_CPU_FACTOR, _CPU_WORKSPACE = 2.0, 24 * 2**20
# ONNX Runtime keeps the batch whole, and orders maps anew for its convolutions: peaks 0.8 to 0.95 times the prediction.
_GRAPH_FACTOR = 2.5


@dataclass(frozen=True)
class Plan:
    """A batch size and the bytes that rendering with it is predicted to take at most."""

    batch: int
    predicted_bytes: int


def plan_render(
    maker: PatchMaker, scene: Scene, canvas: Canvas, budget: int, name: str = "the model"
) -> tuple[Plan, int]:
    """Number of blocks a batch and of tiles that are composed together, within the budget.

    Tiles that are composed together share the half-step patches at their borders; more than about a thousand patches
    gain nothing. Raises BudgetError as `plan_batch` does.
    """
    height, width = canvas.tile
    across = -(-scene.width // width)
    one = len(scene.work(Region(0, 0, min(height, scene.height), min(width, scene.width))))
    area = scene.block[0] * scene.block[1]
    tiles = max(1, min(across, _PATCHES_A_CHUNK // (area * one)))
    enough = block_bytes(maker, scene.block, 16)
    # A small budget first gives up composing several tiles at once, then large batches.
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
    """The largest batch, up to `most`, whose prediction stays within the budget.

    Args:
        budget: bytes.
        predict: bytes that a batch takes, never falling with it.
        most: the largest useful batch.
        least: the smallest possible one, >= 1, a multiple of `step`.
        step: batches are multiples of it.
        name: of the model, for the error.
    Raises:
        BudgetError: not even the smallest batch fits; names the smallest budget that would do.
    """
    if predict(least) > budget:
        raise too_small(name, predict(least), budget)
    larger = range(least, most + 1, step)
    batch = larger[max(bisect_right(larger, budget, key=predict), 1) - 1] if larger else least
    return Plan(batch, predict(batch))


def too_small(name: str, needed: int, budget: int) -> BudgetError:
    """The error for a budget in which one patch does not fit."""
    # Rounded to MiB, a budget just below would read as the very one that is asked for.
    given = str(budget) if budget % 2**20 else show_bytes(budget)
    return BudgetError(
        f"{name} needs at least {show_bytes(needed)} for one patch; --memory {given} is too small. "
        f"Try --memory {show_bytes(needed)}."
    )


def filled(maker: PatchMaker, count: int) -> int:
    """The number of blocks that the maker is called with in place of `count`."""
    least, step = maker.batching
    return max(least, -(-count // step) * step)


def block_bytes(maker: PatchMaker, block: Block, count: int) -> int:
    """Bytes that making a batch of `count` blocks takes at its peak."""
    factor = _GRAPH_FACTOR if maker.graph else _CPU_FACTOR if maker.device.type == "cpu" else 1.0
    return int(maker.live_bytes(block, count) * factor)


def fixed_bytes(maker: PatchMaker, canvas: Canvas | None, patches: int, tiles: int) -> int:
    """Bytes that a render takes whatever the batch: patches and pixels of a chunk, the file's own, workspaces."""
    patch = maker.channels * maker.side**2 * maker.dtype.itemsize
    pixels = 2 * tiles * int(np.prod(canvas.tile)) * maker.channels if canvas else 0
    own = canvas.resident_bytes if canvas else 0
    # A CUDA device holds the weights, and a graph's beside them; a CPU process holds them before the render begins.
    on_cpu = maker.device.type == "cpu"
    workspace = _CPU_WORKSPACE + 3 * max(maker.weights) if on_cpu else sum(maker.weights) * (1 + maker.graph)
    return patches * max(tiles, 1) * patch + pixels + own + workspace
