"""Checks that every tensor of an ONNX model has exactly the data that it needs, in the file or in files beside it."""

import math
import os
import re
import stat
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NoReturn

from ..files.hostile import COPY_AGAIN, shown
from . import faults
from .faults import refuse
from .nodes import Parts

__all__ = ["BITS", "MAX_RANK", "MAX_VALUE_BYTES", "check_tensors", "elements", "is_external"]

MAX_RANK = 64
MAX_VALUE_BYTES = 2**32  # for one tensor; a free batch N counts as 1

_STRING = 8
# Bits of an element, keyed with ONNX's numbers of dtypes.
BITS = {
    1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 14: 64, 15: 128, 16: 16, 17: 8,
    18: 8, 19: 8, 20: 8, 21: 4, 22: 4, 23: 4, 24: 8, 25: 2, 26: 2, 27: 6, 28: 6, _STRING: 128,
}  # fmt: skip
# The fields of data that are not raw, keyed with ONNX's numbers of dtypes; all other dtypes are in int32_data.
_FIELDS = {
    1: "float_data", 14: "float_data", 7: "int64_data", _STRING: "string_data", 11: "double_data", 15: "double_data",
    12: "uint64_data", 13: "uint64_data",
}  # fmt: skip
_ALL_FIELDS = sorted({*_FIELDS.values(), "int32_data"})


def check_tensors(model: Any, within: Parts, folder: Path | None, what: str) -> None:
    """Check the sides, dtype and data of every tensor of a model.

    Args:
        model: a ModelProto.
        within: the parts of the model.
        folder: the folder of external data; None for a model that was given as bytes.
        what: the model's name in errors.
    Raises:
        TensorDimsError: a tensor has impossible sides or an unknown dtype.
        TensorDataError: a tensor has more or less data than its sides and dtype need.
        ValueSizeError: a sparse tensor would fill more than `MAX_VALUE_BYTES` when it is made dense.
        ExternalPathError: a tensor's data would lie outside of the folder.
        ExternalDataError: a tensor's external data are missing, too short, or not allowed there.
    """
    external = _External(folder, what)
    for graph in within.graphs:
        for tensor in graph.initializer:
            if graph is model.graph and is_external(tensor):
                external.check(tensor)
            else:
                _check_stored(tensor, what)
        for sparse in graph.sparse_initializer:
            _check_sparse(sparse, what)
    for attribute in within.attributes:
        for tensor in (*attribute.tensors, *([attribute.t] if attribute.HasField("t") else [])):
            _check_stored(tensor, what)
        sparse_ones = [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []
        for sparse in (*attribute.sparse_tensors, *sparse_ones):
            _check_sparse(sparse, what)


def is_external(tensor: Any) -> bool:
    """Whether a tensor's data lie in another file."""
    return bool(tensor.data_location == 1)


def elements(dims: Any, name: str, what: str) -> int:
    """The number of elements of a shape.

    Raises:
        TensorDimsError: a side is negative, or there are more than `MAX_RANK` sides.
    """
    if len(dims) > MAX_RANK or any(side < 0 for side in dims):
        refuse(
            faults.TensorDimsError, what, f"{shown(name)} has the sides {shown(list(dims))}, and 0 to {MAX_RANK} "
            f"sides, none below 0, are allowed; {COPY_AGAIN}",
        )  # fmt: skip
    return math.prod(dims)


def _bytes(tensor: Any, what: str) -> int:
    if tensor.data_type not in BITS:
        refuse(
            faults.TensorDimsError, what, f"the tensor {shown(tensor.name)} has the dtype {tensor.data_type}, which "
            f"ONNX does not have; {COPY_AGAIN}",
        )  # fmt: skip
    return -(-elements(tensor.dims, tensor.name, what) * BITS[tensor.data_type] // 8)


def _check_stored(tensor: Any, what: str) -> None:
    if is_external(tensor) or tensor.external_data:
        refuse(
            faults.ExternalDataError, what, f"the tensor {shown(tensor.name)} keeps its data in another file, which "
            "only initialisers of the main graph may; save the model with its data inside",
        )  # fmt: skip
    needed, number = _bytes(tensor, what), tensor.data_type
    own = _FIELDS.get(number, "int32_data")
    filled = _filled(tensor)
    if tensor.HasField("raw_data") and number != _STRING:
        right = not filled and len(tensor.raw_data) == needed
        found = f"{len(tensor.raw_data)} raw bytes" + (f" and {len(filled)} other fields" if filled else "")
    else:
        count = elements(tensor.dims, tensor.name, what)
        entries = -(-count // {4: 2, 2: 4}.get(BITS[number], 1)) * (2 if number in (14, 15) else 1)
        right = filled == ({own: entries} if entries else {}) and not tensor.HasField("raw_data")
        found = ", ".join(f"{length} entries of {field}" for field, length in filled.items()) or "none"
    if not right or tensor.HasField("segment"):
        refuse(
            faults.TensorDataError, what, f"the tensor {shown(tensor.name)} of the sides {shown(list(tensor.dims))} "
            f"takes {shown(needed)} bytes of data in raw_data or {own}, and it has {found}; {COPY_AGAIN}",
        )  # fmt: skip


def _filled(tensor: Any) -> dict[str, int]:
    """The number of entries in each non-empty field of data that are not raw."""
    return {field: len(getattr(tensor, field)) for field in _ALL_FIELDS if len(getattr(tensor, field))}


def _check_sparse(sparse: Any, what: str) -> None:
    _check_stored(sparse.values, what)
    _check_stored(sparse.indices, what)
    size = elements(sparse.dims, sparse.values.name, what) * BITS[sparse.values.data_type] // 8
    if size > MAX_VALUE_BYTES:  # runtimes make sparse tensors dense
        refuse(
            faults.ValueSizeError, what, f"the sparse tensor {shown(sparse.values.name)} of the sides "
            f"{shown(list(sparse.dims))} takes more than {MAX_VALUE_BYTES // 2**30} GiB; export a smaller network",
        )  # fmt: skip


class _External:
    """Checks data in other files; tensors may not share bytes of a file, so its size bounds the memory they take."""

    def __init__(self, folder: Path | None, what: str) -> None:
        self.folder, self.what, self.claimed = folder, what, dict[str, int]()

    def check(self, tensor: Any) -> None:
        name, needed = shown(tensor.name), _bytes(tensor, self.what)
        if tensor.data_type == _STRING or tensor.HasField("raw_data") or _filled(tensor):
            self._refuse(
                f"the tensor {name} is of strings, or has data of its own, and cannot have external ones; {COPY_AGAIN}"
            )
        entries = {entry.key: entry.value for entry in tensor.external_data}
        if len(entries) != len(tensor.external_data):
            self._refuse(f"the tensor {name} names a place of its external data twice; {COPY_AGAIN}")
        path, size = self._file(entries.get("location", ""), name)
        offset, length = (self._number(entries.get(key), key, name) for key in ("offset", "length"))
        if length not in (None, needed):
            self._refuse(
                f"the tensor {name} takes {shown(needed)} bytes, and its external data have {length}; {COPY_AGAIN}"
            )
        if (offset or 0) + needed > size:
            self._refuse(
                f"the tensor {name} lies at bytes {offset or 0} to {shown((offset or 0) + needed)} of {path}, which "
                f"has {size}; {COPY_AGAIN}"
            )
        self.claimed[path] = self.claimed.get(path, 0) + needed
        if self.claimed[path] > size:
            self._refuse(f"its tensors share bytes of {path}, which has only {size}; save the model again")

    def _file(self, location: str, name: str) -> tuple[str, int]:
        """The resolved path and the size of a data file, which must lie in the model's folder."""
        if self.folder is None:
            self._refuse(f"the tensor {name} has external data, and bytes have no folder; give the path of the model")
        posix, windows = PurePosixPath(location), PureWindowsPath(location)
        outside = posix.is_absolute() or windows.drive or windows.root or ".." in windows.parts
        root = os.path.realpath(self.folder)
        if not outside and location.isprintable() and location:
            path = os.path.realpath(os.path.join(root, location))
            outside = not Path(path).is_relative_to(root)
        elif not outside:
            self._refuse(f"the tensor {name} does not say where its external data lie; {COPY_AGAIN}")
        if outside:
            refuse(
                faults.ExternalPathError, self.what, f"the data of the tensor {name} are said to lie at "
                f"{shown(location)}, outside of the model's folder; move them there and save the model again",
            )  # fmt: skip
        try:
            found = os.stat(path)
        except OSError as error:
            self._refuse(f"{path} with the data of the tensor {name} cannot be read: {error.strerror}; {COPY_AGAIN}")
        if not stat.S_ISREG(found.st_mode):
            self._refuse(f"{path} should hold the data of the tensor {name} and is no regular file; {COPY_AGAIN}")
        return path, found.st_size

    def _number(self, text: str | None, key: str, name: str) -> int | None:
        if text is None or re.fullmatch("[0-9]{1,19}", text):
            return None if text is None else int(text)
        self._refuse(
            f"the {key} of the external data of the tensor {name} is {shown(text)}, no number of bytes; {COPY_AGAIN}"
        )

    def _refuse(self, reason: str) -> NoReturn:
        refuse(faults.ExternalDataError, self.what, reason)
