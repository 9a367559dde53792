"""The header of a checkpoint, parsed strictly: every byte of the file is accounted for before safetensors opens it."""

import json
import math
import reprlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch

from . import faults

__all__ = [
    "COPY_AGAIN",
    "DTYPES",
    "FORMAT_VERSION",
    "METADATA_KEY",
    "PICKLE_ADVICE",
    "SAVE_AGAIN",
    "SYSTEMS",
    "Header",
    "TensorInfo",
    "parse_header",
    "shown",
]

FORMAT_VERSION = 1
METADATA_KEY = "zellige"
SYSTEMS = ("coco-gan", "onegan", "key-patch", "rearranger", "cluster-guided")
COPY_AGAIN = "copy or download the file again"
SAVE_AGAIN = "save the checkpoint again with the program that wrote it"
PICKLE_ADVICE = (
    "is a pickle, which can run code when it is opened, and only .safetensors is read; "
    "convert it with safetensors.torch.save_file on a machine you trust"
)

_LENGTH_BYTES = 8
_MAX_HEADER_BYTES = 16 * 2**20
_MAX_DEPTH = 64
_MAX_RANK = 64
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

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 120
shown = _short.repr  # a hostile value neither fills the screen nor breaks the line


@dataclass(frozen=True)
class TensorInfo:
    """What the header says of one tensor."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Header:
    """What is known of a checkpoint before a single tensor is read; no model has validated `config` yet."""

    path: Path
    system: str
    config: dict[str, Any]
    details: dict[str, Any]
    tensors: dict[str, TensorInfo]


def parse_header(file: BinaryIO, size: int, path: Path) -> Header:
    """Parse and check the header of an open file of `size` bytes; errors call it `path`."""
    raw = _header_bytes(file, size, path)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise faults.HeaderEncodingError(
            f"{path}: its header is not UTF-8 at byte {_LENGTH_BYTES + error.start}; {COPY_AGAIN}."
        ) from None
    entries = _strict_json(text, path, "its header")
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
    start = file.read(_LENGTH_BYTES + 1)
    if not start:
        raise faults.EmptyFileError(f"{path} is empty; {COPY_AGAIN}.")
    if _is_pickle(start):
        raise faults.PickleRefusedError(f"{path} {PICKLE_ADVICE}.")
    if len(start) <= _LENGTH_BYTES:
        raise faults.TruncatedFileError(f"{path} ends after {size} bytes, inside its header; {COPY_AGAIN}.")
    length = int.from_bytes(start[:_LENGTH_BYTES], "little")
    if not 2 <= length <= _MAX_HEADER_BYTES:
        raise faults.HeaderLengthError(
            f"{path} announces a header of {length} bytes, and 2 to {_MAX_HEADER_BYTES} are allowed; "
            "it is no .safetensors file or is damaged, so name another or copy it again."
        )
    missing = faults.TruncatedFileError(
        f"{path} announces a header of {length} bytes and has {size - _LENGTH_BYTES} after the length; {COPY_AGAIN}."
    )
    if _LENGTH_BYTES + length > size:
        raise missing
    raw = start[_LENGTH_BYTES:] + file.read(length - 1)
    if len(raw) < length:
        raise missing
    return raw


def _is_pickle(start: bytes) -> bool:
    if start.startswith(b"PK\x03\x04"):
        return True
    # A header of 640 bytes also begins with 80 02: its length then has zeros in the high bytes and an object after it.
    is_length = not any(start[4:_LENGTH_BYTES]) and start[_LENGTH_BYTES:] in (b"", b"{")
    return len(start) >= 2 and start[0] == 0x80 and 2 <= start[1] <= 5 and not is_length


def _strict_json(text: str, path: Path, where: str) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        members: dict[str, Any] = {}
        for key, value in pairs:
            if key in members:
                raise faults.DuplicateKeyError(f"{path}: {where} has the key {shown(key)} twice; {SAVE_AGAIN}.")
            members[key] = value
        return members

    def number(literal: str) -> int | float:
        is_integer = literal.lstrip("-").isdigit()
        # 64 bits are what torch, and the parser of safetensors, hold; to that parser -0 is a float.
        if is_integer and len(literal) <= 20 and literal != "-0" and -(2**63) <= int(literal) < 2**64:
            return int(literal)
        if not is_integer and math.isfinite(float(literal)):
            return float(literal)
        raise faults.NumberRangeError(
            f"{path}: {where} has the number {shown(literal)}, which is not finite or not in 64 bits; {SAVE_AGAIN}."
        )

    too_deep = faults.NestingError(f"{path}: {where} is nested deeper than {_MAX_DEPTH} levels; {SAVE_AGAIN}.")
    try:
        document = json.loads(
            text, object_pairs_hook=unique, parse_int=number, parse_float=number, parse_constant=number
        )
        level = [document]
        for _ in range(_MAX_DEPTH):
            level = [
                child
                for node in level
                if isinstance(node, dict | list)
                for child in (node.values() if isinstance(node, dict) else node)
            ]
        if level:
            raise too_deep
        if "\\u" in text:
            json.dumps(document, ensure_ascii=False).encode("utf-8")
    except RecursionError:
        raise too_deep from None
    except UnicodeEncodeError:
        raise faults.HeaderEncodingError(f"{path}: {where} has half of a surrogate pair; {SAVE_AGAIN}.") from None
    except json.JSONDecodeError as error:
        raise faults.HeaderSyntaxError(
            f"{path}: {where} is not JSON ({error.msg} at character {error.pos}); {COPY_AGAIN}."
        ) from None
    return document


def _document(metadata: dict[str, str], path: Path) -> tuple[str, dict[str, Any], dict[str, Any]]:
    key = f"metadata key {METADATA_KEY!r}"
    if METADATA_KEY not in metadata:
        raise faults.ForeignFileError(
            f"{path} is a safetensors file but no Zellige checkpoint: it has no {key}; "
            "name a file that `zellige train` wrote."
        )
    document = _strict_json(metadata[METADATA_KEY], path, key)
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
    if system not in SYSTEMS:
        raise faults.UnknownSystemError(
            f"{path}: 'system' is {shown(system)}; allowed are {', '.join(SYSTEMS)}; "
            "update zellige or name another file."
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
    # A size of zero must not hide an overflow of the others, which torch multiplies too.
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
