"""The interface of picture files in any format: the grid of tiles, their order, and the file's atomic completion."""

import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from zellige.errors import OutputError, ResumeError, ShapeError

from ...files.atomic import partial_of
from ..scene import Region
from .encode import Seconds

if TYPE_CHECKING:
    from ..journal import Journal
    from .finished import Finished

__all__ = ["Canvas", "Grid", "Pixels", "Settings"]

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

    def pixels(self, tiles: int) -> int:
        """Pixels of the first `tiles` tiles."""
        if tiles == self.tiles:
            return self.height * self.width
        top, left = self.origin(tiles)
        return top * self.width + min(self.tile[0], self.height - top) * left

    def shape(self, index: int) -> tuple[int, int, int]:
        """Shape of a tile, cropped to the picture."""
        top, left = self.origin(index)
        return min(self.tile[0], self.height - top), min(self.tile[1], self.width - left), 3


@dataclass(frozen=True)
class Settings:
    """What a canvas is told beyond its path and its grid.

    Attributes:
        compression: one of the names that the format's row in `FORMATS` lists.
        quality: of JPEG, from 1 to 100.
        cyclic: whether the picture closes on itself (vertically, horizontally).
        metadata: names and values that the file holds beside the pixels; nothing is written if there are none.
    """

    compression: str = "deflate"
    quality: int = 95
    cyclic: tuple[bool, bool] = (False, False)
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def description(self) -> str:
        """The metadata as JSON in ASCII, the only characters that a tag of TIFF may hold; empty if there are none."""
        return json.dumps(dict(self.metadata)) if self.metadata else ""


class Output(Protocol):
    """A file or a folder that takes its name when it is complete."""

    path: Path

    def commit(self) -> None:
        """Make it durable, then let it take its name."""

    def discard(self) -> None:
        """Remove what has no name yet."""

    def release(self) -> None:
        """Close what has no name yet, and leave it."""


class Canvas(ABC):
    """A picture file that takes its tiles in row-major order.

    It is a context manager that creates a temporary file or folder beside the target. Leaving it without an exception
    completes the picture, makes it durable and renames it to the target. Leaving it with an exception removes what is
    temporary, and the target stays as it was.

    With a journal the temporary file or folder has a fixed name, and the tiles that the journal counts are there
    already: the next tile is the one behind them. An exception then leaves what the journal keeps.

    Attributes:
        partial: the fixed name; None if the format cannot be resumed.
        done: the number of tiles that were there when the canvas was entered.
        tile: height and width in pixels of the tiles that it takes; tiles at the border are cropped to the picture.
        resident_bytes: the most host memory that it holds while it is open.
        seconds: the time that it took so far.
    """

    def __init__(self, output: Output, grid: Grid, settings: Settings, resident_bytes: int) -> None:
        self.partial: Path | None = partial_of(output.path)
        self.done = 0
        self.tile = grid.tile
        self.resident_bytes = resident_bytes
        self.seconds = Seconds()
        self._output = output
        self._grid = grid
        self._settings = settings
        self._journal: Journal | None = None
        self._written = 0
        self._closed = False

    def __enter__(self) -> Self:
        try:
            if self._journal is not None:
                self._journal.clear()
                self.done = self._journal.tiles
            self._begin()
            self._written = self.done
        except BaseException:  # such as no memory or no thread; Python does not call `__exit__` then
            self._leave()
            raise
        return self

    @property
    def facts(self) -> dict[str, Any]:
        """Everything that decides the file beside its pixels and its metadata, as values of JSON."""
        known: dict[str, Any] = {"format": self._output.path.suffix.lower(), "compression": self._settings.compression}
        if self._settings.compression == "jpeg":
            known["quality"] = self._settings.quality
        return known | {"tile": list(self.tile), "closed": [int(axis) for axis in self._settings.cyclic]}

    @property
    def stored_pixels(self) -> int:
        """Pixels of the file, with those of levels that a small picture has fewer of."""
        return self._grid.height * self._grid.width

    @property
    def path(self) -> Path:
        """The picture's file or folder."""
        return self._output.path

    @property
    def resumed_pixels(self) -> int:
        """Pixels that were there when the canvas was entered."""
        return self._grid.pixels(self.done)

    @property
    def metadata(self) -> Mapping[str, str]:
        """What the file says of itself; it can be changed before the canvas is entered."""
        return self._settings.metadata

    @metadata.setter
    def metadata(self, known: Mapping[str, str]) -> None:
        self._settings = replace(self._settings, metadata=known)

    def follow(self, journal: "Journal") -> None:
        """Let an opened journal count the tiles, before the canvas is entered."""
        self._journal = journal

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
        began = time.perf_counter()
        self._take(tile, *self._grid.origin(self._written))
        self.seconds.waiting += time.perf_counter() - began
        self._written += 1

    def keep(self, older: "Finished") -> None:
        """Take the next tile from a finished picture of the same size and format, as it is there.

        Its encoded bytes are copied if the format allows it, else its pixels.

        Raises:
            ShapeError: the picture is full.
            DataError: the older picture cannot be read.
            OutputError: this tile or an earlier one could not be written.
        """
        if self._written == self._grid.tiles:
            raise ShapeError(f"the picture is full: it has {self._grid.tiles} tiles")
        began = time.perf_counter()
        self._keep(older, self._written)
        self.seconds.waiting += time.perf_counter() - began
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
        began = time.perf_counter()
        self._finish()
        finished = time.perf_counter()
        self._output.commit()
        self.seconds.add(write=time.perf_counter() - finished)
        self.seconds.waiting += time.perf_counter() - began
        self._closed = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self.close()
        finally:
            self.discard()

    def discard(self) -> None:
        """End the threads and remove what has no name yet; a picture that is closed stays."""
        self._abandon()
        self._leave()

    def unresumable(self, fault: str) -> ResumeError:
        """The error for a partial that cannot be gone on with."""
        return ResumeError(f"{self.partial} {fault}, so {self.path} cannot be resumed. Begin anew without --resume.")

    def _leave(self) -> None:
        if self._journal is not None and self._journal.keeps and not self._closed:
            self._output.release()
        else:
            self._output.discard()

    @property
    def _how(self) -> dict[str, bool]:
        """How the output is opened."""
        return {"fixed": self._journal is not None, "resume": self._journal is not None and self._journal.resumed}

    def _keep(self, older: "Finished", index: int) -> None:
        (top, left), (height, width, _) = self._grid.origin(index), self._grid.shape(index)
        self._take(older.pixels(Region(top, left, height, width)), top, left)

    @abstractmethod
    def _begin(self) -> None: ...

    @abstractmethod
    def _take(self, tile: Pixels, top: int, left: int) -> None: ...

    @abstractmethod
    def _finish(self) -> None: ...

    @abstractmethod
    def _abandon(self) -> None:
        """Free memory and threads; it is called after `_finish` too."""
