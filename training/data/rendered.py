"""Rendered pictures of any size, read from their files into arrays on the disk."""

import io
import struct
import tempfile
import warnings
from collections.abc import Iterator
from os import posix_fallocate
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from zellige.errors import DataError, MissingExtraError

from ...engine.files.pictures import MOST_PIXELS, read_picture

__all__ = ["open_rendered"]

Pixels = npt.NDArray[np.uint8]

# What a decoder must know of a tile or strip, beside its size: compression, colours, fill order, predictor, tables of
# JPEG, subsampling and reference levels of YCbCr.
_DECODING = (259, 262, 266, 317, 347, 530, 532)
_SHORT, _LONG, _RATIONAL, _BYTES = 3, 4, 5, 7


def open_rendered(path: Path) -> Pixels:
    """The whole picture, uint8 [H, W, 3].

    A TIFF may be of any size and in any compression that Pillow knows: it is read tile by tile, or strip by strip, into
    a temporary file, so that memory holds no more than one of them. Every other file is read into memory.

    Args:
        path: .tif, or an image of at most 100 million pixels.
    Raises:
        DataError: the file cannot be read, or is no picture of 8-bit RGB.
        MissingExtraError: a TIFF was given and tifffile is not installed.
    """
    if path.suffix.lower() not in (".tif", ".tiff"):
        return np.asarray(read_picture(path))
    if not path.is_file():  # a pipe would block when it is opened
        raise DataError(f"there is no image file {path}; give a TIFF or PNG that was rendered")
    try:
        import tifffile
    except ImportError as error:
        raise MissingExtraError("tifffile", "reading TIFF", "tiff") from error
    try:
        with tifffile.TiffFile(path) as file:
            return _unpacked(file, path)
    except DataError:
        raise
    except Exception as error:  # damaged files lead to many kinds, of tifffile, Pillow, struct and numpy
        telling = isinstance(error, OSError | tifffile.TiffFileError)
        reason = " ".join(str(error).split()) if telling else "it is damaged"
        raise DataError(f"{path} cannot be read as TIFF ({reason.rstrip('.')}); render or save it again") from error


def _unpacked(file: Any, path: Path) -> Pixels:
    page = file.pages.first
    if page.dtype != np.uint8 or page.samplesperpixel != 3 or page.planarconfig != 1 or page.imagedepth != 1:
        raise DataError(
            f"{path} cannot be measured: it holds {page.dtype} {list(page.shape)}, not 8-bit RGB with the colours of a "
            "pixel side by side; save it so"
        )
    height, width = page.imagelength, page.imagewidth
    down, across = (page.tilelength, page.tilewidth) if page.is_tiled else (min(page.rowsperstrip, height), width)
    if down * across > MOST_PIXELS:
        raise DataError(
            f"{path} is stored in pieces of {across}x{down} pixels, and at most {MOST_PIXELS:,} are read at once; "
            "save it in tiles"
        )
    tags = {code: page.tags[code] for code in _DECODING if code in page.tags}
    whole = _on_disk(height, width, path)
    rows, columns = -(-height // down), -(-width // across)
    for index, piece in enumerate(_pieces(file, page, rows * columns, path)):
        top, left = index // columns * down, index % columns * across
        high = down if page.is_tiled else min(down, height - top)
        pixels = _decoded(piece, high, across, tags)[: height - top, : width - left]
        whole[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
    return whole


def _pieces(file: Any, page: Any, number: int, path: Path) -> Iterator[bytes]:
    """The compressed bytes of every tile or strip, in their order."""
    if len(page.dataoffsets) != number or len(page.databytecounts) != number:
        raise DataError(f"{path} names {len(page.dataoffsets)} pieces and needs {number}; it is damaged or unfinished")
    handle = file.filehandle
    for offset, size in zip(page.dataoffsets, page.databytecounts, strict=True):
        if not 0 < size <= handle.size - offset:
            raise DataError(f"{path} lacks some of its pixels; it is damaged or unfinished, so render it again")
        handle.seek(offset)
        yield handle.read(size)


def _decoded(piece: bytes, height: int, width: int, tags: dict[int, Any]) -> Pixels:
    """One tile or strip as uint8 [height, width, 3]: Pillow reads it as a TIFF of a single strip."""
    entries = {256: (_LONG, [width]), 257: (_LONG, [height]), 258: (_SHORT, [8, 8, 8]), 277: (_SHORT, [3])}
    entries |= {278: (_LONG, [height]), 279: (_LONG, [len(piece)]), 284: (_SHORT, [1])}
    for code, tag in tags.items():
        value = tag.value
        if code == 347:
            entries[code] = (_BYTES, value)
        else:
            entries[code] = (_RATIONAL if code == 532 else _SHORT, [*value] if isinstance(value, tuple) else [value])
    with warnings.catch_warnings():  # sizes are checked by us
        warnings.simplefilter("ignore")
        with Image.open(io.BytesIO(_tiff(entries, piece)), formats=("TIFF",)) as picture:
            pixels = np.asarray(picture.convert("RGB"))
    if pixels.shape != (height, width, 3):
        raise DataError(f"a piece of {width}x{height} pixels was expected and is {pixels.shape[1]}x{pixels.shape[0]}")
    return pixels


def _tiff(entries: dict[int, tuple[int, Any]], strip: bytes) -> bytes:
    """A little-endian TIFF of one strip: header, directory, values that do not fit into it, strip."""
    entries = entries | {273: (_LONG, [0])}
    start = 8 + 2 + 12 * len(entries) + 4  # behind header and directory
    values: dict[int, bytes] = {}
    for code, (kind, value) in entries.items():
        if kind == _BYTES:
            values[code] = bytes(value)
        else:
            values[code] = struct.pack(f"<{len(value)}{'H' if kind == _SHORT else 'I'}", *value)
    outside = b"".join(data for _, data in sorted(values.items()) if len(data) > 4)
    values[273] = struct.pack("<I", start + len(outside))
    directory, at = struct.pack("<H", len(entries)), start
    for code in sorted(entries):
        kind, data = entries[code][0], values[code]
        count = len(data) // {_SHORT: 2, _LONG: 4, _RATIONAL: 8, _BYTES: 1}[kind]
        directory += struct.pack("<HHI", code, kind, count)
        directory += data.ljust(4, b"\0") if len(data) <= 4 else struct.pack("<I", at)
        at += len(data) if len(data) > 4 else 0
    return struct.pack("<2sHI", b"II", 42, 8) + directory + b"\0\0\0\0" + outside + strip


def _on_disk(height: int, width: int, path: Path) -> Pixels:
    """Room for a picture in a temporary file that is gone when the array is."""
    size = height * width * 3
    with tempfile.TemporaryFile() as file:
        try:
            posix_fallocate(file.fileno(), 0, size)  # a disk that fills up later would kill the process
        except OSError as error:
            raise DataError(
                f"{path} takes {size / 2**30:.1f} GiB unpacked, and {tempfile.gettempdir()} has no room for them "
                f"({error.strerror}); set TMPDIR to a folder that has"
            ) from error
        return np.memmap(file, np.uint8, "r+", shape=(height, width, 3))
