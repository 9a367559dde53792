"""Files that `zellige export --to onnx` wrote, as models that generate."""

import json
import math
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch

from zellige.errors import CheckpointError, DeviceError, TaskError, UnknownModelError

from .checkpoint.file import Header, validated
from .device import DTYPES
from .onnx.file import open_model
from .runtimes import BUCKETS, Runtime, checked_name, open_runtime
from .systems.coco_gan.config import CocoGanConfig
from .systems.coco_gan.generator import Generator
from .systems.coco_gan.graph_patches import GraphPatches
from .systems.coco_gan.images import CocoGanImages
from .systems.coco_gan.pictures import PatchPictures
from .systems.onegan.config import OneGanConfig
from .systems.onegan.images import INPUTS, OneGanImages

__all__ = ["describe_exported", "is_exported", "open_exported"]

_PREFIX = "zellige."
_KEYS = ("system", "task", "config", "output", "precision")
_AGAIN = "export it again"


def is_exported(path: Path) -> bool:
    """Whether a path is that of an exported file, by its name."""
    return path.suffix.lower() == ".onnx"


def open_exported(
    path: Path, device: torch.device, precision: str = "auto", runtime: str = "auto"
) -> PatchPictures | OneGanImages | CocoGanImages:
    """Open a file that `zellige export` wrote of the task `generate`, or `patches` of a COCO-GAN.

    Args:
        path: a .onnx file.
        device: where it shall run.
        precision: "auto", or that of the file.
        runtime: "auto" or "onnx" for ONNX Runtime, "tensorrt" on CUDA.
    Raises:
        CheckpointError: the file is damaged (see engine/onnx/file.py), or is not what it says of itself.
        UnknownModelError: it was not written by `zellige export`.
        TaskError: it holds another task; DeviceError: it has another precision, or cannot run so.
    """
    chosen = checked_name("onnx" if runtime == "auto" else runtime, device=device)
    if chosen == "torch":
        raise DeviceError(f"{path} is an ONNX file, which the runtimes 'onnx' and 'tensorrt' run, and not 'torch'")
    model = open_model(path)
    said = _metadata(path, model)
    _check_task(path, said)
    if precision not in ("auto", said["precision"]):
        raise DeviceError(
            f"{path} computes in {said['precision']}; take the precision auto, or export the model in {precision}"
        )
    if (chosen, device.type, said["precision"]) == ("onnx", "cpu", "bf16"):
        raise DeviceError(f"{path} computes in bf16, which ONNX Runtime does not on CPUs; export it in fp32 or fp16")
    system, task, dtype = said["system"], said["task"], DTYPES[said["precision"]]
    header = Header(path, system, json.loads(said["config"]), {}, {})

    def opened(sizes: Sequence[int] = BUCKETS, memory: int | None = None) -> Runtime:
        return open_runtime(chosen, path, device, sizes, memory)

    if (system, task) == ("onegan", "generate"):
        one = validated(header, OneGanConfig)
        side = one.resolution, one.resolution
        _check_values(path, model, {name: [one.latent] if name == "latent" else [] for name in INPUTS}, side, 3)
        runtime_of_all = cache(lambda: opened())
        return OneGanImages(one, path.stem, device, dtype, lambda output: runtime_of_all())
    config = validated(header, CocoGanConfig)
    if task == "generate":
        _check_values(path, model, {"latent": [config.latent]}, config.resolution, config.channels)
        return CocoGanImages(config, path.stem, device, dtype, opened())
    conditions = {"latent": [config.latent], "coordinates": [config.lattice.dimensions]}
    _check_values(path, model, conditions, (config.patch, config.patch), config.channels)
    graphs = GraphPatches(lambda block, sizes, memory: opened(sizes, memory), config, device, single=True)
    return PatchPictures(_without_weights(path, config, device), path.stem, graphs)


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
        return ", ".join(f"{value.name} [{', '.join(map(str, ['N', *_sides(value)]))}]" for value in values)

    return {
        "name": path.stem, "system": said["system"], "task": said["task"], "flavour": said.get("flavour", "unknown"),
        "precision": said["precision"], "output": said["output"],
        "resolution": f"{said.get('width', '?')}x{said.get('height', '?')}", "bytes": _held(path),
        "licence": said.get("licence", "unknown"), "model": said.get("model", "unknown"),
        "inputs": shown(model.graph.input), "outputs": shown(model.graph.output),
        "config": json.loads(said["config"]), "path": str(path),
    }  # fmt: skip


def _metadata(path: Path, model: Any) -> dict[str, str]:
    entries = (entry for entry in model.metadata_props if entry.key.startswith(_PREFIX))
    said = {entry.key.removeprefix(_PREFIX): entry.value for entry in entries}
    if any(key not in said for key in _KEYS):
        raise UnknownModelError(
            f"{path} does not say what it is, so it was not written by `zellige export`, or cut off; "
            "give a model's checkpoint, or a file that was exported from one"
        )
    try:
        known = said["precision"] in DTYPES and isinstance(json.loads(said["config"]), dict)
    except (ValueError, RecursionError):
        known = False
    if not known:
        raise CheckpointError(f"{path} has a configuration or a precision that is none; {_AGAIN}")
    return said


def _check_task(path: Path, said: Mapping[str, str]) -> None:
    task = said["system"], said["task"]
    if task not in (("onegan", "generate"), ("coco-gan", "generate"), ("coco-gan", "patches")):
        raise TaskError(
            f"{path} holds the task {said['task']!r} of a {said['system']} model, whose inputs come from no seed; "
            "run it by onnxruntime as docs/deploying.md shows, or load the checkpoint that it was exported from"
        )


def _check_values(
    path: Path, model: Any, inputs: Mapping[str, Sequence[int]], sides: tuple[int, int], channels: int
) -> None:
    """Hold the sides of the model's inputs and output behind the batch against its configuration."""
    found = {value.name: _sides(value) for value in model.graph.input}
    images = [_sides(value) for value in model.graph.output]
    wanted = ([[*sides, channels]], [[channels, *sides]])
    if found != {name: list(shape) for name, shape in inputs.items()} or images not in wanted:
        raise CheckpointError(
            f"{path} takes {found} and gives {images}, which is not what its configuration says; {_AGAIN}"
        )


def _sides(value: Any) -> list[int]:
    return [side.dim_value for side in value.type.tensor_type.shape.dim][1:]


def _without_weights(path: Path, config: CocoGanConfig, device: torch.device) -> Generator:
    """A generator of this form, from which memory can be predicted."""
    with torch.device("meta"):
        generator = Generator(config, spectral=False)
    held = _held(path)
    asked = sum(math.prod(tensor.shape) for tensor in generator.state_dict().values())
    if asked > 8 * held:  # rewritten layers have fewer weights, never so many fewer
        raise CheckpointError(f"{path} is {held} bytes, and its configuration asks for {asked} weights; {_AGAIN}")
    return generator.to_empty(device=device).eval().requires_grad_(False)


def _held(path: Path) -> int:
    """Bytes of a file and of the weights beside it."""
    return sum(file.stat().st_size for file in (path, path.with_name(f"{path.name}.data")) if file.is_file())
