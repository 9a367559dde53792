"""TensorRT on a CPU, as far as an engine asks for it: one network, and what a context must be told first."""

import ctypes
import json
import sys
from enum import Enum
from math import prod
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from .stand_in_cuda import Cuda, cupy, devices

VALUES = {"c": ("INT64", ()), "x": ("FLOAT", (3,)), "y": ("FLOAT", (3,))}
KINDS = {"INT64": np.int64, "FLOAT": np.float32, "DOUBLE": np.float64}
SCRATCH = 512


def engine_file(
    *profiles: tuple[int, int, int], begins: bytes = b"vtrt", **values: tuple[str, tuple[int, ...]]
) -> bytes:
    """An engine that makes y = (c + 1) x of classes c [N] and rows x [N, 3]; x and y of other sides if asked for."""
    return begins + json.dumps({"profiles": profiles, "values": VALUES | values}).encode()


class Context:
    def __init__(self, engine: "EngineOfTensorRT") -> None:
        self.engine, self.profile, self.enqueued = engine, -1, False
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.scratch = 0

    def set_device_memory(self, address: int, size: int) -> None:
        self.scratch = size if address else 0

    def set_optimization_profile_async(self, number: int, stream: int) -> bool:
        self.profile = number
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert not self.enqueued, "another shape would change what a graph was captured of"
        least, _, most = self.engine.profiles[self.profile]
        self.shapes[name] = shape
        return least <= shape[0] <= most

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return name in self.engine.values

    def execute_async_v3(self, stream: int) -> bool:
        if self.engine.cuda.capturing is not None and (not self.enqueued or self.engine.uncapturable):
            self.engine.log.log(Severity.ERROR, "operation not permitted when stream is capturing")
            return False
        self.enqueued = True
        batch = {shape[0] for shape in self.shapes.values()}
        assert len(batch) == 1 and self.scratch >= SCRATCH and self.addresses.keys() == self.engine.values.keys()

        def work() -> None:
            c, x, y = (self._view(name, *batch) for name in self.engine.values)
            self.engine.batches.append((self.profile, len(x), c.tolist()))
            y[...] = (c[:, None] + 1) * x

        self.engine.cuda.enqueue(work)
        return True

    def _view(self, name: str, batch: int) -> Any:
        kind, shape = self.engine.values[name]
        dtype = np.dtype(KINDS[kind])
        memory = (ctypes.c_byte * (batch * prod(shape) * dtype.itemsize)).from_address(self.addresses[name])
        return np.frombuffer(memory, dtype).reshape(batch, *shape)


class Severity(Enum):
    INTERNAL_ERROR, ERROR, WARNING = range(3)


class Mode(Enum):
    INPUT, OUTPUT = range(2)


class EngineOfTensorRT:
    """A deserialised engine; remembers its contexts' settings, and each batch's profile, size and classes."""

    def __init__(self, content: bytes, cuda: Cuda, log: Any) -> None:
        described = json.loads(content[4:])
        self.cuda, self.log, self.uncapturable = cuda, log, False
        self.profiles: list[list[int]] = described["profiles"]
        self.values: dict[str, tuple[str, tuple[int, ...]]] = described["values"]
        self.batches: list[tuple[int, int, list[int]]] = []
        self.settings: list[Any] = []
        self.device_memory_size_v2 = SCRATCH
        self.num_io_tensors, self.num_optimization_profiles = len(self.values), len(self.profiles)

    def get_tensor_name(self, number: int) -> str:
        return list(self.values)[number]

    def get_tensor_mode(self, name: str) -> Mode:
        return Mode.OUTPUT if name == "y" else Mode.INPUT

    def get_tensor_dtype(self, name: str) -> Any:
        return SimpleNamespace(name=self.values[name][0])

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (-1, *self.values[name][1])

    def get_tensor_profile_shape(self, name: str, number: int) -> list[tuple[int, ...]]:
        return [(batch, *self.values[name][1]) for batch in self.profiles[number]]

    def create_runtime_config(self) -> Any:
        config = SimpleNamespace()
        config.set_execution_context_allocation_strategy = lambda strategy: setattr(config, "strategy", strategy)
        return config

    def create_execution_context(self, settings: Any) -> Context:
        self.settings.append(settings)
        return Context(self)


class Machine:
    """A machine with CuPy, TensorRT and a device; `engines` are those that were loaded on it."""

    def __init__(self) -> None:
        self.cuda = Cuda()
        self.engines: list[EngineOfTensorRT] = []
        self.cupy = cupy(self.cuda)

    def library(self) -> Any:
        machine = self

        class ILogger:
            def __init__(self) -> None:
                pass

        ILogger.Severity = Severity  # type: ignore[attr-defined]

        class Runtime:
            def __init__(self, log: Any) -> None:
                self.log = log

            def deserialize_cuda_engine(self, content: bytes) -> Any:
                if not content.endswith(b"}}"):
                    self.log.log(Severity.ERROR, "IRuntime: Error Code 1: Serialization (Version tag does not match. )")
                    return None
                machine.engines.append(EngineOfTensorRT(content, machine.cuda, self.log))
                return machine.engines[-1]

        return SimpleNamespace(
            __version__="0.0", ILogger=ILogger, Runtime=Runtime, TensorIOMode=Mode,
            ExecutionContextAllocationStrategy=SimpleNamespace(USER_MANAGED="managed"),
            DynamicShapesKernelSpecializationStrategy=SimpleNamespace(EAGER="eager"),
        )  # fmt: skip


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """One device of sm_86, and both flavours."""
    made = Machine()
    devices(monkeypatch, ("A card", 8, 6))
    monkeypatch.setitem(sys.modules, "cupy", made.cupy)
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, made.library())
    return made
