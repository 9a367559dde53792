"""Writes PNG files: the whole picture stays in Pillow's memory and is compressed at the end."""

from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from zellige.errors import SizeError

from ...files.atomic import output_errors
from .canvas import Canvas, Grid, Pixels

__all__ = ["PngCanvas"]

MOST_PIXELS = 2**26
# Pillow stores RGB in four bytes a pixel.
BYTES_PER_PIXEL = 4


class PngCanvas(Canvas):
    """A PNG file of up to 64 megapixels.

    Raises:
        SizeError: the picture has more pixels.
        OutputError: the path cannot be written.
    """

    def __init__(self, path: Path, grid: Grid) -> None:
        if grid.width * grid.height > MOST_PIXELS:
            raise SizeError(
                f"{grid.width}x{grid.height} is too large for {path.name}: PNG is limited to {MOST_PIXELS} pixels "
                "here, because it needs the whole picture in memory. "
                f"Write {path.with_suffix('.tif').name} instead, which has no such limit."
            )
        super().__init__(path, grid, grid.width * grid.height * BYTES_PER_PIXEL)

    def _begin(self, file: BinaryIO) -> None:
        self._file = file
        self._picture = Image.new("RGB", (self._grid.width, self._grid.height))

    def _take(self, tile: Pixels, top: int, left: int) -> None:
        self._picture.paste(Image.fromarray(np.ascontiguousarray(tile)), (left, top))

    def _finish(self) -> None:
        with output_errors(self._output.path):
            self._picture.save(self._file, format="PNG")

    def _abandon(self) -> None:
        del self._picture  # frees the memory now, even if the canvas lives on
