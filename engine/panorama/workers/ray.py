"""Renders one picture on the nodes of a Ray cluster, which write bands of shards into one Zarr.

A band is neighbouring shards: a whole row of them, or a part of a row if there are few rows for the cluster. The task
that makes a shard writes it, into the unfinished folder, which all nodes share. Smaller levels are made the same way
when the level above is there. The driver counts shards in row-major order, hence its journal is that of one process,
and a picture can be resumed with Ray or without.

Nodes get the driver's generator with its choice of rewrites, and the driver's plan, so the bytes are those of one
process that has as many threads as a task.
"""

import io
import math
import secrets
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch

from zellige.errors import OutputError

from ..canvas.canvas import Canvas
from ..canvas.zarr import ZarrCanvas
from ..patches import PatchMaker
from ..scene import Scene
from . import Chunk, Job, Tally
from .band import MARKER, Band, Order, Report, versions
from .ray_cluster import Cluster

__all__ = ["Nodes"]

_BANDS = 4  # at least for each task that can run at once, because all wait for the last one


class Nodes:
    """The nodes of a Ray cluster, which make one picture.

    It is a context manager that leaves the cluster. It joins when nothing can be refused any more. A program that has
    joined a cluster itself stays in it, and its cluster is taken.

    Args:
        address: "host:port" of the cluster's head, or "auto" for the cluster of this machine.
    Attributes:
        seconds_start: time in which the cluster was joined.
    Raises:
        MissingExtraError: ray is not installed.
        WorkerError: the address is none.
    """

    def __init__(self, address: str) -> None:
        self.seconds_start = 0.0
        self._cluster = Cluster(address)
        self._done: Counter[str] = Counter()
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._job: Job | None = None
        self._maker: PatchMaker | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cluster.leave()

    def check(self, path: Path, canvas: Canvas) -> None:
        """Refuse a picture that many machines cannot write.

        Raises:
            OutputError: the file has one writer.
        """
        if not isinstance(canvas, ZarrCanvas):
            raise OutputError(
                f"{path} would have one writer, and the nodes of a Ray cluster write at once; name it .zarr."
            )

    def begin(self, maker: PatchMaker, scene: Scene, name: str, *, batch: int, threads: int, budget: int) -> None:
        """Join the cluster with a picture.

        Args:
            maker: the generator; each task gets a copy on its device.
            scene: the picture.
            name: the model's name, for errors.
            batch: blocks in a batch.
            threads: threads of torch in each task, which takes as many CPUs of its node.
            budget: bytes for each task.
        Raises:
            WorkerError: no cluster answers, or no node can run a task.
        """
        began = time.perf_counter()
        device = "cuda:0" if maker.device.type == "cuda" else "cpu"  # Ray shows a task the one device that it has
        self._job, self._maker = Job(scene, name, batch, device, threads, budget, 0, 0), maker
        self._cluster.join(threads, gpu=device != "cpu")
        self.seconds_start = time.perf_counter() - began

    def write(
        self, canvas: Canvas, todo: Iterable[Chunk], tiles: int, tally: Tally, advance: Callable[[int, int], None]
    ) -> None:
        """Let the nodes write all that is left of a picture.

        Args:
            canvas: an entered canvas that `check` has passed. When it is left, the nodes make its smaller levels too.
            todo: the chunks that are left.
            tiles: the most tiles of a chunk.
            tally: what the tasks did is added here.
            advance: called with (pixels done, pixels in all), in whichever order the bands come.
        Raises:
            WorkerError: a band was lost too often, or no node is left.
            OutputError: a node does not see the canvas's folder, or cannot write there.
            ZelligeError: as of `Renderer.region`.
        """
        assert isinstance(canvas, ZarrCanvas) and self._job is not None, "check() and begin() come first"
        cluster, grid, orders = self._cluster, canvas.grid, list[Any]()

        def halve(level: int, shards: int) -> bool:
            if shards < cluster.slots:
                return False  # the driver's threads are done before tasks would begin
            size = max(1, shards // (_BANDS * cluster.slots))
            bands = (Band(level, range(k, min(k + size, shards))) for k in range(0, shards, size))
            for _ in self._made(orders[0], bands, canvas):
                pass
            return True

        order = self._order(canvas, canvas.hand_over(halve))
        orders.append(cluster.put(order))
        cluster.probe(orders[0])
        row = math.ceil(grid.columns / tiles)
        size = max(1, min(row, math.ceil(grid.tiles / tiles) // (_BANDS * cluster.slots)))
        pixels, first, finished = canvas.resumed_pixels, canvas.done, dict[int, range]()
        for band, report in self._made(orders[0], _bands(todo, size, first), canvas):
            tally.seconds, tally.patches = tally.seconds + report.generate, tally.patches + report.patches
            tally.peak = max(tally.peak, report.peak)
            finished[band.shards.start] = band.shards
            while first in finished:
                shards = finished.pop(first)
                canvas.adopt(len(shards))
                first = shards.stop
            pixels += grid.pixels(band.shards.stop) - grid.pixels(band.shards.start)
            advance(pixels, grid.height * grid.width)

    def report(self) -> dict[str, Any]:
        """For the report of a render: nodes with their bands and seconds, the bands of all, and those done again."""
        nodes = [
            {"node": node, "bands": self._done[node], "seconds": self._seconds[node]} for node in sorted(self._done)
        ]
        return {
            "workers": self._cluster.slots, "nodes": nodes, "bands": self._done.total(),
            "bands_retried": self._cluster.retried, "seconds_start": self.seconds_start,
        }  # fmt: skip

    def _made(self, order: Any, bands: Iterator[Band], canvas: ZarrCanvas) -> Iterator[tuple[Band, Report]]:
        """Make bands, and add to the report what they took; the canvas's seconds get those of all tasks."""
        with closing(self._cluster.run(order, bands)) as found:
            for band, report in found:
                self._done[report.node] += 1
                self._seconds[report.node] += report.seconds
                canvas.seconds.add(encode=report.encode, write=report.write)
                yield band, report

    def _order(self, canvas: ZarrCanvas, root: Path) -> Order:
        """What all tasks are told, when the marker is in the unfinished folder."""
        assert self._job is not None and self._maker is not None
        token, content = secrets.token_hex(16), io.BytesIO()
        (root / MARKER).write_text(token)
        torch.save(self._maker, content)
        device = self._maker.device
        card = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
        model = np.frombuffer(content.getvalue(), np.uint8)
        return Order(token, canvas.path, root, canvas.levels, canvas.cyclic, self._job, model, versions(), card)


def _bands(todo: Iterable[Chunk], size: int, first: int) -> Iterator[Band]:
    """Chunks of a row of tiles, up to `size` together, as bands; `first` is the number of their first tile."""
    for _, row in groupby(todo, key=lambda chunk: chunk.region.top):
        for _, group in groupby(enumerate(row), key=lambda pair: pair[0] // size):
            chunks = tuple(chunk for _, chunk in group)
            stop = first + sum(len(chunk.tiles) for chunk in chunks)
            yield Band(0, range(first, stop), chunks)
            first = stop
