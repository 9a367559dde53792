"""The protocols between panoramas and whatever makes their patches; no system is named here."""

from collections.abc import Callable
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from .lattice import Lattice
from .scene import Scene

__all__ = ["Block", "Panoramic", "PatchMaker", "Run"]

Block: TypeAlias = tuple[int, int]  # micro patches, down and across, that are made at once
# Latents [n, latent] and micro coordinates [n, dimensions] of n blocks, float32 on the maker's device, to their pixels
# [n, channels, side * down, side * across] in [-1, 1].
Run: TypeAlias = Callable[[Tensor, Tensor, Block], Tensor]


class PatchMaker(Protocol):
    """What a render asks of a generator.

    Attributes:
        lattice: of one turn of its pictures.
        side: of a micro patch in pixels.
        channels: of a pixel.
        latent: length of a latent.
        device: where it runs, and where patches are wanted.
        dtype: in which patches are kept until they are blended.
        batching: the smallest batch in which a block has the same bits as in any other, and the number that the sizes
            of all batches must be multiples of.
        weights: bytes of each tensor of its weights.
        blocks: whether several patches under one latent can be made at once.
        graph: whether a runtime for graphs runs it, which keeps more memory than torch does.
    """

    @property
    def lattice(self) -> Lattice: ...  # noqa: D102

    @property
    def side(self) -> int: ...  # noqa: D102

    @property
    def channels(self) -> int: ...  # noqa: D102

    @property
    def latent(self) -> int: ...  # noqa: D102

    @property
    def device(self) -> torch.device: ...  # noqa: D102

    @property
    def dtype(self) -> torch.dtype: ...  # noqa: D102

    @property
    def batching(self) -> tuple[int, int]: ...  # noqa: D102

    @property
    def weights(self) -> list[int]: ...  # noqa: D102

    @property
    def blocks(self) -> bool: ...  # noqa: D102

    @property
    def graph(self) -> bool: ...  # noqa: D102

    def __call__(self, latents: Tensor, coordinates: Tensor, block: Block) -> Tensor:
        """Make n blocks; see `Run`."""
        ...

    def live_bytes(self, block: Block, count: int) -> int:
        """Bytes of the tensors that making `count` blocks creates, at the worst moment, weights apart."""
        ...

    def prepared(self, block: Block, most: int, memory: int | None) -> tuple[Run, int]:
        """Get ready for a picture whose batches all have one size, but for a smaller last one.

        Args:
            block: of the picture.
            most: blocks in a batch.
            memory: bytes of a CUDA device that inputs, results and workspaces of a graph may take; None for no limit.
        Returns:
            a function that makes such blocks, and how many of them a batch has: fewer than `most` where the memory does
            not suffice.
        Raises:
            BudgetError: not even one block fits.
        """
        ...


class Panoramic(Protocol):
    """A loaded model that has the task `panorama`.

    Attributes:
        name: in reports and errors.
        patches: makes its patches.
        precision: fp32, bf16 or fp16.
    """

    name: str
    patches: PatchMaker

    @property
    def precision(self) -> str: ...  # noqa: D102

    def scene(self, width: int | None = None, height: int | None = None, seed: int = 0) -> Scene:
        """The scene of a panorama of this size in pixels; None takes the model's own."""
        ...
