"""Export of models to ONNX files, each of which is compared with PyTorch before it gets its name."""

import hashlib
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from zellige.errors import DeviceError, TaskError

from ..engine.device import DTYPES
from ..engine.files.atomic import AtomicFile, output_errors, take_name
from ..engine.library import load_checkpoint
from ..engine.onnx.metadata import Metadata
from ..engine.runtimes.onnx_export import OPSET, OnnxGraph, onnx_graph
from ..engine.systems.graph import OUTPUTS, Output
from . import nodes
from .network import TaskNetwork, task_network
from .verify import BATCHES, verify

__all__ = ["EXTERNAL_BYTES", "FLAVOURS", "export_onnx", "written_onnx"]

Flavour = Literal["portable", "fused"]
FLAVOURS = ("portable", "fused")
EXTERNAL_BYTES = 2**31 - 2**20  # a file of protobuf ends at 2 GiB; larger weights lie beside it
_SMALL = 1024  # bytes of tensors that always stay in the file


def export_onnx(
    model: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    task: str = "generate",
    flavour: Flavour = "portable",
    precision: str = "fp32",
    output: Output = "image",
    batches: Sequence[int] = BATCHES,
) -> dict[str, Any]:
    """Export a task of a model to a .onnx file for batches of any size.

    Inputs and outputs have names, and the same dtypes in every precision: latents and coordinates are float32, classes
    int64, images uint8 [N, H, W, 3]. All arithmetic before and after the network is in the file.

    Args:
        model: a bundled name, or the path of a checkpoint.
        out: the file; weights of 2 GiB and more lie beside it in `out`.data.
        task: one of the graphs of the model's system.
        flavour: "portable" holds standard operators alone; "fused" our kernels as nodes of the domain `zellige`, with
            a function of standard operators for each.
        precision: "fp32", "fp16" or "bf16", of convolutions and of the norms behind them.
        output: "image" for bytes, "float" for float32 images in [-1, 1].
        batches: numbers of rows at which the file is compared with PyTorch.
    Returns:
        report: out, format, flavour, precision, task, output, opset, bytes, sha256, inputs and outputs (name, dtype,
        shape), verification (rows of `export.verify.Difference`), seconds.
    Raises:
        ExportError: the network cannot be exported, or the file computes something else; no file is left.
        TaskError, DeviceError: the task, flavour, output or precision does not exist.
        OutputError: the file cannot be written.
        MissingExtraError: a package of the extra `export` is missing.
    """
    began = time.perf_counter()
    path = Path(out)
    AtomicFile(path)  # refuses a path that cannot be written, before minutes of work
    graph, described = written_onnx(model, task=task, flavour=flavour, precision=precision, output=output)
    place = path.resolve()  # a symbolic link stays a link, and external data lie beside its target
    with output_errors(path), tempfile.TemporaryDirectory(prefix=".zellige-", dir=place.parent) as folder:
        draft = Path(folder) / place.name
        files = _save(graph.model, draft)
        checked = verify(graph, str(draft), described, precision, batches)
        for file in reversed(files):  # the model comes last, because it must not be there without its weights
            take_name(file, place.with_name(file.name))
    return {
        "out": str(path), "format": "onnx", "flavour": flavour, "precision": precision, "task": task,
        "output": output, "opset": OPSET, "bytes": sum(place.with_name(f.name).stat().st_size for f in files),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "inputs": _values(graph.model.graph.input), "outputs": _values(graph.model.graph.output),
        "verification": checked, "seconds": time.perf_counter() - began,
    }  # fmt: skip


def written_onnx(
    model: str | os.PathLike[str], *, task: str, flavour: Flavour, precision: str, output: Output
) -> tuple[OnnxGraph, TaskNetwork]:
    """Return the model of a task with its metadata, and the network it was made of; arguments as in `export_onnx`."""
    if flavour not in FLAVOURS:
        raise TaskError(f"there is no flavour {flavour!r} of ONNX files; use {' or '.join(FLAVOURS)}")
    if output not in OUTPUTS:
        raise TaskError(f"there is no output {output!r}; use {' or '.join(OUTPUTS)}")
    if precision not in DTYPES:
        raise DeviceError(f"there is no precision {precision!r} for export; use {', '.join(DTYPES)}")
    loaded = load_checkpoint(model, "cpu", "fp32", rewrite=False)
    described = task_network(loaded, task, output, precision)
    example = described.example(2)
    translations = nodes.translations() if flavour == "fused" else None
    graph = onnx_graph(described.module, list(example.values()), list(example), described.outputs, translations)
    if flavour == "fused":
        graph.model.functions.extend(nodes.functions_of(graph.model))
    height, width = loaded.size
    Metadata(
        system=loaded.system, task=task, config=loaded.config.model_dump(mode="json"), precision=precision,
        output=output, height=height, width=width, model=loaded.name, flavour=flavour,
        licence=str(loaded.header.details.get("licence", "unknown")),
    ).write(graph.model)  # fmt: skip
    return graph, described


def _save(model: Any, path: Path) -> list[Path]:
    """Write a model into a folder of its own, and return its files, the model first."""
    import onnx

    if model.ByteSize() < EXTERNAL_BYTES:
        path.write_bytes(model.SerializeToString(deterministic=True))
        return [path]
    beside = path.with_name(f"{path.name}.data")
    apart = onnx.ModelProto()
    apart.CopyFrom(model)
    onnx.save_model(
        apart, path, save_as_external_data=True, all_tensors_to_one_file=True, location=beside.name,
        size_threshold=_SMALL,
    )  # fmt: skip
    return [path, beside]


def _values(values: Any) -> list[dict[str, Any]]:
    import onnx

    return [
        {
            "name": value.name,
            "dtype": onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).name,
            "shape": [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim],
        }
        for value in values
    ]
