"""Runs an ONNX model with ONNX Runtime."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zellige.errors import BudgetError, CheckpointError, DeviceError, MissingExtraError, ShapeError

from ..onnx.file import check_model_file
from .buckets import BUCKETS, Usage, checked_buckets, split
from .copying import file_to_reopen
from .pipeline import Turn
from .rows import Rows, as_rows, repeated

__all__ = ["OnnxRuntime"]

# torch's dtypes and ONNX's numbers for ONNX Runtime's names of dtypes.
_DTYPES = {
    "tensor(float)": (torch.float32, 1), "tensor(uint8)": (torch.uint8, 2), "tensor(int8)": (torch.int8, 3),
    "tensor(int32)": (torch.int32, 6), "tensor(int64)": (torch.int64, 7), "tensor(bool)": (torch.bool, 9),
    "tensor(float16)": (torch.float16, 10), "tensor(double)": (torch.float64, 11),
    "tensor(bfloat16)": (torch.bfloat16, 16),
}  # fmt: skip
# The domains of ONNX Runtime's own operators, which a model may use beside the standard ones.
_DOMAINS = ("com.microsoft",)
_FOLDER = "session.model_external_initializers_file_folder_path"
_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class OnnxRuntime:
    """A session of ONNX Runtime with one output.

    Addresses are bound, so inputs are read in place and the output is written into one buffer of the largest batch. The
    session has as many threads as torch has when it is made.

    Args:
        model: the path or the bytes of a .onnx file whose inputs and output are [N, ...], with N of any size.
        device: a CPU or a CUDA device.
        buckets: batches have the largest size; the last batch has the size of the rest.
        memory: most bytes of a CUDA device that the session may allocate; None for no limit.
    Raises:
        MissingExtraError: ONNX Runtime is not installed.
        DeviceError: ONNX Runtime has no provider for the device.
        CheckpointError: the model cannot be opened (see engine/onnx/file.py), or has several outputs or a fixed N.
        BudgetError: the memory does not suffice; `run` and `warm` raise it too.
    """

    name = "onnx"
    lends = True

    def __init__(
        self, model: Path | bytes, device: torch.device, buckets: Sequence[int] = BUCKETS, memory: int | None = None
    ) -> None:
        self.device, self.buckets, self.usage = device, checked_buckets(buckets), Usage()
        self._what = "the ONNX model" if isinstance(model, bytes) else str(model)
        self._model, self._memory = (model if isinstance(model, Path) else b""), memory
        self._session = _session(model, self._what, device, memory)
        self._inputs = {value.name: value for value in self._session.get_inputs()}
        outputs = self._session.get_outputs()
        if len(outputs) != 1 or outputs[0].type not in _DTYPES:
            found = ", ".join(f"{value.name}: {value.type}" for value in outputs)
            raise CheckpointError(f"{self._what} must have one output, a tensor; it has {found}")
        fixed = [value.name for value in (*self._inputs.values(), *outputs) if not value.shape or _fixed(value.shape)]
        if fixed:
            raise CheckpointError(f"{self._what} has a fixed batch size in {', '.join(fixed)}; export it with any size")
        self._output, self._turn = outputs[0], Turn()
        self._buffers: dict[bool, Tensor] = {}

    def run(self, inputs: Sequence[Rows] | Mapping[str, Rows], *, host: bool = True) -> Iterator[tuple[int, Tensor]]:
        """See `Runtime.run`; inputs are in the order of the model, or by name."""
        rows, count = as_rows(self._ordered(inputs))
        for value, tensor in zip(self._inputs.values(), rows, strict=True):
            dtype, shape = _DTYPES.get(value.type, (value.type, 0))[0], value.shape[1:]
            same = len(shape) == tensor.dim() - 1 and all(
                not isinstance(side, int) or side == given for side, given in zip(shape, tensor.shape[1:], strict=True)
            )
            if dtype != tensor.dtype or not same:
                raise ShapeError(
                    f"the input {value.name!r} must be {dtype} {_shown(value.shape)}; "
                    f"got {tensor.dtype} {list(tensor.shape)}"
                )
        return self._batches(tuple(tensor.cpu() for tensor in rows), count, host)

    def warm(self, counts: Iterable[int], example: Sequence[Rows] | Mapping[str, Rows]) -> None:
        """See `Runtime.warm`; ONNX Runtime lays out the memory for a size in its first call."""
        rows = self._ordered(example)
        with self._turn.taken():
            for size in sorted({batch.size for count in counts for batch in split(count, self.buckets)}):
                self._called(repeated(rows, size), size, True)

    def __reduce__(self) -> tuple[Any, ...]:
        """Make a copy by opening the file again."""
        return OnnxRuntime, (file_to_reopen(self._model, self.name), self.device, self.buckets, self._memory)

    def _batches(self, rows: tuple[Tensor, ...], count: int, host: bool) -> Iterator[tuple[int, Tensor]]:
        with self._turn.taken():
            for batch in split(count, self.buckets):
                part = tuple(tensor[batch.start : batch.start + batch.size] for tensor in rows)
                result = self._called(part, batch.size, host)
                self.usage.add(batch)
                yield batch.start, result

    def _called(self, rows: tuple[Tensor, ...], size: int, host: bool) -> Tensor:
        binding = self._session.io_binding()
        for value, tensor in zip(self._inputs.values(), rows, strict=True):
            binding.bind_input(value.name, "cpu", 0, _DTYPES[value.type][1], list(tensor.shape), tensor.data_ptr())
        result = self._buffer(binding, host)[:size]
        if result.device.type == "cuda":
            # The session has a stream of its own, so the caller's work on the last result must be over.
            torch.cuda.current_stream(result.device).synchronize()
        place, number = result.device.type, result.device.index or 0
        binding.bind_output(
            self._output.name, place, number, _DTYPES[self._output.type][1], list(result.shape), result.data_ptr()
        )
        self._run(binding)
        return result

    def _buffer(self, binding: Any, host: bool) -> Tensor:
        """The buffer of the largest batch; if the file does not tell the output's shape, a first run does."""
        host = host or self.device.type == "cpu"
        if host not in self._buffers:
            shape = self._output.shape[1:]
            if not all(isinstance(side, int) for side in shape):
                binding.bind_output(self._output.name, "cpu")
                self._run(binding)
                shape = binding.get_outputs()[0].shape()[1:]
            place = torch.device("cpu") if host else self.device
            self._buffers[host] = torch.empty(
                self.buckets[-1], *shape, dtype=_DTYPES[self._output.type][0], device=place,
            )  # fmt: skip
        return self._buffers[host]

    def _run(self, binding: Any) -> None:
        try:
            self._session.run_with_iobinding(binding)
        except Exception as error:  # its errors have no common class
            _check_memory(error, self._what)
            raise ShapeError(f"{self._what} cannot be run on these inputs: {_first_line(error)}") from error

    def _ordered(self, inputs: Sequence[Rows] | Mapping[str, Rows]) -> Sequence[Rows]:
        names = list(self._inputs)
        if isinstance(inputs, Mapping):
            if set(inputs) != set(names):
                raise ShapeError(f"{self._what} takes the inputs {', '.join(names)}; got {', '.join(inputs) or 'none'}")
            return [inputs[name] for name in names]
        if len(inputs) != len(names):
            raise ShapeError(f"{self._what} takes {len(names)} inputs, {', '.join(names)}; got {len(inputs)}")
        return inputs


def _session(model: Path | bytes, what: str, device: torch.device, memory: int | None) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError("onnxruntime", "running ONNX models", "export") from error
    provider = _PROVIDERS.get(device.type)
    if provider not in onnxruntime.get_available_providers():
        raise DeviceError(
            f"ONNX Runtime as it is installed here does not run on {device.type}; install onnxruntime-gpu in place of "
            "onnxruntime for CUDA, or use --device cpu"
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.enable_cpu_mem_arena = True
    options.log_severity_level = 4  # errors come as exceptions
    chosen: dict[str, Any] = {"device_id": device.index or 0} if device.type == "cuda" else {}
    if chosen and memory is not None:
        chosen |= {"gpu_mem_limit": memory, "arena_extend_strategy": "kSameAsRequested"}
    checked = check_model_file(model, domains=_DOMAINS)
    if isinstance(model, Path):  # the session gets the checked bytes, and finds external data in the file's folder
        options.add_session_config_entry(_FOLDER, os.path.realpath(model.parent))
    try:
        session = onnxruntime.InferenceSession(checked, options, providers=[(provider, chosen)])
    except Exception as error:  # its errors have no common class
        _check_memory(error, what)
        raise CheckpointError(f"{what} cannot be opened as an ONNX model: {_first_line(error)}") from error
    if session.get_providers()[0] != provider:  # ONNX Runtime drops a provider that fails, and goes on
        raise DeviceError(f"ONNX Runtime could not start its {provider}; see that its version fits CUDA's and cuDNN's")
    return session


def _fixed(shape: list[Any]) -> bool:
    return isinstance(shape[0], int)


def _shown(shape: list[Any]) -> str:
    return f"[{', '.join(map(str, ['N', *shape[1:]]))}]"


def _check_memory(error: Exception, what: str) -> None:
    """Raise a BudgetError if an error means a lack of memory, which has many names."""
    if any(sign in str(error) for sign in ("Failed to allocate memory", "bad allocation", "bad_alloc")):
        raise BudgetError(f"{what} needs more memory than there is or was given; take smaller batches") from error


def _first_line(error: Exception) -> str:
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    # Codes, and places and signatures in ONNX Runtime's source, are cut off because they help no reader.
    return re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : (/\S+:\d+ .*?\) (?=\S))?", "", line)
