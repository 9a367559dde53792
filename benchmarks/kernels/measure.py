"""How long a call takes, with inputs that come from memory and not from a cache."""

import ctypes
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

__all__ = ["cache_bytes", "keep_freed_memory", "seconds_of"]

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def keep_freed_memory() -> None:
    """Let the C heap keep what is freed: else page faults, the same for all runners, are most of what is measured."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            libc = ctypes.CDLL("libc.so.6")
            libc.mallopt(_M_MMAP_MAX, 0)
            libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def cache_bytes(device: torch.device) -> int:
    """Size of the last cache in front of the memory; 64 MiB where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).L2_cache_size
    sizes = []
    for file in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        with suppress(OSError, ValueError):
            sizes.append(int(file.read_text().strip().removesuffix("K")) * 1024)
    return max(sizes, default=64 * 2**20)


def seconds_of(
    call: Callable[..., Any], sets: Sequence[tuple[Any, ...]], device: torch.device, *, budget: float = 1.0
) -> float:
    """Median time of one call; each takes the next set of inputs, which together exceed the cache.

    Args:
        call: takes one set.
        sets: of inputs.
        device: CUDA is timed by events on the device.
        budget: seconds to spend, after three calls to warm up.
    """
    for k in range(3):
        call(*sets[k % len(sets)])
    times: list[float] = []
    began, k = time.perf_counter(), 0
    while len(times) < 5 or (time.perf_counter() - began < budget and len(times) < 200):
        inputs = sets[k % len(sets)]
        if device.type == "cuda":
            start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            call(*inputs)
            stop.record()
            torch.cuda.synchronize(device)
            times.append(start.elapsed_time(stop) / 1000)
        else:
            before = time.perf_counter()
            call(*inputs)
            times.append(time.perf_counter() - before)
        k += 1
    return statistics.median(times)
