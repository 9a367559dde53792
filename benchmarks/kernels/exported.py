"""A case's graph in ONNX Runtime and OpenVINO, which read the other runners' tensors without copies."""

import re
import tempfile
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .measure import Call

__all__ = ["Unmeasured", "exported", "first_line", "onnxruntime_calls", "openvino_calls"]

_OPSET = 20


class Unmeasured(Exception):
    """The reason why a peer is not measured."""


def exported(function: Callable[..., Tensor], inputs: Sequence[Tensor]) -> bytes:
    """Export a function to ONNX; inputs are named x0, x1 and so on, and those that the result ignores are left out."""
    try:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            path = Path(folder, "graph.onnx")
            names = [f"x{k}" for k in range(len(inputs))]
            # The exporter without dynamo needs only the package onnx, and writes the same operators.
            torch.onnx.export(
                _Function(function), tuple(inputs), path, dynamo=False, opset_version=_OPSET,
                input_names=names, output_names=["y"],
            )  # fmt: skip
            return path.read_bytes()
    except Exception as error:
        raise Unmeasured(f"export to ONNX failed: {first_line(error)}") from error


def onnxruntime_calls(graph: bytes, sets: Sequence[Sequence[Tensor]], result: Tensor) -> Sequence[Call]:
    """Return a call for each set of inputs, which writes its result into `result`.

    Raises:
        Unmeasured: ONNX Runtime is not installed, or has no kernels for the graph.
    """
    try:
        import onnxruntime
        from onnx import TensorProto
    except ImportError as error:
        raise Unmeasured(f"{error.name} is not installed") from error
    types = {
        torch.float32: TensorProto.FLOAT, torch.float16: TensorProto.FLOAT16, torch.bfloat16: TensorProto.BFLOAT16,
        torch.int64: TensorProto.INT64,
    }  # fmt: skip
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        taken = {value.name for value in session.get_inputs()}
        bindings = []
        for inputs in sets:
            binding = session.io_binding()
            for k, tensor in enumerate(inputs):
                if f"x{k}" in taken:
                    shape = list(tensor.shape)
                    binding.bind_input(f"x{k}", "cpu", 0, types[tensor.dtype], shape, tensor.data_ptr())
            binding.bind_output("y", "cpu", 0, types[result.dtype], list(result.shape), result.data_ptr())
            bindings.append(binding)
        session.run_with_iobinding(bindings[0])
    except Exception as error:  # ONNX Runtime's errors have no common class
        raise Unmeasured(f"onnxruntime: {first_line(error)}") from error

    def call(binding: Any, kept: Sequence[Tensor]) -> Tensor:
        session.run_with_iobinding(binding)
        return result

    # A binding knows only addresses, so the calls keep the tensors alive.
    return [partial(call, binding, inputs) for binding, inputs in zip(bindings, sets, strict=True)]


def openvino_calls(graph: bytes, sets: Sequence[Sequence[Tensor]], result: Tensor) -> Sequence[Call]:
    """Return a call for each set of inputs, which writes its result into `result`.

    Raises:
        Unmeasured: OpenVINO is not installed, or has no kernels for the graph.
    """
    try:
        import openvino
    except ImportError as error:
        raise Unmeasured(f"{error.name} is not installed") from error
    half = any(t.dtype == torch.bfloat16 for t in sets[0])
    settings = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(), "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY",
        # Without a hint, processors that have bfloat16 would compute float32 graphs in it.
        "INFERENCE_PRECISION_HINT": "bf16" if half else "f32",
    }  # fmt: skip

    def shared(tensor: Tensor) -> Any:
        if tensor.dtype == torch.bfloat16:
            return openvino.Tensor(tensor.view(torch.uint16).numpy(), list(tensor.shape), openvino.Type.bf16)
        return openvino.Tensor(tensor.numpy(), shared_memory=True)

    try:
        core = openvino.Core()
        compiled = core.compile_model(core.read_model(graph, b""), "CPU", settings)
        request = compiled.create_infer_request()
        # A port may also have the names of casts that did nothing.
        places = [int(next(name for name in port.names if re.fullmatch(r"x\d", name))[1:]) for port in compiled.inputs]
        ready = [[shared(inputs[place]) for place in places] for inputs in sets]
        request.set_output_tensor(0, shared(result))

        def call(tensors: Sequence[Any]) -> Tensor:
            for place, tensor in enumerate(tensors):
                request.set_input_tensor(place, tensor)
            request.infer(share_outputs=True)
            return result

        call(ready[0])
    except Exception as error:
        raise Unmeasured(f"openvino: {first_line(error)}") from error
    return [partial(call, tensors) for tensors in ready]


def first_line(error: Exception) -> str:
    """Return the first line of an error's message that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


class _Function(nn.Module):
    """A function as the module that the exporter takes."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self._function = function

    def forward(self, *inputs: Tensor) -> Tensor:
        return self._function(*inputs)
