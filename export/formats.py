"""The formats that are made from a verified ONNX file: TensorRT engines, and model repositories."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from zellige.errors import TaskError

from ..engine.files.atomic import AtomicFile
from ..engine.library import find
from ..engine.onnx.file import open_model
from ..engine.runtimes.buckets import BUCKETS
from ..engine.systems.graph import Output
from ..engine.tensorrt.build import way_to_build
from ..engine.tensorrt.graph import check_ascending
from .onnx import export_onnx
from .plugins import register_plugins, split_for_plugins
from .server.repository import Port, write_repository
from .tensorrt import Profile, export_tensorrt

__all__ = ["export_engine", "export_repository"]

_ONNX = "model.onnx"


def export_engine(
    model: str,
    out: Path,
    *,
    task: str = "generate",
    flavour: Literal["rtx", "full"] | None = None,
    precision: str = "fp32",
    output: Output = "image",
    targets: Sequence[str] = (),
    profiles: Sequence[Profile] = (BUCKETS,),
) -> dict[str, Any]:
    """Build a TensorRT engine of a task from an ONNX file, which is verified as in `export_onnx`.

    Full TensorRT gets our kernels as plugins, TensorRT-RTX standard operators alone.

    Args:
        model, task, precision, output: as in `export_onnx`.
        out: the file; an existing one is replaced.
        flavour: "rtx", "full", or None for an installed one that fits.
        targets, profiles: as in `build_engine`.
    Returns:
        the report of the ONNX file, whose `flavour` becomes `graph`, updated with the report of the engine.
    Raises:
        the errors of `export_onnx` and `export_tensorrt`.
    """
    # The model is not needed to refuse these, so they are checked before it is exported.
    AtomicFile(out)
    check_ascending(profiles)
    way = way_to_build(flavour, targets)
    full = way.flavour.name == "full"
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / _ONNX
        graph = export_onnx(
            model, draft, task=task, flavour="fused" if full else "portable", precision=precision, output=output
        )
        network = _with_plugins(draft, way.library) if full else draft
        built = export_tensorrt(network, out, flavour=way.flavour.name, targets=targets, profile=profiles)
    seconds = graph["seconds"] + built["seconds"]
    built.pop("path")
    return graph | built | {"format": "tensorrt", "graph": graph["flavour"], "out": str(out), "seconds": seconds}


def export_repository(
    model: str,
    out: Path,
    *,
    task: str = "generate",
    flavour: Literal["portable", "full"] = "portable",
    precision: str = "fp32",
    output: Output = "image",
    max_batch: int = 32,
    instances: int = 1,
    device: Literal["cpu", "gpu"] = "gpu",
) -> dict[str, Any]:
    """Write a model repository of one model for NVIDIA's Triton Inference Server.

    Args:
        model, task, precision, output: as in `export_onnx`.
        out: the repository; made if it is missing.
        flavour: "portable" for an ONNX file, "full" for an engine that full TensorRT builds for the GPU at hand.
        max_batch, instances, device: as in `write_repository`.
    Returns:
        the report of the model's file, with `name`, `backend`, `config`, `files` and `bytes` of the repository.
    Raises:
        TaskError: repositories do not have this flavour. The exports' errors are raised too.
    """
    if flavour not in ("portable", "full"):
        raise TaskError(f"there are no repositories of the flavour {flavour!r}; use portable (ONNX) or full (TensorRT)")
    name = find(model).stem + ("" if task == "generate" else f"-{task}")
    with tempfile.TemporaryDirectory() as folder:
        ports, metadata = None, None
        if flavour == "full":
            draft = Path(folder) / "model.plan"
            profile = (1, max(1, max_batch // 4), max_batch)
            report = export_engine(
                model, draft, task=task, flavour="full", precision=precision, output=output, profiles=(profile,)
            )
            given, made = ([Port(**value) for value in report[key]] for key in ("inputs", "outputs"))
            ports, metadata = (given, made), report["metadata"]
        else:
            draft = Path(folder) / _ONNX
            report = export_onnx(model, draft, task=task, precision=precision, output=output)
        written = write_repository(
            draft, out, name=name, max_batch=max_batch, instances=instances, device=device, ports=ports,
            metadata=metadata,
        )  # fmt: skip
    return report | written | {"format": "triton-repository", "out": str(out)}


def _with_plugins(draft: Path, library: Any) -> bytes:
    """Return the model with a node for each plugin and no functions; its plugins are now registered with TensorRT."""
    model = split_for_plugins(open_model(draft))
    del model.functions[:]
    register_plugins(library)
    content: bytes = model.SerializeToString(deterministic=True)
    return content
