"""What a Ray task does, on whichever node: it makes the shards of one band, and writes them into the shared folder.

A task can be killed at any moment and done again by another node, because a shard gets its name when it is whole, and
its bytes are the same whoever makes it. The result of a task is small: no pixel goes through Ray.
"""

import io
import logging
import socket
import time
import traceback
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from zellige.errors import OutputError, WorkerError, ZelligeError
from zellige.version import __version__

from ...files.atomic import output_errors
from ..canvas.canvas import Grid, Pixels
from ..canvas.encode import Encoder, Seconds
from ..canvas.zarr_levels import grid_of, halve_shard, open_levels, require_shards, sync_shards
from ..memory import measured_peak
from ..renderer import Renderer
from ..scene import Region
from . import Chunk, Failure, Job

__all__ = ["MARKER", "Band", "Order", "Report", "versions", "work"]

MARKER = ".zellige-nodes"  # a file in the unfinished folder, by which a node knows that it sees the driver's


class Order(NamedTuple):
    """What all tasks of a picture are told, once, through Ray's object store.

    Attributes:
        token: the content of the marker.
        out: the picture, for errors.
        root: its unfinished folder.
        levels: the number of its levels.
        cyclic: whether it closes on itself (vertically, horizontally).
        job: the plan.
        model: the generator, as torch saves it, uint8 [bytes].
        versions: of the driver.
        card: the name of the driver's CUDA device; empty on a CPU.
    """

    token: str
    out: Path
    root: Path
    levels: int
    cyclic: tuple[bool, bool]
    job: Job
    model: NDArray[np.uint8]
    versions: dict[str, str]
    card: str


class Band(NamedTuple):
    """Neighbouring shards of one level, which one task makes.

    Attributes:
        level: 0 is rendered; a further level is made from the one above.
        shards: their numbers, in row-major order; none if the task only looks at its node.
        chunks: on level 0 the chunks whose tiles these shards are.
    """

    level: int = 0
    shards: range = range(0)
    chunks: tuple[Chunk, ...] = ()


class Report(NamedTuple):
    """What a task did: its node, seconds in all and of their parts, patches, bytes of growth, and what it logged."""

    node: str
    seconds: float = 0.0
    generate: float = 0.0
    encode: float = 0.0
    write: float = 0.0
    patches: int = 0
    peak: int = 0
    records: tuple[tuple[str, int, str], ...] = ()


_ready: dict[str, Renderer] = {}  # of the picture that this process makes, by its token


def versions() -> dict[str, str]:
    """The packages whose versions decide the bytes of a picture."""
    import zarr

    return {
        "zellige": __version__, "torch": torch.__version__.partition("+")[0], "zarr": zarr.__version__,
        "numpy": np.__version__,
    }  # fmt: skip


def work(order: Order, band: Band) -> Report | Failure:
    """Make a band.

    Returns:
        the report, or the failure if the band would fail on every node.
    """
    node = _node()
    try:
        _check(order, node)
        if not band.shards:
            return Report(node)
        began = time.perf_counter()
        with _recorded() as records, output_errors(order.out):
            found = _rendered(order, band, node) if band.level == 0 else _halved(order, band, node)
        return found._replace(seconds=time.perf_counter() - began, records=tuple(records))
    except Exception as error:
        if isinstance(error, ZelligeError):
            return Failure(type(error), str(error), traceback.format_exc())
        return Failure(WorkerError, f"{node} failed with {type(error).__name__}: {error}", traceback.format_exc())


def _check(order: Order, node: str) -> None:
    """Refuse a node that has not the driver's folder, or computes other bytes."""
    try:
        seen = (order.root / MARKER).read_text()
    except OSError:
        seen = ""
    if seen != order.token:
        raise OutputError(
            f"{node} does not see {order.root.parent} as the command does; every node writes its own shards, so choose "
            "a path in a folder that all nodes share."
        )
    others = {name: version for name, version in versions().items() if version != order.versions.get(name)}
    if others:
        name, version = next(iter(others.items()))
        raise WorkerError(
            f"{node} has {name} {version}, not {order.versions.get(name)} as the command, and may make other bytes; "
            "install the same versions on all nodes."
        )


def _rendered(order: Order, band: Band, node: str) -> Report:
    job, seconds = order.job, Seconds()
    level = open_levels(order.root, 1, seconds)[0]
    grid = grid_of(level)
    renderer = _renderer(order, node)
    area, patches, generate, index = job.scene.block[0] * job.scene.block[1], 0, 0.0, band.shards.start

    def write(tile: Pixels, place: Region) -> None:
        pixels = np.moveaxis(tile[: place.height, : place.width], 2, 0)
        level[:, place.top : place.top + place.height, place.left : place.left + place.width] = pixels

    encoder: Encoder[None] = Encoder(order.out, grid.tile, write, lambda results: deque(results, 0).clear(), seconds)
    try:
        with measured_peak(renderer.maker.device, job.memory) as peak:
            for region, tiles, _ in band.chunks:
                _check(
                    order, node
                )  # again, because a driver that was killed may have left this folder to another picture
                began = time.perf_counter()
                pixels = renderer.region(job.scene, region).cpu().numpy()
                generate += time.perf_counter() - began
                patches += len(job.scene.work(region)) * area
                for left, width in tiles:
                    encoder.put(pixels[:, left : left + width], *grid.origin(index))
                    index += 1
                del pixels
            encoder.finish()
    finally:
        encoder.abandon()
    began = time.perf_counter()
    sync_shards(order.root, 0, band.shards, grid.columns)
    seconds.add(write=time.perf_counter() - began)
    return Report(node, 0.0, generate, seconds.encode, seconds.write, patches, peak.bytes)


def _halved(order: Order, band: Band, node: str) -> Report:
    torch.set_num_threads(order.job.threads)
    began, seconds = time.perf_counter(), Seconds()
    above, level = open_levels(order.root, order.levels, seconds)[band.level - 1 : band.level + 1]
    upper, grid = grid_of(above), grid_of(level)
    for index in band.shards:
        require_shards(order.root, band.level - 1, _above(index, grid, upper), upper.columns)
        halve_shard(above, level, index, order.cyclic)
    sync_shards(order.root, band.level, band.shards, grid.columns)
    return Report(node, encode=time.perf_counter() - began - seconds.write, write=seconds.write)


def _above(index: int, grid: Grid, upper: Grid) -> Iterator[int]:
    """The numbers of the up to four shards of the level above whose pixels a shard halves."""
    row, column = 2 * (index // grid.columns), 2 * (index % grid.columns)
    for down in range(row, min(row + 2, upper.tiles // upper.columns)):
        for across in range(column, min(column + 2, upper.columns)):
            yield down * upper.columns + across


def _renderer(order: Order, node: str) -> Renderer:
    """The renderer of the picture, which this process keeps for its next band."""
    job = order.job
    torch.set_num_threads(job.threads)
    if order.token not in _ready:
        device = torch.device(job.device)
        card = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
        if card != order.card:
            raise WorkerError(f"{node} has a {card} and the command a {order.card}, which round last bits differently.")
        maker = torch.load(io.BytesIO(order.model.tobytes()), map_location=device, weights_only=False)
        area = job.scene.block[0] * job.scene.block[1]
        renderer = Renderer(maker, job.batch * area, job.name, job.memory, reuse=True)
        if maker.graph:
            renderer.run, _ = maker.prepared(job.scene.block, job.scene.cells, job.batch, None)
        # Libraries load more of themselves in the first call, as they did in the driver before it measured memory.
        renderer.region(job.scene, Region(0, 0, 1, 1))
        _ready.clear()
        _ready[order.token] = renderer
    return _ready[order.token]


def _node() -> str:
    """A name for the node of this process, for people."""
    import ray

    own = f", Ray's node {ray.get_runtime_context().get_node_id()[:8]}" if ray.is_initialized() else ""
    return f"{socket.gethostname()}{own}"


@contextmanager
def _recorded() -> Iterator[list[tuple[str, int, str]]]:
    """Collect what is logged, for the driver, whose handlers print it."""
    found: list[tuple[str, int, str]] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: found.append((record.name, record.levelno, record.getMessage()))  # type: ignore[method-assign]
    logging.getLogger("zellige").addHandler(handler)
    try:
        yield found
    finally:
        logging.getLogger("zellige").removeHandler(handler)
