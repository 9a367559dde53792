"""A picture to be rendered: its extent on the lattice, its latents, and the patches that cover a region of it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from zellige.errors import SizeError

from .lattice import Lattice

__all__ = ["Region", "Scene", "Work", "turns", "window"]

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

    Along an axis where the latent moves, patches are laid at every half step and blended. Along other axes they lie
    edge to edge. A cyclic axis where the latent moves closes on itself. An open one has no patches at the half steps
    beyond its ends, for whose coordinates no generator was trained. The outermost half of its first and last patch is
    theirs alone, because `feather_blend` divides by the sum of the weights.

    Args:
        lattice: the model's lattice of one turn.
        patch: side of a micro patch in pixels.
        rows, columns: extent of the picture in micro patches.
        latents: gives the latents [n, length] at lattice positions (rows [n], columns [n]).
        moving: whether the latent moves (vertically, horizontally).
        first: lattice position of the top left patch (negative beyond the boundary).
        block: micro patches, down and across, that are made at once; 1 along axes where the latent moves.
    """

    lattice: Lattice
    patch: int
    rows: int
    columns: int
    latents: LatentField
    moving: tuple[bool, bool] = (False, False)
    first: tuple[int, int] = (0, 0)
    block: tuple[int, int] = (1, 1)

    @property
    def height(self) -> int:
        """Pixels."""
        return self.rows * self.patch

    @property
    def width(self) -> int:
        """Pixels."""
        return self.columns * self.patch

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
        """Latents [n, length] and micro coordinates [n, dimensions] at positions of the picture."""
        # The half step before column 0 lies at the end of the last turn. Without np.mod its latent would be another one
        # and the picture would not close.
        wrapped = (
            np.mod(positions, extent) if moves and axis.cyclic else positions
            for positions, extent, moves, axis in zip(
                (rows, columns), (self.rows, self.columns), self.moving, self.lattice.axes, strict=True
            )
        )
        return self.latents(*wrapped), self.lattice.micro(rows + self.first[0], columns + self.first[1])

    def windows(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """The blending weights of a block's rows, and those of its columns."""
        down, across = (window(self.patch * n, moves) for n, moves in zip(self.block, self.moving, strict=True))
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

    def _along(self, axis: int, start: int, length: int) -> tuple[Floats, npt.NDArray[np.int64]]:
        """Positions in patches, and in pixels relative to `start`, of the blocks that meet [start, start + length)."""
        size = self.patch * self.block[axis]
        pitch = size // 2 if self.moving[axis] else size
        first = (start - size) // pitch + 1
        last = (start + length - 1) // pitch
        if self.moving[axis] and not self.lattice.axes[axis].cyclic:
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
