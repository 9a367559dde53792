"""Runs one batch size of an engine: holds its execution context and its captured work."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from zellige.errors import DeviceError

from .graph import Profile, Value
from .messages import plain

__all__ = ["Slot", "fitting_profile"]

logger = logging.getLogger(__name__)


def fitting_profile(profiles: Sequence[Profile], size: int) -> int | None:
    """The number of the profile that fits a batch, and whose usual batch is nearest to it; None if no profile fits."""
    holding = [number for number, (least, _, most) in enumerate(profiles) if least <= size <= most]
    return min(holding, key=lambda number: (abs(profiles[number][1] - size), number), default=None)


class Slot:
    """An execution context whose shape never changes, and its captured work.

    Sizes of one profile could share a context, but each has its own, because captured work depends on its context's
    state and another shape would change that state. The caller gives all contexts the same memory, because only one
    runs at a time.

    Args:
        library: the flavour's module.
        engine: the deserialised engine.
        eager: as in `Flavour`.
        profile: number of the optimisation profile.
        size: size of the batch.
        buffers: arrays [at least size, ...] of all inputs and outputs by name; their addresses must not change.
        values: the inputs.
        scratch: an array that is large enough for any context's memory.
        stream: the stream that everything runs on.
        log: the library's logger, from `kept_log`.
    Raises:
        DeviceError: the engine refuses; the message has its reason.
    """

    def __init__(
        self, library: Any, engine: Any, eager: bool, profile: int, size: int, buffers: Mapping[str, Any],
        values: Sequence[Value], scratch: Any, stream: Any, log: Any,
    ) -> None:  # fmt: skip
        self.size, self._stream, self._log = size, stream, log
        self._graph: Any = None
        self._context = _context(library, engine, eager)
        self._done(self._context is not None, "make an execution context")
        self._context.set_device_memory(scratch.data.ptr, scratch.nbytes)
        self._done(self._context.set_optimization_profile_async(profile, stream.ptr), f"take its profile {profile}")
        for value in values:
            self._done(self._context.set_input_shape(value.name, (size, *value.shape[1:])), f"run a batch of {size}")
        for name, array in buffers.items():
            self._done(self._context.set_tensor_address(name, array.data.ptr), f"bind {name!r}")

    @property
    def captured(self) -> bool:
        """Whether its work is captured."""
        return self._graph is not None

    def run(self) -> None:
        """Enqueue the batch that lies in the buffers."""
        if self._graph is None:
            self._enqueue()
        else:
            self._graph.launch(self._stream)

    def capture(self) -> str:
        """Capture the work; returns the reason if that fails, else an empty text."""
        self._enqueue()  # the first call compiles and allocates, which cannot be captured
        self._stream.synchronize()
        self._stream.begin_capture()
        reason = ""
        try:
            self._enqueue()
        except DeviceError as error:
            reason = str(error)
        try:  # even after a failure, because a stream that is still capturing can do nothing else
            graph = self._stream.end_capture()
        except Exception as error:  # CuPy's errors from the driver and from the runtime have no common class
            reason = reason or str(error)
        if not reason:
            self._graph = graph
        return reason

    def _enqueue(self) -> None:
        self._done(self._context.execute_async_v3(self._stream.ptr), f"run a batch of {self.size}")

    def _done(self, success: bool, what: str) -> None:
        if not success:
            reason = next((text for text in map(plain, reversed(self._log.errors)) if text), "it does not say why")
            raise DeviceError(f"the TensorRT engine cannot {what}: {reason}; build it again on this device")


def _context(library: Any, engine: Any, eager: bool) -> Any:
    managed = library.ExecutionContextAllocationStrategy.USER_MANAGED
    if not eager:
        return engine.create_execution_context(managed)
    config = engine.create_runtime_config()
    config.set_execution_context_allocation_strategy(managed)
    strategies = library.DynamicShapesKernelSpecializationStrategy
    config.dynamic_shapes_kernel_specialization_strategy = strategies.EAGER
    return engine.create_execution_context(config)
