"""One exception class for each way in which a checkpoint can be wrong; faults of any file are in `files/faults.py`."""

from zellige.errors import CheckpointError

from ..files.faults import (
    CompressedFileError,
    DuplicateKeyError,
    EmptyFileError,
    EngineFileError,
    JsonSyntaxError,
    MissingFileError,
    NestingError,
    NotAFileError,
    NumberRangeError,
    OtherFormatError,
    PickleRefusedError,
    PictureFileError,
    PointerFileError,
    SurrogateError,
    TruncatedFileError,
    UnreadableFileError,
    WebPageError,
)

__all__ = [
    "AllocationError",
    "ByteCountError",
    "ChangedFileError",
    "CompressedFileError",
    "DuplicateKeyError",
    "EmptyFileError",
    "EngineFileError",
    "ForbiddenNameError",
    "ForeignContentError",
    "ForeignFileError",
    "ForeignKeysError",
    "FormatVersionError",
    "HeaderEncodingError",
    "HeaderLengthError",
    "HeaderStructureError",
    "InvalidConfigError",
    "InvalidShapeError",
    "JsonSyntaxError",
    "MisalignedTensorError",
    "MissingFileError",
    "MissingSystemError",
    "MissingTensorError",
    "NestingError",
    "NotAFileError",
    "NotFiniteError",
    "NumberRangeError",
    "OtherFormatError",
    "PickleRefusedError",
    "PictureFileError",
    "PointerFileError",
    "PrefixedNamesError",
    "ReadingLimitError",
    "SurrogateError",
    "TensorDtypeError",
    "TensorEntryError",
    "TensorHoleError",
    "TensorOffsetsError",
    "TensorOverlapError",
    "TensorShapeError",
    "TruncatedFileError",
    "UnconvertibleError",
    "UnexpectedTensorError",
    "UnknownDtypeError",
    "UnknownLayoutError",
    "UnreadableFileError",
    "WebPageError",
]


class ChangedFileError(CheckpointError):
    """The file was replaced or damaged between reading its header and reading its tensors."""


# The header.


class HeaderLengthError(CheckpointError):
    """The announced length of the header is absurd."""


class HeaderEncodingError(CheckpointError):
    """The header is not UTF-8."""


class HeaderStructureError(CheckpointError):
    """The header is JSON without the structure of a checkpoint's header."""


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


# The model that the file describes.


class ForeignFileError(CheckpointError):
    """The file is a safetensors file that this package did not write as a checkpoint."""


class FormatVersionError(CheckpointError):
    """The checkpoint has another format version."""


class MissingSystemError(CheckpointError):
    """The checkpoint does not name the system of its model."""


class InvalidConfigError(CheckpointError):
    """The configuration is missing, is not JSON, or breaks a rule of its model."""


# The tensors that the model needs.


class MissingTensorError(CheckpointError):
    """A tensor that the model needs is not in the file."""


class UnexpectedTensorError(CheckpointError):
    """The file has a tensor that the model does not know."""


class TensorShapeError(CheckpointError):
    """A tensor does not have the shape that the model needs."""


class PrefixedNamesError(CheckpointError):
    """All tensors are there, but a wrapper such as DataParallel put a prefix before their names."""


class TensorDtypeError(CheckpointError):
    """A weight is not of floating point."""


class NotFiniteError(CheckpointError):
    """A tensor holds NaN or an infinity."""


class AllocationError(CheckpointError):
    """The configuration asks for more weights than the file holds, or more memory than the device has."""


# Weights that another program wrote.


class ForbiddenNameError(CheckpointError):
    """A pickle names a class or function that weights have no need of; nothing of it was called."""


class ForeignContentError(CheckpointError):
    """The content is damaged, or it is no tensors and plain values."""


class ReadingLimitError(CheckpointError):
    """Reading takes more memory, time or depth than a file of this size should need."""


class UnknownLayoutError(CheckpointError):
    """No system knows the names of the tensors."""


class UnconvertibleError(CheckpointError):
    """A system knows the names, and its networks cannot compute what these weights are for."""


class ForeignKeysError(CheckpointError):
    """Tensors of a known layout are missing, unexpected or of another shape; the message lists their keys."""
