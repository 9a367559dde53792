"""A generator in ONNX Runtime and OpenVINO, with as many threads as torch has, and in TensorRT on CUDA devices."""

import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from ...engine.rewrite.for_onnx import rewrite_for_graphs
from ...engine.runtimes import joined
from ...engine.runtimes.onnx_export import onnx_graph as engine_graph
from ...engine.runtimes.tensorrt_runtime import TensorRtRuntime
from ...engine.tensorrt.opened import built_for
from ...kernels import plain_operators
from .subjects import Inputs, Subject

__all__ = [
    "onnx_graph",
    "onnx_graphs",
    "onnxruntime_function",
    "openvino_function",
    "openvino_graph",
    "tensorrt_engine",
    "tensorrt_function",
]

_OPSET = 20
_TRIALS = 3  # calls of each graph, to find the faster one


def onnxruntime_function(
    subject: Subject, precision: str, inputs: Inputs, folder: Path
) -> tuple[Callable[..., Tensor], str]:
    """Return the network in ONNX Runtime with all graph optimisations, as the faster of two graphs, and its name.

    One graph is the network as it was trained, for this batch. The other is the rewritten one that `zellige export`
    writes, for any batch.
    """
    found = []
    for form, graph in onnx_graphs(subject, precision, inputs, folder).items():
        call = _session(graph)
        call(*inputs)
        found.append((min(_seconds(call, inputs) for _ in range(_TRIALS)), form, call))
    _, form, call = min(found, key=lambda trial: trial[0])
    return call, form


def _session(graph: Path) -> Callable[..., Tensor]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(graph.read_bytes(), options, providers=["CPUExecutionProvider"])
    taken = {value.name for value in session.get_inputs()}

    def call(*inputs: Tensor) -> Tensor:
        given = {f"x{k}": tensor.numpy() for k, tensor in enumerate(inputs) if f"x{k}" in taken}
        return torch.from_numpy(session.run(None, given)[0])

    return call


def _seconds(call: Callable[..., Tensor], inputs: Inputs) -> float:
    began = time.perf_counter()
    call(*inputs)
    return time.perf_counter() - began


def openvino_function(subject: Subject, precision: str, inputs: Inputs, folder: Path) -> Callable[..., Tensor]:
    """Return the network in OpenVINO, from torch.export; bf16 has the weights of fp32 and OpenVINO's precision hint.

    It is not read from ONNX, because OneGAN's group norms become instance norms there, which cost a third of the speed.
    """
    import openvino

    core = openvino.Core()
    settings = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(), "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[precision],
    }  # fmt: skip
    request = core.compile_model(
        openvino_graph(subject, precision, inputs, folder), "CPU", settings
    ).create_infer_request()

    def call(*inputs: Tensor) -> Tensor:
        found = request.infer([tensor.numpy() for tensor in inputs], share_inputs=True, share_outputs=True)
        return torch.from_numpy(found[0])

    return call


def tensorrt_function(
    subject: Subject, precision: str, inputs: Inputs, folder: Path
) -> tuple[Callable[..., Tensor], str]:
    """Return the network in TensorRT or TensorRT-RTX, captured for this batch, and the library with its version."""
    engine, batch = tensorrt_engine(subject, precision, inputs, folder), len(inputs[0])
    runtime = TensorRtRuntime(engine, subject.device, (batch,))

    def call(*inputs: Tensor) -> Tensor:
        given = {f"x{k}": tensor for k, tensor in enumerate(inputs) if f"x{k}" in runtime.names}
        return joined(runtime.run(given, host=False), batch, lent=runtime.lends)

    return call, runtime.library


def onnx_graphs(subject: Subject, precision: str, inputs: Inputs, folder: Path) -> dict[str, Path]:
    """Return both graphs that ONNX Runtime is measured with, by name."""
    return {
        "as trained": onnx_graph(subject, precision, inputs, folder),
        "zellige export": exported_graph(subject, precision, inputs, folder),
    }


def onnx_graph(subject: Subject, precision: str, inputs: Inputs, folder: Path) -> Path:
    """Return the network as an ONNX file for this batch; export it unless the file is there.

    Inputs are named x0, x1 and so on; inputs that do not change the result are left out.
    """
    path = folder / f"{precision}-{len(inputs[0])}.onnx"
    if not path.exists():
        # The exporter without dynamo needs only the package onnx, and writes the same operators.
        with plain_operators():
            torch.onnx.export(
                subject.at(precision), inputs, path, dynamo=False, opset_version=_OPSET,
                input_names=[f"x{k}" for k in range(len(inputs))], output_names=["images"],
            )  # fmt: skip
    return path


def exported_graph(subject: Subject, precision: str, inputs: Inputs, folder: Path) -> Path:
    """Return the file that `zellige export` writes, for any batch, with inputs x0, x1, ...; write it if missing."""
    path = folder / f"{precision}-exported.onnx"
    if not path.exists():
        network = subject.at(precision)
        rewrite_for_graphs(network)
        path.write_bytes(engine_graph(network, inputs).model.SerializeToString())
    return path


def openvino_graph(subject: Subject, precision: str, inputs: Inputs, folder: Path) -> Path:
    """Return the network in OpenVINO's format for this batch, always in fp32; export it unless the file is there."""
    import openvino

    path = folder / f"{len(inputs[0])}.xml"
    if not path.exists():
        with plain_operators():
            program = torch.export.export(subject.at("fp32"), inputs)
        openvino.save_model(openvino.convert_model(program), path, compress_to_fp16=False)
    return path


def tensorrt_engine(subject: Subject, precision: str, inputs: Inputs, folder: Path) -> Path:
    """Return the network as an engine for this batch and the subject's device; build it unless the file is there."""
    batch = len(inputs[0])
    path = folder / f"{precision}-{batch}.engine"
    if not path.exists():
        graph = onnx_graph(subject, precision, inputs, folder)
        path.write_bytes(built_for(graph, (batch,), subject.device.index or 0))
    return path
