"""Runs an engine's file with TensorRT, or an ONNX model from which it builds an engine. Untested on a GPU."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from zellige.errors import CheckpointError, ShapeError

from ..tensorrt.opened import open_engine
from .buckets import BUCKETS, Usage, checked_buckets, cover
from .copying import file_to_reopen
from .rows import Rows, as_rows

__all__ = ["TensorRtRuntime"]


class TensorRtRuntime:
    """An engine with one output. Untested on a GPU.

    Batches have the buckets' sizes, and the work of each size is captured. The precision is that of the file. If the
    model is an ONNX model, opening the runtime builds an engine for this device and keeps it in the cache folder.

    Args:
        model: the path or the bytes of an engine or of an ONNX model, whose inputs and output are [N, ...].
        device: a CUDA device.
        buckets: sizes of batches; sizes that the engine does not hold are left out.
        memory: most bytes of inputs, outputs, results and workspaces; None for no limit.
    Attributes:
        library: the library that runs the engine, with its version.
        names: the names of the inputs, in their order.
    Raises:
        DeviceError: there is no such device.
        CheckpointError: the model cannot be opened, or has several outputs.
        MissingExtraError: CuPy or TensorRT is not installed.
        SizeError: a bucket is below 1.
        BudgetError: the memory does not suffice; only `run` and `warm` raise it.
    """

    name = "tensorrt"
    lends = False

    def __init__(
        self, model: Path | bytes, device: torch.device, buckets: Sequence[int] = BUCKETS, memory: int | None = None
    ) -> None:
        self.device, self.usage = device, Usage()
        self._model, self._memory = (model if isinstance(model, Path) else b""), memory
        self._engine = open_engine(model, checked_buckets(buckets), device=device.index or 0, memory=memory)
        self.buckets = self._engine.buckets
        if len(self._engine.outputs) != 1:
            found = ", ".join(value.name for value in self._engine.outputs)
            raise CheckpointError(f"a TensorRT engine must have one output to be run; this one has {found}")
        self.library, self.names = self._engine.library, tuple(value.name for value in self._engine.inputs)
        self._output = self._engine.outputs[0].name

    def run(self, inputs: Sequence[Rows] | Mapping[str, Rows], *, host: bool = True) -> Iterator[tuple[int, Tensor]]:
        """See `Runtime.run`; inputs are in the order of the engine, or by name."""
        arrays, count = self._arrays(inputs)
        return self._batches(arrays, count, host)

    def warm(self, counts: Iterable[int], example: Sequence[Rows] | Mapping[str, Rows]) -> None:
        """See `Runtime.warm`."""
        self._arrays(example)
        self._engine.warm({batch.size for count in counts for batch in cover(count, self.buckets)})
        self._account()

    def __reduce__(self) -> tuple[Any, ...]:
        """Make a copy by opening the file again."""
        return TensorRtRuntime, (file_to_reopen(self._model, self.name), self.device, self.buckets, self._memory)

    def _batches(self, arrays: Mapping[str, Any], count: int, host: bool) -> Iterator[tuple[int, Tensor]]:
        import cupy

        for batch in cover(count, self.buckets):
            part = {name: array[batch.start : batch.start + batch.count] for name, array in arrays.items()}
            # The engine waits for CuPy's current stream, so torch's current stream is made CuPy's.
            with cupy.cuda.ExternalStream(torch.cuda.current_stream(self.device).cuda_stream):
                result = self._engine.run(part, host=host)[self._output]
                rows = torch.from_numpy(result) if host else from_dlpack(result)
            self.usage.add(batch)
            self._account()
            yield batch.start, rows

    def _account(self) -> None:
        self.usage.graphs, self.usage.eager = list(self._engine.graphs), self._engine.eager

    def _arrays(self, inputs: Sequence[Rows] | Mapping[str, Rows]) -> tuple[dict[str, Any], int]:
        names = self.names
        if isinstance(inputs, Mapping):
            if set(inputs) != set(names):
                raise ShapeError(f"the engine takes the inputs {', '.join(names)}; got {', '.join(inputs) or 'none'}")
            inputs = [inputs[name] for name in names]
        if len(inputs) != len(names):
            raise ShapeError(f"the engine takes {len(names)} inputs, {', '.join(names)}; got {len(inputs)}")
        tensors, _ = as_rows(inputs)
        arrays = {name: _array(name, tensor) for name, tensor in zip(names, tensors, strict=True)}
        return arrays, self._engine.check(arrays)


def _array(name: str, tensor: Tensor) -> Any:
    """An array that shares the tensor's memory: of numpy on the host, of CuPy on the device."""
    if tensor.dtype == torch.bfloat16:  # numpy has no bfloat16, and no exported model takes it
        raise ShapeError(f"the input {name!r} is bfloat16; give float32, which the model casts by itself")
    if tensor.device.type == "cpu":
        return tensor.numpy()
    import cupy

    return cupy.from_dlpack(tensor)
