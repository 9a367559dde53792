"""Opens the files that `zellige export --to onnx` wrote as models that generate."""

from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from zellige.errors import CheckpointError, DeviceError, TaskError

from .checkpoint.file import Header, check_allocation, validated
from .device import DTYPES
from .onnx.file import open_model
from .onnx.metadata import Metadata
from .runtimes import checked_name
from .runtimes.graph_file import EXPORT_AGAIN, GraphFile, sides_of
from .systems import system_of

__all__ = ["check_size", "describe_exported", "is_exported", "open_exported"]


def is_exported(path: Path) -> bool:
    """Whether a path's name ends as an exported file's does."""
    return path.suffix.lower() == ".onnx"


def open_exported(path: Path, device: torch.device, precision: str = "auto", runtime: str = "auto") -> Any:
    """Open a file that `zellige export` wrote for a task whose inputs can be drawn from a seed.

    Args:
        path: a .onnx file.
        device: the device to run it on.
        precision: "auto", or the precision that the file was exported in.
        runtime: "auto" or "onnx" for ONNX Runtime, "tensorrt" on CUDA.
    Returns:
        a `Model`, with the tasks that the file allows.
    Raises:
        CheckpointError: the file is damaged (see engine/onnx/file.py), or its graph contradicts its metadata.
        UnknownModelError: `zellige export` did not write the file, or its system has no row in the table.
        TaskError: the inputs of the file's task cannot be drawn from a seed.
        DeviceError: the file has another precision, or the runtime cannot run it on this device.
    """
    chosen = checked_name("onnx" if runtime == "auto" else runtime, device=device)
    if chosen == "torch":
        raise DeviceError(f"{path} is an ONNX file, which the runtimes 'onnx' and 'tensorrt' run, and not 'torch'")
    model = open_model(path)
    said = _metadata(path, model)
    system = system_of(said.system).part("model")
    if said.task not in system.RUNS:
        raise TaskError(
            f"{path} holds the task {said.task!r} of a {said.system} model, whose inputs cannot be drawn from a seed; "
            "run it with onnxruntime as docs/deploying.md shows, or load the checkpoint that it was exported from"
        )
    if precision not in ("auto", said.precision):
        raise DeviceError(
            f"{path} computes in {said.precision}; take the precision auto, or export the model in {precision}"
        )
    if (chosen, device.type, said.precision) == ("onnx", "cpu", "bf16"):
        raise DeviceError(f"{path} computes in bf16, which ONNX Runtime cannot on CPUs; export it in fp32 or fp16")
    header = Header(path, said.system, dict(said.config), {}, {})
    graph = GraphFile(path, model, chosen, device, DTYPES[said.precision])
    check_size(header, graph.weights, device)
    return system.open_graph(said.task, header, graph)


def check_size(header: Header, held: int, device: torch.device) -> ModuleType:
    """Refuse a configuration that asks for more than its file holds or the device has, before networks are built.

    Args:
        header: with the configuration.
        held: elements that the file can hold, as in `check_allocation`.
        device: where the networks will be.
    Returns:
        the file `model` of the system.
    Raises:
        CheckpointError: the configuration is refused, by its system or for its size.
    """
    system = system_of(header.system)
    model = system.part("model")
    with torch.device("meta"):
        check_allocation(header.path, model.build(validated(header, system.part("config").Config)), held, device)
    return model


def describe_exported(path: Path) -> dict[str, Any]:
    """The properties of an exported file, for `zellige info`.

    Returns:
        name, system, task, flavour, precision, output, resolution (WIDTHxHEIGHT of one turn), bytes, licence, model
        (the one that was exported), inputs and outputs (names, shapes with N for the batch), config, path.
    Raises:
        CheckpointError, UnknownModelError: as in `open_exported`.
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
        raise CheckpointError(f"{path} has the unknown precision {said.precision!r}; {EXPORT_AGAIN}")
    return said
