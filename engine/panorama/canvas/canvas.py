"""The interface of picture files in any format: the grid of tiles, their order, and the file's atomic completion."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from zellige.errors import OutputError, ShapeError

from ...files.atomic import AtomicFile

__all__ = ["Canvas", "Grid", "Pixels"]

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Grid:
    """A picture cut into tiles."""

    height: int
    width: int
    tile: tuple[int, int]

    @property
    def columns(self) -> int:
        """Tiles in a row."""
        return math.ceil(self.width / self.tile[1])

    @property
    def tiles(self) -> int:
        """Tiles in all."""
        return math.ceil(self.height / self.tile[0]) * self.columns

    def origin(self, index: int) -> tuple[int, int]:
        """Row and column of the first pixel of a tile."""
        return index // self.columns * self.tile[0], index % self.columns * self.tile[1]

    def shape(self, index: int) -> tuple[int, int, int]:
        """Shape of a tile, cropped to the picture."""
        top, left = self.origin(index)
        return min(self.tile[0], self.height - top), min(self.tile[1], self.width - left), 3


class Canvas(ABC):
    """A picture file that takes its tiles in row-major order.

    It is a context manager that creates a temporary file beside the target. Leaving it without an exception completes
    the picture, makes it durable and renames it to the target. Leaving it with an exception removes the temporary file,
    and the target stays as it was.

    Attributes:
        tile: height and width in pixels of the tiles that it takes; tiles at the border are cropped to the picture.
        resident_bytes: the most host memory that it holds while it is open.
    """

    def __init__(self, path: Path, grid: Grid, resident_bytes: int) -> None:
        self.tile = grid.tile
        self.resident_bytes = resident_bytes
        self._output = AtomicFile(path)
        self._grid = grid
        self._written = 0
        self._closed = False

    def __enter__(self) -> Self:
        file = self._output.open()
        try:
            self._begin(file)
        except BaseException:  # such as no memory or no thread; Python does not call `__exit__` then
            self._output.discard()
            raise
        return self

    def write(self, tile: Pixels) -> None:
        """Take the next tile, uint8 [h, w, 3]; the caller may reuse the memory at once.

        Raises:
            ShapeError: the tile does not have the next tile's shape and dtype, or the picture is full.
            OutputError: this tile or an earlier one could not be written.
        """
        if self._written == self._grid.tiles:
            raise ShapeError(f"the picture is full: it has {self._grid.tiles} tiles")
        expected = self._grid.shape(self._written)
        if tile.dtype != np.uint8 or tile.shape != expected:
            raise ShapeError(f"tile {self._written} must be uint8 {expected}; got {tile.dtype} {tile.shape}")
        self._take(tile, *self._grid.origin(self._written))
        self._written += 1

    def close(self) -> None:
        """Complete the picture and rename it to the target; leaving the `with` statement does the same.

        Raises:
            OutputError: tiles are missing, or the file could not be completed.
        """
        if self._closed:
            return
        if self._written < self._grid.tiles:
            came = f"{self._written} of its {self._grid.tiles} tiles"
            raise OutputError(f"{self._output.path} was not written, because only {came} came.")
        self._finish()
        self._output.commit()
        self._closed = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self.close()
        finally:
            self._abandon()
            self._output.discard()

    @abstractmethod
    def _begin(self, file: BinaryIO) -> None: ...

    @abstractmethod
    def _take(self, tile: Pixels, top: int, left: int) -> None: ...

    @abstractmethod
    def _finish(self) -> None: ...

    @abstractmethod
    def _abandon(self) -> None:
        """Free memory and threads; it is called after `_finish` too."""
