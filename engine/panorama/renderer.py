"""From a scene to pixels: patches in batches, composed region by region; and the whole picture to a file."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from zellige.errors import BudgetError

from ...kernels import feather_blend, plain_operators
from ..device import show_bytes
from ..systems.coco_gan.generator import Generator
from ..systems.coco_gan.graph_patches import GraphPatches, Run
from .canvas.canvas import Canvas, open_canvas
from .memory import Plan, live_bytes, measured_peak, plan_batch, too_small
from .scene import Region, Scene

__all__ = ["Renderer", "render_file"]

logger = logging.getLogger(__name__)

_PATCHES_A_CHUNK, _PATCHES_A_BATCH = 1024, 128
# Beyond live tensors: thread stacks, pages of the libraries, heap pages between live blocks, reordered weights.
# Measured on CPU for widths 32 and 64 in float32 and bfloat16: peak = 0.7 to 0.93 times the prediction.
_CPU_FACTOR, _CPU_WORKSPACE = 2.0, 24 * 2**20
# ONNX Runtime keeps the batch whole, and orders maps anew for its convolutions: peaks 0.8 to 0.95 times the prediction.
_GRAPH_FACTOR = 2.5


@dataclass
class Renderer:
    """Runs one generator over scenes, with a batch size that shrinks when memory runs out.

    Args:
        generator: in evaluation mode, on its device, in its precision.
        batch: most micro patches in one call.
        name: of the model, for errors.
        budget: bytes; only for errors, the plan keeps to it.
        reuse: keep the memory of the patches for the next call; the heap comes to rest and stops growing.
        run: makes the patches, called as the generator is; None calls the generator itself.
    """

    generator: Generator
    batch: int
    name: str = "the model"
    budget: int | None = None
    reuse: bool = False
    run: Run | None = None
    _patches: Tensor | None = field(default=None, init=False, repr=False)

    @property
    def device(self) -> torch.device:
        """Where the generator is."""
        return self.generator.stem.weight.device

    @torch.inference_mode()
    def region(self, scene: Scene, region: Region, output: Literal["uint8", "float"] = "uint8") -> Tensor:
        """Render a region of a scene; equal, bit for bit on a CPU, to the same crop of the whole.

        Args:
            scene: the picture.
            region: in its pixels.
            output: bytes, or float32 in [-1, 1].
        Returns:
            [height, width, channels] on the generator's device.
        Raises:
            SizeError: the region is not inside the picture.
            BudgetError: out of memory even for a single patch.
        """
        scene.check(region)
        return self.regions([(scene, region)], output)[0]

    @torch.inference_mode()
    def regions(self, jobs: list[tuple[Scene, Region]], output: Literal["uint8", "float"] = "uint8") -> Tensor:
        """Render equally large regions of several scenes of one model together, [n, height, width, channels]."""
        scene, region = jobs[0]
        works = [scene.work(region) for scene, region in jobs]
        # One tall picture; gaps between the scenes take the parts of patches that reach beyond a region.
        pitch = region.height + (2 * scene.patch * scene.block[0] if len(jobs) > 1 else 0)
        corners = np.concatenate([work.corners + np.array([k * pitch, 0]) for k, work in enumerate(works)])
        bounds = np.cumsum([0] + [len(work) for work in works])

        def conditions(start: int, stop: int) -> tuple[Tensor, Tensor]:
            parts = []
            for k, ((scene, _), work) in enumerate(zip(jobs, works, strict=True)):
                low, high = max(start, bounds[k]) - bounds[k], min(stop, bounds[k + 1]) - bounds[k]
                if low < high:
                    parts.append(scene.conditions(work.rows[low:high], work.columns[low:high]))
            latents, coordinates = (np.concatenate(column) for column in zip(*parts, strict=True))
            return self._tensor(latents), self._tensor(coordinates)

        patches = self.patches(int(bounds[-1]), conditions, scene.block)
        down, across = (torch.from_numpy(weights).to(self.device) for weights in scene.windows())
        size = (pitch * len(jobs), region.width)
        picture = feather_blend(patches, torch.from_numpy(corners).to(self.device), down, across, size, output=output)
        return picture.unflatten(0, (len(jobs), pitch))[:, : region.height]

    @torch.inference_mode()
    def patches(
        self, count: int, conditions: Callable[[int, int], tuple[Tensor, Tensor]], block: tuple[int, int] = (1, 1)
    ) -> Tensor:
        """Generate blocks of patches in batches.

        Args:
            count: number of blocks.
            conditions: latents and coordinates of the blocks [start, stop), on the generator's device.
            block: micro patches in each, down and across.
        Returns:
            [count, channels, P block[0], P block[1]] in the generator's precision, with `reuse` until the next
            call; equal, bit for bit on a CPU, for any batch size.
        Raises:
            BudgetError: out of memory even for the smallest batch.
        """
        config = self.generator.config
        dtype = self.generator.to_image.weight.dtype
        sides = [config.patch * n for n in block]
        patches = self._patches
        if patches is None or patches.shape[1:] != (config.channels, *sides) or len(patches) < count:
            patches = torch.empty(count, config.channels, *sides, dtype=dtype, device=self.device)
        if self.reuse:
            self._patches = patches
        patches = patches[:count]
        start = 0
        while start < count:
            # Equal parts: a last batch of a few patches would run at a fraction of the speed.
            parts = -(-(count - start) // self._most(block))
            stop = min(start + filled(self.generator, -(-(count - start) // parts)), count)
            latents, coordinates = conditions(start, stop)
            try:
                patches[start:stop] = self._call(latents, coordinates, block)
                start = stop
                continue
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if not _out_of_memory(error):
                    raise
            # Only here, with the error gone, are the activations that its traceback held free again.
            self._shrink(stop - start, block)
        return patches

    def _call(self, latents: Tensor, coordinates: Tensor, block: tuple[int, int]) -> Tensor:
        missing = filled(self.generator, len(latents)) - len(latents)
        if missing:
            latents, coordinates = (torch.cat([t, t[-1:].expand(missing, -1)]) for t in (latents, coordinates))
        patches: Tensor = (self.run or self.generator)(latents, coordinates, block)
        return patches[: len(patches) - missing]

    def _most(self, block: tuple[int, int]) -> int:
        """Most blocks in one call."""
        least, step = self.generator.batching
        return max(least, self.batch // (block[0] * block[1]) // step * step)

    def _shrink(self, tried: int, block: tuple[int, int]) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        least, step = self.generator.batching
        if tried <= least:
            needed = block_bytes(self.generator, block, least) + fixed_bytes(self.generator, None, 1, 0)
            if self.budget is None:
                raise BudgetError(f"{self.name} needs about {show_bytes(needed)} of memory and less is free; free some")
            raise too_small(self.name, max(needed, self.budget + 2**20), self.budget)
        area = block[0] * block[1]
        fewer = max(tried // 2 // step * step, least)
        self.batch = fewer * area
        logger.warning("out of memory with %d patches a batch; going on with %d", tried * area, self.batch)

    def _tensor(self, array: npt.NDArray[np.float64]) -> Tensor:
        return torch.from_numpy(array).to(self.device, torch.float32)


def render_file(
    generator: Generator,
    scene: Scene,
    path: Path,
    *,
    budget: int,
    name: str = "the model",
    advance: Callable[[int, int], None] = lambda done, total: None,
    graphs: GraphPatches | None = None,
) -> dict[str, Any]:
    """Render a scene into a file within a memory budget; tiles stream out as they are finished.

    Args:
        generator: in evaluation mode, on its device, in its precision.
        scene: the picture.
        path: .png, .tif or .tiff.
        budget: bytes; on CUDA of the device, enforced by the allocator; on a CPU of what the process grows by.
        name: of the model, for errors.
        advance: called with (pixels done, pixels in all).
        graphs: makes the patches in place of the generator. What it takes to get ready counts on CUDA alone.
    Returns:
        the report of the contract: width, height, patches, block (patches made at once, down and
        across), batch (of blocks), seconds, megapixels_per_second, memory_budget_bytes,
        predicted_memory_bytes, peak_memory_bytes.
    Raises:
        BudgetError: the budget is too small for one patch.
        OutputError, SizeError: the file cannot be written, or not in this size.
    """
    device = generator.stem.weight.device
    canvas = open_canvas(path, scene.width, scene.height, patch=scene.patch)
    plan, tiles = plan_render(generator, scene, canvas, budget, name, graph=graphs is not None)
    area = scene.block[0] * scene.block[1]
    renderer = Renderer(generator, plan.batch * area, name, budget, reuse=True)
    if graphs is not None and device.type == "cpu":
        renderer.run, _ = graphs.prepared(scene.block, filled(generator, plan.batch))
    total, done, patches = scene.width * scene.height, 0, 0
    began = time.perf_counter()
    with measured_peak(device, budget, whole=graphs is not None) as peak, canvas:
        if graphs is not None and device.type == "cuda":
            usual = len(scene.work(next(_chunks(scene, canvas.tile, tiles))[0]))
            batch = -(-usual // -(-usual // plan.batch))  # its equal parts, which then need no padding
            rest = plan.predicted_bytes - block_bytes(generator, scene.block, plan.batch, graph=True)
            renderer.run, batch = graphs.prepared(scene.block, batch, budget - rest)
            renderer.batch = batch * area
        for region, widths in _chunks(scene, canvas.tile, tiles):
            pixels = renderer.region(scene, region).cpu().numpy()
            for left, width in widths:
                canvas.write(pixels[:, left : left + width])
            del pixels
            patches += len(scene.work(region)) * area
            done += region.width * region.height
            peak.look()
            advance(done, total)
    seconds = time.perf_counter() - began
    return {
        "width": scene.width,
        "height": scene.height,
        "patches": patches,
        "block": list(scene.block),
        "batch": renderer.batch // area,
        "seconds": seconds,
        "megapixels_per_second": total / seconds / 1e6,
        "memory_budget_bytes": budget,
        "predicted_memory_bytes": plan.predicted_bytes,
        "peak_memory_bytes": peak.bytes,
    }


def plan_render(
    generator: Generator, scene: Scene, canvas: Canvas, budget: int, name: str = "the model", *, graph: bool = False
) -> tuple[Plan, int]:
    """Number of blocks a batch and of tiles that are composed together, within the budget, also by a graph's runtime.

    Tiles that are composed together share the half-step patches at their borders; more than about a thousand patches
    gain nothing. Raises BudgetError as `plan_batch` does.
    """
    height, width = canvas.tile
    across = -(-scene.width // width)
    one = len(scene.work(Region(0, 0, min(height, scene.height), min(width, scene.width))))
    area = scene.block[0] * scene.block[1]
    tiles = max(1, min(across, _PATCHES_A_CHUNK // (area * one)))
    enough = block_bytes(generator, scene.block, 16, graph)
    # A small budget first gives up composing several tiles at once, then large batches.
    while tiles > 1 and fixed_bytes(generator, canvas, area * one, tiles, graph) + enough > budget:
        tiles //= 2
    fixed = fixed_bytes(generator, canvas, area * one, tiles, graph)
    least, step = generator.batching
    most = max(least, min(one * tiles, _PATCHES_A_BATCH // area))

    def predict(batch: int) -> int:
        return fixed + block_bytes(generator, scene.block, batch, graph)

    return plan_batch(budget, predict, most, least=least, step=step, name=name), tiles


def filled(generator: Generator, count: int) -> int:
    """The number of blocks that the generator is called with in place of `count`."""
    least, step = generator.batching
    return max(least, -(-count // step) * step)


def block_bytes(generator: Generator, block: tuple[int, int], count: int, graph: bool = False) -> int:
    """Bytes that a batch of `count` blocks takes in the generator at its peak, or in a graph of it."""
    config, device = generator.config, generator.stem.weight.device

    def inputs(batch: int) -> tuple[Any, ...]:
        return *(torch.empty(batch, n, device=device) for n in (config.latent, config.lattice.dimensions)), block

    with plain_operators() if graph else nullcontext():
        live = live_bytes(generator, inputs, count)
    factor = _CPU_FACTOR if device.type == "cpu" else 1.0
    return int(live * (_GRAPH_FACTOR if graph else factor))


def fixed_bytes(generator: Generator, canvas: Canvas | None, patches: int, tiles: int, graph: bool = False) -> int:
    """Bytes that a render takes whatever the batch: patches and pixels of a chunk, the file's own, workspaces."""
    config, device = generator.config, generator.stem.weight.device
    patch = config.channels * config.patch**2 * generator.to_image.weight.dtype.itemsize
    pixels = 2 * tiles * int(np.prod(canvas.tile)) * config.channels if canvas else 0
    own = canvas.resident_bytes if canvas else 0
    weights = [parameter.nbytes for parameter in generator.parameters()]
    # On a CUDA device the weights count too, and those of a graph beside them; of a CPU process only the growth counts.
    workspace = _CPU_WORKSPACE + 3 * max(weights) if device.type == "cpu" else sum(weights) * (1 + graph)
    return patches * max(tiles, 1) * patch + pixels + own + workspace


def _chunks(scene: Scene, tile: tuple[int, int], tiles: int) -> Iterator[tuple[Region, list[tuple[int, int]]]]:
    """Regions of up to `tiles` tiles in row-major order, each with the (left, width) of its tiles inside of it."""
    height, width = tile
    lefts = range(0, scene.width, width)
    for top in range(0, scene.height, height):
        for _, group in groupby(enumerate(lefts), key=lambda pair: pair[0] // tiles):
            places = [left for _, left in group]
            stop = min(places[-1] + width, scene.width)
            region = Region(top, places[0], min(height, scene.height - top), stop - places[0])
            yield region, [(left - places[0], min(width, scene.width - left)) for left in places]


def _out_of_memory(error: BaseException) -> bool:
    # On a CPU torch reports a failed allocation as a plain RuntimeError.
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)
