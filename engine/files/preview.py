"""Reduces a picture of any size to a preview that fits a screen."""

import math
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .pictures import read_picture
from .pixels import READ_AHEAD_BYTES, is_tiff, tiff_page
from .pyramids import is_pyramid, tiles_of

__all__ = ["preview"]

Pixels = NDArray[np.uint8]


def preview(path: str | os.PathLike[str], max_width: int = 2048) -> Image.Image:
    """Reduce a picture of any size to one that fits a screen.

    Each pixel of the preview is the mean of a box of f x f pixels, f = ceil(max(W, H) / max_width); a box that the
    border cuts is the mean of its pixels inside. A TIFF of 8-bit RGB as Zellige writes it and a pyramid (.zarr, .dzi)
    are read tile by tile. This takes about 20 bytes of memory for each pixel of the preview plus some tiles, whatever
    the size of the picture. Other images are read whole, up to 100 million pixels.

    Args:
        path: an image file or a pyramid, of which a TIFF with JPEG and a pyramid must come from this program, because
            their sizes are taken for true.
        max_width: the bound on both sides of the preview, in pixels.
    Returns:
        An RGB image of ceil(W / f) x ceil(H / f) pixels.
    Raises:
        DataError: the file cannot be read.
        MissingExtraError: a TIFF was given and tifffile is not installed, or a Zarr and zarr is not.
    """
    path = Path(path)
    if is_pyramid(path):
        return _box_means(*tiles_of(path), max_width)
    if is_tiff(path):
        with tiff_page(path, own=True) as page:
            if page is not None:
                pieces = page.segments(maxworkers=1, buffersize=READ_AHEAD_BYTES)
                tiles = ((pixels[0], place[2], place[3]) for pixels, place, _ in pieces if pixels is not None)
                return _box_means(page.imagelength, page.imagewidth, tiles, max_width)
    picture = read_picture(path)
    return picture.reduce(math.ceil(max(picture.size) / max_width))


def _box_means(height: int, width: int, tiles: Iterable[tuple[Pixels, int, int]], max_width: int) -> Image.Image:
    boxes = _BoxMean(height, width, math.ceil(max(height, width) / max_width))
    for pixels, top, left in tiles:
        boxes.add(pixels, top, left)
    return Image.fromarray(boxes.mean())


class _BoxMean:
    """Means over boxes of factor x factor pixels, summed while the picture's pieces come in."""

    def __init__(self, height: int, width: int, factor: int) -> None:
        self.height, self.width, self.factor = height, width, factor
        # uint32 holds the sum of 4,096 x 4,096 pixels of 255.
        self._sums = np.zeros((math.ceil(height / factor), math.ceil(width / factor), 3), np.uint32)

    def add(self, piece: Pixels, top: int, left: int) -> None:
        """Add pixels [h, w, 3], the first of which lies at (top, left); pixels outside of the picture are dropped."""
        piece = piece[: self.height - top, : self.width - left]
        for axis, start in ((0, top), (1, left)):
            inner = np.arange(self.factor - start % self.factor, piece.shape[axis], self.factor)
            piece = np.add.reduceat(piece, np.concatenate(([0], inner)), axis=axis, dtype=np.uint32)
        row, column = top // self.factor, left // self.factor
        self._sums[row : row + piece.shape[0], column : column + piece.shape[1]] += piece

    def mean(self) -> Pixels:
        """Return the rounded means, uint8 [H', W', 3]; call it once, because it overwrites the sums."""
        down, across = (
            np.minimum(self.factor, side - np.arange(0, side, self.factor)).astype(np.uint32)
            for side in (self.height, self.width)
        )
        means = np.empty(self._sums.shape, np.uint8)
        for row, sums, rows in zip(means, self._sums, down, strict=True):  # row by row: no second array of sums
            pixels = (rows * across)[:, None]
            row[:] = (sums + pixels // 2) // pixels
        return means
