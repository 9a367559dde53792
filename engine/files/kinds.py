"""Tells a file's format from its first bytes, because names often lie and each wrong format has its own remedy."""

import re
from dataclasses import dataclass

from zellige.errors import CheckpointError

from . import faults

__all__ = ["ONNX", "PICKLE", "SAFETENSORS", "START_BYTES", "ZIPPED", "Kind", "kind_of"]

START_BYTES = 512  # the bytes at a file's beginning from which its format is told


@dataclass(frozen=True)
class Kind:
    """A format.

    Attributes:
        title: the name for people, such as "a TensorRT engine".
        advice: the remedy if a model was wanted.
        fault: the error if a model was wanted.
    """

    title: str
    advice: str
    fault: type[CheckpointError] = faults.OtherFormatError


_CONVERT = "turn weights of a known program into a model with: zellige convert FILE --out model.safetensors"
PICKLE = Kind("a pickle, which can run code when it is opened", _CONVERT, faults.PickleRefusedError)
ZIPPED = Kind(
    "a ZIP archive, in which torch.save keeps a pickle, which can run code when it is opened", _CONVERT,
    faults.PickleRefusedError,
)  # fmt: skip
SAFETENSORS = Kind("a safetensors file", "give it a name that ends in .safetensors")
ONNX = Kind("an ONNX model", "give it a name that ends in .onnx")
_ENGINE = Kind(
    "a TensorRT engine, which runs on one kind of GPU and names no model",
    "load the .onnx file or the checkpoint that it was built from, or run it with "
    "zellige.engine.tensorrt.opened.open_engine",
    faults.EngineFileError,
)
_POINTER = Kind(
    "a pointer of Git LFS in place of the file", "fetch the file with: git lfs pull", faults.PointerFileError
)
_PAGE = Kind(
    "a web page in place of the file",
    "download the file itself; on Hugging Face and GitHub its address has /resolve/ or /raw/ where the page's has "
    "/blob/, and it may ask for a login",
    faults.WebPageError,
)
_JSON = Kind("JSON text", "name the file of the weights, which lies beside a configuration or an index")
_NAME_MODEL = "name the checkpoint of a model, which ends in .safetensors, or an exported .onnx file"


def _compressed(name: str) -> Kind:
    return Kind(f"compressed by {name}", "unpack it and name the model in it", faults.CompressedFileError)


def _picture(name: str) -> Kind:
    return Kind(f"a {name} picture", _NAME_MODEL, faults.PictureFileError)


# The place of the bytes, the bytes, and the format that they tell.
_SIGNATURES: tuple[tuple[int, bytes, Kind], ...] = (
    (1, b"trt", _ENGINE),
    (0, b"PK\x03\x04", ZIPPED),
    *((0, bytes((0x80, protocol)), PICKLE) for protocol in range(2, 6)),
    (0, b"version https://git-lfs", _POINTER),
    (0, b"\x89HDF\r\n\x1a\n", Kind("an HDF5 file, as Keras writes", _NAME_MODEL)),
    (0, b"GGUF", Kind("a GGUF file, which holds a language model", _NAME_MODEL)),
    (0, b"\x93NUMPY", Kind("an array of NumPy", _NAME_MODEL)),
    (0, b"%PDF", Kind("a PDF document", _NAME_MODEL)),
    (0, b"\x89PNG\r\n\x1a\n", _picture("PNG")),
    (0, b"\xff\xd8\xff", _picture("JPEG")),
    (0, b"GIF8", _picture("GIF")),
    (0, b"II*\0", _picture("TIFF")),
    (0, b"MM\0*", _picture("TIFF")),
    (8, b"WEBP", _picture("WebP")),
    (0, b"\x1f\x8b", _compressed("gzip")),
    (0, b"BZh", _compressed("bzip2")),
    (0, b"\xfd7zXZ\0", _compressed("xz")),
    (0, b"\x28\xb5\x2f\xfd", _compressed("zstd")),
    (0, b"7z\xbc\xaf\x27\x1c", _compressed("7-Zip")),
    (0, b"Rar!", _compressed("RAR")),
    (257, b"ustar", Kind("a tar archive", "unpack it and name the model in it", faults.CompressedFileError)),
)
_PAGE_BEGINS = re.compile(rb"(\xef\xbb\xbf)?\s*<(!doctype html|html|head|\?xml|!--)", re.IGNORECASE)
_JSON_BEGINS = re.compile(rb'(\xef\xbb\xbf)?\s*(\{\s*["}]|\[\s*[\[{"\d\]])')
# The IR version, then the name of the producer, the graph or the operator sets.
_ONNX_BEGINS = re.compile(rb"\x08[\x01-\x20][\x12\x1a\x22\x28\x32\x3a\x42]")


def kind_of(start: bytes) -> Kind | None:
    """The format of a file that begins with these (up to `START_BYTES`) bytes; None if the format is not known here.

    safetensors is tried first, because its file begins with a length, which can look like any other format's bytes.
    """
    if _is_safetensors(start):
        return SAFETENSORS
    for place, signature, kind in _SIGNATURES:
        if start.startswith(signature, place):
            return kind
    for pattern, kind in ((_PAGE_BEGINS, _PAGE), (_JSON_BEGINS, _JSON), (_ONNX_BEGINS, ONNX)):
        if pattern.match(start):
            return kind
    return None


def _is_safetensors(start: bytes) -> bool:
    """Whether the bytes are a length below 32 MiB, followed by a JSON object unless the file ends after the length."""
    length, rest = start[:8], start[8:9]
    return len(length) == 8 and not any(length[4:]) and length[3] <= 1 and rest in (b"", b"{")
