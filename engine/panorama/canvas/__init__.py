"""Picture files of any size, written tile by tile; each format is a module of this folder and a row in `FORMATS`."""

import math
import os
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from zellige.errors import OutputError, SizeError

if TYPE_CHECKING:
    from .canvas import Canvas

__all__ = ["FORMATS", "listed", "open_canvas"]

# Module and class for each extension. A module is imported when a file is opened, because `zellige --help` needs only
# the extensions.
FORMATS = {
    ".tif": ("tiff", "TiffCanvas"),
    ".tiff": ("tiff", "TiffCanvas"),
    ".png": ("png", "PngCanvas"),
}
_LARGEST_TILE = 512
# Many readers that use libtiff keep each side in a signed 32-bit integer.
_LARGEST_SIDE = 2**31 - 1


def open_canvas(path: str | os.PathLike[str], width: int, height: int, *, patch: int) -> "Canvas":
    """Prepare a picture file in the format of its extension.

    An existing file is replaced once the new one is complete. Every error that can be foreseen is raised here, before
    any rendering. Nothing stays on the disk before the canvas is entered.

    Args:
        path: the file, with an extension in FORMATS.
        width, height: size of the picture in pixels, >= 1.
        patch: side of a patch in pixels. A tile's side is a common multiple of it and of 16 (which TIFF demands) if
            there is one up to 512, so that few patches are cut by two tiles.
    Returns:
        A canvas, to be used in a `with` statement.
    Raises:
        OutputError: the extension is unknown, or the path cannot be written.
        SizeError: the picture is larger than the format allows.
        MissingExtraError: a package that writes the format is not installed.
    """
    from .canvas import Grid

    path = Path(path)
    extension = path.suffix.lower()
    if extension not in FORMATS:
        raise OutputError(f"{path} has no known picture format; name it {listed()}.")
    if width < 1 or height < 1:
        raise SizeError(f"A picture of {width}x{height} pixels has no pixels; both sides must be at least 1.")
    if max(width, height) > _LARGEST_SIDE:
        raise SizeError(f"{width}x{height} is too large for a picture file: no side may exceed {_LARGEST_SIDE} pixels.")
    module, name = FORMATS[extension]
    canvas: Canvas = getattr(import_module(f".{module}", __package__), name)(
        path, Grid(height, width, _tile_shape(height, width, patch))
    )
    return canvas


def listed() -> str:
    """The extensions as words of a sentence: ".tif, .tiff or .png"."""
    *most, last = FORMATS
    return f"{', '.join(most)} or {last}"


def _tile_shape(height: int, width: int, patch: int) -> tuple[int, int]:
    unit = math.lcm(16, patch)
    largest = _LARGEST_TILE // unit * unit or _LARGEST_TILE
    return min(largest, math.ceil(height / 16) * 16), min(largest, math.ceil(width / 16) * 16)
