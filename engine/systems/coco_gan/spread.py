"""What maps show of a picture, and values at the stem's cells as they are at the cells of a finer map."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from ....kernels.op.rows import between

__all__ = ["Cells", "Window", "steady"]


@dataclass(frozen=True)
class Cells:
    """Where the cells of a map lie among those of the stem, for which latents are given.

    The latents cover the stem's map and one more of its cells on every side. Along an axis where the latent does not
    move there is one latent.

    Args:
        scale: cells of the map along a side of one of the stem's: 1, 2, 4, ...
        first: the map's first row, counted from the first latent's; its first column lies as far from the left.
        size: rows and columns of the map.
    """

    scale: int
    first: int
    size: tuple[int, int]

    def down(self, values: Tensor) -> Tensor:
        """Values [N, S | 1, T, C] at the map's rows, from values [N, R, T, C] at the stem's cells.

        Between the centres of two cells they lie on a straight line. Along an axis with one value they stay.
        """
        return between(values, 1, self.size[0], self.scale, self.first)

    def across(self, values: Tensor) -> Tensor:
        """Values [N, R, T | 1, C] at the map's columns, from values [N, R, T, C] at the stem's cells."""
        return between(values, 2, self.size[1], self.scale, self.first)


@dataclass(frozen=True)
class Window:
    """What the maps of a batch show: blocks of micro patches, at places, under conditions.

    Attributes:
        condition: [N, K], or [N, R, T, K] for cells of the stem, two a patch.
        coordinates: micro coordinates [N, dimensions].
        block: micro patches down and across.
        offset: micro patches, down and across, from the one at `coordinates` to the block's top left one.
        reach: cells of the stem that conditions cover beyond each side of the block.
    """

    condition: Tensor
    coordinates: Tensor
    block: tuple[int, int] = (1, 1)
    offset: tuple[int, int] = (0, 0)
    reach: int = 0

    def samples(self, sizes: Sequence[int]) -> list["Window"]:
        """Parts of the batch."""
        parts = zip(self.condition.split(list(sizes)), self.coordinates.split(list(sizes)), strict=True)
        return [replace(self, condition=condition, coordinates=coordinates) for condition, coordinates in parts]

    def pieces(self, size: tuple[int, int]) -> list["Window"]:
        """Parts of the blocks of up to `size` patches, row by row."""
        (down, across), (high, wide) = self.block, size
        return [
            self._piece((top, left), (min(high, down - top), min(wide, across - left)))
            for top in range(0, down, high)
            for left in range(0, across, wide)
        ]

    def _piece(self, first: tuple[int, int], block: tuple[int, int]) -> "Window":
        condition = self.condition
        for axis in range(condition.dim() - 2):  # not of those that are the same for all cells
            if condition.shape[1 + axis] > 1:
                condition = condition.narrow(1 + axis, 2 * first[axis], 2 * block[axis] + 2 * self.reach)
        offset = self.offset[0] + first[0], self.offset[1] + first[1]
        return replace(self, condition=condition, block=block, offset=offset)

    def cells(self, side: int, margin: int) -> Cells | None:
        """Where cells of a map lie among those of the stem, if conditions are for these.

        Args:
            side: of a patch in the map's cells.
            margin: cells of the map beyond each side of the block.
        """
        if self.condition.dim() == 2:
            return None
        down, across = (n * side + 2 * margin for n in self.block)
        return Cells(side // 2, self.reach * (side // 2) - margin, (down, across))


def steady(latent: Tensor) -> Tensor:
    """Latents [N, L] as [N, 1, 1, L], the same for all cells; latents of cells, [N, R, T, L], as they are."""
    return latent[:, None, None] if latent.dim() == 2 else latent
