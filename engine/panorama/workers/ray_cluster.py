"""Runs bands as tasks of a Ray cluster, each until it is done: counts tries, and waits for nothing without a limit."""

import heapq
import importlib
import logging
import os
import pickle
import socket
import sys
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import suppress
from itertools import count
from typing import Any

import numpy as np

from zellige.errors import MissingExtraError, WorkerError

from . import AHEAD, Failure
from .band import Band, Order, Report

__all__ = ["Cluster"]

logger = logging.getLogger(__name__)
_TRIES = 4  # of a band whose process or node is lost
_PAUSE = 2.0  # seconds before the second try, then twice as many: what took the memory may be gone by then
_LOOK = 1.0  # seconds between looks at the cluster
_CONNECT = 30.0  # seconds for a cluster to answer
_END = 10.0  # seconds for tasks to end that are asked to, before they are killed
_ALONE = 120.0  # seconds without any node that can run a task
_START = 300.0  # seconds for nodes to start a process, which imports torch


class Cluster:
    """A Ray cluster that runs bands.

    Args:
        address: "host:port" of the cluster's head, or "auto" for the cluster of this machine.
    Attributes:
        slots: tasks that can run at once.
        retried: bands that were done again.
    Raises:
        MissingExtraError: ray is not installed.
        WorkerError: the address is none.
    """

    def __init__(self, address: str) -> None:
        try:
            import ray  # noqa: F401 - imported here so that a missing package shows before anything else
        except ImportError as error:
            raise MissingExtraError("ray", "rendering on a Ray cluster", "ray") from error
        host, _, port = address.rpartition(":")
        if address != "auto" and (not host or "/" in host or not port.isdecimal() or not 0 < int(port) < 2**16):
            raise WorkerError(
                f"{address!r} is no address of a Ray cluster: give host:port of its head, such as 10.0.0.1:6379, or "
                "auto for the cluster of this machine. On one machine --workers needs no cluster."
            )
        self.slots, self.retried = 0, 0
        self._address, self._threads, self._gpu, self._joined = address, 1, False, False
        self._work: Any = None

    def join(self, threads: int, gpu: bool) -> None:
        """Join the cluster within a time limit. Ray alone waits for minutes.

        Args:
            threads: CPUs that a task takes.
            gpu: whether a task takes a CUDA device.
        Raises:
            WorkerError: no cluster answers, or no node can run a task.
        """
        import ray

        if not ray.is_initialized():
            self._connect()
            self._joined = True
        self._threads, self._gpu = threads, gpu
        self.slots = self._slots()
        if not self.slots:
            needed = f"{threads} CPU{'s' if threads > 1 else ''}{' and a GPU' if gpu else ''}"
            raise WorkerError(f"no node of the Ray cluster at {self._address} has {needed} for a task; add such a node")

    def leave(self) -> None:
        """Leave the cluster if this object has joined it, which ends what still runs."""
        if self._joined:
            import ray

            ray.shutdown()
            self._joined = False

    def put(self, order: Order) -> Any:
        """Put an order into the cluster, once for all tasks; returns a reference to it."""
        import ray

        paths = [os.path.abspath(folder) for folder in sys.path]
        return ray.put((paths, np.frombuffer(pickle.dumps(order), np.uint8)))  # an array is read without a copy

    def probe(self, order: Any) -> None:
        """Let every node check that it sees the picture's folder and has the same versions.

        A node that joins later is checked by each of its bands.

        Raises:
            OutputError, WorkerError: a node is not fit.
        """
        import ray
        from ray.exceptions import RayError, RayTaskError
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        places = [NodeAffinitySchedulingStrategy(node, soft=False) for node, _ in self._nodes()]
        replies = [
            self._task(0, gpu=False, scheduling_strategy=place).remote(order, pickle.dumps(Band())) for place in places
        ]
        until = time.monotonic() + _START
        for reply in replies:
            try:
                _report(ray.get(reply, timeout=max(until - time.monotonic(), 0)))
            except RayTaskError as error:
                raise _unfit(error) from error
            except RayError as error:  # it may be lost meanwhile
                logger.warning("a node of the Ray cluster does not answer (%s)", type(error).__name__)

    def run(self, order: Any, bands: Iterator[Band]) -> Generator[tuple[Band, Report], None, None]:
        """Make bands, each until it is done; they come in whichever order they are finished.

        Args:
            order: the reference of what all tasks are told.
            bands: what they make; it is read as far as tasks are given.
        Returns:
            the bands with their reports. Closing the iterator ends the tasks that run.
        Raises:
            WorkerError: a band was lost too often, or no node is left.
            ZelligeError: as of the failure that a task reports.
        """
        import ray
        from ray.exceptions import RayError, RayTaskError

        running = dict[Any, tuple[Band, int]]()  # with the number of tries before
        lost, number = list[tuple[float, int, Band, int]](), count()  # a heap by the time of the next try
        alive = looked = time.monotonic()

        def following(now: float) -> tuple[Band, int] | None:
            if lost and lost[0][0] <= now:
                return heapq.heappop(lost)[2:]
            band = next(bands, None)
            return None if band is None else (band, 0)

        try:
            while True:
                now = time.monotonic()
                if now - looked >= _LOOK:
                    slots, looked = self._slots(), now
                    alive, self.slots = (now, slots) if slots else (alive, self.slots)
                    if now - alive > _ALONE:
                        raise WorkerError(f"no node of the Ray cluster at {self._address} is left to run a task")
                while len(running) < AHEAD * self.slots and (pair := following(now)) is not None:
                    task = self._task(self._threads, gpu=self._gpu and pair[0].level == 0)
                    running[task.remote(order, pickle.dumps(pair[0]))] = pair
                if not running and not lost:
                    return
                if not running:
                    time.sleep(_LOOK)
                    continue
                for done in ray.wait(list(running), timeout=_LOOK)[0]:
                    band, tries = running.pop(done)
                    try:
                        report = _report(ray.get(done, timeout=_CONNECT))
                    except RayTaskError as error:
                        raise _unfit(error) from error
                    except RayError as error:
                        again = self._lose(band, tries + 1, error)
                        heapq.heappush(lost, (again, next(number), band, tries + 1))
                        continue
                    yield band, report
        finally:
            rest = list(running)  # they must not write any more when the folder is removed
            for force in (False, True):
                for reply in rest:
                    with suppress(RayError):
                        ray.cancel(reply, force=force)
                rest = ray.wait(rest, num_returns=len(rest), timeout=_END)[1] if rest else []

    def _lose(self, band: Band, tries: int, error: Exception) -> float:
        """Say that a band is lost; returns the time of its next try, or raises WorkerError if there is none."""
        what = f"shards {band.shards.start} to {band.shards.stop - 1} of level {band.level}"
        why = type(error).__name__
        if tries >= _TRIES:
            raise WorkerError(
                f"{what} were lost {tries} times with their process or node ({why}). If memory ran out there, try a "
                "smaller --memory or fewer CPUs a node; with --resume the same command goes on."
            ) from error
        logger.warning("%s were lost with their process or node (%s) and are done again", what, why)
        self.retried += 1
        return time.monotonic() + _PAUSE * 2.0 ** (tries - 1)

    def _task(self, cpus: int, gpu: bool, **options: Any) -> Any:
        """The remote function. Its tries are counted here, because Ray itself repeats a kill for memory without end."""
        import ray

        if self._work is None:
            ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
            self._work = ray.remote(_work)
        return self._work.options(num_cpus=cpus, num_gpus=int(gpu), max_retries=0, **options)

    def _connect(self) -> None:
        """Join on a thread, because Ray ends neither its attempts nor, when asked, their thread."""
        import ray

        refusal = f"no Ray cluster answers at {self._address}; `ray start --head` starts one and prints its address"
        host, _, port = self._address.rpartition(":")
        failures: list[Exception] = []

        def connect() -> None:
            try:
                if host:
                    socket.create_connection((host, int(port)), _CONNECT).close()
                ray.init(address=self._address, log_to_driver=False, logging_level=logging.ERROR)
            except Exception as error:
                failures.append(error)

        thread = threading.Thread(target=connect, name="zellige-ray", daemon=True)
        thread.start()
        thread.join(_CONNECT)
        if failures and not isinstance(failures[0], OSError):  # such as a cluster of other versions
            raise WorkerError(f"the Ray cluster at {self._address} cannot be joined: {_line(failures[0])}")
        if failures or thread.is_alive():
            raise WorkerError(refusal)

    def _slots(self) -> int:
        return sum(slots for _, slots in self._nodes())

    def _nodes(self) -> list[tuple[str, int]]:
        """The nodes that can run a task, and how many at once."""
        import ray

        found = []
        for node in ray.nodes():
            has = node["Resources"]
            slots = int(has.get("CPU", 0)) // self._threads
            slots = min(slots, int(has.get("GPU", 0))) if self._gpu else slots
            if node["Alive"] and slots:
                found.append((node["NodeID"], slots))
        return found


def _work(order: tuple[list[str], Any], band: bytes) -> bytes:
    """What a node runs; Ray sends the code itself, because Zellige is found when the paths are the driver's.

    Ray has put the driver's current folder before all others, and that may hold anything.
    """
    paths, content = order
    sys.path[:] = [*paths, *(path for path in sys.path if path not in paths)]
    work = importlib.import_module("zellige.engine.panorama.workers.band").work
    return pickle.dumps(work(pickle.loads(content), pickle.loads(band)))


def _report(reply: bytes) -> Report:
    """A task's report, whose records are logged; a failure is raised."""
    news: Report | Failure = pickle.loads(reply)
    if isinstance(news, Failure):
        error = news.kind.__new__(news.kind, news.sentence)
        error.add_note(f"on a node of the Ray cluster:\n{news.trace}")
        raise error
    for name, level, text in news.records:
        logging.getLogger(name).log(level, "%s: %s", news.node, text)
    return news


def _unfit(error: Exception) -> WorkerError:
    return WorkerError(
        f"a node of the Ray cluster cannot run Zellige ({_line(error)}); install the same versions on all nodes, at "
        "the same paths"
    )


def _line(error: Exception) -> str:
    """The last line of an error, which says what it is."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].rstrip(".")
