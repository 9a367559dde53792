"""Where the finished tiles of a panorama go: a tiled BigTIFF of any size, or a PNG of up to 64 megapixels.

Tiles come strictly in row-major order and leave at once, so that the memory does not depend on the picture's size.
"""

import math
import os
import queue
import threading
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from zellige.errors import MissingExtraError, OutputError, ShapeError, SizeError

from ...files.atomic import AtomicFile, output_errors

__all__ = ["Canvas", "open_canvas"]

Pixels = NDArray[np.uint8]

LARGEST_TILE = 512
# libtiff keeps both sides in a signed 32-bit integer in many of its readers.
LARGEST_SIDE = 2**31 - 1
# One terapixel in tiles of 512. The index stays in memory until the end, so it must have a bound.
MOST_TILES = 2**22
# Measured 49: integers in tifffile's lists, then the packed index.
INDEX_BYTES_PER_TILE = 64
MOST_PNG_PIXELS = 2**26
# Pillow stores RGB in four bytes a pixel.
PILLOW_BYTES_PER_PIXEL = 4


@dataclass(frozen=True)
class _Grid:
    """A picture cut into tiles."""

    height: int
    width: int
    tile: tuple[int, int]

    @property
    def columns(self) -> int:
        return math.ceil(self.width / self.tile[1])

    @property
    def tiles(self) -> int:
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

    As a context manager it creates a temporary file beside the target; leaving it without an exception completes
    the picture, makes it durable and renames it into place; with one, the temporary file goes and the target stays
    as it was.

    Attributes:
        tile: height and width in pixels of the tiles it takes; those at the border come cropped to the picture.
        resident_bytes: host memory that it holds on to while it is open, at most.
    """

    def __init__(self, output: AtomicFile, grid: _Grid, resident_bytes: int) -> None:
        self.tile = grid.tile
        self.resident_bytes = resident_bytes
        self._output = output
        self._grid = grid
        self._written = 0
        self._closed = False

    def __enter__(self) -> Self:
        file = self._output.open()
        try:
            self._begin(file)
        except BaseException:  # no memory, no thread: `__exit__` is not called then
            self._output.discard()
            raise
        return self

    def write(self, tile: Pixels) -> None:
        """Take the next tile, uint8 [h, w, 3]; the caller may reuse the memory at once.

        Raises:
            ShapeError: the tile has another shape or dtype than the next one should have, or the picture is full.
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
        """Complete the picture and put it in its place; leaving the `with` statement does it too.

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
        """Let go of everything; also called after `_finish`."""


def open_canvas(path: str | os.PathLike[str], width: int, height: int, *, patch: int) -> Canvas:
    """Prepare a picture file; its format follows the extension.

    `.tif` and `.tiff` become tiled BigTIFF (RGB, deflate with horizontal differences), in memory that does not
    depend on the size; `.png` holds the whole picture. An existing file is replaced, once the new one is complete.
    The same picture gives the same bytes. Everything that can be known to fail fails here, before any rendering;
    nothing stays on the disk until the canvas is entered.

    Args:
        path: the file.
        width, height: of the picture, in pixels, >= 1.
        patch: side in pixels of the pieces that the tiles are rendered from. Tiles are whole numbers of patches
            where a multiple of 16 (which TIFF demands) up to 512 allows it, so that few patches are cut by two tiles.
    Returns:
        A canvas, to be used in a `with` statement.
    Raises:
        OutputError: the extension is unknown, or the path cannot be written.
        SizeError: the picture is larger than the format can be.
        MissingExtraError: a TIFF was asked for and tifffile is not installed.
    """
    path = Path(path)
    extension = path.suffix.lower()
    if extension not in (".png", ".tif", ".tiff"):
        raise OutputError(f"{path} has no known picture format; name it .tif or .tiff (any size) or .png (small).")
    if width < 1 or height < 1:
        raise SizeError(f"A picture of {width}x{height} pixels has no pixels; both sides must be at least 1.")
    if max(width, height) > LARGEST_SIDE:
        raise SizeError(f"{width}x{height} is too large for a picture file: no side may exceed {LARGEST_SIDE} pixels.")
    grid = _Grid(height, width, _tile_shape(height, width, patch))
    if extension == ".png":
        if width * height > MOST_PNG_PIXELS:
            name = path.with_suffix(".tif").name
            raise SizeError(
                f"{width}x{height} is too large for {path.name}: PNG is limited to {MOST_PNG_PIXELS} pixels here, "
                f"because it needs the whole picture in memory. Write {name} instead, which has no such limit."
            )
        return _PngCanvas(AtomicFile(path), grid)
    if grid.tiles > MOST_TILES:
        raise SizeError(
            f"{width}x{height} is too large for one file: that is {grid.tiles} tiles of {grid.tile[1]}x{grid.tile[0]}, "
            f"and at most {MOST_TILES} fit. Render it in several pictures."
        )
    try:
        import tifffile  # noqa: F401 - asked for here, so that a missing package shows before the rendering
    except ImportError as error:
        raise MissingExtraError("tifffile", "writing TIFF", "tiff") from error
    return _TiffCanvas(AtomicFile(path), grid)


def _tile_shape(height: int, width: int, patch: int) -> tuple[int, int]:
    unit = math.lcm(16, patch)
    largest = LARGEST_TILE // unit * unit or LARGEST_TILE
    return min(largest, math.ceil(height / 16) * 16), min(largest, math.ceil(width / 16) * 16)


class _PngCanvas(Canvas):
    """A picture in Pillow's memory, compressed at the end."""

    def __init__(self, output: AtomicFile, grid: _Grid) -> None:
        super().__init__(output, grid, grid.width * grid.height * PILLOW_BYTES_PER_PIXEL)

    def _begin(self, file: BinaryIO) -> None:
        self._file = file
        self._picture = Image.new("RGB", (self._grid.width, self._grid.height))

    def _take(self, tile: Pixels, top: int, left: int) -> None:
        self._picture.paste(Image.fromarray(np.ascontiguousarray(tile)), (left, top))

    def _finish(self) -> None:
        with output_errors(self._output.path):
            self._picture.save(self._file, format="PNG")

    def _abandon(self) -> None:
        del self._picture  # frees the memory now, even while the canvas is referred to


class _Abandoned(Exception):
    """Unwinds tifffile's writer when the rendering has failed."""


class _TiffCanvas(Canvas):
    """A tiled BigTIFF.

    tifffile pulls encoded tiles from an iterator and the renderer pushes pixels, so that a thread stands between them:

        write() -> encoding pool -> bounded queue of futures, in order -> writer thread (tifffile) -> file

    Neither side can wait for the other for ever: a writer that failed goes on emptying the queue until its end mark,
    the end mark is sent on every way out of the `with` statement, and encoding gives a tile's memory back in any case.
    """

    # zlib releases the interpreter lock, so that threads suffice; more than eight outrun any renderer we know of.
    _workers = min(8, os.cpu_count() or 1)

    def __init__(self, output: AtomicFile, grid: _Grid) -> None:
        # Two tiles a worker, one with its differences; bytes in each place of the queue and at either end of it.
        tiles = (5 * self._workers + 2) * math.prod(grid.tile) * 3
        super().__init__(output, grid, tiles + grid.tiles * INDEX_BYTES_PER_TILE)

    def _begin(self, file: BinaryIO) -> None:
        self._failure: BaseException | None = None
        self._pool = ThreadPoolExecutor(self._workers, "zellige-encode")
        self._queue: queue.Queue[Future[bytes] | None] = queue.Queue(2 * self._workers)
        # The same few tiles go round: blocks that another thread frees at any time would litter the renderer's heap.
        self._free: queue.Queue[Pixels] = queue.Queue()
        for _ in range(2 * self._workers):
            self._free.put(np.empty((*self.tile, 3), np.uint8))
        # A daemon: a canvas that is entered and forgotten must not keep the interpreter from ending.
        self._writer = threading.Thread(target=self._write_file, args=(file,), name="zellige-tiff", daemon=True)
        self._writer.start()

    def _take(self, tile: Pixels, top: int, left: int) -> None:
        self._raise_failure()
        padded = self._free.get()
        height, width, _ = tile.shape
        padded[:height, :width] = tile
        # Beyond the right border the last pixel repeats: its differences are zero.
        padded[:height, width:] = tile[:, -1:]
        padded[height:] = 0
        self._queue.put(self._pool.submit(self._encode, padded))

    def _encode(self, tile: Pixels) -> bytes:
        try:
            return _deflated(tile)
        finally:
            self._free.put(tile)

    def _finish(self) -> None:
        self._queue.put(None)
        self._writer.join()
        self._raise_failure()

    def _abandon(self) -> None:
        if self._writer.is_alive():
            self._queue.put(None)
            self._writer.join()
        self._pool.shutdown(cancel_futures=True)

    def _raise_failure(self) -> None:
        if self._failure is not None:
            with output_errors(self._output.path):
                if isinstance(self._failure, OSError):
                    raise self._failure
            raise OutputError(f"{self._output.path} cannot be written: {self._failure!r}") from self._failure

    def _write_file(self, file: BinaryIO) -> None:
        import tifffile

        # Ended by the mark, this iterator stays ended: emptying it below returns at once.
        pushed = iter(self._queue.get, None)
        try:
            with tifffile.TiffWriter(file, bigtiff=True, byteorder="<") as writer:
                writer.write(
                    self._encoded(pushed),
                    shape=(self._grid.height, self._grid.width, 3),
                    dtype=np.uint8,
                    tile=self.tile,
                    photometric="rgb",
                    planarconfig="contig",
                    compression="adobe_deflate",
                    predictor=True,
                    software="zellige",
                    metadata=None,  # no description, no date: the same picture gives the same bytes
                )
        except BaseException as failure:
            self._failure = failure
        for _ in pushed:
            pass

    @staticmethod
    def _encoded(pushed: Iterator[Future[bytes] | None]) -> Iterator[bytes]:
        for tile in pushed:
            assert tile is not None, "the mark ends the iterator"
            yield tile.result()
        raise _Abandoned


def _deflated(pixels: Pixels) -> bytes:
    """Compress one whole tile: horizontal differences (TIFF's predictor 2), then deflate.

    Run-length matching, not the full search: on photographs and satellite images after the differences, measured on
    one core, 115 to 125 MB/s and 40 to 75 % of the raw size, against 54 to 102 MB/s and 40 to 79 % for plain level 1
    and 12 to 35 MB/s and 36 to 78 % for level 6. Encoded here and not by tifffile, whose bytes depend on which
    optional codecs are installed.
    """
    differences = pixels.copy()
    differences[:, 1:] -= pixels[:, :-1]
    deflate = zlib.compressobj(level=1, strategy=zlib.Z_RLE)
    return deflate.compress(differences.data) + deflate.flush()
