"""Starts one worker process a device, deals the chunks of a picture to them, and ends them."""

import io
import logging
import math
import mmap
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any, Self, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from zellige.errors import WorkerError

from ..patches import PatchMaker
from ..scene import Scene
from . import AHEAD, Chunk, Failure, Job, Made, Tally

__all__ = ["Crew"]

logger = logging.getLogger(__name__)
Pixels: TypeAlias = NDArray[np.uint8]
_SECONDS = 10.0  # for a process whose connection has ended to end too


class Crew:
    """Worker processes, which make the chunks of one picture after the other.

    They are started anew and not forked, because a fork would share the journal's lock and lack torch's threads. They
    start as `python -m`, so that a script which calls Zellige does not run a second time. The shared memory and the
    file through which they get the generator have no name, so nothing is left behind, however the processes end. They
    have a process group of their own: Ctrl-C reaches the parent, which ends them.

    It is a context manager that ends the processes. They start with the first picture, when nothing can be refused any
    more, and end by themselves if the parent is killed.

    Args:
        devices: the device of each worker.
    Attributes:
        devices: as given.
        seconds_start: time until all were ready for the latest picture.
    """

    def __init__(self, devices: Sequence[torch.device]) -> None:
        self.devices = list(devices)
        self.seconds_start = 0.0
        self._processes: list[subprocess.Popen[bytes]] = []
        self._parents: list[Connection] = []
        self._handles: list[int] = []
        self._room: Pixels = np.empty(0, np.uint8)
        self._job: Job | None = None

    def __len__(self) -> int:
        return len(self.devices)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def end(self) -> None:
        """End all processes at once; they own nothing that they would have to finish."""
        for parent in self._parents:
            parent.close()
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()
        for handle in self._handles:
            os.close(handle)
        self._parents, self._processes, self._handles = [], [], []
        self._room = np.empty(0, np.uint8)

    def begin(
        self, maker: PatchMaker, scene: Scene, name: str, *, batch: int, threads: int, budget: int,
        tile: tuple[int, int], tiles: int,
    ) -> None:  # fmt: skip
        """Hand a picture to all workers, which the first picture starts, and wait until they are ready.

        Args:
            maker: the generator; each worker gets a copy on its device.
            scene: the picture.
            name: the model's name, for errors.
            batch: blocks in a batch.
            threads: each worker's threads of torch.
            budget: bytes for all workers.
            tile: height and width of a tile.
            tiles: the most tiles of a chunk.
        Raises:
            WorkerError: a worker could not start.
        """
        began = time.perf_counter()
        if not self._processes:
            self._handles += [_unnamed("zellige-model"), _unnamed("zellige-pixels")]
            for _ in self.devices:
                self._start()
        content = io.BytesIO()
        torch.save(maker, content)
        model, pixels = self._handles
        _replace(model, content.getbuffer())
        chunk = -(-math.prod(tile) * tiles * maker.channels // mmap.PAGESIZE) * mmap.PAGESIZE
        room = AHEAD * len(self) * chunk
        os.truncate(pixels, room)
        self._room = np.frombuffer(mmap.mmap(pixels, room), np.uint8)
        for k, device in enumerate(self.devices):
            self._job = Job(scene, name, batch, str(device), threads, budget // len(self), room, chunk)
            self._tell(k, self._job)
        for _ in self.devices:
            self._hear()
        self.seconds_start = time.perf_counter() - began

    def make(self, todo: Iterator[Chunk], tally: Tally) -> Iterator[tuple[Chunk, Pixels]]:
        """Make chunks of the picture, each by the worker that has least to do.

        Args:
            todo: the chunks.
            tally: what the workers did is added here.
        Returns:
            the chunks in their order with their pixels, uint8 [height, width, channels], which are valid until the
            next one is asked for.
        Raises:
            WorkerError: a worker was killed, or failed.
            ZelligeError: as of `Renderer.region`.
        """
        assert self._job is not None, "begin() comes first"
        size, loads = self._job.chunk, [0] * len(self)
        free, waiting, made = list(range(AHEAD * len(self))), deque[tuple[Chunk, int]](), set[int]()

        def deal() -> None:
            while free and min(loads) < AHEAD and (chunk := next(todo, None)) is not None:
                worker, slot = loads.index(min(loads)), free.pop()
                self._tell(worker, (slot, chunk.region))
                loads[worker] += 1
                waiting.append((chunk, slot))

        deal()
        while waiting:
            chunk, slot = waiting.popleft()
            while slot not in made:
                worker, news = self._hear()
                assert isinstance(news, Made)
                made.add(news.slot)
                loads[worker] -= 1
                tally.seconds, tally.patches = tally.seconds + news.seconds, tally.patches + news.patches
                deal()
            height, width = chunk.region.height, chunk.region.width
            yield chunk, self._room[slot * size :][: height * width * 3].reshape(height, width, 3)
            made.remove(slot)
            free.append(slot)
            deal()

    def finish(self, tally: Tally) -> None:
        """End the picture, and add the workers' peaks of memory; the workers then wait for another picture."""
        for k in range(len(self)):
            self._tell(k, None)
        for _ in self.devices:
            tally.peak += self._hear()[1]

    def _start(self) -> None:
        parent, child = Pipe()
        self._parents.append(parent)
        handles = child.fileno(), *self._handles
        # The modules are found where this process has found them.
        path = os.pathsep.join(os.path.abspath(folder) for folder in sys.path)
        command = [sys.executable, "-P", "-m", f"{__package__}.worker", *map(str, handles)]
        try:
            process = subprocess.Popen(
                command, pass_fds=handles, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                env=os.environ | {"PYTHONPATH": path}, process_group=0,
            )  # fmt: skip
        except OSError as error:
            raise WorkerError(
                f"worker {len(self._parents)} of {len(self)} cannot start: {error.strerror}. Try fewer workers."
            ) from error
        finally:
            child.close()
        self._processes.append(process)

    def _tell(self, worker: int, message: Any) -> None:
        try:
            self._parents[worker].send_bytes(pickle.dumps(message))
        except OSError:
            raise self._death(worker) from None

    def _hear(self) -> tuple[int, Any]:
        """The next message of any worker, with the worker's number; a failure is raised, and a record is logged."""
        while True:
            ready = wait(self._parents)
            for worker in (k for k, parent in enumerate(self._parents) if parent in ready):
                try:
                    news = self._parents[worker].recv()
                except (EOFError, OSError):
                    raise self._death(worker) from None
                if isinstance(news, Failure):
                    error = news.kind.__new__(news.kind, news.sentence)
                    error.add_note(f"in worker {worker + 1}:\n{news.trace}")
                    raise error
                if isinstance(news, tuple) and not isinstance(news, Made):
                    name, level, text = news
                    logging.getLogger(name).log(level, "worker %d: %s", worker + 1, text)
                    continue
                return worker, news

    def _death(self, worker: int) -> WorkerError:
        """The error for a worker whose connection has ended."""
        process = self._processes[worker]
        try:
            status = process.wait(_SECONDS)
        except subprocess.TimeoutExpired:
            status = 0
        known = {number.value: number.name for number in signal.Signals}
        how = f"was killed by {known.get(-status, -status)}" if status < 0 else f"ended with status {status}"
        why = ", as the system does when memory runs out" if status == -signal.SIGKILL else ""
        return WorkerError(
            f"worker {worker + 1} of {len(self)}, process {process.pid}, {how}{why}. Try a smaller --memory or fewer "
            "workers."
        )


def _unnamed(name: str) -> int:
    """The handle of a file in memory without a path, or else of a file that was removed; it ends with its users."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create(name)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _replace(handle: int, content: memoryview) -> None:
    """Replace the content of an unnamed file."""
    os.truncate(handle, 0)
    os.lseek(handle, 0, os.SEEK_SET)
    with content:
        rest = content[:]
        while rest:
            rest = rest[os.write(handle, rest) :]
