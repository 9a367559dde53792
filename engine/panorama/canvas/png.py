"""Writes PNG files: the whole picture stays in Pillow's memory and is compressed at the end."""

import time
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin

from zellige.errors import SizeError

from ...files.atomic import AtomicFile, output_errors
from .canvas import Canvas, Grid, Pixels, Settings

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

    def __init__(self, path: Path, grid: Grid, settings: Settings) -> None:
        if grid.width * grid.height > MOST_PIXELS:
            raise SizeError(
                f"{grid.width}x{grid.height} is too large for {path.name}: PNG is limited to {MOST_PIXELS} pixels "
                "here, because it needs the whole picture in memory. "
                f"Write {path.with_suffix('.tif').name} instead, which has no such limit."
            )
        self._picture: Image.Image | None = None
        self._target = AtomicFile(path)
        super().__init__(self._target, grid, settings, grid.width * grid.height * BYTES_PER_PIXEL)
        self.partial = None  # nothing is on the disk before the whole picture is there

    def _begin(self) -> None:
        self._file = self._target.open()
        self._picture = Image.new("RGB", (self._grid.width, self._grid.height))

    def _take(self, tile: Pixels, top: int, left: int) -> None:
        assert self._picture is not None, "the canvas is open"
        self._picture.paste(Image.fromarray(np.ascontiguousarray(tile)), (left, top))

    def _finish(self) -> None:
        assert self._picture is not None, "the canvas is open"
        chunks = PngImagePlugin.PngInfo()
        if self._settings.description:
            chunks.add_text("Description", self._settings.description)
        began = time.perf_counter()
        with output_errors(self._output.path):
            self._picture.save(self._file, format="PNG", pnginfo=chunks)
        self.seconds.add(encode=time.perf_counter() - began)  # Pillow compresses and writes in turns

    def _abandon(self) -> None:
        self._picture = None  # frees the memory now, even if the canvas lives on
