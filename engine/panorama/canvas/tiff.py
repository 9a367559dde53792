"""Tiled BigTIFF of any size: RGB, deflate with horizontal differences; the same picture gives the same bytes."""

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

# One terapixel in tiles of 512. The index stays in memory until the end, so it must have a bound.
MOST_TILES = 2**22
# Measured 49: integers in tifffile's lists, then the packed index.
INDEX_BYTES_PER_TILE = 64


class _Abandoned(Exception):
    """Unwinds tifffile's writer when the rendering has failed."""


class TiffCanvas(Canvas):
    """A tiled BigTIFF.

    tifffile pulls encoded tiles from an iterator and the renderer pushes pixels, so that a thread stands between them:

        write() -> encoding pool -> bounded queue of futures, in order -> writer thread (tifffile) -> file

    Neither side can wait for the other for ever: a writer that failed goes on emptying the queue until its end mark,
    the end mark is sent on every way out of the `with` statement, and encoding gives a tile's memory back in any case.

    Raises:
        SizeError: the picture has more tiles than fit; MissingExtraError: tifffile is not installed; OutputError: the
            path cannot be written.
    """

    # zlib releases the interpreter lock, so that threads suffice; more than eight outrun any renderer we know of.
    _workers = min(8, os.cpu_count() or 1)

    def __init__(self, path: Path, grid: Grid) -> None:
        if grid.tiles > MOST_TILES:
            raise SizeError(
                f"{grid.width}x{grid.height} is too large for one file: that is {grid.tiles} tiles of "
                f"{grid.tile[1]}x{grid.tile[0]}, and at most {MOST_TILES} fit. Render it in several pictures."
            )
        try:
            import tifffile  # noqa: F401 - asked for here, so that a missing package shows before the rendering
        except ImportError as error:
            raise MissingExtraError("tifffile", "writing TIFF", "tiff") from error
        # Two tiles a worker, one with its differences; bytes in each place of the queue and at either end of it.
        tiles = (5 * self._workers + 2) * math.prod(grid.tile) * 3
        super().__init__(path, grid, tiles + grid.tiles * INDEX_BYTES_PER_TILE)

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
