"""The protocols between panoramas and the generators that make their patches; no system is named here."""

from collections.abc import Callable
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from .lattice import Lattice
from .scene import Inside, Scene

__all__ = ["Block", "Panoramic", "PatchMaker", "Run"]

Block: TypeAlias = tuple[int, int]  # number of micro patches, down and across, that are made at once
# A function from latents [n, latent], or [n, R, T, latent] for the cells of blocks, and micro coordinates
# [n, dimensions] of n blocks, float32 on the maker's device, to the blocks' pixels [n, channels, side * down,
# side * across] in [-1, 1].
Run: TypeAlias = Callable[[Tensor, Tensor, Block], Tensor]


class PatchMaker(Protocol):
    """A generator of patches, as a render needs it.

    Attributes:
        lattice: the lattice of one turn of its pictures.
        side: the side of a micro patch in pixels.
        channels: channels of a pixel.
        latent: length of a latent.
        device: the device that it runs on and leaves patches on.
        dtype: the dtype of patches until they are blended.
        weights: bytes of each tensor of its weights.
        only: the one block that it makes; None if it makes any.
        inside: how it takes latents that move inside of a block; None if it cannot.
        graph: whether a graph runtime runs it, which keeps more memory than torch does.
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
    def weights(self) -> list[int]: ...  # noqa: D102

    @property
    def only(self) -> Block | None: ...  # noqa: D102

    @property
    def inside(self) -> Inside | None: ...  # noqa: D102

    @property
    def graph(self) -> bool: ...  # noqa: D102

    def __call__(self, latents: Tensor, coordinates: Tensor, block: Block) -> Tensor:
        """Make n blocks; arguments and result are those of `Run`."""
        ...

    def live_bytes(self, block: Block, cells: tuple[int, ...], count: int) -> int:
        """The most bytes of tensors, without weights, that are alive at once while `count` blocks are made.

        Args:
            block: micro patches down and across.
            cells: rows and columns of latents in a block; empty for one latent.
            count: number of blocks.
        """
        ...

    def prepared(self, block: Block, cells: tuple[int, ...], most: int, memory: int | None) -> tuple[Run, int]:
        """Get ready for a picture whose batches all have one size, except a smaller last one.

        Args:
            block, cells: of the picture, as in `live_bytes`.
            most: the largest number of blocks in a batch.
            memory: bytes of a CUDA device that inputs, results and workspaces of a graph may take; None for no limit.
        Returns:
            a function that makes such blocks, and the number of blocks in a batch, which is below `most` if the memory
            does not suffice.
        Raises:
            BudgetError: not even one block fits.
        """
        ...


class Panoramic(Protocol):
    """A loaded model that has the task `panorama`.

    Attributes:
        name: its name in reports and errors.
        patches: the generator of its patches.
        precision: fp32, bf16 or fp16.
    """

    name: str
    patches: PatchMaker

    @property
    def precision(self) -> str: ...  # noqa: D102

    def scene(self, width: int | None = None, height: int | None = None, seed: int = 0) -> Scene:
        """The scene of a panorama of this size in pixels; None takes the model's own size."""
        ...
