"""Small ONNX models of one thought each."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT, HALF, BFLOAT16 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16
Described = tuple[int, Sequence[int | str]]  # type and shape


def model(
    nodes: Sequence[onnx.NodeProto],
    x: Described = (FLOAT, ("N", 4)),
    y: Described = (FLOAT, ("N", 4)),
    weights: Sequence[onnx.TensorProto] = (),
    functions: Sequence[onnx.FunctionProto] = (),
) -> bytes:
    """A model of the nodes from x to y."""
    values = [helper.make_tensor_value_info(name, *what) for name, what in (("x", x), ("y", y))]
    graph = helper.make_graph(list(nodes), "small", values[:1], values[1:], list(weights))
    domains = [helper.make_opsetid("", 20), helper.make_opsetid("zellige", 1), helper.make_opsetid("other", 1)]
    made = helper.make_model(graph, opset_imports=domains, functions=list(functions), ir_version=10)
    return bytes(made.SerializeToString())


def weight(name: str, *shape: int, dtype: Any = np.float32) -> onnx.TensorProto:
    values = np.random.default_rng(0).standard_normal(shape)
    return numpy_helper.from_array(values.astype(dtype), name)


def node(op: str, *inputs: str, domain: str = "", **attributes: Any) -> onnx.NodeProto:
    """A node of the name of its operator, which makes y."""
    return helper.make_node(op, inputs or ("x",), ["y"], name=f"the {op}", domain=domain, **attributes)


def relu() -> bytes:
    return model([node("Relu")])


def convolution(kind: int, batch: int | str = "N") -> bytes:
    """Cast, convolution and activation in a type, cast back: float32 outside, as all exported models are."""
    shape = (batch, 3, 8, 8)
    return model(
        [
            helper.make_node("Cast", ["x"], ["typed"], to=kind),
            helper.make_node("Cast", ["w"], ["weights"], to=kind),
            helper.make_node("Conv", ["typed", "weights"], ["maps"], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["maps"], ["positive"]),
            helper.make_node("Cast", ["positive"], ["y"], to=FLOAT),
        ],
        (FLOAT, shape), (FLOAT, (batch, 5, 8, 8)), [weight("w", 5, 3, 3, 3)],
    )  # fmt: skip


def gated(*, function: bool) -> bytes:
    """A node of this package's domain, with or without the function that says what it is."""
    body = helper.make_function(
        "zellige", "AffineRelu", ["x", "scale", "shift"], ["y"],
        [
            helper.make_node("Mul", ["x", "scale"], ["scaled"]),
            helper.make_node("Add", ["scaled", "shift"], ["moved"]),
            helper.make_node("Relu", ["moved"], ["y"]),
        ],
        [helper.make_opsetid("", 20)], attributes=["upsample"],
    )  # fmt: skip
    # As the package declares it, since an export makes onnx check all nodes of this name.
    nodes = [node("AffineRelu", "x", "scale", "shift", domain="zellige", upsample=0)]
    return model(nodes, weights=[weight("scale", 4), weight("shift", 4)], functions=[body] if function else [])
