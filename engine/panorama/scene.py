"""A picture to be rendered: its extent on the lattice, its latents, and the patches that cover a region of it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from zellige.errors import SizeError

from .lattice import Lattice

__all__ = ["Inside", "Region", "Scene", "Work", "turns", "window"]

Floats = npt.NDArray[np.float64]
LatentField = Callable[[Floats, Floats], Floats]


@dataclass(frozen=True)
class Region:
    """A rectangle of a picture in pixels."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class Inside:
    """The cells of a block for which a maker takes latents that move inside of it.

    Attributes:
        a_patch: cells along a side of a patch.
        reach: cells beyond each side of the block, for which there must be latents too.
        fixed: axes (vertical, horizontal) along which there is a latent for every cell even if it does not move; along
            the other axes it cannot move. None if every scene may choose, and the maker also takes one latent a block.
    """

    a_patch: int
    reach: int
    fixed: tuple[bool, bool] | None = None

    def count(self, patches: int) -> int:
        """Cells along a side of a block."""
        return self.a_patch * patches + 2 * self.reach

    def places(self, first: Floats, patches: int) -> Floats:
        """Positions in micro patches of the cells along a side of blocks at [n], float64 [n, cells].

        The latent at position p is that of a patch whose centre is at p + 1/2.
        """
        cells = (np.arange(self.count(patches)) - self.reach + 0.5) / self.a_patch - 0.5
        return first[:, None] + cells


@dataclass(frozen=True)
class Work:
    """The places of blocks of patches to generate.

    Attributes:
        rows, columns: [n], positions of the blocks' first patches on the picture, in micro patches.
        corners: [n, 2], (row, column) in pixels of the blocks' top left corners, relative to the region.
    """

    rows: Floats
    columns: Floats
    corners: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class Scene:
    """A picture laid out on a model's lattice.

    Blocks of patches lie edge to edge if the latent may move inside of them. Else, along an axis where the latent
    moves, single patches are laid at every half step and blended. A cyclic axis where the latent moves closes on
    itself. An open one has no patches at the half steps beyond its ends, for whose coordinates no generator was
    trained. The outermost half of its first and last patch is theirs alone, because `feather_blend` divides by the sum
    of the weights.

    Args:
        lattice: the model's lattice of one turn.
        patch: side of a micro patch in pixels.
        rows, columns: extent of the picture in micro patches.
        latents: gives the latents [n, length] at lattice positions (rows [n], columns [n]).
        moving: whether the latent moves (vertically, horizontally).
        first: lattice position of the top left patch (negative beyond the boundary).
        block: micro patches, down and across, that are made at once; 1 along axes where the latent moves at half steps.
        inside: how the maker takes latents that move inside of a block; None lays half steps.
    """

    lattice: Lattice
    patch: int
    rows: int
    columns: int
    latents: LatentField
    moving: tuple[bool, bool] = (False, False)
    first: tuple[int, int] = (0, 0)
    block: tuple[int, int] = (1, 1)
    inside: Inside | None = None

    @property
    def height(self) -> int:
        """Pixels."""
        return self.rows * self.patch

    @property
    def width(self) -> int:
        """Pixels."""
        return self.columns * self.patch

    @property
    def halved(self) -> tuple[bool, bool]:
        """Whether patches are laid at every half step (vertically, horizontally)."""
        return (False, False) if self.inside else self.moving

    @property
    def cells(self) -> tuple[int, ...]:
        """Rows and columns of latents in a block; empty if each block has one latent."""
        if self.inside is None or not any(self._spread):
            return ()
        return tuple(self.inside.count(n) if many else 1 for n, many in zip(self.block, self._spread, strict=True))

    @property
    def whole(self) -> Region:
        """The region that is the picture."""
        return Region(0, 0, self.height, self.width)

    def work(self, region: Region) -> Work:
        """The blocks that touch a region, column by column, with their corners relative to it."""
        down, tops = self._along(0, region.top, region.height)
        across, lefts = self._along(1, region.left, region.width)
        rows, columns = np.tile(down, len(across)), np.repeat(across, len(down))
        corners = np.stack([np.tile(tops, len(lefts)), np.repeat(lefts, len(tops))], axis=-1)
        return Work(rows, columns, corners)

    def conditions(self, rows: Floats, columns: Floats) -> tuple[Floats, Floats]:
        """Latents [n, length], or [n, *cells, length], and micro coordinates [n, dimensions] at positions of blocks."""
        coordinates = self.lattice.micro(rows + self.first[0], columns + self.first[1])
        if not self.cells:
            return self.latents(self._held(0, rows), self._held(1, columns)), coordinates
        assert self.inside is not None
        down, across = (
            self._held(axis, self.inside.places(first, n) if many else first[:, None])
            for axis, (first, n, many) in enumerate(zip((rows, columns), self.block, self._spread, strict=True))
        )
        grid = np.broadcast_arrays(down[:, :, None], across[:, None, :])
        latents = self.latents(*(positions.ravel() for positions in grid))
        return latents.reshape(*grid[0].shape, -1), coordinates

    def windows(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """The blending weights of a block's rows, and those of its columns."""
        down, across = (window(self.patch * n, halved) for n, halved in zip(self.block, self.halved, strict=True))
        return down, across

    def check(self, region: Region) -> None:
        """Refuse a region that is empty or reaches outside of the picture.

        Raises:
            SizeError: the region is empty or reaches outside.
        """
        if region.height < 1 or region.width < 1:
            raise SizeError(
                f"a region of {region.width}x{region.height} is empty; give a width and a height of 1 or more"
            )
        for start, length, limit in ((region.top, region.height, self.height), (region.left, region.width, self.width)):
            if start < 0 or start + length > limit:
                raise SizeError(
                    f"the region {region.width}x{region.height} at ({region.left}, {region.top}) reaches outside of "
                    f"the {self.width}x{self.height} picture"
                )

    @property
    def _spread(self) -> tuple[bool, bool]:
        """Axes along which a block has many latents."""
        return (self.inside.fixed if self.inside else None) or self.moving

    def _held(self, axis: int, positions: Floats) -> Floats:
        """Positions inside of the picture: gone round on a cyclic axis where the latent moves, at the end of others."""
        if not self.moving[axis]:
            return positions
        extent = (self.rows, self.columns)[axis]
        if self.lattice.axes[axis].cyclic:
            # What lies before column 0 is the end of the last turn; the picture closes because they have one latent.
            return np.mod(positions, extent)
        return np.clip(positions, -0.5, extent - 0.5)

    def _along(self, axis: int, start: int, length: int) -> tuple[Floats, npt.NDArray[np.int64]]:
        """Positions in patches, and in pixels relative to `start`, of the blocks that meet [start, start + length)."""
        size = self.patch * self.block[axis]
        pitch = size // 2 if self.halved[axis] else size
        first = (start - size) // pitch + 1
        last = (start + length - 1) // pitch
        if self.halved[axis] and not self.lattice.axes[axis].cyclic:
            first, last = max(first, 0), min(last, ((self.rows, self.columns)[axis] * self.patch - size) // pitch)
        steps = np.arange(first, last + 1, dtype=np.int64)
        return steps.astype(np.float64) * (pitch / self.patch), steps * pitch - start


def window(patch: int, blended: bool) -> npt.NDArray[np.float32]:
    """Weights of a patch's pixels along one axis, float32 [patch].

    The weights are sin^2(pi (i + 1/2) / P), because two such windows half a patch apart add up to 1. They are 1 if
    patches are not blended.
    """
    if not blended:
        return np.ones(patch, dtype=np.float32)
    return (np.sin(np.pi * (np.arange(patch) + 0.5) / patch) ** 2).astype(np.float32)


def turns(lattice: Lattice, patch: int, width: int, height: int) -> tuple[int, int]:
    """Number of turns (vertically, horizontally) that a picture of this size makes.

    Raises:
        SizeError: a side is no multiple of a turn, or on an open axis is not the model's; the message names the nearest
            sides that are allowed.
    """
    counts = []
    sides = ("height", height, lattice.rows * patch), ("width", width, lattice.columns * patch)
    for axis, (side, pixels, turn) in zip(lattice.axes, sides, strict=True):
        if pixels < 1:
            raise SizeError(f"the {side} must be positive, not {pixels}; the model's own is {turn}")
        if not axis.cyclic and pixels != turn:
            raise SizeError(
                f"the {side} of this model's pictures is always {turn}, not {pixels}; leave it out or give {turn}"
            )
        if pixels % turn:
            below, above = pixels // turn * turn, (pixels // turn + 1) * turn
            nearest = f"{below} or {above}" if below else f"{above}"
            raise SizeError(
                f"a {side} of {pixels} does not close on itself: it must be a multiple of {turn}, one turn of the "
                f"model; "
                f"the nearest is {nearest}"
            )
        counts.append(pixels // turn)
    return counts[0], counts[1]
