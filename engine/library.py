"""Loads and lists models: bundled ones by name, checkpoints and exported files by path."""

import logging
import math
import os
from pathlib import Path
from typing import Any

import torch

from zellige.errors import CheckpointError, TaskError, UnknownModelError

from .checkpoint.file import Header, check_tensors, read_header, validated
from .device import pick_device, pick_precision
from .exported import check_size, is_exported, open_exported
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
        device: "auto" (CUDA if this machine has it, else the CPU), "cpu" or "cuda".
        precision: "auto" (bf16 if the hardware multiplies in it, else fp32), "fp32", "bf16", or on CUDA "fp16".
        runtime: "auto" ("torch" for a checkpoint, "onnx" for an exported file), "torch", "onnx" (ONNX Runtime; runs
            checkpoints in fp32 only) or "tensorrt" (on CUDA).
        rewrite: run layers in the exact rewrites that are faster here. The first load measures them in a second or
            two and keeps the winners in the user's cache folder, or in the folder ZELLIGE_CACHE.
    Returns:
        a `Model` (engine/systems/system.py), ready to generate. It has a method for each task of its system; the
        model of an exported file has only the methods that its one task allows.
    Raises:
        UnknownModelError: the model is neither a bundled name nor a file, or this version cannot run its system.
        CheckpointError: the file is damaged or not a Zellige model.
        DeviceError: this machine has no such device or precision.
        TaskError: the file was exported for a task that begins with images.
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
    """Open a checkpoint, with arguments as in `load`; an exported file is refused because it lacks trained weights."""
    path = find(model)
    if is_exported(path):
        raise TaskError(
            f"{path} was exported for one task and cannot do this; give the checkpoint that it was exported from"
        )
    header = _model_header(path)
    chosen, engine = pick_device(device), "torch" if runtime == "auto" else runtime
    dtype = pick_precision("fp32" if (engine, precision) == ("onnx", "auto") else precision, chosen)
    part = check_size(header, header.elements, chosen)
    return part.open_model(header, header.path.stem, chosen, dtype, rewrite=rewrite, runtime=engine)


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
    """Open a model for one of its tasks; a model without that task is refused before its tensors are read.

    Args:
        task: the task's name.
        model, device, precision, runtime: as in `load`.
        weights: whether the model must have its weights as they were trained; exported files do not.
    Raises:
        TaskError: the model's system has no such task, or the exported file does not allow it.
        ZelligeError: as in `load`.
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
    """The file that a bundled name or a path means; text with a separator or a suffix is a path."""
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
    """The bundled models and, if a folder is given, its checkpoints; one dictionary for each.

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
