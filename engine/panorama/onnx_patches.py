"""A generator's patches by ONNX Runtime, one graph for each shape of blocks."""

from functools import partial

import torch
from torch import Tensor

from ..models.coco_gan import Generator
from ..runtimes import Runtime, exported, joined

__all__ = ["OnnxPatches"]


class OnnxPatches:
    """What `Renderer` calls in place of a generator; results differ from the generator's in last bits.

    Args:
        generator: as it was trained or with the rewrites for graphs, in float32, on a CPU.
        device: where ONNX Runtime runs it.
    """

    def __init__(self, generator: Generator, device: torch.device) -> None:
        self.generator, self.device = generator, device
        self._runtimes: dict[tuple[int, int], tuple[Runtime, int]] = {}

    def prepare(self, block: tuple[int, int], most: int) -> None:
        """Export for a shape of blocks, so that later calls of up to `most` blocks only run.

        Args:
            block: micro patches, down and across.
            most: blocks in one call; one buffer of results is that large.
        """
        if block in self._runtimes and self._runtimes[block][1] >= most:
            return
        config = self.generator.config
        example = torch.zeros(1, config.latent), torch.zeros(1, config.lattice.dimensions)
        run = partial(self.generator, block=block)
        names = ("latent", "coordinates")
        self._runtimes[block] = exported("onnx", run, example, self.device, names, (most,)), most

    def __call__(self, latents: Tensor, coordinates: Tensor, block: tuple[int, int]) -> Tensor:
        """Generate blocks of micro patches; see `Generator`."""
        self.prepare(block, len(latents))
        runtime, _ = self._runtimes[block]
        rows = runtime.run((latents, coordinates), host=self.device.type == "cpu")
        return joined(rows, len(latents), lent=runtime.lends)
