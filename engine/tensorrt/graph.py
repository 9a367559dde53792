"""Checks an ONNX model before a parser of TensorRT reads it, because some faults end the process or pass unseen."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zellige.errors import CheckpointError, SizeError

from ..onnx.file import open_model
from ..onnx.nodes import parts
from ..onnx.tensors import is_external
from .flavours import Flavour

__all__ = ["DTYPES", "Graph", "Profile", "Value", "check_ascending", "check_profiles", "read_graph"]

Profile = tuple[int, int, int]  # least, usual and largest batch
# Dtypes by TensorRT's names. It refuses other dtypes, or silently turns them into another one: float64 into float32.
DTYPES = {
    "FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16", "INT32": "int32", "INT64": "int64", "INT8": "int8",
    "UINT8": "uint8", "BOOL": "bool",
}  # fmt: skip
_TAGS = re.compile(r"\[\w+Error\] |Inference error\(s\): ")
_NODE = re.compile(r"\(op_type:(\w+)(?:, node name: ([^)]*))?\): (.*)")


@dataclass(frozen=True)
class Value:
    """An input or an output.

    Attributes:
        name: its name in the model.
        dtype: numpy's name of the dtype, such as "float32", or "bfloat16".
        shape: [N, ...]; -1 stands for any size.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]

    def row(self) -> dict[str, Any]:
        """The value as JSON for reports, with "N" for the batch."""
        return {"name": self.name, "dtype": self.dtype, "shape": ["N" if side < 0 else side for side in self.shape]}


@dataclass(frozen=True)
class Graph:
    """A checked model that a parser may read.

    Attributes:
        what: its name in errors.
        content: the serialised model; its functions are inlined unless the flavour has plugins.
        inputs, outputs: its inputs and outputs, in the model's order.
        bfloat16: whether it computes in bfloat16.
        metadata: the file's metadata whose keys begin with "zellige.".
    """

    what: str
    content: bytes
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    bfloat16: bool
    metadata: dict[str, str]


def read_graph(model: Path | bytes, flavour: Flavour) -> Graph:
    """Read a model and refuse what the flavour cannot build.

    Args:
        model: the path or the bytes of a .onnx file.
        flavour: the flavour that will parse it.
    Raises:
        CheckpointError: `open_model` refuses the model; or the model has no inputs, a node of a domain that the flavour
            does not know, an input with a side of any size besides the batch, a type that TensorRT would change, or
            shapes that contradict each other.
        MissingExtraError: onnx is not installed.
    """
    what = "the ONNX model" if isinstance(model, bytes) else str(model)
    proto = _inlined(_opened(model, flavour), flavour)
    weights = {weight.name for weight in proto.graph.initializer}
    inputs = tuple(_value(value) for value in proto.graph.input if value.name not in weights)
    outputs = tuple(_value(value) for value in proto.graph.output)
    if not inputs:
        raise CheckpointError(f"{what} has no inputs, and an engine needs one with a batch; export it again")
    for value in inputs:
        _check_input(value, what)
    known = ", ".join(DTYPES.values())
    for value in (*inputs, *outputs):
        if value.dtype not in DTYPES.values():
            raise CheckpointError(
                f"{what} has {value.name!r} in {value.dtype}; {flavour.title} takes and gives {known}: export it in "
                "one of them"
            )
    _check_shapes(proto, what)
    metadata = {entry.key: entry.value for entry in proto.metadata_props if entry.key.startswith("zellige.")}
    return Graph(what, proto.SerializeToString(), inputs, outputs, _computes_in_bfloat16(proto), metadata)


def check_profiles(graph: Graph, profiles: Sequence[Profile]) -> None:
    """Refuse profiles that are out of order, or that differ from the model's batch if that is fixed.

    Raises:
        SizeError: there is no profile; or one is not 1 <= least <= usual <= largest, or differs from the fixed batch.
    """
    check_ascending(profiles)
    for value in graph.inputs:
        fixed = value.shape[0]
        if fixed > 0 and any(profile != (fixed, fixed, fixed) for profile in profiles):
            wrong = next(profile for profile in profiles if profile != (fixed, fixed, fixed))
            raise SizeError(
                f"the input {value.name!r} of {graph.what} has a fixed batch of {fixed}, and the profile "
                f"{_listed(wrong)} asks for others; export it with any batch, or take {fixed},{fixed},{fixed}"
            )


def check_ascending(profiles: Sequence[Profile]) -> None:
    """Refuse profiles that are not 1 <= least <= usual <= largest; raises as `check_profiles` does."""
    if not profiles:
        raise SizeError("an engine needs a profile: least, usual and largest batch, such as 1,8,32")
    for profile in profiles:
        if len(profile) != 3 or not 1 <= profile[0] <= profile[1] <= profile[2]:
            raise SizeError(
                f"the profile {_listed(profile)} is not the least, usual and largest batch in ascending order, each 1 "
                "or more; write it as 1,8,32"
            )


def _listed(profile: Sequence[int]) -> str:
    return ",".join(map(str, profile))


def _opened(model: Path | bytes, flavour: Flavour) -> Any:
    """Open and check the model, and load the weights that lie beside its file."""
    proto = open_model(model, domains=("zellige",) if flavour.plugins else ())
    if isinstance(model, Path) and any(map(is_external, proto.graph.initializer)):
        from onnx.external_data_helper import load_external_data_for_model

        load_external_data_for_model(proto, str(model.parent))
    return proto


def _inlined(proto: Any, flavour: Flavour) -> Any:
    """Inline the model's functions, except for a flavour with plugins, because its plugins may replace their calls."""
    if flavour.plugins or not proto.functions:
        return proto
    from onnx.inliner import inline_local_functions

    return inline_local_functions(proto)


def _check_shapes(proto: Any, what: str) -> None:
    """Refuse shapes that contradict each other; such a `TopK` or `Reshape` ends the process in TensorRT-RTX 1.7.

    TensorRT checks the types, because ONNX does not allow bfloat16 in some operators that all runtimes have in it.
    """
    from onnx.shape_inference import InferenceError, infer_shapes

    try:
        infer_shapes(proto, strict_mode=True)
    except InferenceError as error:
        text = _TAGS.sub("", str(error).strip().split("\n")[-1]).strip().rstrip(".")
        if found := _NODE.match(text):
            text = f"the node {found[2] or ''!r} ({found[1]}): {found[3]}"
        raise CheckpointError(f"{what} contradicts itself: {text}; export it again") from error


def _value(proto: Any) -> Value:
    from onnx.helper import tensor_dtype_to_np_dtype

    kind = proto.type.tensor_type
    shape = tuple(side.dim_value if side.HasField("dim_value") else -1 for side in kind.shape.dim)
    # The name of a type without one in numpy, such as text, is "object".
    return Value(proto.name, str(tensor_dtype_to_np_dtype(kind.elem_type)) if kind.elem_type else "none", shape)


def _check_input(value: Value, what: str) -> None:
    if not value.shape:
        raise CheckpointError(f"the input {value.name!r} of {what} has no batch; every input must be [N, ...]")
    if min(value.shape[1:], default=1) < 1:
        sides = ", ".join("any" if side < 1 else str(side) for side in value.shape[1:])
        raise CheckpointError(
            f"the input {value.name!r} of {what} is [N, {sides}]; only the batch may be of any size: export it with "
            "the other sides fixed"
        )


def _computes_in_bfloat16(proto: Any) -> bool:
    from onnx import TensorProto

    kind = TensorProto.BFLOAT16
    return any(weight.data_type == kind for weight in proto.graph.initializer) or any(
        (attribute.name == "to" and attribute.i == kind) or attribute.t.data_type == kind
        for attribute in parts(proto.graph, *proto.functions).attributes
    )
