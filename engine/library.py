"""Models by name: the bundled ones, and any checkpoint or exported file."""

import logging
import math
import os
from pathlib import Path
from typing import Any

import torch

from zellige.errors import CheckpointError, TaskError, UnknownModelError

from .checkpoint.file import Header, check_tensors, read_header, validated
from .device import pick_device, pick_precision
from .exported import is_exported, open_exported
from .layers.ambient import own_modes
from .systems import SYSTEMS, all_systems, system_of
from .systems.system import System

__all__ = ["find", "list_models", "load", "load_checkpoint", "load_task"]

logger = logging.getLogger(__name__)
BUNDLED = Path(__file__).parent / "bundled"


@own_modes()
def load(
    model: str | os.PathLike[str], device: str = "auto", precision: str = "auto", *,
    rewrite: bool = True, runtime: str = "auto",
) -> Any:  # fmt: skip
    """Open a model: a bundled name such as "planet", or the path of a checkpoint or of an exported .onnx file.

    Args:
        model: name or path.
        device: "auto" (CUDA where there is one), "cpu" or "cuda".
        precision: "auto" (bf16 where the hardware has it, else fp32), "fp32", "bf16", or on CUDA "fp16".
        runtime: "auto", which is "torch", and of an exported file "onnx"; "onnx" for ONNX Runtime, of a checkpoint in
            fp32; "tensorrt", on CUDA.
        rewrite: run with the exact rewrites of layers that are faster here. The first time they are measured, in a
            second or two; what won is kept in the user's cache folder, or where ZELLIGE_CACHE says.
    Returns:
        a `Model` (engine/systems/system.py), ready to generate, with a method for each task of its system; of an
        exported file, with those that its one task allows.
    Raises:
        UnknownModelError: neither a bundled name nor a file, or of a system that this version cannot run.
        CheckpointError: the file is damaged or not ours.
        DeviceError: no such device or precision here.
        TaskError: an exported file of a task that begins with images.
    """
    path = find(model)
    if is_exported(path):
        return open_exported(path, pick_device(device), precision, runtime)
    return load_checkpoint(model, device, precision, rewrite=rewrite, runtime=runtime)


@own_modes()
def load_checkpoint(
    model: str | os.PathLike[str], device: str = "auto", precision: str = "auto", *,
    rewrite: bool = True, runtime: str = "auto",
) -> Any:  # fmt: skip
    """Open a model that has its weights as they were trained; arguments as of `load`."""
    path = find(model)
    if is_exported(path):
        raise TaskError(
            f"{path} was exported for one task and cannot do this; give the checkpoint that it was exported from"
        )
    header = _model_header(path)
    chosen, engine = pick_device(device), "torch" if runtime == "auto" else runtime
    dtype = pick_precision("fp32" if (engine, precision) == ("onnx", "auto") else precision, chosen)
    opened = system_of(header.system).part("model").open_model
    return opened(header, header.path.stem, chosen, dtype, rewrite=rewrite, runtime=engine)


@own_modes()
def load_task(
    task: str,
    model: str | os.PathLike[str],
    device: str = "auto",
    precision: str = "auto",
    runtime: str = "auto",
    *,
    weights: bool = False,
) -> Any:
    """Open a model for one of its tasks, and refuse others before their tensors are read.

    Args:
        task: its name.
        model, device, precision, runtime: as of `load`.
        weights: whether it must have its weights as they were trained.
    Raises:
        TaskError: the model's system has no such task, or an exported file does not allow it; what `load` raises.
    """
    path = find(model)
    if is_exported(path) and not weights:
        made = open_exported(path, pick_device(device), precision, runtime)
        if not hasattr(made, task):
            raise TaskError(
                f"{path} was exported for one task, which allows no {task}; give the checkpoint that it was exported "
                "from"
            )
        return made
    if not is_exported(path):
        header = _model_header(path)
        having = [system for system in all_systems() if task in (own.name for own in system.tasks)]
        if header.system not in (system.name for system in having):
            raise TaskError(
                f"{task} needs a {_either(having)} model, and {header.path} holds a {header.system} model; "
                "`zellige models` lists models with their systems"
            )
    return load_checkpoint(model, device, precision, runtime=runtime)


def find(model: str | os.PathLike[str]) -> Path:
    """The checkpoint file that a name or a path means; a path has a separator or a suffix."""
    text = os.fspath(model)
    if os.sep in text or Path(text).suffix:
        return Path(text)
    path = BUNDLED / f"{text}.safetensors"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in BUNDLED.glob("*.safetensors"))) or "none"
        raise UnknownModelError(
            f"there is no model {text!r}; bundled models: {known}; or give the path of a checkpoint"
        )
    return path


def list_models(folder: Path | None = None) -> list[dict[str, Any]]:
    """The bundled models, and the checkpoints of a folder if one is given, one dictionary each.

    A file that could not be opened, as its header tells, is left out, and a warning says why.

    Keys: name, system, resolution (WIDTHxHEIGHT of one turn; None for systems that this version cannot run),
    parameters, bytes, licence, description, path.

    Raises:
        UnknownModelError: there is no such folder.
    """
    if folder is not None and not folder.is_dir():
        raise UnknownModelError(f"{folder} is not a folder; give one that holds .safetensors files")
    paths = sorted(BUNDLED.glob("*.safetensors")) + (sorted(folder.glob("*.safetensors")) if folder else [])
    rows = []
    for path in paths:
        try:
            header = read_header(path)
            if "progress" not in header.details:  # the state of a training run has it
                rows.append(_row(header))
        except CheckpointError as error:
            logger.warning("left out: %s", error)
    return rows


def _row(header: Header) -> dict[str, Any]:
    resolution = None
    if header.system in SYSTEMS:
        config, model = (system_of(header.system).part(name) for name in ("config", "model"))
        chosen = validated(header, config.Config)
        with torch.device("meta"):
            check_tensors(header, model.build(chosen), model.PREFIX)
        height, width = chosen.size
        resolution = f"{width}x{height}"
    return {
        "name": header.path.stem,
        "system": header.system,
        "resolution": resolution,
        "parameters": sum(math.prod(t.shape) for n, t in header.tensors.items() if "running_" not in n),
        "bytes": header.path.stat().st_size,
        "licence": header.details.get("licence", "unknown"),
        "description": header.details.get("description", ""),
        "path": str(header.path),
    }


def _model_header(path: Path) -> Header:
    header = read_header(path)
    if header.system not in SYSTEMS:
        raise UnknownModelError(
            f"{path} holds a {header.system} model, which this version cannot run; it runs {', '.join(SYSTEMS)}"
        )
    if "progress" in header.details:
        raise UnknownModelError(f"{path} is the state of a training run, not a model; load model.safetensors beside it")
    return header


def _either(systems: list[System]) -> str:
    return " or ".join(system.name for system in systems)
