"""Files that `zellige export --to onnx` wrote, as models that generate."""

from pathlib import Path
from typing import Any

import torch

from zellige.errors import CheckpointError, DeviceError, TaskError

from .checkpoint.file import Header
from .device import DTYPES
from .onnx.file import open_model
from .onnx.metadata import Metadata
from .runtimes import checked_name
from .runtimes.graph_file import EXPORT_AGAIN, GraphFile, sides_of
from .systems import system_of

__all__ = ["describe_exported", "is_exported", "open_exported"]


def is_exported(path: Path) -> bool:
    """Whether a path is that of an exported file, by its name."""
    return path.suffix.lower() == ".onnx"


def open_exported(path: Path, device: torch.device, precision: str = "auto", runtime: str = "auto") -> Any:
    """Open a file that `zellige export` wrote of a task whose inputs a seed can draw.

    Args:
        path: a .onnx file.
        device: where it shall run.
        precision: "auto", or that of the file.
        runtime: "auto" or "onnx" for ONNX Runtime, "tensorrt" on CUDA.
    Returns:
        a `Model`, with the tasks that the file allows.
    Raises:
        CheckpointError: the file is damaged (see engine/onnx/file.py), or is not what it says of itself.
        UnknownModelError: it was not written by `zellige export`, or is of a system without a row in the table.
        TaskError: it holds another task; DeviceError: it has another precision, or cannot run so.
    """
    chosen = checked_name("onnx" if runtime == "auto" else runtime, device=device)
    if chosen == "torch":
        raise DeviceError(f"{path} is an ONNX file, which the runtimes 'onnx' and 'tensorrt' run, and not 'torch'")
    model = open_model(path)
    said = _metadata(path, model)
    system = system_of(said.system).part("model")
    if said.task not in system.RUNS:
        raise TaskError(
            f"{path} holds the task {said.task!r} of a {said.system} model, whose inputs come from no seed; "
            "run it by onnxruntime as docs/deploying.md shows, or load the checkpoint that it was exported from"
        )
    if precision not in ("auto", said.precision):
        raise DeviceError(
            f"{path} computes in {said.precision}; take the precision auto, or export the model in {precision}"
        )
    if (chosen, device.type, said.precision) == ("onnx", "cpu", "bf16"):
        raise DeviceError(f"{path} computes in bf16, which ONNX Runtime does not on CPUs; export it in fp32 or fp16")
    header = Header(path, said.system, dict(said.config), {}, {})
    return system.open_graph(said.task, header, GraphFile(path, model, chosen, device, DTYPES[said.precision]))


def describe_exported(path: Path) -> dict[str, Any]:
    """What an exported file is.

    Returns:
        name, system, task, flavour, precision, output, resolution (WIDTHxHEIGHT of one turn), bytes, licence, model
        (that it was exported from), inputs and outputs (name, shape with N for the batch), config, path.
    Raises:
        CheckpointError, UnknownModelError: as of `open_exported`.
    """
    model = open_model(path)
    said = _metadata(path, model)

    def shown(values: Any) -> str:
        return ", ".join(f"{value.name} [{', '.join(map(str, ['N', *sides_of(value)]))}]" for value in values)

    file = GraphFile(path, model, "onnx", torch.device("cpu"), DTYPES[said.precision])
    return {
        "name": path.stem, "system": said.system, "task": said.task, "flavour": said.flavour,
        "precision": said.precision, "output": said.output, "resolution": f"{said.width}x{said.height}",
        "bytes": file.bytes, "licence": said.licence, "model": said.model, "inputs": shown(model.graph.input),
        "outputs": shown(model.graph.output), "config": dict(said.config), "path": str(path),
    }  # fmt: skip


def _metadata(path: Path, model: Any) -> Metadata:
    said = Metadata.read(model, path)
    if said.precision not in DTYPES:
        raise CheckpointError(f"{path} has the precision {said.precision!r}, which is none; {EXPORT_AGAIN}")
    return said
