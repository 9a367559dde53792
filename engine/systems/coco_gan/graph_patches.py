"""Patches by a runtime for graphs: ONNX Runtime or TensorRT, with a graph for each shape of blocks."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from zellige.errors import BudgetError

from ...runtimes import Runtime, exported, joined
from .config import CocoGanConfig
from .generator import Generator

__all__ = ["GraphPatches", "Run", "exported_patches"]

Block = tuple[int, int]  # micro patches, down and across
Opener = Callable[[Block, Sequence[int], int | None], Runtime]
Run = Callable[[Tensor, Tensor, Block], Tensor]  # as a generator is called
_BATCH = 128  # micro patches in the largest batch of images


class GraphPatches:
    """What `Renderer` calls in place of a generator; results differ from the generator's in last bits.

    Args:
        open_: a runtime for blocks of a shape, for batches of some sizes, within bytes of the device's memory or None.
            It takes latents and coordinates, and gives float maps [n, channels, H, W] or bytes [n, H, W, channels].
        config: of the model.
        device: where it runs, and where patches are wanted.
        single: whether it makes single micro patches alone, no blocks of several.
    """

    def __init__(self, open_: Opener, config: CocoGanConfig, device: torch.device, *, single: bool = False) -> None:
        self.device, self.single = device, single
        self._open, self._example = open_, _example(config)
        self._of_images: dict[Block, Runtime] = {}
        self._of_file: tuple[tuple[Block, int, int | None], Runtime, int] | None = None

    def __call__(self, latents: Tensor, coordinates: Tensor, block: Block) -> Tensor:
        """Generate blocks of micro patches, for images; see `Generator`."""
        if block not in self._of_images:
            most = max(1, _BATCH // (block[0] * block[1]))
            # Devices whose batches are of fixed sizes pad little with these; others look at the largest alone.
            sizes = sorted({-(-most // part) for part in (1, 4, 16)})
            self._of_images[block] = self._open(block, sizes, None)
        return self._made(self._of_images[block], latents, coordinates)

    def prepared(self, block: Block, most: int, memory: int | None = None) -> tuple[Run, int]:
        """What makes blocks for a whole picture, in batches of one size but for a last one.

        Args:
            block: micro patches, down and across.
            most: blocks in one batch. Where that takes more than `memory`, half as many are tried, and so on.
            memory: bytes of a CUDA device that inputs, results and workspaces may take; a CPU's is not limited.
        Returns:
            what is called as a generator is, with blocks of this shape; and the blocks in one batch.
        Raises:
            BudgetError: not even one block fits.
        """
        key = block, most, memory
        if self._of_file is None or self._of_file[0] != key:
            self._of_file = None  # its memory is free before more is taken
            self._of_file = key, *self._largest(block, most, memory)
        _, runtime, batch = self._of_file
        return lambda latents, coordinates, block: self._made(runtime, latents, coordinates), batch

    def _largest(self, block: Block, most: int, memory: int | None) -> tuple[Runtime, int]:
        while True:
            try:
                runtime = self._open(block, (most,), memory)
                if self.device.type == "cuda":  # where all is allocated at once; a CPU's first batch is to be measured
                    runtime.warm((most,), self._example)
                return runtime, most
            except BudgetError:
                if most == 1:
                    raise
            most //= 2

    def _made(self, runtime: Runtime, latents: Tensor, coordinates: Tensor) -> Tensor:
        rows = runtime.run((latents, coordinates), host=self.device.type == "cpu")
        patches = joined(rows, len(latents), lent=runtime.lends)
        if patches.dtype == torch.uint8:
            patches = patches.permute(0, 3, 1, 2).float().div(127.5).sub(1)
        return patches


def exported_patches(engine: str, generator: Generator, device: torch.device) -> GraphPatches:
    """Patches by a runtime that a generator is exported for, once for each shape of blocks and choice of batches.

    Args:
        engine: "onnx" or "tensorrt".
        generator: with the rewrites for graphs, on a CPU, in the precision that it shall run in.
        device: where it shall run.
    """

    def opened(block: Block, sizes: Sequence[int], memory: int | None) -> Runtime:
        def run(latents: Tensor, coordinates: Tensor) -> Tensor:
            # The frame of a runtime is float32, which numpy and every library know.
            return generator(latents, coordinates, block).float()

        example = _example(generator.config)
        return exported(engine, run, example, device, ("latent", "coordinates"), sizes, memory)

    return GraphPatches(opened, generator.config, device)


def _example(config: CocoGanConfig) -> tuple[Tensor, Tensor]:
    """Conditions of one block."""
    return torch.zeros(1, config.latent), torch.zeros(1, config.lattice.dimensions)
