"""Models by name: the bundled ones, and any checkpoint file."""

import logging
import math
import os
from pathlib import Path
from typing import Any, TypeVar

from zellige.errors import CheckpointError, TaskError, UnknownModelError

from .checkpoint.file import Header, read_header, validated
from .device import pick_device, pick_precision
from .exported import is_exported, open_exported
from .systems import system_of
from .systems.coco_gan.config import CocoGanConfig
from .systems.coco_gan.images import CocoGanImages
from .systems.coco_gan.model import CocoGan
from .systems.coco_gan.pictures import PatchPictures
from .systems.onegan.config import OneGanConfig
from .systems.onegan.images import OneGanImages
from .systems.onegan.model import OneGan

__all__ = ["find", "list_models", "load", "load_checkpoint", "load_for", "load_task"]

logger = logging.getLogger(__name__)
BUNDLED = Path(__file__).parent / "bundled"
SystemT = TypeVar("SystemT", bound=PatchPictures | OneGanImages)
_SYSTEMS: dict[str, type[CocoGan] | type[OneGan]] = {system.system: system for system in (CocoGan, OneGan)}


def load(
    model: str | os.PathLike[str], device: str = "auto", precision: str = "auto", *,
    rewrite: bool = True, runtime: str = "auto",
) -> PatchPictures | OneGanImages | CocoGanImages:  # fmt: skip
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
        the model, ready to generate; a `CocoGan` or a `OneGan`, which have the tasks of their systems, or of an
        exported file what its one task allows.
    Raises:
        UnknownModelError: neither a bundled name nor a file.
        CheckpointError: the file is damaged or not ours.
        DeviceError: no such device or precision here.
        TaskError: an exported file of a task that begins with images.
    """
    path = find(model)
    if is_exported(path):
        return open_exported(path, pick_device(device), precision, runtime)
    return load_checkpoint(model, device, precision, rewrite=rewrite, runtime=runtime)


def load_checkpoint(
    model: str | os.PathLike[str], device: str = "auto", precision: str = "auto", *,
    rewrite: bool = True, runtime: str = "auto",
) -> CocoGan | OneGan:  # fmt: skip
    """Open a model that has its weights as they were trained; arguments as of `load`."""
    header = _model_header(_checkpoint(find(model)))
    return _opened(_SYSTEMS[header.system], header, device, precision, rewrite, runtime)


def load_for(
    system: type[SystemT],
    task: str,
    model: str | os.PathLike[str],
    device: str = "auto",
    precision: str = "auto",
    runtime: str = "auto",
) -> SystemT:
    """Open a model for a task that only one system has, and refuse others before their tensors are read.

    Args:
        system: `CocoGan` or `OneGan`; `PatchPictures` or `OneGanImages` where a file exported for that will do.
        task: its name, for the error.
        model, device, precision, runtime: as of `load`.
    Raises:
        TaskError: the model is of another system; what `load` raises.
    """
    path = find(model)
    if is_exported(path) and not issubclass(system, CocoGan | OneGan):
        made = open_exported(path, pick_device(device), precision, runtime)
        if not isinstance(made, system):
            wanted = "patches" if issubclass(system, PatchPictures) else "generate"
            raise TaskError(
                f"{task} needs a {system.system} model, of files one exported with --task {wanted}; {path} makes "
                f"{'patches' if isinstance(made, PatchPictures) else 'whole images'} of a {made.system} model"
            )
        return made
    header = _model_header(_checkpoint(path))
    found = _SYSTEMS[header.system]
    if not issubclass(found, system):
        raise TaskError(
            f"{task} needs a {system.system} model, and {header.path} holds a {header.system} model; "
            "`zellige models` lists models with their systems"
        )
    made = _opened(found, header, device, precision, runtime=runtime)
    assert isinstance(made, system)
    return made


def load_task(
    task: str, model: str | os.PathLike[str], device: str = "auto", precision: str = "auto", runtime: str = "auto"
) -> Any:
    """Open a model that has a task, or refuse before its tensors are read."""
    path = find(model)
    if is_exported(path):
        made = open_exported(path, pick_device(device), precision, runtime)
        if not hasattr(made, task):
            raise TaskError(f"{path} was exported for one task, which is not {task}; give the checkpoint")
        return made
    header = _model_header(path)
    if not any(known.name == task for known in system_of(header.system).tasks):
        raise TaskError(
            f"{task} is no task of {path}, which holds a {header.system} model; `zellige models` lists models"
        )
    return _opened(_SYSTEMS[header.system], header, device, precision, runtime=runtime)


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

    Keys: name, system, resolution (WIDTHxHEIGHT of one turn), parameters, bytes, licence, description, path.

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
            if "progress" in header.details:  # the state of a training run
                continue
            height, width = _resolution(header)
        except CheckpointError as error:
            logger.warning("left out: %s", error)
            continue
        rows.append(
            {
                "name": path.stem,
                "system": header.system,
                "resolution": f"{width}x{height}",
                "parameters": sum(math.prod(t.shape) for n, t in header.tensors.items() if "running_" not in n),
                "bytes": path.stat().st_size,
                "licence": header.details.get("licence", "unknown"),
                "description": header.details.get("description", ""),
                "path": str(path),
            }
        )
    return rows


def _checkpoint(path: Path) -> Path:
    """A path that is not that of an exported file."""
    if is_exported(path):
        raise TaskError(
            f"{path} was exported for one task and cannot do this; give the checkpoint that it was exported from"
        )
    return path


def _model_header(path: Path) -> Header:
    header = read_header(path)
    if header.system not in _SYSTEMS:
        raise UnknownModelError(
            f"{path} holds a {header.system} model, which this version cannot run; it runs {', '.join(_SYSTEMS)}"
        )
    if "progress" in header.details:
        raise UnknownModelError(f"{path} is the state of a training run, not a model; load model.safetensors beside it")
    return header


def _opened(
    system: type[CocoGan] | type[OneGan], header: Header, device: str, precision: str, rewrite: bool = True,
    runtime: str = "auto",
) -> CocoGan | OneGan:  # fmt: skip
    chosen, engine = pick_device(device), "torch" if runtime == "auto" else runtime
    dtype = pick_precision("fp32" if (engine, precision) == ("onnx", "auto") else precision, chosen)
    return system(header, header.path.stem, chosen, dtype, rewrite=rewrite, runtime=engine)


def _resolution(header: Header) -> tuple[int, int]:
    if header.system == OneGan.system:
        side = validated(header, OneGanConfig).resolution
        return side, side
    return validated(header, CocoGanConfig).resolution
