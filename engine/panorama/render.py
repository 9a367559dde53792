"""From a scene to pixels: patches in batches, composed region by region; and the whole picture to a file."""

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from zellige.errors import BudgetError

from ...kernels import feather_blend
from ..device import show_bytes
from ..models.coco_gan import Generator
from .canvas import Canvas, open_canvas
from .memory import Plan, live_bytes, measured_peak, plan_batch, too_small
from .scene import Region, Scene

__all__ = ["Renderer", "render_file"]

logger = logging.getLogger(__name__)

_PATCHES_A_CHUNK = 1024
# Below this, CPU libraries take other code paths and a patch's last bits depend on the batch: oneDNN's 1x1 convolutions
# of fewer than 16 images, its other ones of a single image, MKL's products of 9 to 11 rows (measured, 1 and 2 threads).
_SMALLEST_CPU_BATCH = 16
# The products behind unpadded convolutions round the rows beyond the last whole block of 16 differently; maps of an even
# side have whole blocks in every four patches.
_CPU_BATCH_STEP = 4
# Beyond live tensors: weights reordered for the convolution library, thread stacks, heap pages between live blocks.
# Measured on CPU for widths 32 and 64: peak = 1.5 to 1.9 times the live tensors plus 5 to 20 MiB.
_CPU_FACTOR, _CPU_WORKSPACE = 2.0, 24 * 2**20


@dataclass
class Renderer:
    """Runs one generator over scenes, with a batch size that shrinks when memory runs out.

    Args:
        generator: in evaluation mode, on its device, in its precision.
        batch: most patches in one call.
        name: of the model, for errors.
        budget: bytes; only for errors, the plan keeps to it.
    """

    generator: Generator
    batch: int
    name: str = "the model"
    budget: int | None = None

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
        # One tall picture; the gaps between the scenes take the parts of patches that reach beyond a region.
        pitch = region.height + 2 * scene.patch
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

        patches = self.patches(int(bounds[-1]), conditions)
        down, across = (torch.from_numpy(weights).to(self.device) for weights in scene.windows())
        size = (pitch * len(jobs), region.width)
        picture = feather_blend(patches, torch.from_numpy(corners).to(self.device), down, across, size, output=output)
        return picture.unflatten(0, (len(jobs), pitch))[:, : region.height]

    @torch.inference_mode()
    def patches(self, count: int, conditions: Callable[[int, int], tuple[Tensor, Tensor]]) -> Tensor:
        """Generate patches in batches.

        Args:
            count: number of patches.
            conditions: latents and coordinates of the patches [start, stop), on the generator's device.
        Returns:
            [count, channels, P, P] in the generator's precision; equal, bit for bit on a CPU, for any batch size.
        Raises:
            BudgetError: out of memory even for the smallest batch.
        """
        config = self.generator.config
        dtype = self.generator.to_image.weight.dtype
        patches = torch.empty(count, config.channels, config.patch, config.patch, dtype=dtype, device=self.device)
        start = 0
        while start < count:
            # Equal parts: a last batch of a few patches would run at a fraction of the speed.
            parts = -(-(count - start) // self.batch)
            stop = min(start + _filled(-(-(count - start) // parts), self.device), count)
            latents, coordinates = conditions(start, stop)
            try:
                patches[start:stop] = self._call(latents, coordinates)
                start = stop
                continue
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if not _out_of_memory(error):
                    raise
            # Only here, with the error gone, are the activations that its traceback held free again.
            self._shrink(stop - start)
        return patches

    def _call(self, latents: Tensor, coordinates: Tensor) -> Tensor:
        missing = _filled(len(latents), self.device) - len(latents)
        if missing:
            latents, coordinates = (torch.cat([t, t[-1:].expand(missing, -1)]) for t in (latents, coordinates))
        patches: Tensor = self.generator(latents, coordinates)
        return patches[: len(patches) - missing]

    def _shrink(self, tried: int) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        least = smallest_batch(self.device)
        if tried <= least:
            needed = patch_bytes(self.generator, least) + fixed_bytes(self.generator, None, 1, 0)
            if self.budget is None:
                raise BudgetError(f"{self.name} needs about {show_bytes(needed)} of memory and less is free; free some")
            raise too_small(self.name, max(needed, self.budget + 2**20), self.budget)
        step = batch_step(self.device)
        self.batch = max(tried // 2 // step * step, least)
        logger.warning("out of memory with %d patches a batch; going on with %d", tried, self.batch)

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
) -> dict[str, Any]:
    """Render a scene into a file within a memory budget; tiles stream out as they are finished.

    Args:
        generator: in evaluation mode, on its device, in its precision.
        scene: the picture.
        path: .png, .tif or .tiff.
        budget: bytes; on CUDA of the device, enforced by the allocator; on a CPU of what the process grows by.
        name: of the model, for errors.
        advance: called with (pixels done, pixels in all).
    Returns:
        the report of the contract: width, height, patches, batch, seconds, megapixels_per_second, memory_budget_bytes,
        predicted_memory_bytes, peak_memory_bytes.
    Raises:
        BudgetError: the budget is too small for one patch.
        OutputError, SizeError: the file cannot be written, or not in this size.
    """
    device = generator.stem.weight.device
    canvas = open_canvas(path, scene.width, scene.height, patch=scene.patch)
    plan, tiles = plan_render(generator, scene, canvas, budget, name)
    renderer = Renderer(generator, plan.batch, name, budget)
    total, done, patches = scene.width * scene.height, 0, 0
    began = time.perf_counter()
    with measured_peak(device, budget) as peak, canvas:
        for region, widths in _chunks(scene, canvas.tile, tiles):
            pixels = renderer.region(scene, region).cpu().numpy()
            for left, width in widths:
                canvas.write(np.ascontiguousarray(pixels[:, left : left + width]))
            patches += len(scene.work(region))
            done += region.width * region.height
            advance(done, total)
    seconds = time.perf_counter() - began
    return {
        "width": scene.width,
        "height": scene.height,
        "patches": patches,
        "batch": renderer.batch,
        "seconds": seconds,
        "megapixels_per_second": total / seconds / 1e6,
        "memory_budget_bytes": budget,
        "predicted_memory_bytes": plan.predicted_bytes,
        "peak_memory_bytes": peak.bytes,
    }


def plan_render(
    generator: Generator, scene: Scene, canvas: Canvas, budget: int, name: str = "the model"
) -> tuple[Plan, int]:
    """Batch size and number of tiles that are composed together, within the budget.

    Tiles that are composed together share the half-step patches at their borders; more than about a thousand patches
    gain nothing. Raises BudgetError as `plan_batch` does.
    """
    height, width = canvas.tile
    across = -(-scene.width // width)
    one = len(scene.work(Region(0, 0, min(height, scene.height), min(width, scene.width))))
    tiles = max(1, min(across, _PATCHES_A_CHUNK // one))
    per_patch = patch_bytes(generator, 1)
    # A small budget first gives up composing several tiles at once, then large batches.
    while tiles > 1 and fixed_bytes(generator, canvas, one, tiles) + 16 * per_patch > budget:
        tiles //= 2
    fixed = fixed_bytes(generator, canvas, one, tiles)
    least = smallest_batch(generator.stem.weight.device)
    most = max(least, min(one * tiles, _PATCHES_A_CHUNK // 8))
    step = batch_step(generator.stem.weight.device)
    return plan_batch(budget, fixed, per_patch, most, least=least, step=step, name=name), tiles


def smallest_batch(device: torch.device) -> int:
    """The fewest patches that the generator is called with; fewer are filled up."""
    return _SMALLEST_CPU_BATCH if device.type == "cpu" else 1


def batch_step(device: torch.device) -> int:
    """The generator is called with multiples of this many patches."""
    return _CPU_BATCH_STEP if device.type == "cpu" else 1


def _filled(patches: int, device: torch.device) -> int:
    """The number of patches that the generator is called with instead of `patches`."""
    step = batch_step(device)
    return max(smallest_batch(device), -(-patches // step) * step)


def patch_bytes(generator: Generator, patches: int) -> int:
    """Bytes that a batch of patches takes in the generator at its peak."""
    config, device = generator.config, generator.stem.weight.device

    def inputs(batch: int) -> tuple[Tensor, ...]:
        return tuple(torch.empty(batch, n, device=device) for n in (config.latent, config.lattice.dimensions))

    live = live_bytes(generator, inputs, 32) / 32 * patches
    return int(live * (_CPU_FACTOR if device.type == "cpu" else 1.0))


def fixed_bytes(generator: Generator, canvas: Canvas | None, patches: int, tiles: int) -> int:
    """Bytes that a render takes whatever the batch: patches and pixels of a chunk, the file's own, workspaces."""
    config, device = generator.config, generator.stem.weight.device
    patch = config.channels * config.patch**2 * generator.to_image.weight.dtype.itemsize
    pixels = 2 * tiles * int(np.prod(canvas.tile)) * config.channels if canvas else 0
    own = canvas.resident_bytes if canvas else 0
    # The allocator of a CUDA device counts the weights too; of a CPU process only the growth counts.
    weights = sum(parameter.nbytes for parameter in generator.parameters())
    return patches * max(tiles, 1) * patch + pixels + own + (_CPU_WORKSPACE if device.type == "cpu" else weights)


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
