"""Checkpoints: one safetensors file, weights plus a JSON configuration, checked in full before a tensor is read."""

import io
import json
import os
import secrets
import stat
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import safetensors.torch
import torch
from pydantic import BaseModel, ValidationError
from torch import Tensor

from zellige.errors import ConfigError, OutputError

from . import faults
from .header import (
    DTYPES,
    FORMAT_VERSION,
    METADATA_KEY,
    PICKLE_ADVICE,
    SAVE_AGAIN,
    SYSTEMS,
    Header,
    TensorInfo,
    parse_header,
    shown,
)

__all__ = [
    "FORMAT_VERSION",
    "SYSTEMS",
    "Header",
    "TensorInfo",
    "check_allocation",
    "read_header",
    "read_tensors",
    "validated",
    "write_checkpoint",
]

_PICKLE_SUFFIXES = (".pt", ".pth", ".pkl", ".pickle", ".ckpt")
_ModelT = TypeVar("_ModelT", bound=BaseModel)


def read_header(path: str | os.PathLike[str]) -> Header:
    """Read and check everything in a checkpoint but the values of its tensors.

    Args:
        path: a `.safetensors` file that `write_checkpoint` made.
    Returns:
        The header; the tensors that it lists fill the rest of the file exactly.
    Raises:
        CheckpointError: the subclass in `faults.py` that names the fault. No file content raises anything else.
    Source: the file format is that of safetensors, https://github.com/huggingface/safetensors.
    """
    path = Path(path)
    try:
        str(path).encode("utf-8")  # safetensors opens no other names
        # A pipe would block when it is opened, so its kind is asked for first.
        if not stat.S_ISREG(path.stat().st_mode):
            raise faults.NotAFileError(f"{path} is not a regular file; name a .safetensors checkpoint.")
        if path.suffix.lower() in _PICKLE_SUFFIXES:
            raise faults.PickleRefusedError(f"{path} {PICKLE_ADVICE}.")
        with path.open("rb") as file:
            return parse_header(file, os.fstat(file.fileno()).st_size, path)
    except (FileNotFoundError, NotADirectoryError):
        raise faults.MissingFileError(f"{path} does not exist; name a .safetensors checkpoint that does.") from None
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL character or not UTF-8
        reason = getattr(error, "strerror", None) or error
        raise faults.UnreadableFileError(f"{path} cannot be read ({reason}); check its name and permissions.") from None


def read_tensors(
    header: Header,
    expected: Mapping[str, Sequence[int]] | None = None,
    prefix: str = "",
    integers: Collection[str] = (),
) -> dict[str, Tensor]:
    """Map a checkpoint's tensors into memory; pages are read from the file as they are touched.

    Args:
        header: of the file to read, from `read_header`.
        expected: the shape of every tensor that the model needs, by name without the prefix; None takes all.
        prefix: selects the tensors whose names start with it, such as "generator."; it is cut off the names returned.
        integers: the expected names that hold integers, such as a batch norm's counter; all others are floating point.
    Returns:
        CPU tensors in the file's dtypes, by name without the prefix. Writing to one does not alter the file.
    Raises:
        CheckpointError: a tensor is missing, unexpected, or of another shape or kind (nothing has been read then), or
            the file changed since its header was read.
    """
    found = {name.removeprefix(prefix): info for name, info in header.tensors.items() if name.startswith(prefix)}
    if expected is not None:
        _check_expected(header.path, found, expected, prefix, integers)
    try:
        with safetensors.safe_open(header.path, framework="pt", device="cpu") as file:
            tensors = {name: file.get_tensor(prefix + name) for name in found}
    except (safetensors.SafetensorError, OSError, RuntimeError, ValueError):
        tensors = {}
    # A training run may replace the file between the two reads.
    for name, info in found.items():
        if name not in tensors or (tensors[name].dtype, tuple(tensors[name].shape)) != (info.dtype, info.shape):
            raise faults.ChangedFileError(f"{header.path} changed after its header was read; load it again.")
    return tensors


def write_checkpoint(
    path: str | os.PathLike[str],
    tensors: Mapping[str, Tensor],
    *,
    system: str,
    config: Mapping[str, Any],
    details: Mapping[str, Any] | None = None,
) -> None:
    """Write a checkpoint atomically: whenever the process dies, the file is the old one or the new one, whole.

    The same input gives the same bytes. What `read_header` would refuse is refused before the old file is touched.

    Args:
        path: the file to make or replace; it ends in .safetensors and its folder exists.
        tensors: any device and strides; float, integer or bool.
        system: one of `SYSTEMS`.
        config: JSON values from which the model can be built.
        details: JSON values that describe the model: name, licence, training data, metrics.
    Raises:
        CheckpointError: `read_header` would refuse the file.
        OutputError: the file cannot be written.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise OutputError(f"{path} cannot be written: checkpoints end in .safetensors; change the name.")
    document = {
        "format_version": FORMAT_VERSION,
        "system": system,
        "config": dict(config),
        "details": dict(details or {}),
    }
    try:
        metadata = {METADATA_KEY: json.dumps(document, sort_keys=True, allow_nan=False)}
    except (TypeError, ValueError, RecursionError) as error:
        raise faults.InvalidConfigError(f"{path}: config or details are not JSON ({error}); use JSON values.") from None
    for name, tensor in tensors.items():
        if tensor.dtype not in DTYPES.values():
            raise faults.UnknownDtypeError(
                f"{path}: tensor {shown(name)} is {tensor.dtype}; allowed are {', '.join(DTYPES)}; convert it first."
            )
    # Copies, because safetensors refuses strided tensors and tensors that share storage (tied weights).
    copies = {
        name: tensor.detach().to("cpu").clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }
    content = safetensors.torch.save(copies, metadata)
    parse_header(io.BytesIO(content), len(content), path)

    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        try:
            with temporary.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        # Without this a power failure may undo the rename.
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"{path} cannot be written ({reason}); choose a writable folder with free space.") from None


def validated(header: Header, model: type[_ModelT]) -> _ModelT:
    """Turn a checkpoint's configuration into the pydantic model of its system.

    Args:
        header: from `read_header`.
        model: the configuration class.
    Returns:
        An instance of `model`.
    Raises:
        InvalidConfigError: the first key that `model` refuses, and why.
    """
    try:
        return model.model_validate(header.config)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        found = "" if first["type"] == "missing" else f" is {shown(first['input'])}"
        reason = f"config key {shown(key)}{found}: {first['msg']}"
    except ConfigError as error:
        reason = f"config: {error}"
    raise faults.InvalidConfigError(f"{header.path}: {reason.rstrip('.')}; {SAVE_AGAIN}.")


def check_allocation(header: Header, elements: int) -> None:
    """Refuse a configuration that asks for a larger model than the file holds, before the model is built.

    Counted in elements, since a model in float32 may come from a file in float16.

    Args:
        header: from `read_header`.
        elements: the sum of the elements of all tensors of the model.
    Raises:
        AllocationError: the file holds fewer.
    """
    held = sum(info.elements for info in header.tensors.values())
    if elements > held:
        raise faults.AllocationError(
            f"{header.path}: its config describes {elements} weights and the file holds {held}; {SAVE_AGAIN}."
        )


def _check_expected(
    path: Path,
    found: Mapping[str, TensorInfo],
    expected: Mapping[str, Sequence[int]],
    prefix: str,
    integers: Collection[str],
) -> None:
    for name in sorted(expected.keys() - found.keys()):
        raise faults.MissingTensorError(
            f"{path}: the tensor {shown(prefix + name)} is missing, one of the {len(expected)} that its config "
            f"asks for; {SAVE_AGAIN}."
        )
    for name in sorted(found.keys() - expected.keys()):
        raise faults.UnexpectedTensorError(
            f"{path}: the tensor {shown(prefix + name)} is not one of the {len(expected)} that its config "
            f"asks for; {SAVE_AGAIN}."
        )
    for name, shape in expected.items():
        info = found[name]
        label = f"{path}: the tensor {shown(prefix + name)}"
        if info.shape != tuple(shape):
            raise faults.TensorShapeError(
                f"{label} has shape {shown(info.shape)} and its config asks for {shown(tuple(shape))}; {SAVE_AGAIN}."
            )
        if info.dtype.is_floating_point == (name in integers):
            allowed = "an integer dtype" if name in integers else "float64, float32, float16 or bfloat16"
            raise faults.TensorDtypeError(f"{label} is {info.dtype} and has to be {allowed}; {SAVE_AGAIN}.")
