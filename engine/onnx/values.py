"""Bounds the memory of every value in an ONNX graph whose shape can be inferred.

A small file can hold a huge value: runtimes compute a `ConstantOfShape`, a `Tile` or forty doublings of a constant when
they open the file. ONNX's shape inference tells the size beforehand from shapes and short constants alone.
"""

from collections.abc import Iterable
from typing import Any

from ..files.hostile import shown
from . import faults
from .faults import refuse
from .nodes import parts
from .tensors import BITS, MAX_VALUE_BYTES, elements, is_external

__all__ = ["check_rules", "check_values", "without_weights"]

_SHORT = 1024  # elements; shorter constants may be shapes, which the inference needs


def without_weights(model: Any) -> Any:
    """The model with long and external initialisers turned into inputs, so that checks neither copy nor open data."""
    import onnx

    light = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions)
    light.metadata_props.extend(model.metadata_props)
    graph, light.graph.name = model.graph, model.graph.name
    for field in ("node", "sparse_initializer", "input", "output", "value_info"):
        getattr(light.graph, field).extend(getattr(graph, field))
    inputs = {value.name for value in graph.input}
    for tensor in graph.initializer:
        if is_external(tensor) or elements(tensor.dims, tensor.name, "") > _SHORT:
            if tensor.name not in inputs:  # up to IR version 3 every initialiser is an input already
                value = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
                light.graph.input.append(value)
        else:
            light.graph.initializer.append(tensor)
    return light


def check_rules(light: Any, what: str) -> None:
    """Run ONNX's own checker on a model without weights: names, order, operators, their attributes and inputs.

    Raises:
        InvalidModelError: the model breaks a rule.
    """
    import onnx

    try:
        onnx.checker.check_model(light.SerializeToString())
    except Exception as error:  # its errors have no common class
        refuse(faults.InvalidModelError, what, f"ONNX's checker says: {_line(error)}")


def check_values(light: Any, what: str) -> None:
    """Check the size of every value whose shape can be inferred; free sides count as 1.

    Args:
        light: a model without weights, whose functions `check_nodes` has checked.
        what: the model's name in errors.
    Raises:
        ValueSizeError: a value is too large.
        TensorDimsError: a value has a negative side.
        InvalidModelError: shapes cannot be inferred at all, or a convolution has no groups.
    """
    import onnx.inliner

    try:
        whole = onnx.inliner.inline_local_functions(light) if light.functions else light
        # Without data_prop, which would compute constants of any length: 1 GB for twenty doublings of four numbers.
        inferred = onnx.shape_inference.infer_shapes(whole)
    except Exception as error:
        refuse(faults.InvalidModelError, what, f"its shapes cannot be inferred: {_line(error)}")
    found = parts(inferred.graph)
    _check_groups(found.nodes, what)
    for graph in found.graphs:
        for value in (*graph.input, *graph.value_info, *graph.output):
            tensor = value.type.tensor_type
            dims = [side.dim_value if side.HasField("dim_value") else 1 for side in tensor.shape.dim]
            size = elements(dims, value.name, what) * BITS.get(tensor.elem_type, 8) // 8
            if size > MAX_VALUE_BYTES:
                refuse(
                    faults.ValueSizeError, what, f"its value {shown(value.name)} of the sides {shown(dims)} takes more "
                    f"than {MAX_VALUE_BYTES // 2**30} GiB; export a smaller network",
                )  # fmt: skip


def _check_groups(nodes: Iterable[Any], what: str) -> None:
    """Refuse groups below 1, because ONNX Runtime 1.31 divides by a ConvTranspose's groups and 0 ends the process."""
    for node in nodes:
        if any(attribute.name == "group" and attribute.i < 1 for attribute in node.attribute):
            name = f"{shown(node.name)} ({shown(node.op_type)})"
            refuse(faults.InvalidModelError, what, f"its node {name} has a group below 1; export it again")


def _line(error: Exception) -> str:
    line = " ".join(str(error).split())
    return line if len(line) <= 300 else f"{line[:300]}..."
