"""A model for the server: an ONNX file or a TensorRT engine, with its inputs and outputs."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from zellige.errors import CheckpointError, TaskError

from ...engine.files.hostile import open_regular
from ...engine.files.kinds import START_BYTES, kind_of
from ...engine.onnx.file import open_model
from ...engine.onnx.tensors import is_external

__all__ = ["DATA_TYPES", "Model", "Port", "onnx_model", "plan_model"]

# For numpy's name of a dtype, the server's name and ONNX's number.
DATA_TYPES = {
    "float32": ("FP32", 1), "uint8": ("UINT8", 2), "int8": ("INT8", 3), "int32": ("INT32", 6), "int64": ("INT64", 7),
    "bool": ("BOOL", 9), "float16": ("FP16", 10), "bfloat16": ("BF16", 16),
}  # fmt: skip


class Port(NamedTuple):
    """An input or output.

    Args:
        name: its name in the model.
        dtype: numpy's name, such as "float32", or "bfloat16".
        shape: its sides; a side of any size is a name, such as "N", and the first must be one.
    """

    name: str
    dtype: str
    shape: Sequence[int | str]


@dataclass(frozen=True)
class Model:
    """A checked model, and its files by their paths in a version's folder."""

    platform: str
    backend: str
    inputs: Sequence[Port]
    outputs: Sequence[Port]
    main: str
    files: Mapping[str, Path]
    metadata: Mapping[str, str] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Copy the model's files to a folder."""
        for name, source in self.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, folder / name)


def onnx_model(path: Path) -> Model:
    """Check an ONNX file with its external data, for ONNX Runtime in the server.

    Raises:
        CheckpointError: the file cannot be opened, its N is fixed, or it has data types that the server lacks or
            external data where the server cannot read them.
    """
    model = open_model(path, domains=("com.microsoft",))
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [_port(value, str(path)) for value in model.graph.input if value.name not in weights]
    outputs = [_port(value, str(path)) for value in model.graph.output]
    try:
        _check_ports(inputs, outputs, str(path))
    except TaskError as error:
        raise CheckpointError(str(error)) from None
    files = {"model.onnx": path}
    for tensor in filter(is_external, model.graph.initializer):
        location = str(Path(next(entry.value for entry in tensor.external_data if entry.key == "location")))
        if location == "model.onnx":
            raise CheckpointError(
                f"{path} keeps data in model.onnx, which the server reads as a model; rename that file"
            )
        files[location] = path.parent / location
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    return Model("onnxruntime_onnx", "onnxruntime", inputs, outputs, "model.onnx", files, metadata)


def plan_model(path: Path, ports: tuple[Sequence[Port], Sequence[Port]] | None) -> Model:
    """Check a TensorRT engine, whose inputs and outputs the caller must name.

    Raises:
        CheckpointError: the file does not exist, is empty, or is no engine.
        TaskError: the ports are missing, or the server cannot take them.
    """
    try:
        with open_regular(path) as file:
            start = file.read(START_BYTES)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"{path} cannot be opened as an engine: {reason}; check its name") from None
    if start[1:4] != b"trt":
        kind = kind_of(start)
        found = "empty" if not start else kind.title if kind else "of a format that is not known here"
        raise CheckpointError(f"{path} cannot be opened as an engine: it is {found}; build the engine anew")
    if ports is None:
        raise TaskError(
            f"the inputs and outputs of the engine {path} are not known; give them as ports=(inputs, outputs)"
        )
    _check_ports(*ports, str(path))
    return Model("tensorrt_plan", "tensorrt", *ports, "model.plan", {"model.plan": path})


def _check_ports(inputs: Sequence[Port], outputs: Sequence[Port], what: str) -> None:
    if not inputs or not outputs:
        raise TaskError(f"{what} must have inputs and outputs for a server; it has {len(inputs)} and {len(outputs)}")
    names = [port.name for port in (*inputs, *outputs)]
    if len(set(names)) < len(names) or not all(names):
        raise TaskError(f"{what} must have inputs and outputs of different names; it has {', '.join(names)}")
    for port in (*inputs, *outputs):
        if port.dtype not in DATA_TYPES:
            raise TaskError(f"{what} has {port.name!r} of the dtype {port.dtype}; servers take {', '.join(DATA_TYPES)}")
        if any(isinstance(side, int) and side < 1 for side in port.shape):
            raise TaskError(
                f"{what} has {port.name!r} of the sides {list(port.shape)}; each must be 1 or more, or a name"
            )
        if not port.shape or isinstance(port.shape[0], int):
            raise TaskError(f"{what} has a fixed batch size in {port.name}; export it with any size")


def _port(value: Any, what: str) -> Port:
    tensor = value.type.tensor_type
    names = {number: dtype for dtype, (_, number) in DATA_TYPES.items()}
    if not value.type.HasField("tensor_type") or not tensor.HasField("shape"):
        raise CheckpointError(f"{what} has {value.name!r} that is no tensor of known sides, which a server needs")
    shape = [side.dim_value if side.HasField("dim_value") else side.dim_param or "any" for side in tensor.shape.dim]
    return Port(value.name, names.get(tensor.elem_type, f"number {tensor.elem_type} of ONNX"), shape)
