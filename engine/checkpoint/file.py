"""Reads and writes checkpoints: safetensors files with weights and a JSON configuration, which are checked in full."""

import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import safetensors.torch
import torch
from pydantic import BaseModel, ValidationError
from torch import Tensor, nn

from zellige.errors import ConfigError, OutputError

from ..device import available_memory, show_bytes
from ..files.atomic import write_file
from ..files.hostile import SAVE_AGAIN, IrregularFileError, open_regular, shown
from . import faults
from .header import DTYPES, FORMAT_VERSION, METADATA_KEY, Header, TensorInfo, parse_header

__all__ = [
    "FORMAT_VERSION",
    "Header",
    "TensorInfo",
    "check_allocation",
    "check_suffix",
    "check_tensors",
    "read_header",
    "read_tensors",
    "validated",
    "write_checkpoint",
]

_ModelT = TypeVar("_ModelT", bound=BaseModel)


def read_header(path: str | os.PathLike[str]) -> Header:
    """Read and check everything in a checkpoint except its tensors' values.

    Args:
        path: a `.safetensors` file that `write_checkpoint` made.
    Returns:
        The header; the tensors that it lists fill the rest of the file exactly.
    Raises:
        CheckpointError: the subclass in `faults.py` that names the fault. No file content raises anything else.
    Source: safetensors, https://github.com/huggingface/safetensors.
    """
    path = Path(path)
    try:
        str(path).encode("utf-8")  # safetensors opens no names that are not UTF-8
        with open_regular(path) as file:
            return parse_header(file, os.fstat(file.fileno()).st_size, path)
    except IrregularFileError as error:
        raise faults.NotAFileError(
            f"{path} cannot be read as a checkpoint: {error.strerror}; name a .safetensors file."
        ) from None
    except (FileNotFoundError, NotADirectoryError):
        raise faults.MissingFileError(f"{path} does not exist; name a .safetensors checkpoint that does.") from None
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL character or not UTF-8
        reason = getattr(error, "strerror", None) or error
        raise faults.UnreadableFileError(f"{path} cannot be read ({reason}); check its name and permissions.") from None


def read_tensors(
    header: Header, expected: Mapping[str, Sequence[int]] | None = None, prefix: str = ""
) -> dict[str, Tensor]:
    """Map a checkpoint's tensors into memory; a page of the file is read when it is first used.

    Args:
        header: the file's header, from `read_header`.
        expected: the shape of every tensor that the model needs, by name without the prefix; all of them must be of
            floating point. None takes every tensor of the file.
        prefix: selects the tensors whose names start with it, such as "generator."; the names returned lack it.
    Returns:
        CPU tensors in the file's dtypes, by name without the prefix; their numbers are finite. Writing to one does not
        alter the file.
    Raises:
        CheckpointError: a tensor is missing, unexpected, or of another shape or kind, which is found before any tensor
            is read; or a tensor holds NaN or an infinity; or the file changed after its header was read.
    """
    found = _under(header, prefix)
    if expected is not None:
        _check_expected(header, found, expected, prefix)
    try:
        with safetensors.safe_open(header.path, framework="pt", device="cpu") as file:
            tensors = {name: file.get_tensor(prefix + name) for name in found}
    except (safetensors.SafetensorError, OSError, RuntimeError, ValueError):
        tensors = {}
    # A training run may have replaced the file after its header was read.
    for name, info in found.items():
        if name not in tensors or (tensors[name].dtype, tuple(tensors[name].shape)) != (info.dtype, info.shape):
            raise faults.ChangedFileError(f"{header.path} changed after its header was read; load it again.")
    _check_finite(header.path, ((prefix + name, tensor) for name, tensor in tensors.items()))
    return tensors


def write_checkpoint(
    path: str | os.PathLike[str],
    tensors: Mapping[str, Tensor],
    *,
    system: str,
    config: Mapping[str, Any],
    details: Mapping[str, Any] | None = None,
) -> None:
    """Write a checkpoint atomically: whenever the process dies, either the old or the new file is there, complete.

    The same input gives the same bytes. A file that `read_header` would refuse never replaces the old one.

    Args:
        path: the file to make or replace; its name ends in .safetensors and its folder exists.
        tensors: floats, integers or bools, on any device and with any strides, by name.
        system: the system's name, a row of `engine.systems.SYSTEMS`.
        config: JSON values from which the model can be built.
        details: JSON values that describe the model: name, licence, training data, metrics.
    Raises:
        CheckpointError: `read_header` would refuse the file.
        OutputError: the file cannot be written.
    """
    path = Path(path)
    check_suffix(path)
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
    _check_finite(path, tensors.items())
    # Copies, because safetensors refuses strided tensors and tensors that share storage (tied weights).
    copies = {
        name: tensor.detach().to("cpu").clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }
    content = safetensors.torch.save(copies, metadata)
    parse_header(io.BytesIO(content), len(content), path)
    write_file(path, content)


def check_suffix(path: Path) -> None:
    """Refuse a name that checkpoints do not have.

    Raises:
        OutputError: the name does not end in .safetensors.
    """
    if path.suffix != ".safetensors":
        raise OutputError(f"{path} cannot be written: checkpoints end in .safetensors; change the name.")


def validated(header: Header, model: type[_ModelT]) -> _ModelT:
    """Turn a checkpoint's configuration into its system's pydantic model.

    Args:
        header: the checkpoint's header, from `read_header`.
        model: the class of the system's configuration.
    Returns:
        An instance of `model`.
    Raises:
        InvalidConfigError: `model` refuses a key; the message names the first one and the reason.
    """
    try:
        return model.model_validate(header.config)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        found = "" if first["type"] == "missing" else f" is {shown(first['input'])}"
        # Keys that do not go together are no key's fault, and pydantic gives the whole configuration as their place.
        reason = f"config key {shown(key)}{found}: " if key else "config: "
        reason += first["msg"].removeprefix("Value error, ")
    except ConfigError as error:
        reason = f"config: {error}"
    raise faults.InvalidConfigError(f"{header.path}: {reason.rstrip('.')}; {SAVE_AGAIN}.")


def check_tensors(header: Header, networks: nn.Module, prefix: str) -> None:
    """Refuse a checkpoint without the tensors of the networks, by its header alone.

    Args:
        header: from `read_header`.
        networks: built under `torch.device("meta")`.
        prefix: of their names in the file.
    Raises:
        CheckpointError: a tensor is missing, unexpected, or of another shape or kind.
    """
    expected = {name: tensor.shape for name, tensor in networks.state_dict().items() if tensor.is_floating_point()}
    _check_expected(header, _under(header, prefix), expected, prefix)


def check_allocation(path: Path, networks: nn.Module, held: int, device: torch.device) -> None:
    """Refuse a configuration that needs more weights than its file holds, or more memory than its device has free.

    Weights are counted in elements, because a model in float32 may come from a file in float16. No file holds constants
    such as a lattice's noise, so only the device's memory bounds them.

    Args:
        path: the file with the configuration, for the error.
        networks: the networks of the configuration, built under `torch.device("meta")`, where they take no memory.
        held: the number of elements in the file: `Header.elements` of a checkpoint, or 8 times the bytes of an exported
            graph, because rewrites may have left its layers with fewer weights.
        device: the device on which the networks would be allocated.
    Raises:
        AllocationError: the file holds fewer weights, or the device has less memory.
    """
    weights = sum(tensor.numel() for tensor in networks.state_dict().values() if tensor.is_floating_point())
    if weights > held:
        raise faults.AllocationError(
            f"{path}: its config describes {weights} weights and the file holds {held}; {SAVE_AGAIN}."
        )
    needed = sum(tensor.nbytes for tensor in chain(networks.parameters(), networks.buffers()))
    free = available_memory(device)
    if needed > free:
        raise faults.AllocationError(
            f"{path}: its config describes a network of {show_bytes(needed)}, and {device} has {show_bytes(free)} of "
            "free memory; load it on a machine with more, or save the checkpoint with a smaller lattice."
        )


def _check_finite(path: Path, tensors: Iterable[tuple[str, Tensor]]) -> None:
    for name, tensor in tensors:
        # aminmax takes one pass and no second array; a NaN becomes both its minimum and its maximum.
        if tensor.is_floating_point() and tensor.numel() and not torch.stack(tensor.aminmax()).isfinite().all():
            count = int((~tensor.isfinite()).sum())
            raise faults.NotFiniteError(
                f"{path}: the tensor {shown(name)} holds NaN or infinity in {count} of its {tensor.numel()} numbers, "
                "so that all images would be black or noise; take an earlier checkpoint of the run."
            )


def _under(header: Header, prefix: str) -> dict[str, TensorInfo]:
    return {name.removeprefix(prefix): info for name, info in header.tensors.items() if name.startswith(prefix)}


def _check_expected(
    header: Header, found: Mapping[str, TensorInfo], expected: Mapping[str, Sequence[int]], prefix: str
) -> None:
    path = header.path
    for name in sorted(expected.keys() - found.keys()):
        _check_prefix(header, expected, prefix)
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
        if not info.dtype.is_floating_point:
            raise faults.TensorDtypeError(
                f"{label} is {info.dtype} and has to be float64, float32, float16 or bfloat16; {SAVE_AGAIN}."
            )


def _check_prefix(header: Header, expected: Mapping[str, Sequence[int]], prefix: str) -> None:
    """Recognise names that a wrapper changed, because the usual advice to save again would give the same names."""
    first = next(iter(expected))
    for name in header.tensors:
        given = name.removesuffix(first)
        surplus = given.removeprefix(prefix) if given.startswith(prefix) else given.removesuffix(prefix)
        is_wrapped = name.endswith(first) and surplus and given in (prefix + surplus, surplus + prefix)
        if is_wrapped and all(given + other in header.tensors for other in expected):
            raise faults.PrefixedNamesError(
                f"{header.path}: the tensor {shown(prefix + first)} is named {shown(name)}, and so are all others: a "
                "wrapper, such as DataParallel with 'module.' or torch.compile with '_orig_mod.', put "
                f"{shown(surplus)} into their names. Save the state_dict of the module inside the wrapper, or take the "
                f"tensors of safetensors.torch.load_file, name them name.replace({shown(surplus)}, '', 1), and pass "
                "them to write_checkpoint."
            )
