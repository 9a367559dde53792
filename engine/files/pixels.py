"""Opens pictures of any size in bounded memory: TIFFs like those of panoramas are read piece by piece."""

import os
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zellige.errors import DataError, MissingExtraError

from . import pictures
from .hostile import open_regular

__all__ = ["READ_AHEAD_BYTES", "is_tiff", "open_pixels", "tiff_page"]

Pixels = NDArray[np.uint8]

# tifffile reads up to 256 MB of segments ahead unless told otherwise.
READ_AHEAD_BYTES = 4 * 2**20
# TIFF's own numbers for the forms that are read piece by piece, and the ratios of bytes of pixels to bytes of the file
# that they reach: deflate 1032, JPEG less, zstd that of the index alone, which has 16 bytes for a tile of 512 x 512.
# Pillow, which holds the whole picture, reads other compressions, and these two if imagecodecs is not installed.
_ZSTD, _JPEG = 50000, 7
_MOST_RATIO = {1: 1100, 8: 1100, 32946: 1100, _JPEG: 1100, _ZSTD: 2**16}
_PREDICTORS, _RGB, _YCBCR, _INTERLEAVED, _ORIENTATION = (1, 2), 2, 6, 1, 274


def open_pixels(path: str | os.PathLike[str]) -> Pixels:
    """The whole picture of an image file; a TIFF of any size is mapped into memory from a temporary file.

    Args:
        path: a TIFF of any size with 8-bit RGB pixels, uncompressed or with deflate or zstd; or an image of up to 100
            million pixels in a format that `read_picture` reads.
    Returns:
        uint8 [H, W, 3]. A mapped TIFF takes memory only for the pages that are read.
    Raises:
        DataError: the file cannot be read, or its pixels do not fit on the disk.
        MissingExtraError: a TIFF was given and tifffile is not installed.
    """
    path = Path(path)
    if not is_tiff(path):
        return np.asarray(pictures.read_picture(path))
    with tiff_page(path) as page:
        if page is None:
            return np.asarray(pictures.read_picture(path))
        needed, free = page.imagelength * page.imagewidth * 3, shutil.disk_usage(tempfile.gettempdir()).free
        if needed > free:
            raise DataError(
                f"{path} needs {needed:,} bytes in the folder {tempfile.gettempdir()}, which has {free:,} free; "
                "set TMPDIR to a folder with more"
            )
        pixels: Pixels = page.asarray(out="memmap", maxworkers=1, buffersize=READ_AHEAD_BYTES)
        return pixels


def is_tiff(path: Path) -> bool:
    """Whether a file's name ends as a TIFF's does."""
    return path.suffix.lower() in (".tif", ".tiff")


@contextmanager
def tiff_page(path: Path, own: bool = False) -> Iterator[Any]:
    """The first page of a TIFF if it can be read piece by piece; None if Pillow has to read it as a whole.

    Args:
        path: the file.
        own: whether this program wrote it. Only then is JPEG read piece by piece, because the header of any tile could
            announce 65,500 x 65,500 pixels, and the codec takes memory for as many.
    Raises:
        DataError: the file is too large for Pillow, or cannot be read; the block's own reads raise it too.
        MissingExtraError: tifffile is not installed.
    """
    try:
        import tifffile
    except ImportError as error:
        raise MissingExtraError("tifffile", "reading TIFF", "tiff") from error
    try:
        with open_regular(path) as file, tifffile.TiffFile(file) as tiff:
            page = tiff.pages.first
            if _is_streamed(page, own):
                size = os.fstat(file.fileno()).st_size
                if page.imagelength * page.imagewidth * 3 > _MOST_RATIO[page.compression] * size:
                    raise DataError(
                        f"{path} is damaged: it has {size} bytes and announces {page.imagewidth}x{page.imagelength} "
                        "pixels; copy or download the file again"
                    )
                yield page
                return
            if page.imagelength * page.imagewidth > pictures.MOST_PIXELS:
                raise DataError(
                    f"{path} has {page.imagewidth}x{page.imagelength} pixels; a TIFF of more than "
                    f"{pictures.MOST_PIXELS:,} must be 8-bit RGB, uncompressed or with deflate, or with zstd if "
                    "imagecodecs is installed; save it so"
                )
    # The errors that damaged files lead to. imagecodecs, if it is installed, decodes deflate too; its errors are
    # RuntimeErrors.
    except (OSError, ValueError, IndexError, RuntimeError, zlib.error, tifffile.TiffFileError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        if isinstance(error, IndexError):
            reason = "it holds no picture"
        raise DataError(f"{path} cannot be read as a TIFF picture: {reason}") from error
    yield None


def _is_streamed(page: Any, own: bool) -> bool:
    form = page.compression, page.predictor, page.photometric, page.planarconfig
    return bool(
        page.dtype == np.uint8
        and page.samplesperpixel == 3
        and form[0] in _MOST_RATIO
        and (form[0] not in (_ZSTD, _JPEG) or find_spec("imagecodecs") is not None)
        and (form[0] != _JPEG or own)
        and form[1] in _PREDICTORS
        and form[2] == (_YCBCR if form[0] == _JPEG else _RGB)
        and form[3] == _INTERLEAVED
        and page.tags.valueof(_ORIENTATION, default=1) == 1
    )
