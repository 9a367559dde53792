"""COCO-GAN as a `PatchMaker`: its generator makes the patches, or a graph runtime does."""

from dataclasses import replace

import torch
from torch import Tensor

from ....kernels import plain_operators
from ...panorama.lattice import Lattice
from ...panorama.memory import live_bytes
from ...panorama.patches import Block, Run
from ...panorama.scene import Inside
from .generator import Generator
from .graph_patches import GraphPatches

__all__ = ["CocoGanPatches"]


class CocoGanPatches:
    """COCO-GAN's `PatchMaker`.

    Args:
        generator: the generator in evaluation mode, in its precision, on its device. With `graphs` only its shapes are
            used, so it may be on the meta device.
        graphs: makes the patches instead of the generator.
    """

    def __init__(self, generator: Generator, graphs: GraphPatches | None = None) -> None:
        self.generator, self.graphs = generator, graphs

    @property
    def lattice(self) -> Lattice:
        """The lattice of one turn."""
        return self.generator.config.lattice

    @property
    def side(self) -> int:
        """Side of a micro patch in pixels."""
        return self.generator.config.patch

    @property
    def channels(self) -> int:
        """Channels of a pixel."""
        return self.generator.config.channels

    @property
    def latent(self) -> int:
        """Length of a latent."""
        return self.generator.config.latent

    @property
    def device(self) -> torch.device:
        """The device that makes the patches."""
        return self.graphs.device if self.graphs else self.generator.stem.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the generator's convolutions."""
        return self.generator.to_image.weight.dtype

    @property
    def weights(self) -> list[int]:
        """Bytes of each tensor of weights."""
        return [parameter.nbytes for parameter in self.generator.parameters()]

    @property
    def only(self) -> Block | None:
        """The one block that it makes: a file's, or without dense places a single patch."""
        if not self.generator.config.dense:
            return 1, 1
        return self.graphs.only if self.graphs else None

    @property
    def inside(self) -> Inside | None:
        """How it takes latents that move inside of a block: with dense places, unless a file makes single patches."""
        config = self.generator.config
        if self.only == (1, 1):
            return None
        return config.inside if self.only is None else replace(config.inside, fixed=config.strip_moves)

    @property
    def graph(self) -> bool:
        """Whether a graph runtime makes the patches."""
        return self.graphs is not None

    def __call__(self, latents: Tensor, coordinates: Tensor, block: Block) -> Tensor:
        """Make blocks of micro patches; see `Generator`."""
        made: Tensor = (self.graphs or self.generator)(latents, coordinates, block)
        return made

    def live_bytes(self, block: Block, cells: tuple[int, ...], count: int) -> int:
        """See `PatchMaker.live_bytes`; for a graph it is computed with plain operators, as the graph has them."""

        def inputs(batch: int) -> tuple[Tensor, Tensor, Block]:
            latents = torch.empty(batch, *cells, self.latent, device=self.device)
            return latents, torch.empty(batch, self.lattice.dimensions, device=self.device), block

        if not self.graph:
            return live_bytes(self.generator, inputs, count, self.device)
        with plain_operators():
            return live_bytes(self.generator, inputs, count, self.device)

    def prepared(self, block: Block, cells: tuple[int, ...], most: int, memory: int | None) -> tuple[Run, int]:
        """See `PatchMaker.prepared`; the generator itself is always ready."""
        return (self, most) if self.graphs is None else self.graphs.prepared(block, cells, most, memory)
