"""Comparison of an exported file with the network in PyTorch: how far apart they are, and at which node they part."""

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from zellige.errors import ExportError, MissingExtraError

from ..engine.layers.ambient import own_modes
from ..engine.layers.precision import cast_maps
from ..engine.runtimes.onnx_export import OnnxGraph
from .network import TaskNetwork

__all__ = ["BATCHES", "Difference", "in_float32", "verify"]

Arrays = Mapping[str, npt.NDArray[Any]]

BATCHES = (1, 3, 8)
# Bounds of the error in float32, for values around 1: the largest, and in levels of bytes, which may fall on the other
# side of a rounding, the largest and the mean. Seen: 2e-6 for OneGANs, 4e-6 for COCO-GANs, and a byte in ten thousand;
# 20 in ten thousand for rearrangers, whose attention is sharp.
_MOST, _MOST_LEVELS, _MEAN_LEVELS = 1e-4, 1, 0.005
_LEAST_PSNR = 40.0  # decibels in float16, in which ONNX Runtime rounds more often than PyTorch; seen: 55 and more
# The share of labels that float16 or bfloat16 may change; seen: 0.005. In float32 as many as of bytes.
_MOST_LABELS = 0.03
_WIDTH, _LEVELS = 2.0, 255.0  # ranges of images in [-1, 1], and of bytes
_PARTED = 1e-3  # root mean square error in float32 of a value that is wrong, relative to the value's own


@dataclass(frozen=True)
class Difference:
    """How far one output is from PyTorch's at one batch size.

    Attributes:
        batch: number of rows.
        output: name of the output.
        what: "file", or the file with all its maps in float32.
        max_error, mean_error: absolute errors; those of bytes in levels of 255, and of labels 1 for another label.
        psnr_db: against the range of the output; None if nothing differs.
    """

    batch: int
    output: str
    what: str
    max_error: float
    mean_error: float
    psnr_db: float | None


@own_modes()
def verify(
    graph: OnnxGraph, model: str | bytes, task: TaskNetwork, precision: str, batches: Sequence[int] = BATCHES
) -> list[dict[str, Any]]:
    """Run an exported model in ONNX Runtime, and compare it with the network as it was trained.

    A file in float16 or bfloat16 is compared twice. First with all maps in float32, with the network that has the same
    rounded weights, so that no error of the export hides behind rounding. Then with the trained network, to 40 dB. In
    bfloat16 the second comparison has maps in float32 too, because ONNX Runtime has no bfloat16 on CPUs.

    Args:
        graph: the exported model, and the program that it was exported from.
        model: the path of the file, or its bytes.
        task: the exported task.
        precision: of the file.
        batches: numbers of rows to run.
    Returns:
        `Difference` as dictionaries, one an output and batch.
    Raises:
        ExportError: an output is further from PyTorch's than rounding explains; the error names the node where they
            part.
        MissingExtraError: ONNX Runtime is not installed.
    """
    found = []
    for what, network, file, least in _comparisons(graph, model, task, precision):
        session = _session(file)
        for batch in batches:
            inputs = task.example(batch)
            wanted = _of_network(network, inputs)
            made = session.run(None, {key: value.numpy() for key, value in inputs.items()})
            for output, values, right in zip(task.outputs, made, wanted, strict=True):
                difference = _difference(batch, output, what, values, right)
                if not _close(difference, values.dtype, least):
                    raise ExportError(_sentence(difference, _parting(graph, task.example(1))))
                found.append(asdict(difference))
    return found


def _comparisons(
    graph: OnnxGraph, model: str | bytes, task: TaskNetwork, precision: str
) -> Iterator[tuple[str, nn.Module, str | bytes, float | None]]:
    """Yield the comparisons: a name, the network, the file, and the least PSNR, or None if rounding must not show."""
    if precision == "fp32":
        yield "file", task.trained, model, None
        return
    exact = in_float32(graph.model).SerializeToString()
    wide = cast_maps(copy.deepcopy(task.module).float(), torch.float32)
    yield "file in float32, weights as rounded", wide, exact, None
    if precision == "fp16":
        yield "file", task.trained, model, _LEAST_PSNR
    else:
        yield "file in float32", task.trained, exact, _LEAST_PSNR


def in_float32(model: Any) -> Any:
    """Return a copy of a model (onnx.ModelProto) whose float16 and bfloat16 numbers are all float32."""
    import onnx

    half, single = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16), onnx.TensorProto.FLOAT
    wide = onnx.ModelProto()
    wide.CopyFrom(model)

    def widen(tensor: Any) -> None:
        if tensor.data_type in half:
            values = onnx.numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))

    for tensor in wide.graph.initializer:
        widen(tensor)
    for body in (wide.graph, *wide.functions):
        for node in body.node:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    widen(attribute.t)
                if node.op_type == "Cast" and attribute.name == "to" and attribute.i in half:
                    attribute.i = single
    for value in (*wide.graph.value_info, *wide.graph.input, *wide.graph.output):
        if value.type.tensor_type.elem_type in half:
            value.type.tensor_type.elem_type = single
    return wide


def _of_network(network: nn.Module, inputs: Mapping[str, Tensor]) -> list[npt.NDArray[Any]]:
    with torch.inference_mode():
        return [tensor.numpy() for tensor in network(*inputs.values())]


def _session(model: str | bytes) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError("onnxruntime", "checking an exported model", "export") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors have no common class
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ExportError(f"ONNX Runtime {onnxruntime.__version__} cannot open the exported model: {reason}") from error


def _difference(batch: int, output: str, what: str, made: Any, right: npt.NDArray[Any]) -> Difference:
    if made.shape != right.shape or made.dtype != right.dtype:
        raise ExportError(
            f"the exported {output} is {made.dtype} {list(made.shape)} where PyTorch's is {right.dtype} "
            f"{list(right.shape)}"
        )
    if right.dtype == np.int64:  # labels: how many are others
        error = (made != right).astype(np.float64)
    else:
        error = np.abs(made.astype(np.float64) - right.astype(np.float64))
    square = float(np.square(error).mean())
    width = _LEVELS if right.dtype == np.uint8 else _WIDTH
    psnr = 10 * math.log10(width**2 / square) if square else None
    return Difference(batch, output, what, float(error.max()), float(error.mean()), psnr)


def _close(difference: Difference, dtype: npt.DTypeLike, least_psnr: float | None) -> bool:
    if not math.isfinite(difference.mean_error):
        return False
    if dtype == np.int64:
        return difference.mean_error <= (_MEAN_LEVELS if least_psnr is None else _MOST_LABELS)
    if least_psnr is not None:
        return difference.psnr_db is None or difference.psnr_db >= least_psnr
    if dtype == np.uint8:
        return difference.max_error <= _MOST_LEVELS and difference.mean_error <= _MEAN_LEVELS
    return difference.max_error <= _MOST


def _sentence(difference: Difference, place: str) -> str:
    away = f"up to {difference.max_error:.3g} away, {difference.mean_error:.3g} on average"
    return (
        f"the exported {difference.output} is not what PyTorch computes: at batch {difference.batch} the "
        f"{difference.what} is {away}; {place}. No file was written"
    )


def _parting(graph: OnnxGraph, inputs: Mapping[str, Tensor]) -> str:
    """Name the node whose inputs are right and whose output is wrong, by bisecting the values behind the outputs."""
    model = in_float32(graph.model)
    right = _values(graph, inputs)
    arrays = {name: tensor.numpy() for name, tensor in inputs.items()}
    makers = {output: node for node in model.graph.node for output in node.output}
    order = [name for node in model.graph.node for name in node.output if name in right]

    def wrong(names: Sequence[str]) -> list[str]:
        made = zip(names, _probed(model, arrays, names), strict=True) if names else ()
        return [name for name, values in made if _parts(values, right[name])]

    def behind(names: Sequence[str]) -> list[str]:
        """Return the values that `names` depend on and that PyTorch has too, in the order of the model."""
        seen, waiting = set[str](), list(names)
        while waiting:
            name = waiting.pop()
            if name in makers and name not in seen:
                seen.add(name)
                waiting += makers[name].input
        return [name for name in order if name in seen]

    candidates = behind([value.name for value in model.graph.output])
    while True:
        low, high = 0, len(candidates)  # this finds the first wrong value if no right one follows it
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if wrong([candidates[middle]]) else (middle + 1, high)
        if low == len(candidates):
            return "no single node is to blame"
        node = makers[candidates[low]]
        earlier = wrong(behind(node.input))
        if not earlier:
            scope = graph.scopes.get(node.name, "")
            return f"they part at the node {node.name} ({node.op_type}{', of ' + scope if scope else ''})"
        candidates = behind(earlier[:1])


def _values(graph: OnnxGraph, inputs: Mapping[str, Tensor]) -> dict[str, npt.NDArray[Any]]:
    """Return the values that PyTorch computes in float32, by their names in the model."""
    found: dict[str, npt.NDArray[Any]] = {}

    class Recorder(torch.fx.Interpreter):
        def call_function(self, target: Any, args: Any, kwargs: dict[str, Any]) -> Any:
            halves = torch.float16, torch.bfloat16
            wide = {key: torch.float32 if value in halves else value for key, value in kwargs.items()}
            return super().call_function(target, args, wide)

        def run_node(self, n: torch.fx.Node) -> Any:
            value = super().run_node(n)
            if isinstance(value, Tensor):
                found[n.name] = (value.float() if value.is_floating_point() else value).detach().numpy()
            return value

    module = graph.program.module().float()
    with torch.inference_mode():
        Recorder(module).run(*inputs.values())
    produced = {name for node in graph.model.graph.node for name in node.output}
    outputs = zip(graph.program.graph_signature.user_outputs, graph.model.graph.output, strict=True)
    return {name: value for name, value in found.items() if name in produced} | {
        value.name: found[name] for name, value in outputs if name in found
    }


def _probed(model: Any, inputs: Arrays, names: Sequence[str]) -> list[npt.NDArray[Any]]:
    """Run a model, and return its values of these names."""
    import onnx

    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    made: list[npt.NDArray[Any]] = _session(probe.SerializeToString()).run(None, dict(inputs))
    return made


def _parts(made: npt.NDArray[Any], right: npt.NDArray[Any]) -> bool:
    if made.shape != right.shape:
        return True
    error = np.sqrt(np.square(made.astype(np.float64) - right).mean()) if made.size else 0.0
    return not error <= _PARTED * max(float(np.sqrt(np.square(right.astype(np.float64)).mean())), 1e-6)
