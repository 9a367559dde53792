"""Opens an ONNX file of unknown origin and checks it in full before a runtime gets it.

Each check relies on the ones before it. They come in this order: the file, its bytes, versions, tensors, functions and
domains, ONNX's own rules, the sizes of values. The checks hold the file's bytes once, the parsed model, and copies
without weights; no memory is taken for content before it was checked.

A file that was cut off right after its graph and operator sets passes, because it still is a whole model to every
reader. It lacks only parts that a model can do without, such as metadata.
"""

import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

from zellige.errors import MissingExtraError

from ..files.faults import EmptyFileError, MissingFileError, NotAFileError, UnreadableFileError
from ..files.hostile import COPY_AGAIN, IrregularFileError, open_regular
from ..files.kinds import ONNX, START_BYTES, kind_of
from . import faults
from .faults import refuse
from .nodes import check_nodes, check_versions, parts
from .tensors import check_tensors
from .values import check_rules, check_values, without_weights
from .wire import check_wire

__all__ = ["MAX_BYTES", "check_model_file", "open_model"]

MAX_BYTES = 2**31 - 1  # a protobuf has no more


def open_model(source: str | os.PathLike[str] | bytes, *, domains: Collection[str] = ()) -> Any:
    """Read and check an ONNX model.

    Args:
        source: the path of a .onnx file, or its bytes; only a file may have external data, which lie in its folder.
        domains: domains of operators that the runtime has beyond ONNX's own, such as "com.microsoft" for ONNX Runtime;
            the model may use them without defining them as functions.
    Returns:
        onnx.ModelProto; external data are not loaded.
    Raises:
        CheckpointError: the subclass in `onnx/faults.py` or `files/faults.py` that names the fault. No file content
            raises anything else.
        MissingExtraError: onnx is not installed.
    """
    return _checked(source, domains)[1]


def check_model_file(source: str | os.PathLike[str] | bytes, *, domains: Collection[str] = ()) -> bytes:
    """Like `open_model`, but returns the checked bytes, because the file may have changed when it is read again."""
    return _checked(source, domains)[0]


def _checked(source: str | os.PathLike[str] | bytes, domains: Collection[str]) -> tuple[bytes, Any]:
    try:
        import onnx
    except ImportError as error:
        raise MissingExtraError("onnx", "checking ONNX models", "export") from error
    if isinstance(source, bytes):
        what, folder, data = "the ONNX model", None, source
    else:
        what, folder, data = str(source), Path(source).parent, _read(Path(source))
    if not data:
        refuse(EmptyFileError, what, f"it is empty; {COPY_AGAIN}")
    if len(data) > MAX_BYTES:
        _too_large(len(data), what)
    kind = kind_of(data[:START_BYTES])
    if kind not in (None, ONNX):
        refuse(kind.fault, what, f"it is {kind.title}; {kind.advice}")
    check_wire(data, onnx.ModelProto.DESCRIPTOR, what)
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except Exception as error:  # DecodeError, whose module differs between versions of protobuf
        refuse(faults.NotOnnxError, what, f"protobuf says: {error}; {COPY_AGAIN}")
    _check(model, folder, what, domains)
    return data, model


def _read(path: Path) -> bytes:
    what = str(path)
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_BYTES:
                _too_large(size, what)
            return file.read(size)
    except IrregularFileError as error:
        refuse(NotAFileError, what, f"{error.strerror}; name a .onnx file")
    except (FileNotFoundError, NotADirectoryError):
        refuse(MissingFileError, what, "it does not exist; name a .onnx file that does")
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL character
        reason = getattr(error, "strerror", None) or error
        refuse(UnreadableFileError, what, f"it cannot be read ({reason}); check its name and permissions")


def _check(model: Any, folder: Path | None, what: str, domains: Collection[str]) -> None:
    if not model.HasField("graph"):
        refuse(faults.NoGraphError, what, f"it has no graph; {COPY_AGAIN}")
    if not model.graph.output:
        refuse(faults.NoGraphError, what, f"its graph has no outputs; {COPY_AGAIN}")
    if model.training_info:
        refuse(faults.InvalidModelError, what, "it has graphs for training; export it for inference")
    check_versions(model, what)
    check_tensors(model, parts(model.graph, *model.functions), folder, what)
    check_nodes(model, what, domains)
    light = without_weights(model)
    check_rules(light, what)
    check_values(light, what)


def _too_large(size: int, what: str) -> None:
    refuse(
        faults.FileSizeError, what, f"it has {size} bytes and at most {MAX_BYTES} can be read; save it with external "
        "data",
    )  # fmt: skip
