"""Images as uint8 arrays and as files: conversion, files that appear only when complete, contact sheets, previews."""

import math
import os
import secrets
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from zellige.errors import DataError, MissingExtraError, OutputError, ShapeError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["AtomicFile", "contact_sheet", "output_errors", "preview", "to_uint8", "write_png"]

Pixels = NDArray[np.uint8]

# tifffile reads up to 256 MB of segments ahead unless told otherwise.
READ_AHEAD_BYTES = 4 * 2**20


def to_uint8(images: "Tensor") -> Pixels:
    """Turn a network's output into 8-bit images.

    y = clamp(round((v + 1) * 127.5), 0, 255), computed in float32, halves to even.

    Args:
        images: [N, 3, H, W], values in [-1, 1] (those outside are clipped), any floating dtype, any device.
    Returns:
        uint8 [N, H, W, 3], contiguous, in host memory.
    Raises:
        ShapeError: images is not a floating tensor [N, 3, H, W].
    """
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise ShapeError(f"images must be a floating tensor [N, 3, H, W]; got {images.dtype} {list(images.shape)}")
    levels = (images.detach().float() + 1).mul_(127.5).round_().clamp_(0, 255).byte()
    # Permuted before the copy to the host: the device does it faster, and a quarter of the bytes travel.
    pixels: Pixels = levels.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return pixels


@contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals (disk full, no permission) into one sentence about `path`."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(
            f"{path} cannot be written: {reason}. Free some space there or choose another path."
        ) from error


class AtomicFile:
    """A binary file that appears under its name only when it is complete.

    It is written under a temporary name in the same folder, flushed to the disk, then renamed over the target, so
    that no reader ever sees half of it and an older file survives every failure. Use it as a context manager, or
    call `open`, then `commit` or `discard`. `discard` after `commit` does nothing.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Check that `path` can be written, by creating and removing a file beside it.

        Raises:
            OutputError: the folder is missing or read-only, or the path is a folder, a device or a pipe.
        """
        self.path = Path(path)
        # Renaming over a symbolic link would replace the link instead of what it points to.
        self._target = Path(os.path.realpath(path))
        self._temporary = self._target.with_name(f".zellige-{secrets.token_hex(8)}.partial")
        self._file: BinaryIO | None = None
        with output_errors(self.path):  # looking at a name that is too long or hidden fails, too
            if self._target.is_dir():
                raise OutputError(f"{self.path} is a folder; give the name of a file in it.")
            if self._target.exists() and not self._target.is_file():
                raise OutputError(f"{self.path} is a device or a pipe; give the name of an ordinary file.")
            if not self._target.parent.is_dir():
                raise OutputError(
                    f"{self.path} cannot be written: there is no folder {self._target.parent}; create it."
                )
        self.open()
        self.discard()

    def open(self) -> BinaryIO:
        """Create the temporary file and return it, open for writing."""
        with output_errors(self.path):
            self._file = open(self._temporary, "xb")  # noqa: SIM115 - closed by commit or discard
        return self._file

    def commit(self) -> None:
        """Make the file durable, then let it take its name."""
        assert self._file is not None, "open() comes first"
        with output_errors(self.path):
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            os.replace(self._temporary, self._target)
            self._file = None
            _sync_folder(self._target.parent)

    def discard(self) -> None:
        """Remove the temporary file; the target stays as it was."""
        if self._file is None:
            return
        with suppress(OSError):  # closing flushes, and on a full disk that fails again
            self._file.close()
        self._temporary.unlink(missing_ok=True)
        self._file = None

    def __enter__(self) -> BinaryIO:
        return self.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self.commit()
        finally:
            self.discard()


def _sync_folder(folder: Path) -> None:
    # The new name lives in the folder, and is durable only once that is. Some network file systems and Windows
    # cannot open a folder for this; the file itself is complete there too.
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_png(path: str | os.PathLike[str], image: Pixels) -> None:
    """Write one image as PNG; the file appears complete or not at all.

    Args:
        path: where to; an existing file is replaced.
        image: uint8 [H, W, 3].
    Raises:
        ShapeError: image is not uint8 [H, W, 3].
        OutputError: the path cannot be written.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ShapeError(f"a PNG file is written from uint8 [H, W, 3]; got {image.dtype} {list(image.shape)}")
    output = AtomicFile(path)
    with output as file, output_errors(output.path):
        Image.fromarray(np.ascontiguousarray(image)).save(file, format="PNG")


def contact_sheet(images: Pixels, columns: int | None = None, gap: int = 2) -> Pixels:
    """Lay images out in a grid on white, row by row.

    Args:
        images: uint8 [N, H, W, 3], N >= 1.
        columns: images a row; None takes the number that makes the sheet most nearly square in pixels, the smaller
            of two equals: eight panoramas of 1024x128 stack in one column.
        gap: pixels between neighbours.
    Returns:
        uint8 [rows * H + (rows - 1) * gap, columns * W + (columns - 1) * gap, 3].
    Raises:
        ShapeError: images is not uint8 [N, H, W, 3] with N >= 1, or columns is not positive.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or 0 in images.shape:
        raise ShapeError(f"a contact sheet is made of uint8 [N, H, W, 3]; got {images.dtype} {list(images.shape)}")
    if columns is not None and columns < 1:
        raise ShapeError(f"a contact sheet needs at least one column; got {columns}")
    number, height, width, _ = images.shape

    def sides(columns: int) -> tuple[int, int]:
        rows = math.ceil(number / columns)
        return rows * (height + gap) - gap, columns * (width + gap) - gap

    def elongation(columns: int) -> float:
        down, across = sides(columns)
        return max(down / across, across / down)

    if columns is None:
        columns = min(range(1, number + 1), key=elongation)
    sheet = np.full((*sides(columns), 3), 255, np.uint8)
    for index, image in enumerate(images):
        top, left = index // columns * (height + gap), index % columns * (width + gap)
        sheet[top : top + height, left : left + width] = image
    return sheet


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
