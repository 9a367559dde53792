"""Exports a network as an ONNX model that takes batches of any size."""

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr
from dataclasses import dataclass
from importlib.util import find_spec
from io import StringIO
from typing import Any

import torch
from torch import Tensor, nn

from zellige.errors import ExportError, MissingExtraError

from ...kernels import plain_operators
from ..layers.ambient import own_modes
from .rows import Rows, repeated

__all__ = ["OPSET", "OnnxGraph", "onnx_graph"]

OPSET = 20
Translations = Mapping[Callable[..., Any], Callable[..., Any]]


@dataclass(frozen=True)
class OnnxGraph:
    """An exported network.

    Attributes:
        model: an onnx.ModelProto; equal networks give equal bytes.
        program: torch.export's program of the network; a value of the model has the name of its node in the program.
        scopes: the name of the module that each node of the model comes from, by the node's name.
    """

    model: Any
    program: torch.export.ExportedProgram
    scopes: Mapping[str, str]


@own_modes()
def onnx_graph(
    network: Callable[..., Tensor | tuple[Tensor, ...]],
    example: Sequence[Rows],
    inputs: Sequence[str] = (),
    outputs: Sequence[str] = ("images",),
    translations: Translations | None = None,
) -> OnnxGraph:
    """Export a network.

    Args:
        network: a function from tensors [N, ...] to tensors [N, ...], on a CPU, in evaluation; no branch of it may
            depend on N.
        example: inputs of one row or more.
        inputs, outputs: names in their order; without names inputs are called x0, x1 and so on.
        translations: translations of the operators of `zellige.kernels`; None exports them as standard operators.
    Raises:
        MissingExtraError: onnx or onnxscript is not installed.
        ExportError: the network cannot be exported.
    """
    for package in ("onnx", "onnxscript"):
        if find_spec(package) is None:
            raise MissingExtraError(package, "exporting ONNX models", "export")
    rows = repeated(example, 2)  # with a single row the exporter would take N for the constant 1
    standard = plain_operators() if translations is None else nullcontext()
    with _quiet(), torch.inference_mode(), standard:
        try:
            program = torch.onnx.export(
                _Module(network), rows, dynamo=True, opset_version=OPSET, verbose=False,
                input_names=list(inputs) or [f"x{k}" for k in range(len(rows))], output_names=list(outputs),
                dynamic_shapes=(tuple({0: torch.export.Dim("N")} for _ in rows),),
                custom_translation_table=None if translations is None else dict(translations),
            )  # fmt: skip
        except Exception as error:  # the exporter's errors have no common class
            raise ExportError(f"the network cannot be exported to ONNX: {_reason(error)}") from error
    assert program is not None and program.exported_program is not None
    scopes = _freed_of_history(program.model)
    _typed(program.model, program.exported_program)
    return OnnxGraph(program.model_proto, program.exported_program, scopes)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's notes about packages that it does not need, and about its own deprecations."""
    logger = logging.getLogger("torch.onnx._internal.exporter")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


class _Module(nn.Module):
    """A module around a function, because the exporter takes only modules."""

    def __init__(self, network: Callable[..., Tensor | tuple[Tensor, ...]]) -> None:
        super().__init__()
        self.network = network

    def forward(self, *rows: Tensor) -> Tensor | tuple[Tensor, ...]:
        return self.network(*rows)


def _freed_of_history(model: Any) -> dict[str, str]:
    """Remove notes that differ between machines and processes, such as source paths; return the modules' names."""
    scopes = {}
    for node in model.graph:
        names = node.metadata_props.get("pkg.torch.onnx.name_scopes", "")
        if node.name and names:
            scopes[node.name] = _scope(names)
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
    model.graph.metadata_props.clear()
    model.metadata_props.clear()
    model.graph.name = "network"
    return scopes


def _scope(names: str) -> str:
    """The longest name in a list of modules' names, without the names of the wrappers."""
    found = [name.strip("' \"") for name in names.strip("[]").split(",")]
    modules = [name for name in found[:-1] if name]  # the last is the node itself
    return max(modules, key=len, default="").removeprefix("network.").removeprefix("network.")


def _typed(model: Any, program: torch.export.ExportedProgram) -> None:
    """Give outputs of nodes whose types ONNX does not know the types that torch.export found."""
    import onnx_ir

    found = {node.name: node.meta.get("val") for node in program.graph.nodes}
    named = {id(value): name for name, value in _outputs(model, program)}
    for node in model.graph:
        for value in node.outputs:
            known = found.get(named.get(id(value), value.name or ""))
            if value.type is None and isinstance(known, Tensor):
                value.type = onnx_ir.TensorType(_types()[known.dtype])
                value.shape = onnx_ir.Shape(["N", *(int(side) for side in known.shape[1:])])


def _outputs(model: Any, program: torch.export.ExportedProgram) -> list[tuple[str, Any]]:
    """The model's outputs with the names of their nodes in the program, because the model renames them."""
    return list(zip(program.graph_signature.user_outputs, model.graph.outputs, strict=True))


def _types() -> dict[torch.dtype, Any]:
    from onnx_ir import DataType

    return {
        torch.float32: DataType.FLOAT, torch.float16: DataType.FLOAT16, torch.bfloat16: DataType.BFLOAT16,
        torch.uint8: DataType.UINT8, torch.int64: DataType.INT64, torch.bool: DataType.BOOL,
    }  # fmt: skip


def _reason(error: Exception) -> str:
    """The first line of the error's first cause, because the exporter wraps it in advice."""
    while error.__cause__ is not None and isinstance(error.__cause__, Exception):
        error = error.__cause__
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
