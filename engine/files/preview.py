"""Pictures of any size, reduced to one that fits a screen."""

import math
import os
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from zellige.errors import DataError, MissingExtraError

__all__ = ["READ_AHEAD_BYTES", "preview"]

Pixels = NDArray[np.uint8]

# tifffile reads up to 256 MB of segments ahead unless told otherwise.
READ_AHEAD_BYTES = 4 * 2**20


def preview(path: str | os.PathLike[str], max_width: int = 2048) -> Image.Image:
    """Reduce a picture of any size to one that fits a screen.

    Each pixel of the preview is the mean of a box of f x f pixels, f = ceil(max(W, H) / max_width); boxes that the
    border cuts average what is there. A TIFF is read tile by tile: the memory is about 20 bytes a pixel of the
    preview plus some tiles, whatever the size of the file. A PNG is read whole.

    Args:
        path: a PNG file, or a TIFF with uint8 RGB pixels.
        max_width: the bound on both sides of the preview, in pixels.
    Returns:
        An RGB image of ceil(W / f) x ceil(H / f) pixels.
    Raises:
        DataError: the file cannot be read, or is not an 8-bit RGB picture.
        MissingExtraError: a TIFF was given and tifffile is not installed.
    """
    if Path(path).suffix.lower() in (".tif", ".tiff"):
        return _preview_tiff(Path(path), max_width)
    try:
        with Image.open(path) as image:
            return image.convert("RGB").reduce(math.ceil(max(image.size) / max_width))
    except (OSError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} cannot be read as an image: {error}") from error


def _preview_tiff(path: Path, max_width: int) -> Image.Image:
    try:
        import tifffile
    except ImportError as error:
        raise MissingExtraError("tifffile", "reading TIFF", "tiff") from error
    try:
        with tifffile.TiffFile(path) as file:
            page = file.pages.first
            if page.dtype != np.uint8 or page.samplesperpixel != 3 or page.planarconfig != 1:
                raise DataError(f"{path} is not an 8-bit RGB picture; a preview needs one.")
            boxes = _BoxMean(
                page.imagelength, page.imagewidth, math.ceil(max(page.imagelength, page.imagewidth) / max_width)
            )
            for pixels, (_, _, top, left, _), _ in page.segments(maxworkers=1, buffersize=READ_AHEAD_BYTES):
                if pixels is not None:
                    boxes.add(pixels[0], top, left)
            return Image.fromarray(boxes.mean())
    except (OSError, ValueError, zlib.error, tifffile.TiffFileError) as error:  # what damaged files lead to
        raise DataError(f"{path} cannot be read as a TIFF picture: {error}") from error


class _BoxMean:
    """The mean over boxes of factor x factor pixels of a picture that comes in pieces."""

    def __init__(self, height: int, width: int, factor: int) -> None:
        self.height, self.width, self.factor = height, width, factor
        # uint32 holds the sum of a box of 4,096 x 4,096 pixels of 255.
        self._sums = np.zeros((math.ceil(height / factor), math.ceil(width / factor), 3), np.uint32)

    def add(self, piece: Pixels, top: int, left: int) -> None:
        """Add the pixels [h, w, 3] whose first one lies at (top, left); what lies outside of the picture is padding."""
        piece = piece[: self.height - top, : self.width - left]
        for axis, start in ((0, top), (1, left)):
            inner = np.arange(self.factor - start % self.factor, piece.shape[axis], self.factor)
            piece = np.add.reduceat(piece, np.concatenate(([0], inner)), axis=axis, dtype=np.uint32)
        row, column = top // self.factor, left // self.factor
        self._sums[row : row + piece.shape[0], column : column + piece.shape[1]] += piece

    def mean(self) -> Pixels:
        """Return the rounded means, uint8 [H', W', 3]; the sums are used up."""
        down, across = (
            np.minimum(self.factor, side - np.arange(0, side, self.factor)).astype(np.uint32)
            for side in (self.height, self.width)
        )
        means = np.empty(self._sums.shape, np.uint8)
        for row, sums, rows in zip(means, self._sums, down, strict=True):  # row by row: no second array of sums
            pixels = (rows * across)[:, None]
            row[:] = (sums + pixels // 2) // pixels
        return means
