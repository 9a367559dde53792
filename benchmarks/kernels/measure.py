"""Times calls in alternating rounds, with inputs that come from memory and not from a cache."""

import ctypes
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

__all__ = ["Call", "Times", "alternate", "cache_bytes", "keep_freed_memory", "rest", "sets_needed"]

Call = Callable[[], Any]

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_ROUNDS = 7
_MOST_CALLS = 30  # calls in one round
_LONGEST_REST = 0.2  # seconds; every rest takes as long if the system does not tell whether threads run
_LOOK = 0.002
_SLEEP_CYCLES = 2_000_000  # cycles that a GPU sleeps while the launches of one call are queued
_SLEEP = 0.001  # seconds, about, that the sleep takes


@dataclass(frozen=True)
class Times:
    """The times of a runner: median, tenth and ninetieth percentile in seconds, and the number of calls."""

    median: float
    low: float
    high: float
    calls: int


def keep_freed_memory() -> None:
    """Let the C heap keep freed memory, because page faults, the same for all runners, would take most of the time."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            libc = ctypes.CDLL("libc.so.6")
            libc.mallopt(_M_MMAP_MAX, 0)
            libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def cache_bytes(device: torch.device) -> int:
    """Return the size of the last cache in front of the memory; 64 MiB if the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).L2_cache_size
    sizes = []
    for file in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        with suppress(OSError, ValueError):
            sizes.append(int(file.read_text().strip().removesuffix("K")) * 1024)
    return max(sizes, default=64 * 2**20)


def sets_needed(size: int, device: torch.device) -> int:
    """Return how many sets of `size` bytes exceed the cache: they fill five times a GPU's L2, twice a CPU's cache."""
    times = 5 if device.type == "cuda" else 2
    return max(2, -(-times * cache_bytes(device) // max(size, 1)))


def alternate(runners: Mapping[str, Sequence[Call]], device: torch.device, *, budget: float) -> dict[str, Times]:
    """Time runners in turns, so that a disturbance of the machine slows all of them.

    Each call takes the next set of inputs. On a GPU events on the device time a call, and its launches are queued while
    the device sleeps. Results are kept for a whole turn of the sets, so that none is written into a warm L2.

    Args:
        runners: runners by name, with one call for every set of inputs.
        device: the device to run on.
        budget: seconds for each runner, in seven rounds, after calls to warm up; on a GPU they include the sleeps.
    """
    turns = {name: _Turn(calls, device, budget / _ROUNDS) for name, calls in runners.items()}
    for _ in range(_ROUNDS):
        for turn in turns.values():
            turn.take()
    return {name: turn.times() for name, turn in turns.items()}


def rest() -> None:
    """Wait until the last runner's threads sleep: OpenMP's spin 4 to 10 ms after a call, ONNX Runtime's 40 ms."""
    tasks, own = Path("/proc/self/task"), str(threading.get_native_id())
    end = time.perf_counter() + _LONGEST_REST
    while time.perf_counter() < end:
        time.sleep(_LOOK)
        if tasks.exists() and not any(_runs(task) for task in tasks.iterdir() if task.name != own):
            return


def _runs(task: Path) -> bool:
    """Tell whether a thread runs, or would run if a core were free."""
    with suppress(OSError):  # the thread has ended
        return (task / "stat").read_text().rpartition(")")[2].split()[0] == "R"
    return False


class _Turn:
    """One runner's place in the rounds."""

    def __init__(self, calls: Sequence[Call], device: torch.device, budget: float) -> None:
        self._calls, self._device = calls, device
        self._next = 0
        self._kept: deque[Any] = deque(maxlen=len(calls))
        self._seconds: list[float] = []
        self._run(2)
        self._quick = min(self._run(2))
        pause = _SLEEP if device.type == "cuda" else 0.0
        self._count = max(1, min(_MOST_CALLS, round(budget / max(self._quick + pause, 1e-6))))

    def take(self) -> None:
        if self._device.type == "cpu":
            rest()
        if self._quick < 0.01:  # in longer calls the time to wake threads up does not matter
            self._run(1)
        self._seconds += self._run(self._count)

    def times(self) -> Times:
        low, median, high = np.percentile(self._seconds, (10, 50, 90)).tolist()
        return Times(median, low, high, len(self._seconds))

    def _run(self, count: int) -> list[float]:
        return self._on_gpu(count) if self._device.type == "cuda" else [self._on_cpu() for _ in range(count)]

    def _turn(self) -> Call:
        self._next += 1
        return self._calls[self._next % len(self._calls)]

    def _on_cpu(self) -> float:
        call = self._turn()
        before = time.perf_counter()
        call()
        return time.perf_counter() - before

    def _on_gpu(self, count: int) -> list[float]:
        events = []
        for _ in range(count):
            call = self._turn()
            start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda._sleep(_SLEEP_CYCLES)
            start.record()
            self._kept.append(call())
            stop.record()
            events.append((start, stop))
        torch.cuda.synchronize(self._device)
        return [start.elapsed_time(stop) / 1000 for start, stop in events]
