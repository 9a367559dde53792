"""Little ONNX models, right and wrong, put together field by field: what the package onnx refuses to write, too."""

from collections.abc import Sequence
from typing import Any

import onnx
from onnx import TensorProto, helper

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
node = helper.make_node


def value(name: str, sides: Sequence[int | str | None] = ("N", 4), dtype: int = FLOAT) -> Any:
    return helper.make_tensor_value_info(name, dtype, sides)


def model(
    *nodes: Any,
    weights: Sequence[Any] = (),
    inputs: Sequence[Any] | None = None,
    outputs: Sequence[Any] | None = None,
    functions: Sequence[Any] = (),
    opsets: Sequence[tuple[str, int]] = (("", 20), ("own", 1)),
    ir: int = 10,
) -> Any:
    """y = f(x), x and y float32 [N, 4] unless told otherwise; the identity without nodes."""
    made = onnx.ModelProto(ir_version=ir, functions=functions)
    made.opset_import.extend(helper.make_opsetid(*opset) for opset in opsets)
    made.graph.name = "graph"
    made.graph.node.extend(nodes or [node("Identity", ["x"], ["y"])])
    made.graph.initializer.extend(weights)
    made.graph.input.extend([value("x")] if inputs is None else inputs)
    made.graph.output.extend([value("y", (None, None))] if outputs is None else outputs)
    return made


def function(name: str, *nodes: Any, domain: str = "own") -> Any:
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("own", 1)]
    return helper.make_function(domain, name, ["x"], ["y"], nodes, opsets)


def call(name: str, source: str = "x", result: str = "y") -> Any:
    return node(name, [source], [result], domain="own")


def branch(*nodes: Any) -> Any:
    return helper.make_graph(nodes, "branch", [], [value("y", (None, None))])


def numbers(name: str, *values: int) -> Any:
    return helper.make_tensor(name, INT64, [len(values)], values)


def tensor(name: str = "w", dtype: int = FLOAT, sides: Sequence[int] = (4,), **fields: Any) -> Any:
    """A tensor of any fields, whether they fit or not."""
    return TensorProto(name=name, data_type=dtype, dims=sides, **fields)


def added(weight: Any) -> Any:
    """y = x + w."""
    return model(node("Add", ["x", weight.name], ["y"]), weights=[weight])
