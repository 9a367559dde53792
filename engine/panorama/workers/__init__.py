"""Worker processes that make the pixels of one picture.

The picture is cut into bands: chunks of whole tiles along a row of tiles, so a picture with a single row is divided by
columns. A tile is a shard of a Zarr. Each chunk is made by one worker, which its parent tells the region. The parent
takes the pixels through shared memory and writes all tiles itself, in row-major order. So every format has one writer,
the journal counts what one process counts, and a picture can be resumed with another number of workers.

Workers get the parent's generator with its weights and its choice of rewrites, and the parent's plan. On a CPU the
pixels of a patch depend on nothing else, hence the bytes are those of one process.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from zellige.errors import DeviceError, WorkerError

from ...device import pick_device
from ..scene import Region, Scene

__all__ = ["AHEAD", "MOST", "Chunk", "Failure", "Job", "Made", "Tally", "devices_of"]

MOST = 256  # workers
AHEAD = 2  # chunks that a worker has at most, of which it makes one; there is shared memory for so many a worker


class Chunk(NamedTuple):
    """Neighbouring tiles that are made together.

    Attributes:
        region: the part of the picture that is made.
        tiles: (left, width) within the region of the tiles to write.
        done: pixels of the file that are written when this chunk is.
    """

    region: Region
    tiles: list[tuple[int, int]]
    done: int


@dataclass
class Tally:
    """What the makers of a picture did.

    Attributes:
        seconds: time in which patches were made and composed, summed over workers.
        patches: the patches that were made.
        peak: bytes by which workers grew, summed over them.
    """

    seconds: float = 0.0
    patches: int = 0
    peak: int = 0


@dataclass(frozen=True)
class Job:
    """What a worker is told of a picture, beside the generator.

    Attributes:
        scene: the picture.
        name: the model's name, for errors.
        batch: blocks in a batch.
        device: the worker's device.
        threads: the worker's threads of torch.
        memory: bytes that the allocator of a CUDA device may reserve for the worker.
        room: bytes of shared memory, for the pixels of all workers.
        chunk: bytes of it for one chunk.
    """

    scene: Scene
    name: str
    batch: int
    device: str
    threads: int
    memory: int
    room: int
    chunk: int


class Made(NamedTuple):
    """A worker's report of one chunk, whose pixels are in the place `slot` of the shared memory."""

    slot: int
    seconds: float
    patches: int


class Failure(NamedTuple):
    """An error of a worker: its class, its sentence, and the traceback for whoever debugs."""

    kind: type[Exception]
    sentence: str
    trace: str


def devices_of(workers: int, devices: str | Sequence[str] | None, own: torch.device) -> list[torch.device]:
    """The device of each worker process; none if this process does the work.

    Args:
        workers: number of processes. With devices 1 stands for as many as there are.
        devices: names of CUDA devices, or one text with commas between them. A device that is named twice has two
            workers.
        own: the device of the loaded model.
    Raises:
        WorkerError: no number of workers, or another number than that of the devices.
        DeviceError: a device does not exist, is no CUDA device, or computes other last bits than the first one.
    """
    if not 1 <= workers <= MOST:
        raise WorkerError(f"the number of workers must be from 1 to {MOST}, not {workers}")
    if devices is None:
        if workers > 1 and own.type != "cpu":
            raise DeviceError(
                f"{workers} workers divide a CPU, and this model is on {own}. Name a CUDA device for each worker, such "
                "as --devices cuda:0,cuda:1."
            )
        return [own] * workers if workers > 1 else []
    names = devices.split(",") if isinstance(devices, str) else list(devices)
    chosen = [pick_device(name.strip()) for name in names]
    if not chosen or len(chosen) > MOST:
        raise WorkerError(f"the devices must be from 1 to {MOST}, not {len(chosen)}")
    if workers not in (1, len(chosen)):
        raise WorkerError(
            f"{workers} workers do not fit {len(chosen)} devices, because each device has one worker. Leave out the "
            "number of workers."
        )
    for device in (*chosen, own):
        if device.type != "cuda":
            raise DeviceError(
                f"devices of workers are CUDA devices such as cuda:0,cuda:1, not {device}; --workers divides a CPU"
            )
    kinds = {torch.cuda.get_device_name(device): device for device in (*chosen, own)}
    if len(kinds) > 1:
        listed = " and ".join(f"{device} is a {kind}" for kind, device in kinds.items())
        raise DeviceError(f"{listed}, which round last bits differently; take devices of one kind")
    return chosen
