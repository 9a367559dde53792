"""Parses the header of a checkpoint strictly: every byte of the file is accounted for before safetensors opens it."""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch

from ..files.hostile import COPY_AGAIN, SAVE_AGAIN, shown, strict_json
from ..files.kinds import PICKLE, SAFETENSORS, START_BYTES, kind_of
from . import faults

__all__ = ["DTYPES", "FORMAT_VERSION", "METADATA_KEY", "Header", "TensorInfo", "parse_header"]

FORMAT_VERSION = 1
METADATA_KEY = "zellige"

_LENGTH_BYTES = 8
_MAX_HEADER_BYTES = 16 * 2**20
_MAX_RANK = 64
_PICKLE_SUFFIXES = (".pt", ".pth", ".pkl", ".pickle", ".ckpt")
_SYSTEM = "[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True)
class TensorInfo:
    """A tensor's dtype and shape, as the header has them."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Header:
    """A checkpoint without its tensors' values; `config` is still as the file has it, validated by no model."""

    path: Path
    system: str
    config: dict[str, Any]
    details: dict[str, Any]
    tensors: dict[str, TensorInfo]

    @property
    def elements(self) -> int:
        """The number of elements of all tensors."""
        return sum(info.elements for info in self.tensors.values())


def parse_header(file: BinaryIO, size: int, path: Path) -> Header:
    """Parse and check the header of an open file of `size` bytes, which errors name as `path`."""
    raw = _header_bytes(file, size, path)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise faults.HeaderEncodingError(
            f"{path}: its header is not UTF-8 at byte {_LENGTH_BYTES + error.start}; {COPY_AGAIN}."
        ) from None
    entries = strict_json(text, path, "its header")
    if not isinstance(entries, dict):
        raise faults.HeaderStructureError(f"{path}: its header is {shown(entries)}, not a JSON object; {COPY_AGAIN}.")
    metadata = entries.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise faults.HeaderStructureError(
            f"{path}: key '__metadata__' is {shown(metadata)}, not an object of strings; {SAVE_AGAIN}."
        )
    system, config, details = _document(metadata, path)
    tensors = _layout(entries, _LENGTH_BYTES + len(raw), size, path)
    return Header(path, system, config, details, tensors)


def _header_bytes(file: BinaryIO, size: int, path: Path) -> bytes:
    start = file.read(START_BYTES)
    if not start:
        raise faults.EmptyFileError(f"{path} is empty; {COPY_AGAIN}.")
    _check_format(start, path)
    if len(start) <= _LENGTH_BYTES:
        raise faults.TruncatedFileError(f"{path} ends after {size} bytes, inside its header; {COPY_AGAIN}.")
    length = int.from_bytes(start[:_LENGTH_BYTES], "little")
    if not 2 <= length <= _MAX_HEADER_BYTES:
        raise faults.HeaderLengthError(
            f"{path} announces a header of {length} bytes, and 2 to {_MAX_HEADER_BYTES} are allowed; "
            "it is no .safetensors file or is damaged, so name another or copy it again."
        )
    raw = start[_LENGTH_BYTES : _LENGTH_BYTES + length]
    if _LENGTH_BYTES + length <= size:
        raw += file.read(length - len(raw))
    if len(raw) < length:
        raise faults.TruncatedFileError(
            f"{path} announces a header of {length} bytes and has {size - _LENGTH_BYTES} after the length; "
            f"{COPY_AGAIN}."
        )
    return raw


def _check_format(start: bytes, path: Path) -> None:
    kind = kind_of(start)
    if kind in (None, SAFETENSORS) and path.suffix.lower() in _PICKLE_SUFFIXES:
        kind = PICKLE
    if kind not in (None, SAFETENSORS):
        raise kind.fault(f"{path} is {kind.title}, and not a safetensors checkpoint; {kind.advice}.")


def _document(metadata: dict[str, str], path: Path) -> tuple[str, dict[str, Any], dict[str, Any]]:
    key = f"metadata key {METADATA_KEY!r}"
    if METADATA_KEY not in metadata:
        raise faults.ForeignFileError(
            f"{path} is a safetensors file but no Zellige checkpoint: it has no {key}; "
            "name a file that `zellige train` wrote."
        )
    document = strict_json(metadata[METADATA_KEY], path, key)
    if not isinstance(document, dict):
        raise faults.HeaderStructureError(f"{path}: {key} is {shown(document)}, not a JSON object; {SAVE_AGAIN}.")
    version = document.get("format_version")
    if type(version) is not int or version != FORMAT_VERSION:
        is_newer = type(version) is int and version > FORMAT_VERSION
        advice = "update zellige" if is_newer else "save the checkpoint again with this version of zellige"
        raise faults.FormatVersionError(
            f"{path}: 'format_version' is {shown(version)} and this version reads {FORMAT_VERSION}; {advice}."
        )
    system = document.get("system")
    if not isinstance(system, str) or not re.fullmatch(_SYSTEM, system):
        raise faults.MissingSystemError(
            f"{path}: 'system' is {shown(system)}, and not a name of at most 64 letters, digits, '.', '_' and '-'; "
            f"{SAVE_AGAIN}."
        )
    for name in ("config", "details"):
        value = document.get(name)
        if not isinstance(value, dict):
            raise faults.InvalidConfigError(f"{path}: {name!r} is {shown(value)}, not a JSON object; {SAVE_AGAIN}.")
    return system, document["config"], document["details"]


def _layout(entries: dict[str, Any], start: int, size: int, path: Path) -> dict[str, TensorInfo]:
    """Check that the tensors fill the file from byte `start` to byte `size` without overlap or hole."""
    tensors: dict[str, TensorInfo] = {}
    spans: list[tuple[int, int, str]] = []
    for name, entry in entries.items():
        label = f"{path}: tensor {shown(name)}"
        tensors[name], begin, end = _tensor_entry(entry, label)
        if (start + begin) % tensors[name].dtype.itemsize:
            raise faults.MisalignedTensorError(
                f"{label} starts at byte {start + begin}, not at a multiple of its "
                f"{tensors[name].dtype.itemsize}-byte elements; {SAVE_AGAIN}."
            )
        spans.append((begin, end, name))
    filled = 0
    for begin, end, name in sorted(spans):
        label = f"{path}: tensor {shown(name)}"
        if begin < filled:
            raise faults.TensorOverlapError(
                f"{label} starts at offset {begin}, inside the tensor that ends at {filled}; {SAVE_AGAIN}."
            )
        if begin > filled:
            raise faults.TensorHoleError(
                f"{label} starts at offset {begin}, and the bytes from {filled} on belong to no tensor; {SAVE_AGAIN}."
            )
        filled = end
    if start + filled > size:
        raise faults.TruncatedFileError(
            f"{path} holds {size - start} bytes of tensors and its header announces {filled}; {COPY_AGAIN}."
        )
    if start + filled < size:
        raise faults.TensorHoleError(
            f"{path}: its last {size - start - filled} bytes belong to no tensor; {COPY_AGAIN}."
        )
    return tensors


def _tensor_entry(entry: Any, label: str) -> tuple[TensorInfo, int, int]:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise faults.TensorEntryError(
            f"{label} is {shown(entry)}, not an object of dtype, shape and data_offsets; {SAVE_AGAIN}."
        )
    code, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(code, str) or code not in DTYPES:
        raise faults.UnknownDtypeError(
            f"{label} has dtype {shown(code)}; allowed are {', '.join(DTYPES)}; convert it and save it again."
        )
    dtype = DTYPES[code]
    is_shape = isinstance(shape, list) and len(shape) <= _MAX_RANK and all(type(n) is int and n >= 0 for n in shape)
    # A size of 0 must not hide an overflow, because torch multiplies the other sizes too.
    if not is_shape or math.prod(max(n, 1) for n in shape) * dtype.itemsize >= 2**63:
        raise faults.InvalidShapeError(
            f"{label} has shape {shown(shape)}; allowed are at most {_MAX_RANK} non-negative integers whose product, "
            f"in bytes, is below 2**63; {SAVE_AGAIN}."
        )
    is_pair = isinstance(offsets, list) and len(offsets) == 2 and all(type(n) is int and n >= 0 for n in offsets)
    if not is_pair or offsets[0] > offsets[1]:
        raise faults.TensorOffsetsError(
            f"{label} has data_offsets {shown(offsets)}, not two non-negative integers in order; {SAVE_AGAIN}."
        )
    info, (begin, end) = TensorInfo(dtype, tuple(shape)), offsets
    if info.elements * dtype.itemsize != end - begin:
        raise faults.ByteCountError(
            f"{label} spans {end - begin} bytes, and {code} of shape {shown(shape)} takes "
            f"{info.elements * dtype.itemsize}; {SAVE_AGAIN}."
        )
    return info, begin, end
