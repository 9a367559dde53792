"""Reads finished pictures in pieces, so that a canvas can write them again with some tiles anew."""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from zellige.errors import DataError, MissingExtraError, OutputError

from ...files.pictures import read_picture
from ...files.pixels import tiff_page
from ..scene import Region
from . import format_of, paths_of
from .canvas import Grid, Pixels

__all__ = ["Finished", "opened"]

_INDEX_BYTES_PER_TILE = 80  # two integers in tuples
_JPEG_TABLES = 347  # a tag of TIFF; the tiles of our canvas need no common tables
_COMPRESSIONS = {1: "none", 7: "jpeg", 8: "deflate", 50000: "zstd"}  # TIFF's numbers


class Finished(ABC):
    """A finished picture of a canvas, as uint8 pixels.

    Args:
        path: the picture.
        height, width: in pixels.
        tile: height and width of its tiles if a canvas can copy them as they are; None if it copies pixels.
        compression: one of its format's.
    Attributes:
        resident_bytes: the most host memory that it holds while it is open.
    """

    resident_bytes = 0

    def __init__(self, path: Path, height: int, width: int, tile: tuple[int, int] | None, compression: str) -> None:
        self.path, self.height, self.width = path, height, width
        self.tile, self.compression = tile, compression

    @property
    def lossy(self) -> bool:
        """Whether its pixels are not those that were rendered."""
        return self.compression == "jpeg"

    @abstractmethod
    def pixels(self, region: Region) -> Pixels:
        """The pixels of a region, uint8 [h, w, 3]; the region lies inside.

        Raises:
            DataError: they cannot be read.
        """

    def damaged(self, error: object) -> DataError:
        """The error for pixels that cannot be read."""
        return DataError(f"{self.path} is damaged: {' '.join(str(error).split())}; render it again")


class FinishedTiff(Finished):
    """A TIFF, of which single tiles are decoded."""

    def __init__(self, path: Path, page: Any) -> None:
        ours = page is not None and page.is_tiled and page.software == "zellige" and _JPEG_TABLES not in page.tags
        if not ours:
            raise DataError(
                f"{path} is no TIFF of Zellige any more, because another program has written it; render it again"
            )
        super().__init__(
            path, page.imagelength, page.imagewidth, (page.tilelength, page.tilewidth), _COMPRESSIONS[page.compression]
        )
        self._page, self._grid = page, Grid(page.imagelength, page.imagewidth, (page.tilelength, page.tilewidth))
        self.resident_bytes = self._grid.tiles * _INDEX_BYTES_PER_TILE
        if len(page.dataoffsets) != self._grid.tiles:
            raise self.damaged(f"it has {len(page.dataoffsets)} of {self._grid.tiles} tiles")

    def encoded(self, index: int) -> bytes:
        """The bytes of a tile, as they are in the file."""
        length = self._page.databytecounts[index]
        handle = self._page.parent.filehandle
        handle.seek(self._page.dataoffsets[index])
        content: bytes = handle.read(length)
        if not length or len(content) != length:
            raise self.damaged(f"tile {index} has {len(content)} of {length} bytes")
        return content

    def pixels(self, region: Region) -> Pixels:
        """See `Finished.pixels`."""
        made = np.empty((region.height, region.width, 3), np.uint8)
        (height, width), columns = self._grid.tile, self._grid.columns
        for row in range(region.top // height, -(-(region.top + region.height) // height)):
            for column in range(region.left // width, -(-(region.left + region.width) // width)):
                _place(self._tile(row * columns + column), row * height, column * width, made, region)
        return made

    def _tile(self, index: int) -> Pixels:
        try:
            decoded: Pixels | None = self._page.decode(self.encoded(index), index)[0]
        except (ValueError, RuntimeError, OSError) as error:  # codecs raise several classes
            raise self.damaged(f"tile {index} cannot be decoded ({error})") from error
        if decoded is None or decoded.ndim != 4:
            raise self.damaged(f"tile {index} is empty")
        return decoded[0]


class FinishedZarr(Finished):
    """A group of Zarr, of which level 0 is read."""

    def __init__(self, path: Path) -> None:
        try:
            import zarr
        except ImportError as error:
            raise MissingExtraError("zarr", "reading Zarr", "zarr") from error
        try:
            self._level = zarr.open_array(path / "0", mode="r")
            channels, height, width = self._level.shape
            _, *tile = self._level.shards
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} cannot be read as a Zarr picture: {' '.join(str(error).split())}") from error
        if channels != 3 or self._level.dtype != np.uint8:
            raise DataError(f"{path} is no picture of Zellige: level 0 is {self._level.dtype}, not RGB of 8 bits")
        packed = any(type(codec).__name__ == "ZstdCodec" for codec in self._level.compressors)
        super().__init__(path, height, width, (tile[0], tile[1]), "zstd" if packed else "none")

    def pixels(self, region: Region) -> Pixels:
        """See `Finished.pixels`."""
        end, stop = region.top + region.height, region.left + region.width
        try:
            found = np.asarray(self._level[:, region.top : end, region.left : stop])
        except (OSError, ValueError, RuntimeError) as error:
            raise self.damaged(error) from error
        return np.ascontiguousarray(np.moveaxis(found, 0, 2))


class FinishedPng(Finished):
    """A PNG, which is in memory as a whole."""

    def __init__(self, path: Path) -> None:
        self._picture = np.asarray(read_picture(path))
        height, width, _ = self._picture.shape
        super().__init__(path, height, width, None, "deflate")
        self.resident_bytes = self._picture.nbytes

    def pixels(self, region: Region) -> Pixels:
        """See `Finished.pixels`."""
        return self._picture[region.top : region.top + region.height, region.left : region.left + region.width].copy()


class FinishedDzi(Finished):
    """A Deep Zoom picture, whose largest level is read in tiles of PNG."""

    def __init__(self, path: Path) -> None:
        try:
            text = path.read_text(encoding="utf-8")
            numbers = {name: int(value) for name, value in re.findall(r'(\w+)="(\d+)"', text)}
            side, height, width = numbers["TileSize"], numbers["Height"], numbers["Width"]
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"{path} cannot be read as a Deep Zoom picture: {error}") from error
        if 'Format="png"' not in text:
            raise OutputError(
                f"{path} has tiles of JPEG, and its pyramid is made as a whole, so an edit would compress all of them "
                "once more. Edit a .tif or .zarr of the same panorama, or a .dzi of --compression png."
            )
        if min(side, height, width) < 1 or numbers.get("Overlap") != 0:
            raise DataError(f"{path} is no Deep Zoom picture of Zellige, whose tiles do not overlap")
        super().__init__(path, height, width, None, "png")
        self._side, self._folder = side, paths_of(path)[1] / str((max(height, width) - 1).bit_length())

    def pixels(self, region: Region) -> Pixels:
        """See `Finished.pixels`."""
        made = np.empty((region.height, region.width, 3), np.uint8)
        for row in range(region.top // self._side, -(-(region.top + region.height) // self._side)):
            for column in range(region.left // self._side, -(-(region.left + region.width) // self._side)):
                try:
                    with Image.open(self._folder / f"{column}_{row}.png", formats=("PNG",)) as picture:
                        tile = np.asarray(picture.convert("RGB"))
                except (OSError, ValueError, Image.DecompressionBombError) as error:
                    raise self.damaged(error) from error
                _place(tile, row * self._side, column * self._side, made, region)
        return made


@contextmanager
def opened(path: Path) -> Iterator[Finished]:
    """Open a finished picture of any format.

    Raises:
        DataError: it cannot be read, or another program has written it.
        OutputError: its format is unknown, or cannot be written again without loss.
        MissingExtraError: a package that reads it is not installed.
    """
    form = format_of(path)
    if form.module == "tiff":
        stack = ExitStack()
        page = stack.enter_context(tiff_page(path, own=True))
        try:  # without the context, which would blame the file for errors of the block
            yield FinishedTiff(path, page)
        finally:
            stack.close()
    else:
        openers: dict[str, Callable[[Path], Finished]] = {
            "zarr": FinishedZarr, "png": FinishedPng, "dzi": FinishedDzi,
        }  # fmt: skip
        yield openers[form.module](path)


def _place(tile: Pixels, top: int, left: int, made: Pixels, region: Region) -> None:
    """Copy a tile that begins at (top, left) of the picture to its place in a region."""
    down, across = max(top - region.top, 0), max(left - region.left, 0)
    tile = tile[max(region.top - top, 0) :, max(region.left - left, 0) :]
    target = made[down : down + tile.shape[0], across : across + tile.shape[1]]
    target[:] = tile[: target.shape[0], : target.shape[1]]
