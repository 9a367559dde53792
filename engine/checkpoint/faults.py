"""One exception class for each way in which a checkpoint can be wrong."""

from zellige.errors import CheckpointError

__all__ = [
    "AllocationError",
    "ByteCountError",
    "ChangedFileError",
    "DuplicateKeyError",
    "EmptyFileError",
    "ForeignFileError",
    "FormatVersionError",
    "HeaderEncodingError",
    "HeaderLengthError",
    "HeaderStructureError",
    "HeaderSyntaxError",
    "InvalidConfigError",
    "InvalidShapeError",
    "MisalignedTensorError",
    "MissingFileError",
    "MissingTensorError",
    "NestingError",
    "NotAFileError",
    "NumberRangeError",
    "PickleRefusedError",
    "TensorDtypeError",
    "TensorEntryError",
    "TensorHoleError",
    "TensorOffsetsError",
    "TensorOverlapError",
    "TensorShapeError",
    "TruncatedFileError",
    "UnexpectedTensorError",
    "UnknownDtypeError",
    "UnknownSystemError",
    "UnreadableFileError",
]


# The file.


class MissingFileError(CheckpointError):
    """There is no file of that name."""


class NotAFileError(CheckpointError):
    """The path is a folder, a pipe or a device."""


class UnreadableFileError(CheckpointError):
    """The operating system does not let the file be read."""


class EmptyFileError(CheckpointError):
    """The file has no bytes."""


class TruncatedFileError(CheckpointError):
    """The file ends before what it announces."""


class ChangedFileError(CheckpointError):
    """The file was replaced or damaged between reading its header and reading its tensors."""


class PickleRefusedError(CheckpointError):
    """The file is a pickle, which can run code when it is opened; it was not opened."""


# The header.


class HeaderLengthError(CheckpointError):
    """The announced length of the header is absurd."""


class HeaderEncodingError(CheckpointError):
    """The header is not UTF-8, or holds half of a surrogate pair."""


class HeaderSyntaxError(CheckpointError):
    """The header, or the configuration inside it, is not JSON."""


class HeaderStructureError(CheckpointError):
    """The header is JSON, but not of the form that a checkpoint has."""


class DuplicateKeyError(CheckpointError):
    """A JSON object of the header has the same key twice."""


class NestingError(CheckpointError):
    """The JSON is nested deeper than any configuration needs."""


class NumberRangeError(CheckpointError):
    """A number of the JSON is NaN, infinite, or an integer that 64 bits do not hold."""


# The tensors' places in the file.


class TensorEntryError(CheckpointError):
    """A tensor is not described by exactly a dtype, a shape and two offsets."""


class UnknownDtypeError(CheckpointError):
    """A tensor has a dtype that checkpoints do not use."""


class InvalidShapeError(CheckpointError):
    """A tensor's shape is not a list of non-negative sizes, or overflows."""


class TensorOffsetsError(CheckpointError):
    """A tensor's offsets are not two non-negative integers in order."""


class ByteCountError(CheckpointError):
    """The offsets of a tensor do not span the bytes that its dtype and shape need."""


class MisalignedTensorError(CheckpointError):
    """A tensor does not start at a multiple of its element size, which memory mapping requires."""


class TensorOverlapError(CheckpointError):
    """Two tensors share bytes."""


class TensorHoleError(CheckpointError):
    """Some bytes of the file belong to no tensor."""


# What the file is a checkpoint of.


class ForeignFileError(CheckpointError):
    """A safetensors file that was not written as a checkpoint of this package."""


class FormatVersionError(CheckpointError):
    """The checkpoint is of another format version."""


class UnknownSystemError(CheckpointError):
    """The checkpoint names no system, or one that this version does not have."""


class InvalidConfigError(CheckpointError):
    """The configuration is missing, is not JSON, or is refused by the model's own rules."""


# What a model asks of it.


class MissingTensorError(CheckpointError):
    """A tensor that the model needs is not in the file."""


class UnexpectedTensorError(CheckpointError):
    """The file has a tensor that the model does not know."""


class TensorShapeError(CheckpointError):
    """A tensor has another shape than the model needs."""


class TensorDtypeError(CheckpointError):
    """A weight is not floating point, or a counter is not an integer."""


class AllocationError(CheckpointError):
    """The configuration asks for more elements than the file holds."""
