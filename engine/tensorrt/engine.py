"""Runs a TensorRT engine on arrays of numpy or CuPy; CuPy does the work with CUDA. Untested on a GPU."""

import logging
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from zellige.errors import BudgetError, CheckpointError, DeviceError, MissingExtraError, ShapeError, SizeError

from .driver import devices
from .flavours import Flavour, flavour_of_file
from .graph import DTYPES, Profile, Value
from .messages import kept_log, plain
from .slots import Slot, fitting_profile

__all__ = ["Engine", "cupy_for", "has_device"]

logger = logging.getLogger(__name__)
_PURPOSE = "running TensorRT engines"


class Engine:
    """An engine, ready for batches. Untested on a GPU.

    Batches have few sizes, the buckets. The work of each is captured once, in `warm` or when it is first needed. A
    smaller batch is padded with its last row. Inputs, outputs and the contexts' memory are allocated once, for the
    largest bucket. An engine runs one batch at a time; other threads wait.

    Args:
        content: the bytes of a file that `build_engine` made.
        buckets: sizes of batches. Sizes that fit no profile of the engine are left out; if none fits, the usual batches
            of the profiles are taken.
        device: number of the CUDA device.
        memory: most bytes of inputs, outputs, results and contexts; None for no limit. Weights are not included,
            because TensorRT allocates them itself.
    Attributes:
        library: the library that runs it, with its version.
        inputs, outputs: names, dtypes and shapes, in the engine's order.
        profiles: least, usual and largest batch of each profile.
        buckets: the sizes that are run, ascending.
        graphs: the buckets that are captured, in the order of their capture.
        eager: the reason why batches run without capture; empty if they are captured.
    Raises:
        DeviceError: there is no such device.
        MissingExtraError: CuPy or the engine's TensorRT is not installed.
        CheckpointError: the content is no engine, or an engine for another device or version.
        SizeError: a bucket is below 1.
        BudgetError: the memory does not suffice.
    """

    def __init__(self, content: bytes, buckets: Sequence[int], *, device: int = 0, memory: int | None = None) -> None:
        name = has_device(device)
        flavour = flavour_of_file(content)
        if flavour is None:
            raise CheckpointError("this is no TensorRT engine; build one with: zellige export MODEL --to tensorrt")
        self._cupy = cupy_for(flavour)
        self._library, self._eager = flavour.library(_PURPOSE), flavour.eager
        self.library = f"{flavour.title} {self._library.__version__}"
        self._log, self._turn = kept_log(self._library), threading.Lock()
        self._device, self._memory = self._cupy.cuda.Device(device), memory
        with self._device:
            # The runtime is kept, because it must outlive the engine that it made.
            self._runtime = self._library.Runtime(self._log)
            self._engine = self._runtime.deserialize_cuda_engine(content)
            if self._engine is None:
                reason = next((text for text in map(plain, self._log.errors) if text), "it does not say why")
                raise CheckpointError(
                    f"{self.library} cannot load this engine on {name}: {reason}; build "
                    "it with this version, for this device"
                )
            self._stream = self._cupy.cuda.Stream(non_blocking=True)
            self._pool = self._cupy.cuda.MemoryPool()
            self._pool.set_limit(size=memory or 0)
        self.inputs, self.outputs = self._values()
        self.profiles = tuple(self._profile(number) for number in range(self._engine.num_optimization_profiles))
        self.buckets = self._chosen(buckets)
        self.graphs: list[int] = []
        self.eager = ""
        self._slots: dict[int, Slot] = {}
        self._buffers: dict[str, Any] = {}
        self._scratch: Any = None

    def run(self, inputs: Mapping[str, Any], *, host: bool = True) -> dict[str, Any]:
        """Run every row, in batches.

        Args:
            inputs: arrays [N, ...] of numpy or CuPy by name, in the dtypes of the attribute `inputs`.
            host: return numpy arrays; False returns CuPy arrays, which are ready in the order of CuPy's current stream.
        Returns:
            arrays [N, ...] by name, which later runs do not overwrite.
        Raises:
            ShapeError: the engine does not take these inputs.
            DeviceError: the engine fails; the message has its reason.
            BudgetError: the memory does not suffice.
        """
        count = self.check(inputs)
        with self._turn, self._device, self._within_memory():
            current = self._cupy.cuda.get_current_stream()
            self._stream.wait_event(current.record())
            with self._stream:
                empty = np.empty if host else self._cupy.empty
                results = {
                    value.name: empty((count, *value.shape[1:]), np.dtype(value.dtype)) for value in self.outputs
                }
                for start in range(0, count, self.buckets[-1]):
                    self._batch(inputs, results, start, min(self.buckets[-1], count - start), host)
            current.wait_event(self._stream.record())
        return results

    def warm(self, sizes: Iterable[int]) -> None:
        """Do now the work of the first batches of these sizes: allocate, compile, and capture.

        Args:
            sizes: sizes of batches; one above the largest bucket stands for that bucket and the one of its rest.
        """
        with self._turn, self._device, self._within_memory(), self._stream:
            largest = self.buckets[-1]
            parts = {part for size in sizes for part in (min(size, largest), size % largest) if part}
            for bucket in sorted({self._bucket(part) for part in parts}, reverse=True):
                self._slot(bucket)

    def _batch(self, inputs: Mapping[str, Any], results: Mapping[str, Any], start: int, count: int, host: bool) -> None:
        slot = self._slot(self._bucket(count))
        for value in self.inputs:
            buffer, rows = self._buffers[value.name], inputs[value.name][start : start + count]
            if isinstance(rows, np.ndarray):
                buffer[:count].set(np.ascontiguousarray(rows), stream=self._stream)
            else:
                buffer[:count] = rows
            if slot.size > count:  # old rows of the buffer could be classes that the network does not have
                buffer[count : slot.size] = buffer[count - 1 : count]
        slot.run()
        for name, result in results.items():
            made = self._buffers[name][:count]
            if host:
                made.get(stream=self._stream, out=result[start : start + count])
            else:
                result[start : start + count] = made

    def _bucket(self, count: int) -> int:
        return next(size for size in self.buckets if size >= count)

    def _slot(self, size: int) -> Slot:
        if size not in self._slots:
            self._allocate()
            profile = fitting_profile(self.profiles, size)
            assert profile is not None, "buckets that no profile holds were left out"
            slot = Slot(
                self._library, self._engine, self._eager, profile, size, self._buffers, self.inputs, self._scratch,
                self._stream, self._log,
            )  # fmt: skip
            if not self.eager:
                self.eager = slot.capture()
                if self.eager:
                    logger.warning("the engine is run without CUDA graphs, which takes longer: %s", self.eager)
                else:
                    self.graphs.append(size)
            self._slots[size] = slot
        return self._slots[size]

    def _allocate(self) -> None:
        """Allocate everything at once for the largest bucket, so that no later batch can run out of memory."""
        if self._buffers:
            return
        # As much as any profile needs, and at least one byte, because address 0 would mean that no memory was given.
        scratch = self._cupy.empty(max(1, self._engine.device_memory_size_v2), np.uint8)
        self._buffers = {
            value.name: self._cupy.zeros((self.buckets[-1], *value.shape[1:]), np.dtype(value.dtype))
            for value in (*self.inputs, *self.outputs)
        }
        self._scratch = scratch

    @contextmanager
    def _within_memory(self) -> Iterator[None]:
        try:
            with self._cupy.cuda.using_allocator(self._pool.malloc):
                yield
        except self._cupy.cuda.memory.OutOfMemoryError as error:
            limit = "the device has" if self._memory is None else f"the limit of {self._memory} bytes"
            raise BudgetError(
                f"batches of {self.buckets[-1]} images need more memory than {limit}; give more, or smaller buckets"
            ) from error

    def check(self, inputs: Mapping[str, Any]) -> int:
        """Check that `run` takes these inputs, and return their number of rows.

        Raises:
            ShapeError: the engine does not take them.
        """
        names = [value.name for value in self.inputs]
        if set(inputs) != set(names):
            raise ShapeError(f"the engine takes the inputs {', '.join(names)}; got {', '.join(inputs) or 'none'}")
        counts = {len(rows) if rows.ndim else None for rows in inputs.values()}
        for value in self.inputs:
            rows = inputs[value.name]
            if rows.dtype != value.dtype or tuple(rows.shape[1:]) != value.shape[1:] or rows.ndim != len(value.shape):
                shape = f"[{', '.join(map(str, ('N', *value.shape[1:])))}]"
                raise ShapeError(
                    f"the input {value.name!r} must be {value.dtype} {shape}; got {rows.dtype} {list(rows.shape)}"
                )
        if len(counts) != 1:
            shapes = ", ".join(f"{name} {list(rows.shape)}" for name, rows in inputs.items())
            raise ShapeError(f"all inputs must have the same number of rows; got {shapes}")
        return int(counts.pop() or 0)

    def _values(self) -> tuple[tuple[Value, ...], tuple[Value, ...]]:
        found: dict[bool, list[Value]] = {True: [], False: []}
        for number in range(self._engine.num_io_tensors):
            name = self._engine.get_tensor_name(number)
            dtype = DTYPES.get(self._engine.get_tensor_dtype(name).name, "unknown")
            shape = tuple(self._engine.get_tensor_shape(name))
            if dtype in ("bfloat16", "unknown") or not shape or min(shape[1:], default=1) < 1:
                raise CheckpointError(
                    f"this engine has {name!r} as {dtype} {list(shape)}; all must be [N, ...] of one dtype of numpy, N "
                    "alone of any size: export the model with such inputs and outputs"
                )
            is_input = self._engine.get_tensor_mode(name) == self._library.TensorIOMode.INPUT
            found[is_input].append(Value(name, dtype, shape))
        return tuple(found[True]), tuple(found[False])

    def _profile(self, number: int) -> Profile:
        """The least, usual and largest batch that every input takes in a profile."""
        ranges = [
            [shape[0] for shape in self._engine.get_tensor_profile_shape(value.name, number)] for value in self.inputs
        ]
        leasts, usual, most = zip(*ranges, strict=True)
        return max(leasts), usual[0], min(most)

    def _chosen(self, buckets: Sequence[int]) -> tuple[int, ...]:
        if not buckets or min(buckets) < 1:
            raise SizeError(f"batches of {list(buckets)} images cannot be run; give one size or more, each 1 or more")
        held = {size for size in buckets if fitting_profile(self.profiles, size) is not None}
        return tuple(sorted(held or {usual for _, usual, _ in self.profiles}))


def has_device(number: int = 0) -> str:
    """The name of a CUDA device.

    Raises:
        DeviceError: there is no device of this number.
    """
    found = devices()
    if not found:
        raise DeviceError(
            "TensorRT engines run on CUDA devices, and there is none here; use the runtime 'torch' or 'onnx'"
        )
    if not 0 <= number < len(found):
        raise DeviceError(f"there is no CUDA device {number}; the last one here is {len(found) - 1}")
    return found[number].name


def cupy_for(flavour: Flavour) -> Any:
    """The module cupy.

    Raises:
        MissingExtraError: CuPy is not installed; the message names the flavour's extra.
    """
    try:
        import cupy
    except ImportError as error:
        raise MissingExtraError("cupy", _PURPOSE, flavour.extra) from error
    return cupy
