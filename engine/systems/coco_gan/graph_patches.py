"""Makes patches with ONNX Runtime or TensorRT instead of PyTorch, from one graph for each shape of blocks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from zellige.errors import BudgetError

from ....kernels.op.levels import values_of
from ...layers.ambient import own_modes
from ...panorama.patches import Block, Run
from ...runtimes import Runtime, exported, joined
from ...runtimes.buckets import of_patches
from ...runtimes.graph_file import GraphFile
from .config import CocoGanConfig
from .generator import Generator

__all__ = ["GraphPatches", "exported_patches", "file_patches"]

Cells = tuple[int, ...]
Opener = Callable[[Block, Cells, Sequence[int], int | None], Runtime]


class GraphPatches:
    """Makes patches from graphs instead of a generator; results differ from the generator's in their last bits.

    A copy, in another process too, opens its runtimes anew when they are first needed.

    Args:
        open_: opens a runtime for a shape of blocks, their cells of latents, sizes of batches, and most bytes of the
            device's memory (None for no limit). The runtime takes latents and coordinates and gives float maps
            [n, channels, H, W] or bytes [n, H, W, channels]. It must be picklable if the model is to be pickled.
        config: the model's configuration.
        device: the device that runs and keeps the patches.
        only: the one block that can be made; None if any can.
        runtime: the runtime's name.
    """

    def __init__(
        self,
        open_: Opener,
        config: CocoGanConfig,
        device: torch.device,
        *,
        only: Block | None = None,
        runtime: str = "onnx",
    ) -> None:
        self.device, self.only, self.runtime = device, only, runtime
        self._open, self._config = open_, config
        self._of_images: dict[tuple[Block, Cells], Runtime] = {}
        self._of_file: tuple[tuple[Block, Cells, int, int | None], Runtime, int] | None = None

    def __call__(self, latents: Tensor, coordinates: Tensor, block: Block) -> Tensor:
        """Make blocks of micro patches for images; see `Generator`."""
        key = block, tuple(latents.shape[1:-1])
        if key not in self._of_images:
            self._of_images[key] = self._open(*key, of_patches(block[0] * block[1]), None)
        return self._made(self._of_images[key], latents, coordinates)

    @own_modes()
    def prepared(self, block: Block, cells: Cells, most: int, memory: int | None = None) -> tuple[Run, int]:
        """Get ready to make the blocks of a whole picture, in batches of one size except the last one.

        Args:
            block: micro patches, down and across.
            cells: rows and columns of latents in a block; empty for one latent.
            most: blocks in one batch. If they take more than `memory`, half as many are tried, and so on.
            memory: bytes of a CUDA device that inputs, results and workspaces may take; a CPU's memory is not limited.
        Returns:
            a function that makes blocks of this shape and is called as a generator is, and the number of blocks in a
            batch.
        Raises:
            BudgetError: not even one block fits.
        """
        key = block, cells, most, memory
        if self._of_file is None or self._of_file[0] != key:
            self._of_file = None  # frees its memory before the next runtime takes more
            self._of_file = key, *self._largest(block, cells, most, memory)
        _, runtime, batch = self._of_file
        return partial(self._block_by, runtime), batch

    def __getstate__(self) -> dict[str, Any]:
        """The state without open runtimes, because their sessions and buffers belong to this process and device."""
        return self.__dict__ | {"_of_images": {}, "_of_file": None}

    def _largest(self, block: Block, cells: Cells, most: int, memory: int | None) -> tuple[Runtime, int]:
        while True:
            try:
                runtime = self._open(block, cells, (most,), memory)
                if self.device.type == "cuda":  # allocates all memory now; on a CPU the first batch must be measured
                    runtime.warm((most,), _example(self._config, cells))
                return runtime, most
            except BudgetError:
                if most == 1:
                    raise
            most //= 2

    def _block_by(self, runtime: Runtime, latents: Tensor, coordinates: Tensor, block: Block) -> Tensor:
        return self._made(runtime, latents, coordinates)

    def _made(self, runtime: Runtime, latents: Tensor, coordinates: Tensor) -> Tensor:
        rows = runtime.run((latents, coordinates), host=self.device.type == "cpu")
        patches = joined(rows, len(latents), lent=runtime.lends)
        if patches.dtype == torch.uint8:
            patches = values_of(patches).permute(0, 3, 1, 2)
        return patches


def exported_patches(engine: str, generator: Generator, device: torch.device) -> GraphPatches:
    """Make patches from a generator that is exported once for each shape of blocks and choice of batches.

    Args:
        engine: the runtime, "onnx" or "tensorrt".
        generator: a generator with the rewrites for graphs, on a CPU, in the precision to run in.
        device: the device to run on.
    """
    return GraphPatches(_Exported(engine, generator, device), generator.config, device, runtime=engine)


def file_patches(graph: GraphFile, config: CocoGanConfig, only: Block) -> GraphPatches:
    """Make the blocks of an exported file."""
    return GraphPatches(_OfFile(graph), config, graph.device, only=only, runtime=graph.runtime)


@dataclass
class _OfFile:
    """Opens runtimes for the block of a file."""

    graph: GraphFile

    def __call__(self, block: Block, cells: Cells, sizes: Sequence[int], memory: int | None) -> Runtime:
        return self.graph.open(sizes, memory)


@dataclass
class _Exported:
    """Opens runtimes for blocks by exporting a generator."""

    engine: str
    generator: Generator
    device: torch.device

    def __call__(self, block: Block, cells: Cells, sizes: Sequence[int], memory: int | None) -> Runtime:
        def run(latents: Tensor, coordinates: Tensor) -> Tensor:
            # A runtime's outputs are float32, because numpy and every library know it.
            made: Tensor = self.generator(latents, coordinates, block).float()
            return made

        names = "latent", "coordinates"
        example = _example(self.generator.config, cells)
        return exported(self.engine, run, example, self.device, names, sizes, memory)


def _example(config: CocoGanConfig, cells: Cells) -> tuple[Tensor, Tensor]:
    """Latents and coordinates of one block, for the export."""
    return torch.zeros(1, *cells, config.latent), torch.zeros(1, config.lattice.dimensions)
