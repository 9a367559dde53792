"""A CUDA driver and CuPy on a CPU, as far as an engine asks for them.

Memory is numpy's, at true addresses; a graph repeats what was enqueued while it was captured. Everything is over when
it was begun, so what is not seen here is the order of work on several streams.
"""

import ctypes
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from zellige.engine.tensorrt import driver


class Driver:
    """libcuda with devices of these names and capabilities."""

    def __init__(self, *found: tuple[str, int, int]) -> None:
        self.found = found

    def cuInit(self, flags: int) -> int:
        return 0

    def cuDeviceGetCount(self, count: Any) -> int:
        count._obj.value = len(self.found)
        return 0

    def cuDeviceGet(self, handle: Any, number: int) -> int:
        handle._obj.value = number
        return 0

    def cuDeviceGetName(self, name: Any, length: int, handle: Any) -> int:
        name.value = self.found[handle.value][0].encode()
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, handle: Any) -> int:
        value._obj.value = self.found[handle.value][attribute - 74]
        return 0


class Array(np.ndarray[Any, Any]):
    """CuPy's array."""

    @property
    def data(self) -> Any:  # type: ignore[override]
        return SimpleNamespace(ptr=self.ctypes.data)

    def set(self, values: Any, stream: Any = None) -> None:
        self[...] = values

    def get(self, stream: Any = None, out: Any = None) -> Any:
        if out is None:
            return np.array(self)
        out[...] = self
        return out


class OutOfMemoryError(Exception):
    pass


class MemoryPool:
    def __init__(self) -> None:
        self.limit, self.used = 0, 0

    def set_limit(self, size: int) -> None:
        self.limit = size

    def malloc(self, size: int) -> None:
        if self.limit and self.used + size > self.limit:
            raise OutOfMemoryError
        self.used += size

    def freed(self, size: int) -> None:
        self.used -= size


class Cuda:
    """What CUDA has done so far: streams, and the one that is being captured with what was enqueued on it."""

    def __init__(self) -> None:
        self.waited: list[tuple[str, str]] = []
        self.capturing: list[Callable[[], None]] | None = None
        self.launches = 0
        self.pools: list[MemoryPool] = []
        self.current = Stream(self, "caller")

    def enqueue(self, work: Callable[[], None]) -> None:
        work() if self.capturing is None else self.capturing.append(work)


class Stream:
    def __init__(self, cuda: Cuda, name: str = "engine") -> None:
        self.cuda, self.name, self.ptr = cuda, name, id(self)

    def record(self) -> str:
        return self.name

    def wait_event(self, event: str) -> None:
        self.cuda.waited.append((self.name, event))

    def synchronize(self) -> None:
        pass

    def begin_capture(self) -> None:
        self.cuda.capturing = []

    def end_capture(self) -> Any:
        works, self.cuda.capturing = self.cuda.capturing or [], None

        def launch(stream: Stream) -> None:
            self.cuda.launches += 1
            for work in works:
                work()

        return SimpleNamespace(launch=launch)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        pass


def cupy(cuda: Cuda) -> Any:
    """The module."""
    allocator: list[MemoryPool] = []

    def pool() -> MemoryPool:
        cuda.pools.append(MemoryPool())
        return cuda.pools[-1]

    @contextmanager
    def using_allocator(malloc: Any) -> Iterator[None]:
        allocator.append(malloc.__self__)
        yield
        allocator.pop()

    def empty(shape: Any, dtype: Any) -> Array:
        # Not zeros: what was never written must not look as if it had been.
        array = np.full(shape, 77, dtype).view(Array)
        allocator[-1].malloc(array.nbytes)
        weakref.finalize(array, allocator[-1].freed, array.nbytes)
        return array

    def zeros(shape: Any, dtype: Any) -> Array:
        array = empty(shape, dtype)
        array[...] = 0
        return array

    return SimpleNamespace(
        empty=empty, zeros=zeros,
        cuda=SimpleNamespace(
            Device=lambda number: nullcontext(), Stream=lambda non_blocking: Stream(cuda), MemoryPool=pool,
            get_current_stream=lambda: cuda.current, using_allocator=using_allocator,
            ExternalStream=lambda address: Stream(cuda, "torch"),
            memory=SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
        ),
    )  # fmt: skip


def devices(monkeypatch: pytest.MonkeyPatch, *found: tuple[str, int, int]) -> None:
    """Let the driver have these devices, and no others."""
    real = ctypes.CDLL

    def opened(name: Any, *rest: Any, **named: Any) -> Any:
        return Driver(*found) if name == driver._LIBRARY else real(name, *rest, **named)

    monkeypatch.setattr(ctypes, "CDLL", opened)
