"""Threads that compress tiles, so that the renderer does not wait for the compression."""

import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from zellige.errors import OutputError, ZelligeError

from ...files.atomic import output_errors
from ..scene import Region

__all__ = ["TILES_IN_MEMORY", "WORKERS", "Encoder", "Seconds", "in_threads"]

Pixels = NDArray[np.uint8]
Encoded = TypeVar("Encoded")

# Threads suffice, because the codecs release the interpreter lock; more than eight outrun any renderer that we know.
WORKERS = min(8, os.cpu_count() or 1)
# For each worker two free tiles, one at work and two results in the queue; and one result at either end of the queue.
TILES_IN_MEMORY = 5 * WORKERS + 2


class _Abandoned(Exception):
    """Unwinds the writer when the rendering has failed."""


@dataclass
class Seconds:
    """The time that a canvas took.

    Attributes:
        encode: seconds of compression, summed over the threads that did it.
        write: seconds of writing to the disk, by whichever thread.
        waiting: seconds by which the canvas held up the renderer: it copied a tile, waited for a free one, or waited
            for the end of the file.
    """

    encode: float = 0.0
    write: float = 0.0
    waiting: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, encode: float = 0.0, write: float = 0.0) -> None:
        """Add seconds, from any thread."""
        with self._lock:
            self.encode += encode
            self.write += write


class Encoder(Generic[Encoded]):
    """Compresses tiles on a pool of threads and hands them, in the order in which they came, to a writer's thread.

        put() -> free tiles -> pool of threads -> bounded queue of futures, in order -> writer's thread

    Neither side can wait for the other for ever. A writer that failed goes on emptying the queue until the end mark.
    Every way out sends the end mark. A thread returns a tile's memory even if the compression fails.

    Args:
        path: the picture's file, for errors.
        tile: height and width of a whole tile.
        encode: compresses a tile. It gets the memory of a whole tile, whose top left corner holds the pixels and which
            it may change, and the tile's place in the picture.
        drain: writes the results of `encode` that it is given; it ends when they end.
        seconds: the times are added here.
    """

    def __init__(
        self,
        path: Path,
        tile: tuple[int, int],
        encode: Callable[[Pixels, Region], Encoded],
        drain: Callable[[Iterator[Encoded]], None],
        seconds: Seconds,
    ) -> None:
        self._path, self._encode, self._drain, self._seconds = path, encode, drain, seconds
        self._failure: BaseException | None = None
        self._queue: queue.Queue[Future[Encoded] | None] = queue.Queue(2 * WORKERS)
        # The same few tiles are reused, because blocks that another thread frees would fragment the renderer's heap.
        self._free: queue.Queue[Pixels] = queue.Queue()
        for _ in range(2 * WORKERS):
            self._free.put(np.empty((*tile, 3), np.uint8))
        self._pool = ThreadPoolExecutor(WORKERS, "zellige-encode")
        # A daemon, because a canvas that was entered and never left must not keep the interpreter from ending.
        self._writer = threading.Thread(target=self._write, name="zellige-write", daemon=True)
        self._writer.start()

    def put(self, tile: Pixels, top: int, left: int) -> None:
        """Take the next tile; it waits only if all free tiles are on their way.

        Raises:
            OutputError: an earlier tile could not be compressed or written.
        """
        self._raise_failure()
        free = self._free.get()
        height, width, _ = tile.shape
        free[:height, :width] = tile
        self._queue.put(self._pool.submit(self._work, free, Region(top, left, height, width)))

    def pass_on(self, encoded: Encoded) -> None:
        """Take what `encode` would give for the next tile.

        Raises:
            OutputError: an earlier tile could not be compressed or written.
        """
        self._raise_failure()
        ready: Future[Encoded] = Future()
        ready.set_result(encoded)
        self._queue.put(ready)

    def finish(self) -> None:
        """Wait until all tiles are written.

        Raises:
            OutputError: a tile could not be compressed or written.
        """
        self._queue.put(None)
        self._writer.join()
        self._raise_failure()

    def abandon(self) -> None:
        """End the threads, whether or not `finish` was called."""
        if self._writer.is_alive():
            self._queue.put(None)
            self._writer.join()
        self._pool.shutdown(cancel_futures=True)

    def _work(self, tile: Pixels, place: Region) -> Encoded:
        began = time.perf_counter()
        try:
            return self._encode(tile, place)
        finally:
            self._free.put(tile)
            self._seconds.add(encode=time.perf_counter() - began)

    def _write(self) -> None:
        # The end mark ends this iterator for good, so the loop below returns at once if it has been read.
        pushed = iter(self._queue.get, None)
        try:
            self._drain(self._encoded(pushed))
        except _Abandoned:
            pass
        except BaseException as failure:
            self._failure = failure
        for _ in pushed:
            pass

    def _encoded(self, pushed: Iterator[Future[Encoded] | None]) -> Iterator[Encoded]:
        for future in pushed:
            assert future is not None, "the mark ends the iterator"
            result = future.result()
            given = time.perf_counter()
            yield result
            self._seconds.add(write=time.perf_counter() - given)
        # Not a plain end, because tifffile would take a file with too few tiles for a complete one.
        raise _Abandoned

    def _raise_failure(self) -> None:
        if isinstance(self._failure, ZelligeError):
            raise self._failure
        if self._failure is not None:
            with output_errors(self._path):
                if isinstance(self._failure, OSError):
                    raise self._failure
            raise OutputError(f"{self._path} cannot be written: {self._failure!r}") from self._failure


def in_threads(action: Callable[[int], None], count: int) -> None:
    """Run action(0), ..., action(count - 1) on threads, in this order of beginnings; the first error is raised."""
    numbers = iter(range(count))
    failed = threading.Event()

    def work() -> None:
        try:
            for number in numbers:  # one iterator for all threads, because a queue of a million tasks takes memory
                if failed.is_set():
                    return
                action(number)
        except BaseException:
            failed.set()
            raise

    with ThreadPoolExecutor(WORKERS, "zellige-encode") as pool:
        try:
            for future in [pool.submit(work) for _ in range(min(WORKERS, count))]:
                future.result()
        except BaseException:  # such as Ctrl-C: the pool waits for the rest
            failed.set()
            raise
