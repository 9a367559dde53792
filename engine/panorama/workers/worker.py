"""The program of a worker process, which `processes` starts: it makes the chunks that its parent asks for.

It owns no file, so that it can be killed at any moment. It ends when the connection ends, because its parent has then
closed it or is dead.
"""

import io
import logging
import mmap
import os
import pickle
import sys
import threading
import time
import traceback
from contextlib import suppress
from multiprocessing.connection import Connection
from queue import SimpleQueue

import numpy as np
import torch
from numpy.typing import NDArray

from zellige.errors import WorkerError, ZelligeError

from ..memory import measured_peak
from ..patches import PatchMaker
from ..renderer import Renderer
from ..scene import Region
from . import Failure, Job, Made

__all__ = ["main"]


def main() -> None:
    """Work until the parent ends the connection; arguments are handles of it, of the model and of the pixels."""
    handle, model, pixels = map(int, sys.argv[1:])
    parent = Connection(handle)
    inbox: SimpleQueue[bytes] = SimpleQueue()
    threading.Thread(target=_listen, args=(parent, inbox), daemon=True).start()
    logging.getLogger().addHandler(_Forward(parent))
    with suppress(OSError):  # the parent is gone
        while True:
            job = pickle.loads(inbox.get())
            try:
                _work(job, parent, inbox, model, pixels)
            except Exception as error:
                parent.send(_failure(error))


def _listen(parent: Connection, inbox: "SimpleQueue[bytes]") -> None:
    """Put the parent's messages into the inbox; end this process with the connection, also in the midst of a chunk."""
    with suppress(EOFError, OSError):
        while True:
            inbox.put(parent.recv_bytes())
    os._exit(1)


def _work(job: Job, parent: Connection, inbox: "SimpleQueue[bytes]", model: int, pixels: int) -> None:
    """Make the chunks of one picture."""
    torch.set_num_threads(job.threads)
    device = torch.device(job.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    with mmap.mmap(model, 0, access=mmap.ACCESS_READ) as content:
        maker: PatchMaker = torch.load(io.BytesIO(content), map_location=device, weights_only=False)
    area = job.scene.block[0] * job.scene.block[1]
    renderer = Renderer(maker, job.batch * area, job.name, reuse=True)
    if maker.graph:
        renderer.run, _ = maker.prepared(job.scene.block, job.scene.cells, job.batch, None)
    # Libraries load more of themselves in the first call, as they did in the parent before its memory was measured.
    renderer.region(job.scene, Region(0, 0, 1, 1))
    # The parent counts the shared memory. Pages that are touched before the measurement do not count here again.
    room = np.frombuffer(mmap.mmap(pixels, job.room), np.uint8)
    room[:: mmap.PAGESIZE].max()
    parent.send(None)
    with measured_peak(device, job.memory) as peak:
        while (task := pickle.loads(inbox.get())) is not None:
            slot, region = task
            parent.send(_make(renderer, job, slot, region, room))
    parent.send(peak.bytes)


def _make(renderer: Renderer, job: Job, slot: int, region: Region, room: NDArray[np.uint8]) -> Made:
    began = time.perf_counter()
    made = renderer.region(job.scene, region).cpu().numpy()
    room[slot * job.chunk :][: made.size].reshape(made.shape)[:] = made
    area = job.scene.block[0] * job.scene.block[1]
    return Made(slot, time.perf_counter() - began, len(job.scene.work(region)) * area)


def _failure(error: Exception) -> Failure:
    trace = traceback.format_exc()
    if isinstance(error, ZelligeError):
        return Failure(type(error), str(error), trace)
    return Failure(WorkerError, f"a worker failed with {type(error).__name__}: {error}", trace)


class _Forward(logging.Handler):
    """Sends records to the parent, whose handlers print them."""

    def __init__(self, parent: Connection) -> None:
        super().__init__()
        self._parent = parent

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):
            self._parent.send((record.name, record.levelno, record.getMessage()))


if __name__ == "__main__":
    main()
