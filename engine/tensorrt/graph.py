"""What an ONNX model must be before a parser of TensorRT sees it: some faults there end the process, or pass unseen."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zellige.errors import CheckpointError, MissingExtraError, SizeError

from .flavours import Flavour

__all__ = ["DTYPES", "Graph", "Profile", "Value", "check_ascending", "check_profiles", "read_graph"]

Profile = tuple[int, int, int]  # least, usual and largest batch
# By TensorRT's names. What has no name here it refuses, or turns into something else: float64 into float32, unsaid.
DTYPES = {
    "FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16", "INT32": "int32", "INT64": "int64", "INT8": "int8",
    "UINT8": "uint8", "BOOL": "bool",
}  # fmt: skip
_TAGS = re.compile(r"\[\w+Error\] |Inference error\(s\): ")
_NODE = re.compile(r"\(op_type:(\w+)(?:, node name: ([^)]*))?\): (.*)")
_STANDARD = ("", "ai.onnx")


@dataclass(frozen=True)
class Value:
    """An input or an output.

    Attributes:
        name: in the model.
        dtype: numpy's name, such as "float32"; "bfloat16".
        shape: [N, ...]; -1 where any size goes.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]

    def row(self) -> dict[str, Any]:
        """For reports in JSON; the batch is "N"."""
        return {"name": self.name, "dtype": self.dtype, "shape": ["N" if side < 0 else side for side in self.shape]}


@dataclass(frozen=True)
class Graph:
    """A model that a parser may see.

    Attributes:
        what: it goes by in errors.
        content: the serialised model, its functions inlined where plugins are none.
        inputs, outputs: in the model's order.
        bfloat16: whether it computes in bfloat16.
        metadata: of the file, its keys that begin with "zellige.".
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
        flavour: that will parse it.
    Raises:
        CheckpointError: no ONNX model with inputs and outputs, a node of a domain that it does not know, an input of
            another dynamic dimension than the batch, a type that it would change, or shapes that contradict each other.
        MissingExtraError: onnx is not installed.
    """
    what = "the ONNX model" if isinstance(model, bytes) else str(model)
    proto = _inlined(_loaded(model, what), flavour)
    _check_nodes(proto, what, flavour)
    weights = {weight.name for weight in proto.graph.initializer}
    inputs = tuple(_value(value) for value in proto.graph.input if value.name not in weights)
    outputs = tuple(_value(value) for value in proto.graph.output)
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
    """Refuse profiles that are none, or that the model's own batch does not allow.

    Raises:
        SizeError: no profile, or not 1 <= least <= usual <= largest, or other batches than the one of the model.
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
    """Refuse profiles that are none, of whatever model; raises as `check_profiles` does."""
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


def _loaded(model: Path | bytes, what: str) -> Any:
    try:
        import onnx
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    except ImportError as error:
        raise MissingExtraError("onnx", "reading ONNX models", "tensorrt") from error
    try:
        proto = onnx.load_model_from_string(model) if isinstance(model, bytes) else onnx.load(model)
        # No types are checked here, since a checker without the schemas of our domain would refuse it.
        if proto.graph.input and proto.graph.output:
            return proto
    except OSError as error:
        raise CheckpointError(f"{what} cannot be read: {error.strerror or error}; give an ONNX model's path") from error
    except (ValueError, DecodeError, onnx.checker.ValidationError) as error:
        reason = str(error).split("\n")[0]
        raise CheckpointError(f"{what} cannot be read as an ONNX model: {reason}; export it again") from error
    raise CheckpointError(f"{what} has no inputs or no outputs, so it is no ONNX model of a network; export it again")


def _inlined(proto: Any, flavour: Flavour) -> Any:
    """The model without functions, but where their nodes may be plugins; its parser expands the others by itself."""
    if flavour.plugins or not proto.functions:
        return proto
    from onnx.inliner import inline_local_functions

    return inline_local_functions(proto)


def _check_nodes(proto: Any, what: str, flavour: Flavour) -> None:
    known = {(function.domain, function.name) for function in proto.functions}
    for node in _nodes(proto.graph):
        if flavour.plugins or node.domain in _STANDARD or (node.domain, node.op_type) in known:
            continue
        if node.domain == "zellige":
            raise CheckpointError(
                f"{what} holds the node {node.name!r} ({node.op_type}), a kernel of this package without its function, "
                f"and {flavour.title} has no plugins; export the model with --flavour portable"
            )
        raise CheckpointError(
            f"{what} holds the node {node.name!r} ({node.op_type}) of the domain {node.domain!r}, and {flavour.title} "
            "has no plugins; export the model with standard operators"
        )


def _check_shapes(proto: Any, what: str) -> None:
    """Refuse shapes that contradict each other: such a `TopK` or `Reshape` ends the process in TensorRT-RTX 1.7.

    Types are left to TensorRT, since ONNX does not know bfloat16 for operators that all runtimes have in it.
    """
    from onnx.shape_inference import InferenceError, infer_shapes

    try:
        infer_shapes(proto, strict_mode=True)
    except InferenceError as error:
        text = _TAGS.sub("", str(error).strip().split("\n")[-1]).strip().rstrip(".")
        if found := _NODE.match(text):
            text = f"the node {found[2] or ''!r} ({found[1]}): {found[3]}"
        raise CheckpointError(f"{what} contradicts itself: {text}; export it again") from error


def _nodes(graph: Any) -> Iterator[Any]:
    """The nodes of a graph and of the graphs in their attributes: branches and bodies of loops."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)


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
    if any(weight.data_type == kind for weight in proto.graph.initializer):
        return True
    graphs = (proto.graph, *proto.functions)
    return any(
        (attribute.name == "to" and attribute.i == kind) or attribute.t.data_type == kind
        for graph in graphs for node in _nodes(graph) for attribute in node.attribute
    )  # fmt: skip
