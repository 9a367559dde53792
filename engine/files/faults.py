"""One exception class for each way in which a file of any format, or the JSON in it, can be wrong."""

from zellige.errors import CheckpointError

__all__ = [
    "CompressedFileError",
    "DuplicateKeyError",
    "EmptyFileError",
    "EngineFileError",
    "JsonSyntaxError",
    "MissingFileError",
    "NestingError",
    "NotAFileError",
    "NumberRangeError",
    "OtherFormatError",
    "PickleRefusedError",
    "PictureFileError",
    "PointerFileError",
    "SurrogateError",
    "TruncatedFileError",
    "UnreadableFileError",
    "WebPageError",
]


# The file.


class MissingFileError(CheckpointError):
    """There is no file of that name."""


class NotAFileError(CheckpointError):
    """The path is a folder, a pipe, a socket or a device."""


class UnreadableFileError(CheckpointError):
    """The operating system does not let the file be read."""


class EmptyFileError(CheckpointError):
    """The file has no bytes."""


class TruncatedFileError(CheckpointError):
    """The file ends before the content that it announces."""


# The file's format, which its first bytes tell.


class PickleRefusedError(CheckpointError):
    """The file is a pickle. It was not opened, because a pickle can run code when it is opened."""


class EngineFileError(CheckpointError):
    """The file is a TensorRT engine."""


class PointerFileError(CheckpointError):
    """The file is a Git LFS pointer; the content that it points to was not fetched."""


class WebPageError(CheckpointError):
    """The file is a web page that was saved instead of the file that the page offers."""


class CompressedFileError(CheckpointError):
    """The file is compressed, or an archive."""


class PictureFileError(CheckpointError):
    """The file is a picture."""


class OtherFormatError(CheckpointError):
    """The file is of another format, which the message names."""


# JSON.


class JsonSyntaxError(CheckpointError):
    """The text is not JSON."""


class SurrogateError(CheckpointError):
    """A text of the JSON holds half of a surrogate pair, which is no character."""


class DuplicateKeyError(CheckpointError):
    """A JSON object has the same key twice."""


class NestingError(CheckpointError):
    """The JSON is nested deeper than any configuration needs."""


class NumberRangeError(CheckpointError):
    """A number of the JSON is NaN, infinite, or an integer that 64 bits do not hold."""
