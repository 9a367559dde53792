"""Writes tiled BigTIFF files of any size: RGB, deflate with horizontal differences, reproducible to the byte."""

import math
import os
import queue
import threading
import zlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import numpy as np

from zellige.errors import MissingExtraError, OutputError, SizeError

from ...files.atomic import output_errors
from .canvas import Canvas, Grid, Pixels

__all__ = ["TiffCanvas"]

# One terapixel in tiles of 512. The number has a bound because the index of tiles stays in memory until the end.
MOST_TILES = 2**22
# Measured: 49, for integers in tifffile's lists and then for the packed index.
INDEX_BYTES_PER_TILE = 64


class _Abandoned(Exception):
    """Unwinds tifffile's writer when the rendering has failed."""


class TiffCanvas(Canvas):
    """A tiled BigTIFF.

    tifffile pulls encoded tiles from an iterator and the renderer pushes pixels, so a thread connects them:

        write() -> encoding pool -> bounded queue of futures, in order -> writer thread (tifffile) -> file

    Neither side can wait for the other for ever. A writer that failed goes on emptying the queue until the end mark.
    Every way out of the `with` statement sends the end mark. The encoder returns a tile's memory even if it fails.

    Raises:
        SizeError: the picture has more tiles than fit.
        MissingExtraError: tifffile is not installed.
        OutputError: the path cannot be written.
    """

    # Threads suffice, because zlib releases the interpreter lock; more than eight outrun any renderer that we know.
    _workers = min(8, os.cpu_count() or 1)

    def __init__(self, path: Path, grid: Grid) -> None:
        if grid.tiles > MOST_TILES:
            raise SizeError(
                f"{grid.width}x{grid.height} is too large for one file: that is {grid.tiles} tiles of "
                f"{grid.tile[1]}x{grid.tile[0]}, and at most {MOST_TILES} fit. Render it in several pictures."
            )
        try:
            import tifffile  # noqa: F401 - imported here so that a missing package shows before the rendering
        except ImportError as error:
            raise MissingExtraError("tifffile", "writing TIFF", "tiff") from error
        # Tiles in memory: for each worker two free ones, one of differences and two results in the queue; and one
        # result at either end of the queue.
        tiles = (5 * self._workers + 2) * math.prod(grid.tile) * 3
        super().__init__(path, grid, tiles + grid.tiles * INDEX_BYTES_PER_TILE)

    def _begin(self, file: BinaryIO) -> None:
        self._failure: BaseException | None = None
        self._pool = ThreadPoolExecutor(self._workers, "zellige-encode")
        self._queue: queue.Queue[Future[bytes] | None] = queue.Queue(2 * self._workers)
        # The same few tiles are reused, because blocks that another thread frees would fragment the renderer's heap.
        self._free: queue.Queue[Pixels] = queue.Queue()
        for _ in range(2 * self._workers):
            self._free.put(np.empty((*self.tile, 3), np.uint8))
        # A daemon, because a canvas that was entered and never left must not keep the interpreter from ending.
        self._writer = threading.Thread(target=self._write_file, args=(file,), name="zellige-tiff", daemon=True)
        self._writer.start()

    def _take(self, tile: Pixels, top: int, left: int) -> None:
        self._raise_failure()
        padded = self._free.get()
        height, width, _ = tile.shape
        padded[:height, :width] = tile
        # Beyond the right border the last pixel is repeated, because its differences are zero.
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

        # The end mark ends this iterator for good, so the loop below returns at once if it has been read.
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
                    metadata=None,  # no description and no date, so that the same picture gives the same bytes
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

    Deflate matches runs only (Z_RLE), because that is faster and about as small. On photographs and satellite images,
    on one core, it made 115 to 125 MB/s and 40 to 75 % of the raw size; plain level 1 made 54 to 102 MB/s and 40 to
    79 %, level 6 made 12 to 35 MB/s and 36 to 78 %. tifffile does not encode, because its bytes depend on the optional
    codecs that are installed.
    """
    differences = pixels.copy()
    differences[:, 1:] -= pixels[:, :-1]
    deflate = zlib.compressobj(level=1, strategy=zlib.Z_RLE)
    return deflate.compress(differences.data) + deflate.flush()
