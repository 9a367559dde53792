"""The lattice of a picture: the positions of its patches, and the coordinates that condition their generation.

A picture of R x R' micro patches is a lattice. Both axes are open on a plane, the horizontal one is cyclic on a
cylinder, and both are cyclic on a torus. A macro patch is `span` x `span` adjacent micro patches; the critic sees macro
patches only. Positions are counted in micro patches from the top left corner. They may be fractional, and on an open
axis they may lie outside the picture.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from zellige.errors import LatticeError

__all__ = ["Axis", "Lattice", "Topology"]

Topology = Literal["plane", "cylinder", "torus"]
Positions = npt.ArrayLike
Coordinates = npt.NDArray[np.float64]

_CYCLIC: dict[Topology, tuple[bool, bool]] = {
    "plane": (False, False),
    "cylinder": (False, True),
    "torus": (True, True),
}


@dataclass(frozen=True)
class Axis:
    """One axis of a lattice: `patches` micro patches, of which `span` make a macro patch.

    Args:
        patches: R.
        span: m.
        cyclic: whether the axis closes on itself.
    Raises:
        LatticeError: span < 2; or patches < span on a cyclic axis; or patches <= span on an open axis, whose coordinate
            formulas divide by patches - span and by patches - 1.
    """

    patches: int
    span: int
    cyclic: bool

    def __post_init__(self) -> None:
        fewest = self.span if self.cyclic else self.span + 1
        kind = "a cyclic" if self.cyclic else "an open"
        if self.span < 2:
            raise LatticeError(
                f"a macro patch must be at least 2 micro patches wide, not {self.span}; set span=2 or more"
            )
        if self.patches < fewest:
            raise LatticeError(
                f"{kind} axis with span {self.span} needs at least {fewest} micro patches, not {self.patches}; "
                "make the image larger or the patches smaller"
            )

    @property
    def macro_positions(self) -> int:
        """Number of lattice positions at which a macro patch can start."""
        return self.patches if self.cyclic else self.patches - self.span + 1

    @property
    def dimensions(self) -> int:
        """Length of this axis's part of a coordinate: 1 (a number) if open, 2 (a cosine and a sine) if cyclic."""
        return 1 + self.cyclic

    def micro(self, position: Positions) -> Coordinates:
        """Coordinate of a micro patch.

        c'' = -1 + 2 i / (R - 1) on an open axis; (cos pi t, sin pi t) with t = -1 + 2 i / R on a cyclic one.

        Args:
            position: index i of the patch, any shape [...]; it may be fractional or outside of [0, R).
        Returns:
            float64 [..., dimensions].
        Source: COCO-GAN (Lin et al. 2019); the lattices of its reference implementation.
        """
        index = np.asarray(position, dtype=np.float64)
        if self.cyclic:
            return self._circle(index)
        return (-1 + 2 * index / (self.patches - 1))[..., None]

    def macro(self, position: Positions) -> Coordinates:
        """Coordinate of the macro patch whose first micro patch is at `position`.

        c' = -1 + 2 j / (R - m) on an open axis, so that the first and last macro patch are at -1 and 1; on a cyclic
        axis the coordinate of the first micro patch.

        Args:
            position: index j of the first micro patch, any shape [...].
        Returns:
            float64 [..., dimensions].
        Source: as for `micro`.
        """
        index = np.asarray(position, dtype=np.float64)
        if self.cyclic:
            return self._circle(index)
        return (-1 + 2 * index / (self.patches - self.span))[..., None]

    def _circle(self, index: Coordinates) -> Coordinates:
        # np.mod comes first, because columns R and 0 must have the same numbers, not merely close ones.
        angle = np.pi * (-1 + 2 * np.mod(index, self.patches) / self.patches)
        point = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
        point[np.abs(point) < 1e-6] = 0.0
        return point


@dataclass(frozen=True)
class Lattice:
    """The lattice of a picture: `rows` x `columns` micro patches, macro patches of `span` x `span`."""

    topology: Topology
    rows: int
    columns: int
    span: int = 2

    def __post_init__(self) -> None:
        self.axes  # refuses impossible lattices at once  # noqa: B018

    @property
    def axes(self) -> tuple[Axis, Axis]:
        """The vertical and the horizontal axis; coordinates always come in this order."""
        cyclic = _CYCLIC[self.topology]
        return (
            Axis(self.rows, self.span, cyclic[0]),
            Axis(self.columns, self.span, cyclic[1]),
        )

    @property
    def dimensions(self) -> int:
        """Length of a coordinate, micro or macro: 2 on a plane, 3 on a cylinder, 4 on a torus."""
        return sum(axis.dimensions for axis in self.axes)

    def micro(self, rows: Positions, columns: Positions) -> Coordinates:
        """Coordinates of the micro patches at (rows[k], columns[k]), float64 [..., dimensions]."""
        vertical, horizontal = self.axes
        return np.concatenate([vertical.micro(rows), horizontal.micro(columns)], axis=-1)

    def macro(self, rows: Positions, columns: Positions) -> Coordinates:
        """Coordinates of the macro patches that start at (rows[k], columns[k]), float64 [..., dimensions]."""
        vertical, horizontal = self.axes
        return np.concatenate([vertical.macro(rows), horizontal.macro(columns)], axis=-1)

    def cells(self, beyond: int = 0) -> npt.NDArray[np.int64]:
        """Positions (row, column) of all micro patches, column by column, the row index fastest.

        Args:
            beyond: number of extra patches on both ends of every open axis (beyond-boundary generation).
        Returns:
            int64 [n, 2].
        Raises:
            LatticeError: beyond is negative, or positive although both axes are cyclic.
        """
        return self._grid(beyond, macro=False)

    def macro_cells(self, beyond: int = 0) -> npt.NDArray[np.int64]:
        """Positions (row, column) of all macro patches; order and argument are those of `cells`."""
        return self._grid(beyond, macro=True)

    def inside(self, rows: Positions, columns: Positions) -> Coordinates:
        """Positions of the micro patches inside the macro patches at (rows[k], columns[k]).

        Returns:
            float64 [..., span * span, 2], column by column, the row index fastest.
        """
        step = np.arange(self.span)
        offsets = np.stack([np.tile(step, self.span), np.repeat(step, self.span)], axis=-1)  # [m*m, 2]
        corner = np.stack([np.asarray(rows, dtype=np.float64), np.asarray(columns, dtype=np.float64)], axis=-1)
        return corner[..., None, :] + offsets

    def _grid(self, beyond: int, *, macro: bool) -> npt.NDArray[np.int64]:
        if beyond < 0:
            raise LatticeError(f"the picture cannot be extended by {beyond} patches; give 0 or more")
        if beyond and self.topology == "torus":
            raise LatticeError("a torus has no boundary to go beyond; render more turns instead")
        ranges = []
        for axis in self.axes:
            extra = 0 if axis.cyclic else beyond
            count = axis.macro_positions if macro else axis.patches
            ranges.append(np.arange(-extra, count + extra))
        rows, columns = ranges
        return np.stack([np.tile(rows, len(columns)), np.repeat(columns, len(rows))], axis=-1)
