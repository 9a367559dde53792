"""One exception class for each way in which an ONNX file can be wrong, beside those of any file."""

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
    """The bytes are not those of an ONNX model: not a protobuf, or one of another kind, or damaged."""


class NestingError(CheckpointError):
    """Messages, subgraphs or calls of functions lie deeper in each other than any network needs."""


class NoGraphError(CheckpointError):
    """The model has no graph, or one without outputs."""


class VersionError(CheckpointError):
    """The IR version or an operator set is missing, named twice, or not known here."""


class GraphSizeError(CheckpointError):
    """The model has more fields or messages than a network needs, or its functions expand to more nodes."""


class FunctionCycleError(CheckpointError):
    """A function of the model calls itself, directly or through others."""


class DomainError(CheckpointError):
    """A node is neither a standard operator, nor a function of the model, nor provided by the runtime."""


class TensorDimsError(CheckpointError):
    """A tensor has a negative side, or a dtype that ONNX does not know."""


class TensorDataError(CheckpointError):
    """A tensor's data are not as many as its sides and dtype say."""


class ExternalPathError(CheckpointError):
    """A tensor's data are said to lie outside of the model's folder."""


class ExternalDataError(CheckpointError):
    """A tensor's data should lie in another file, and do not."""


class ValueSizeError(CheckpointError):
    """A value that the graph computes, or takes, would fill more memory than is allowed."""


class InvalidModelError(CheckpointError):
    """The model breaks another rule of ONNX, by its own checker."""


def refuse(fault: type[CheckpointError], what: str, reason: str) -> NoReturn:
    """Raise `fault` with the one sentence that all refusals of a model have."""
    raise fault(f"{what} cannot be opened as an ONNX model: {reason}")
