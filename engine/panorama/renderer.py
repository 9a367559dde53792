"""Renders regions of a scene to pixels: makes their patches in batches and blends them."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from zellige.errors import BudgetError

from ...kernels import feather_blend
from ..device import show_bytes
from ..layers.ambient import own_modes
from ..layers.finite import require_finite
from .patches import Block, PatchMaker, Run
from .plan import block_bytes, fixed_bytes, too_small
from .scene import Region, Scene

__all__ = ["Renderer"]

logger = logging.getLogger(__name__)
Output = Literal["uint8", "float"]


@dataclass
class Renderer:
    """Runs one patch maker over scenes, with a batch size that shrinks when memory runs out.

    Args:
        maker: the generator of the patches.
        batch: the largest number of micro patches in one call.
        name: the model's name, for errors.
        budget: bytes, named in errors; the memory plan is what keeps to it.
        reuse: keep the memory of the patches for the next call, so that the heap stops growing.
        run: the function that `PatchMaker.prepared` returned; it is called instead of the maker.
    """

    maker: PatchMaker
    batch: int
    name: str = "the model"
    budget: int | None = None
    reuse: bool = False
    run: Run | None = None
    _patches: Tensor | None = field(default=None, init=False, repr=False)

    def region(self, scene: Scene, region: Region, output: Output = "uint8") -> Tensor:
        """Render a region of a scene; it equals the same crop of the whole picture, on a CPU bit for bit.

        Args:
            scene: the picture.
            region: the region, in pixels of the picture.
            output: "uint8" for bytes, "float" for float32 in [-1, 1].
        Returns:
            [height, width, channels] on the maker's device.
        Raises:
            SizeError: the region is not inside the picture.
            BudgetError: memory is too small even for one patch.
            ValuesError: the model gives values that are not finite.
        """
        scene.check(region)
        return self.regions([(scene, region)], output)[0]

    @own_modes()
    @torch.inference_mode()
    def regions(self, jobs: list[tuple[Scene, Region]], output: Output = "uint8") -> Tensor:
        """Render equally large regions of several scenes of one model together, [n, height, width, channels]."""
        scene, region = jobs[0]
        works = [scene.work(region) for scene, region in jobs]
        # The regions are blended as one tall picture, with gaps for the parts of patches that reach beyond a region.
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

        device = self.maker.device
        patches = self.patches(int(bounds[-1]), conditions, scene.block)
        down, across = (torch.from_numpy(weights).to(device) for weights in scene.windows())
        size = (pitch * len(jobs), region.width)
        picture = feather_blend(patches, torch.from_numpy(corners).to(device), down, across, size, output=output)
        return picture.unflatten(0, (len(jobs), pitch))[:, : region.height]

    @own_modes()
    @torch.inference_mode()
    def patches(
        self, count: int, conditions: Callable[[int, int], tuple[Tensor, Tensor]], block: Block = (1, 1)
    ) -> Tensor:
        """Make blocks of patches in batches.

        Args:
            count: number of blocks.
            conditions: makes latents and coordinates of the blocks [start, stop), on the maker's device.
            block: micro patches in each block, down and across.
        Returns:
            [count, channels, P block[0], P block[1]] in the maker's dtype; equal for any batch size, on a CPU bit for
            bit. With `reuse` the next call overwrites them.
        Raises:
            BudgetError: memory is too small even for one block.
            ValuesError: a value is not finite.
        """
        patches = self._room(count, block)
        start = 0
        while start < count:
            # Batches are equal parts, because a last batch of a few patches would run at a fraction of the speed.
            parts = -(-(count - start) // max(self.batch // (block[0] * block[1]), 1))
            stop = start + -(-(count - start) // parts)
            latents, coordinates = conditions(start, stop)
            try:
                patches[start:stop] = (self.run or self.maker)(latents, coordinates, block)
                start = stop
                continue
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if not _out_of_memory(error):
                    raise
            # The error's traceback held the activations, so they are free only here, after the `except` block.
            self._shrink(stop - start, block, tuple(latents.shape[1:-1]))
        require_finite(patches, self.name)  # once for all batches, because it waits for a CUDA device
        return patches

    def _room(self, count: int, block: Block) -> Tensor:
        """Memory for patches; with `reuse` it is that of the last call if it is large enough."""
        shape = self.maker.channels, self.maker.side * block[0], self.maker.side * block[1]
        patches = self._patches
        if patches is None or patches.shape[1:] != shape or len(patches) < count:
            patches = torch.empty(count, *shape, dtype=self.maker.dtype, device=self.maker.device)
        if self.reuse:
            self._patches = patches
        return patches[:count]

    def _shrink(self, tried: int, block: Block, cells: tuple[int, ...]) -> None:
        if self.maker.device.type == "cuda":
            torch.cuda.empty_cache()
        if tried == 1:
            needed = block_bytes(self.maker, block, cells, 1) + fixed_bytes(self.maker, None, 1, 0)
            if self.budget is None:
                raise BudgetError(f"{self.name} needs about {show_bytes(needed)} of memory and less is free; free some")
            raise too_small(self.name, max(needed, self.budget + 2**20), self.budget)
        area = block[0] * block[1]
        self.batch = tried // 2 * area
        logger.warning("out of memory with %d patches a batch; going on with %d", tried * area, self.batch)

    def _tensor(self, array: npt.NDArray[np.float64]) -> Tensor:
        return torch.from_numpy(array).to(self.maker.device, torch.float32)


def _out_of_memory(error: BaseException) -> bool:
    # On a CPU torch reports a failed allocation as a plain RuntimeError.
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)
