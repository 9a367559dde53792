"""One exception class for each way in which an ONNX file can be wrong; faults of any file are in `files/faults.py`."""

from typing import NoReturn

from zellige.errors import CheckpointError

__all__ = [
    "DomainError",
    "ExternalDataError",
    "ExternalPathError",
    "FileSizeError",
    "FunctionCycleError",
    "GraphSizeError",
    "InvalidModelError",
    "NestingError",
    "NoGraphError",
    "NotOnnxError",
    "TensorDataError",
    "TensorDimsError",
    "ValueSizeError",
    "VersionError",
    "refuse",
]


class FileSizeError(CheckpointError):
    """The file is larger than a protobuf may be."""


class NotOnnxError(CheckpointError):
    """The bytes are not an ONNX model: they are no protobuf, a protobuf of another kind, or damaged."""


class NestingError(CheckpointError):
    """Messages, subgraphs or calls of functions are nested deeper than any network needs."""


class NoGraphError(CheckpointError):
    """The model has no graph, or its graph has no outputs."""


class VersionError(CheckpointError):
    """The IR version or an operator set is missing, named twice, or unknown here."""


class GraphSizeError(CheckpointError):
    """The model has more fields or messages than a network needs, or its functions expand to more nodes."""


class FunctionCycleError(CheckpointError):
    """A function of the model calls itself, directly or through others."""


class DomainError(CheckpointError):
    """A node is not a standard operator, not a function of the model, and not an operator of the runtime."""


class TensorDimsError(CheckpointError):
    """A tensor has a negative side, or a dtype that ONNX does not know."""


class TensorDataError(CheckpointError):
    """A tensor does not have as much data as its sides and dtype need."""


class ExternalPathError(CheckpointError):
    """The file places a tensor's data outside of the model's folder."""


class ExternalDataError(CheckpointError):
    """The file places a tensor's data in another file, which does not have them."""


class ValueSizeError(CheckpointError):
    """A value that the graph takes or computes would fill more memory than is allowed."""


class InvalidModelError(CheckpointError):
    """ONNX's own checker finds that the model breaks a rule."""


def refuse(fault: type[CheckpointError], what: str, reason: str) -> NoReturn:
    """Raise `fault` with the sentence that every refusal of a model begins with."""
    raise fault(f"{what} cannot be opened as an ONNX model: {reason}")
